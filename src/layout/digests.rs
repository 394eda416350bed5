//! The digests of what is loaded: purgatory verifies them, and records name files by them.

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
    /// The kernel: a bzImage's protected-mode part, or the PT_LOADs of a vmlinux.
    pub kernel: Option<Blob>,
    /// The initrds as one stream, part by part.
    pub initrd: Vec<Blob>,
}

impl Blobs {
    /// Those of `segments`, whose digests are `digests`; `None` when there are none.
    #[must_use]
    pub fn of(segments: &[Segment<'_>], digests: &[(PhysRange, Digest)]) -> Option<Self> {
        let of = |role| {
            let pairs = segments.iter().zip(digests);
            pairs
                .filter(move |(segment, _)| segment.role == role)
                .map(|(segment, (_, digest))| (&*segment.buf, *digest))
        };
        (!digests.is_empty()).then(|| Self {
            kernel: joined(of(Role::Kernel)),
            initrd: of(Role::Initrd)
                .map(|(bytes, digest)| Blob::new(bytes, &digest))
                .collect(),
        })
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
