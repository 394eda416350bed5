//! The memory of the machine: a row for each range, and how much of the RAM the next
//! kernel gets.

use std::fmt::Write as _;

use super::table::Table;
use super::{Detail, human, range};

use crate::base::printable::inline;
use crate::base::{PhysRange, Told};
use crate::memory::{MemoryKind, MemoryMap, Placement, Region};

/// What a kind is called.
pub(in crate::cli) fn words(kind: &MemoryKind) -> String {
    inline(&kind.in_words()).into()
}

/// What a type of the next kernel's map is called; with `Full` detail also its number.
pub(in crate::cli) fn kind_of(kind: Told, detail: Detail) -> String {
    match detail {
        Detail::Full => kind.to_string(),
        _ => kind.name().to_owned(),
    }
}

/// What the next kernel gets of a region.
fn given(region: &Region, detail: Detail) -> String {
    match region.told {
        None => "nothing".to_owned(),
        Some(kind) if detail == Detail::Full => kind.to_string(),
        Some(Told::RAM) => "RAM".to_owned(),
        Some(kind) if kind.name() == words(&region.kind) => "the same".to_owned(),
        // Short, so that a row fits a terminal.
        Some(kind) => kind.name().replace("Persistent Memory", "Persistent"),
    }
}

/// Every region: a row each, and the reasons below. With `Full` detail the sources follow
/// each row.
pub(in crate::cli) fn memory_map(map: &MemoryMap, detail: Detail) -> String {
    let mut table = Table::new([false, true, false, false, false, false]);
    let head = ["RANGE", "SIZE", "KIND", "NEXT-KERNEL", "LOAD", "WHY"];
    table.push(head.map(str::to_owned));
    let mut reasons: Vec<&str> = Vec::new();
    for region in map.regions() {
        let known = reasons.iter().position(|known| *known == region.reason);
        let number = known.unwrap_or_else(|| {
            reasons.push(region.reason);
            reasons.len() - 1
        });
        let load = match region.placement {
            Placement::Allowed => "yes",
            Placement::LastChoice => "last",
            Placement::Never => "no",
        };
        table.push([
            range(region.range),
            human(region.range.size()),
            words(&region.kind),
            given(region, detail),
            load.to_owned(),
            format!("[{}]", number + 1),
        ]);
    }
    let mut out = String::new();
    let mut lines = table.lines();
    let _ = writeln!(out, "{}", lines.next().unwrap_or_default());
    for (line, region) in lines.zip(map.regions()) {
        let _ = writeln!(out, "{line}");
        if detail == Detail::Full {
            let sources = region.sources.lines().join("; ");
            let _ = writeln!(out, "    {}", inline(&sources));
        }
    }
    out.push('\n');
    for (number, reason) in reasons.iter().enumerate() {
        let _ = writeln!(out, "[{}] {reason}", number + 1);
    }
    out
}

/// How much RAM the next kernel gets, and how much it does not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli) struct Totals {
    given: u64,
    ranges: usize,
    withheld: u64,
}

impl Totals {
    /// Of the RAM of `map`, where the next kernel gets `told`.
    pub(in crate::cli) fn of(map: &MemoryMap, told: &[(PhysRange, Told)]) -> Self {
        let mut ram: Vec<PhysRange> = told
            .iter()
            .filter(|(_, kind)| *kind == Told::RAM)
            .map(|(range, _)| *range)
            .collect();
        ram.sort_unstable();
        let mut totals = Self {
            given: ram.iter().map(|range| range.size()).sum(),
            ranges: ram.len(),
            withheld: 0,
        };
        // Both lists are in address order, so one walk over the second is enough.
        let mut from = ram.as_slice();
        for region in map.regions().iter().filter(|region| is_ram(region)) {
            while let [first, rest @ ..] = from {
                if first.end() > region.range.start() {
                    break;
                }
                from = rest;
            }
            let near = from
                .iter()
                .take_while(|range| range.start() < region.range.end());
            let parts = near.filter_map(|range| range.intersection(region.range));
            let given: u64 = parts.map(PhysRange::size).sum();
            totals.withheld += region.range.size() - given;
        }
        totals
    }

    /// Of the RAM of `map`, where the next kernel gets what the map says.
    pub(in crate::cli) fn of_map(map: &MemoryMap) -> Self {
        let told = map.regions().iter();
        let told: Vec<_> = told
            .filter_map(|region| Some((region.range, region.told?)))
            .collect();
        Self::of(map, &told)
    }

    /// What is not given, alone.
    pub(in crate::cli) fn is_all_given(self) -> bool {
        self.withheld == 0
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plural = if self.ranges == 1 { "" } else { "s" };
        write!(
            f,
            "{} in {} range{plural} for the next kernel",
            human(self.given),
            self.ranges
        )?;
        if self.is_all_given() {
            f.write_str(", which is all of it")
        } else {
            write!(f, "; {} not given", human(self.withheld))
        }
    }
}

/// Whether any source calls the region RAM.
fn is_ram(region: &Region) -> bool {
    let sources = &region.sources;
    let iomem = sources.iomem.as_deref();
    iomem.is_some_and(|name| name.starts_with(Told::RAM.name()))
        || [sources.firmware, sources.boot_e820]
            .into_iter()
            .flatten()
            .any(Told::is_ram)
}
