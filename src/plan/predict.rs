//! The frame of a load by kexec_file_load: the running kernel places everything, and this
//! program foretells what comes of it.

use std::borrow::Cow;

use super::{Ground, Inputs, Method, Plan, PlanError, decide, excluded, place};
use crate::layout::{self, Blobs};
use crate::memory::{UNKNOWN_KERNEL_MAP, kernel_map};
use crate::sys::FileFlags;

/// Plans a load by file.
pub(super) fn by_file<'a>(
    inputs: Inputs<'_, 'a>,
    mut ground: Ground,
    flags: FileFlags,
) -> Result<Plan<'a>, PlanError> {
    let boot = inputs.boot;
    let warning = excluded::file_load_warning(&ground.excluded);
    ground.warnings.extend(warning);
    // The next kernel starts in scratch memory, whatever its command line takes away.
    let excluded = match place::in_scratch(&ground) {
        Some(_) => Cow::Owned(excluded::without_line(&ground.excluded)),
        None => Cow::Borrowed(&ground.excluded),
    };
    let fits = place::fits(inputs, &ground, &excluded)
        .map_err(|error| place::explain(error, inputs, &ground));
    let (mut told, mut blobs) = (kernel_map(inputs.host), None);
    if ground.crash.is_some() {
        told = ground.memory_map.told();
        fits?;
        let parts = layout::parts(inputs.initrds, usize::MAX);
        blobs = Some(Blobs::of_parts(&boot.kernel_parts(), &parts));
    } else if let Err(error @ (PlanError::TakenAway { .. } | PlanError::NotInScratch(_))) = fits {
        // For other reasons the running kernel's own answer says more.
        return Err(error);
    } else if told.is_empty() {
        ground.warnings.push(UNKNOWN_KERNEL_MAP.to_owned());
    }
    let map = &ground.memory_map;
    let target = inputs.request.target;
    let harm = decide::harm(target, inputs.host, boot, map, &told, &ground.cmdline);
    let harm = harm
        .into_iter()
        .map(|harm| format!("kexec_file_load {}", harm.what));
    ground.warnings.extend(harm);
    told.truncate(boot.file_map_entries());
    ground.warnings.extend(lost_tree(inputs, &ground, flags));
    ground.warnings.extend(boot.map_warning(&told));
    let method = Method::File {
        kernel: inputs.image.file(),
        initrds: inputs.initrds.to_vec(),
        flags,
    };
    Ok(ground.plan(method, told, blobs))
}

/// A warning that a device tree is left behind.
fn lost_tree(inputs: Inputs<'_, '_>, ground: &Ground, flags: FileFlags) -> Option<String> {
    let of_uki = inputs.request.handover.uki_dtb.is_some();
    let keeps_the_running_one = flags.force_dtb && !of_uki;
    ground.tree.as_ref().filter(|_| !keeps_the_running_one)?;
    let whose = if of_uki {
        "the UKI"
    } else {
        "the running kernel"
    };
    Some(format!(
        "kexec_file_load leaves the device tree of {whose} behind"
    ))
}
