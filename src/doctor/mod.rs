//! Reasons that are known why a kexec, or the capture of a dump, would fail or lose something.
//!
//! [`CHECKS`] is the list. Each check is a small function over [`Facts`] and gives what it
//! found. What another room knows is asked there: why a call must fail of `refusal`, what a
//! load leads to of its plan, how much memory a crash kernel takes of `crash::sizing`.

mod capture;
mod checks;
mod drivers;
pub mod initrd;
mod load;
mod machine;

use serde::Serialize;

use crate::base::{Syscall, Target};
use crate::crash::sizing::Sizing;
use crate::host::Host;
use crate::host::loaded::Loaded;
use crate::host::security::Security;
use crate::host::surroundings::Surroundings;
use crate::load::armed::Armed;
use crate::plan::Plan;
use crate::refusal::{CallFacts, Cause};

pub use checks::{CHECKS, Check};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It will not work.
    Blocker,
    /// It may fail, or lose something.
    Risk,
    /// It is good to know.
    Note,
}

impl Severity {
    /// Its name in text and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocker => "blocker",
            Self::Risk => "risk",
            Self::Note => "note",
        }
    }
}

/// Something that a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is the matter; no capital letter, no full stop.
    pub finding: String,
    /// Where that was read.
    pub evidence: String,
    /// Something the operator can do.
    pub way_out: Option<String>,
}

/// What a check says. [`examine`] adds its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    severity: Severity,
    finding: String,
    evidence: String,
    way_out: Option<String>,
}

impl Said {
    fn new(severity: Severity, finding: impl Into<String>, evidence: impl Into<String>) -> Self {
        Self {
            severity,
            finding: finding.into(),
            evidence: evidence.into(),
            way_out: None,
        }
    }

    fn way_out(self, way_out: impl Into<String>) -> Self {
        Self {
            way_out: Some(way_out.into()),
            ..self
        }
    }

    /// A cause that another room knows. `made_by`: what said so, where no fact of its own is
    /// behind it.
    fn cause(severity: Severity, cause: &Cause, made_by: impl Into<String>) -> Self {
        let evidence = cause.evidence.map(str::to_owned);
        Self {
            way_out: cause.hint.clone(),
            ..Self::new(
                severity,
                &cause.why,
                evidence.unwrap_or_else(|| made_by.into()),
            )
        }
    }
}

/// What the checks are made on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// A kernel for `exec`, or the crash kernel.
    pub target: Target,
    /// What may forbid a load.
    pub security: &'a Security,
    /// What is loaded.
    pub loaded: &'a Loaded,
    /// EFI Secure Boot is on.
    pub secure_boot: Option<bool>,
    /// The machine, as a plan needs it; or why it cannot be read.
    pub host: Result<&'a Host, &'a Cause>,
    /// File systems, devices, consoles, services.
    pub around: &'a Surroundings,
    /// The crash kernel that is loaded now.
    pub armed: &'a Armed,
    /// The load that is asked about; `None`: the machine alone.
    pub load: Option<&'a Load<'a>>,
}

/// A load that is asked about.
#[derive(Debug, Clone)]
pub struct Load<'a> {
    /// `uname -r` of the kernel, where its file tells.
    pub release: Option<&'a str>,
    /// The plan; or why there is none.
    pub plan: Result<Planned<'a>, Cause>,
    /// The other system call, which was not chosen, and why it cannot load this.
    pub other: Option<(Syscall, Cause)>,
    /// The time that was asked for a watchdog, seconds.
    pub watchdog: Option<u64>,
    /// What is in the initrds; `None`: there are none, or they cannot be read.
    pub initrd: Option<initrd::Contents>,
    /// There is an initrd.
    pub has_initrd: bool,
    /// The kernel is configured with an initramfs of its own, which nobody looks into.
    pub has_built_in: bool,
    /// An initrd is packed as the kernel cannot unpack.
    pub unpackable: Option<initrd::Packing>,
}

/// A plan, and what was found out beside it.
#[derive(Debug, Clone)]
pub struct Planned<'a> {
    /// The plan.
    pub plan: &'a Plan<'a>,
    /// What decides about the call.
    pub call: CallFacts<'a>,
    /// Why the call must fail.
    pub refusal: Option<Cause>,
    /// How much memory the crash kernel takes.
    pub sizing: Option<Sizing>,
}

impl<'a> Facts<'a> {
    /// The plan, where one was made.
    fn planned(&self) -> Option<&'a Planned<'a>> {
        self.load?.plan.as_ref().ok()
    }
}

/// What all checks find, the worst first, else in the order of the checks.
#[must_use]
pub fn examine(facts: &Facts<'_>) -> Vec<Finding> {
    let mut found: Vec<Finding> = CHECKS
        .iter()
        .flat_map(|check| {
            (check.run)(facts).into_iter().map(|said| Finding {
                check: check.name,
                severity: said.severity,
                finding: said.finding,
                evidence: said.evidence,
                way_out: said.way_out,
            })
        })
        .collect();
    found.sort_by_key(|finding| finding.severity);
    found
}

/// The answer in one line: that nothing is known against it, or what stands first. `found` is
/// what [`examine`] gave; `version` is that of the kernel that is asked about.
#[must_use]
pub fn verdict(target: Target, version: Option<&str>, found: &[Finding]) -> String {
    let what = match (target, version) {
        (Target::Normal, Some(version)) => format!("kexec into {version}"),
        (Target::Normal, None) => "kexec on this machine".to_owned(),
        (Target::Crash, Some(version)) => format!("capture by {version}"),
        (Target::Crash, None) => "capture on this machine".to_owned(),
    };
    let count = |severity| found.iter().filter(|one| one.severity == severity).count();
    let count = |severity: Severity| match count(severity) {
        0 => None,
        1 => Some(format!("1 {}", severity.name())),
        more => Some(format!("{more} {}s", severity.name())),
    };
    let counts = [Severity::Blocker, Severity::Risk].map(count);
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    match (counts.is_empty(), found.first()) {
        (false, Some(first)) => format!("{what}: {}; first: {}", counts.join(", "), first.finding),
        _ => format!("{what}: nothing known against it"),
    }
}

#[cfg(test)]
mod tests;
