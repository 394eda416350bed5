//! Tiny PE files, byte by byte: UKIs and their addons.

use super::bzimage::TinyBzImage;

/// Where the PE header is.
pub(crate) const PE_HEADER: usize = 0x80;
/// Bytes of the optional header (PE32+ with 16 data directories).
const OPTIONAL: usize = 240;
/// Where the section table is.
pub(crate) const TABLE: usize = PE_HEADER + 24 + OPTIONAL;
/// Bytes of an entry of it.
pub(crate) const ENTRY: usize = 40;
/// Sections begin on multiples of this in the file.
const FILE_ALIGNMENT: usize = 0x200;

/// A PE file that can be changed.
#[derive(Debug, Clone)]
pub(crate) struct TinyPe {
    pub(crate) machine: u16,
    pub(crate) sections: Vec<(String, Vec<u8>)>,
    /// Size of the certificate table, bytes.
    pub(crate) signature: u32,
}

impl TinyPe {
    /// A PE file for x86_64 with these sections.
    pub(crate) fn new<'a>(sections: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let sections = sections.into_iter();
        Self {
            machine: 0x8664,
            sections: sections
                .map(|(name, bytes)| (name.to_owned(), bytes.to_vec()))
                .collect(),
            signature: 0,
        }
    }

    /// A UKI as ukify makes them, with a tiny bzImage.
    pub(crate) fn uki() -> Self {
        let kernel = TinyBzImage::new(0x2000).build();
        Self::new([
            (".text", &b"stub"[..]),
            (".osrel", b"ID=debian\nPRETTY_NAME=\"Debian\"\n"),
            (".cmdline", b"root=LABEL=x  quiet\n\0"),
            (".uname", b"6.12.0-tiny"),
            (".linux", &kernel),
            (".initrd", b"070701 an initrd"),
            (".ucode", b"070701 microcode"),
            (".dtb", b"\xd0\x0d\xfe\xed"),
        ])
    }

    /// With another section behind the others.
    pub(crate) fn with(mut self, name: &str, bytes: &[u8]) -> Self {
        self.sections.push((name.to_owned(), bytes.to_vec()));
        self
    }

    /// Without the sections of that name.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.sections.retain(|(other, _)| other != name);
        self
    }

    /// The file.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = vec![0; TABLE + self.sections.len() * ENTRY];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
        put(0, b"MZ");
        put(0x3c, &number(PE_HEADER));
        put(PE_HEADER, b"PE\0\0");
        put(PE_HEADER + 4, &self.machine.to_le_bytes());
        put(PE_HEADER + 6, &number(self.sections.len())[..2]);
        put(PE_HEADER + 20, &number(OPTIONAL)[..2]);
        put(PE_HEADER + 24, &0x20b_u16.to_le_bytes());
        // 16 data directories; the certificate table is the fifth.
        put(PE_HEADER + 24 + 108, &number(16));
        if self.signature != 0 {
            put(PE_HEADER + 24 + 112 + 32, &number(0x200));
            put(PE_HEADER + 24 + 112 + 36, &self.signature.to_le_bytes());
        }
        for (index, (name, bytes)) in self.sections.iter().enumerate() {
            file.resize(file.len().next_multiple_of(FILE_ALIGNMENT), 0);
            let raw = bytes.len().next_multiple_of(FILE_ALIGNMENT);
            let mut entry = [0; ENTRY];
            entry[..name.len()].copy_from_slice(name.as_bytes());
            entry[8..12].copy_from_slice(&number(bytes.len()));
            entry[12..16].copy_from_slice(&number(0x1000 * (index + 1)));
            entry[16..20].copy_from_slice(&number(raw));
            entry[20..24].copy_from_slice(&number(file.len()));
            let at = TABLE + index * ENTRY;
            file[at..at + ENTRY].copy_from_slice(&entry);
            file.extend(bytes);
            file.resize(file.len().next_multiple_of(FILE_ALIGNMENT), 0xcc);
        }
        file
    }
}
