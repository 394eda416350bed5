//! What becomes of the state that the running kernel hands over by Kexec Handover (KHO).
//!
//! The running kernel hands it over itself (kexec_file_load), or its tree is passed on
//! (kexec_load), whatever the next kernel makes of it. A kernel that reads another format of the sessions of LUO panics when it
//! starts. Whatever else does not fit loses state, and the next kernel starts.

use bstr::{BStr, ByteSlice as _};

use super::Inputs;
use super::keep::Running;
use super::set_aside::{self, Pieces, Place};
use crate::abi::kho::memfd_of_release;
use crate::base::{PhysRange, Told, human, version};
use crate::boot::Taken;
use crate::carry::capability::Fact;
use crate::carry::reserved::{self, Reserved};
use crate::carry::{Capability, KhoTarget, Reads};
use crate::host::kho::{Kho, LARGE_MEMFDS};
use crate::kho::forward::ForwardError;

/// Why nothing may be loaded while the running kernel hands over sessions of LUO.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KhoError {
    /// The next kernel would not start.
    #[error(
        "the new kernel reads {reads} and panics at boot on {given}, the format in which this kernel hands over live update"
    )]
    Panics {
        /// What the next kernel reads.
        reads: String,
        /// What this kernel hands over.
        given: String,
    },
    /// `--kho forward`, where the tree cannot be passed on.
    #[error(transparent)]
    Forward(ForwardError),
    /// kexec_load was asked for, and would lose state.
    #[error("{lost}; it cannot be passed on: {why}")]
    Lost {
        /// What kexec_load loses.
        lost: String,
        /// Why the tree cannot be passed on.
        why: ForwardError,
    },
    /// The next kernel may not start.
    #[error(
        "cannot tell which format of live update the new kernel reads ({found}): it panics at boot on any but its own, and this kernel hands over {given}"
    )]
    CannotTell {
        /// What is known.
        found: String,
        /// What this kernel hands over.
        given: String,
    },
}

impl KhoError {
    /// A way out, where there is one.
    pub(super) fn hint(&self) -> Option<String> {
        match self {
            Self::Panics { .. } | Self::CannotTell { .. } => Some(
                "load a kernel that reads the same format, or put kho=off on the new command line: then it takes \
                 over no session, and starts; --kho drop hands nothing over at all"
                    .to_owned(),
            ),
            Self::Forward(why) => why.hint().map(str::to_owned),
            Self::Lost { why, .. } => {
                let ways = why.hint().into_iter().chain([
                    "without --syscall kexec_load, the running kernel hands it over; --kho drop loses it",
                ]);
                Some(ways.collect::<Vec<_>>().join("; "))
            }
        }
    }
}

/// Why a memfd of the running kernel may crash a kernel `target` that gives it back: large
/// pages in one are only for a kernel that has them (`memfd_luo_retrieve_folios` of
/// mm/memfd_luo.c). Whether that kernel is known to have none is the first part. `None`: it
/// does not crash.
pub(super) fn large_pages(kho: &Kho, target: &KhoTarget) -> Option<(Fact, String)> {
    let word = kho.state.large_memfds.as_ref()?;
    let has = target.huge_pages.value;
    let what = match has {
        Fact::Yes => return None,
        Fact::No => "the new kernel has no CONFIG_TRANSPARENT_HUGEPAGE",
        Fact::Unknown => "nothing shows that the new kernel has CONFIG_TRANSPARENT_HUGEPAGE",
    };
    let why = format!(
        "memfds of this kernel may have large pages ({LARGE_MEMFDS} is {word}), and {what}: without it, it crashes \
         when such a memfd is taken back"
    );
    Some((has, why))
}

/// What decides.
struct Facts<'i> {
    kho: &'i Kho,
    /// `uname -r` of the running kernel.
    release: &'i str,
    target: &'i KhoTarget,
    /// Why the texts of the next kernel tell nothing, where they do not.
    untold: String,
    /// It is of the running kernel's release.
    same_release: bool,
    /// The new command line.
    line: &'i BStr,
    /// That of the running kernel.
    running_line: &'i BStr,
    /// What that line takes away from the next kernel's RAM.
    taken: Vec<Taken>,
    /// RAM of the machine, bytes.
    ram: u64,
}

/// Checks what the next kernel does with the state that is handed over, if any is. Gives
/// what is lost, for the operator. `target` is asked only then.
///
/// # Errors
/// When the next kernel panics on the state, or may.
pub(super) fn check(
    inputs: Inputs<'_, '_>,
    running: &Running,
    line: &BStr,
    target: impl FnOnce() -> Capability,
) -> Result<Vec<String>, KhoError> {
    let kho = &inputs.host.security.kho;
    // Its own metadata alone does no good and no harm.
    if !running.is_handed_over() || kho.preserved.as_ref().is_some_and(Vec::is_empty) {
        return Ok(Vec::new());
    }
    let target = target();
    let release = inputs.image.release();
    Facts {
        kho,
        release: &inputs.host.release,
        untold: target.untold(),
        target: &target.kho,
        same_release: release.is_some_and(|release| release == inputs.host.release),
        line,
        running_line: inputs.host.cmdline.as_bstr(),
        taken: inputs.boot.taken(line, Told::RAM),
        ram: inputs.host.total_ram,
    }
    .check()
}

impl Facts<'_> {
    fn check(&self) -> Result<Vec<String>, KhoError> {
        if let Some(lost) = self.not_taken_over() {
            return Ok(vec![lost]);
        }
        let mut lost = self.live_update()?;
        lost.extend(self.pools());
        lost.extend(self.scratch());
        Ok(lost)
    }

    /// Why the next kernel takes over nothing.
    fn not_taken_over(&self) -> Option<String> {
        let what = self.kho.in_words();
        match (&self.target.kho, &self.kho.state.format) {
            (Reads::Nothing, _) => Some(format!(
                "the new kernel has no Kexec Handover (CONFIG_KEXEC_HANDOVER): it drops {what}"
            )),
            (Reads::One(reads), Some(given)) if reads != given => Some(format!(
                "the new kernel reads {reads}, and this kernel hands over {given}, which loses {what}"
            )),
            _ => None,
        }
    }

    /// Whether the next kernel starts with what LUO hands over, and gives it back.
    fn live_update(&self) -> Result<Vec<String>, KhoError> {
        let Self { kho, target, .. } = self;
        // Without KHO the next kernel does not look at it (`liveupdate_early_init`).
        let is_on = target.is_on(self.line);
        if !kho.preserves_luo() {
            return Ok(Vec::new());
        }
        let mut lost = Vec::new();
        if is_on != Fact::No {
            lost.extend(self.format_of_sessions()?);
        }
        if kho.state.sessions.as_ref().is_some_and(Vec::is_empty) {
            return Ok(lost);
        }
        let what = kho.sessions_in_words();
        let what = what.unwrap_or_else(|| "the sessions of live update".to_owned());
        let dropped = |why: &str| {
            format!("{why}, which loses {what}: the memory stays reserved until a reboot")
        };
        if target.luo == Reads::Nothing {
            lost.push(dropped(
                "the new kernel has no live update (CONFIG_LIVEUPDATE)",
            ));
            return Ok(lost);
        }
        match is_on {
            Fact::Yes => {}
            Fact::No => lost.push(dropped(
                "the new command line does not turn on KHO (kho=on)",
            )),
            Fact::Unknown => lost.push(dropped(
                "the new command line does not turn on KHO (kho=on), and nothing shows that the new kernel does by itself",
            )),
        }
        if !target.gives_sessions_back(self.line) {
            lost.push(dropped(
                "the new command line does not turn on LUO (liveupdate=on)",
            ));
        }
        lost.extend(large_pages(kho, target).map(|(_, why)| why));
        let given = memfd_of_release(version(self.release));
        let missing = match (&target.memfd, given) {
            (Reads::Nothing, given) => Some(given.unwrap_or("memfd")),
            (Reads::One(reads), Some(given)) if reads != given && !self.same_release => Some(given),
            _ => None,
        };
        lost.extend(missing.map(|missing| {
            format!(
                "the new kernel has no {missing} handler: if a session has a memfd, /dev/liveupdate \
                 fails with EIO for every session"
            )
        }));
        Ok(lost)
    }

    /// Holds the format of the sessions against the one that the next kernel reads.
    fn format_of_sessions(&self) -> Result<Option<String>, KhoError> {
        if self.target.luo == Reads::Nothing {
            return Ok(None);
        }
        let Some(given) = self.kho.sessions_format(self.release) else {
            let unknown = "cannot tell in which format this kernel hands over live update: the new kernel panics \
                           at boot if it reads another. debugfs shows it (/sys/kernel/debug/kho)";
            return Ok((!self.same_release).then(|| unknown.to_owned()));
        };
        let found = match &self.target.luo {
            Reads::One(reads) if *reads == given => return Ok(None),
            Reads::One(reads) => {
                let reads = reads.clone();
                return Err(KhoError::Panics { reads, given });
            }
            Reads::OneOf(found) => format!("found {}", found.join(", ")),
            Reads::Nothing | Reads::Unknown => self.untold.clone(),
        };
        match self.same_release {
            true => Ok(None),
            false => Err(KhoError::CannotTell { found, given }),
        }
    }

    /// What `reserve_mem=` set aside and the next kernel does not take back.
    fn pools(&self) -> Vec<String> {
        if !self.kho.preserves_pools() {
            return Vec::new();
        }
        if self.target.memblock == Reads::Nothing {
            return vec![
                "the new kernel takes no memory of reserve_mem= back: its contents are lost"
                    .to_owned(),
            ];
        }
        let asked = reserved::words(self.line);
        let lost = |pool: &Reserved| {
            let name = &pool.name;
            let Some(word) = asked.iter().find(|word| word.name == *name) else {
                return Some(format!(
                    "no reserve_mem= of the new command line names {name} ({pool}): its contents are lost, and \
                     its memory stays reserved until a reboot"
                ));
            };
            (!pool.is_asked_by(word)).then(|| {
                format!(
                    "reserve_mem={} does not match {name} ({pool}): its contents are lost, and its memory \
                     stays reserved until a reboot",
                    word.text
                )
            })
        };
        let pools = self.reserved();
        let (mut said, mut kept) = (Vec::new(), Vec::new());
        for pool in &pools {
            match lost(pool) {
                Some(lost) => said.push(lost),
                None => kept.push(pool.name.as_str()),
            }
        }
        said.extend(self.ends_with_next(&kept));
        said
    }

    /// Why the next kernel takes `pools` back and does not hand them on: with KHO off it
    /// hands over nothing, and no record of rkexec names them.
    fn ends_with_next(&self, pools: &[&str]) -> Option<String> {
        if pools.is_empty() {
            return None;
        }
        let why = match self.target.is_on(self.line) {
            Fact::Yes => return None,
            Fact::No => "",
            Fact::Unknown => ", and nothing shows that the new kernel does by itself",
        };
        Some(format!(
            "the next kernel takes {} back, and cannot hand it on: the new command line does not turn on KHO \
             (kho=on){why}",
            pools.join(" and ")
        ))
    }

    /// What the running kernel set aside by `reserve_mem=`.
    fn reserved(&self) -> Vec<Reserved> {
        let blob = self.kho.state.memblock.as_deref();
        reserved::reserved(blob, self.running_line)
    }

    /// What the next kernel has no memory for: all that it sets aside when it starts comes
    /// out of the scratch memory. Also what takes scratch memory away from it.
    fn scratch(&self) -> Vec<String> {
        let Some(scratch) = &self.kho.state.scratch else {
            return Vec::new();
        };
        let largest = scratch.iter().map(|region| region.size()).max();
        let largest = largest.unwrap_or(0);
        let pieces = set_aside::pieces(self.line, self.ram);
        let mut lost: Vec<String> = self
            .wanted(&pieces)
            .into_iter()
            .filter(|(_, size)| *size > largest)
            .map(|(word, _)| {
                format!(
                    "{word} of the new command line does not fit into the scratch memory of Kexec Handover \
                     ({} in one piece), where the new kernel looks for it: boot this kernel with a larger \
                     kho_scratch=",
                    human(largest)
                )
            })
            .collect();
        lost.extend(set_aside::misplaced(&pieces, scratch));
        // What sets memory aside leaves it in the map.
        let mut hiding = self.taken.clone();
        hiding.retain(|taken| !["crashkernel", "cma"].contains(&taken.parameter));
        let hidden = |region: &PhysRange| {
            let taken = hiding.iter().find(|taken| taken.range.overlaps(*region))?;
            Some(format!(
                "{} of the new command line takes away scratch memory of Kexec Handover at {region:#}, which the \
                 new kernel uses all the same",
                taken.word
            ))
        };
        lost.extend(scratch.iter().filter_map(hidden));
        lost
    }

    /// The words of the new command line that set memory aside where there is room, and
    /// how much each wants in one piece, bytes.
    fn wanted(&self, pieces: &[Pieces]) -> Vec<(String, u64)> {
        let is_placed = |piece: &&Pieces| matches!(piece.place, Place::At(_) | Place::Over(_));
        let anywhere = pieces.iter().filter(|piece| !is_placed(piece));
        let anywhere = anywhere.map(|piece| (piece.word.clone(), piece.size));
        let given = self.reserved();
        let fresh = reserved::words(self.line).into_iter();
        let fresh = fresh
            .filter(|word| !given.iter().any(|pool| pool.is_asked_by(word)))
            .map(|word| (format!("reserve_mem={}", word.text), word.size));
        anywhere.chain(fresh).collect()
    }
}

#[cfg(test)]
#[path = "kho_tests.rs"]
mod tests;
