//! What the kernel in an image was configured for, and where that was read.
//!
//! The configuration inside the image (CONFIG_IKCONFIG) counts first. A file named
//! after the release may be from another build of it, so its CONFIG_OF is checked
//! against the strings in the kernel.
//!
//! This unpacks the kernel: half a second and as much memory as the unpacked
//! kernel and its dictionary take. Nothing but `inspect` and pools needs it.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use memchr::memmem;
use serde::Serialize;

use super::kho::{self, Formats, KhoTarget};
use crate::abi::x86::setup_data::SETUP_INDIRECT;
use crate::host::{Root, door};
use crate::image::LinuxKernel;
use crate::image::decompress::DecompressError;
use crate::image::ikconfig;
use crate::image::unpacked::{Unpacked, UnpackedError};
use crate::kconfig::{KernelConfig, MAX_CONFIG};

/// Written by drivers/of/base.c (`of_core_init`) and nothing else, since Linux
/// 3.15: a kernel that has it has CONFIG_OF.
const OF_ONLY: &[u8] = b"/sys/firmware/devicetree/base";
/// Written by drivers/of/device.c (`of_device_uevent`), which every kernel with
/// CONFIG_OF has: one without it has no CONFIG_OF.
const OF_ALWAYS: &[u8] = b"OF_NAME=";

/// Where the image's own configuration is.
const INSIDE: &str = "IKCONFIG in the image";

/// An answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    /// It is so.
    Yes,
    /// It is not.
    No,
    /// No source tells, or two sources contradict each other.
    Unknown,
}

impl Fact {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether the kernel was built with a symbol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConfigFact {
    /// The answer.
    pub value: Fact,
    /// Where it was read, for people.
    pub read_from: String,
}

/// What the kernel in an image can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capability {
    /// CONFIG_OF: it looks at a device tree.
    pub of: ConfigFact,
    /// CONFIG_PMPOOL: it takes pools back.
    pub pmpool: ConfigFact,
    /// CONFIG_RANDOMIZE_BASE: it chooses its own place in memory.
    pub randomize_base: ConfigFact,
    /// What it understands of Kexec Handover.
    pub kho: KhoTarget,
    /// The highest setup_data type it knows, see [`LinuxKernel`].
    pub setup_type_max: Option<u32>,
    /// Size of the unpacked kernel, bytes; or why it could not be unpacked.
    pub unpacked: Result<usize, DecompressError>,
    /// Whether the loader can run it at any virtual address (KASLR); or why it cannot
    /// place it itself at all.
    pub direct: Result<bool, UnpackedError>,
    /// Sources that were found but could not be used.
    pub notes: Vec<String>,
}

impl Capability {
    /// Why its texts tell nothing, for people.
    #[must_use]
    pub fn untold(&self) -> String {
        match &self.unpacked {
            Err(why) => format!("it cannot be unpacked: {why}"),
            Ok(_) => "no text in it tells".to_owned(),
        }
    }

    /// Reads the configuration of `image`: the one inside it, else
    /// config-RELEASE beside it (in a directory RELEASE also `config`), else
    /// /boot/config-RELEASE and RELEASE/config in /lib/modules or /usr/lib/modules below `root`.
    ///
    /// Nothing here fails: what cannot be read adds a note and leaves its facts unknown.
    #[must_use]
    pub fn read(image: &LinuxKernel<'_>, image_path: &Path, root: &Root) -> Self {
        let mut notes = Vec::new();
        let kernel = image.unpacked();
        let (inside, strings) = match &kernel {
            Ok(kernel) => (inside(kernel, &mut notes), Strings::of(kernel)),
            Err(error) => {
                notes.push(format!("the kernel in the image: {error}"));
                (None, Strings::default())
            }
        };
        let unpacked = kernel
            .as_ref()
            .map(|kernel| kernel.len())
            .map_err(Clone::clone);
        let direct = match kernel {
            _ if image.payload.is_empty() => Err(UnpackedError::NoPayload),
            Ok(kernel) => Unpacked::read(kernel, image).map(|kernel| kernel.is_relocatable()),
            Err(error) => Err(error.into()),
        };
        let found = match inside {
            Some(config) => Found::Certain(INSIDE.to_owned(), config),
            None => match file(image.release(), image_path, root, &mut notes) {
                Some((from, config)) => checked(from, config, &strings),
                None => Found::Nothing,
            },
        };
        Self {
            of: found.or_guessed("CONFIG_OF", strings.of),
            pmpool: match (found.fact("CONFIG_PMPOOL"), strings.pmpool) {
                (fact, false) if fact.value == Fact::Yes && fact.read_from != INSIDE => {
                    ConfigFact {
                        value: Fact::Unknown,
                        read_from: format!(
                            "{} says yes, but no text in the kernel file does",
                            fact.read_from
                        ),
                    }
                }
                (fact, _) => fact,
            },
            randomize_base: found.fact("CONFIG_RANDOMIZE_BASE"),
            kho: KhoTarget {
                built: found.or_guessed("CONFIG_KEXEC_HANDOVER", strings.kho),
                ..KhoTarget::new(strings.formats, |symbol| found.fact(symbol))
            },
            setup_type_max: image.setup_type_max,
            direct,
            unpacked,
            notes,
        }
    }

    /// Whether the image itself says that it never chooses its own place. A file beside
    /// it does not count: it may be of another build, and a mistake would cost a pool.
    #[must_use]
    pub fn surely_stays_put(&self) -> bool {
        let fact = &self.randomize_base;
        fact.value == Fact::No && fact.read_from == INSIDE
    }

    /// Whether it knows SETUP_INDIRECT nodes: kernel_info names the highest type,
    /// with that bit, since the kernel has them (Linux 5.5).
    #[must_use]
    pub fn knows_indirect(&self) -> bool {
        self.setup_type_max
            .is_some_and(|max| max & SETUP_INDIRECT != 0)
    }

    /// Nothing is known.
    #[must_use]
    pub fn unknown() -> Self {
        let fact = || Found::Nothing.fact("");
        Self {
            of: fact(),
            pmpool: fact(),
            randomize_base: fact(),
            kho: KhoTarget::new(kho::UNKNOWN, |_| fact()),
            setup_type_max: None,
            unpacked: Ok(0),
            direct: Err(UnpackedError::NoPayload),
            notes: Vec::new(),
        }
    }

    /// The facts by the name of their symbol.
    #[must_use]
    pub fn facts(&self) -> Vec<(&'static str, &ConfigFact)> {
        let own = [
            ("CONFIG_OF", &self.of),
            ("CONFIG_PMPOOL", &self.pmpool),
            ("CONFIG_RANDOMIZE_BASE", &self.randomize_base),
        ];
        own.into_iter().chain(self.kho.facts()).collect()
    }
}

/// The configuration that was found.
enum Found {
    /// One that belongs to this kernel, and where it is from.
    Certain(String, KernelConfig),
    /// One that is not this kernel's, and why.
    Doubtful(String),
    /// None.
    Nothing,
}

impl Found {
    fn fact(&self, symbol: &str) -> ConfigFact {
        let (value, read_from) = match self {
            Self::Certain(from, config) => (value(config, symbol), from.clone()),
            Self::Doubtful(why) => (Fact::Unknown, why.clone()),
            Self::Nothing => (
                Fact::Unknown,
                "no /boot/config-RELEASE, and none in the kernel file".to_owned(),
            ),
        };
        ConfigFact { value, read_from }
    }

    /// What the configuration says of `symbol`, and without one what texts in the kernel do.
    fn or_guessed(&self, symbol: &str, texts: Fact) -> ConfigFact {
        match (self, texts) {
            (Self::Nothing, Fact::Yes | Fact::No) => ConfigFact {
                value: texts,
                read_from: "guessed from texts in the kernel file".to_owned(),
            },
            _ => self.fact(symbol),
        }
    }
}

/// Whether `config` has `symbol` built in.
fn value(config: &KernelConfig, symbol: &str) -> Fact {
    match config.built_in(symbol) {
        Some(true) => Fact::Yes,
        Some(false) => Fact::No,
        None => Fact::Unknown,
    }
}

/// The configuration inside the unpacked kernel.
fn inside(kernel: &[u8], notes: &mut Vec<String>) -> Option<KernelConfig> {
    match ikconfig::find(kernel) {
        Ok(config) => config,
        Err(error) => {
            notes.push(error.to_string());
            None
        }
    }
}

/// What strings in the unpacked kernel tell.
#[derive(Debug, Clone)]
struct Strings {
    /// CONFIG_OF, by the strings `OF_ONLY` and `OF_ALWAYS`.
    of: Fact,
    /// The word `pmpool`, without which no kernel reads the parameter.
    pmpool: bool,
    /// CONFIG_KEXEC_HANDOVER.
    kho: Fact,
    /// The formats of Kexec Handover that it reads.
    formats: Formats,
}

impl Default for Strings {
    fn default() -> Self {
        Self {
            of: Fact::Unknown,
            pmpool: false,
            kho: Fact::Unknown,
            formats: kho::UNKNOWN,
        }
    }
}

impl Strings {
    fn of(kernel: &[u8]) -> Self {
        let is_kernel = kernel.starts_with(b"\x7fELF");
        let has = |string: &[u8]| memmem::find(kernel, string).is_some();
        let of = match (has(OF_ONLY), has(OF_ALWAYS)) {
            (true, true) if is_kernel => Fact::Yes,
            (false, false) if is_kernel => Fact::No,
            _ => Fact::Unknown,
        };
        let formats = kho::formats(kernel);
        Self {
            of,
            pmpool: has(b"pmpool"),
            kho: kho::is_built(kernel, &formats),
            formats,
        }
    }
}

/// A file's configuration, unless the kernel itself contradicts it.
fn checked(from: String, config: KernelConfig, strings: &Strings) -> Found {
    let told = [
        ("CONFIG_OF", strings.of),
        ("CONFIG_KEXEC_HANDOVER", strings.kho),
    ];
    let contradicted = told.into_iter().find(|(symbol, told)| {
        matches!(
            (value(&config, symbol), told),
            (Fact::Yes, Fact::No) | (Fact::No, Fact::Yes)
        )
    });
    match contradicted {
        Some((symbol, told)) => Found::Doubtful(format!(
            "{from} is of another build: texts in the kernel file say {} to {symbol}",
            told.name()
        )),
        None => Found::Certain(from, config),
    }
}

/// The configuration of the kernel `release`, of a file beside its image `image_path` or below
/// `root`, and where that is; `None`: there is none, or it cannot be read.
#[must_use]
pub fn config_file(
    release: Option<&str>,
    image_path: &Path,
    root: &Root,
) -> Option<(String, KernelConfig)> {
    file(release, image_path, root, &mut Vec::new())
}

/// The configuration that goes by the image's release, and where it is.
fn file(
    release: Option<&str>,
    image_path: &Path,
    root: &Root,
    notes: &mut Vec<String>,
) -> Option<(String, KernelConfig)> {
    // The release comes from a file and becomes part of a path.
    let release = release.filter(|release| !release.contains('/'))?;
    let name = format!("config-{release}");
    let at_root = [
        format!("/boot/{name}"),
        format!("/lib/modules/{release}/config"),
        format!("/usr/lib/modules/{release}/config"),
    ];
    let read = |path: PathBuf| {
        let file = door::open_regular(&path);
        file.and_then(|file| door::read_all(file, MAX_CONFIG as u64))
    };
    // A bare file name has the parent "", which is the current directory.
    let parent = image_path.parent();
    let beside = parent.map(|dir| (read(dir.join(&name)), format!("{name} beside the image")));
    // /usr/lib/modules/RELEASE holds the kernel as `vmlinuz` and this as `config`.
    let own = parent
        .filter(|dir| dir.file_name().is_some_and(|name| name == release))
        .map(|dir| {
            (
                read(dir.join("config")),
                "config beside the image".to_owned(),
            )
        });
    let at_root = at_root
        .into_iter()
        .map(|path| (root.read_limited(&path, MAX_CONFIG as u64), path));
    beside
        .into_iter()
        .chain(own)
        .chain(at_root)
        .find_map(|(text, from)| match there(text) {
            Ok(None) => None,
            Ok(Some(text)) => match KernelConfig::parse(&text) {
                Some(config) => Some((from, config)),
                None => {
                    notes.push(format!("{from}: no line sets a symbol"));
                    None
                }
            },
            Err(error) => {
                notes.push(format!("{from}: {error}"));
                None
            }
        })
}

/// What was read; `None` when there is no file of that name.
fn there(text: io::Result<Vec<u8>>) -> io::Result<Option<Vec<u8>>> {
    match text {
        Ok(text) => Ok(Some(text)),
        // A directory or another non-regular file counts as missing.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidInput
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "capability_tests.rs"]
mod tests;
