//! What `rkexec arm` is told by its configuration file: a TOML document, every
//! key of which man/rkexec.toml.5 describes.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::base::{Syscall, parse_size};
use crate::cmdline::UNFIT_FOR_CRASH;
use crate::crash::HotplugChoice;
use crate::entries::choice;
use crate::job::{ArmRules, Line};
use crate::request::{DirectChoice, SyscallChoice};

/// Default path of the configuration.
pub const DEFAULT_PATH: &str = "/etc/rkexec.toml";
/// Largest configuration file read, bytes: one that says everything has about 1 KiB.
const MAX_FILE: u64 = 1 << 20;
/// What stands for the running kernel's release in a path.
const RELEASE: &str = "{release}";
/// How alike an unknown key must be to a known one to be taken for a slip of
/// the pen: Jaro-Winkler similarity, 0 to 1.
const ALIKE: f64 = 0.8;

/// The configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub struct Config {
    /// The crash kernel.
    pub kernel: KernelName,
    /// Which boot entry it is of, where it is one of a boot entry.
    #[serde(default)]
    pub entry: Option<Spanned<String>>,
    /// Its initrds, in order.
    #[serde(default)]
    pub initrd: Vec<FileName>,
    /// Which system call.
    #[serde(default)]
    pub syscall: SyscallName,
    /// Whether the kernel is to update elfcorehdr by itself.
    #[serde(default)]
    pub hotplug: HotplugChoice,
    /// Whether the loader unpacks and places the kernel itself.
    #[serde(default)]
    pub direct: DirectChoice,
    /// Whether purgatory verifies what was loaded.
    #[serde(default = "yes")]
    pub digest: bool,
    /// The smallest reservation that arming is tried with.
    #[serde(default)]
    pub minimum_reservation: Size,
    /// What is done on a machine that cannot be armed.
    #[serde(default)]
    pub when_impossible: WhenImpossible,
    /// How the command line is made.
    #[serde(default)]
    pub cmdline: CmdlineRules,
}

/// The command line of the crash kernel.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub struct CmdlineRules {
    /// Where it starts from: the running line, unless there is a `line`.
    pub base: Option<Base>,
    /// A line to start from.
    pub line: Option<Spanned<String>>,
    /// Text added.
    pub append: String,
    /// Parameters removed at last.
    pub remove: Vec<String>,
}

/// Where a command line starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Base {
    /// The running kernel's, without what belongs to that boot alone.
    Running,
    /// Nothing.
    Empty,
}

/// What is done on a machine that cannot be armed: one without a reservation,
/// with too small a one, or with a kernel that knows no crash kernels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhenImpossible {
    /// It is a failure.
    #[default]
    Fail,
    /// It is worth a warning.
    Warn,
}

/// `auto`, `kexec_load` or `kexec_file_load`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum SyscallName {
    #[default]
    Auto,
    KexecLoad,
    KexecFileLoad,
}

/// Where the crash kernel is: a file, or what a boot entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelName {
    /// This file.
    File(FileName),
    /// The kernel of a boot entry, and its initrds: `entry`.
    Entry,
}

/// An absolute path, perhaps with `{release}` in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FileName(String);

/// A number of bytes, written as a number or as a text with a suffix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Size(u64);

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("reading {} failed", crate::base::bytes::shown_name(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file says what cannot be.
    #[error("{}: {place}{what}", crate::base::bytes::shown_name(path))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The line and the key, each with a colon, as far as there are any.
        place: String,
        /// What is wrong.
        what: String,
        /// The known key that an unknown one resembles.
        meant: Option<String>,
    },
}

impl ConfigError {
    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound => Some(
                "rkexec.toml(5) has an example of a configuration; --config names another file"
                    .to_owned(),
            ),
            Self::Malformed {
                meant: Some(key), ..
            } => Some(format!("the key may be meant to be `{key}`")),
            _ => None,
        }
    }
}

impl Config {
    /// Reads the configuration in the file `path`.
    ///
    /// # Errors
    /// When it cannot be read, is larger than 1 MiB, or says what cannot be.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, path)
    }

    /// Parses the configuration `text`; `path` names it in errors.
    ///
    /// # Errors
    /// When it is no TOML, has an unknown key, lacks one that must be there, or
    /// a value that the key cannot have.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| malformed(text, path, &error))?;
        let refused = |key: &str, value: &Spanned<String>, what: &str| {
            Err(ConfigError::Malformed {
                path: path.to_owned(),
                place: format!("line {}: {key}: ", line_of(text, value.span().start)),
                what: what.to_owned(),
                meant: None,
            })
        };
        let what = "cmdline.base says already where the command line starts from";
        if let (Some(line), Some(_)) = (&config.cmdline.line, config.cmdline.base) {
            return refused("cmdline.line", line, what);
        }
        if let (Some(entry), KernelName::File(_)) = (&config.entry, &config.kernel) {
            return refused("entry", entry, "it goes only with kernel = \"entry\"");
        }
        Ok(config)
    }

    /// The boot entry whose kernel is the crash kernel: an id, a title, or one of the words
    /// of [`crate::entries::choice`]. `None`: the crash kernel is a file.
    #[must_use]
    pub fn entry(&self) -> Option<&str> {
        let named = self.entry.as_ref().map(|name| name.get_ref().as_str());
        match self.kernel {
            KernelName::File(_) => None,
            KernelName::Entry => Some(named.unwrap_or(choice::DEFAULT)),
        }
    }

    /// What this says of the crash kernel on a machine that runs the kernel `release`. Where
    /// there is an [`Self::entry`], that one says which kernel it is.
    #[must_use]
    pub fn rules(&self, release: &str) -> ArmRules {
        let cmdline = &self.cmdline;
        let line = cmdline.line.as_ref();
        let remove = cmdline.remove.iter().map(|word| word.as_str().into());
        ArmRules {
            kernel: match &self.kernel {
                KernelName::File(name) => name.path(release),
                KernelName::Entry => PathBuf::new(),
            },
            profile: None,
            addons: Vec::new(),
            hashes: Vec::new(),
            initrds: self.initrd.iter().map(|name| name.path(release)).collect(),
            line: Line {
                given: line.map(|line| line.get_ref().as_str().into()),
                running: cmdline.base != Some(Base::Empty),
                append: vec![cmdline.append.as_str().into()],
                remove: remove.collect(),
            },
            syscall: match self.syscall {
                SyscallName::Auto => SyscallChoice::Auto,
                SyscallName::KexecLoad => SyscallChoice::Only(Syscall::KexecLoad),
                SyscallName::KexecFileLoad => SyscallChoice::Only(Syscall::KexecFileLoad),
            },
            hotplug: self.hotplug,
            direct: self.direct,
            digest: self.digest,
        }
    }

    /// The smallest reservation that arming is tried with, bytes.
    #[must_use]
    pub const fn minimum_reservation(&self) -> u64 {
        self.minimum_reservation.0
    }
}

impl Default for CmdlineRules {
    /// The running line, made fit for a kernel in a small piece of memory.
    fn default() -> Self {
        Self {
            base: None,
            line: None,
            append: "nr_cpus=1 reset_devices".to_owned(),
            remove: UNFIT_FOR_CRASH.map(str::to_owned).to_vec(),
        }
    }
}

impl FileName {
    fn path(&self, release: &str) -> PathBuf {
        self.0.replace(RELEASE, release).into()
    }
}

/// The word for a boot entry in the place of a path.
const ENTRY: &str = "entry";

impl<'de> Deserialize<'de> for KernelName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == ENTRY {
            Ok(Self::Entry)
        } else if Path::new(&name).is_absolute() {
            Ok(Self::File(FileName(name)))
        } else {
            Err(D::Error::custom(format!(
                "`{name}` is neither an absolute path nor `{ENTRY}`"
            )))
        }
    }
}

impl Serialize for KernelName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::File(name) => name.serialize(serializer),
            Self::Entry => serializer.serialize_str(ENTRY),
        }
    }
}

impl<'de> Deserialize<'de> for FileName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if Path::new(&name).is_absolute() {
            Ok(Self(name))
        } else {
            Err(D::Error::custom(format!(
                "`{name}` is not an absolute path"
            )))
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a size such as \"128M\"")]
        enum Written {
            Number(u64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(bytes) => Ok(Self(bytes)),
            Written::Text(text) => parse_size(&text)
                .map(Self)
                .map_err(|error| D::Error::custom(format!("`{text}` is {error}"))),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

const fn yes() -> bool {
    true
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let mut text = String::new();
    let result = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .and_then(|_| {
            if text.len() as u64 > MAX_FILE {
                return Err(io::Error::new(
                    io::ErrorKind::FileTooLarge,
                    "larger than 1 MiB",
                ));
            }
            Ok(())
        });
    match result {
        Ok(()) => Ok(text),
        Err(source) => Err(ConfigError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Puts what the TOML parser says into words that name file, line and key.
fn malformed(text: &str, path: &Path, error: &toml::de::Error) -> ConfigError {
    let said = error.message();
    let span = error.span().unwrap_or_default();
    let document = DeTable::parse(text).ok();
    let key = document.and_then(|document| key_at(document.get_ref(), span.start));
    let (unknown, missing) = (
        said.starts_with("unknown field"),
        said.starts_with("missing field"),
    );
    let mut place = String::new();
    if !missing {
        place += &format!("line {}: ", line_of(text, span.start));
        // Of an unknown or repeated key, what is said names it.
        if let Some(key) = key
            && !unknown
        {
            place += &format!("{key}: ");
        }
    }
    let written = text.get(span).unwrap_or_default();
    ConfigError::Malformed {
        path: path.to_owned(),
        place,
        // TOML has keys and values, and the parser adds lines about what it expected.
        what: said
            .trim_end()
            .replace('\n', ", ")
            .replacen(" field `", " key `", 1)
            .replacen("unknown variant `", "unknown value `", 1),
        meant: unknown.then(|| resembles(written, said)).flatten(),
    }
}

/// The number, from 1, of the line that holds the byte `at`.
fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The dotted name of the key whose value holds the byte `at` of the document.
fn key_at(table: &DeTable<'_>, at: usize) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let name = key.get_ref();
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(rest) = key_at(inner, at)
        {
            return Some(format!("{name}.{rest}"));
        }
        value.span().contains(&at).then(|| name.to_string())
    })
}

/// The key that `written` resembles most, of those that the parser's message
/// names between backticks.
fn resembles(written: &str, message: &str) -> Option<String> {
    let expected = message.split_once("expected").map(|(_, list)| list)?;
    let likeness = |key: &str| strsim::jaro_winkler(written, key);
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .filter(|key| likeness(key) > ALIKE)
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .map(str::to_owned)
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
