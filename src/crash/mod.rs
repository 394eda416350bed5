//! The crash kernel: where it may lie, its memory map, and the contents of its
//! dump.

pub mod elfcorehdr;
pub mod estimate;
pub mod fit;
pub mod sizing;

use crate::base::{PAGE_SIZE, PhysRange, Told, human};
use crate::host::Host;
use crate::host::crash::Note;
use crate::memory::{Layer, MemoryKind, MemoryMap, Placement, Region};
use crate::refusal::MAKE_ROOM;
use crate::sys::Hotplug;
use elfcorehdr::{Contents, TooManyHeaders};

/// End of the memory that every kernel needs to start, and that the running kernel does
/// not use when it has a crash kernel (since Linux 5.5): 1 MiB.
const LOW: u64 = 1 << 20;
/// Pages that the kernel takes from the reservation for itself besides page
/// tables: control pages, a copy of vmcoreinfo, and alignment between them
/// (`kimage_alloc_crash_control_pages`).
const CONTROL_PAGES: u64 = 32;
/// What one page of the identity map's lowest level maps, bytes.
const PER_TABLE: u64 = 1 << 30;

/// What `--hotplug` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HotplugChoice {
    /// Where the kernel can.
    #[default]
    Auto,
    /// Yes, or planning fails.
    On,
    /// No.
    Off,
}

/// Why there can be no crash kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrashError {
    /// No `crashkernel=`, or no room for it.
    #[error("no memory is reserved for a crash kernel")]
    NoReservation,
    /// The kernel does not tell its size now.
    #[error(
        "another load is running, and the kernel hides the size of the reservation during a load"
    )]
    Busy,
    /// The reservation is tiny.
    #[error(
        "the memory reserved for a crash kernel is too small: {}, of which the running kernel itself takes {}",
        human(*size), human(*room)
    )]
    Tiny {
        /// Its size, bytes.
        size: u64,
        /// What the kernel puts there, bytes.
        room: u64,
    },
    /// The dump cannot be described.
    #[error("the running kernel does not show {what} ({file}), and a dump needs it")]
    Untold {
        /// What is missing.
        what: &'static str,
        /// The file that tells it.
        file: &'static str,
    },
    /// The ELF header is full.
    #[error(transparent)]
    TooManyHeaders(#[from] TooManyHeaders),
    /// `--hotplug on` on a kernel that cannot.
    #[error("the running kernel cannot update elfcorehdr itself: {0}")]
    NoHotplug(String),
}

impl CrashError {
    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoReservation | Self::Tiny { .. } => Some(MAKE_ROOM),
            Self::Busy => Some("try again when the other load is done"),
            Self::Untold { .. } => Some(
                "run as root, or use --syscall kexec_file_load: then the running kernel describes the dump",
            ),
            Self::TooManyHeaders(_) => {
                Some("add memory in larger blocks: a dump cannot hold all of so many pieces")
            }
            Self::NoHotplug(_) => Some(
                "leave --hotplug out; `rkexec arm --watch` loads the crash kernel again when memory or CPUs change",
            ),
        }
    }
}

/// The memory that was set aside at boot for a crash kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Where segments go: the high one of two (`crashk_res`).
    pub target: PhysRange,
    /// Every range the crash kernel may use: `target`, the low one, and those of
    /// `crashkernel=…,cma`.
    pub all: Vec<PhysRange>,
}

impl Reservation {
    /// The one of `host`.
    ///
    /// # Errors
    /// When there is none, or the kernel does not tell which one it is now.
    pub fn of(host: &Host) -> Result<Self, CrashError> {
        if host.loaded.busy {
            return Err(CrashError::Busy);
        }
        let reserved = host.iomem.crash_kernel();
        // kexec_crash_size is that of crashk_res; of equal ones the higher it is.
        let target = reserved
            .iter()
            .rev()
            .find(|range| host.loaded.crash_size == Some(range.size()))
            .or(reserved.last())
            .copied()
            .ok_or(CrashError::NoReservation)?;
        let mut all = reserved;
        all.extend(&host.crash.cma);
        all.sort_unstable();
        Ok(Self { target, all })
    }

    /// What the kernel itself puts into the reservation: its control pages and an
    /// identity map of all memory (`machine_kexec_prepare`), in which a page maps
    /// 1 GiB. It takes the lowest free pages.
    fn room(&self, map: &MemoryMap) -> Result<PhysRange, CrashError> {
        let (mut tables, mut counted) = (0, 0);
        for region in map.regions().iter().filter(|region| region.in_dump) {
            let end = region.range.end().div_ceil(PER_TABLE);
            tables += end - counted.max(region.range.start() / PER_TABLE).min(end);
            counted = end;
        }
        let (size, room) = (
            self.target.size(),
            (CONTROL_PAGES + tables + tables / 512) * PAGE_SIZE,
        );
        PhysRange::new(self.target.start(), room)
            .ok()
            .filter(|range| range.end() < self.target.end())
            .ok_or(CrashError::Tiny { size, room })
    }

    /// Makes `map` the crash kernel's. Its only RAM is below 1 MiB and in the
    /// reservation, and its segments go there. What the running kernel uses as System
    /// RAM in the reservation is RAM, whatever the firmware calls it: `memmap=` can
    /// have made it so. Soft-reserved memory is left out, because dax drivers would use
    /// it as RAM (`crash_setup_memmap_entries` leaves it out, too). The dump holds the
    /// rest of RAM, a driver's included, but not the first MiB, where the running
    /// kernel keeps nothing (`elf_header_exclude_ranges` in arch/x86/kernel/crash.c).
    ///
    /// # Errors
    /// When the reservation is smaller than what the kernel puts into it.
    pub fn restrict(&self, map: &mut MemoryMap) -> Result<(), CrashError> {
        let room = self.room(map)?;
        let told = map.told();
        let of = |wanted: Told| {
            let rows = told.iter().filter(move |(_, kind)| *kind == wanted);
            rows.map(|(range, _)| *range).collect::<Vec<_>>()
        };
        map.change_all(&of(Told::SOFT_RESERVED), |region| {
            region.told = None;
            region.reason = "a driver of the crash kernel would use it as RAM";
        });
        let ram = of(Told::RAM);
        map.change_all(&ram, |region| {
            region.told = None;
            region.placement = Placement::Never;
            region.reason = "memory of the crashed kernel: saved in the dump";
        });
        let own = |region: &mut Region| {
            region.told = Some(Told::RAM);
            region.reason = "the crash kernel runs here";
        };
        let low: Vec<PhysRange> = PhysRange::from_bounds(0, LOW).into_iter().collect();
        map.change_all(&low, |region| region.in_dump = false);
        map.change_all(&intersections(&ram, &low), own);
        map.change_all(&merged(self.all.iter().copied()), |region| {
            region.in_dump = false;
            if region.is_system_ram() {
                region.kind = MemoryKind::Ram;
                own(region);
            }
        });
        map.change(self.target, |region| {
            if region.told == Some(Told::RAM) {
                region.placement = Placement::Allowed;
            }
        });
        map.change(room, |region| {
            region.placement = Placement::Never;
            region.reason = "the crash kernel runs here; kept empty for the running kernel";
        });
        Ok(())
    }
}

/// `ranges`, which may overlap, sorted and disjoint.
fn merged(ranges: impl Iterator<Item = PhysRange>) -> Vec<PhysRange> {
    let mut ranges: Vec<PhysRange> = ranges.collect();
    ranges.sort_unstable();
    let mut layer: Layer<()> = Layer::default();
    for range in ranges {
        layer.push(range, ());
    }
    layer.entries().iter().map(|(range, ())| *range).collect()
}

/// The intersection of `some` and `others`, both sorted and disjoint.
fn intersections(some: &[PhysRange], others: &[PhysRange]) -> Vec<PhysRange> {
    let mut both = Vec::new();
    for range in some {
        let first = others.partition_point(|other| other.end() <= range.start());
        let behind = others.get(first..).unwrap_or_default().iter();
        let here = behind.take_while(|other| other.start() < range.end());
        both.extend(here.filter_map(|other| range.intersection(*other)));
    }
    both
}

/// The RAM that the dump holds, by a map that [`Reservation::restrict`] made.
#[must_use]
pub fn dumped(map: &MemoryMap) -> Vec<PhysRange> {
    let mut ram: Layer<()> = Layer::default();
    for region in map.regions().iter().filter(|region| region.in_dump) {
        ram.push(region.range, ());
    }
    ram.entries().iter().map(|(range, ())| *range).collect()
}

/// Keeps the crash kernel off `elfcorehdr`, which it reads like the dump.
pub fn hide(map: &mut MemoryMap, elfcorehdr: PhysRange) {
    map.change(elfcorehdr, |region| {
        region.told = None;
        region.reason = "the header of the dump (elfcorehdr): the crash kernel reads it";
    });
}

/// What elfcorehdr is made of.
///
/// # Errors
/// When the running kernel does not tell something it needs.
pub fn contents(host: &Host, ram: &[PhysRange]) -> Result<Contents, CrashError> {
    let untold = |what, file| CrashError::Untold { what, file };
    let facts = &host.crash;
    let cpus: Vec<Note> = facts.cpus.iter().map(|(_, note)| *note).collect();
    if cpus.is_empty() {
        return Err(untold(
            "where its CPUs leave their registers",
            "/sys/devices/system/cpu/cpu*/crash_notes",
        ));
    }
    Ok(Contents {
        cpus,
        vmcoreinfo: facts
            .vmcoreinfo
            .ok_or_else(|| untold("where its vmcoreinfo lies", "/sys/kernel/vmcoreinfo"))?,
        mapping: facts
            .mapping
            .ok_or_else(|| untold("how it maps memory", "/proc/kcore"))?,
        ram: ram.to_vec(),
    })
}

/// The kexec_load flag that lets the kernel update elfcorehdr, and the size in bytes
/// that the kernel wants for it; `None` when the kernel cannot or shall not update it.
///
/// # Errors
/// When `--hotplug on` asks for it and the kernel cannot.
pub fn hotplug(host: &Host, choice: HotplugChoice) -> Result<Option<(Hotplug, u64)>, CrashError> {
    let can = host.loaded.crash_elfcorehdr_size.and_then(|size| {
        let flag = match crate::base::version(&host.release)? {
            (0..=5, _) | (6, 0..=5) => return None,
            (6, 6..=9) => Hotplug::UpdateElfcorehdr,
            _ => Hotplug::CrashHotplugSupport,
        };
        Some((flag, size))
    });
    match (choice, can) {
        (HotplugChoice::Off, _) => Ok(None),
        (HotplugChoice::On, None) => Err(CrashError::NoHotplug(format!(
            "it is {}, and /sys/kernel/crash_elfcorehdr_size is {}",
            host.release,
            host.loaded
                .crash_elfcorehdr_size
                .map_or("missing (CONFIG_CRASH_HOTPLUG, Linux 6.6)", |_| "there"),
        ))),
        (_, can) => Ok(can),
    }
}

#[cfg(test)]
mod tests;
