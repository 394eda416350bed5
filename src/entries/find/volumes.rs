//! The mounted file systems, and which one a boot loader means.
//!
//! A boot loader names a file by its path from the root of a file system. Here the same
//! file has the path of the mount point before it; of a subvolume that is mounted, the path
//! of the subvolume goes away.

use std::cell::OnceCell;
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

/// A file as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The number of the file system.
    pub(super) volume: usize,
    /// The path from the mount point.
    pub(super) path: String,
}

/// A mounted file system.
struct Volume {
    mount: Mount,
    inside: OnceCell<Option<Rc<Inside>>>,
}

/// The mounted file systems.
pub(super) struct Volumes<'a> {
    pub(super) root: &'a Root,
    volumes: Vec<Volume>,
    /// A captured machine has no list of mounts.
    is_guessed: bool,
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
        let mounts = all(root)?.filter(|mounts| !mounts.is_empty());
        let is_guessed = mounts.is_none();
        let mounts = mounts.unwrap_or_else(|| LIKELY.iter().map(guessed).collect());
        let mut volumes: Vec<Volume> = Vec::new();
        for mount in mounts {
            // Of several mounts on one directory the last one is seen.
            volumes.retain(|volume| volume.mount.point != mount.point);
            volumes.push(Volume {
                mount,
                inside: OnceCell::new(),
            });
        }
        Ok(Self {
            root,
            volumes,
            is_guessed,
        })
    }

    /// Whether the device with these numbers is mounted.
    pub(super) fn is_mounted(&self, device: (u32, u32)) -> bool {
        let mut volumes = self.volumes.iter();
        volumes.any(|volume| volume.mount.device == device)
    }

    /// Where the root of the file system on the device with these numbers is mounted.
    pub(super) fn point_of(&self, device: (u32, u32)) -> Option<&str> {
        let is_it = |volume: &&Volume| volume.mount.device == device && volume.mount.root == "/";
        let volume = self.volumes.iter().find(is_it)?;
        Some(&volume.mount.point)
    }

    /// The numbers of the device of the file system that `path` of the machine is on.
    pub(super) fn numbers_at(&self, path: &str) -> Option<(u32, u32)> {
        let volume = self.volumes.get(self.place(path)?.volume)?;
        Some(volume.mount.device)
    }

    /// Whether a file system is mounted on `point`.
    pub(super) fn is_mount_point(&self, point: &str) -> bool {
        let mut volumes = self.volumes.iter();
        volumes.any(|volume| volume.mount.point == point)
    }

    /// The device that is mounted on `point`.
    pub(super) fn device_at(&self, point: &str) -> Option<String> {
        let mut volumes = self.volumes.iter();
        let mount = &volumes.find(|volume| volume.mount.point == point)?.mount;
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
        let mut best: Option<(usize, &str)> = None;
        for (number, volume) in self.volumes.iter().enumerate() {
            let Some(rest) = below(path, &volume.mount.point) else {
                continue;
            };
            if best.is_none_or(|(_, shortest)| rest.len() < shortest.len()) {
                best = Some((number, rest));
            }
        }
        let (volume, path) = best?;
        let path = path.to_owned();
        Some(Place { volume, path })
    }

    /// Where a file system is mounted.
    pub(super) fn point(&self, number: usize) -> &str {
        let volume = self.volumes.get(number);
        volume.map_or("", |volume| &volume.mount.point)
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
            .map_or("", |volume| &volume.mount.root);
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
        let numbers = partitions::numbers(self.root, &device);
        let members = self.members(&device);
        // The root may be mounted as /dev/root, and a file system of several devices by
        // another one of them.
        let of_device = |(_, volume): &(usize, &Volume)| {
            let name = self.name(&volume.mount.source);
            name == device || members.contains(&name) || numbers == Some(volume.mount.device)
        };
        let found = self.volumes.iter().enumerate().filter(of_device);
        let found: Vec<usize> = found.map(|(number, _)| number).collect();
        if found.is_empty() { Err(()) } else { Ok(found) }
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
        let points = LIKELY.iter();
        let numbers = points.filter_map(|point| {
            let mut volumes = self.volumes.iter();
            volumes.position(|volume| volume.mount.point == **point)
        });
        let others = numbers.filter(|number| *number != own);
        std::iter::once(own).chain(others).collect()
    }

    /// Where a path from the root of the file system may be below its mount point: without
    /// the directory that is mounted, else as it is (btrfs_relative_path).
    fn candidates(&self, number: usize, path: &str) -> Vec<Place> {
        let Some(volume) = self.volumes.get(number) else {
            return Vec::new();
        };
        let place = |path: &str| Place {
            volume: number,
            path: path.to_owned(),
        };
        let rest = below(path, &volume.mount.root);
        let mut places: Vec<Place> = rest.into_iter().map(place).collect();
        if rest != Some(path) {
            places.push(place(path));
        }
        places
    }

    /// The file `path` on the file system `on`, as a configuration on the file system `own`
    /// names it.
    pub(super) fn resolve(&self, own: usize, on: &Fs, path: &str) -> Result<Place, Problem> {
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

    pub(super) fn inside(&self, number: usize) -> io::Result<Rc<Inside>> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let volume = self.volumes.get(number).ok_or_else(missing)?;
        let open = || self.root.inside(&volume.mount.point).ok().map(Rc::new);
        volume.inside.get_or_init(open).clone().ok_or_else(missing)
    }
}

/// The list of mounts. A directory that is mounted when it is looked at is looked at first.
fn all(root: &Root) -> Result<Option<Vec<Mount>>, HostError> {
    let mounts = mounts::all(root)?;
    let waiting = |mount: &&Mount| mount.kind == "autofs" && LIKELY.contains(&&*mount.point);
    let points = mounts.iter().flatten().filter(waiting);
    let points: Vec<String> = points.map(|mount| mount.point.clone()).collect();
    if points.is_empty() || !root.is_system() {
        return Ok(mounts);
    }
    for point in points {
        // Whether it works shows in the list.
        let _ = root.list(&point);
    }
    mounts::all(root)
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
mod tests {
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

    #[test]
    fn labels_as_udev_writes_them() {
        assert_eq!(escaped("ROOT-1"), "ROOT-1");
        assert_eq!(escaped("a b/c"), "a\\x20b\\x2fc");
    }
}
