//! Filling boot_params for the next kernel: from zero, then the new image's
//! header, then what must carry over from the running kernel.

use zerocopy::{FromZeros as _, IntoBytes as _};

use crate::abi::x86::boot_params::{
    BootParams, E820_MAX_ENTRIES_ZEROPAGE, E820Entry, EFI64_LOADER_SIGNATURE, SETUP_HEADER_MAGIC,
    SetupHeader, split,
};
use crate::abi::x86::setup_data::SetupData;
use crate::base::{PhysRange, Told};
use crate::host::{Host, rsdp};
use crate::image::LinuxKernel;
use crate::image::linux::xloadflags;

/// loadflags: the kernel is loaded at or above 1 MiB.
const LOADED_HIGH: u8 = 1 << 0;
/// loadflags: the kernel's place was chosen at random (KASLR_FLAG). Without it the kernel
/// maps memory at fixed addresses (`kernel_randomize_memory`).
const KASLR_FLAG: u8 = 1 << 1;
/// type_of_loader of kexec loaders (boot.rst: 0xD, version 0).
const LOADER_KEXEC: u8 = 0xd0;
/// NORMAL_VGA of arch/x86/boot/boot.h: no mode is asked for.
const NORMAL_VGA: u16 = 0xffff;
/// Bytes that the decompressor maps from the command line's address on
/// (COMMAND_LINE_SIZE of x86), whatever its length.
pub const COMMAND_LINE_SIZE: u64 = 2048;
/// Smallest descriptor size the EFI specification allows, bytes.
const EFI_DESCRIPTOR_MIN: u32 = 40;
/// Largest taken for sane, bytes; firmware has 48.
const EFI_DESCRIPTOR_MAX: u32 = 256;

/// The EFI data for the next kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EfiHandover {
    /// Physical address of the system table.
    pub system_table: u64,
    /// Bytes of one memory descriptor.
    pub descriptor_size: u32,
    /// Version of the memory descriptors.
    pub descriptor_version: u32,
}

/// Whether EFI can be handed over completely. With only a part of it, the next kernel
/// would call SetVirtualAddressMap a second time.
///
/// # Errors
/// The reason why not, for a warning.
pub fn efi_handover(host: &Host, image: &LinuxKernel<'_>) -> Result<Option<EfiHandover>, String> {
    let Some(efi) = &host.efi else {
        return Ok(None);
    };
    // As the kernel itself has it (efi_runtime_supported in arch/x86/include/asm/efi.h):
    // mixed mode is a 64-bit kernel on a 32-bit EFI, and never the other way round. A
    // 32-bit EFI cannot be handed over either: no 32-bit kernel takes EFI from a kexec.
    if image.is_32_bit() {
        return Err("it is entered in 32-bit mode, and takes over no EFI from a kexec".to_owned());
    }
    if efi.platform_bits == 32 {
        return Err("the firmware is 32-bit (mixed mode)".to_owned());
    }
    let running = host
        .boot_params
        .as_ref()
        .ok_or("/sys/kernel/boot_params is missing")?;
    let system_table = running
        .params
        .efi_system_table()
        .ok_or("the running kernel's boot_params name no 64-bit EFI system table")?;
    if efi.runtime_map.is_empty() {
        return Err("/sys/firmware/efi/runtime-map is missing or empty".to_owned());
    }
    if efi.config_table == 0 || efi.fw_vendor == 0 {
        return Err("/sys/firmware/efi does not tell fw_vendor and config_table".to_owned());
    }
    if !image.has(xloadflags::EFI_KEXEC) {
        return Err("the new kernel cannot take over EFI from a kexec (XLF_EFI_KEXEC)".to_owned());
    }
    let info = &running.params.efi_info;
    let size = info.memdesc_size.get();
    if !(EFI_DESCRIPTOR_MIN..=EFI_DESCRIPTOR_MAX).contains(&size) {
        return Err(format!(
            "the running kernel's EFI memory descriptors have {size} bytes"
        ));
    }
    let descriptor_version = info.memdesc_version.get();
    Ok(Some(EfiHandover {
        system_table,
        descriptor_size: size,
        descriptor_version,
    }))
}

/// Where everything lies that boot_params points to.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The kernel.
    pub kernel: u64,
    /// The command line.
    pub cmdline: u64,
    /// The initrd, `None` without one.
    pub initrd: Option<u64>,
    /// Size of the initrd in bytes.
    pub initrd_size: u64,
    /// The setup_data segment; its first node is at its start.
    pub setup_data: u64,
    /// The loader chose the kernel's place at random, so that the kernel is to randomize
    /// where it maps memory, too.
    pub randomized: bool,
}

/// The e820 table as entries, and how many of them boot_params holds.
#[must_use]
pub fn e820_entries(map: &[(PhysRange, Told)]) -> (Vec<E820Entry>, usize) {
    let entries: Vec<E820Entry> = map
        .iter()
        .map(|(range, kind)| E820Entry {
            address: range.start().into(),
            size: range.size().into(),
            kind: kind.0.into(),
        })
        .collect();
    let inline = entries.len().min(E820_MAX_ENTRIES_ZEROPAGE);
    (entries, inline)
}

/// boot_params for `image`.
#[must_use]
pub fn build(
    image: &LinuxKernel<'_>,
    host: &Host,
    efi: Option<&EfiHandover>,
    map: &[(PhysRange, Told)],
    setup_data: &SetupData,
    at: &Addresses,
) -> Box<BootParams> {
    let mut params = BootParams::zeroed();
    params.hdr = image.x86.header.unwrap_or_else(|| header_of(image));
    params.hdr.type_of_loader = LOADER_KEXEC;
    params.hdr.loadflags = 0; // as the kernel's own loader: nothing here applies to a 64-bit entry
    if at.randomized {
        params.hdr.loadflags = KASLR_FLAG;
    }
    if image.is_32_bit() {
        params.hdr.loadflags = LOADED_HIGH;
        params.hdr.code32_start = split(at.kernel).0.into();
    }

    if let Some(running) = &host.boot_params {
        carry_over(&running.params, &mut params);
    }
    params.acpi_rsdp_addr = rsdp(host).into();

    let (low, high) = split(at.cmdline);
    (params.hdr.cmd_line_ptr, params.ext_cmd_line_ptr) = (low.into(), high.into());
    // The loader's fields: whatever the file has there, without an initrd they are 0.
    (params.hdr.ramdisk_image, params.hdr.ramdisk_size) = (0.into(), 0.into());
    if let Some(initrd) = at.initrd {
        let (low, high) = split(initrd);
        (params.hdr.ramdisk_image, params.ext_ramdisk_image) = (low.into(), high.into());
        let (low, high) = split(at.initrd_size);
        (params.hdr.ramdisk_size, params.ext_ramdisk_size) = (low.into(), high.into());
    }

    params.hdr.setup_data = if setup_data.nodes().is_empty() {
        0
    } else {
        at.setup_data
    }
    .into();
    if let Some(efi) = efi {
        let info = &mut params.efi_info;
        info.loader_signature = EFI64_LOADER_SIGNATURE.into();
        let (low, high) = split(efi.system_table);
        (info.systab, info.systab_hi) = (low.into(), high.into());
        let (low, high) = split(at.setup_data + setup_data.memmap_offset() as u64);
        (info.memmap, info.memmap_hi) = (low.into(), high.into());
        // A runtime map is a few entries of a few dozen bytes.
        info.memmap_size = u32::try_from(setup_data.memmap_size())
            .unwrap_or(u32::MAX)
            .into();
        info.memdesc_size = efi.descriptor_size.into();
        info.memdesc_version = efi.descriptor_version.into();
    }

    let (entries, inline) = e820_entries(map);
    for (slot, entry) in params
        .e820_table
        .iter_mut()
        .zip(entries.iter().take(inline))
    {
        *slot = *entry;
    }
    params.e820_entries = u8::try_from(inline).unwrap_or(u8::MAX);
    set_fallback_sizes(&mut params, map);
    params
}

/// The setup header of a kernel whose file has none, a vmlinux: the fields that matter of
/// that in a bzImage of the same kernel.
fn header_of(image: &LinuxKernel<'_>) -> SetupHeader {
    let word = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let mut header = SetupHeader::new_zeroed();
    // The root file system is mounted read-only at first, unless the command line
    // says otherwise, and the video mode is the one that is there: what a bzImage is
    // built with (arch/x86/boot/header.S).
    header.root_flags = 1.into();
    header.vid_mode = NORMAL_VGA.into();
    header.boot_flag = 0xaa55.into();
    header.header = SETUP_HEADER_MAGIC.into();
    header.version = image.x86.protocol.into();
    header.xloadflags = image.x86.flags.into();
    header.initrd_addr_max = word(image.initrd_end.saturating_sub(1)).into();
    header.kernel_alignment = word(image.geometry.align).into();
    header.min_alignment = u8::try_from(image.geometry.align.trailing_zeros()).unwrap_or(0);
    header.relocatable_kernel = (!image.geometry.fixed).into();
    header.cmdline_size = word(image.cmdline_limit as u64).into();
    header.pref_address = image.geometry.floor.into();
    header.init_size = word(image.geometry.size).into();
    header
}

/// The keep-list: fields that describe the machine, not a single boot of it.
fn carry_over(running: &BootParams, params: &mut BootParams) {
    params.screen_info = running.screen_info;
    params.edid_info = running.edid_info;
    params.secure_boot = running.secure_boot;
    params.eddbuf_entries = running.eddbuf_entries;
    params.eddbuf = running.eddbuf;
    params.edd_mbr_sig_buf_entries = running.edd_mbr_sig_buf_entries;
    params.edd_mbr_sig_buffer = running.edd_mbr_sig_buffer;
    params.hdr.hardware_subarch = running.hdr.hardware_subarch;
    params.hdr.hardware_subarch_data = running.hdr.hardware_subarch_data;
}

/// Memory above 1 MiB in KiB, for a kernel that finds no e820: `alt_mem_k`
/// whole, `screen_info.ext_mem_k` (offset 2, 16 bits) up to 63 MiB.
fn set_fallback_sizes(params: &mut BootParams, map: &[(PhysRange, Told)]) {
    const MIB: u64 = 1 << 20;
    let above = map
        .iter()
        .find(|(range, kind)| *kind == Told::RAM && range.contains(MIB));
    let kib = above.map_or(0, |(range, _)| (range.end() - MIB) / 1024);
    params.alt_mem_k = u32::try_from(kib).unwrap_or(u32::MAX).into();
    let ext = u16::try_from(kib.min(0xfc00)).unwrap_or(0xfc00);
    if let Some(field) = params.screen_info.get_mut(2..4) {
        field.copy_from_slice(&ext.to_le_bytes());
    }
}

/// The boot_params segment: the zero page, and on the next page the command
/// line with its NUL.
#[must_use]
pub fn segment_bytes(params: &BootParams, cmdline: &[u8]) -> Vec<u8> {
    let mut bytes = params.as_bytes().to_vec();
    bytes.extend_from_slice(cmdline);
    bytes.push(0);
    bytes
}

/// Size of the boot_params segment in bytes, for a command line of `length` bytes.
#[must_use]
pub fn segment_size(length: u64) -> u64 {
    CMDLINE_OFFSET + (length + 1).max(COMMAND_LINE_SIZE)
}

/// Where the command line lies in the boot_params segment, bytes.
pub const CMDLINE_OFFSET: u64 = crate::abi::x86::boot_params::BOOT_PARAMS_SIZE as u64;

#[cfg(test)]
#[path = "zero_page_tests.rs"]
mod tests;
