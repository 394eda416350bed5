//! Pools in the plan: how they are protected, and what the command line says.

use super::{LoadRequest, Plan, PlanError, PlannedPool, cmdline};
use crate::handover::capability::{Capability, Fact};
use crate::handover::{Handover, Protection, protect};
use crate::image::BzImage;
use crate::memory::E820Type;

/// Chooses the protection and writes it into map and command line.
pub(super) fn protect(
    request: &LoadRequest,
    image: &BzImage<'_>,
    handover: &Handover,
    target: &Capability,
    plan: &mut Plan<'_>,
) -> Result<(), PlanError> {
    let wish = &request.handover;
    let (protection, reason) = protect::choose(wish.protect, wish.assume_pmpool, target)?;
    let named = handover.check_cmdline(plan.cmdline.as_str())?;
    let limit = image.cmdline_limit();
    if protection == Protection::Kernel {
        handover.check_alignment()?;
        if let (Some(pool), false) = (handover.default_pool(), named) {
            plan.cmdline = plan
                .cmdline
                .with(&format!("pmpool={}", pool.cmdline_value()), limit)?;
        }
        if target.randomize_base.value != Fact::No
            && !cmdline::has(plan.cmdline.as_str(), "nokaslr")
        {
            plan.cmdline = plan.cmdline.with("nokaslr", limit)?;
            plan.warnings.push(
                "nokaslr was added: KASLR chooses the next kernel's place before anybody reads the device tree, \
                 and could choose a pool"
                    .to_owned(),
            );
        }
    }
    let (told, why) = match protection {
        Protection::Kernel => (
            E820Type::RAM,
            "a pool: described to the next kernel, which takes it over",
        ),
        Protection::Reserved => (
            E820Type::RESERVED,
            "a pool: reserved, so that every kernel keeps off",
        ),
        Protection::Indirect => (
            E820Type::RAM,
            "a pool: RAM under a SETUP_INDIRECT node, which every kernel reserves",
        ),
    };
    for carried in &handover.pools {
        let pool = &carried.pool;
        plan.memory_map
            .set_pool(pool.range(), pool.name(), told, why);
        plan.pools.push(PlannedPool {
            pool: pool.clone(),
            origin: carried.origin,
            protection,
            reason: reason.clone(),
        });
    }
    Ok(())
}
