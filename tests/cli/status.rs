//! `rkexec status`: the answer first, and the exit code of `--check`.

use serde_json::{Value, json};

use crate::{Lab, captured};

/// A machine `m` with these files of /sys/kernel.
fn machine(files: &[(&str, &str)]) -> Lab {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write("m/proc/sys/kernel/random/boot_id", "the-boot\n");
    for (file, content) in files {
        lab.write(&format!("m/sys/kernel/{file}"), content);
    }
    lab
}

fn first_line(lab: &Lab) -> String {
    let ended = lab.run(&["status", "--root", "m"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.out.lines().next().unwrap().to_owned()
}

/// `--check` ends with 3, and says this.
#[track_caller]
fn checked(lab: &Lab, said: &str) {
    let ended = lab.run(&["status", "--root", "m", "--check"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert_eq!(ended.err, format!("rkexec: check failed: {said}\n"));
    // The first line says the same to a reader of standard output.
    assert!(ended.out.starts_with("crash kernel: "), "{}", ended.out);
}

#[test]
fn the_first_line_is_the_crash_kernel() {
    let lab = Lab::new();
    for (name, said) in [
        (
            "big",
            "crash kernel: NOT loaded (256 MiB reserved)\nexec kernel:  none is loaded\n",
        ),
        (
            "bios-512m",
            "crash kernel: NOT loaded (no memory is reserved for one)\nexec kernel:  none is loaded\n\
             blocked:      loading a crash kernel: no memory is reserved for a crash kernel\n  hint: ",
        ),
    ] {
        let text = lab.succeeds(&["status", "--root", &captured(name)]);
        assert!(text.starts_with(said), "{text}");
    }
    let all = lab.succeeds(&["status", "-v", "--root", &captured("big")]);
    for fact in [
        "\nloads left until reboot:       no limit\n",
        "\ncrash kernel's auto-update:    yes, when memory or CPUs change\n",
        "\nKexec Handover (KHO):          off (",
    ] {
        assert!(all.contains(fact), "{fact}: {all}");
    }
}

#[test]
fn none_is_loaded() {
    let lab = machine(&[
        ("kexec_crash_loaded", "0\n"),
        ("kexec_crash_size", "4096\n"),
    ]);
    assert_eq!(
        first_line(&lab),
        "crash kernel: NOT loaded (4 KiB reserved)"
    );
    checked(&lab, "no crash kernel is loaded");
}

#[test]
fn what_sys_does_not_tell_is_not_called_not_loaded() {
    let lab = machine(&[]);
    let why = "/sys/kernel/kexec_crash_loaded is missing";
    assert_eq!(
        first_line(&lab),
        format!("crash kernel: cannot tell whether one is loaded: {why}")
    );
    checked(
        &lab,
        &format!("cannot tell whether a crash kernel is loaded: {why}"),
    );
    let json = lab.run(&["status", "--root", "m", "--output", "json"]).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["armed"], json!({ "state": "unknown", "why": why }));
    assert_eq!(json["crash_loaded"], Value::Null);
}

/// Nobody knows for which memory and CPUs another tool made its crash kernel.
#[test]
fn a_crash_kernel_of_another_tool_does_not_pass() {
    let lab = machine(&[
        ("kexec_crash_loaded", "1\n"),
        ("kexec_crash_size", "4096\n"),
    ]);
    let why =
        "there is no record of it: another tool loaded it, or rkexec was killed while it loaded it";
    assert_eq!(
        first_line(&lab),
        format!("crash kernel: loaded; cannot tell whether it fits: {why}")
    );
    checked(
        &lab,
        &format!("cannot tell whether the loaded crash kernel fits the machine: {why}"),
    );
}

/// What a kernel with Kexec Handover shows in debugfs and in /proc, and that a capture of
/// it shows the same.
#[test]
fn kexec_handover_with_what_it_keeps_and_costs() {
    let lab = machine(&[
        ("debug/kho/out/scratch_phys", "0x1000000\n0x10000000\n"),
        ("debug/kho/out/scratch_len", "0x1000000\n0x4000000\n"),
        ("debug/kho/out/sub_fdts/LUO", "luo-v5\0\0"),
        ("debug/kho/in/fdt", "kho-v4\0"),
    ]);
    lab.write("m/proc/sys/kernel/osrelease", "7.2.13\n");
    lab.write("m/proc/cmdline", "kho=on liveupdate=on\n");
    let count = [&[1, 0, 0, 0][..], &[0; 65], &[2, 0, 0, 0]].concat();
    lab.write("m/sys/kernel/debug/kho/out/sub_fdts/kexec-metadata", count);
    lab.write("m/proc/7/fd/3", "anon_inode:[luo_session] vm");
    lab.succeeds(&["capture", "copy", "--root", "m"]);
    for root in ["m", "copy"] {
        let json = lab.succeeds(&["status", "--root", root, "--output", "json"]);
        let json: Value = serde_json::from_str(&json).unwrap();
        let expected = json!({
            "on": true,
            "reason": "kho=on on the command line",
            "preserved": ["LUO"],
            "sessions": ["vm"],
            "scratch": [
                { "start": "0x1000000", "size": 16 << 20 },
                { "start": "0x10000000", "size": 64 << 20 },
            ],
            "scratch_size": 80 << 20,
            "scratch_size_is_all": true,
            "taken_over": true,
            "generation": 2,
            "format": "kho-v4",
            "luo": "luo-v5",
        });
        assert_eq!(json["kho"], expected);
    }
    let text = lab.succeeds(&["status", "-v", "--root", "m"]);
    for line in [
        "Kexec Handover (KHO):          on (kho=on on the command line); it preserves LUO\n",
        "  state handed over:           to this kernel, which is number 2 of its chain\n",
        "  formats that it writes:      kho-v4, luo-v5\n",
        "  live update sessions:        vm\n",
        "  scratch memory:              80 MiB in 2 regions, 7 % of the RAM: only what can be moved may lie there\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}
