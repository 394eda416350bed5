//! What makes a job: the options, and the configuration of `arm`.

use std::path::PathBuf;

use bstr::BString;

use super::{Fresh, Job};
use crate::base::Target;
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::crash::HotplugChoice;
use crate::image::Wish;
use crate::request::{LoadRequest, SyscallChoice};

/// What a source says of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// A line to start from.
    pub given: Option<BString>,
    /// Start from the running line, unless there is a given one.
    pub running: bool,
    /// Text added, in order.
    pub append: Vec<BString>,
    /// Parameters removed.
    pub remove: Vec<BString>,
}

impl From<Line> for CmdlineRequest {
    fn from(line: Line) -> Self {
        Self {
            base: match (line.given, line.running) {
                (Some(given), _) => CmdlineBase::Given(given),
                (None, true) => CmdlineBase::Running,
                (None, false) => CmdlineBase::Empty,
            },
            append: line.append,
            remove: line.remove,
        }
    }
}

/// The options of a load: rkexec's own, or kexec-tools' in their terms.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// KERNEL.
    pub kernel: PathBuf,
    /// `--initrd`.
    pub initrds: Vec<PathBuf>,
    /// `--profile`.
    pub profile: Option<String>,
    /// `--type` of kexec-tools.
    pub wish: Option<Wish>,
    /// `--addon`.
    pub addons: Vec<PathBuf>,
    /// `--module`.
    pub modules: Vec<BString>,
    /// `--cmdline`, `--reuse-cmdline`, `--append`, `--remove`.
    pub line: Line,
    /// All others, as they are asked for. Its command line, seed and time are not looked at.
    pub rest: LoadRequest,
}

impl Options {
    /// The job that the options describe.
    #[must_use]
    pub fn job(self, fresh: Fresh) -> Job {
        Job {
            kernel: self.kernel,
            initrds: self.initrds,
            profile: self.profile,
            wish: self.wish,
            addons: self.addons,
            modules: self.modules,
            request: LoadRequest {
                cmdline: self.line.into(),
                seed: Some(fresh.seed),
                time: fresh.time,
                ..self.rest
            },
        }
    }
}

/// What the configuration of `arm` says of the crash kernel on one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArmRules {
    /// `kernel`.
    pub kernel: PathBuf,
    /// `initrd`.
    pub initrds: Vec<PathBuf>,
    /// `[cmdline]`.
    pub line: Line,
    /// `syscall`.
    pub syscall: SyscallChoice,
    /// `hotplug`.
    pub hotplug: HotplugChoice,
    /// `digest`: purgatory verifies.
    pub digest: bool,
}

impl ArmRules {
    /// The load of that crash kernel.
    #[must_use]
    pub fn job(self, fresh: Fresh) -> Job {
        Job {
            kernel: self.kernel,
            initrds: self.initrds,
            request: LoadRequest {
                cmdline: self.line.into(),
                syscall: self.syscall,
                no_digest: !self.digest,
                seed: Some(fresh.seed),
                time: fresh.time,
                target: Target::Crash,
                hotplug: self.hotplug,
                ..LoadRequest::default()
            },
            ..Job::default()
        }
    }
}
