//! Options that are wrong, alone or together: exit code 2.

use crate::{Lab, captured};

#[test]
fn a_wrong_command_line() {
    let lab = Lab::new();
    for (args, mention) in [
        (&[][..], "Usage: rkexec"),
        (&["nothing"], "unrecognized subcommand 'nothing'"),
        (
            &["plan", "--panic"],
            "<KERNEL|--entry <ID|default|current>>",
        ),
        (&["load", "--initrd", "x"], "<KERNEL|--entry"),
        (&["load", "--module", "x"], "<KERNEL|--entry"),
        (&["reboot", "--addon", "x"], "<KERNEL|--entry"),
        (&["reboot", "--profile", "x"], "<KERNEL|--entry"),
        (&["plan", "vmlinuz", "--initrd"], "--initrd"),
        (&["plan", "vmlinuz", "other"], "'other'"),
        (&["plan", "vmlinuz", "--frobnicate"], "'--frobnicate'"),
        (&["plan", "vmlinuz", "--mem-min", "-1"], "'-1'"),
        (
            &["plan", "vmlinuz", "--mem-max", "1X"],
            "not a number of bytes: write it like 64M or 0x4000000 (suffix K, M, G or T, no MiB, no decimal point)",
        ),
        (
            &["plan", "vmlinuz", "--mem-max", "99999999999T"],
            "too large: more than 64 bits",
        ),
        (
            &["plan", "vmlinuz", "--syscall", "kexec"],
            "kexec_file_load",
        ),
        (&["plan", "vmlinuz", "--memory-map", "mine"], "fixed-up"),
        (&["plan", "vmlinuz", "--output", "yaml"], "json"),
        (&["load", "vmlinuz", "--explain"], "'--explain'"),
        (&["load", "vmlinuz", "--svg", "x"], "'--svg'"),
        (&["exec", "vmlinuz"], "'vmlinuz'"),
        (&["unload", "--sync"], "'--sync'"),
        (
            &["exec", "--root", "x", "--sync-limit", "9223372036854775807"],
            "not a whole number of seconds from 0 to 86400 (a day)",
        ),
        (
            &["exec", "--root", "x", "--sync-limit", "86401"],
            "not a whole number of seconds from 0 to 86400 (a day)",
        ),
        (
            &["exec", "--root", "x", "--sync-limit", "86400"],
            "--root is refused",
        ),
        (
            &["exec", "--root", "x", "--watchdog", "0"],
            "not a whole number of seconds from 1 to 86400 (a day)",
        ),
        (
            &["load", "vmlinuz", "--watchdog", "86401"],
            "not a whole number of seconds from 1 to 86400 (a day)",
        ),
        (&["capture"], "<DIR>"),
        (&["retrieve"], "<DIR>"),
        (
            &["retrieve", "d", "--session", ""],
            "the name of a session has 1 to 63 bytes",
        ),
        (
            &["retrieve", "d", "--token", "3", "--token", "3"],
            "retrieve failed: --token 3 is given twice",
        ),
        (&["inspect"], "<FILE>"),
        (&["generate", "completions", "cmd"], "bash"),
    ] {
        let err = lab.fails(2, args);
        assert!(err.contains(mention), "{args:?}: {err}");
    }
}

#[test]
fn options_that_contradict_each_other() {
    let lab = Lab::new();
    let root = captured("bios-512m");
    for (args, expected) in [
        (
            &["--mem-min", "1G", "--mem-max", "1G"][..],
            "rkexec: planning failed: --mem-min 0x40000000 is not below --mem-max 0x40000000\n",
        ),
        (
            &["--syscall", "kexec_file_load", "--mem-min", "16M"],
            "rkexec: planning failed: --mem-min does not work with kexec_file_load: \
             the running kernel places the segments itself\n\
             hint: leave --mem-min or --syscall kexec_file_load out: only kexec_load can do it\n",
        ),
        (
            &["--syscall", "kexec_file_load", "--memory-map", "firmware"],
            "rkexec: planning failed: --memory-map firmware does not work with kexec_file_load: \
             the running kernel hands over its own map\n\
             hint: leave --memory-map firmware or --syscall kexec_file_load out: only kexec_load can do it\n",
        ),
        (
            &["--syscall", "kexec_file_load", "--no-digest"],
            "rkexec: planning failed: --no-digest does not work with kexec_file_load: \
             the running kernel's purgatory always verifies\n\
             hint: leave --no-digest or --syscall kexec_file_load out: only kexec_load can do it\n",
        ),
        (
            &["--include-driver-managed", "virtio_mem"],
            "rkexec: planning failed: memory of the driver virtio_mem cannot be passed to the next kernel as RAM: \
             the hypervisor may have unplugged parts of it, and its driver unplugs all of it when it starts\n\
             hint: only --include-driver-managed kmem is possible\n",
        ),
        (
            &[
                "--include-driver-managed",
                "kmem",
                "--include-driver-managed",
                "hmem",
            ],
            "rkexec: planning failed: memory of the driver hmem cannot be passed to the next kernel as RAM: \
             nothing is known of this driver\n\
             hint: only --include-driver-managed kmem is possible\n",
        ),
    ] {
        let args = [&["plan", "--root", &root, "vmlinuz"], args].concat();
        assert_eq!(lab.fails(2, &args), expected);
    }
    for args in [
        &["plan", "vmlinuz", "--cmdline", "a", "--reuse-cmdline"][..],
        &["status", "--quiet", "--verbose"],
    ] {
        let err = lab.fails(2, args);
        assert!(err.contains("cannot be used with"), "{err}");
    }
}

#[test]
fn verbs_that_change_the_machine_refuse_another_root() {
    let lab = Lab::new();
    let root = captured("bios-512m");
    for verb in ["load", "exec", "reboot", "unload", "retrieve"] {
        let mut args = vec![verb, "--root", &root];
        match verb {
            "load" => args.push("vmlinuz"),
            "retrieve" => args.push("new"),
            _ => {}
        }
        // A plan is no help for the others.
        let plans = match verb {
            "load" | "reboot" => "; `rkexec plan --root DIR` plans for another machine",
            _ => "",
        };
        assert_eq!(
            lab.fails(2, &args),
            format!(
                "rkexec: {verb} failed: it would change this machine, so --root is refused{plans}\n"
            )
        );
    }
    assert!(!lab.path().join("new").exists());
}

#[test]
fn help_and_version_are_no_errors() {
    let lab = Lab::new();
    let help = lab.succeeds(&["--help"]);
    for verb in [
        "load", "plan", "exec", "reboot", "unload", "status", "memmap", "inspect", "capture",
        "generate",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}: {help}");
        assert!(lab.succeeds(&[verb, "--help"]).contains("Usage: rkexec"));
    }
    for group in ["Boot a kernel:", "Crash kernel:", "Look:", "Other:"] {
        assert!(
            help.contains(&format!("\n\n{group}\n  ")),
            "{group}: {help}"
        );
    }
    assert!(!help.contains("Commands:"), "{help}");
    assert!(
        help.contains("\nUsage: rkexec [OPTIONS] VERB [ARGUMENTS]\n"),
        "{help}"
    );
    let load = lab.succeeds(&["load", "--help"]);
    for heading in [
        "What is loaded",
        "Command line",
        "Crash kernel",
        "Placement and memory map",
        "For experts",
        "Device tree and pools",
        "Options for every verb",
    ] {
        assert!(
            load.contains(&format!("\n{heading}:\n")),
            "{heading}: {load}"
        );
    }
    // Only --help and --version have no heading of their own.
    let (_, options) = load.split_once("\nOptions:\n").unwrap();
    let (plain, _) = options.split_once("\nWhat is loaded:\n").unwrap();
    let plain = plain
        .lines()
        .filter(|line| line.trim_start().starts_with('-'));
    assert_eq!(plain.count(), 2, "{options}");
    let version = format!("rkexec {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(lab.succeeds(&["--version"]), version);
}

#[test]
fn a_serial_port_has_a_name_or_a_number() {
    let lab = Lab::new();
    let root = captured("bios-512m");
    let plan = |port: &str| {
        let args = [
            "plan",
            "--root",
            &root,
            "vmlinuz",
            "--cmdline",
            "x",
            "--serial-port",
            port,
        ];
        lab.run(&args)
    };
    for port in ["ttyS0", "ttyS3", "0x3f8", "760"] {
        assert_eq!(plan(port).code, Some(0), "{port}");
    }
    for port in ["ttyS4", "ttyS", "ttyS00", "0", "0x10000", "usb"] {
        let ended = plan(port);
        let why = "neither ttyS0 to ttyS3 nor the number of an I/O port (0x1 to 0xffff)";
        assert!(
            ended.code == Some(2) && ended.err.contains(why),
            "{ended:?}"
        );
    }
}

#[test]
fn a_verb_of_other_tools_gets_a_tip() {
    let lab = Lab::new();
    for (verb, tip) in [
        (
            "boot",
            "\nhint: `rkexec reboot` loads the default boot entry, ",
        ),
        ("start", "\nhint: `rkexec reboot` "),
        ("run", "\nhint: `rkexec reboot` "),
        ("stop", "\nhint: `rkexec unload` "),
        ("list", "\nhint: `rkexec status` "),
    ] {
        let err = lab.fails(2, &[verb]);
        assert!(err.contains(tip), "{verb}: {err}");
    }
    let unnamed = lab.fails(2, &["plan", "--panic"]);
    let tip = "\nhint: what is loaded must be named for this option; `--entry default` ";
    assert!(unnamed.contains(tip), "{unnamed}");
    for args in [&["frobnicate"][..], &["capture"]] {
        assert!(!lab.fails(2, args).contains("hint:"), "{args:?}");
    }
}
