//! elfcorehdr: the ELF header of the dump, made at load time, before a crash.
//!
//! The crash kernel shows /proc/vmcore by it: a PT_NOTE for the registers of
//! every CPU and for vmcoreinfo, a PT_LOAD for the running kernel's own image
//! and one for every range of RAM. Offsets in it are physical addresses.
//!
//! Source: `crash_prepare_elf64_headers` in kernel/crash_core.c, and what
//! fs/proc/vmcore.c demands of it. Layout: the System V ABI, "Object Files".

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, KnownLayout};

use crate::base::PhysRange;
use crate::host::crash::{KernelMapping, Note};

/// Most program headers: `e_phnum` has 16 bits, and its last value is
/// PN_XNUM, which fs/proc/vmcore.c does not know.
pub const MAX_HEADERS: usize = 0xfffe;

const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const EV_CURRENT: u8 = 1;
const ELFCLASS64: u8 = 2;
const ELFDATA2LSB: u8 = 1;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_RWX: u32 = 7;

/// `Elf64_Ehdr`.
#[derive(IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Ehdr {
    ident: [u8; 16],
    kind: U16,
    machine: U16,
    version: U32,
    entry: U64,
    phoff: U64,
    shoff: U64,
    flags: U32,
    ehsize: U16,
    phentsize: U16,
    phnum: U16,
    shentsize: U16,
    shnum: U16,
    shstrndx: U16,
}

/// `Elf64_Phdr`.
#[derive(IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Phdr {
    kind: U32,
    flags: U32,
    offset: U64,
    vaddr: U64,
    paddr: U64,
    filesz: U64,
    memsz: U64,
    align: U64,
}

const _: () = assert!(size_of::<Ehdr>() == 64 && size_of::<Phdr>() == 56);

/// What the dump is to hold.
#[derive(Debug, Clone)]
pub struct Contents {
    /// The notes of the CPUs.
    pub cpus: Vec<Note>,
    /// The note of vmcoreinfo.
    pub vmcoreinfo: Note,
    /// How the running kernel maps itself and memory.
    pub mapping: KernelMapping,
    /// The RAM: sorted, disjoint.
    pub ram: Vec<PhysRange>,
}

/// More program headers than an ELF header can count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the dump would need {headers} program headers ({cpus} CPUs, {ranges} ranges of RAM), and a crash \
     kernel reads at most {MAX_HEADERS}"
)]
pub struct TooManyHeaders {
    /// How many it would need.
    pub headers: usize,
    /// Of them for CPUs.
    pub cpus: usize,
    /// Of them for ranges of RAM.
    pub ranges: usize,
}

/// Size in bytes of an elfcorehdr for so many CPUs and ranges of RAM.
#[must_use]
pub const fn size(cpus: usize, ranges: usize) -> usize {
    size_of::<Ehdr>() + (cpus + ranges + 2) * size_of::<Phdr>()
}

/// The elfcorehdr.
///
/// # Errors
/// When there are more headers than `e_phnum` can count. None is left out silently.
pub fn build(contents: &Contents) -> Result<Vec<u8>, TooManyHeaders> {
    let Contents {
        cpus,
        vmcoreinfo,
        mapping,
        ram,
    } = contents;
    let headers = cpus.len() + ram.len() + 2;
    let count = u16::try_from(headers)
        .ok()
        .filter(|_| headers <= MAX_HEADERS)
        .ok_or(TooManyHeaders {
            headers,
            cpus: cpus.len(),
            ranges: ram.len(),
        })?;
    let mut bytes = Vec::with_capacity(size(cpus.len(), ram.len()));
    bytes.extend_from_slice(ehdr(count).as_bytes());
    let notes = cpus.iter().chain([vmcoreinfo]).map(|note| Phdr {
        kind: PT_NOTE.into(),
        flags: 0.into(),
        offset: note.address.into(),
        vaddr: 0.into(),
        paddr: note.address.into(),
        filesz: note.size.into(),
        memsz: note.size.into(),
        align: 4.into(),
    });
    let load = |range: PhysRange, virt: u64| Phdr {
        kind: PT_LOAD.into(),
        flags: PF_RWX.into(),
        offset: range.start().into(),
        vaddr: virt.into(),
        paddr: range.start().into(),
        filesz: range.size().into(),
        memsz: range.size().into(),
        align: 0.into(),
    };
    let text = load(mapping.image, mapping.text);
    let ram = ram
        .iter()
        .map(|range| load(*range, mapping.direct_map.wrapping_add(range.start())));
    for header in notes.chain([text]).chain(ram) {
        bytes.extend_from_slice(header.as_bytes());
    }
    Ok(bytes)
}

fn ehdr(phnum: u16) -> Ehdr {
    let mut ident = [0; 16];
    let start = [0x7f, b'E', b'L', b'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT];
    ident
        .iter_mut()
        .zip(start)
        .for_each(|(to, from)| *to = from);
    let [ehsize, phentsize] = [64_u16, 56];
    Ehdr {
        ident,
        kind: ET_CORE.into(),
        machine: EM_X86_64.into(),
        version: u32::from(EV_CURRENT).into(),
        entry: 0.into(),
        phoff: u64::from(ehsize).into(),
        shoff: 0.into(),
        flags: 0.into(),
        ehsize: ehsize.into(),
        phentsize: phentsize.into(),
        phnum: phnum.into(),
        shentsize: 0.into(),
        shnum: 0.into(),
        shstrndx: 0.into(),
    }
}

#[cfg(test)]
mod tests {
    use goblin::elf::Elf;
    use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

    use super::*;

    fn contents(cpus: u64, ranges: u64) -> Contents {
        let note = |address, size| Note { address, size };
        Contents {
            cpus: (0..cpus)
                .map(|cpu| note(0x1000_0000 + cpu * 0x200, 368))
                .collect(),
            vmcoreinfo: note(0x2000_0000, 4096),
            mapping: KernelMapping {
                direct_map: 0xff11_0000_0000_0000,
                text: 0xffff_ffff_8100_0000,
                image: PhysRange::new(0x3000_0000, 0x20_0000).unwrap(),
            },
            ram: (1..=ranges)
                .map(|at| PhysRange::new(at << 21, 1 << 20).unwrap())
                .collect(),
        }
    }

    /// goblin, which knows nothing of this builder, reads back what was asked for.
    fn reads_back(wanted: &Contents) {
        let bytes = build(wanted).unwrap();
        assert_eq!(bytes.len(), size(wanted.cpus.len(), wanted.ram.len()));
        let elf = Elf::parse(&bytes).unwrap();
        assert!(elf.is_64 && elf.little_endian);
        assert_eq!((elf.header.e_type, elf.header.e_machine), (4, 62));
        let (notes, loads): (Vec<_>, Vec<_>) = elf
            .program_headers
            .iter()
            .partition(|header| header.p_type == PT_NOTE);
        assert!(loads.iter().all(|load| load.p_type == PT_LOAD));
        let notes: Vec<Note> = notes
            .iter()
            .map(|header| Note {
                address: header.p_offset,
                size: header.p_filesz,
            })
            .collect();
        let (last, cpus) = notes.split_last().unwrap();
        assert_eq!((cpus, *last), (&wanted.cpus[..], wanted.vmcoreinfo));
        let (text, ram) = loads.split_first().unwrap();
        assert_eq!(
            (text.p_vaddr, text.p_paddr),
            (wanted.mapping.text, 0x3000_0000)
        );
        assert_eq!(text.p_memsz, wanted.mapping.image.size());
        assert_eq!(ram.len(), wanted.ram.len());
        for (load, range) in ram.iter().zip(&wanted.ram) {
            assert_eq!((load.p_paddr, load.p_memsz), (range.start(), range.size()));
            assert_eq!(
                (load.p_offset, load.p_filesz),
                (range.start(), range.size())
            );
            assert_eq!(load.p_vaddr - load.p_paddr, wanted.mapping.direct_map);
        }
    }

    #[test]
    fn an_independent_reader_reads_it_back() {
        reads_back(&contents(0, 0));
        reads_back(&contents(1, 1));
        reads_back(&contents(4096, 61_436));
    }

    #[test]
    fn more_headers_than_can_be_counted_are_an_error() {
        assert!(build(&contents(4096, 61_436)).is_ok());
        let error = build(&contents(4096, 61_437)).unwrap_err();
        assert_eq!(error.headers, 65_535);
        assert!(build(&contents(1, 1 << 17)).is_err());
        assert!(
            error
                .to_string()
                .contains("(4096 CPUs, 61437 ranges of RAM)")
        );
    }
}
