//! What every room stands on: ranges of physical memory, sizes, dates, the two
//! images and the two system calls, and asking a busy kernel again.

pub mod bytes;
mod call;
pub(crate) mod date;
pub mod printable;
mod range;
pub(crate) mod retry;
mod size;
mod told;
mod version;

pub use call::{Syscall, Target};
pub use range::{PhysRange, RangeError};
pub(crate) use size::parse_digits;
pub use size::{SizeError, human, parse_size};
pub use told::Told;
pub use version::version;

/// Size of a page, bytes: every segment starts and ends on one (kexec_core.c,
/// `sanity_check_segment_list`).
pub const PAGE_SIZE: u64 = 4096;
