//! Advice for the operator: warnings, and how large a reservation must be.

use bstr::{BStr, ByteSlice as _};

use super::{CrashPlan, Inputs, PlanError};
use crate::base::{Syscall, Target, human};
use crate::cmdline::{self, CmdlineBase};
use crate::crash::sizing::{self, Sizing};
use crate::host::Host;
use crate::host::crash::DM_CRYPT_KEYS;
use crate::memory::{MapPolicy, MemoryKind, MemoryMap};
use crate::request::LoadRequest;

/// Turns "no place" for a crash kernel into an error that names the reservation it needs.
/// Other errors are passed on unchanged.
pub(super) fn of_crash(error: PlanError, inputs: Inputs<'_, '_>, crash: &CrashPlan) -> PlanError {
    let Inputs { request, host, .. } = inputs;
    error.of_crash(|hole| {
        if request.mem_min.is_some() || request.mem_max.is_some() {
            return "--mem-min and --mem-max bound the place in the reservation: leave them out"
                .to_owned();
        }
        let reservation = &crash.reservation;
        let sizing = Sizing::of(reservation, inputs.image.memory_size(), inputs.initrds);
        let needed = sizing.map_or(0, |sizing| sizing.needed());
        // Suggest at least as much more as the failed search lacked.
        let largest = hole.largest.first().map_or(0, |range| range.size());
        let missing = hole.size.saturating_sub(largest).saturating_add(hole.align);
        let more = reservation.target.size().saturating_add(missing);
        let parameter = sizing::parameter(needed.max(more), host.cmdline.as_bstr());
        format!(
            "boot with {parameter} (or more) on the kernel's command line, or take a smaller initrd"
        )
    })
}

/// A warning when `line` is empty, unless the request gave an empty line on purpose.
pub(super) fn empty_line(request: &LoadRequest, line: &BStr) -> Option<String> {
    let is_empty = |line: &BStr| line.trim_ascii().is_empty();
    let given =
        matches!(&request.cmdline.base, CmdlineBase::Given(line) if is_empty(line.as_bstr()));
    (is_empty(line) && !given).then(|| {
        "the command line is empty (--cmdline, --reuse-cmdline or --append give one)".to_owned()
    })
}

/// Parameters by which a crash kernel takes memory from itself, and what it does then.
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
            "the command line has {parameter}=: the crash kernel {harm} out of the reservation that it \
             runs in. Take it out of the command line"
        )
    })
}

/// What may go wrong with any load on the machine `host`, by what it runs on.
#[must_use]
pub fn general_warnings(host: &Host) -> Vec<String> {
    let mut warnings = Vec::new();
    warnings.extend(host.security.environment.warning().map(str::to_owned));
    if let Some(flag) = host.cpu.confidential {
        warnings.push(format!(
            "this is a confidential guest ({flag}): few kernels survive a kexec there"
        ));
    }
    warnings
}

/// A warning about RAM in `map` that is not handed over. With kexec_file_load the running
/// kernel hands it over, which has its own warning. A crash kernel gets only its own RAM.
pub(super) fn withheld(request: &LoadRequest, map: &MemoryMap) -> Option<String> {
    let rows = map.regions().iter();
    let rows = rows.filter(|region| region.kind == MemoryKind::Withheld && region.told.is_none());
    let withheld: u64 = rows.map(|region| region.range.size()).sum();
    let is_told = request.target == Target::Normal && request.memory_map == MapPolicy::FixedUp;
    (withheld > 0 && is_told).then(|| {
        format!(
            "{} of RAM are not used by the running kernel (mem=?) and not passed on; --memory-map firmware \
             passes them on",
            human(withheld)
        )
    })
}

/// What only informs: CPUs may come that the dump will not know.
pub(super) fn later_cpus(host: &Host, crash: &CrashPlan, syscall: Syscall) -> Option<String> {
    let present = host.crash.cpus.len() as u64;
    let possible = host.possible_cpus.unwrap_or(present);
    let updates = match syscall {
        Syscall::KexecFileLoad => host.loaded.crash_elfcorehdr_size.is_some(),
        Syscall::KexecLoad => crash.hotplug.is_some(),
    };
    (possible > present && !updates).then(|| {
        format!(
            "{present} of {possible} possible CPUs are there: the registers of one that comes later are in the \
             dump only when the crash kernel is loaded again (rkexec arm --watch)"
        )
    })
}

/// Warnings about a crash kernel with the command line `line`, loaded by `syscall`.
pub(super) fn crash_warnings(host: &Host, syscall: Syscall, line: &BStr) -> Vec<String> {
    let mut warnings = Vec::new();
    let by_kernel = syscall == Syscall::KexecFileLoad;
    let keys = host.crash.dm_crypt_keys.len();
    if keys > 0 && !by_kernel {
        warnings.push(format!(
            "the crash kernel gets none of the {keys} dm-crypt keys in {DM_CRYPT_KEYS}, and cannot \
             open the encrypted disk that the dump is for: only kexec_file_load passes them on"
        ));
    }
    if !cmdline::has(line, "reset_devices") {
        warnings.push(
            "reset_devices is missing on the command line: some drivers may fail after a crash. Add: \
             --append \"nr_cpus=1 reset_devices\""
                .to_owned(),
        );
    }
    warnings.extend(unfit_for_crash(line));
    // With kexec_file_load the running kernel saves a copy of this memory itself.
    if !by_kernel && crate::base::version(&host.release).is_some_and(|version| version < (5, 5)) {
        warnings.push(
            "the running kernel may use memory below 1 MiB (Linux before 5.5), and the dump does not hold it"
                .to_owned(),
        );
    }
    warnings
}
