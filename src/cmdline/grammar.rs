//! How the kernel reads its command line: `next_arg` in lib/cmdline.c.
//!
//! A line is bytes. White space outside double quotes separates the words. By `isspace` of
//! lib/ctype.c, white space is that of ASCII and the byte 0xa0. In UTF-8 that byte ends
//! some letters, such as `à`, and all programs but the kernel read it as part of a word.
//! So a word to remove is looked for among the words that all programs see, and then,
//! inside of those, among the words that only the kernel sees.

use std::ops::Range;

use bstr::{BStr, BString, ByteSlice as _};

/// The words behind this are for init, not for the kernel.
const INIT: &[u8] = b"--";
/// The one byte beyond ASCII that separates words.
const NO_BREAK_SPACE: u8 = 0xa0;

/// White space to all programs: that of ASCII, with the vertical tab.
const fn is_blank(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// White space to the kernel.
const fn is_space(byte: u8) -> bool {
    is_blank(byte) || byte == NO_BREAK_SPACE
}

/// Where the words of `line` lie. `parts` tells which bytes separate them outside of quotes.
fn spans(line: &[u8], parts: fn(u8) -> bool) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = line.get(at..)?;
        let start = at + rest.iter().position(|byte| !parts(*byte))?;
        let mut quoted = false;
        let length = line.get(start..)?.iter().position(|byte| {
            quoted ^= *byte == b'"';
            !quoted && parts(*byte)
        });
        let end = length.map_or(line.len(), |length| start + length);
        at = end;
        Some(start..end)
    })
}

/// The words of a command line as the kernel cuts it.
pub fn words<T: AsRef<[u8]> + ?Sized>(line: &T) -> impl Iterator<Item = &BStr> {
    let line = line.as_ref();
    spans(line, is_space).map(|span| line.get(span).unwrap_or_default().as_bstr())
}

/// The words before `--`, which are the kernel's.
pub fn parameters<T: AsRef<[u8]> + ?Sized>(line: &T) -> impl Iterator<Item = &BStr> {
    words(line).take_while(|word| *word != INIT)
}

/// A word's name, and its value where it has one, without the quotes that the kernel
/// takes away.
#[must_use]
pub fn parameter(word: &BStr) -> (&BStr, Option<&BStr>) {
    let (quoted, text) = match word.strip_prefix(b"\"") {
        Some(text) => (true, text),
        None => (false, &**word),
    };
    let unquoted = |text| <[u8]>::strip_suffix(text, b"\"").unwrap_or(text);
    // A name has at least one byte.
    let equals = text.iter().skip(1).position(|byte| *byte == b'=');
    let Some(equals) = equals.map(|at| at + 1) else {
        let name = if quoted { unquoted(text) } else { text };
        return (name.as_bstr(), None);
    };
    let (name, value) = text.split_at(equals);
    let value = value.get(1..).unwrap_or_default();
    let value = match value.strip_prefix(b"\"") {
        Some(value) => unquoted(value),
        None if quoted => unquoted(value),
        None => value,
    };
    (name.as_bstr(), Some(value.as_bstr()))
}

/// The values of all parameters called `wanted` that have one, in order.
pub fn values<'a, T: AsRef<[u8]> + ?Sized>(
    line: &'a T,
    wanted: &'a str,
) -> impl Iterator<Item = &'a BStr> {
    parameters(line)
        .map(parameter)
        .filter(move |(name, _)| *name == wanted)
        .filter_map(|(_, value)| value)
}

/// The value of the last parameter `wanted` on `line`, without quotes around it.
pub fn value<'a, T: AsRef<[u8]> + ?Sized>(line: &'a T, wanted: &'a str) -> Option<&'a BStr> {
    values(line, wanted).last()
}

/// Whether the parameter or flag `wanted` is on `line`.
pub fn has<T: AsRef<[u8]> + ?Sized>(line: &T, wanted: &str) -> bool {
    parameters(line).any(|word| parameter(word).0 == wanted)
}

/// The last valid truth value of the parameter `wanted` on `line`: the one that counts
/// where the kernel reads it with `kstrtobool` and goes on after an error.
#[must_use]
pub fn truth<T: AsRef<[u8]> + ?Sized>(line: &T, wanted: &str) -> Option<bool> {
    values(line, wanted).filter_map(kstrtobool).last()
}

/// lib/kstrtox.c: only the first letter counts, or the first two of `on` and `off`.
fn kstrtobool(word: &BStr) -> Option<bool> {
    let mut letters = word.iter().map(|letter| letter.to_ascii_lowercase());
    match letters.next()? {
        b'e' | b'y' | b't' | b'1' => Some(true),
        b'd' | b'n' | b'f' | b'0' => Some(false),
        b'o' => match letters.next()? {
            b'n' => Some(true),
            b'f' => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// The line cut before the word `--`: what is the kernel's, and what is init's.
pub(super) fn split_at_init(line: &BStr) -> (&BStr, &BStr) {
    let init = spans(line, is_space).find(|span| line.get(span.clone()) == Some(INIT));
    let (kernels, inits) = line.split_at(init.map_or(line.len(), |span| span.start));
    (kernels.as_bstr(), inits.as_bstr())
}

/// Whether a double quote is left open at the end of `text`.
pub(super) fn is_quote_open(text: &[u8]) -> bool {
    text.iter().filter(|byte| **byte == b'"').count() % 2 != 0
}

/// Where the first newline outside of double quotes is.
pub(super) fn bare_newline(line: &[u8]) -> Option<usize> {
    let mut quoted = false;
    line.iter().position(|byte| {
        quoted ^= *byte == b'"';
        !quoted && *byte == b'\n'
    })
}

/// `text` with line ends turned into spaces, which separate parameters just as well.
/// Line ends inside of double quotes separate nothing and stay.
#[must_use]
pub fn one_line(text: &[u8]) -> BString {
    let mut quoted = false;
    let space = |byte: &u8| {
        quoted ^= *byte == b'"';
        if *byte == b'\n' && !quoted {
            b' '
        } else {
            *byte
        }
    };
    text.iter().map(space).collect::<Vec<_>>().into()
}

/// `line` without the words that `unwanted(name, word)` names; the rest is
/// joined by single spaces. Words behind `--` are for init and stay.
pub(super) fn without(line: &BStr, unwanted: impl Fn(&BStr, &BStr) -> bool) -> BString {
    let is_unwanted = |word: &BStr| unwanted(parameter(word).0, word);
    let mut for_init = false;
    let mut kept = Vec::new();
    for span in spans(line, is_blank) {
        let word = line.get(span).unwrap_or_default().as_bstr();
        for_init |= *word == INIT;
        if for_init {
            kept.push(word.to_vec());
        } else if !is_unwanted(word) {
            kept.push(without_inner(word, is_unwanted));
        }
    }
    BString::from(bstr::join(b" ", kept))
}

/// `word` without its unwanted parts. The kernel may read `word` as several words.
fn without_inner(word: &BStr, is_unwanted: impl Fn(&BStr) -> bool) -> Vec<u8> {
    let mut kept = Vec::with_capacity(word.len());
    let mut copied = 0;
    for span in spans(word, is_space) {
        let inner = word.get(span.clone()).unwrap_or_default().as_bstr();
        if span.len() < word.len() && is_unwanted(inner) {
            kept.extend_from_slice(word.get(copied..span.start).unwrap_or_default());
            copied = span.end;
        }
    }
    kept.extend_from_slice(word.get(copied..).unwrap_or_default());
    kept
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;
