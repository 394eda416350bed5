//! PE files as far as kernels are kept in them: the machine and the sections.
//!
//! Source: the PE Format of Microsoft's documentation. goblin reads the headers;
//! it would follow a section's long name into a string table without a bound, so
//! the section table, whose names are never long here, is read as it is.

use goblin::pe::header::{
    COFF_MACHINE_ARM, COFF_MACHINE_ARM64, COFF_MACHINE_ARMNT, COFF_MACHINE_LOONGARCH64,
    COFF_MACHINE_RISCV32, COFF_MACHINE_RISCV64, COFF_MACHINE_X86, COFF_MACHINE_X86_64, Header,
    SIZEOF_COFF_HEADER, SIZEOF_PE_MAGIC,
};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// Most sections taken for sane. A UKI has some twenty, with profiles and device
/// trees for many machines a few hundred.
const MAX_SECTIONS: usize = 1024;

/// A PE file.
#[derive(Debug, Clone)]
pub(super) struct Pe<'a> {
    /// IMAGE_FILE_MACHINE_*.
    pub(super) machine: u16,
    /// The sections in the order of their table.
    pub(super) sections: Vec<PeSection<'a>>,
}

/// A section with what the file has of it.
#[derive(Debug, Clone)]
pub(super) struct PeSection<'a> {
    /// The name, without the zeroes behind it; bytes that are no ASCII escaped.
    pub(super) name: String,
    /// As many bytes as both of its sizes allow: the one in the file is rounded
    /// up, the one in memory may count zeroes that the file does not have.
    pub(super) bytes: &'a [u8],
    /// Where it ends in the file, by the size that it has there.
    pub(super) end: u64,
}

/// IMAGE_SECTION_HEADER.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SectionHeader {
    name: [u8; 8],
    virtual_size: U32,
    _virtual_address: U32,
    raw_size: U32,
    raw_offset: U32,
    /// Relocations, line numbers, characteristics.
    _rest: [u8; 16],
}

/// The section table of a PE file, of which only the beginning is needed.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// IMAGE_FILE_MACHINE_*.
    pub(super) machine: u16,
    /// The sections in the order of the table.
    pub(super) places: Vec<Place>,
}

/// Where the file has a section.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// As in [`PeSection`].
    pub(super) name: String,
    /// Offset in the file, bytes.
    pub(super) start: u64,
    /// As many bytes as both of its sizes allow.
    pub(super) size: u64,
    /// The size in the file.
    raw_size: u64,
}

impl Table {
    /// Reads the headers and the section table in `file`, which may be the beginning of
    /// one. `None`: no PE file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(file: &[u8]) -> Result<Option<Self>, String> {
        if !has_magic(file) {
            return Ok(None);
        }
        let header = Header::parse(file).map_err(|error| format!("PE headers: {error}"))?;
        let coff = &header.coff_header;
        let table = u64::from(header.dos_header.pe_pointer)
            + (SIZEOF_PE_MAGIC + SIZEOF_COFF_HEADER) as u64
            + u64::from(coff.size_of_optional_header);
        let count = usize::from(coff.number_of_sections);
        if count > MAX_SECTIONS {
            return Err(format!("{count} sections, more than {MAX_SECTIONS}"));
        }
        let table = usize::try_from(table).ok().and_then(|at| file.get(at..));
        let headers = table.and_then(|table| {
            let found = <[SectionHeader]>::ref_from_prefix_with_elems(table, count);
            found.ok().map(|(headers, _)| headers)
        });
        let headers = headers.ok_or(format!(
            "truncated: the table of its {count} sections is not all there"
        ))?;
        Ok(Some(Self {
            machine: coff.machine,
            places: headers.iter().map(place).collect(),
        }))
    }
}

impl<'a> Pe<'a> {
    /// Reads the headers and the section table. `None`: no PE file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(file: &'a [u8]) -> Result<Option<Self>, String> {
        let Some(table) = Table::parse(file)? else {
            return Ok(None);
        };
        let sections = table.places.into_iter().map(|place| section(file, place));
        Ok(Some(Self {
            machine: table.machine,
            sections: sections.collect::<Result<_, _>>()?,
        }))
    }

    /// Whether some section has that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.sections.iter().any(|section| section.name == name)
    }
}

/// "MZ", and "PE" where e_lfanew (at 0x3c) says.
pub(super) fn has_magic(file: &[u8]) -> bool {
    let at = file.get(0x3c..0x40).and_then(|at| at.try_into().ok());
    let at = at.and_then(|at| usize::try_from(u32::from_le_bytes(at)).ok());
    file.starts_with(b"MZ") && at.and_then(|at| file.get(at..)?.get(..4)) == Some(&b"PE\0\0"[..])
}

fn place(header: &SectionHeader) -> Place {
    let end = header.name.iter().position(|byte| *byte == 0);
    let name = header.name.get(..end.unwrap_or(header.name.len()));
    let size = header.virtual_size.get().min(header.raw_size.get());
    Place {
        name: name.unwrap_or_default().escape_ascii().to_string(),
        start: header.raw_offset.get().into(),
        size: size.into(),
        raw_size: header.raw_size.get().into(),
    }
}

fn section(file: &[u8], place: Place) -> Result<PeSection<'_>, String> {
    let Place {
        name,
        start,
        size,
        raw_size,
    } = place;
    if size == 0 {
        return Ok(PeSection {
            name,
            bytes: &[],
            end: 0,
        });
    }
    let end = start + raw_size;
    let bounds = (usize::try_from(start), usize::try_from(start + size));
    let bytes = match bounds {
        (Ok(start), Ok(end)) => file.get(start..end),
        _ => None,
    };
    match bytes {
        Some(bytes) => Ok(PeSection { name, bytes, end }),
        None => Err(format!(
            "section {name} ({size:#x} bytes at {start:#x}) lies outside the file's {:#x} bytes",
            file.len()
        )),
    }
}

/// The name of a machine type, for people.
pub(super) fn machine_name(machine: u16) -> String {
    match machine {
        COFF_MACHINE_X86_64 => "x86_64",
        COFF_MACHINE_X86 => "32-bit x86",
        COFF_MACHINE_ARM64 => "arm64",
        COFF_MACHINE_ARM | COFF_MACHINE_ARMNT => "32-bit Arm",
        COFF_MACHINE_RISCV32 => "32-bit RISC-V",
        COFF_MACHINE_RISCV64 => "riscv64",
        COFF_MACHINE_LOONGARCH64 => "loongarch64",
        other => return format!("machine type {other:#06x}"),
    }
    .to_owned()
}
