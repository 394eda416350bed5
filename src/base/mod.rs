//! What every room stands on: ranges of physical memory, bytes that go there, sizes,
//! dates, the two images and the two system calls, and asking a busy kernel again.

mod buf;
pub mod bytes;
mod call;
pub(crate) mod date;
pub mod printable;
mod range;
pub(crate) mod retry;
mod size;
mod told;
mod version;

pub use buf::Buf;
pub use call::{Syscall, Target};
pub use range::{PhysRange, RangeError};
pub(crate) use size::parse_digits;
pub use size::{SizeError, human, parse_size};
pub use told::Told;
pub use version::version;

/// Size of a page, bytes: every segment starts and ends on one (kexec_core.c,
/// `sanity_check_segment_list`).
pub const PAGE_SIZE: u64 = 4096;
/// [`PAGE_SIZE`] as the length of a buffer, or a step.
#[expect(clippy::cast_possible_truncation, reason = "4096")]
pub const PAGE_BYTES: usize = PAGE_SIZE as usize;
