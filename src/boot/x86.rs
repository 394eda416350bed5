//! What holds for every boot protocol of x86.

use crate::base::{PhysRange, Told};

/// Nothing goes below 1 MiB: BIOS data, the trampolines of the next kernel.
pub(super) const FLOOR: u64 = 1 << 20;
/// What lies below [`FLOOR`].
pub(super) const BELOW_FLOOR: &str = "what the BIOS left";
/// First address above what a 32-bit number holds.
pub(super) const FOUR_GIB: u64 = 1 << 32;
/// First byte that is not conventional memory.
pub(super) const CONVENTIONAL_END: u64 = 640 << 10;

/// A warning when `told` leaves a kernel no memory for its trampolines.
pub(super) fn low_memory_warning(told: &[(PhysRange, Told)]) -> Option<String> {
    let is_low =
        |(range, kind): &(PhysRange, Told)| kind.is_ram() && range.start() < CONVENTIONAL_END;
    (!told.is_empty() && !told.iter().any(is_low)).then(|| {
        "no RAM below 640 KiB: the next kernel cannot start other CPUs or switch paging levels"
            .to_owned()
    })
}
