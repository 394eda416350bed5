//! extlinux and syslinux: the first configuration in the directories where they look.

use super::volumes::{Place, Volumes, why};
use super::{Entry, Menu, Source};
use crate::entries::extlinux::{self, Label};
use crate::entries::grub::Fs;
use crate::entries::{Part, Problem, note};

const CONFIGS: [&str; 8] = [
    "/boot/extlinux/extlinux.conf",
    "/boot/extlinux.conf",
    "/boot/syslinux/extlinux.conf",
    "/boot/syslinux/syslinux.cfg",
    "/boot/syslinux.cfg",
    "/extlinux/extlinux.conf",
    "/boot/efi/EFI/syslinux/syslinux.cfg",
    "/efi/EFI/syslinux/syslinux.cfg",
];

pub(super) fn menu(volumes: &Volumes<'_>) -> Menu {
    let mut menu = Menu::default();
    for path in CONFIGS {
        let Some(place) = volumes.place(path) else {
            continue;
        };
        match volumes.read_file(&place) {
            Ok(bytes) => {
                read(volumes, &place, path, &bytes, &mut menu);
                break;
            }
            Err(error) => menu.note_unreadable(path, &error),
        }
        // extlinux would read this file, and no other.
        if menu.is_unread() {
            break;
        }
    }
    menu
}

fn read(volumes: &Volumes<'_>, place: &Place, path: &str, bytes: &[u8], menu: &mut Menu) {
    let files = Files {
        volumes,
        own: place.volume,
        directory: parent(&volumes.own_path(place)).to_owned(),
    };
    let config = extlinux::parse(bytes, &mut |name| files.read(name));
    for problem in config.problems {
        menu.note(path, problem);
    }
    menu.default = config.default;
    let labels = config.labels.into_iter();
    menu.entries = labels.map(|label| files.entry(label, path)).collect();
}

/// The files that a configuration names: those that are not absolute lie in its directory.
struct Files<'a> {
    volumes: &'a Volumes<'a>,
    own: usize,
    directory: String,
}

impl Files<'_> {
    fn place(&self, name: &str) -> Result<Place, Problem> {
        let path = match name.starts_with('/') {
            true => name.to_owned(),
            false => format!("{}/{name}", self.directory),
        };
        self.volumes.resolve(self.own, &Fs::Config, &path)
    }

    /// A file that is included. What is in one that is there and cannot be read is not known.
    fn read(&self, name: &str) -> Result<Vec<u8>, Problem> {
        let place = self.place(name)?;
        let read = self.volumes.read_file(&place);
        read.map_err(|error| Problem::Unread {
            path: self.volumes.path(&place),
            why: why(&error),
        })
    }

    fn entry(&self, label: Label, file: &str) -> Entry {
        let mut entry = Entry::new(&label.name, Source::Extlinux, file);
        entry.title = label.title;
        entry.problems = label.problems;
        let mut path = |part: Part, name: &String| {
            let file = self.place(name).and_then(|place| self.volumes.file(&place));
            file.unwrap_or_else(|problem| {
                note(&mut entry.problems, part.fault(problem));
                name.clone()
            })
        };
        let kernel = label.kernel.as_ref();
        entry.kernel = kernel.map(|name| path(Part::Kernel, name));
        let initrds = label.initrds.iter();
        entry.initrds = initrds.map(|name| path(Part::Initrd, name)).collect();
        let devicetree = label.devicetree.as_ref();
        entry.devicetree = devicetree.map(|name| path(Part::Devicetree, name));
        entry.cmdline = entry.kernel.is_some().then_some(label.cmdline);
        entry
    }
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}
