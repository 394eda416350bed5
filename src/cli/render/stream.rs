//! JSON that is written while it is made: a map may have a million rows, and as one tree
//! of values it would take gigabytes.
//!
//! Characters that a terminal may obey or that hide are written as `\uXXXX`
//! ([`printable`](crate::base::printable)): JSON itself asks for that only below U+0020.

use std::io::{self, BufWriter, Write};

use serde::{Serialize, Serializer};
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use crate::base::printable;

/// A list whose items are made one by one.
pub(in crate::cli) struct List<I>(pub(in crate::cli) I);

impl<I> Serialize for List<I>
where
    I: Iterator<Item: Serialize> + Clone,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}

/// An address: `"0x…"`.
pub(in crate::cli) struct Address(pub(in crate::cli) u64);

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// Writes `value` with indentation, and a newline behind it.
pub(in crate::cli) fn pretty(out: impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    write(&mut out, value, PrettyFormatter::new())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes `value` in one line, without a newline.
pub(in crate::cli) fn compact(out: impl Write, value: &impl Serialize) -> io::Result<()> {
    write(out, value, CompactFormatter)
}

fn write(out: impl Write, value: &impl Serialize, formatter: impl Formatter) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(out, Plain(formatter));
    Ok(value.serialize(&mut serializer)?)
}

/// A formatter whose strings have plain characters only.
struct Plain<F>(F);

impl<F: Formatter> Formatter for Plain<F> {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c| !printable::is_plain(c)) {
            let (plain, from) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let mut chars = from.chars();
            if let Some(c) = chars.next() {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(out, first)
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_key(out)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.0.end_object_value(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn written(value: &Value) -> String {
        let mut out = Vec::new();
        pretty(&mut out, value).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_looks_like_a_tree_that_is_printed() {
        let value = json!({ "a": [], "b": {}, "c": [1, { "d": null }], "e": "x\"\\\n\u{1}é" });
        assert_eq!(written(&value), format!("{value:#}\n"));
        let mut out = Vec::new();
        compact(&mut out, &value).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        let list = List([1, 2].iter());
        let mut out = Vec::new();
        compact(&mut out, &json!([list, Address(16)])).unwrap();
        assert_eq!(out, b"[[1,2],\"0x10\"]");
    }

    #[test]
    fn what_a_terminal_obeys_is_escaped() {
        let value = json!({ "\u{9b}": "\x7f\u{202e}\u{e0041}\x1b" });
        let out = written(&value);
        assert!(
            out.contains(r#""\u009b": "\u007f\u202e\udb40\udc41\u001b""#),
            "{out}"
        );
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text: String) {
            let out = written(&json!([text]));
            prop_assert!(out.chars().all(|c| c == '\n' || printable::is_plain(c)), "{out:?}");
            prop_assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), json!([text]));
        }
    }
}
