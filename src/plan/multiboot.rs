//! Planning a multiboot kernel, Xen for one: everything lies below 4 GiB, and only
//! kexec_load can do it.
//!
//! The kernel lies where it is linked or, when it is relocatable, at the place it
//! prefers. Its modules follow above it, lowest first, as other boot loaders place
//! them: small kernels search no further than they must.

use std::borrow::Cow;

use bstr::{BStr, ByteSlice as _};

use super::place::{FOUR_GIB, Places, digests};
use super::{
    Blobs, Plan, PlanError, PlannedPool, Role, Segment, decide, excluded, pools, validate,
};
use crate::base::{PAGE_SIZE, PhysRange, Target};
use crate::boot::multiboot::{BootInformation, Module, Pixels, Screen, v1, v2};
use crate::carry::{Handover, Protection};
use crate::cmdline::{self, Cmdline, CmdlineBase, CmdlineRequest};
use crate::host::Host;
use crate::host::firmware_tables::FirmwareTables;
use crate::image::Multiboot;
use crate::image::multiboot::v2::information_name;
use crate::image::multiboot::{Preference, Relocatable, Version, pieces};
use crate::memory::{Direction, MemoryMap, Placement};
use crate::purgatory::{self, Mode};
use crate::request::LoadRequest;
use crate::sys::SEGMENT_MAX;

/// Segments besides those of the kernel and its modules: the information, purgatory.
const OTHER_SEGMENTS: usize = 2;
/// End of the memory used, one page below 4 GiB: the end address of a module that ends
/// at 4 GiB would not fit 32 bits.
const REACH: u64 = FOUR_GIB - PAGE_SIZE;

/// Plans the load of `image` with the modules it has.
pub(super) fn plan<'a>(
    request: &LoadRequest,
    host: &Host,
    image: &Multiboot<'a>,
    initrds: &[&[u8]],
) -> Result<Plan<'a>, PlanError> {
    refuse(request, initrds)?;
    super::check_drivers(&request.include_driver_managed)?;
    let asked = super::command_line(request, host, usize::MAX)?;
    let cmdline = command_line(&asked, image)?;
    let memory_map =
        MemoryMap::reconcile(host, request.memory_map, &request.include_driver_managed);
    let handover = Handover::gather(&request.handover, host)?;
    handover.check_places(&memory_map, &host.iomem.crash_kernel())?;
    let mut warnings = super::advice::general_warnings(request, host);
    warnings.extend(super::advice::empty_line(request, asked.as_bstr()));
    check_names(image)?;
    let syscall = decide::for_multiboot(request, host)?;
    let mut plan = Plan::new(syscall, cmdline, memory_map, warnings);
    plan.take_file_flags(request, host);
    reserve_pools(&handover, &mut plan);
    plan.told = plan.memory_map.told();
    // Only Linux takes memory away for words on its command line.
    plan.excluded = excluded::excluded(host, &plan, &[]);
    warn(host, image, &handover, &request.firmware_tables, &mut plan);
    place(request, host, image, &mut plan)?;
    let about_map = super::advice::map_warnings(request, &plan);
    plan.warnings.extend(about_map);
    validate::validate(&plan, host, &[])?;
    Ok(plan)
}

/// Refuses options that do not work with multiboot kernels.
fn refuse(request: &LoadRequest, initrds: &[&[u8]]) -> Result<(), PlanError> {
    let wish = &request.handover;
    let protected = wish.protect.is_some_and(|how| how != Protection::Reserved);
    let refused = [
        (
            !initrds.is_empty(),
            "--initrd",
            "it takes modules",
            Some(
                "--module FILE hands a file over; of Xen's, the first one is the kernel of dom0, the second its initrd",
            ),
        ),
        (
            request.target == Target::Crash,
            "--panic",
            "the capture kernel is a Linux",
            None,
        ),
        (
            wish.dtb.is_some(),
            "--dtb",
            "there is no way to hand it a device tree",
            None,
        ),
        (
            protected,
            "--pool-protect",
            "it knows nothing of pools, so that they are reserved in its memory map",
            Some("leave --pool-protect out, or say --pool-protect reserved"),
        ),
    ];
    match refused.into_iter().find(|(wished, ..)| *wished) {
        Some((_, option, reason, hint)) => Err(PlanError::NotForMultiboot {
            option,
            reason,
            hint,
        }),
        None => Ok(()),
    }
}

/// The command line, prefixed with the file's name. Other boot loaders add it,
/// and Xen removes it.
fn command_line(line: &Cmdline, image: &Multiboot<'_>) -> Result<Cmdline, PlanError> {
    let parts = [image.name.as_bstr(), line.as_bstr()];
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    let base = bstr::join(b" ", parts).into();
    let request = CmdlineRequest {
        base: CmdlineBase::Given(base),
        ..CmdlineRequest::default()
    };
    Ok(Cmdline::make(&request, "", usize::MAX)?)
}

/// The modules' command lines are C strings, too.
fn check_names(image: &Multiboot<'_>) -> Result<(), PlanError> {
    image.modules.iter().try_for_each(|module| {
        let request = CmdlineRequest {
            base: CmdlineBase::Given(module.cmdline.clone()),
            ..CmdlineRequest::default()
        };
        Cmdline::make(&request, "", usize::MAX)?;
        Ok(())
    })
}

/// Reserves the pools in the kernel's memory map, which keeps their contents.
/// Multiboot has no other way to describe a pool.
fn reserve_pools(handover: &Handover, plan: &mut Plan<'_>) {
    for carried in &handover.pools {
        let (pool, protection) = (&carried.pool, Protection::Reserved);
        let (told, why) = pools::told(protection);
        plan.memory_map
            .set_pool(pool.range(), pool.name(), told, why);
        plan.pools.push(PlannedPool {
            pool: pool.clone(),
            origin: carried.origin,
            protection,
            reason: "a multiboot kernel knows nothing of pools".to_owned(),
        });
    }
}

fn warn(
    host: &Host,
    image: &Multiboot<'_>,
    handover: &Handover,
    tables: &FirmwareTables,
    plan: &mut Plan<'_>,
) {
    let mut warn = |what: String| plan.warnings.push(what);
    if handover.tree.is_some() {
        warn(
            "a multiboot kernel takes no device tree: that of the running kernel is left behind"
                .to_owned(),
        );
    }
    if host.is_efi() {
        warn("the kernel is told nothing of EFI, whose boot services have ended and whose runtime services already have their addresses".to_owned());
    }
    if let (Version::Two, Some(why)) = (image.version, &tables.no_rsdp) {
        warn(format!(
            "the kernel gets no copy of the ACPI root pointer (RSDP): {why}; one that does not look for it by itself finds no ACPI"
        ));
    }
    // Seen with 4.17: it looks for room by what a BIOS left at 0x40e, and faults.
    if image.asks_bios && host.is_efi() {
        warn("Xen starts on an EFI machine through EFI's boot services only, and they have ended: it will most likely reset the machine".to_owned());
    }
    if image.asks_bios && !cmdline::has(plan.cmdline.as_bstr(), "no-real-mode") {
        warn("Xen asks the BIOS for its memory map, and does not take this one: no-real-mode on its command line makes it".to_owned());
    }
}

/// Places everything and fills in the plan.
fn place<'a>(
    request: &LoadRequest,
    host: &Host,
    image: &Multiboot<'a>,
    plan: &mut Plan<'a>,
) -> Result<(), PlanError> {
    let mut places = Places::new(request, host, REACH, plan)?;
    let (mut segments, shift) = match &image.relocatable {
        None => (fixed(image, &mut places, plan)?, 0),
        Some(bounds) => relocated(image, bounds, &mut places)?,
    };
    let kernel = image.span.start().wrapping_add(shift);
    let end = segments.last().map_or(0, |segment| segment.mem.end());
    let modules = modules(image, end, &mut segments, &mut places)?;
    validate::half_of_ram(segments.iter().map(|s| s.mem.size()).sum(), host)?;

    let tables = &request.firmware_tables;
    let information = BootInformation {
        cmdline: plan.cmdline.as_bstr(),
        modules,
        map: &plan.told,
        screen: screen(host, image)?,
        rsdp: tables.rsdp.as_ref(),
        smbios: tables.smbios.as_ref(),
        load_base: image.relocatable.map(|_| low(kernel)),
    };
    check_requests(image, &information, tables)?;
    let bytes = |at| match image.version {
        Version::One => v1::bytes(&information, at),
        Version::Two => v2::bytes(&information),
    };
    let at = places.low("the boot information", bytes(0).len() as u64, end)?;
    segments.push(Segment {
        role: Role::BootParams,
        buf: Cow::Owned(bytes(low(at.start()))),
        mem: at,
        rule: "lowest place left, above the kernel if it fits there: the boot information"
            .to_owned(),
    });
    let purgatory = places.low("purgatory", purgatory::size(), end)?;

    let digests = if request.no_digest {
        Vec::new()
    } else {
        digests(&segments)
    };
    plan.blobs = Blobs::of(&segments, &digests);
    let params = purgatory::Request {
        entry: image.entry.wrapping_add(shift),
        boot_params: at.start(),
        mode: Mode::Multiboot {
            eax: image.version.entry_magic(),
        },
        serial_port: request.port_for_reports(host),
        sha_ni: host.cpu.sha_ni,
        verify: !request.no_digest,
    };
    segments.push(Segment {
        role: Role::Purgatory,
        buf: Cow::Owned(purgatory::image(&params, &digests)?),
        mem: purgatory,
        rule: "lowest place left, above the kernel if it fits there; it leaves long mode, and must lie below 4 GiB for that".to_owned(),
    });
    segments.sort_by_key(|segment| segment.mem);
    places.warn_of_last_choice(plan);
    plan.entry = Some(purgatory.start() + purgatory::ENTRY);
    plan.segments = segments;
    Ok(())
}

/// `address` as 32 bits. [`Places`] gives no address above that.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

/// The kernel's segments when they lie `shift` bytes above where they are linked.
fn kernel<'a>(
    image: &Multiboot<'a>,
    shift: u64,
    rule: &str,
) -> Result<Vec<Segment<'a>>, PlanError> {
    let pieces = pieces(&image.loads, shift).unwrap_or_default();
    let (count, most) = (pieces.len(), SEGMENT_MAX - OTHER_SEGMENTS);
    if count > most {
        return Err(PlanError::TooManyPieces { count, most });
    }
    let segments = pieces.into_iter().map(|piece| Segment {
        role: Role::Kernel,
        buf: piece.bytes,
        mem: piece.mem,
        rule: rule.to_owned(),
    });
    Ok(segments.collect())
}

/// The kernel at its own addresses.
fn fixed<'a>(
    image: &Multiboot<'a>,
    places: &mut Places,
    plan: &Plan<'_>,
) -> Result<Vec<Segment<'a>>, PlanError> {
    let rule = "the kernel's own address: it is not relocatable";
    let segments = kernel(image, 0, rule)?;
    for segment in &segments {
        let range = segment.mem;
        if !places.exactly(range) {
            let why = why_not(range, places, plan);
            return Err(PlanError::Occupied { range, why });
        }
    }
    Ok(segments)
}

/// Why a segment cannot lie at `range`.
fn why_not(range: PhysRange, places: &Places, plan: &Plan<'_>) -> String {
    let bounds = places.bounds();
    if range.start() < bounds.0 || range.end() > bounds.1 {
        return format!(
            "segments lie from {:#x} to {:#x} (below 1 MiB is what the BIOS left; --mem-min and --mem-max)",
            bounds.0,
            bounds.1 - 1
        );
    }
    let excluded = plan
        .excluded
        .iter()
        .find(|other| other.range.overlaps(range));
    if let Some(excluded) = excluded {
        return format!(
            "{} is {}: {}",
            excluded.range, excluded.name, excluded.reason
        );
    }
    let mut end = range.start();
    for region in plan.memory_map.regions() {
        let Some(part) = region.range.intersection(range) else {
            continue;
        };
        if part.start() > end {
            break;
        }
        if region.placement == Placement::Never {
            return format!(
                "{} is {}: {}",
                region.range,
                region.kind.name(),
                region.reason
            );
        }
        end = part.end();
    }
    if end < range.end() {
        return format!("there is no RAM at {end:#x}");
    }
    "a part of it was added since boot, or something else lies there already".to_owned()
}

/// The kernel at the place it prefers, and how far that is from its link address.
fn relocated<'a>(
    image: &Multiboot<'a>,
    bounds: &Relocatable,
    places: &mut Places,
) -> Result<(Vec<Segment<'a>>, u64), PlanError> {
    let direction = match bounds.preference {
        Preference::Lowest => Direction::BottomUp,
        Preference::None | Preference::Highest => Direction::TopDown,
    };
    let place = places.take_from(
        direction,
        "the kernel",
        image.span.size(),
        u64::from(bounds.align).max(PAGE_SIZE),
        (u64::from(bounds.min), u64::from(bounds.max) + 1),
    )?;
    let shift = place.start().wrapping_sub(image.span.start());
    let rule = format!(
        "{} place between {:#x} and {:#x}, aligned to {:#x}: the kernel is relocatable",
        match direction {
            Direction::BottomUp => "lowest",
            Direction::TopDown => "highest",
        },
        bounds.min,
        bounds.max,
        bounds.align
    );
    Ok((kernel(image, shift, &rule)?, shift))
}

/// Places the modules above `end`, and says where they lie. Each is a segment of its
/// own; when those are not enough, the last ones share one.
fn modules<'a, 'm>(
    image: &'m Multiboot<'a>,
    end: u64,
    segments: &mut Vec<Segment<'a>>,
    places: &mut Places,
) -> Result<Vec<Module<'m>>, PlanError> {
    let files = &image.modules;
    let left = (SEGMENT_MAX - OTHER_SEGMENTS).saturating_sub(segments.len());
    if left == 0 && !files.is_empty() {
        let (count, most) = (segments.len(), SEGMENT_MAX - OTHER_SEGMENTS - 1);
        return Err(PlanError::TooManyPieces { count, most });
    }
    let alone = if files.len() > left {
        left - 1
    } else {
        files.len()
    };
    let (alone, together) = files.split_at_checked(alone).unwrap_or((files, &[]));
    let mut modules = Vec::with_capacity(files.len());
    for file in alone {
        let mem = places.low("a module", file.bytes.len() as u64, end)?;
        modules.push(module(mem.start(), file.bytes, file.cmdline.as_bstr()));
        segments.push(segment(Cow::Borrowed(file.bytes), mem));
    }
    if !together.is_empty() {
        let page = usize::try_from(PAGE_SIZE).unwrap_or(4096);
        let mut bytes = Vec::new();
        let mut offsets = Vec::new();
        for file in together {
            offsets.push(bytes.len() as u64);
            bytes.extend_from_slice(file.bytes);
            bytes.resize(bytes.len().next_multiple_of(page), 0);
        }
        let mem = places.low("the last modules", bytes.len() as u64, end)?;
        for (file, offset) in together.iter().zip(offsets) {
            modules.push(module(
                mem.start() + offset,
                file.bytes,
                file.cmdline.as_bstr(),
            ));
        }
        segments.push(segment(Cow::Owned(bytes), mem));
    }
    Ok(modules)
}

fn module<'m>(start: u64, bytes: &[u8], cmdline: &'m BStr) -> Module<'m> {
    Module {
        start: low(start),
        end: low(start + bytes.len() as u64),
        cmdline,
    }
}

fn segment(buf: Cow<'_, [u8]>, mem: PhysRange) -> Segment<'_> {
    Segment {
        role: Role::Module,
        buf,
        mem,
        rule: "lowest place left, above the kernel if it fits there, on whole pages".to_owned(),
    }
}

/// The screen that is described to the kernel.
fn screen(host: &Host, image: &Multiboot<'_>) -> Result<Option<Screen>, PlanError> {
    let running = host.boot_params.as_ref();
    let screen = running.and_then(|running| Screen::new(&running.params.screen_info));
    let console = image.console;
    let usable =
        screen.filter(|screen| !console.stated || console.text || screen.pixels != Pixels::Text);
    match (usable, console.required) {
        (None, true) => Err(PlanError::MultibootNeeds {
            what: "a console".to_owned(),
            why: match screen {
                Some(_) => "there is a text screen, and it cannot write to one",
                None => "the running kernel was told of no screen",
            }
            .to_owned(),
        }),
        (usable, _) => Ok(usable),
    }
}

/// Checks that the kernel gets all information that it requires.
fn check_requests(
    image: &Multiboot<'_>,
    information: &BootInformation<'_>,
    tables: &FirmwareTables,
) -> Result<(), PlanError> {
    let missing = image
        .requests
        .iter()
        .find(|request| request.required && !v2::provides(information, request.tag));
    let Some(request) = missing else {
        return Ok(());
    };
    let what = match information_name(request.tag) {
        Some(name) => format!("{name} (tag {})", request.tag),
        None => format!("a tag of the unknown type {}", request.tag),
    };
    let why = match (request.tag, &tables.no_rsdp) {
        (v2::tag::ACPI_OLD | v2::tag::ACPI_NEW, Some(why)) => why.clone(),
        (v2::tag::FRAMEBUFFER, _) => "the running kernel was told of no screen".to_owned(),
        (v2::tag::ELF_SECTIONS, _) => "this loader loads no section headers".to_owned(),
        _ => "that is not known once the firmware has gone".to_owned(),
    };
    Err(PlanError::MultibootNeeds { what, why })
}

#[cfg(test)]
#[path = "multiboot_tests.rs"]
mod tests;
