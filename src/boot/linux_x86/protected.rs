//! Kernels that are entered in 32-bit mode: a Linux for 32-bit x86, or an x86_64 one
//! that is older than the 64-bit entry.
//!
//! Source: Documentation/arch/x86/boot.rst, "32-bit Boot Protocol";
//! arch/x86/boot/compressed/{head_32.S,misc.c}.
//!
//! Everything lies below 4 GiB. The kernel itself maps its own memory one to one from
//! PAGE_OFFSET on, so that it must lie low: its unpacker stops when it would end above
//! 896 MiB ("Destination address too large"). What else is loaded is looked at early
//! and often, and lies there too if it fits: memory above is mapped page by page.

use crate::base::{PAGE_SIZE, PhysRange};
use crate::boot::x86::FOUR_GIB;
use crate::image::LinuxKernel;
use crate::purgatory::Mode;

/// First address above what a 32-bit kernel maps for good: 896 MiB, with the split of
/// its address space that leaves it the least.
pub(super) const LOW_MEMORY: u64 = 0x3800_0000;
/// End of the memory used, one page below 4 GiB: the end address of a segment that ends
/// at 4 GiB would not fit 32 bits.
pub(super) const REACH: u64 = FOUR_GIB - PAGE_SIZE;
/// First address that a kernel with PAE does not reach: 64 GiB. Without PAE it is 4 GiB.
const PAE_LIMIT: u64 = 1 << 36;

/// First address that the kernel may not take.
pub(super) fn kernel_top(image: &LinuxKernel<'_>) -> u64 {
    LOW_MEMORY.min(image.initrd_end)
}

/// The mode that purgatory leaves the CPU in for `image`.
pub(in crate::boot) fn mode(image: &LinuxKernel<'_>) -> Mode {
    if image.is_32_bit() {
        Mode::Protected
    } else {
        Mode::Long
    }
}

/// A warning about memory in `dumped` that a 32-bit crash kernel cannot save.
pub(in crate::boot) fn crash_warning(
    image: &LinuxKernel<'_>,
    dumped: &[PhysRange],
) -> Option<String> {
    let end = dumped.iter().map(|range| range.end()).max()?;
    let limit = match end {
        _ if !image.is_32_bit() => return None,
        end if end > PAE_LIMIT => "64 GiB, and one without PAE only that below 4 GiB",
        end if end > FOUR_GIB => "4 GiB, unless it has PAE",
        _ => return None,
    };
    Some(format!(
        "the crash kernel is a 32-bit one, and can save memory below {limit}: this machine has RAM up to {end:#x}"
    ))
}
