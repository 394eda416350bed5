//! The digest that purgatory verifies, by the code that verifies it. The record names
//! files by it, too. It is a check against accidents (`purgatory/README.md`).

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread;

#[path = "../../purgatory/rapidhash.rs"]
mod rapidhash;

use rapidhash::{PIECE, rapidhash};

/// What a region's bytes are told by, the highest byte of the hash first.
pub type Digest = rapidhash::Digest;

/// Bytes that pay for another thread.
const WORTH_A_THREAD: usize = 8 << 20;
/// More threads read no more of the memory's bandwidth. One CPU loses nothing by them,
/// so nobody asks how many there are.
const MOST_THREADS: usize = 4;

/// The digest of one region.
///
/// `bytes` is what will lie in memory there, without the zeroes that the kernel
/// fills a segment up with.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    match (bytes.len() / WORTH_A_THREAD).min(MOST_THREADS) {
        0 | 1 => rapidhash::digest(bytes),
        threads => on_threads(bytes, threads),
    }
}

/// The same by up to so many threads. One that cannot be started is done without.
fn on_threads(bytes: &[u8], threads: usize) -> Digest {
    let (next, all) = (AtomicUsize::new(0), AtomicU64::new(0));
    let work = || {
        for number in std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed)) {
            let Some(piece) = bytes.chunks(PIECE).nth(number) else {
                return;
            };
            all.fetch_xor(rapidhash(piece, number as u64), Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            let _ = thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    all.into_inner().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use ::rapidhash::v3::{DEFAULT_RAPID_SECRETS, RapidSecrets, rapidhash_v3_inline};
    use proptest::prelude::*;

    use super::rapidhash::{PIECE, digest, rapidhash};
    use super::{MOST_THREADS, WORTH_A_THREAD, on_threads};

    /// The protected variant of another implementation. Its own premixing of the seed
    /// is not the protected one of the published code, so the seed comes from here:
    /// `seed ^ mix(seed ^ secret 2, secret 1)`, for 0.
    fn theirs(bytes: &[u8]) -> u64 {
        let [_, b, a, ..] = DEFAULT_RAPID_SECRETS.secrets;
        let high = u64::try_from((u128::from(a) * u128::from(b)) >> 64).unwrap();
        let secrets = RapidSecrets {
            seed: (a.wrapping_mul(b) ^ a) ^ (high ^ b),
            ..DEFAULT_RAPID_SECRETS
        };
        rapidhash_v3_inline::<true, false, true>(bytes, &secrets)
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

    /// SMHasher3's verification of `rapidhash__protected` (its hashes/rapidhash.cpp):
    /// the hashes of 0, 1, … 255 bytes with the seeds 256, 255, … 1, hashed once more.
    #[test]
    fn the_published_verification_value() {
        let key: Vec<u8> = (0..=255).collect();
        let hashes: Vec<u8> = (0..256_usize)
            .flat_map(|length| rapidhash(&key[..length], 256 - length as u64).to_le_bytes())
            .collect();
        let value = rapidhash(&hashes, 0).to_le_bytes();
        assert_eq!(value[..4], 0x72c9_270a_u32.to_le_bytes());
    }

    /// Of the published C code at its tag rapidhash_v3, as rapidhash-js tests them.
    #[test]
    fn published_vectors() {
        for (text, seed, hash) in [
            ("", 0, 11_261_680_266_911_490_598),
            ("a", 0, 11_369_649_020_086_803_936),
            ("AB", 0, 6_520_067_528_065_998_304),
            ("123", 0, 1_078_354_104_774_626_414),
            ("\u{b6}", 0, 4_536_550_242_511_490_374),
            ("\u{3042}", 0, 12_069_219_483_784_649_261),
            ("Hello, world.", 0, 8_420_346_363_632_834_389),
            ("こんにちは、世界。", 0, 10_796_614_528_641_246_887),
            (
                "Hello, world.",
                0x123_4567_89ab_cdef,
                15_844_390_683_378_342_600,
            ),
            (
                "こんにちは、世界。",
                0x123_4567_89ab_cdef,
                5_032_253_569_445_754_623,
            ),
        ] {
            assert_eq!(rapidhash(text.as_bytes(), seed), hash, "{text} {seed}");
        }
    }

    #[test]
    fn every_length_agrees_with_another_implementation() {
        let bytes = noise(1 << 20);
        for length in (0..1200).chain([4096, 65_537, 1_000_000, 1 << 20]) {
            let bytes = &bytes[..length];
            assert_eq!(rapidhash(bytes, 0), theirs(bytes), "{length} bytes");
        }
    }

    /// A lane that meets its own secret must not forget what came before.
    #[test]
    fn bytes_before_a_secret_count() {
        let mut bytes = noise(112 * 5);
        for (lane, secret) in DEFAULT_RAPID_SECRETS.secrets.iter().enumerate() {
            let at = 112 * 3 + 16 * lane;
            bytes[at..at + 8].copy_from_slice(&secret.to_le_bytes());
        }
        let whole = digest(&bytes);
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_ne!(digest(&bytes), whole, "byte {at}");
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn a_digest_is_the_hashes_of_its_pieces_xored() {
        let bytes = noise(3 * PIECE + 5);
        let hashes = [0, 1, 2, 3].map(|number| {
            let piece = bytes.chunks(1 << 20).nth(number).unwrap();
            rapidhash(piece, number as u64)
        });
        let expected = hashes.into_iter().fold(0, |all, hash| all ^ hash);
        assert_eq!(digest(&bytes), expected.to_be_bytes());
        // Pieces in another order have another digest.
        let swapped = [&bytes[PIECE..2 * PIECE], &bytes[..PIECE]].concat();
        assert_ne!(digest(&bytes[..2 * PIECE]), digest(&swapped));
    }

    #[test]
    fn any_number_of_threads_finds_the_same() {
        let bytes = noise(2 * WORTH_A_THREAD + 1);
        let expected = digest(&bytes);
        assert_eq!(super::digest(&bytes), expected);
        for threads in 1..=MOST_THREADS {
            assert_eq!(on_threads(&bytes, threads), expected, "{threads}");
        }
        assert_eq!(on_threads(&bytes[..7], 3), digest(&bytes[..7]));
        assert_eq!(on_threads(&[], 3), digest(&[]));
    }

    proptest! {
        #[test]
        fn any_bytes_agree_with_another_implementation(
            length in 0..5000_usize, skew in 0_usize..64
        ) {
            let bytes = noise(skew + length);
            prop_assert_eq!(rapidhash(&bytes[skew..], 0), theirs(&bytes[skew..]));
        }
    }
}
