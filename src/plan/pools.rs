//! Pools in the plan: how they are protected, and what the command line says.

use super::{Plan, PlanError, PlannedPool, taken};
use crate::base::Told;
use crate::carry::{Capability, Handover, HandoverError, Protection, pool, protect};
use crate::cmdline;
use crate::request::LoadRequest;

/// Chooses the protection and writes it into map and command line.
pub(super) fn protect(
    request: &LoadRequest,
    handover: &Handover,
    target: &Capability,
    plan: &mut Plan<'_>,
) -> Result<(), PlanError> {
    let wish = &request.handover;
    let (chosen, reason) = protect::choose(wish.protect, wish.assume_pmpool, target)?;
    let named = handover.check_cmdline(plan.cmdline.as_bstr())?;
    if chosen == Protection::Kernel {
        handover.check_alignment()?;
        add_parameters(handover, target, named, plan)?;
    }
    for carried in &handover.pools {
        let pool = &carried.pool;
        let (protection, reason) = match chosen {
            Protection::Kernel if pool.name() != pool::DEFAULT_NAME => others(target),
            chosen => (chosen, reason.clone()),
        };
        let (told, why) = told(protection);
        plan.memory_map
            .set_pool(pool.range(), pool.name(), told, why);
        plan.pools.push(PlannedPool {
            pool: pool.clone(),
            origin: carried.origin,
            protection,
            reason,
        });
    }
    check_line(plan)
}

/// Checks that no word of the command line takes memory of a pool away.
fn check_line(plan: &Plan<'_>) -> Result<(), PlanError> {
    for planned in &plan.pools {
        let (pool, (told, _)) = (&planned.pool, told(planned.protection));
        let taken = taken::taken(plan.cmdline.as_bstr(), told);
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

/// Adds the parameters that protection `kernel` needs.
fn add_parameters(
    handover: &Handover,
    target: &Capability,
    named: bool,
    plan: &mut Plan<'_>,
) -> Result<(), PlanError> {
    if let (Some(pool), false) = (handover.default_pool(), named) {
        let parameter = format!("pmpool={}", pool.cmdline_value());
        plan.cmdline = plan.cmdline.with(&parameter)?;
    }
    if !target.surely_stays_put() && !cmdline::has(plan.cmdline.as_bstr(), "nokaslr") {
        plan.cmdline = plan.cmdline.with("nokaslr")?;
        plan.warnings.push(
            "nokaslr was added: KASLR chooses the next kernel's place before anybody reads the \
             device tree, and could choose a pool"
                .to_owned(),
        );
    }
    Ok(())
}

/// The e820 type of a pool in the next kernel's map, and why.
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
