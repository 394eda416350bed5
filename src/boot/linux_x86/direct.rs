//! Direct load: the loader does what the kernel's own unpacker does, before the downtime.
//! It unpacks the kernel, chooses its physical and its virtual place at random (KASLR), and
//! applies the relocations. The kernel is entered at its own 64-bit entry.
//!
//! Source of what the unpacker does: arch/x86/boot/compressed/{head_64.S,kaslr.c,misc.c}.

use bstr::{BStr, ByteSlice as _};
use sha2::{Digest as _, Sha256};

use crate::base::{PhysRange, Syscall, Told, human, version};
use crate::boot::BootError;
use crate::cmdline::{self, GIGABYTE_PAGE};
use crate::host::Host;
use crate::image::linux::{Format, Geometry, xloadflags};
use crate::image::unpacked::UnpackedError;
use crate::image::vmlinux::START_KERNEL_MAP;
use crate::image::{LinuxKernel, Unpacked};
use crate::layout::{PlaceError, Placement, Places};
use crate::request::{DirectChoice, LoadRequest};

/// What the kernel maps of itself, bytes from START_KERNEL_MAP on: KERNEL_IMAGE_SIZE of
/// arch/x86/include/asm/page_64_types.h, for a kernel with CONFIG_RANDOMIZE_BASE.
const KERNEL_IMAGE_SIZE: u64 = 1 << 30;
/// The oldest Linux that is loaded so: version and patch level.
const OLDEST: (u32, u32) = (5, 0);

/// A warning of a vmlinux without relocation lists.
const FIXED: &str = "no KASLR: the vmlinux has no relocation lists, and always starts at a fixed virtual address. \
                     The bzImage (vmlinuz) of the same kernel has KASLR";

/// A kernel that the loader places itself.
#[derive(Debug, Clone)]
pub struct Direct<'a> {
    /// The kernel as it goes into memory.
    pub(in crate::boot) kernel: LinuxKernel<'a>,
    /// The kernel as its file has it.
    pub(in crate::boot) file: LinuxKernel<'a>,
    /// Its virtual address.
    virtual_address: u64,
    /// Chooses its physical place; `None`: not at random.
    number: Option<u64>,
    /// Memory that it takes only when there is no other.
    spared: Vec<PhysRange>,
}

/// Who unpacks and places a kernel.
#[derive(Debug, Default)]
pub struct Road<'a> {
    /// The kernel that the loader places itself; `None`: the kernel's own unpacker runs, or
    /// there is none.
    pub direct: Option<Direct<'a>>,
    /// Why so.
    pub reason: String,
    /// What the operator should know.
    pub warning: Option<String>,
}

/// Decides who unpacks and places `kernel`, which is loaded by `syscall`, has the command
/// line `line`, and is told the memory map `told`.
///
/// # Errors
/// When `--direct on` asks for what cannot be.
pub(in crate::boot) fn road<'a>(
    kernel: &LinuxKernel<'a>,
    request: &LoadRequest,
    host: &Host,
    syscall: Syscall,
    line: &BStr,
    told: &[(PhysRange, Told)],
) -> Result<Road<'a>, BootError> {
    let by_unpacker = |reason: String, warning| match request.direct {
        DirectChoice::On => Err(BootError::NotDirect(reason)),
        DirectChoice::Auto | DirectChoice::Off => Ok(Road {
            direct: None,
            reason,
            warning,
        }),
    };
    let not_understood = |why: String| {
        let instead = match kernel.format {
            Format::BzImage => "no direct load, and the kernel unpacks itself",
            Format::Vmlinux => "no KASLR",
        };
        let warning = format!("{instead}: {why}");
        by_unpacker(why, Some(warning))
    };
    if let Some(why) = hindrance(kernel, request, host, syscall, line) {
        return by_unpacker(why, None);
    }
    let unpacked = match Unpacked::of(kernel) {
        Ok(unpacked) => unpacked,
        Err(error @ UnpackedError::NoPayload) => return by_unpacker(error.to_string(), None),
        Err(error) if error.is_damage() => {
            let why = error.to_string();
            let warning = format!(
                "the kernel is damaged, and will probably stop while it unpacks itself: {why}"
            );
            return by_unpacker(why, Some(warning));
        }
        Err(error) => return not_understood(error.to_string()),
    };
    let still = if !unpacked.is_relocatable() {
        Some("it has no relocation lists, so no KASLR")
    } else if cmdline::has(line, "nokaslr") {
        Some("nokaslr on its command line")
    } else if cmdline::has(line, "movable_node") {
        // With a bzImage the unpacker runs.
        Some("movable_node on its command line, so no KASLR")
    } else {
        None
    };
    let how = match kernel.format {
        Format::BzImage => "it is unpacked before the downtime",
        Format::Vmlinux => "it is a vmlinux, and has nothing to unpack",
    };
    let fixed = kernel.format == Format::Vmlinux && !unpacked.is_relocatable();
    let seed = request.seed.filter(|_| still.is_none()).map(numbers);
    match place(unpacked, kernel, seed) {
        Ok(direct) => Ok(Road {
            direct: Some(Direct {
                spared: gigabyte_pages(line, told),
                ..direct
            }),
            reason: match still {
                None => format!("{how}; KASLR: another place with every load"),
                Some(why) => format!("{how}; {why}"),
            },
            warning: fixed.then(|| FIXED.to_owned()),
        }),
        Err(reason) => not_understood(reason),
    }
}

/// Why the kernel's own unpacker has to run, or there is none.
fn hindrance(
    kernel: &LinuxKernel<'_>,
    request: &LoadRequest,
    host: &Host,
    syscall: Syscall,
    line: &BStr,
) -> Option<String> {
    let no5lvl = |line: &BStr| cmdline::has(line, "no5lvl");
    let five_level = kernel.has(xloadflags::FIVE_LEVEL_ENABLED);
    let why = if request.direct == DirectChoice::Off {
        "--direct off"
    } else if syscall == Syscall::KexecFileLoad {
        "with kexec_file_load the running kernel loads the file as it is"
    } else if let Some(why) = needs_unpacker(kernel) {
        why
    } else if kernel.format == Format::Vmlinux {
        return None;
    } else if let Some(flag) = host.cpu.confidential {
        return Some(format!(
            "this is a confidential guest ({flag}): only the kernel's unpacker accepts and shares memory there"
        ));
    } else if host.cpu.la57 && !five_level {
        "only its unpacker can leave the 5-level paging of the running kernel"
    } else if host.cpu.la57 && no5lvl(line) {
        "no5lvl on its command line: only its unpacker can leave the 5-level paging of the running kernel"
    } else if five_level && no5lvl(host.cmdline.as_bstr()) && !no5lvl(line) {
        "the running kernel has no5lvl, and only the unpacker can switch 5-level paging on"
    } else if cmdline::has(line, "movable_node") {
        "movable_node on its command line: only its unpacker knows which memory can be unplugged"
    } else {
        return None;
    };
    Some(why.to_owned())
}

/// Why the unpacker of `kernel` has to run on every machine.
#[must_use]
pub fn needs_unpacker(kernel: &LinuxKernel<'_>) -> Option<&'static str> {
    if kernel.is_32_bit() {
        Some("it is entered in 32-bit mode, and only its unpacker is known to work there")
    } else if kernel.release().and_then(version) < Some(OLDEST) {
        Some("it is older than Linux 5.0, or of an unknown version")
    } else {
        None
    }
}

/// Two random numbers out of `seed`. The next kernel gets the seed too: nobody can tell it
/// from the numbers.
fn numbers(seed: [u8; 32]) -> [u64; 2] {
    let hash = Sha256::new()
        .chain_update(b"rkexec: place of the kernel")
        .chain_update(seed)
        .finalize();
    let (numbers, _) = hash.as_chunks();
    let number = |at: usize| numbers.get(at).copied().unwrap_or_default();
    [0, 1].map(|at| u64::from_le_bytes(number(at)))
}

/// Chooses the virtual place of `unpacked`, the kernel of `file`, by random numbers; where
/// there are none, it stays where it is linked for.
fn place<'a>(
    mut unpacked: Unpacked<'a>,
    file: &LinuxKernel<'a>,
    seed: Option<[u64; 2]>,
) -> Result<Direct<'a>, String> {
    let Geometry {
        floor: base,
        size,
        align,
        ..
    } = *unpacked.geometry();
    let mut delta = 0;
    if let Some([number, _]) = seed {
        let free = KERNEL_IMAGE_SIZE.checked_sub(base + size).ok_or_else(|| {
            format!(
                "the kernel takes {size:#x} bytes from {base:#x} on, and maps no more than {KERNEL_IMAGE_SIZE:#x}"
            )
        })?;
        delta = number % (free / align + 1) * align;
        unpacked.relocate(delta);
    }
    Ok(Direct {
        kernel: unpacked.into_kernel(file),
        file: file.clone(),
        virtual_address: START_KERNEL_MAP + base + delta,
        number: seed.map(|[_, number]| number),
        spared: Vec::new(),
    })
}

/// The memory that `hugepages=` of 1 GiB finds in `told`, in whole pages from the lowest
/// address on: the unpacker does not put the kernel there (`process_gb_huge_pages`).
fn gigabyte_pages(line: &BStr, told: &[(PhysRange, Told)]) -> Vec<PhysRange> {
    let mut wanted = cmdline::gigabyte_pages(line);
    let ram = told.iter().filter(|(_, kind)| kind.is_ram());
    let pages = ram.filter_map(|(range, _)| {
        let first = range.start().div_ceil(GIGABYTE_PAGE);
        let pages = (range.end() / GIGABYTE_PAGE)
            .saturating_sub(first)
            .min(wanted);
        wanted -= pages;
        PhysRange::new(first * GIGABYTE_PAGE, pages * GIGABYTE_PAGE).ok()
    });
    pages.collect()
}

impl Direct<'_> {
    /// Whether its places are chosen at random.
    pub(in crate::boot) const fn is_random(&self) -> bool {
        self.number.is_some()
    }

    /// Chooses the physical place, and says by which rule.
    pub(super) fn place(
        &self,
        places: &mut Places<'_>,
    ) -> Result<(PhysRange, Placement, String), PlaceError> {
        let geometry = &self.kernel.geometry;
        let (size, align) = (geometry.size, geometry.align);
        let Some(number) = self.number.filter(|_| !geometry.fixed) else {
            return self.place_highest(places);
        };
        let bounds = (geometry.floor, u64::MAX);
        let place = places.any("the kernel", size, align, bounds, &self.spared, number)?;
        let rule = format!(
            "one of all free places, chosen at random (KASLR): from {:#x} on, a multiple of {}",
            geometry.floor,
            human(align)
        );
        Ok((place, self.placement(place), rule))
    }

    /// Takes the highest physical place, and says by which rule.
    pub(super) fn place_highest(
        &self,
        places: &mut Places<'_>,
    ) -> Result<(PhysRange, Placement, String), PlaceError> {
        let place = super::place_kernel(&self.kernel, places)?;
        let rule = super::kernel_rule(&self.kernel, places);
        Ok((place, self.placement(place), rule))
    }

    fn placement(&self, place: PhysRange) -> Placement {
        Placement {
            physical: place.start(),
            virtual_address: self.virtual_address,
            randomized: self.number.is_some(),
        }
    }
}

#[cfg(test)]
#[path = "direct_tests.rs"]
mod tests;
