//! `rkexec report` on machines that received what the record says, or nearly.

use rkexec::carry::Protection;
use rkexec::carry::phases::Untimed;
use rkexec::carry::pool_node::pools_of;
use rkexec::carry::record::{Blob as Digested, CarriedName, KhoRecord, Placed, PoolRecord, Record};
use rkexec::carry::stamps::Stamps;
use rkexec::fdt::DeviceTree;
use rkexec::purgatory;
use serde_json::Value;

use crate::Lab;
use crate::blob::Blob;

const LINE: &str = "quiet pmpool=0x10000000,0x4000000 nokaslr";
const SETUP_DATA: &str = "m/sys/kernel/boot_params/setup_data";

fn tree(size: u64) -> Vec<u8> {
    Blob::new()
        .begin("chosen")
        .pool("default_pmpool", 0x1000_0000, size, 0x1000_0000)
        .end()
        .build()
}

/// The zero page with these e820 entries (Documentation/arch/x86/zero-page.rst).
fn zero_page(e820: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut page = vec![0; 4096];
    page[0x1e8] = e820.len().try_into().unwrap();
    for (number, (start, size, kind)) in e820.iter().enumerate() {
        let entry = [
            &start.to_le_bytes()[..],
            &size.to_le_bytes(),
            &kind.to_le_bytes(),
        ];
        let at = 0x2d0 + number * 20;
        page[at..at + 20].copy_from_slice(&entry.concat());
    }
    page
}

const RAM: (u64, u64, u32) = (0x10_0000, 0x3ff0_0000, 1);

fn record() -> Record {
    let blob = tree(0x400_0000);
    Record {
        rkexec: "0.1.0".to_owned(),
        loaded_at: 1_800_000_000,
        from: "6.1.0-before".to_owned(),
        release: Some("6.12.0-tiny".to_owned()),
        cmdline: LINE.into(),
        e820: vec![RAM],
        e820_complete: true,
        setup_data: vec![(2, blob.len()), (9, 32)],
        device_tree: Some(Digested::new(&blob, &purgatory::digest(&blob))),
        kernel: None,
        initrd: Vec::new(),
        pools: vec![PoolRecord {
            name: "default_pmpool".to_owned(),
            base: 0x1000_0000,
            size: 0x400_0000,
            bitmap: 0x1000_0000,
            protection: Protection::Kernel,
        }],
        placed: None,
        untimed: None,
        kho: None,
    }
}

/// A machine `m` that received what the record says.
fn arrived() -> Lab {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write("m/proc/cmdline", format!("{LINE}\n"));
    lab.write("m/sys/firmware/fdt", tree(0x400_0000));
    lab.write("m/sys/kernel/boot_params/data", zero_page(&[RAM]));
    // The kernel wipes the seed.
    let record = record().payload();
    for (number, kind, data) in [
        (0, "0x2", tree(0x400_0000)),
        (1, "0x9", Vec::new()),
        (2, "0x0", record),
    ] {
        lab.write(&format!("{SETUP_DATA}/{number}/type"), format!("{kind}\n"));
        lab.write(&format!("{SETUP_DATA}/{number}/data"), data);
    }
    lab
}

/// The same with `words` at the end of the line.
pub(super) fn with_words(words: &[u8]) -> Lab {
    let lab = arrived();
    let line = [LINE.as_bytes(), b" ", words].concat();
    lab.write("m/proc/cmdline", [&line[..], b"\n"].concat());
    let record = Record {
        cmdline: line.into(),
        ..record()
    };
    lab.write(&format!("{SETUP_DATA}/2/data"), record.payload());
    lab
}

/// The same with a file `a` of 5 bytes and the pool `p` handed over by Kexec Handover, and
/// `log` as the kernel's log.
pub(super) fn by_kho(log: Option<&str>) -> Lab {
    let lab = arrived();
    let plain = record();
    let record = Record {
        setup_data: [&plain.setup_data[..], &[(10, 48)]].concat(),
        pools: vec![PoolRecord {
            name: "p".to_owned(),
            base: 0x2000_0000,
            size: 0x20_0000,
            bitmap: 0x2000_0000,
            protection: Protection::Kho,
        }],
        kho: Some(KhoRecord {
            format: "kho-v4".to_owned(),
            session: Some("rkexec".to_owned()),
            files: vec![(CarriedName("a".into()), 5)],
            pools: vec!["p".to_owned()],
        }),
        ..plain
    };
    for (number, kind, data) in [(2, "0xa", vec![0; 48]), (3, "0x0", record.payload())] {
        lab.write(&format!("{SETUP_DATA}/{number}/type"), format!("{kind}\n"));
        lab.write(&format!("{SETUP_DATA}/{number}/data"), data);
    }
    if let Some(log) = log {
        lab.write("m/dev/kmsg", log);
    }
    lab
}

/// The items that are not as planned, with their verdicts.
fn wrong(lab: &Lab) -> Vec<(String, String)> {
    let ended = lab.run(&["report", "--root", "m", "--output", "json"]);
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    let items = report["items"].as_array().unwrap();
    assert!(items.len() >= 6, "{items:?}");
    let field = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
    let wrong: Vec<(String, String)> = items
        .iter()
        .map(|item| (field(item, "item"), field(item, "verdict")))
        .filter(|(_, verdict)| verdict != "as_planned" && verdict != "cannot_be_seen")
        .collect();
    assert_eq!(report["as_planned"], wrong.is_empty());
    if wrong.is_empty() {
        assert_eq!((ended.code, &*ended.err), (Some(0), ""));
    } else {
        assert_eq!(ended.code, Some(1));
        assert!(ended.err.contains("not as planned"), "{}", ended.err);
        for (item, _) in &wrong {
            assert!(ended.err.contains(item), "{item} in {}", ended.err);
        }
    }
    wrong
}

#[track_caller]
pub(super) fn only(lab: &Lab, wanted: &[(&str, &str)]) {
    let found = wrong(lab);
    let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (&**a, &**b)).collect();
    assert_eq!(found, wanted);
}

/// SHA-256 of an rkexec before rapidhash: its device tree is not told from another one
/// of that size.
#[test]
fn a_digest_of_an_older_version_is_no_difference() {
    let lab = arrived();
    let with_size = |size: usize| {
        let record = Record {
            device_tree: Some(Digested {
                size,
                digest: "ab".repeat(32),
            }),
            ..record()
        };
        lab.write(&format!("{SETUP_DATA}/2/data"), record.payload());
    };
    let size = tree(0x400_0000).len();
    with_size(size);
    only(&lab, &[]);
    let text = lab.succeeds(&["report", "--root", "m"]);
    let said = "device tree          cannot be checked here: it has the planned size; an older \
                rkexec loaded this kernel, and this version does not make its kind of digest\n";
    assert!(text.contains(said), "{text}");
    with_size(size + 1);
    only(&lab, &[("device tree", "differs")]);
}

#[test]
fn all_as_planned() {
    let lab = arrived();
    only(&lab, &[]);
    let text = lab.succeeds(&["report", "--root", "m"]);
    assert!(
        text.starts_with(
            "as planned\nloaded by rkexec 0.1.0 from kernel 6.1.0-before at 2027-01-15 08:00:00 UTC\n"
        ),
        "{text}"
    );
    assert!(text.contains("\n  random seed (RNG_SEED, 0 B)\n"), "{text}");
    assert!(text.contains("default_pmpool {"), "{text}");
    // The blob of the test is one that the program reads.
    assert_eq!(
        pools_of(&DeviceTree::read(&tree(0x400_0000)).unwrap())
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn every_difference_is_named() {
    let lab = arrived();
    lab.write("m/proc/sys/kernel/osrelease", "6.12.0-other\n");
    only(&lab, &[("kernel release", "differs")]);
    let text = lab.run(&["report", "--root", "m"]).out;
    assert!(
        text.starts_with("NOT as planned: kernel release differs\n"),
        "{text}"
    );

    let lab = arrived();
    lab.write("m/proc/cmdline", "quiet pmpool=0x10000000,0x4000000\n");
    only(&lab, &[("command line", "differs")]);

    let lab = arrived();
    let page = zero_page(&[(RAM.0, 0x1000_0000, 1), (0x2000_0000, 0x2000_0000, 1)]);
    lab.write("m/sys/kernel/boot_params/data", page);
    let pool = ("pool default_pmpool", "differs");
    only(&lab, &[("memory map", "differs"), pool]);

    let lab = arrived();
    let dir = lab.path().join(SETUP_DATA);
    std::fs::rename(dir.join("2"), dir.join("1x")).unwrap();
    std::fs::remove_dir_all(dir.join("1")).unwrap();
    std::fs::rename(dir.join("1x"), dir.join("1")).unwrap();
    only(&lab, &[("setup_data chain", "differs")]);

    // One byte of the size.
    let lab = arrived();
    lab.write(&format!("{SETUP_DATA}/0/data"), tree(0x400_1000));
    lab.write("m/sys/firmware/fdt", tree(0x400_1000));
    only(&lab, &[("device tree", "differs"), pool]);

    let lab = arrived();
    lab.write(&format!("{SETUP_DATA}/0/data"), tree(0x400_1000));
    only(&lab, &[("device tree", "differs")]);
}

#[test]
fn what_did_not_arrive_is_missing() {
    // The kernel ignored the node, or had none to read.
    let lab = arrived();
    std::fs::remove_file(lab.path().join("m/sys/firmware/fdt")).unwrap();
    // The chain has it: a kernel without CONFIG_OF.
    only(&lab, &[]);
    lab.write(&format!("{SETUP_DATA}/0/type"), "0x3\n");
    let wrong = wrong(&lab);
    for item in ["setup_data chain", "device tree", "pool default_pmpool"] {
        assert!(wrong.iter().any(|(name, _)| name == item), "{wrong:?}");
    }
    assert!(wrong.contains(&("device tree".to_owned(), "missing".to_owned())));
}

/// What the report says of phases and place, as text and as JSON.
fn phases_and_place(lab: &Lab) -> (String, Value) {
    let text = lab.run(&["report", "--root", "m"]).out;
    let json = lab.run(&["report", "--root", "m", "--output", "json"]);
    (text, serde_json::from_str(&json.out).unwrap())
}

#[test]
fn where_the_time_went_or_why_nobody_knows() {
    let lab = arrived();
    let write = |untimed, stamps: Option<Vec<u8>>| {
        let mut setup_data = record().setup_data;
        setup_data.extend(stamps.iter().map(|stamps| (0, stamps.len())));
        let record = Record {
            untimed,
            setup_data,
            ..record()
        };
        let record = record.payload();
        for (number, data) in (2..).zip(stamps.into_iter().chain([record])) {
            lab.write(&format!("{SETUP_DATA}/{number}/type"), "0x0\n");
            lab.write(&format!("{SETUP_DATA}/{number}/data"), data);
        }
    };
    let one_reason = |why: &str| {
        only(&lab, &[]);
        let (text, json) = phases_and_place(&lab);
        let line = format!("\nwhere the time went: not measured: {why}\n");
        assert!(text.contains(&line), "{text}");
        for phase in json["phases"].as_array().unwrap() {
            assert_eq!(phase["seconds"], Value::Null);
            assert_eq!(phase["not_measured"], why);
        }
    };
    write(Some(Untimed::CrashKernel), None);
    one_reason("a crash kernel is started by a panic, and not by exec");
    write(None, None);
    one_reason("the rkexec that loaded this kernel left no time stamps");
    write(None, Some(Stamps::blank()));
    one_reason("purgatory left no time stamps");

    // The load is known without this machine's counter, and the rest is not.
    let words = [1_512_000_000_u64, 7, 8, 9, 0];
    let words = words.into_iter().flat_map(u64::to_le_bytes);
    let filled = b"RKXTIME1".iter().copied().chain(words).collect();
    write(None, Some(filled));
    only(&lab, &[]);
    let (text, json) = phases_and_place(&lab);
    let captured = "a captured machine has no time stamp counter";
    let table = format!(
        "
where the time went:
  load               1.512 s  rkexec planned and loaded
  exec to purgatory        -  not measured: {captured}
  verification             -  not measured: {captured}
  kernel to init           -  not measured: {captured}

this kernel does not show where it runs
"
    );
    assert!(text.contains(&table), "{text}");
    let phases = json["phases"].as_array().unwrap();
    let names: Vec<_> = phases.iter().map(|phase| &phase["name"]).collect();
    let expected = [
        "load",
        "exec_to_purgatory",
        "verification",
        "kernel_to_init",
    ];
    assert_eq!(names, expected);
    assert_eq!(phases[0]["seconds"], 1.512);
    assert_eq!(phases[0]["not_measured"], Value::Null);
    assert_eq!(phases[3]["not_measured"], captured);
}

#[test]
fn a_kernel_that_runs_elsewhere_is_named() {
    const VIRTUAL: u64 = 0xffff_ffff_8100_0000;
    let lab = arrived();
    let iomem = "00100000-3fffffff : System RAM\n  3c000000-3cffffff : Kernel code\n";
    lab.write("m/proc/iomem", iomem);
    lab.write("m/proc/kallsyms", format!("{VIRTUAL:016x} T _text\n"));
    let place = |planned: Option<(u64, u64)>| {
        let placed = planned.map(|(physical, r#virtual)| Placed {
            physical,
            r#virtual,
        });
        let record = Record { placed, ..record() };
        lab.write(&format!("{SETUP_DATA}/2/data"), record.payload());
        phases_and_place(&lab)
    };
    let runs = "\nthis kernel runs at 0x3c000000 (virtual address 0xffffffff81000000): ";
    for (planned, said, as_planned) in [
        (None, "it chose its place itself", Value::Null),
        (Some((0x3c00_0000, VIRTUAL)), "as planned", true.into()),
        (
            Some((0x3a00_0000, VIRTUAL)),
            "NOT where it was put",
            false.into(),
        ),
        (
            Some((0x3c00_0000, VIRTUAL + 1)),
            "NOT where it was put",
            false.into(),
        ),
    ] {
        let (text, json) = place(planned);
        assert!(text.contains(&format!("{runs}{said}\n")), "{text}");
        let placed = &json["placed"];
        assert_eq!(placed["physical"], "0x3c000000");
        assert_eq!(placed["virtual"], "0xffffffff81000000");
        assert_eq!(placed["as_planned"], as_planned, "{planned:?}");
        assert_eq!(json["as_planned"], as_planned != false, "{planned:?}");
    }
    only(&lab, &[("kernel's place", "differs")]);

    // A hidden address is not compared.
    lab.write("m/proc/kallsyms", "0000000000000000 T _text\n");
    let (text, json) = place(Some((0x3c00_0000, VIRTUAL)));
    assert!(
        text.contains("(virtual address hidden): as planned\n"),
        "{text}"
    );
    assert_eq!(json["placed"]["virtual"], Value::Null);
    only(&lab, &[]);
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write("m/proc/cmdline", format!("{LINE}\n"));
    let (text, json) = place(Some((0x3c00_0000, VIRTUAL)));
    assert!(
        text.contains("this kernel does not show where it runs\n"),
        "{text}"
    );
    assert_eq!(json["placed"]["as_planned"], Value::Null);
}

#[test]
fn a_machine_without_a_record() {
    let lab = arrived();
    lab.write(&format!("{SETUP_DATA}/2/data"), "of somebody else");
    let ended = lab.run(&["report", "--root", "m"]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(ended.out, "");
    let err = "rkexec: nothing to check: this kernel was not started by rkexec, \
               or it was loaded with kexec_file_load\n";
    assert_eq!(ended.err, err);
    let more = lab.run(&["report", "--root", "m", "-v"]);
    assert!(more.out.contains("device tree (DTB, 0x2, "), "{}", more.out);
    assert_eq!((more.code, &*more.err), (Some(1), err));
    let ended = lab.run(&["report", "--root", "m", "--output", "json"]);
    assert_eq!(ended.code, Some(1));
    let report: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(report["as_planned"], Value::Null);

    let mut cut = record().payload();
    cut.truncate(cut.len() - 1);
    lab.write(&format!("{SETUP_DATA}/2/data"), cut);
    let err = lab.fails(1, &["report", "--root", "m"]);
    assert!(err.contains("record"), "{err}");
}
