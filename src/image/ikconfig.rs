//! The configuration a kernel was built with: the text, and where CONFIG_IKCONFIG
//! keeps it inside the kernel (kernel/configs.c, scripts/extract-ikconfig).

use std::collections::BTreeMap;

use memchr::memmem;

use super::decompress::{self, Compression, DecompressError};

/// Before the configuration.
const START: &[u8] = b"IKCFG_ST";
/// Behind it.
const END: &[u8] = b"IKCFG_ED";
/// Largest configuration, bytes: those of distributions have 300 KB.
pub const MAX_CONFIG: usize = 4 << 20;

/// A kernel's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KernelConfig {
    values: BTreeMap<String, Symbol>,
}

/// What a configuration says of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Symbol {
    /// `CONFIG_X=y`
    Yes,
    /// `CONFIG_X=m`
    Module,
    /// `# CONFIG_X is not set`
    NotSet,
    /// `CONFIG_X=…`: a number, or a string with its quotes.
    Value(String),
}

/// Why the configuration inside a kernel cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IkconfigError {
    /// It begins and does not end.
    #[error("IKCONFIG: no IKCFG_ED behind IKCFG_ST")]
    NoEnd,
    /// It cannot be unpacked.
    #[error("IKCONFIG: {0}")]
    Decompress(#[from] DecompressError),
    /// It is no configuration.
    #[error("IKCONFIG: no line sets a symbol")]
    NoSymbols,
}

impl KernelConfig {
    /// Reads the text of a configuration. `None`: no line of it sets a symbol.
    ///
    /// As with Kconfig itself, other lines mean nothing and the last of several
    /// lines for a symbol holds.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let lines = text.split(|byte| *byte == b'\n');
        let values: BTreeMap<_, _> = lines.filter_map(symbol).collect();
        (!values.is_empty()).then_some(Self { values })
    }

    /// What is said of `symbol`, with `CONFIG_` in front; `None` when nothing is.
    #[must_use]
    pub fn get(&self, symbol: &str) -> Option<&Symbol> {
        self.values.get(symbol)
    }

    /// The symbols, by name.
    pub fn symbols(&self) -> impl Iterator<Item = (&str, &Symbol)> {
        self.values.iter().map(|(name, value)| (&**name, value))
    }

    /// Whether this is the whole configuration of an x86_64 kernel, no fragment:
    /// one that lists a symbol no fragment and no defconfig has to set. What a
    /// whole one does not mention has dependencies that are not met.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.get("CONFIG_X86_64") == Some(&Symbol::Yes)
    }
}

/// The symbol that a line sets.
fn symbol(line: &[u8]) -> Option<(String, Symbol)> {
    let line = std::str::from_utf8(line).ok()?.trim_ascii_end();
    let (name, value) = match line.strip_prefix("# ") {
        Some(comment) => (comment.strip_suffix(" is not set")?, Symbol::NotSet),
        None => match line.split_once('=')? {
            (name, "y") => (name, Symbol::Yes),
            (name, "m") => (name, Symbol::Module),
            // Kconfig reads it, but writes the comment.
            (name, "n") => (name, Symbol::NotSet),
            (name, value) => (name, Symbol::Value(value.to_owned())),
        },
    };
    let word = name.strip_prefix("CONFIG_")?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (!word.is_empty() && word.bytes().all(is_name)).then(|| (name.to_owned(), value))
}

/// The configuration inside an unpacked kernel. `None`: it has none
/// (CONFIG_IKCONFIG is off, or a module).
///
/// # Errors
/// When there is one that is damaged.
pub fn find(vmlinux: &[u8]) -> Result<Option<KernelConfig>, IkconfigError> {
    // The marks may also be words in the code of something that looks for them.
    let mut found = memmem::find_iter(vmlinux, START).filter_map(|at| {
        let behind = vmlinux.get(at + START.len()..)?;
        (decompress::compression(behind) == Some(Compression::Gzip)).then_some(behind)
    });
    let Some(behind) = found.next() else {
        return Ok(None);
    };
    let end = memmem::find(behind, END).ok_or(IkconfigError::NoEnd)?;
    let packed = behind.get(..end).unwrap_or_default();
    let text = decompress::decompress(packed, MAX_CONFIG)?;
    let config = KernelConfig::parse(&text).ok_or(IkconfigError::NoSymbols)?;
    Ok(Some(config))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "\
#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.12.0 Kernel Configuration
#
CONFIG_X86_64=y
CONFIG_IKCONFIG=m
CONFIG_CMDLINE=\"a=b # CONFIG_OF is not set\"
CONFIG_NR_CPUS=64
# CONFIG_OF is not set
# CONFIG_ is not set
# CONFIG_A B is not set
 CONFIG_INDENTED=y
NOT_A_SYMBOL=y
CONFIG_OLD=n
CONFIG_TWICE=y
# CONFIG_TWICE is not set
";

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    /// A kernel with `packed` between the marks.
    fn kernel(packed: &[u8]) -> Vec<u8> {
        [
            b"\x7fELF code IKCFG_ST IKCFG_ED \0",
            START,
            packed,
            END,
            b"\0more",
        ]
        .concat()
    }

    #[test]
    fn symbols_are_read_and_other_lines_are_not() {
        let config = KernelConfig::parse(TEXT.as_bytes()).unwrap();
        let expected = [
            (
                "CONFIG_CMDLINE",
                Symbol::Value("\"a=b # CONFIG_OF is not set\"".into()),
            ),
            ("CONFIG_IKCONFIG", Symbol::Module),
            ("CONFIG_NR_CPUS", Symbol::Value("64".into())),
            ("CONFIG_OF", Symbol::NotSet),
            ("CONFIG_OLD", Symbol::NotSet),
            ("CONFIG_TWICE", Symbol::NotSet),
            ("CONFIG_X86_64", Symbol::Yes),
        ];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| (*name, value))
            .collect();
        assert_eq!(config.symbols().collect::<Vec<_>>(), expected);
        assert_eq!(config.get("CONFIG_PMPOOL"), None);
        assert!(config.is_complete());
        assert!(!KernelConfig::parse(b"CONFIG_OF=y").unwrap().is_complete());
        for none in [
            &b""[..],
            b"\0\0",
            b"OF=y\n",
            b"CONFIG_\xff=y",
            b"CONFIG_OF\n",
        ] {
            assert_eq!(KernelConfig::parse(none), None);
        }
    }

    #[test]
    fn it_is_found_between_its_marks() {
        let config = KernelConfig::parse(TEXT.as_bytes());
        assert_eq!(find(&kernel(&gzip(TEXT.as_bytes()))), Ok(config));
        assert_eq!(find(b"\x7fELF IKCFG_ST IKCFG_ED"), Ok(None));
        assert_eq!(find(b""), Ok(None));
    }

    #[test]
    fn a_damaged_one_says_what_is_wrong() {
        let packed = gzip(TEXT.as_bytes());
        let whole = kernel(&packed);
        let cut = whole.len() - b"ED\0more".len();
        assert_eq!(find(&whole[..cut]), Err(IkconfigError::NoEnd));
        assert_eq!(
            find(&kernel(&gzip(b"nothing here"))),
            Err(IkconfigError::NoSymbols)
        );
        let error = find(&kernel(&packed[..packed.len() - 9])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "IKCONFIG: malformed gzip data: truncated"
        );
        let bomb = gzip(&vec![b'#'; MAX_CONFIG + 1]);
        let error = find(&kernel(&bomb)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "IKCONFIG: gzip data unpacks to more than 4194304 bytes"
        );
    }

    proptest! {
        #[test]
        fn whatever_symbols_there_are_come_back(
            values in proptest::collection::btree_map("CONFIG_[A-Z0-9_]{1,12}", 0..4_u8, 1..40),
            before in "[ -~\n]{0,30}",
        ) {
            let mut text = before.replace('=', " ").replace("# CONFIG", "") + "\n";
            for (name, kind) in &values {
                text += &match kind {
                    0 => format!("{name}=y\n"),
                    1 => format!("{name}=m\n"),
                    2 => format!("# {name} is not set\n"),
                    _ => format!("{name}=0x1000\n"),
                };
            }
            let config = find(&kernel(&gzip(text.as_bytes()))).unwrap().unwrap();
            prop_assert_eq!(config.symbols().count(), values.len());
            for (name, kind) in &values {
                let expected = match kind {
                    0 => Symbol::Yes,
                    1 => Symbol::Module,
                    2 => Symbol::NotSet,
                    _ => Symbol::Value("0x1000".into()),
                };
                prop_assert_eq!(config.get(name), Some(&expected));
            }
        }

        #[test]
        fn any_damage_is_an_answer(at in 0..400_usize, bit in 0..8_u32, cut in 0..600_usize) {
            let mut bytes = kernel(&gzip(TEXT.as_bytes()));
            let length = bytes.len();
            bytes[at % length] ^= 1 << bit;
            bytes.truncate(cut.max(1));
            // gzip's checksum leaves no third: the configuration, or none.
            if let Ok(Some(config)) = find(&bytes) {
                prop_assert_eq!(Some(config), KernelConfig::parse(TEXT.as_bytes()));
            }
        }
    }
}
