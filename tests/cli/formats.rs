//! Kernel files besides the bzImage: vmlinux, packed files, UKIs.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::common::elf::TinyElf;
use crate::common::pe::TinyPe;
use crate::{Lab, captured};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// `plan --output json` on a captured machine.
fn plan(lab: &Lab, args: &[&str]) -> Value {
    let root = captured("bios-512m");
    let head = ["plan", "--output", "json", "--root", &root];
    serde_json::from_str(&lab.succeeds(&[&head, args].concat())).unwrap()
}

fn inspect(lab: &Lab, file: &str) -> Value {
    serde_json::from_str(&lab.succeeds(&["inspect", "--output", "json", file])).unwrap()
}

/// Sizes of the segments with that role.
fn sizes(plan: &Value, role: &str) -> Vec<u64> {
    let segments = plan["segments"].as_array().unwrap().iter();
    let of_role = segments.filter(|segment| segment["role"] == role);
    of_role.map(|s| s["bufsz"].as_u64().unwrap()).collect()
}

fn warned(plan: &Value, words: &str) -> bool {
    let mut warnings = plan["warnings"].as_array().unwrap().iter();
    warnings.any(|warning| warning.as_str().unwrap().contains(words))
}

#[test]
fn a_vmlinux_is_planned_with_all_its_parts() {
    let lab = Lab::new();
    lab.write("vmlinux", TinyElf::vmlinux().build());
    let plan = plan(&lab, &["vmlinux", "--cmdline", "x"]);
    assert_eq!(plan["image"]["format"], "vmlinux");
    assert_eq!(plan["image"]["release"], "6.12.0-tiny");
    assert_eq!(sizes(&plan, "kernel"), [0x3000, 0x2000, 0x1800, 0x1234]);
    assert!(warned(&plan, "KASLR"), "{plan}");
    let root = captured("bios-512m");
    let file_load = ["--syscall", "kexec_file_load", "vmlinux"];
    let error = lab.fails(1, &[&["plan", "--root", &root], &file_load[..]].concat());
    assert!(error.contains("it is a vmlinux"), "{error}");
}

#[test]
fn what_is_packed_says_what_lies_inside() {
    let lab = Lab::new();
    let vmlinuz = std::fs::read(lab.path().join("vmlinuz")).unwrap();
    for (file, inside, format) in [
        ("vmlinuz.gz", vmlinuz.clone(), "gzip of bzImage"),
        ("vmlinux.gz", TinyElf::vmlinux().build(), "gzip of vmlinux"),
        (
            "uki.gz",
            TinyPe::uki().without(".dtb").build(),
            "gzip of UKI of bzImage",
        ),
    ] {
        lab.write(file, gzip(&inside));
        assert_eq!(inspect(&lab, file)["format"], format);
        let text = lab.succeeds(&["inspect", file]);
        assert!(text.contains(&format!("format:        {format} (x86_64)\n")));
        assert_eq!(
            plan(&lab, &[file, "--cmdline", "x"])["image"]["format"],
            format
        );
    }
    let packed = plan(&lab, &["vmlinuz.gz", "--cmdline", "x"]);
    let plain = plan(&lab, &["vmlinuz", "--cmdline", "x"]);
    assert_eq!(packed["segments"], plain["segments"]);

    lab.write("initrd.gz", gzip(b"070701"));
    let error = lab.fails(1, &["inspect", "initrd.gz"]);
    let why = "in the gzip data: not a kernel image: this is a cpio archive (an initrd?)";
    assert_eq!(error, format!("rkexec: reading initrd.gz failed: {why}\n"));
    lab.write("cut.gz", &gzip(&vmlinuz)[..1000]);
    let error = lab.fails(1, &["inspect", "cut.gz"]);
    assert!(error.contains("malformed gzip data: truncated"), "{error}");
}

#[test]
fn a_uki_brings_initrd_and_command_line() {
    let lab = Lab::new();
    let uki = TinyPe::uki().without(".dtb");
    lab.write("uki", uki.build());
    lab.write("initrd", b"given");
    let plan = |args: &[&str]| plan(&lab, &[&["uki"], args].concat());
    let alone = plan(&[]);
    assert_eq!(alone["image"]["format"], "UKI of bzImage");
    assert_eq!(alone["cmdline"], "root=LABEL=x  quiet");
    // Microcode and initrd, padded to 4 bytes.
    assert_eq!(sizes(&alone, "initrd"), [32]);
    assert_eq!(sizes(&plan(&["--initrd", "initrd"]), "initrd"), [37]);
    let more = plan(&["--append", "debug", "--remove", "quiet"]);
    assert_eq!(more["cmdline"], "root=LABEL=x debug");
    let other = plan(&["--cmdline", "mine"]);
    assert_eq!(other["cmdline"], "mine");
    assert!(warned(&other, "the UKI's own command line is not used"));
    assert!(!warned(&alone, "the UKI's own command line is not used"));

    lab.write("addon", TinyPe::new([(".cmdline", &b"extra"[..])]).build());
    let added = plan(&["--addon", "addon"]);
    assert_eq!(added["cmdline"], "root=LABEL=x  quiet extra");
    let root = captured("bios-512m");
    let error = lab.fails(1, &["plan", "--root", &root, "uki", "--addon", "vmlinuz"]);
    let why = "this is no addon for a UKI: it is no PE file";
    assert_eq!(error, format!("rkexec: reading vmlinuz failed: {why}\n"));
    let error = lab.fails(1, &["plan", "--root", &root, "vmlinuz", "--addon", "addon"]);
    assert!(error.contains("--addon goes with a UKI"), "{error}");
    let error = lab.fails(1, &["inspect", "addon"]);
    assert!(error.contains("for --addon?"), "{error}");
}

#[test]
fn profiles_are_chosen_and_shown() {
    let lab = Lab::new();
    let mut uki = TinyPe::uki()
        .with(".profile", b"ID=main\nTITLE=The \x1busual\n")
        .with(".cmdline", b"main")
        .with(".profile", b"ID=rescue\n")
        .with(".cmdline", b"rescue");
    uki.signature = 64;
    lab.write("uki", uki.without(".dtb").build());
    assert_eq!(plan(&lab, &["uki"])["cmdline"], "main");
    for wish in ["rescue", "1", "@1"] {
        let plan = plan(&lab, &["uki", "--profile", wish]);
        assert_eq!(plan["cmdline"], "rescue", "{wish}");
        assert!(warned(
            &plan,
            "the signature of the UKI covers the file as a whole"
        ));
    }
    let root = captured("bios-512m");
    let error = lab.fails(1, &["plan", "--root", &root, "uki", "--profile", "x"]);
    assert!(
        error.contains("no profile x: it has 0 (main), 1 (rescue)"),
        "{error}"
    );
    let plan = ["plan", "--root", &root, "uki", "--profile", "rescue"];
    let text = lab.run(&plan).out;
    assert!(text.contains("\nprofile:   1 rescue\n"), "{text}");

    let uki = &inspect(&lab, "uki")["uki"];
    assert_eq!(uki["signed"], true);
    assert_eq!(uki["kernel_signed"], false);
    assert_eq!(uki["profile"], 0);
    assert_eq!(
        uki["profiles"][1],
        json!({ "number": 1, "id": "rescue", "title": null })
    );
    let sections = uki["sections"].as_array().unwrap();
    assert_eq!(sections.len(), 11);
    let cmdline = json!({
        "name": ".cmdline", "size": 4, "profile": 0, "text": "main",
        // printf main | sha256sum
        "sha256": "0d6e4079e36703ebd37c00722f5891d28b0e2811dc114b129215123adcce3605",
    });
    assert_eq!(sections[8], cmdline);
    let text = lab.succeeds(&["inspect", "uki"]);
    for line in [
        "signature:     one of the UKI as a whole, which kexec does not look at: it loads the \
         parts; the kernel inside has none of its own, and kexec_file_load finds none\n",
        "  0 main (The \\x1busual)  (shown above)\n",
        "  .uname          11 B  6.12.0-tiny\n",
        "  .cmdline         6 B  of profile 1  rescue\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
}

#[test]
fn a_damaged_section_table_is_named() {
    let lab = Lab::new();
    let uki = TinyPe::uki().build();
    lab.write("uki", &uki[..uki.len() - 0x800]);
    let error = lab.fails(1, &["inspect", "uki"]);
    assert!(
        error.starts_with("rkexec: reading uki failed: malformed UKI: section ."),
        "{error}"
    );
    let mut arm64 = TinyPe::uki();
    arm64.machine = 0xaa64;
    lab.write("uki", arm64.build());
    let error = lab.fails(1, &["inspect", "uki"]);
    assert!(error.contains("a UKI or addon for arm64"), "{error}");
}

/// A cpio archive with one file of these bytes.
fn cpio(bytes: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in [("file\0", bytes), ("TRAILER!!!\0", b"")] {
        // Behind the magic: 13 numbers, of them the mode, the file's size, the name's.
        let mut fields = [0; 13];
        (fields[1], fields[6], fields[11]) = (0o100_644, bytes.len(), name.len());
        archive.extend(b"070701");
        archive.extend(fields.iter().flat_map(|f| format!("{f:08x}").into_bytes()));
        for part in [name.as_bytes(), bytes] {
            archive.extend(part);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    }
    archive
}

/// What an initrd takes unpacked counts, whether it is a file or a part of a UKI.
#[test]
fn status_counts_the_initrd_inside_a_uki() {
    let lab = Lab::new();
    let initrd = cpio(&[7; 10_000]);
    let uki = TinyPe::uki().without(".ucode").without(".initrd");
    // Of a captured machine only what lies below its directory is looked at.
    lab.write("root/uki", uki.with(".initrd", &initrd).build());
    lab.write("root/initrd", &initrd);
    let kernel = std::fs::read(lab.path().join("vmlinuz")).unwrap();
    lab.write("root/vmlinuz", kernel);
    lab.machine(
        "root",
        "00100000-3fffffff : System RAM\n  10000000-1fffffff : Crash kernel\n",
    );
    lab.write("root/proc/sys/kernel/random/boot_id", "this-boot\n");
    lab.write("root/sys/kernel/kexec_crash_loaded", "1\n");
    let path = |name: &str| format!("/{name}");
    let terms = |kernel: &str, initrds: &[String]| {
        let record = json!({
            "schema": 1, "boot_id": "this-boot", "rkexec": "0.1.0", "loaded_at": 0,
            "target": "crash", "syscall": "kexec_load", "kernel": path(kernel),
            "release": null, "initrds": initrds, "cmdline": "", "digest": true,
            "no_efi": false, "serial_port": null, "hotplug": "auto",
            "mem_min": null, "mem_max": null, "init_size": 4096, "fit": null,
            "blobs": { "kernel": null, "initrd": [] },
        });
        lab.write("root/run/rkexec/crash.json", record.to_string());
        let out = lab
            .run(&["status", "--output", "json", "--root", "root"])
            .out;
        let status: Value = serde_json::from_str(&out).unwrap();
        status["sizing"]["terms"]["unpacked"].clone()
    };
    let by_file = terms("vmlinuz", &[path("initrd")]);
    assert!(
        by_file.as_u64().is_some_and(|size| size >= 10_000),
        "{by_file}"
    );
    assert_eq!(terms("uki", &[]), by_file);
}

/// A field case, made as it was: a bzImage without XLF_KERNEL_64. All of it lies below
/// 4 GiB, the kernel where it maps its own memory for good.
#[test]
fn a_kernel_without_a_64_bit_entry_is_entered_in_32_bit_mode() {
    let lab = Lab::new();
    let mut file = std::fs::read(lab.path().join("vmlinuz")).unwrap();
    file[0x236] &= 0xfe;
    lab.write("k32", &file);
    lab.write("initrd", cpio(&[7; 10_000]));
    lab.machine("m", "00001000-0009ffff : System RAM\n00100000-bfffffff : System RAM\n100000000-1ffffffff : System RAM\n");
    let args = [
        "plan",
        "--output",
        "json",
        "--root",
        "m",
        "k32",
        "--initrd",
        "initrd",
        "--cmdline",
        "x",
    ];
    let plan: Value = serde_json::from_str(&lab.run(&args).out).unwrap();
    assert_eq!(plan["syscall"]["name"], "kexec_load");
    assert_eq!(plan["image"]["entry_mode"], "32-bit");
    for segment in plan["segments"].as_array().unwrap() {
        let number = |text: &str| u64::from_str_radix(&text[2..], 16).unwrap();
        let start = number(segment["mem"].as_str().unwrap());
        let end = start + segment["memsz"].as_u64().unwrap();
        assert!(end <= 0x3800_0000, "{segment}");
        if segment["role"] == "kernel" {
            assert_eq!(start, 0x100_0000, "{segment}");
        }
    }
    assert_eq!(inspect(&lab, "k32")["entry_mode"], "32-bit");
    let text = lab.succeeds(&["inspect", "k32"]);
    assert!(
        text.contains("bzImage (x86, entered in 32-bit mode)\n"),
        "{text}"
    );
    let file_load = ["plan", "--root", "m", "k32", "--syscall", "kexec_file_load"];
    let error = lab.fails(1, &file_load);
    assert!(
        error.contains("it has no 64-bit entry (XLF_KERNEL_64)"),
        "{error}"
    );
}

/// As read from a partition: the header says where the kernel ends.
#[test]
fn what_lies_behind_a_bzimage_is_not_loaded() {
    let lab = Lab::new();
    let mut file = std::fs::read(lab.path().join("vmlinuz")).unwrap();
    let size = file.len();
    file.resize(size + (40 << 20), 0xe5);
    lab.write("partition", &file);
    let plain = plan(&lab, &["vmlinuz", "--cmdline", "x"]);
    let padded = plan(&lab, &["partition", "--cmdline", "x"]);
    assert_eq!(padded["segments"], plain["segments"]);
    assert_eq!(padded["image"]["bytes_behind"], 40 << 20);
    let text = lab.succeeds(&["inspect", "partition"]);
    assert!(
        text.contains("behind it:     40 MiB that are not loaded\n"),
        "{text}"
    );
}

/// A field case: NixOS has stubs that name their kernel.
#[test]
fn a_lanzaboote_stub_says_what_it_names() {
    let lab = Lab::new();
    let stub = include_bytes!("../data/cases/lanzaboote-stub/stub.efi");
    lab.write("stub.efi", stub);
    let hash = |at: usize| -> String {
        stub[at..at + 32]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    let found = inspect(&lab, "stub.efi");
    let expected = json!({
        "schema": 1,
        "path": "stub.efi",
        "format": "lanzaboote stub",
        "kernel": { "path": "\\EFI\\nixos\\kernel-6.12-abc.efi", "sha256": hash(0xc00) },
        "initrd": { "path": "\\EFI\\nixos\\initrd-6.12-abc.efi", "sha256": hash(0xe00) },
        "cmdline": "init=/nix/store/x/init",
    });
    assert_eq!(found, expected);
    let text = lab.succeeds(&["inspect", "stub.efi"]);
    assert!(
        text.contains("a lanzaboote stub of NixOS: no kernel"),
        "{text}"
    );
    assert!(
        text.contains(&format!(
            "kernel:        \\EFI\\nixos\\kernel-6.12-abc.efi\n  SHA-256:     {}\n",
            hash(0xc00)
        )),
        "{text}"
    );
    let root = captured("bios-512m");
    let error = lab.fails(1, &["plan", "--root", &root, "stub.efi", "--cmdline", "x"]);
    assert!(
        error.contains("reading stub.efi failed: a lanzaboote stub of NixOS: it holds no kernel"),
        "{error}"
    );
    assert!(
        error.contains(
            "ESP/EFI/nixos/kernel-6.12-abc.efi --initrd ESP/EFI/nixos/initrd-6.12-abc.efi"
        ),
        "{error}"
    );
}
