//! File systems that boot loaders read from and that are not mounted.
//!
//! As root they are mounted for this process alone, read-only and without recovery
//! ([`crate::sys::mount`]), where the machine would have them: /etc/fstab says it, else the
//! Discoverable Partitions Specification. These are what /etc/fstab has for /boot and the EFI
//! system partition, the EFI system partition that the boot loader was started from, and the
//! extended boot loader partition on its disk: systemd-boot reads no others. Where it is not
//! known which one that was, the only one on the disk of the root file system is taken, and
//! none of several. Those that are not mounted are named.

use std::collections::BTreeSet;
use std::io;

use nix::errno::Errno;

use super::devices::{self, Meant};
use super::partitions::{self, Kind, Partition};
use super::variables::Variables;
use super::volumes::Volumes;
use crate::entries::Problem;
use crate::host::inside;
use crate::host::{HostError, Root, fstab};
use crate::sys::mount::{Device, PrivateMounts};

/// Where partitions that boot loaders read are mounted, outer directories first.
const POINTS: [&str; 3] = ["/efi", "/boot", "/boot/efi"];
/// Mount points whose disks boot loaders read from. With ostree the disk's file system is
/// not the root file system.
const OWN: [&str; 3] = ["/", "/sysroot", "/boot"];
/// Why a partition is not one of those that the boot loader reads.
const OTHER: &str = "the boot loader was started from another partition";

/// A partition that this process mounted for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnMount {
    /// Its device node.
    pub device: String,
    /// The directory where this process, and no other, sees it.
    pub point: String,
}

/// A file system that is not mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unmounted {
    /// The kernel's name of its device; `None`: there is no such device.
    name: Option<String>,
    /// How people know it.
    shown: String,
    /// What it is, and that it is not mounted.
    what: String,
    /// Where it may be mounted, the best first.
    points: Vec<&'static str>,
    by_fstab: bool,
    /// It is one that is mounted, if that can be done.
    is_wanted: bool,
    /// The default may be among its entries.
    pub(super) decides: bool,
    /// The same, where systemd-boot makes the choice.
    pub(super) decides_for_systemd_boot: bool,
    /// Why it could not be mounted, or is not.
    why: Option<String>,
}

impl Unmounted {
    pub(super) fn problem(&self) -> (String, Problem) {
        let why = self.why.iter().map(|why| format!(" ({why})"));
        let what = format!(
            "{}: its entries are not seen{}",
            self.what,
            why.collect::<String>()
        );
        (self.shown.clone(), Problem::NotSeen(what))
    }

    /// Mounts it.
    fn mount(&self, private: &PrivateMounts, volumes: &Volumes<'_>) -> Result<OwnMount, String> {
        let root = volumes.root;
        let name = self.name.as_deref().ok_or("there is no such device")?;
        let numbers = partitions::numbers(root, name).ok_or("there is no such device")?;
        let node = partitions::node(root, name);
        let device = Device::open(&node, numbers).map_err(|error| said("opening it", &error))?;
        let kind = device.file_system();
        let kind = kind.map_err(|error| said("reading it", &error))?;
        let kind = kind.ok_or("its file system is none of vfat, ext4 and xfs")?;
        let mut points = self.points.iter();
        let point = points.find(|point| is_free(volumes, point, self.by_fstab));
        let point = point.ok_or_else(|| {
            let empty = if self.by_fstab { "" } else { "empty " };
            let names = self.points.join(" or ");
            format!("there is no {empty}directory {names} to mount it on")
        })?;
        let added = private.add(&device, kind, &root.path(point));
        added.map_err(|error| said(&format!("mounting it on {point}"), &error))?;
        Ok(OwnMount {
            device: node.to_string_lossy().into_owned(),
            point: (*point).to_owned(),
        })
    }
}

/// What failed, and why.
fn said(what: &str, error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{what}: {}", Errno::from_raw(number).desc()),
        None => format!("{what}: {error}"),
    }
}

/// Whether a file system may be mounted on `point`: a directory that is no link, on which
/// nothing is mounted. What /etc/fstab does not name for it must be empty as well.
fn is_free(volumes: &Volumes<'_>, point: &str, by_fstab: bool) -> bool {
    let Some(place) = volumes.place(point).filter(|place| !place.path.is_empty()) else {
        return false;
    };
    let is_directory = volumes.kind(&place).ok() == Some(inside::Kind::Directory);
    let is_itself = volumes.real_path(&place) == point;
    let is_empty = || volumes.list(&place).is_ok_and(|names| names.is_empty());
    is_directory && is_itself && (by_fstab || is_empty())
}

/// What there is to read after as much as possible was mounted.
pub(super) struct Rest<'a> {
    /// The mounted file systems.
    pub(super) volumes: Volumes<'a>,
    /// Directories that hold what systemd-boot reads, the EFI system partition that it was
    /// started from first.
    pub(super) bases: Vec<String>,
    /// What this process mounted, and the list of mounts that has it.
    pub(super) own: Vec<OwnMount>,
    pub(super) private: Option<PrivateMounts>,
    pub(super) unmounted: Vec<Unmounted>,
    /// What is mounted and not read.
    pub(super) left_out: Vec<(String, Problem)>,
}

/// Mounts for this process what is not mounted. Without privilege, and for a captured
/// machine, nothing is.
pub(super) fn mount<'a>(
    volumes: Volumes<'a>,
    variables: &Variables,
) -> Result<Rest<'a>, HostError> {
    let root = volumes.root;
    let disks = Disks::of(&volumes, variables);
    let unmounted = disks.unmounted(&volumes, &fstab::read(root)?);
    let mut rest = Rest {
        volumes,
        bases: Vec::new(),
        own: Vec::new(),
        private: None,
        unmounted: Vec::new(),
        left_out: Vec::new(),
    };
    let may = root.is_system() && nix::unistd::geteuid().is_root();
    if may && unmounted.iter().any(|one| one.is_wanted) {
        rest.mount(root, unmounted)?;
    } else {
        rest.unmounted = unmounted;
    }
    (rest.bases, rest.left_out) = disks.bases(&rest.volumes);
    Ok(rest)
}

impl<'a> Rest<'a> {
    fn mount(&mut self, root: &'a Root, unmounted: Vec<Unmounted>) -> Result<(), HostError> {
        let private = PrivateMounts::new().map_err(|error| said("mounting it", &error));
        for mut one in unmounted {
            if one.is_wanted {
                let private = private.as_ref().map_err(Clone::clone);
                match private.and_then(|private| one.mount(private, &self.volumes)) {
                    Ok(own) => {
                        self.own.push(own);
                        self.volumes = Volumes::read(root)?;
                        continue;
                    }
                    Err(why) => one.why = Some(why),
                }
            }
            self.unmounted.push(one);
        }
        self.private = private.ok().filter(|_| !self.own.is_empty());
        Ok(())
    }
}

/// The disks that boot loaders read from, and what is on them.
struct Disks {
    own: BTreeSet<String>,
    /// The partitions for boot loaders, on other disks as well.
    partitions: Vec<Partition>,
    /// The GUID of the partition that the boot loader was started from, if it said so.
    guid: Option<String>,
    /// That partition. [`Meant::None`]: nothing tells.
    started: Meant,
}

impl Disks {
    fn of(volumes: &Volumes<'_>, variables: &Variables) -> Self {
        let root = volumes.root;
        let mut own = BTreeSet::new();
        for name in OWN.iter().filter_map(|point| volumes.device_at(point)) {
            own.extend(partitions::disks(root, &name));
        }
        let guid = variables.partition.clone();
        let mut started = match &guid {
            Some(guid) => devices::of_guid(volumes, guid, &own),
            None => Meant::None,
        };
        if guid.is_some() && started == Meant::None && devices::has_links(volumes) {
            started = Meant::Unknown("there is no such partition");
        }
        if let Some(name) = started.device() {
            own.extend(partitions::disks(root, name));
        }
        Self {
            partitions: partitions::for_boot_loaders(root, &own),
            own,
            guid,
            started,
        }
    }

    /// What is not mounted: first what /etc/fstab names, outer directories first.
    fn unmounted(&self, volumes: &Volumes<'_>, fstab: &[fstab::Line]) -> Vec<Unmounted> {
        let mut found: Vec<Unmounted> = Vec::new();
        for point in POINTS {
            let line = fstab.iter().find(|line| line.point == point);
            found.extend(line.and_then(|line| self.by_fstab(volumes, line, point)));
        }
        // The EFI system partition goes where the other one leaves it a place.
        for kind in [Kind::ExtendedBootLoader, Kind::EfiSystem] {
            let read = self.read_by_boot_loader(volumes, kind);
            let of_kind = || self.partitions.iter().filter(|one| one.kind == kind);
            let is_named = |one: &Partition, found: &[Unmounted]| {
                let mut names = found.iter().map(|known| known.name.as_ref());
                names.any(|name| name == Some(&one.name))
            };
            let is_settled =
                |one: &Partition| volumes.is_mounted(one.numbers) || is_named(one, &found);
            let is_open = !of_kind().any(|one| one.is_on_own_disk && is_settled(one));
            let left = of_kind().filter(|one| !is_settled(one)).cloned();
            let left: Vec<Partition> = left.collect();
            found.extend(left.into_iter().map(|one| by_type(one, &read, is_open)));
        }
        if let (Meant::Unknown(why), Some(guid)) = (&self.started, &self.guid) {
            found.push(Unmounted {
                name: None,
                shown: format!("PARTUUID={guid}"),
                what: "the partition that the boot loader was started from".to_owned(),
                points: Vec::new(),
                by_fstab: false,
                is_wanted: false,
                decides: false,
                decides_for_systemd_boot: true,
                why: Some((*why).to_owned()),
            });
        }
        found
    }

    /// The partition of `kind` that the boot loader reads. systemd-boot takes the first
    /// extended boot loader partition in the table of its own disk.
    fn read_by_boot_loader(&self, volumes: &Volumes<'_>, kind: Kind) -> Read {
        let of_kind = self.partitions.iter().filter(|one| one.kind == kind);
        let Some(started) = self.started.device() else {
            let mut own = of_kind.filter(|one| one.is_on_own_disk);
            return match (own.next(), own.next()) {
                (Some(one), None) => Read::One(one.name.clone()),
                _ => Read::Unknown,
            };
        };
        if kind == Kind::EfiSystem {
            return Read::One(started.to_owned());
        }
        let disks = partitions::disks(volumes.root, started);
        let on_disk =
            |one: &&Partition| !partitions::disks(volumes.root, &one.name).is_disjoint(&disks);
        let first = of_kind.filter(on_disk).min_by_key(|one| one.number);
        first.map_or(Read::None, |one| Read::One(one.name.clone()))
    }

    /// Whether `name` is an EFI system partition that the boot loader was not started from.
    fn is_other(&self, name: &str) -> bool {
        let is_esp = |one: &Partition| one.name == name && one.kind == Kind::EfiSystem;
        let started = self.started.device();
        started.is_some_and(|started| started != name) && self.partitions.iter().any(is_esp)
    }

    fn by_fstab(
        &self,
        volumes: &Volumes<'_>,
        line: &fstab::Line,
        point: &'static str,
    ) -> Option<Unmounted> {
        let is_device = match &line.source {
            fstab::Source::Path(path) => path.starts_with("/dev/"),
            _ => true,
        };
        if !is_device || volumes.is_mount_point(point) {
            return None;
        }
        let meant = devices::of_fstab(volumes, &line.source, &self.own);
        let name = meant.device().map(str::to_owned);
        let numbers = name.as_deref();
        let numbers = numbers.and_then(|name| partitions::numbers(volumes.root, name));
        if numbers.is_some_and(|numbers| volumes.is_mounted(numbers)) {
            return None;
        }
        let is_other = name.as_deref().is_some_and(|name| self.is_other(name));
        let why = match meant {
            Meant::Unknown(why) => Some(why),
            _ => is_other.then_some(OTHER),
        };
        Some(Unmounted {
            is_wanted: numbers.is_some() && !is_other,
            name,
            shown: line.source.to_string(),
            what: format!("the partition of {point} in /etc/fstab that is not mounted"),
            points: vec![point],
            by_fstab: true,
            decides: point == "/boot" && !is_other,
            decides_for_systemd_boot: !is_other,
            why: why.map(str::to_owned),
        })
    }

    /// The directories that systemd-boot's files are in, and what is mounted there of another
    /// partition.
    fn bases(&self, volumes: &Volumes<'_>) -> (Vec<String>, Vec<(String, Problem)>) {
        let mut bases: Vec<String> = Vec::new();
        let (mut left_out, mut others) = (Vec::new(), Vec::new());
        let started = self.started.device();
        let started = started.and_then(|name| partitions::numbers(volumes.root, name));
        let own = started.and_then(|numbers| volumes.point_of(numbers));
        bases.extend(own.map(str::to_owned));
        for base in POINTS {
            let numbers = volumes.numbers_at(base);
            let mut partitions = self.partitions.iter();
            let other =
                partitions.find(|one| Some(one.numbers) == numbers && self.is_other(&one.name));
            if other.is_some() {
                // /boot/efi may be a directory of what is mounted on /boot.
                if !others.contains(&numbers) {
                    let what = "an EFI system partition that the boot loader was not started from: its entries are left out";
                    left_out.push((base.to_owned(), Problem::NotSeen(what.to_owned())));
                    others.push(numbers);
                }
            } else if own != Some(base) {
                bases.push(base.to_owned());
            }
        }
        (bases, left_out)
    }
}

/// The partition of a kind that the boot loader reads.
enum Read {
    One(String),
    /// It reads none of that kind.
    None,
    /// It is not known which one.
    Unknown,
}

/// `is_open`: none of its kind is mounted or named by /etc/fstab.
fn by_type(partition: Partition, read: &Read, is_open: bool) -> Unmounted {
    let points = match partition.kind {
        Kind::ExtendedBootLoader => vec!["/boot"],
        Kind::EfiSystem => vec!["/efi", "/boot/efi", "/boot"],
    };
    let own = partition.is_on_own_disk;
    let (is_wanted, decides, why) = match read {
        Read::One(name) if *name == partition.name => (own, own, None),
        Read::Unknown if own => (
            false,
            is_open,
            Some("there are several, and nothing tells which one the boot loader was started from"),
        ),
        Read::One(_) | Read::None if own => (false, false, Some(OTHER)),
        _ => (false, false, None),
    };
    Unmounted {
        shown: format!("/dev/{}", partition.name.replace('!', "/")),
        name: Some(partition.name),
        what: format!("{} that is not mounted", partition.kind.name()),
        points,
        by_fstab: false,
        is_wanted,
        decides: false,
        decides_for_systemd_boot: decides,
        why: why.map(str::to_owned),
    }
}

#[cfg(test)]
#[path = "unmounted_tests.rs"]
mod tests;
