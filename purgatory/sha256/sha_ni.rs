//! Streams in the SHA extensions. One stream waits for the latency of
//! SHA256RNDS2 (4 cycles, though one can start every 2) in every round; further
//! streams fill those waits. Two do that in theory. On Zen 5, where the other
//! vector instructions take 2 cycles, 1, 2, 3 and 4 streams were measured to
//! take 129, 84, 74 and 70 cycles per block; the limit is 64.

use core::arch::x86_64::*;

use super::{Block, K, State};

/// Four constants for four rounds.
///
/// # Safety
/// `group` is below 16.
#[inline(always)]
unsafe fn constants(group: usize) -> __m128i {
    // SAFETY: 16 groups of 16 bytes make up the table.
    unsafe { _mm_loadu_si128(K.as_ptr().cast::<__m128i>().add(group)) }
}

/// Takes `N` streams through their blocks; the shortest counts.
///
/// The instructions want the state as ABEF and CDGH and take two rounds each
/// (Intel, "New Instructions Supporting the Secure Hash Algorithm", 2013).
#[target_feature(enable = "sha,ssse3,sse4.1")]
#[inline(never)]
pub(super) fn compress<const N: usize>(states: &mut [State; N], blocks: [&[Block]; N]) {
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut abef = [_mm_setzero_si128(); N];
    let mut cdgh = [_mm_setzero_si128(); N];
    for lane in 0..N {
        let words = states[lane].as_ptr().cast::<__m128i>();
        // SAFETY: a state has 32 bytes.
        let (dcba, hgfe) = unsafe { (_mm_loadu_si128(words), _mm_loadu_si128(words.add(1))) };
        let cdab = _mm_shuffle_epi32::<0xb1>(dcba);
        let efgh = _mm_shuffle_epi32::<0x1b>(hgfe);
        abef[lane] = _mm_alignr_epi8::<8>(cdab, efgh);
        cdgh[lane] = _mm_blend_epi16::<0xf0>(efgh, cdab);
    }
    let count = blocks
        .iter()
        .fold(usize::MAX, |least, blocks| least.min(blocks.len()));
    for index in 0..count {
        let before = (abef, cdgh);
        // The last 16 words of the message schedule, four to a vector.
        let mut w = [[_mm_setzero_si128(); N]; 4];
        macro_rules! rounds {
            ($group:literal) => {
                // SAFETY: every group named below is below 16.
                let k = unsafe { constants($group) };
                for lane in 0..N {
                    let kw = _mm_add_epi32(w[$group % 4][lane], k);
                    cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], kw);
                    let kw = _mm_shuffle_epi32::<0x0e>(kw);
                    abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], kw);
                }
            };
        }
        macro_rules! given {
            ($group:literal) => {
                for lane in 0..N {
                    // SAFETY: `index` is below every length; 16 bytes of 64.
                    let bytes = unsafe {
                        let block = blocks[lane].as_ptr().add(index);
                        _mm_loadu_si128(block.cast::<__m128i>().add($group))
                    };
                    w[$group][lane] = _mm_shuffle_epi8(bytes, swap);
                }
                rounds!($group);
            };
        }
        macro_rules! extended {
            ($group:literal) => {
                for lane in 0..N {
                    let [p, q, r, s] = [
                        w[$group % 4][lane],
                        w[($group + 1) % 4][lane],
                        w[($group + 2) % 4][lane],
                        w[($group + 3) % 4][lane],
                    ];
                    let sum = _mm_add_epi32(_mm_sha256msg1_epu32(p, q), _mm_alignr_epi8::<4>(s, r));
                    w[$group % 4][lane] = _mm_sha256msg2_epu32(sum, s);
                }
                rounds!($group);
            };
        }
        given!(0);
        given!(1);
        given!(2);
        given!(3);
        extended!(4);
        extended!(5);
        extended!(6);
        extended!(7);
        extended!(8);
        extended!(9);
        extended!(10);
        extended!(11);
        extended!(12);
        extended!(13);
        extended!(14);
        extended!(15);
        for lane in 0..N {
            abef[lane] = _mm_add_epi32(abef[lane], before.0[lane]);
            cdgh[lane] = _mm_add_epi32(cdgh[lane], before.1[lane]);
        }
    }
    for lane in 0..N {
        let feba = _mm_shuffle_epi32::<0x1b>(abef[lane]);
        let dchg = _mm_shuffle_epi32::<0xb1>(cdgh[lane]);
        let words = states[lane].as_mut_ptr().cast::<__m128i>();
        // SAFETY: a state has 32 bytes.
        unsafe {
            _mm_storeu_si128(words, _mm_blend_epi16::<0xf0>(feba, dchg));
            _mm_storeu_si128(words.add(1), _mm_alignr_epi8::<8>(dchg, feba));
        }
    }
}
