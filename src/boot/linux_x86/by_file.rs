//! What the running kernel does with a Linux for x86 that it loads itself
//! (kexec_file_load).
//!
//! Source: arch/x86/kernel/kexec-bzimage64.c.

use crate::abi::x86::boot_params::E820_MAX_ENTRIES_ZEROPAGE;
use crate::boot::FileRefusal;
use crate::host::Host;
use crate::image::LinuxKernel;
use crate::image::linux::{Format, xloadflags};

/// Entries of its e820 that the running kernel passes on: those that fit the zero page.
pub(in crate::boot) const MAP_ENTRIES: usize = E820_MAX_ENTRIES_ZEROPAGE;

/// Why the running kernel answers ENOEXEC to `image` (`bzImage64_probe`).
pub(in crate::boot) fn refusal(image: &LinuxKernel<'_>, host: &Host) -> Option<FileRefusal> {
    let is_vmlinux = image.format == Format::Vmlinux;
    let reason = if is_vmlinux {
        "it is a vmlinux, and on x86 kexec_file_load takes bzImages only"
    } else if image.is_32_bit() {
        "it has no 64-bit entry (XLF_KERNEL_64)"
    } else if !image.has(xloadflags::CAN_BE_LOADED_ABOVE_4G) {
        "it cannot be loaded above 4 GiB (XLF_CAN_BE_LOADED_ABOVE_4G)"
    } else if host.efi_bits() == Some(32) {
        "this machine's EFI is a 32-bit one"
    } else {
        return None;
    };
    Some(FileRefusal {
        reason,
        way_out: is_vmlinux.then_some("take the bzImage of the same kernel"),
        decides: None,
    })
}
