//! Several streams in the lanes of vector registers: lane `n` of every vector
//! belongs to stream `n`. Plain SSE2 does four, AVX2 eight, by one text.

use core::arch::x86_64::*;

use super::{Block, K, State};

/// The constants, sixteen rounds to a row.
static ROWS: [[u32; 16]; 4] = {
    let mut rows = [[0; 16]; 4];
    let mut index = 0;
    while index < 64 {
        rows[index / 16][index % 16] = K[index];
        index += 1;
    }
    rows
};

/// [`ROWS`] with every constant in four lanes: SSE2 cannot spread one while it
/// loads it.
#[repr(C, align(16))]
struct Spread([[[u32; 4]; 16]; 4]);

static SPREAD_ROWS: Spread = {
    let mut rows = [[[0; 4]; 16]; 4];
    let mut index = 0;
    while index < 64 {
        rows[index / 16][index % 16] = [K[index]; 4];
        index += 1;
    }
    Spread(rows)
};

/// One round, on vectors. `$bc` is `b ^ c`, which the round before had as its
/// `a ^ b`; the caller renames the words instead of moving them.
macro_rules! round {
    ($a:ident $b:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $bc:ident, $kw:expr) => {
        let big1 = xor!(
            xor!(rotate!($e, 6, 26), rotate!($e, 11, 21)),
            rotate!($e, 25, 7)
        );
        let choice = xor!($g, and!($e, xor!($f, $g)));
        let sum = add!(add!(add!($h, $kw), big1), choice);
        $d = add!($d, sum);
        let big0 = xor!(
            xor!(rotate!($a, 2, 30), rotate!($a, 13, 19)),
            rotate!($a, 22, 10)
        );
        let ab = xor!($a, $b);
        let majority = xor!($b, and!(ab, $bc));
        $bc = ab;
        $h = add!(sum, add!(big0, majority));
    };
}

/// Eight rounds, after which every word is back in its place.
macro_rules! eight {
    ($kw:ident, $from:literal, $bc:ident, $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        round!($a $b $d $e $f $g $h, $bc, $kw!($from));
        round!($h $a $c $d $e $f $g, $bc, $kw!($from + 1));
        round!($g $h $b $c $d $e $f, $bc, $kw!($from + 2));
        round!($f $g $a $b $c $d $e, $bc, $kw!($from + 3));
        round!($e $f $h $a $b $c $d, $bc, $kw!($from + 4));
        round!($d $e $g $h $a $b $c, $bc, $kw!($from + 5));
        round!($c $d $f $g $h $a $b, $bc, $kw!($from + 6));
        round!($b $c $e $f $g $h $a, $bc, $kw!($from + 7));
    };
}

/// The whole compression function. It wants these macros in scope: `add!`,
/// `xor!`, `and!`, `left!`, `right!` (shifts), `splat!`, `swap!` (bytes of each
/// word), `rows!` and `constant!` (the constants), `quarter!` (16 bytes of every stream from an offset on, in the four
/// vectors that `transpose!` turns into words), `transpose!`, `gather!`, `spread!`.
macro_rules! body {
    ($states:ident, $blocks:ident) => {
        macro_rules! rotate {
            ($x:expr, $right:literal, $left:literal) => {
                xor!(right!($x, $right), left!($x, $left))
            };
        }
        let [
            mut a,
            mut b,
            mut c,
            mut d,
            mut e,
            mut f,
            mut g,
            mut h,
        ] = gather!($states);
        let count = $blocks
            .iter()
            .fold(usize::MAX, |least, blocks| least.min(blocks.len()));
        for index in 0..count {
            let before = [a, b, c, d, e, f, g, h];
            let mut w = [splat!(0); 16];
            for (quarter, words) in w.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *words = transpose!(quarter!($blocks, index, quarter)).map(|word| swap!(word));
            }
            // Rolled up to 16 rounds: 64 of them in line are more instructions
            // than a CPU's cache of decoded ones holds, which halves the speed.
            let mut bc = xor!(b, c);
            let [first, others @ ..] = rows!();
            macro_rules! given {
                ($i:expr) => {
                    add!(w[$i], constant!(first[$i]))
                };
            }
            eight!(given, 0, bc, a b c d e f g h);
            eight!(given, 8, bc, a b c d e f g h);
            for k in others {
                macro_rules! extended {
                    ($i:expr) => {{
                        let (near, far) = (w[($i + 1) & 15], w[($i + 14) & 15]);
                        let small0 = xor!(
                            xor!(rotate!(near, 7, 25), rotate!(near, 18, 14)),
                            right!(near, 3)
                        );
                        let small1 = xor!(
                            xor!(rotate!(far, 17, 15), rotate!(far, 19, 13)),
                            right!(far, 10)
                        );
                        w[$i] = add!(
                            add!(w[$i], small0),
                            add!(w[($i + 9) & 15], small1)
                        );
                        add!(w[$i], constant!(k[$i]))
                    }};
                }
                eight!(extended, 0, bc, a b c d e f g h);
                eight!(extended, 8, bc, a b c d e f g h);
            }
            a = add!(a, before[0]);
            b = add!(b, before[1]);
            c = add!(c, before[2]);
            d = add!(d, before[3]);
            e = add!(e, before[4]);
            f = add!(f, before[5]);
            g = add!(g, before[6]);
            h = add!(h, before[7]);
        }
        spread!($states, [a, b, c, d, e, f, g, h]);
    };
}

/// 16 bytes of a block.
///
/// # Safety
/// `index` is below `blocks.len()` and `quarter` below 4.
#[inline(always)]
unsafe fn load(blocks: &[Block], index: usize, quarter: usize) -> __m128i {
    // SAFETY: 16 bytes at a multiple of 16 below 64, in a block that exists.
    unsafe { _mm_loadu_si128(blocks.as_ptr().add(index).cast::<__m128i>().add(quarter)) }
}

/// Four streams in SSE2 registers, which every x86_64 has.
#[target_feature(enable = "sse2")]
#[inline(never)]
pub(super) fn sse2(states: &mut [State; 4], blocks: [&[Block]; 4]) {
    macro_rules! add {
        ($x:expr, $y:expr) => {
            _mm_add_epi32($x, $y)
        };
    }
    macro_rules! xor {
        ($x:expr, $y:expr) => {
            _mm_xor_si128($x, $y)
        };
    }
    macro_rules! and {
        ($x:expr, $y:expr) => {
            _mm_and_si128($x, $y)
        };
    }
    macro_rules! left {
        ($x:expr, $n:literal) => {
            _mm_slli_epi32::<$n>($x)
        };
    }
    macro_rules! right {
        ($x:expr, $n:literal) => {
            _mm_srli_epi32::<$n>($x)
        };
    }
    macro_rules! splat {
        ($x:expr) => {
            _mm_set1_epi32($x)
        };
    }
    macro_rules! rows {
        () => {
            &SPREAD_ROWS.0
        };
    }
    macro_rules! constant {
        ($lanes:expr) => {
            // SAFETY: four words are the 16 bytes, aligned as the table is.
            unsafe { _mm_load_si128($lanes.as_ptr().cast()) }
        };
    }
    macro_rules! swap {
        ($x:expr) => {{
            // No byte shuffle in SSE2: exchange the halves, then the bytes of each.
            let halves = _mm_shufflehi_epi16::<0xb1>(_mm_shufflelo_epi16::<0xb1>($x));
            _mm_or_si128(_mm_slli_epi16::<8>(halves), _mm_srli_epi16::<8>(halves))
        }};
    }
    macro_rules! quarter {
        ($blocks:ident, $index:ident, $quarter:ident) => {
            // SAFETY: `index` is below every length.
            $blocks.map(|blocks| unsafe { load(blocks, $index, $quarter) })
        };
    }
    macro_rules! transpose {
        ($rows:expr) => {{
            let [p, q, r, s] = $rows;
            let (pq_low, pq_high) = (_mm_unpacklo_epi32(p, q), _mm_unpackhi_epi32(p, q));
            let (rs_low, rs_high) = (_mm_unpacklo_epi32(r, s), _mm_unpackhi_epi32(r, s));
            [
                _mm_unpacklo_epi64(pq_low, rs_low),
                _mm_unpackhi_epi64(pq_low, rs_low),
                _mm_unpacklo_epi64(pq_high, rs_high),
                _mm_unpackhi_epi64(pq_high, rs_high),
            ]
        }};
    }
    macro_rules! gather {
        ($states:ident) => {{
            let mut words = [splat!(0); 8];
            for (index, word) in words.iter_mut().enumerate() {
                let lanes = $states.each_ref().map(|state| state[index].cast_signed());
                *word = _mm_setr_epi32(lanes[0], lanes[1], lanes[2], lanes[3]);
            }
            words
        }};
    }
    macro_rules! spread {
        ($states:ident, $words:expr) => {
            for (index, word) in $words.into_iter().enumerate() {
                let mut lanes = [0_u32; 4];
                // SAFETY: the array has the vector's 16 bytes.
                unsafe { _mm_storeu_si128(lanes.as_mut_ptr().cast(), word) };
                for (state, lane) in $states.iter_mut().zip(lanes) {
                    state[index] = lane;
                }
            }
        };
    }
    body!(states, blocks);
}

/// Eight streams in AVX2 registers.
#[target_feature(enable = "avx2")]
#[inline(never)]
pub(super) fn avx2(states: &mut [State; 8], blocks: [&[Block]; 8]) {
    macro_rules! add {
        ($x:expr, $y:expr) => {
            _mm256_add_epi32($x, $y)
        };
    }
    macro_rules! xor {
        ($x:expr, $y:expr) => {
            _mm256_xor_si256($x, $y)
        };
    }
    macro_rules! and {
        ($x:expr, $y:expr) => {
            _mm256_and_si256($x, $y)
        };
    }
    macro_rules! left {
        ($x:expr, $n:literal) => {
            _mm256_slli_epi32::<$n>($x)
        };
    }
    macro_rules! right {
        ($x:expr, $n:literal) => {
            _mm256_srli_epi32::<$n>($x)
        };
    }
    macro_rules! splat {
        ($x:expr) => {
            _mm256_set1_epi32($x)
        };
    }
    macro_rules! rows {
        () => {
            &ROWS
        };
    }
    macro_rules! constant {
        ($word:expr) => {
            splat!($word.cast_signed())
        };
    }
    macro_rules! swap {
        ($x:expr) => {
            _mm256_shuffle_epi8(
                $x,
                _mm256_set_epi64x(
                    0x0c0d_0e0f_0809_0a0b,
                    0x0405_0607_0001_0203,
                    0x0c0d_0e0f_0809_0a0b,
                    0x0405_0607_0001_0203,
                ),
            )
        };
    }
    macro_rules! quarter {
        ($blocks:ident, $index:ident, $quarter:ident) => {{
            // The unpack instructions work within each half of a register, so
            // streams 0 to 3 go through the low halves and 4 to 7 through the
            // high ones.
            // SAFETY: `index` is below every length.
            let rows = $blocks.map(|blocks| unsafe { load(blocks, $index, $quarter) });
            [
                _mm256_set_m128i(rows[4], rows[0]),
                _mm256_set_m128i(rows[5], rows[1]),
                _mm256_set_m128i(rows[6], rows[2]),
                _mm256_set_m128i(rows[7], rows[3]),
            ]
        }};
    }
    macro_rules! transpose {
        ($rows:expr) => {{
            let [p, q, r, s] = $rows;
            let (pq_low, pq_high) = (_mm256_unpacklo_epi32(p, q), _mm256_unpackhi_epi32(p, q));
            let (rs_low, rs_high) = (_mm256_unpacklo_epi32(r, s), _mm256_unpackhi_epi32(r, s));
            [
                _mm256_unpacklo_epi64(pq_low, rs_low),
                _mm256_unpackhi_epi64(pq_low, rs_low),
                _mm256_unpacklo_epi64(pq_high, rs_high),
                _mm256_unpackhi_epi64(pq_high, rs_high),
            ]
        }};
    }
    macro_rules! gather {
        ($states:ident) => {{
            let mut words = [splat!(0); 8];
            for (index, word) in words.iter_mut().enumerate() {
                let lanes = $states.each_ref().map(|state| state[index].cast_signed());
                *word = _mm256_setr_epi32(
                    lanes[0], lanes[1], lanes[2], lanes[3], lanes[4], lanes[5], lanes[6], lanes[7],
                );
            }
            words
        }};
    }
    macro_rules! spread {
        ($states:ident, $words:expr) => {
            for (index, word) in $words.into_iter().enumerate() {
                let mut lanes = [0_u32; 8];
                // SAFETY: the array has the vector's 32 bytes.
                unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), word) };
                for (state, lane) in $states.iter_mut().zip(lanes) {
                    state[index] = lane;
                }
            }
        };
    }
    body!(states, blocks);
}
