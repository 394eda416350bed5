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
use crate::job::{ArmRules, Line};
use crate::request::SyscallChoice;

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
    pub kernel: FileName,
    /// Its initrds, in order.
    #[serde(default)]
    pub initrd: Vec<FileName>,
    /// Which system call.
    #[serde(default)]
    pub syscall: SyscallName,
    /// Whether the kernel is to update elfcorehdr by itself.
    #[serde(default)]
    pub hotplug: HotplugChoice,
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
        match (&config.cmdline.line, config.cmdline.base) {
            (Some(line), Some(_)) => Err(ConfigError::Malformed {
                path: path.to_owned(),
                place: format!("line {}: cmdline.line: ", line_of(text, line.span().start)),
                what: "cmdline.base says already where the command line starts from".to_owned(),
                meant: None,
            }),
            _ => Ok(config),
        }
    }

    /// What this says of the crash kernel on a machine that runs the kernel `release`.
    #[must_use]
    pub fn rules(&self, release: &str) -> ArmRules {
        let cmdline = &self.cmdline;
        let line = cmdline.line.as_ref();
        let remove = cmdline.remove.iter().map(|word| word.as_str().into());
        ArmRules {
            kernel: self.kernel.path(release),
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
mod tests {
    use super::*;
    use crate::cmdline::{CmdlineBase, CmdlineRequest};
    use serde_json::Value;

    const PAGE: &str = include_str!("../../man/rkexec.toml.5");

    fn parse(text: &str) -> Config {
        Config::parse(text, Path::new("/etc/rkexec.toml")).unwrap()
    }

    /// What is said of a text that is wrong, and the hint.
    fn error(text: &str) -> (String, Option<String>) {
        let error = Config::parse(text, Path::new("f.toml")).unwrap_err();
        (error.to_string(), error.hint())
    }

    #[test]
    fn one_key_is_enough() {
        let config = parse("kernel = \"/boot/vmlinuz-{release}\"\n");
        let rules = config.rules("6.12.1-x");
        assert_eq!(rules.kernel, Path::new("/boot/vmlinuz-6.12.1-x"));
        assert!(rules.initrds.is_empty() && rules.digest);
        assert_eq!(rules.syscall, SyscallChoice::Auto);
        assert_eq!(rules.hotplug, HotplugChoice::Auto);
        assert_eq!(config.minimum_reservation(), 0);
        assert_eq!(config.when_impossible, WhenImpossible::Fail);
        assert_eq!((rules.line.given, rules.line.running), (None, true));
        assert_eq!(rules.line.append, ["nr_cpus=1 reset_devices"]);
        assert!(rules.line.remove.contains(&"crashkernel".into()));
    }

    #[test]
    fn what_is_said_of_the_crash_kernel() {
        let config = parse(
            "kernel = '/boot/vmlinuz-{release}'
             initrd = ['/i-{release}', '/j']
             syscall = 'kexec_load'
             hotplug = 'off'
             digest = false
             [cmdline]
             base = 'empty'
             append = 'a b'
             remove = ['c', 'd=e']",
        );
        let rules = ArmRules {
            kernel: "/boot/vmlinuz-6.1".into(),
            initrds: vec!["/i-6.1".into(), "/j".into()],
            line: Line {
                given: None,
                running: false,
                append: vec!["a b".into()],
                remove: vec!["c".into(), "d=e".into()],
            },
            syscall: SyscallChoice::Only(Syscall::KexecLoad),
            hotplug: HotplugChoice::Off,
            digest: false,
        };
        assert_eq!(config.rules("6.1"), rules);
    }

    #[test]
    fn a_line_is_made_in_three_ways() {
        let line = |rules: &str| {
            let config = parse(&format!("kernel = '/k'\n[cmdline]\n{rules}"));
            config.rules("6.1").line
        };
        let base = |rules: &str| CmdlineRequest::from(line(rules)).base;
        assert_eq!(base("base = 'running'"), CmdlineBase::Running);
        assert_eq!(base("base = 'empty'"), CmdlineBase::Empty);
        let given = line("line = 'root=/dev/sda'\nappend = ''\nremove = []");
        assert_eq!(given.given, Some("root=/dev/sda".into()));
        assert_eq!(given.append, [""]);
        assert!(given.remove.is_empty());
    }

    #[test]
    fn sizes_with_and_without_suffix() {
        let minimum = |value: &str| {
            parse(&format!("kernel = '/k'\nminimum_reservation = {value}")).minimum_reservation()
        };
        assert_eq!(minimum("'192M'"), 192 << 20);
        assert_eq!(minimum("4096"), 4096);
        assert_eq!(minimum("'0x1000'"), 4096);
    }

    #[test]
    fn errors_name_file_line_and_key() {
        for (text, said) in [
            ("initrd = []", "f.toml: missing key `kernel`"),
            (
                "kernel = '/k'\n[cmdline]\nappend = 3",
                "f.toml: line 3: cmdline.append: invalid type: integer `3`, expected a string",
            ),
            (
                "kernel = '/k'\ncmdline = {remove = ['a', 3]}",
                "f.toml: line 2: cmdline.remove: invalid type: integer `3`, expected a string",
            ),
            (
                "kernel = '/k'\ncmdline = 4",
                "f.toml: line 2: cmdline: invalid type: integer `4`, expected a table",
            ),
            (
                "kernel = '/k'\nsyscall = 'kexec'",
                "f.toml: line 2: syscall: unknown value `kexec`, expected one of `auto`, `kexec_load`, `kexec_file_load`",
            ),
            (
                "kernel = '/k'\ninitrd = [\n'/a',\n'b']",
                "f.toml: line 2: initrd: `b` is not an absolute path",
            ),
            (
                "kernel = '/k'\n\nminimum_reservation = '10X'",
                "f.toml: line 3: minimum_reservation: `10X` is not a number of bytes: write it like 64M or 0x4000000 (suffix K, M, G or T, no MiB, no decimal point)",
            ),
            (
                "kernel = '/k'\nminimum_reservation = -1",
                "f.toml: line 2: minimum_reservation: expected a size such as \"128M\"",
            ),
            (
                "kernel = '/k'\nkernel = '/l'",
                "f.toml: line 2: duplicate key",
            ),
            (
                "\nkernel = /k",
                "f.toml: line 2: string values must be quoted, expected literal string",
            ),
            (
                "kernel = '/k'\n[cmdline]\nbase = 'empty'\nline = 'x'",
                "f.toml: line 4: cmdline.line: cmdline.base says already where the command line starts from",
            ),
        ] {
            assert_eq!(error(text), (said.to_owned(), None), "{text}");
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_the_nearest_known_one() {
        let (said, hint) = error("kernel = '/k'\ninitrds = []");
        let known = "expected one of `kernel`, `initrd`, `syscall`, `hotplug`, `digest`, \
                     `minimum_reservation`, `when_impossible`, `cmdline`";
        assert_eq!(
            said,
            format!("f.toml: line 2: unknown key `initrds`, {known}")
        );
        assert_eq!(hint.as_deref(), Some("the key may be meant to be `initrd`"));
        let (said, hint) = error("kernel = '/k'\n[cmdline]\n\napend = ''");
        assert!(
            said.starts_with("f.toml: line 4: unknown key `apend`, "),
            "{said}"
        );
        assert_eq!(hint.as_deref(), Some("the key may be meant to be `append`"));
        let (said, hint) = error("kernel = '/k'\n[crash]\nx = 1");
        assert!(
            said.starts_with("f.toml: line 2: unknown key `crash`, "),
            "{said}"
        );
        assert_eq!(hint, None);
    }

    #[test]
    fn a_file_that_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rkexec.toml");
        let missing = Config::read(&path).unwrap_err();
        assert!(missing.hint().unwrap().contains("rkexec.toml(5)"));
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(MAX_FILE + 1).unwrap();
        let ConfigError::Read { source, .. } = Config::read(&path).unwrap_err() else {
            panic!("not refused for its size");
        };
        assert_eq!(source.kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(&path, b"kernel = \xff").unwrap();
        assert!(Config::read(&path).is_err());
        std::fs::write(&path, b"kernel = '/k'").unwrap();
        assert_eq!(Config::read(&path).unwrap(), parse("kernel = '/k'"));
    }

    /// The keys of a configuration as the man page writes them.
    fn keys(value: &Value, before: &str, into: &mut Vec<String>) {
        for (key, value) in value.as_object().unwrap() {
            let name = format!("{before}{key}");
            if value.is_object() {
                keys(value, &format!("{name}."), into);
            } else {
                into.push(name);
            }
        }
    }

    /// Lines of the page between `.Bd` and `.Ed`.
    fn example() -> String {
        let lines = PAGE.lines().skip_while(|line| !line.starts_with(".Bd"));
        let lines = lines.skip(1).take_while(|line| !line.starts_with(".Ed"));
        let lines: Vec<String> = lines
            .map(|line| line.replace("\\(dq", "\"").replace("\\-", "-"))
            .collect();
        lines.join("\n")
    }

    #[test]
    fn the_man_page_has_every_key_and_its_example_says_them_all() {
        let serialized = serde_json::to_value(parse("kernel = '/k'")).unwrap();
        let mut known = Vec::new();
        keys(&serialized, "", &mut known);
        assert!(known.len() > 10, "{known:?}");
        let mut described: Vec<&str> = PAGE
            .lines()
            .filter_map(|line| line.strip_prefix(".It Ic "))
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let example = example();
        let config = parse(&example);
        assert_eq!(config.minimum_reservation(), 192 << 20);
        let defaults = Config {
            kernel: config.kernel.clone(),
            initrd: config.initrd.clone(),
            minimum_reservation: config.minimum_reservation,
            cmdline: CmdlineRules {
                base: Some(Base::Running),
                ..CmdlineRules::default()
            },
            ..parse("kernel = '/k'")
        };
        assert_eq!(config, defaults);
        for key in &known {
            let last = key.rsplit('.').next().unwrap();
            // Of two keys that exclude each other, the example shows one.
            if key != "cmdline.line" {
                let shown = example.lines().any(|line| {
                    let name = line.split('=').next().unwrap_or(line);
                    name.trim() == last
                });
                assert!(shown, "the example lacks {key}");
            }
        }
        known.sort_unstable();
        described.sort_unstable();
        assert_eq!(described, known);
    }
}
