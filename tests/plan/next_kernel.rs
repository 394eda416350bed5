//! A plan as the next kernel sees it: physical memory, and purgatory's way to
//! boot_params. Offsets are those of Documentation/arch/x86/{zero-page,boot}.rst
//! and purgatory/README.md, written down once more.

use rapidhash::v3::{DEFAULT_RAPID_SECRETS, RapidSecrets, rapidhash_v3_inline};
use rkexec::base::{PhysRange, Told};
use rkexec::plan::Plan;

/// What the segments leave in physical memory.
pub(crate) struct Memory(Vec<(PhysRange, Vec<u8>)>);

impl Memory {
    pub(crate) fn new(plan: &Plan<'_>) -> Self {
        let segments = plan.segments().iter();
        Self(segments.map(|s| (s.mem, s.buf.to_vec())).collect())
    }

    /// `size` bytes at `address`; they may lie in several segments that adjoin.
    pub(crate) fn read(&self, address: u64, size: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < size {
            let at = address + bytes.len() as u64;
            let (range, buf) = self
                .0
                .iter()
                .find(|(range, _)| range.contains(at))
                .unwrap_or_else(|| panic!("nothing is loaded at {at:#x}"));
            let from = (at - range.start()) as usize;
            let wanted = (size - bytes.len() as u64).min(range.end() - at) as usize;
            let there = buf.get(from..buf.len().min(from + wanted)).unwrap_or(&[]);
            bytes.extend(there);
            bytes.resize(bytes.len() + wanted - there.len(), 0);
        }
        bytes
    }

    pub(crate) fn number(&self, address: u64, size: u64) -> u64 {
        let mut word = self.read(address, size);
        word.resize(8, 0);
        u64::from_le_bytes(word.try_into().unwrap())
    }
}

/// What the next kernel finds.
pub(crate) struct NextKernel {
    pub(crate) memory: Memory,
    zero_page: u64,
    pub(crate) kernel_entry: u64,
    pub(crate) e820: Vec<(PhysRange, Told)>,
    pub(crate) cmdline: Vec<u8>,
    pub(crate) initrd: Vec<u8>,
    pub(crate) seed: Option<[u8; 32]>,
    /// The payload of the node of Kexec Handover.
    pub(crate) kho: Option<PhysRange>,
    /// Purgatory leaves time stamps in the chain.
    pub(crate) leaves_stamps: bool,
    pub(crate) verifies: bool,
    /// It is entered in 32-bit mode, with boot_params in ESI.
    pub(crate) protected_mode: bool,
    /// The bit of loadflags.
    pub(crate) loaded_high: u64,
    /// Another bit of it: the kernel's place was chosen at random.
    pub(crate) kaslr: bool,
    pub(crate) code32_start: u64,
    pub(crate) digested: Vec<(PhysRange, [u8; 8])>,
}

impl NextKernel {
    /// Follows the way of the CPU from the plan's entry point on.
    pub(crate) fn boot(plan: &Plan<'_>) -> Self {
        let memory = Memory::new(plan);
        let entry = plan.entry().unwrap();
        let purgatory = plan
            .segments()
            .iter()
            .find(|s| s.mem.contains(entry))
            .unwrap()
            .mem
            .start();
        let number = |at, size| memory.number(at, size);
        assert_eq!(memory.read(purgatory, 8), b"RKXPURG1");
        let flags = number(purgatory + 12, 4);
        let zero_page = number(purgatory + 24, 8);
        let digested = (0..number(purgatory + 36, 4))
            .map(|n| purgatory + 48 + n * 24)
            .map(|at| {
                let range = PhysRange::new(number(at, 8), number(at + 8, 8)).unwrap();
                (range, memory.read(at + 16, 8).try_into().unwrap())
            })
            .collect();

        let split = |low, high| number(zero_page + low, 4) | number(zero_page + high, 4) << 32;
        let entry_at = |at| {
            let range = PhysRange::new(number(at, 8), number(at + 8, 8)).unwrap();
            (range, Told(number(at + 16, 4) as u32))
        };
        let mut e820: Vec<_> = (0..number(zero_page + 0x1e8, 1))
            .map(|n| entry_at(zero_page + 0x2d0 + n * 20))
            .collect();
        let (mut seed, mut stamps, mut kho) = (None, None, None);
        let mut node = number(zero_page + 0x250, 8);
        while node != 0 {
            let (kind, size) = (number(node + 8, 4), number(node + 12, 4));
            match kind {
                0 if memory.read(node + 16, 8) == b"RKXTIME1" => stamps = Some(node + 16),
                0 => assert!(memory.read(node + 16, size).starts_with(b"RKXREC1\n")),
                1 => e820.extend((0..size / 20).map(|n| entry_at(node + 16 + n * 20))),
                // A device tree that names the pools.
                2 => assert_eq!(memory.read(node + 16, 4), [0xd0, 0x0d, 0xfe, 0xed]),
                9 => seed = Some(memory.read(node + 16, size).try_into().unwrap()),
                10 => kho = Some(PhysRange::new(node + 16, size).unwrap()),
                other => panic!("setup_data of type {other}"),
            }
            node = number(node, 8);
        }

        // Purgatory leaves the stamps where the kernel looks for them, or none.
        assert_eq!(number(purgatory + 432, 8), stamps.unwrap_or(0));

        let cmdline_at = split(0x228, 0xc8);
        // The decompressor maps 2,048 bytes from there on, whatever the length.
        let cmdline = memory.read(cmdline_at, 2048);
        let length = cmdline.iter().position(|byte| *byte == 0).unwrap();
        let (initrd_at, initrd_size) = (split(0x218, 0xc0), split(0x21c, 0xc4));
        Self {
            zero_page,
            kernel_entry: number(purgatory + 16, 8),
            e820,
            cmdline: cmdline[..length].to_vec(),
            initrd: memory.read(initrd_at, initrd_size),
            seed,
            kho,
            leaves_stamps: stamps.is_some(),
            verifies: flags & 1 != 0,
            protected_mode: flags & 0x18 == 8,
            loaded_high: number(zero_page + 0x211, 1) & 1,
            kaslr: number(zero_page + 0x211, 1) & 2 != 0,
            code32_start: number(zero_page + 0x214, 4),
            digested,
            memory,
        }
    }

    /// The fields of the setup header that are the image's.
    pub(crate) fn setup_header_of_image(&self) -> Vec<u8> {
        image_fields(&self.memory.read(self.zero_page, 4096))
    }
}

/// The fields of the setup header that no loader writes to; `page` has the
/// header at 0x1f1, as both boot_params and a bzImage have.
pub(crate) fn image_fields(page: &[u8]) -> Vec<u8> {
    const IMAGES: [(usize, usize); 4] = [
        (0x1f1, 0x210), // up to type_of_loader
        (0x22c, 0x23c), // initrd_addr_max to cmdline_size
        (0x248, 0x250), // payload
        (0x258, 0x26c), // pref_address to kernel_info_offset
    ];
    IMAGES
        .iter()
        .flat_map(|(from, to)| page[*from..*to].to_vec())
        .collect()
}

/// The memory that a vmlinux describes, from its lowest address to its last byte,
/// and where in it the entry point is.
pub(crate) fn of_elf(file: &[u8]) -> (u64, Vec<u8>) {
    let elf = goblin::elf::Elf::parse(file).unwrap();
    let base = elf.program_headers.iter().map(|load| load.p_paddr).min();
    let base = base.unwrap();
    let mut memory = Vec::new();
    for load in &elf.program_headers {
        let at = (load.p_paddr - base) as usize;
        let end = at + load.p_memsz as usize;
        memory.resize(memory.len().max(end), 0);
        let bytes = &file[load.p_offset as usize..][..load.p_filesz as usize];
        memory[at..at + bytes.len()].copy_from_slice(bytes);
    }
    (elf.entry - base, memory)
}

/// Moves the kernel in `memory`, which the file `elf` has with its relocation lists, from
/// `linked` to `delta` bytes above. The words are read from the last one on, as the kernel's
/// own unpacker reads them.
pub(crate) fn relocate(memory: &mut [u8], elf: &[u8], linked: u64, delta: u64) {
    if delta == 0 {
        return;
    }
    let loaded = goblin::elf::Elf::parse(elf).unwrap().program_headers;
    let end = loaded
        .iter()
        .map(|load| load.p_offset + load.p_filesz)
        .max();
    let words = elf[end.unwrap() as usize..].chunks_exact(4).rev();
    let words = words.map(|word| u32::from_le_bytes(word.try_into().unwrap()));
    let mut lists = vec![Vec::new()];
    for word in words {
        match word {
            0 => lists.push(Vec::new()),
            word => lists
                .last_mut()
                .unwrap()
                .push((u64::from(word) | 0xffff_ffff_0000_0000) - linked),
        }
    }
    // Behind the zero of the first list is nothing.
    lists.pop();
    let narrow = lists.remove(0);
    let wide = lists.pop().unwrap();
    let changes = [
        (narrow, 4, delta),
        (lists.concat(), 4, delta.wrapping_neg()),
        (wide, 8, delta),
    ];
    for (places, size, delta) in changes {
        for at in places {
            let value = &mut memory[at as usize..][..size];
            let mut old = [0; 8];
            old[..size].copy_from_slice(value);
            let new = u64::from_le_bytes(old).wrapping_add(delta);
            value.copy_from_slice(&new.to_le_bytes()[..size]);
        }
    }
}

/// The digest of a region, by another implementation than purgatory's: its pieces'
/// hashes by rapidhash v3, protected, with their numbers as seeds.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 8] {
    let secrets = DEFAULT_RAPID_SECRETS.secrets;
    let pieces = bytes.chunks(1 << 20).zip(0_u64..);
    let hashes = pieces.map(|(piece, number)| {
        // The protected premix, which this crate's own seeding is not.
        let (a, b) = (number ^ secrets[2], secrets[1]);
        let product = u128::from(a) * u128::from(b);
        let seed = number ^ a ^ b ^ product as u64 ^ (product >> 64) as u64;
        rapidhash_v3_inline::<true, false, true>(piece, &RapidSecrets { seed, secrets })
    });
    hashes.fold(0, |all, hash| all ^ hash).to_be_bytes()
}
