//! `blscfg` of Fedora's GRUB: the entries are files of the Boot Loader Specification, the
//! newest first, with variables of GRUB in them.

use super::condition::Answer;
use super::env::{Arguments, MAX_VALUE};
use super::menu::{Item, Kind};
use super::run::{BYTES_A_STEP, Run, doubtful};
use super::{Boot, FileRef, MAX_ENTRIES, Problem, note};
use crate::entries::bls::{self, Bls};
use crate::entries::order;
use crate::entries::{MAX_INITRDS, TOO_MANY_INITRDS};

/// Where the files are when `blsdir` does not say it: on a file system of /boot, or on one
/// that has a directory /boot.
const DIRECTORIES: [&str; 2] = ["/loader/entries", "/boot/loader/entries"];
const SUFFIX: &str = ".conf";
const TOO_LONG: Problem = Problem::Limit("a line has more than 64 KiB with its variables");

impl Run<'_> {
    pub(super) fn blscfg(&mut self) -> Answer {
        let root = self.root().to_owned();
        let own = self.env.get("blsdir").map(str::to_owned);
        let paths: Vec<String> = match own {
            Some(own) => vec![own],
            None => DIRECTORIES.map(str::to_owned).to_vec(),
        };
        let directories = paths.iter().map(|path| FileRef::parse(path, &root));
        let found = directories
            .filter_map(|directory| Some((self.files.list(&directory)?, directory)))
            .next();
        let Some((names, directory)) = found else {
            let (path, why) = (paths.join(", "), "no such directory".to_owned());
            self.note(Problem::File { path, why });
            return Answer::No;
        };
        if !self.has_steps(names.len()) {
            return Answer::No;
        }
        let mut names: Vec<&str> = names.iter().filter_map(|name| stem(name)).collect();
        names.sort_by(|a, b| order::rpm(a, b).then_with(|| b.cmp(a)));
        if names.len() > MAX_ENTRIES {
            self.note(Problem::TooMany);
        }
        for stem in names.into_iter().take(MAX_ENTRIES) {
            if !self.has_steps(1) {
                break;
            }
            let file = FileRef {
                path: format!("{}/{stem}{SUFFIX}", directory.path),
                ..directory.clone()
            };
            let item = self.bls_item(stem, &file, &root);
            if !self.push(item) {
                break;
            }
        }
        Answer::Yes
    }

    fn bls_item(&mut self, stem: &str, file: &FileRef, root: &str) -> Item {
        let read = self.read(file);
        let name = format!("{stem}{SUFFIX}");
        let mut entry = match &read {
            Ok(bytes) => bls::parse(&name, bytes).unwrap_or_default(),
            Err(_) => Bls::default(),
        };
        if let Err(problem) = read {
            entry.problems = vec![problem];
        }
        let mut problems = std::mem::take(&mut entry.problems);
        let mut size = 0;
        let mut text = |text: &str| self.filled(text, &mut problems, &mut size);
        let options = match entry.cmdline() {
            line if line.is_empty() => self
                .env
                .get("default_kernelopts")
                .unwrap_or_default()
                .to_owned(),
            line => line,
        };
        let kernel = entry.linux.as_deref().map(&mut text);
        let early = self.env.get("early_initrd").unwrap_or_default();
        let directory = kernel.as_deref().and_then(|path| path.rsplit_once('/'));
        let directory = directory.map_or("", |(directory, _)| directory);
        let early = early
            .split_ascii_whitespace()
            .take(MAX_INITRDS + 1)
            .map(|name| format!("{directory}/{name}"));
        let mut initrds: Vec<String> = early.collect();
        for initrd in entry.initrds.iter().take(MAX_INITRDS + 1) {
            initrds.extend(text(initrd).split_ascii_whitespace().map(str::to_owned));
        }
        if initrds.len() > MAX_INITRDS {
            initrds.truncate(MAX_INITRDS);
            note(&mut problems, TOO_MANY_INITRDS);
        }
        let mut text = |text: &str| self.filled(text, &mut problems, &mut size);
        let path = |path: &str| FileRef::parse(path, root);
        let boot = Boot {
            kernel: kernel.as_deref().map(path),
            cmdline: text(&options),
            initrds: initrds.iter().map(|initrd| path(initrd)).collect(),
            devicetree: entry.devicetree.as_deref().map(path),
            ..Boot::default()
        };
        let users = entry
            .grub_users
            .as_deref()
            .map(&mut text)
            .unwrap_or_default();
        self.has_steps(size / BYTES_A_STEP);
        Item {
            title: entry.title.unwrap_or_else(|| stem.to_owned()),
            id: Some(stem.to_owned()),
            unrestricted: users.is_empty(),
            problems,
            arguments: Arguments::default(),
            file: None,
            kind: Kind::Ready {
                boot: Box::new(boot),
                version: entry.version,
            },
        }
    }

    /// `text` with the values of its variables; `size` counts its bytes. Of those that are not
    /// set only tuned's are no problem: they come and go with its profile.
    fn filled(&self, text: &str, problems: &mut Vec<Problem>, size: &mut usize) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('$') {
            filled.push_str(before);
            let braced = behind.strip_prefix('{');
            let name = braced.unwrap_or(behind);
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            let (name, after) = name.split_at(end.unwrap_or(name.len()));
            rest = match braced {
                Some(_) => after.strip_prefix('}').unwrap_or(after),
                None => after,
            };
            if filled.len() > MAX_VALUE {
                break;
            }
            match (self.env.get(name), self.env.doubt_of(name)) {
                (_, Some(on)) => note(problems, doubtful(&(name.to_owned(), on.clone()))),
                (Some(value), None) => filled.push_str(value),
                (None, None) if name.is_empty() => filled.push('$'),
                (None, None) if name.starts_with("tuned_") || name == "grub_users" => {}
                (None, None) => note(problems, Problem::Unset(name.to_owned())),
            }
        }
        filled.push_str(rest);
        *size += filled.len();
        if filled.len() > MAX_VALUE {
            note(problems, TOO_LONG);
            return String::new();
        }
        filled.trim().to_owned()
    }
}

/// A file name without `.conf`; `None`: no entry.
fn stem(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(SUFFIX)?;
    (!stem.is_empty() && !stem.starts_with('.')).then_some(stem)
}
