//! One stream in general-purpose registers.

use super::{Block, K, State};

/// One round; the caller renames the words instead of moving them.
macro_rules! round {
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $k:expr, $w:expr) => {
        let sum = $h
            .wrapping_add($e.rotate_right(6) ^ $e.rotate_right(11) ^ $e.rotate_right(25))
            .wrapping_add($g ^ ($e & ($f ^ $g)))
            .wrapping_add($k)
            .wrapping_add($w);
        $d = $d.wrapping_add(sum);
        $h = sum
            .wrapping_add($a.rotate_right(2) ^ $a.rotate_right(13) ^ $a.rotate_right(22))
            .wrapping_add(($a & $b) ^ ($c & ($a ^ $b)));
    };
}

/// Eight rounds, after which every word is back in its place.
macro_rules! eight {
    ($word:ident, $from:literal, $a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident) => {
        round!($a $b $c $d $e $f $g $h, K[$from], $word!($from));
        round!($h $a $b $c $d $e $f $g, K[$from + 1], $word!($from + 1));
        round!($g $h $a $b $c $d $e $f, K[$from + 2], $word!($from + 2));
        round!($f $g $h $a $b $c $d $e, K[$from + 3], $word!($from + 3));
        round!($e $f $g $h $a $b $c $d, K[$from + 4], $word!($from + 4));
        round!($d $e $f $g $h $a $b $c, K[$from + 5], $word!($from + 5));
        round!($c $d $e $f $g $h $a $b, K[$from + 6], $word!($from + 6));
        round!($b $c $d $e $f $g $h $a, K[$from + 7], $word!($from + 7));
    };
}

/// Takes `state` through `blocks`.
#[inline(never)]
pub(super) fn compress(state: &mut State, blocks: &[Block]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for block in blocks {
        let before = [a, b, c, d, e, f, g, h];
        let mut w = [0_u32; 16];
        for (word, bytes) in w.iter_mut().zip(block.as_chunks::<4>().0) {
            *word = u32::from_be_bytes(*bytes);
        }
        macro_rules! given {
            ($i:expr) => {
                w[$i]
            };
        }
        macro_rules! extended {
            ($i:expr) => {{
                let (near, far) = (w[($i + 1) & 15], w[($i + 14) & 15]);
                w[$i & 15] = w[$i & 15]
                    .wrapping_add(near.rotate_right(7) ^ near.rotate_right(18) ^ (near >> 3))
                    .wrapping_add(w[($i + 9) & 15])
                    .wrapping_add(far.rotate_right(17) ^ far.rotate_right(19) ^ (far >> 10));
                w[$i & 15]
            }};
        }
        eight!(given, 0, a b c d e f g h);
        eight!(given, 8, a b c d e f g h);
        eight!(extended, 16, a b c d e f g h);
        eight!(extended, 24, a b c d e f g h);
        eight!(extended, 32, a b c d e f g h);
        eight!(extended, 40, a b c d e f g h);
        eight!(extended, 48, a b c d e f g h);
        eight!(extended, 56, a b c d e f g h);
        a = a.wrapping_add(before[0]);
        b = b.wrapping_add(before[1]);
        c = c.wrapping_add(before[2]);
        d = d.wrapping_add(before[3]);
        e = e.wrapping_add(before[4]);
        f = f.wrapping_add(before[5]);
        g = g.wrapping_add(before[6]);
        h = h.wrapping_add(before[7]);
    }
    *state = [a, b, c, d, e, f, g, h];
}
