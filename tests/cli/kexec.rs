//! The drop-in front end: kexec-tools' command line and exit codes.
//!
//! Everything here plans on captured machines, or fails before it could change
//! anything. Debian's own /sbin/kexec is run with nothing but what ends in its
//! help, its version or a complaint.

use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::Value;

use crate::common::bzimage::{TinyBzImage, field};
use crate::common::elf::TinyElf;
use crate::common::multiboot;
use crate::common::pe::TinyPe;
use crate::{Ended, Lab, captured};

/// Runs `kexec` below a captured machine.
fn kexec_at(lab: &Lab, root: &str, args: &[&str]) -> Ended {
    lab.run(&[&["--root", root, "kexec"], args].concat())
}

fn kexec(lab: &Lab, args: &[&str]) -> Ended {
    kexec_at(lab, &captured("bios-512m"), args)
}

/// What `kexec --dry-run` plans, and what it said on standard error.
#[track_caller]
fn plan(lab: &Lab, args: &[&str]) -> (Value, String) {
    let root = captured("bios-512m");
    let before = ["--root", &root, "--output", "json", "kexec", "--dry-run"];
    let ended = lab.run(&[&before, args].concat());
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    (serde_json::from_str(&ended.out).unwrap(), ended.err)
}

/// A failure of one line, or two with a hint.
#[track_caller]
fn fails(lab: &Lab, code: i32, args: &[&str], why: &str) {
    let ended = kexec(lab, args);
    assert_eq!(
        (ended.code, &*ended.out),
        (Some(code), ""),
        "{args:?}: {ended:?}"
    );
    assert!(ended.err.starts_with("rkexec: "), "{args:?}: {ended:?}");
    assert!(ended.err.contains(why), "{args:?}: {ended:?}");
}

/// The program under the name `kexec`.
fn link(lab: &Lab) -> Command {
    let link = lab.path().join("kexec");
    if !link.exists() {
        symlink(env!("CARGO_BIN_EXE_rkexec"), &link).unwrap();
    }
    Command::new(link)
}

#[test]
fn both_end_alike_on_what_is_harmless() {
    let lab = Lab::new();
    for (args, same_words) in [
        (&["--version"][..], None),
        (&["-v"], None),
        (&["-vh"], None),
        (&["--vers"], None),
        (&["--help"], Some("--reuse-cmdline")),
        (&["-h", "operand"], Some("--load-panic")),
        (&["-hZ"], None),
        (&["-?"], None),
        (&["-Z"], Some("invalid option -- 'Z'")),
        (&["-Z", "-h"], Some("invalid option -- 'Z'")),
        (&["--bogus", "-v"], Some("unrecognized option '--bogus'")),
        (&["--bogus=1"], None),
        (&["--lo"], Some("option '--lo' is ambiguous")),
        (
            &["--mem", "1"],
            Some("option '--mem' is ambiguous; possibilities: '--mem-min' '--mem-max'"),
        ),
        (&["--s"], Some("option '--s' is ambiguous")),
        (
            &["--version=1"],
            Some("option '--version' doesn't allow an argument"),
        ),
        (
            &["--debu=1"],
            Some("option '--debug' doesn't allow an argument"),
        ),
        (
            &["--append"],
            Some("option '--append' requires an argument"),
        ),
        (&["--typ"], Some("option '--type' requires an argument")),
        (&["-t"], Some("option requires an argument -- 't'")),
        (&["-dt"], Some("option requires an argument -- 't'")),
        // Neither has a kernel.
        (&["-l"], None),
        (&["-f", "--append=x"], None),
        (&["-l", "--mem-min=zz"], None),
        (&["-l", "--serial=zz"], None),
    ] {
        let run = |mut command: Command| -> Ended { command.args(args).output().unwrap().into() };
        let ours = run(link(&lab));
        let theirs = run(Command::new("/sbin/kexec"));
        assert_eq!(ours.code, theirs.code, "{args:?}: {ours:?}\n{theirs:?}");
        for ended in [&ours, &theirs] {
            let said = format!("{}{}", ended.out, ended.err);
            assert!(said.contains(same_words.unwrap_or("")), "{args:?}: {said}");
        }
    }
}

#[test]
fn the_name_and_the_verb_are_one() {
    let lab = Lab::new();
    let by_name: Ended = link(&lab).arg("--help").output().unwrap().into();
    let by_verb = lab.run(&["kexec", "--help"]);
    assert_eq!(by_name, by_verb);
    assert!(by_name.out.starts_with("Usage: kexec"), "{by_name:?}");
    // rkexec's own options are none of kexec's.
    let own: Ended = link(&lab).args(["--root", "x"]).output().unwrap().into();
    assert_eq!(own.code, Some(1));
    assert!(own.err.contains("unrecognized option '--root'"), "{own:?}");
}

#[test]
fn the_command_line() {
    let lab = Lab::new();
    let cmdline = |args: &[&str]| {
        let (plan, _) = plan(&lab, args);
        plan["cmdline"].as_str().unwrap().to_owned()
    };
    let running = std::fs::read_to_string(captured("bios-512m") + "/proc/cmdline").unwrap();
    let running = running.trim();
    assert_eq!(cmdline(&["-l", "vmlinuz"]), "");
    assert_eq!(
        cmdline(&["-l", "vmlinuz", "--append", "a \"b c\""]),
        "a \"b c\""
    );
    // The last one counts, and other options leave it alone.
    assert_eq!(
        cmdline(&["--command-line=a", "vmlinuz", "--append=b", "--noefi", "-l"]),
        "b"
    );
    assert_eq!(cmdline(&["-l", "vmlinuz", "--reuse-cmdline"]), running);
    assert_eq!(
        cmdline(&["-l", "--append=x=1", "--reuse-cmdline", "vmlinuz"]),
        format!("{running} x=1")
    );
}

#[test]
fn what_is_dropped_from_a_reused_line() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    lab.write(
        "m/proc/cmdline",
        "BOOT_IMAGE=/k root=/dev/vda dyndbg=\"file a +p\" elfcorehdr=1M memmap=exactmap \
         memmap=1M@0 initrd=x BOOT_IMAGES=stay -- BOOT_IMAGE=init\n",
    );
    let args = ["--dry-run", "-l", "vmlinuz", "--reuse-cmdline"];
    let shown = kexec_at(&lab, "m", &args);
    let line =
        "cmdline:   root=/dev/vda dyndbg=\"file a +p\" BOOT_IMAGES=stay -- BOOT_IMAGE=init\n";
    assert!(shown.out.contains(line), "{shown:?}");
}

#[test]
fn the_options_of_a_load() {
    let lab = Lab::new();
    lab.write("initrd", "x".repeat(5000));
    let (plan, _) = plan(
        &lab,
        &[
            "--initrd=missing",
            "--ramdisk",
            "initrd",
            "-cl",
            "--mem-min=0x8000000",
            "vmlinuz",
            "--append=x",
            "--mem-max=0xfffffff",
        ],
    );
    assert_eq!(plan["syscall"]["name"], "kexec_load");
    assert_eq!(plan["then"], "nothing");
    let segments = plan["segments"].as_array().unwrap();
    assert!(segments.iter().any(|segment| segment["role"] == "initrd"));
    for segment in segments {
        let mem = segment["mem"].as_str().unwrap().trim_start_matches("0x");
        let mem = u64::from_str_radix(mem, 16).unwrap();
        let end = mem + segment["memsz"].as_u64().unwrap();
        assert!(mem >= 0x800_0000 && end <= 0x1000_0000, "{segment}");
    }
}

#[test]
fn what_follows_a_load() {
    let lab = Lab::new();
    let then = |args: &[&str]| plan(&lab, args).0["then"].clone();
    assert_eq!(then(&["-l", "vmlinuz", "--append=x"]), "nothing");
    assert_eq!(then(&["-f", "vmlinuz", "--append=x"]), "exec");
    assert_eq!(
        then(&["-x", "-y", "vmlinuz", "--append=x"]),
        "exec --shutdown"
    );
    for (args, what) in [
        (&["-e"][..], "would boot the loaded kernel\n"),
        (&["-u"], "would unload the kernel that was loaded with -l\n"),
        (
            &["-u", "-p"],
            "would unload the crash kernel (loaded with -p)\n",
        ),
    ] {
        let ended = kexec(&lab, &[&["--dry-run"], args].concat());
        assert_eq!((ended.code, &*ended.out, &*ended.err), (Some(0), what, ""));
    }
}

#[test]
fn options_without_effect_are_named_and_the_load_goes_on() {
    let lab = Lab::new();
    let (plan, err) = plan(
        &lab,
        &[
            "-s",
            "-i",
            "--noefi",
            "--mem-min=1M",
            "--reset-vga",
            "-x",
            "--reuse-video-type",
            "-l",
            "vmlinuz",
            "--append=x",
        ],
    );
    assert_eq!(plan["syscall"]["name"], "kexec_file_load");
    for option in ["--no-checks", "--noefi", "--mem-min", "--reset-vga"] {
        let line = format!("rkexec: warning: {option} is ignored: ");
        assert!(err.contains(&line), "{option}: {err}");
    }
    assert!(!err.contains("ifdown") && !err.contains("video"), "{err}");
}

#[test]
fn debug_shows_the_plan_and_the_reason_of_the_call() {
    let lab = Lab::new();
    let shown = kexec(&lab, &["-d", "-l", "--dry-run", "vmlinuz", "--append=x"]);
    assert!(shown.out.contains(
        "syscall:   kexec_load, because: only with it rkexec can correct the memory map"
    ));
    assert!(shown.out.contains("every range of this machine:"));
}

#[test]
fn failures_have_kexec_tools_codes() {
    let lab = Lab::new();
    lab.write("empty", "");
    lab.write("junk", "no kernel".repeat(200));
    let mut cut = TinyBzImage::new(0x1_0000).build();
    cut.truncate(0x3000);
    lab.write("cut", cut);
    let long = format!("--append={}", "x".repeat(3000));
    let long = long.as_str();
    for (codes, args, why) in [
        ([1, 255, 255], &["missing"][..], "missing: no such file"),
        (
            [1, 255, 255],
            &["vmlinuz", "--initrd=missing"],
            "missing: no such file",
        ),
        ([1, 1, 1], &["empty"], "empty: the file is empty"),
        ([255, 255, 255], &["junk"], "not a kernel image"),
        ([255, 253, 255], &["cut"], "malformed bzImage"),
        (
            [255, 253, 255],
            &["vmlinuz", long],
            "the command line is too long: 3000 bytes",
        ),
        (
            [255, 255, 255],
            &["vmlinuz", "-t", "elf-x86_64"],
            "but --type says another type",
        ),
        (
            [255, 255, 255],
            &["vmlinuz", "-t", "what"],
            "unknown type; known are ",
        ),
        (
            [255, 255, 255],
            &["vmlinuz", "--serial=x"],
            "--serial \"x\"",
        ),
        ([1, 1, 1], &["vmlinuz", "--mem-max=x"], "--mem-max \"x\""),
        (
            [1, 1, 1],
            &["vmlinuz", "--real-mode"],
            "--real-mode is not supported",
        ),
        ([255, 255, 255], &[], "no kernel specified"),
    ] {
        for (code, call) in codes.into_iter().zip(["-c", "-s", "-a"]) {
            let all = [&["--dry-run", "-l", call], args].concat();
            fails(&lab, code, &all, why);
        }
    }
    let nowhere = ["--dry-run", "-c", "-l", "vmlinuz", "--mem-max=0x1000000"];
    fails(&lab, 1, &nowhere, "for the kernel");
}

#[test]
fn nothing_changes_a_machine_that_is_elsewhere() {
    let lab = Lab::new();
    for args in [
        &["-l", "vmlinuz"][..],
        &["-u"],
        &["-e"],
        &["-f", "vmlinuz"],
        &["vmlinuz"],
    ] {
        fails(&lab, 1, args, "--root is refused");
    }
}

#[test]
fn status_by_exit_code() {
    let lab = Lab::new();
    let root = lab.path().join("m");
    let root = root.to_str().unwrap();
    let status = |args: &[&str]| {
        let ended = kexec_at(&lab, root, args);
        assert_eq!((&*ended.out, &*ended.err), ("", ""), "{args:?}");
        ended.code.unwrap()
    };
    lab.machine("m", "");
    assert_eq!(status(&["-S"]), 255);
    lab.write("m/sys/kernel/kexec_loaded", "1\n");
    assert_eq!((status(&["-l", "-S"]), status(&["-S"])), (1, 255));
    lab.write("m/sys/kernel/kexec_crash_loaded", "0\n");
    for args in [&["-S"][..], &["-d", "-S"], &["-Sp"], &["--status", "x"]] {
        assert_eq!(status(args), 0, "{args:?}");
    }
    assert_eq!(status(&["--stat", "-l"]), 1);
    lab.write("m/sys/kernel/kexec_crash_loaded", "1\n");
    assert_eq!(status(&["-S", "-p", "-l"]), 1);
    lab.write("m/sys/kernel/kexec_crash_loaded", "x\n");
    assert_eq!(kexec_at(&lab, root, &["-S"]).code, Some(255));
}

#[test]
fn the_size_of_the_crash_reservation() {
    let lab = Lab::new();
    lab.machine("m", "");
    let size = || kexec_at(&lab, "m", &["--print-ckr-size"]);
    assert_eq!((size().code, &*size().out), (Some(0), "0\n"));
    lab.write("m/sys/kernel/kexec_crash_size", "268435456\n");
    assert_eq!((size().code, &*size().out), (Some(0), "268435456\n"));
}

#[test]
fn a_crash_kernel() {
    let lab = Lab::new();
    let kexec = |machine: &str, args: &[&str]| {
        kexec_at(&lab, machine, &[&["--dry-run", "-p"], args].concat())
    };
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    for call in ["-c", "-s", "-a"] {
        let ended = kexec("m", &[call, "vmlinuz"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(
            ended
                .err
                .contains("no memory is reserved for a crash kernel")
        );
    }
    lab.machine(
        "crash",
        "00100000-3fffffff : System RAM\n  20000000-2fffffff : Crash kernel\n",
    );
    lab.write(
        "crash/proc/cmdline",
        "a crashkernel=256M b crashkernel=1M,low\n",
    );
    lab.write("crash/sys/kernel/kexec_crash_size", "268435456\n");
    let ended = kexec(
        "crash",
        &["-s", "vmlinuz", "--reuse-cmdline", "--append=crashkernel=x"],
    );
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // What was asked for is the operator's.
    assert!(
        ended
            .out
            .contains("cmdline:   a b crashkernel=x acpi_no_memhotplug\n"),
        "{ended:?}"
    );
    let ended = kexec("crash", &["-c", "--hotplug", "vmlinuz", "--append=x"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let conflict = kexec("crash", &["vmlinuz", "--dtb=x"]);
    assert_eq!(conflict.code, Some(1), "{conflict:?}");
    assert!(conflict.err.contains("-p and --dtb do not go together"));
}

/// A multiboot kernel at 1 MiB.
pub(super) fn multiboot(header: &[u8]) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.resize(5000, 0x90);
    let mut elf = multiboot::TinyElf::new(1 << 20, &bytes);
    elf.entry += 64;
    elf.build()
}

#[test]
fn the_type_is_what_the_file_is() {
    let lab = Lab::new();
    lab.write("vmlinux", TinyElf::vmlinux().build());
    lab.write("uki", TinyPe::uki().without(".dtb").build());
    lab.write("mb1", multiboot(&multiboot::header_v1(3, &[])));
    lab.write("mb2", multiboot(&multiboot::header_v2(0, &[])));
    for (file, own) in [
        ("vmlinuz", &["bzImage64", "bzImage"][..]),
        ("vmlinux", &["elf-x86_64", "elf-x86"]),
        ("uki", &["uki"]),
        ("mb1", &["multiboot-x86"]),
        ("mb2", &["multiboot2-x86"]),
    ] {
        for kind in [
            "bzImage64",
            "bzImage",
            "elf-x86_64",
            "elf-x86",
            "uki",
            "multiboot-x86",
            "multiboot2-x86",
        ] {
            let args = [
                "--dry-run",
                "--args-linux",
                "-l",
                file,
                "-t",
                kind,
                "--append=x",
            ];
            let ended = kexec(&lab, &args);
            let code = if own.contains(&kind) { 0 } else { 255 };
            assert_eq!(ended.code, Some(code), "{file} as {kind}: {ended:?}");
        }
    }
}

/// A field case: a kernel with the headers of both versions.
#[test]
fn the_type_chooses_among_the_headers_of_a_file() {
    let lab = Lab::new();
    lab.write(
        "both.elf",
        include_bytes!("../data/cases/type-multiboot1/both.elf"),
    );
    for (kind, format) in [
        (&["-t", "multiboot-x86"][..], "multiboot 1"),
        (&["-t", "multiboot2-x86"], "multiboot 2"),
        (&[], "multiboot 2"),
    ] {
        let (plan, err) = plan(
            &lab,
            &[&["-c", "-l", "both.elf", "--command-line=x"], kind].concat(),
        );
        assert_eq!(plan["image"]["format"], format, "{err}");
    }
    let linux = ["--dry-run", "-l", "both.elf", "-t", "elf-x86_64"];
    fails(&lab, 255, &linux, "is a multiboot2 kernel, but --type");
}

/// A bzImage without a 64-bit entry is what kexec-tools calls bzImage, and the other
/// name is one for those that have it.
#[test]
fn a_32_bit_kernel_is_a_bzimage() {
    let lab = Lab::new();
    let image = TinyBzImage::new(0x1_0000).u16(field::XLOADFLAGS, 0x7e);
    lab.write("k32", image.build());
    for kind in [&["-t", "bzImage"][..], &[]] {
        let (plan, _) = plan(&lab, &[&["-l", "k32", "--append=x"], kind].concat());
        assert_eq!(plan["image"]["entry_mode"], "32-bit");
    }
    let new = ["--dry-run", "-l", "k32", "-t", "bzImage64"];
    fails(&lab, 255, &new, "a bzImage without a 64-bit entry");
}

#[test]
fn the_first_of_two_kernels_is_loaded_and_the_last_of_two_initrds() {
    let lab = Lab::new();
    lab.write("i", b"070701");
    let (one, _) = plan(&lab, &["-l", "vmlinuz", "--append=x", "--initrd=i"]);
    let twice = [
        "-l",
        "vmlinuz",
        "junk",
        "--append=x",
        "--initrd=junk",
        "--initrd=i",
    ];
    let (two, err) = plan(&lab, &twice);
    assert_eq!(one["segments"], two["segments"]);
    assert!(
        err.contains("junk is ignored: one kernel is loaded"),
        "{err}"
    );
    assert!(
        err.contains("--initrd is given more than once: the last one counts"),
        "{err}"
    );
}

#[test]
fn modules_go_with_multiboot_kernels() {
    let lab = Lab::new();
    lab.write("mb", multiboot(&multiboot::header_v1(3, &[])));
    lab.write("m", "module".repeat(100));
    let args = [
        "-l",
        "mb",
        "--append=x",
        "--module=m a b",
        "--module",
        "vmlinuz",
    ];
    let (planned, _) = plan(&lab, &args);
    let segments = planned["segments"].as_array().unwrap().iter();
    let modules = segments.filter(|segment| segment["role"] == "module");
    assert_eq!(modules.count(), 2, "{planned}");
    let linux = ["--dry-run", "-l", "vmlinuz", "--module=m"];
    fails(
        &lab,
        1,
        &linux,
        "--module works only with multiboot kernels",
    );
    let missing = ["--dry-run", "-l", "-c", "mb", "--module=missing a"];
    fails(&lab, 1, &missing, "missing: no such file");
}

/// Once, and in the words of kexec, although rkexec's own plan has them as well.
#[test]
fn a_dry_run_says_each_warning_once() {
    let lab = Lab::new();
    let root = captured("bios-512m");
    let ended = lab.run(&["--root", &root, "kexec", "--dry-run", "-l", "vmlinuz"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let both = ended.out + &ended.err;
    assert_eq!(
        both.matches("the command line is empty").count(),
        1,
        "{both}"
    );
    assert!(
        both.contains("(--command-line or --reuse-cmdline give one)"),
        "{both}"
    );
    assert!(!both.contains("--append give one"), "{both}");
    assert!(
        both.contains("\nafter loading: nothing is booted\n"),
        "{both}"
    );
}

/// Plain `kexec` may be the one of kexec-tools.
#[test]
fn the_hint_names_the_program_that_was_called() {
    let lab = Lab::new();
    let ended = lab.run(&["kexec", "--what"]);
    assert!(
        ended
            .err
            .ends_with("hint: `rkexec kexec --help` lists the options\n"),
        "{ended:?}"
    );
}
