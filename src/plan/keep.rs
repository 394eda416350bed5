//! What becomes of the state that the running kernel hands over by Kexec Handover (KHO).
//!
//! It is kept where that is possible: the running kernel hands it over itself with
//! kexec_file_load, and where only kexec_load can do what is asked, the loader passes its
//! tree on. It is lost only where `--kho drop` says so.

use super::decide::{self, Asked};
use super::{Decision, KhoError, KhoPlan, PlanError, Way};
use crate::base::{PhysRange, Syscall, Target};
use crate::carry::reserved;
use crate::host::Host;
use crate::host::kho::Kho;
use crate::kho::Node;
use crate::kho::forward::{self, ForwardError};
use crate::memory::MemoryKind;
use crate::request::KhoChoice;

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Running {
    /// There is nothing to lose: KHO is off, or hands over no more than its own metadata. Or
    /// a crash kernel is loaded, which takes nothing over.
    Nothing,
    /// The running kernel hands it over itself.
    Kept,
    /// The loader passes the tree on, in this node. Every segment must lie in the scratch
    /// memory of the running kernel, because what is outside may be preserved.
    Forwarded {
        /// The node with the tree.
        node: Node,
        /// The scratch memory.
        scratch: Vec<PhysRange>,
    },
    /// It is lost, as was asked for.
    Dropped,
}

/// Whether the next kernel gets the tree of the running kernel, by `choice`.
pub(super) fn is_own(choice: KhoChoice, kho: &Kho) -> bool {
    match choice {
        KhoChoice::Auto => kho.forbids_kexec_load().is_some(),
        KhoChoice::Forward => true,
        KhoChoice::Drop => false,
    }
}

/// Decides the system call, and what becomes of what the running kernel hands over.
///
/// # Errors
/// As [`decide::decide`], and when something would be lost that was not given up.
pub(super) fn decide(asked: Asked<'_, '_>) -> Result<(Decision, Running), PlanError> {
    let Asked { request, host, .. } = asked;
    let kho = &host.security.kho;
    if request.target == Target::Crash {
        return Ok((decide::decide(asked, None)?, Running::Nothing));
    }
    if request.kho == KhoChoice::Forward {
        let forwarded = forwarded(asked, kho).map_err(KhoError::Forward)?;
        return Ok((decide::decide(asked, None)?, forwarded));
    }
    let Some(lost) = kho.forbids_kexec_load() else {
        return Ok((decide::decide(asked, None)?, Running::Nothing));
    };
    if request.kho == KhoChoice::Drop {
        let decision = decide::decide(asked, None)?;
        let running = match decision.name {
            Syscall::KexecLoad => Running::Dropped,
            Syscall::KexecFileLoad => Running::Kept,
        };
        return Ok((decision, running));
    }
    match decide::decide(asked, Some(lost.clone())) {
        Ok(decision) if decision.name == Syscall::KexecFileLoad => Ok((decision, Running::Kept)),
        // It was asked for with --syscall.
        Ok(decision) => {
            let forwarded = forwarded(asked, kho);
            let forwarded = forwarded.map_err(|why| KhoError::Lost { lost, why })?;
            Ok((decision, forwarded))
        }
        Err(error) => instead_of(error, asked),
    }
}

/// Passes the tree on where kexec_file_load cannot do what is asked, and `error` says so.
fn instead_of(error: PlanError, asked: Asked<'_, '_>) -> Result<(Decision, Running), PlanError> {
    let host = asked.host;
    let security = &host.security;
    if security.forbids_kexec_load(host.secure_boot()).is_some() {
        return Err(error);
    }
    let PlanError::NoSyscall {
        forbidden,
        harm,
        way_out,
    } = error
    else {
        return Err(error);
    };
    let kho = &security.kho;
    match forwarded(asked, kho) {
        Ok(forwarded) => {
            let mut decision = decide::decide(asked, None)?;
            decision.reason += "; what the running kernel hands over is passed on with it";
            Ok((decision, forwarded))
        }
        Err(why) => {
            let drop = format!("--kho drop loses {}", kho.in_words());
            let ways = way_out.into_iter().chain(why.hint().map(str::to_owned));
            let ways: Vec<String> = ways.chain([drop]).collect();
            Err(PlanError::NoSyscall {
                forbidden,
                harm: format!("{harm}; and it cannot be passed on: {why}"),
                way_out: Some(ways.join("; ")),
            })
        }
    }
}

fn forwarded(asked: Asked<'_, '_>, kho: &Kho) -> Result<Running, ForwardError> {
    let (tree, scratch) = forward::forward(kho)?;
    if !asked.boot.takes_kho() {
        return Err(ForwardError::NotTaken);
    }
    if let Some(pool) = pool_in_use(asked) {
        return Err(ForwardError::PoolInUse(pool));
    }
    let tree = tree.write().map_err(ForwardError::Write)?;
    let node = Node::new(scratch.clone(), tree).ok_or(ForwardError::Malformed {
        offset: 0,
        why: "it is too large for a node",
    })?;
    Ok(Running::Forwarded { node, scratch })
}

/// A new pool in memory where the running kernel may have put what it preserves.
fn pool_in_use(asked: Asked<'_, '_>) -> Option<String> {
    let is_ram = |kind: &MemoryKind| matches!(kind, MemoryKind::Ram | MemoryKind::HotAddedRam);
    let in_use = |range: PhysRange| {
        let mut regions = asked.map.regions().iter();
        regions.any(|region| is_ram(&region.kind) && region.range.overlaps(range))
    };
    let mut pools = asked.handover.pools.iter();
    let found = pools.find(|carried| carried.is_new() && in_use(carried.pool.range()));
    found.map(|carried| carried.pool.name().to_owned())
}

impl Running {
    /// Whether the next kernel is given what the running kernel hands over.
    pub(super) const fn is_handed_over(&self) -> bool {
        matches!(self, Self::Kept | Self::Forwarded { .. })
    }

    /// A warning of what is lost with it.
    pub(super) fn lost(&self, kho: &Kho) -> Option<String> {
        matches!(self, Self::Dropped).then(|| {
            let what = kho.in_words();
            format!("--kho drop: {what} is lost, which Kexec Handover (KHO) preserves")
        })
    }

    /// Why `choice` has no effect on it.
    pub(super) fn idle(&self, choice: KhoChoice, kho: &Kho) -> Option<String> {
        let what = kho.in_words();
        match (self, choice) {
            (Self::Kept, KhoChoice::Drop) => Some(format!(
                "--kho drop has no effect: with kexec_file_load the running kernel hands over {what} itself"
            )),
            (Self::Nothing, KhoChoice::Drop) => Some(
                "--kho drop has no effect: the running kernel hands over nothing by Kexec Handover (KHO)"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    /// What the plan says of it; `None` when there is nothing.
    pub(super) fn plan(&self, host: &Host) -> Option<KhoPlan> {
        let state = &host.security.kho.state;
        let way = match self {
            Self::Nothing => return None,
            Self::Kept => Way::Kept,
            Self::Forwarded { .. } => Way::Forwarded,
            Self::Dropped => Way::Dropped,
        };
        let scratch = match self {
            Self::Dropped | Self::Nothing => Vec::new(),
            Self::Kept => state.scratch.clone().unwrap_or_default(),
            Self::Forwarded { scratch, .. } => scratch.clone(),
        };
        let pools = match self.is_handed_over() && host.security.kho.preserves_pools() {
            true => reserved::reserved(state.memblock.as_deref(), host.cmdline.as_ref()),
            false => Vec::new(),
        };
        let pools = pools.into_iter().map(|pool| pool.name);
        Some(KhoPlan {
            way,
            format: state.format.clone().unwrap_or_else(|| "unknown".to_owned()),
            scratch,
            scratch_sum: Vec::new(),
            preserved: Vec::new(),
            carried: Vec::new(),
            pools: pools.collect(),
        })
    }
}

#[cfg(test)]
#[path = "keep_tests.rs"]
pub(super) mod tests;
