//! Multiboot 2, section 3.6 of its specification: tags, one behind the other.

use super::{BootInformation, LOADER_NAME, Pixels, Screen, lower_and_upper};

/// Every tag, and the whole, begins at a multiple of this.
const ALIGN: usize = 8;
/// Bytes of an entry of the memory map.
const MAP_ENTRY: u32 = 24;

/// Types of the tags that are made here.
pub mod tag {
    /// Boot command line.
    pub const CMDLINE: u32 = 1;
    /// Boot loader name.
    pub const LOADER: u32 = 2;
    /// One module.
    pub const MODULE: u32 = 3;
    /// Basic memory information.
    pub const MEMORY: u32 = 4;
    /// Memory map.
    pub const MEMORY_MAP: u32 = 6;
    /// Framebuffer info.
    pub const FRAMEBUFFER: u32 = 8;
    /// ELF symbols.
    pub const ELF_SECTIONS: u32 = 9;
    /// SMBIOS tables.
    pub const SMBIOS: u32 = 13;
    /// ACPI 1.0 RSDP.
    pub const ACPI_OLD: u32 = 14;
    /// ACPI 2.0 RSDP.
    pub const ACPI_NEW: u32 = 15;
    /// Image load base physical address.
    pub const LOAD_BASE: u32 = 21;
}

/// The information, for any address that is a multiple of 8.
#[must_use]
pub fn bytes(information: &BootInformation<'_>) -> Vec<u8> {
    let mut tags = Tags(vec![0; ALIGN]);
    if let Some(base) = information.load_base {
        tags.push(tag::LOAD_BASE, &base.to_le_bytes());
    }
    tags.string(tag::CMDLINE, &[], information.cmdline);
    tags.string(tag::LOADER, &[], LOADER_NAME.as_bytes());
    for module in &information.modules {
        tags.string(tag::MODULE, &[module.start, module.end], module.cmdline);
    }
    let (lower, upper) = lower_and_upper(information.map);
    tags.push(
        tag::MEMORY,
        [lower, upper].map(u32::to_le_bytes).as_flattened(),
    );
    tags.push(tag::MEMORY_MAP, &memory_map(information));
    if let Some(screen) = &information.screen {
        tags.push(tag::FRAMEBUFFER, &framebuffer(screen));
    }
    if let Some(smbios) = information.smbios {
        let (major, minor) = smbios.version();
        let mut body = vec![major, minor, 0, 0, 0, 0, 0, 0];
        body.extend_from_slice(smbios.bytes());
        tags.push(tag::SMBIOS, &body);
    }
    if let Some(rsdp) = information.rsdp {
        for (kind, copy) in [
            (tag::ACPI_OLD, rsdp.version_1()),
            (tag::ACPI_NEW, rsdp.version_2()),
        ] {
            if let Some(copy) = copy {
                tags.push(kind, copy);
            }
        }
    }
    tags.push(0, &[]);
    tags.finish()
}

/// Whether the information has a tag of type `kind`, or needs none: without modules
/// there is no module tag.
#[must_use]
pub fn provides(information: &BootInformation<'_>, kind: u32) -> bool {
    match kind {
        0 | tag::CMDLINE | tag::LOADER | tag::MODULE | tag::MEMORY | tag::MEMORY_MAP => true,
        tag::FRAMEBUFFER => information.screen.is_some(),
        tag::SMBIOS => information.smbios.is_some(),
        tag::ACPI_OLD => information
            .rsdp
            .is_some_and(|rsdp| rsdp.version_1().is_some()),
        tag::ACPI_NEW => information
            .rsdp
            .is_some_and(|rsdp| rsdp.version_2().is_some()),
        // "Provided only if the image has a relocatable header tag."
        tag::LOAD_BASE => true,
        _ => false,
    }
}

fn memory_map(information: &BootInformation<'_>) -> Vec<u8> {
    let mut body = MAP_ENTRY.to_le_bytes().to_vec();
    body.extend(0_u32.to_le_bytes()); // version of the entries
    for (range, kind) in information.map {
        body.extend(range.start().to_le_bytes());
        body.extend(range.size().to_le_bytes());
        body.extend(kind.0.to_le_bytes());
        body.extend(0_u32.to_le_bytes());
    }
    body
}

fn framebuffer(screen: &Screen) -> Vec<u8> {
    let mut body = screen.address.to_le_bytes().to_vec();
    for field in [screen.pitch, screen.width, screen.height] {
        body.extend(field.to_le_bytes());
    }
    let (kind, colors) = match screen.pixels {
        Pixels::Rgb(colors) => (1, Some(colors)),
        Pixels::Text => (2, None),
    };
    body.extend([screen.depth, kind, 0, 0]);
    for (lowest, bits) in colors.into_iter().flatten() {
        body.extend([lowest, bits]);
    }
    body
}

/// The tags so far, behind room for the size of the whole.
struct Tags(Vec<u8>);

impl Tags {
    fn push(&mut self, kind: u32, body: &[u8]) {
        let Self(bytes) = self;
        let size = u32::try_from(8 + body.len()).unwrap_or(u32::MAX);
        bytes.extend(kind.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
    }

    /// A tag of numbers and then a C string.
    fn string(&mut self, kind: u32, numbers: &[u32], text: &[u8]) {
        let mut body: Vec<u8> = numbers.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend_from_slice(text);
        body.push(0);
        self.push(kind, &body);
    }

    fn finish(self) -> Vec<u8> {
        let Self(mut bytes) = self;
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if let Some(field) = bytes.first_chunk_mut::<4>() {
            *field = size.to_le_bytes();
        }
        bytes
    }
}
