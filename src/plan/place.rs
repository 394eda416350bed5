//! Placing the segments of a Linux kernel for kexec_load.
//!
//! The largest and most demanding go first, all top-down; boot_params,
//! setup_data and purgatory end up side by side, so that the decompressor's
//! few page tables reach them all.
//!
//! The memory that held the running kernel's own initrd is taken late. Boot
//! loaders put it at the top, the kernel freed it late in its boot, and so its
//! allocator gives those pages out early. kexec_load keeps the image in pages
//! from there until the jump, and a page that is also some segment's
//! destination makes it search everything loaded so far (kexec_core.c,
//! `kimage_alloc_page`): the load takes longer with the square of the size.

use std::borrow::Cow;

use super::{
    Blobs, Plan, PlanError, Role, Segment, SetupDataSummary, chain, excluded, initrd, protected,
    validate,
};
use crate::abi::x86::boot_params::join;
use crate::abi::x86::setup_data;
use crate::base::{PAGE_SIZE, PhysRange, Target};
use crate::boot::linux_x86::zero_page::{self, Addresses, EfiHandover};
use crate::carry::Handover;
use crate::crash::{self, CrashError, elfcorehdr};
use crate::host::Host;
use crate::image::LinuxKernel;
use crate::image::linux::{Load, xloadflags};
use crate::memory::{Direction, Holes, Placement, Want};
use crate::purgatory::{self, Digest};
use crate::request::LoadRequest;
use crate::sys::SEGMENT_MAX;

/// Segments besides those of kernel and initrd: boot_params, setup_data,
/// purgatory, elfcorehdr.
const OTHER_SEGMENTS: usize = 4;
/// Nothing goes below 1 MiB: BIOS data, the trampolines of the next kernel.
const LOW_LIMIT: u64 = 1 << 20;
/// First address that 4-level paging does not reach: 64 TiB.
const FOUR_LEVEL_LIMIT: u64 = 1 << 46;
/// First address that 5-level paging does not reach: 4 PiB.
const FIVE_LEVEL_LIMIT: u64 = 1 << 52;
/// First address above what a 32-bit number holds.
pub(super) const FOUR_GIB: u64 = 1 << 32;

/// Places everything and fills in the plan.
pub(super) fn place<'a>(
    request: &LoadRequest,
    host: &Host,
    image: &LinuxKernel<'a>,
    initrds: &[&'a [u8]],
    handover: &Handover,
    efi: Option<&EfiHandover>,
    plan: &mut Plan<'a>,
) -> Result<(), PlanError> {
    let mut places = Places::for_linux(request, host, image, plan)?;
    let kernel = places.kernel(image)?;
    let entry = kernel.start() + image.entry;
    let initrd_size = initrd::stream_size(initrds);
    let initrd = match initrd_size {
        0 => None,
        size => Some(places.initrd(image, size)?),
    };
    let mut segments = kernel_segments(image, kernel);
    let left = SEGMENT_MAX - OTHER_SEGMENTS - segments.len();
    segments.extend(
        initrd
            .into_iter()
            .flat_map(|place| initrd_segments(initrds, place, left, plan.empty_initrd)),
    );
    // Before anything is digested, which takes its time.
    validate::half_of_ram(segments.iter().map(|s| s.mem.size()).sum(), host)?;
    let file_digests = match request.target {
        Target::Normal if request.no_digest => Vec::new(),
        _ => digests(&segments),
    };
    plan.blobs = Blobs::of(&segments, &file_digests);
    let elfcorehdr = places.elfcorehdr(host, plan)?;

    let mut chain = chain::build(request, host, handover, efi, plan)?;
    let record = chain::record(request.time, host, image, plan, &chain);
    chain.push(setup_data::SETUP_NONE, record.payload());

    let size = zero_page::segment_size(plan.cmdline.as_bstr().len() as u64);
    let boot_params = places.small("boot_params", size)?;
    let setup_data = places.small("setup_data", chain.size() as u64)?;
    let purgatory = places.small("purgatory", purgatory::size())?;
    places.warn_of_last_choice(plan);

    let addresses = Addresses {
        kernel: kernel.start(),
        cmdline: boot_params.start() + zero_page::CMDLINE_OFFSET,
        initrd: initrd.map(PhysRange::start),
        initrd_size,
        setup_data: setup_data.start(),
    };
    let zero_page = zero_page::build(image, host, efi, &plan.told, &chain, &addresses);
    let tables = vec![
        Segment {
            role: Role::BootParams,
            buf: Cow::Owned(zero_page::segment_bytes(&zero_page, plan.cmdline.as_bstr())),
            mem: boot_params,
            rule:
                "highest place; the command line begins on the second page, with the 2,048 bytes \
                   that the decompressor maps"
                    .to_owned(),
        },
        Segment {
            role: Role::SetupData,
            buf: Cow::Owned(chain.bytes_at(setup_data.start())),
            mem: setup_data,
            rule: "highest place; one segment, so that few page tables reach the whole chain"
                .to_owned(),
        },
    ];
    let verified: Vec<(PhysRange, Digest)> = if request.no_digest {
        Vec::new()
    } else {
        // The kernel changes an elfcorehdr that it updates.
        let fixed = elfcorehdr.iter().filter(|_| !plan.kernel_updates());
        let more = digests(fixed.chain(&tables));
        file_digests.into_iter().chain(more).collect()
    };
    segments.extend(elfcorehdr);
    segments.extend(tables);

    let params = purgatory::Request {
        entry,
        boot_params: boot_params.start(),
        mode: protected::mode(image),
        serial_port: request.port_for_reports(host),
        sha_ni: host.cpu.sha_ni,
        verify: !request.no_digest,
    };
    segments.push(Segment {
        role: Role::Purgatory,
        buf: Cow::Owned(purgatory::image(&params, &verified)?),
        mem: purgatory,
        rule: "highest place that is left".to_owned(),
    });
    segments.sort_by_key(|segment| segment.mem);

    plan.entry = Some(purgatory.start() + purgatory::ENTRY);
    plan.setup_data = chain
        .nodes()
        .iter()
        .map(|node| SetupDataSummary {
            kind: setup_data::type_name(node.kind),
            size: node.data.len(),
        })
        .collect();
    plan.segments = segments;
    Ok(())
}

/// Checks that everything can fit when the running kernel places it (kexec_file_load).
/// For a crash kernel, it drops the loaded one before it finds out.
pub(super) fn fits(
    request: &LoadRequest,
    host: &Host,
    image: &LinuxKernel<'_>,
    initrds: &[&[u8]],
    plan: &Plan<'_>,
) -> Result<(), PlanError> {
    let mut places = Places::for_linux(request, host, image, plan)?;
    if let Some(crash) = &plan.crash {
        let headers = elfcorehdr::size(host.crash.cpus.len(), crash.dump.len()) as u64;
        let headers = headers.max(host.loaded.crash_elfcorehdr_size.unwrap_or(0));
        places.take("elfcorehdr", headers, PAGE_SIZE, 0, u64::MAX)?;
    }
    places.small("boot_params", zero_page::segment_size(0))?;
    places.small("purgatory", purgatory::size())?;
    places.kernel(image)?;
    match initrd::stream_size(initrds) {
        0 => Ok(()),
        size => places.initrd(image, size).map(drop),
    }
}

/// Adds to a "does not fit" error whether it is about a crash kernel, and whether the
/// plan would fit if the command line took no memory away.
pub(super) fn explain(
    error: PlanError,
    request: &LoadRequest,
    host: &Host,
    image: &LinuxKernel<'_>,
    initrds: &[&[u8]],
    plan: &Plan<'_>,
) -> PlanError {
    let error = super::advice::of_crash(error, request, host, plan, image, initrds);
    let no_place = matches!(
        error,
        PlanError::NoHole(_) | PlanError::NotInReservation { .. }
    );
    let Some((words, _)) = excluded::words(plan).filter(|_| no_place) else {
        return error;
    };
    let without = Plan {
        excluded: excluded::without_line(plan),
        ..plan.clone()
    };
    match fits(request, host, image, initrds, &without) {
        Ok(()) => PlanError::TakenAway {
            error: Box::new(error),
            words,
        },
        Err(_) => error,
    }
}

/// The digests that purgatory verifies. They cover only the files' bytes: the running
/// kernel zeroes the rest of a segment, and the next kernel writes there before reading.
pub(super) fn digests<'a>(
    segments: impl IntoIterator<Item = &'a Segment<'a>>,
) -> Vec<(PhysRange, Digest)> {
    segments
        .into_iter()
        .filter_map(|segment| {
            let range = PhysRange::new(segment.mem.start(), segment.buf.len() as u64).ok()?;
            Some((range, purgatory::digest(&segment.buf)))
        })
        .collect()
}

/// The kernel's place cut into its loads, each up to the next one: the running
/// kernel keeps what it needs for the jump off all of it.
fn kernel_segments<'a>(image: &LinuxKernel<'a>, place: PhysRange) -> Vec<Segment<'a>> {
    let rule = format!(
        "{} place at or above pref_address {:#x}, aligned to kernel_alignment {:#x}, \
         of init_size bytes",
        if image.is_32_bit() {
            "entered in 32-bit mode: lowest"
        } else {
            "highest"
        },
        image.header.pref_address,
        image.header.kernel_alignment
    );
    let start = |load: &Load<'_>| place.start() + load.offset;
    let ends = image.loads.iter().skip(1).map(start).chain([place.end()]);
    let cut = image.loads.iter().zip(ends).filter_map(|(load, end)| {
        Some(Segment {
            role: Role::Kernel,
            buf: Cow::Borrowed(load.bytes),
            mem: PhysRange::from_bounds(start(load), end).ok()?,
            rule: rule.clone(),
        })
    });
    cut.collect()
}

/// The initrd's place cut into its parts, no more than `limit`; `empty` says why it
/// is an empty one.
fn initrd_segments<'a>(
    initrds: &[&'a [u8]],
    place: PhysRange,
    limit: usize,
    empty: Option<&str>,
) -> Vec<Segment<'a>> {
    let parts = initrd::parts(initrds, limit);
    let mut start = place.start();
    let mut segments = Vec::with_capacity(parts.len());
    for part in parts {
        let size = (part.len() as u64).next_multiple_of(PAGE_SIZE);
        if let Ok(mem) = PhysRange::new(start, size) {
            let mut rule = "highest place left by the kernel".to_owned();
            if let Some(why) = empty {
                rule = format!("{rule}; an empty initrd, because {why}");
            }
            segments.push(Segment {
                role: Role::Initrd,
                buf: part,
                mem,
                rule,
            });
        }
        start += size;
    }
    segments
}

/// Free memory, and the bounds that request and image set.
pub(super) struct Places {
    /// Boot RAM without the running kernel's initrd, boot RAM, hot-added RAM:
    /// each is looked at only when nothing fits in those before it.
    tiers: [Holes; 3],
    used_last_choice: bool,
    min: u64,
    max: u64,
    /// The search tries addresses below this first, for a kernel that works better with
    /// low ones.
    low_first: u64,
}

/// First address that the kernel does not reach when it is entered.
fn reach(host: &Host, image: &LinuxKernel<'_>) -> u64 {
    let five_level = host.cpu.la57 && image.has(xloadflags::FIVE_LEVEL_ENABLED);
    let paging = if five_level {
        FIVE_LEVEL_LIMIT
    } else {
        FOUR_LEVEL_LIMIT
    };
    if image.is_32_bit() {
        protected::REACH
    } else if image.reaches_above_4g() {
        paging - PAGE_SIZE
    } else {
        FOUR_GIB
    }
}

impl Places {
    /// Places for what `image` is loaded with.
    fn for_linux(
        request: &LoadRequest,
        host: &Host,
        image: &LinuxKernel<'_>,
        plan: &Plan<'_>,
    ) -> Result<Self, PlanError> {
        let mut places = Self::new(request, host, reach(host, image), plan)?;
        if image.is_32_bit() {
            places.low_first = protected::LOW_MEMORY;
        }
        Ok(places)
    }

    /// Places below `reach` for a plan whose map and exclusions are known.
    pub(super) fn new(
        request: &LoadRequest,
        host: &Host,
        reach: u64,
        plan: &Plan<'_>,
    ) -> Result<Self, PlanError> {
        let (min, max) = (
            request.mem_min.unwrap_or(0),
            request.mem_max.unwrap_or(u64::MAX),
        );
        if min >= max {
            return Err(PlanError::EmptyBounds { min, max });
        }
        let free = |placement| {
            let mut holes = Holes::new(plan.memory_map.ranges(placement));
            holes.remove_all(plan.excluded.iter().map(|excluded| excluded.range));
            holes
        };
        let boot = free(Placement::Allowed);
        let mut preferred = boot.clone();
        if let Some(ramdisk) = running_ramdisk(host) {
            preferred.remove(ramdisk);
        }
        Ok(Self {
            tiers: [preferred, boot, free(Placement::LastChoice)],
            used_last_choice: false,
            min: min.max(LOW_LIMIT),
            max: max.min(reach),
            low_first: u64::MAX,
        })
    }

    /// The highest place. An error describes the free places in boot RAM.
    fn take(
        &mut self,
        what: &'static str,
        size: u64,
        align: u64,
        min: u64,
        max: u64,
    ) -> Result<PhysRange, PlanError> {
        let direction = Direction::TopDown;
        let low = max.min(self.low_first);
        if low < max.min(self.max)
            && let Ok(place) = self.take_from(direction, what, size, align, (min, low))
        {
            return Ok(place);
        }
        self.take_from(direction, what, size, align, (min, max))
    }

    /// The first place from the end that `direction` says, between two bounds.
    pub(super) fn take_from(
        &mut self,
        direction: Direction,
        what: &'static str,
        size: u64,
        align: u64,
        (min, max): (u64, u64),
    ) -> Result<PhysRange, PlanError> {
        let (min, max) = (min.max(self.min), max.min(self.max));
        let bounds = PhysRange::from_bounds(min, max).map_err(|_| PlanError::Unreachable {
            what,
            min,
            max,
        })?;
        let want = Want {
            what,
            size,
            align,
            bounds,
            direction,
        };
        let [preferred, boot, hot_added] = &mut self.tiers;
        let place = match preferred.take(&want).or_else(|_| boot.take(&want)) {
            Ok(place) => place,
            Err(error) => {
                let place = hot_added.take(&want).map_err(|_| error)?;
                self.used_last_choice = true;
                place
            }
        };
        self.tiers.iter_mut().for_each(|holes| holes.remove(place));
        Ok(place)
    }

    /// The lowest place from `above` on, or below it when there is none.
    pub(super) fn low(
        &mut self,
        what: &'static str,
        size: u64,
        above: u64,
    ) -> Result<PhysRange, PlanError> {
        let mut lowest = |min| {
            let bounds = (min, u64::MAX);
            self.take_from(Direction::BottomUp, what, size, PAGE_SIZE, bounds)
        };
        lowest(above).or_else(|_| lowest(0))
    }

    /// Takes these pages, if they are free.
    pub(super) fn exactly(&mut self, range: PhysRange) -> bool {
        let bounds = (range.start(), range.end());
        let (direction, size) = (Direction::BottomUp, range.size());
        self.take_from(direction, "a fixed address", size, PAGE_SIZE, bounds)
            .is_ok_and(|place| place == range)
    }

    /// The bounds that request and image set: first address, first address beyond.
    pub(super) fn bounds(&self) -> (u64, u64) {
        (self.min, self.max)
    }

    /// Warns when a segment lies in memory that may be unplugged.
    pub(super) fn warn_of_last_choice(&self, plan: &mut Plan<'_>) {
        if self.used_last_choice {
            plan.warnings.push(
                "a segment lies in memory that was added since boot: load again when it is unplugged"
                    .to_owned(),
            );
        }
    }

    /// elfcorehdr, its place and its word on the command line; what the capture
    /// kernel is told depends on where it lies. Nothing without a crash kernel.
    fn elfcorehdr<'a>(
        &mut self,
        host: &Host,
        plan: &mut Plan<'_>,
    ) -> Result<Option<Segment<'a>>, PlanError> {
        let Some(crash) = &mut plan.crash else {
            return Ok(None);
        };
        let contents = crash::contents(host, &crash.dump)?;
        let bytes = elfcorehdr::build(&contents).map_err(CrashError::from)?;
        let size = (bytes.len() as u64).max(crash.hotplug.map_or(0, |(_, size)| size));
        let mem = self.take("elfcorehdr", size, PAGE_SIZE, 0, u64::MAX)?;
        crash::hide(&mut plan.memory_map, mem);
        plan.told = plan.memory_map.told();
        let word = format!("elfcorehdr={:#x}", mem.start());
        plan.cmdline = plan.cmdline.with(&word)?;
        Ok(Some(Segment {
            role: Role::Elfcorehdr,
            buf: Cow::Owned(bytes),
            mem,
            rule: match crash.hotplug {
                Some((_, size)) => format!(
                    "highest place left by the initrd, of the {size} bytes that the kernel wants to update it; \
                     not digested for that"
                ),
                None => "highest place left by the initrd".to_owned(),
            },
        }))
    }

    fn small(&mut self, what: &'static str, size: u64) -> Result<PhysRange, PlanError> {
        self.take(what, size, PAGE_SIZE, 0, u64::MAX)
    }

    /// The kernel runs at or above pref_address: loaded lower, it would move
    /// itself up into memory that may be in use.
    fn kernel(&mut self, image: &LinuxKernel<'_>) -> Result<PhysRange, PlanError> {
        let header = &image.header;
        let (size, preferred) = (u64::from(header.init_size.get()), header.pref_address.get());
        let align = u64::from(header.kernel_alignment.get()).max(PAGE_SIZE);
        let top = if header.relocatable_kernel == 0 {
            preferred.saturating_add(size.next_multiple_of(PAGE_SIZE))
        } else {
            u64::MAX
        };
        if image.is_32_bit() {
            let top = top.min(protected::kernel_top(image));
            let direction = Direction::BottomUp;
            return self.take_from(direction, "the kernel", size, align, (preferred, top));
        }
        self.take("the kernel", size, align, preferred, top)
    }

    fn initrd(&mut self, image: &LinuxKernel<'_>, size: u64) -> Result<PhysRange, PlanError> {
        // initrd_addr_max (last byte allowed) binds only kernels that stay below 4 GiB.
        let top = if image.reaches_above_4g() {
            u64::MAX
        } else {
            u64::from(image.header.initrd_addr_max.get()) + 1
        };
        self.take("the initrd", size, PAGE_SIZE, 0, top)
    }
}

/// Where the boot loader put the running kernel's initrd.
fn running_ramdisk(host: &Host) -> Option<PhysRange> {
    let params = &host.boot_params.as_ref()?.params;
    let (image, size) = (
        params.hdr.ramdisk_image.get(),
        params.hdr.ramdisk_size.get(),
    );
    let start = join(image, params.ext_ramdisk_image.get());
    PhysRange::new(start, join(size, params.ext_ramdisk_size.get())).ok()
}

#[cfg(test)]
#[path = "place_tests.rs"]
mod tests;
