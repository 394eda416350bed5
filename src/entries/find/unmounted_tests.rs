//! Which partitions are mounted, on machines with several.

use super::*;

const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
const XBOOTLDR: &str = "bc13c2ff-59e6-4262-a352-b275fd6f7172";

struct Lab(tempfile::TempDir);

impl Lab {
    /// The root file system is on a RAID of sda2 and sdb2.
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        lab.write(
            "proc/self/mountinfo",
            "28 1 9:0 / / rw - ext4 /dev/md0 rw\n",
        );
        lab.write("sys/class/block/md0/dev", "9:0\n");
        for (disk, minor) in [("sda", 2), ("sdb", 18)] {
            let part = format!("{disk}2");
            lab.part(disk, &part, minor, "", "");
            lab.write(&format!("sys/class/block/md0/slaves/{part}/dev"), "x\n");
        }
        lab
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A partition with this type and GUID.
    fn part(&self, disk: &str, name: &str, minor: u32, kind: &str, guid: &str) {
        let number = name.trim_start_matches(disk);
        let class = "sys/class/block";
        self.write(&format!("{class}/{disk}/{name}/partition"), number);
        self.write(&format!("{class}/{name}/partition"), number);
        self.write(&format!("{class}/{name}/dev"), &format!("8:{minor}\n"));
        let data = format!("E:ID_PART_ENTRY_TYPE={kind}\nE:ID_PART_ENTRY_UUID={guid}\n");
        self.write(&format!("run/udev/data/b8:{minor}"), &data);
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.0.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    /// What is mounted, what decides about the default of systemd-boot, and why others are
    /// not mounted, where the boot loader says that it was started from `guid`.
    fn found(&self, guid: Option<&str>, fstab: &str) -> [Vec<String>; 3] {
        let root = Root::at(self.0.path());
        let volumes = Volumes::read(&root).unwrap();
        let mut variables = Variables::default();
        variables.partition = guid.map(str::to_owned);
        let disks = Disks::of(&volumes, &variables);
        let found = disks.unmounted(&volumes, &fstab::parse(fstab.as_bytes()));
        let names = |test: &dyn Fn(&&Unmounted) -> bool| {
            let names = found.iter().filter(test).map(|one| one.shown.clone());
            names.collect()
        };
        let why = found
            .iter()
            .filter_map(|one| Some(format!("{}: {}", one.shown, one.why.as_ref()?)));
        [
            names(&|one| one.is_wanted),
            names(&|one| one.decides_for_systemd_boot),
            why.collect(),
        ]
    }
}

/// Each disk has an EFI system partition, and one of them is a stale copy.
#[test]
fn of_several_the_one_counts_that_the_boot_loader_was_started_from() {
    let lab = Lab::new();
    lab.part("sda", "sda1", 1, ESP, "aa-1");
    lab.part("sdb", "sdb1", 17, ESP, "bb-1");
    let other = |name: &str| format!("/dev/{name}: {OTHER}");
    assert_eq!(
        lab.found(Some("AA-1"), ""),
        [vec!["/dev/sda1"], vec!["/dev/sda1"], vec![&*other("sdb1")]]
    );
    assert_eq!(lab.found(Some("bb-1"), "")[0], ["/dev/sdb1"]);
    let [wanted, decides, why] = lab.found(None, "");
    assert_eq!((wanted.len(), decides.len(), why.len()), (0, 2, 2));
    assert!(why[0].contains("there are several"), "{why:?}");
    // One that is mounted is the one.
    lab.write(
        "proc/self/mountinfo",
        "28 1 9:0 / / rw - ext4 /dev/md0 rw\n29 28 8:1 / /efi rw - vfat /dev/sda1 rw\n",
    );
    assert_eq!(lab.found(None, "")[..2], [vec![""; 0], vec![]]);

    // The first one in the table of the same disk.
    lab.part("sda", "sda10", 10, XBOOTLDR, "aa-10");
    lab.part("sda", "sda9", 9, XBOOTLDR, "aa-9");
    lab.part("sdb", "sdb3", 19, XBOOTLDR, "bb-3");
    let [wanted, decides, why] = lab.found(Some("aa-1"), "");
    assert_eq!((&wanted[..], why.len()), (&["/dev/sda9".to_owned()][..], 3));
    assert_eq!(decides, wanted);
}

/// A partition with one name too many is not guessed.
#[test]
fn a_copied_guid_proves_nothing() {
    let lab = Lab::new();
    lab.part("sda", "sda1", 1, ESP, "aa-1");
    lab.part("sdc", "sdc1", 33, ESP, "AA-1");
    lab.write("sys/class/block/sdc/removable", "1\n");
    // udev's link leads to the stick.
    lab.link("dev/disk/by-partuuid/aa-1", "../../sdc1");
    let started = [vec!["/dev/sda1"], vec!["/dev/sda1"]];
    assert_eq!(lab.found(Some("aa-1"), "")[..2], started);
    let line = "PARTUUID=AA-1 /efi vfat defaults 0 0\n";
    let named = [vec!["PARTUUID=AA-1"], vec!["PARTUUID=AA-1"]];
    assert_eq!(lab.found(Some("aa-1"), line)[..2], named);

    lab.part("sdb", "sdb1", 17, ESP, "aa-1");
    let [wanted, decides, why] = lab.found(Some("aa-1"), "");
    assert!(wanted.is_empty(), "{wanted:?}");
    assert!(decides.contains(&"PARTUUID=aa-1".to_owned()), "{decides:?}");
    assert!(why.concat().contains("several devices"), "{why:?}");
    let [wanted, decides, _] = lab.found(None, line);
    assert!(wanted.is_empty(), "{wanted:?}");
    assert_eq!(decides[0], "PARTUUID=AA-1");

    let lab = Lab::new();
    lab.part("sdc", "sdc1", 33, ESP, "aa-1");
    lab.write("sys/class/block/sdc/removable", "1\n");
    let [wanted, decides, why] = lab.found(Some("aa-1"), "");
    assert_eq!((wanted.len(), &*decides[0]), (0, "PARTUUID=aa-1"));
    assert!(why.concat().contains("can be taken out"), "{why:?}");
}

/// What /etc/fstab has for the directory may be the copy.
#[test]
fn fstab_names_the_partition_of_the_boot_loader_or_another_one() {
    let lab = Lab::new();
    lab.part("sda", "sda1", 1, ESP, "aa-1");
    lab.part("sdb", "sdb1", 17, ESP, "bb-1");
    let line = |name: &str| format!("{name} /boot/efi vfat umask=0077 0 1\n");
    let [wanted, decides, why] = lab.found(Some("aa-1"), &line("/dev/sdb1"));
    assert_eq!((wanted, why.len()), (vec!["/dev/sda1".to_owned()], 1));
    assert_eq!(decides, ["/dev/sda1"]);
    for name in ["/dev/sda1", "PARTUUID=AA-1"] {
        for guid in [Some("aa-1"), None] {
            let [wanted, decides, _] = lab.found(guid, &line(name));
            assert_eq!(
                (wanted, decides),
                (vec![name.to_owned()], vec![name.to_owned()])
            );
        }
    }
    // Without udev's data the links are asked: those of GUIDs have small letters.
    let lab = Lab::new();
    lab.write("sys/class/block/sda1/dev", "8:1\n");
    lab.link("dev/disk/by-partuuid/aa-1", "../../sda1");
    lab.link("dev/disk/by-uuid/abcd-0", "../../sda1");
    lab.link("dev/disk/by-uuid/ABCD-1", "../../sda1");
    for name in ["PARTUUID=AA-1", "UUID=ABCD-0", "UUID=ABCD-1"] {
        assert_eq!(lab.found(None, &line(name))[0], [name]);
    }
    // The machine has such links, and not this one.
    let [_, decides, why] = lab.found(Some("bb-1"), "");
    assert_eq!(decides, ["PARTUUID=bb-1"]);
    assert_eq!(why, ["PARTUUID=bb-1: there is no such partition"]);
}
