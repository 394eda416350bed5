//! Where the ACPI RSDP lies.

use super::Host;

/// Physical address of the ACPI RSDP: as the running kernel was told, else as
/// EFI knows it; 0 leaves the next kernel to scan the BIOS area.
#[must_use]
pub fn rsdp(host: &Host) -> u64 {
    let told = host
        .boot_params
        .as_ref()
        .map_or(0, |running| running.params.acpi_rsdp_addr.get());
    let efi = host
        .efi
        .as_ref()
        .map_or([0, 0], |efi| [efi.acpi20, efi.acpi]);
    [told]
        .into_iter()
        .chain(efi)
        .find(|address| *address != 0)
        .unwrap_or(0)
}
