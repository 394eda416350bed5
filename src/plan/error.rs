//! Why there is no plan, and what to do about it.

use super::{AtExecError, CarryError, KhoError, Violation};
use crate::base::human;
use crate::boot::BootError;
use crate::carry::HandoverError;
use crate::cmdline::CmdlineError;
use crate::crash::CrashError;
use crate::host::environment::Refusal;
use crate::layout::PlaceError;
use crate::memory::NoHole;
use crate::refusal::Cause;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No kernel can be loaded on this machine, with any options.
    #[error("{}", .0.why)]
    Environment(Refusal),
    /// No watchdog can be armed.
    #[error("{}", .0.why)]
    Watchdog(Cause),
    /// `--watchdog` for a crash kernel.
    #[error(
        "--watchdog is for a kernel that exec boots: nobody arms a watchdog when the kernel panics"
    )]
    WatchdogForCrash,
    /// There is no command line.
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    /// Something has no place.
    #[error(transparent)]
    Place(PlaceError),
    /// The boot protocol cannot start the kernel.
    #[error(transparent)]
    Boot(BootError),
    /// The crash kernel does not fit what is reserved for it.
    #[error("the crash kernel does not fit the memory reserved for it: {hole}")]
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
    /// A wish that kexec_file_load cannot fulfil.
    #[error("{option} does not work with kexec_file_load: {reason}")]
    NotWithFileLoad {
        /// The option.
        option: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// One system call is forbidden, and the other would do harm.
    #[error("cannot load: {forbidden}, and kexec_file_load {harm}")]
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
    /// A driver whose memory cannot be handed over.
    #[error("memory of the driver {driver} cannot be passed to the next kernel as RAM: {reason}")]
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
    /// The state of Kexec Handover would stop the next kernel.
    #[error(transparent)]
    Kho(#[from] KhoError),
    /// The files of `--carry` would be lost.
    #[error(transparent)]
    AtExec(#[from] AtExecError),
    /// What must lie in the scratch memory of Kexec Handover does not fit.
    #[error(
        "the scratch memory of Kexec Handover, where everything must lie while this kernel hands over state, is too small: {0}"
    )]
    NotInScratch(NoHole),
    /// Files cannot be carried.
    #[error(transparent)]
    Carry(#[from] CarryError),
    /// Purgatory cannot be filled.
    #[error(transparent)]
    Purgatory(#[from] crate::purgatory::ImageError),
    /// The running kernel refuses an image this large.
    #[error(
        "all parts together take {}: the running kernel loads at most half of the RAM, {}", human(*size), human(*limit)
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

impl From<PlaceError> for PlanError {
    fn from(error: PlaceError) -> Self {
        Self::Place(error)
    }
}

impl From<BootError> for PlanError {
    fn from(error: BootError) -> Self {
        match error {
            BootError::Place(error) => Self::Place(error),
            BootError::Cmdline(error) => Self::Cmdline(error),
            BootError::Handover(error) => Self::Handover(error),
            error => Self::Boot(error),
        }
    }
}

impl PlanError {
    /// The same error for a crash kernel, which must fit its reservation. `way_out` is
    /// called only when something found no place there.
    pub(super) fn of_crash(self, way_out: impl FnOnce(&NoHole) -> String) -> Self {
        match self {
            Self::Place(PlaceError::NoHole(hole)) => Self::NotInReservation {
                way_out: way_out(&hole),
                hole,
            },
            other => other,
        }
    }

    /// The same error for a load in which everything must lie in scratch memory.
    pub(super) fn of_scratch(self) -> Self {
        match self {
            Self::Place(PlaceError::NoHole(hole)) => Self::NotInScratch(hole),
            other => other,
        }
    }

    /// Whether something found no place.
    pub(super) const fn is_no_place(&self) -> bool {
        matches!(
            self,
            Self::Place(PlaceError::NoHole(_))
                | Self::NotInReservation { .. }
                | Self::Carry(CarryError::NoScratch { .. } | CarryError::NoRoom(_))
        )
    }

    /// Whether there is no memory for what Kexec Handover needs.
    pub(super) fn is_no_handover_room(&self) -> bool {
        match self {
            Self::TakenAway { error, .. } => error.is_no_handover_room(),
            Self::Carry(
                CarryError::NoScratch { .. } | CarryError::NoRoom(_) | CarryError::Scattered,
            ) => true,
            _ => false,
        }
    }

    /// Whether the options contradict each other, or ask for something impossible.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        match self {
            Self::Place(PlaceError::EmptyBounds { .. })
            | Self::NotWithFileLoad { .. }
            | Self::NotIncludable { .. }
            | Self::WatchdogForCrash => true,
            Self::Boot(error) => error.is_usage(),
            Self::Carry(error) => error.is_usage(),
            _ => false,
        }
    }

    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Environment(refusal) => Some(refusal.way_out.to_owned()),
            Self::Watchdog(cause) => cause.hint.clone(),
            Self::NoSyscall { way_out, .. } => way_out.clone(),
            Self::NotInReservation { way_out, .. } => Some(way_out.clone()),
            Self::FileLoadRefuses { .. } => {
                Some("without --syscall, rkexec takes kexec_load where it may".to_owned())
            }
            Self::TakenAway { .. } => Some(
                "no segment may lie in memory that the command line takes from the next kernel: change that \
                 word, or take it off the line with --remove"
                    .to_owned(),
            ),
            Self::Place(error) => error.hint().map(str::to_owned),
            Self::Boot(error) => error.hint(),
            Self::Cmdline(error) => error.hint().map(str::to_owned),
            Self::Handover(error) => error.hint().map(str::to_owned),
            Self::Crash(error) => error.hint().map(str::to_owned),
            Self::Carry(error) => error.hint(),
            Self::Kho(error) => error.hint(),
            Self::AtExec(error) => Some(error.hint().to_owned()),
            Self::NotInScratch(_) => Some(
                "boot this kernel with a larger kho_scratch=, or lose what it hands over with --kho drop".to_owned(),
            ),
            Self::NotWithFileLoad { option, .. } => {
                // A carried pool is there without an option.
                let also = match option.starts_with("--") {
                    true => format!("{option} or "),
                    false => String::new(),
                };
                Some(format!(
                    "leave {also}--syscall kexec_file_load out: only kexec_load can do it"
                ))
            }
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

    /// Where the facts behind it were read, if it follows from facts.
    #[must_use]
    pub const fn evidence(&self) -> Option<&'static str> {
        match self {
            Self::Environment(refusal) => Some(refusal.evidence),
            Self::Watchdog(cause) => cause.evidence,
            _ => None,
        }
    }
}
