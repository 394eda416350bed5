//! /etc/fstab: what the administrator wants mounted, and where.
//!
//! Format: fstab(5).

use super::mounts::unescaped;
use super::{HostError, Root};

const PATH: &str = "/etc/fstab";

/// A line of fstab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What is mounted.
    pub source: Source,
    /// Where.
    pub point: String,
}

/// How a line names a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A path, or something that is no device.
    Path(String),
    /// `UUID=`, of the file system.
    Uuid(String),
    /// `LABEL=`, of the file system.
    Label(String),
    /// `PARTUUID=`
    PartUuid(String),
    /// `PARTLABEL=`
    PartLabel(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Path(path) => f.write_str(path),
            Self::Uuid(uuid) => write!(f, "UUID={uuid}"),
            Self::Label(label) => write!(f, "LABEL={label}"),
            Self::PartUuid(uuid) => write!(f, "PARTUUID={uuid}"),
            Self::PartLabel(label) => write!(f, "PARTLABEL={label}"),
        }
    }
}

/// The lines of /etc/fstab; none where there is no such file, or this process may not read
/// it.
///
/// # Errors
/// When it is there and cannot be read for another reason.
pub fn read(root: &Root) -> Result<Vec<Line>, HostError> {
    Ok(parse(&root.read_permitted(PATH)?.unwrap_or_default()))
}

/// The lines that have two fields at least.
#[must_use]
pub fn parse(bytes: &[u8]) -> Vec<Line> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.starts_with('#'));
    let lines = lines.filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (source, mut point) = (source(fields.next()?), unescaped(fields.next()?));
        while point.len() > 1 && point.ends_with('/') {
            point.pop();
        }
        Some(Line { source, point })
    });
    lines.collect()
}

fn source(field: &str) -> Source {
    let Some((tag, value)) = field.split_once('=') else {
        return Source::Path(unescaped(field));
    };
    let value = unescaped(value);
    let unquoted = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let value = unquoted.map(str::to_owned).unwrap_or(value);
    match tag {
        "UUID" => Source::Uuid(value),
        "LABEL" => Source::Label(value),
        "PARTUUID" => Source::PartUuid(value),
        "PARTLABEL" => Source::PartLabel(value),
        _ => Source::Path(unescaped(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_and_directories() {
        let lines = parse(
            b"# <file system> <mount point>\n\
              UUID=1234-ABCD /boot/efi vfat umask=0077 0 1\n\
              \t/dev/sda1\t/boot  ext2 noauto\n\
              LABEL=\"a\\040b\" /a\\040b xfs\n\
              PARTUUID=1-2 none swap sw\n\
              PARTLABEL=esp /efi/\n\
              server:/x=y /mnt nfs\n\
              alone\n\n",
        );
        let lines: Vec<_> = lines
            .iter()
            .map(|line| (line.source.to_string(), line.point.as_str()))
            .collect();
        let expected = [
            ("UUID=1234-ABCD", "/boot/efi"),
            ("/dev/sda1", "/boot"),
            ("LABEL=a b", "/a b"),
            ("PARTUUID=1-2", "none"),
            ("PARTLABEL=esp", "/efi"),
            ("server:/x=y", "/mnt"),
        ];
        let expected: Vec<_> = expected.map(|(a, b)| (a.to_owned(), b)).into();
        assert_eq!(lines, expected);
    }
}
