//! The segments that an ELF file loads, and their addresses.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::Elf;
use goblin::elf::header::{self, EM_386, EM_X86_64, ET_DYN, ET_EXEC, Header};
use goblin::elf::program_header::{PT_LOAD, ProgramHeader};

use super::{FOUR_GIB, Load, below_four_gib};

/// Most loadable segments taken: kexec takes 16 segments in all, some of these
/// may share one, and kernels have a handful.
const MAX_LOADS: usize = 32;

/// The loadable segments in address order, and the physical address of the
/// entry point.
pub(super) fn loads(file: &[u8]) -> Result<(Vec<Load<'_>>, u64), String> {
    if !file.starts_with(header::ELFMAG) {
        return Err("it has no addresses, and is no ELF file that would have them".to_owned());
    }
    let header = Elf::parse_header(file).map_err(|error| format!("its ELF header: {error}"))?;
    if !header.endianness().is_ok_and(|endian| endian.is_little()) {
        return Err("it is a big-endian ELF file".to_owned());
    }
    if !matches!(header.e_machine, EM_386 | EM_X86_64) {
        return Err(format!(
            "it is an ELF file for {}",
            header::machine_to_str(header.e_machine)
        ));
    }
    if !matches!(header.e_type, ET_EXEC | ET_DYN) {
        return Err(format!(
            "it is an ELF file of type {}, not an executable",
            header::et_to_str(header.e_type)
        ));
    }
    let headers = program_headers(file, &header)?;
    let loads = headers
        .iter()
        .map(|header| load(file, header))
        .collect::<Result<Vec<_>, _>>()?;
    let loads = in_order(file, loads)?;
    Ok((loads, entry(header.e_entry, &headers)))
}

/// The program headers of what is loaded.
fn program_headers(file: &[u8], header: &Header) -> Result<Vec<ProgramHeader>, String> {
    let container = header.container().unwrap_or(Container::Little);
    let context = Ctx::new(container, Endian::Little);
    let (count, size) = (usize::from(header.e_phnum), ProgramHeader::size(context));
    let from = usize::try_from(header.e_phoff).unwrap_or(usize::MAX);
    let table = from
        .checked_add(count * size)
        .and_then(|end| file.get(from..end));
    if table.is_none() || (count > 0 && usize::from(header.e_phentsize) != size) {
        return Err(format!(
            "its {count} program headers of {} bytes at {from:#x} do not fit the file or the format",
            header.e_phentsize
        ));
    }
    let headers = ProgramHeader::parse(file, from, count, context)
        .map_err(|error| format!("its program headers: {error}"))?;
    let loads = |header: &ProgramHeader| header.p_type == PT_LOAD && header.p_memsz > 0;
    let headers: Vec<_> = headers.into_iter().filter(loads).collect();
    match headers.len() {
        0 => Err("it is an ELF file with nothing to load".to_owned()),
        count if count > MAX_LOADS => Err(format!(
            "it has {count} loadable segments, and {MAX_LOADS} are taken at most"
        )),
        _ => Ok(headers),
    }
}

fn load<'a>(file: &'a [u8], header: &ProgramHeader) -> Result<Load<'a>, String> {
    let &ProgramHeader {
        p_offset,
        p_paddr,
        p_filesz,
        p_memsz,
        ..
    } = header;
    if p_filesz > p_memsz {
        return Err(format!(
            "its segment at {p_paddr:#x} has {p_filesz:#x} bytes for {p_memsz:#x} bytes of memory"
        ));
    }
    let range = below_four_gib(p_paddr, p_memsz)
        .map_err(|what| format!("its segment at {p_paddr:#x}: {what}"))?;
    let bytes = usize::try_from(p_offset)
        .ok()
        .zip(usize::try_from(p_filesz).ok())
        .and_then(|(from, size)| file.get(from..)?.get(..size));
    let bytes = bytes.ok_or_else(|| {
        format!(
            "truncated: its segment at {p_paddr:#x} has {p_filesz:#x} bytes at {p_offset:#x} of the file, which has {:#x}",
            file.len()
        )
    })?;
    Ok(Load { range, bytes })
}

/// Sorts, and refuses overlaps. In memory, one segment would overwrite the other; in the
/// file, overlaps would multiply the bytes to load.
fn in_order<'a>(file: &[u8], mut loads: Vec<Load<'a>>) -> Result<Vec<Load<'a>>, String> {
    loads.sort_by_key(|load| load.range);
    for pair in loads.windows(2) {
        if let [before, after] = pair
            && before.range.overlaps(after.range)
        {
            return Err(format!(
                "its segments at {} and {} overlap",
                before.range, after.range
            ));
        }
    }
    let total: usize = loads.iter().map(|load| load.bytes.len()).sum();
    if total > file.len() {
        return Err(format!(
            "its segments have {total:#x} bytes together, more than the file"
        ));
    }
    Ok(loads)
}

/// The entry point as a physical address: kernels that are linked for a high
/// address give a virtual one.
fn entry(entry: u64, headers: &[ProgramHeader]) -> u64 {
    let by_address = |address: fn(&ProgramHeader) -> u64| {
        headers
            .iter()
            .find_map(|header| {
                let inside = entry.checked_sub(address(header))?;
                (inside < header.p_memsz).then_some(header.p_paddr + inside)
            })
            .filter(|entry| *entry < FOUR_GIB)
    };
    by_address(|header| header.p_vaddr)
        .or_else(|| by_address(|header| header.p_paddr))
        .unwrap_or(entry)
}
