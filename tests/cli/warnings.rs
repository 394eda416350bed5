//! What a plan and a load warn of, that is right for the system call and wrong for the
//! next kernel.

use std::io::Write as _;

use serde_json::Value;

use crate::common::bzimage::{TinyBzImage, field};
use crate::common::pe::TinyPe;
use crate::{Lab, captured};

const CPIO: &[u8] = include_bytes!("../data/initrd/cpio");
const ZSTD: &[u8] = include_bytes!("../data/initrd/cpio.zst");

/// The warnings of a plan for a captured machine.
fn warnings(lab: &Lab, machine: &str, args: &[&str]) -> Vec<String> {
    let root = captured(machine);
    let head = ["plan", "--output", "json", "--root", &root];
    let plan: Value = serde_json::from_str(&lab.succeeds(&[&head, args].concat())).unwrap();
    let warnings = plan["warnings"].as_array().unwrap().iter();
    warnings
        .map(|warning| warning.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn an_initrd_that_is_cut_or_none_is_named() {
    let lab = Lab::new();
    lab.write("early", [CPIO, &[0; 52]].concat());
    lab.write("whole", [CPIO, ZSTD].concat());
    lab.write("cut", &ZSTD[..ZSTD.len() - 1]);
    lab.write("none", "no archive");
    let plan = ["vmlinuz", "--cmdline", "x"];
    let of = |initrds: &[&str]| {
        let initrds = initrds.iter().flat_map(|name| ["--initrd", name]);
        let args: Vec<&str> = plan.iter().copied().chain(initrds).collect();
        warnings(&lab, "bios-512m", &args)
    };
    assert_eq!(of(&["early", "whole"]), [""; 0]);
    assert_eq!(
        of(&["early", "cut", "none"]),
        [
            "the initrd cut: the zstd archive that begins at byte 0 is cut short; \
             the next kernel does not find what is missing",
            "the initrd none: byte 0 does not begin a cpio archive, and Linux cannot unpack it: \
             it begins with 6e 6f 20 61 72 63; the next kernel does not find what is missing",
        ]
    );
    // In the words of kexec, too.
    let root = captured("bios-512m");
    let kexec = lab.run(&[
        "--root",
        &root,
        "kexec",
        "-l",
        "vmlinuz",
        "--initrd=cut",
        "--append=x",
        "--dry-run",
    ]);
    assert!(
        kexec
            .err
            .starts_with("rkexec: warning: the initrd cut: the zstd archive"),
        "{kexec:?}"
    );
    let uki = TinyPe::uki()
        .without(".dtb")
        .without(".ucode")
        .without(".initrd");
    lab.write("uki", uki.with(".initrd", &ZSTD[..99]).build());
    let inside = warnings(&lab, "bios-512m", &["uki"]);
    let said = "an initrd inside the UKI: the zstd archive that begins at byte 0 is cut short";
    assert!(
        inside.iter().any(|warning| warning.starts_with(said)),
        "{inside:?}"
    );
}

#[test]
fn an_empty_command_line_is_warned_of_whatever_the_kernel_is() {
    let lab = Lab::new();
    let uki = TinyPe::uki()
        .without(".dtb")
        .without(".ucode")
        .without(".initrd");
    lab.write("uki", uki.clone().build());
    lab.write("bare", uki.clone().without(".cmdline").build());
    lab.write(
        "blank",
        uki.without(".cmdline").with(".cmdline", b" \n\0").build(),
    );
    lab.write("addon", TinyPe::new([(".cmdline", &b"extra"[..])]).build());
    let empty = |args: &[&str]| {
        let warnings = warnings(&lab, "bios-512m", args);
        let said = "the command line is empty (";
        warnings.iter().any(|warning| warning.starts_with(said))
    };
    for args in [
        &["vmlinuz"][..],
        &["bare"],
        &["blank"],
        &["vmlinuz", "--append", ""],
        &["vmlinuz", "--cmdline", "quiet", "--remove", "quiet"],
    ] {
        assert!(empty(args), "{args:?}");
    }
    for args in [
        &["uki"][..],
        &["bare", "--addon", "addon"],
        &["bare", "--append", "x"],
        // Who gives an empty line means it.
        &["vmlinuz", "--cmdline", ""],
        &["vmlinuz", "--reuse-cmdline"],
    ] {
        assert!(!empty(args), "{args:?}");
    }
}

#[test]
fn a_crash_kernel_that_takes_memory_from_itself() {
    let lab = Lab::new();
    let panic = ["--panic", "vmlinuz"];
    let said = |line: &str| warnings(&lab, "big", &[&panic[..], &["--cmdline", line]].concat());
    assert_eq!(said("reset_devices nr_cpus=1"), [""; 0]);
    assert_eq!(said("reset_devices -- crashkernel=1M"), [""; 0]);
    assert_eq!(
        said("reset_devices crashkernel=256M"),
        [
            "the command line has crashkernel=: the crash kernel reserves memory for a crash kernel of its own \
          out of the reservation that it runs in. Take it out of the command line"
        ]
    );
    assert_eq!(said("reset_devices hugepages=64").len(), 1);
    let running = warnings(&lab, "big", &[&panic[..], &["--reuse-cmdline"]].concat());
    assert!(
        !running
            .iter()
            .any(|warning| warning.contains("crashkernel")),
        "{running:?}"
    );
    // A kernel for `exec` may have a crash kernel of its own.
    let normal = warnings(&lab, "big", &["vmlinuz", "--cmdline", "crashkernel=256M"]);
    assert!(
        !normal.iter().any(|warning| warning.contains("crashkernel")),
        "{normal:?}"
    );
}

/// An initrd of some MiB that takes 180 MiB unpacked.
fn large() -> Vec<u8> {
    let size = 180 << 20;
    let mut archive = format!("070701{}", "0".repeat(6 * 8));
    archive += &format!("{size:08x}{}{:08x}{}", "0".repeat(4 * 8), 2, "0".repeat(8));
    let mut archive = archive.into_bytes();
    archive.extend(b"x\0");
    archive.resize(archive.len().next_multiple_of(4) + size, 0);
    archive.extend_from_slice(CPIO);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(&archive).unwrap();
    packer.finish().unwrap()
}

/// The machine has 256 MiB reserved.
#[test]
fn a_reservation_that_is_too_small_is_warned_of_before_the_panic() {
    let lab = Lab::new();
    lab.write("small", ZSTD);
    lab.write("large", large());
    let kernel = |init_size| TinyBzImage::direct().u32(field::INIT_SIZE, init_size);
    lab.write("vmlinuz", kernel(40 << 20).build());
    let panic = [
        "--panic",
        "vmlinuz",
        "--cmdline",
        "reset_devices",
        "--initrd",
    ];
    assert_eq!(
        warnings(&lab, "big", &[&panic[..], &["small"]].concat()),
        [""; 0]
    );
    let said = warnings(&lab, "big", &[&panic[..], &["large"]].concat());
    let [warning] = said.as_slice() else {
        panic!("{said:?}");
    };
    assert!(
        warning.starts_with(
            "the 256 MiB reserved for the crash kernel may be too small for it to run: it needs 28"
        ) && warning.ends_with("; boot with crashkernel=288M or more"),
        "{warning}"
    );
    let root = captured("big");
    let kexec = lab.run(&[
        "--root",
        &root,
        "kexec",
        "-p",
        "vmlinuz",
        "--initrd=large",
        "--append=reset_devices",
        "--dry-run",
    ]);
    assert!(kexec.err.contains(warning), "{kexec:?}");

    // What does not fit at all is told with the same sum, and never with less than is there.
    lab.write("loose", [CPIO, &vec![0; 20 << 20]].concat());
    let plan = ["plan", "--root", &root, "--direct", "off"];
    for (initrd, size, hint) in [
        ("loose", 250, "crashkernel=352M"),
        ("large", 255, "crashkernel=512M"),
        ("small", 255, "crashkernel=320M"),
    ] {
        lab.write("vmlinuz", kernel(size << 20).build());
        let args = [&plan[..], &panic, &[initrd]].concat();
        let error = lab.fails(1, &args);
        assert!(
            error.starts_with("rkexec: planning failed: the crash kernel does not fit the memory reserved for it: not enough free memory for ")
                && error.ends_with(&format!(
                    "\nhint: boot with {hint} (or more) on the kernel's command line, or take a smaller initrd\n"
                )),
            "{error}"
        );
        let bounded = lab.fails(1, &[&args[..], &["--mem-max", "3G"]].concat());
        assert!(
            bounded.contains("hint: --mem-min and --mem-max bound"),
            "{bounded}"
        );
    }
}

#[test]
fn options_without_effect_are_named() {
    let lab = Lab::new();
    let said = |args: &[&str]| {
        let line = ["vmlinuz", "--cmdline", "quiet root=/dev/sda -- init"];
        warnings(&lab, "big", &[&line[..], args].concat())
    };
    let remove =
        |name: &str| format!("--remove {name} has no effect: it is not on the command line");
    assert_eq!(said(&["--remove", "quiet"]), [""; 0]);
    assert_eq!(
        said(&["--remove", "quit", "--remove", "root", "--remove", "init"]),
        [remove("quit"), remove("init")]
    );
    let no_pool = "has no effect: no pool is passed to the next kernel (--pool BASE,SIZE)";
    assert_eq!(
        said(&["--pool-protect", "reserved", "--assume-pmpool"]),
        [
            format!("--pool-protect {no_pool}"),
            format!("--assume-pmpool {no_pool}")
        ]
    );
    let reserved = ["--pool", "512M,64M", "--pool-protect", "reserved"];
    assert_eq!(said(&reserved), [""; 0]);
    assert_eq!(
        said(&[&reserved[..], &["--assume-pmpool"]].concat()),
        ["--assume-pmpool has no effect with this --pool-protect"]
    );
    // For a crash kernel these are taken out as a precaution.
    let panic = ["--panic", "vmlinuz", "--cmdline", "reset_devices"];
    let crash = |name: &str| warnings(&lab, "big", &[&panic[..], &["--remove", name]].concat());
    assert_eq!(crash("crashkernel"), [""; 0]);
    assert_eq!(crash("nothing"), [remove("nothing")]);
    let no_pools = [&panic[..], &["--assume-pmpool"]].concat();
    assert_eq!(
        warnings(&lab, "big", &no_pools),
        ["--assume-pmpool has no effect: a crash kernel takes over no pools"]
    );
}

/// `plan` knows what the facts forbid, and says so first.
#[test]
fn a_plan_says_that_a_load_would_be_refused() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    let plan = ["plan", "--root", "m", "vmlinuz", "--cmdline", "x"];
    let free = lab.run(&plan);
    assert!(free.out.starts_with("can be loaded: "), "{}", free.out);
    lab.write("m/proc/sys/kernel/kexec_load_disabled", "1\n");
    let why = "warning: a load would be refused now: loading and unloading are switched off";
    let refused = lab.run(&plan);
    assert_eq!(refused.code, Some(0));
    let first = "planned, but a load is refused now: ";
    assert!(refused.out.starts_with(first), "{}", refused.out);
    assert!(refused.err.contains(why), "{}", refused.err);
    let picture = lab.run(&[&plan[..], &["--svg", "-"]].concat());
    assert!(picture.out.starts_with("<svg") && picture.err.contains(why));
    let kexec = [
        "--root",
        "m",
        "kexec",
        "-l",
        "--dry-run",
        "vmlinuz",
        "--append=x",
    ];
    let kexec = lab.run(&kexec);
    assert!(kexec.out.starts_with(first) && kexec.err.contains(why));
}

/// Where efivarfs is not mounted, the boot loader's word counts for every verb.
#[test]
fn secure_boot_is_one_fact() {
    let lab = Lab::new();
    lab.machine("m", "00100000-3fffffff : System RAM\n");
    let mut page = vec![0; 4096];
    page[0x1ec] = 3; // secure_boot: enabled
    lab.write("m/sys/kernel/boot_params/data", page);
    let status = lab.run(&["status", "--root", "m", "--output", "json"]);
    let status: serde_json::Value = serde_json::from_str(&status.out).unwrap();
    assert_eq!(status["secure_boot"], true);
}
