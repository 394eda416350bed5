//! What Debian's kexec-tools loads at a shutdown: /etc/default/kexec, and the files in
//! /etc/default/kexec.d behind it.

use super::links;
use super::volumes::{Place, Volumes};
use super::{Entry, Menu, Source};
use crate::cmdline::{Cmdline, CmdlineBase, CmdlineRequest};
use crate::entries::default_kexec::DefaultKexec;
use crate::entries::{Part, Problem, note};

const FILE: &str = "/etc/default/kexec";
const SNIPPETS: &str = "/etc/default/kexec.d";
/// Most files that are read of the directory.
const MAX_SNIPPETS: usize = 64;

pub(super) fn menu(volumes: &Volumes<'_>) -> Menu {
    let mut menu = Menu::default();
    let mut said = DefaultKexec::default();
    let snippets = snippets(volumes, &mut menu);
    let snippets = snippets
        .into_iter()
        .map(|name| format!("{SNIPPETS}/{name}"));
    for path in std::iter::once(FILE.to_owned()).chain(snippets) {
        let Some(place) = volumes.place(&path) else {
            continue;
        };
        match volumes.read_file(&place) {
            Ok(bytes) => said.read(&bytes),
            Err(error) => menu.note_unreadable(&path, &error),
        }
    }
    match said.kernel.take().filter(|kernel| !kernel.is_empty()) {
        Some(kernel) => {
            menu.entries.push(entry(volumes, kernel, said));
            menu.default = Some(0);
        }
        None => {
            for problem in said.problems {
                menu.note(FILE, problem);
            }
        }
    }
    menu
}

/// The names that run-parts(8) lists, in its order.
fn snippets(volumes: &Volumes<'_>, menu: &mut Menu) -> Vec<String> {
    let is_listed = |name: &String| {
        name.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let list = |place: Place| volumes.list(&place);
    let mut names = match volumes.place(SNIPPETS).map(list) {
        Some(Ok(names)) => names,
        Some(Err(error)) => {
            menu.note_unreadable(SNIPPETS, &error);
            Vec::new()
        }
        None => Vec::new(),
    };
    names.retain(is_listed);
    names.sort_unstable();
    if names.len() > MAX_SNIPPETS {
        names.truncate(MAX_SNIPPETS);
        menu.note(SNIPPETS, Problem::Limit("it holds more than 64 files"));
    }
    names
}

fn entry(volumes: &Volumes<'_>, kernel: String, said: DefaultKexec) -> Entry {
    let mut entry = Entry::new("kexec-tools", Source::KexecTools, FILE);
    entry.problems = said.problems;
    let mut path = |part: Part, path: String| {
        links::file(volumes, &path).unwrap_or_else(|problem| {
            note(&mut entry.problems, part.fault(problem));
            path
        })
    };
    entry.kernel = Some(path(Part::Kernel, kernel));
    let initrd = said.initrd.filter(|initrd| !initrd.is_empty());
    entry.initrds = initrd
        .map(|initrd| path(Part::Initrd, initrd))
        .into_iter()
        .collect();
    let append = said.append.filter(|append| !append.is_empty());
    entry.is_running_line = append.is_none();
    entry.cmdline = append.or_else(|| running(volumes));
    if entry.cmdline.is_none() {
        entry.note(Part::Cmdline, Problem::NoCmdline);
    }
    entry
}

/// The running command line, which stands for an empty one; `None`: it cannot be read, or it
/// is not UTF-8.
fn running(volumes: &Volumes<'_>) -> Option<String> {
    let line = volumes.root.read_permitted("/proc/cmdline").ok()??;
    let request = CmdlineRequest {
        base: CmdlineBase::Running,
        ..CmdlineRequest::default()
    };
    let made = Cmdline::make(&request, line.trim_ascii_end(), usize::MAX).ok()?;
    std::str::from_utf8(made.as_bstr()).ok().map(str::to_owned)
}
