//! Which entry the running kernel was started from: the one with its command line and its
//! release.

use bstr::{BString, ByteSlice as _};

use super::variables::Variables;
use super::{Entry, Source};
use crate::cmdline;
use crate::entries::{Part, Problem};
use crate::host::{HostError, Root};

/// Parameters that the boot loader adds to the line of an entry.
const ADDED: [&str; 2] = ["BOOT_IMAGE", "initrd"];

/// The running kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    release: String,
    line: Vec<BString>,
    /// The name of the kernel's file in BOOT_IMAGE.
    image: Option<String>,
    /// The id of the entry that systemd-boot started.
    selected: Option<String>,
}

/// How much an entry is like the running kernel; the greatest is most alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Nearness {
    /// Neither its release nor its command line.
    Other,
    /// Its command line, and another release.
    Line,
    /// Its release, and another command line.
    Release,
    /// Its command line, and nothing tells the release.
    Likely,
    /// Both.
    Same,
}

impl Running {
    /// Reads it; `None`: the machine does not tell.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn read(root: &Root) -> Result<Option<Self>, HostError> {
        let Some(line) = root.read_permitted("/proc/cmdline")? else {
            return Ok(None);
        };
        let release = root.read_line_permitted("/proc/sys/kernel/osrelease")?;
        let variables = Variables::read(root);
        let started = variables.is_systemd_boot();
        let selected = variables.selected.filter(|_| started);
        Ok(release.map(|release| Self {
            selected,
            ..Self::of(&release, line.trim_ascii_end())
        }))
    }

    pub(in crate::entries) fn of(release: &str, line: &[u8]) -> Self {
        let image = cmdline::value(line, "BOOT_IMAGE");
        Self {
            release: release.to_owned(),
            line: words(line),
            image: image.map(|image| name(&image.to_str_lossy()).to_owned()),
            selected: None,
        }
    }

    /// How much `entry` is like it.
    #[must_use]
    pub fn nearness(&self, entry: &Entry) -> Nearness {
        // The running line says nothing of what it was started from.
        let line = entry.cmdline.as_ref().filter(|_| !entry.is_running_line);
        let line = line.is_some_and(|line| words(line.as_bytes()) == self.line);
        match (line, self.has_release(entry)) {
            (true, Some(true)) => Nearness::Same,
            (true, None) => Nearness::Likely,
            (false, Some(true)) => Nearness::Release,
            (true, Some(false)) => Nearness::Line,
            (false, _) => Nearness::Other,
        }
    }

    /// Whether the entry's kernel has the running release; `None`: nothing tells.
    fn has_release(&self, entry: &Entry) -> Option<bool> {
        let file = entry.kernel.as_deref().map(name);
        let tells = [file, entry.version.as_deref()];
        let mut tells = tells.into_iter().flatten().peekable();
        if tells.clone().any(|text| holds(text, &self.release)) {
            return Some(true);
        }
        // A release has a dot in it. ostree counts its entries where a version is meant.
        let is_version = |text: &str| {
            let mut pairs = text.as_bytes().windows(2);
            (text.starts_with(|c: char| c.is_ascii_digit()) && text.contains('.'))
                || pairs.any(|pair| {
                    pair.first() == Some(&b'-') && pair.last().is_some_and(u8::is_ascii_digit)
                })
        };
        tells.any(is_version).then_some(false)
    }

    /// Marks the entry that it was started from, if there is one. One whose kernel is not there
    /// was not.
    pub(in crate::entries) fn mark(&self, entries: &mut [Entry]) {
        let rank = |entry: &Entry| {
            let image = self.image.as_deref();
            let has_image = image.is_some() && entry.kernel.as_deref().map(name) == image;
            let is_selected = matches!(entry.source, Source::Bls | Source::Uki)
                && self.selected.as_ref() == Some(&entry.id);
            (self.nearness(entry), is_selected, has_image)
        };
        let has_kernel = |entry: &&Entry| !entry.problems.iter().any(is_no_kernel);
        let best = entries.iter().filter(has_kernel).map(rank).max();
        let best = best.filter(|(nearness, ..)| *nearness >= Nearness::Likely);
        let is_best = |entry: &Entry| has_kernel(&entry) && Some(rank(entry)) == best;
        let found = entries.iter_mut().find(|entry| is_best(entry));
        if let Some(entry) = found {
            entry.current = true;
        }
    }
}

/// Whether the problem is that the file of the kernel is not there.
fn is_no_kernel(problem: &Problem) -> bool {
    let Problem::Of { part, why } = problem else {
        return false;
    };
    *part == Part::Kernel && matches!(**why, Problem::File { .. })
}

/// Whether `text` holds `release` as a whole: no letter or digit stands beside it, and no
/// further number follows it.
fn holds(text: &str, release: &str) -> bool {
    let mut found = text.match_indices(release);
    found.any(|(at, _)| {
        let before = text.get(..at).unwrap_or_default();
        let behind = text.get(at + release.len()..).unwrap_or_default();
        let is_number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
        !before.ends_with(char::is_alphanumeric)
            && !behind.starts_with(char::is_alphanumeric)
            && !behind.strip_prefix('.').is_some_and(is_number)
    })
}

/// The words of a line, without those that the boot loader adds.
fn words(line: &[u8]) -> Vec<BString> {
    let words = cmdline::words(line).filter(|word| {
        let (name, _) = cmdline::parameter(word);
        !ADDED.iter().any(|added| name == *added)
    });
    words.map(BString::from).collect()
}

fn name(path: &str) -> &str {
    path.rsplit(['/', '\\']).next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nearness(kernel: &str, version: Option<&str>, line: &str) -> Nearness {
        let running = Running::of(
            "6.1.0-18-amd64",
            b"BOOT_IMAGE=/vmlinuz initrd=\\x root=/dev/a  ro",
        );
        let mut entry = Entry::new("a", Source::Bls, "/a.conf");
        entry.kernel = Some(kernel.to_owned());
        entry.version = version.map(str::to_owned);
        entry.cmdline = Some(line.to_owned());
        running.nearness(&entry)
    }

    #[test]
    fn a_release_is_found_as_a_whole() {
        for (text, is_there) in [
            ("vmlinuz-6.12.1", true),
            ("6.12.1", true),
            ("arch-6.12.1-x64.efi", true),
            ("vmlinuz-6.12.10 vmlinuz-6.12.1", true),
            ("vmlinuz-6.12.10", false),
            ("vmlinuz-16.12.1", false),
            ("vmlinuz-6.12.1rc", false),
            ("vmlinuz-6.12.1.2", false),
        ] {
            assert_eq!(holds(text, "6.12.1"), is_there, "{text}");
        }
    }

    #[test]
    fn what_was_not_started() {
        let running = Running::of("6.12.1", b"root=/dev/a ro");
        let entry = |name: &str| {
            let mut entry = Entry::new(name, Source::Bls, "/a.conf");
            entry.kernel = Some("/boot/vmlinuz-6.12.1".to_owned());
            entry.cmdline = Some("root=/dev/a ro".to_owned());
            entry
        };
        let mut gone = entry("gone");
        let why = "no such file".to_owned();
        let path = "/boot/vmlinuz-6.12.1".to_owned();
        gone.note(Part::Kernel, Problem::File { path, why });
        let mut entries = [gone, entry("there"), entry("kexec-tools")];
        running.mark(&mut entries);
        assert_eq!(
            entries.each_ref().map(|entry| entry.current),
            [false, true, false]
        );
        let [gone, _, mut other] = entries;
        other.is_running_line = true;
        let mut entries = [gone, other];
        running.mark(&mut entries);
        assert!(!entries.iter().any(|entry| entry.current));
    }

    #[test]
    fn line_and_release() {
        let line = "root=/dev/a ro";
        for (kernel, version, line, expected) in [
            ("/boot/vmlinuz-6.1.0-18-amd64", None, line, Nearness::Same),
            ("/boot/linux", Some("6.1.0-18-amd64"), line, Nearness::Same),
            ("/boot/vmlinuz-linux", None, line, Nearness::Likely),
            (
                "/boot/vmlinuz-6.1.0-18-amd64",
                None,
                "root=/dev/b",
                Nearness::Release,
            ),
            ("/boot/vmlinuz-6.1.0-17-amd64", None, line, Nearness::Line),
            ("/boot/vmlinuz-linux", Some("6.2"), line, Nearness::Line),
            ("/boot/vmlinuz-linux", None, "", Nearness::Other),
            (
                "/boot/ostree/os-ab/vmlinuz",
                Some("2"),
                line,
                Nearness::Likely,
            ),
        ] {
            assert_eq!(
                nearness(kernel, version, line),
                expected,
                "{kernel} {version:?} {line}"
            );
        }
    }
}
