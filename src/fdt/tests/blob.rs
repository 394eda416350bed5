//! Blobs made byte by byte, well-formed or not; shares nothing with the writer.

/// A blob in the making.
pub(super) struct Blob {
    pub(super) reservations: Vec<(u64, u64)>,
    structure: Vec<u8>,
    strings: Vec<u8>,
}

/// Fields of the header, by index.
pub(super) const MAGIC: usize = 0;
pub(super) const TOTAL_SIZE: usize = 1;
pub(super) const OFF_STRUCTURE: usize = 2;
pub(super) const OFF_STRINGS: usize = 3;
pub(super) const OFF_RESERVATIONS: usize = 4;
pub(super) const VERSION: usize = 5;
pub(super) const LAST_COMPATIBLE: usize = 6;
pub(super) const SIZE_STRINGS: usize = 8;
pub(super) const SIZE_STRUCTURE: usize = 9;

impl Blob {
    pub(super) fn new() -> Self {
        Self {
            reservations: Vec::new(),
            structure: Vec::new(),
            strings: Vec::new(),
        }
    }

    /// Any 32-bit number: a token, or what is none.
    pub(super) fn word(mut self, word: u32) -> Self {
        self.structure.extend(word.to_be_bytes());
        self
    }

    pub(super) fn bytes(mut self, bytes: &[u8]) -> Self {
        self.structure.extend(bytes);
        self.structure
            .resize(self.structure.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn begin(self, name: &str) -> Self {
        self.word(1).bytes(&[name.as_bytes(), b"\0"].concat())
    }

    pub(super) fn end(self) -> Self {
        self.word(2)
    }

    pub(super) fn nop(self) -> Self {
        self.word(4)
    }

    pub(super) fn finish(self) -> Self {
        self.word(9)
    }

    pub(super) fn prop(mut self, name: &str, value: &[u8]) -> Self {
        let offset = u32::try_from(self.strings.len()).unwrap();
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        let size = u32::try_from(value.len()).unwrap();
        self.word(3).word(size).word(offset).bytes(value)
    }

    pub(super) fn cell(self, name: &str, value: u32) -> Self {
        self.prop(name, &value.to_be_bytes())
    }

    /// A node without nodes below it, with one cell.
    pub(super) fn leaf(self, name: &str, property: &str, value: u32) -> Self {
        self.begin(name).cell(property, value).end()
    }

    /// The blob, as version 17, blocks in the specification's order.
    pub(super) fn build(&self) -> Vec<u8> {
        let entries = self.reservations.iter().flat_map(|(a, b)| [*a, *b]);
        let reserved: Vec<u8> = entries.chain([0, 0]).flat_map(u64::to_be_bytes).collect();
        let size = |block: &[u8]| u32::try_from(block.len()).unwrap();
        let structure = 40 + size(&reserved);
        let strings = structure + size(&self.structure);
        let header = [
            0xd00d_feed,
            strings + size(&self.strings),
            structure,
            strings,
            40,
            17,
            16,
            0,
            size(&self.strings),
            size(&self.structure),
        ]
        .map(u32::to_be_bytes);
        [
            header.as_flattened(),
            &reserved,
            &self.structure,
            &self.strings,
        ]
        .concat()
    }
}

/// `blob` with one field of its header changed.
pub(super) fn with_field(mut blob: Vec<u8>, field: usize, value: u32) -> Vec<u8> {
    blob[field * 4..field * 4 + 4].copy_from_slice(&value.to_be_bytes());
    blob
}

pub(super) fn field(blob: &[u8], field: usize) -> u32 {
    u32::from_be_bytes(blob[field * 4..field * 4 + 4].try_into().unwrap())
}
