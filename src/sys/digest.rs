//! The digest that purgatory verifies, computed in user space by the code that
//! verifies it (purgatory/sha256), with whatever this CPU has.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::time::{Duration, Instant};

#[path = "../../purgatory/sha256/mod.rs"]
mod sha256;

pub use sha256::{CHUNK, Digest};

/// A way to compute SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// One stream after the other in general registers; the loader only.
    Scalar,
    /// Four streams in SSE2 registers; what the purgatory does without SHA-NI.
    Portable,
    /// Eight streams in AVX2 registers; the loader only.
    Avx2,
    /// Four streams in the SHA extensions, in the loader and the purgatory.
    ShaNi,
}

impl Implementation {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Scalar, Self::Portable, Self::Avx2, Self::ShaNi];

    /// Whether this CPU can do it.
    #[must_use]
    pub fn available(self) -> bool {
        match self {
            Self::Scalar | Self::Portable => true,
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            Self::ShaNi => has_sha_ni(),
        }
    }

    /// The fastest one here, by a trial of less than a millisecond.
    ///
    /// The CPU's features do not tell: QEMU's emulation has AVX2, but runs the
    /// scalar code 2.5 times as fast as SSE2. The digest is the same by all.
    #[must_use]
    pub fn fastest() -> Self {
        static FASTEST: OnceLock<Implementation> = OnceLock::new();
        *FASTEST.get_or_init(|| {
            Self::ALL
                .into_iter()
                .filter(|implementation| implementation.available())
                .min_by_key(|implementation| implementation.trial())
                .unwrap_or(Self::Portable)
        })
    }

    /// The best time of a few rounds, with every lane in use.
    fn trial(self) -> Duration {
        const LEAF: usize = 4096;
        let bytes = [0; 8 * LEAF];
        (0..3)
            .map(|_| {
                let start = Instant::now();
                std::hint::black_box(digest_leaves::<LEAF>(self, &bytes));
                start.elapsed()
            })
            .min()
            .unwrap_or(Duration::MAX)
    }
}

/// Whether this CPU has what the purgatory's `Request::sha_ni` wants.
#[must_use]
pub fn has_sha_ni() -> bool {
    is_x86_feature_detected!("sha")
        && is_x86_feature_detected!("ssse3")
        && is_x86_feature_detected!("sse4.1")
}

/// The digest of one region, by the fastest way this CPU has.
///
/// `bytes` is what will lie in memory there, without the zeroes that the kernel
/// fills a segment up with.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    digest_by(Implementation::fastest(), bytes)
}

/// As [`digest`], by one way; [`Implementation::Portable`] when this CPU does not
/// have it.
#[must_use]
pub fn digest_by(implementation: Implementation, bytes: &[u8]) -> Digest {
    digest_leaves::<CHUNK>(implementation, bytes)
}

/// [`digest_by`] with leaves of any size, for the tests' sake.
fn digest_leaves<const LEAF: usize>(implementation: Implementation, bytes: &[u8]) -> Digest {
    match implementation {
        Implementation::ShaNi if has_sha_ni() => {
            // SAFETY: the extensions are there.
            sha256::region_digest::<_, _, LEAF>(unsafe { sha256::ShaNi::new() }, bytes)
        }
        Implementation::Avx2 if is_x86_feature_detected!("avx2") => {
            // SAFETY: AVX2 is there, and the system saves its registers.
            sha256::region_digest::<_, _, LEAF>(unsafe { sha256::Avx2::new() }, bytes)
        }
        Implementation::Scalar => sha256::region_digest::<_, _, LEAF>(sha256::Scalar, bytes),
        _ => sha256::region_digest::<_, _, LEAF>(sha256::Portable, bytes),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::*;

    /// The format in two lines, with another crate's SHA-256.
    fn expected(bytes: &[u8], leaf: usize) -> Digest {
        let leaves: Vec<u8> = bytes.chunks(leaf).flat_map(sha2::Sha256::digest).collect();
        sha2::Sha256::digest(leaves).into()
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect()
    }

    fn check<const LEAF: usize>(bytes: &[u8]) {
        let expected = expected(bytes, LEAF);
        for implementation in Implementation::ALL {
            let found = digest_leaves::<LEAF>(implementation, bytes);
            assert_eq!(found, expected, "{implementation:?}, {} bytes", bytes.len());
        }
    }

    /// SHA-256 itself, as one leaf gives it: the engines and the padding.
    fn check_stream<E: sha256::Engine<N>, const N: usize>(engine: E, bytes: &[u8], at: usize) {
        let mut stream = sha256::Stream::new(engine);
        let (head, tail) = bytes.split_at(at.min(bytes.len()));
        stream.update(head);
        stream.update(tail);
        let expected: Digest = sha2::Sha256::digest(bytes).into();
        assert_eq!(
            stream.finish(),
            expected,
            "{} bytes, cut at {at}",
            bytes.len()
        );
    }

    #[test]
    fn streams_agree_with_sha2() {
        let bytes = noise(5000);
        for length in (0..300).chain([4096, 5000]) {
            for at in [0, 1, 55, 63, 64, 65, 130] {
                check_stream(sha256::Portable, &bytes[..length], at);
                if has_sha_ni() {
                    // SAFETY: the extensions are there.
                    let engine = unsafe { sha256::ShaNi::new() };
                    check_stream(engine, &bytes[..length], at);
                }
            }
        }
    }

    #[test]
    fn regions_agree_with_sha2_around_every_boundary() {
        let bytes = noise(5000);
        for length in (0..300).chain([4096, 5000]) {
            check::<CHUNK>(&bytes[..length]);
        }
        // Every number of leaves for every number of lanes, and the ends of
        // blocks and leaves; leaves that are no whole number of blocks as well.
        for length in 0..18 * 256 {
            if length < 700 || [0, 1, 63, 64, 65, 255].contains(&(length % 256)) {
                check::<256>(&bytes[..length]);
                check::<100>(&bytes[1..=length]);
            }
        }
    }

    #[test]
    fn the_fastest_is_available() {
        assert!(Implementation::fastest().available());
    }

    #[test]
    fn chunks_are_one_mebibyte() {
        let bytes = noise(5 * CHUNK);
        for length in [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1] {
            check::<CHUNK>(&bytes[..length]);
        }
        assert_eq!(digest(&bytes), expected(&bytes, 1 << 20));
    }

    proptest! {
        #[test]
        fn any_bytes_agree_with_sha2(length in 0..5000_usize, skew in 0_usize..64) {
            let bytes = noise(skew + length);
            let expected = expected(&bytes[skew..], 256);
            for implementation in Implementation::ALL {
                prop_assert_eq!(digest_leaves::<256>(implementation, &bytes[skew..]), expected);
            }
        }
    }
}
