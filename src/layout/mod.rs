//! Where things lie in memory before the jump: the segments, the places for them,
//! several initrds as one stream, and the digests of what is loaded.

mod digests;
mod initrd;
mod places;
mod preserved;

pub use digests::{Blobs, digests};
pub use initrd::{INITRD_PAD, parts, stream_size};
pub use places::{Limits, PlaceError, Places, Rest};
pub use preserved::preserved;

use crate::base::{Buf, PhysRange};

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The kernel.
    Kernel,
    /// The initrds, one behind the other; several parts when pages are shared.
    Initrd,
    /// What the kernel is told at its entry, with the command line: the first table that
    /// it reads.
    BootParams,
    /// What that table points to.
    SetupData,
    /// The code that verifies the digest and enters the kernel.
    Purgatory,
    /// The ELF header of the dump.
    Elfcorehdr,
    /// A multiboot kernel's module.
    Module,
    /// What the next kernel preserves from the start, by Kexec Handover.
    Preserved,
}

impl Role {
    /// The role's name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::BootParams => "boot_params",
            Self::SetupData => "setup_data",
            Self::Purgatory => "purgatory",
            Self::Elfcorehdr => "elfcorehdr",
            Self::Module => "module",
            Self::Preserved => "preserved",
        }
    }
}

/// One entry given to kexec_load.
#[derive(Debug, Clone)]
pub struct Segment<'a> {
    /// What it is for.
    pub role: Role,
    /// Its bytes; the rest of `mem` is zeroed.
    pub buf: Buf<'a>,
    /// Where it goes, in whole pages.
    pub mem: PhysRange,
    /// The rule that put it there.
    pub rule: String,
}

/// A range that is kept from segments, or from the next kernel, by a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    /// The addresses.
    pub range: PhysRange,
    /// What it is called where it was found.
    pub name: String,
    /// Why it is kept out.
    pub reason: &'static str,
}

/// The kernel and its files, each in its place.
#[derive(Debug, Clone)]
pub struct Layout<'a> {
    /// Their segments.
    pub segments: Vec<Segment<'a>>,
    /// The kernel.
    pub kernel: PhysRange,
    /// Where it runs; `None` where its own unpacker decides.
    pub placement: Option<Placement>,
    /// Physical address of its entry point.
    pub entry: u64,
    /// The files beside it, in the order in which they were given. Initrds are one file.
    pub files: Vec<PlacedFile>,
    /// Where the rest goes.
    pub rest: Rest,
}

/// Where a kernel runs, as the loader decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Physical address of its first byte.
    pub physical: u64,
    /// Virtual address of its first byte (`_text`).
    pub virtual_address: u64,
    /// Both were chosen at random (KASLR).
    pub randomized: bool,
}

/// A file in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedFile {
    /// Physical address of its first byte.
    pub start: u64,
    /// Its size in bytes.
    pub size: u64,
}
