//! Memory that the new command line takes away, and a crash kernel's own.

use serde_json::Value;

use super::Lab;
use super::common::pe::TinyPe;

const GIB: u64 = 1 << 30;

/// 6 GiB, 4 of them above 4 GiB.
const IOMEM: &str = "00001000-0009ffff : System RAM\n\
                     00100000-7fffffff : System RAM\n\
                     100000000-1ffffffff : System RAM\n";

fn lab() -> Lab {
    let lab = Lab::new();
    lab.machine("pc", IOMEM);
    lab.write("initrd", vec![7; 8 << 20]);
    lab
}

fn number(value: &Value) -> u64 {
    match value.as_str() {
        Some(text) => u64::from_str_radix(text.strip_prefix("0x").unwrap(), 16).unwrap(),
        None => value.as_u64().unwrap(),
    }
}

/// Role, first byte, first byte after it.
fn segments(plan: &Value) -> Vec<(String, u64, u64)> {
    let segments = plan["segments"].as_array().unwrap().iter();
    let place = |segment: &Value| {
        let start = number(&segment["mem"]);
        let role = segment["role"].as_str().unwrap().to_owned();
        (role, start, start + number(&segment["memsz"]))
    };
    segments.map(place).collect()
}

#[test]
fn no_segment_lies_in_what_the_command_line_takes() {
    let lab = lab();
    let plan = ["plan", "vmlinuz", "--root", "pc", "--initrd", "initrd"];
    let words = ["--cmdline", "nokaslr", "--append", "memmap=1G$7G"];
    let json = lab.succeeds(&[&plan[..], &words, &["--output", "json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    for (role, _, end) in segments(&json) {
        assert!(end <= 7 * GIB, "{role} ends at {end:#x}");
    }
    let excluded = json["excluded"].as_array().unwrap();
    assert_eq!(excluded.len(), 1, "{excluded:?}");
    assert_eq!(excluded[0]["name"], "memmap=1G$7G");
    assert_eq!(
        (number(&excluded[0]["start"]), &excluded[0]["size"]),
        (7 * GIB, &Value::from(GIB))
    );

    let text = lab.run(&[&plan[..], &words].concat()).out;
    assert!(
        text.contains("memmap=1G$7G: the new command line takes it from the next kernel"),
        "{text}"
    );
}

#[test]
fn it_does_not_matter_what_the_line_was_made_of() {
    let lab = lab();
    let uki = TinyPe::uki().without(".dtb");
    let line = b"quiet mem=7G\0";
    lab.write("plain", uki.build());
    lab.write(
        "uki",
        uki.without(".cmdline").with(".cmdline", line).build(),
    );
    lab.write("addon", TinyPe::new([(".cmdline", &b"mem=7G"[..])]).build());
    lab.write("pc/proc/cmdline", "quiet mem=7G\n");
    for source in [
        &["uki"][..],
        &["plain", "--addon", "addon"],
        &["plain", "--append", "mem=7G"],
        &["vmlinuz", "--reuse-cmdline"],
    ] {
        let options = ["--root", "pc", "--output", "json"];
        let json = lab.succeeds(&[&["plan"], source, &options].concat());
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["excluded"][0]["name"], "mem=7G", "{source:?}");
        let ends = segments(&json).into_iter().map(|(.., end)| end);
        assert_eq!(ends.max(), Some(7 * GIB), "{source:?}");
    }
}

#[test]
fn what_fits_nowhere_else_names_the_word() {
    let plan = ["plan", "vmlinuz", "--root", "pc", "--cmdline"];
    let err = lab().fails(1, &[&plan[..], &["quiet mem=16M"]].concat());
    assert!(
        err.contains("; it would fit without mem=16M on the new command line\n"),
        "{err}"
    );
    assert!(err.contains("take it off the line with --remove"), "{err}");
}

#[test]
fn kexec_file_load_warns_of_what_it_does_not_know() {
    let plan = [
        "plan",
        "vmlinuz",
        "--root",
        "pc",
        "--syscall",
        "kexec_file_load",
    ];
    let text = lab()
        .run(&[&plan[..], &["--cmdline", "memmap=1G$7G"]].concat())
        .err;
    assert!(
        text.contains("warning: with kexec_file_load the running kernel places the segments")
            && text.contains("(memmap=1G$7G; first 1c0000000-1ffffffff)"),
        "{text}"
    );
}

#[test]
fn a_pool_that_the_command_line_takes_is_refused() {
    let pool = [
        "--pool",
        "5G,64M",
        "--pool-protect",
        "kernel",
        "--assume-pmpool",
    ];
    let plan = ["plan", "vmlinuz", "--root", "pc", "--cmdline", "mem=5G"];
    let err = lab().fails(1, &[&plan[..], &pool].concat());
    assert!(
        err.contains("mem=5G on the new command line takes the memory of the pool default_pmpool at 0x140000000-0x143ffffff away\n"),
        "{err}"
    );
}

/// The firmware calls the memory of the reservation something else than RAM.
#[test]
fn a_capture_kernel_is_told_that_its_reservation_is_ram() {
    let root = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/cases/crash-map-not-ram/root"
    );
    let plan = [
        "plan", "--panic", "vmlinuz", "--root", root, "--initrd", "initrd",
    ];
    let options = ["--cmdline", "reset_devices", "--output", "json"];
    let json = lab().succeeds(&[&plan[..], &options].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    let told = json["e820"].as_array().unwrap().iter();
    let ram: Vec<(u64, u64)> = told
        .filter(|row| row["type"] == 1)
        .map(|row| {
            (
                number(&row["start"]),
                number(&row["start"]) + number(&row["size"]),
            )
        })
        .collect();
    let own: u64 = ram.iter().skip(1).map(|(start, end)| end - start).sum();
    let segments = segments(&json);
    let header = segments.iter().find(|(role, ..)| role == "elfcorehdr");
    let (_, start, end) = header.unwrap();
    assert_eq!(own, 0x800_0000 - (end - start), "{ram:x?}");
    for (role, start, end) in segments.iter().filter(|(role, ..)| role != "elfcorehdr") {
        assert!(
            ram.iter().any(|(from, to)| from <= start && end <= to),
            "{role} at {start:#x} is not in {ram:x?}"
        );
    }
}
