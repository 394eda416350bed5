//! How a multiboot kernel, Xen for one, is laid out and told: everything lies below
//! 4 GiB, and only kexec_load can do it.
//!
//! The kernel lies where it is linked or, when it is relocatable, at the place it
//! prefers. Its modules follow above it, lowest first, as other boot loaders place
//! them: small kernels search no further than they must.

use bstr::{BStr, ByteSlice as _};

use super::{BootInformation, Module, Pixels, Screen, v1, v2};
use crate::base::{Buf, PAGE_SIZE, PhysRange, Target};
use crate::boot::x86::{BELOW_FLOOR, FLOOR, FOUR_GIB};
use crate::boot::{BootError, Facts, FileRefusal, Tables};
use crate::carry::{Handover, Protection};
use crate::cmdline::{self, Cmdline, CmdlineBase, CmdlineRequest};
use crate::host::Host;
use crate::host::firmware_tables::FirmwareTables;
use crate::image::Multiboot;
use crate::image::multiboot::v2::information_name;
use crate::image::multiboot::{Preference, Relocatable, Version, pieces};
use crate::layout::{Layout, Limits, PlacedFile, Places, Rest, Role, Segment};
use crate::memory::Direction;
use crate::request::{DirectChoice, LoadRequest};
use crate::sys::SEGMENT_MAX;

/// Segments besides those of the kernel and its modules: the information, purgatory.
const OTHER_SEGMENTS: usize = 2;
/// The addresses used end one page below 4 GiB: the end address of a module that ends
/// at 4 GiB would not fit 32 bits.
pub(in crate::boot) const LIMITS: Limits = Limits {
    floor: FLOOR,
    below: BELOW_FLOOR,
    reach: FOUR_GIB - PAGE_SIZE,
    low_first: u64::MAX,
};
/// Why kexec_file_load is no choice.
pub(in crate::boot) const FILE_REFUSAL: FileRefusal = FileRefusal {
    reason: "it is a multiboot kernel, and the running kernel loads Linux only",
    way_out: None,
    decides: Some("kexec_file_load does not take a multiboot kernel"),
};
/// Why purgatory lies where it does.
pub(in crate::boot) const PURGATORY_RULE: &str = "lowest place left, above the kernel if it fits there; it leaves long mode, and must lie below 4 GiB for that";

/// Refuses options that do not work with multiboot kernels, and names of modules that are
/// no C strings.
pub(in crate::boot) fn check(
    image: &Multiboot<'_>,
    request: &LoadRequest,
    initrds: &[&[u8]],
) -> Result<(), BootError> {
    refuse(request, initrds)?;
    check_names(image)
}

/// Refuses options that do not work with multiboot kernels.
fn refuse(request: &LoadRequest, initrds: &[&[u8]]) -> Result<(), BootError> {
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
            "the crash kernel is a Linux",
            None,
        ),
        (
            request.direct == DirectChoice::On,
            "--direct on",
            "it does not unpack itself, and has no KASLR",
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
        Some((_, option, reason, hint)) => Err(BootError::NotForMultiboot {
            option,
            reason,
            hint,
        }),
        None => Ok(()),
    }
}

/// The command line, prefixed with the file's name. Other boot loaders add it,
/// and Xen removes it.
pub(in crate::boot) fn command_line(
    line: &Cmdline,
    image: &Multiboot<'_>,
) -> Result<Cmdline, BootError> {
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
fn check_names(image: &Multiboot<'_>) -> Result<(), BootError> {
    image.modules.iter().try_for_each(|module| {
        let request = CmdlineRequest {
            base: CmdlineBase::Given(module.cmdline.clone()),
            ..CmdlineRequest::default()
        };
        Cmdline::make(&request, "", usize::MAX)?;
        Ok(())
    })
}

/// What the operator should know of the kernel.
pub(in crate::boot) fn warnings(
    image: &Multiboot<'_>,
    request: &LoadRequest,
    host: &Host,
    handover: &Handover,
    line: &BStr,
) -> Vec<String> {
    let tables = &request.firmware_tables;
    let mut warnings = Vec::new();
    let mut warn = |what: String| warnings.push(what);
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
    if image.asks_bios && !cmdline::has(line, "no-real-mode") {
        warn("Xen asks the BIOS for its memory map, and does not take this one: no-real-mode on its command line makes it".to_owned());
    }
    warnings
}

/// `address` as 32 bits. [`Places`] gives no address above that.
fn low(address: u64) -> u32 {
    u32::try_from(address).unwrap_or(u32::MAX)
}

/// Places the kernel and its modules.
pub(in crate::boot) fn lay_out<'a>(
    image: &Multiboot<'a>,
    places: &mut Places<'_>,
) -> Result<Layout<'a>, BootError> {
    let (mut segments, shift) = match &image.relocatable {
        None => (fixed(image, places)?, 0),
        Some(bounds) => relocated(image, bounds, places)?,
    };
    let rest = Rest::LowestAbove(segments.last().map_or(0, |segment| segment.mem.end()));
    let files = modules(image, rest, &mut segments, places)?;
    // The shift keeps the kernel inside the addresses that were searched.
    let start = image.span.start().wrapping_add(shift);
    Ok(Layout {
        segments,
        kernel: PhysRange::new(start, image.span.size()).unwrap_or(image.span),
        placement: None,
        entry: image.entry.wrapping_add(shift),
        files,
        rest,
    })
}

/// Places and makes the boot information.
pub(in crate::boot) fn tables<'a>(
    image: &Multiboot<'a>,
    places: &mut Places<'_>,
    layout: &Layout<'a>,
    facts: Facts<'_>,
) -> Result<Tables<'a>, BootError> {
    let tables = &facts.request.firmware_tables;
    let modules = image.modules.iter().zip(&layout.files);
    let information = BootInformation {
        cmdline: facts.cmdline.as_bstr(),
        modules: modules
            .map(|(module, file)| Module {
                start: low(file.start),
                end: low(file.start + file.size),
                cmdline: module.cmdline.as_bstr(),
            })
            .collect(),
        map: facts.told,
        screen: screen(facts.host, image)?,
        rsdp: tables.rsdp.as_ref(),
        smbios: tables.smbios.as_ref(),
        load_base: image.relocatable.map(|_| low(layout.kernel.start())),
    };
    check_requests(image, &information, tables)?;
    let bytes = |at| match image.version {
        Version::One => v1::bytes(&information, at),
        Version::Two => v2::bytes(&information),
    };
    let at = places.small(layout.rest, "the boot information", bytes(0).len() as u64)?;
    Ok(Tables {
        segments: vec![Segment {
            role: Role::BootParams,
            buf: bytes(low(at.start())).into(),
            mem: at,
            rule: "lowest place left, above the kernel if it fits there: the boot information"
                .to_owned(),
        }],
        pointer: at.start(),
        stamps: None,
        summary: Vec::new(),
        warnings: Vec::new(),
    })
}

/// The kernel's segments when they lie `shift` bytes above where they are linked.
fn kernel<'a>(
    image: &Multiboot<'a>,
    shift: u64,
    rule: &str,
) -> Result<Vec<Segment<'a>>, BootError> {
    let pieces = pieces(&image.loads, shift).unwrap_or_default();
    let (count, most) = (pieces.len(), SEGMENT_MAX - OTHER_SEGMENTS);
    if count > most {
        return Err(BootError::TooManyPieces { count, most });
    }
    let segments = pieces.into_iter().map(|piece| Segment {
        role: Role::Kernel,
        buf: piece.bytes.into(),
        mem: piece.mem,
        rule: rule.to_owned(),
    });
    Ok(segments.collect())
}

/// The kernel at its own addresses.
fn fixed<'a>(
    image: &Multiboot<'a>,
    places: &mut Places<'_>,
) -> Result<Vec<Segment<'a>>, BootError> {
    let rule = "the kernel's own address: it is not relocatable";
    let segments = kernel(image, 0, rule)?;
    for segment in &segments {
        let range = segment.mem;
        if !places.exactly(range) {
            let why = places.why_not(range);
            return Err(BootError::Occupied { range, why });
        }
    }
    Ok(segments)
}

/// The kernel at the place it prefers, and how far that is from its link address.
fn relocated<'a>(
    image: &Multiboot<'a>,
    bounds: &Relocatable,
    places: &mut Places<'_>,
) -> Result<(Vec<Segment<'a>>, u64), BootError> {
    let direction = match bounds.preference {
        Preference::Lowest => Direction::BottomUp,
        Preference::None | Preference::Highest => Direction::TopDown,
    };
    let place = places.first(
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

/// Places the modules, and says where they lie. Each is a segment of its own; when those
/// are not enough, the last ones share one.
fn modules<'a>(
    image: &Multiboot<'a>,
    rest: Rest,
    segments: &mut Vec<Segment<'a>>,
    places: &mut Places<'_>,
) -> Result<Vec<PlacedFile>, BootError> {
    let files = &image.modules;
    let left = (SEGMENT_MAX - OTHER_SEGMENTS).saturating_sub(segments.len());
    if left == 0 && !files.is_empty() {
        let (count, most) = (segments.len(), SEGMENT_MAX - OTHER_SEGMENTS - 1);
        return Err(BootError::TooManyPieces { count, most });
    }
    let alone = if files.len() > left {
        left - 1
    } else {
        files.len()
    };
    let (alone, together) = files.split_at_checked(alone).unwrap_or((files, &[]));
    let placed = |start: u64, bytes: &[u8]| PlacedFile {
        start,
        size: bytes.len() as u64,
    };
    let mut modules = Vec::with_capacity(files.len());
    for file in alone {
        let mem = places.small(rest, "a module", file.bytes.len() as u64)?;
        modules.push(placed(mem.start(), file.bytes));
        segments.push(segment(file.bytes.into(), mem));
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
        let mem = places.small(rest, "the last modules", bytes.len() as u64)?;
        for (file, offset) in together.iter().zip(offsets) {
            modules.push(placed(mem.start() + offset, file.bytes));
        }
        segments.push(segment(bytes.into(), mem));
    }
    Ok(modules)
}

fn segment(buf: Buf<'_>, mem: PhysRange) -> Segment<'_> {
    Segment {
        role: Role::Module,
        buf,
        mem,
        rule: "lowest place left, above the kernel if it fits there, on whole pages".to_owned(),
    }
}

/// The screen that is described to the kernel.
fn screen(host: &Host, image: &Multiboot<'_>) -> Result<Option<Screen>, BootError> {
    let running = host.boot_params.as_ref();
    let screen = running.and_then(|running| Screen::new(&running.params.screen_info));
    let console = image.console;
    let usable =
        screen.filter(|screen| !console.stated || console.text || screen.pixels != Pixels::Text);
    match (usable, console.required) {
        (None, true) => Err(BootError::MultibootNeeds {
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
) -> Result<(), BootError> {
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
    Err(BootError::MultibootNeeds { what, why })
}
