//! What a kernel is told that a range of memory is.

use std::fmt;

/// What a kernel is told that a range of memory is, by its number. Unknown numbers are
/// kept as they are.
///
/// The numbers are ACPI's ("Address Range Types" in its specification). The entries of
/// an x86 kernel's e820 table hold them; arch/x86/include/asm/e820/types.h has those
/// that Linux adds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Told(pub u32);

impl Told {
    /// Usable memory.
    pub const RAM: Self = Self(1);
    /// Not usable.
    pub const RESERVED: Self = Self(2);
    /// ACPI tables.
    pub const ACPI: Self = Self(3);
    /// ACPI non-volatile storage.
    pub const NVS: Self = Self(4);
    /// Memory with errors.
    pub const UNUSABLE: Self = Self(5);
    /// Persistent memory (NVDIMM, described by ACPI NFIT).
    pub const PMEM: Self = Self(7);
    /// Persistent memory without a description, also `memmap=nn!ss`.
    pub const PRAM: Self = Self(12);
    /// Linux-internal RAM that the kernel reserved (up to 6.12); never handed over.
    pub const RESERVED_KERN: Self = Self(128);
    /// Memory the firmware sets aside for a driver (EFI_MEMORY_SP).
    pub const SOFT_RESERVED: Self = Self(0xefff_ffff);

    const NAMES: [(Self, &'static str); 8] = [
        (Self::RAM, "System RAM"),
        (Self::RESERVED, "Reserved"),
        (Self::ACPI, "ACPI Tables"),
        (Self::NVS, "ACPI Non-volatile Storage"),
        (Self::UNUSABLE, "Unusable memory"),
        (Self::PMEM, "Persistent Memory"),
        (Self::PRAM, "Persistent Memory (legacy)"),
        (Self::SOFT_RESERVED, "Soft Reserved"),
    ];

    /// The type that the kernel prints as `name` (`e820_type_to_string` in
    /// arch/x86/kernel/e820.c) in /sys/firmware/memmap and /proc/iomem.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, known)| known.eq_ignore_ascii_case(name))
            .map(|(kind, _)| *kind)
    }

    /// The name that the kernel prints.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(kind, _)| *kind == self)
            .map_or("Unknown E820 type", |(_, name)| name)
    }

    /// Whether the kernel that was told this type uses the memory as RAM.
    #[must_use]
    pub const fn is_ram(self) -> bool {
        matches!(self, Self::RAM | Self::RESERVED_KERN)
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::SOFT_RESERVED || self.0 < 1 << 16 {
            write!(f, "{} ({})", self.name(), self.0)
        } else {
            write!(f, "{} ({:#x})", self.name(), self.0)
        }
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
