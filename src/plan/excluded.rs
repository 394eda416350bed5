//! Memory that segments must not use.

use bstr::BStr;

use crate::base::{PhysRange, Target, Told};
use crate::boot::{Protocol, Taken};
use crate::host::Host;
use crate::layout::Excluded;
use crate::memory::{MemoryKind, MemoryMap, Placement};

/// Most words that a message names.
const MAX_WORDS: usize = 4;
/// Why memory that the command line takes away is kept free.
const BY_LINE: &str = "the new command line takes it from the next kernel";

/// The RAM that the new command line `line` takes away from the next kernel.
pub(super) fn by_line(boot: Protocol<'_, '_>, line: &BStr, target: Target) -> Vec<Taken> {
    let mut taken = boot.taken(line, Told::RAM);
    // A reused line may name the reservation in `crashkernel=`. The crash kernel itself
    // occupies that memory, so it cannot set it aside.
    if target == Target::Crash {
        taken.retain(|taken| taken.parameter != "crashkernel");
    }
    taken
}

/// Memory of `map` that segments must not use, with the reasons. `own` is the reservation
/// that the plan is for; `taken` is what the new command line takes away.
pub(super) fn excluded(
    host: &Host,
    map: &MemoryMap,
    own: Option<PhysRange>,
    taken: &[Taken],
) -> Vec<Excluded> {
    let regions = map.regions().iter().filter_map(|region| {
        let was_ram = region.sources.firmware.is_some_and(Told::is_ram);
        let is_memory = match region.kind {
            MemoryKind::Ram | MemoryKind::HotAddedRam => false,
            MemoryKind::DriverManaged(_)
            | MemoryKind::PersistentMemory
            | MemoryKind::PersistentMemoryLegacy
            | MemoryKind::SoftReserved
            | MemoryKind::Withheld
            | MemoryKind::EfiTables
            | MemoryKind::Pool(_) => true,
            _ => was_ram,
        };
        let name = match &region.kind {
            MemoryKind::Pool(name) => format!("pool {name}"),
            MemoryKind::EfiTables => region.sources.efi.unwrap_or("EFI").to_owned(),
            kind => region
                .sources
                .iomem
                .clone()
                .unwrap_or_else(|| kind.name().to_owned()),
        };
        is_memory.then_some(Excluded {
            range: region.range,
            name,
            reason: region.reason,
        })
    });
    let reserved = host.iomem.crash_kernel().into_iter();
    let reserved = reserved.filter(|range| Some(*range) != own);
    let crash = reserved.map(|range| Excluded {
        range,
        name: "Crash kernel".to_owned(),
        reason: "reserved for the crash kernel",
    });
    let taken = taken.iter().flat_map(|taken| of_taken(map, taken));
    let mut all: Vec<Excluded> = regions.chain(crash).chain(taken).collect();
    all.sort_by_key(|excluded| excluded.range);
    all
}

/// The part of `taken` that segments could use if its word were not on the line.
fn of_taken(map: &MemoryMap, taken: &Taken) -> Vec<Excluded> {
    let regions = map.regions();
    let first = regions.partition_point(|region| region.range.end() <= taken.range.start());
    let mut ranges: Vec<PhysRange> = Vec::new();
    let touched = regions
        .iter()
        .skip(first)
        .take_while(|region| region.range.start() < taken.range.end())
        .filter(|region| region.placement != Placement::Never);
    for part in touched.filter_map(|region| region.range.intersection(taken.range)) {
        match ranges.last_mut() {
            Some(last) if last.end() == part.start() => {
                *last = PhysRange::from_bounds(last.start(), part.end()).unwrap_or(part);
            }
            _ => ranges.push(part),
        }
    }
    let excluded = ranges.into_iter().map(|range| Excluded {
        range,
        name: taken.word.clone(),
        reason: BY_LINE,
    });
    excluded.collect()
}

/// The words of the command line that keep segments off memory, and the first range
/// of that memory; `None` where there are none.
pub(super) fn words(excluded: &[Excluded]) -> Option<(String, PhysRange)> {
    let of_line = || excluded.iter().filter(|it| it.reason == BY_LINE);
    let first = of_line().next()?.range;
    let mut words: Vec<&str> = Vec::new();
    for excluded in of_line() {
        if !words.contains(&excluded.name.as_str()) {
            words.push(&excluded.name);
        }
    }
    let more = words.len().saturating_sub(MAX_WORDS);
    words.truncate(MAX_WORDS);
    let list = words.join(" ");
    let list = match more {
        0 => list,
        more => format!("{list} and {more} more"),
    };
    Some((list, first))
}

/// The exclusions, without those due to the command line.
pub(super) fn without_line(excluded: &[Excluded]) -> Vec<Excluded> {
    let others = excluded.iter().filter(|it| it.reason != BY_LINE);
    others.cloned().collect()
}

/// A warning that the running kernel places segments without regard to the new line.
pub(super) fn file_load_warning(excluded: &[Excluded]) -> Option<String> {
    words(excluded).map(|(words, first)| {
        format!(
            "with kexec_file_load the running kernel places the segments, and it may use memory that the new \
             command line takes from the next kernel ({words}; first {first}): if it does, the next kernel \
             does not come up"
        )
    })
}

#[cfg(test)]
#[path = "excluded_tests.rs"]
mod tests;
