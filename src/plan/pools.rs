//! Pools in the plan: how they are protected, and what the command line says.

use bstr::{BStr, ByteSlice as _};

use super::{Inputs, PlanError, keep};
use crate::base::Told;
use crate::base::bytes::shown;
use crate::carry::capability::Fact;
use crate::carry::gather::CarriedPool;
use crate::carry::{
    Capability, Handover, HandoverError, KhoPoolError, PlannedPool, Protection, kho_pools, pool,
    protect,
};
use crate::cmdline::{self, Cmdline, CmdlineBase};

/// The pools as they are handed over.
#[derive(Debug)]
pub(super) struct Pools {
    /// Each with its protection.
    pub planned: Vec<PlannedPool>,
    /// The command line with what the protection adds.
    pub cmdline: Cmdline,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// What only informs.
    pub note: Option<String>,
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
            warnings: Vec::new(),
            note: None,
        });
    }
    if !handover.has_pools() {
        return without_pools(inputs, handover, cmdline);
    }
    let (wish, target) = (&inputs.request.handover, target());
    let by_kho = by_kho(inputs, wish.protect, &target).map_err(HandoverError::from)?;
    let (by_kho, unfit) = unfit(inputs, &handover.pools, cmdline, by_kho);
    let (chosen, mut reason) = protect::choose(wish.protect, wish.assume_pmpool, &target, by_kho)?;
    if let Some(unfit) = unfit.filter(|_| chosen != Protection::Kernel) {
        reason += &format!("; Kexec Handover does not preserve them: {unfit}");
    }
    let named = handover.check_cmdline(cmdline.as_bstr())?;
    let (mut cmdline, mut warnings) = (cmdline.clone(), Vec::new());
    let (mut warning, mut note) = (None, None);
    if chosen == Protection::Kernel {
        handover.check_alignment()?;
        let stays_put = inputs.boot.stays_put() || target.surely_stays_put();
        (cmdline, warning) = add_parameters(handover, stays_put, named, cmdline)?;
    }
    if chosen == Protection::Kho {
        (cmdline, warning) = take_back(&handover.pools, cmdline)?;
    } else {
        note = inputs.without_kho.map(|why| {
            format!("the pools are protected by {chosen}, and not by Kexec Handover: {why}")
        });
        (cmdline, warnings) = without_words(inputs, &handover.pools, chosen, cmdline);
    }
    warnings.extend(warning);
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
        warnings,
        note,
    };
    check_line(inputs, &pools)?;
    Ok(pools)
}

/// Whether Kexec Handover can preserve the pools, and why. `wish` is the protection that
/// was asked for.
fn by_kho(
    inputs: Inputs<'_, '_>,
    wish: Option<Protection>,
    target: &Capability,
) -> Result<(Fact, String), KhoPoolError> {
    let (request, kho) = (inputs.request, &inputs.host.security.kho);
    // Nothing can be added to the tree of the running kernel.
    let own = keep::is_own(request.kho, kho);
    match wish {
        Some(Protection::Kho) if own => Err(KhoPoolError::OwnTree(kho.in_words())),
        _ if own => Ok((Fact::No, String::new())),
        _ => Ok(kho_pools::revives(
            &target.kho,
            request.assume_kho.as_deref(),
        )),
    }
}

/// `by_kho`, and why Kexec Handover is not taken for `pools` although it could preserve
/// others: pools are carried without an option, so a load goes on without it unless it was
/// asked for.
fn unfit(
    inputs: Inputs<'_, '_>,
    pools: &[CarriedPool],
    cmdline: &Cmdline,
    by_kho: (Fact, String),
) -> ((Fact, String), Option<String>) {
    if inputs.request.handover.protect.is_some() || by_kho.0 != Fact::Yes {
        return (by_kho, None);
    }
    let untaken = take_back(pools, cmdline.clone()).err();
    let why = inputs.without_kho.map(str::to_owned);
    match why.or_else(|| untaken.map(|error| error.to_string())) {
        Some(why) => ((Fact::No, why.clone()), Some(why)),
        None => (by_kho, None),
    }
}

/// The command line with the words by which the next kernel takes `pools` back, and a
/// warning that names what was added.
pub(super) fn take_back(
    pools: &[CarriedPool],
    mut cmdline: Cmdline,
) -> Result<(Cmdline, Option<String>), PlanError> {
    let of_kernel = kho_pools::preserved(pools.iter().map(|carried| &carried.pool));
    let of_kernel = of_kernel.map_err(HandoverError::from)?;
    let words = kho_pools::words(&of_kernel, cmdline.as_bstr()).map_err(HandoverError::from)?;
    for word in &words {
        cmdline = cmdline.with(word)?;
    }
    let was = match &words[..] {
        [] => return Ok((cmdline, None)),
        [_] => "was",
        _ => "were",
    };
    let warning = format!(
        "{} {was} added: by that the next kernel takes back what Kexec Handover preserves",
        words.join(" ")
    );
    Ok((cmdline, Some(warning)))
}

/// `cmdline` without the words by which a kernel takes `pools` back, where they are protected
/// by `chosen` instead: the next kernel would set other memory aside by their names. Only
/// words of the running command line are left out. Gives what the operator should know.
fn without_words(
    inputs: Inputs<'_, '_>,
    pools: &[CarriedPool],
    chosen: Protection,
    mut cmdline: Cmdline,
) -> (Cmdline, Vec<String>) {
    let mut warnings = Vec::new();
    let is_reused = inputs.request.cmdline.base == CmdlineBase::Running;
    for pool in pools.iter().map(|carried| &carried.pool) {
        let (name, size) = (pool.name(), pool.range().size());
        let of_before = kho_pools::words_by_name(name, inputs.host.cmdline.as_bstr());
        let of_before: Vec<&BStr> = of_before
            .into_iter()
            .filter(|(_, asked)| is_reused && *asked == Some(size))
            .map(|(word, _)| word)
            .collect();
        let line = cmdline.clone();
        for (word, _) in kho_pools::words_by_name(name, line.as_bstr()) {
            let shown = shown(word);
            if of_before.contains(&word) {
                cmdline = cmdline.without_word(word);
                warnings.push(format!(
                    "{shown} of the running command line was left out: the pool {name} is protected by {chosen}, \
                     and the next kernel would set other memory aside by its name"
                ));
            } else {
                warnings.push(format!(
                    "{shown} of the new command line does not take the pool {name} back, which is protected by \
                     {chosen}: the next kernel sets other memory aside by that name"
                ));
            }
        }
    }
    (cmdline, warnings)
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
    let mut warnings = Vec::new();
    if !inputs.request.handover.no_carry {
        handover.check_cmdline(line)?;
    } else if cmdline::has(line, "pmpool") {
        warnings.push(
            "pmpool= on the command line names no pool that is passed to the next kernel: what lies there is lost"
                .to_owned(),
        );
    }
    Ok(Pools {
        planned: Vec::new(),
        cmdline: cmdline.clone(),
        warnings,
        note: None,
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
    stays_put: bool,
    named: bool,
    mut cmdline: Cmdline,
) -> Result<(Cmdline, Option<String>), PlanError> {
    if let (Some(pool), false) = (handover.default_pool(), named) {
        let parameter = format!("pmpool={}", pool.cmdline_value());
        cmdline = cmdline.with(&parameter)?;
    }
    if stays_put || cmdline::has(cmdline.as_bstr(), "nokaslr") {
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
        Protection::Kho => (
            Told::RAM,
            "a pool: RAM that Kexec Handover preserves, and reserve_mem= takes back",
        ),
    }
}
