//! `load --watchdog`: what is checked before a load, and what the next kernel is told.

use serde_json::Value;

use crate::Lab;
use crate::common::bzimage::{TinyBzImage, field};
use crate::common::multiboot::{TinyElf, header_v1};

/// A machine `m` whose watchdog takes up to 600 seconds, and whose kernel leaves it running.
fn machine() -> Lab {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    let watchdog = |file: &str, text: &str| {
        lab.write(&format!("m/sys/class/watchdog/watchdog0/{file}"), text);
    };
    watchdog("identity", "i6300ESB timer\n");
    watchdog("state", "inactive\n");
    watchdog("timeout", "30\n");
    watchdog("max_timeout", "600\n");
    policy(&lab, "0\n");
    lab
}

/// `watchdog.stop_on_reboot=` of the machine's kernel.
fn policy(lab: &Lab, says: &str) {
    lab.write("m/sys/module/watchdog/parameters/stop_on_reboot", says);
}

const PLAN: [&str; 4] = ["plan", "--root", "m", "vmlinuz"];

/// The command line of a plan with these options.
#[track_caller]
fn line(lab: &Lab, options: &[&str]) -> String {
    let json = lab.succeeds(&[&PLAN, options, &["--output", "json"]].concat());
    let plan: Value = serde_json::from_str(&json).unwrap();
    let warnings = plan["warnings"].to_string();
    assert!(!warnings.contains("watchdog"), "{warnings}");
    plan["cmdline"].as_str().unwrap().to_owned()
}

#[test]
fn the_next_kernel_is_told_how_long_to_keep_it_off() {
    let lab = machine();
    let with = |options: &[&str]| line(&lab, &[options, &["--watchdog", "60"]].concat());
    assert_eq!(
        with(&["--cmdline", "a -- b"]),
        "a watchdog.open_timeout=60 -- b"
    );
    for call in ["kexec_load", "kexec_file_load"] {
        let options = ["--cmdline", "a", "--syscall", call];
        assert_eq!(with(&options), "a watchdog.open_timeout=60");
    }
    // What the operator says of it counts, and what an earlier load said does not.
    let own = "a watchdog.open_timeout=9";
    assert_eq!(with(&["--cmdline", own]), own);
    assert_eq!(
        with(&["--cmdline", "a", "--append", "watchdog.open_timeout=9"]),
        own
    );
    lab.write("m/proc/cmdline", "b watchdog.open_timeout=5 c\n");
    assert_eq!(with(&["--reuse-cmdline"]), "b c watchdog.open_timeout=60");
    assert_eq!(
        line(&lab, &["--reuse-cmdline"]),
        "b watchdog.open_timeout=5 c"
    );
}

#[test]
fn a_multiboot_kernel_has_its_own_words() {
    let lab = machine();
    let mut kernel = header_v1(3, &[]);
    kernel.resize(6000, 0x90);
    lab.write("multiboot", TinyElf::new(0x10_0000, &kernel).build());
    let args = ["plan", "--root", "m", "multiboot", "--cmdline", "a"];
    let options = ["--watchdog", "60", "--output", "json"];
    let ended = lab.run(&[&args[..], &options].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let plan: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(plan["cmdline"], "multiboot a");
}

/// The error of a plan with --watchdog, and the hint below it.
#[track_caller]
fn refused(lab: &Lab, code: i32, options: &[&str]) -> (String, String) {
    let error = lab.fails(code, &[&PLAN, options].concat());
    let (error, hint) = error.split_once('\n').unwrap();
    (error.to_owned(), hint.to_owned())
}

#[test]
fn what_is_against_it_is_said_before_the_load() {
    let lab = machine();
    let watchdog = ["--cmdline", "a", "--watchdog", "60"];
    policy(&lab, "-1\n");
    let (error, hint) = refused(&lab, 1, &watchdog);
    assert_eq!(
        error,
        "rkexec: planning failed: the running kernel stops watchdog0 (i6300ESB timer) when it jumps to the next one"
    );
    assert!(hint.contains("watchdog.stop_on_reboot=0"), "{hint}");
    policy(&lab, "0\n");
    let (error, hint) = refused(&lab, 1, &["--cmdline", "a", "--watchdog", "601"]);
    assert!(error.ends_with("watchdog0 (i6300ESB timer) counts at most 600 seconds, not 601"));
    assert_eq!(hint, "hint: --watchdog 600 is possible\n");
    let (error, _) = refused(&lab, 2, &["--cmdline", "a", "--watchdog", "60", "--panic"]);
    assert!(
        error.contains("--watchdog is for a kernel that exec boots"),
        "{error}"
    );
    // None at all.
    std::fs::remove_dir_all(lab.path().join("m/sys")).unwrap();
    let (error, hint) = refused(&lab, 1, &watchdog);
    assert!(error.ends_with("this machine has no watchdog device (/dev/watchdog)"));
    assert!(hint.contains("modprobe"), "{hint}");
}

#[test]
fn doubts_are_warnings() {
    let lab = machine();
    let warning = |kernel: &str| {
        let args = [
            "plan",
            "--root",
            "m",
            kernel,
            "--cmdline",
            "a",
            "--watchdog",
        ];
        let ended = lab.run(&[&args[..], &["60"]].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let mut lines = ended.err.lines().filter(|line| line.contains("watchdog"));
        let warning = lines.next().unwrap_or_default().to_owned();
        assert_eq!(lines.next(), None);
        warning
    };
    assert_eq!(warning("vmlinuz"), "");
    lab.write("m/sys/class/watchdog/watchdog0/state", "active\n");
    let held = warning("vmlinuz");
    assert!(held.starts_with(
        "rkexec: warning: exec cannot arm the watchdog as things are now: another program holds"
    ));
    assert!(held.contains("KExecWatchdogSec=60"), "{held}");
    lab.write("m/sys/class/watchdog/watchdog0/state", "inactive\n");
    lab.write("m/sys/class/watchdog/watchdog0/identity", "a new one\n");
    policy(&lab, "-1\n");
    let unknown = warning("vmlinuz");
    assert!(
        unknown.starts_with(
            "rkexec: warning: whether the driver of watchdog0 (a new one) leaves it running"
        ),
        "{unknown}"
    );
    // A kernel that does not know the word.
    policy(&lab, "0\n");
    let mut old = TinyBzImage::direct().build();
    let at = old
        .windows(7)
        .position(|bytes| bytes == b"6.12.0-")
        .unwrap();
    assert!(at > field::END);
    old[at..at + 7].copy_from_slice(b"5.2.00-");
    lab.write("old", old);
    let old = warning("old");
    assert!(
        old.starts_with("rkexec: warning: Linux 5.2.00-tiny does not know watchdog.open_timeout="),
        "{old}"
    );
}

#[test]
fn status_shows_what_was_recorded() {
    let lab = machine();
    lab.write("m/sys/kernel/kexec_loaded", "1\n");
    lab.write("m/proc/sys/kernel/random/boot_id", "the-boot\n");
    let record = |watchdog: Value| {
        let record = serde_json::json!({
            "schema": 2, "boot_id": "the-boot", "rkexec": "0.1.0", "loaded_at": 1,
            "job": {
                "kernel": "/k", "initrds": [], "profile": null, "wish": null, "addons": [], "modules": [],
                "target": "normal",
                "cmdline": { "base": "empty", "append": [], "remove": [] },
                "syscall": "auto", "mem_min": null, "mem_max": null, "no_digest": false, "no_efi": false,
                "serial_port": null, "hotplug": "auto", "file_flags": { "no_cma": false, "force_dtb": false },
                "watchdog": watchdog,
            },
            "syscall": "kexec_load", "release": "6.12", "blobs": null, "cmdline": "a", "init_size": 1,
            "kexec_load_refused": false, "fit": null,
        });
        lab.write("m/run/rkexec/normal.json", record.to_string());
        let text = lab.succeeds(&["status", "--root", "m"]);
        let json = lab.succeeds(&["status", "--root", "m", "--output", "json"]);
        let json: Value = serde_json::from_str(&json).unwrap();
        (text, json["normal_record"]["watchdog"].clone())
    };
    let (text, json) = record(60.into());
    assert!(
        text.contains("\n  command line:  a\n  watchdog:      exec arms it with 60 seconds\n"),
        "{text}"
    );
    assert_eq!(json, 60);
    let (text, json) = record(Value::Null);
    assert!(
        text.contains("command line:  a") && !text.contains("watchdog"),
        "{text}"
    );
    assert_eq!(json, Value::Null);
}
