//! One row of the reconciled map.

use crate::base::{PhysRange, Told};

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

    pub(super) fn of(kind: Told) -> Self {
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
