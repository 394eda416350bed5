use super::*;
use crate::carry::record::Record;
use crate::carry::stamps::ExecUnknown;
use crate::host::boot_params::SetupDataNode;
use crate::testing::host::{Says as _, host};

/// 1 GHz: a tick is a nanosecond. 30 s after boot the counter shows 100 s.
const CLOCK: Clock = Clock {
    ticks: 20_000_000,
    within: Duration::from_millis(20),
    now: 100_000_000_000,
    uptime: Duration::from_secs(30),
    asleep: Duration::ZERO,
};
/// The kernel was entered 32 s ago, and started init 27 s ago.
const STAMPS: Stamps = Stamps {
    load: Some(Duration::from_millis(1500)),
    exec: Ok(67_250_000_000),
    entered: 67_750_000_000,
    verified: 68_000_000_000,
};
const INIT: Option<Duration> = Some(Duration::from_secs(3));

fn millis(times: [Time; 4]) -> [Result<u128, &'static str>; 4] {
    times.map(|time| time.map(|time| time.as_millis()))
}

#[test]
fn all_four_are_measured() {
    let known = millis(times(STAMPS, Ok(CLOCK), INIT));
    assert_eq!(known, [Ok(1500), Ok(500), Ok(250), Ok(5000)]);
}

#[test]
fn what_is_not_known_is_not_measured() {
    let only = |stamps, clock, init| millis(times(stamps, clock, init));
    let lost = Stamps {
        load: None,
        exec: Err(ExecUnknown::PageLost),
        ..STAMPS
    };
    let why = Err(ExecUnknown::PageLost.why());
    let expected = [why, why, Ok(250), Ok(5000)];
    assert_eq!(only(lost, Ok(CLOCK), INIT), expected);
    let not_called = Stamps {
        exec: Err(ExecUnknown::NotStamped),
        ..STAMPS
    };
    let [load, exec, ..] = only(not_called, Ok(CLOCK), INIT);
    assert_eq!(load, Ok(1500));
    assert_eq!(exec, Err(ExecUnknown::NotStamped.why()));

    let [.., verification, kernel] = only(STAMPS, Ok(CLOCK), None);
    assert_eq!(verification, Ok(250));
    assert!(kernel.unwrap_err().contains("no longer has the line"));

    let no_clock = Err("no clock");
    assert_eq!(
        only(STAMPS, no_clock, INIT),
        [
            Ok(1500),
            no_clock.map(|_: Clock| 0),
            Err("no clock"),
            Err("no clock")
        ]
    );
    let slept = Clock {
        asleep: Duration::from_secs(1),
        ..CLOCK
    };
    let [_, _, verification, kernel] = only(STAMPS, Ok(slept), INIT);
    assert_eq!(verification, Ok(250));
    assert!(kernel.unwrap_err().contains("slept"));
}

#[test]
fn a_counter_that_was_set_back_gives_no_time() {
    let back = Err("the time stamp counter was set back");
    let stamps = Stamps {
        exec: Ok(STAMPS.entered + 1),
        verified: STAMPS.entered - 1,
        ..STAMPS
    };
    let found = millis(times(stamps, Ok(CLOCK), INIT));
    assert_eq!(found[1..3], [back, back]);
    // Init later than now, and before the kernel was entered.
    for (init, uptime) in [(31, 30), (3, 300)] {
        let clock = Clock {
            uptime: Duration::from_secs(uptime),
            ..CLOCK
        };
        let init = Some(Duration::from_secs(init));
        let [.., kernel] = millis(times(STAMPS, Ok(clock), init));
        assert_eq!(kernel, back);
    }
}

#[test]
fn the_downtime_is_known_only_with_its_three_phases() {
    let phase = |time: Result<u64, &'static str>| Phase {
        name: "",
        what: "",
        time: time.map(Duration::from_secs).map_err(Cow::Borrowed),
    };
    let all = [Ok(100), Ok(1), Ok(2), Ok(3)].map(phase);
    assert_eq!(downtime(&all), Some(Duration::from_secs(6)));
    for number in 0..4 {
        let mut some = all.clone();
        some[number] = phase(Err("x"));
        // The load is no part of it.
        assert_eq!(downtime(&some).is_some(), number == 0, "{number}");
    }
}

#[test]
fn the_stamps_are_found_in_the_chain() {
    let mut machine =
        host("00100000-3fffffff : System RAM\n").boot_e820([(0x10_0000, 0x3fff_ffff, 1)]);
    let record: Record = serde_json::from_str(
        r#"{ "rkexec": "0.1.0", "loaded_at": 0, "from": "6.1", "release": null, "cmdline": "",
             "e820": [], "e820_complete": true, "setup_data": [], "device_tree": null,
             "kernel": null, "initrd": [], "pools": [] }"#,
    )
    .unwrap();
    let why = |host: &Host, record: Option<&Record>| {
        let phases = phases(host, record, || Ok(CLOCK), || INIT);
        phases.map(|phase| phase.time.map(|time| time.as_millis()))
    };
    let all = |why: &[Result<u128, Cow<'static, str>>; 4], text: &str| {
        for why in why {
            assert!(why.as_ref().unwrap_err().contains(text), "{why:?}");
        }
    };
    all(&why(&machine, None), "kexec_file_load");
    all(&why(&machine, Some(&record)), "left no time stamps");
    for (untimed, text) in [
        (Untimed::CrashKernel, "a crash kernel"),
        (Untimed::ConfidentialGuest, "a confidential guest"),
        (Untimed::UnsteadyCounter, "keeps its rate"),
    ] {
        let record = Record {
            untimed: Some(untimed),
            ..record.clone()
        };
        all(&why(&machine, Some(&record)), text);
    }
    let nodes = &mut machine.boot_params.as_mut().unwrap().setup_data;
    let mut node = |data| nodes.push(SetupDataNode { kind: 0, data });
    node(b"somebody else's".to_vec());
    node(Stamps::blank());
    all(
        &why(&machine, Some(&record)),
        "purgatory left no time stamps",
    );
    let words = [1_500_000_000, 0, STAMPS.entered, STAMPS.verified, 2];
    let words = words.into_iter().flat_map(u64::to_le_bytes);
    let filled = b"RKXTIME1".iter().copied().chain(words).collect();
    machine.boot_params.as_mut().unwrap().setup_data[1].data = filled;
    let [load, exec, verification, kernel] = why(&machine, Some(&record));
    assert_eq!((load, verification, kernel), (Ok(1500), Ok(250), Ok(5000)));
    assert_eq!(exec.unwrap_err(), ExecUnknown::PageLost.why());
}

#[test]
fn who_leaves_no_stamps() {
    let cpu = Cpu {
        steady_tsc: true,
        ..Cpu::default()
    };
    assert_eq!(Untimed::of(&cpu), None);
    assert_eq!(Untimed::of(&Cpu::default()), Some(Untimed::UnsteadyCounter));
    let guest = Cpu {
        confidential: Some("sev_snp"),
        ..cpu
    };
    assert_eq!(Untimed::of(&guest), Some(Untimed::ConfidentialGuest));
}
