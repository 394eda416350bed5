//! One map out of three incomplete sources.
//!
//! `rules` decides for each range on which all of them are constant. EFI's tables may
//! begin and end inside of such a range, so [`MemoryMap::keep_for_efi`] has their rule.

use std::collections::BTreeSet;

use super::layer::{Layer, join, sweep};
use super::region::{MemoryKind, Placement, Region, Sources};
use super::resources::{Class, paint};
use super::rules::{judge, names_ram, publishable};
use crate::base::{PhysRange, Told};
use crate::host::Host;
use crate::host::efi::{Efi, Kept};

/// How the map for the next kernel is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MapPolicy {
    /// By the rules: all sources reconciled.
    #[default]
    FixedUp,
    /// The firmware's own map, as it is.
    Firmware,
}

/// The reconciled map: regions in address order, disjoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryMap {
    regions: Vec<Region>,
}

impl MemoryMap {
    /// Reconciles what `host` says. Memory of the drivers in `included` is
    /// handed over as RAM (segments still never go there).
    #[must_use]
    pub fn reconcile(host: &Host, policy: MapPolicy, included: &BTreeSet<String>) -> Self {
        let mut iomem = Layer::default();
        for resource in &host.iomem.roots {
            paint(resource, None, None, &mut iomem);
        }
        let boot = host.boot_params.as_ref().map(boot_e820);
        let firmware = host.firmware_map.as_ref().map(|map| {
            let boot = boot.as_ref();
            Layer::from_types(map.iter().flat_map(|region| firmware_types(region, boot)))
        });
        let boot = boot.unwrap_or_default();
        let firmware = firmware
            .filter(|layer| !layer.entries().is_empty())
            .unwrap_or_else(|| boot.clone());
        let (boot_knows, firmware_knows) = (names_ram(&boot), names_ram(&firmware));

        let mut map = Self::default();
        sweep(&iomem, &firmware, &boot, |range, iomem, firmware, boot| {
            let sources = Sources {
                iomem: iomem.as_ref().map(Class::name),
                firmware,
                boot_e820: boot,
                efi: None,
            };
            let ram = |kind: Option<Told>| kind.is_some_and(Told::is_ram);
            let added =
                (boot_knows && !ram(boot)) || (!boot_knows && firmware_knows && !ram(firmware));
            let verdict = judge(iomem.as_ref(), firmware, boot, added, included);
            let told = match policy {
                MapPolicy::FixedUp => verdict.told,
                MapPolicy::Firmware => firmware.map(publishable),
            };
            // A segment must lie in RAM of the next kernel's map, or it may be overwritten.
            let (placement, reason) = match (verdict.placement, told) {
                (Placement::Allowed | Placement::LastChoice, told) if told != Some(Told::RAM) => (
                    Placement::Never,
                    "RAM that the firmware's map does not name",
                ),
                (placement, _) => (placement, verdict.reason),
            };
            map.push(Region {
                range,
                kind: verdict.kind,
                told,
                placement,
                in_dump: verdict.in_dump,
                sources,
                reason,
            });
        });
        for kept in host.efi.iter().flat_map(Efi::kept) {
            map.keep_for_efi(&kept);
        }
        map
    }

    /// The rule for EFI's tables that the next kernel reads (the memory attributes table)
    /// although /proc/iomem calls their memory System RAM.
    fn keep_for_efi(&mut self, kept: &Kept) {
        let range = kept.range;
        let first = self
            .regions
            .partition_point(|r| r.range.end() <= range.start());
        let near = self.regions.iter().skip(first);
        let near = near.take_while(|r| r.range.start() < range.end());
        let ram = near.filter(|r| r.told == Some(Told::RAM) || r.kind == MemoryKind::Withheld);
        let parts: Vec<PhysRange> = ram.filter_map(|r| r.range.intersection(range)).collect();
        for part in parts {
            self.change(part, |region| {
                region.kind = MemoryKind::EfiTables;
                region.told = Some(Told::RESERVED);
                region.placement = Placement::Never;
                region.sources.efi = Some(kept.source);
                region.reason = kept.reason;
            });
        }
    }

    fn push(&mut self, region: Region) {
        match self.regions.last_mut() {
            Some(last)
                if last.range.end() == region.range.start()
                    && (
                        &last.kind,
                        last.told,
                        last.placement,
                        &last.sources,
                        last.reason,
                    ) == (
                        &region.kind,
                        region.told,
                        region.placement,
                        &region.sources,
                        region.reason,
                    ) =>
            {
                last.range = join(last.range, region.range);
            }
            _ => self.regions.push(region),
        }
    }

    /// Makes `range` a pool: it has the type `told` in the next kernel's map, and
    /// no segment goes there.
    pub fn set_pool(&mut self, range: PhysRange, name: &str, told: Told, reason: &'static str) {
        self.change(range, |region| {
            region.kind = MemoryKind::Pool(name.to_owned());
            region.told = Some(told);
            region.placement = Placement::Never;
            region.reason = reason;
        });
    }

    /// Changes what lies in one of `ranges`, which are sorted and disjoint. It is one pass,
    /// because there may be as many ranges as regions.
    pub fn change_all(&mut self, ranges: &[PhysRange], edit: impl Fn(&mut Region)) {
        let mut changed = Vec::with_capacity(self.regions.len() + 2 * ranges.len());
        let mut ranges = ranges.iter().peekable();
        for region in std::mem::take(&mut self.regions) {
            let end = region.range.end();
            let mut rest = Some(region);
            while let (Some(region), Some(range)) = (&rest, ranges.peek()) {
                if range.start() >= end {
                    break;
                }
                let part = |start: u64, end: u64| {
                    let range = PhysRange::from_bounds(start, end).ok()?;
                    Some(Region {
                        range,
                        ..region.clone()
                    })
                };
                let start = region.range.start();
                let (from, to) = (range.start().max(start), range.end().min(end));
                changed.extend(part(start, from));
                changed.extend(part(from, to).map(|mut inside| {
                    edit(&mut inside);
                    inside
                }));
                let left = part(to.max(start), end);
                // The range may reach into the next region.
                let is_done = range.end() <= end;
                rest = left;
                if is_done {
                    ranges.next();
                }
            }
            changed.extend(rest);
        }
        self.regions = changed;
    }

    /// Changes what lies in `range`; a region that lies in it in part is cut.
    pub fn change(&mut self, range: PhysRange, edit: impl Fn(&mut Region)) {
        let first = self
            .regions
            .partition_point(|r| r.range.end() <= range.start());
        let after = self
            .regions
            .partition_point(|r| r.range.start() < range.end());
        let Some(touched) = self.regions.get(first..after) else {
            return;
        };
        let mut changed = Vec::with_capacity(touched.len() + 2);
        for region in touched {
            let part = |start, end| {
                let range = PhysRange::from_bounds(start, end).ok()?;
                Some(Region {
                    range,
                    ..region.clone()
                })
            };
            let (start, end) = (region.range.start(), region.range.end());
            let (from, to) = (start.max(range.start()), end.min(range.end()));
            changed.extend(part(start, from));
            changed.extend(part(from, to).map(|mut inside| {
                edit(&mut inside);
                inside
            }));
            changed.extend(part(to, end));
        }
        self.regions.splice(first..after, changed);
    }

    /// The rows, in address order.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// What the next kernel is told: neighbours of one type merged.
    #[must_use]
    pub fn told(&self) -> Vec<(PhysRange, Told)> {
        let mut layer = Layer::default();
        for region in &self.regions {
            if let Some(kind) = region.told {
                layer.push(region.range, kind);
            }
        }
        layer.entries().to_vec()
    }

    /// The ranges where segments may lie by `placement`.
    pub fn ranges(&self, placement: Placement) -> impl Iterator<Item = PhysRange> + '_ {
        self.regions
            .iter()
            .filter(move |r| r.placement == placement)
            .map(|r| r.range)
    }
}

/// The boot e820 as a layer.
#[must_use]
pub fn boot_e820(running: &crate::host::boot_params::RunningBootParams) -> Layer<Told> {
    Layer::from_types(running.e820().iter().filter_map(|entry| {
        let range = PhysRange::new(entry.address.get(), entry.size.get()).ok()?;
        Some((range, Told(entry.kind.get())))
    }))
}

/// Types of one firmware entry. The kernel prints every unknown type with one
/// name; its number is still in the boot e820.
fn firmware_types(
    region: &crate::host::firmware_memmap::FirmwareRegion,
    boot: Option<&Layer<Told>>,
) -> Vec<(PhysRange, Told)> {
    if let Some(kind) = Told::from_name(&region.name) {
        return vec![(region.range, kind)];
    }
    let mut types = vec![(region.range, Told::RESERVED)];
    let entries = boot.map(Layer::entries).unwrap_or_default();
    let first = entries.partition_point(|(range, _)| range.end() <= region.range.start());
    let unknown = entries
        .iter()
        .skip(first)
        .take_while(|(range, _)| range.start() < region.range.end())
        .filter(|(_, kind)| Told::from_name(kind.name()).is_none());
    types.extend(
        unknown.filter_map(|(range, kind)| Some((range.intersection(region.range)?, *kind))),
    );
    types
}

#[cfg(test)]
#[path = "reconcile_efi_tests.rs"]
mod efi_tests;
#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
