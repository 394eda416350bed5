//! The digest of a region: rapidhash v3 by Nicolas De Carli in its protected
//! variant, for the loader and the purgatory alike. No allocation, no panic, no
//! static pointer (the purgatory's image must need no relocation).

/// What a region's bytes are told by, the highest byte first.
pub(crate) type Digest = [u8; 8];
/// Bytes of a piece of a region; the last one may be shorter. The loader hashes
/// pieces side by side on several CPUs.
pub(crate) const PIECE: usize = 1 << 20;

const SECRET: [u64; 8] = [
    0x2d35_8dcc_aa6c_78a5,
    0x8bb8_4b93_962e_acc9,
    0x4b33_a62e_d433_d4a3,
    0x4d5a_2da5_1de1_aa47,
    0xa076_1d64_78bd_642f,
    0xe703_7ed1_a0b4_28db,
    0x90ed_1765_281c_388c,
    0xaaaa_aaaa_aaaa_aaaa,
];

/// The digest of a region: the hashes of its pieces, each with its number as the
/// seed, xored.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    let pieces = bytes.chunks(PIECE).zip(0..);
    let hashes = pieces.map(|(piece, number)| rapidhash(piece, number));
    hashes.fold(0, |all, hash| all ^ hash).to_be_bytes()
}

/// The published function.
pub(crate) fn rapidhash(bytes: &[u8], seed: u64) -> u64 {
    let seed = seed ^ mix(seed ^ SECRET[2], SECRET[1]);
    let (a, b, seed, rest) = match bytes.last_chunk() {
        Some(last) if bytes.len() > 16 => {
            let (seed, rest) = body(bytes, seed);
            let (a, b) = pair(last);
            (a ^ rest, b, seed, rest)
        }
        _ => {
            let (a, b, seed) = short(bytes, seed);
            (a, b, seed, bytes.len() as u64)
        }
    };
    let (a, b) = multiply(a ^ SECRET[1], b ^ seed);
    mix(a ^ SECRET[7], b ^ SECRET[1] ^ rest)
}

/// What the final steps take of at most 16 bytes, and the seed for them.
fn short(bytes: &[u8], seed: u64) -> (u64, u64, u64) {
    let length = bytes.len() as u64;
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        return (
            u64::from_le_bytes(*first),
            u64::from_le_bytes(*last),
            seed ^ length,
        );
    }
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        return (first.into(), last.into(), seed ^ length);
    }
    match *bytes {
        [] => (0, 0, seed),
        [one] => (u64::from(one) << 45 | u64::from(one), one.into(), seed),
        [first, .., last] => {
            let middle = bytes.get(bytes.len() / 2).copied().unwrap_or(last);
            let ends = u64::from(first) << 45 | u64::from(last);
            (ends, middle.into(), seed)
        }
    }
}

/// Takes more than 16 bytes in, but for the last 16: the seed for the final steps,
/// and how many bytes no whole round of the lanes took.
fn body(bytes: &[u8], seed: u64) -> (u64, u64) {
    // Seven lanes that do not wait for each other. The last 112 bytes are left over,
    // even when they are a whole round.
    let (rounds, rest) = all_but_the_end::<112>(bytes);
    let mut lanes = [seed; 7];
    for round in rounds {
        let (pairs, _) = round.as_chunks();
        for ((lane, words), secret) in lanes.iter_mut().zip(pairs).zip(SECRET) {
            let (a, b) = pair(words);
            *lane = mix(a ^ secret, b ^ *lane);
        }
    }
    // Seven equal ones, after no round, are the seed again.
    let seed = lanes.into_iter().fold(0, |all, lane| all ^ lane);
    let (pairs, _) = all_but_the_end::<16>(rest);
    let secrets = [2, 2, 1, 1, 2, 1].map(|number: usize| SECRET[number]);
    let seed = pairs
        .iter()
        .zip(secrets)
        .fold(seed, |seed, (words, secret)| {
            let (a, b) = pair(words);
            mix(a ^ secret, b ^ seed)
        });
    (seed, rest.len() as u64)
}

/// Whole pieces of `N` bytes, and at least one byte after them.
fn all_but_the_end<const N: usize>(bytes: &[u8]) -> (&[[u8; N]], &[u8]) {
    let end = bytes.len().saturating_sub(1) / N * N;
    let (head, rest) = bytes.split_at_checked(end).unwrap_or((&[], bytes));
    (head.as_chunks().0, rest)
}

/// Two words.
fn pair(bytes: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*bytes);
    (low(both), low(both >> 64))
}

/// The product of two words, xored into them: its low half into the one, its high
/// half into the other. That is what protects. Without it, a word equal to a
/// secret makes a product of 0, and all that its lane took in before is forgotten.
/// Such words are in every file that has this very table.
fn multiply(a: u64, b: u64) -> (u64, u64) {
    let product = u128::from(a) * u128::from(b);
    (a ^ low(product), b ^ low(product >> 64))
}

fn mix(a: u64, b: u64) -> u64 {
    let (a, b) = multiply(a, b);
    a ^ b
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
const fn low(both: u128) -> u64 {
    both as u64
}
