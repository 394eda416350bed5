//! One map out of three incomplete sources.
//!
//! The table of rules is in ARCHITECTURE.md, "Memory rules". Every row is one arm of
//! [`judge`], except the row of EFI's tables: these may begin and end inside a range
//! of all other sources, so [`MemoryMap::keep_for_efi`] applies it.

use std::collections::BTreeSet;

use super::layer::{Layer, join, sweep};
use crate::base::{PhysRange, Told};
use crate::host::Host;
use crate::host::efi::{Efi, Kept};
use crate::host::iomem::Resource;

/// What a range is, after all sources were heard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum MemoryKind {
    /// RAM that was there at boot.
    Ram,
    /// RAM that was added since boot (a DIMM, a balloon).
    HotAddedRam,
    /// RAM that a driver added. It may be gone at the next boot.
    DriverManaged(String),
    /// Persistent memory with a description (NVDIMM).
    PersistentMemory,
    /// Persistent memory without one (`memmap=nn!ss`).
    PersistentMemoryLegacy,
    /// Not to be used.
    Reserved,
    /// ACPI tables.
    AcpiTables,
    /// ACPI non-volatile storage.
    AcpiNvs,
    /// Memory with errors.
    Unusable,
    /// Set aside by the firmware for a driver.
    SoftReserved,
    /// A type this program does not know.
    Unknown,
    /// RAM by the firmware's map that the running kernel does not use (`mem=`).
    Withheld,
    /// RAM in which EFI or the kernel keeps a table that the next kernel reads.
    EfiTables,
    /// A persistent memory pool, by name.
    Pool(String),
}

impl MemoryKind {
    /// One word, as in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::HotAddedRam => "hot_added_ram",
            Self::DriverManaged(_) => "driver_managed",
            Self::PersistentMemory => "persistent_memory",
            Self::PersistentMemoryLegacy => "persistent_memory_legacy",
            Self::Reserved => "reserved",
            Self::AcpiTables => "acpi_tables",
            Self::AcpiNvs => "acpi_nvs",
            Self::Unusable => "unusable",
            Self::SoftReserved => "soft_reserved",
            Self::Unknown => "unknown",
            Self::Withheld => "withheld",
            Self::EfiTables => "efi_tables",
            Self::Pool(_) => "pool",
        }
    }

    /// What it is called for people: in the words of /proc/iomem where it has some.
    #[must_use]
    pub fn in_words(&self) -> String {
        match self {
            Self::Ram => "System RAM".to_owned(),
            Self::HotAddedRam => "System RAM (hot-added)".to_owned(),
            Self::DriverManaged(driver) => format!("System RAM ({driver})"),
            Self::PersistentMemory => Told::PMEM.name().to_owned(),
            Self::PersistentMemoryLegacy => Told::PRAM.name().to_owned(),
            Self::Reserved => Told::RESERVED.name().to_owned(),
            Self::AcpiTables => Told::ACPI.name().to_owned(),
            Self::AcpiNvs => Told::NVS.name().to_owned(),
            Self::Unusable => Told::UNUSABLE.name().to_owned(),
            Self::SoftReserved => Told::SOFT_RESERVED.name().to_owned(),
            Self::Unknown => "Unknown E820 type".to_owned(),
            Self::Withheld => "System RAM (not used)".to_owned(),
            Self::EfiTables => "EFI tables".to_owned(),
            Self::Pool(name) => format!("pool {name}"),
        }
    }

    /// The driver, where there is one.
    #[must_use]
    pub fn driver(&self) -> Option<&str> {
        match self {
            Self::DriverManaged(driver) => Some(driver),
            _ => None,
        }
    }

    fn of(kind: Told) -> Self {
        match kind {
            Told::RAM | Told::RESERVED_KERN => Self::Ram,
            Told::RESERVED => Self::Reserved,
            Told::ACPI => Self::AcpiTables,
            Told::NVS => Self::AcpiNvs,
            Told::UNUSABLE => Self::Unusable,
            Told::PMEM => Self::PersistentMemory,
            Told::PRAM => Self::PersistentMemoryLegacy,
            Told::SOFT_RESERVED => Self::SoftReserved,
            _ => Self::Unknown,
        }
    }
}

/// Whether segments may lie in a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Yes.
    Allowed,
    /// Only when nothing else fits: unplugging the memory makes the image stale.
    LastChoice,
    /// Never.
    Never,
}

impl Placement {
    /// One word, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allowed => "yes",
            Self::LastChoice => "last_choice",
            Self::Never => "no",
        }
    }
}

/// Who said what of a range.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Deepest resource of /proc/iomem that names a kind of memory.
    pub iomem: Option<String>,
    /// Type in /sys/firmware/memmap.
    pub firmware: Option<Told>,
    /// Type in the e820 table the running kernel was booted with.
    pub boot_e820: Option<Told>,
    /// The part of EFI that names it, if that decided.
    pub efi: Option<&'static str>,
}

impl Sources {
    /// One line per source that says something.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let iomem = self.iomem.as_ref().map(|name| format!("iomem: {name}"));
        let firmware = self.firmware.map(|kind| format!("firmware map: {kind}"));
        let boot = self.boot_e820.map(|kind| format!("boot e820: {kind}"));
        let efi = self.efi.map(str::to_owned);
        [iomem, firmware, boot, efi].into_iter().flatten().collect()
    }
}

/// One row of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// The addresses.
    pub range: PhysRange,
    /// What it is.
    pub kind: MemoryKind,
    /// What the next kernel is told; `None`: nothing, the range is absent.
    pub told: Option<Told>,
    /// Whether segments may lie there.
    pub placement: Placement,
    /// Whether a crash dump holds it.
    pub in_dump: bool,
    /// Who said so.
    pub sources: Sources,
    /// Why it is what it is.
    pub reason: &'static str,
}

impl Region {
    /// Whether the running kernel uses it as plain System RAM.
    #[must_use]
    pub fn is_system_ram(&self) -> bool {
        self.sources.iomem.as_deref() == Some(Told::RAM.name())
    }
}

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

    /// Makes `range` a pool: it has the type `e820` in the next kernel's map, and
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

/// What a resource name says of memory.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Class {
    /// `System RAM`.
    Ram,
    /// `System RAM (DRIVER)`, or plain System RAM below a device; with the
    /// type of the range that holds it, where that one has a name.
    Driver {
        driver: String,
        name: String,
        holder: Option<Told>,
    },
    /// A range with an e820 type that is not RAM.
    Typed(Told),
    /// `Unknown E820 type`.
    Unknown,
}

impl Class {
    fn name(&self) -> String {
        match self {
            Self::Ram => "System RAM".to_owned(),
            Self::Driver { name, .. } => name.clone(),
            Self::Typed(kind) => kind.name().to_owned(),
            Self::Unknown => "Unknown E820 type".to_owned(),
        }
    }

    /// `added_by` is the driver of the memory device that the resource lies below.
    fn of(name: &str, parent: Option<&Self>, added_by: Option<&str>) -> Option<Self> {
        let holder = || match parent {
            Some(Self::Typed(kind)) => Some(*kind),
            Some(Self::Driver { holder, .. }) => *holder,
            _ => None,
        };
        if let Some(driver) = name
            .strip_prefix("System RAM (")
            .and_then(|rest| rest.strip_suffix(')'))
        {
            let (driver, name) = (driver.to_owned(), name.to_owned());
            return Some(Self::Driver {
                driver,
                name,
                holder: holder(),
            });
        }
        match (Told::from_name(name), added_by) {
            (Some(Told::RAM), Some(driver)) => Some(Self::Driver {
                driver: driver.to_owned(),
                name: "System RAM below a device".to_owned(),
                holder: holder(),
            }),
            (Some(Told::RAM), None) => Some(Self::Ram),
            (Some(kind), _) => Some(Self::Typed(kind)),
            (None, _) if name.eq_ignore_ascii_case("Unknown E820 type") => Some(Self::Unknown),
            (None, _) => parent.cloned(),
        }
    }
}

/// The driver that adds the RAM below a resource of this name, if that is a
/// memory device: kernels before 5.8 call such RAM plain System RAM.
fn memory_driver(name: &str) -> Option<&'static str> {
    let numbered = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    if name.starts_with("Persistent Memory") || numbered("dax") {
        Some("kmem")
    } else {
        numbered("virtio").then_some("virtio_mem")
    }
}

/// Paints the resource and what is below it: the deepest name that says
/// something of memory wins.
fn paint(
    resource: &Resource,
    parent: Option<&Class>,
    added_by: Option<&'static str>,
    layer: &mut Layer<Class>,
) {
    let class = Class::of(&resource.name, parent, added_by);
    let added_by = added_by.or_else(|| memory_driver(&resource.name));
    let mut at = resource.range.start();
    let fill = |layer: &mut Layer<Class>, start: u64, end: u64| {
        if let (Some(class), Ok(range)) = (&class, PhysRange::from_bounds(start, end)) {
            layer.push(range, class.clone());
        }
    };
    for child in &resource.children {
        fill(layer, at, child.range.start());
        paint(child, class.as_ref(), added_by, layer);
        at = child.range.end();
    }
    fill(layer, at, resource.range.end());
}

struct Verdict {
    kind: MemoryKind,
    told: Option<Told>,
    placement: Placement,
    in_dump: bool,
    reason: &'static str,
}

/// Whether a source tells anything about RAM.
fn names_ram(layer: &Layer<Told>) -> bool {
    layer.entries().iter().any(|(_, kind)| kind.is_ram())
}

/// A type as it may be handed over: the kernel's internal 128 becomes RAM.
fn publishable(kind: Told) -> Told {
    if kind.is_ram() { Told::RAM } else { kind }
}

/// The rules. `added`: the source that lists the RAM present at boot does not list it.
fn judge(
    iomem: Option<&Class>,
    firmware: Option<Told>,
    boot: Option<Told>,
    added: bool,
    included: &BTreeSet<String>,
) -> Verdict {
    let never = |kind, told, reason| Verdict {
        kind,
        told,
        placement: Placement::Never,
        in_dump: false,
        reason,
    };
    let firmware_other = firmware.filter(|kind| !kind.is_ram());
    match (iomem, firmware_other) {
        (Some(Class::Ram), Some(kind)) => Verdict {
            in_dump: true,
            ..never(
                MemoryKind::of(kind),
                Some(kind),
                "RAM only by memmap= of this boot; the firmware says otherwise",
            )
        },
        (Some(Class::Ram), None) => {
            let (kind, placement, reason) = if added {
                let reason = "RAM added since boot: used for segments only if nothing else fits";
                (MemoryKind::HotAddedRam, Placement::LastChoice, reason)
            } else {
                (MemoryKind::Ram, Placement::Allowed, "RAM")
            };
            Verdict {
                kind,
                told: Some(Told::RAM),
                placement,
                in_dump: true,
                reason,
            }
        }
        (Some(Class::Driver { driver, holder, .. }), other) => {
            let kind = MemoryKind::DriverManaged(driver.clone());
            let (told, reason) = if included.contains(driver) {
                (
                    Some(Told::RAM),
                    "passed on as RAM by --include-driver-managed",
                )
            } else {
                let reason = "not passed on as RAM: its driver adds it again after boot";
                (holder.filter(|kind| !kind.is_ram()).or(other), reason)
            };
            Verdict {
                in_dump: true,
                ..never(kind, told, reason)
            }
        }
        (Some(Class::Typed(Told::RESERVED)), Some(kind)) => never(
            MemoryKind::of(kind),
            Some(kind),
            "not RAM: same type as in the firmware's map",
        ),
        (Some(Class::Typed(Told::RESERVED)), None) if firmware.is_some() => never(
            MemoryKind::Reserved,
            Some(Told::RESERVED),
            "reserved by the running kernel; RAM in the firmware's map",
        ),
        (Some(Class::Typed(kind)), _) => never(
            MemoryKind::of(*kind),
            Some(*kind),
            "not RAM: same type as in the running kernel",
        ),
        (Some(Class::Unknown), other) => {
            let kind = other
                .or(boot.filter(|kind| !kind.is_ram()))
                .unwrap_or(Told::RESERVED);
            never(
                MemoryKind::Unknown,
                Some(kind),
                "unknown type: passed on as it is",
            )
        }
        (None, Some(kind)) => never(
            MemoryKind::of(kind),
            Some(kind),
            "not RAM: same type as in the firmware's map",
        ),
        (None, None) if firmware.is_some() => never(
            MemoryKind::Withheld,
            None,
            "unused RAM (mem=?): passed on only with --memory-map firmware",
        ),
        // The boot e820 alone: the kernel or the firmware dropped the entry since.
        (None, None) => match boot.map(publishable) {
            Some(kind) if !kind.is_ram() => never(
                MemoryKind::of(kind),
                Some(kind),
                "not RAM: same type as at boot",
            ),
            _ => never(
                MemoryKind::Withheld,
                None,
                "was RAM at boot, was removed since: not passed on",
            ),
        },
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
