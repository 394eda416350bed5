//! kexec_load(2), kexec_file_load(2) and reboot(LINUX_REBOOT_CMD_KEXEC).
//!
//! The wrappers pass on what they are given; what an errno means is told by
//! `refusal`.
#![allow(unsafe_code)]

use std::convert::Infallible;
use std::ffi::{CStr, c_int, c_long, c_ulong, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::Errno;
use crate::base::{Syscall, Target, retry};

/// Most segments of one image, KEXEC_SEGMENT_MAX of include/linux/kexec.h.
pub const SEGMENT_MAX: usize = 16;

/// KEXEC_UPDATE_ELFCOREHDR of include/uapi/linux/kexec.h, Linux 6.6.
const KEXEC_UPDATE_ELFCOREHDR: c_int = 0x4;
/// KEXEC_CRASH_HOTPLUG_SUPPORT of include/uapi/linux/kexec.h, Linux 6.10.
const KEXEC_CRASH_HOTPLUG_SUPPORT: c_int = 0x8;

/// KEXEC_FILE_NO_CMA of include/uapi/linux/kexec.h, Linux 6.17.
const KEXEC_FILE_NO_CMA: c_int = 0x10;
/// KEXEC_FILE_FORCE_DTB of include/uapi/linux/kexec.h, Linux 6.18.
const KEXEC_FILE_FORCE_DTB: c_int = 0x20;

/// How often a call is made that finds kexec busy, and how long is waited
/// between two calls: 2 seconds in all. A load of 200 MiB holds the kernel's
/// lock for about a tenth of that.
const BUSY_TRIES: u32 = 20;
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// One entry given to kexec_load.
#[derive(Debug, Clone, Copy)]
pub struct KexecSegment<'a> {
    /// The bytes; the kernel copies them before the call returns.
    pub buf: &'a [u8],
    /// Physical destination, a multiple of the page size.
    pub mem: u64,
    /// Size of the destination in bytes, a multiple of the page size; what
    /// `buf` does not fill is zeroed.
    pub memsz: u64,
}

/// The flag by which the kernel is allowed to rewrite the elfcorehdr segment
/// of a crash kernel when memory or CPUs come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hotplug {
    /// KEXEC_UPDATE_ELFCOREHDR: Linux 6.6 to 6.9.
    UpdateElfcorehdr,
    /// KEXEC_CRASH_HOTPLUG_SUPPORT: Linux 6.10 and later.
    CrashHotplugSupport,
}

impl fmt::Display for Hotplug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UpdateElfcorehdr => "KEXEC_UPDATE_ELFCOREHDR",
            Self::CrashHotplugSupport => "KEXEC_CRASH_HOTPLUG_SUPPORT",
        })
    }
}

/// Flags of kexec_file_load that a user may ask for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileFlags {
    /// KEXEC_FILE_NO_CMA: the kernel puts no segment into CMA memory.
    pub no_cma: bool,
    /// KEXEC_FILE_FORCE_DTB: the kernel hands over the device tree it was booted with.
    pub force_dtb: bool,
}

impl FileFlags {
    const fn bits(self) -> c_int {
        let no_cma = if self.no_cma { KEXEC_FILE_NO_CMA } else { 0 };
        let force_dtb = if self.force_dtb {
            KEXEC_FILE_FORCE_DTB
        } else {
            0
        };
        no_cma | force_dtb
    }

    /// The names of those that are set.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let flags = [
            (self.no_cma, "KEXEC_FILE_NO_CMA"),
            (self.force_dtb, "KEXEC_FILE_FORCE_DTB"),
        ];
        let set = flags.into_iter().filter(|(set, _)| *set);
        set.map(|(_, name)| name).collect()
    }
}

/// What a call does when the kernel says EBUSY: another load, an update after
/// hotplug or a crash in progress.
///
/// Each call uses up one of `kernel.kexec_load_limit_*` before the kernel looks
/// whether it is busy, so only unlimited loads are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBusy {
    /// Tries again for up to two seconds.
    Retry,
    /// Gives up at once.
    Fail,
}

impl WhenBusy {
    /// [`WhenBusy::Retry`] unless a limit is set for loads of `target`.
    ///
    /// If the limit's file cannot be read, the kernel has no limit: all users can read
    /// the file, and it is missing before Linux 6.3.
    #[must_use]
    pub fn within(security: &crate::host::security::Security, target: Target) -> Self {
        match security.load_limit(target) {
            Some(limit) if limit >= 0 => Self::Fail,
            _ => Self::Retry,
        }
    }
}

/// `struct kexec_segment` of include/uapi/linux/kexec.h.
#[repr(C)]
struct RawSegment {
    buf: *const c_void,
    bufsz: usize,
    mem: usize,
    memsz: usize,
}

/// Loads `segments`, entered at the physical address `entry`.
///
/// Replaces the image of `target` that was loaded. With [`Target::Crash`] the
/// old image is gone even when the call fails after the first checks.
///
/// # Errors
/// The errno of the call; `refusal::explain` names its cause. An address that is no
/// `unsigned long` of this machine gives EADDRNOTAVAIL without a call, as the
/// kernel would say, and no segments at all EINVAL: that call would unload.
pub fn kexec_load(
    entry: u64,
    segments: &[KexecSegment<'_>],
    target: Target,
    hotplug: Option<Hotplug>,
    when_busy: WhenBusy,
) -> Result<(), Errno> {
    if segments.is_empty() {
        return Err(Errno::new(libc::EINVAL));
    }
    let raw = segments
        .iter()
        .map(raw_segment)
        .collect::<Result<Vec<_>, _>>()?;
    let entry = word(entry)?;
    patiently(when_busy, std::thread::sleep, || {
        raw_kexec_load(entry, &raw, load_flags(target, hotplug))
    })
}

/// Has the kernel load the bzImage behind `kernel`, with `initrd` and `cmdline`.
///
/// Both are read from offset 0, whatever their file position. No process may
/// have them open for writing, else the kernel says ETXTBSY.
///
/// # Errors
/// The errno of the call; `refusal::explain` names its cause.
pub fn kexec_file_load(
    kernel: BorrowedFd<'_>,
    initrd: Option<BorrowedFd<'_>>,
    cmdline: &CStr,
    target: Target,
    asked: FileFlags,
    when_busy: WhenBusy,
) -> Result<(), Errno> {
    let mut flags = file_flags(target) | asked.bits();
    if initrd.is_none() {
        flags |= libc::KEXEC_FILE_NO_INITRAMFS;
    }
    patiently(when_busy, std::thread::sleep, || {
        raw_kexec_file_load(
            kernel.as_raw_fd(),
            initrd.map_or(-1, |fd| fd.as_raw_fd()),
            Some(cmdline),
            flags,
        )
    })
}

/// Unloads the image of `target`; nothing loaded is no error.
///
/// Lockdown forbids the unload by kexec_load, not the one by kexec_file_load.
///
/// # Errors
/// The errno of the call; `refusal::explain` names its cause.
pub fn unload(syscall: Syscall, target: Target, when_busy: WhenBusy) -> Result<(), Errno> {
    patiently(when_busy, std::thread::sleep, || match syscall {
        Syscall::KexecLoad => raw_kexec_load(0, &[], load_flags(target, None)),
        Syscall::KexecFileLoad => {
            raw_kexec_file_load(-1, -1, None, file_flags(target) | libc::KEXEC_FILE_UNLOAD)
        }
    })
}

/// Boots the loaded kernel now: no sync, nothing is unmounted, no process is
/// told.
///
/// # Errors
/// The errno of the call; `refusal::explain_reboot` names its cause.
pub fn reboot_kexec() -> Result<Infallible, Errno> {
    nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_KEXEC).map_err(Errno::from)
}

/// Flags of kexec_load. The architecture bits stay KEXEC_ARCH_DEFAULT, which
/// stands for the kernel's own one in a 64-bit caller.
fn load_flags(target: Target, hotplug: Option<Hotplug>) -> c_int {
    let target = match target {
        Target::Normal => 0,
        Target::Crash => libc::KEXEC_ON_CRASH,
    };
    let hotplug = match hotplug {
        None => 0,
        Some(Hotplug::UpdateElfcorehdr) => KEXEC_UPDATE_ELFCOREHDR,
        Some(Hotplug::CrashHotplugSupport) => KEXEC_CRASH_HOTPLUG_SUPPORT,
    };
    target | hotplug
}

fn file_flags(target: Target) -> c_int {
    match target {
        Target::Normal => 0,
        Target::Crash => libc::KEXEC_FILE_ON_CRASH,
    }
}

fn raw_segment(segment: &KexecSegment<'_>) -> Result<RawSegment, Errno> {
    Ok(RawSegment {
        buf: segment.buf.as_ptr().cast(),
        bufsz: segment.buf.len(),
        mem: word(segment.mem)?,
        memsz: word(segment.memsz)?,
    })
}

fn word(value: u64) -> Result<usize, Errno> {
    usize::try_from(value).map_err(|_| Errno::new(libc::EADDRNOTAVAIL))
}

/// Makes `call` again while the kernel is busy, at most [`BUSY_TRIES`] times.
fn patiently(
    when_busy: WhenBusy,
    sleep: impl FnMut(Duration),
    call: impl FnMut() -> Result<(), Errno>,
) -> Result<(), Errno> {
    let tries = match when_busy {
        WhenBusy::Retry => BUSY_TRIES,
        WhenBusy::Fail => 1,
    };
    let is_busy = |errno: &Errno| errno.number() == libc::EBUSY;
    retry::patiently(tries, BUSY_WAIT, sleep, is_busy, call)
}

fn raw_kexec_load(entry: usize, segments: &[RawSegment], flags: c_int) -> Result<(), Errno> {
    // SAFETY: the kernel reads `segments.len()` entries and, from each, `bufsz`
    // bytes at `buf`; the entries are made from slices that outlive the call,
    // and the kernel writes to none of them. What it does to physical memory it
    // does at reboot or in memory set aside for a crash kernel, never in this
    // process.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_load,
            entry,
            segments.len(),
            segments.as_ptr(),
            wide(flags),
        )
    };
    done(result)
}

fn raw_kexec_file_load(
    kernel: c_int,
    initrd: c_int,
    cmdline: Option<&CStr>,
    flags: c_int,
) -> Result<(), Errno> {
    let length = cmdline.map_or(0, |line| line.to_bytes_with_nul().len());
    let line = cmdline.map_or(std::ptr::null(), CStr::as_ptr);
    // SAFETY: the kernel reads `length` bytes at `line`, which is a C string of
    // that many bytes or null with a length of 0, and the files behind the two
    // descriptors, which the callers keep open.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel,
            initrd,
            length,
            line,
            wide(flags),
        )
    };
    done(result)
}

/// Flags as the system calls take them. All flags used here are positive.
fn wide(flags: c_int) -> c_ulong {
    c_ulong::from(flags.unsigned_abs())
}

fn done(result: c_long) -> Result<(), Errno> {
    if result == 0 {
        Ok(())
    } else {
        Err(Errno::last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::security::Security;

    const EBUSY: Errno = Errno::new(libc::EBUSY);

    /// Runs `patiently` over the given results; returns the result, the calls
    /// made and the time slept.
    fn run(
        when_busy: WhenBusy,
        busy_for: u32,
        then: Result<(), Errno>,
    ) -> (Result<(), Errno>, u32, Duration) {
        let mut calls = 0;
        let mut slept = Duration::ZERO;
        let result = patiently(
            when_busy,
            |time| slept += time,
            || {
                calls += 1;
                if calls <= busy_for { Err(EBUSY) } else { then }
            },
        );
        (result, calls, slept)
    }

    #[test]
    fn busy_is_tried_again_for_two_seconds() {
        assert_eq!(
            run(WhenBusy::Retry, 3, Ok(())),
            (Ok(()), 4, Duration::from_millis(300))
        );
        let (result, calls, slept) = run(WhenBusy::Retry, u32::MAX, Ok(()));
        assert_eq!((result, calls), (Err(EBUSY), 20));
        assert!(slept < Duration::from_secs(2), "{slept:?}");
    }

    #[test]
    fn busy_is_final_when_a_call_costs_a_load_limit() {
        assert_eq!(
            run(WhenBusy::Fail, u32::MAX, Ok(())),
            (Err(EBUSY), 1, Duration::ZERO)
        );
    }

    #[test]
    fn other_errors_are_never_tried_again() {
        let eperm = Err(Errno::new(libc::EPERM));
        assert_eq!(run(WhenBusy::Retry, 0, eperm), (eperm, 1, Duration::ZERO));
        assert_eq!(run(WhenBusy::Retry, 1, eperm).1, 2);
    }

    #[test]
    fn the_limit_of_the_target_decides_about_retries() {
        let security = Security {
            limit_reboot: Some(3),
            limit_panic: Some(-1),
            ..Security::default()
        };
        assert_eq!(WhenBusy::within(&security, Target::Normal), WhenBusy::Fail);
        assert_eq!(WhenBusy::within(&security, Target::Crash), WhenBusy::Retry);
        assert_eq!(
            WhenBusy::within(&Security::default(), Target::Normal),
            WhenBusy::Retry
        );
    }

    #[test]
    fn flags_are_those_of_the_uapi_header() {
        assert_eq!(load_flags(Target::Normal, None), 0);
        assert_eq!(load_flags(Target::Crash, None), 1);
        assert_eq!(
            load_flags(Target::Crash, Some(Hotplug::UpdateElfcorehdr)),
            5
        );
        assert_eq!(
            load_flags(Target::Crash, Some(Hotplug::CrashHotplugSupport)),
            9
        );
        assert_eq!(file_flags(Target::Crash), 2);
        let (no_cma, force_dtb) = (true, true);
        assert_eq!(FileFlags::default().bits(), 0);
        let flags = FileFlags {
            no_cma,
            ..FileFlags::default()
        };
        assert_eq!(flags.bits(), 0x10);
        assert_eq!(FileFlags { no_cma, force_dtb }.bits(), 0x30);
        assert_eq!(libc::KEXEC_FILE_UNLOAD, 1);
        assert_eq!(libc::KEXEC_FILE_NO_INITRAMFS, 4);
    }

    #[test]
    fn raw_segments_have_the_layout_of_the_uapi_struct() {
        assert_eq!(size_of::<RawSegment>(), 32);
        assert_eq!(std::mem::offset_of!(RawSegment, bufsz), 8);
        assert_eq!(std::mem::offset_of!(RawSegment, mem), 16);
        assert_eq!(std::mem::offset_of!(RawSegment, memsz), 24);
        let buf = [1_u8, 2, 3];
        let raw = raw_segment(&KexecSegment {
            buf: &buf,
            mem: 0x10_0000,
            memsz: 0x1000,
        })
        .unwrap();
        assert_eq!(raw.buf, buf.as_ptr().cast());
        assert_eq!((raw.bufsz, raw.mem, raw.memsz), (3, 0x10_0000, 0x1000));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for (syscall, name) in [
            (Syscall::KexecLoad, "kexec_load"),
            (Syscall::KexecFileLoad, "kexec_file_load"),
        ] {
            assert_eq!(syscall.to_string(), name);
            assert_eq!(
                serde_json::to_string(&syscall).unwrap(),
                format!("\"{name}\"")
            );
        }
        assert_eq!(Target::Crash.to_string(), "crash");
        assert_eq!(
            serde_json::to_string(&Target::Normal).unwrap(),
            "\"normal\""
        );
    }
}
