//! Machines, files and names that somebody else made: nothing of them reaches a terminal
//! as it is, no number in them decides about memory, and no file leads out of the machine.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::common::bzimage::TinyBzImage;
use crate::{Ended, Lab};

const IOMEM: &str = "00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n  10000000-1fffffff : Crash kernel\n";

/// With a plain machine called `m`.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.machine("m", IOMEM);
    lab
}

/// Runs the command with at most `megabytes` of address space, for half a minute.
#[track_caller]
fn bounded(lab: &Lab, megabytes: u64, args: &[&str]) -> Ended {
    let limit = megabytes << 10;
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -v {limit} && exec \"$0\" \"$@\"")])
        .arg(env!("CARGO_BIN_EXE_rkexec"))
        .args(args)
        .current_dir(lab.path());
    in_time(command)
}

/// Half a minute.
#[track_caller]
fn in_time(mut command: Command) -> Ended {
    let out = tempfile::tempfile().unwrap();
    let err = tempfile::tempfile().unwrap();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(err.try_clone().unwrap())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(Instant::now() < end, "{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = |mut file: File| {
        use std::io::{Read as _, Seek as _};
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    std::process::Output {
        status,
        stdout: text(out),
        stderr: text(err),
    }
    .into()
}

/// A record of a crash kernel made of these files.
fn record(kernel: &str, initrd: &str, cmdline: &str) -> String {
    let record = json!({
        "schema": 1, "boot_id": "this-boot", "rkexec": "0.1.0", "loaded_at": 0,
        "target": "crash", "syscall": "kexec_load", "kernel": kernel,
        "release": "6.1\u{1b}[31m", "initrds": [initrd], "cmdline": cmdline, "digest": true,
        "no_efi": false, "serial_port": null, "hotplug": "auto",
        "mem_min": null, "mem_max": null, "init_size": 4096, "fit": null,
        "blobs": { "kernel": null, "initrd": [] },
    });
    record.to_string()
}

fn loaded(lab: &Lab, record: &str) {
    lab.write("m/proc/sys/kernel/random/boot_id", "this-boot\n");
    lab.write("m/sys/kernel/kexec_crash_loaded", "1\n");
    lab.write("m/run/rkexec/crash.json", record);
}

/// Nothing in `text` but what a terminal shows.
#[track_caller]
fn assert_plain(text: &str) {
    let wrong = |c: &char| {
        !matches!(c, '\n' | '\t') && (c.is_control() || matches!(c, '\u{200b}'..='\u{202e}'))
    };
    let wrong: Vec<char> = text.chars().filter(wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?} in {text}");
}

/// What a terminal obeys: clear the screen; CSI as one character; a text turned around.
const ESCAPES: &str = "\u{1b}[2J\u{9b}31m\u{202e}x\u{7f}";

#[test]
fn names_that_a_terminal_would_obey_are_shown() {
    let lab = lab();
    let evil = format!("evil{ESCAPES}\nkernel: fake");
    lab.machine(
        "m",
        &format!(
            "{IOMEM}40000000-4fffffff : System RAM (k{ESCAPES})\n50000000-5fffffff : {ESCAPES}\n"
        ),
    );
    lab.write("m/proc/cmdline", format!("a={ESCAPES}\rb\nkernel: fake\n"));
    lab.write("m/proc/sys/kernel/osrelease", format!("6.1{ESCAPES}\n"));
    let mut kernel = TinyBzImage::direct().build();
    let at = kernel.windows(11).position(|w| w == b"6.12.0-tiny");
    let at = at.unwrap();
    kernel[at..at + 11].copy_from_slice(b"6.12.\x1b[2J-x");
    lab.write(&evil, kernel);
    loaded(
        &lab,
        &record(&evil, "/i", &format!("x={ESCAPES}\nloaded: yes")),
    );
    let copy = format!("copy{ESCAPES}");
    for args in [
        &["memmap"][..],
        &["memmap", "-v"],
        &["status"],
        &["status", "-v"],
        &["report"],
        &["report", "-v"],
        &["plan", &evil, "--reuse-cmdline"],
        &["plan", &evil, "--reuse-cmdline", "--explain"],
        &["plan", &evil, "--cmdline", ESCAPES],
        &["inspect", &evil],
        &["capture", &copy],
        &[
            "kexec",
            "-l",
            &evil,
            "--reuse-cmdline",
            "--dry-run",
            "--debug",
        ],
    ] {
        for output in ["text", "json"] {
            let _ = fs::remove_dir_all(lab.path().join(&copy));
            let ended = lab.run(&[&["--root", "m", "--output", output], args].concat());
            assert!(
                ended.code.is_some_and(|code| code <= 1),
                "{args:?}: {ended:?}"
            );
            assert!(
                !(ended.out.is_empty() && ended.err.is_empty()),
                "{args:?}: {ended:?}"
            );
            assert_plain(&ended.out);
            assert_plain(&ended.err);
            if output == "json" {
                // What was said comes back as it was.
                serde_json::from_str::<Value>(&ended.out).unwrap();
            }
        }
    }
    // Nor can a newline in it make a line of its own.
    let plan = lab
        .run(&["plan", &evil, "--root", "m", "--reuse-cmdline"])
        .out;
    let shown = "kernel:    evil\\x1b[2J\\u{9b}31m\\u{202e}x\\x7f\\nkernel: fake (";
    assert!(plan.contains(&format!("\n{shown}")), "{plan}");
    let lines = plan.lines().filter(|line| line.starts_with("kernel: "));
    assert_eq!(lines.count(), 1, "{plan}");
    let status = lab.run(&["status", "--root", "m"]).out;
    assert!(
        !status.lines().any(|line| line.starts_with("loaded:")),
        "{status}"
    );
}

#[test]
fn errors_quote_what_a_terminal_would_obey_in_one_line() {
    let lab = lab();
    let missing = format!("missing{ESCAPES}\nrkexec: done");
    let said = |file: &str, content: &str| {
        let lab = self::lab();
        lab.write(&format!("m/{file}"), content);
        lab.fails(1, &["plan", "vmlinuz", "--root", "m", "--cmdline", "x"])
    };
    let long = "x".repeat(1 << 20);
    for err in [
        said("proc/iomem", &format!("{IOMEM}{ESCAPES}\n")),
        said("proc/iomem", &format!("{IOMEM}{long}\n")),
        said("proc/meminfo", &format!("MemTotal: {ESCAPES} kB\n")),
        said(
            "sys/kernel/kexec_loaded",
            &format!("{ESCAPES}\n\n{ESCAPES}\n"),
        ),
        lab.fails(1, &["plan", &missing, "--root", "m"]),
        lab.fails(1, &["plan", "vmlinuz", "--initrd", &missing, "--root", "m"]),
        lab.fails(1, &["inspect", &missing]),
        lab.fails(1, &["vmcore-dmesg", &missing]),
        lab.run(&["kexec", "-l", &missing, "--dry-run", "--root", "m"])
            .err,
        lab.run(&[
            "kexec",
            "-l",
            "vmlinuz",
            &format!("--type={ESCAPES}"),
            "--root",
            "m",
        ])
        .err,
    ] {
        assert_plain(&err);
        assert!(!err.lines().any(|line| line == "rkexec: done"), "{err}");
        assert!(err.len() < 40_000, "{}", err.len());
        let errors = err.lines().filter(|line| line.starts_with("rkexec: "));
        assert_eq!(errors.count(), 1, "{err}");
    }
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    for file in [
        "proc/iomem",
        "proc/cmdline",
        "proc/kcore",
        "proc/sys/kernel/osrelease",
        "sys/kernel/boot_params/data",
        "sys/kernel/kexec_crash_loaded",
        "run/rkexec/crash.json",
    ] {
        let lab = lab();
        loaded(&lab, &record("/k", "/i", ""));
        let path = lab.path().join("m").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        for args in [
            &["plan", "vmlinuz", "--panic", "--cmdline", "x"][..],
            &["status"],
            &["memmap"],
            &["capture", "copy"],
        ] {
            let _ = fs::remove_dir_all(lab.path().join("copy"));
            let mut command = lab.command(&[args, &["--root", "m"]].concat());
            command.current_dir(lab.path());
            let ended = in_time(command);
            let says = format!("reading /{file}: a pipe, not a regular file");
            let must = args[0] != "status" && !file.starts_with("run")
                || file.starts_with("run") && args[0] == "status";
            let concerned = must && (file != "proc/kcore" || args[0] != "memmap");
            assert!(
                !concerned || ended.code == Some(1) && ended.err.contains(&says),
                "{args:?} {file}: {ended:?}"
            );
        }
    }
}

#[test]
fn no_number_in_a_file_decides_about_memory() {
    let lab = lab();
    let plan = [
        "plan",
        "vmlinuz",
        "--panic",
        "--cmdline",
        "x",
        "--root",
        "m",
    ];
    // A whole ELF header of /proc/kcore whose program headers lie at 100 GiB, in a file that
    // has so many bytes, all of them holes.
    let mut kcore = b"\x7fELF\x02\x01\x01".to_vec();
    kcore.resize(16, 0);
    kcore.extend([4, 0, 62, 0, 1, 0, 0, 0]);
    kcore.extend([0; 8]);
    kcore.extend((100_u64 << 30).to_le_bytes());
    kcore.resize(52, 0);
    kcore.extend([64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    lab.write("m/proc/kcore", &kcore);
    let path = lab.path().join("m/proc/kcore");
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(101 << 30)
        .unwrap();
    let ended = bounded(&lab, 300, &plan);
    let says = "rkexec: planning failed: /proc/kcore: its program headers lie at 0x1900000000, too far from its start\n";
    assert_eq!((ended.code, &*ended.err), (Some(1), says));

    // Huge files in the place of small ones.
    for (file, limit) in [
        ("proc/iomem", "64 MiB"),
        ("proc/sys/kernel/osrelease", "64 MiB"),
        ("sys/kernel/kexec_crash_size", "64 KiB"),
    ] {
        let lab = self::lab();
        let path = lab.path().join("m").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let ended = bounded(&lab, 300, &plan);
        let says = format!("reading /{file}: larger than {limit}");
        assert!(
            ended.code == Some(1) && ended.err.contains(&says),
            "{ended:?}"
        );
    }
}

#[test]
fn links_do_not_lead_out_of_a_captured_machine() {
    let lab = lab();
    lab.write("secret", "secret=1\n");
    let secret = lab.path().join("secret");
    let cmdline = lab.path().join("m/proc/cmdline");
    for target in [secret.as_path(), Path::new("../../secret")] {
        fs::remove_file(&cmdline).unwrap();
        symlink(target, &cmdline).unwrap();
        let ended = lab.run(&["plan", "vmlinuz", "--root", "m", "--reuse-cmdline"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(!ended.out.contains("secret=1"), "{ended:?}");
        assert!(
            ended.err.contains(" m/proc/cmdline: no such file"),
            "{ended:?}"
        );
    }
    // A link that stays below is one of the machine's own.
    lab.write("m/elsewhere/cmdline", "inside=1\n");
    fs::remove_file(&cmdline).unwrap();
    symlink("/elsewhere/cmdline", &cmdline).unwrap();
    let plan = lab
        .run(&["plan", "vmlinuz", "--root", "m", "--reuse-cmdline"])
        .out;
    assert!(plan.contains("inside=1"), "{plan}");
}

#[test]
fn status_opens_nothing_of_this_machine_for_a_captured_one() {
    let lab = lab();
    lab.write("initrd", [0; 64]);
    let path = |name: &str| lab.path().join(name).display().to_string();
    let sizing = || {
        let out = lab.run(&["status", "--root", "m", "--output", "json"]).out;
        let status: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(status["crash_record"]["cmdline"], "x");
        status["sizing"].clone()
    };
    loaded(&lab, &record(&path("vmlinuz"), &path("initrd"), "x"));
    assert_eq!(sizing(), Value::Null);
    lab.write("m/boot/vmlinuz", TinyBzImage::direct().build());
    symlink(path("initrd"), lab.path().join("m/boot/initrd")).unwrap();
    loaded(&lab, &record("/boot/vmlinuz", "/boot/initrd", "x"));
    assert_eq!(sizing(), Value::Null);
    fs::remove_file(lab.path().join("m/boot/initrd")).unwrap();
    lab.write("m/boot/initrd", [0; 64]);
    assert_eq!(sizing()["terms"]["unpacked"], 0);
}

#[test]
fn numbers_of_a_record_do_not_overflow() {
    let lab = lab();
    lab.write("m/vmlinuz", TinyBzImage::direct().build());
    lab.write("m/initrd", [0; 64]);
    let blob = json!({ "size": u64::MAX, "digest": "0".repeat(64) });
    let mut record: Value = serde_json::from_str(&record("/vmlinuz", "/initrd", "x")).unwrap();
    record["init_size"] = u64::MAX.into();
    record["blobs"]["initrd"] = json!([blob, blob]);
    loaded(&lab, &record.to_string());
    lab.write(
        "m/sys/kernel/kexec/crash_cma_ranges",
        "0-fffffffffffffffe\n0-fffffffffffffffe\n",
    );
    let ended = lab.run(&["status", "--root", "m", "--output", "json"]);
    let status: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(status["sizing"]["needed"], u64::MAX, "{ended:?}");
}

#[test]
fn status_counts_an_initrd_without_keeping_it() {
    use std::io::Write as _;
    const SIZE: usize = 600 << 20;
    let lab = lab();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let zeroes = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        packer.write_all(&zeroes).unwrap();
    }
    lab.write("m/initrd", packer.finish().unwrap());
    lab.write("m/vmlinuz", TinyBzImage::direct().build());
    loaded(&lab, &record("/vmlinuz", "/initrd", "x"));
    let ended = bounded(&lab, 300, &["status", "--root", "m", "--output", "json"]);
    let status: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(status["sizing"]["terms"]["unpacked"], SIZE, "{ended:?}");
}

#[test]
fn json_of_a_large_map_takes_no_more_memory_than_the_map() {
    use std::fmt::Write as _;
    const LINES: u64 = 100_000;
    let lab = lab();
    let mut iomem = IOMEM.to_owned();
    for line in 0..LINES {
        let (start, name) = (
            0x4000_0000 + line * 0x2000,
            ["Reserved", "System RAM (kmem)"],
        );
        let name = name[usize::from(line % 2 == 1)];
        writeln!(iomem, "{start:x}-{:x} : {name}", start + 0x1fff).unwrap();
    }
    lab.machine("m", &iomem);
    for args in [&["memmap"][..], &["plan", "vmlinuz", "--cmdline", "x"]] {
        let args = [args, &["--root", "m", "--output", "json"]].concat();
        let ended = bounded(&lab, 160, &args);
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.err);
        let json: Value = serde_json::from_str(&ended.out).unwrap();
        let rows = json["memory_map"].as_array().unwrap().len() as u64;
        assert!(rows > LINES, "{rows}");
    }
}

#[test]
fn capture_writes_into_no_directory_of_somebody_else() {
    let lab = lab();
    let hint = "hint: name a directory that does not exist yet\n";
    let refused = |dir: &str, why: &str| {
        let err = lab.fails(1, &["capture", dir, "--root", "m"]);
        assert_eq!(err, format!("rkexec: capture failed: {dir} {why}\n{hint}"));
    };
    fs::create_dir(lab.path().join("target")).unwrap();
    symlink("target", lab.path().join("link")).unwrap();
    symlink("nothing", lab.path().join("dangling")).unwrap();
    refused("link", "is a symbolic link");
    refused("dangling", "is a symbolic link");
    assert!(!lab.path().join("nothing").exists());
    assert_eq!(fs::read_dir(lab.path().join("target")).unwrap().count(), 0);

    fs::create_dir(lab.path().join("shared")).unwrap();
    let mode = fs::Permissions::from_mode(0o777);
    fs::set_permissions(lab.path().join("shared"), mode).unwrap();
    refused(
        "shared",
        "can be written to by other users, who could put symbolic links into it",
    );
    fs::create_dir_all(lab.path().join("full/x")).unwrap();
    refused("full", "exists and is not an empty directory");

    for dir in ["target", "new", "new/and/deeper"] {
        lab.succeeds(&["capture", dir, "--root", "m"]);
        let mode = |file: &str| {
            let path = lab.path().join(dir).join(file);
            fs::metadata(path).unwrap().permissions().mode() & 0o777
        };
        assert_eq!((mode("proc"), mode("proc/iomem")), (0o700, 0o600));
        if dir != "target" {
            assert_eq!(mode(""), 0o700);
        }
    }
}
