//! What makes a job: the options, and the configuration of `arm`.

use std::path::PathBuf;

use bstr::BString;

use super::{Fresh, Job};
use crate::base::Target;
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::crash::HotplugChoice;
use crate::image::Wish;
use crate::request::{DirectChoice, LoadRequest, SyscallChoice};

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
    /// `--carry`.
    pub carry: Vec<PathBuf>,
    /// What the files of a boot entry must be.
    pub hashes: Vec<(PathBuf, [u8; 32])>,
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
            carry: self.carry,
            hashes: self.hashes,
            request: LoadRequest {
                cmdline: self.line.into(),
                seed: Some(fresh.seed),
                time: fresh.time,
                ..self.rest
            },
        }
    }
}

/// What a boot entry says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFiles {
    /// Its kernel.
    pub kernel: PathBuf,
    /// Its initrds.
    pub initrds: Vec<PathBuf>,
    /// Its command line; `None`: the UKI has it.
    pub line: Option<BString>,
    /// The profile of a UKI.
    pub profile: Option<String>,
    /// Addons to a UKI, in order.
    pub addons: Vec<PathBuf>,
    /// A hypervisor's modules.
    pub modules: Vec<BString>,
    /// Its device tree.
    pub dtb: Option<Vec<u8>>,
    /// The SHA-256 that files must have.
    pub hashes: Vec<(PathBuf, [u8; 32])>,
}

impl Options {
    /// The options, and what a boot entry says where they say nothing. Text is added to the
    /// entry's command line, and parameters are removed from it.
    #[must_use]
    pub fn or_entry(mut self, entry: EntryFiles) -> Self {
        self.kernel = entry.kernel;
        if self.initrds.is_empty() {
            self.initrds = entry.initrds;
        }
        if self.modules.is_empty() {
            self.modules = entry.modules;
        }
        if self.line.given.is_none() && !self.line.running {
            self.line.given = entry.line;
        }
        self.addons.splice(..0, entry.addons);
        self.profile = self.profile.or(entry.profile);
        self.hashes = entry.hashes;
        let dtb = &mut self.rest.handover.dtb;
        *dtb = dtb.take().or(entry.dtb);
        self
    }
}

/// What the configuration of `arm` says of the crash kernel on one machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArmRules {
    /// `kernel`.
    pub kernel: PathBuf,
    /// The profile of a UKI, where a boot entry says it.
    pub profile: Option<String>,
    /// Addons to a UKI that a boot entry has.
    pub addons: Vec<PathBuf>,
    /// `initrd`.
    pub initrds: Vec<PathBuf>,
    /// What the files of a boot entry must be.
    pub hashes: Vec<(PathBuf, [u8; 32])>,
    /// `[cmdline]`.
    pub line: Line,
    /// `syscall`.
    pub syscall: SyscallChoice,
    /// `hotplug`.
    pub hotplug: HotplugChoice,
    /// `direct`.
    pub direct: DirectChoice,
    /// `digest`: purgatory verifies.
    pub digest: bool,
}

impl ArmRules {
    /// The rules, with the kernel of a boot entry, and with its initrds where the rules name
    /// none. The command line is that of the rules. A crash kernel is given no device tree.
    #[must_use]
    pub fn or_entry(mut self, entry: EntryFiles) -> Self {
        self.kernel = entry.kernel;
        if self.initrds.is_empty() {
            self.initrds = entry.initrds;
        }
        self.profile = entry.profile;
        self.addons = entry.addons;
        self.hashes = entry.hashes;
        self
    }

    /// The load of that crash kernel.
    #[must_use]
    pub fn job(self, fresh: Fresh) -> Job {
        Job {
            kernel: self.kernel,
            initrds: self.initrds,
            profile: self.profile,
            addons: self.addons,
            hashes: self.hashes,
            request: LoadRequest {
                cmdline: self.line.into(),
                syscall: self.syscall,
                no_digest: !self.digest,
                seed: Some(fresh.seed),
                time: fresh.time,
                target: Target::Crash,
                hotplug: self.hotplug,
                direct: self.direct,
                ..LoadRequest::default()
            },
            ..Job::default()
        }
    }
}
