//! What is against a watchdog, by the facts.

use super::*;

fn device(name: &str, identity: &str) -> Watchdog {
    Watchdog {
        name: name.to_owned(),
        identity: Some(identity.to_owned()),
        active: Some(false),
        ..Watchdog::default()
    }
}

fn machine(stop_on_reboot: Option<bool>, devices: &[Watchdog]) -> Watchdogs {
    Watchdogs {
        devices: devices.to_vec(),
        stop_on_reboot,
    }
}

/// The name of the one that is chosen, or why there is none, and the way out.
fn chosen(machine: &Watchdogs, seconds: u64) -> Result<String, (String, String)> {
    choose(machine, seconds)
        .map(|device| device.name.clone())
        .map_err(|cause| (cause.why, cause.hint.unwrap()))
}

#[test]
fn a_machine_without_one() {
    let (why, hint) = chosen(&Watchdogs::default(), 30).unwrap_err();
    assert_eq!(why, "this machine has no watchdog device (/dev/watchdog)");
    assert!(hint.contains("modprobe"), "{hint}");
}

#[test]
fn a_timer_of_the_kernel_is_none() {
    let soft = device("watchdog0", "Software Watchdog");
    let (why, _) = chosen(&machine(Some(false), std::slice::from_ref(&soft)), 30).unwrap_err();
    assert!(why.starts_with("watchdog0 (Software Watchdog) is a timer of the running kernel"));
    let hard = device("watchdog1", "iTCO_wdt");
    let both = machine(Some(false), &[soft, hard]);
    assert_eq!(chosen(&both, 30).unwrap(), "watchdog1");
}

#[test]
fn what_it_can_count_is_named() {
    let bounded = Watchdog {
        min_timeout: Some(2),
        max_timeout: Some(2046),
        ..device("watchdog0", "i6300ESB timer")
    };
    let machine = machine(Some(false), &[bounded]);
    for seconds in [2, 2046] {
        assert_eq!(chosen(&machine, seconds).unwrap(), "watchdog0");
    }
    let (why, hint) = chosen(&machine, 2047).unwrap_err();
    assert_eq!(
        why,
        "watchdog0 (i6300ESB timer) counts at most 2046 seconds, not 2047"
    );
    assert_eq!(hint, "--watchdog 2046 is possible");
    let (why, hint) = chosen(&machine, 1).unwrap_err();
    assert_eq!(
        why,
        "watchdog0 (i6300ESB timer) counts at least 2 seconds, not 1"
    );
    assert_eq!(hint, "--watchdog 2 is possible");
}

#[test]
fn one_that_the_jump_stops_is_of_no_use() {
    let of = |stop, identity| {
        let machine = machine(stop, &[device("watchdog0", identity)]);
        let doubt = doubt(&machine, &machine.devices[0]).is_some();
        chosen(&machine, 30).map(|_| doubt)
    };
    for (stop, identity) in [
        (None, "i6300ESB timer"),
        (None, "SP5100 TCO timer"),
        (Some(true), "a new one"),
        (Some(true), KEPT),
    ] {
        let (why, hint) = of(stop, identity).unwrap_err();
        let said = format!("the running kernel stops watchdog0 ({identity}) when it jumps");
        assert!(why.starts_with(&said), "{why}");
        assert!(hint.contains("watchdog.stop_on_reboot=0"), "{hint}");
    }
    // Known to go on, or a doubt remains.
    assert!(!of(Some(false), "i6300ESB timer").unwrap());
    assert!(!of(None, KEPT).unwrap());
    assert!(of(None, "a new one").unwrap());
}

#[test]
fn a_free_one_goes_before_one_that_is_held() {
    let held = Watchdog {
        active: Some(true),
        ..device("watchdog0", "iTCO_wdt")
    };
    let free = device("watchdog1", "IT87 WDT");
    let both = machine(Some(false), &[held.clone(), free]);
    assert_eq!(chosen(&both, 30).unwrap(), "watchdog1");
    let one = machine(Some(false), &[held]);
    assert_eq!(chosen(&one, 30).unwrap(), "watchdog0");
}

#[test]
fn who_holds_it_and_what_to_do() {
    let held = |pid, name: &str| {
        let holder = Holder {
            pid,
            name: name.to_owned(),
        };
        let cause = super::held(&device("watchdog0", "x"), 60, Some(&holder));
        (cause.why, cause.hint.unwrap())
    };
    let (why, hint) = held(1, "systemd");
    assert!(
        why.starts_with("the init system (systemd, PID 1) holds watchdog0 (x)"),
        "{why}"
    );
    assert!(hint.contains("KExecWatchdogSec=60 in /etc/systemd/system.conf"));
    let (why, hint) = held(7, "wd");
    assert!(why.starts_with("wd (PID 7) holds "), "{why}");
    assert!(!hint.contains("systemd") && hint.contains("stop that program"));
    let unknown = super::held(&device("watchdog0", "x"), 60, None);
    assert!(unknown.why.starts_with("another program holds "));
    assert!(unknown.hint.unwrap().contains("KExecWatchdogSec=60"));
}

#[test]
fn a_time_that_is_not_counted_in_full() {
    let device = device("watchdog0", "x");
    let counts = |granted, left| {
        counts(&device, 60, granted, left).map_err(|cause| (cause.why, cause.hint.unwrap()))
    };
    assert_eq!(counts(60, None), Ok(None));
    assert_eq!(counts(60, Some(58)), Ok(None));
    // A driver that does not know says 0.
    assert_eq!(counts(60, Some(0)), Ok(None));
    let rounded = counts(64, Some(64)).unwrap().unwrap();
    assert_eq!(rounded, "watchdog0 (x) counts 64 seconds instead of 60");
    let (why, hint) = counts(30, None).unwrap_err();
    assert_eq!(why, "watchdog0 (x) counts 30 seconds, not 60");
    assert_eq!(hint, "--watchdog 30 is possible");
    let (why, hint) = counts(60, Some(40)).unwrap_err();
    assert!(why.contains("counts 40 seconds by itself"), "{why}");
    assert_eq!(hint, "--watchdog 40 is possible");
}
