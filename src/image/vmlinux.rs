//! vmlinux: the kernel itself as the linker made it, an ELF file.
//!
//! Its 64-bit entry takes the same boot_params as a bzImage's
//! (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"): the unpacker of a
//! bzImage enters it so. It finds out by itself where it lies, and works at any
//! multiple of 2 MiB (arch/x86/kernel/head64.c, `__startup_64`). It does not change its
//! place: KASLR is for its loader to do.
//!
//! What a bzImage's setup header says, the ELF headers and the banner say here.

use std::ops::Range;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::Elf;
use goblin::elf::header::{EM_X86_64, ET_DYN, ET_EXEC, Header};
use goblin::elf::program_header::{PT_LOAD, ProgramHeader};
use memchr::memmem;

use super::ImageError;
use super::ikconfig;
use super::linux::{EntryMode, Format, Geometry, LinuxKernel, Load, X86, xloadflags};
use crate::abi::x86::setup_data::SETUP_INDIRECT;
use crate::base::PAGE_SIZE;

/// Where the kernel's image is mapped (__START_KERNEL_map of
/// arch/x86/include/asm/page_64_types.h): its link address less its physical one.
pub const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// The kernel's place is a multiple of this, bytes (PMD_SIZE).
pub(super) const ALIGNMENT: u64 = 2 << 20;
/// First address beyond physical memory.
const PHYSICAL_LIMIT: u64 = 1 << 52;
/// Most PT_LOADs. Linux has four or five; kexec_load takes 16 segments.
const MAX_LOADS: usize = 8;
/// Longest command line that x86_64 takes, bytes without the NUL
/// (COMMAND_LINE_SIZE less one).
const CMDLINE_LIMIT: usize = 2047;
/// What a bzImage says when initrds may lie anywhere.
const INITRD_END: u64 = 0x8000_0000;
/// How the banner begins (`linux_banner` in init/version-timestamp.c).
const BANNER: &[u8] = b"Linux version ";
/// How often its words are looked at: a kernel has them a few times.
const MAX_CANDIDATES: usize = 1000;
/// Longest banner, bytes: `uname -r` and the words of compiler and builder.
const MAX_BANNER: usize = 1024;
/// Exported by kernels with CONFIG_X86_5LEVEL (and CONFIG_MODULES), and named
/// nowhere else (arch/x86/kernel/head64.c).
const FIVE_LEVEL_ONLY: &[u8] = b"\0ptrs_per_p4d\0";

/// What the ELF headers of a kernel say, checked against the file.
pub(super) struct Outline<'a> {
    /// Physical address that it is linked for.
    pub base: u64,
    /// Memory that it takes from there on, bytes.
    pub size: u64,
    /// The entry point, bytes from `base`.
    pub entry: u64,
    /// What is loaded, in address order: bytes from `base`, and where it is in the file.
    pub loads: Vec<(u64, Range<usize>)>,
    /// `uname -r` and the build's words after it.
    pub version: &'a str,
}

/// Bytes of an ELF file, with their place in memory.
struct Part<'a> {
    number: usize,
    header: ProgramHeader,
    /// What of them the file has.
    bytes: &'a [u8],
}

/// Reads the ELF headers and checks them against the file. `None`: not a Linux
/// kernel for x86_64 in ELF.
///
/// It is one when the part lowest in memory is linked where Linux is linked, and
/// some part holds the banner. Neither alone will do: other systems are linked
/// there, and programs hold the words.
///
/// # Errors
/// When it is one that is damaged.
pub fn parse(file: &[u8]) -> Result<Option<LinuxKernel<'_>>, ImageError> {
    let Some(outline) = outline(file)? else {
        return Ok(None);
    };
    let loads = outline.loads.into_iter().map(|(offset, range)| Load {
        offset,
        bytes: file.get(range).unwrap_or_default().into(),
    });
    let series = series(outline.version);
    Ok(Some(LinuxKernel {
        format: Format::Vmlinux,
        around: Vec::new(),
        file,
        behind: 0,
        geometry: Geometry {
            size: outline.size,
            align: ALIGNMENT,
            floor: outline.base,
            fixed: false,
        },
        cmdline_limit: CMDLINE_LIMIT,
        initrd_end: INITRD_END,
        x86: x86(series, five_level(file, series)),
        version: Some(outline.version),
        loads: loads.collect(),
        entry: outline.entry,
        payload: file,
        setup_type_max: setup_type_max(series),
    }))
}

/// The outline of `file`. `None`, and errors: as [`parse`].
pub(super) fn outline(file: &[u8]) -> Result<Option<Outline<'_>>, ImageError> {
    let Some(header) = header(file) else {
        return Ok(None);
    };
    let parts = parts(file, &header)?;
    let is_linux = parts.first().is_some_and(|part| {
        let physical = part.header.p_paddr;
        part.header.p_vaddr.checked_sub(START_KERNEL_MAP) == Some(physical)
    });
    if !is_linux {
        return Ok(None);
    }
    // One with more parts is refused below.
    let mut searched = parts.iter().take(MAX_LOADS);
    let Some(version) = searched.find_map(|part| banner(part.bytes)) else {
        return Ok(None);
    };
    let size = check_geometry(&parts, header.e_entry)?;
    let base = parts.first().map_or(0, |part| part.header.p_paddr);
    let loads = parts.iter().filter(|part| !part.bytes.is_empty());
    let loads = loads.map(|part| {
        // `bytes` was found there.
        let start = usize::try_from(part.header.p_offset).unwrap_or(usize::MAX);
        (
            part.header.p_paddr - base,
            start..start.saturating_add(part.bytes.len()),
        )
    });
    Ok(Some(Outline {
        base,
        size,
        entry: header.e_entry - base,
        loads: loads.collect(),
        version,
    }))
}

/// The ELF header of an executable for x86_64; `None` for anything else.
fn header(file: &[u8]) -> Option<Header> {
    if !file.starts_with(b"\x7fELF") {
        return None;
    }
    let header = Elf::parse_header(file).ok()?;
    let fits = header.container().is_ok_and(Container::is_big)
        && header.endianness().is_ok_and(|order| order.is_little())
        && header.e_machine == EM_X86_64
        && matches!(header.e_type, ET_EXEC | ET_DYN);
    fits.then_some(header)
}

/// The PT_LOADs that take memory, by physical address.
fn parts<'a>(file: &'a [u8], header: &Header) -> Result<Vec<Part<'a>>, ImageError> {
    let context = Ctx::new(Container::Big, Endian::Little);
    let at = usize::try_from(header.e_phoff).unwrap_or(usize::MAX);
    let table = file
        .get(at..)
        .filter(|_| usize::from(header.e_phentsize) == ProgramHeader::size(context))
        .and_then(|table| ProgramHeader::parse(table, 0, header.e_phnum.into(), context).ok());
    let Some(table) = table else {
        return Ok(Vec::new());
    };
    let loads = table
        .into_iter()
        .enumerate()
        .filter(|(_, header)| header.p_type == PT_LOAD && header.p_memsz > 0);
    let mut parts: Vec<Part<'_>> = loads
        .map(|(number, header)| Part {
            number,
            bytes: present(file, &header),
            header,
        })
        .collect();
    parts.sort_by_key(|part| part.header.p_paddr);
    Ok(parts)
}

/// The bytes of a part that are in the file: fewer when it is cut short.
fn present<'a>(file: &'a [u8], header: &ProgramHeader) -> &'a [u8] {
    let start = usize::try_from(header.p_offset).unwrap_or(usize::MAX);
    let size = usize::try_from(header.p_filesz).unwrap_or(usize::MAX);
    let rest = file.get(start..).unwrap_or_default();
    rest.get(..size).unwrap_or(rest)
}

/// The banner in `bytes`, from the release on. One with the build's number is
/// preferred: where the kernel has two, the other was made before the number.
fn banner(bytes: &[u8]) -> Option<&str> {
    let has_number = |text: &&str| {
        let number = text.split_once(" #").map(|(_, number)| number);
        number.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()))
    };
    banners(bytes)
        .find(has_number)
        .or_else(|| banners(bytes).next())
}

fn banners(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let candidates = memmem::find_iter(bytes, BANNER).take(MAX_CANDIDATES);
    candidates.filter_map(|at| {
        let rest = bytes.get(at + BANNER.len()..)?;
        rest.first().filter(|byte| byte.is_ascii_digit())?;
        let rest = rest.get(..MAX_BANNER).unwrap_or(rest);
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | 0))?;
        let text = std::str::from_utf8(rest.get(..end)?).ok()?;
        // Other strings begin with the same words, but continue with `%s`.
        let is_release = series(text).is_some() && !text.contains(char::is_control);
        is_release.then_some(text)
    })
}

/// Version and patch level at the start of a release: 6.12 of `6.12.117+deb12`.
fn series(release: &str) -> Option<(u32, u32)> {
    let (version, rest) = release.split_once('.')?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((version.parse().ok()?, rest.get(..end)?.parse().ok()?))
}

/// What placing relies on. Gives the bytes of memory that the kernel takes.
fn check_geometry(parts: &[Part<'_>], entry: u64) -> Result<u64, ImageError> {
    let malformed = |what: String| Err(self::malformed(what));
    if parts.len() > MAX_LOADS {
        return malformed(format!("{} PT_LOADs, more than {MAX_LOADS}", parts.len()));
    }
    let base = parts.first().map_or(0, |part| part.header.p_paddr);
    if !base.is_multiple_of(ALIGNMENT) || base == 0 {
        return malformed(format!(
            "it is linked for {base:#x}, which is no multiple of {ALIGNMENT:#x}"
        ));
    }
    let mut end = base;
    for Part {
        number,
        header,
        bytes,
    } in parts
    {
        let (start, size) = (header.p_paddr, header.p_memsz);
        if bytes.len() as u64 != header.p_filesz {
            return malformed(format!(
                "truncated: PT_LOAD {number} has {:#x} bytes at {:#x}, and the file {:#x} of them",
                header.p_filesz,
                header.p_offset,
                bytes.len()
            ));
        }
        if header.p_filesz > size {
            return malformed(format!(
                "PT_LOAD {number} has {:#x} bytes, and {size:#x} in memory",
                header.p_filesz
            ));
        }
        if start < end {
            return malformed(format!(
                "PT_LOAD {number} at {start:#x} overlaps what ends at {end:#x}"
            ));
        }
        if !start.is_multiple_of(PAGE_SIZE) {
            return malformed(format!(
                "PT_LOAD {number} at {start:#x} begins inside a page"
            ));
        }
        let beyond = start.checked_add(size).filter(|end| *end <= PHYSICAL_LIMIT);
        let Some(beyond) = beyond else {
            return malformed(format!(
                "PT_LOAD {number} at {start:#x} ends beyond physical memory"
            ));
        };
        end = beyond.next_multiple_of(PAGE_SIZE);
    }
    let in_code = parts.iter().any(|part| {
        (0..part.bytes.len() as u64).contains(&entry.wrapping_sub(part.header.p_paddr))
    });
    if !in_code || parts.first().is_some_and(|part| part.bytes.is_empty()) {
        return malformed(format!("no PT_LOAD has the entry point {entry:#x}"));
    }
    match end - base {
        // What a bzImage's header can say.
        size if size <= u32::MAX.into() => Ok(size),
        size => malformed(format!("it takes {size:#x} bytes of memory")),
    }
}

/// Whether the kernel can be entered with 5-level paging on. It cannot be
/// switched off on the way in: only a bzImage's unpacker does that.
fn five_level(file: &[u8], series: Option<(u32, u32)>) -> bool {
    // Linux 7 has no CONFIG_X86_5LEVEL: it always can.
    series >= Some((7, 0))
        || memmem::find(file, FIVE_LEVEL_ONLY).is_some()
        || ikconfig::find(file).is_ok_and(|config| {
            config.is_some_and(|config| config.built_in("CONFIG_X86_5LEVEL") == Some(true))
        })
}

/// The boot protocol and its flags, as a bzImage of the same kernel has them.
fn x86(series: Option<(u32, u32)>, five_level: bool) -> X86 {
    let mut flags = xloadflags::KERNEL_64 | xloadflags::CAN_BE_LOADED_ABOVE_4G;
    if series >= Some((3, 14)) {
        // Set even for a kernel without EFI: it ignores EFI data.
        flags |= xloadflags::EFI_KEXEC;
    }
    if five_level {
        flags |= xloadflags::FIVE_LEVEL | xloadflags::FIVE_LEVEL_ENABLED;
    }
    X86 {
        entry_mode: EntryMode::Long,
        // boot.rst, "Details of Header Fields": the protocol by series.
        protocol: match series {
            series if series >= Some((5, 5)) => 0x020f,
            series if series >= Some((3, 14)) => 0x020d,
            _ => 0x020c,
        },
        flags,
        header: None,
    }
}

/// The highest setup_data type that kernels of a series know (enum setup_type in
/// arch/x86/include/uapi/asm/bootparam.h): what a bzImage has in kernel_info.
fn setup_type_max(series: Option<(u32, u32)>) -> Option<u32> {
    [
        ((6, 16), 10), // SETUP_KEXEC_KHO
        ((6, 1), 9),   // SETUP_RNG_SEED
        ((5, 5), 6),   // SETUP_JAILHOUSE
    ]
    .into_iter()
    .find_map(|(since, highest)| (series >= Some(since)).then_some(SETUP_INDIRECT | highest))
}

fn malformed(what: String) -> ImageError {
    ImageError::Malformed {
        format: Format::Vmlinux.name(),
        what,
    }
}

#[cfg(test)]
#[path = "vmlinux_tests.rs"]
mod tests;
