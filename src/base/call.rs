//! Which image, and by which system call: words that every room uses.

use std::fmt;

/// Which of the kernel's two images is meant.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The image that `exec` boots.
    #[default]
    Normal,
    /// The crash kernel, booted by a panic.
    Crash,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Normal => "normal",
            Self::Crash => "crash",
        })
    }
}

/// Which of the two system calls loads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Syscall {
    /// kexec_load(2): the segments are laid out here.
    KexecLoad,
    /// kexec_file_load(2): the kernel lays them out, and may check a signature.
    KexecFileLoad,
}

impl Syscall {
    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::KexecLoad => Self::KexecFileLoad,
            Self::KexecFileLoad => Self::KexecLoad,
        }
    }
}

impl fmt::Display for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KexecLoad => "kexec_load",
            Self::KexecFileLoad => "kexec_file_load",
        })
    }
}
