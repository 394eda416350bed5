//! GRUB: the first grub.cfg in the directories where distributions have it.

use super::volumes::{Place, Volumes};
use super::{Entry, Menu, Source};
use crate::entries::grub::{self, FileRef, Files, Start};
use crate::entries::{Part, Problem, note};
use crate::host::inside::Kind;

/// Where grub.cfg is, on the file system of /boot or on the EFI system partition.
const CONFIGS: [&str; 2] = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"];
/// Where the EFI system partition is mounted: a distribution's own directory in EFI may hold
/// a grub.cfg.
const ESP: [&str; 3] = ["/boot/efi/EFI", "/efi/EFI", "/boot/EFI"];

pub(super) fn menu(volumes: &Volumes<'_>) -> Menu {
    let mut menu = Menu::default();
    let mut paths = CONFIGS.map(str::to_owned).to_vec();
    for esp in ESP {
        let names = volumes.place(esp).map(|place| volumes.list(&place));
        let names = names.and_then(Result::ok).unwrap_or_default();
        paths.extend(names.iter().map(|name| format!("{esp}/{name}/grub.cfg")));
    }
    for path in paths {
        let Some(place) = volumes.place(&path) else {
            continue;
        };
        match volumes.read_file(&place) {
            Ok(bytes) => {
                carry_out(volumes, &place, &path, &bytes, &mut menu);
                break;
            }
            Err(error) => menu.note_unreadable(&path, &error),
        }
        // GRUB would read this file, and no other.
        if menu.is_unread() {
            break;
        }
    }
    menu
}

fn carry_out(volumes: &Volumes<'_>, place: &Place, path: &str, bytes: &[u8], menu: &mut Menu) {
    let machine = Machine {
        volumes,
        own: place.volume,
    };
    let start = Start {
        path: volumes.own_path(place),
        efi: matches!(volumes.root.list("/sys/firmware/efi"), Ok(Some(_))),
    };
    let config = grub::read(&start, bytes, &machine);
    for problem in config.problems {
        menu.note(path, problem);
    }
    menu.default = config.default;
    menu.one_shot = config.one_shot;
    let entries = config.entries.into_iter();
    menu.entries = entries.map(|entry| machine.entry(entry, path)).collect();
}

/// The machine that a configuration on the file system `own` sees.
struct Machine<'a> {
    volumes: &'a Volumes<'a>,
    own: usize,
}

impl Machine<'_> {
    fn entry(&self, entry: grub::Entry, file: &str) -> Entry {
        let source = match entry.from_bls {
            true => Source::GrubBls,
            false => Source::Grub,
        };
        let mut made = Entry::new(&entry.id, source, file);
        made.title = Some(entry.title);
        made.version = entry.version;
        made.problems = entry.problems;
        let boot = entry.boot;
        let mut path = |part, file: &FileRef| self.path(part, file, &mut made.problems);
        let kernel = boot.kernel.as_ref();
        made.kernel = kernel.map(|file| path(Part::Kernel, file));
        let initrds = boot.initrds.iter();
        made.initrds = initrds.map(|file| path(Part::Initrd, file)).collect();
        let devicetree = boot.devicetree.as_ref();
        made.devicetree = devicetree.map(|file| path(Part::Devicetree, file));
        let modules = boot.modules.into_iter();
        let modules = modules.map(|(file, line)| (path(Part::Module, &file), line));
        made.modules = modules.collect();
        made.cmdline = made.kernel.is_some().then_some(boot.cmdline);
        made
    }

    /// The path on the machine; where there is no file, the path in the configuration.
    fn path(&self, part: Part, file: &FileRef, problems: &mut Vec<Problem>) -> String {
        let place = self.volumes.resolve(self.own, &file.on, &file.path);
        match place.and_then(|place| self.volumes.file(&place)) {
            Ok(path) => path,
            Err(problem) => {
                let path = match &problem {
                    Problem::File { path, .. } | Problem::Unread { path, .. } => path.clone(),
                    _ => file.path.clone(),
                };
                note(problems, part.fault(problem));
                path
            }
        }
    }

    fn kind(&self, file: &FileRef) -> Option<Kind> {
        let place = self.volumes.resolve(self.own, &file.on, &file.path).ok()?;
        self.volumes.kind(&place).ok()
    }
}

impl Files for Machine<'_> {
    fn is_file(&self, file: &FileRef) -> bool {
        self.kind(file) == Some(Kind::File)
    }

    fn is_dir(&self, file: &FileRef) -> bool {
        self.kind(file) == Some(Kind::Directory)
    }

    fn read(&self, file: &FileRef) -> Result<Vec<u8>, String> {
        let place = self.volumes.resolve(self.own, &file.on, &file.path);
        let place = place.map_err(|problem| match problem {
            Problem::File { why, .. } | Problem::Unread { why, .. } => why,
            other => other.to_string(),
        })?;
        let read = self.volumes.read_file(&place);
        read.map_err(|error| super::volumes::why(&error))
    }

    fn list(&self, directory: &FileRef) -> Option<Vec<String>> {
        let place = self
            .volumes
            .resolve(self.own, &directory.on, &directory.path)
            .ok()?;
        self.volumes.list(&place).ok()
    }
}
