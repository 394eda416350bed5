//! Whether the reservation is large enough for the crash kernel to run in.

use serde::Serialize;

/// What a capture kernel needs besides itself and its initrd, bytes: the
/// descriptors of its memory, buffers of its drivers, and the program that saves
/// the dump (makedumpfile takes some 20 MiB by default, its bitmap included).
/// An unpacked initrd in 256 MiB leaves Debian's 6.1 and 6.12 about as much.
pub const MARGIN: u64 = 64 << 20;

/// The sum, term by term, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizing {
    /// What is reserved for it, low and high.
    pub reserved: u64,
    /// What the kernel takes to start: `init_size`.
    pub kernel: u64,
    /// The initrd as it is loaded: it is freed after it was unpacked.
    pub initrd: u64,
    /// The initrd unpacked.
    pub unpacked: u64,
    /// [`MARGIN`].
    pub margin: u64,
}

impl Sizing {
    /// What it takes in all.
    #[must_use]
    pub const fn needed(&self) -> u64 {
        // A record may hold any numbers.
        self.kernel
            .saturating_add(self.initrd)
            .saturating_add(self.unpacked)
            .saturating_add(self.margin)
    }

    /// Whether the reservation is as large as that.
    #[must_use]
    pub const fn is_enough(&self) -> bool {
        self.needed() <= self.reserved
    }
}
