//! Links to the newest kernel: Debian's /vmlinuz and /initrd.img, or both in /boot, and
//! openSUSE's /boot/vmlinuz and /boot/initrd.
//!
//! Nothing says their command line: an option must. A kernel of Debian's has an initrd: where
//! the link to it is missing, that is a fault.

use super::volumes::Volumes;
use super::{Entry, Menu, Source};
use crate::entries::{Part, Problem};

/// Each link to a kernel, and where its initrd may be.
const LINKS: [(&str, &[&str]); 4] = [
    ("/vmlinuz", &["/initrd.img"]),
    ("/boot/vmlinuz", &["/boot/initrd.img", "/boot/initrd"]),
    ("/vmlinuz.old", &["/initrd.img.old"]),
    ("/boot/vmlinuz.old", &["/boot/initrd.img.old"]),
];

pub(super) fn menu(volumes: &Volumes<'_>) -> Menu {
    let mut menu = Menu::default();
    for (kernel, initrds) in LINKS {
        // The link may lead to another file system: it is for programs, not for boot loaders.
        let Ok(target) = volumes.link(kernel) else {
            continue;
        };
        let path = real(volumes, kernel, &target);
        if menu
            .entries
            .iter()
            .any(|entry| entry.kernel.as_ref() == path.as_ref().ok())
        {
            continue;
        }
        let id = kernel.rsplit('/').next().unwrap_or(kernel);
        let mut entry = Entry::new(id, Source::Links, kernel);
        let name = target.rsplit('/').next().unwrap_or(&target);
        entry.version = name.strip_prefix("vmlinuz-").map(str::to_owned);
        let path = path.unwrap_or_else(|problem| {
            entry.note(Part::Kernel, problem);
            kernel.to_owned()
        });
        entry.kernel = Some(path);
        let initrd = initrd(volumes, initrds).unwrap_or_else(|(path, problem)| {
            entry.note(Part::Initrd, problem);
            path.to_owned()
        });
        entry.initrds.push(initrd);
        entry.note(Part::Cmdline, Problem::NoCmdline);
        menu.entries.push(entry);
    }
    menu.default = (!menu.entries.is_empty()).then_some(0);
    menu
}

/// The first of `paths` that leads to a file; else the first path, and what is wrong with it.
fn initrd<'p>(volumes: &Volumes<'_>, paths: &[&'p str]) -> Result<String, (&'p str, Problem)> {
    let mut first = Err(("", Problem::Other("it names no file".to_owned())));
    for (number, path) in paths.iter().enumerate() {
        match file(volumes, path) {
            Ok(found) => return Ok(found),
            Err(problem) if number == 0 => first = Err((*path, problem)),
            Err(_) => {}
        }
    }
    first
}

/// The file at `path`, or the one that a link there leads to, in one step.
pub(super) fn file(volumes: &Volumes<'_>, path: &str) -> Result<String, Problem> {
    if let Ok(target) = volumes.link(path) {
        return real(volumes, path, &target);
    }
    match volumes.place(path) {
        Some(place) => volumes.file(&place),
        None => Err(Problem::File {
            path: path.to_owned(),
            why: "it is not an absolute path".to_owned(),
        }),
    }
}

/// The file that a link leads to, in one step.
fn real(volumes: &Volumes<'_>, link: &str, target: &str) -> Result<String, Problem> {
    let directory = link.rsplit_once('/').map_or("", |(directory, _)| directory);
    let path = match target.starts_with('/') {
        true => target.to_owned(),
        false => format!("{directory}/{target}"),
    };
    match volumes.place(&path) {
        Some(place) => volumes.file(&place),
        None => Err(Problem::File {
            path,
            why: "no such file".to_owned(),
        }),
    }
}
