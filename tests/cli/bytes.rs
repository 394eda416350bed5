//! Command lines and file names whose bytes are no UTF-8: they arrive as they are, and
//! every output says what they are without being broken by them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use serde_json::{Value, json};

use super::common::multiboot;
use super::common::pe::TinyPe;
use super::{Ended, Lab, captured};

/// The machine of a bug report: a label with an é in Latin-1.
const CASE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/data/cases/cmdline-not-utf8/root"
);

fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

fn run(lab: &Lab, args: &[&[u8]]) -> Ended {
    let mut command = lab.command(&[]);
    command.args(args.iter().map(|arg| os(arg)));
    command.output().unwrap().into()
}

/// What `args` print as JSON; nothing is said besides `said`.
#[track_caller]
fn json(lab: &Lab, args: &[&[u8]], said: &str) -> Value {
    let ended = run(lab, &[args, &[b"--output", b"json"]].concat());
    assert_eq!((ended.code, &*ended.err), (Some(0), said));
    serde_json::from_str(&ended.out).unwrap()
}

/// The bytes of the field `name`, which JSON gives as text and in hexadecimal.
#[track_caller]
fn bytes(object: &Value, name: &str, shown: &str) -> Vec<u8> {
    assert_eq!(object[name], shown);
    let digits = object[format!("{name}_bytes")].as_str().unwrap();
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(pair).collect()
}

#[test]
fn a_running_line_is_reused_as_it_is() {
    let lab = Lab::new();
    let case: [&[u8]; 5] = [
        b"plan",
        b"vmlinuz",
        b"--root",
        CASE.as_bytes(),
        b"--reuse-cmdline",
    ];
    let plan = json(&lab, &case, "");
    let shown = "root=LABEL=caf\\xe9 quiet";
    assert_eq!(bytes(&plan, "cmdline", shown), b"root=LABEL=caf\xe9 quiet");
    let text = run(&lab, &case);
    assert!(
        text.out.contains(&format!("cmdline:   {shown}\n")),
        "{text:?}"
    );

    // Words are removed by their bytes, too.
    let changed: [&[u8]; 4] = [b"--append", b"x=\xff", b"--remove", b"root=LABEL=caf\xe9"];
    let plan = json(&lab, &[&case[..], &changed].concat(), "");
    assert_eq!(bytes(&plan, "cmdline", "quiet x=\\xff"), b"quiet x=\xff");

    // Text is text, and has no bytes besides.
    let ascii: [&[u8]; 2] = [b"--remove", b"root"];
    let plan = json(&lab, &[&case[..], &ascii].concat(), "");
    assert_eq!(plan["cmdline"], "quiet");
    assert_eq!(plan.get("cmdline_bytes"), None);
    let utf8: [&[u8]; 4] = [b"--remove", b"root", b"--append", "é=\u{1b}".as_bytes()];
    let all = [&case[..], &utf8].concat();
    let plan = json(&lab, &all, "");
    assert_eq!(plan["cmdline"], "quiet é=\u{1b}");
    assert_eq!(plan.get("cmdline_bytes"), None);
    let text = run(&lab, &all).out;
    assert!(text.contains("cmdline:   quiet é=\\x1b\n"), "{text}");
}

#[test]
fn the_limit_counts_bytes() {
    let lab = Lab::new();
    let line = [&[0xe9; 2047][..], b"\xe9"].concat();
    let root = captured("bios-512m");
    let plan: [&[u8]; 5] = [
        b"plan",
        b"vmlinuz",
        b"--root",
        root.as_bytes(),
        b"--cmdline",
    ];
    assert_eq!(
        run(&lab, &[&plan[..], &[&line[1..]]].concat()).code,
        Some(0)
    );
    let ended = run(&lab, &[&plan[..], &[&line]].concat());
    assert!(
        ended
            .err
            .contains("too long: 2048 bytes, and the kernel accepts 2047"),
        "{ended:?}"
    );
}

#[test]
fn files_may_have_any_name() {
    let lab = Lab::new();
    let root = captured("bios-512m");
    let names: [&[u8]; 2] = [b"k\xe9", b"i\xff"];
    for name in names {
        std::fs::copy(lab.path().join("vmlinuz"), lab.path().join(os(name))).unwrap();
    }
    let args: [&[u8]; 8] = [
        b"plan",
        b"--root",
        root.as_bytes(),
        names[0],
        b"--initrd",
        names[1],
        b"--cmdline",
        b"x",
    ];
    let plan = json(&lab, &args, "");
    assert_eq!(bytes(&plan["image"], "path", "k\\xe9"), b"k\xe9");
    let text = run(&lab, &args).out;
    assert!(text.contains("\nkernel:    k\\xe9 ("), "{text}");
}

#[test]
fn the_drop_in_takes_bytes_wherever_text_goes() {
    let lab = Lab::new();
    let (kernel, initrd): (&[u8], &[u8]) = (b"k\xe9", b"--initrd=i\xff");
    std::fs::copy(lab.path().join("vmlinuz"), lab.path().join(os(kernel))).unwrap();
    let cpio = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/initrd/cpio");
    std::fs::copy(cpio, lab.path().join(os(b"i\xff"))).unwrap();
    let root = captured("bios-512m");
    let start: [&[u8]; 6] = [
        b"--root",
        root.as_bytes(),
        b"--output",
        b"json",
        b"kexec",
        b"--dry-run",
    ];
    for line in [
        &[&b"--append=root=LABEL=caf\xe9"[..]][..],
        &[b"--append", b"root=LABEL=caf\xe9"],
        &[b"--command-line=root=LABEL=caf\xe9"],
        &[b"--command-line", b"root=LABEL=caf\xe9"],
    ] {
        let args = [&start[..], &[b"-l", kernel, initrd], line].concat();
        let ended = run(&lab, &args);
        assert_eq!((ended.code, &*ended.err), (Some(0), ""));
        let plan: Value = serde_json::from_str(&ended.out).unwrap();
        let line = bytes(&plan, "cmdline", "root=LABEL=caf\\xe9");
        assert_eq!(line, b"root=LABEL=caf\xe9");
        assert_eq!(bytes(&plan["image"], "path", "k\\xe9"), kernel);
    }
    // A value that names a thing is told from what is missing.
    let ended = run(
        &lab,
        &[b"kexec", b"--dry-run", b"-l", b"no\xe9", b"--append=x"],
    );
    assert_eq!(ended.code, Some(255));
}

#[test]
fn a_newline_in_quotes_is_data() {
    let lab = Lab::new();
    let root = captured("bios-512m");
    let line = "a=\"b\nc\" d";
    let plan: [&[u8]; 6] = [
        b"plan",
        b"vmlinuz",
        b"--root",
        root.as_bytes(),
        b"--cmdline",
        line.as_bytes(),
    ];
    assert_eq!(json(&lab, &plan, "")["cmdline"], line);
    let text = run(&lab, &plan).out;
    assert!(text.contains("cmdline:   a=\"b\\nc\" d\n"), "{text}");
    // Outside of quotes the kernel takes it for a space, and so does `kexec`.
    let append = format!("--append={line}\ne\n");
    let kexec: [&[u8]; 9] = [
        b"--root",
        root.as_bytes(),
        b"--output",
        b"json",
        b"kexec",
        b"--dry-run",
        b"-l",
        b"vmlinuz",
        append.as_bytes(),
    ];
    let ended = run(&lab, &kexec);
    assert_eq!((ended.code, &*ended.err), (Some(0), ""));
    let plan: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(plan["cmdline"], format!("{line} e "));
}

#[test]
fn a_uki_and_its_addons_bring_bytes() {
    let lab = Lab::new();
    let uki = TinyPe::uki().without(".cmdline").without(".dtb");
    lab.write(
        "uki",
        uki.with(".cmdline", b"root=LABEL=caf\xe9\n\0").build(),
    );
    lab.write("addon", TinyPe::new([(".cmdline", &b"x=\xff"[..])]).build());
    let root = captured("bios-512m");
    let args: [&[u8]; 6] = [
        b"plan",
        b"uki",
        b"--addon",
        b"addon",
        b"--root",
        root.as_bytes(),
    ];
    let plan = json(&lab, &args, "");
    let line = bytes(&plan, "cmdline", "root=LABEL=caf\\xe9 x=\\xff");
    assert_eq!(line, b"root=LABEL=caf\xe9 x=\xff");

    let own: [&[u8]; 2] = [b"--cmdline", b"mine"];
    let said = run(&lab, &[&args[..], &own].concat());
    let warning = "the UKI's own command line is not used: root=LABEL=caf\\xe9\n";
    assert!((said.out + &said.err).contains(warning), "{}", said.err);

    let shown = json(&lab, &[b"inspect", b"uki"], "");
    let sections = shown["uki"]["sections"].as_array().unwrap();
    let section = sections
        .iter()
        .find(|section| section["name"] == ".cmdline");
    let text = bytes(section.unwrap(), "text", "root=LABEL=caf\\xe9");
    assert_eq!(text, b"root=LABEL=caf\xe9");
    let text = lab.succeeds(&["inspect", "uki"]);
    assert!(text.contains("  root=LABEL=caf\\xe9\n"), "{text}");
}

#[test]
fn a_multiboot_kernel_and_its_modules_have_any_name() {
    let lab = Lab::new();
    let kernel = super::kexec::multiboot(&multiboot::header_v1(3, &[]));
    for (name, content) in [(&b"k\xe9"[..], &kernel[..]), (b"m\xff", b"module")] {
        std::fs::write(lab.path().join(os(name)), content).unwrap();
    }
    let root = captured("bios-512m");
    let args: [&[u8]; 8] = [
        b"plan",
        b"--root",
        root.as_bytes(),
        b"k\xe9",
        b"--cmdline",
        b"a=\xfe",
        b"--module",
        b"m\xff b=\xfd",
    ];
    let plan = json(&lab, &args, "");
    assert_eq!(bytes(&plan, "cmdline", "k\\xe9 a=\\xfe"), b"k\xe9 a=\xfe");
    let module = &plan["image"]["modules"][0];
    assert_eq!(bytes(module, "cmdline", "m\\xff b=\\xfd"), b"m\xff b=\xfd");
}

/// What the record in /run says is shown, whatever its bytes.
#[test]
fn status_shows_a_record_of_bytes() {
    let lab = Lab::new();
    lab.machine("root", "00100000-3fffffff : System RAM\n");
    lab.write("root/proc/sys/kernel/random/boot_id", "this-boot\n");
    lab.write("root/sys/kernel/kexec_loaded", "1\n");
    let record = |kernel: Value, initrd: Value, module: Value, cmdline: Value| {
        let record = json!({
            "schema": 1, "boot_id": "this-boot", "rkexec": "0.1.0", "loaded_at": 0,
            "target": "normal", "syscall": "kexec_load", "kernel": kernel, "release": "6.12.0",
            "initrds": ["/a", initrd], "modules": [module], "cmdline": cmdline, "digest": true,
            "no_efi": false, "serial_port": null, "hotplug": "auto",
            "mem_min": null, "mem_max": null, "init_size": 4096, "fit": null,
            "blobs": { "kernel": null, "initrd": [] },
        });
        lab.write("root/run/rkexec/normal.json", record.to_string());
        json(&lab, &[b"status", b"--root", b"root"], "")["normal_record"].clone()
    };
    let hex = |digits: &str| json!({ "bytes": digits });
    let shown = record(hex("2f6be9"), hex("2f69ff"), hex("6dfe"), hex("78ff"));
    assert_eq!(bytes(&shown, "kernel", "/k\\xe9"), b"/k\xe9");
    assert_eq!(shown["initrds"], json!(["/a", "/i\\xff"]));
    assert_eq!(shown["initrds_bytes"], json!(["2f61", "2f69ff"]));
    assert_eq!(shown["modules"], json!(["m\\xfe"]));
    assert_eq!(shown["modules_bytes"], json!(["6dfe"]));
    assert_eq!(bytes(&shown, "cmdline", "x\\xff"), b"x\xff");
    let text = lab.succeeds(&["status", "--root", "root"]);
    let lines = "exec kernel:  ready, 6.12.0\n  file:          /k\\xe9, through kexec_load\n  \
                 command line:  x\\xff\n";
    assert!(text.contains(lines), "{text}");

    // Strings, as of text, and of versions that knew nothing else.
    let shown = record("/k".into(), "/i".into(), "m".into(), "x".into());
    assert_eq!(shown["kernel"], "/k");
    assert_eq!(shown["initrds"], json!(["/a", "/i"]));
    let fields = shown.as_object().unwrap();
    assert!(
        !fields.keys().any(|name| name.ends_with("_bytes")),
        "{shown}"
    );
}

#[test]
fn report_compares_bytes() {
    let lab = super::report::with_words(b"root=LABEL=caf\xe9");
    let report = json(&lab, &[b"report", b"--root", b"m"], "");
    assert_eq!(report["as_planned"], true);
    let record = &report["record"];
    let shown = record["cmdline"].as_str().unwrap().to_owned();
    let line = bytes(record, "cmdline", &shown);
    assert!(line.ends_with(b" root=LABEL=caf\xe9") && shown.ends_with(" root=LABEL=caf\\xe9"));
    // As text that was made of the bytes, both lines would be the same.
    let other = line.strip_suffix(b"\xe9").unwrap();
    lab.write("m/proc/cmdline", [other, b"\xea\n"].concat());
    let ended = run(&lab, &[b"report", b"--root", b"m"]);
    assert_eq!(ended.code, Some(1));
    let found = shown.replace("\\xe9", "\\xea");
    let differs = format!("planned {shown}, found {found}\n");
    assert!(ended.out.contains(&differs), "{ended:?}");
}
