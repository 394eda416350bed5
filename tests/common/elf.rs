//! Tiny ELF files, byte by byte: a vmlinux, and what is nearly one.

/// Where Linux is linked, less its physical address.
pub(crate) const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// Where the tiny kernel is linked, physical.
pub(crate) const BASE: u64 = 0x100_0000;
/// What it calls itself.
pub(crate) const BANNER: &str =
    "Linux version 6.12.0-tiny (builder@host) (gcc (GCC) 12.2.0, GNU ld 2.40) #1 SMP\n";
/// Bytes of the ELF header.
const HEADER: usize = 64;
/// Bytes of a program header.
const PROGRAM_HEADER: usize = 56;

/// One PT_LOAD.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) virtual_: u64,
    pub(crate) physical: u64,
    /// Bytes in memory.
    pub(crate) size: u64,
    pub(crate) bytes: Vec<u8>,
}

impl Load {
    /// A part of the kernel, `offset` from its start.
    pub(crate) fn new(offset: u64, size: u64, bytes: &[u8]) -> Self {
        Self::at(BASE + offset, size, bytes)
    }

    /// A part of a kernel at `physical`.
    pub(crate) fn at(physical: u64, size: u64, bytes: &[u8]) -> Self {
        Self {
            virtual_: START_KERNEL_MAP + physical,
            physical,
            size,
            bytes: bytes.to_vec(),
        }
    }
}

/// An ELF file that can be changed.
#[derive(Debug, Clone)]
pub(crate) struct TinyElf {
    pub(crate) class: u8,
    pub(crate) order: u8,
    pub(crate) kind: u16,
    pub(crate) machine: u16,
    pub(crate) entry: u64,
    pub(crate) loads: Vec<Load>,
}

impl TinyElf {
    /// A vmlinux as the kernel's build makes them: code with the banner, data,
    /// the per-CPU area that is linked at 0, and what ends in memory without bytes.
    pub(crate) fn vmlinux() -> Self {
        let mut code: Vec<u8> = (0..251_u8).cycle().take(0x3000).collect();
        let fmt = b"Linux version %s (%s)\0";
        code[0x800..0x800 + fmt.len()].copy_from_slice(fmt);
        code[0x900..0x900 + BANNER.len()].copy_from_slice(BANNER.as_bytes());
        let per_cpu = Load {
            virtual_: 0,
            ..Load::new(0x20_3000, 0x1800, &[3; 0x1800])
        };
        Self {
            class: 2,
            order: 1,
            kind: 2,
            machine: 62,
            entry: BASE + 0xb53,
            loads: vec![
                Load::new(0, 0x3000, &code),
                Load::new(0x20_0000, 0x2000, &[2; 0x2000]),
                per_cpu,
                Load::new(0x20_5000, 0x5_0000, &[4; 0x1234]),
            ],
        }
    }

    /// The file: every load on a page of its own.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut file = vec![0; HEADER + self.loads.len() * PROGRAM_HEADER];
        let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &[0x7f, b'E', b'L', b'F', self.class, self.order, 1]);
        put(16, &self.kind.to_le_bytes());
        put(18, &self.machine.to_le_bytes());
        put(20, &1_u32.to_le_bytes());
        put(24, &self.entry.to_le_bytes());
        put(32, &(HEADER as u64).to_le_bytes());
        put(52, &u16::try_from(HEADER).unwrap().to_le_bytes());
        put(54, &u16::try_from(PROGRAM_HEADER).unwrap().to_le_bytes());
        put(56, &u16::try_from(self.loads.len()).unwrap().to_le_bytes());
        for (number, load) in self.loads.iter().enumerate() {
            file.resize(file.len().next_multiple_of(0x1000), 0);
            let fields = [
                file.len() as u64,
                load.virtual_,
                load.physical,
                load.bytes.len() as u64,
                load.size,
                0x20_0000,
            ];
            let mut header = [1_u32.to_le_bytes(), 7_u32.to_le_bytes()].concat();
            header.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
            let at = HEADER + number * PROGRAM_HEADER;
            file[at..at + PROGRAM_HEADER].copy_from_slice(&header);
            file.extend(&load.bytes);
        }
        file
    }
}

/// Relocation lists as the kernel's build puts them behind the ELF file: the places of 64-bit
/// addresses, with `inverse` those of Linux 6.12, and the places of 32-bit ones; bytes from
/// where the kernel is linked.
pub(crate) fn relocations(wide: &[u64], inverse: Option<&[u64]>, narrow: &[u64]) -> Vec<u8> {
    let lists = [Some(wide), inverse, Some(narrow)];
    let word = |place: &u64| {
        let address = (START_KERNEL_MAP + BASE).wrapping_add(*place);
        u32::try_from(address & 0xffff_ffff)
    };
    lists
        .into_iter()
        .flatten()
        .flat_map(|list| std::iter::once(0).chain(list.iter().map(move |at| word(at).unwrap())))
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// A section of an unpacked kernel, for [`sections`]: its name, its flags and its bytes.
pub(crate) type Section<'a> = (&'a str, u64, &'a [u8]);
/// SHF_ALLOC: it lies in memory.
pub(crate) const ALLOC: u64 = 2;
/// SHF_EXECINSTR: it is code.
pub(crate) const CODE: u64 = 4;

/// An unpacked kernel of which only the sections are there, as they are in the payload of
/// a bzImage.
pub(crate) fn sections(sections: &[Section<'_>]) -> Vec<u8> {
    let mut names = vec![0];
    let mut file = TinyElf {
        loads: Vec::new(),
        ..TinyElf::vmlinux()
    }
    .build();
    // The null section, then PROGBITS for each.
    let mut headers = vec![0; 64];
    let mut add = |file: &mut Vec<u8>, name: usize, flags: u64, bytes: &[u8]| {
        headers.extend(u32::try_from(name).unwrap().to_le_bytes());
        headers.extend(1_u32.to_le_bytes());
        for field in [flags, 0, file.len() as u64, bytes.len() as u64, 0, 1, 0] {
            headers.extend(field.to_le_bytes());
        }
        file.extend(bytes);
    };
    for (name, flags, bytes) in sections {
        add(&mut file, names.len(), *flags, bytes);
        names.extend(name.bytes().chain([0]));
    }
    add(&mut file, 0, 0, &names);
    let count = u16::try_from(sections.len() + 2).unwrap();
    let at = file.len() as u64;
    file.extend(headers);
    file[40..48].copy_from_slice(&at.to_le_bytes());
    file[58..60].copy_from_slice(&64_u16.to_le_bytes());
    file[60..62].copy_from_slice(&count.to_le_bytes());
    file[62..64].copy_from_slice(&(count - 1).to_le_bytes());
    file
}
