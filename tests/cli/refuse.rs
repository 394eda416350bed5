//! Machines where a load must not be tried, or only by one of the calls.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Lab, captured};

/// A machine that went wrong once.
fn case(name: &str) -> String {
    let cases: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/data/cases", name, "root"]
        .iter()
        .collect();
    cases.to_str().unwrap().to_owned()
}

/// A copy of a captured machine, in the lab as `m`.
fn copied(lab: &Lab, machine: &str) -> PathBuf {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &target),
                false => fs::write(target, fs::read(entry.path()).unwrap()).unwrap(),
            }
        }
    }
    let to = lab.path().join("m");
    copy(Path::new(&captured(machine)), &to);
    to
}

fn json(lab: &Lab, args: &[&str]) -> Value {
    let ended = lab.run(&[&["--output", "json"], args].concat());
    assert_eq!(ended.code, Some(0), "{args:?}: {ended:?}");
    serde_json::from_str(&ended.out).unwrap()
}

#[test]
fn nothing_is_planned_in_a_pv_guest_of_xen() {
    let lab = Lab::new();
    let root = case("xen-pv-dom0");
    let plan = ["plan", "vmlinuz", "--root", &root, "--cmdline", "x"];
    for more in [
        &[][..],
        &["--syscall", "kexec_load"],
        &["--syscall", "kexec_file_load"],
        &["--panic"],
        &["--panic", "--syscall", "kexec_file_load"],
    ] {
        let error = lab.fails(1, &[&plan, more].concat());
        assert!(
            error.starts_with(
                "rkexec: planning failed: this is a paravirtual (PV) guest of Xen: any load makes \
                 the running kernel oops"
            ),
            "{more:?}: {error}"
        );
        assert!(error.contains("\nhint: ") && error.contains("Xen's own command line"));
    }
    for action in ["-l", "-p", "-f"] {
        for call in ["-a", "-s", "-c"] {
            let args = [
                "--root",
                &root,
                "kexec",
                "--dry-run",
                call,
                action,
                "vmlinuz",
            ];
            let ended = lab.run(&args);
            assert_eq!(ended.code, Some(255), "{ended:?}");
            assert!(ended.err.contains("PV"), "{ended:?}");
        }
    }
}

#[test]
fn status_says_that_every_load_would_fail_there() {
    let lab = Lab::new();
    let root = case("xen-pv-dom0");
    let text = lab.succeeds(&["status", "--root", &root]);
    assert_eq!(text.matches("oops").count(), 1, "{text}");
    assert!(text.contains("blocked:      every load: this is a paravirtual (PV) guest of Xen"));
    assert!(text.contains("crashkernel= goes on Xen's own command line"));
    let status = json(&lab, &["status", "--root", &root]);
    assert_eq!(status["environment"], "Xen guest (PV)");
    assert_eq!(status["obstacles"].as_array().unwrap().len(), 4);
}

#[test]
fn other_environments_are_told_apart() {
    let lab = Lab::new();
    let root = copied(&lab, "bios-512m");
    let plan = ["plan", "vmlinuz", "--root", "m", "--cmdline", "x"];
    let xen = |file: &str, text: &str| {
        let dir = root.join("sys/hypervisor");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(file), text).unwrap();
    };
    xen("type", "xen\n");
    xen("guest_type", "PVH\n");
    xen("uuid", "5b8dc9b5-8fbd-4a5c-8d3e-2f3c1d4f3a55\n");
    lab.succeeds(&plan);
    xen("uuid", "00000000-0000-0000-0000-000000000000\n");
    let error = lab.fails(1, &plan);
    assert!(
        error.contains("this is dom0 of Xen: when it jumps"),
        "{error}"
    );
    fs::remove_dir_all(root.join("sys/hypervisor")).unwrap();
    // A PV guest whose sysfs is masked, by its boot_params.
    let page = root.join("sys/kernel/boot_params/data");
    let mut bytes = fs::read(&page).unwrap();
    bytes[0x23c] = 2;
    fs::write(&page, bytes).unwrap();
    assert!(lab.fails(1, &plan).contains("PV"));

    let root = copied(&lab, "bios-512m");
    let release = root.join("proc/sys/kernel/osrelease");
    fs::write(&release, "5.15.90.1-microsoft-standard-WSL2\n").unwrap();
    let ended = lab.run(&plan);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.err.contains("this is WSL 2"), "{ended:?}");
    fs::write(&release, "4.4.0-19041-Microsoft\n").unwrap();
    assert!(lab.fails(1, &plan).contains("this is WSL 1"));

    // CAP_SYS_BOOT of a container's user namespace is none.
    let root = copied(&lab, "bios-512m");
    fs::write(root.join("proc/self/uid_map"), "0 100000 65536\n").unwrap();
    let text = lab.succeeds(&["status", "--root", "m"]);
    assert!(text.contains("blocked:      every load: this process runs in a user namespace"));
}

#[test]
fn the_word_kho_on_is_nothing_to_a_kernel_without_kho() {
    let lab = Lab::new();
    let root = case("kho-without-kho");
    let more = ["--cmdline", "x", "--mem-max", "0x10000000"];
    let plan = json(
        &lab,
        &[&["plan", "vmlinuz", "--root", &root], &more[..]].concat(),
    );
    assert_eq!(plan["syscall"]["name"], "kexec_load");
    let status = json(&lab, &["status", "--root", &root]);
    assert_eq!(status["kho"]["on"], false);
    assert_eq!(status["kho"]["reason"], status["kho_reason"]);
    assert!(
        status["kho_reason"]
            .as_str()
            .unwrap()
            .ends_with("it came with 6.16"),
        "{status}"
    );
}

#[test]
fn kexec_handover_that_is_on_by_default() {
    let lab = Lab::new();
    let root = copied(&lab, "bios-512m");
    fs::write(root.join("proc/sys/kernel/osrelease"), "7.2.13-x\n").unwrap();
    let boot = root.join("boot");
    fs::create_dir_all(&boot).unwrap();
    let config = "CONFIG_KEXEC_HANDOVER=y\nCONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT=y\n";
    fs::write(boot.join("config-7.2.13-x"), config).unwrap();
    let plan = ["plan", "vmlinuz", "--root", "m", "--cmdline", "x"];
    let syscall = || json(&lab, &plan)["syscall"].clone();
    assert_eq!(syscall()["name"], "kexec_file_load");
    let reason = syscall()["reason"].to_string();
    assert!(
        reason.contains("CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT"),
        "{reason}"
    );
    // debugfs shows that there is nothing to lose.
    let blobs = root.join("sys/kernel/debug/kho/out/sub_fdts");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join("kexec-metadata"), "x").unwrap();
    assert_eq!(syscall()["name"], "kexec_load");
    fs::write(blobs.join("memblock"), "x").unwrap();
    let reason = syscall()["reason"].to_string();
    assert!(reason.contains("preserves memblock"), "{reason}");
    let text = lab.succeeds(&["status", "-v", "--root", "m"]);
    assert!(text.contains("it preserves memblock"), "{text}");
    let copy = lab.path().join("copy");
    let copy = copy.to_str().unwrap();
    lab.succeeds(&["capture", copy, "--root", "m"]);
    assert!(
        lab.succeeds(&["status", "-v", "--root", copy])
            .contains("it preserves memblock")
    );
}

#[test]
fn a_fragment_of_a_configuration_is_no_kernel_without_kexec_load() {
    let lab = Lab::new();
    let root = copied(&lab, "bios-512m");
    let release = fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap();
    fs::create_dir_all(root.join("boot")).unwrap();
    let file = root.join("boot").join(format!("config-{}", release.trim()));
    fs::write(file, "CONFIG_KEXEC_FILE=y\n").unwrap();
    let plan = json(&lab, &["plan", "vmlinuz", "--root", "m", "--cmdline", "x"]);
    assert_eq!(plan["syscall"]["name"], "kexec_load");
    let status = json(&lab, &["status", "--root", "m"]);
    assert_eq!(
        (&status["config_kexec"], &status["config_kexec_file"]),
        (&Value::Null, &true.into())
    );
}

const ARM: [&str; 7] = [
    "plan",
    "vmlinuz",
    "--root",
    "m",
    "--panic",
    "--cmdline",
    "reset_devices",
];

#[test]
fn without_kcore_the_kernel_describes_itself() {
    let lab = Lab::new();
    let root = copied(&lab, "big");
    fs::remove_file(root.join("proc/kcore")).unwrap();
    let plan = json(&lab, &ARM);
    assert_eq!(plan["syscall"]["name"], "kexec_file_load");
    let reason = plan["syscall"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("does not show how it maps memory (/proc/kcore)"),
        "{reason}"
    );
    // Masked by /dev/null, as in a container.
    fs::write(root.join("proc/kcore"), "").unwrap();
    assert_eq!(json(&lab, &ARM)["syscall"], plan["syscall"]);
    // Who insists, or wants what only the other call can do, is told.
    for more in [["--syscall", "kexec_load"], ["--hotplug", "off"]] {
        let error = lab.fails(1, &[&ARM, &more[..]].concat());
        assert!(error.contains("/proc/kcore") && error.contains("--syscall kexec_file_load"));
    }
}

#[test]
fn keys_of_an_encrypted_disk_are_passed_on() {
    let lab = Lab::new();
    let root = copied(&lab, "big");
    let keys = root.join("sys/kernel/config/crash_dm_crypt_keys");
    fs::create_dir_all(&keys).unwrap();
    fs::write(keys.join("count"), "0\n").unwrap();
    assert_eq!(json(&lab, &ARM)["syscall"]["name"], "kexec_load");
    for key in ["root", "var"] {
        fs::create_dir_all(keys.join(key)).unwrap();
        fs::write(keys.join(key).join("description"), "cryptsetup:x\n").unwrap();
    }
    let plan = json(&lab, &ARM);
    assert_eq!(plan["syscall"]["name"], "kexec_file_load");
    let reason = plan["syscall"]["reason"].as_str().unwrap();
    assert!(
        reason.contains("only kexec_file_load passes on the 2 dm-crypt keys"),
        "{reason}"
    );
    let forced = json(&lab, &[&ARM[..], &["--syscall", "kexec_load"]].concat());
    let warnings = forced["warnings"].to_string();
    assert!(
        warnings.contains("gets none of the 2 dm-crypt keys"),
        "{warnings}"
    );
    // Another load than that of a crash kernel has nothing to do with them.
    let normal = json(&lab, &["plan", "vmlinuz", "--root", "m", "--cmdline", "x"]);
    assert_eq!(normal["syscall"]["name"], "kexec_load");
    // A capture has them, too.
    let copy = lab.path().join("copy");
    let copy = copy.to_str().unwrap();
    lab.succeeds(&["capture", copy, "--root", "m"]);
    let again = json(
        &lab,
        &[&["plan", "vmlinuz", "--root", copy][..], &ARM[4..]].concat(),
    );
    assert_eq!(again["syscall"], plan["syscall"]);
}

#[test]
fn flags_of_kexec_file_load() {
    let lab = Lab::new();
    let root = copied(&lab, "bios-512m");
    let flags = ["--no-cma", "--force-dtb"];
    let kexec = |more: &[&str]| {
        let head = [
            "--root",
            "m",
            "--output",
            "json",
            "kexec",
            "--dry-run",
            "-l",
        ];
        let ended = lab.run(&[&head[..], &["vmlinuz", "--append=x"], more].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let plan: Value = serde_json::from_str(&ended.out).unwrap();
        (plan["syscall"]["reason"].to_string(), ended.err)
    };
    for release in ["6.1.0-x", "6.17.3-x"] {
        fs::write(root.join("proc/sys/kernel/osrelease"), release).unwrap();
        let (reason, warned) = kexec(&["-s", "--no-cma", "--force-dtb"]);
        assert!(!reason.contains("KEXEC_FILE"), "{reason}");
        for flag in flags {
            let line = format!("{flag} has no effect: the running kernel ({release})");
            assert!(warned.contains(&line), "{warned}");
        }
    }
    fs::write(root.join("proc/sys/kernel/osrelease"), "6.18.0-x").unwrap();
    let (reason, warned) = kexec(&["-s", "--no-cma", "--force-dtb"]);
    assert!(
        reason.contains("with KEXEC_FILE_NO_CMA, with KEXEC_FILE_FORCE_DTB"),
        "{reason}"
    );
    assert!(!warned.contains("no effect"), "{warned}");
    let (reason, warned) = kexec(&["-c", "--no-cma", "--force-dtb"]);
    assert!(!reason.contains("KEXEC_FILE"), "{reason}");
    for flag in flags {
        assert!(
            warned.contains(&format!("{flag} has no effect: ")),
            "{warned}"
        );
    }
}

#[test]
fn the_configuration_beside_a_distributions_kernel() {
    let lab = Lab::new();
    let kernel = fs::read(lab.path().join("vmlinuz")).unwrap();
    lab.write("usr/lib/modules/6.12.0-tiny/vmlinuz", kernel);
    let config = "CONFIG_X86_64=y\nCONFIG_PMPOOL=y\n";
    lab.write("usr/lib/modules/6.12.0-tiny/config", config);
    fs::create_dir_all(lab.path().join("none")).unwrap();
    let file = "usr/lib/modules/6.12.0-tiny/vmlinuz";
    let shown = lab.succeeds(&["inspect", file, "--root", "none"]);
    assert!(shown.contains("config beside the image"), "{shown}");
    // The same for the running kernel's, below the root.
    let shown = lab.succeeds(&["inspect", "vmlinuz", "--root", "."]);
    assert!(
        shown.contains("/usr/lib/modules/6.12.0-tiny/config"),
        "{shown}"
    );
}
