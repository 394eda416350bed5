//! /sys/firmware/efi: what the next kernel needs to call the firmware.

use super::{HostError, Root};

/// One runtime region of the EFI memory map, with the virtual address the
/// firmware was told once and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EfiDescriptor {
    /// EFI memory type.
    pub kind: u32,
    /// Physical address.
    pub physical: u64,
    /// Virtual address.
    pub virtual_: u64,
    /// Size in 4 KiB pages.
    pub pages: u64,
    /// EFI_MEMORY_* attributes.
    pub attributes: u64,
}

/// Facts of an EFI boot; addresses are physical, 0 means not stated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Efi {
    /// fw_vendor, physical address.
    pub fw_vendor: u64,
    /// config_table, physical address.
    pub config_table: u64,
    /// fw_platform_size: 32 or 64.
    pub platform_bits: u32,
    /// `ACPI20=` of systab.
    pub acpi20: u64,
    /// `ACPI=` of systab.
    pub acpi: u64,
    /// `SMBIOS=` of systab.
    pub smbios: u64,
    /// runtime-map, in the order of its numbers; empty when the kernel shows none.
    pub runtime_map: Vec<EfiDescriptor>,
    /// The SecureBoot variable, `None` when it cannot be read.
    pub secure_boot: Option<bool>,
}

pub(super) fn read(_root: &Root) -> Result<Option<Efi>, HostError> {
    Ok(None)
}
