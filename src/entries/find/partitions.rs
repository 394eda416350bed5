//! Block devices: which of them are partitions for boot loaders, and the disks they are on.
//!
//! Source: the UAPI Group's "Discoverable Partitions Specification" (the types),
//! Documentation/ABI/stable/sysfs-block, and what udev keeps of a block device in
//! /run/udev/data.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::mounts::device_numbers;
use crate::host::{Root, gpt};
use crate::sys::mount::Device;

const CLASS: &str = "/sys/class/block";
/// Most block devices that are looked at.
const MAX_DEVICES: usize = 4096;
/// How many devices may lie below each other: a volume on a crypt device on a RAID.
const MAX_DEPTH: usize = 8;
/// Sectors that disks have.
const SECTORS: std::ops::RangeInclusive<usize> = 512..=65_536;

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// XBOOTLDR.
    ExtendedBootLoader,
    /// The EFI system partition.
    EfiSystem,
}

impl Kind {
    /// The kind with the GPT type `guid`.
    fn of(guid: &str) -> Option<Self> {
        let guid = guid.to_ascii_lowercase();
        match guid.as_str() {
            "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" => Some(Self::EfiSystem),
            "bc13c2ff-59e6-4262-a352-b275fd6f7172" => Some(Self::ExtendedBootLoader),
            _ => None,
        }
    }

    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::EfiSystem => "an EFI system partition",
            Self::ExtendedBootLoader => "an extended boot loader partition",
        }
    }
}

/// A partition for boot loaders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// The kernel's name of it.
    pub(super) name: String,
    pub(super) numbers: (u32, u32),
    pub(super) kind: Kind,
    /// Its number in the partition table.
    pub(super) number: Option<u32>,
    /// It lies on one of the disks that were asked for.
    pub(super) is_on_own_disk: bool,
}

/// The partitions for boot loaders. udev tells their types; of the disks `own` their
/// partition tables do where it does not.
pub(super) fn for_boot_loaders(root: &Root, own: &BTreeSet<String>) -> Vec<Partition> {
    let names = root.list_permitted(CLASS).ok().flatten();
    let names = names.unwrap_or_default().into_iter().take(MAX_DEVICES);
    let mut tables = BTreeMap::new();
    let mut found = Vec::new();
    for name in names {
        let Some(numbers) = numbers(root, &name) else {
            continue;
        };
        let disk = own.iter().find(|disk| is_part(root, disk, &name));
        let number = number(root, &name);
        let guid = match (type_by_udev(root, numbers), disk) {
            (Udev::Type(guid), _) => Some(guid),
            (Udev::Unknown, Some(disk)) => {
                let table = tables
                    .entry(disk.clone())
                    .or_insert_with(|| table(root, disk));
                number.and_then(|number| table.get(&number).cloned())
            }
            (Udev::None, _) | (Udev::Unknown, None) => None,
        };
        // Of what is a part of a RAID, the RAID is mounted.
        let kind = guid.and_then(|guid| Kind::of(&guid));
        if let Some(kind) = kind.filter(|_| !has_names(root, &name, "holders")) {
            found.push(Partition {
                name,
                numbers,
                kind,
                number,
                is_on_own_disk: disk.is_some(),
            });
        }
    }
    found
}

/// What udev says of a type.
enum Udev {
    Type(String),
    /// It knows the device, which has none.
    None,
    /// It does not know the device.
    Unknown,
}

/// What udev keeps of a device: lines of text.
fn udev_data(root: &Root, (major, minor): (u32, u32)) -> Option<String> {
    let path = format!("/run/udev/data/b{major}:{minor}");
    let data = root.read_permitted(&path).ok()??;
    Some(String::from_utf8_lossy(&data).into_owned())
}

/// The devices that have the property `key` with this value, as udev tells. Case does not
/// count. Parts of a RAID, and what else is in use by another device, are left out.
pub(super) fn with_property(root: &Root, key: &str, value: &str) -> Vec<String> {
    let names = root.list_permitted(CLASS).ok().flatten();
    let names = names.unwrap_or_default().into_iter().take(MAX_DEVICES);
    let has_it = |name: &String| {
        let data = numbers(root, name).and_then(|numbers| udev_data(root, numbers));
        data.unwrap_or_default().lines().any(|line| {
            let property = line.strip_prefix("E:");
            let property = property.and_then(|property| property.split_once('='));
            property.is_some_and(|(name, own)| name == key && own.eq_ignore_ascii_case(value))
        })
    };
    names
        .filter(|name| has_it(name) && !has_names(root, name, "holders"))
        .collect()
}

/// Whether the device lies on a disk that can be taken out.
pub(super) fn is_removable(root: &Root, name: &str) -> bool {
    disks(root, name).iter().any(|disk| {
        let line = root.read_line_permitted(&format!("{CLASS}/{disk}/removable"));
        matches!(line, Ok(Some(line)) if line == "1")
    })
}

fn type_by_udev(root: &Root, numbers: (u32, u32)) -> Udev {
    let Some(data) = udev_data(root, numbers) else {
        return Udev::Unknown;
    };
    let mut lines = data.lines();
    let guid = lines.find_map(|line| line.strip_prefix("E:ID_PART_ENTRY_TYPE="));
    guid.map_or(Udev::None, |guid| Udev::Type(guid.to_owned()))
}

/// The types of a disk's partitions by their numbers. Only the running machine has disks.
fn table(root: &Root, disk: &str) -> BTreeMap<u32, String> {
    let read = || -> Option<Vec<gpt::Partition>> {
        let numbers = numbers(root, disk).filter(|_| root.is_system())?;
        let path = format!("{CLASS}/{disk}/queue/logical_block_size");
        let sector = root.read_line_permitted(&path).ok()??.parse().ok()?;
        let device = Device::open(&node(root, disk), numbers).ok()?;
        let is_sane = SECTORS.contains(&sector);
        is_sane
            .then(|| gpt::read(sector, &mut |at, size| device.read(at, size)))?
            .ok()?
    };
    let partitions = read().unwrap_or_default().into_iter();
    partitions
        .map(|partition| (partition.number, partition.kind))
        .collect()
}

/// The device node: sysfs has `!` where the name has `/`.
pub(super) fn node(root: &Root, name: &str) -> std::path::PathBuf {
    root.path(&format!("/dev/{}", name.replace('!', "/")))
}

/// The numbers of the device `name`.
pub(super) fn numbers(root: &Root, name: &str) -> Option<(u32, u32)> {
    let path = format!("{CLASS}/{name}/dev");
    device_numbers(&root.read_line_permitted(&path).ok()??)
}

/// The device with these numbers.
pub(super) fn of_numbers(root: &Root, wanted: (u32, u32)) -> Option<String> {
    let names = root.list_permitted(CLASS).ok()??;
    let mut names = names.into_iter().take(MAX_DEVICES);
    names.find(|name| numbers(root, name) == Some(wanted))
}

/// The number of a partition in its table.
fn number(root: &Root, name: &str) -> Option<u32> {
    let path = format!("{CLASS}/{name}/partition");
    root.read_line_permitted(&path).ok()??.parse().ok()
}

/// Whether `name` is a partition of `disk`.
fn is_part(root: &Root, disk: &str, name: &str) -> bool {
    let path = format!("{CLASS}/{disk}/{name}/partition");
    name.starts_with(disk) && matches!(root.read_line_permitted(&path), Ok(Some(_)))
}

/// Whether the directory `of` of a device has something in it.
fn has_names(root: &Root, name: &str, of: &str) -> bool {
    let names = root.list_permitted(&format!("{CLASS}/{name}/{of}"));
    matches!(names, Ok(Some(names)) if !names.is_empty())
}

/// The disks that the device `name` lies on: those below a volume or a RAID, and the disk of
/// a partition.
pub(super) fn disks(root: &Root, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    add_disks(root, name, MAX_DEPTH, &mut found);
    found
}

fn add_disks(root: &Root, name: &str, depth: usize, found: &mut BTreeSet<String>) {
    let below = root.list_permitted(&format!("{CLASS}/{name}/slaves"));
    let below = below.ok().flatten().unwrap_or_default();
    if !below.is_empty() && depth > 0 && found.len() < MAX_DEVICES {
        for name in below {
            add_disks(root, &name, depth - 1, found);
        }
        return;
    }
    if number(root, name).is_none() {
        found.insert(name.to_owned());
        return;
    }
    let names = root.list_permitted(CLASS).ok().flatten();
    let names = names.unwrap_or_default().into_iter().take(MAX_DEVICES);
    found.extend(names.filter(|disk| disk != name && is_part(root, disk, name)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files below /sys/class/block.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join("sys/class/block").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    /// A root file system in a crypt device on a RAID of two disks.
    #[test]
    fn disks_below_volumes_and_raids() {
        let machine = machine(&[
            ("dm-0/slaves/md0/dev", "9:0\n"),
            ("md0/slaves/sda2/dev", "8:2\n"),
            ("md0/slaves/sdb2/dev", "8:18\n"),
            ("sda/sda2/partition", "2\n"),
            ("sda2/partition", "2\n"),
            ("sdb/sdb2/partition", "2\n"),
            ("sdb2/partition", "2\n"),
            ("sdc/dev", "8:32\n"),
            ("loop/slaves/loop/dev", "7:0\n"),
        ]);
        let root = Root::at(machine.path());
        let disks = |name| disks(&root, name).into_iter().collect::<Vec<_>>();
        assert_eq!(disks("dm-0"), ["sda", "sdb"]);
        assert_eq!(disks("sdb2"), ["sdb"]);
        assert_eq!(disks("sdc"), ["sdc"]);
        assert_eq!(disks("loop"), ["loop"]);
    }
}
