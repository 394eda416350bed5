//! The relocation lists behind the ELF file of a kernel with CONFIG_RANDOMIZE_BASE: what
//! has to change when the kernel runs at another virtual address.
//!
//! The kernel's build puts them there (arch/x86/tools/relocs.c), as 32-bit words: a zero and
//! the places of 64-bit addresses, another list that Linux before 6.15 or so has, a zero and
//! the places of 32-bit ones. A word is the lower half of a place's virtual address. The
//! kernel's own unpacker applies them (arch/x86/boot/compressed/misc.c, `handle_relocations`).

use std::ops::Range;

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::header::Header;
use goblin::elf::program_header::ProgramHeader;
use goblin::elf::section_header::{SHT_NOBITS, SectionHeader};

use super::vmlinux::{Outline, START_KERNEL_MAP};

/// Size of a word, bytes.
const WORD: usize = 4;

/// What is wrong with relocation lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelocationError {
    /// Where the ELF file ends, and they begin, is not known.
    #[error(
        "the table of sections does not fit the file, so that the relocation lists cannot be found"
    )]
    NoEnd,
    /// They are no row of words.
    #[error("{0} bytes behind the kernel are no row of 32-bit words")]
    OddSize(usize),
    /// The first list has no begin.
    #[error("the relocation lists begin with {0:#x}, and not with a zero")]
    NoBegin(u32),
    /// Linux has other numbers of lists.
    #[error("Linux has two or three relocation lists, and here is {0}: one is cut, or has no end")]
    Count(usize),
    /// A place lies outside of what is loaded.
    #[error(
        "word {word:#x} of the {list} relocation list (number {number} of it) lies outside of the kernel"
    )]
    Outside {
        /// Which list.
        list: &'static str,
        /// The word.
        word: u32,
        /// Its number in the list, from 0.
        number: usize,
    },
}

/// How the value at a place changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A 64-bit address.
    Wide,
    /// A 32-bit distance to an address, that of per-CPU variables: it shrinks.
    Inverse,
    /// A 32-bit address.
    Narrow,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Wide => "64-bit",
            Self::Inverse => "inverse",
            Self::Narrow => "32-bit",
        }
    }

    /// Bytes of a value.
    const fn size(self) -> usize {
        match self {
            Self::Wide => 8,
            Self::Inverse | Self::Narrow => 4,
        }
    }
}

/// Relocation lists whose places are all known to lie in the kernel.
#[derive(Debug, Clone)]
pub(super) struct Relocations {
    /// Size of the ELF file before the lists, bytes.
    elf: usize,
    /// Physical address that the kernel is linked for.
    base: u64,
    /// What is loaded: bytes from `base`, and where it is in the file.
    loads: Vec<(u64, Range<usize>)>,
    /// Where the words of each list are in the file.
    lists: Vec<(Kind, Range<usize>)>,
}

impl Relocations {
    /// Finds the lists in `file`, whose kernel is `outline`. `None`: there is nothing
    /// behind the ELF file.
    ///
    /// # Errors
    /// When what lies behind it are no such lists.
    pub(super) fn find(
        file: &[u8],
        outline: &Outline<'_>,
    ) -> Result<Option<Self>, RelocationError> {
        let elf = end_of_elf(file, outline).ok_or(RelocationError::NoEnd)?;
        let behind = file.get(elf..).unwrap_or_default();
        if behind.is_empty() {
            return Ok(None);
        }
        let found = Self {
            elf,
            base: outline.base,
            loads: outline.loads.clone(),
            lists: lists(behind)?,
        };
        for (kind, words) in &found.lists {
            let words = behind.get(words.clone()).unwrap_or_default();
            for (number, word) in self::words(words).enumerate() {
                if found.place(word, *kind).is_none() {
                    return Err(RelocationError::Outside {
                        list: kind.name(),
                        word,
                        number,
                    });
                }
            }
        }
        Ok(Some(found))
    }

    /// Changes the kernel in `file`, in which the lists were found, so that it runs `delta`
    /// bytes above the virtual address that it is linked for.
    pub(super) fn apply(&self, file: &mut [u8], delta: u64) {
        let Some((elf, behind)) = file.split_at_mut_checked(self.elf) else {
            return;
        };
        let [a, b, c, d, ..] = delta.to_le_bytes();
        let narrow = u32::from_le_bytes([a, b, c, d]);
        for (kind, words) in &self.lists {
            let words = behind.get(words.clone()).unwrap_or_default();
            for word in self::words(words) {
                let value = self.place(word, *kind).and_then(|at| elf.get_mut(at));
                match (kind, value) {
                    (Kind::Wide, Some(value)) => change(value, |old| {
                        u64::from_le_bytes(old).wrapping_add(delta).to_le_bytes()
                    }),
                    (Kind::Narrow, Some(value)) => change(value, |old| {
                        u32::from_le_bytes(old).wrapping_add(narrow).to_le_bytes()
                    }),
                    (Kind::Inverse, Some(value)) => change(value, |old| {
                        u32::from_le_bytes(old).wrapping_sub(narrow).to_le_bytes()
                    }),
                    (_, None) => {}
                }
            }
        }
    }

    /// Where the value that `word` names is in the file; `None`: in nothing that is loaded.
    fn place(&self, word: u32, kind: Kind) -> Option<Range<usize>> {
        // The kernel sign-extends the word: its upper half is all ones.
        let address = u64::from(word) | 0xffff_ffff_0000_0000;
        let offset = address
            .checked_sub(START_KERNEL_MAP)?
            .checked_sub(self.base)?;
        let after = self.loads.partition_point(|(start, _)| *start <= offset);
        let (start, bytes) = self.loads.get(after.checked_sub(1)?)?;
        let at = bytes.start + usize::try_from(offset - start).ok()?;
        let end = at.checked_add(kind.size())?;
        (end <= bytes.end).then_some(at..end)
    }
}

/// Writes what `new` makes of the bytes in `value`.
fn change<const N: usize>(value: &mut [u8], new: impl FnOnce([u8; N]) -> [u8; N]) {
    if let Some(bytes) = value.first_chunk_mut() {
        *bytes = new(*bytes);
    }
}

/// The lists in `behind`: what each has, and where its words are.
fn lists(behind: &[u8]) -> Result<Vec<(Kind, Range<usize>)>, RelocationError> {
    if !behind.len().is_multiple_of(WORD) {
        return Err(RelocationError::OddSize(behind.len()));
    }
    let first = words(behind).next().unwrap_or(0);
    if first != 0 {
        return Err(RelocationError::NoBegin(first));
    }
    let begins = words(behind).enumerate();
    let begins = begins.filter(|(_, word)| *word == 0);
    // A damaged file may have any number of zeroes.
    let begins: Vec<usize> = begins.map(|(number, _)| number * WORD).take(5).collect();
    let kinds: &[Kind] = match begins.len() {
        2 => &[Kind::Wide, Kind::Narrow],
        3 => &[Kind::Wide, Kind::Inverse, Kind::Narrow],
        count => return Err(RelocationError::Count(count)),
    };
    let ends = begins.iter().skip(1).copied().chain([behind.len()]);
    let lists = kinds.iter().zip(begins.iter().zip(ends));
    Ok(lists
        .map(|(kind, (begin, end))| (*kind, begin + WORD..end))
        .collect())
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    let (words, _) = bytes.as_chunks();
    words.iter().map(|word| u32::from_le_bytes(*word))
}

/// Where the ELF file ends: behind its headers, sections and what is loaded. `None`: not in
/// `file`.
fn end_of_elf(file: &[u8], outline: &Outline<'_>) -> Option<usize> {
    let context = Ctx::new(Container::Big, Endian::Little);
    let Header {
        e_phoff,
        e_phnum,
        e_shoff,
        e_shnum,
        ..
    } = goblin::elf::Elf::parse_header(file).ok()?;
    let size = |entry: usize, count: u16| entry as u64 * u64::from(count);
    let segments = e_phoff.saturating_add(size(ProgramHeader::size(context), e_phnum));
    let sections = e_shoff.saturating_add(size(SectionHeader::size(context), e_shnum));
    let at = usize::try_from(e_shoff).unwrap_or(usize::MAX);
    let table = match e_shnum {
        0 => Vec::new(),
        count => SectionHeader::parse(file, at, count.into(), context).ok()?,
    };
    let contents = table
        .iter()
        .filter(|section| section.sh_type != SHT_NOBITS)
        .map(|section| section.sh_offset.saturating_add(section.sh_size));
    let loaded = outline.loads.iter().map(|(_, bytes)| bytes.end as u64);
    let end = contents.chain(loaded).chain([segments, sections]).max();
    usize::try_from(end?).ok().filter(|end| *end <= file.len())
}

#[cfg(test)]
#[path = "relocations_tests.rs"]
mod tests;
