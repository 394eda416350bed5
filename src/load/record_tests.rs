//! A load of the record makes what was loaded, and decides anew what the plan decided.

use super::*;
use crate::carry::Capability;
use crate::image::uki::Addon;
use crate::image::{Contents, open};
use crate::load::parts::Parts;
use crate::plan;
use crate::testing::host::host;
use crate::testing::pe::TinyPe;

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
    let parts = Parts::of(&job.request, &found, &addons, &[]).unwrap();
    let host = machine();
    let target = Capability::unknown;
    let plan = plan::plan(&parts.request, &host, &found.image, &parts.initrds, target).unwrap();
    LoadRecord::of(root, job, &host, &found.image, &plan).unwrap()
}

fn job(cmdline: CmdlineRequest) -> Job {
    Job {
        kernel: "/boot/uki.efi".into(),
        initrds: Vec::new(),
        profile: None,
        wish: None,
        addons: vec!["/boot/a.efi".into(), "/boot/b.efi".into()],
        modules: Vec::new(),
        request: LoadRequest {
            cmdline,
            mem_max: Some(0x1000_0000),
            hotplug: HotplugChoice::Off,
            ..LoadRequest::default()
        },
    }
}

/// What is left of `record` after it was kept.
fn kept(root: &Root, record: &LoadRecord) -> LoadRecord {
    record.write(root).unwrap();
    LoadRecord::read(root, record.target).unwrap().unwrap()
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
        let again = kept(&root, &record).job(None, 7).unwrap();
        assert_eq!(again.request.cmdline, asked.request.cmdline);
        assert_eq!(again.request.syscall, SyscallChoice::Auto);
        assert_eq!(again.request.mem_max, asked.request.mem_max);
        assert_eq!(again.request.hotplug, HotplugChoice::Off);
        assert_eq!((again.request.time, &again.addons), (7, &asked.addons));
        assert_eq!(load_uki(&root, &again).cmdline, line);
        assert_eq!(record.differs(&load_uki(&root, &again)), None);
    }
}

/// What rkexec wrote before it kept what was asked.
fn of_older(root: &Root, record: &LoadRecord) -> LoadRecord {
    record.write(root).unwrap();
    let path = root.path(&file(record.target));
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert!(json.as_object_mut().unwrap().remove("asked").is_some());
    std::fs::write(&path, json.to_string()).unwrap();
    LoadRecord::read(root, record.target).unwrap().unwrap()
}

#[test]
fn a_record_of_an_older_version_is_read() {
    let (_dir, root) = root();
    let record = load_uki(&root, &job(CmdlineRequest::default()));
    let mut old = of_older(&root, &record);
    assert_eq!(old.differs(&record), None);
    let why = old.job(None, 0).unwrap_err().to_string();
    assert_eq!(
        why,
        format!(
            "its record was written by rkexec {}, which did not keep what was asked of a UKI with addons",
            env!("CARGO_PKG_VERSION")
        )
    );
    // Without addons the line that was made makes itself again.
    old.addons.clear();
    let job = old.job(None, 0).unwrap();
    let base = CmdlineBase::Given(record.cmdline.clone());
    assert_eq!(job.request.cmdline.base, base);
    assert_eq!(job.request.syscall, SyscallChoice::Only(record.syscall));
}

/// A record written field by field.
fn raw_record(more: &serde_json::Value) -> LoadRecord {
    let mut record = serde_json::json!({
        "schema": SCHEMA, "boot_id": "", "rkexec": "", "loaded_at": 0, "target": "crash",
        "syscall": "kexec_file_load", "kernel": "/k", "release": null, "initrds": [],
        "blobs": { "kernel": { "size": 1, "digest": "00" }, "initrd": [] }, "cmdline": "",
        "digest": true, "no_efi": false, "serial_port": null, "hotplug": HotplugChoice::Auto,
        "mem_min": null, "mem_max": null, "init_size": 0, "fit": null,
    });
    for (field, value) in more.as_object().unwrap() {
        record[field] = value.clone();
    }
    serde_json::from_value(record).unwrap()
}

#[test]
fn a_refusal_that_no_fact_tells_is_remembered() {
    let taught = |refused: bool, choice| {
        let mut security = Security::default();
        let refused = serde_json::json!({ "kexec_load_refused": refused });
        raw_record(&refused).teach(choice, &mut security);
        security.forbids_kexec_load(None).is_some()
    };
    assert!(taught(true, SyscallChoice::Auto));
    assert!(!taught(false, SyscallChoice::Auto));
    // Who names a call gets it.
    assert!(!taught(true, SyscallChoice::Only(Syscall::KexecLoad)));
    // A record of an earlier version says nothing of it.
    assert!(!raw_record(&serde_json::json!({})).kexec_load_refused);
}

#[test]
fn flags_of_the_call_are_asked_for_again() {
    let flags = serde_json::json!({ "file_flags": { "no_cma": true, "force_dtb": false } });
    let job = raw_record(&flags).job(None, 0).unwrap();
    assert!(job.request.file_flags.no_cma && !job.request.file_flags.force_dtb);
}
