//! The door to the running kernel: the three calls, and the facts. Tests have a kernel of
//! their own behind it (`fake_tests.rs`).

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use crate::base::{Syscall, Target};
use crate::host::loaded::Loaded;
use crate::host::{Host, HostError, Root};
use crate::sys::kexec::{self, WhenBusy};
use crate::sys::{Errno, FileFlags, Hotplug, KexecSegment};

/// The kernel that runs, as a load sees it.
pub trait RunningKernel {
    /// The facts that a load for `target` needs.
    ///
    /// # Errors
    /// As [`Host::read`].
    fn facts(&self, target: Target) -> Result<Host, HostError>;

    /// Whether a crash kernel is loaded now; `None` where the kernel does not tell.
    ///
    /// # Errors
    /// As [`Loaded::is_crash_loaded`].
    fn is_crash_loaded(&self) -> Result<Option<bool>, HostError>;

    /// kexec_load(2).
    ///
    /// # Errors
    /// As [`kexec::kexec_load`].
    fn kexec_load(
        &self,
        entry: u64,
        segments: &[KexecSegment<'_>],
        target: Target,
        hotplug: Option<Hotplug>,
        when_busy: WhenBusy,
    ) -> Result<(), Errno>;

    /// kexec_file_load(2).
    ///
    /// # Errors
    /// As [`kexec::kexec_file_load`].
    fn kexec_file_load(
        &self,
        kernel: BorrowedFd<'_>,
        initrd: Option<BorrowedFd<'_>>,
        cmdline: &CStr,
        target: Target,
        flags: FileFlags,
        when_busy: WhenBusy,
    ) -> Result<(), Errno>;

    /// Unloads by `syscall`.
    ///
    /// # Errors
    /// As [`kexec::unload`].
    fn unload(&self, syscall: Syscall, target: Target, when_busy: WhenBusy) -> Result<(), Errno>;
}

/// The kernel of this machine. Its facts come from below a [`Root`].
#[derive(Debug, Clone, Copy)]
pub struct ThisKernel<'a> {
    root: &'a Root,
}

impl<'a> ThisKernel<'a> {
    /// The kernel whose files are below `root`. A captured machine has facts only: the
    /// caller makes no call for it.
    #[must_use]
    pub const fn new(root: &'a Root) -> Self {
        Self { root }
    }
}

impl RunningKernel for ThisKernel<'_> {
    fn facts(&self, target: Target) -> Result<Host, HostError> {
        match target {
            Target::Normal => Host::read(self.root),
            Target::Crash => Host::read_for_crash(self.root),
        }
    }

    fn is_crash_loaded(&self) -> Result<Option<bool>, HostError> {
        Loaded::is_crash_loaded(self.root)
    }

    fn kexec_load(
        &self,
        entry: u64,
        segments: &[KexecSegment<'_>],
        target: Target,
        hotplug: Option<Hotplug>,
        when_busy: WhenBusy,
    ) -> Result<(), Errno> {
        kexec::kexec_load(entry, segments, target, hotplug, when_busy)
    }

    fn kexec_file_load(
        &self,
        kernel: BorrowedFd<'_>,
        initrd: Option<BorrowedFd<'_>>,
        cmdline: &CStr,
        target: Target,
        flags: FileFlags,
        when_busy: WhenBusy,
    ) -> Result<(), Errno> {
        kexec::kexec_file_load(kernel, initrd, cmdline, target, flags, when_busy)
    }

    fn unload(&self, syscall: Syscall, target: Target, when_busy: WhenBusy) -> Result<(), Errno> {
        kexec::unload(syscall, target, when_busy)
    }
}
