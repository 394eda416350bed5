//! getopt_long(3) over the table: operands anywhere, letters bundled, long names
//! cut short as long as they stay clear, `--` as the end of the options.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::options::{self, Opt};

/// One thing on the command line.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item<'a> {
    /// An option, and its value if it has one.
    Option(&'static Opt, Option<&'a OsStr>),
    /// Anything else: the kernel.
    Operand(&'a OsStr),
}

/// What getopt_long(3) complains of, in its words: scripts look for them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadOption {
    #[error("unrecognized option '--{0}'")]
    Unknown(String),
    #[error("invalid option -- '{0}'")]
    UnknownLetter(char),
    #[error("option '--{given}' is ambiguous; possibilities: '--{}'", possible.join("' '--"))]
    Ambiguous {
        given: String,
        possible: Vec<&'static str>,
    },
    #[error("option '--{0}' doesn't allow an argument")]
    NoValue(&'static str),
    #[error("option '--{0}' requires an argument")]
    MissingValue(&'static str),
    #[error("option requires an argument -- '{0}'")]
    MissingLetterValue(char),
}

/// The items of a command line in their order. It can be left at any item, as
/// `--help` does: what comes behind is not looked at.
pub(super) fn items(arguments: &[OsString]) -> Items<'_> {
    Items {
        arguments: arguments.iter(),
        letters: &[],
        operands_only: false,
    }
}

/// See [`items`].
#[derive(Debug)]
pub(super) struct Items<'a> {
    arguments: std::slice::Iter<'a, OsString>,
    /// What is left of a bundle of letters.
    letters: &'a [u8],
    /// `--` was there.
    operands_only: bool,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, BadOption>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((letter, rest)) = self.letters.split_first() {
            return Some(self.letter(*letter, rest));
        }
        let argument = self.arguments.next()?;
        match argument.as_bytes() {
            _ if self.operands_only => Some(Ok(Item::Operand(argument))),
            b"--" => {
                self.operands_only = true;
                self.next()
            }
            [b'-', b'-', long @ ..] => Some(self.long(long)),
            [b'-', letter, rest @ ..] => Some(self.letter(*letter, rest)),
            _ => Some(Ok(Item::Operand(argument))),
        }
    }
}

impl<'a> Items<'a> {
    /// The option of `letter`; `rest` is its value, or more letters.
    fn letter(&mut self, letter: u8, rest: &'a [u8]) -> Result<Item<'a>, BadOption> {
        let found = options::all().find(|option| option.letter == Some(letter));
        let option = found.ok_or_else(|| {
            self.letters = rest;
            BadOption::UnknownLetter(char::from(letter))
        })?;
        if option.value.is_none() {
            self.letters = rest;
            return Ok(Item::Option(option, None));
        }
        self.letters = &[];
        let value = if rest.is_empty() {
            self.arguments.next().map(OsString::as_os_str)
        } else {
            Some(OsStr::from_bytes(rest))
        };
        let value = value.ok_or_else(|| BadOption::MissingLetterValue(char::from(letter)))?;
        Ok(Item::Option(option, Some(value)))
    }

    /// The option behind `--`: `NAME` or `NAME=VALUE`.
    fn long(&mut self, text: &'a [u8]) -> Result<Item<'a>, BadOption> {
        let (given, value) = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => (&text[..at], Some(OsStr::from_bytes(&text[at + 1..]))),
            None => (text, None),
        };
        let (option, name) = find(given)?;
        let value = match (option.value, value) {
            (None, Some(_)) => return Err(BadOption::NoValue(name)),
            (None, None) => None,
            (Some(_), Some(value)) => Some(value),
            (Some(_), None) => {
                let next = self.arguments.next().ok_or(BadOption::MissingValue(name))?;
                Some(next.as_os_str())
            }
        };
        Ok(Item::Option(option, value))
    }
}

/// The option called `given`, or the only one whose name begins so, and that name.
fn find(given: &[u8]) -> Result<(&'static Opt, &'static str), BadOption> {
    let names =
        || options::all().flat_map(|option| option.names.iter().map(move |name| (option, *name)));
    if let Some(exact) = names().find(|(_, name)| name.as_bytes() == given) {
        return Ok(exact);
    }
    let begin_so = || names().filter(|(_, name)| name.as_bytes().starts_with(given));
    let given = || String::from_utf8_lossy(given).into_owned();
    let Some(first) = begin_so().next() else {
        return Err(BadOption::Unknown(given()));
    };
    // Two names of the same option are not ambiguous.
    if begin_so().any(|(option, _)| !std::ptr::eq(option, first.0)) {
        return Err(BadOption::Ambiguous {
            given: given(),
            possible: begin_so().map(|(_, name)| name).collect(),
        });
    }
    Ok(first)
}

#[cfg(test)]
#[path = "getopt_tests.rs"]
mod tests;
