//! The bzImage format: a setup part whose header describes the protected-mode
//! part behind it.
//!
//! Source: Documentation/arch/x86/boot.rst; the checks are those of
//! `bzImage64_probe` in arch/x86/kernel/kexec-bzimage64.c and more.

use zerocopy::{FromZeros, IntoBytes};

use super::ImageError;
use super::linux::{EntryMode, Format, Geometry, LinuxKernel, Load, X86, xloadflags};
use super::signature;
use crate::abi::x86::boot_params::{SETUP_HEADER_MAGIC, SetupHeader};
use crate::base::human;

/// Offset of the setup header in the file, and in boot_params.
pub const SETUP_HEADER_OFFSET: usize = 0x1f1;
/// Offset of the 64-bit entry point from where the kernel is loaded.
const ENTRY_64_OFFSET: u64 = 0x200;
/// First protocol with pref_address and init_size, which say what memory the kernel
/// takes: 2.10 (Linux 2.6.31).
const MIN_PROTOCOL: u16 = 0x020a;
/// First protocol with xloadflags, which tell of a 64-bit entry: 2.12 (Linux 3.8).
const XLOADFLAGS_PROTOCOL: u16 = 0x020c;
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

/// Reads the header and checks it against the file. `None`: not a bzImage.
///
/// # Errors
/// When it is one that is damaged or can be entered in 16-bit mode only.
pub fn parse(file: &[u8]) -> Result<Option<LinuxKernel<'_>>, ImageError> {
    if file.get(0x202..0x206) != Some(&SETUP_HEADER_MAGIC.to_le_bytes()) {
        return Ok(None);
    }
    let malformed = |what: String| Err(self::malformed(what));
    let mut header = read_header(file)?;
    if header.boot_flag.get() != 0xaa55 {
        return malformed(format!(
            "boot_flag is {:#06x}, not 0xaa55",
            header.boot_flag
        ));
    }
    let setup_size = setup_size(&header);
    if let Some(what) = real_mode_only(&header, version(file, &header, setup_size)) {
        return Err(ImageError::Unsupported(what));
    }
    if header.version.get() < XLOADFLAGS_PROTOCOL {
        header.xloadflags = 0.into();
    }
    let kernel = file.get(setup_size..).unwrap_or_default();
    let promised = u64::from(header.syssize.get()) * 16;
    let present = kernel.len() as u64;
    // syssize counts paragraphs: Linux fills the last one, memtest86+, which has no
    // payload either, does not.
    let unfilled = if header.payload_length.get() == 0 {
        15
    } else {
        0
    };
    if present == 0 || present + unfilled < promised {
        let whole = setup_size as u64 + promised;
        return malformed(format!(
            "the file is incomplete: the last {} of {} are missing; copy or download it again",
            human(whole.saturating_sub(file.len() as u64)),
            human(whole)
        ));
    }
    let (kernel, whole) = without_what_follows(file, kernel, promised);
    check_geometry(&header, kernel.len() as u64)?;
    let (entry_mode, entry) = match header.xloadflags.get() & xloadflags::KERNEL_64 {
        0 => (EntryMode::Protected, 0),
        _ => (EntryMode::Long, ENTRY_64_OFFSET),
    };
    let load = Load {
        offset: 0,
        bytes: kernel.into(),
    };
    Ok(Some(LinuxKernel {
        format: Format::BzImage,
        around: Vec::new(),
        file: whole,
        behind: file.len() - whole.len(),
        version: version(file, &header, setup_size),
        loads: vec![load],
        geometry: Geometry {
            size: header.init_size.get().into(),
            align: header.kernel_alignment.get().into(),
            floor: header.pref_address.get(),
            fixed: header.relocatable_kernel == 0,
        },
        // A u32 always fits a usize here: x86_64 is what loads these kernels.
        cmdline_limit: usize::try_from(header.cmdline_size.get()).unwrap_or(usize::MAX),
        // The header has the last address.
        initrd_end: u64::from(header.initrd_addr_max.get()) + 1,
        entry,
        payload: payload(&header, kernel)?,
        setup_type_max: setup_type_max(&header, kernel),
        x86: X86 {
            entry_mode,
            protocol: header.version.get(),
            flags: header.xloadflags.get(),
            header: Some(header),
        },
    }))
}

/// Bytes of the setup part.
fn setup_size(header: &SetupHeader) -> usize {
    let sectors = match header.setup_sects {
        0 => 4, // "if 0, the real value is 4"
        n => usize::from(n),
    };
    (sectors + 1) * SECTOR
}

/// Describes a file with a bzImage header that can start only in 16-bit real mode,
/// through the BIOS. Old tools have that header so that boot loaders accept them as
/// Linux. Their protocol, like that of Linux before 2.6.31, lacks the fields needed to
/// place a kernel.
fn real_mode_only(header: &SetupHeader, version: Option<&str>) -> Option<String> {
    let protocol = header.version.get();
    let number = format!("boot protocol {}.{:02}", protocol >> 8, protocol & 0xff);
    if header.loadflags & LOADED_HIGH == 0 {
        return Some(format!(
            "a zImage ({number}): it is loaded below 1 MiB and starts in 16-bit real mode, which a kexec \
             cannot enter: a bzImage is needed"
        ));
    }
    if protocol >= MIN_PROTOCOL {
        return None;
    }
    // As in "2.6.26-2-686 (Debian …) #1 SMP …"; that of iPXE is "1.0.0+git…".
    let is_linux =
        |version: &str| version.starts_with(|c: char| c.is_ascii_digit()) && version.contains(" #");
    Some(match version {
        Some(version) if is_linux(version) => format!(
            "Linux {version} ({number}): its header does not say how much memory the kernel takes; Linux \
             2.6.31 (protocol 2.10) and later say it"
        ),
        version => format!(
            "no Linux, but a program for boot loaders that looks like one, as memdisk and iPXE do (it says \
             \"{}\", {number}): it starts in 16-bit real mode and calls the BIOS, and a kexec enters kernels in \
             32-bit or 64-bit mode: start it from the boot loader",
            version.unwrap_or("")
        ),
    })
}

/// The kernel cut to its `promised` bytes, and the file cut behind kernel and signature.
/// A `promised` of 0 means unknown.
fn without_what_follows<'a>(
    file: &'a [u8],
    kernel: &'a [u8],
    promised: u64,
) -> (&'a [u8], &'a [u8]) {
    let promised = usize::try_from(promised).unwrap_or(usize::MAX);
    let shorter = kernel.get(..promised).filter(|_| promised != 0);
    let Some(shorter) = shorter else {
        return (kernel, file);
    };
    let end = file.len() - kernel.len() + shorter.len();
    let end = signature::end(file).map_or(end, |signed| end.max(signed));
    (shorter, file.get(..end).unwrap_or(file))
}

fn malformed(what: String) -> ImageError {
    ImageError::Malformed {
        format: Format::BzImage.name(),
        what,
    }
}

/// The header, no longer than the jump instruction over it says: the byte at
/// 0x201 is the jump's distance from 0x202, where the header ends.
fn read_header(file: &[u8]) -> Result<SetupHeader, ImageError> {
    let truncated =
        || malformed("the file is incomplete: it ends inside the setup header".to_owned());
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
    let malformed = |what: String| Err(self::malformed(what));
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
        malformed(format!(
            "the payload ({length:#x} bytes at {offset:#x}) lies outside the kernel's {:#x} bytes",
            kernel.len()
        ))
    })
}

/// The highest setup_data type that the kernel says it knows, from its
/// kernel_info. `None` before protocol 2.15, and when there is no such structure
/// where the header says.
///
/// Source: Documentation/arch/x86/boot.rst, "The kernel_info"; the offset is
/// from where the protected-mode part begins.
fn setup_type_max(header: &SetupHeader, kernel: &[u8]) -> Option<u32> {
    let at = usize::try_from(header.kernel_info_offset.get()).ok()?;
    if header.version.get() < KERNEL_INFO_PROTOCOL || at == 0 {
        return None;
    }
    let info: &[u8; KERNEL_INFO_SIZE] = kernel.get(at..)?.first_chunk()?;
    let (fields, _) = info.as_chunks::<4>();
    let [magic, size, _size_total, setup_type_max] = fields else {
        return None;
    };
    let covers = usize::try_from(u32::from_le_bytes(*size)).ok()? >= KERNEL_INFO_SIZE;
    (magic == b"LToP" && covers).then(|| u32::from_le_bytes(*setup_type_max))
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
