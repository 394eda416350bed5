//! The header of Multiboot 2: section 3.1 of its specification.

use super::{
    Addresses, Console, InformationRequest, Multiboot, Preference, Relocatable, Version, elf,
    find_header, is_xen, span, u32_at, unsupported,
};
use crate::image::ImageError;

/// Architecture: i386 in 32-bit protected mode.
const I386: u32 = 0;
/// Architecture: 32-bit MIPS.
const MIPS: u32 = 4;
/// Magic, architecture, header_length, checksum: bytes.
const FIXED: usize = 16;
/// Type, flags, size: bytes.
const TAG_HEAD: usize = 8;
/// Tags begin at multiples of this, bytes from the header.
const TAG_ALIGN: usize = 8;
/// Flag of a tag: a loader that does not know it may go on.
const OPTIONAL: u16 = 1 << 0;
/// Console flags: the kernel does not start without a console.
const CONSOLE_REQUIRED: u32 = 1 << 0;
/// Console flags: the kernel can write to an EGA text screen.
const EGA_TEXT: u32 = 1 << 1;

/// Names of the boot information tags by type, section 3.6.
const INFORMATION: [&str; 22] = [
    "end",
    "boot command line",
    "boot loader name",
    "modules",
    "basic memory information",
    "BIOS boot device",
    "memory map",
    "VBE info",
    "framebuffer info",
    "ELF symbols",
    "APM table",
    "EFI 32-bit system table",
    "EFI 64-bit system table",
    "SMBIOS tables",
    "ACPI old RSDP",
    "ACPI new RSDP",
    "networking information",
    "EFI memory map",
    "EFI boot services not terminated",
    "EFI 32-bit image handle",
    "EFI 64-bit image handle",
    "image load base physical address",
];

/// Name of the boot information tag of type `tag`.
#[must_use]
pub fn information_name(tag: u32) -> Option<&'static str> {
    let name = INFORMATION.get(usize::try_from(tag).ok()?)?;
    Some(name)
}

/// Where the header is.
pub(super) fn find(file: &[u8]) -> Option<usize> {
    find_header(file, Version::Two, 4) // magic, architecture, header_length, checksum
}

/// What the tags say.
#[derive(Default)]
struct Tags {
    addresses: Option<Addresses>,
    entry: Option<u32>,
    relocatable: Option<Relocatable>,
    page_aligned_modules: bool,
    console: Console,
    requests: Vec<InformationRequest>,
}

/// Reads the header at `at`, where [`find`] found it.
pub(super) fn parse(file: &[u8], at: usize) -> Result<Multiboot<'_>, ImageError> {
    let version = Version::Two;
    let malformed = |what| super::malformed(version, what);
    let field = |offset| u32_at(file, at + offset).unwrap_or_default();
    match field(4) {
        I386 => {}
        other => {
            let name = if other == MIPS { " (MIPS)" } else { "" };
            let what = format!("it is for architecture {other}{name}, not for the i386 (0)");
            return Err(unsupported(version, &what));
        }
    }
    let length = field(8);
    let header = usize::try_from(length)
        .ok()
        .and_then(|length| at.checked_add(length))
        .filter(|end| *end <= version.window())
        .and_then(|end| file.get(at..end))
        .ok_or_else(|| {
            malformed(format!(
                "its header of {length:#x} bytes at {at:#x} leaves the file or its first {} bytes",
                version.window()
            ))
        })?;
    let tags = read_tags(header)?;
    let (loads, entry) = match (&tags.addresses, tags.entry) {
        (Some(addresses), Some(entry)) => {
            let load = addresses.load(file, at, version).map_err(malformed)?;
            (vec![load], u64::from(entry))
        }
        (Some(_), None) => {
            let what = "there is an address tag, and no entry address tag with it".to_owned();
            return Err(malformed(what));
        }
        (None, entry) => {
            let (loads, elf_entry) = elf::loads(file).map_err(malformed)?;
            (loads, entry.map_or(elf_entry, u64::from))
        }
    };
    let span = span(&loads, entry).map_err(malformed)?;
    Ok(Multiboot {
        version,
        packed: None,
        header_offset: at,
        loads,
        span,
        entry,
        relocatable: tags.relocatable,
        page_aligned_modules: tags.page_aligned_modules,
        console: tags.console,
        requests: tags.requests,
        asks_bios: is_xen(file),
        name: bstr::BString::default(),
        modules: Vec::new(),
    })
}

/// Reads the tags up to the one that ends them.
fn read_tags(header: &[u8]) -> Result<Tags, ImageError> {
    let version = Version::Two;
    let malformed = |what| Err(super::malformed(version, what));
    let mut tags = Tags::default();
    let mut at = FIXED;
    loop {
        let (Some(head), Some(size)) = (u32_at(header, at), u32_at(header, at + 4)) else {
            return malformed("its header has no end tag".to_owned());
        };
        let [low, high] = [head & 0xffff, head >> 16];
        let kind = u16::try_from(low).unwrap_or_default();
        let optional = u16::try_from(high).unwrap_or_default() & OPTIONAL != 0;
        let tag = usize::try_from(size)
            .ok()
            .filter(|size| *size >= TAG_HEAD)
            .and_then(|size| header.get(at..)?.get(..size));
        let Some(tag) = tag else {
            return malformed(format!(
                "header tag {kind} at {at:#x} of the header has the size {size:#x}, and the header {:#x}",
                header.len()
            ));
        };
        if kind == 0 {
            return Ok(tags);
        }
        let body = tag.get(TAG_HEAD..).unwrap_or_default();
        tags.read(kind, optional, body)?;
        at = (at + tag.len()).next_multiple_of(TAG_ALIGN);
    }
}

impl Tags {
    /// Takes in one tag; `body` is what follows its size.
    fn read(&mut self, kind: u16, optional: bool, body: &[u8]) -> Result<(), ImageError> {
        let version = Version::Two;
        let field = |number: usize| {
            u32_at(body, 4 * number).ok_or_else(|| {
                let size = TAG_HEAD + body.len();
                super::malformed(version, format!("header tag {kind} has only {size} bytes"))
            })
        };
        match kind {
            1 => {
                let required = !optional;
                let (types, _) = body.as_chunks::<4>();
                let requests = types.iter().map(|tag| InformationRequest {
                    tag: u32::from_le_bytes(*tag),
                    required,
                });
                self.requests.extend(requests);
            }
            2 => {
                self.addresses = Some(Addresses {
                    header: field(0)?,
                    load: field(1)?,
                    load_end: field(2)?,
                    bss_end: field(3)?,
                });
            }
            3 => self.entry = Some(field(0)?),
            4 => {
                let flags = field(0)?;
                self.console = Console {
                    required: flags & CONSOLE_REQUIRED != 0 && !optional,
                    stated: true,
                    text: flags & EGA_TEXT != 0,
                };
            }
            6 => self.page_aligned_modules = true,
            // A video mode is only a suggestion, and no firmware is left to set it.
            // EFI boot services and their entry points are optional abilities.
            5 | 7..=9 => {}
            10 => {
                self.relocatable = Some(relocatable([field(0)?, field(1)?, field(2)?, field(3)?])?);
            }
            _ if optional => {}
            _ => {
                let what = format!(
                    "it requires header tag {kind}, which version 2.0 of the specification does not have"
                );
                return Err(unsupported(version, &what));
            }
        }
        Ok(())
    }
}

fn relocatable([min, max, align, preference]: [u32; 4]) -> Result<Relocatable, ImageError> {
    let malformed = |what| Err(super::malformed(Version::Two, what));
    // 0 and 1 both say that any address will do.
    let align = align.max(1);
    if !align.is_power_of_two() {
        return malformed(format!("its alignment {align:#x} is no power of two"));
    }
    if min > max {
        return malformed(format!(
            "its lowest address {min:#x} lies above its highest one, {max:#x}"
        ));
    }
    let preference = match preference {
        1 => Preference::Lowest,
        2 => Preference::Highest,
        // It is a suggestion, so an unknown value is ignored.
        _ => Preference::None,
    };
    Ok(Relocatable {
        min,
        max,
        align,
        preference,
    })
}
