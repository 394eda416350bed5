//! grub.cfg of GRUB 2, as distributions generate it.
//!
//! Source: the GRUB manual. The configuration is carried out as GRUB does it, as far as a
//! program can that has GRUB's files but not its place: variables, conditions, functions,
//! other files, the environment block, `blscfg`. What only GRUB can answer (`hwmatch`,
//! `regexp`, `probe`, loops over devices) is taken for false, and every variable that hangs
//! on it is doubtful: an entry that uses one says so.
//!
//! | file | what is in it |
//! |---|---|
//! | `syntax` | words, commands and blocks |
//! | `env` | variables, and the words that they make |
//! | `condition` | `[ … ]` and `test` |
//! | `run` | statements, and most commands |
//! | `commands` | the commands that set variables |
//! | `boot` | the commands of an entry |
//! | `blscfg` | entries of the Boot Loader Specification, as Fedora's GRUB has them |
//! | `menu` | entries, submenus, and which one is started |

mod blscfg;
mod boot;
mod commands;
mod condition;
mod env;
mod menu;
mod run;
mod syntax;

use super::{MAX_ENTRIES, Problem, note};

pub use run::read;

/// Where GRUB looks for a file system.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fs {
    /// The one that the configuration lies on.
    Config,
    /// The one with this UUID (`search --fs-uuid`).
    Uuid(String),
    /// The one with this label (`search --label`).
    Label(String),
    /// The one that holds this file (`search --file`).
    Holding(String),
    /// A device by GRUB's own name: `hd0,gpt2`.
    Device(String),
}

/// The name of [`Fs::Config`] as a device. GRUB has none that begins so.
const CONFIG: &str = "@config";

impl Fs {
    /// The file system that a device name means: one of GRUB's, or one that [`Fs::device`]
    /// made.
    fn of_device(device: &str) -> Self {
        let named = |prefix| device.strip_prefix(prefix).map(str::to_owned);
        match device {
            "" | CONFIG => Self::Config,
            _ => (named("@uuid:").map(Self::Uuid))
                .or_else(|| named("@label:").map(Self::Label))
                .or_else(|| named("@file:").map(Self::Holding))
                .unwrap_or_else(|| Self::Device(device.to_owned())),
        }
    }

    /// The value of `$root` for it.
    fn device(&self) -> String {
        match self {
            Self::Config => CONFIG.to_owned(),
            Self::Uuid(uuid) => format!("@uuid:{uuid}"),
            Self::Label(label) => format!("@label:{label}"),
            Self::Holding(file) => format!("@file:{file}"),
            Self::Device(device) => device.clone(),
        }
    }
}

impl std::fmt::Display for Fs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Config => f.write_str("the file system of grub.cfg"),
            Self::Uuid(uuid) => write!(f, "the file system with the UUID {uuid}"),
            Self::Label(label) => write!(f, "the file system with the label {label}"),
            Self::Holding(file) => write!(f, "the file system that holds {file}"),
            Self::Device(device) => write!(f, "GRUB's device ({device})"),
        }
    }
}

/// A file as GRUB names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileRef {
    /// The file system.
    pub on: Fs,
    /// The path from its root.
    pub path: String,
}

impl FileRef {
    /// A file on the file system of the configuration.
    #[must_use]
    pub fn of_config(path: &str) -> Self {
        Self {
            on: Fs::Config,
            path: path.to_owned(),
        }
    }

    /// `(device)/path`, or a path on the device `root`.
    fn parse(text: &str, root: &str) -> Self {
        let named = text.strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let (device, path) = named.unwrap_or((root, text));
        Self {
            on: Fs::of_device(device),
            path: path.to_owned(),
        }
    }
}

/// What a configuration asks of the machine that it is for.
pub trait Files {
    /// Whether there is a regular file.
    fn is_file(&self, file: &FileRef) -> bool;
    /// Whether there is a directory.
    fn is_dir(&self, file: &FileRef) -> bool;
    /// The bytes of a file, at most [`super::MAX_FILE`] and one.
    ///
    /// # Errors
    /// Why it cannot be read.
    fn read(&self, file: &FileRef) -> Result<Vec<u8>, String>;
    /// The names in a directory; `None`: there is none.
    fn list(&self, directory: &FileRef) -> Option<Vec<String>>;
}

/// The configuration, and the machine it is for.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its path on its file system.
    pub path: String,
    /// GRUB is a program of EFI firmware.
    pub efi: bool,
}

/// What an entry starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Boot {
    /// The kernel, or the hypervisor.
    pub kernel: Option<FileRef>,
    /// Its command line, without BOOT_IMAGE, which GRUB puts before it.
    pub cmdline: String,
    /// The initrds, in order.
    pub initrds: Vec<FileRef>,
    /// The modules, each with its arguments.
    pub modules: Vec<(FileRef, String)>,
    /// The device tree.
    pub devicetree: Option<FileRef>,
}

/// An entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// The id, else the title; within submenus behind theirs, with `>` between them. It is
    /// what grub-reboot takes.
    pub id: String,
    /// The title.
    pub title: String,
    /// The position in the menu, with `>` between the numbers.
    pub position: String,
    /// It is a file of the Boot Loader Specification (`blscfg`).
    pub from_bls: bool,
    /// The version that a file of the Boot Loader Specification has.
    pub version: Option<String>,
    /// What it starts.
    pub boot: Boot,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// A configuration that was carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The entries in the order of the menu, submenus included.
    pub entries: Vec<Entry>,
    /// What is started when nobody chooses, a number in `entries`.
    pub default: Option<usize>,
    /// What is started once, before the default, when that is another entry.
    pub one_shot: Option<usize>,
    /// What is wrong with the configuration as a whole.
    pub problems: Vec<Problem>,
}

#[cfg(test)]
mod tests;
