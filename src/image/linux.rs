//! A Linux kernel for x86 as it is placed and entered, whatever file it came in.

use std::borrow::Cow;

use super::decompress::{self, DEFAULT_CAP, DecompressError};
use crate::abi::x86::boot_params::SetupHeader;
use crate::base::Buf;

/// xloadflags bits (arch/x86/include/uapi/asm/bootparam.h).
pub mod xloadflags {
    /// There is a 64-bit entry point at 0x200.
    pub const KERNEL_64: u16 = 1 << 0;
    /// Kernel, boot_params, command line and initrd may lie above 4 GiB.
    pub const CAN_BE_LOADED_ABOVE_4G: u16 = 1 << 1;
    /// 32-bit EFI handover entry point.
    pub const EFI_HANDOVER_32: u16 = 1 << 2;
    /// 64-bit EFI handover entry point.
    pub const EFI_HANDOVER_64: u16 = 1 << 3;
    /// EFI runtime data may be handed over by kexec.
    pub const EFI_KEXEC: u16 = 1 << 4;
    /// The kernel can be entered with 5-level paging on.
    pub const FIVE_LEVEL: u16 = 1 << 5;
    /// The kernel keeps 5-level paging on.
    pub const FIVE_LEVEL_ENABLED: u16 = 1 << 6;

    /// Names of the bits, lowest first.
    pub const NAMES: [(u16, &str); 7] = [
        (KERNEL_64, "KERNEL_64"),
        (CAN_BE_LOADED_ABOVE_4G, "CAN_BE_LOADED_ABOVE_4G"),
        (EFI_HANDOVER_32, "EFI_HANDOVER_32"),
        (EFI_HANDOVER_64, "EFI_HANDOVER_64"),
        (EFI_KEXEC, "EFI_KEXEC"),
        (FIVE_LEVEL, "5LEVEL"),
        (FIVE_LEVEL_ENABLED, "5LEVEL_ENABLED"),
    ];
}

/// In which mode of the CPU a kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EntryMode {
    /// 64-bit mode.
    Long,
    /// 32-bit protected mode without paging: the kernel has no 64-bit entry.
    Protected,
}

impl EntryMode {
    /// The name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Long => "64-bit",
            Self::Protected => "32-bit",
        }
    }
}

/// The file format that a kernel came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A setup part and a kernel that unpacks itself.
    BzImage,
    /// The kernel itself, an ELF file.
    Vmlinux,
}

impl Format {
    /// The name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BzImage => "bzImage",
            Self::Vmlinux => "vmlinux",
        }
    }
}

/// Bytes of a kernel file that go into memory together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load<'a> {
    /// Where they go, bytes from where the kernel is placed.
    pub offset: u64,
    /// What goes there: bytes of the file, or what the loader made of them.
    pub bytes: Buf<'a>,
}

/// Which place a kernel needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Memory that it takes to start, bytes.
    pub size: u64,
    /// Its place is a multiple of this, bytes: a power of two.
    pub align: u64,
    /// The lowest address. Loaded lower, it would move itself up, into memory that may be
    /// in use.
    pub floor: u64,
    /// It runs at `floor` and nowhere else.
    pub fixed: bool,
}

/// What only the boot protocol of x86 asks about.
#[derive(Debug, Clone, Copy)]
pub struct X86 {
    /// The mode in which the kernel is entered.
    pub entry_mode: EntryMode,
    /// The boot protocol: the high byte is the major number.
    pub protocol: u16,
    /// Bits of [`xloadflags`].
    pub flags: u16,
    /// The file's own setup header, fields beyond its own length zeroed; a vmlinux has
    /// none.
    pub header: Option<SetupHeader>,
}

/// A kernel that was checked: its numbers can be relied on.
#[derive(Debug, Clone)]
pub struct LinuxKernel<'a> {
    /// The format of its file.
    pub format: Format,
    /// The containers that the file was in, the outermost first: `gzip`, `UKI`.
    pub around: Vec<&'static str>,
    /// The bytes for kexec_file_load: the file without its containers and without
    /// bytes behind it.
    pub file: &'a [u8],
    /// Bytes behind the kernel and its signature that belong to neither: a file
    /// read from a raw partition has them.
    pub behind: usize,
    /// `uname -r` and the build's words after it.
    pub version: Option<&'a str>,
    /// What is loaded, by offset: each on a page of its own, none overlapping,
    /// all within the geometry's size, the first at 0.
    pub loads: Vec<Load<'a>>,
    /// Which place it needs.
    pub geometry: Geometry,
    /// Longest command line, bytes without the NUL.
    pub cmdline_limit: usize,
    /// First address that an initrd may not reach, where the kernel stays below 4 GiB.
    pub initrd_end: u64,
    /// What only x86 asks about.
    pub x86: X86,
    /// The entry point, bytes from where the kernel is placed.
    pub entry: u64,
    /// The kernel itself, an ELF file, compressed or not; empty when the file
    /// does not tell where it is.
    pub payload: &'a [u8],
    /// The highest setup_data type that the kernel knows, as far as its file
    /// tells: SETUP_INDIRECT (bit 31) is set together with the highest direct one.
    pub setup_type_max: Option<u32>,
}

impl<'a> LinuxKernel<'a> {
    /// Boot protocol as (major, minor).
    #[must_use]
    pub fn protocol(&self) -> (u16, u16) {
        (self.x86.protocol >> 8, self.x86.protocol & 0xff)
    }

    /// Whether all of `flags` are set in xloadflags.
    #[must_use]
    pub fn has(&self, flags: u16) -> bool {
        self.x86.flags & flags == flags
    }

    /// Whether it is entered in 32-bit mode.
    #[must_use]
    pub fn is_32_bit(&self) -> bool {
        self.x86.entry_mode == EntryMode::Protected
    }

    /// Whether kernel, boot_params, command line and initrd may lie above 4 GiB.
    #[must_use]
    pub fn reaches_above_4g(&self) -> bool {
        !self.is_32_bit() && self.has(xloadflags::CAN_BE_LOADED_ABOVE_4G)
    }

    /// The first word of the version: `uname -r`.
    #[must_use]
    pub fn release(&self) -> Option<&'a str> {
        self.version
            .and_then(|version| version.split_ascii_whitespace().next())
    }

    /// The format with what was around it: `gzip of bzImage`.
    #[must_use]
    pub fn format_name(&self) -> String {
        let names = self.around.iter().copied().chain([self.format.name()]);
        names.collect::<Vec<_>>().join(" of ")
    }

    /// Bytes of the file that go into memory.
    #[must_use]
    pub fn loaded_size(&self) -> u64 {
        self.loads.iter().map(|load| load.bytes.len() as u64).sum()
    }

    /// Compression of the payload, by its magic.
    #[must_use]
    pub fn compression(&self) -> &'static str {
        match decompress::compression(self.payload) {
            Some(compression) => compression.name(),
            None if is_elf(self.payload) => "none",
            None => "unknown",
        }
    }

    /// The kernel itself, unpacked where it is not.
    ///
    /// # Errors
    /// As [`decompress::decompress_payload`].
    pub fn unpacked(&self) -> Result<Cow<'a, [u8]>, DecompressError> {
        if is_elf(self.payload) {
            return Ok(Cow::Borrowed(self.payload));
        }
        decompress::decompress_payload(self.payload, DEFAULT_CAP).map(Cow::Owned)
    }
}

fn is_elf(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x7fELF")
}
