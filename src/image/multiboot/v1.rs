//! The header of Multiboot 1: section 3.1.1 of its specification.

use super::{
    Addresses, Console, Multiboot, Version, elf, find_header, is_xen, span, u32_at, unsupported,
};
use crate::image::ImageError;

/// Modules begin on pages.
const PAGE_ALIGN: u32 = 1 << 0;
/// The kernel requests memory information, which it always gets.
const MEMORY_INFO: u32 = 1 << 1;
/// The kernel requests screen information.
const VIDEO_MODE: u32 = 1 << 2;
/// Bits that a loader must understand, or refuse the kernel.
const MUST_UNDERSTAND: u32 = 0xffff;
/// The address fields are valid.
const ADDRESS_FIELDS: u32 = 1 << 16;

/// Where the header is.
pub(super) fn find(file: &[u8]) -> Option<usize> {
    find_header(file, Version::One, 3) // magic, flags, checksum
}

/// Reads the header at `at`, where [`find`] found it.
pub(super) fn parse(file: &[u8], at: usize) -> Result<Multiboot<'_>, ImageError> {
    let version = Version::One;
    let malformed = |what| super::malformed(version, what);
    let field = |offset: usize| {
        let cut = || malformed("the file ends inside its header".to_owned());
        u32_at(file, at + offset).ok_or_else(cut)
    };
    let flags = field(4)?;
    let unknown = flags & MUST_UNDERSTAND & !(PAGE_ALIGN | MEMORY_INFO | VIDEO_MODE);
    if unknown != 0 {
        let what = format!(
            "it requires what the bits {unknown:#x} of its flags mean, and the specification gives them no meaning"
        );
        return Err(unsupported(version, &what));
    }
    let (loads, entry) = if flags & ADDRESS_FIELDS == 0 {
        elf::loads(file).map_err(malformed)?
    } else {
        let addresses = Addresses {
            header: field(12)?,
            load: field(16)?,
            load_end: field(20)?,
            bss_end: field(24)?,
        };
        let load = addresses.load(file, at, version).map_err(malformed)?;
        (vec![load], u64::from(field(28)?))
    };
    let span = span(&loads, entry).map_err(malformed)?;
    Ok(Multiboot {
        version,
        packed: None,
        header_offset: at,
        loads,
        span,
        entry,
        relocatable: None,
        page_aligned_modules: flags & PAGE_ALIGN != 0,
        console: Console {
            required: flags & VIDEO_MODE != 0,
            stated: false,
            text: false,
        },
        requests: Vec::new(),
        asks_bios: is_xen(file),
        name: bstr::BString::default(),
        modules: Vec::new(),
    })
}
