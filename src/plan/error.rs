//! Why there is no plan, and what to do about it.

use super::{FirmwareError, Violation};
use crate::base::PhysRange;
use crate::carry::HandoverError;
use crate::cmdline::CmdlineError;
use crate::crash::CrashError;
use crate::host::environment::Refusal;
use crate::memory::NoHole;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No kernel can be loaded on this machine, with any options.
    #[error("{}", .0.why)]
    Environment(Refusal),
    /// The next kernel would not find its firmware.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
    /// There is no command line.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// Nothing fits.
    #[error(transparent)]
    NoHole(#[from] NoHole),
    /// The crash kernel does not fit what is reserved for it.
    #[error("the crash kernel does not fit its reservation: {hole}")]
    NotInReservation {
        /// What found no place.
        hole: NoHole,
        /// What to do about it.
        way_out: String,
    },
    /// Nothing fits, as the command line takes memory away.
    #[error("{error}; it would fit without {words} on the new command line")]
    TakenAway {
        /// What does not fit.
        error: Box<Self>,
        /// The words that take memory away.
        words: String,
    },
    /// The bounds leave nothing.
    #[error("--mem-min {min:#x} is not below --mem-max {max:#x}")]
    EmptyBounds {
        /// Lower bound.
        min: u64,
        /// Upper bound, exclusive.
        max: u64,
    },
    /// Image and request leave no address for something.
    #[error("no place for {what}: it must lie at or above {min:#x} and below {max:#x}")]
    Unreachable {
        /// What the place was for.
        what: &'static str,
        /// Lowest address allowed.
        min: u64,
        /// First address not allowed.
        max: u64,
    },
    /// The machine uses 5-level paging, and the kernel cannot be entered with it.
    #[error(
        "the running kernel uses 5-level paging (LA57), and the new one cannot be entered in it (XLF_5LEVEL)"
    )]
    FiveLevel,
    /// A wish that kexec_file_load cannot fulfil.
    #[error("{option} does not work with kexec_file_load: {reason}")]
    NotWithFileLoad {
        /// The option.
        option: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// One system call is forbidden, and the other would do harm.
    #[error("neither system call will do: {forbidden}; and kexec_file_load {harm}")]
    NoSyscall {
        /// Why kexec_load is not possible.
        forbidden: String,
        /// What kexec_file_load would do.
        harm: String,
        /// What to do about it, where something can be done.
        way_out: Option<String>,
    },
    /// kexec_file_load was asked for, and it does not take this image here.
    #[error("kexec_file_load refuses this image: {reason}")]
    FileLoadRefuses {
        /// Why.
        reason: &'static str,
    },
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
    /// A driver whose memory cannot be handed over.
    #[error("memory of the driver {driver} cannot be handed over as RAM: {reason}")]
    NotIncludable {
        /// The driver.
        driver: String,
        /// Why.
        reason: &'static str,
    },
    /// There can be no crash kernel.
    #[error(transparent)]
    Crash(#[from] CrashError),
    /// State cannot be handed over.
    #[error(transparent)]
    Handover(#[from] HandoverError),
    /// Purgatory cannot be filled.
    #[error(transparent)]
    Purgatory(#[from] crate::purgatory::ImageError),
    /// The running kernel refuses an image this large.
    #[error(
        "an image of {size:#x} bytes: the kernel takes at most half of the RAM, {limit:#x} bytes"
    )]
    TooLarge {
        /// All segments together, bytes.
        size: u64,
        /// Half of the RAM, bytes.
        limit: u64,
    },
    /// The plan breaks a rule: a fault of this program, found before any harm.
    #[error("the plan is invalid")]
    Invalid(#[from] Violation),
}

impl PlanError {
    /// The same error for a crash kernel, which must fit its reservation. `way_out` is
    /// called only when something found no place there.
    pub(super) fn of_crash(self, way_out: impl FnOnce(&NoHole) -> String) -> Self {
        match self {
            Self::NoHole(hole) => Self::NotInReservation {
                way_out: way_out(&hole),
                hole,
            },
            other => other,
        }
    }

    /// Whether the options contradict each other, or ask for something impossible.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::EmptyBounds { .. }
                | Self::NotWithFileLoad { .. }
                | Self::NotForMultiboot { .. }
                | Self::NotIncludable { .. }
        )
    }

    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Environment(refusal) => Some(refusal.way_out.to_owned()),
            Self::NoSyscall { way_out, .. } => way_out.clone(),
            Self::Firmware(error) => Some(error.hint().to_owned()),
            Self::NotInReservation { way_out, .. } => Some(way_out.clone()),
            Self::FileLoadRefuses { .. } => {
                Some("without --syscall, rkexec takes kexec_load where it may".to_owned())
            }
            Self::FiveLevel => {
                Some("boot once with no5lvl, or take a kernel with CONFIG_X86_5LEVEL (a bzImage is sure to tell)".to_owned())
            }
            Self::NotForMultiboot { hint, .. } => hint.map(str::to_owned),
            Self::TakenAway { .. } => Some(
                "no segment may lie in memory that the command line takes from the next kernel: change that \
                 word, or take it off the line with --remove"
                    .to_owned(),
            ),
            Self::NoHole(_) | Self::Occupied { .. } => {
                Some("rkexec memmap shows where segments may go, and why not elsewhere".to_owned())
            }
            Self::Cmdline(error) => error.hint().map(str::to_owned),
            Self::Handover(error) => error.hint().map(str::to_owned),
            Self::Crash(error) => error.hint().map(str::to_owned),
            Self::Unreachable { .. } => Some(
                "these bounds come from --mem-min, --mem-max and the image (pref_address, xloadflags, initrd_addr_max)"
                    .to_owned(),
            ),
            Self::NotIncludable { .. } => {
                Some("only --include-driver-managed kmem is possible".to_owned())
            }
            Self::TooLarge { .. } => Some(
                "the kernel refuses images larger than half of the RAM: a smaller initrd is needed"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}
