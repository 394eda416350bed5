//! A watchdog that counts: ioctl(2) on /dev/watchdogN
//! (Documentation/watchdog/watchdog-api.rst of Linux).
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::ptr;

use super::Errno;

/// Their ioctl type, `WATCHDOG_IOCTL_BASE` of include/uapi/linux/watchdog.h.
const BASE: u32 = b'W' as u32;
/// `WDIOC_SETOPTIONS`.
const SETOPTIONS: libc::Ioctl = libc::_IOR::<c_int>(BASE, 4);
/// `WDIOC_SETTIMEOUT`; it answers what was set.
const SETTIMEOUT: libc::Ioctl = libc::_IOWR::<c_int>(BASE, 6);
/// `WDIOC_GETTIMEOUT`.
const GETTIMEOUT: libc::Ioctl = libc::_IOR::<c_int>(BASE, 7);
/// `WDIOC_GETTIMELEFT`.
const GETTIMELEFT: libc::Ioctl = libc::_IOR::<c_int>(BASE, 10);
/// `WDIOS_DISABLECARD`.
const DISABLE: c_int = 1;

/// A watchdog that this process has open, and that counts. Dropped, it counts on.
#[derive(Debug)]
pub struct Armed(File);

impl Armed {
    /// Opens the watchdog at `path`, which starts it with the time that is set.
    ///
    /// # Errors
    /// When it cannot be opened; EBUSY: another program has it open.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().write(true).open(path)?))
    }

    /// Has it count `seconds` from now on, and says what it counts. Drivers round, and some
    /// take one time only.
    ///
    /// # Errors
    /// The errno when it does not even tell its time.
    pub fn set(&self, seconds: u64) -> Result<u64, Errno> {
        // Every device refuses such a time.
        let mut time = c_int::try_from(seconds).unwrap_or(c_int::MAX);
        if self.ioctl(SETTIMEOUT, &mut time).is_err() {
            self.ioctl(GETTIMEOUT, &mut time)?;
        }
        Ok(u64::try_from(time).unwrap_or_default())
    }

    /// Seconds until the reset; `None` where the driver does not tell.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        let mut time = 0;
        self.ioctl(GETTIMELEFT, &mut time).ok()?;
        u64::try_from(time).ok()
    }

    /// Stops it.
    ///
    /// # Errors
    /// The errno when it counts on: EBUSY, for one, with `nowayout`.
    pub fn disarm(mut self) -> Result<(), Errno> {
        let mut disable = DISABLE;
        let stopped = self.ioctl(SETOPTIONS, &mut disable);
        // Lets the close stop it, where that ioctl is not known.
        let magic = self.0.write_all(b"V");
        match stopped {
            Err(errno) if errno.number() == libc::ENOTTY && magic.is_ok() => Ok(()),
            stopped => stopped,
        }
    }

    fn ioctl(&self, request: libc::Ioctl, value: &mut c_int) -> Result<(), Errno> {
        // SAFETY: each request of this file reads or writes one int, and `value` is one
        // that lives longer than the call.
        let done = unsafe { libc::ioctl(self.0.as_raw_fd(), request, ptr::from_mut(value)) };
        match done {
            -1 => Err(Errno::last()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_kernel() {
        let numbers = [SETOPTIONS, SETTIMEOUT, GETTIMEOUT, GETTIMELEFT];
        assert_eq!(
            numbers.map(u64::from),
            [0x8004_5704, 0xc004_5706, 0x8004_5707, 0x8004_570a]
        );
    }

    #[test]
    fn a_file_is_no_watchdog() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let armed = Armed::open(file.path()).unwrap();
        assert_eq!(armed.set(30).unwrap_err().number(), libc::ENOTTY);
        assert_eq!(armed.left(), None);
    }
}
