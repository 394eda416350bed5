//! The map that the running kernel itself hands over.

use super::boot_e820;
use crate::base::{PhysRange, Told};
use crate::host::Host;

/// What is to be said where [`kernel_map`] is empty.
pub const UNKNOWN_KERNEL_MAP: &str = "the memory map that the running kernel hands over is not known: neither \
     /sys/kernel/boot_params nor /sys/firmware/memmap is there";

/// The map that the running kernel hands over in kexec_file_load: the e820 it
/// was booted with (`e820_table_kexec`), whatever happened since.
#[must_use]
pub fn kernel_map(host: &Host) -> Vec<(PhysRange, Told)> {
    if let Some(running) = &host.boot_params {
        return boot_e820(running).entries().to_vec();
    }
    let firmware = host.firmware_map.as_deref().unwrap_or_default();
    firmware
        .iter()
        .map(|region| {
            (
                region.range,
                Told::from_name(&region.name).unwrap_or(Told::RESERVED),
            )
        })
        .collect()
}
