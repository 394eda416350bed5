//! `rkexec inspect` as a program: what it says of the kernel inside a file.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

#[path = "common/mod.rs"]
mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::bzimage::{PAYLOAD_OFFSET, SETUP_SIZE, TinyBzImage, field};

fn inspect(dir: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rkexec"))
        .args(["inspect", "--root"])
        .arg(dir)
        .arg(dir.join("vmlinuz"))
        .args(more)
        .output()
        .unwrap()
}

/// A directory with an image whose payload is `packed`.
fn image(packed: &[u8]) -> tempfile::TempDir {
    let image = TinyBzImage::new(0x2000)
        .put(SETUP_SIZE + PAYLOAD_OFFSET, packed)
        .u32(field::PAYLOAD_LENGTH, packed.len().try_into().unwrap())
        .build();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("vmlinuz"), image).unwrap();
    dir
}

#[test]
fn the_configuration_and_its_source_are_shown() {
    let size = include_bytes!("data/plain").len();
    let number = u32::try_from(size).unwrap().to_le_bytes();
    let dir = image(&[&include_bytes!("data/plain.zst")[..], &number].concat());
    let config = "CONFIG_X86_64=y\nCONFIG_OF=y\n# CONFIG_RANDOMIZE_BASE is not set\n";
    std::fs::write(dir.path().join("config-6.12.0-tiny"), config).unwrap();

    let output = inspect(dir.path(), &["--output", "json"]);
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let from = "config-6.12.0-tiny beside the image";
    for (symbol, value) in [
        ("CONFIG_OF", "yes"),
        ("CONFIG_PMPOOL", "no"),
        ("CONFIG_RANDOMIZE_BASE", "no"),
    ] {
        let expected = serde_json::json!({ "value": value, "read_from": from });
        assert_eq!(json["config"][symbol], expected, "{symbol}");
    }
    assert_eq!(json["unpacked_size"], size);
    assert_eq!(json["compression"], "zstd");
    assert_eq!(json["setup_type_max"], "0x80000009");

    let text = String::from_utf8(inspect(dir.path(), &[]).stdout).unwrap();
    assert!(text.contains("unpacked:      3.1 KiB\n"), "{text}");
    let line = format!("  {:<36}  yes      ({from})\n", "CONFIG_OF");
    assert!(text.contains(&line), "{text}");
}

#[test]
fn a_payload_that_cannot_be_unpacked_is_no_failure() {
    let dir = image(b"\x89LZO\0\r\n\x1a\n");
    let output = inspect(dir.path(), &["--output", "json"]);
    assert!(output.status.success());
    let warning = "rkexec: warning: the kernel in the image: lzo not supported\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), warning);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = serde_json::json!({ "value": "unknown", "read_from": "no /boot/config-RELEASE, and none in the kernel file" });
    assert_eq!(json["config"]["CONFIG_OF"], expected);
    assert_eq!(json["unpacked_size"], serde_json::Value::Null);
}

#[test]
fn what_a_kernel_reads_of_kexec_handover_is_shown() {
    let of = |data: &[u8]| {
        let kernel = common::elf::sections(&[(".rodata", common::elf::ALLOC, data)]);
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut packer, &kernel).unwrap();
        let dir = image(&packer.finish().unwrap());
        let json = inspect(dir.path(), &["--output", "json"]).stdout;
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let text = String::from_utf8(inspect(dir.path(), &[]).stdout).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("handover:"));
        (json["kho"].clone(), line.unwrap().trim().to_owned())
    };
    let (json, line) = of(b"kho-v4\0luo-v5\0luo-v1\0memblock-v1\0");
    let expected = serde_json::json!({
        "kho": "kho-v4", "luo": "unknown", "memfd": "none", "memblock": "memblock-v1",
    });
    assert_eq!(json, expected);
    assert_eq!(
        line,
        "kho-v4, luo unknown (luo-v1 or luo-v5), no memfd, memblock-v1"
    );
    let (json, line) = of(b"another kernel\0");
    assert_eq!(json["kho"], "none");
    assert_eq!(line, "none: it is built without Kexec Handover");
}
