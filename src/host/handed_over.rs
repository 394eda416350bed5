//! What the running kernel says of the state that the kernel before handed over to it by
//! Kexec Handover (KHO).
//!
//! Its log says most. debugfs shows what is taken over only where KHO is on, and then also
//! a tree that was refused.

use super::{HostError, Root, boot_params, kmsg};
use crate::abi::x86::setup_data::SETUP_KEXEC_KHO;

/// The blobs that were taken over, by name.
const BLOBS: &str = "/sys/kernel/debug/kho/in/sub_fdts";
/// The device of live update (LUO).
const DEVICE: &str = "/dev/liveupdate";
/// What a line of the log about the hand-over has in it.
const ABOUT: [&str; 5] = [
    "KHO",
    "luo: ",
    "Revived memory reservation",
    "FDT 'memblock'",
    "reserve-mem-v1",
];
/// The log of a kernel that took the tree over (`kho_populate`).
const TAKEN: &str = "KHO: found kexec handover data";
/// The logs of a kernel that took nothing over: the data is malformed or of another format
/// (`kho_populate`), or the kernel is built without KHO (`add_kho` of
/// arch/x86/kernel/setup.c).
const REFUSED: [&str; 2] = ["disabling KHO revival", "Passed KHO data, but "];
/// What a line has that gives the reason of [`REFUSED`].
const REASONS: [&str; 3] = ["is incompatible with", "is invalid", "failed to"];
/// The log of a kernel that took the sessions over (`luo_early_startup`).
const SESSIONS: &str = "luo: Retrieved live update data";
/// How the log of a kernel begins that leaves the sessions alone.
const NO_SESSIONS: &str = "luo: Disabling liveupdate";

/// The traces of a hand-over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HandedOver {
    /// Whether a setup_data node of KHO arrived; `None` when the nodes are not visible.
    pub node: Option<bool>,
    /// What the kernel's log has about it, in order; `None` when it is not readable.
    pub log: Option<Log>,
    /// The names of the blobs that debugfs shows; `None` when it shows none.
    pub blobs: Option<Vec<String>>,
    /// Whether the device of live update is there.
    pub device: bool,
}

/// Lines of the kernel's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// The lines about the hand-over.
    pub lines: Vec<String>,
    /// Whether the log still has what was written first: only then a line that is not there
    /// was never written.
    pub whole: bool,
}

/// What became of a part of the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was taken over: how that is known.
    Taken(String),
    /// It was not: why.
    Lost(String),
    /// Nothing visible tells: why.
    Hidden(String),
}

impl HandedOver {
    /// Reads the traces below `root`.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        let running = boot_params::read(root)?;
        let node = running.map(|running| running.has_node(SETUP_KEXEC_KHO));
        let log = kmsg::own_lines(root).map(|log| Log {
            lines: log
                .lines
                .into_iter()
                .filter(|line| ABOUT.iter().any(|about| line.contains(about)))
                .collect(),
            whole: log.whole,
        });
        Ok(Self {
            node,
            log,
            blobs: root.list_permitted(BLOBS)?,
            device: root.path(DEVICE).exists(),
        })
    }

    /// Whether the kernel took over the tree.
    #[must_use]
    pub fn tree(&self) -> Fate {
        if self.node == Some(false) {
            return Fate::Lost("no setup_data node of Kexec Handover arrived".to_owned());
        }
        let refused = |line: &str| REFUSED.iter().any(|refused| line.contains(refused));
        if let Some(at) = self.lines().iter().position(|line| refused(line)) {
            let before = self.lines().iter().take(at);
            let reason = before.rev().find(|line| {
                let is_reason = REASONS.iter().any(|reason| line.contains(reason));
                line.contains("KHO") && is_reason
            });
            let line = reason.or(self.lines().get(at));
            return Fate::Lost(line.cloned().unwrap_or_default());
        }
        match self.line(&[TAKEN]) {
            Some(line) => Fate::Taken(line.to_owned()),
            None => self.untold("that it took anything over"),
        }
    }

    /// Whether the kernel took over the sessions of live update. What became of them since
    /// is not visible.
    #[must_use]
    pub fn sessions(&self) -> Fate {
        if let Fate::Lost(why) = self.tree() {
            return Fate::Lost(why);
        }
        if let Some(line) = self.line(&[NO_SESSIONS]) {
            return Fate::Lost(line.to_owned());
        }
        if !self.device {
            return Fate::Lost(format!("{DEVICE} is not there"));
        }
        match self.line(&[SESSIONS]) {
            Some(line) => Fate::Taken(line.to_owned()),
            None => self.untold("that it took sessions over"),
        }
    }

    /// Whether the kernel took back the pool `name` as memory of `reserve_mem=`
    /// (`reserve_mem_kho_revive` of mm/memblock.c).
    #[must_use]
    pub fn pool(&self, name: &str) -> Fate {
        if let Fate::Lost(why) = self.tree() {
            return Fate::Lost(why);
        }
        if let Some(line) = self.line(&[&revived(name)]) {
            return Fate::Taken(line.to_owned());
        }
        let quoted = format!("'{name}'");
        match self.line(&["KHO reserve-mem", &quoted]).or_else(|| {
            let no_child = self.line(&["FDT 'memblock'", &quoted]);
            no_child.or_else(|| self.line(&["FDT 'memblock' is incompatible"]))
        }) {
            Some(line) => Fate::Lost(line.to_owned()),
            None => self.untold("that it took the pool back"),
        }
    }

    /// The names of the pools that were taken back.
    #[must_use]
    pub fn revived(&self) -> Vec<String> {
        let (before, behind) = ("Revived memory reservation '", "' from KHO");
        let names = self.lines().iter().filter_map(|line| {
            let (_, rest) = line.split_once(before)?;
            Some(rest.split_once(behind)?.0.to_owned())
        });
        names.collect()
    }

    /// The lines of the log about the hand-over.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.log.as_ref().map_or(&[], |log| &log.lines)
    }

    /// The first line that has all of `parts`.
    fn line(&self, parts: &[&str]) -> Option<&str> {
        let mut lines = self.lines().iter();
        let has_all = |line: &&String| parts.iter().all(|part| line.contains(part));
        lines.find(has_all).map(String::as_str)
    }

    /// What a line means that is not there.
    fn untold(&self, what: &str) -> Fate {
        match &self.log {
            Some(log) if log.whole => Fate::Lost(format!("this kernel's log does not say {what}")),
            Some(_) => Fate::Hidden(format!(
                "the beginning of this kernel's log is gone, which would say {what}"
            )),
            None => Fate::Hidden(format!(
                "this kernel's log is not readable (/dev/kmsg), which would say {what}"
            )),
        }
    }
}

/// What the log says of a pool that was taken back.
fn revived(name: &str) -> String {
    format!("Revived memory reservation '{name}' from KHO")
}

#[cfg(test)]
#[path = "handed_over_tests.rs"]
mod tests;
