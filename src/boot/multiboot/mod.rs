//! Multiboot: the boot information, which EBX points to, and how the kernel is laid out.

pub(super) mod protocol;
mod screen;
pub mod v1;
pub mod v2;

pub use screen::{Bits, Pixels, Screen};

use bstr::BStr;

use crate::base::{PhysRange, Told};
use crate::boot::x86::CONVENTIONAL_END;
use crate::host::firmware_tables::{EntryPoint, Rsdp};

/// The boot loader's name for the kernel.
pub const LOADER_NAME: &str = concat!("rkexec ", env!("CARGO_PKG_VERSION"));
const MIB: u64 = 1 << 20;
/// Linux keeps the first page to itself, and says so in its map; the memory
/// below 640 KiB begins there all the same.
const FIRST_PAGE_END: u64 = 4096;

/// A module in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module<'a> {
    /// Its first byte.
    pub start: u32,
    /// The first byte after it.
    pub end: u32,
    /// Its command line.
    pub cmdline: &'a BStr,
}

/// The boot information, for either version.
#[derive(Debug, Clone, Default)]
pub struct BootInformation<'a> {
    /// The command line.
    pub cmdline: &'a BStr,
    /// The modules, in the order in which they were given.
    pub modules: Vec<Module<'a>>,
    /// The memory map.
    pub map: &'a [(PhysRange, Told)],
    /// The screen.
    pub screen: Option<Screen>,
    /// The ACPI root pointer; version 2 alone has room for it.
    pub rsdp: Option<&'a Rsdp>,
    /// The SMBIOS entry point; version 2 alone has room for it.
    pub smbios: Option<&'a EntryPoint>,
    /// Where a relocatable kernel lies; version 2 alone has such kernels.
    pub load_base: Option<u32>,
}

/// The two sizes that older kernels use instead of a map, in KiB: memory below 640 KiB,
/// and memory from 1 MiB up to the first hole. `map` is in address order.
fn lower_and_upper(map: &[(PhysRange, Told)]) -> (u32, u32) {
    let ram = map.iter().filter(|(_, kind)| kind.is_ram());
    let size = |from: u64, latest_start: u64| {
        let end = ram.clone().fold(from, |end, (range, _)| {
            let reached = if end == from { latest_start } else { end };
            if range.start() <= reached {
                end.max(range.end())
            } else {
                end
            }
        });
        end - from
    };
    let kib = |bytes: u64| u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    (
        kib(size(0, FIRST_PAGE_END).min(CONVENTIONAL_END)),
        kib(size(MIB, MIB)),
    )
}

#[cfg(test)]
mod tests;
