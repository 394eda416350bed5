//! The kernel's side door: kexec_load, kexec_file_load, reboot, mapped files,
//! memory files, mounts of this process alone, live update, device events, watchdogs, and the
//! time stamp counter.
//!
//! The only unsafe code of the loader outside the purgatory is in [`bus_error`], [`kexec`], [`liveupdate`],
//! [`mapped`], [`page`], [`sync`], [`tsc`] and [`watchdog`]. Nothing here computes an address or decides what to load.

pub mod bus_error;
pub mod digest;
pub mod errno;
pub mod kexec;
pub mod liveupdate;
pub mod mapped;
pub mod memfd;
pub mod mount;
pub mod page;
pub mod sync;
pub mod tsc;
pub mod uevent;
pub mod watchdog;

pub use errno::Errno;
pub use kexec::{FileFlags, Hotplug, KexecSegment, SEGMENT_MAX};
pub use mapped::{Changed, MappedFile, OpenError};
pub use sync::sync_within;
