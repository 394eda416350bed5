//! An errno with its name, including the ones that user space has no name for.

use std::fmt;

/// `ENOTSUPP` of include/linux/errno.h: the kernel's own number, which leaks
/// out of kexec_file_load's signature check.
pub const ENOTSUPP: i32 = 524;

/// An error number as a system call returned it.
///
/// Not nix's type: that one knows no 524 and forgets the numbers it does not
/// know.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(i32);

impl Errno {
    /// The error `number`, as in errno(3).
    #[must_use]
    pub const fn new(number: i32) -> Self {
        Self(number)
    }

    /// What the last system call of this thread left in errno.
    #[must_use]
    pub fn last() -> Self {
        Self(nix::errno::Errno::last_raw())
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    /// Whether the call itself is not available: it does not exist (ENOSYS) or is forbidden
    /// (EPERM, EACCES). A refused call changed nothing.
    #[must_use]
    pub const fn is_refusal(self) -> bool {
        matches!(self.0, libc::ENOSYS | libc::EPERM | libc::EACCES)
    }

    /// What strerror(3) says, without a full stop.
    #[must_use]
    pub fn description(self) -> &'static str {
        if self.0 == ENOTSUPP {
            "Operation is not supported"
        } else {
            nix::errno::Errno::from_raw(self.0).desc()
        }
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Self {
        Self(errno as i32)
    }
}

impl fmt::Display for Errno {
    /// The name, such as `EPERM`; `errno 530` for a number without one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == ENOTSUPP {
            return f.write_str("ENOTSUPP");
        }
        match nix::errno::Errno::from_raw(self.0) {
            nix::errno::Errno::UnknownErrno => write!(f, "errno {}", self.0),
            known => write!(f, "{known:?}"),
        }
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_name() {
        assert_eq!(Errno::new(libc::EPERM).to_string(), "EPERM");
        assert_eq!(Errno::new(libc::EKEYREJECTED).to_string(), "EKEYREJECTED");
        assert_eq!(Errno::new(524).to_string(), "ENOTSUPP");
        assert_eq!(Errno::new(530).to_string(), "errno 530");
        assert_eq!(format!("{:?}", Errno::new(libc::EBUSY)), "EBUSY(16)");
    }

    #[test]
    fn nix_errnos_keep_their_number() {
        assert_eq!(Errno::from(nix::errno::Errno::EBUSY).number(), libc::EBUSY);
    }
}
