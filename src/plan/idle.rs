//! Options that have no effect, for a warning: mostly a typing mistake.

use bstr::BStr;

use crate::base::Target;
use crate::base::bytes::shown;
use crate::boot::Protocol;
use crate::carry::{Handover, Protection};
use crate::cmdline::{self, Cmdline};
use crate::host::Host;
use crate::request::LoadRequest;

/// A warning for each option of `request` that has no effect.
pub(super) fn warnings(
    request: &LoadRequest,
    host: &Host,
    boot: Protocol<'_, '_>,
    handover: &Handover,
) -> Vec<String> {
    let mut idle = Vec::new();
    let not_there = Cmdline::not_there(&request.cmdline, &host.cmdline);
    for unwanted in not_there
        .into_iter()
        .filter(|it| !is_precaution(request, it))
    {
        idle.push(format!(
            "--remove {} has no effect: it is not on the command line",
            shown(unwanted)
        ));
    }
    let pools = &request.handover;
    let no_pools = match request.target {
        Target::Normal => "no pool is passed to the next kernel (--pool BASE,SIZE)",
        Target::Crash => "a crash kernel takes over no pools",
    };
    if pools.protect.is_some() && !handover.has_pools() {
        idle.push(format!("--pool-protect has no effect: {no_pools}"));
    }
    if pools.assume_pmpool && !handover.has_pools() {
        idle.push(format!("--assume-pmpool has no effect: {no_pools}"));
    } else if let (true, Some(why)) = (pools.assume_pmpool, boot.reserves_pools()) {
        idle.push(format!("--assume-pmpool has no effect: {why}"));
    } else if pools.assume_pmpool && pools.protect.is_some_and(|how| how != Protection::Kernel) {
        idle.push("--assume-pmpool has no effect with this --pool-protect".to_owned());
    }
    idle
}

/// Whether `unwanted` is removed for every crash kernel, on the line or not.
fn is_precaution(request: &LoadRequest, unwanted: &BStr) -> bool {
    request.target == Target::Crash && cmdline::UNFIT_FOR_CRASH.iter().any(|it| unwanted == *it)
}
