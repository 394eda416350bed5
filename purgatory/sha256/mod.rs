//! SHA-256 and the region digest built on it, for the loader and the purgatory
//! alike: no allocation, no panic, no static pointer (the purgatory's image
//! must need no relocation).
//!
//! One stream of SHA-256 is bound by its own dependency chain, not by memory.
//! So a region is cut into chunks which are hashed side by side, each on its
//! own, and the digests of the chunks are hashed once more. README.md beside
//! this directory has the format.

mod lanes;
mod scalar;
mod sha_ni;

/// Bytes of one leaf of the digest: every region is cut into chunks of this size.
pub const CHUNK: usize = 1 << 20;

/// What SHA-256 works on.
type Block = [u8; 64];
/// The eight words between two blocks.
type State = [u32; 8];
/// A SHA-256 digest.
pub type Digest = [u8; 32];

/// Initial hash value, FIPS 180-4, 5.3.3.
const INITIAL: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Round constants, FIPS 180-4, 4.2.2.
#[rustfmt::skip]
static K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// A way to run SHA-256's compression function over `N` streams side by side.
///
/// Implementors that use instructions beyond SSE2 are made by an unsafe
/// constructor that promises them, so that calling these is safe.
pub(crate) trait Engine<const N: usize>: Copy {
    /// Takes every stream through its own blocks. The slices are of one length;
    /// the shortest counts.
    fn many(self, states: &mut [State; N], blocks: [&[Block]; N]);
    /// Takes one stream through its blocks.
    fn one(self, state: &mut State, blocks: &[Block]);
}

/// Baseline x86_64: four lanes in SSE2 registers, one in general registers.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// One stream after the other in general registers. For the loader only, which
/// may find itself in an emulator where vector instructions are slow.
#[derive(Clone, Copy)]
pub(crate) struct Scalar;

/// Eight lanes in AVX2 registers. For the loader only: the purgatory runs with
/// CR4.OSXSAVE clear.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// The SHA extensions, with four lanes to keep SHA256RNDS2 busy.
#[derive(Clone, Copy)]
pub(crate) struct ShaNi(());

impl Avx2 {
    /// # Safety
    /// The CPU has AVX2 and the system saves its registers.
    pub(crate) const unsafe fn new() -> Self {
        Self(())
    }
}

impl ShaNi {
    /// # Safety
    /// The CPU has the SHA extensions, SSSE3 and SSE4.1.
    pub(crate) const unsafe fn new() -> Self {
        Self(())
    }
}

impl Engine<4> for Portable {
    fn many(self, states: &mut [State; 4], blocks: [&[Block]; 4]) {
        // SAFETY: SSE2 is part of x86_64.
        unsafe { lanes::sse2(states, blocks) }
    }
    fn one(self, state: &mut State, blocks: &[Block]) {
        scalar::compress(state, blocks);
    }
}

impl Engine<1> for Scalar {
    fn many(self, states: &mut [State; 1], blocks: [&[Block]; 1]) {
        for (state, blocks) in states.iter_mut().zip(blocks) {
            scalar::compress(state, blocks);
        }
    }
    fn one(self, state: &mut State, blocks: &[Block]) {
        scalar::compress(state, blocks);
    }
}

impl Engine<8> for Avx2 {
    fn many(self, states: &mut [State; 8], blocks: [&[Block]; 8]) {
        // SAFETY: whoever made `self` promised AVX2.
        unsafe { lanes::avx2(states, blocks) }
    }
    fn one(self, state: &mut State, blocks: &[Block]) {
        scalar::compress(state, blocks);
    }
}

impl Engine<4> for ShaNi {
    fn many(self, states: &mut [State; 4], blocks: [&[Block]; 4]) {
        // SAFETY: whoever made `self` promised the extensions.
        unsafe { sha_ni::compress(states, blocks) }
    }
    fn one(self, state: &mut State, blocks: &[Block]) {
        // SAFETY: as above.
        unsafe { sha_ni::compress(core::array::from_mut(state), [blocks]) }
    }
}

/// SHA-256 of a message that arrives in parts.
#[derive(Clone)]
pub(crate) struct Stream<E> {
    engine: E,
    state: State,
    /// The first `length % 64` bytes are those not yet in `state`.
    pending: Block,
    /// Bytes so far.
    length: u64,
}

impl<E> Stream<E> {
    /// A message of which nothing has arrived.
    pub(crate) const fn new(engine: E) -> Self {
        Self {
            engine,
            state: INITIAL,
            pending: [0; 64],
            length: 0,
        }
    }

    /// Appends `bytes`.
    pub(crate) fn update<const N: usize>(&mut self, mut bytes: &[u8])
    where
        E: Engine<N>,
    {
        let used = (self.length % 64) as usize;
        self.length = self.length.wrapping_add(bytes.len() as u64);
        if used != 0 {
            let (_, free) = split(&mut self.pending, used);
            let taken = copy_front(free, bytes);
            bytes = bytes.get(taken..).unwrap_or_default();
            if used + taken < 64 {
                return;
            }
            self.engine.one(&mut self.state, &[self.pending]);
        }
        let (blocks, rest) = bytes.as_chunks::<64>();
        self.engine.one(&mut self.state, blocks);
        copy_front(&mut self.pending, rest);
    }

    /// The digest of all that arrived.
    pub(crate) fn finish<const N: usize>(self) -> Digest
    where
        E: Engine<N>,
    {
        let Self {
            engine,
            mut state,
            mut pending,
            length,
        } = self;
        let used = (length % 64) as usize;
        let (_, free) = split(&mut pending, used);
        free.fill(0);
        if let Some(first) = free.first_mut() {
            *first = 0x80;
        }
        if used >= 56 {
            engine.one(&mut state, &[pending]);
            pending = [0; 64];
        }
        if let Some(last) = pending.last_chunk_mut::<8>() {
            *last = length.wrapping_mul(8).to_be_bytes();
        }
        engine.one(&mut state, &[pending]);
        let mut digest = [0; 32];
        for (bytes, word) in digest.as_chunks_mut::<4>().0.iter_mut().zip(state) {
            *bytes = word.to_be_bytes();
        }
        digest
    }
}

/// `slice.split_at_mut(at)`, everything in the first part when `at` is beyond.
fn split(slice: &mut [u8], at: usize) -> (&mut [u8], &mut [u8]) {
    slice.split_at_mut(at.min(slice.len()))
}

/// Copies as much of `source` as `target` holds; answers how much that was.
fn copy_front(target: &mut [u8], source: &[u8]) -> usize {
    let mut copied = 0;
    for (to, from) in target.iter_mut().zip(source) {
        *to = *from;
        copied += 1;
    }
    copied
}

/// SHA-256 of `N` messages of any lengths, as far as possible side by side.
fn leaves<E: Engine<N>, const N: usize>(engine: E, messages: [&[u8]; N]) -> [Digest; N] {
    let mut states = [INITIAL; N];
    let mut rest = messages.map(|message| message.as_chunks::<64>().0);
    loop {
        let mut alive = 0;
        let mut step = usize::MAX;
        let mut filler: &[Block] = &[];
        for blocks in rest {
            if !blocks.is_empty() {
                alive += 1;
                step = step.min(blocks.len());
                filler = blocks;
            }
        }
        // All lanes together take as long as two or three streams one by one.
        if alive <= 2 {
            break;
        }
        // A lane that has come to its end goes along on another one's blocks,
        // and what it computes is dropped.
        let input = rest.map(|blocks| {
            let blocks = if blocks.is_empty() { filler } else { blocks };
            blocks.get(..step).unwrap_or_default()
        });
        let mut next = states;
        engine.many(&mut next, input);
        for ((state, next), blocks) in states.iter_mut().zip(next).zip(&mut rest) {
            if !blocks.is_empty() {
                *state = next;
                *blocks = blocks.get(step..).unwrap_or_default();
            }
        }
    }
    let mut digests = [[0; 32]; N];
    for (((digest, state), blocks), message) in
        digests.iter_mut().zip(states).zip(rest).zip(messages)
    {
        let (whole, tail) = message.as_chunks::<64>();
        let mut stream = Stream::new(engine);
        stream.state = state;
        stream.length = (whole.len() as u64) * 64;
        engine.one(&mut stream.state, blocks);
        stream.update(tail);
        *digest = stream.finish();
    }
    digests
}

/// Appends the leaves of `bytes`, cut into pieces of `LEAF` bytes, to `root`.
pub(crate) fn push_leaves<E: Engine<N>, const N: usize, const LEAF: usize>(
    root: &mut Stream<E>,
    bytes: &[u8],
) {
    let mut chunks = bytes.chunks(LEAF);
    loop {
        let mut messages: [&[u8]; N] = [&[]; N];
        let mut count = 0;
        for (message, chunk) in messages.iter_mut().zip(&mut chunks) {
            *message = chunk;
            count += 1;
        }
        for digest in leaves(root.engine, messages).iter().take(count) {
            root.update(digest);
        }
        if count < N {
            return;
        }
    }
}

/// The digest of a region: SHA-256 of the SHA-256 of each of its chunks, which
/// have `LEAF` bytes: [`CHUNK`], but for tests.
pub(crate) fn region_digest<E: Engine<N>, const N: usize, const LEAF: usize>(
    engine: E,
    bytes: &[u8],
) -> Digest {
    let mut root = Stream::new(engine);
    push_leaves::<E, N, LEAF>(&mut root, bytes);
    root.finish()
}
