//! The Linux boot protocol of x86: the zero page, the setup_data chain, and the 64-bit
//! or 32-bit entry.
//!
//! The largest and most demanding segments are placed first, all top-down: boot_params,
//! setup_data and purgatory end up side by side, so that the decompressor's few page
//! tables reach them all.
//!
//! Source: Documentation/arch/x86/boot.rst.

pub(super) mod by_file;
mod chain;
pub(super) mod direct;
pub mod firmware;
pub(super) mod protected;
pub mod taken;
pub mod zero_page;

use super::x86::{BELOW_FLOOR, FLOOR, FOUR_GIB};
use super::{BootError, Facts, TableSummary, Tables};
use crate::abi::x86::setup_data;
use crate::base::{PAGE_SIZE, PhysRange, human};
use crate::carry::record::Placed;
use crate::host::Host;
use crate::image::LinuxKernel;
use crate::image::linux::{Format, Load, xloadflags};
use crate::image::vmlinux::START_KERNEL_MAP;
use crate::layout::{
    self, Layout, Limits, PlaceError, PlacedFile, Placement, Places, Rest, Role, Segment,
    stream_size,
};
use crate::memory::Direction;
use crate::purgatory;
use direct::Direct;
use zero_page::Addresses;

/// Segments besides those of kernel and initrd: boot_params, setup_data,
/// purgatory, elfcorehdr.
const OTHER_SEGMENTS: usize = 4;
/// Entries of the memory map that a kernel with CONFIG_NODES_SHIFT=10 keeps:
/// 128 + 3 * 1024 (E820_MAX_ENTRIES in arch/x86/include/asm/e820/types.h).
const E820_MAX_ENTRIES: usize = 3200;
/// First address that 4-level paging does not reach: 64 TiB.
const FOUR_LEVEL_LIMIT: u64 = 1 << 46;
/// First address that 5-level paging does not reach: 4 PiB.
const FIVE_LEVEL_LIMIT: u64 = 1 << 52;

/// Checks that the kernel can be entered in the paging mode of the running one. A 32-bit
/// entry is reached without paging.
pub(super) fn check(image: &LinuxKernel<'_>, host: &Host) -> Result<(), BootError> {
    let enters_paging = !image.is_32_bit();
    if enters_paging && host.cpu.la57 && !image.has(xloadflags::FIVE_LEVEL) {
        return Err(BootError::FiveLevel);
    }
    Ok(())
}

/// Which addresses the kernel reaches when it is entered.
pub(super) fn limits(image: &LinuxKernel<'_>, host: &Host) -> Limits {
    let five_level = host.cpu.la57 && image.has(xloadflags::FIVE_LEVEL_ENABLED);
    let paging = if five_level {
        FIVE_LEVEL_LIMIT
    } else {
        FOUR_LEVEL_LIMIT
    };
    let reach = if image.is_32_bit() {
        protected::REACH
    } else if image.reaches_above_4g() {
        paging - PAGE_SIZE
    } else {
        FOUR_GIB
    };
    Limits {
        floor: FLOOR,
        below: BELOW_FLOOR,
        reach,
        low_first: if image.is_32_bit() {
            protected::LOW_MEMORY
        } else {
            u64::MAX
        },
    }
}

/// Takes places for the smallest boot_params, purgatory, kernel and initrds.
pub(super) fn fits(
    image: &LinuxKernel<'_>,
    places: &mut Places<'_>,
    initrds: &[&[u8]],
) -> Result<(), BootError> {
    places.small(Rest::Highest, "boot_params", zero_page::segment_size(0))?;
    places.small(Rest::Highest, "purgatory", purgatory::size())?;
    place_kernel(image, places)?;
    place_initrds(image, places, initrds)?;
    Ok(())
}

/// Places kernel and initrds.
pub(super) fn lay_out<'a>(
    image: &LinuxKernel<'a>,
    places: &mut Places<'_>,
    initrds: &[&'a [u8]],
    empty: Option<&'static str>,
) -> Result<Layout<'a>, BootError> {
    let kernel = place_kernel(image, places)?;
    let initrd = place_initrds(image, places, initrds)?;
    // A vmlinux has no unpacker: it runs where it is put, and where it is linked for.
    let placement = (image.format == Format::Vmlinux).then(|| Placement {
        physical: kernel.start(),
        virtual_address: START_KERNEL_MAP + image.geometry.floor,
        randomized: false,
    });
    let segments = kernel_segments(image, kernel, &kernel_rule(image, places));
    Ok(Layout {
        placement,
        ..layout(image, places, kernel, segments, initrd, (initrds, empty))
    })
}

/// Places a kernel that the loader unpacked, and initrds.
pub(super) fn lay_out_direct<'a>(
    direct: &Direct<'a>,
    places: &mut Places<'_>,
    initrds: &[&'a [u8]],
    empty: Option<&'static str>,
) -> Result<Layout<'a>, BootError> {
    let image = &direct.kernel;
    let untouched = places.clone();
    // The initrd first, for a kernel in the middle of free memory could leave no room for it.
    let initrd_first = place_initrds(image, places, initrds)
        .and_then(|initrd| Ok((initrd, direct.place(places)?)));
    let (initrd, (kernel, placement, rule)) = match initrd_first {
        Ok(placed) => placed,
        // The kernel may need the place that the initrd took.
        Err(error) => {
            *places = untouched;
            let kernel_first = direct
                .place_highest(places)
                .and_then(|kernel| Ok((place_initrds(image, places, initrds)?, kernel)));
            kernel_first.map_err(|_| error)?
        }
    };
    let segments = kernel_segments(image, kernel, &rule);
    Ok(Layout {
        placement: Some(placement),
        ..layout(image, places, kernel, segments, initrd, (initrds, empty))
    })
}

/// The layout of a kernel that is placed at `kernel` and has `segments`, and of its initrds.
fn layout<'a>(
    image: &LinuxKernel<'_>,
    places: &Places<'_>,
    kernel: PhysRange,
    mut segments: Vec<Segment<'a>>,
    initrd: Option<PlacedFile>,
    (initrds, empty): (&[&'a [u8]], Option<&'static str>),
) -> Layout<'a> {
    if let Some(initrd) = initrd {
        let taken = OTHER_SEGMENTS + segments.len();
        let left = places.segments().saturating_sub(taken);
        segments.extend(initrd_segments(initrds, initrd.start, left, empty));
    }
    Layout {
        segments,
        kernel,
        placement: None,
        entry: kernel.start() + image.entry,
        files: initrd.into_iter().collect(),
        rest: Rest::Highest,
    }
}

fn place_initrds(
    image: &LinuxKernel<'_>,
    places: &mut Places<'_>,
    initrds: &[&[u8]],
) -> Result<Option<PlacedFile>, PlaceError> {
    let size = stream_size(initrds);
    if size == 0 {
        return Ok(None);
    }
    let start = place_initrd(image, places, size)?.start();
    Ok(Some(PlacedFile { start, size }))
}

fn place_kernel(image: &LinuxKernel<'_>, places: &mut Places<'_>) -> Result<PhysRange, PlaceError> {
    let what = "the kernel";
    let geometry = &image.geometry;
    let (size, align) = (geometry.size, geometry.align.max(PAGE_SIZE));
    let top = if geometry.fixed {
        let end = size.next_multiple_of(PAGE_SIZE);
        geometry.floor.saturating_add(end)
    } else {
        u64::MAX
    };
    if image.is_32_bit() {
        let bounds = (geometry.floor, top.min(protected::kernel_top(image)));
        return places.first(Direction::BottomUp, what, size, align, bounds);
    }
    if places.is_restricted() {
        // The unpacker chooses from the scratch memory of Kexec Handover at random, and takes
        // nothing below the place where it was put, or below 512 MiB where that is higher
        // (`choose_random_location` of arch/x86/boot/compressed/kaslr.c).
        return places.first(
            Direction::BottomUp,
            what,
            size,
            align,
            (geometry.floor, top),
        );
    }
    places.highest(what, size, align, (geometry.floor, top))
}

fn place_initrd(
    image: &LinuxKernel<'_>,
    places: &mut Places<'_>,
    size: u64,
) -> Result<PhysRange, PlaceError> {
    let top = if image.reaches_above_4g() {
        u64::MAX
    } else {
        image.initrd_end
    };
    places.highest("the initrd", size, PAGE_SIZE, (0, top))
}

/// Why a kernel lies where [`place_kernel`] places it.
fn kernel_rule(image: &LinuxKernel<'_>, places: &Places<'_>) -> String {
    format!(
        "{} that the kernel allows (from {:#x} on, a multiple of {}); it needs all of the {} \
         to start",
        if image.is_32_bit() {
            "entered in 32-bit mode: lowest free address"
        } else if places.is_restricted() {
            "lowest free address of the scratch memory"
        } else {
            "highest free address"
        },
        image.geometry.floor,
        human(image.geometry.align),
        human(image.geometry.size)
    )
}

/// The kernel's place cut into its loads, each up to the next one: the running
/// kernel keeps what it needs for the jump off all of it.
fn kernel_segments<'a>(image: &LinuxKernel<'a>, place: PhysRange, rule: &str) -> Vec<Segment<'a>> {
    let start = |load: &Load<'_>| place.start() + load.offset;
    let ends = image.loads.iter().skip(1).map(start).chain([place.end()]);
    let cut = image.loads.iter().zip(ends).filter_map(|(load, end)| {
        Some(Segment {
            role: Role::Kernel,
            buf: load.bytes.clone(),
            mem: PhysRange::from_bounds(start(load), end).ok()?,
            rule: rule.to_owned(),
        })
    });
    cut.collect()
}

/// The initrds from `start` on, cut into their parts, no more than `limit`; `empty` says
/// why it is an empty one.
fn initrd_segments<'a>(
    initrds: &[&'a [u8]],
    start: u64,
    limit: usize,
    empty: Option<&str>,
) -> Vec<Segment<'a>> {
    let mut rule = "highest free address once the kernel has its place".to_owned();
    if let Some(why) = empty {
        rule = format!("{rule}; an empty initrd, because {why}");
    }
    let mut start = start;
    let mut segments = Vec::new();
    for part in layout::parts(initrds, limit) {
        let size = (part.len() as u64).next_multiple_of(PAGE_SIZE);
        if let Ok(mem) = PhysRange::new(start, size) {
            segments.push(Segment {
                role: Role::Initrd,
                buf: part.into(),
                mem,
                rule: rule.clone(),
            });
        }
        start += size;
    }
    segments
}

/// Places and makes the zero page with the command line, and the setup_data chain.
pub(super) fn tables<'a>(
    image: &LinuxKernel<'a>,
    places: &mut Places<'_>,
    layout: &Layout<'a>,
    facts: Facts<'_>,
) -> Result<Tables<'a>, BootError> {
    let (mut chain, warning) = chain::build(facts)?;
    let record = chain::record(
        image,
        facts,
        &chain,
        layout.placement.map(|place| Placed {
            physical: place.physical,
            r#virtual: place.virtual_address,
        }),
    );
    chain.push(setup_data::SETUP_NONE, record.payload());

    let line = facts.cmdline.as_bstr();
    let size = zero_page::segment_size(line.len() as u64);
    let boot_params = places.small(layout.rest, "boot_params", size)?;
    let chain_size = chain.size() as u64;
    let setup_data = places.small(layout.rest, "setup_data", chain_size)?;
    chain::place_kho(&mut chain, setup_data.start(), facts);
    let initrd = layout.files.first();
    let addresses = Addresses {
        kernel: layout.kernel.start(),
        cmdline: boot_params.start() + zero_page::CMDLINE_OFFSET,
        initrd: initrd.map(|initrd| initrd.start),
        initrd_size: initrd.map_or(0, |initrd| initrd.size),
        setup_data: setup_data.start(),
        randomized: layout.placement.is_some_and(|place| place.randomized),
    };
    let efi = facts.firmware.efi.as_ref();
    let zero_page = zero_page::build(image, facts.host, efi, facts.told, &chain, &addresses);
    let segments = vec![
        Segment {
            role: Role::BootParams,
            buf: zero_page::segment_bytes(&zero_page, line).into(),
            mem: boot_params,
            rule: "highest free address; the command line begins on the second page".to_owned(),
        },
        Segment {
            role: Role::SetupData,
            buf: chain.bytes_at(setup_data.start()).into(),
            mem: setup_data,
            rule: "highest free address; all setup_data in one part".to_owned(),
        },
    ];
    let stamps = chain::stamps_offset(&chain);
    let nodes = chain.nodes().iter();
    let summary = nodes.map(|node| TableSummary {
        kind: setup_data::type_name(node.kind),
        size: node.data.len(),
    });
    Ok(Tables {
        segments,
        pointer: boot_params.start(),
        stamps: stamps.map(|offset| setup_data.start() + offset as u64),
        summary: summary.collect(),
        warnings: warning.into_iter().collect(),
    })
}
