//! The kernel's side door: kexec_load, kexec_file_load, reboot, mapped files,
//! memory files and device events.
//!
//! The only unsafe code of the loader outside the purgatory is in [`kexec`],
//! [`mapped`] and [`sync`]. Nothing here computes an address or decides what to load.

pub mod digest;
pub mod errno;
pub mod kexec;
pub mod mapped;
pub mod memfd;
pub mod sync;
pub mod uevent;

pub use errno::Errno;
pub use kexec::{FileFlags, Hotplug, KexecSegment, SEGMENT_MAX};
pub use mapped::{Changed, MappedFile, OpenError};
pub use sync::sync_within;
