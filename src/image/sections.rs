//! The parts of an unpacked kernel that stay in its memory.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::Elf;
use goblin::elf::section_header::{SHF_ALLOC, SHT_NOBITS, SectionHeader};

/// What the kernel keeps while it runs: of the file's sections those that lie in memory,
/// without what is freed when the kernel has started (.init…). An initramfs inside the
/// kernel is among that, and may hold any texts.
///
/// A file without sections gives all of it. `None`: it is no ELF file for 64 bits, or it
/// is damaged.
#[must_use]
pub fn kept(kernel: &[u8]) -> Option<Vec<&[u8]>> {
    let header = Elf::parse_header(kernel).ok()?;
    let is_64_bit = header.container().is_ok_and(Container::is_big);
    if !is_64_bit || !header.endianness().is_ok_and(|order| order.is_little()) {
        return None;
    }
    let context = Ctx::new(Container::Big, Endian::Little);
    let at = usize::try_from(header.e_shoff).unwrap_or(usize::MAX);
    let has_table = usize::from(header.e_shentsize) == SectionHeader::size(context);
    let table = match has_table {
        true => SectionHeader::parse(kernel, at, header.e_shnum.into(), context).ok()?,
        false => Vec::new(),
    };
    if table.is_empty() {
        return Some(vec![kernel]);
    }
    let names = table.get(usize::from(header.e_shstrndx));
    let names = names.map_or(&[][..], |section| content(kernel, section));
    let kept = table.iter().filter(|section| {
        section.sh_flags & u64::from(SHF_ALLOC) != 0
            && section.sh_type != SHT_NOBITS
            && !names
                .get(section.sh_name..)
                .is_some_and(|name| name.starts_with(b".init"))
    });
    let kept: Vec<&[u8]> = kept.map(|section| content(kernel, section)).collect();
    // Sections of a kernel do not overlap. Where they do, to search each would be
    // quadratic work.
    let bytes: usize = kept.iter().map(|part| part.len()).sum();
    (bytes <= kernel.len()).then_some(kept)
}

/// The bytes of a section; none when they are not all in the file.
fn content<'a>(file: &'a [u8], section: &SectionHeader) -> &'a [u8] {
    let start = usize::try_from(section.sh_offset).unwrap_or(usize::MAX);
    let size = usize::try_from(section.sh_size).unwrap_or(usize::MAX);
    let rest = file.get(start..).unwrap_or_default();
    rest.get(..size).unwrap_or_default()
}

#[cfg(test)]
#[path = "sections_tests.rs"]
mod tests;
