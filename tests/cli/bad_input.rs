//! Files and machines that cannot be used: exit code 1, and the cause in words.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::bzimage::{TinyBzImage, field};
use crate::{Ended, Lab, captured};

/// `rkexec plan` on the plainest machine, which must fail; returns stderr.
#[track_caller]
fn plan_fails(lab: &Lab, args: &[&str]) -> String {
    let root = captured("bios-512m");
    lab.fails(1, &[&["plan", "--root", &root], args].concat())
}

#[test]
fn kernels_that_are_not_there() {
    let lab = Lab::new();
    lab.write("empty", "");
    fs::create_dir(lab.path().join("directory")).unwrap();
    for (name, why) in [
        ("missing", "missing: no such file"),
        ("empty", "empty: the file is empty"),
        ("directory", "directory: is a directory, not a file"),
        (
            "/dev/null",
            "/dev/null: is a character device, not a regular file",
        ),
        (
            "vmlinuz/x",
            "vmlinuz/x: opening failed: Not a directory (os error 20)",
        ),
    ] {
        let kernel = plan_fails(&lab, &[name]);
        assert_eq!(
            kernel,
            format!("rkexec: opening the kernel failed: {why}\n")
        );
        let initrd = plan_fails(&lab, &["vmlinuz", "--initrd", "vmlinuz", "--initrd", name]);
        assert_eq!(
            initrd,
            format!("rkexec: opening the initrd failed: {why}\n")
        );
        let inspect = lab.fails(1, &["inspect", name]);
        assert_eq!(inspect, format!("rkexec: opening the file failed: {why}\n"));
    }
}

/// Runs the command as nobody if this is root, whom no mode stops.
fn as_user(lab: &Lab, args: &[&str]) -> Ended {
    // /proc/self belongs to the user that this is.
    let uid = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap());
    if uid != 0 {
        return lab.run(args);
    }
    // The build may lie where nobody has no access.
    let program = lab.path().join("rkexec");
    // Copied by another process: a file that a child of some other test has open
    // for writing could not be executed (ETXTBSY).
    let copied = Command::new("cp")
        .args([Path::new(env!("CARGO_BIN_EXE_rkexec")), &program])
        .status();
    assert!(copied.unwrap().success());
    fs::set_permissions(lab.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    command
        .args(args)
        .current_dir(lab.path())
        .uid(65534)
        .gid(65534);
    command.output().unwrap().into()
}

#[test]
fn a_record_that_may_not_be_read() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write("m/sys/kernel/kexec_crash_loaded", "1\n");
    let state = || {
        let ended = as_user(&lab, &["status", "--root", "m", "--output", "json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let status: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        assert_eq!(status["crash_record"], serde_json::Value::Null);
        status["armed"].clone()
    };
    let unknown = |why: &str| serde_json::json!({ "state": "unknown", "why": why });
    let nobodys =
        "there is no record of it: another tool loaded it, or rkexec was killed while it loaded it";
    assert_eq!(state(), unknown(nobodys));
    lab.write("m/run/rkexec/crash.json", "{}");
    assert_eq!(state(), unknown(nobodys));
    let dir = lab.path().join("m/run/rkexec");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(state(), unknown("its record is for root only"));
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_kernel_that_may_not_be_read() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    // Else the test would pass wherever nobody may read anything.
    let readable = as_user(&lab, &["plan", "--root", "m", "vmlinuz", "--cmdline", "x"]);
    assert_eq!(readable.code, Some(0), "{readable:?}");
    let secret = lab.path().join("vmlinuz");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o000)).unwrap();
    let ended = as_user(&lab, &["plan", "--root", "m", "vmlinuz"]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.err,
        "rkexec: opening the kernel failed: vmlinuz: permission denied\n"
    );
}

#[test]
fn a_machine_that_may_not_be_read() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    let secret = lab.path().join("m/proc/iomem");
    fs::set_permissions(secret, fs::Permissions::from_mode(0o000)).unwrap();
    let ended = as_user(&lab, &["plan", "--root", "m", "vmlinuz"]);
    assert_eq!(ended.code, Some(1));
    assert_eq!(
        ended.err,
        "rkexec: planning failed: reading /proc/iomem: Permission denied (os error 13)\n\
         hint: run as root, or plan on a captured machine with --root DIR\n"
    );
}

#[test]
fn files_that_are_no_kernels() {
    let lab = Lab::new();
    let tiny = || TinyBzImage::new(0x1_0000);
    let mut truncated = tiny().build();
    truncated.truncate(0x3000);
    for (content, why) in [
        (
            b"some text\n".to_vec(),
            "not a kernel image: this is a text file",
        ),
        (
            b"#!/bin/sh\n".to_vec(),
            "not a kernel image: this is a script",
        ),
        (b"\x1f\x8b\x08".to_vec(), "malformed gzip data: truncated"),
        (
            b"070701".to_vec(),
            "not a kernel image: this is a cpio archive (an initrd?)",
        ),
        (
            truncated,
            "malformed bzImage: the file is incomplete: the last 56 KiB of 68 KiB are missing; copy or download it again",
        ),
        (
            tiny().u32(field::INIT_SIZE, 16).build(),
            "malformed bzImage: init_size 0x10 is less than the kernel's 0x10000 bytes",
        ),
        (
            tiny().u8(field::LOADFLAGS, 0).build(),
            "a zImage (boot protocol 2.15): it is loaded below 1 MiB and starts in 16-bit real mode, which a kexec \
             cannot enter: a bzImage is needed",
        ),
    ] {
        lab.write("file", content);
        let expected = format!("rkexec: reading file failed: {why}\n");
        assert_eq!(plan_fails(&lab, &["file"]), expected);
        assert_eq!(lab.fails(1, &["inspect", "file"]), expected);
    }
}

#[test]
fn command_lines_that_no_kernel_takes() {
    let lab = Lab::new();
    let line = |length: usize| "x".repeat(length);
    assert_eq!(
        plan_fails(&lab, &["vmlinuz", "--cmdline", &line(2048)]),
        "rkexec: planning failed: the command line is too long: 2048 bytes, and the kernel accepts 2047\n\
         hint: shorten it, for example with --remove PARAM\n"
    );
    // With the blank between the two.
    assert_eq!(
        plan_fails(
            &lab,
            &["vmlinuz", "--cmdline", &line(1000), "--append", &line(1047)]
        ),
        "rkexec: planning failed: the command line is too long: 2048 bytes, and the kernel accepts 2047\n\
         hint: shorten it, for example with --remove PARAM\n"
    );
    assert_eq!(
        plan_fails(&lab, &["vmlinuz", "--append", "quiet\nroot=/dev/sda"]),
        "rkexec: planning failed: the command line holds a newline at byte 5, outside of double quotes: \
         the kernel takes it for a space, and programs that read /proc/cmdline take it for the end of the line\n\
         hint: write a space instead; a newline that belongs to a value goes into double quotes\n"
    );
    let root = captured("bios-512m");
    lab.succeeds(&["plan", "--root", &root, "vmlinuz", "--cmdline", &line(2047)]);
}

#[test]
fn an_initrd_larger_than_ram() {
    let lab = Lab::new();
    let sparse = File::create(lab.path().join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    assert_eq!(
        plan_fails(&lab, &["vmlinuz", "--initrd", "sparse"]),
        "rkexec: planning failed: not enough free memory for the initrd: it needs 1 GiB in one piece, \
         between 0x100000 and 0x3fffffffefff; the largest free there: \
         510.8 MiB (0x100000-0x1ffdffff)\n\
         hint: rkexec memmap shows where segments may go, and why not elsewhere\n"
    );
}

#[test]
fn an_image_larger_than_half_of_the_ram() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write("m/proc/meminfo", "MemTotal: 32768 kB\n");
    assert_eq!(
        lab.fails(1, &["plan", "--root", "m", "vmlinuz", "--direct", "off"]),
        "rkexec: planning failed: all parts together take 24 MiB: the running kernel loads at most half of the RAM, 16 MiB\n\
         hint: the kernel refuses images larger than half of the RAM: a smaller initrd is needed\n"
    );
}

#[test]
fn no_hole_for_the_kernel() {
    let lab = Lab::new();
    lab.machine(
        "m",
        "\
00100000-01ffffff : System RAM
02200000-022fffff : System RAM
02400000-027fffff : System RAM
02a00000-02bfffff : System RAM
03000000-03ffffff : System RAM (kmem)
",
    );
    // Of the largest, 15 MiB lie below pref_address; the kmem driver's are no place.
    assert_eq!(
        lab.fails(1, &["plan", "--root", "m", "vmlinuz", "--direct", "off"]),
        "rkexec: planning failed: not enough free memory for the kernel: it needs 24 MiB in one piece, aligned to 2 MiB, \
         between 0x1000000 and 0x3fffffffefff; the largest free there: \
         16 MiB (0x1000000-0x1ffffff), 4 MiB (0x2400000-0x27fffff), \
         2 MiB (0x2a00000-0x2bfffff)\n\
         hint: rkexec memmap shows where segments may go, and why not elsewhere\n"
    );
    assert_eq!(
        lab.fails(1, &["plan", "--root", "m", "vmlinuz", "--mem-max", "8M"]),
        "rkexec: planning failed: no place for the kernel: it must lie at or above 0x1000000 (16 MiB) and below 0x800000 (8 MiB)\n\
         hint: these bounds come from --mem-min, --mem-max and the kernel (rkexec inspect shows what it needs)\n"
    );
}

#[test]
fn a_hidden_memory_map() {
    let lab = Lab::new();
    lab.machine(
        "m",
        "00000000-00000000 : System RAM\n  00000000-00000000 : Kernel code\n00000000-00000000 : Reserved\n",
    );
    let why = "only root may see the memory map: to other users /proc/iomem shows every address as 0\n\
               hint: run as root (CAP_SYS_ADMIN), or plan on a captured machine with --root DIR\n";
    for (args, what) in [
        (&["plan", "vmlinuz"][..], "planning"),
        (&["memmap"], "reading the memory map"),
    ] {
        let args = [args, &["--root", "m"]].concat();
        assert_eq!(lab.fails(1, &args), format!("rkexec: {what} failed: {why}"));
    }
    let capture = lab.fails(1, &["capture", "--root", "m", "copy"]);
    assert!(capture.contains("only root may see"), "{capture}");
    assert!(!lab.path().join("copy").exists());
}

#[test]
fn malformed_machines() {
    let lab = Lab::new();
    for (iomem, why) in [
        (
            "00100000-3fffffff : System RAM\n40000000 : Reserved\n",
            "/proc/iomem: line 2: `40000000 : Reserved` is not `START-END : NAME`",
        ),
        (
            "00100000-3fffffff : System RAM\n\n",
            "/proc/iomem: line 2: `` is not `START-END : NAME`",
        ),
        (
            "00100000-3fffffff : System RAM\n20000000-4fffffff : Reserved\n",
            "/proc/iomem: line 2: 20000000-4fffffff does not lie after 00100000-3fffffff (System RAM), which is shown before it",
        ),
        (
            "00100000-3fffffff : System RAM\n40000000-3fffffff : Reserved\n",
            "/proc/iomem: line 2: the range's last byte 0x3fffffff lies before its first, 0x40000000",
        ),
        (
            "00100000-3fffffff : System RAM\n40000000-4fffffff : Rese",
            "/proc/iomem: line 2: the file ends within this line",
        ),
        ("", "/proc/iomem: the file is empty"),
    ] {
        lab.machine("m", iomem);
        let err = lab.fails(1, &["plan", "--root", "m", "vmlinuz"]);
        assert_eq!(err, format!("rkexec: planning failed: {why}\n"));
    }

    lab.machine("m", "00100000-3fffffff : System RAM\n");
    let entry =
        |file: &str, content: &str| lab.write(&format!("m/sys/firmware/memmap/3/{file}"), content);
    entry("start", "0x100000\n");
    entry("end", "3fffffff\n");
    entry("type", "System RAM\n");
    let planning = |why: &str| {
        let err = lab.fails(1, &["plan", "--root", "m", "vmlinuz"]);
        assert_eq!(err, format!("rkexec: planning failed: {why}\n"));
    };
    planning("/sys/firmware/memmap/3: end: `3fffffff\\n` is not a number 0x…");
    entry("end", "0x3fffffff\n");
    lab.write("m/sys/kernel/boot_params/data", [0; 100]);
    planning("/sys/kernel/boot_params/data: 100 bytes, expected 4096");
    planning_without(&lab, "m", "iomem");
    planning_without(&lab, "m", "cpuinfo");
}

/// A fact that every machine has is missing.
fn planning_without(lab: &Lab, machine: &str, file: &str) {
    fs::remove_file(lab.path().join(machine).join("proc").join(file)).unwrap();
    assert_eq!(
        lab.fails(1, &["plan", "--root", machine, "vmlinuz"]),
        format!(
            "rkexec: planning failed: {machine}/proc/{file}: no such file\n\
             hint: --root wants a directory that `rkexec capture` made: is it one, and complete?\n"
        )
    );
    lab.machine(machine, "00100000-3fffffff : System RAM\n");
    fs::remove_dir_all(lab.path().join(machine).join("sys")).unwrap_or_default();
}

/// A directory that is not there is no machine without boot entries and without faults.
#[test]
fn a_root_that_is_not_there() {
    let lab = Lab::new();
    lab.write("file", "x");
    for root in ["gone", "file"] {
        for verb in ["entries", "doctor", "memmap"] {
            let said = lab.fails(1, &[verb, "--root", root]);
            let hint = "hint: --root wants a directory that `rkexec capture` made";
            assert!(said.contains(hint), "{verb} {root}: {said}");
        }
    }
}

#[test]
fn neither_system_call() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write(
        "m/sys/kernel/security/lockdown",
        "none [integrity] confidentiality\n",
    );
    assert_eq!(
        lab.fails(1, &["plan", "--root", "m", "vmlinuz", "--no-digest"]),
        "rkexec: planning failed: cannot load: kernel lockdown forbids kexec_load, \
         and kexec_file_load cannot do --no-digest (the running kernel's purgatory always verifies)\n\
         hint: leave --no-digest out: only kexec_load can do it\n"
    );
}

#[test]
fn results_that_cannot_be_written() {
    let lab = Lab::new();
    let root = captured("bios-512m");
    let plan = ["plan", "--root", &root, "vmlinuz", "--cmdline", "x"];
    let svg = lab.fails(
        1,
        &[&plan[..], &["--svg", "no/such/directory.svg"]].concat(),
    );
    assert_eq!(
        svg,
        "rkexec: writing no/such/directory.svg failed: No such file or directory (os error 2)\n"
    );
    for args in [
        &plan[..],
        &["generate", "man"],
        &["--output", "json", "memmap", "--root", &root],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended: Ended = lab.command(args).stdout(full).output().unwrap().into();
        assert_eq!(ended.code, Some(1), "{args:?}");
        assert_eq!(
            ended.err,
            "rkexec: writing the result failed: No space left on device (os error 28)\n"
        );
    }
}
