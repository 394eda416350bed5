use super::*;

/// A directory in memory: the tests that need one do nothing without.
fn in_memory() -> Option<(tempfile::TempDir, Root)> {
    let dir = tempfile::tempdir_in("/dev/shm").ok()?;
    let kind = nix::sys::statfs::statfs(dir.path()).unwrap();
    let root = Root::at(dir.path());
    (kind.filesystem_type() == TMPFS_MAGIC).then_some((dir, root))
}

fn contents(root: &Root) -> Vec<u64> {
    let bytes = fs::read(path(root)).unwrap();
    assert_eq!(bytes.len(), 4096);
    let (words, _) = bytes[..32].as_chunks();
    words.iter().copied().map(u64::from_le_bytes).collect()
}

/// Makes the page that `exec` finds, as it lies now, or at another address.
fn make(root: &Root, moved_by: u64) -> Option<u64> {
    let (page, mapped) = ExecPage::create(&lock::directory(root).unwrap()).unwrap();
    let address = mapped.physical().unwrap()? + moved_by;
    let written = stamps::exec_page(7, address);
    page.file.write_all_at(&written, 0).unwrap();
    let timed = Timed {
        purgatory: Vec::new(),
        page: Some(page),
    };
    timed.keep(root, Duration::from_millis(5));
    Some(address)
}

/// Memory that is given out in one go, page after page, and a kernel of 62 MiB that goes
/// there: what is held reaches beyond it, after a few tries.
#[test]
fn what_is_held_reaches_beyond_the_image() {
    let image = 62 << 20;
    let sizes: Vec<u64> = to_hold(image + MORE_HELD).collect();
    assert_eq!(sizes[..3], [4096, 8192, 16384]);
    let held: u64 = sizes.iter().sum();
    assert!(held > image, "{held:#x}");
    assert!(held < image + MORE_HELD + LARGEST_HELD, "{held:#x}");
    assert!(sizes.len() < 60, "{}", sizes.len());
    // One try is made with next to no memory.
    assert_eq!(to_hold(0).count(), 1);
}

#[test]
fn exec_stamps_the_page_where_it_was_made() {
    let Some((_dir, root)) = in_memory() else {
        return;
    };
    // Without CAP_SYS_ADMIN nobody is told an address.
    let Some(address) = make(&root, 0) else {
        return;
    };
    assert_eq!(contents(&root), [7, 5_000_000, 0, address]);
    let before = tsc::now().unwrap();
    stamp(&root);
    let [nonce, load, exec, at] = contents(&root)[..] else {
        panic!("not four words");
    };
    assert_eq!((nonce, load, at), (7, 5_000_000, address));
    assert!((before..tsc::now().unwrap()).contains(&exec));
    // One file, and no others beside it.
    let names = fs::read_dir(root.path(DIR)).unwrap();
    assert_eq!(names.count(), 1);
    remove(&root);
    assert!(!path(&root).exists());
    stamp(&root);
    assert!(!path(&root).exists());
}

#[test]
fn a_page_that_was_moved_gets_no_stamp() {
    let Some((_dir, root)) = in_memory() else {
        return;
    };
    if make(&root, PAGE_SIZE).is_some() {
        stamp(&root);
        assert_eq!(contents(&root)[2], 0);
    }
}

/// Root's own files only: what others can put there might be another file of root's.
#[test]
fn what_others_may_write_to_gets_no_stamp() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some((dir, root)) = in_memory() else {
        return;
    };
    if make(&root, 0).is_none() {
        return;
    }
    let mode = |path: PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(root.path(DIR), 0o777);
    stamp(&root);
    mode(root.path(DIR), 0o700);
    mode(path(&root), 0o666);
    stamp(&root);
    mode(path(&root), 0o600);
    let other = dir.path().join("other");
    fs::rename(path(&root), &other).unwrap();
    std::os::unix::fs::symlink(&other, path(&root)).unwrap();
    stamp(&root);
    assert_eq!(contents(&root)[2], 0);
    fs::remove_file(path(&root)).unwrap();
    fs::rename(&other, path(&root)).unwrap();
    stamp(&root);
    assert_ne!(contents(&root)[2], 0);
}
