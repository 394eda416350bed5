//! Pools in the plan: how they are protected, and what the command line says.

use super::{Inputs, PlanError};
use crate::base::Told;
use crate::carry::{Capability, Handover, HandoverError, PlannedPool, Protection, pool, protect};
use crate::cmdline::{self, Cmdline};

/// The pools as they are handed over.
#[derive(Debug)]
pub(super) struct Pools {
    /// Each with its protection.
    pub planned: Vec<PlannedPool>,
    /// The command line with what the protection adds.
    pub cmdline: Cmdline,
    /// What the operator should know.
    pub warning: Option<String>,
}

/// Chooses the protection of the pools in `handover`.
pub(super) fn protect(
    inputs: Inputs<'_, '_>,
    handover: &Handover,
    target: impl FnOnce() -> Capability,
    cmdline: &Cmdline,
) -> Result<Pools, PlanError> {
    if let Some(why) = inputs.boot.reserves_pools() {
        let planned = handover.pools.iter().map(|carried| PlannedPool {
            pool: carried.pool.clone(),
            origin: carried.origin,
            protection: Protection::Reserved,
            reason: why.to_owned(),
        });
        return Ok(Pools {
            planned: planned.collect(),
            cmdline: cmdline.clone(),
            warning: None,
        });
    }
    if !handover.has_pools() {
        return without_pools(inputs, handover, cmdline);
    }
    let (wish, target) = (&inputs.request.handover, target());
    let (chosen, reason) = protect::choose(wish.protect, wish.assume_pmpool, &target)?;
    let named = handover.check_cmdline(cmdline.as_bstr())?;
    let (mut cmdline, mut warning) = (cmdline.clone(), None);
    if chosen == Protection::Kernel {
        handover.check_alignment()?;
        (cmdline, warning) = add_parameters(handover, &target, named, cmdline)?;
    }
    let planned = handover.pools.iter().map(|carried| {
        let pool = &carried.pool;
        let (protection, reason) = match chosen {
            Protection::Kernel if pool.name() != pool::DEFAULT_NAME => others(&target),
            chosen => (chosen, reason.clone()),
        };
        PlannedPool {
            pool: pool.clone(),
            origin: carried.origin,
            protection,
            reason,
        }
    });
    let pools = Pools {
        planned: planned.collect(),
        cmdline,
        warning,
    };
    check_line(inputs, &pools)?;
    Ok(pools)
}

/// Checks that no word of the command line takes memory of a pool away.
fn check_line(inputs: Inputs<'_, '_>, pools: &Pools) -> Result<(), PlanError> {
    for planned in &pools.planned {
        let (pool, (told, _)) = (&planned.pool, told(planned.protection));
        let taken = inputs.boot.taken(pools.cmdline.as_bstr(), told);
        let mut others = taken.into_iter().filter(|it| it.parameter != "pmpool");
        if let Some(taken) = others.find(|it| it.range.overlaps(pool.range())) {
            return Err(HandoverError::TakenAway {
                name: pool.name().to_owned(),
                range: pool.range(),
                word: taken.word,
            }
            .into());
        }
    }
    Ok(())
}

/// Checks a command line that no pools are passed with.
fn without_pools(
    inputs: Inputs<'_, '_>,
    handover: &Handover,
    cmdline: &Cmdline,
) -> Result<Pools, PlanError> {
    let line = cmdline.as_bstr();
    let mut warning = None;
    if !inputs.request.handover.no_carry {
        handover.check_cmdline(line)?;
    } else if cmdline::has(line, "pmpool") {
        warning = Some(
            "pmpool= on the command line names no pool that is passed to the next kernel: what lies there is lost"
                .to_owned(),
        );
    }
    Ok(Pools {
        planned: Vec::new(),
        cmdline: cmdline.clone(),
        warning,
    })
}

/// Protection for the pools besides the one that `pmpool=` names. Without it they
/// would be free memory until the next kernel reads the tree.
fn others(target: &Capability) -> (Protection, String) {
    let why = format!("pmpool= names {} only", pool::DEFAULT_NAME);
    if target.knows_indirect() {
        (Protection::Indirect, why)
    } else {
        (Protection::Reserved, why)
    }
}

/// The command line with the parameters that protection `kernel` needs, and a warning.
fn add_parameters(
    handover: &Handover,
    target: &Capability,
    named: bool,
    mut cmdline: Cmdline,
) -> Result<(Cmdline, Option<String>), PlanError> {
    if let (Some(pool), false) = (handover.default_pool(), named) {
        let parameter = format!("pmpool={}", pool.cmdline_value());
        cmdline = cmdline.with(&parameter)?;
    }
    if target.surely_stays_put() || cmdline::has(cmdline.as_bstr(), "nokaslr") {
        return Ok((cmdline, None));
    }
    let warning = "nokaslr was added: KASLR chooses the next kernel's place before anybody reads the \
                   device tree, and could choose a pool";
    Ok((cmdline.with("nokaslr")?, Some(warning.to_owned())))
}

/// What the next kernel's map says of a pool, and why.
pub(super) fn told(protection: Protection) -> (Told, &'static str) {
    match protection {
        Protection::Kernel => (
            Told::RAM,
            "a pool: described to the next kernel, which takes it over",
        ),
        Protection::Reserved => (
            Told::RESERVED,
            "a pool: reserved, so that every kernel keeps off",
        ),
        Protection::Indirect => (
            Told::RAM,
            "a pool: RAM under a SETUP_INDIRECT node, which every kernel since 5.5 reserves",
        ),
    }
}
