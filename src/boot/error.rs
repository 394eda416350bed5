//! Why a boot protocol cannot start a kernel, and what to do about it.

use crate::base::PhysRange;
use crate::carry::HandoverError;
use crate::cmdline::CmdlineError;
use crate::layout::PlaceError;

use super::linux_x86::firmware::FirmwareError;

/// Why a boot protocol cannot start a kernel.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Something has no place.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The next kernel would not find its firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// A command line cannot be passed on.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// State cannot be handed over.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// The machine uses 5-level paging, and the kernel cannot be entered with it.
    #[error(
        "the running kernel uses 5-level paging (LA57), and the new one cannot be entered in it (XLF_5LEVEL)"
    )]
    FiveLevel,
    /// `--direct on`, and the kernel's own unpacker has to run.
    #[error("--direct on is not possible: {0}")]
    NotDirect(String),
    /// An option that does not work with multiboot kernels.
    #[error("{option} is not for a multiboot kernel: {reason}")]
    NotForMultiboot {
        /// The option.
        option: &'static str,
        /// Why.
        reason: &'static str,
        /// What to do about it, where something can be done.
        hint: Option<&'static str>,
    },
    /// A multiboot kernel requires something that cannot be given to it.
    #[error("this multiboot kernel requires to be told of {what}, and cannot be: {why}")]
    MultibootNeeds {
        /// What it requires.
        what: String,
        /// Why it cannot be given.
        why: String,
    },
    /// The kernel cannot lie where it is linked.
    #[error("the kernel must lie at {range}, as it is not relocatable, and cannot: {why}")]
    Occupied {
        /// Where it wants to lie, in whole pages.
        range: PhysRange,
        /// Why it cannot lie there.
        why: String,
    },
    /// More segments than the call takes.
    #[error("the kernel alone is {count} segments, and there is room for {most}")]
    TooManyPieces {
        /// Segments of the kernel.
        count: usize,
        /// Segments left beside what else is loaded.
        most: usize,
    },
}

impl BootError {
    /// Whether the options contradict the protocol.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::NotForMultiboot { .. })
    }

    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Firmware(error) => error.hint(),
            Self::FiveLevel => {
                "boot once with no5lvl, or take a kernel with CONFIG_X86_5LEVEL (a bzImage is sure to tell)"
            }
            Self::NotForMultiboot { hint, .. } => return hint.map(str::to_owned),
            Self::Occupied { .. } => {
                "rkexec memmap shows where segments may go, and why not elsewhere"
            }
            // The plan's own errors of these kinds have the hints.
            Self::Place(_) | Self::Cmdline(_) | Self::Handover(_) => return None,
            Self::NotDirect(_) => "--direct auto lets the kernel unpack itself where it has to",
            Self::MultibootNeeds { .. } | Self::TooManyPieces { .. } => return None,
        };
        Some(hint.to_owned())
    }
}
