//! The kernel's side door: kexec_load, kexec_file_load, reboot, mapped files,
//! memory files and device events, and what an errno of theirs means.
//!
//! The only unsafe code of the loader outside the purgatory is in [`kexec`],
//! [`mapped`] and [`digest`]. Nothing here computes an address or decides what to load.

pub mod cause;
pub mod digest;
pub mod errno;
pub mod kexec;
pub mod mapped;
pub mod memfd;
pub mod uevent;

pub use cause::{Attempt, Cause, SysError, explain, explain_reboot, forbidden};
pub use errno::Errno;
pub use kexec::{Hotplug, KexecSegment, SEGMENT_MAX, Syscall, Target};
pub use mapped::{Changed, MappedFile, OpenError};

/// Writes what is cached to the disks, as sync(2) does: kexec flushes nothing
/// and unmounts nothing.
pub fn sync() {
    nix::unistd::sync();
}
