//! The boot entries of one machine.
//!
//! | file | what is in it |
//! |---|---|
//! | `volumes` | the mounted file systems, and which one a boot loader means |
//! | `keep` | what a capture keeps of what is read |
//! | `grub`, `systemd_boot`, `extlinux`, `kexec_tools`, `links` | one boot loader each, or what stands for one |
//! | `devices` | which device a GUID, a UUID or a label means |
//! | `partitions` | block devices, and which of them are partitions for boot loaders |
//! | `unmounted` | what is not mounted: this process mounts it for itself, or it is named |
//! | `variables` | what systemd-boot keeps in EFI variables |
//! | `running` | which entry the running kernel was started from |

mod devices;
mod extlinux;
mod grub;
mod keep;
mod kexec_tools;
mod links;
mod partitions;
mod running;
mod systemd_boot;
mod unmounted;
mod variables;
mod volumes;

use super::{MAX_ENTRIES, MAX_PROBLEMS, Part, Problem, note};
use crate::host::mounts::{self, below};
use crate::host::{HostError, Root};
use crate::sys::mount::PrivateMounts;

pub use running::{Nearness, Running};
pub use unmounted::OwnMount;

/// Most bytes that are read for one boot loader: 1,000 unified kernel images have 64 KiB of
/// headers each.
const MAX_BYTES: usize = 256 << 20;
const TOO_MANY_BYTES: &str = "its files have more than 256 MiB in all";

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A menuentry of grub.cfg.
    Grub,
    /// A file of the Boot Loader Specification that grub.cfg reads (`blscfg`).
    GrubBls,
    /// A file of the Boot Loader Specification.
    Bls,
    /// A unified kernel image in EFI/Linux.
    Uki,
    /// A label of extlinux or syslinux.
    Extlinux,
    /// What Debian's kexec-tools loads at a shutdown.
    KexecTools,
    /// The links /vmlinuz and /initrd.img of Debian.
    Links,
}

impl Source {
    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Grub => "grub",
            Self::GrubBls => "grub-bls",
            Self::Bls => "bls",
            Self::Uki => "uki",
            Self::Extlinux => "extlinux",
            Self::KexecTools => "kexec-tools",
            Self::Links => "links",
        }
    }
}

/// A boot entry. Paths are those on the machine, with all links followed; a file that is
/// not there has the path where it was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What its boot loader calls it.
    pub id: String,
    /// Where it comes from.
    pub source: Source,
    /// The file that describes it.
    pub file: String,
    /// Its title.
    pub title: Option<String>,
    /// Its version, where something says it.
    pub version: Option<String>,
    /// The kernel, the hypervisor, or the UKI.
    pub kernel: Option<String>,
    /// The initrds, in order.
    pub initrds: Vec<String>,
    /// The command line; `None`: nothing says it.
    pub cmdline: Option<String>,
    /// That is the running one: nothing says another.
    pub is_running_line: bool,
    /// The modules of a hypervisor, each with its arguments.
    pub modules: Vec<(String, String)>,
    /// The device tree.
    pub devicetree: Option<String>,
    /// The kernel is a UKI, which brings its own command line.
    pub is_uki: bool,
    /// The profile of a UKI.
    pub profile: Option<String>,
    /// The addons of a UKI, in order.
    pub addons: Vec<String>,
    /// Files that must have a SHA-256, because a stub of NixOS says so.
    pub hashes: Vec<(String, [u8; 32])>,
    /// It is started when nobody chooses.
    pub default: bool,
    /// The running kernel was started from it.
    pub current: bool,
    /// It is started at the next boot alone.
    pub one_shot: bool,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

impl Entry {
    pub(crate) fn new(id: &str, source: Source, file: &str) -> Self {
        Self {
            id: id.to_owned(),
            source,
            file: file.to_owned(),
            title: None,
            version: None,
            kernel: None,
            initrds: Vec::new(),
            cmdline: None,
            is_running_line: false,
            modules: Vec::new(),
            devicetree: None,
            is_uki: false,
            profile: None,
            addons: Vec::new(),
            hashes: Vec::new(),
            default: false,
            current: false,
            one_shot: false,
            problems: Vec::new(),
        }
    }

    /// The first thing that keeps the entry from being booted.
    #[must_use]
    pub fn fault(&self) -> Option<&Problem> {
        self.fault_without(&[])
    }

    /// The first thing that keeps it from being booted when others take the place of the
    /// parts `replaced`.
    #[must_use]
    pub fn fault_without(&self, replaced: &[Part]) -> Option<&Problem> {
        let counts = |problem: &&Problem| {
            let part = problem.part();
            !problem.is_remark() && part.is_none_or(|part| !replaced.contains(&part))
        };
        self.problems.iter().find(counts)
    }

    /// Says what is wrong with `part`, once.
    fn note(&mut self, part: Part, problem: Problem) {
        note(&mut self.problems, part.fault(problem));
    }
}

/// What a machine has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// The entries: those of the boot loader that is in charge first, each in its order.
    pub entries: Vec<Entry>,
    /// What is wrong with a configuration as a whole: the file, and the problem.
    pub problems: Vec<(String, Problem)>,
    /// Those of the problems that say something about the default.
    pub about_default: Vec<(String, Problem)>,
    /// Partitions that this process mounted for itself: paths on them are there for no other
    /// process, and not after they are unmounted.
    pub own_mounts: Vec<OwnMount>,
}

impl Found {
    /// The partition that this process mounted for itself and that `path` is on.
    #[must_use]
    pub fn own_mount_of(&self, path: &str) -> Option<&OwnMount> {
        let mounts = self.own_mounts.iter();
        let above = mounts.filter(|mount| below(path, &mount.point).is_some());
        above.max_by_key(|mount| mount.point.len())
    }
}

impl Found {
    /// Names what is not mounted. Where the default may be there, it is not known;
    /// `by_systemd_boot`: that makes the choice.
    fn add_unmounted(&mut self, unmounted: &[unmounted::Unmounted], by_systemd_boot: bool) {
        for one in unmounted {
            let problem = one.problem();
            if one.decides || by_systemd_boot && one.decides_for_systemd_boot {
                self.hide_default(&problem);
            }
            self.problems.push(problem);
        }
    }

    /// The default is not known, as `problem` says.
    fn hide_default(&mut self, problem: &(String, Problem)) {
        self.about_default.push(problem.clone());
        for entry in &mut self.entries {
            (entry.default, entry.one_shot) = (false, false);
        }
    }
}

/// What one boot loader has.
#[derive(Default)]
struct Menu {
    entries: Vec<Entry>,
    problems: Vec<(String, Problem)>,
    /// A number in `entries`.
    default: Option<usize>,
    /// A number in `entries`.
    one_shot: Option<usize>,
    /// Bytes that were read.
    bytes: usize,
}

impl Menu {
    fn note(&mut self, file: &str, problem: Problem) {
        let problem = problem.told();
        // Most problems of one boot loader are those of one file.
        let own = self.problems.iter().rev();
        let own = own.take_while(|(of, _)| of == file);
        let (mut count, mut is_known) = (0, false);
        for (_, known) in own {
            count += 1;
            is_known |= *known == problem;
        }
        if !is_known && count <= MAX_PROBLEMS {
            let problem = match count {
                MAX_PROBLEMS => Problem::More,
                _ => problem,
            };
            self.problems.push((file.to_owned(), problem));
        }
    }

    /// Whether `count` more bytes may be read; else says that the rest of `file` is not.
    fn may_read(&mut self, file: &str, count: usize) -> bool {
        self.bytes = self.bytes.saturating_add(count);
        let may = self.bytes <= MAX_BYTES;
        if !may {
            self.note(file, Problem::Limit(TOO_MANY_BYTES));
        }
        may
    }

    /// Says why a file or a directory cannot be read; that there is none is no problem.
    fn note_unreadable(&mut self, path: &str, error: &std::io::Error) {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        if !matches!(error.kind(), NotFound | NotADirectory) {
            let name = path.rsplit('/').next().unwrap_or(path).to_owned();
            let why = volumes::why(error);
            self.note(path, Problem::Unread { path: name, why });
        }
    }

    /// Whether a part of the configuration was not read: the default may be any entry.
    fn is_unread(&self) -> bool {
        let mut problems = self.problems.iter();
        problems.any(|(_, problem)| problem.hides_default())
    }

    /// Says why a file cannot be read that its directory lists.
    fn note_error(&mut self, path: &str, error: &std::io::Error) {
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        let why = volumes::why(error);
        self.note(path, Problem::File { path: name, why });
    }
}

/// Reads the entries of the machine below `root`. What is not mounted is mounted meanwhile for
/// this process alone, where it may do so; no variable of the firmware is written.
///
/// # Errors
/// When the list of mounts or the running kernel's command line cannot be read.
pub fn find(root: &Root) -> Result<Found, HostError> {
    Ok(find_and_hold(root)?.0)
}

/// The same. What is mounted for this process stays so until the second value is dropped:
/// until then its files are there.
///
/// # Errors
/// As [`find`].
pub fn find_and_hold(root: &Root) -> Result<(Found, Option<PrivateMounts>), HostError> {
    let variables = variables::Variables::read(root);
    let volumes = volumes::Volumes::read(root)?;
    let unmounted::Rest {
        volumes,
        bases,
        own,
        private,
        unmounted,
        left_out,
    } = unmounted::mount(volumes, &variables)?;
    let malformed = volumes.malformed.clone();
    let grub = grub::menu(&volumes);
    let has_blscfg = grub
        .entries
        .iter()
        .any(|entry| entry.source == Source::GrubBls);
    // A grub.cfg may be left over from a GRUB that starts no more.
    let in_grub = has_blscfg && !variables.is_systemd_boot();
    let systemd_boot = systemd_boot::menu(&volumes, &bases, &variables, in_grub);
    let extlinux = extlinux::menu(&volumes);
    let kexec_tools = kexec_tools::menu(&volumes);
    let links = links::menu(&volumes);
    let mut menus = vec![grub, systemd_boot, extlinux, kexec_tools, links];
    // The boot loader that was started last is in charge. Where it did not say its name,
    // GRUB is: it leaves no sign on a BIOS.
    if variables.is_systemd_boot() {
        menus.swap(0, 1);
    }
    let mut found = Found {
        own_mounts: own,
        ..Found::default()
    };
    let mut decided = false;
    let mut by_systemd_boot = variables.is_systemd_boot();
    for menu in menus {
        let is_unread = menu.is_unread();
        let decides = !decided && (is_unread || !menu.entries.is_empty());
        let (default, one_shot) = match decides && !is_unread {
            true => (menu.default, menu.one_shot),
            false => (None, None),
        };
        if decides {
            let first = menu.entries.first().map(|entry| entry.source);
            by_systemd_boot |= matches!(first, Some(Source::Bls | Source::Uki));
            let about = menu.problems.iter();
            let about = about.filter(|(_, problem)| problem.is_about_default());
            found.about_default = about.cloned().collect();
        }
        decided |= decides;
        for (number, mut entry) in menu.entries.into_iter().enumerate() {
            entry.default = default == Some(number);
            entry.one_shot = one_shot == Some(number);
            found.entries.push(entry);
        }
        found.problems.extend(menu.problems);
    }
    found.problems.extend(left_out);
    found
        .problems
        .extend(malformed.map(|what| (mounts::PATH.to_owned(), Problem::Other(what))));
    found.add_unmounted(&unmounted, by_systemd_boot);
    if let Some(problem) = variables.problem.filter(|_| by_systemd_boot) {
        found.hide_default(&problem);
        found.problems.push(problem);
    }
    if found.entries.len() > MAX_ENTRIES {
        found.entries.truncate(MAX_ENTRIES);
        found.problems.push(("/boot".to_owned(), Problem::TooMany));
    }
    if found.entries.is_empty() && !root.is_system() && matches!(root.list("/boot"), Ok(None)) {
        let what = "the directory of --root has no /boot, where boot loaders have their files";
        let problem = Problem::Other(what.to_owned());
        found.problems.push(("/boot".to_owned(), problem));
    }
    if let Some(running) = Running::read(root)? {
        running.mark(&mut found.entries);
    }
    Ok((found, private))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_menu_tells_some_problems_of_each_file() {
        let mut menu = Menu::default();
        for file in ["a", "b"] {
            for number in 0..MAX_PROBLEMS * 4 {
                menu.note(file, Problem::Unset((number / 2).to_string()));
            }
        }
        assert_eq!(menu.problems.len(), 2 * (MAX_PROBLEMS + 1));
        assert_eq!(menu.problems.last(), Some(&("b".to_owned(), Problem::More)));
    }
}
