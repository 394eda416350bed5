//! Text of a configuration file, out of bytes that may be anything.

use super::{MAX_FILE, Problem};

/// What stands for bytes that are no text.
const REPLACEMENT: char = '\u{fffd}';

/// The text of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// Its text: bytes that are not UTF-8 are U+FFFD, a byte order mark is left out. It is
    /// empty for a file that is too large.
    pub text: String,
    /// What is wrong with the file as a whole.
    pub problems: Vec<Problem>,
}

impl Text {
    /// The text in `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.len() > MAX_FILE {
            return Self {
                text: String::new(),
                problems: vec![Problem::TooLarge],
            };
        }
        let (bytes, problems) = match bytes.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) => (rest, vec![Problem::ByteOrderMark]),
            None => (bytes, Vec::new()),
        };
        Self {
            text: String::from_utf8_lossy(bytes).into_owned(),
            problems,
        }
    }

    /// The lines, each with its number from 1, without the white space at both ends. LF and
    /// CR LF end a line.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line.trim()))
    }
}

/// Whether `text` holds neither a NUL nor what stands for bytes that are no text.
#[must_use]
pub fn is_clean(text: &str) -> bool {
    !text.contains(['\0', REPLACEMENT])
}

/// A key, and the value behind the white space that follows it. `None`: no value.
#[must_use]
pub fn key_value(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(|c: char| c.is_ascii_whitespace())?;
    let value = value.trim();
    (!value.is_empty()).then_some((key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_and_line_ends_of_other_systems_are_no_text() {
        let text = Text::of(b"\xef\xbb\xbfa 1\r\n\r\n  b\t 2 \n");
        assert_eq!(text.problems, [Problem::ByteOrderMark]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines, [(1, "a 1"), (2, ""), (3, "b\t 2")]);
        assert_eq!(key_value("b\t 2"), Some(("b", "2")));
        assert_eq!(key_value("b"), None);
    }

    #[test]
    fn what_is_no_text_is_seen() {
        assert!(!is_clean(&Text::of(b"a\xff").text));
        assert!(!is_clean(&Text::of(b"a\0b").text));
        assert!(is_clean(&Text::of("ä".as_bytes()).text));
    }

    #[test]
    fn a_file_ends_at_1_mib() {
        let mut bytes = vec![b'#'; MAX_FILE];
        assert_eq!(Text::of(&bytes).text.len(), MAX_FILE);
        bytes.push(b'#');
        let text = Text::of(&bytes);
        assert_eq!(
            (text.text.len(), text.problems),
            (0, vec![Problem::TooLarge])
        );
    }
}
