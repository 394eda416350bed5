//! A record of files and words that are no UTF-8.

use super::*;
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
        target: Target::Normal,
        syscall: Syscall::KexecLoad,
        kernel: path(b"/boot/caf\xe9"),
        release: None,
        initrds: vec!["/boot/i".into(), path(b"/boot/\xff")],
        modules: vec![b"/m\xfe a=\xfd".into()],
        profile: None,
        addons: vec![path(b"/\xfc")],
        blobs: None,
        cmdline: b"root=LABEL=caf\xe9 added".into(),
        asked: Some(Asked {
            cmdline: CmdlineRequest {
                base: CmdlineBase::Given(b"root=LABEL=caf\xe9".into()),
                append: vec![b"\xfa".into()],
                remove: vec![b"\xfb".into()],
            },
            syscall: SyscallChoice::Auto,
        }),
        wish: None,
        kexec_load_refused: false,
        file_flags: FileFlags::default(),
        digest: true,
        no_efi: false,
        serial_port: None,
        hotplug: HotplugChoice::Auto,
        mem_min: None,
        mem_max: None,
        init_size: 4096,
        fit: None,
    };
    record.write(&root).unwrap();
    let loaded = Loaded {
        normal: Some(true),
        ..Loaded::default()
    };
    let read = LoadRecord::of_loaded(&root, Target::Normal, &loaded);
    assert_eq!(read.unwrap().as_ref(), Some(&record));

    let job = record.job(None, 0).unwrap();
    assert_eq!(job.kernel.as_os_str().as_bytes(), b"/boot/caf\xe9");
    assert_eq!(job.initrds, record.initrds);
    assert_eq!(job.addons, record.addons);
    assert_eq!(job.modules, record.modules);
    assert_eq!(job.request.cmdline, record.asked.unwrap().cmdline);
}
