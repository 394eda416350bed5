//! What a unified kernel image is called, read without its kernel: the PE headers and the
//! small sections of text.
//!
//! Source: the UAPI Group's "Unified Kernel Image" specification. Each profile is an entry
//! of its own in a boot menu; what it does not have itself is that of the whole image.

use std::io;

use bstr::{BString, ByteSlice as _};
use goblin::pe::header::COFF_MACHINE_X86_64;

use super::pe::{Place, Table};
use super::uki::{self, Profile};

/// Bytes at the start of the file that hold the headers and the section table: the table
/// has 40 bytes for each of at most 1024 sections.
const START: usize = 64 << 10;
/// Most bytes of one section of text.
const TEXT: u64 = 64 << 10;
/// Most profiles.
const MAX_PROFILES: usize = 64;

/// One entry of a UKI.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// The profile; `None`: the UKI has none.
    pub profile: Option<Profile>,
    /// `.osrel`, an os-release(5).
    pub os_release: Vec<u8>,
    /// `.uname`: the release of the kernel.
    pub release: Option<BString>,
    /// `.cmdline`.
    pub cmdline: Option<BString>,
}

/// What the headers of a file say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Labels {
    /// Neither a UKI nor a stub.
    Other(String),
    /// A stub of NixOS, which names its kernel ([`super::lanzaboote`]).
    Stub(Label),
    /// A UKI: its entries, one for each profile, or one.
    Uki(Vec<Label>),
}

/// Reads bytes of the file: an offset, and how many at most.
pub type ReadAt<'a> = &'a mut dyn FnMut(u64, usize) -> io::Result<Vec<u8>>;

/// Reads the labels of the file that `read` reads.
///
/// # Errors
/// When the file cannot be read.
pub fn read(read: ReadAt<'_>) -> io::Result<Labels> {
    let other = |what: &str| Ok(Labels::Other(what.to_owned()));
    let table = match Table::parse(&read(0, START)?) {
        Ok(Some(table)) => table,
        Ok(None) => return other("it is no PE file"),
        Err(what) => return Ok(Labels::Other(what)),
    };
    let has = |name| table.places.iter().any(|place| place.name == name);
    if has(".linuxh") || has(".kernelh") {
        return Ok(Labels::Stub(label(&[&table.places], read)?));
    }
    if !has(".linux") {
        return other("it holds no kernel (.linux)");
    }
    if table.machine != COFF_MACHINE_X86_64 {
        return other("it is made for another architecture");
    }
    // What lies before the first profile belongs to all of them.
    let mut parts = table.places.split(|place| place.name == ".profile");
    let common = parts.next().unwrap_or_default();
    let profiles = table.places.iter().filter(|place| place.name == ".profile");
    let mut labels = Vec::new();
    for (profile, own) in profiles.zip(parts).take(MAX_PROFILES) {
        let mut label = label(&[own, common], read)?;
        label.profile = Some(uki::profile(&text(profile, read)?));
        labels.push(label);
    }
    if labels.is_empty() {
        labels.push(label(&[common], read)?);
    }
    Ok(Labels::Uki(labels))
}

/// The release of the kernel that the addon in a file is made for (`.uname`); `None`: for any,
/// or the file is no PE file.
///
/// # Errors
/// When the file cannot be read.
pub fn addon_release(read: ReadAt<'_>) -> io::Result<Option<BString>> {
    let Ok(Some(table)) = Table::parse(&read(0, START)?) else {
        return Ok(None);
    };
    Ok(label(&[&table.places], read)?.release)
}

fn label(parts: &[&[Place]], read: ReadAt<'_>) -> io::Result<Label> {
    let mut get = |name: &str| {
        let mut places = parts.iter().flat_map(|part| part.iter());
        let place = places.find(|place| place.name == name && place.size > 0);
        place.map(|place| text(place, read)).transpose()
    };
    let line = |bytes: Vec<u8>| {
        let space = |byte: &u8| if *byte < b' ' { b' ' } else { *byte };
        let line: Vec<u8> = uki::text(&bytes).iter().map(space).collect();
        BString::from(line.trim_ascii())
    };
    Ok(Label {
        profile: None,
        os_release: get(".osrel")?.unwrap_or_default(),
        release: get(".uname")?.map(|bytes| uki::text(&bytes).as_bytes().into()),
        cmdline: get(".cmdline")?.map(line),
    })
}

fn text(place: &Place, read: ReadAt<'_>) -> io::Result<Vec<u8>> {
    // At most TEXT, which fits.
    let size = usize::try_from(place.size.min(TEXT)).unwrap_or_default();
    read(place.start, size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pe::TinyPe;

    /// The labels of `file`, and how many bytes were read.
    fn labels(file: &[u8]) -> (Labels, usize) {
        let mut count = 0;
        let found = read(&mut |at, size| {
            let rest = file.get(usize::try_from(at).unwrap()..).unwrap_or_default();
            let part = &rest[..size.min(rest.len())];
            count += part.len();
            Ok(part.to_vec())
        });
        (found.unwrap(), count)
    }

    #[test]
    fn a_uki_is_known_by_its_texts() {
        let (found, _) = labels(&TinyPe::uki().build());
        let Labels::Uki(labels) = found else {
            panic!("{found:?}");
        };
        let [label] = &labels[..] else {
            panic!("{labels:?}");
        };
        assert_eq!(label.release, Some("6.12.0-tiny".into()));
        assert_eq!(label.cmdline, Some("root=LABEL=x  quiet".into()));
        assert!(label.os_release.starts_with(b"ID=debian"));
        assert_eq!(label.profile, None);
    }

    #[test]
    fn each_profile_has_a_label() {
        let file = TinyPe::uki()
            .with(".profile", b"ID=main\nTITLE=\"The usual\"\n")
            .with(".profile", b"ID=rescue\n")
            .with(".cmdline", b"rescue")
            .build();
        let (Labels::Uki(found), _) = labels(&file) else {
            panic!("no UKI");
        };
        let ids: Vec<_> = found
            .iter()
            .map(|label| label.profile.clone().unwrap().id.unwrap())
            .collect();
        assert_eq!(ids, ["main", "rescue"]);
        let lines: Vec<_> = found
            .iter()
            .map(|label| label.cmdline.clone().unwrap())
            .collect();
        assert_eq!(lines, ["root=LABEL=x  quiet", "rescue"]);
    }

    #[test]
    fn an_addon_may_be_for_one_kernel() {
        let release = |file: &[u8]| {
            let read = &mut |at, size: usize| {
                let rest = file.get(usize::try_from(at).unwrap()..).unwrap_or_default();
                Ok(rest[..size.min(rest.len())].to_vec())
            };
            addon_release(read).unwrap()
        };
        let addon = TinyPe::new([(".cmdline", &b"a"[..])]);
        assert_eq!(release(&addon.build()), None);
        let addon = addon.with(".uname", b"6.1\n\0");
        assert_eq!(release(&addon.build()), Some("6.1".into()));
        assert_eq!(release(b"text"), None);
    }

    #[test]
    fn the_kernel_is_not_read() {
        let file = TinyPe::uki().with(".linux", &vec![7; 4 << 20]).build();
        let (_, count) = labels(&file);
        assert!(count < 2 * START, "{count}");
    }

    #[test]
    fn other_files_and_damaged_ones_have_an_answer() {
        assert!(matches!(labels(b"text").0, Labels::Other(_)));
        let file = TinyPe::uki().build();
        for length in 0..file.len().min(4096) {
            let _ = labels(&file[..length]);
        }
    }
}
