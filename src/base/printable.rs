//! The one door for text from outside: what a file, a machine or an argument says is
//! shown with everything in it made visible.
//!
//! A driver's name, a command line or a file's name may hold anything, control
//! sequences of a terminal included. No text reaches a terminal without passing here:
//! `cli` sends all its output through [`lines`] and all its messages through
//! [`message`], and JSON has [`is_plain`] to escape by.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Longest message, bytes: a whole file may be quoted in one.
const MAX_MESSAGE: usize = 16 << 10;

/// Whether `c` is shown as it is: no control character (C0, DEL, C1), and none that
/// is invisible, ends a line or turns the direction of the text around it.
#[must_use]
pub fn is_plain(c: char) -> bool {
    !(c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'))
}

/// `text` as a part of one line: newlines and tabs are escaped like all else.
#[must_use]
pub fn inline(text: &str) -> Cow<'_, str> {
    escaped(text, is_plain)
}

/// Several lines: newlines and tabs are as they are.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t') || is_plain(c))
}

/// A message: one line of bounded length.
#[must_use]
pub fn message(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_MESSAGE {
        return inline(text);
    }
    let cut = (0..=MAX_MESSAGE)
        .rev()
        .find(|at| text.is_char_boundary(*at));
    let (start, rest) = text.split_at(cut.unwrap_or(0));
    Cow::Owned(format!("{}… ({} more bytes)", inline(start), rest.len()))
}

fn escaped(text: &str, plain: impl Fn(char) -> bool) -> Cow<'_, str> {
    let Some(first) = text.find(|c| !plain(c)) else {
        return Cow::Borrowed(text);
    };
    let (start, rest) = text.split_at(first);
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(start);
    for c in rest.chars() {
        match c {
            c if plain(c) => out.push(c),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c => {
                let code = u32::from(c);
                let _ = match code {
                    0..=0x7f => write!(out, "\\x{code:02x}"),
                    _ => write!(out, "\\u{{{code:x}}}"),
                };
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        assert_eq!(inline("System RAM (kmem)"), "System RAM (kmem)");
        assert_eq!(
            inline("é root=LABEL=日本 \u{301}"),
            "é root=LABEL=日本 \u{301}"
        );
        assert_eq!(inline("a\x1b[2Jb\x7f\x08"), "a\\x1b[2Jb\\x7f\\x08");
        assert_eq!(inline("\u{9b}31m\u{202e}x"), "\\u{9b}31m\\u{202e}x");
        assert_eq!(inline("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(lines("a\nb\tc\r\x1b"), "a\nb\tc\\r\\x1b");
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        assert_eq!(message("a\nb"), "a\\nb");
        let long = "é".repeat(MAX_MESSAGE);
        let shown = message(&long);
        assert!(shown.len() < MAX_MESSAGE + 40, "{}", shown.len());
        assert!(shown.ends_with("é… (16384 more bytes)"), "{shown}");
    }

    proptest! {
        #[test]
        fn nothing_but_plain_characters_comes_out(text: String) {
            prop_assert!(inline(&text).chars().all(is_plain));
            prop_assert!(lines(&text).chars().all(|c| c == '\n' || c == '\t' || is_plain(c)));
            if text.chars().all(is_plain) {
                prop_assert_eq!(inline(&text), text.as_str());
            }
        }
    }
}
