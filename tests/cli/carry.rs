//! `--carry`: what is planned, and each reason why there is no plan.

use std::fs::File;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::Lab;
use crate::common::bzimage::TinyBzImage;
use crate::common::multiboot::{TinyElf, header_v1};

/// Texts of a kernel that reads what is written.
const READS: &[u8] = b"kho-v4\0luo-v5\0memfd-v2\0memblock-v1\0";
/// What a load of a small file starts with.
const PLAN: [&str; 6] = ["plan", "--root", "m", "vmlinuz", "--cmdline", "quiet"];
const CARRY: [&str; 2] = ["--carry", "file"];

/// A machine of 1 GiB with two CPUs, and a kernel that reads what is written.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.machine(
        "m",
        "00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n",
    );
    lab.write("m/sys/devices/system/cpu/possible", "0-1\n");
    lab.write("vmlinuz", TinyBzImage::saying(READS).build());
    lab.write("file", b"some bytes");
    lab
}

/// The plan as JSON.
#[track_caller]
fn plan(lab: &Lab, args: &[&str]) -> Value {
    let out = lab.succeeds(&[&PLAN, &["--output", "json"][..], args].concat());
    serde_json::from_str(&out).unwrap()
}

/// Why there is no plan.
#[track_caller]
fn refused(lab: &Lab, args: &[&str]) -> String {
    lab.fails(1, &[&PLAN, &CARRY[..], args].concat())
}

#[test]
fn the_plan_says_what_is_carried_and_where() {
    let lab = lab();
    lab.write("d/empty", b"");
    lab.write("large", vec![7; 3 << 20]);
    let files = ["--carry", "file", "--carry", "d/empty", "--carry", "large"];
    let shown = plan(&lab, &files);
    let kho = &shown["kho"];
    assert_eq!(
        (&kho["way"], &kho["version"]),
        (&json!("built"), &json!("kho-v4"))
    );
    let digest = |bytes: &[u8]| -> String {
        let digest = Sha256::digest(bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let file = |name: &str, bytes: &[u8], token: u64| json!({ "name": name, "size": bytes.len(), "sha256": digest(bytes), "token": token });
    assert_eq!(
        kho["carried"],
        json!([
            file("file", b"some bytes", 1),
            file("empty", b"", 2),
            file("large", &[7; 3 << 20], 3),
        ])
    );
    assert_eq!(shown["cmdline"], "quiet kho=on liveupdate=on");
    assert_eq!(shown["syscall"]["name"], "kexec_load");
    let reason = shown["syscall"]["reason"].as_str().unwrap();
    assert!(reason.starts_with("--carry needs it"), "{reason}");
    let added = "kho=on liveupdate=on were added to the command line: without it the next kernel gives no file back";
    assert_eq!(shown["warnings"][0], added);
    let roles: Vec<&str> = shown["segments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["role"].as_str().unwrap())
        .collect();
    // The large file is loaded from where it is mapped, between what was made.
    assert_eq!(roles.iter().filter(|role| **role == "preserved").count(), 3);
    let nodes = shown["setup_data"].to_string();
    assert!(nodes.contains("KEXEC_KHO"), "{nodes}");

    // Words that are there are not added.
    let there = plan(
        &lab,
        &[&files[..], &["--append", "kho=1 liveupdate=y"]].concat(),
    );
    assert_eq!(there["cmdline"], "quiet kho=1 liveupdate=y");
    assert!(!there["warnings"].to_string().contains("added"));
}

#[test]
fn people_read_what_is_carried_and_how_much_scratch_memory_it_takes() {
    let lab = lab();
    let text = lab.run(&[&PLAN, &CARRY[..], &["--explain"]].concat());
    assert_eq!(text.code, Some(0), "{text:?}");
    for said in [
        "\nKexec Handover (kho-v4): this load makes all of it, with the files as they are now\n  file 1  10 B  file\n",
        "  scratch: the next kernel starts in it\n",
        "  preserved\n",
        "  scratch memory is the sum of:\n",
        "      areas of the CPUs: 8 MiB\n",
        "      margin: 64 MiB\n",
    ] {
        assert!(text.out.contains(said), "{said}: {}", text.out);
    }
    let short = lab.run(&[&PLAN, &CARRY[..]].concat());
    assert!(!short.out.contains("is the sum of"), "{}", short.out);
}

#[test]
fn what_the_command_line_sets_aside_is_scratch_memory() {
    let lab = lab();
    let scratch = |words: &str| -> u64 {
        let shown = plan(&lab, &[&CARRY[..], &["--append", words]].concat());
        let regions = shown["kho"]["scratch"].as_array().unwrap().clone();
        regions
            .iter()
            .map(|region| region["size"].as_u64().unwrap())
            .sum()
    };
    let plain = scratch("kho=on");
    for (words, mib) in [
        ("crashkernel=128M", 128 + 16),
        ("crashkernel=0-1G:1M,1G-:64M", 1 + 16),
        ("crashkernel=64M,high", 64 + 256 + 32),
        ("crashkernel=64M,high crashkernel=32M,low", 96 + 32),
        ("reserve_mem=32M:2M:pool", 34),
        ("cma=20M", 20),
        // Without a word there is no buffer on a machine without memory above 4 GiB.
        ("swiotlb=65536", 128),
        ("swiotlb=force", 64),
        ("hugepages=1", 0),
        ("crashkernel=64M@0x10000000", 0),
        ("cma=20M@0-4G", 20),
    ] {
        let more = scratch(words) - plain;
        assert!(more.abs_diff(mib << 20) <= 4 << 20, "{words}: {more:#x}");
    }
}

/// Regions of scratch memory: first address and size.
#[track_caller]
fn scratch(shown: &Value) -> Vec<(u64, u64)> {
    let regions = shown["kho"]["scratch"].as_array().unwrap();
    let number = |it: &Value| u64::from_str_radix(&it.as_str().unwrap()[2..], 16).unwrap();
    let regions = regions.iter();
    let regions = regions.map(|it| (number(&it["start"]), it["size"].as_u64().unwrap()));
    regions.collect()
}

/// A machine with these MiB below 4 GiB and above.
fn large(low: u64, above: u64) -> Lab {
    let lab = lab();
    let (low, above) = ((low << 20) - 1, ((4096 + above) << 20) - 1);
    let ram = format!(
        "00001000-0009ffff : System RAM\n00100000-{low:08x} : System RAM\n100000000-{above:x} : System RAM\n"
    );
    lab.machine("m", &ram);
    lab
}

#[test]
fn pages_of_1_gib_need_not_lie_below_4_gib() {
    let lab = large(3072, 16 << 10);
    let with = |words: &str| scratch(&plan(&lab, &[&CARRY[..], &["--append", words]].concat()));
    let plain = with("kho=on");
    let three = with("hugepagesz=1G hugepages=3");
    let [(_, low), (above, size)] = three[..] else {
        panic!("{three:x?}");
    };
    assert!(
        low < 1 << 30 && above >= 4 << 30 && size >= 4 << 30,
        "{three:x?}"
    );
    let sizes = three.iter().map(|(_, size)| size).sum::<u64>();
    let more = sizes - plain.iter().map(|(_, size)| size).sum::<u64>();
    assert!(more.abs_diff(4 << 30) <= 8 << 20, "{more:#x}");
    // Other notations are the same.
    for words in [
        "default_hugepagesz=1G hugepages=3",
        "hugepages=3 default_hugepagesz=1G",
        "hugepagesz=1G hugepages=0:1,1:2",
        "hugetlb_cma=0:1G,1:2G",
    ] {
        assert_eq!(
            with(words).iter().map(|(_, size)| size).sum::<u64>(),
            sizes,
            "{words}"
        );
    }
}

#[test]
fn one_region_does_not_take_most_of_the_memory_below_4_gib() {
    let regions = |low| scratch(&plan(&large(low, 64 << 10), &CARRY));
    let one = regions(3072);
    assert!(
        matches!(one[..], [(start, _)] if start < 4 << 30),
        "{one:x?}"
    );
    let two = regions(2048);
    assert!(
        matches!(two[..], [_, (start, _)] if start >= 4 << 30),
        "{two:x?}"
    );
    assert!(two[0].1 < 512 << 20, "{two:x?}");
}

#[test]
fn scratch_memory_leaves_room_for_what_cannot_be_moved() {
    let lab = lab();
    let warns = |cpus: &str| {
        lab.write("m/sys/devices/system/cpu/possible", cpus);
        let shown = plan(&lab, &CARRY);
        let sum = shown["kho"]["scratch_sum"].as_array().unwrap().iter();
        let sum: u64 = sum.map(|part| part["size"].as_u64().unwrap()).sum();
        let (_, size) = scratch(&shown)[0];
        assert!(sum <= size && size - sum < 4 << 20, "{sum:#x} {size:#x}");
        shown["warnings"].to_string()
    };
    let warning = "of scratch memory is more than a quarter of the next kernel's free RAM (1023.6 MiB): only pages that can be \
                   moved may lie there as long as it runs";
    assert!(!warns("0-1\n").contains("a quarter"));
    let said = warns("0-63\n");
    assert!(said.contains(warning), "{said}");
    lab.write("m/sys/devices/system/cpu/possible", "0-127\n");
    let said = refused(&lab, &[]);
    assert!(
        said.contains(
            " of it would hold only pages that can be moved, more than half of its free RAM (1023.6 MiB)\n"
        ),
        "{said}"
    );
    assert!(
        said.contains("hint: it is the sum of descriptors of all pages 15.9 MiB, ")
            && said.contains(", areas of the CPUs 512 MiB, "),
        "{said}"
    );
    // What is set aside is not left over.
    lab.write("m/sys/devices/system/cpu/possible", "0-1\n");
    let args = [&CARRY[..], &["--append", "crashkernel=400M"]].concat();
    let shown = plan(&lab, &args);
    assert!(!shown["warnings"].to_string().contains("a quarter"));
}

#[test]
fn a_crash_kernels_place_outside_the_scratch_memory_is_of_no_use() {
    let lab = lab();
    let warnings = |words: &str| {
        let shown = plan(&lab, &[&CARRY[..], &["--append", words]].concat());
        shown["warnings"].to_string()
    };
    let said = warnings("crashkernel=128M@0x10000000");
    let why = "crashkernel=128M@0x10000000 of the new command line lies outside the scratch memory, where alone the \
               new kernel finds memory: leave the address out";
    assert!(said.contains(why), "{said}");
    for words in ["crashkernel=128M", "cma=16M@0x10000000"] {
        let said = warnings(words);
        assert!(!said.contains("leave the address out"), "{said}");
    }
}

#[test]
fn the_kernel_lies_low_in_the_scratch_memory() {
    let lab = lab();
    let args = [&CARRY[..], &["--direct", "off", "--assume-kho", "kho-v4"]].concat();
    let shown = plan(&lab, &args);
    let segments = shown["segments"].as_array().unwrap();
    let kernel = segments.iter().find(|it| it["role"] == "kernel").unwrap();
    let rule = kernel["rule"].as_str().unwrap();
    assert!(
        rule.starts_with("lowest free address of the scratch memory that the kernel allows (from "),
        "{rule}"
    );
}

#[test]
fn bounds_need_not_lie_on_pages() {
    let lab = lab();
    let bounds = ["--mem-min", "0x10000001", "--mem-max", "0x2fffffff"];
    let shown = plan(&lab, &[&CARRY[..], &bounds].concat());
    let preserved = shown["kho"]["preserved"].as_array().unwrap();
    assert!(!preserved.is_empty());
    for range in preserved {
        let start = range["start"].as_str().unwrap();
        let start = u64::from_str_radix(&start[2..], 16).unwrap();
        let end = start + range["size"].as_u64().unwrap();
        assert!(start.is_multiple_of(4096) && start > 0x1000_0000 && end < 0x3000_0000);
    }
}

#[test]
fn a_kernel_that_would_lose_the_files_is_not_loaded() {
    let no_kho = "rkexec: planning failed: the new kernel has no Kexec Handover (CONFIG_KEXEC_HANDOVER): it would drop file\n";
    let lost = "rkexec: planning failed: the new kernel reads kho-v3, this rkexec writes kho-v4: file would be lost\n";
    for (texts, why) in [
        (&b"nothing\0"[..], no_kho),
        (b"kho-v3\0luo-v5\0memfd-v2\0", lost),
        (
            b"kho-v4\0",
            "rkexec: planning failed: the new kernel has no live update (CONFIG_LIVEUPDATE): it would drop file\n",
        ),
        (
            b"kho-v4\0luo-v1\0memfd-v2\0",
            "rkexec: planning failed: the new kernel reads luo-v1 and panics on luo-v5: not loading\n",
        ),
        (
            b"kho-v4\0luo-v5\0",
            "rkexec: planning failed: the new kernel has no memfd-v2 handler: /dev/liveupdate would fail with EIO for every session\n",
        ),
        (
            b"kho-v4\0luo-v5\0memfd-v1\0",
            "rkexec: planning failed: the new kernel has no memfd-v2 handler: /dev/liveupdate would fail with EIO for every session\n",
        ),
    ] {
        let lab = lab();
        lab.write("vmlinuz", TinyBzImage::saying(texts).build());
        // Assuming does not make it read what it does not.
        for assume in [&[][..], &["--assume-kho", "kho-v4"]] {
            let said = refused(&lab, assume);
            assert!(said.starts_with(why), "{said}");
            assert!(
                said.contains("\nhint: load a kernel with CONFIG_KEXEC_HANDOVER"),
                "{said}"
            );
        }
    }
}

#[test]
fn a_kernel_that_does_not_tell_is_loaded_only_when_told_to() {
    let lab = lab();
    lab.write(
        "vmlinuz",
        TinyBzImage::saying(b"kho-v3\0kho-v4\0luo-v5\0memfd-v2\0").build(),
    );
    let said = refused(&lab, &[]);
    assert!(
        said.starts_with(
            "rkexec: planning failed: cannot tell which handover version the new kernel reads (found kho-v3, kho-v4)\n\
             hint: --assume-kho kho-v4"
        ),
        "{said}"
    );
    // One that cannot be unpacked.
    lab.write("vmlinuz", TinyBzImage::new(0x2000).build());
    let said = refused(&lab, &["--direct", "off"]);
    assert!(
        said.contains(
            "cannot tell which handover version the new kernel reads (no text in it tells)"
        ),
        "{said}"
    );
    let args = [&CARRY[..], &["--assume-kho", "kho-v4"]].concat();
    let shown = plan(&lab, &args);
    assert_eq!(shown["kho"]["version"], "kho-v4");
    let said = lab.fails(
        2,
        &[&PLAN, &CARRY[..], &["--assume-kho", "kho-v3"]].concat(),
    );
    assert!(said.contains("rkexec writes kho-v4 only"), "{said}");
}

#[test]
fn a_line_that_switches_it_off_is_refused() {
    let lab = lab();
    for (words, why) in [
        (
            "kho=off",
            "the new command line switches Kexec Handover off (kho=off): file would be lost\nhint: leave it out with --remove kho\n",
        ),
        (
            "kho=on liveupdate=0",
            "the new command line switches live update off (liveupdate=off): file would be lost\nhint: leave it out with --remove liveupdate\n",
        ),
    ] {
        let said = refused(&lab, &["--append", words]);
        assert_eq!(said, format!("rkexec: planning failed: {why}"));
    }
    lab.write("config-6.12.0-tiny", "CONFIG_X86_64=y\nCONFIG_KEXEC_HANDOVER=y\nCONFIG_LIVEUPDATE=y\nCONFIG_LIVEUPDATE_MEMFD=y\nCONFIG_CMDLINE_OVERRIDE=y\n");
    let said = refused(&lab, &[]);
    assert!(
        said.contains("ignores its command line (CONFIG_CMDLINE_OVERRIDE, config-6.12.0-tiny"),
        "{said}"
    );
}

#[test]
fn names_lead_to_one_file_each() {
    let lab = lab();
    lab.write("d/file", b"another");
    let said = refused(&lab, &["--carry", "d/file"]);
    assert_eq!(
        said,
        "rkexec: planning failed: the files cannot be carried: two files are called `file`\n\
         hint: rename one of them, or load them one by one\n"
    );
    for (file, why) in [
        (
            "missing",
            "opening a file to carry failed: missing: no such file",
        ),
        (
            "d",
            "opening a file to carry failed: d: is a directory, not a file",
        ),
        (
            "/dev/null",
            "opening a file to carry failed: /dev/null: is a character device, not a regular file",
        ),
    ] {
        let said = lab.fails(1, &[&PLAN, &["--carry", file][..]].concat());
        assert_eq!(said, format!("rkexec: {why}\n"));
    }
}

#[test]
fn there_is_no_room_for_everything() {
    let lab = lab();
    let said = refused(&lab, &["--append", "crashkernel=2G"]);
    assert!(
        said.starts_with("rkexec: planning failed: no room for ") && said.contains(" of scratch"),
        "{said}"
    );
    let large = File::create(lab.path().join("large")).unwrap();
    large.set_len(600 << 20).unwrap();
    let said = refused(&lab, &["--carry", "large"]);
    assert!(
        said.starts_with("rkexec: planning failed: large with 1 other file is 600 MiB, at most 512 MiB can be carried\n"),
        "{said}"
    );
    lab.write("large", vec![7; 40 << 20]);
    let bounds = ["--mem-min", "0x10000000", "--mem-max", "0x18000000"];
    let said = refused(&lab, &[&bounds[..], &["--carry", "large"]].concat());
    assert!(
        said.starts_with("rkexec: planning failed: no room for what is handed over: "),
        "{said}"
    );
    // What the line takes away holds neither scratch memory nor files.
    let said = refused(&lab, &["--append", "mem=128M"]);
    assert!(
        said.contains("it would fit without mem=128M on the new command line"),
        "{said}"
    );
    let shown = plan(
        &lab,
        &[&CARRY[..], &["--append", "memmap=512M$0x20000000"]].concat(),
    );
    for range in ["scratch", "preserved"] {
        let start = shown["kho"][range][0]["start"].as_str().unwrap();
        let start = u64::from_str_radix(&start[2..], 16).unwrap();
        assert!(start < 0x2000_0000, "{start:#x}");
    }
}

#[test]
fn options_that_do_not_go_together() {
    let lab = lab();
    let mut module = header_v1(3, &[]);
    module.resize(6000, 0x90);
    lab.write("xen", TinyElf::new(0x10_0000, &module).build());
    for (args, why) in [
        (&["--panic"][..], "cannot be used with '--panic'"),
        (
            &["--syscall", "kexec_file_load"],
            "--carry does not work with kexec_file_load: only kexec_load takes files that rkexec prepared",
        ),
    ] {
        let said = lab.fails(2, &[&PLAN, &CARRY[..], args].concat());
        assert!(said.contains(why), "{said}");
    }
    let said = lab.fails(
        2,
        &[
            "plan",
            "--root",
            "m",
            "xen",
            "--cmdline",
            "x",
            "--carry",
            "file",
        ],
    );
    assert!(
        said.contains("--carry is for Linux: a multiboot kernel knows nothing of Kexec Handover"),
        "{said}"
    );
}
