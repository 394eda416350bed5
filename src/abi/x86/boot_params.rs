//! `struct boot_params`, the "zero page" of the x86 boot protocol.
//!
//! Source of every offset: Documentation/arch/x86/zero-page.rst and boot.rst,
//! arch/x86/include/uapi/asm/bootparam.h. A test compares this layout with
//! the one that `linux-raw-sys` generates from those headers.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of boot_params in bytes.
pub const BOOT_PARAMS_SIZE: usize = 4096;
/// Entries of the e820 table inside boot_params (E820_MAX_ENTRIES_ZEROPAGE).
pub const E820_MAX_ENTRIES_ZEROPAGE: usize = 128;
/// `"HdrS"`, the magic at offset 0x202.
pub const SETUP_HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// `EL64`: efi_info describes a 64-bit firmware (EFI64_LOADER_SIGNATURE).
pub const EFI64_LOADER_SIGNATURE: u32 = u32::from_le_bytes(*b"EL64");
/// `EL32`: efi_info describes a 32-bit firmware (EFI32_LOADER_SIGNATURE).
pub const EFI32_LOADER_SIGNATURE: u32 = u32::from_le_bytes(*b"EL32");

/// One entry of the e820 table: packed, 20 bytes.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct E820Entry {
    /// First byte.
    pub address: U64,
    /// Size in bytes.
    pub size: U64,
    /// E820 type, see [`crate::base::Told`].
    pub kind: U32,
}

/// `struct efi_info` at offset 0x1c0.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EfiInfo {
    /// [`EFI64_LOADER_SIGNATURE`], [`EFI32_LOADER_SIGNATURE`], or 0 without EFI.
    pub loader_signature: U32,
    /// Low half of the EFI system table's address.
    pub systab: U32,
    /// Size of one memory descriptor, bytes.
    pub memdesc_size: U32,
    /// Version of the memory descriptors (1).
    pub memdesc_version: U32,
    /// Low half of the memory map's address.
    pub memmap: U32,
    /// Size of the memory map, bytes.
    pub memmap_size: U32,
    /// High half of the system table's address.
    pub systab_hi: U32,
    /// High half of the memory map's address.
    pub memmap_hi: U32,
}

/// `struct setup_header` at offset 0x1f1, as of protocol 2.15.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
#[expect(
    missing_docs,
    reason = "the fields are those of Documentation/arch/x86/boot.rst, by name"
)]
pub struct SetupHeader {
    pub setup_sects: u8,
    pub root_flags: U16,
    pub syssize: U32,
    pub ram_size: U16,
    pub vid_mode: U16,
    pub root_dev: U16,
    pub boot_flag: U16,
    pub jump: [u8; 2],
    pub header: U32,
    pub version: U16,
    pub realmode_swtch: U32,
    pub start_sys_seg: U16,
    pub kernel_version: U16,
    pub type_of_loader: u8,
    pub loadflags: u8,
    pub setup_move_size: U16,
    pub code32_start: U32,
    pub ramdisk_image: U32,
    pub ramdisk_size: U32,
    pub bootsect_kludge: U32,
    pub heap_end_ptr: U16,
    pub ext_loader_ver: u8,
    pub ext_loader_type: u8,
    pub cmd_line_ptr: U32,
    pub initrd_addr_max: U32,
    pub kernel_alignment: U32,
    pub relocatable_kernel: u8,
    pub min_alignment: u8,
    pub xloadflags: U16,
    pub cmdline_size: U32,
    pub hardware_subarch: U32,
    pub hardware_subarch_data: U64,
    pub payload_offset: U32,
    pub payload_length: U32,
    pub setup_data: U64,
    pub pref_address: U64,
    pub init_size: U32,
    pub handover_offset: U32,
    pub kernel_info_offset: U32,
}

/// `struct boot_params`. Fields this program neither reads nor writes are
/// kept as bytes, so that what was read can be looked at whole.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BootParams {
    /// `struct screen_info`: what the console looks like.
    pub screen_info: [u8; 0x40],
    /// apm_bios_info, pad, tboot_addr, ist_info.
    pub _040: [u8; 0x30],
    /// Physical address of the ACPI RSDP, 0 when unknown.
    pub acpi_rsdp_addr: U64,
    /// pad3, hd0_info, hd1_info, sys_desc_table, olpc_ofw_header.
    pub _078: [u8; 0x48],
    /// High half of the initrd's address.
    pub ext_ramdisk_image: U32,
    /// High half of the initrd's size.
    pub ext_ramdisk_size: U32,
    /// High half of the command line's address.
    pub ext_cmd_line_ptr: U32,
    /// pad4, cc_blob_address.
    pub _0cc: [u8; 0x74],
    /// `struct edid_info`.
    pub edid_info: [u8; 0x80],
    /// `struct efi_info`.
    pub efi_info: EfiInfo,
    /// Memory above 1 MiB in KiB: fallback without e820.
    pub alt_mem_k: U32,
    /// Scratch field of the kernel.
    pub scratch: U32,
    /// Entries used of `e820_table`.
    pub e820_entries: u8,
    /// Entries used of `eddbuf`.
    pub eddbuf_entries: u8,
    /// Entries used of `edd_mbr_sig_buffer`.
    pub edd_mbr_sig_buf_entries: u8,
    /// Keyboard status.
    pub kbd_status: u8,
    /// enum efi_secureboot_mode: 0 unset, 1 unknown, 2 disabled, 3 enabled.
    pub secure_boot: u8,
    /// Alignment.
    pub _1ed: [u8; 2],
    /// Must be 0, or the kernel wipes the extended fields (`sanitize_boot_params`).
    pub sentinel: u8,
    /// Alignment.
    pub _1f0: u8,
    /// The header, from the image that is booted.
    pub hdr: SetupHeader,
    /// Room for longer headers.
    pub _26c: [u8; 0x24],
    /// MBR signatures of BIOS disks.
    pub edd_mbr_sig_buffer: [u8; 0x40],
    /// The memory map.
    pub e820_table: [E820Entry; E820_MAX_ENTRIES_ZEROPAGE],
    /// Alignment.
    pub _cd0: [u8; 0x30],
    /// BIOS Enhanced Disk Drive data.
    pub eddbuf: [u8; 6 * 82],
    /// Alignment.
    pub _eec: [u8; 0x114],
}

macro_rules! assert_offsets {
    ($type:ty { $($field:ident @ $offset:literal),* $(,)? }) => {
        $(const _: () = assert!(core::mem::offset_of!($type, $field) == $offset);)*
    };
}

assert_offsets!(BootParams {
    acpi_rsdp_addr @ 0x70, ext_ramdisk_image @ 0xc0, edid_info @ 0x140, efi_info @ 0x1c0,
    alt_mem_k @ 0x1e0, e820_entries @ 0x1e8, secure_boot @ 0x1ec, sentinel @ 0x1ef, hdr @ 0x1f1,
    edd_mbr_sig_buffer @ 0x290, e820_table @ 0x2d0, eddbuf @ 0xd00,
});
const _: () = assert!(size_of::<BootParams>() == BOOT_PARAMS_SIZE);

impl BootParams {
    /// All zeroes.
    #[must_use]
    pub fn zeroed() -> Box<Self> {
        Box::new(Self::new_zeroed())
    }

    /// The 4096 bytes of /sys/kernel/boot_params/data; `None` for any other size.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Box<Self>> {
        Self::read_from_bytes(bytes).ok().map(Box::new)
    }

    /// The used part of the e820 table; a count above 128 is cut.
    #[must_use]
    pub fn e820(&self) -> &[E820Entry] {
        let used = usize::from(self.e820_entries).min(E820_MAX_ENTRIES_ZEROPAGE);
        self.e820_table.get(..used).unwrap_or(&[])
    }

    /// 32 or 64, by the firmware, if this is an EFI boot.
    #[must_use]
    pub fn efi_bits(&self) -> Option<u32> {
        match self.efi_info.loader_signature.get() {
            EFI64_LOADER_SIGNATURE => Some(64),
            EFI32_LOADER_SIGNATURE => Some(32),
            _ => None,
        }
    }

    /// Physical address of the EFI system table, if this is a 64-bit EFI boot.
    #[must_use]
    pub fn efi_system_table(&self) -> Option<u64> {
        let efi = &self.efi_info;
        let address = join(efi.systab.get(), efi.systab_hi.get());
        (efi.loader_signature.get() == EFI64_LOADER_SIGNATURE && address != 0).then_some(address)
    }
}

impl std::fmt::Debug for BootParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BootParams")
            .field("acpi_rsdp_addr", &self.acpi_rsdp_addr)
            .field("efi_info", &self.efi_info)
            .field("e820", &self.e820())
            .field("hdr", &self.hdr)
            .finish_non_exhaustive()
    }
}

/// A 64-bit number from its two 32-bit halves, as boot_params keeps addresses.
#[must_use]
pub const fn join(low: u32, high: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

/// The two 32-bit halves of a number, low half first.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    reason = "each half is masked by its shift"
)]
pub const fn split(value: u64) -> (u32, u32) {
    (value as u32, (value >> 32) as u32)
}
