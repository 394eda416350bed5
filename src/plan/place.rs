//! The frame of a load by kexec_load: everything in its place, digests, purgatory.

use std::borrow::Cow;

use super::{CrashPlan, Ground, Inputs, Method, Plan, PlanError, advice, excluded, validate};
use crate::base::{PhysRange, Target, Told, human};
use crate::boot::{Facts, TableSummary};
use crate::cmdline::Cmdline;
use crate::crash::{self, CrashError, elfcorehdr};
use crate::host::Host;
use crate::layout::{Blobs, Excluded, Places, Rest, Role, Segment, digests};
use crate::memory::MemoryMap;
use crate::purgatory::{self, Digest};

/// Plans a load by segments.
pub(super) fn by_segments<'a>(
    inputs: Inputs<'_, 'a>,
    mut ground: Ground,
) -> Result<Plan<'a>, PlanError> {
    let placed = place(inputs, &ground).map_err(|error| explain(error, inputs, &ground))?;
    ground.cmdline = placed.cmdline;
    if let Some(memory_map) = placed.memory_map {
        ground.memory_map = memory_map;
    }
    ground.warnings.extend(placed.warnings);
    let withheld = advice::withheld(inputs.request, &ground.memory_map);
    ground.warnings.extend(withheld);
    ground
        .warnings
        .extend(inputs.boot.map_warning(&placed.told));
    let method = Method::Segments {
        entry: placed.entry,
        segments: placed.segments,
        tables: placed.tables,
    };
    Ok(ground.plan(method, placed.told, placed.blobs))
}

/// What placing gives.
struct Placed<'a> {
    segments: Vec<Segment<'a>>,
    /// Physical address of purgatory's entry point.
    entry: u64,
    tables: Vec<TableSummary>,
    /// The command line with what depends on places.
    cmdline: Cmdline,
    told: Vec<(PhysRange, Told)>,
    blobs: Option<Blobs>,
    /// The map of a crash kernel, which is not told of elfcorehdr.
    memory_map: Option<MemoryMap>,
    warnings: Vec<String>,
}

fn place<'a>(inputs: Inputs<'_, 'a>, ground: &Ground) -> Result<Placed<'a>, PlanError> {
    let Inputs {
        request,
        host,
        boot,
        ..
    } = inputs;
    let mut places = places(inputs, ground, &ground.excluded)?;
    let layout = boot.lay_out(&mut places, inputs.initrds, ground.empty_initrd)?;
    // Before anything is digested, which takes its time.
    let sizes = layout.segments.iter().map(|segment| segment.mem.size());
    validate::half_of_ram(sizes.sum(), host)?;
    let file_digests = match request.target {
        Target::Normal if request.no_digest => Vec::new(),
        _ => digests(&layout.segments),
    };
    let blobs = Blobs::of(&layout.segments, &file_digests);

    let mut cmdline = Cow::Borrowed(&ground.cmdline);
    let mut memory_map = None;
    let mut elfcorehdr = None;
    if let Some(crash) = &ground.crash {
        let segment = place_elfcorehdr(crash, host, &mut places)?;
        let word = format!("elfcorehdr={:#x}", segment.mem.start());
        cmdline = Cow::Owned(cmdline.with(&word)?);
        let hidden = memory_map.insert(ground.memory_map.clone());
        crash::hide(hidden, segment.mem);
        elfcorehdr = Some(segment);
    }
    let told = memory_map.as_ref().unwrap_or(&ground.memory_map).told();
    let facts = Facts {
        request,
        host,
        cmdline: &cmdline,
        told: &told,
        pools: &ground.pools,
        tree: ground.tree.as_ref(),
        firmware: &ground.firmware,
        blobs: blobs.as_ref(),
    };
    let tables = boot.tables(&mut places, &layout, facts)?;
    let purgatory = places.small(layout.rest, "purgatory", purgatory::size())?;

    let verified = if request.no_digest {
        Vec::new()
    } else {
        // The kernel changes an elfcorehdr that it updates.
        let updates = ground
            .crash
            .as_ref()
            .is_some_and(|crash| crash.hotplug.is_some());
        let fixed = elfcorehdr.iter().filter(|_| !updates);
        let more = digests(fixed.chain(&tables.segments));
        file_digests.into_iter().chain(more).collect()
    };
    let mut warnings = tables.warnings;
    if places.used_last_choice() {
        warnings.push(
            "a segment lies in memory that was added since boot: load again when it is unplugged"
                .to_owned(),
        );
    }
    let mut segments = layout.segments;
    segments.extend(elfcorehdr);
    segments.extend(tables.segments);
    let enter = (layout.entry, tables.pointer);
    segments.push(purgatory_segment(inputs, purgatory, enter, &verified)?);
    segments.sort_by_key(|segment| segment.mem);
    Ok(Placed {
        segments,
        entry: purgatory.start() + purgatory::ENTRY,
        tables: tables.summary,
        cmdline: cmdline.into_owned(),
        told,
        blobs,
        memory_map,
        warnings,
    })
}

/// Purgatory at `mem`, which checks the digests in `verified` and enters the kernel at an
/// address with an argument.
fn purgatory_segment<'a>(
    inputs: Inputs<'_, '_>,
    mem: PhysRange,
    (entry, argument): (u64, u64),
    verified: &[(PhysRange, Digest)],
) -> Result<Segment<'a>, PlanError> {
    let Inputs {
        request,
        host,
        boot,
        ..
    } = inputs;
    let params = purgatory::Request {
        entry,
        argument,
        mode: boot.mode(),
        serial_port: request.port_for_reports(host),
        verify: !request.no_digest,
    };
    Ok(Segment {
        role: Role::Purgatory,
        buf: Cow::Owned(purgatory::image(&params, verified)?),
        mem,
        rule: boot.purgatory_rule().to_owned(),
    })
}

fn places<'g>(
    inputs: Inputs<'_, '_>,
    ground: &'g Ground,
    excluded: &'g [Excluded],
) -> Result<Places<'g>, PlanError> {
    let Inputs {
        request,
        host,
        boot,
        ..
    } = inputs;
    let limits = boot.limits(host);
    let late = host.initrd();
    Ok(Places::new(
        request,
        limits,
        &ground.memory_map,
        excluded,
        late,
    )?)
}

/// elfcorehdr in its place.
fn place_elfcorehdr<'a>(
    crash: &CrashPlan,
    host: &Host,
    places: &mut Places<'_>,
) -> Result<Segment<'a>, PlanError> {
    let contents = crash::contents(host, &crash.dump)?;
    let bytes = elfcorehdr::build(&contents).map_err(CrashError::from)?;
    let size = (bytes.len() as u64).max(crash.hotplug.map_or(0, |(_, size)| size));
    Ok(Segment {
        role: Role::Elfcorehdr,
        buf: Cow::Owned(bytes),
        mem: places.small(Rest::Highest, "elfcorehdr", size)?,
        rule: match crash.hotplug {
            Some((_, size)) => format!(
                "highest free address; {} because the running kernel may update it; for the same reason it is \
                 not checked",
                human(size)
            ),
            None => "highest free address".to_owned(),
        },
    })
}

/// Checks that everything can fit when the running kernel places it (kexec_file_load), in
/// memory that `excluded` leaves. For a crash kernel, it drops the loaded one before it
/// finds out.
pub(super) fn fits(
    inputs: Inputs<'_, '_>,
    ground: &Ground,
    excluded: &[Excluded],
) -> Result<(), PlanError> {
    let (host, boot) = (inputs.host, inputs.boot);
    let mut places = places(inputs, ground, excluded)?;
    if let Some(crash) = &ground.crash {
        let headers = elfcorehdr::size(host.crash.cpus.len(), crash.dump.len()) as u64;
        let headers = headers.max(host.loaded.crash_elfcorehdr_size.unwrap_or(0));
        places.small(Rest::Highest, "elfcorehdr", headers)?;
    }
    Ok(boot.fits(&mut places, inputs.initrds)?)
}

/// Adds to a "does not fit" error whether it is about a crash kernel, and whether the
/// plan would fit if the command line took no memory away.
pub(super) fn explain(error: PlanError, inputs: Inputs<'_, '_>, ground: &Ground) -> PlanError {
    let error = match &ground.crash {
        Some(crash) => advice::of_crash(error, inputs, crash),
        None => error,
    };
    let Some((words, _)) = excluded::words(&ground.excluded).filter(|_| error.is_no_place()) else {
        return error;
    };
    let without = excluded::without_line(&ground.excluded);
    match fits(inputs, ground, &without) {
        Ok(()) => PlanError::TakenAway {
            error: Box::new(error),
            words,
        },
        Err(_) => error,
    }
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
