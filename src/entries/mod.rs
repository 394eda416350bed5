//! Boot entries: what the machine's boot loader could start, and what it would.
//!
//! The parsers take bytes and open nothing: [`bls`] and [`loader_conf`] (the Boot Loader
//! Specification, systemd-boot), [`grub`] and [`grubenv`] (GRUB 2), [`extlinux`],
//! [`default_kexec`] (Debian's kexec-tools), [`os_release`] (titles of unified kernel images).
//! They answer for any bytes. What is
//! wrong with an entry is a [`Problem`] of that entry; the other entries are not affected.
//!
//! [`find`] reads what one machine has, resolves the paths, and says which entry is the
//! default. It opens no kernel.

pub mod bls;
pub mod choice;
pub mod default_kexec;
pub mod extlinux;
pub mod find;
pub mod glob;
pub mod grub;
pub mod grubenv;
pub mod loader_conf;
pub mod order;
pub mod os_release;
pub mod text;
pub mod version;

/// Most bytes read of one file: 1 MiB. A grub.cfg of 1,000 entries has some 700 KiB.
pub const MAX_FILE: usize = 1 << 20;
/// Most entries read on one machine.
pub const MAX_ENTRIES: usize = 1000;

/// Most initrds of one entry: each is looked for on the machine.
pub(crate) const MAX_INITRDS: usize = 100;
/// What is said of more.
pub(crate) const TOO_MANY_INITRDS: Problem = Problem::Limit("an entry has more than 100 initrds");
/// Most characters that a problem repeats of a configuration.
const MAX_TOLD: usize = 200;

/// Most problems that are told of one configuration, or of one entry.
pub const MAX_PROBLEMS: usize = 100;

/// Adds `problem` to `problems` once. Behind [`MAX_PROBLEMS`] of them [`Problem::More`]
/// stands for all others.
pub(crate) fn note(problems: &mut Vec<Problem>, problem: Problem) {
    let problem = problem.told();
    if problems.len() > MAX_PROBLEMS || problems.contains(&problem) {
        return;
    }
    problems.push(match problems.len() {
        MAX_PROBLEMS => Problem::More,
        _ => problem,
    });
}

/// Something that is wrong with an entry, or with the file that it comes from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Problem {
    /// More than [`MAX_FILE`] bytes.
    #[error("the file is larger than 1 MiB and is not read")]
    TooLarge,
    /// More than [`MAX_ENTRIES`] entries.
    #[error("there are more than {MAX_ENTRIES} entries, and the rest is left out")]
    TooMany,
    /// More than [`MAX_PROBLEMS`] problems.
    #[error("there are more than {MAX_PROBLEMS} problems, and the rest is left out")]
    More,
    /// A byte order mark at the start.
    #[error("the file begins with a byte order mark, which the boot loader may not expect")]
    ByteOrderMark,
    /// Bytes that are no text.
    #[error("it holds a NUL or bytes that are not UTF-8")]
    NotText,
    /// The text does not follow the format.
    #[error("line {line}: {what}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// No kernel is named.
    #[error("it names no kernel")]
    NoKernel,
    /// Nothing says the command line.
    #[error("nothing says its command line; --cmdline or --reuse-cmdline must")]
    NoCmdline,
    /// Something else than a kernel is started.
    #[error("it starts no kernel but runs `{0}`")]
    OtherProgram(String),
    /// An entry for other machines.
    #[error("it is made for the architecture {0}, and this is x64")]
    OtherArchitecture(String),
    /// A password is asked for.
    #[error("the boot loader asks for a password before it starts this entry")]
    Password,
    /// A variable without a value.
    #[error("the variable `{0}` is not set, and the boot loader takes it for empty")]
    Unset(String),
    /// A variable whose value only the boot loader knows.
    #[error("the variable `{name}` depends on `{on}`, which only the boot loader can answer")]
    Doubtful {
        /// The variable.
        name: String,
        /// The command or the test that sets it.
        on: String,
    },
    /// A part of the configuration that is not followed.
    #[error("line {line}: `{what}` is not followed")]
    NotFollowed {
        /// The line, from 1.
        line: usize,
        /// The command.
        what: String,
    },
    /// A problem in a line of another file of the configuration.
    #[error("{file}: {problem}")]
    In {
        /// The file.
        file: String,
        /// What is wrong in it.
        problem: Box<Problem>,
    },
    /// Work or text without an end.
    #[error("the configuration is not read to its end: {0}")]
    Limit(&'static str),
    /// A file that cannot be read.
    #[error("{path}: {why}")]
    File {
        /// Its path.
        path: String,
        /// Why not.
        why: String,
    },
    /// A file of the configuration that is there and cannot be read.
    #[error("{path}: {why}")]
    Unread {
        /// Its path.
        path: String,
        /// Why not.
        why: String,
    },
    /// A path that leads out.
    #[error("{0}: the path leads out of the file system of the entry")]
    Escapes(String),
    /// A fault of one part of an entry.
    #[error("{why}")]
    Of {
        /// The part.
        part: Part,
        /// What is wrong with it.
        why: Box<Problem>,
    },
    /// A file system that is not there.
    #[error("{what} lies on {on}, which is not mounted")]
    NotMounted {
        /// The file.
        what: String,
        /// The file system, as the entry names it.
        on: String,
    },
    /// A file system that may have entries and cannot be read.
    #[error("{0}")]
    NotSeen(String),
    /// A credential or an extension beside a UKI.
    #[error("systemd-stub would add {0}, and this program does not")]
    NotAdded(String),
    /// An addon beside a UKI that is made for another kernel.
    #[error(
        "the addon {addon} is made for the kernel {release}: systemd-stub leaves it out, and so does this program"
    )]
    OtherKernel {
        /// Its path.
        addon: String,
        /// Its `.uname`.
        release: String,
    },
    /// What is beside a UKI as an addon, and is none.
    #[error(
        "the addon {addon} cannot be used ({why}): systemd-stub leaves it out, and so does this program"
    )]
    NoAddon {
        /// Its path.
        addon: String,
        /// Why not.
        why: String,
    },
    /// No tries are left.
    #[error("it failed to boot as often as its counter allows")]
    NoTriesLeft,
    /// The default does not exist.
    #[error("the default `{0}` is none of the entries; the boot loader takes the first one")]
    NoSuchDefault(String),
    /// What the boot loader would start is none of the entries: another system, or something
    /// that the boot loader does itself.
    #[error("{what} `{id}` is none of the entries: the boot loader may start something else")]
    NotAmong {
        /// The default or the one-shot entry.
        what: &'static str,
        /// What the boot loader calls it.
        id: String,
    },
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
}

/// A part of an entry that an option may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The kernel.
    Kernel,
    /// The initrds.
    Initrd,
    /// The device tree, with its overlays.
    Devicetree,
    /// The command line.
    Cmdline,
    /// A hypervisor's modules.
    Module,
}

impl Part {
    /// `problem` as one of this part.
    pub(crate) fn fault(self, problem: Problem) -> Problem {
        let why = Box::new(problem);
        Problem::Of { part: self, why }
    }
}

/// `text`, cut where it is long.
fn told(text: String) -> String {
    let end = text.char_indices().nth(MAX_TOLD);
    match end.and_then(|(at, _)| text.get(..at)) {
        Some(start) => format!("{start}…"),
        None => text,
    }
}

impl Problem {
    /// The same, with no long text of a configuration in it.
    #[must_use]
    pub(crate) fn told(self) -> Self {
        match self {
            Self::OtherProgram(what) => Self::OtherProgram(told(what)),
            Self::Unset(name) => Self::Unset(told(name)),
            Self::NoSuchDefault(name) => Self::NoSuchDefault(told(name)),
            Self::Doubtful { name, on } => Self::Doubtful {
                name: told(name),
                on: told(on),
            },
            Self::NotFollowed { line, what } => Self::NotFollowed {
                line,
                what: told(what),
            },
            Self::NotAmong { what, id } => Self::NotAmong { what, id: told(id) },
            Self::In { file, problem } => Self::In {
                file: told(file),
                problem: Box::new(problem.told()),
            },
            Self::Of { part, why } => part.fault(why.told()),
            other => other,
        }
    }

    /// The part of the entry that it concerns; `None`: the entry as a whole.
    #[must_use]
    pub fn part(&self) -> Option<Part> {
        match self {
            Self::Of { part, .. } => Some(*part),
            _ => None,
        }
    }

    /// Whether the entry can be booted all the same.
    #[must_use]
    pub fn is_remark(&self) -> bool {
        matches!(
            self,
            Self::ByteOrderMark
                | Self::Unset(_)
                | Self::NotAdded(_)
                | Self::OtherKernel { .. }
                | Self::NoAddon { .. }
                | Self::NoTriesLeft
                | Self::TooMany
        )
    }
}

impl Problem {
    /// Whether a configuration that has it was not read to its end: the default may be any
    /// entry.
    #[must_use]
    pub fn hides_default(&self) -> bool {
        matches!(
            self,
            Self::TooLarge | Self::Limit(_) | Self::More | Self::Unread { .. }
        )
    }

    /// Whether it says something about the default of a configuration.
    #[must_use]
    pub fn is_about_default(&self) -> bool {
        match self {
            Self::NoSuchDefault(_) | Self::NotAmong { .. } => true,
            Self::Doubtful { name, .. } => name == "default",
            other => other.hides_default(),
        }
    }
}

#[cfg(test)]
mod any_bytes_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut() {
        let long = "ä".repeat(1 << 20);
        let cut = format!("{}…", "ä".repeat(MAX_TOLD));
        let mut problems = Vec::new();
        let what = long.clone();
        note(&mut problems, Problem::NotFollowed { line: 1, what });
        let problem = Box::new(Problem::OtherProgram(long));
        let file = "a".to_owned();
        note(&mut problems, Problem::In { file, problem });
        let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(texts[0], format!("line 1: `{cut}` is not followed"));
        assert!(texts[1].ends_with(&format!("`{cut}`")), "{}", texts[1]);
        let short = "ä".repeat(MAX_TOLD);
        assert_eq!(told(short.clone()), short);
    }

    #[test]
    fn the_number_of_problems_has_a_bound() {
        let mut problems = Vec::new();
        for number in 0..MAX_PROBLEMS * 3 {
            note(&mut problems, Problem::Unset((number / 2).to_string()));
        }
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
        assert_eq!(problems.last(), Some(&Problem::More));
        assert_eq!(problems.first(), Some(&Problem::Unset("0".to_owned())));
        assert_eq!(problems.get(1), Some(&Problem::Unset("1".to_owned())));
    }
}
