//! Tiny multiboot kernels, byte by byte.

/// Bytes of `numbers`, little-endian.
pub(crate) fn words(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// The header of version 1: magic, flags, checksum, and the address fields.
pub(crate) fn header_v1(flags: u32, addresses: &[u32]) -> Vec<u8> {
    let magic = 0x1bad_b002_u32;
    let checksum = 0_u32.wrapping_sub(magic.wrapping_add(flags));
    let mut header = words(&[magic, flags, checksum]);
    header.extend(words(addresses));
    header
}

/// A header tag of version 2.
pub(crate) fn tag(kind: u16, flags: u16, body: &[u32]) -> Vec<u8> {
    let size = u32::try_from(8 + 4 * body.len()).unwrap();
    let mut tag = kind.to_le_bytes().to_vec();
    tag.extend(flags.to_le_bytes());
    tag.extend(size.to_le_bytes());
    tag.extend(words(body));
    tag.resize(tag.len().next_multiple_of(8), 0);
    tag
}

/// The header of version 2 with `tags` and the one that ends them.
pub(crate) fn header_v2(architecture: u32, tags: &[Vec<u8>]) -> Vec<u8> {
    let mut all = tags.concat();
    all.extend(tag(0, 0, &[]));
    let (magic, length) = (0xe852_50d6_u32, u32::try_from(16 + all.len()).unwrap());
    let sum = magic.wrapping_add(architecture).wrapping_add(length);
    let mut header = words(&[magic, architecture, length, 0_u32.wrapping_sub(sum)]);
    header.extend(all);
    header
}

/// A loadable segment of an ELF file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Segment {
    pub(crate) paddr: u64,
    /// Virtual less physical address.
    pub(crate) high: u64,
    pub(crate) bytes: Vec<u8>,
    /// Bytes of memory behind those of the file.
    pub(crate) bss: u64,
}

/// An ELF executable of 32 or 64 bits.
#[derive(Debug, Clone)]
pub(crate) struct TinyElf {
    pub(crate) bits: u8,
    pub(crate) entry: u64,
    pub(crate) segments: Vec<Segment>,
}

impl TinyElf {
    /// One segment at `paddr` with `bytes`, entered at its start.
    pub(crate) fn new(paddr: u64, bytes: &[u8]) -> Self {
        let segment = Segment {
            paddr,
            bytes: bytes.to_vec(),
            ..Segment::default()
        };
        Self {
            bits: 32,
            entry: paddr,
            segments: vec![segment],
        }
    }

    /// The file: headers, then the segments' bytes, each at a multiple of 8.
    pub(crate) fn build(&self) -> Vec<u8> {
        let wide = self.bits == 64;
        let (head, entry_size) = if wide { (64_u16, 56_u16) } else { (52, 32) };
        let count = u16::try_from(self.segments.len()).unwrap();
        let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0".to_vec();
        file[4] = if wide { 2 } else { 1 };
        file.extend(if wide { 62_u16 } else { 3 }.to_le_bytes()); // EM_X86_64, EM_386
        file.extend(words(&[1]));
        let long = |file: &mut Vec<u8>, number: u64| {
            if wide {
                file.extend(number.to_le_bytes());
            } else {
                file.extend(u32::try_from(number).unwrap().to_le_bytes());
            }
        };
        long(&mut file, self.entry);
        long(&mut file, head.into());
        long(&mut file, 0);
        file.extend(words(&[0]));
        for half in [head, entry_size, count, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        assert_eq!(file.len(), usize::from(head));
        let mut at = u64::from(head) + u64::from(entry_size) * u64::from(count);
        for segment in &self.segments {
            at = at.next_multiple_of(8);
            let size = segment.bytes.len() as u64;
            let vaddr = segment.paddr.wrapping_add(segment.high);
            file.extend(words(&[1])); // PT_LOAD
            if wide {
                file.extend(words(&[7]));
            }
            for number in [at, vaddr, segment.paddr, size, size + segment.bss] {
                long(&mut file, number);
            }
            if !wide {
                file.extend(words(&[7]));
            }
            long(&mut file, 8);
            at += size;
        }
        for segment in &self.segments {
            file.resize(file.len().next_multiple_of(8), 0);
            file.extend(&segment.bytes);
        }
        file
    }
}
