//! Text that need not be UTF-8, such as command lines and file names: how it is
//! shown to people, and how it is kept in JSON without loss.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Display, Formatter, Write as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::base::printable::inline;
use bstr::{BString, ByteSlice as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Bytes as they are shown to people: text passes [`inline`], and a byte that is not part
/// of UTF-8 text is written `\xNN`. The result holds no control sequences.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a>(&'a [u8]);

/// `text` for people.
#[must_use]
pub fn shown<T: AsRef<[u8]> + ?Sized>(text: &T) -> Shown<'_> {
    Shown(text.as_ref())
}

/// A file's name for people.
#[must_use]
pub fn shown_name<T: AsRef<OsStr> + ?Sized>(name: &T) -> Shown<'_> {
    Shown(name.as_ref().as_bytes())
}

impl Display for Shown<'_> {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            out.write_str(&inline(chunk.valid()))?;
            for byte in chunk.invalid() {
                write!(out, "\\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// `bytes` in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

/// The bytes that `text` gives in hexadecimal.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
        return None;
    };
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok();
    pairs.iter().map(byte).collect()
}

/// Bytes for JSON. UTF-8 becomes one string. Other bytes become a string as [`Shown`]
/// writes it, and with it the bytes in hexadecimal.
#[must_use]
pub fn in_json(text: &[u8]) -> (String, Option<String>) {
    match text.to_str() {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (shown(text).to_string(), Some(hex(text))),
    }
}

/// The reverse of [`in_json`]; `None` when the digits are no bytes.
#[must_use]
pub fn from_json(text: String, bytes: Option<&str>) -> Option<BString> {
    match bytes {
        Some(digits) => unhex(digits).map(BString::from),
        None => Some(text.into()),
    }
}

/// A type that holds bytes.
pub trait Bytes: Sized {
    /// The bytes.
    fn bytes(&self) -> &[u8];
    /// Holds `bytes`.
    fn holding(bytes: Vec<u8>) -> Self;
}

impl Bytes for BString {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn holding(bytes: Vec<u8>) -> Self {
        bytes.into()
    }
}

impl Bytes for PathBuf {
    fn bytes(&self) -> &[u8] {
        self.as_os_str().as_bytes()
    }

    fn holding(bytes: Vec<u8>) -> Self {
        OsString::from_vec(bytes).into()
    }
}

/// How one is kept in a record: a string, or, when it is not UTF-8, an object with its
/// bytes in hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Kept {
    Text(String),
    Bytes { bytes: String },
}

impl Kept {
    fn of(value: &impl Bytes) -> Self {
        let bytes = value.bytes();
        match bytes.to_str() {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes { bytes: hex(bytes) },
        }
    }

    fn value<T: Bytes, E: serde::de::Error>(self) -> Result<T, E> {
        let bytes = match self {
            Self::Text(text) => text.into_bytes(),
            Self::Bytes { bytes } => {
                unhex(&bytes).ok_or_else(|| E::custom("bytes are not hexadecimal"))?
            }
        };
        Ok(T::holding(bytes))
    }
}

/// For `#[serde(with = "bytes::kept")]`: one of them.
pub mod kept {
    use super::{Bytes, Deserialize as _, Deserializer, Kept, Serialize as _, Serializer};

    /// See [`super::Kept`].
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(value: &impl Bytes, serializer: S) -> Result<S::Ok, S::Error> {
        Kept::of(value).serialize(serializer)
    }

    /// See [`super::Kept`].
    ///
    /// # Errors
    /// When there is neither a string nor bytes in hexadecimal.
    pub fn deserialize<'de, T: Bytes, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        Kept::deserialize(from)?.value()
    }
}

/// For `#[serde(with = "bytes::kept_list")]`: a list of them.
pub mod kept_list {
    use super::{Bytes, Deserialize as _, Deserializer, Kept, Serializer};

    /// See [`super::Kept`].
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(
        values: &[impl Bytes],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(Kept::of))
    }

    /// See [`super::Kept`].
    ///
    /// # Errors
    /// When an entry is neither a string nor bytes in hexadecimal.
    pub fn deserialize<'de, T: Bytes, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
        let list = Vec::<Kept>::deserialize(from)?;
        list.into_iter().map(Kept::value).collect()
    }
}

/// A command line as two fields, `cmdline` and, where it is not UTF-8, `cmdline_bytes`:
/// for `#[serde(flatten, with = "bytes::Cmdline")]`. Readers that know only the first
/// still find a string there.
#[derive(Serialize, Deserialize)]
pub struct Cmdline {
    cmdline: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cmdline_bytes: Option<String>,
}

impl Cmdline {
    /// Writes the two fields.
    ///
    /// # Errors
    /// Those of the format.
    pub fn serialize<S: Serializer>(line: &BString, serializer: S) -> Result<S::Ok, S::Error> {
        let (cmdline, cmdline_bytes) = in_json(line);
        let fields = Self {
            cmdline,
            cmdline_bytes,
        };
        Serialize::serialize(&fields, serializer)
    }

    /// Reads the two fields.
    ///
    /// # Errors
    /// When the first is missing, or the second is not hexadecimal.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BString, D::Error> {
        let fields = <Self as Deserialize>::deserialize(from)?;
        from_json(fields.cmdline, fields.cmdline_bytes.as_deref())
            .ok_or_else(|| D::Error::custom("cmdline_bytes is not hexadecimal"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        #[serde(with = "kept")]
        path: PathBuf,
        #[serde(with = "kept_list", default)]
        list: Vec<BString>,
        #[serde(flatten, with = "Cmdline")]
        cmdline: BString,
    }

    fn path(bytes: &[u8]) -> PathBuf {
        OsStr::from_bytes(bytes).into()
    }

    #[test]
    fn people_see_every_byte_and_terminals_none_that_they_obey() {
        for (bytes, seen) in [
            (&b"root=LABEL=caf\xe9"[..], "root=LABEL=caf\\xe9"),
            ("café ☃".as_bytes(), "café ☃"),
            (b"a\x1b[31mb\x7f\n", "a\\x1b[31mb\\x7f\\n"),
            ("\u{9b}1m".as_bytes(), "\\u{9b}1m"),
            (b"\\xe9 \xe2\x98", "\\xe9 \\xe2\\x98"),
            (b"", ""),
        ] {
            assert_eq!(shown(bytes).to_string(), seen);
        }
        assert_eq!(shown_name(&path(b"/k\xff")).to_string(), "/k\\xff");
    }

    #[test]
    fn text_stays_a_string_and_anything_else_comes_back() {
        let text = Holder {
            path: "/boot/café".into(),
            list: vec!["a \u{1b}".into()],
            cmdline: "root=\\xe9".into(),
        };
        let json = serde_json::to_value(&text).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "path": "/boot/café", "list": ["a \u{1b}"], "cmdline": "root=\\xe9",
            })
        );
        let bytes = Holder {
            path: path(b"/boot/caf\xe9"),
            list: vec![b"a".into(), b"\xff".into()],
            cmdline: b"root=\xe9".into(),
        };
        let json = serde_json::to_value(&bytes).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "path": { "bytes": "2f626f6f742f636166e9" }, "list": ["a", { "bytes": "ff" }],
                "cmdline": "root=\\xe9", "cmdline_bytes": "726f6f743de9",
            })
        );
        for holder in [text, bytes] {
            let json = serde_json::to_string(&holder).unwrap();
            assert_eq!(serde_json::from_str::<Holder>(&json).unwrap(), holder);
        }
    }

    #[test]
    fn what_is_no_bytes_is_refused() {
        for json in [
            r#"{ "path": { "bytes": "f" }, "cmdline": "" }"#,
            r#"{ "path": { "bytes": "+f" }, "cmdline": "" }"#,
            r#"{ "path": 3, "cmdline": "" }"#,
            r#"{ "path": "", "list": [{}], "cmdline": "" }"#,
            r#"{ "path": "", "cmdline": "", "cmdline_bytes": "xx" }"#,
            r#"{ "path": "" }"#,
        ] {
            assert!(serde_json::from_str::<Holder>(json).is_err(), "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(bytes: Vec<u8>, line: Vec<u8>) {
            let holder = Holder { path: path(&bytes), list: vec![bytes.into()], cmdline: line.into() };
            let json = serde_json::to_string(&holder).unwrap();
            prop_assert_eq!(serde_json::from_str::<Holder>(&json).unwrap(), holder);
        }

        #[test]
        fn what_is_shown_is_one_line(bytes: Vec<u8>) {
            prop_assert!(!shown(&bytes).to_string().contains(char::is_control));
        }
    }
}
