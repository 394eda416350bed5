//! The files of `--carry` where the running kernel hands them over: `exec` makes a session
//! of them just before the jump, and the plan says whether the next kernel gives them back.

use super::built::{CarryError, Known, cannot_tell, check_line_counts, first, known};
use super::keep::Running;
use super::kho::large_pages;
use super::{Carried, CarriedFile, Inputs, KhoPlan, PlanError, Way};
use crate::abi::kho::memfd_of_release;
use crate::base::{human, version};
use crate::carry::Capability;
use crate::carry::capability::Fact;
use crate::carry::manifest::{Manifest, Proof, Sha256Sum, TOKEN};

/// Why the running kernel does not hand the files over to the next one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AtExecError {
    /// The running kernel takes no files.
    #[error(
        "this kernel hands over {0} and has no live update, so that it cannot hand over files as well"
    )]
    NoLiveUpdate(String),
    /// The next kernel reads another format.
    #[error("the new kernel reads {reads}, this kernel hands over {given}: {file} would be lost")]
    Other {
        /// What the next kernel reads.
        reads: String,
        /// What the running kernel writes.
        given: String,
        /// The first file.
        file: String,
    },
    /// The copies that `exec` makes would crash the next kernel.
    #[error("{0}")]
    LargePages(String),
    /// The files do not fit into memory.
    #[error(
        "exec copies the files of --carry to memory: they are {}, and this machine has {}",
        human(*size),
        human(*ram)
    )]
    TooLarge {
        /// All files together, bytes.
        size: u64,
        /// RAM of the machine, bytes.
        ram: u64,
    },
    /// What the running kernel writes is not known.
    #[error("cannot tell in which format this kernel hands over files: {0} may be lost")]
    Given(String),
}

impl AtExecError {
    /// A way out.
    pub(super) const fn hint(&self) -> &'static str {
        match self {
            Self::NoLiveUpdate(_) => {
                "boot this kernel with liveupdate=on; --kho drop loses what it hands over, and rkexec hands over \
                 the files"
            }
            Self::Other { .. } => "load a kernel that reads the same format, or leave --carry out",
            Self::LargePages(_) => {
                "echo never > /sys/kernel/mm/transparent_hugepage/shmem_enabled, and load again; it must be so at exec, too"
            }
            Self::TooLarge { .. } => "carry less",
            Self::Given(_) => "mount debugfs, which shows it (/sys/kernel/debug/kho)",
        }
    }
}

/// What the operator must know of them.
pub(super) const WARNING: &str = "exec reads the files of --carry just before the jump: their contents are those at exec, not those now. Only \
                                  rkexec exec and the kexec -e of rkexec hand them over: exec --shutdown and \
                                  systemctl kexec do not";

/// Whether `exec` hands the files over: the running kernel hands over what it preserves,
/// and they go with it.
pub(super) fn is_way(running: &Running, carried: &[Carried<'_>]) -> bool {
    running.is_handed_over() && !carried.is_empty()
}

/// Puts the files into `plan`. Their contents are those at `exec`.
pub(super) fn put(plan: &mut KhoPlan, carried: &[Carried<'_>]) {
    if plan.way == Way::Kept {
        plan.way = Way::AtExec;
    }
    let tokens = TOKEN + 1..;
    let files = tokens.zip(carried).map(|(token, file)| CarriedFile {
        name: file.name.clone(),
        size: file.bytes.len() as u64,
        token,
        sha256: None,
    });
    plan.carried = files.collect();
}

/// Checks that the running kernel takes the files, and that the kernel `target` gives them
/// back.
///
/// # Errors
/// When one of them does not, or may not.
pub(super) fn check(inputs: Inputs<'_, '_>, target: &Capability) -> Result<(), PlanError> {
    let Inputs {
        request,
        host,
        image,
        carried,
        ..
    } = inputs;
    let own = &host.security.kho;
    if !own.preserves_luo() {
        return Err(AtExecError::NoLiveUpdate(own.in_words()).into());
    }
    check_names(carried)?;
    let kho = &target.kho;
    check_line_counts(kho)?;
    let file = || first(carried);
    let parts = [
        (
            known(&kho.kho, &kho.built.value),
            own.state.format.clone(),
            CarryError::NoKho { file: file() },
        ),
        (
            known(&kho.luo, &kho.liveupdate.value),
            own.sessions_format(&host.release),
            CarryError::NoLuo { file: file() },
        ),
        (
            known(&kho.memfd, &kho.liveupdate_memfd.value),
            memfd_of_release(version(&host.release)).map(str::to_owned),
            CarryError::NoMemfd,
        ),
    ];
    let same_release = image.release() == Some(host.release.as_str());
    let assumed = request.assume_kho.is_some();
    for (reads, given, nothing) in parts {
        match (reads, given) {
            (Known::Nothing, _) => return Err(nothing.into()),
            (Known::Reads(reads), Some(given)) if reads != given => {
                let (reads, file) = (reads.to_owned(), file());
                return Err(AtExecError::Other { reads, given, file }.into());
            }
            (Known::Reads(_), Some(_)) => {}
            _ if same_release => {}
            (_, None) => return Err(AtExecError::Given(file()).into()),
            (Known::No(found), Some(_)) => cannot_tell(assumed, target, found)?,
        }
    }
    Ok(())
}

/// Checks that the copies that `exec` makes have no pages that crash the kernel `target`.
/// Gives a warning where they may.
pub(super) fn check_pages(
    inputs: Inputs<'_, '_>,
    target: &Capability,
) -> Result<Option<String>, AtExecError> {
    match large_pages(&inputs.host.security.kho, &target.kho) {
        Some((Fact::No, why)) => Err(AtExecError::LargePages(why)),
        may_crash => Ok(may_crash.map(|(_, why)| why)),
    }
}

/// Checks that the files fit into memory when `exec` copies them there. Gives a warning
/// where they would not now.
pub(super) fn check_size(inputs: Inputs<'_, '_>) -> Result<Option<String>, AtExecError> {
    let (ram, available) = (inputs.host.total_ram, inputs.host.available_ram);
    let sizes = inputs.carried.iter().map(|file| file.bytes.len() as u64);
    let size = sizes.sum();
    // 0: it is not known.
    if ram != 0 && size > ram {
        return Err(AtExecError::TooLarge { size, ram });
    }
    let is_short = available != 0 && size > available;
    Ok(is_short.then(|| {
        format!(
            "exec copies the files of --carry to memory: they are {}, and {} are available now: exec fails unless \
             more is available then",
            human(size),
            human(available)
        )
    }))
}

/// Checks that a manifest can name the files.
fn check_names(carried: &[Carried<'_>]) -> Result<(), CarryError> {
    let unread = carried.iter().map(|file| {
        let size = file.bytes.len() as u64;
        let sha256 = Sha256Sum::default();
        (file.name.clone(), Proof { size, sha256 })
    });
    Manifest::new(unread.collect())?;
    Ok(())
}

#[cfg(test)]
#[path = "at_exec_tests.rs"]
mod tests;
