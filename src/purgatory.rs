//! The purgatory image: embeds it, fills its parameter block, and computes the
//! digests that it will check. The contract is in `purgatory/README.md`.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::memory::PhysRange;

#[path = "../purgatory/abi.rs"]
mod abi;
#[path = "../purgatory/sha256/mod.rs"]
#[expect(unsafe_code, reason = "vector loads, shared with the purgatory")]
mod sha256;

include!(concat!(env!("OUT_DIR"), "/purgatory.rs"));

pub use abi::{Evidence, Fault, MAX_REGIONS};
pub use sha256::{CHUNK, Digest};

/// Offset of the entry point from the start of the image, in bytes.
pub const ENTRY: u64 = ENTRY_OFFSET;
/// Offset of `extern "C" fn(*mut Evidence) -> u32` from the start of the image,
/// in bytes: what the purgatory runs before the jump. 0 is "all is well", the
/// rest is [`Fault`]. It executes no privileged instruction, so that tests and
/// benchmarks can call it.
pub const VERIFY: u64 = VERIFY_OFFSET;

/// What the purgatory is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// 64-bit entry point of the next kernel, physical.
    pub entry: u64,
    /// Physical address of boot_params, for RSI.
    pub boot_params: u64,
    /// First I/O port of a 16550 to print failures on.
    pub serial_port: Option<u16>,
    /// The CPU has the SHA extensions, SSSE3 and SSE4.1, see [`has_sha_ni`].
    pub sha_ni: bool,
    /// Check the digests before the jump.
    pub verify: bool,
}

/// Why there is no image for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// More regions than the parameter block holds.
    #[error("purgatory can verify {MAX_REGIONS} segments, but the plan has {0}")]
    TooManyRegions(usize),
    /// A region at the null address.
    #[error("purgatory cannot verify a segment at physical address 0 ({0:?})")]
    AddressZero(PhysRange),
}

/// Bytes the image takes in memory with its stack, a multiple of the page size.
#[must_use]
pub const fn size() -> u64 {
    MEMORY_SIZE
}

/// The image for `request`, to be placed on any page boundary with its memory
/// beyond these bytes zeroed up to [`size`].
///
/// Every region of `digests` is verified, in this order, when the request says
/// so; [`digest`] makes a digest. The image itself is not to be among them: it
/// changes itself when it starts.
///
/// # Errors
/// When a region cannot be verified.
pub fn image(request: &Request, digests: &[(PhysRange, Digest)]) -> Result<Vec<u8>, ImageError> {
    if digests.len() > MAX_REGIONS {
        return Err(ImageError::TooManyRegions(digests.len()));
    }
    if let Some((range, _)) = digests.iter().find(|(range, _)| range.start() == 0) {
        return Err(ImageError::AddressZero(*range));
    }
    let mut image = block(request, digests);
    image.extend_from_slice(IMAGE.get(image.len()..).unwrap_or_default());
    Ok(image)
}

/// The parameter block, field by field as `abi::Params` has them.
fn block(request: &Request, digests: &[(PhysRange, Digest)]) -> Vec<u8> {
    let mut flags = 0;
    for (flag, wanted) in [
        (abi::FLAG_VERIFY, request.verify),
        (abi::FLAG_SHA_NI, request.sha_ni),
        (abi::FLAG_SERIAL, request.serial_port.is_some()),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    let count = u32::try_from(digests.len()).unwrap_or(u32::MAX);
    let mut block = Vec::with_capacity(IMAGE.len());
    block.extend(abi::MAGIC.to_le_bytes());
    block.extend(abi::ABI_VERSION.to_le_bytes());
    block.extend(flags.to_le_bytes());
    block.extend(request.entry.to_le_bytes());
    block.extend(request.boot_params.to_le_bytes());
    block.extend(request.serial_port.unwrap_or(0).to_le_bytes());
    block.extend(0_u16.to_le_bytes());
    block.extend(count.to_le_bytes());
    for (range, digest) in digests {
        block.extend(range.start().to_le_bytes());
        block.extend(range.size().to_le_bytes());
        block.extend(digest);
    }
    block.resize(size_of::<abi::Params>(), 0);
    block
}

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
                std::hint::black_box(digest_leaves::<LEAF>(self, &[&bytes]));
                start.elapsed()
            })
            .min()
            .unwrap_or(Duration::MAX)
    }
}

/// Whether this CPU has what the purgatory's [`Request::sha_ni`] wants.
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
    digest_by(Implementation::fastest(), &[bytes])
}

/// The digest of one region whose bytes are these pieces, one after the other.
#[must_use]
pub fn digest_pieces(pieces: &[&[u8]]) -> Digest {
    digest_by(Implementation::fastest(), pieces)
}

/// As [`digest_pieces`], by one way; [`Implementation::Portable`] when this CPU
/// does not have it.
#[must_use]
pub fn digest_by(implementation: Implementation, pieces: &[&[u8]]) -> Digest {
    digest_leaves::<CHUNK>(implementation, pieces)
}

/// [`digest_by`] with leaves of any size, for the tests' sake.
#[expect(unsafe_code, reason = "promises CPU features that were just looked up")]
fn digest_leaves<const LEAF: usize>(implementation: Implementation, pieces: &[&[u8]]) -> Digest {
    match implementation {
        Implementation::ShaNi if has_sha_ni() => {
            // SAFETY: the extensions are there.
            digest_with::<_, _, LEAF>(unsafe { sha256::ShaNi::new() }, pieces)
        }
        Implementation::Avx2 if is_x86_feature_detected!("avx2") => {
            // SAFETY: AVX2 is there, and the system saves its registers.
            digest_with::<_, _, LEAF>(unsafe { sha256::Avx2::new() }, pieces)
        }
        Implementation::Scalar => digest_with::<_, _, LEAF>(sha256::Scalar, pieces),
        _ => digest_with::<_, _, LEAF>(sha256::Portable, pieces),
    }
}

fn digest_with<E: sha256::Engine<N>, const N: usize, const LEAF: usize>(
    engine: E,
    pieces: &[&[u8]],
) -> Digest {
    if let [bytes] = pieces {
        return sha256::region_digest::<E, N, LEAF>(engine, bytes);
    }
    let mut root = sha256::Stream::new(engine);
    // The leaf that the next piece goes on with, and how much is in it.
    let mut leaf = sha256::Stream::new(engine);
    let mut filled = 0;
    for piece in pieces {
        let mut rest = *piece;
        if filled != 0 {
            let (head, tail) = rest.split_at(rest.len().min(LEAF - filled));
            leaf.update(head);
            filled += head.len();
            rest = tail;
            if filled == LEAF {
                root.update(&leaf.finish());
                leaf = sha256::Stream::new(engine);
                filled = 0;
            }
        }
        let (whole, tail) = rest.split_at(rest.len() - rest.len() % LEAF);
        sha256::push_leaves::<E, N, LEAF>(&mut root, whole);
        leaf.update(tail);
        filled += tail.len();
    }
    if filled != 0 {
        root.update(&leaf.finish());
    }
    root.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::Digest as _;

    use super::*;

    /// The format in two lines, by somebody else's SHA-256.
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
            let found = digest_leaves::<LEAF>(implementation, &[bytes]);
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
                    #[expect(unsafe_code, reason = "just looked up")]
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
        assert_eq!(
            digest_pieces(&[&bytes[..5000], &bytes[5000..]]),
            expected(&bytes, 1 << 20)
        );
    }

    proptest! {
        #[test]
        fn any_pieces_agree_with_sha2(
            lengths in proptest::collection::vec(
                prop_oneof![0..5_usize, 0..3000_usize, (0..6_usize).prop_map(|n| n * 256)],
                0..5,
            ),
            skew in 0_usize..64,
        ) {
            let bytes = noise(skew + lengths.iter().sum::<usize>());
            let mut rest = &bytes[skew..];
            let expected = expected(rest, 256);
            let mut pieces = Vec::new();
            for length in lengths {
                let (piece, tail) = rest.split_at(length);
                pieces.push(piece);
                rest = tail;
            }
            for implementation in Implementation::ALL {
                prop_assert_eq!(digest_leaves::<256>(implementation, &pieces), expected);
            }
        }
    }

    fn request() -> Request {
        Request {
            entry: 0x1_0020_0200,
            boot_params: 0x9_0000,
            serial_port: Some(0x2f8),
            sha_ni: true,
            verify: true,
        }
    }

    #[test]
    fn the_block_is_as_the_purgatory_reads_it() {
        use std::mem::offset_of;
        let range = PhysRange::new(0x1234_5000, 0x6000).unwrap();
        let image = image(&request(), &[(range, [7; 32])]).unwrap();
        let u64_at = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
        let u32_at = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
        assert_eq!(&image[..8], b"RKXPURG1");
        assert_eq!(u32_at(offset_of!(abi::Params, version)), abi::ABI_VERSION);
        assert_eq!(u32_at(offset_of!(abi::Params, flags)), 7);
        assert_eq!(u64_at(offset_of!(abi::Params, entry)), 0x1_0020_0200);
        assert_eq!(u64_at(offset_of!(abi::Params, boot_params)), 0x9_0000);
        assert_eq!(u32_at(offset_of!(abi::Params, serial_port)), 0x2f8);
        assert_eq!(u32_at(offset_of!(abi::Params, region_count)), 1);
        let region = offset_of!(abi::Params, regions);
        assert_eq!(u64_at(region), 0x1234_5000);
        assert_eq!(u64_at(region + 8), 0x6000);
        assert_eq!(image[region + 16..region + 48], [7; 32]);
        assert_eq!(u64_at(region + size_of::<abi::Region>()), 0);
    }

    #[test]
    fn the_image_has_its_code_and_its_stack() {
        let image = image(&request(), &[]).unwrap();
        assert_eq!(image.len(), IMAGE.len());
        let length = u64::try_from(image.len()).unwrap();
        assert!(size() >= length + 8192 && size().is_multiple_of(4096));
        for offset in [ENTRY, VERIFY] {
            let block = u64::try_from(size_of::<abi::Params>()).unwrap();
            assert!((block..length).contains(&offset), "{offset:#x}");
        }
        // cli; cld
        let entry = usize::try_from(ENTRY).unwrap();
        assert_eq!(image[entry..entry + 2], [0xfa, 0xfc]);
    }

    #[test]
    fn what_the_block_cannot_say_is_refused() {
        let range = PhysRange::new(0x1000, 1).unwrap();
        let full = [(range, [0; 32]); MAX_REGIONS];
        assert!(image(&request(), &full).is_ok());
        let over = [(range, [0; 32]); MAX_REGIONS + 1];
        assert_eq!(
            image(&request(), &over),
            Err(ImageError::TooManyRegions(MAX_REGIONS + 1))
        );
        let zero = PhysRange::new(0, 1).unwrap();
        assert_eq!(
            image(&request(), &[(zero, [0; 32])]),
            Err(ImageError::AddressZero(zero))
        );
    }
}
