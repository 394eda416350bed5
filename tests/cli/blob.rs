//! Device tree blobs, token by token (Devicetree Specification v0.4, chapter 5).

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const END: u32 = 9;

/// A blob in the making; its root is open.
pub(crate) struct Blob {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Blob {
    pub(crate) fn new() -> Self {
        let blob = Self {
            structure: Vec::new(),
            strings: Vec::new(),
        };
        blob.begin("")
    }

    pub(crate) fn begin(mut self, name: &str) -> Self {
        self.word(BEGIN_NODE);
        self.structure.extend(name.as_bytes());
        self.structure.push(0);
        self.align()
    }

    pub(crate) fn end(mut self) -> Self {
        self.word(END_NODE);
        self
    }

    pub(crate) fn property(mut self, name: &str, value: &[u8]) -> Self {
        self.word(PROP);
        self.word(number(value.len()));
        self.word(number(self.strings.len()));
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        self.structure.extend(value);
        self.align()
    }

    pub(crate) fn cell(self, name: &str, value: u32) -> Self {
        self.property(name, &value.to_be_bytes())
    }

    /// A node as the RFC has it.
    pub(crate) fn pool(self, name: &str, base: u64, size: u64, bitmap: u64) -> Self {
        self.begin(name)
            .property("compatible", b"pmpool\0")
            .property("base", &base.to_be_bytes())
            .property("size", &size.to_be_bytes())
            .property("bitmap", &bitmap.to_be_bytes())
            .end()
    }

    /// Closes the root.
    pub(crate) fn build(self) -> Vec<u8> {
        let mut blob = self.end();
        blob.word(END);
        // Header, the end of the reservations, then structure and strings.
        let structure = 0x28 + 0x10;
        let strings = structure + blob.structure.len();
        let header = [
            0xd00d_feed,
            number(strings + blob.strings.len()),
            number(structure),
            number(strings),
            0x28,
            17,
            16,
            0,
            number(blob.strings.len()),
            number(blob.structure.len()),
        ];
        let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend([0; 16]);
        bytes.extend(blob.structure);
        bytes.extend(blob.strings);
        bytes
    }

    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn align(mut self) -> Self {
        let aligned = self.structure.len().next_multiple_of(4);
        self.structure.resize(aligned, 0);
        self
    }
}

fn number(number: usize) -> u32 {
    number.try_into().unwrap()
}
