//! The digests of what is loaded: purgatory verifies them, and records name files by them.

use std::borrow::Cow;

use super::{Role, Segment};
use crate::base::PhysRange;
use crate::carry::record::Blob;
use crate::purgatory::{self, Digest};

/// The digests that purgatory verifies. They cover only the files' bytes: the running
/// kernel zeroes the rest of a segment, and the next kernel writes there before reading.
pub fn digests<'s, 'a: 's>(
    segments: impl IntoIterator<Item = &'s Segment<'a>>,
) -> Vec<(PhysRange, Digest)> {
    segments
        .into_iter()
        .filter_map(|segment| {
            let range = PhysRange::new(segment.mem.start(), segment.buf.len() as u64).ok()?;
            Some((range, purgatory::digest(&segment.buf)))
        })
        .collect()
}

/// What is loaded from files, by its digests.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Blobs {
    /// The kernel; its parts as one, where it has several.
    pub kernel: Option<Blob>,
    /// The initrds as one stream, part by part.
    pub initrd: Vec<Blob>,
}

impl Blobs {
    /// Those of a kernel whose file has the parts `kernel`, and of the initrds in
    /// `segments`, whose digests are `digests`; `None` when there are none.
    #[must_use]
    pub fn of(
        kernel: &[&[u8]],
        segments: &[Segment<'_>],
        digests: &[(PhysRange, Digest)],
    ) -> Option<Self> {
        // A segment without bytes has no digest.
        let known = segments.iter().filter_map(|segment| {
            let at = segment.mem.start();
            let (_, digest) = digests.iter().find(|(range, _)| range.start() == at)?;
            Some((segment, *digest))
        });
        // A kernel that the loader relocated lies in memory otherwise than in its file.
        let kernel = kernel.iter().map(|part| {
            let mut same = known
                .clone()
                .filter(|(segment, _)| std::ptr::eq(&raw const *segment.buf, &raw const **part));
            let digest = same.next().map(|(_, digest)| digest);
            (*part, digest.unwrap_or_else(|| purgatory::digest(part)))
        });
        let initrd = known
            .clone()
            .filter(|(segment, _)| segment.role == Role::Initrd);
        (!digests.is_empty()).then(|| Self {
            kernel: joined(kernel),
            initrd: initrd
                .map(|(segment, digest)| Blob::new(&segment.buf, &digest))
                .collect(),
        })
    }

    /// The same for files that no segment holds.
    #[must_use]
    pub fn of_parts(kernel: &[&[u8]], initrd: &[Cow<'_, [u8]>]) -> Self {
        let kernel = kernel.iter().map(|part| (*part, purgatory::digest(part)));
        let initrd = initrd.iter();
        Self {
            kernel: joined(kernel),
            initrd: initrd
                .map(|part| Blob::new(part, &purgatory::digest(part)))
                .collect(),
        }
    }

    /// Whether both can be of the same files. Where an older version made the digests,
    /// the sizes decide.
    #[must_use]
    pub fn may_be(&self, other: &Self) -> bool {
        let kernel = match (&self.kernel, &other.kernel) {
            (Some(one), Some(two)) => one.may_be(two),
            (None, None) => true,
            _ => false,
        };
        let mut initrds = self.initrd.iter().zip(&other.initrd);
        kernel
            && self.initrd.len() == other.initrd.len()
            && initrds.all(|(one, two)| one.may_be(two))
    }
}

/// Several parts as one: their digest is that of their digests.
fn joined<'a>(parts: impl Iterator<Item = (&'a [u8], Digest)>) -> Option<Blob> {
    let parts: Vec<(&[u8], Digest)> = parts.collect();
    match parts.as_slice() {
        [] => None,
        [(bytes, digest)] => Some(Blob::new(bytes, digest)),
        parts => {
            let digests: Vec<Digest> = parts.iter().map(|(_, digest)| *digest).collect();
            Some(Blob {
                size: parts.iter().map(|(bytes, _)| bytes.len()).sum(),
                ..Blob::new(&[], &purgatory::digest(&digests.concat()))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A segment that is zeroes alone has no digest, and shifts no other's.
    #[test]
    fn digests_are_those_of_their_segments() {
        let segment = |role, buf: &'static [u8], at| Segment {
            role,
            buf: buf.into(),
            mem: PhysRange::new(at, 0x1000).unwrap(),
            rule: String::new(),
        };
        let segments = [
            segment(Role::Kernel, b"", 0x1000),
            segment(Role::Kernel, b"kernel", 0x2000),
            segment(Role::Initrd, b"initrd", 0x3000),
        ];
        let digests = digests(&segments);
        assert_eq!(digests.len(), 2);
        let blobs = Blobs::of(&[b"kernel"], &segments, &digests).unwrap();
        assert_eq!(
            blobs,
            Blobs::of_parts(&[b"kernel"], &[b"initrd"[..].into()])
        );
    }
}
