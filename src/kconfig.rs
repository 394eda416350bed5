//! The configuration of a kernel: the text that Kconfig writes.
//!
//! One reader for the running kernel's and for that of a kernel to be loaded.

use std::collections::BTreeMap;

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

    /// Whether `symbol` is built in; `None` when the text does not tell. What a
    /// fragment does not mention is not known, and a module or a value is no answer.
    #[must_use]
    pub fn built_in(&self, symbol: &str) -> Option<bool> {
        match self.get(symbol) {
            Some(Symbol::Yes) => Some(true),
            Some(Symbol::NotSet) => Some(false),
            Some(Symbol::Module | Symbol::Value(_)) => None,
            // Kconfig leaves out what has dependencies that are not met.
            None => self.is_complete().then_some(false),
        }
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

#[cfg(test)]
mod tests {
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
    fn a_fragment_says_nothing_of_what_it_does_not_mention() {
        let built_in = |text: &str, symbol| {
            let config = KernelConfig::parse(text.as_bytes()).unwrap();
            config.built_in(symbol)
        };
        let fragment = "CONFIG_KEXEC_FILE=y\n# CONFIG_KEXEC_SIG is not set\nCONFIG_M=m\n";
        assert_eq!(built_in(fragment, "CONFIG_KEXEC_FILE"), Some(true));
        assert_eq!(built_in(fragment, "CONFIG_KEXEC_SIG"), Some(false));
        assert_eq!(built_in(fragment, "CONFIG_KEXEC"), None);
        assert_eq!(built_in(fragment, "CONFIG_M"), None);
        let whole = format!("CONFIG_X86_64=y\n{fragment}");
        assert_eq!(built_in(&whole, "CONFIG_KEXEC"), Some(false));
    }
}
