//! The next kernel's command line: a value that cannot be wrong, the grammar by
//! which the kernel reads it, and the rules that make one out of the running kernel's.
//!
//! A command line is bytes: the kernel takes any but NUL, and a file system's label or a
//! file's name need not be UTF-8.

mod grammar;
mod lists;

use std::cell::Cell;
use std::fmt::{self, Display, Formatter};

use bstr::{BStr, BString, ByteSlice as _, ByteVec as _};

pub use grammar::{has, one_line, parameter, parameters, truth, value, values, words};
pub use lists::{
    GIGABYTE_PAGE, NO_MEMHOTPLUG, OPEN_TIMEOUT, UNFIT_FOR_CRASH, for_crash, gigabyte_pages,
};

use serde::{Deserialize, Serialize};

use crate::base::bytes::{kept, kept_list, shown};

/// A command line without NUL and without a newline that is not quoted, within the
/// image's limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cmdline {
    line: BString,
    limit: usize,
}

/// How the command line is made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CmdlineRequest {
    /// Where it starts from.
    pub base: CmdlineBase,
    /// Text added behind it, in order.
    #[serde(with = "kept_list")]
    pub append: Vec<BString>,
    /// Parameters removed at last: a name, with or without a value, or `name=value`.
    #[serde(with = "kept_list")]
    pub remove: Vec<BString>,
}

impl CmdlineRequest {
    /// The line before anything is removed from it, with `running` for the running one.
    fn put_together(&self, running: &BStr) -> BString {
        let mut line = match &self.base {
            CmdlineBase::Empty => BString::default(),
            CmdlineBase::Given(line) => line.clone(),
            CmdlineBase::Running => running.to_owned(),
        };
        for text in self.append.iter().filter(|text| !text.is_empty()) {
            if !line.is_empty() {
                line.push_byte(b' ');
            }
            line.push_str(text);
        }
        line
    }
}

/// Where the command line starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CmdlineBase {
    /// Nothing.
    #[default]
    Empty,
    /// This line.
    Given(#[serde(with = "kept")] BString),
    /// The running kernel's, without what belongs to that boot alone.
    Running,
}

/// Why there is no command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// A NUL: the kernel would not see the rest.
    #[error("the command line holds a NUL at byte {0}: the kernel would stop reading there")]
    Nul(usize),
    /// A newline: the kernel reads it as a space, other programs as the end of the line.
    #[error(
        "the command line holds a newline at byte {0}, outside of double quotes: the kernel takes it for \
         a space, and programs that read /proc/cmdline take it for the end of the line"
    )]
    Newline(usize),
    /// Longer than the image takes.
    #[error("the command line is too long: {length} bytes, and the kernel accepts {limit}")]
    TooLong {
        /// Its length in bytes.
        length: usize,
        /// The image's limit in bytes.
        limit: usize,
    },
    /// A quote is left open: the kernel would not see a parameter that is added.
    #[error("{0} cannot be added to the command line: a double quote in it is not closed")]
    OpenQuote(String),
}

impl CmdlineError {
    /// A way out, where there is one.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Newline(_) => Some(
                "write a space instead; a newline that belongs to a value goes into double quotes",
            ),
            Self::TooLong { .. } => Some("shorten it, for example with --remove PARAM"),
            Self::OpenQuote(_) => {
                Some("close the quote: the kernel reads all behind it as one value")
            }
            Self::Nul(_) => None,
        }
    }
}

/// `line` without the parameter `name`.
#[must_use]
pub fn without(line: &BStr, name: &str) -> BString {
    grammar::without(line, |other, _| other == name)
}

impl Cmdline {
    /// Makes the line and checks it; `limit` is the image's, bytes without the NUL.
    ///
    /// # Errors
    /// When it holds a NUL, or a newline outside of double quotes, or is longer than `limit`.
    pub fn make(
        request: &CmdlineRequest,
        running: &(impl AsRef<[u8]> + ?Sized),
        limit: usize,
    ) -> Result<Self, CmdlineError> {
        let reusable = lists::reusable(running.as_ref().as_bstr());
        let mut line = request.put_together(reusable.as_bstr());
        if !request.remove.is_empty() {
            line = grammar::without(line.as_bstr(), |name, word| {
                request
                    .remove
                    .iter()
                    .any(|unwanted| unwanted == name || unwanted == word)
            });
        }
        Self::checked(line, limit)
    }

    /// The names and words of `request.remove` that remove nothing. What belongs to one boot
    /// alone counts as removed.
    #[must_use]
    pub fn not_there<'a>(
        request: &'a CmdlineRequest,
        running: &(impl AsRef<[u8]> + ?Sized),
    ) -> Vec<&'a BStr> {
        let line = request.put_together(running.as_ref().as_bstr());
        let unwanted = request.remove.iter().map(|unwanted| unwanted.as_bstr());
        unwanted
            .filter(|unwanted| {
                let is_there = Cell::new(false);
                grammar::without(line.as_bstr(), |name, word| {
                    is_there.set(is_there.get() || name == *unwanted || word == *unwanted);
                    false
                });
                !is_there.get()
            })
            .collect()
    }

    fn checked(line: BString, limit: usize) -> Result<Self, CmdlineError> {
        if let Some(at) = line.find_byte(0) {
            return Err(CmdlineError::Nul(at));
        }
        if let Some(at) = grammar::bare_newline(&line) {
            return Err(CmdlineError::Newline(at));
        }
        let length = line.len();
        if length > limit {
            return Err(CmdlineError::TooLong { length, limit });
        }
        Ok(Self { line, limit })
    }

    /// The line with `parameter` added where the kernel reads it: before `--`.
    ///
    /// # Errors
    /// When a quote is left open, or the line grows longer than the image takes.
    pub fn with(&self, parameter: &str) -> Result<Self, CmdlineError> {
        let (kernels, inits) = grammar::split_at_init(self.as_bstr());
        if grammar::is_quote_open(kernels) {
            return Err(CmdlineError::OpenQuote(parameter.to_owned()));
        }
        let parts = [kernels.trim_ascii_end(), parameter.as_bytes(), inits];
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        Self::checked(bstr::join(b" ", parts).into(), self.limit)
    }

    /// The line without the word `word` of the kernel.
    #[must_use]
    pub fn without_word(&self, word: &BStr) -> Self {
        Self {
            line: grammar::without(self.as_bstr(), |_, other| other == word),
            limit: self.limit,
        }
    }

    /// The line.
    #[must_use]
    pub fn as_bstr(&self) -> &BStr {
        self.line.as_bstr()
    }
}

/// For people.
impl Display for Cmdline {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        shown(&self.line).fmt(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(request: &CmdlineRequest, running: &str) -> BString {
        Cmdline::make(request, running, 2047).unwrap().line
    }

    #[test]
    fn reuse_drops_what_belongs_to_one_boot() {
        let request = CmdlineRequest {
            base: CmdlineBase::Running,
            ..Default::default()
        };
        let running = "BOOT_IMAGE=/vmlinuz root=/dev/sda initrd=\\x.img dyndbg=\"file a +p; file b\" \
                       elfcorehdr=0x1 quiet acpi_rsdp=0x2 initrd_x=1 -- initrd=forinit";
        let expected =
            "root=/dev/sda dyndbg=\"file a +p; file b\" quiet initrd_x=1 -- initrd=forinit";
        assert_eq!(make(&request, running), expected);
    }

    #[test]
    fn the_map_of_a_crash_kernel_is_dropped_and_the_operators_stays() {
        let request = CmdlineRequest {
            base: CmdlineBase::Running,
            ..Default::default()
        };
        let crash = "quiet memmap=exactmap memmap=640K@0K memmap=260M@768M elfcorehdr=867640K \
                     dmcryptkeys=0x1 -- memmap=x";
        assert_eq!(make(&request, crash), "quiet -- memmap=x");
        let set_aside = "memmap=64M$0x20000000 memmap=1G!4G -- memmap=exactmap";
        assert_eq!(make(&request, set_aside), set_aside);
    }

    #[test]
    fn reuse_drops_the_word_that_a_crash_load_added() {
        let request = CmdlineRequest {
            base: CmdlineBase::Running,
            ..Default::default()
        };
        let line = "quiet acpi_no_memhotplug elfcorehdr=0x1 -- acpi_no_memhotplug";
        assert_eq!(make(&request, line), "quiet -- acpi_no_memhotplug");
        let by_the_kernel = "elfcorehdr=0x1 quiet acpi_no_memhotplug";
        assert_eq!(make(&request, by_the_kernel), "quiet");
        assert_eq!(make(&request, "acpi_no_memhotplug elfcorehdr=0x1"), "");
        // The operator's own.
        for own in ["quiet acpi_no_memhotplug", "acpi_no_memhotplug quiet"] {
            assert_eq!(make(&request, own), own);
        }
        let own = "acpi_no_memhotplug quiet elfcorehdr=0x1";
        assert_eq!(make(&request, own), "acpi_no_memhotplug quiet");
        let other = "xacpi_no_memhotplug elfcorehdr=0x1";
        assert_eq!(make(&request, other), "xacpi_no_memhotplug");
    }

    #[test]
    fn append_then_remove() {
        let request = CmdlineRequest {
            base: CmdlineBase::Given("a b=1 b=2 \"c d=x y\"".into()),
            append: vec!["e=5".into(), "".into(), "f".into()],
            remove: vec!["b=2".into(), "f".into(), "c d".into()],
        };
        assert_eq!(make(&request, ""), "a b=1 e=5");
    }

    #[test]
    fn what_is_removed_and_not_there_is_named() {
        let request = CmdlineRequest {
            base: CmdlineBase::Running,
            append: vec!["e=5 -- init".into()],
            remove: ["quiet", "b=3", "b=1", "e", "quie", "init", "BOOT_IMAGE"]
                .map(BString::from)
                .to_vec(),
        };
        // What is init's is not removed.
        assert_eq!(
            Cmdline::not_there(&request, "BOOT_IMAGE=/k quiet b=1"),
            ["b=3", "quie", "init"]
        );
    }

    #[test]
    fn a_given_line_is_kept_byte_for_byte() {
        let request = CmdlineRequest {
            base: CmdlineBase::Given(" a  b\t".into()),
            ..Default::default()
        };
        assert_eq!(make(&request, "x"), " a  b\t");
    }

    #[test]
    fn a_parameter_is_added_where_the_kernel_reads_it() {
        let with = |line: &str| {
            let request = CmdlineRequest {
                base: CmdlineBase::Given(line.into()),
                ..Default::default()
            };
            let line = Cmdline::make(&request, "", 2047).unwrap();
            line.with("a=1").map(|line| line.line)
        };
        assert_eq!(with("").unwrap(), "a=1");
        assert_eq!(with("x  y").unwrap(), "x  y a=1");
        assert_eq!(with("x -- single --").unwrap(), "x a=1 -- single --");
        assert_eq!(with("-- s").unwrap(), "a=1 -- s");
        assert_eq!(with("x=\"a -- b\" c").unwrap(), "x=\"a -- b\" c a=1");
        let open = with("x=\"a b").unwrap_err();
        assert_eq!(
            open.to_string(),
            "a=1 cannot be added to the command line: a double quote in it is not closed"
        );
    }

    #[test]
    fn the_limit_counts_bytes_without_the_nul() {
        let request = |n: usize| CmdlineRequest {
            base: CmdlineBase::Given("x".repeat(n).into()),
            ..Default::default()
        };
        assert!(Cmdline::make(&request(2047), "", 2047).is_ok());
        assert!(matches!(
            Cmdline::make(&request(2048), "", 2047),
            Err(CmdlineError::TooLong {
                length: 2048,
                limit: 2047
            })
        ));
    }

    #[test]
    fn no_nul_and_no_newline_but_in_quotes() {
        let checked = |line: &str| {
            let request = CmdlineRequest {
                base: CmdlineBase::Given(line.into()),
                ..Default::default()
            };
            Cmdline::make(&request, "", 2047)
        };
        assert_eq!(checked("a\0b"), Err(CmdlineError::Nul(1)));
        assert_eq!(checked("ab\n"), Err(CmdlineError::Newline(2)));
        assert_eq!(checked("a=\"b\n\" c\nd"), Err(CmdlineError::Newline(8)));
        assert_eq!(checked("a=\"b\0\""), Err(CmdlineError::Nul(4)));
        let quoted = checked("a=\"b\nc\" d").unwrap();
        assert_eq!(quoted.as_bstr(), "a=\"b\nc\" d");
        assert_eq!(quoted.to_string(), "a=\"b\\nc\" d");
    }

    #[test]
    fn bytes_that_are_no_text_stay_what_they_are() {
        let request = CmdlineRequest {
            base: CmdlineBase::Running,
            append: vec![b"a=\xff".into()],
            remove: vec![b"x=\xfe".into(), b"\xfd".into()],
        };
        let running = b"BOOT_IMAGE=/k\xe9 root=LABEL=caf\xe9 x=\xfe x=\xff \xfd=1 -- \xfc";
        let line = Cmdline::make(&request, running, 2047).unwrap();
        let made = b"root=LABEL=caf\xe9 x=\xff -- \xfc a=\xff";
        assert_eq!(line.as_bstr(), made.as_bstr());
        let with = line.with("b=1").unwrap();
        let made = b"root=LABEL=caf\xe9 x=\xff b=1 -- \xfc a=\xff";
        assert_eq!(with.as_bstr(), made.as_bstr());
        assert_eq!(
            line.to_string(),
            "root=LABEL=caf\\xe9 x=\\xff -- \\xfc a=\\xff"
        );
    }
}
