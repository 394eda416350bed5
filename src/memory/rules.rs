//! The rules: what a range is, by what three sources say of it.
//!
//! The table of them is in ARCHITECTURE.md, "Memory rules".

use std::collections::BTreeSet;

use super::layer::Layer;
use super::region::{MemoryKind, Placement};
use super::resources::Class;
use crate::base::Told;

/// What the rules say of a range.
pub(super) struct Verdict {
    pub kind: MemoryKind,
    pub told: Option<Told>,
    pub placement: Placement,
    pub in_dump: bool,
    pub reason: &'static str,
}

/// Whether a source tells anything about RAM.
pub(super) fn names_ram(layer: &Layer<Told>) -> bool {
    layer.entries().iter().any(|(_, kind)| kind.is_ram())
}

/// A type as it may be handed over: the kernel's internal 128 becomes RAM.
pub(super) fn publishable(kind: Told) -> Told {
    if kind.is_ram() { Told::RAM } else { kind }
}

impl Verdict {
    /// Memory that holds no segment and is in no dump.
    const fn never(kind: MemoryKind, told: Option<Told>, reason: &'static str) -> Self {
        Self {
            kind,
            told,
            placement: Placement::Never,
            in_dump: false,
            reason,
        }
    }
}

/// The rules. `added`: the source that lists the RAM present at boot does not list it.
pub(super) fn judge(
    iomem: Option<&Class>,
    firmware: Option<Told>,
    boot: Option<Told>,
    added: bool,
    included: &BTreeSet<String>,
) -> Verdict {
    let firmware_other = firmware.filter(|kind| !kind.is_ram());
    match (iomem, firmware_other) {
        (Some(Class::Ram), Some(kind)) => Verdict {
            in_dump: true,
            ..Verdict::never(
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
            let told = holder.filter(|kind| !kind.is_ram()).or(other);
            of_driver(driver, told, included)
        }
        (Some(Class::Typed(Told::RESERVED)), Some(kind)) => Verdict::never(
            MemoryKind::of(kind),
            Some(kind),
            "not RAM: same type as in the firmware's map",
        ),
        (Some(Class::Typed(Told::RESERVED)), None) if firmware.is_some() => Verdict::never(
            MemoryKind::Reserved,
            Some(Told::RESERVED),
            "reserved by the running kernel; RAM in the firmware's map",
        ),
        (Some(Class::Typed(kind)), _) => Verdict::never(
            MemoryKind::of(*kind),
            Some(*kind),
            "not RAM: same type as in the running kernel",
        ),
        (Some(Class::Unknown), other) => {
            let kind = other
                .or(boot.filter(|kind| !kind.is_ram()))
                .unwrap_or(Told::RESERVED);
            Verdict::never(
                MemoryKind::Unknown,
                Some(kind),
                "unknown type: passed on as it is",
            )
        }
        (None, other) => unnamed(firmware, other, boot),
    }
}

/// The rule for memory of `driver`. `others` is what other sources call it, where that is
/// not RAM.
fn of_driver(driver: &str, others: Option<Told>, included: &BTreeSet<String>) -> Verdict {
    let kind = MemoryKind::DriverManaged(driver.to_owned());
    let (told, reason) = if included.contains(driver) {
        (
            Some(Told::RAM),
            "passed on as RAM by --include-driver-managed",
        )
    } else {
        let reason = "not passed on as RAM: its driver adds it again after boot";
        (others, reason)
    };
    Verdict {
        in_dump: true,
        ..Verdict::never(kind, told, reason)
    }
}

/// The rules for what /proc/iomem does not name. `other` is what the firmware calls it,
/// where that is not RAM.
fn unnamed(firmware: Option<Told>, other: Option<Told>, boot: Option<Told>) -> Verdict {
    match other {
        Some(kind) => Verdict::never(
            MemoryKind::of(kind),
            Some(kind),
            "not RAM: same type as in the firmware's map",
        ),
        None if firmware.is_some() => Verdict::never(
            MemoryKind::Withheld,
            None,
            "unused RAM (mem=?): passed on only with --memory-map firmware",
        ),
        // The boot e820 alone: the kernel or the firmware dropped the entry since.
        None => match boot.map(publishable) {
            Some(kind) if !kind.is_ram() => Verdict::never(
                MemoryKind::of(kind),
                Some(kind),
                "not RAM: same type as at boot",
            ),
            _ => Verdict::never(
                MemoryKind::Withheld,
                None,
                "was RAM at boot, was removed since: not passed on",
            ),
        },
    }
}
