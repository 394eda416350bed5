//! Half-open physical address ranges and sorted sets of them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A non-empty, half-open range of physical addresses, in bytes: `start..end`.
///
/// `start < end <= u64::MAX` always holds, so no sum of a range's start and
/// size ever overflows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct PhysRange {
    start: u64,
    end: u64,
}

/// Why two numbers are not a [`PhysRange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// The range holds no byte.
    #[error("the range at {0:#x} is empty")]
    Empty(u64),
    /// The end lies before the start.
    #[error("the range ends at {end:#x}, before its start {start:#x}")]
    Reversed {
        /// First byte.
        start: u64,
        /// The end given.
        end: u64,
    },
    /// The end is not a 64-bit number.
    #[error("the range at {start:#x} ends beyond 2^64 - 1")]
    Overflow {
        /// First byte.
        start: u64,
    },
}

impl PhysRange {
    /// The range of `size` bytes at `start`.
    ///
    /// # Errors
    /// When `size` is 0 or the end is beyond `u64::MAX`.
    pub fn new(start: u64, size: u64) -> Result<Self, RangeError> {
        let end = start
            .checked_add(size)
            .ok_or(RangeError::Overflow { start })?;
        Self::from_bounds(start, end)
    }

    /// The range `start..end`.
    ///
    /// # Errors
    /// When it is empty or reversed.
    pub fn from_bounds(start: u64, end: u64) -> Result<Self, RangeError> {
        match start.cmp(&end) {
            std::cmp::Ordering::Less => Ok(Self { start, end }),
            std::cmp::Ordering::Equal => Err(RangeError::Empty(start)),
            std::cmp::Ordering::Greater => Err(RangeError::Reversed { start, end }),
        }
    }

    /// The range from `start` to `last`, both included, as /proc/iomem and
    /// /sys/firmware/memmap write it.
    ///
    /// # Errors
    /// When `last < start`, or `last` is `u64::MAX`.
    pub fn from_inclusive(start: u64, last: u64) -> Result<Self, RangeError> {
        let end = last.checked_add(1).ok_or(RangeError::Overflow { start })?;
        if last < start {
            return Err(RangeError::Reversed { start, end });
        }
        Self::from_bounds(start, end)
    }

    /// First byte.
    #[must_use]
    pub const fn start(self) -> u64 {
        self.start
    }

    /// First byte after the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Last byte, for the printers that want inclusive ends.
    #[must_use]
    pub const fn last(self) -> u64 {
        self.end - 1
    }

    /// Size in bytes, at least 1.
    #[must_use]
    pub const fn size(self) -> u64 {
        self.end - self.start
    }

    /// Whether `address` lies in the range.
    #[must_use]
    pub const fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// Whether `other` lies in the range as a whole.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    /// Whether the two share a byte.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// The bytes that both have.
    #[must_use]
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::from_bounds(self.start.max(other.start), self.end.min(other.end)).ok()
    }
}

/// From a start and an end, as records keep ranges.
impl TryFrom<(u64, u64)> for PhysRange {
    type Error = RangeError;

    fn try_from((start, end): (u64, u64)) -> Result<Self, RangeError> {
        Self::from_bounds(start, end)
    }
}

impl From<PhysRange> for (u64, u64) {
    fn from(range: PhysRange) -> Self {
        (range.start, range.end)
    }
}

impl fmt::Display for PhysRange {
    /// Inclusive, as /proc/iomem prints ranges; `{:#}` puts 0x before both addresses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            write!(f, "{:#x}-{:#x}", self.start, self.last())
        } else {
            write!(f, "{:08x}-{:08x}", self.start, self.last())
        }
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start, self.end)
    }
}
