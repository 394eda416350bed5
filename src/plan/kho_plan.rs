//! What is handed over by Kexec Handover, as a plan says it.

use bstr::BString;

use crate::base::PhysRange;
use crate::carry::manifest::Sha256Sum;

/// The files beside the kernel, by their bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given<'g, 'a> {
    /// The initrds, in order.
    pub initrds: &'g [&'a [u8]],
    /// The files whose contents the next kernel finds in memory, in order.
    pub carried: &'g [Carried<'a>],
}

impl<'g, 'a> Given<'g, 'a> {
    /// Only initrds.
    #[must_use]
    pub const fn initrds(initrds: &'g [&'a [u8]]) -> Self {
        let carried = &[];
        Self { initrds, carried }
    }
}

/// A file whose contents the next kernel finds in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried<'a> {
    /// The name by which it is written back.
    pub name: BString,
    /// Its contents.
    pub bytes: &'a [u8],
}

/// How state gets to the next kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The loader makes all of it: the running kernel has no Kexec Handover, or what that
    /// preserves is dropped.
    Built,
    /// The running kernel makes it of a session that `exec` opens just before the jump.
    AtExec,
    /// The running kernel hands over itself, with kexec_file_load.
    Kept,
    /// The running kernel's tree is passed on through kexec_load.
    Forwarded,
    /// What the running kernel preserves is lost.
    Dropped,
}

impl Way {
    /// The name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Built => "built",
            Self::AtExec => "at_exec",
            Self::Kept => "kept",
            Self::Forwarded => "forwarded",
            Self::Dropped => "dropped",
        }
    }
}

/// What is handed over by Kexec Handover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KhoPlan {
    /// How.
    pub way: Way,
    /// The format of the tree, as `kho-v4`.
    pub format: String,
    /// The memory in which the next kernel starts. Nothing preserved lies in it.
    pub scratch: Vec<PhysRange>,
    /// How the size of the scratch memory comes about: each part, bytes. Empty where it is
    /// the running kernel's.
    pub scratch_sum: Vec<(&'static str, u64)>,
    /// The memory that the next kernel preserves from the start, but for the pools.
    pub preserved: Vec<PhysRange>,
    /// The files, in the order of their tokens.
    pub carried: Vec<CarriedFile>,
    /// The names of the pools, as in `reserve_mem=`.
    pub pools: Vec<String>,
}

/// A file that is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedFile {
    /// The name by which it is written back.
    pub name: BString,
    /// Its size, bytes.
    pub size: u64,
    /// By which it is asked for in the session.
    pub token: u64,
    /// The digest of its contents; `None` when they are read at `exec`.
    pub sha256: Option<Sha256Sum>,
}
