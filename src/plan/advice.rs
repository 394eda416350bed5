//! What the operator is told of a command line and of a reservation.

use bstr::{BStr, ByteSlice as _};

use super::{LoadRequest, Plan, PlanError};
use crate::cmdline::{self, CmdlineBase};
use crate::crash::sizing::{self, Sizing};
use crate::host::Host;
use crate::image::LinuxKernel;

/// A crash kernel that finds no place in its reservation is told of as such, with the
/// reservation that it needs; other errors stay.
pub(super) fn of_crash(
    error: PlanError,
    request: &LoadRequest,
    host: &Host,
    plan: &Plan<'_>,
    image: &LinuxKernel<'_>,
    initrds: &[&[u8]],
) -> PlanError {
    let Some(crash) = &plan.crash else {
        return error;
    };
    error.of_crash(|hole| {
        if request.mem_min.is_some() || request.mem_max.is_some() {
            return "--mem-min and --mem-max bound the place in the reservation: leave them out"
                .to_owned();
        }
        let reservation = &crash.reservation;
        let sizing = Sizing::of(
            reservation,
            u64::from(image.header.init_size.get()),
            initrds,
        );
        let needed = sizing.map_or(0, |sizing| sizing.needed());
        // At least what is missing for the place that was not found.
        let largest = hole.largest.first().map_or(0, |range| range.size());
        let missing = hole.size.saturating_sub(largest).saturating_add(hole.align);
        let more = reservation.target.size().saturating_add(missing);
        let parameter = sizing::parameter(needed.max(more), host.cmdline.as_bstr());
        format!(
            "boot with {parameter} (or more) on the kernel's command line, or take a smaller initrd"
        )
    })
}

/// That `line`, which the request made, is empty. Who gives an empty line means it.
pub(super) fn empty_line(request: &LoadRequest, line: &BStr) -> Option<String> {
    let is_empty = |line: &BStr| line.trim_ascii().is_empty();
    let given =
        matches!(&request.cmdline.base, CmdlineBase::Given(line) if is_empty(line.as_bstr()));
    (is_empty(line) && !given).then(|| {
        "the command line is empty (--cmdline, --reuse-cmdline or --append give one)".to_owned()
    })
}

/// Parameters by which a capture kernel takes memory from itself, and what it does then.
const UNFIT_FOR_CRASH: [(&str, &str); 2] = [
    (
        "crashkernel",
        "reserves memory for a crash kernel of its own",
    ),
    ("hugepages", "sets huge pages aside"),
];

/// A warning for each such parameter on a crash kernel's command line.
pub(super) fn unfit_for_crash(line: &BStr) -> impl Iterator<Item = String> {
    let unfit = UNFIT_FOR_CRASH.iter();
    let there = unfit.filter(move |(parameter, _)| cmdline::has(line, parameter));
    there.map(|(parameter, harm)| {
        format!(
            "the command line has {parameter}=: the capture kernel {harm} out of the reservation that it \
             runs in. Take it out of the command line"
        )
    })
}
