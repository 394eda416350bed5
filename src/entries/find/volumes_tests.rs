//! Where paths of boot loaders lead, on machines with many mounts and with ZFS.

use super::*;

#[test]
fn paths_below_directories() {
    assert_eq!(below("/boot/vmlinuz", "/"), Some("/boot/vmlinuz"));
    assert_eq!(below("/boot/vmlinuz", "/boot"), Some("/vmlinuz"));
    assert_eq!(below("/boot", "/boot/"), Some(""));
    assert_eq!(below("/bootx/vmlinuz", "/boot"), None);
    assert_eq!(joined("/", "/a"), "/a");
    assert_eq!(joined("/boot", "a"), "/boot/a");
}

fn machine(mountinfo: &str) -> (tempfile::TempDir, Root) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("proc/self/mountinfo");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, mountinfo).unwrap();
    let root = Root::at(dir.path());
    (dir, root)
}

fn link(dir: &tempfile::TempDir, path: &str, target: &str) {
    let path = dir.path().join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(target, path).unwrap();
}

#[test]
fn the_place_of_a_path_is_below_the_longest_mount_point() {
    let (_dir, root) = machine(
        "28 1 8:1 / / rw - ext4 /dev/sda1 rw\n29 28 8:3 / /boot rw - ext4 /dev/sda3 rw\n\
         x\n30 28 8:2 / /boot rw - ext4 /dev/sda2 rw\n",
    );
    let volumes = Volumes::read(&root).unwrap();
    let why = volumes.malformed.as_deref().unwrap();
    assert!(why.starts_with("line 3: `x`"), "{why}");
    assert_eq!(volumes.volumes.len(), 2);
    for (path, device, rest) in [
        ("/", 1, "/"),
        ("", 1, ""),
        ("/boot", 2, ""),
        ("/boot/a/b", 2, "/a/b"),
        ("/boot//a", 2, "//a"),
        ("/bootx/a", 1, "/bootx/a"),
    ] {
        let place = volumes.place(path).unwrap();
        assert_eq!(volumes.volumes[place.volume].device, (8, device), "{path}");
        assert_eq!(place.path, rest, "{path}");
    }
    assert_eq!(volumes.place("boot/a"), None);
}

/// A machine with many containers has thousands of mounts of one device.
#[test]
fn few_of_many_mounts_of_a_device_are_looked_into() {
    let mut list = "28 1 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned();
    for n in 0..200 {
        use std::fmt::Write as _;
        let _ = writeln!(list, "29 28 8:1 /d{n} /m{n} rw - ext4 /dev/sda1 rw");
    }
    let (dir, root) = machine(&list);
    for n in 0..200 {
        std::fs::create_dir(dir.path().join(format!("m{n}"))).unwrap();
    }
    link(&dir, "dev/disk/by-uuid/a-b", "../../sda1");
    let volumes = Volumes::read(&root).unwrap();
    let on = Fs::Uuid("a-b".to_owned());
    let own = volumes.place("/m150/x").unwrap().volume;
    let meant = volumes.meant(own, &on).unwrap();
    assert_eq!(meant.len(), MAX_MOUNTS);
    // Where it is itself, and where all of it is.
    assert_eq!((meant[0], meant[1]), (own, 0));
    assert!(volumes.resolve(own, &on, "/missing").is_err());
    for number in 0..volumes.volumes.len() {
        assert!(volumes.inside(number).is_ok());
    }
    assert_eq!(volumes.open.borrow().len(), MAX_OPEN);
    std::fs::write(dir.path().join("m150/there"), "").unwrap();
    let place = volumes.resolve(own, &on, "/there").unwrap();
    assert_eq!(place.volume, own);
}

#[test]
fn data_sets_of_zfs() {
    let (dir, root) = machine(
        "28 1 0:30 / / rw - zfs rpool/ROOT/ubuntu_abc rw\n\
         29 28 0:31 / /boot rw - zfs bpool/BOOT/ubuntu_abc rw\n\
         30 28 0:32 / /old rw - zfs old/BOOT/ubuntu_abc rw\n\
         30 28 0:31 / /again rw - zfs bpool/BOOT/ubuntu_abc rw\n\
         31 28 0:33 / /pool rw - zfs old rw\n",
    );
    // 0x10 is the GUID of bpool.
    for (name, device) in [("by-uuid/16", "sda2"), ("by-label/bpool", "sda2")] {
        link(
            &dir,
            &format!("dev/disk/{name}"),
            &format!("../../{device}"),
        );
    }
    for directory in ["boot", "old", "pool"] {
        let directory = dir.path().join(directory);
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("vmlinuz"), "").unwrap();
    }
    let volumes = Volumes::read(&root).unwrap();
    let uuid = Fs::Uuid("0000000000000010".to_owned());
    let path = |path: &str| {
        let place = volumes.resolve(0, &uuid, path);
        place.map(|place| volumes.path(&place))
    };
    let is_missing = |path: Result<String, Problem>| {
        assert!(matches!(path, Err(Problem::NotMounted { .. })), "{path:?}");
    };
    // Of the other pool nothing tells which device it is on.
    assert_eq!(path("/BOOT/ubuntu_abc@/vmlinuz").unwrap(), "/boot/vmlinuz");
    link(&dir, "dev/disk/by-label/old", "../../sdb1");
    assert_eq!(path("/BOOT/ubuntu_abc@/vmlinuz").unwrap(), "/boot/vmlinuz");
    std::fs::remove_file(dir.path().join("dev/disk/by-label/bpool")).unwrap();
    assert_eq!(path("/BOOT/ubuntu_abc@/vmlinuz").unwrap(), "/boot/vmlinuz");
    std::fs::remove_file(dir.path().join("dev/disk/by-label/old")).unwrap();
    is_missing(path("/BOOT/ubuntu_abc@/vmlinuz"));
    link(&dir, "dev/disk/by-label/old", "../../sdb1");
    is_missing(path("/BOOT/ubuntu_abc@autozsys_1/vmlinuz"));
    is_missing(path("/@/vmlinuz"));
    let gone = path("/BOOT/ubuntu_abc@/gone").unwrap_err();
    assert_eq!(gone.to_string(), "/boot/gone: no such file");
}

#[test]
fn labels_as_udev_writes_them() {
    assert_eq!(escaped("ROOT-1"), "ROOT-1");
    assert_eq!(escaped("a b/c"), "a\\x20b\\x2fc");
}
