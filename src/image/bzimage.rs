//! The bzImage format: a setup part whose header describes the protected-mode
//! part behind it.
//!
//! Source: Documentation/arch/x86/boot.rst; the checks are those of
//! `bzImage64_probe` in arch/x86/kernel/kexec-bzimage64.c and more.

use zerocopy::{FromZeros, IntoBytes};

use super::{ImageError, decompress};
use crate::arch::x86_64::boot_params::{SETUP_HEADER_MAGIC, SetupHeader};

/// Offset of the setup header in the file, and in boot_params.
pub const SETUP_HEADER_OFFSET: usize = 0x1f1;
/// Offset of the 64-bit entry point from where the kernel is loaded.
pub const ENTRY_64_OFFSET: u64 = 0x200;
/// First protocol with xloadflags, that is with a 64-bit entry: 2.12.
const MIN_PROTOCOL: u16 = 0x020c;
/// First protocol with kernel_info: 2.15.
const KERNEL_INFO_PROTOCOL: u16 = 0x020f;
/// Bytes of kernel_info up to and with setup_type_max.
const KERNEL_INFO_SIZE: usize = 16;
/// Bytes of a sector of the setup part.
const SECTOR: usize = 512;
/// loadflags: the protected-mode part is loaded high (LOADED_HIGH).
const LOADED_HIGH: u8 = 1 << 0;
/// Largest alignment taken for sane, bytes: the kernel's own is 2 MiB to 16 MiB.
const MAX_ALIGNMENT: u32 = 1 << 30;

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

/// A bzImage that was checked: its header can be relied on.
#[derive(Debug, Clone)]
pub struct BzImage<'a> {
    /// The setup header, fields beyond its own length zeroed.
    pub header: SetupHeader,
    /// `uname -r` and the build's words after it.
    pub version: Option<&'a str>,
    /// The protected-mode part: what is loaded.
    pub kernel: &'a [u8],
    /// The compressed kernel inside it; empty when the header names none.
    pub payload: &'a [u8],
}

impl<'a> BzImage<'a> {
    /// Reads the header and checks it against the file. `None`: not a bzImage.
    ///
    /// # Errors
    /// When it is one that is damaged or cannot be entered in 64-bit mode.
    pub fn parse(file: &'a [u8]) -> Result<Option<Self>, ImageError> {
        if file.get(0x202..0x206) != Some(&SETUP_HEADER_MAGIC.to_le_bytes()) {
            return Ok(None);
        }
        let malformed = |what: String| Err(ImageError::Malformed(what));
        let header = read_header(file)?;
        if header.boot_flag.get() != 0xaa55 {
            return malformed(format!(
                "boot_flag is {:#06x}, not 0xaa55",
                header.boot_flag
            ));
        }
        let protocol = header.version.get();
        if protocol < MIN_PROTOCOL {
            return Err(ImageError::Unsupported(format!(
                "boot protocol {}.{:02}: a 64-bit entry needs 2.12 (Linux 3.8) or later",
                protocol >> 8,
                protocol & 0xff
            )));
        }
        if header.loadflags & LOADED_HIGH == 0 {
            return Err(ImageError::Unsupported(
                "a zImage, loaded below 1 MiB: a bzImage is needed".to_owned(),
            ));
        }
        if header.xloadflags.get() & xloadflags::KERNEL_64 == 0 {
            return Err(ImageError::Unsupported(
                "a 32-bit kernel: it has no 64-bit entry point (XLF_KERNEL_64)".to_owned(),
            ));
        }
        let setup_sects = match header.setup_sects {
            0 => 4, // "if 0, the real value is 4"
            n => usize::from(n),
        };
        let setup_size = (setup_sects + 1) * SECTOR;
        let kernel = file.get(setup_size..).unwrap_or_default();
        let promised = u64::from(header.syssize.get()) * 16;
        let present = kernel.len() as u64;
        if present == 0 || present < promised {
            return malformed(format!(
                "truncated: setup_sects {setup_sects} and syssize say {} bytes, the file has {}",
                setup_size as u64 + promised,
                file.len()
            ));
        }
        check_geometry(&header, present)?;
        Ok(Some(Self {
            header,
            version: version(file, &header, setup_size),
            kernel,
            payload: payload(&header, kernel)?,
        }))
    }

    /// Boot protocol as (major, minor).
    #[must_use]
    pub fn protocol(&self) -> (u16, u16) {
        (
            self.header.version.get() >> 8,
            self.header.version.get() & 0xff,
        )
    }

    /// Whether all of `flags` are set in xloadflags.
    #[must_use]
    pub fn has(&self, flags: u16) -> bool {
        self.header.xloadflags.get() & flags == flags
    }

    /// Longest command line, bytes without the NUL.
    #[must_use]
    pub fn cmdline_limit(&self) -> usize {
        // A u32 always fits a usize here: x86_64 is what loads this format.
        usize::try_from(self.header.cmdline_size.get()).unwrap_or(usize::MAX)
    }

    /// The first word of the version: `uname -r`.
    #[must_use]
    pub fn release(&self) -> Option<&'a str> {
        self.version
            .and_then(|version| version.split_ascii_whitespace().next())
    }

    /// Compression of the payload, by its magic.
    #[must_use]
    pub fn compression(&self) -> &'static str {
        match decompress::compression(self.payload) {
            Some(compression) => compression.name(),
            None if self.payload.starts_with(b"\x7fELF") => "none",
            None => "unknown",
        }
    }

    /// The highest setup_data type that the kernel says it knows, from its
    /// kernel_info: SETUP_INDIRECT (bit 31) is set together with the highest
    /// direct type. `None` before protocol 2.15, and when there is no such
    /// structure where the header says.
    ///
    /// Source: Documentation/arch/x86/boot.rst, "The kernel_info"; the offset is
    /// from where the protected-mode part begins.
    #[must_use]
    pub fn setup_type_max(&self) -> Option<u32> {
        let at = usize::try_from(self.header.kernel_info_offset.get()).ok()?;
        if self.header.version.get() < KERNEL_INFO_PROTOCOL || at == 0 {
            return None;
        }
        let info: &[u8; KERNEL_INFO_SIZE] = self.kernel.get(at..)?.first_chunk()?;
        let (fields, _) = info.as_chunks::<4>();
        let [magic, size, _size_total, setup_type_max] = fields else {
            return None;
        };
        let covers = usize::try_from(u32::from_le_bytes(*size)).ok()? >= KERNEL_INFO_SIZE;
        (magic == b"LToP" && covers).then(|| u32::from_le_bytes(*setup_type_max))
    }
}

/// The header, no longer than the jump instruction over it says: the byte at
/// 0x201 is the jump's distance from 0x202, where the header ends.
fn read_header(file: &[u8]) -> Result<SetupHeader, ImageError> {
    let truncated = || ImageError::Malformed("truncated inside the setup header".to_owned());
    let jump = usize::from(*file.get(0x201).ok_or_else(truncated)?);
    let end = 0x202 + jump;
    let bytes = file.get(SETUP_HEADER_OFFSET..end).ok_or_else(truncated)?;
    let mut header = SetupHeader::new_zeroed();
    let known = bytes.len().min(size_of::<SetupHeader>());
    if let (Some(to), Some(from)) = (header.as_mut_bytes().get_mut(..known), bytes.get(..known)) {
        to.copy_from_slice(from);
    }
    Ok(header)
}

/// Numbers that the placement relies on.
fn check_geometry(header: &SetupHeader, kernel_size: u64) -> Result<(), ImageError> {
    let malformed = |what: String| Err(ImageError::Malformed(what));
    let alignment = header.kernel_alignment.get();
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return malformed(format!(
            "kernel_alignment {alignment:#x} is not a power of two up to {MAX_ALIGNMENT:#x}"
        ));
    }
    let init_size = u64::from(header.init_size.get());
    if init_size < kernel_size {
        return malformed(format!(
            "init_size {init_size:#x} is less than the kernel's {kernel_size:#x} bytes"
        ));
    }
    if header
        .pref_address
        .get()
        .checked_add(init_size)
        .is_none_or(|end| end > 1 << 52)
    {
        return malformed(format!(
            "pref_address {:#x} is beyond physical memory",
            header.pref_address
        ));
    }
    if header.cmdline_size.get() == 0 {
        return malformed("cmdline_size is 0".to_owned());
    }
    Ok(())
}

fn payload<'a>(header: &SetupHeader, kernel: &'a [u8]) -> Result<&'a [u8], ImageError> {
    let (offset, length) = (
        u64::from(header.payload_offset.get()),
        u64::from(header.payload_length.get()),
    );
    let bounds = (usize::try_from(offset), usize::try_from(offset + length));
    let (Ok(start), Ok(end)) = bounds else {
        return Ok(&[]);
    };
    kernel.get(start..end).ok_or_else(|| {
        ImageError::Malformed(format!(
            "the payload ({length:#x} bytes at {offset:#x}) lies outside the kernel's {:#x} bytes",
            kernel.len()
        ))
    })
}

/// The version string: `kernel_version` is its offset less 0x200, and it lies
/// in the setup part. A bad one is no reason to refuse the kernel.
fn version<'a>(file: &'a [u8], header: &SetupHeader, setup_size: usize) -> Option<&'a str> {
    let start = match header.kernel_version.get() {
        0 => return None,
        offset => usize::from(offset) + 0x200,
    };
    let rest = file.get(start..setup_size)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    let text = std::str::from_utf8(rest.get(..end)?).ok()?;
    (!text.is_empty() && !text.contains(char::is_control)).then_some(text)
}

#[cfg(test)]
#[path = "bzimage_tests.rs"]
mod tests;
