//! A record of files and words that are no UTF-8.

use super::*;
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::crash::HotplugChoice;
use crate::load::carry::CarriedFile;
use crate::request::{DirectChoice, KhoChoice};
use crate::sys::FileFlags;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

fn path(bytes: &[u8]) -> PathBuf {
    OsStr::from_bytes(bytes).into()
}

#[test]
fn it_reads_back_byte_for_byte_and_makes_the_same_load() {
    let dir = tempfile::tempdir().unwrap();
    let root = Root::at(dir.path());
    let boot_id = root.path(BOOT_ID);
    std::fs::create_dir_all(boot_id.parent().unwrap()).unwrap();
    std::fs::write(boot_id, "this-boot\n").unwrap();
    let record = LoadRecord {
        schema: SCHEMA,
        boot_id: "this-boot".to_owned(),
        rkexec: "0.1.0".to_owned(),
        loaded_at: 1,
        kept: Kept {
            kernel: path(b"/boot/caf\xe9"),
            initrds: vec!["/boot/i".into(), path(b"/boot/\xff")],
            profile: None,
            wish: None,
            addons: vec![path(b"/\xfc")],
            modules: vec![b"/m\xfe a=\xfd".into()],
            target: Target::Normal,
            cmdline: CmdlineRequest {
                base: CmdlineBase::Given(b"root=LABEL=caf\xe9".into()),
                append: vec![b"\xfa".into()],
                remove: vec![b"\xfb".into()],
            },
            syscall: SyscallChoice::Auto,
            mem_min: None,
            mem_max: None,
            direct: DirectChoice::Auto,
            no_digest: false,
            no_efi: false,
            serial_port: None,
            hotplug: HotplugChoice::Auto,
            file_flags: FileFlags::default(),
            watchdog: Some(30),
            carry: vec![path(b"/var/\xf9")],
            kho: KhoChoice::Drop,
        },
        syscall: Syscall::KexecLoad,
        release: None,
        blobs: None,
        cmdline: b"root=LABEL=caf\xe9 added".into(),
        init_size: 4096,
        kexec_load_refused: false,
        fit: None,
        at_exec: Some(AtExec {
            files: vec![CarriedFile {
                name: b"\xf9".into(),
                path: path(b"/var/\xf9"),
            }],
            forwarded: serde_json::from_value(serde_json::json!({ "map": 4096, "blobs": [] })).ok(),
        }),
        is_job_unknown: false,
    };
    record.write(&root).unwrap();
    let loaded = Loaded {
        normal: Some(true),
        ..Loaded::default()
    };
    let warn = |warning: &str| panic!("{warning}");
    let read = LoadRecord::of_loaded(&root, Target::Normal, &loaded, &warn);
    assert_eq!(read.unwrap().as_ref(), Some(&record));

    let fresh = Fresh {
        seed: [0; 32],
        time: 0,
    };
    let job = record.job(fresh).unwrap();
    assert_eq!(job.kernel.as_os_str().as_bytes(), b"/boot/caf\xe9");
    assert_eq!(job.initrds, record.kept.initrds);
    assert_eq!(job.addons, record.kept.addons);
    assert_eq!(job.modules, record.kept.modules);
    assert_eq!(job.request.cmdline, record.kept.cmdline);
    assert_eq!(job.request.watchdog, Some(30));

    // An rkexec before a package upgrade knew none.
    let file = root.path(&file(Target::Normal));
    let text = std::fs::read_to_string(&file).unwrap();
    let old = text.replace(",\"watchdog\":30", "");
    assert_ne!(old, text);
    std::fs::write(&file, old).unwrap();
    let read = LoadRecord::of_loaded(&root, Target::Normal, &loaded, &warn);
    assert_eq!(read.unwrap().unwrap().kept.watchdog, None);
}
