//! The warning about a crash kernel's memory.

use bstr::{BStr, ByteSlice as _};

use crate::base::human;
use crate::crash::sizing::{Sizing, parameter};
use crate::host::Host;
use crate::load::Prepared;
use crate::plan::Plan;

/// A warning that the reservation may be too small; `None` when it is large enough.
pub(super) fn too_small(sizing: &Sizing, running: &BStr) -> Option<String> {
    if sizing.is_enough() {
        return None;
    }
    Some(format!(
        "the {} reserved for the crash kernel may be too small for it to run: {}; boot with {} or more",
        human(sizing.reserved),
        sum(sizing),
        parameter(sizing.needed(), running)
    ))
}

pub(super) fn sum(sizing: &Sizing) -> String {
    format!(
        "it needs {} (kernel {}, initrd {}, initrd unpacked {}, reserve {})",
        human(sizing.needed()),
        human(sizing.kernel),
        human(sizing.initrd),
        human(sizing.unpacked),
        human(sizing.margin)
    )
}

/// The same warning for a plan that was made of `prepared` for `host`.
pub(super) fn of_plan(plan: &Plan<'_>, host: &Host, prepared: &Prepared<'_>) -> Option<String> {
    let crash = plan.crash.as_ref()?;
    let kernel = prepared.image().memory_size();
    let sizing = Sizing::of(&crash.reservation, kernel, prepared.initrds())?;
    too_small(&sizing, host.cmdline.as_bstr())
}
