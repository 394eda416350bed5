//! Which device a GUID, a UUID or a label means.
//!
//! A copy of a disk has the same ones, and the link of udev leads to one of the two. So what
//! udev keeps of each device is asked, and the link only where that tells of none.

use std::collections::BTreeSet;

use super::partitions;
use super::volumes::{BY_LABEL, BY_UUID, Volumes, escaped, last};
use crate::host::fstab::Source;

/// The directory with the links of partitions by their GUIDs.
const BY_PARTUUID: &str = "/dev/disk/by-partuuid";

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meant {
    /// The device with this name of the kernel.
    Device(String),
    /// No device.
    None,
    /// It is not known which one, and why not.
    Unknown(&'static str),
}

impl Meant {
    pub(super) fn device(&self) -> Option<&str> {
        match self {
            Self::Device(name) => Some(name),
            Self::None | Self::Unknown(_) => None,
        }
    }
}

/// What /etc/fstab means. Of several devices the one on a disk of `own` counts.
pub(super) fn of_fstab(volumes: &Volumes<'_>, source: &Source, own: &BTreeSet<String>) -> Meant {
    match source {
        Source::Path(path) => {
            let named = || last(path).to_owned();
            Meant::Device(volumes.linked(path).unwrap_or_else(named))
        }
        Source::Uuid(uuid) => {
            let lower = uuid.to_ascii_lowercase();
            let links = [uuid, &lower].map(|uuid| format!("{BY_UUID}/{uuid}"));
            meant(volumes, own, "ID_FS_UUID", uuid, &links)
        }
        Source::Label(label) => {
            let label = escaped(label);
            let links = [format!("{BY_LABEL}/{label}")];
            meant(volumes, own, "ID_FS_LABEL_ENC", &label, &links)
        }
        Source::PartUuid(uuid) => of_guid(volumes, uuid, own),
        Source::PartLabel(label) => {
            let label = escaped(label);
            let links = [format!("/dev/disk/by-partlabel/{label}")];
            meant(volumes, own, "ID_PART_ENTRY_NAME", &label, &links)
        }
    }
}

/// The partition with this GUID. Of several the one on a disk of `own` counts.
pub(super) fn of_guid(volumes: &Volumes<'_>, guid: &str, own: &BTreeSet<String>) -> Meant {
    let guid = guid.to_ascii_lowercase();
    let is_guid = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    if !guid.bytes().all(is_guid) {
        return Meant::None;
    }
    let links = [format!("{BY_PARTUUID}/{guid}")];
    meant(volumes, own, "ID_PART_ENTRY_UUID", &guid, &links)
}

/// Whether the machine has links of partitions by their GUIDs.
pub(super) fn has_links(volumes: &Volumes<'_>) -> bool {
    let place = volumes.place(BY_PARTUUID);
    place.is_some_and(|place| volumes.list(&place).is_ok())
}

fn meant(
    volumes: &Volumes<'_>,
    own: &BTreeSet<String>,
    key: &str,
    value: &str,
    links: &[String],
) -> Meant {
    let root = volumes.root;
    let mut named = partitions::with_property(root, key, value);
    if named.is_empty() {
        named.extend(links.iter().find_map(|link| volumes.linked(link)));
    }
    if named.is_empty() {
        return Meant::None;
    }
    let is_own = |name: &String| !partitions::disks(root, name).is_disjoint(own);
    let may_be = |name: &String| {
        let numbers = partitions::numbers(root, name);
        let is_mounted = numbers.is_some_and(|numbers| volumes.is_mounted(numbers));
        is_mounted || !partitions::is_removable(root, name)
    };
    let on_own: Vec<String> = named.iter().filter(|name| is_own(name)).cloned().collect();
    let mut left = match on_own.is_empty() {
        true => named.into_iter().filter(may_be).collect(),
        false => on_own,
    };
    match (left.pop(), left.is_empty()) {
        (Some(name), true) => Meant::Device(name),
        (Some(_), false) => Meant::Unknown("several devices have this name"),
        (None, _) => Meant::Unknown("it is on a disk that can be taken out"),
    }
}
