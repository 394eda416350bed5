//! A load of the record makes what was loaded, and decides anew what the plan decided.

use super::*;
use crate::carry::Capability;
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::crash::HotplugChoice;
use crate::image::uki::Addon;
use crate::image::{Contents, open};
use crate::job::Merged;
use crate::plan;
use crate::request::LoadRequest;
use crate::sys::FileFlags;
use crate::testing::host::host;
use crate::testing::pe::TinyPe;

const FRESH: Fresh = Fresh {
    seed: [7; 32],
    time: 7,
};

/// The record that is there, without a warning.
fn read(root: &Root, target: Target) -> Option<LoadRecord> {
    LoadRecord::read(root, target, &|warning| panic!("{warning}")).unwrap()
}

/// A directory for /run, and the root that it is below.
fn root() -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::at(dir.path());
    (dir, root)
}

/// 512 MiB, half of which a crash kernel has.
fn machine() -> Host {
    let mut host = host(
        "00001000-0009fbff : System RAM
00100000-1fffffff : System RAM
  10000000-1fffffff : Crash kernel
",
    );
    host.cmdline = "BOOT_IMAGE=/k root=/dev/sda quiet".into();
    host.total_ram = 512 << 20;
    host
}

/// The record of a load of a UKI with two addons.
fn load_uki(root: &Root, job: &Job) -> LoadRecord {
    let uki = TinyPe::uki().without(".dtb").build();
    let addons = [&b"first"[..], b"second=2"].map(|line| TinyPe::new([(".cmdline", line)]).build());
    let contents = Contents::of(&uki).unwrap();
    let found = open(&contents, None).unwrap();
    let addons = addons.iter().map(|file| Addon::parse(file).unwrap());
    let addons: Vec<_> = addons.collect();
    let merged = Merged::of(&job.request, &found, &addons, &[]).unwrap();
    let host = machine();
    let target = Capability::unknown;
    let plan = plan::plan(
        &merged.request,
        &host,
        &found.image,
        &plan::Given::initrds(&merged.initrds),
        target,
    )
    .unwrap();
    LoadRecord::of(root, job, &host, &found.image, &plan).unwrap()
}

fn job(cmdline: CmdlineRequest) -> Job {
    Job {
        kernel: "/boot/uki.efi".into(),
        addons: vec!["/boot/a.efi".into(), "/boot/b.efi".into()],
        request: LoadRequest {
            cmdline,
            mem_max: Some(0x1000_0000),
            hotplug: HotplugChoice::Off,
            ..LoadRequest::default()
        },
        ..Job::default()
    }
}

/// What is left of `record` after it was kept.
fn kept(root: &Root, record: &LoadRecord) -> LoadRecord {
    record.write(root).unwrap();
    read(root, record.kept.target).unwrap()
}

#[test]
fn loaded_again_a_uki_has_the_words_of_its_addons_once() {
    let (_dir, root) = root();
    let words = |words: &[&str]| words.iter().map(|word| (*word).into()).collect();
    for (base, append, remove, line) in [
        (
            CmdlineBase::Empty,
            &[][..],
            &[][..],
            "root=LABEL=x  quiet first second=2",
        ),
        (
            CmdlineBase::Empty,
            &["debug"],
            &["quiet"],
            "root=LABEL=x first second=2 debug",
        ),
        (
            CmdlineBase::Given("mine".into()),
            &["debug"],
            &[],
            "mine first second=2 debug",
        ),
        (
            CmdlineBase::Running,
            &["debug"],
            &["quiet"],
            "root=/dev/sda debug",
        ),
    ] {
        let asked = job(CmdlineRequest {
            base,
            append: words(append),
            remove: words(remove),
        });
        let record = load_uki(&root, &asked);
        assert_eq!(record.cmdline, line);
        let again = kept(&root, &record).job(FRESH).unwrap();
        assert_eq!(again.request.cmdline, asked.request.cmdline);
        assert_eq!(again.request.syscall, SyscallChoice::Auto);
        assert_eq!(again.request.mem_max, asked.request.mem_max);
        assert_eq!(again.request.hotplug, HotplugChoice::Off);
        assert_eq!((again.request.time, &again.addons), (7, &asked.addons));
        assert_eq!(load_uki(&root, &again).cmdline, line);
        assert_eq!(record.differs(&load_uki(&root, &again)), None);
    }
}

/// A record of a UKI with an addon, as rkexec wrote it until version 2.
const OLD: &str = r#"{
    "schema": 1, "boot_id": "this-boot", "rkexec": "0.1.0", "loaded_at": 1764190000,
    "target": "crash", "syscall": "kexec_file_load", "kernel": "/boot/uki.efi",
    "release": "6.12.0-tiny", "initrds": ["/boot/i"], "modules": [], "profile": "1",
    "wish": "bz_image", "addons": ["/boot/a.efi"],
    "blobs": { "kernel": { "size": 1, "digest": "00" }, "initrd": [] },
    "cmdline": "root=/dev/sda of-addon debug",
    "asked": {
        "cmdline": { "base": "running", "append": ["debug"], "remove": ["quiet"] },
        "syscall": "auto"
    },
    "digest": false, "no_efi": true, "serial_port": 1016, "hotplug": "off",
    "mem_min": 4096, "mem_max": 268435456, "init_size": 4096, "kexec_load_refused": true,
    "file_flags": { "no_cma": true, "force_dtb": false }, "fit": null
}"#;

/// Writes `record` as the one of what is loaded for `target`.
fn put(root: &Root, target: Target, record: &str) {
    let boot_id = root.path(BOOT_ID);
    std::fs::create_dir_all(boot_id.parent().unwrap()).unwrap();
    std::fs::write(boot_id, "this-boot\n").unwrap();
    std::fs::create_dir_all(root.path(DIR)).unwrap();
    std::fs::write(root.path(&file(target)), record).unwrap();
}

/// [`OLD`], changed by `change`, as it is read today.
fn old(change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Option<LoadRecord> {
    let (_dir, root) = root();
    let mut json: serde_json::Value = serde_json::from_str(OLD).unwrap();
    change(json.as_object_mut().unwrap());
    put(&root, Target::Crash, &json.to_string());
    read(&root, Target::Crash)
}

#[test]
fn a_record_of_version_1_is_read_and_loads_the_same() {
    let record = old(|_| ()).unwrap();
    assert_eq!(record.kept.kernel, Path::new("/boot/uki.efi"));
    assert_eq!(record.cmdline, "root=/dev/sda of-addon debug");
    assert_eq!(record.release.as_deref(), Some("6.12.0-tiny"));
    assert_eq!((record.loaded_at, record.init_size), (1_764_190_000, 4096));
    assert_eq!(record.syscall, Syscall::KexecFileLoad);
    assert!(record.kexec_load_refused && record.blobs.is_some());
    let job = record.job(FRESH).unwrap();
    assert_eq!(job.initrds, [Path::new("/boot/i")]);
    assert_eq!(job.addons, [Path::new("/boot/a.efi")]);
    assert_eq!(job.profile.as_deref(), Some("1"));
    assert_eq!(job.wish, Some(crate::image::Wish::BzImage));
    let request = job.request;
    assert_eq!(request.cmdline.base, CmdlineBase::Running);
    assert_eq!(request.cmdline.append, ["debug"]);
    assert_eq!(request.cmdline.remove, ["quiet"]);
    assert_eq!(request.syscall, SyscallChoice::Auto);
    assert_eq!(request.target, Target::Crash);
    assert_eq!(request.hotplug, HotplugChoice::Off);
    assert_eq!(
        (request.mem_min, request.mem_max),
        (Some(4096), Some(1 << 28))
    );
    assert!(request.no_digest && request.no_efi && request.file_flags.no_cma);
    assert_eq!(request.serial_port, Some(1016));
    assert_eq!((request.seed, request.time), (Some([7; 32]), 7));
}

#[test]
fn the_first_records_did_not_keep_what_was_asked() {
    let record = old(|record| drop(record.remove("asked"))).unwrap();
    let why = record.job(FRESH).unwrap_err().to_string();
    assert_eq!(
        why,
        "its record was written by rkexec 0.1.0, which did not keep what was asked of a UKI with addons"
    );
    // Without addons the line that was made makes itself again.
    let record = old(|record| {
        record.remove("asked");
        for field in ["addons", "profile", "wish", "modules", "file_flags"] {
            record.remove(field);
        }
        record.remove("kexec_load_refused");
    });
    let record = record.unwrap();
    assert!(!record.kexec_load_refused);
    let request = record.job(FRESH).unwrap().request;
    let base = CmdlineBase::Given(record.cmdline.clone());
    assert_eq!(request.cmdline.base, base);
    assert_eq!(request.syscall, SyscallChoice::Only(record.syscall));
    assert_eq!(request.file_flags, FileFlags::default());
}

#[test]
fn a_record_of_another_version_or_boot_is_none() {
    assert_eq!(
        old(|record| drop(record.insert("schema".into(), 3.into()))),
        None
    );
    assert_eq!(old(|record| drop(record.remove("schema"))), None);
    // Version 2 keeps the job.
    assert_eq!(
        old(|record| drop(record.insert("schema".into(), 2.into()))),
        None
    );
    assert_eq!(
        old(|record| drop(record.insert("boot_id".into(), "x".into()))),
        None
    );
    assert_eq!(old(|record| drop(record.remove("kernel"))), None);
}

#[test]
fn a_record_that_others_could_have_written_is_ignored_with_a_warning() {
    use std::cell::RefCell;
    use std::fs::{self, Permissions};
    let (dir, root) = root();
    let own = nix::unistd::geteuid().as_raw();
    let read = |owner| {
        let said = RefCell::new(Vec::new());
        let warn = |warning: &str| said.borrow_mut().push(warning.to_owned());
        let record = LoadRecord::read_of(owner, &root, Target::Crash, &warn).unwrap();
        (record.is_some(), said.into_inner())
    };
    let ignored = |why: &str| {
        let text = format!("the record /run/rkexec/crash.json is ignored: {why}");
        (false, vec![text])
    };
    put(&root, Target::Crash, OLD);
    let path = root.path(&file(Target::Crash));
    let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    mode(&path, 0o600);
    mode(&root.path(DIR), 0o700);
    assert_eq!(read(Some(own)), (true, Vec::new()));
    assert_eq!(
        read(Some(own + 1)),
        ignored(&format!(
            "/run/rkexec belongs to the user {own}, not to root"
        ))
    );
    for bits in [0o620, 0o602] {
        mode(&path, bits);
        let why = format!(
            "/run/rkexec/crash.json may be written to by others than root (mode {bits:04o})"
        );
        assert_eq!(read(Some(own)), ignored(&why));
    }
    mode(&path, 0o644);
    assert_eq!(read(Some(own)), (true, Vec::new()));
    mode(&root.path(DIR), 0o1777);
    let why = "/run/rkexec may be written to by others than root (mode 1777)";
    assert_eq!(read(Some(own)), ignored(why));
    // A captured machine belongs to whoever keeps it. `read` tells the two apart.
    assert_eq!(read(None), (true, Vec::new()));
    assert!(!root.is_system());
    mode(&root.path(DIR), 0o700);
    // A link is one, wherever it leads.
    let elsewhere = dir.path().join("run/rkexec/other");
    fs::rename(&path, &elsewhere).unwrap();
    std::os::unix::fs::symlink("other", &path).unwrap();
    for owner in [Some(own), None] {
        let why = "/run/rkexec/crash.json is a symbolic link";
        assert_eq!(read(owner), ignored(why));
    }
}

/// [`OLD`] of today, with `change`.
fn raw_record(change: impl FnOnce(&mut LoadRecord)) -> LoadRecord {
    let mut record = old(|_| ()).unwrap();
    change(&mut record);
    record
}

#[test]
fn a_refusal_that_no_fact_tells_is_remembered() {
    let taught = |refused: bool, choice| {
        let mut security = Security::default();
        let record = raw_record(|record| record.kexec_load_refused = refused);
        record.teach(choice, &mut security);
        security.forbids_kexec_load(None).is_some()
    };
    assert!(taught(true, SyscallChoice::Auto));
    assert!(!taught(false, SyscallChoice::Auto));
    // Who names a call gets it.
    assert!(!taught(true, SyscallChoice::Only(Syscall::KexecLoad)));
}

#[test]
fn each_difference_is_named() {
    let same = raw_record(|_| ());
    assert_eq!(same.differs(&same), None);
    let changes: [(fn(&mut LoadRecord), &str); 9] = [
        (|r| r.syscall = Syscall::KexecLoad, "the system call"),
        (|r| r.blobs = None, "the kernel"),
        (
            |r| {
                let blobs = r.blobs.as_mut().unwrap();
                blobs.initrd = blobs.kernel.clone().into_iter().collect();
            },
            "the initrd",
        ),
        (|r| r.cmdline = "x".into(), "the command line"),
        (|r| r.kept.no_digest = false, "whether purgatory verifies"),
        (|r| r.kept.no_efi = false, "whether EFI is handed over"),
        (
            |r| r.kept.serial_port = None,
            "the serial port of purgatory",
        ),
        (|r| r.kept.mem_min = None, "the bounds for segments"),
        (|r| r.kept.mem_max = None, "the bounds for segments"),
    ];
    for (change, what) in changes {
        let said = same.differs(&raw_record(change));
        assert_eq!(said, Some(format!("{what} has changed since the load")));
    }
    // What decides about outcomes alone is no difference by itself.
    let other = raw_record(|r| {
        r.kept.kernel = "/boot/other-name".into();
        r.kept.cmdline = CmdlineRequest::default();
        r.kept.syscall = SyscallChoice::Only(r.syscall);
    });
    assert_eq!(same.differs(&other), None);
}
