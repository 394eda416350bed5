//! The frame of a load by kexec_load: everything in its place, digests, purgatory.

use std::borrow::Cow;

use super::built;
use super::{
    CrashPlan, Ground, Inputs, KhoPlan, Method, Plan, PlanError, Way, advice, excluded, validate,
};
use crate::base::{PhysRange, Target, Told, human};
use crate::boot::{Facts, TableSummary};
use crate::carry::manifest::SESSION;
use crate::carry::record::KhoRecord;
use crate::carry::reserved;
use crate::cmdline::Cmdline;
use crate::crash::{self, CrashError, elfcorehdr};
use crate::host::Host;
use crate::layout::{Blobs, Excluded, Placement, Places, Rest, Role, Segment, digests};
use crate::memory::MemoryMap;
use crate::purgatory::{self, Digest};
use crate::request::LoadRequest;

/// Segments besides those of kernel, files and what is preserved: two of tables, and
/// purgatory.
const OTHER_SEGMENTS: usize = 3;
/// A warning about a segment in memory that can go away.
const LAST_CHOICE: &str =
    "a segment lies in memory that was added since boot: load again when it is unplugged";

/// Plans a load by segments.
pub(super) fn by_segments<'a>(
    inputs: Inputs<'_, 'a>,
    mut ground: Ground,
) -> Result<Plan<'a>, PlanError> {
    let placed = place(inputs, &ground).map_err(|error| explain(error, inputs, &ground))?;
    ground.cmdline = placed.cmdline;
    if let Some(built) = placed.kho {
        ground.kho = Some(built);
    }
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
        placement: placed.placement,
    };
    Ok(ground.plan(method, placed.told, placed.blobs))
}

/// What placing gives.
struct Placed<'a> {
    segments: Vec<Segment<'a>>,
    /// Physical address of purgatory's entry point.
    entry: u64,
    tables: Vec<TableSummary>,
    placement: Option<Placement>,
    /// The command line with what depends on places.
    cmdline: Cmdline,
    told: Vec<(PhysRange, Told)>,
    blobs: Option<Blobs>,
    /// The map of a crash kernel, which is not told of elfcorehdr.
    memory_map: Option<MemoryMap>,
    kho: Option<KhoPlan>,
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
    let laid = built::lay_out(inputs, ground, &mut places)?;
    let layout = boot.lay_out(&mut places, inputs.initrds, ground.empty_initrd)?;
    // Before anything is digested, which takes its time.
    let sizes = layout.segments.iter().map(|segment| segment.mem.size());
    let size = sizes.sum();
    validate::half_of_ram(size, host)?;
    let taken = layout.segments.len() + OTHER_SEGMENTS;
    let handed = laid.map(|laid| laid.hand_over(inputs, taken, size));
    let handed = handed.transpose()?;
    let file_digests = match request.target {
        Target::Normal if request.no_digest => Vec::new(),
        _ => digests(&layout.segments),
    };
    let blobs = Blobs::of(&boot.kernel_parts(), &layout.segments, &file_digests);

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
    let forwarded = forwarded_record(ground);
    let built = handed.as_ref().map(|handed| (&handed.node, &handed.record));
    let (node, record) = built.unzip();
    let facts = Facts {
        request,
        host,
        cmdline: &cmdline,
        told: &told,
        pools: &ground.pools,
        tree: ground.tree.as_ref(),
        kho: node.or(ground.node.as_ref()),
        kho_record: record.or(forwarded.as_ref()),
        firmware: &ground.firmware,
        blobs: blobs.as_ref(),
    };
    let tables = boot.tables(&mut places, &layout, facts)?;
    let purgatory = places.small(layout.rest, "purgatory", purgatory::size())?;

    let preserved = handed.iter().flat_map(|handed| &handed.segments);
    let more = elfcorehdr.iter().chain(&tables.segments).chain(preserved);
    let verified = verified(request, ground, file_digests, more);
    let mut warnings = tables.warnings;
    warnings.extend(places.used_last_choice().then(|| LAST_CHOICE.to_owned()));
    let mut segments = layout.segments;
    segments.extend(elfcorehdr);
    segments.extend(tables.segments);
    let enter = (layout.entry, tables.pointer);
    let stamps = tables.stamps;
    segments.push(purgatory_segment(
        inputs, purgatory, enter, stamps, &verified,
    )?);
    let kho = handed.map(|handed| {
        warnings.extend(handed.warnings);
        segments.extend(handed.segments);
        handed.plan
    });
    segments.sort_by_key(|segment| segment.mem);
    Ok(Placed {
        segments,
        entry: purgatory.start() + purgatory::ENTRY,
        tables: tables.summary,
        placement: layout.placement,
        cmdline: cmdline.into_owned(),
        told,
        blobs,
        memory_map,
        kho,
        warnings,
    })
}

/// What the next kernel's report compares where the running kernel's tree is passed on.
fn forwarded_record(ground: &Ground) -> Option<KhoRecord> {
    let kho = ground.kho.as_ref().filter(|_| ground.node.is_some())?;
    let asked = reserved::words(ground.cmdline.as_bstr());
    let is_asked = |name: &&String| asked.iter().any(|word| word.name == **name);
    Some(KhoRecord {
        format: kho.format.clone(),
        // The files are read at `exec`, and are as large as they are then.
        session: (!kho.carried.is_empty()).then(|| SESSION.to_owned()),
        files: Vec::new(),
        pools: kho.pools.iter().filter(is_asked).cloned().collect(),
    })
}

/// What purgatory verifies: `files`, and `more` segments.
fn verified<'s, 'a: 's>(
    request: &LoadRequest,
    ground: &Ground,
    files: Vec<(PhysRange, Digest)>,
    more: impl Iterator<Item = &'s Segment<'a>>,
) -> Vec<(PhysRange, Digest)> {
    if request.no_digest {
        return Vec::new();
    }
    // The kernel changes an elfcorehdr that it updates.
    let crash = ground.crash.as_ref();
    let updates = crash.is_some_and(|crash| crash.hotplug.is_some());
    let fixed = more.filter(|segment| !updates || segment.role != Role::Elfcorehdr);
    files.into_iter().chain(digests(fixed)).collect()
}

/// Purgatory at `mem`, which checks the digests in `verified`, leaves time stamps at
/// `stamps` and enters the kernel at an address with an argument.
fn purgatory_segment<'a>(
    inputs: Inputs<'_, '_>,
    mem: PhysRange,
    (entry, argument): (u64, u64),
    stamps: Option<u64>,
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
        stamps,
    };
    Ok(Segment {
        role: Role::Purgatory,
        buf: purgatory::image(&params, verified)?.into(),
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
    let mut places = Places::new(request, limits, &ground.memory_map, excluded, late)?;
    if let Some(scratch) = in_scratch(ground) {
        places.within(scratch);
    }
    Ok(places)
}

/// The scratch memory of the running kernel, where everything must lie while it hands over
/// state; `None`: there is none, or it is not visible. The next kernel may use what is
/// outside before it knows what is preserved there, and with kexec_file_load the running
/// kernel puts nothing elsewhere.
pub(super) fn in_scratch(ground: &Ground) -> Option<&[PhysRange]> {
    let kho = ground.kho.as_ref()?;
    match kho.way {
        Way::Forwarded => Some(&kho.scratch),
        Way::Kept | Way::AtExec => Some(&*kho.scratch).filter(|scratch| !scratch.is_empty()),
        Way::Built | Way::Dropped => None,
    }
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
        buf: bytes.into(),
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
    built::lay_out(inputs, ground, &mut places)?;
    Ok(boot.fits(&mut places, inputs.initrds)?)
}

/// Adds to a "does not fit" error whether it is about scratch memory or a crash kernel, and
/// whether the plan would fit if the command line took no memory away.
pub(super) fn explain(error: PlanError, inputs: Inputs<'_, '_>, ground: &Ground) -> PlanError {
    if in_scratch(ground).is_some() {
        return error.of_scratch();
    }
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
