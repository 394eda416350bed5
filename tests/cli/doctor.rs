//! `rkexec doctor`: what it finds, in text and JSON, its last line and its exit code; and
//! `arm --estimate`, which has the same sum.

use serde_json::{Value, json};

use crate::common::bzimage::TinyBzImage;
use crate::{Lab, captured};

/// A machine of `tests/data/cases`.
fn case(name: &str) -> String {
    format!(
        "{}/tests/data/cases/{name}/root",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// The JSON, and the exit code.
#[track_caller]
fn doctor(lab: &Lab, args: &[&str]) -> (Value, i32) {
    let ended = lab.run(&[&["doctor", "--output", "json"], args].concat());
    let json: serde_json::Result<Value> = serde_json::from_str(&ended.out);
    assert!(json.is_ok(), "{ended:?}");
    (json.unwrap(), ended.code.unwrap())
}

/// The findings of `check`.
fn of<'a>(json: &'a Value, check: &str) -> Vec<&'a Value> {
    let found = json["doctor"].as_array().unwrap().iter();
    found.filter(|finding| finding["check"] == check).collect()
}

#[test]
fn a_good_machine_and_kernel() {
    let lab = Lab::new();
    let root = captured("big");
    let text = lab.succeeds(&["doctor", "--root", &root]);
    assert!(
        text.ends_with("kexec on this machine: nothing known against it\n"),
        "{text}"
    );
    let load = ["doctor", "vmlinuz", "--cmdline", "panic=1 console=ttyS0"];
    let text = lab.succeeds(&[&load[..], &["--root", &root]].concat());
    assert!(
        text.ends_with("kexec into 6.12.0-tiny: nothing known against it\n"),
        "{text}"
    );
    let (json, code) = doctor(&lab, &["--root", &root, "--quiet"]);
    assert_eq!((code, &json["schema"]), (0, &json!(1)));
    assert_eq!(json["target"], "normal");
    assert_eq!(json["version"], Value::Null);
    assert!(json["checks"].as_array().unwrap().len() > 20);
    // It says what is wrong with the command line as `load` does.
    lab.fails(2, &["doctor", "vmlinuz", "--entry", "default"]);
    // The capture of the machine alone.
    let (json, _) = doctor(&lab, &["--panic", "--root", &root]);
    assert_eq!(
        (&json["target"], &json["version"]),
        (&json!("crash"), &Value::Null)
    );
    lab.fails(2, &["plan", "--panic", "--root", &root]);
    let error = lab.fails(1, &["doctor", "missing", "--root", &root]);
    assert!(error.contains("opening the kernel failed"), "{error}");
}

#[test]
fn the_cases_from_the_field_are_blockers() {
    let lab = Lab::new();
    for (name, part, way_out) in [
        (
            "xen-pv-dom0",
            "a paravirtual (PV) guest",
            "Xen's own command line",
        ),
        ("efi-firmware-masked", "EFI", "--no-efi"),
    ] {
        let root = case(name);
        let (json, code) = doctor(&lab, &["vmlinuz", "--cmdline", "x", "--root", &root]);
        assert_eq!(code, 3, "{json:#}");
        let first = &json["doctor"][0];
        assert_eq!(first["severity"], "blocker");
        let finding = first["finding"].as_str().unwrap();
        assert!(
            finding.contains(part) && !finding.contains("failed"),
            "{first}"
        );
        assert!(
            first["way_out"].as_str().unwrap().contains(way_out),
            "{first}"
        );
        let verdict = json["verdict"].as_str().unwrap();
        assert!(
            verdict.starts_with("kexec into 6.12.0-tiny: 1 blocker"),
            "{verdict}"
        );
    }
    // Without a kernel, too.
    let (json, code) = doctor(&lab, &["--root", &case("xen-pv-dom0")]);
    assert_eq!((code, of(&json, "refused").len()), (3, 1), "{json:#}");
}

#[test]
fn a_reservation_that_is_too_small_is_a_blocker_with_the_size_to_ask_for() {
    let lab = Lab::new();
    lab.machine(
        "m",
        "00100000-3fffffff : System RAM\n  20000000-201fffff : Crash kernel\n",
    );
    lab.write("m/sys/kernel/kexec_crash_loaded", "0\n");
    lab.write("m/sys/kernel/kexec_crash_size", "2097152\n");
    lab.write("m/sys/kernel/vmcoreinfo", "0x1000000 1000\n");
    let args = [
        "vmlinuz",
        "--panic",
        "--cmdline",
        "reset_devices",
        "--root",
        "m",
    ];
    let syscall = ["--syscall", "kexec_load"];
    let (json, code) = doctor(&lab, &[&args[..], &syscall].concat());
    assert_eq!(code, 3, "{json:#}");
    let first = &json["doctor"][0];
    assert_eq!(
        (&first["check"], &first["severity"]),
        (&json!("plan"), &json!("blocker"))
    );
    let way_out = first["way_out"].as_str().unwrap();
    assert!(way_out.contains("crashkernel="), "{way_out}");
    assert_eq!(json["target"], "crash");
    let text = lab.run(&[&["doctor"], &args[..], &syscall].concat());
    assert_eq!(text.code, Some(3));
    assert!(text.out.starts_with("blocker  plan "), "{text:?}");
    let last = text.out.lines().last().unwrap();
    assert!(
        last.starts_with("capture by 6.12.0-tiny: 1 blocker"),
        "{last}"
    );
}

#[test]
fn evidence_and_way_out_stand_below_each_finding() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write("m/proc/sys/kernel/kexec_load_disabled", "1\n");
    let ended = lab.run(&["doctor", "--root", "m"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    let lines: Vec<&str> = ended.out.lines().collect();
    assert_eq!(
        lines[0],
        "blocker  refused            loading and unloading are switched off (kernel.kexec_load_disabled = 1)"
    );
    assert_eq!(
        lines[1],
        "                            read from: /proc/sys/kernel/kexec_load_disabled: 1"
    );
    assert!(lines[2].starts_with("                            way out:   only a reboot"));
    assert!(ended.out.ends_with(
        "\nkexec on this machine: 1 blocker; first: loading and unloading are switched off \
         (kernel.kexec_load_disabled = 1)\n"
    ));
}

#[test]
fn what_this_user_may_not_read_is_a_risk() {
    let lab = Lab::new();
    lab.machine("m", "00000000-00000000 : System RAM\n");
    let (json, code) = doctor(&lab, &["--root", "m"]);
    let unread = of(&json, "unread");
    assert_eq!((code, unread.len()), (0, 1), "{json:#}");
    assert_eq!(unread[0]["severity"], "risk");
    let verdict = json["verdict"].as_str().unwrap();
    assert!(!verdict.contains("nothing known against it"), "{verdict}");
    // There is no plan, and so no answer about a kernel.
    let error = lab.fails(1, &["doctor", "vmlinuz", "--root", "m", "--cmdline", "x"]);
    assert!(
        error.contains("only root may see the memory map"),
        "{error}"
    );
}

/// A cpio archive with empty files of these names.
fn cpio(names: &[&str]) -> Vec<u8> {
    let mut archive = Vec::new();
    for name in names.iter().chain(&["TRAILER!!!"]) {
        let mut fields = [0; 13];
        fields[11] = name.len() + 1;
        archive.extend(b"070701");
        for field in fields {
            archive.extend(format!("{field:08x}").bytes());
        }
        archive.extend(name.bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

#[test]
fn initrds_are_looked_into() {
    let lab = Lab::new();
    let root = captured("big");
    let names = ["lib/modules/6.1.0-49-amd64/modules.dep"];
    lab.write("other", cpio(&names));
    lab.write("tool", cpio(&["usr/bin/makedumpfile"]));
    lab.write("packed", include_bytes!("../data/initrd/cpio.zst"));
    lab.write(
        "config-6.12.0-tiny",
        "CONFIG_X86_64=y\nCONFIG_RD_GZIP=y\n# CONFIG_RD_ZSTD is not set\n",
    );
    let load = |initrd, more: &[&str]| {
        let args = ["vmlinuz", "--initrd", initrd, "--root", &root];
        let line = ["--cmdline", "panic=1 reset_devices console=ttyS0"];
        doctor(&lab, &[&args[..], &line, more].concat()).0
    };
    let json = load("other", &[]);
    let finding = of(&json, "modules")[0]["finding"].as_str().unwrap();
    assert!(finding.contains("6.1.0-49-amd64, and the kernel is 6.12.0-tiny"));
    let json = load("packed", &[]);
    let evidence = of(&json, "packing")[0]["evidence"].as_str().unwrap();
    assert!(
        evidence.contains("config-6.12.0-tiny beside the image"),
        "{evidence}"
    );
    assert_eq!(of(&load("packed", &["--panic"]), "capture-tool").len(), 1);
    let json = load("tool", &["--panic"]);
    for check in ["modules", "packing", "capture-tool"] {
        assert_eq!(of(&json, check).len(), 0, "{json:#}");
    }
}

/// What doctor looks at is in a capture.
#[test]
fn a_captured_machine_says_the_same() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    for (file, text) in [
        (
            "proc/self/mountinfo",
            "28 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
        ),
        ("proc/fb", "0 amdgpudrmfb\n"),
        ("sys/bus/pci/devices/0000:03:00.0/uevent", "DRIVER=amdgpu\n"),
        ("sys/class/tty/console/active", "ttyS0\n"),
        ("sys/class/tty/ttyS0/type", "4\n"),
        ("sys/class/tty/ttyS1/type", "0\n"),
    ] {
        lab.write(&format!("m/{file}"), text);
    }
    lab.succeeds(&["capture", "copy", "--root", "m"]);
    let load = ["vmlinuz", "--cmdline", "console=ttyS1 panic=1"];
    let of_root = |root: &str| doctor(&lab, &[&load[..], &["--root", root]].concat());
    let (json, code) = of_root("m");
    assert_eq!(of_root("copy"), (json.clone(), code));
    for check in ["mounts", "screen", "drivers", "console"] {
        assert_eq!(of(&json, check).len(), 1, "{check}: {json:#}");
    }
}

#[test]
fn the_memory_of_every_installed_kernel() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    let none = lab.succeeds(&["arm", "--estimate", "--root", "m"]);
    assert_eq!(none, "no kernel is in /boot (vmlinuz-*)\n");
    lab.write("m/boot/vmlinuz-6.12.0-tiny", TinyBzImage::direct().build());
    lab.write(
        "m/boot/initrd.img-6.12.0-tiny",
        include_bytes!("../data/initrd/cpio"),
    );
    lab.write("m/boot/vmlinuz-none", "no kernel");
    let text = lab.succeeds(&["arm", "--estimate", "--root", "m"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "/boot/vmlinuz-6.12.0-tiny with /boot/initrd.img-6.12.0-tiny:"
    );
    assert!(lines[1].starts_with("  memory:     it needs "), "{text}");
    assert!(lines[2].starts_with("  boot with:  crashkernel="), "{text}");
    assert_eq!(lines[3], "/boot/vmlinuz-none without an initrd:");
    assert!(lines[4].starts_with("  not known: "), "{text}");
    let json = lab.succeeds(&["arm", "--estimate", "--root", "m", "--output", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let one = &json["estimates"][0];
    assert_eq!(one["release"], "6.12.0-tiny");
    assert_eq!(one["enough"], false);
    let terms = &one["terms"];
    let sum: u64 = ["kernel", "initrd", "unpacked", "margin"]
        .iter()
        .map(|term| terms[term].as_u64().unwrap())
        .sum();
    assert_eq!(one["needed"], sum);
    assert_eq!(json["estimates"][1]["needed"], Value::Null);
    lab.fails(2, &["arm", "--estimate", "--watch"]);
}
