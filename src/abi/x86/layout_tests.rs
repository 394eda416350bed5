//! The layouts and numbers written here by hand, against those that
//! linux-raw-sys generates from the kernel's headers.

use std::mem::offset_of;

use linux_raw_sys::bootparam as uapi;

use super::boot_params::{
    BOOT_PARAMS_SIZE, BootParams, E820_MAX_ENTRIES_ZEROPAGE, E820Entry, EfiInfo, SetupHeader,
};
use super::setup_data;
use crate::image::bzimage::SETUP_HEADER_OFFSET;
use crate::image::linux::xloadflags;
use crate::testing::bzimage::field;

/// Compares the size of two structures, and the offset and size of fields.
macro_rules! same_layout {
    ($ours:ty, $theirs:ty, { $($field:ident = $their_field:ident),* $(,)? }) => {
        assert_eq!(size_of::<$ours>(), size_of::<$theirs>(), stringify!($ours));
        $(
            assert_eq!(
                offset_of!($ours, $field),
                offset_of!($theirs, $their_field),
                stringify!($ours: $field)
            );
            assert_eq!(
                size_of_field(|all: &$ours| &raw const all.$field),
                size_of_field(|all: &$theirs| &raw const all.$their_field),
                stringify!($ours: $field)
            );
        )*
    };
}

/// Size of what `field` points to; nothing is read.
fn size_of_field<S, F>(_field: impl Fn(&S) -> *const F) -> usize {
    size_of::<F>()
}

#[test]
fn boot_params() {
    assert_eq!(size_of::<uapi::boot_params>(), BOOT_PARAMS_SIZE);
    same_layout!(BootParams, uapi::boot_params, {
        screen_info = screen_info,
        acpi_rsdp_addr = acpi_rsdp_addr,
        ext_ramdisk_image = ext_ramdisk_image,
        ext_ramdisk_size = ext_ramdisk_size,
        ext_cmd_line_ptr = ext_cmd_line_ptr,
        edid_info = edid_info,
        efi_info = efi_info,
        alt_mem_k = alt_mem_k,
        scratch = scratch,
        e820_entries = e820_entries,
        eddbuf_entries = eddbuf_entries,
        edd_mbr_sig_buf_entries = edd_mbr_sig_buf_entries,
        kbd_status = kbd_status,
        secure_boot = secure_boot,
        sentinel = sentinel,
        hdr = hdr,
        edd_mbr_sig_buffer = edd_mbr_sig_buffer,
        e820_table = e820_table,
        eddbuf = eddbuf,
    });
    assert_eq!(
        E820_MAX_ENTRIES_ZEROPAGE,
        uapi::E820_MAX_ENTRIES_ZEROPAGE as usize
    );
}

#[test]
fn setup_header() {
    assert_eq!(offset_of!(uapi::boot_params, hdr), SETUP_HEADER_OFFSET);
    same_layout!(SetupHeader, uapi::setup_header, {
        setup_sects = setup_sects,
        root_flags = root_flags,
        syssize = syssize,
        ram_size = ram_size,
        vid_mode = vid_mode,
        root_dev = root_dev,
        boot_flag = boot_flag,
        jump = jump,
        header = header,
        version = version,
        realmode_swtch = realmode_swtch,
        start_sys_seg = start_sys_seg,
        kernel_version = kernel_version,
        type_of_loader = type_of_loader,
        loadflags = loadflags,
        setup_move_size = setup_move_size,
        code32_start = code32_start,
        ramdisk_image = ramdisk_image,
        ramdisk_size = ramdisk_size,
        bootsect_kludge = bootsect_kludge,
        heap_end_ptr = heap_end_ptr,
        ext_loader_ver = ext_loader_ver,
        ext_loader_type = ext_loader_type,
        cmd_line_ptr = cmd_line_ptr,
        initrd_addr_max = initrd_addr_max,
        kernel_alignment = kernel_alignment,
        relocatable_kernel = relocatable_kernel,
        min_alignment = min_alignment,
        xloadflags = xloadflags,
        cmdline_size = cmdline_size,
        hardware_subarch = hardware_subarch,
        hardware_subarch_data = hardware_subarch_data,
        payload_offset = payload_offset,
        payload_length = payload_length,
        setup_data = setup_data,
        pref_address = pref_address,
        init_size = init_size,
        handover_offset = handover_offset,
        kernel_info_offset = kernel_info_offset,
    });
}

#[test]
fn efi_info_and_e820_entry() {
    same_layout!(EfiInfo, uapi::efi_info, {
        loader_signature = efi_loader_signature,
        systab = efi_systab,
        memdesc_size = efi_memdesc_size,
        memdesc_version = efi_memdesc_version,
        memmap = efi_memmap,
        memmap_size = efi_memmap_size,
        systab_hi = efi_systab_hi,
        memmap_hi = efi_memmap_hi,
    });
    same_layout!(E820Entry, uapi::boot_e820_entry, {
        address = addr, size = size, kind = type_,
    });
}

#[test]
fn numbers() {
    for (ours, theirs, name) in [
        (setup_data::SETUP_E820_EXT, uapi::SETUP_E820_EXT, "E820_EXT"),
        (setup_data::SETUP_EFI, uapi::SETUP_EFI, "EFI"),
        (setup_data::SETUP_RNG_SEED, uapi::SETUP_RNG_SEED, "RNG_SEED"),
        (
            setup_data::SETUP_KEXEC_KHO,
            uapi::SETUP_KEXEC_KHO,
            "KEXEC_KHO",
        ),
    ] {
        assert_eq!(ours, theirs);
        assert_eq!(setup_data::type_name(ours), name);
    }
    for (number, name) in [
        (uapi::SETUP_NONE, "NONE"),
        (uapi::SETUP_DTB, "DTB"),
        (uapi::SETUP_PCI, "PCI"),
        (uapi::SETUP_APPLE_PROPERTIES, "APPLE_PROPERTIES"),
        (uapi::SETUP_JAILHOUSE, "JAILHOUSE"),
        (uapi::SETUP_CC_BLOB, "CC_BLOB"),
        (uapi::SETUP_IMA, "IMA"),
        (uapi::SETUP_KEXEC_KHO, "KEXEC_KHO"),
        (uapi::SETUP_KEXEC_KHO + 1, "unknown"),
    ] {
        assert_eq!(setup_data::type_name(number), name);
    }
    for (ours, theirs) in [
        (xloadflags::KERNEL_64, uapi::XLF_KERNEL_64),
        (
            xloadflags::CAN_BE_LOADED_ABOVE_4G,
            uapi::XLF_CAN_BE_LOADED_ABOVE_4G,
        ),
        (xloadflags::EFI_HANDOVER_32, uapi::XLF_EFI_HANDOVER_32),
        (xloadflags::EFI_HANDOVER_64, uapi::XLF_EFI_HANDOVER_64),
        (xloadflags::EFI_KEXEC, uapi::XLF_EFI_KEXEC),
        (xloadflags::FIVE_LEVEL, uapi::XLF_5LEVEL),
        (xloadflags::FIVE_LEVEL_ENABLED, uapi::XLF_5LEVEL_ENABLED),
    ] {
        assert_eq!(u32::from(ours), theirs);
    }
}

/// The tests' own bzImage must not be wrong in the same way as the parser.
#[test]
fn the_offsets_of_the_test_builder() {
    macro_rules! at {
        ($($name:ident = $field:ident),* $(,)?) => {
            $(assert_eq!(
                field::$name,
                offset_of!(uapi::boot_params, hdr) + offset_of!(uapi::setup_header, $field),
                stringify!($name)
            );)*
        };
    }
    at!(
        SETUP_SECTS = setup_sects,
        SYSSIZE = syssize,
        BOOT_FLAG = boot_flag,
        MAGIC = header,
        VERSION = version,
        KERNEL_VERSION = kernel_version,
        LOADFLAGS = loadflags,
        RAMDISK_IMAGE = ramdisk_image,
        RAMDISK_SIZE = ramdisk_size,
        INITRD_ADDR_MAX = initrd_addr_max,
        KERNEL_ALIGNMENT = kernel_alignment,
        RELOCATABLE_KERNEL = relocatable_kernel,
        XLOADFLAGS = xloadflags,
        CMDLINE_SIZE = cmdline_size,
        PAYLOAD_OFFSET = payload_offset,
        PAYLOAD_LENGTH = payload_length,
        SETUP_DATA = setup_data,
        PREF_ADDRESS = pref_address,
        INIT_SIZE = init_size,
    );
    assert_eq!(
        field::END,
        SETUP_HEADER_OFFSET + size_of::<uapi::setup_header>()
    );
}
