//! Rules that every plan must keep, checked against the facts and not against
//! the planner's intentions.

use std::ops::Deref;

use super::{Method, Plan, PlanError, Way};
use crate::base::{PAGE_SIZE, PhysRange};
use crate::boot::Taken;
use crate::host::Host;
use crate::host::efi::Efi;
use crate::kho;
use crate::layout::Role;
use crate::memory::{Holes, Placement};
use crate::refusal::exceeds_half_of_ram;
use crate::sys::SEGMENT_MAX;

/// A rule that a plan breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "the message of each variant says what its fields are"
)]
pub enum Violation {
    #[error("{count} segments, the kernel takes {SEGMENT_MAX}")]
    TooManySegments { count: usize },
    #[error("the {role} segment at {range:?} does not lie on whole pages")]
    NotOnPages {
        role: &'static str,
        range: PhysRange,
    },
    #[error("the {role} segment at {range:?} has {bytes:#x} bytes, more than its place")]
    Overfull {
        role: &'static str,
        range: PhysRange,
        bytes: u64,
    },
    #[error("the {role} segment at {range:?} overlaps the one before it")]
    Overlap {
        role: &'static str,
        range: PhysRange,
    },
    #[error("the {role} segment at {range:?} lies outside the RAM that segments may use")]
    OutsideRam {
        role: &'static str,
        range: PhysRange,
    },
    #[error("the {role} segment at {range:?} lies in {name}")]
    InExcluded {
        role: &'static str,
        range: PhysRange,
        name: String,
    },
    #[error("the {role} segment at {range:?} lies outside the RAM that the next kernel is told of")]
    NotTold {
        role: &'static str,
        range: PhysRange,
    },
    #[error("the {role} segment at {range:?} lies in what {word} takes from the next kernel")]
    TakenAway {
        role: &'static str,
        range: PhysRange,
        word: String,
    },
    #[error("the {role} segment at {range:?} lies outside the scratch memory")]
    OutsideScratch {
        role: &'static str,
        range: PhysRange,
    },
    #[error("the preserved segment at {0:?} lies in the scratch memory")]
    InScratch(PhysRange),
    #[error("the scratch memory at {range:?} {why}")]
    Scratch { range: PhysRange, why: String },
    #[error("the entry point {0:#x} lies in no purgatory segment")]
    Entry(u64),
}

/// What was checked: only [`super::plan`] makes one.
#[derive(Debug, Clone)]
pub struct Checked<T>(T);

impl<T> Deref for Checked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl Checked<Plan<'_>> {
    /// Adds what the operator should know, from others than the planner.
    pub fn warn(&mut self, warnings: impl IntoIterator<Item = String>) {
        self.0.warnings.extend(warnings);
    }
}

/// Checks the plan. `taken` is what its command line takes away.
pub(super) fn validate<'a>(
    plan: Plan<'a>,
    host: &Host,
    taken: &[Taken],
) -> Result<Checked<Plan<'a>>, PlanError> {
    // With kexec_file_load the running kernel places and checks.
    if let Method::Segments { entry, .. } = plan.method {
        rules(&plan, entry)?;
        off_efi(&plan, host)?;
        next_kernel(&plan, taken)?;
        handed_over(&plan)?;
        half_of_ram(plan.total_size(), host)?;
    }
    Ok(Checked(plan))
}

fn rules(plan: &Plan<'_>, entry: u64) -> Result<(), Violation> {
    let count = plan.segments().len();
    if count > SEGMENT_MAX {
        return Err(Violation::TooManySegments { count });
    }
    let map = &plan.memory_map;
    let usable = Holes::new(
        map.ranges(Placement::Allowed)
            .chain(map.ranges(Placement::LastChoice)),
    );
    let mut end = 0;
    for segment in plan.segments() {
        let (role, range) = (segment.role.name(), segment.mem);
        if range.start() % PAGE_SIZE != 0 || range.end() % PAGE_SIZE != 0 {
            return Err(Violation::NotOnPages { role, range });
        }
        let bytes = segment.buf.len() as u64;
        if bytes > range.size() {
            return Err(Violation::Overfull { role, range, bytes });
        }
        if range.start() < end {
            return Err(Violation::Overlap { role, range });
        }
        end = range.end();
        if !usable.free().iter().any(|free| free.covers(range)) {
            return Err(Violation::OutsideRam { role, range });
        }
        if let Some(excluded) = plan
            .excluded
            .iter()
            .find(|excluded| excluded.range.overlaps(range))
        {
            return Err(Violation::InExcluded {
                role,
                range,
                name: excluded.name.clone(),
            });
        }
    }
    let mut purgatory = plan.segments().iter();
    if !purgatory.any(|s| s.role == Role::Purgatory && s.mem.contains(entry)) {
        return Err(Violation::Entry(entry));
    }
    Ok(())
}

/// No segment lies in memory that EFI needs kept.
fn off_efi(plan: &Plan<'_>, host: &Host) -> Result<(), Violation> {
    for kept in host.efi.iter().flat_map(Efi::kept) {
        let mut segments = plan.segments().iter();
        if let Some(segment) = segments.find(|segment| segment.mem.overlaps(kept.range)) {
            return Err(Violation::InExcluded {
                role: segment.role.name(),
                range: segment.mem,
                name: format!("{}, which the {} names", kept.range, kept.source),
            });
        }
    }
    Ok(())
}

/// Checks the segments against the memory map that the next kernel gets.
fn next_kernel(plan: &Plan<'_>, taken: &[Taken]) -> Result<(), Violation> {
    // Two entries of the table may touch, and a segment lie in both.
    let told = plan.told.iter().filter(|(_, kind)| kind.is_ram());
    let told = Holes::new(told.map(|(range, _)| *range));
    for segment in plan.segments() {
        let (role, range) = (segment.role.name(), segment.mem);
        // The crash kernel reads elfcorehdr as it reads the dump.
        let is_told = || told.free().iter().any(|ram| ram.covers(range));
        if segment.role != Role::Elfcorehdr && !is_told() {
            return Err(Violation::NotTold { role, range });
        }
        if let Some(taken) = taken.iter().find(|taken| taken.range.overlaps(range)) {
            let word = taken.word.clone();
            return Err(Violation::TakenAway { role, range, word });
        }
    }
    Ok(())
}

/// Checks what is handed over by Kexec Handover: the next kernel overwrites scratch memory
/// before it knows what to preserve, and may overwrite anything else that is loaded.
fn handed_over(plan: &Plan<'_>) -> Result<(), Violation> {
    let Some(kho) = &plan.kho else {
        return Ok(());
    };
    if !matches!(kho.way, Way::Built | Way::Forwarded) {
        return Ok(());
    }
    // Two regions may touch, and a segment lie in both.
    let scratch = Holes::new(kho.scratch.iter().copied());
    for segment in plan.segments() {
        let (role, range) = (segment.role, segment.mem);
        let mut regions = scratch.free().iter();
        if role == Role::Preserved {
            if regions.any(|region| region.overlaps(range)) {
                return Err(Violation::InScratch(range));
            }
        } else if !regions.any(|region| region.covers(range)) {
            let role = role.name();
            return Err(Violation::OutsideScratch { role, range });
        }
    }
    if kho.way == Way::Built {
        chosen(plan, &kho.scratch)?;
    }
    Ok(())
}

/// Checks scratch memory that the loader chose: the next kernel adds it to its RAM
/// unseen (`kho_populate`).
fn chosen(plan: &Plan<'_>, scratch: &[PhysRange]) -> Result<(), Violation> {
    let told = plan.told.iter().filter(|(_, kind)| kind.is_ram());
    let told = Holes::new(told.map(|(range, _)| *range));
    // The first region is where things are loaded: it need not be the lowest.
    let mut scratch = scratch.to_vec();
    scratch.sort_unstable();
    let mut end = 0;
    for range in scratch {
        let excluded = plan.excluded.iter();
        let why = if !(range.start() | range.end()).is_multiple_of(kho::ALIGNMENT) {
            Some("does not lie on whole blocks of 4 MiB".to_owned())
        } else if range.start() < end {
            Some("overlaps the region before it".to_owned())
        } else if !told.free().iter().any(|ram| ram.covers(range)) {
            Some("lies outside the RAM that the next kernel is told of".to_owned())
        } else {
            let mut excluded = excluded.filter(|excluded| excluded.range.overlaps(range));
            excluded.next().map(|it| format!("lies in {}", it.name))
        };
        if let Some(why) = why {
            return Err(Violation::Scratch { range, why });
        }
        end = range.end();
    }
    Ok(())
}

/// kexec_core.c: neither one segment nor all together may exceed half of the RAM
/// (`totalram_pages`).
pub(super) fn half_of_ram(size: u64, host: &Host) -> Result<(), PlanError> {
    let limit = host.total_ram / 2;
    if exceeds_half_of_ram(size, host.total_ram) {
        return Err(PlanError::TooLarge { size, limit });
    }
    Ok(())
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
