//! The section `.osrel` of a unified kernel image: os-release(5), of which systemd-boot
//! makes the title, the version and the sort key of the entry.

use super::text::{Text, is_clean};

/// What an os-release says of a boot entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OsRelease {
    /// The first one there is of PRETTY_NAME, IMAGE_ID, NAME and ID.
    pub title: Option<String>,
    /// The first one of IMAGE_VERSION, VERSION, VERSION_ID and BUILD_ID.
    pub version: Option<String>,
    /// IMAGE_ID, else ID.
    pub sort_key: Option<String>,
}

/// Reads an os-release. Values that are no text are left out.
#[must_use]
pub fn parse(bytes: &[u8]) -> OsRelease {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = Text::of(bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default());
    let first = |keys: &[&str]| keys.iter().find_map(|key| value(&text, key));
    OsRelease {
        title: first(&["PRETTY_NAME", "IMAGE_ID", "NAME", "ID"]),
        version: first(&["IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"]),
        sort_key: first(&["IMAGE_ID", "ID"]),
    }
}

/// The value of the last line `key=…`, if it is not empty.
fn value(text: &Text, key: &str) -> Option<String> {
    let values = text.lines().filter_map(|(_, line)| {
        let (name, value) = line.split_once('=')?;
        (name == key).then_some(value)
    });
    let value = unquoted(values.last()?);
    (!value.is_empty() && is_clean(&value)).then_some(value)
}

/// A value in single quotes, in double quotes with backslashes, or as it is.
fn unquoted(value: &str) -> String {
    let between = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    if let Some(inner) = between('\'') {
        return inner.to_owned();
    }
    let mut chars = between('"').unwrap_or(value).chars();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_boot_shows() {
        let release = parse(
            b"ID=arch\nNAME='Arch Linux'\nPRETTY_NAME=\"Arch \\\"Linux\\\"\"\nBUILD_ID=rolling\n\0\0junk",
        );
        assert_eq!(release.title.as_deref(), Some("Arch \"Linux\""));
        assert_eq!(release.version.as_deref(), Some("rolling"));
        assert_eq!(release.sort_key.as_deref(), Some("arch"));
        let image = parse(b"IMAGE_ID=factory\nIMAGE_VERSION=7\nID=x\nVERSION=1\nPRETTY_NAME=\n");
        assert_eq!(image.title.as_deref(), Some("factory"));
        assert_eq!(image.version.as_deref(), Some("7"));
        assert_eq!(image.sort_key.as_deref(), Some("factory"));
        assert_eq!(parse(b"ID=\xff"), OsRelease::default());
    }
}
