//! Kexec Handover (KHO) and the Live Update Orchestrator (LUO): the names of their
//! formats, and what a running kernel shows of them.
//!
//! Each part of what is handed over begins with the name of its format, and a kernel
//! takes the part only if it is the one name that it knows (include/linux/kho/abi of
//! Linux 7.2). So the names are compared whole.

use std::collections::BTreeSet;

use memchr::memmem;

/// The blob that every kernel with KHO hands over, and whose loss does no harm.
pub const METADATA: &str = "kexec-metadata";
/// The blob of LUO.
pub const LUO: &str = "LUO";
/// The blob that names what `reserve_mem=` set aside.
pub const MEMBLOCK: &str = "memblock";

/// Longest name of a format, bytes: `compatible` of a file that LUO hands over has 48
/// (`LIVEUPDATE_HNDL_COMPAT_LENGTH`), and no other field is longer.
const MAX_NAME: usize = 48;
/// Most names of one format that are told apart: a kernel has one.
const MAX_NAMES: usize = 8;
/// Bytes of a release with its NULs (`__NEW_UTS_LEN + 1`).
const RELEASE: usize = 65;
/// `kexec_count` in `struct kho_kexec_metadata`, which is packed: behind the version (32
/// bits) and a release.
const COUNT_AT: usize = 4 + RELEASE;
/// `KHO_KEXEC_METADATA_VERSION`.
const METADATA_VERSION: u32 = 1;

/// A part of what is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The tree and the map of what is preserved.
    Kho,
    /// Sessions of LUO.
    Luo,
    /// A memfd in a session.
    Memfd,
    /// Memory that `reserve_mem=` set aside.
    Memblock,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kho, Self::Luo, Self::Memfd, Self::Memblock];

    /// Its name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kho => "kho",
            Self::Luo => "luo",
            Self::Memfd => "memfd",
            Self::Memblock => "memblock",
        }
    }

    /// The names of its formats that are texts in `bytes`: `luo-v5` for one. Behind each
    /// is a NUL. A name may go on with those of the formats inside it, each after a `;`.
    ///
    /// What is before a name means nothing: it is the end of whatever lies there.
    #[must_use]
    pub fn formats(self, bytes: &[u8]) -> BTreeSet<String> {
        let start = format!("{}-v", self.name());
        let mut names = BTreeSet::new();
        for at in memmem::find_iter(bytes, start.as_bytes()) {
            let is_inside = at.checked_sub(1).and_then(|before| bytes.get(before)) == Some(&b';');
            let name = bytes.get(at..).and_then(|text| name(text, start.len()));
            if let Some(name) = name.filter(|_| !is_inside) {
                names.insert(name);
                if names.len() == MAX_NAMES {
                    break;
                }
            }
        }
        names
    }
}

/// The name at the start of `text`, whose number begins at `number`.
fn name(text: &[u8], number: usize) -> Option<String> {
    let end = text.iter().take(MAX_NAME).position(|byte| *byte == 0)?;
    let name = std::str::from_utf8(text.get(..end)?).ok()?;
    let own = name.split(';').next()?.get(number..)?;
    let is_number = !own.is_empty() && own.bytes().all(|byte| byte.is_ascii_digit());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_;".contains(&byte);
    (is_number && name.bytes().all(fits)).then(|| name.to_owned())
}

/// How many kernels handed over to each other up to the one that shows `blob`, its
/// kexec-metadata for the next kernel: 1 for a kernel that was given nothing. `None`:
/// the blob has another version.
#[must_use]
pub fn generation(blob: &[u8]) -> Option<u32> {
    let number = |at: usize| {
        let bytes = blob.get(at..)?.first_chunk()?;
        Some(u32::from_le_bytes(*bytes))
    };
    number(0).filter(|version| *version == METADATA_VERSION)?;
    number(COUNT_AT)
}

/// The kexec-metadata that a kernel of `release`, which was given nothing, hands over. What
/// does not fit is cut off.
#[must_use]
pub fn metadata(release: &str) -> Vec<u8> {
    let first: u32 = 1;
    let mut text: Vec<u8> = release.bytes().take(RELEASE - 1).collect();
    text.resize(RELEASE, 0);
    let version = METADATA_VERSION.to_le_bytes();
    [&version[..], &text, &first.to_le_bytes()].concat()
}

/// The format of LUO that Linux of this release writes, where the release tells. 7.1 and
/// 7.2 differ, and between them were others that no release has.
#[must_use]
pub fn luo_of_release(version: Option<(u32, u32)>) -> Option<&'static str> {
    match version? {
        (6, 19) | (7, 0 | 1) => Some("luo-v1"),
        (7, 2 | 3) => Some("luo-v5"),
        _ => None,
    }
}

/// The format of a memfd that Linux of this release writes, where the release tells.
#[must_use]
pub fn memfd_of_release(version: Option<(u32, u32)>) -> Option<&'static str> {
    match version? {
        (6, 19) | (7, 0) => Some("memfd-v1"),
        (7, 1..=3) => Some("memfd-v2"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_formats(part: Part, bytes: &[u8], names: &[&str]) {
        let found = part.formats(bytes);
        assert!(found.iter().eq(names), "{found:?}");
    }

    #[test]
    fn names_end_in_a_nul_and_begin_anywhere() {
        let kernel =
            b"\xffmemfd-v2\0kho-v4\0xkho-v4\0kho-v%d\0kho-v\0kho-v4 is\0luo-session-v1\0kho-v3";
        assert_formats(Part::Kho, kernel, &["kho-v4"]);
        assert_formats(Part::Memfd, kernel, &["memfd-v2"]);
        assert_formats(Part::Luo, kernel, &[]);
        assert_formats(Part::Kho, b"kho-v3\0kho-v4\0", &["kho-v3", "kho-v4"]);
    }

    #[test]
    fn a_name_is_compared_with_the_formats_inside_it() {
        let kernel = b"luo-v5;block-v1\0luo-v5;memfd-v3\0";
        assert_formats(Part::Luo, kernel, &["luo-v5;block-v1", "luo-v5;memfd-v3"]);
        assert_formats(Part::Memfd, kernel, &[]);
    }

    #[test]
    fn no_file_makes_the_list_long() {
        let names: String = (0..100).map(|n| format!("luo-v{n}\0")).collect();
        assert_eq!(Part::Luo.formats(names.as_bytes()).len(), MAX_NAMES);
        let long = format!("luo-v{}\0", "1".repeat(MAX_NAME));
        assert_formats(Part::Luo, long.as_bytes(), &[]);
    }

    #[test]
    fn the_metadata_counts_kernels() {
        let mut blob = [0; 73];
        blob[0] = 1;
        blob[69] = 2;
        assert_eq!(generation(&blob), Some(2));
        assert_eq!(generation(&blob[..72]), None);
        blob[0] = 2;
        assert_eq!(generation(&blob), None);
        let long = "6.12.".repeat(20);
        for release in ["6.1.0-50-amd64", "", &long] {
            let blob = metadata(release);
            assert_eq!((blob.len(), generation(&blob)), (73, Some(1)));
            let end = release.len().min(64);
            assert_eq!(blob[4..4 + end], release.as_bytes()[..end]);
            assert!(blob[4 + end..69].iter().all(|byte| *byte == 0));
        }
        assert_eq!(generation(b""), None);
    }

    #[test]
    fn releases() {
        let of = |release| luo_of_release(crate::base::version(release));
        assert_eq!(of("6.19.3-cloud"), Some("luo-v1"));
        assert_eq!(of("7.1.0"), Some("luo-v1"));
        assert_eq!(memfd_of_release(Some((7, 1))), Some("memfd-v2"));
        assert_eq!(memfd_of_release(Some((7, 0))), Some("memfd-v1"));
        assert_eq!(of("7.2.13"), Some("luo-v5"));
        assert_eq!(of("7.4.0"), None);
        assert_eq!(of("next"), None);
    }
}
