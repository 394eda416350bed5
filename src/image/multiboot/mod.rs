//! Multiboot kernels, version 1 and 2, for the i386: Xen, and many small ones.
//!
//! Source: the Multiboot Specification 0.6.96 and the Multiboot2 Specification
//! 2.0, section 3.1 of each, "OS image format".
//!
//! A header near the start of the file says what information the kernel wants.
//! Addresses beside that header, or else the ELF program headers, say where its
//! bytes go.

mod elf;
mod pieces;
pub mod v1;
pub mod v2;

pub use pieces::{Piece, pieces};

use bstr::BString;

use super::ImageError;
use crate::base::PhysRange;

/// First address that the 32-bit entry cannot reach.
pub const FOUR_GIB: u64 = 1 << 32;
/// Bytes of the file in which to look for a malformed header.
const NEAR_MISS_WINDOW: usize = 64 << 10;

/// Which of the two specifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Multiboot, "0.6.96".
    One,
    /// Multiboot2, "2.0".
    Two,
}

impl Version {
    /// Name of the format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "multiboot 1",
            Self::Two => "multiboot 2",
        }
    }

    /// The magic of the header in the file.
    #[must_use]
    pub const fn header_magic(self) -> u32 {
        match self {
            Self::One => 0x1bad_b002,
            Self::Two => 0xe852_50d6,
        }
    }

    /// What the kernel finds in EAX.
    #[must_use]
    pub const fn entry_magic(self) -> u32 {
        match self {
            Self::One => 0x2bad_b002,
            Self::Two => 0x36d7_6289,
        }
    }

    /// The header lies within so many bytes from the start of the file.
    const fn window(self) -> usize {
        match self {
            Self::One => 8192,
            Self::Two => 32768,
        }
    }

    /// The header's offset in the file is a multiple of this.
    const fn alignment(self) -> usize {
        match self {
            Self::One => 4,
            Self::Two => 8,
        }
    }
}

/// Some bytes of the file, and the memory they fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load<'a> {
    /// Where they go, below [`FOUR_GIB`]; what `bytes` do not fill is zero.
    pub range: PhysRange,
    /// At most as many as `range` has.
    pub bytes: &'a [u8],
}

/// The kernel may be moved as a whole (Multiboot2, header tag 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocatable {
    /// No part of it lies below.
    pub min: u32,
    /// No part of it lies above.
    pub max: u32,
    /// Its first byte lies at a multiple of this, a power of two.
    pub align: u32,
    /// Its preferred place.
    pub preference: Preference,
}

/// The place that a relocatable kernel prefers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference {
    /// It does not say.
    None,
    /// As low as it may.
    Lowest,
    /// As high as it may.
    Highest,
}

impl Preference {
    /// The suggestion in words, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lowest => "lowest",
            Self::Highest => "highest",
        }
    }
}

/// What the kernel says of consoles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Console {
    /// It does not start without a console in the boot information.
    pub required: bool,
    /// It says what it can draw on. Only then do the other fields count.
    pub stated: bool,
    /// It can write to an EGA text screen.
    pub text: bool,
}

/// Boot information that the kernel requests (Multiboot2, header tag 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InformationRequest {
    /// Type of a boot information tag, see [`v2::information_name`].
    pub tag: u32,
    /// The kernel does not start without it.
    pub required: bool,
}

/// A file that a multiboot kernel is given.
#[derive(Debug, Clone)]
pub struct Module<'a> {
    /// What is in it.
    pub bytes: &'a [u8],
    /// Its command line, which begins with the file's name.
    pub cmdline: BString,
}

/// A multiboot kernel that was checked, and what goes with it.
#[derive(Debug, Clone)]
pub struct Multiboot<'a> {
    /// Which specification its header follows.
    pub version: Version,
    /// How the file as a whole was packed.
    pub packed: Option<&'static str>,
    /// Where in the file, unpacked, the header is.
    pub header_offset: usize,
    /// What goes where: in address order, disjoint, never empty.
    pub loads: Vec<Load<'a>>,
    /// From the first byte of `loads` to the last one.
    pub span: PhysRange,
    /// Where it is entered, inside of one of `loads`.
    pub entry: u64,
    /// Whether, and whereto, it may be moved.
    pub relocatable: Option<Relocatable>,
    /// It wants its modules to begin on pages.
    pub page_aligned_modules: bool,
    /// What it says of consoles.
    pub console: Console,
    /// The boot information that it requests.
    pub requests: Vec<InformationRequest>,
    /// It calls the BIOS for a memory map unless told not to: Xen does.
    pub asks_bios: bool,
    /// The first word of its command line, the name of its file; empty for none.
    /// The file itself does not have it.
    pub name: BString,
    /// Its modules, in order. The file itself has none.
    pub modules: Vec<Module<'a>>,
}

/// The header, or the ELF file around it, contradicts itself or the file.
fn malformed(version: Version, what: String) -> ImageError {
    let format = match version {
        Version::One => "multiboot 1 kernel",
        Version::Two => "multiboot 2 kernel",
    };
    ImageError::Malformed { format, what }
}

/// The kernel wants something that this program, or any loader running after the
/// firmware, cannot do.
fn unsupported(version: Version, what: &str) -> ImageError {
    let name = version.name();
    ImageError::Unsupported(format!("this {name} kernel cannot be loaded: {what}"))
}

impl<'a> Multiboot<'a> {
    /// The format with what was around it: `gzip of multiboot 2`.
    #[must_use]
    pub fn format_name(&self) -> String {
        let names = self.packed.into_iter().chain([self.version.name()]);
        names.collect::<Vec<_>>().join(" of ")
    }

    /// Reads the header and what goes where. `None`: there is no such header.
    /// Of a file that has both, the header of version 2 counts: it tells more.
    ///
    /// # Errors
    /// When there is one, but the kernel is damaged or wants something impossible.
    pub fn parse(file: &'a [u8]) -> Result<Option<Self>, ImageError> {
        match Self::parse_as(file, Version::Two)? {
            Some(image) => Ok(Some(image)),
            None => Self::parse_as(file, Version::One),
        }
    }

    /// Reads the header of `version`. `None`: there is no such header, though there
    /// may be one of the other version.
    ///
    /// # Errors
    /// As those of [`Self::parse`].
    pub fn parse_as(file: &'a [u8], version: Version) -> Result<Option<Self>, ImageError> {
        let (at, parse): (_, fn(_, _) -> _) = match version {
            Version::One => (v1::find(file), v1::parse),
            Version::Two => (v2::find(file), v2::parse),
        };
        at.map(|at| parse(file, at)).transpose()
    }
}

/// Describes what a file lacks that nearly has a multiboot header.
#[must_use]
pub fn near_miss(file: &[u8]) -> Option<String> {
    let window = file.get(..NEAR_MISS_WINDOW.min(file.len()))?;
    [Version::Two, Version::One]
        .into_iter()
        .find_map(|version| {
            let magic = version.header_magic().to_le_bytes();
            let at = memchr::memmem::find(window, &magic)?;
            let (name, alignment) = (version.name(), version.alignment());
            let why = if at % alignment != 0 {
                format!("that is no multiple of {alignment}")
            } else if at + 12 > version.window() {
                format!("that is not within the first {} bytes", version.window())
            } else {
                "its checksum is wrong".to_owned()
            };
            Some(format!(
                "this is no {name} kernel, although the magic of its header is at {at:#x}: {why}"
            ))
        })
}

/// The little-endian number at `at`.
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let (number, _) = bytes.get(at..)?.split_first_chunk::<4>()?;
    Some(u32::from_le_bytes(*number))
}

/// The first aligned place in the window where `version`'s magic is and the `words`
/// 32-bit numbers from there add up to 0, as the checksum among them makes them.
fn find_header(file: &[u8], version: Version, words: usize) -> Option<usize> {
    let window = file.get(..version.window().min(file.len()))?;
    (0..window.len()).step_by(version.alignment()).find(|&at| {
        if u32_at(window, at) != Some(version.header_magic()) {
            return false;
        }
        let sum = (0..words).try_fold(0_u32, |sum, word| {
            Some(sum.wrapping_add(u32_at(window, at + 4 * word)?))
        });
        sum == Some(0)
    })
}

/// Addresses as both headers give them for files that are no ELF files.
struct Addresses {
    header: u32,
    load: u32,
    load_end: u32,
    bss_end: u32,
}

/// Multiboot2 alone: this load address stands for "from the start of the file".
const FROM_FILE_START: u32 = u32::MAX;

impl Addresses {
    /// The file's loads by these addresses; the header is at `at`.
    fn load<'a>(&self, file: &'a [u8], at: usize, version: Version) -> Result<Load<'a>, String> {
        let &Self {
            header,
            load,
            load_end,
            bss_end,
        } = self;
        let before = if version == Version::Two && load == FROM_FILE_START {
            at
        } else {
            let before = header
                .checked_sub(load)
                .ok_or_else(|| format!("load_addr {load:#x} lies above header_addr {header:#x}"))?;
            usize::try_from(before).unwrap_or(usize::MAX)
        };
        let from = at.checked_sub(before).ok_or_else(|| {
            format!(
                "load_addr {load:#x} lies {before:#x} bytes before the header, and the header at {at:#x} of the file"
            )
        })?;
        let start = u64::from(header)
            .checked_sub(before as u64)
            .ok_or_else(|| format!("header_addr {header:#x} is less than its offset {at:#x}"))?;
        let rest = file.get(from..).unwrap_or_default();
        let bytes = match u64::from(load_end) {
            0 => rest,
            end => {
                let size = end
                    .checked_sub(start)
                    .filter(|size| *size > 0)
                    .ok_or_else(|| {
                        format!(
                            "load_end_addr {end:#x} does not lie above the load address {start:#x}"
                        )
                    })?;
                let wanted = usize::try_from(size).ok().and_then(|size| rest.get(..size));
                wanted.ok_or_else(|| {
                    format!(
                        "truncated: {size:#x} bytes are to be loaded from {from:#x} on, the file has {:#x}",
                        rest.len()
                    )
                })?
            }
        };
        let loaded_end = start + bytes.len() as u64;
        let end = match u64::from(bss_end) {
            0 => loaded_end,
            end if end < loaded_end => {
                return Err(format!(
                    "bss_end_addr {end:#x} lies below the end of what is loaded, {loaded_end:#x}"
                ));
            }
            end => end,
        };
        let range = below_four_gib(start, end - start)?;
        Ok(Load { range, bytes })
    }
}

/// A range that the 32-bit entry reaches as a whole.
fn below_four_gib(start: u64, size: u64) -> Result<PhysRange, String> {
    let range = PhysRange::new(start, size).map_err(|error| error.to_string())?;
    if range.end() > FOUR_GIB {
        return Err(format!("{range} does not lie below 4 GiB"));
    }
    Ok(range)
}

/// What `loads` span, when the kernel is entered inside of them.
fn span(loads: &[Load<'_>], entry: u64) -> Result<PhysRange, String> {
    let inside = |load: &Load<'_>| {
        load.range.start() <= entry && entry - load.range.start() < load.bytes.len() as u64
    };
    if !loads.iter().any(inside) {
        return Err(format!(
            "the entry point {entry:#x} lies outside of what is loaded"
        ));
    }
    let start = loads.first().map_or(0, |load| load.range.start());
    let end = loads.last().map_or(0, |load| load.range.end());
    PhysRange::from_bounds(start, end).map_err(|error| error.to_string())
}

/// Whether the kernel is a Xen: it has its version's format and both of its
/// names for where a memory map came from.
fn is_xen(file: &[u8]) -> bool {
    [&b"Xen version %d."[..], b"Xen-e820", b"Multiboot-e820"]
        .iter()
        .all(|text| memchr::memmem::find(file, text).is_some())
}

#[cfg(test)]
mod tests;
