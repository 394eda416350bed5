//! /sys/class/block/dm-*: devices that the device mapper makes of others, and which of
//! them are encrypted.

use std::collections::BTreeSet;

use super::mounts::device_numbers;
use super::{HostError, Root};

const BLOCK: &str = "/sys/class/block";
/// What the UUID of an encrypted one begins with (cryptsetup, `DM_UUID_PREFIX`).
const CRYPT: &str = "CRYPT-";

/// What it begins with where the device is only checked, not encrypted (veritysetup(8),
/// integritysetup(8)).
const CHECKED: [&str; 2] = ["CRYPT-VERITY-", "CRYPT-INTEGRITY-"];

/// A device of the device mapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedDevice {
    /// The kernel's name for it, as `dm-0`.
    pub name: String,
    /// Its name in /dev/mapper.
    pub label: String,
    /// Its device number, major and minor.
    pub device: (u32, u32),
    /// It is encrypted (dm-crypt).
    pub encrypted: bool,
    /// Those of the device mapper that it lies on.
    pub below: Vec<String>,
}

/// Every one below `root`, in the order of their names.
///
/// # Errors
/// When a file is there and cannot be read.
pub fn read(root: &Root) -> Result<Vec<MappedDevice>, HostError> {
    let names = root.list_permitted(BLOCK)?.unwrap_or_default();
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| name.starts_with("dm-")) {
        let dir = format!("{BLOCK}/{name}");
        let line = |file: &str| root.read_line_permitted(&format!("{dir}/{file}"));
        let device = line("dev")?.as_deref().and_then(device_numbers);
        let (Some(device), Some(label)) = (device, line("dm/name")?) else {
            continue;
        };
        let uuid = line("dm/uuid")?.unwrap_or_default();
        let mut below = Vec::new();
        for other in root
            .list_permitted(&format!("{dir}/slaves"))?
            .unwrap_or_default()
        {
            // Only a name that was read of is in a captured machine.
            if line(&format!("slaves/{other}/dm/name"))?.is_some() {
                below.push(other);
            }
        }
        found.push(MappedDevice {
            label,
            device,
            encrypted: uuid.starts_with(CRYPT)
                && !CHECKED.iter().any(|start| uuid.starts_with(start)),
            below,
            name,
        });
    }
    Ok(found)
}

/// The encrypted device that a file system on the device `number` lies on, or on what
/// `source` names below /dev/mapper.
#[must_use]
pub fn encryption<'a>(
    all: &'a [MappedDevice],
    number: (u32, u32),
    source: &str,
) -> Option<&'a MappedDevice> {
    let label = source.strip_prefix("/dev/mapper/");
    let is_it = |device: &&MappedDevice| {
        device.device == number || label.is_some_and(|label| device.label == label)
    };
    let mut open = vec![all.iter().find(is_it)?];
    let mut seen = BTreeSet::new();
    while let Some(device) = open.pop() {
        if device.encrypted {
            return Some(device);
        }
        if seen.insert(&device.name) {
            open.extend(
                all.iter()
                    .filter(|other| device.below.contains(&other.name)),
            );
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_on_an_encrypted_disk() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("dm-0/dev", "254:0\n"),
            ("dm-0/dm/name", "vda2_crypt\n"),
            ("dm-0/dm/uuid", "CRYPT-LUKS2-0123-vda2_crypt\n"),
            ("dm-1/dev", "254:1\n"),
            ("dm-1/dm/name", "vg-root\n"),
            ("dm-1/dm/uuid", "LVM-abc\n"),
            ("dm-1/slaves/dm-0/dm/name", "vda2_crypt\n"),
            ("dm-2/dev", "254:2\n"),
            ("dm-2/dm/name", "vg-plain\n"),
            ("dm-2/dm/uuid", "CRYPT-VERITY-0123-vg-plain\n"),
            ("dm-2/slaves/vdb/dev", "8:0\n"),
            ("vda/dev", "8:16\n"),
        ] {
            let path = dir.path().join("sys/class/block").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let all = read(&Root::at(dir.path())).unwrap();
        assert_eq!(all.len(), 3);
        let of = |number, source| encryption(&all, number, source).map(|device| &*device.label);
        assert_eq!(of((254, 1), ""), Some("vda2_crypt"));
        assert_eq!(of((254, 0), ""), Some("vda2_crypt"));
        assert_eq!(of((0, 33), "/dev/mapper/vg-root"), Some("vda2_crypt"));
        assert_eq!(of((254, 2), ""), None);
        assert_eq!(of((8, 16), "/dev/vda"), None);
    }

    #[test]
    fn a_ring_has_an_end() {
        let ring = |name: &str, other: &str, minor| MappedDevice {
            name: name.to_owned(),
            label: name.to_owned(),
            device: (254, minor),
            encrypted: false,
            below: vec![other.to_owned()],
        };
        let all = [ring("dm-0", "dm-1", 0), ring("dm-1", "dm-0", 1)];
        assert_eq!(encryption(&all, (254, 0), ""), None);
    }
}
