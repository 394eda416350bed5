//! The mounted file systems, and which one a boot loader means.
//!
//! A boot loader names a file by its path from the root of a file system. Here the same
//! file has the path of the mount point before it; of a subvolume that is mounted, the path
//! of the subvolume goes away.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;

use super::keep::{Kept, Parts};
use super::partitions;
use crate::entries::grub::Fs;
use crate::entries::{MAX_FILE, Problem};
use crate::host::inside::{Inside, Kind};
use crate::host::mounts::{self, Mount, below};
use crate::host::{HostError, Root};

/// Directories that are often file systems of their own. They stand for the list of mounts
/// where a captured machine has none.
const LIKELY: [&str; 4] = ["/", "/boot", "/boot/efi", "/efi"];
/// File systems that a boot loader could read files from have a directory with the links of
/// all partitions.
pub(super) const BY_UUID: &str = "/dev/disk/by-uuid";
pub(super) const BY_LABEL: &str = "/dev/disk/by-label";
/// The directory with the btrfs that are mounted, by their UUIDs.
const BTRFS: &str = "/sys/fs/btrfs";
/// Most mounts of one device in which a file is looked for.
const MAX_MOUNTS: usize = 16;
/// Most directories that are kept open.
const MAX_OPEN: usize = 32;

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of the file system.
    pub(super) volume: usize,
    /// The path from the mount point.
    pub(super) path: String,
}

/// The mounted file systems.
pub(super) struct Volumes<'a> {
    pub(super) root: &'a Root,
    volumes: Vec<Mount>,
    /// The number of each in `volumes`, by its mount point without a slash at the end.
    points: BTreeMap<String, usize>,
    /// A captured machine has no list of mounts.
    is_guessed: bool,
    /// The first line of the list that is no mount.
    pub(super) malformed: Option<String>,
    /// The directories that were looked into last, by their numbers.
    open: RefCell<VecDeque<(usize, Rc<Inside>)>>,
    /// The mounts of each device that was asked for.
    of_devices: RefCell<BTreeMap<String, Rc<OfDevice>>>,
}

/// The mounts of one device.
#[derive(Default)]
struct OfDevice {
    all: BTreeSet<usize>,
    /// Those that are looked into: where most of the device is mounted, first.
    first: Vec<usize>,
}

impl<'a> Volumes<'a> {
    pub(super) fn read(root: &'a Root) -> Result<Self, HostError> {
        root.is_there()?;
        let guessed = |point: &&str| Mount {
            device: (0, 0),
            root: "/".to_owned(),
            point: (*point).to_owned(),
            source: String::new(),
            kind: String::new(),
            writable: false,
        };
        let (mut volumes, malformed) = all(root)?;
        let is_guessed = volumes.is_empty();
        if is_guessed {
            volumes = LIKELY.iter().map(guessed).collect();
        }
        // Of several mounts on one directory the last one is seen.
        let key = |mount: &Mount| mount.point.trim_end_matches('/').to_owned();
        let mut seen = BTreeSet::new();
        volumes.reverse();
        volumes.retain(|mount| seen.insert(key(mount)));
        volumes.reverse();
        let numbered = volumes.iter().enumerate();
        let points = numbered.map(|(number, mount)| (key(mount), number));
        Ok(Self {
            root,
            points: points.collect(),
            volumes,
            is_guessed,
            malformed,
            open: RefCell::default(),
            of_devices: RefCell::default(),
        })
    }

    /// Whether the device with these numbers is mounted.
    pub(super) fn is_mounted(&self, device: (u32, u32)) -> bool {
        let mut volumes = self.volumes.iter();
        volumes.any(|mount| mount.device == device)
    }

    /// Where the root of the file system on the device with these numbers is mounted.
    pub(super) fn point_of(&self, device: (u32, u32)) -> Option<&str> {
        let is_it = |mount: &&Mount| mount.device == device && mount.root == "/";
        let mount = self.volumes.iter().find(is_it)?;
        Some(&mount.point)
    }

    /// The numbers of the device of the file system that `path` of the machine is on.
    pub(super) fn numbers_at(&self, path: &str) -> Option<(u32, u32)> {
        let mount = self.volumes.get(self.place(path)?.volume)?;
        Some(mount.device)
    }

    /// Whether a file system is mounted on `point`.
    pub(super) fn is_mount_point(&self, point: &str) -> bool {
        self.number_at(point).is_some()
    }

    /// The number of the file system that is mounted on `point`.
    fn number_at(&self, point: &str) -> Option<usize> {
        self.points.get(point.trim_end_matches('/')).copied()
    }

    /// The device that is mounted on `point`.
    pub(super) fn device_at(&self, point: &str) -> Option<String> {
        let mount = self.volumes.get(self.number_at(point)?)?;
        let name = partitions::of_numbers(self.root, mount.device);
        // A btrfs has numbers that no device has.
        let name = name.unwrap_or_else(|| self.name(&mount.source));
        (!name.is_empty()).then_some(name)
    }

    /// The last name of what a symbolic link says.
    pub(super) fn linked(&self, link: &str) -> Option<String> {
        let target = self.link(link).ok()?;
        Some(last(&target).to_owned())
    }

    /// Where the path `path` of the machine is: the file system with the longest mount point
    /// before it.
    pub(super) fn place(&self, path: &str) -> Option<Place> {
        let ends = path.rmatch_indices('/').map(|(at, _)| at);
        let splits = std::iter::once(path.len()).chain(ends);
        let mut splits = splits.filter_map(|at| path.split_at_checked(at));
        splits.find_map(|(point, rest)| {
            Some(Place {
                volume: *self.points.get(point)?,
                path: rest.to_owned(),
            })
        })
    }

    /// Where a file system is mounted.
    pub(super) fn point(&self, number: usize) -> &str {
        let mount = self.volumes.get(number);
        mount.map_or("", |mount| &mount.point)
    }

    /// The path on the machine.
    pub(super) fn path(&self, place: &Place) -> String {
        joined(self.point(place.volume), &place.path)
    }

    /// The path from the root of the file system, as the boot loader has it.
    pub(super) fn own_path(&self, place: &Place) -> String {
        let root = self
            .volumes
            .get(place.volume)
            .map_or("", |mount| &mount.root);
        joined(root, &place.path)
    }

    /// The file systems that `on` may mean, for a configuration on `own`. The first one that
    /// has a file is meant.
    ///
    /// # Errors
    /// When it is none of the mounted ones.
    fn meant(&self, own: usize, on: &Fs) -> Result<Vec<usize>, ()> {
        let device = match on {
            Fs::Config if !self.is_guessed => return Ok(vec![own]),
            Fs::Uuid(uuid) => self.device(&format!("{BY_UUID}/{uuid}"), BY_UUID)?,
            Fs::Label(label) => self.device(&format!("{BY_LABEL}/{}", escaped(label)), BY_LABEL)?,
            Fs::Holding(file) => {
                let holds = |number: &usize| {
                    let mut places = self.candidates(*number, file).into_iter();
                    places.any(|place| self.kind(&place).is_ok())
                };
                return self
                    .likely(own)
                    .into_iter()
                    .find(holds)
                    .map(|number| vec![number])
                    .ok_or(());
            }
            Fs::Config | Fs::Device(_) => None,
        };
        let Some(device) = device else {
            return Ok(self.likely(own));
        };
        let mounts = self.mounts_of(&device);
        let own = mounts.all.get(&own).copied();
        let others = mounts.first.iter().copied();
        let others = others.filter(|number| Some(*number) != own);
        let found = own.into_iter().chain(others).take(MAX_MOUNTS);
        let found: Vec<usize> = found.collect();
        if found.is_empty() { Err(()) } else { Ok(found) }
    }

    /// The mounts of the device `device`, which are looked for once.
    fn mounts_of(&self, device: &str) -> Rc<OfDevice> {
        if let Some(known) = self.of_devices.borrow().get(device) {
            return Rc::clone(known);
        }
        let numbers = partitions::numbers(self.root, device);
        let members = self.members(device);
        // The root may be mounted as /dev/root, and a file system of several devices by
        // another one of them.
        let of_device = |(_, mount): &(usize, &Mount)| {
            let name = self.name(&mount.source);
            name == device || members.contains(&name) || numbers == Some(mount.device)
        };
        let found = self.volumes.iter().enumerate().filter(of_device);
        let mut first: Vec<(usize, usize)> = found
            .map(|(number, mount)| (mount.root.len(), number))
            .collect();
        first.sort_unstable();
        let all = first.iter().map(|(_, number)| *number).collect();
        first.truncate(MAX_MOUNTS);
        let first = first.into_iter().map(|(_, number)| number).collect();
        let mounts = Rc::new(OfDevice { all, first });
        let mut known = self.of_devices.borrow_mut();
        known.insert(device.to_owned(), Rc::clone(&mounts));
        mounts
    }

    /// The mounted data set of ZFS that GRUB names as `/DATASET@/rest`, and the rest. For the
    /// UUID of a pool GRUB has its GUID, which udev writes as a decimal number.
    fn on_zfs(&self, on: &Fs, path: &str) -> Option<Place> {
        let (set, rest) = path.strip_prefix('/')?.split_once("@/")?;
        let is_set = |mount: &Mount| {
            let (_, own) = mount.source.split_once('/').unwrap_or_default();
            mount.kind == "zfs" && mount.root == "/" && own == set
        };
        // One that is mounted twice is the same.
        let mut seen = BTreeSet::new();
        let sets = self.volumes.iter().enumerate();
        let sets: Vec<(usize, &Mount)> = sets
            .filter(|(_, mount)| is_set(mount) && seen.insert(&mount.source))
            .collect();
        if sets.is_empty() {
            return None;
        }
        let guid = match on {
            Fs::Uuid(uuid) => u64::from_str_radix(uuid, 16).ok(),
            _ => None,
        };
        let device = guid.and_then(|guid| self.linked(&format!("{BY_UUID}/{guid}")));
        let (mut same, mut unknown) = (Vec::new(), Vec::new());
        for (number, mount) in sets {
            let pool = mount.source.split('/').next().unwrap_or_default();
            let of_pool = self.linked(&format!("{BY_LABEL}/{}", escaped(pool)));
            match (&device, of_pool) {
                (Some(device), Some(of_pool)) if *device == of_pool => same.push(number),
                (Some(_), Some(_)) => {}
                (None, _) | (_, None) => unknown.push(number),
            }
        }
        // Of two pools that may have it, it is not known which one is meant.
        let ((&[volume], _) | (&[], &[volume])) = (&*same, &*unknown) else {
            return None;
        };
        let path = format!("/{rest}");
        Some(Place { volume, path })
    }

    /// The name of the device that a link names. `Ok(None)`: the machine has no such links.
    fn device(&self, link: &str, directory: &str) -> Result<Option<String>, ()> {
        match self.link(link) {
            Ok(target) => Ok(Some(last(&target).to_owned())),
            Err(_) => match self.root.list(directory) {
                Ok(Some(names)) if !names.is_empty() => Err(()),
                _ => Ok(None),
            },
        }
    }

    /// The devices of the btrfs that the device `name` belongs to; empty: it belongs to none.
    fn members(&self, name: &str) -> Vec<String> {
        let names = |path: &str| self.root.list_permitted(path).ok().flatten();
        let all = names(BTRFS).unwrap_or_default().into_iter();
        let mut devices = all.filter_map(|uuid| names(&format!("{BTRFS}/{uuid}/devices")));
        let own = devices.find(|devices| devices.iter().any(|device| device == name));
        own.unwrap_or_default()
    }

    /// The kernel's name of a device: a link of the device mapper leads to it.
    fn name(&self, source: &str) -> String {
        let mapped = source.starts_with("/dev/mapper/") || source.starts_with("/dev/disk/");
        let target = mapped.then(|| self.link(source).ok()).flatten();
        match target {
            Some(target) => last(&target).to_owned(),
            None => last(source).to_owned(),
        }
    }

    /// The file systems that boot files are likely to be on, `own` first.
    fn likely(&self, own: usize) -> Vec<usize> {
        let numbers = LIKELY.iter().filter_map(|point| self.number_at(point));
        let others = numbers.filter(|number| *number != own);
        std::iter::once(own).chain(others).collect()
    }

    /// Where a path from the root of the file system may be below its mount point: without
    /// the directory that is mounted, else as it is (btrfs_relative_path).
    fn candidates(&self, number: usize, path: &str) -> Vec<Place> {
        let Some(mount) = self.volumes.get(number) else {
            return Vec::new();
        };
        let place = |path: &str| Place {
            volume: number,
            path: path.to_owned(),
        };
        let rest = below(path, &mount.root);
        let mut places: Vec<Place> = rest.into_iter().map(place).collect();
        if rest != Some(path) {
            places.push(place(path));
        }
        places
    }

    /// The file `path` on the file system `on`, as a configuration on the file system `own`
    /// names it.
    pub(super) fn resolve(&self, own: usize, on: &Fs, path: &str) -> Result<Place, Problem> {
        if let Some(place) = self.on_zfs(on, path) {
            return self.first(std::iter::once(place));
        }
        let Ok(volumes) = self.meant(own, on) else {
            let (what, on) = (path.to_owned(), on.to_string());
            return Err(Problem::NotMounted { what, on });
        };
        let places = volumes
            .iter()
            .flat_map(|number| self.candidates(*number, path));
        self.first(places)
    }

    /// The first place where there is something.
    pub(super) fn first(&self, places: impl Iterator<Item = Place>) -> Result<Place, Problem> {
        let mut first = None;
        for place in places {
            match self.kind(&place) {
                Ok(_) => return Ok(place),
                Err(error) => first = first.or(Some((place, error))),
            }
        }
        let Some((place, error)) = first else {
            return Err(Problem::Other("it names no file".to_owned()));
        };
        let path = self.path(&place);
        let why = why(&error);
        Err(match (error.kind(), error.raw_os_error()) {
            (_, Some(libc::EXDEV)) => Problem::Escapes(path),
            (io::ErrorKind::NotFound | io::ErrorKind::NotADirectory, _) => {
                Problem::File { path, why }
            }
            _ => Problem::Unread { path, why },
        })
    }

    /// The path of a regular file on the machine, with all links followed.
    pub(super) fn file(&self, place: &Place) -> Result<String, Problem> {
        let path = || self.path(place);
        let failed = |error: io::Error| Problem::File {
            path: path(),
            why: why(&error),
        };
        match self.kind(place).map_err(failed)? {
            Kind::File => self
                .inside(place.volume)
                .and_then(|inside| inside.real_path(&place.path))
                .map_err(failed),
            Kind::Directory | Kind::Other => Err(Problem::File {
                path: path(),
                why: "it is no regular file".to_owned(),
            }),
        }
    }

    /// What a symbolic link of the machine says.
    pub(super) fn link(&self, path: &str) -> io::Result<String> {
        let place = self.place(path).ok_or(io::ErrorKind::NotFound)?;
        let target = self.inside(place.volume)?.link(&place.path)?;
        self.keep_link(&place, &target);
        Ok(target)
    }

    pub(super) fn kind(&self, place: &Place) -> io::Result<Kind> {
        let kind = self.inside(place.volume)?.kind(&place.path)?;
        match kind {
            Kind::File => self.keep(place, Kept::File(b"")),
            Kind::Directory => self.keep(place, Kept::Directory),
            Kind::Other => {}
        }
        Ok(kind)
    }

    /// At most [`MAX_FILE`] bytes of a file, and one more, which says that it is larger.
    pub(super) fn read_file(&self, place: &Place) -> io::Result<Vec<u8>> {
        self.read_start(place, MAX_FILE + 1)
    }

    /// At most `limit` bytes of a file.
    pub(super) fn read_start(&self, place: &Place, limit: usize) -> io::Result<Vec<u8>> {
        let bytes = self.inside(place.volume)?.read_start(&place.path, limit)?;
        self.keep(place, Kept::File(&bytes));
        Ok(bytes)
    }

    /// The path of what is there on the machine, with all links followed.
    pub(super) fn real_path(&self, place: &Place) -> String {
        let real = self
            .inside(place.volume)
            .and_then(|inside| inside.real_path(&place.path));
        real.unwrap_or_else(|_| self.path(place))
    }

    /// The file, to read parts of it.
    pub(super) fn parts(&self, place: &Place) -> io::Result<Parts<'_>> {
        let file = self.inside(place.volume)?.open_file(&place.path)?;
        Ok(Parts::new(self, place, file))
    }

    pub(super) fn list(&self, place: &Place) -> io::Result<Vec<String>> {
        let names = self.inside(place.volume)?.list(&place.path)?;
        self.keep(place, Kept::Directory);
        Ok(names)
    }

    /// The directory where a file system is mounted. Those that were used last stay open.
    pub(super) fn inside(&self, number: usize) -> io::Result<Rc<Inside>> {
        let mut open = self.open.borrow_mut();
        let known = open.iter().position(|(known, _)| *known == number);
        let used = match known.and_then(|at| open.remove(at)) {
            Some((_, inside)) => inside,
            None => Rc::new(self.opened(number)?),
        };
        open.truncate(MAX_OPEN - 1);
        open.push_front((number, Rc::clone(&used)));
        Ok(used)
    }

    fn opened(&self, number: usize) -> io::Result<Inside> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let mount = self.volumes.get(number).ok_or_else(missing)?;
        let opened = self.root.inside(&mount.point);
        opened.map_err(|error| match error.raw_os_error() {
            // That says nothing about the directory.
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => error,
            _ => missing(),
        })
    }
}

/// The list of mounts, and the first line of it that is none. A directory that is mounted when
/// it is looked at is looked at first.
fn all(root: &Root) -> Result<(Vec<Mount>, Option<String>), HostError> {
    let (mounts, malformed) = listed(root)?;
    let waiting = |mount: &&Mount| mount.kind == "autofs" && LIKELY.contains(&&*mount.point);
    let points = mounts.iter().filter(waiting);
    let points: Vec<String> = points.map(|mount| mount.point.clone()).collect();
    if points.is_empty() || !root.is_system() {
        return Ok((mounts, malformed));
    }
    for point in points {
        // Whether it works shows in the list.
        let _ = root.list(&point);
    }
    listed(root)
}

fn listed(root: &Root) -> Result<(Vec<Mount>, Option<String>), HostError> {
    let (mut mounts, mut malformed) = (Vec::new(), None);
    for line in mounts::each(root)?.unwrap_or_default() {
        match line {
            Ok(mount) => mounts.push(mount),
            Err(why) => malformed = malformed.or(Some(why)),
        }
    }
    Ok((mounts, malformed))
}

/// Why something failed, without the number of the error.
pub(super) fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "only root may read it".to_owned(),
        _ => match error.raw_os_error() {
            Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
            None => error.to_string(),
        },
    }
}

pub(super) fn joined(directory: &str, path: &str) -> String {
    format!(
        "{}/{}",
        directory.trim_end_matches('/'),
        path.trim_start_matches('/')
    )
}

pub(super) fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A label as udev writes it into the name of a link.
pub(super) fn escaped(label: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "#+-.:=@_".contains(c);
    let escape = |c: char| match plain(c) {
        true => c.to_string(),
        false => c
            .to_string()
            .bytes()
            .map(|byte| format!("\\x{byte:02x}"))
            .collect(),
    };
    label.chars().map(escape).collect()
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
