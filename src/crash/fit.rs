//! Whether a crash kernel that was loaded still fits the machine: memory and
//! CPUs come and go.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{CrashError, Reservation, dumped};
use crate::base::PhysRange;
use crate::host::Host;
use crate::host::crash::Note;
use crate::memory::{MapPolicy, MemoryMap};

/// What a crash kernel was loaded for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fit {
    /// The reservation its segments lie in.
    reservation: PhysRange,
    /// The RAM of its dump.
    dump: Vec<PhysRange>,
    /// The CPUs of its dump.
    cpus: Vec<(u32, Note)>,
    /// The running kernel keeps `dump` and `cpus` up to date itself.
    pub kernel_updates: bool,
}

impl Fit {
    /// A crash kernel in `reservation` with `dump` and the CPUs of `host`.
    #[must_use]
    pub fn new(
        reservation: PhysRange,
        dump: &[PhysRange],
        kernel_updates: bool,
        host: &Host,
    ) -> Self {
        Self {
            reservation,
            dump: dump.to_vec(),
            cpus: host.crash.cpus.clone(),
            kernel_updates,
        }
    }

    /// What a crash kernel that is loaded now would be made for.
    ///
    /// # Errors
    /// When there is no reservation any more.
    pub fn now(&self, host: &Host) -> Result<Self, CrashError> {
        let reservation = Reservation::of(host)?;
        let mut map = MemoryMap::reconcile(host, MapPolicy::FixedUp, &BTreeSet::new());
        reservation.restrict(&mut map)?;
        Ok(Self {
            dump: dumped(&map),
            reservation: reservation.target,
            cpus: host.crash.cpus.clone(),
            kernel_updates: self.kernel_updates,
        })
    }

    /// How the machine `now` differs from the one that this was loaded for, in
    /// words; `None` when it still fits.
    #[must_use]
    pub fn differs(&self, now: &Self) -> Option<String> {
        if self.reservation != now.reservation {
            return Some(format!(
                "the memory reserved for it was {:#} and is {:#}",
                self.reservation, now.reservation
            ));
        }
        if self.kernel_updates != now.kernel_updates {
            return Some(
                "the running kernel updated it, and does not any more, or the other way round"
                    .to_owned(),
            );
        }
        if self.kernel_updates {
            return None;
        }
        self.outdated(now)
    }

    /// How memory or CPUs of the machine `now` differ from those at load time, in words.
    /// Ignores whether the kernel updates the dump's header itself.
    #[must_use]
    pub fn outdated(&self, now: &Self) -> Option<String> {
        if let Some(range) = missing(&now.dump, &self.dump) {
            return Some(format!(
                "the memory {range:#} was added, and the dump would not hold it"
            ));
        }
        if let Some(range) = missing(&self.dump, &now.dump) {
            return Some(format!(
                "the memory {range:#} was removed, and the dump would still name it"
            ));
        }
        let without = |all: &[(u32, Note)], other: &[(u32, Note)]| {
            all.iter()
                .find(|cpu| !other.contains(cpu))
                .map(|(number, _)| *number)
        };
        if let Some(number) = without(&now.cpus, &self.cpus) {
            return Some(format!(
                "CPU {number} was added, and the dump would not hold its registers"
            ));
        }
        without(&self.cpus, &now.cpus)
            .map(|number| format!("CPU {number} was removed, and the dump would still name it"))
    }
}

/// The first part of `ranges` that `other` does not have; both sorted, disjoint
/// and without neighbours that touch.
fn missing(ranges: &[PhysRange], other: &[PhysRange]) -> Option<PhysRange> {
    ranges.iter().find_map(|range| {
        let after = other.partition_point(|o| o.end() <= range.start());
        let Some(first) = other.get(after) else {
            return Some(*range);
        };
        let before = PhysRange::from_bounds(range.start(), first.start().min(range.end()));
        before
            .or_else(|_| PhysRange::from_bounds(first.end(), range.end()))
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(list: &[(u64, u64)]) -> Vec<PhysRange> {
        list.iter()
            .map(|(start, end)| PhysRange::from_bounds(*start, *end).unwrap())
            .collect()
    }

    fn fit(dump: &[(u64, u64)], cpus: u32, kernel_updates: bool) -> Fit {
        let note = |cpu| Note {
            address: u64::from(cpu) * 0x1000,
            size: 368,
        };
        Fit {
            reservation: PhysRange::new(0x1000_0000, 0x1000_0000).unwrap(),
            dump: ranges(dump),
            cpus: (0..cpus).map(|cpu| (cpu, note(cpu))).collect(),
            kernel_updates,
        }
    }

    #[test]
    fn what_is_missing() {
        let cases: [(&[_], &[_], Option<(u64, u64)>); 6] = [
            (&[(1, 5)], &[(1, 5)], None),
            (&[(1, 5)], &[(0, 9)], None),
            (&[(1, 5)], &[(2, 5)], Some((1, 2))),
            (&[(1, 5)], &[(0, 3)], Some((3, 5))),
            (&[(1, 5), (8, 9)], &[(0, 6)], Some((8, 9))),
            (&[(1, 5)], &[(7, 9)], Some((1, 5))),
        ];
        for (all, other, expected) in cases {
            let expected = expected.map(|(start, end)| PhysRange::from_bounds(start, end).unwrap());
            assert_eq!(
                missing(&ranges(all), &ranges(other)),
                expected,
                "{all:?} {other:?}"
            );
        }
    }

    #[test]
    fn a_change_is_said_in_words() {
        let old = fit(&[(0x10_0000, 0x1000_0000)], 2, false);
        assert_eq!(old.differs(&old), None);
        let said = |now: &Fit| old.differs(now).unwrap();
        let more = fit(
            &[(0x10_0000, 0x1000_0000), (0x4000_0000, 0x4800_0000)],
            2,
            false,
        );
        assert_eq!(
            said(&more),
            "the memory 0x40000000-0x47ffffff was added, and the dump would not hold it"
        );
        assert_eq!(
            more.differs(&old).unwrap(),
            "the memory 0x40000000-0x47ffffff was removed, and the dump would still name it"
        );
        assert_eq!(
            said(&fit(&[(0x10_0000, 0x1000_0000)], 3, false)),
            "CPU 2 was added, and the dump would not hold its registers"
        );
        assert_eq!(
            said(&fit(&[(0x10_0000, 0x1000_0000)], 1, false)),
            "CPU 1 was removed, and the dump would still name it"
        );
        // The kernel keeps up with memory and CPUs, not with a moved reservation.
        let old = fit(&[(0, 1)], 1, true);
        assert_eq!(old.differs(&fit(&[(0, 5)], 9, true)), None);
        let outdated = old.outdated(&fit(&[(0, 5)], 9, true)).unwrap();
        assert!(
            outdated.contains("the memory 0x1-0x4 was added"),
            "{outdated}"
        );
        let moved = Fit {
            reservation: PhysRange::new(0x2000_0000, 0x1000_0000).unwrap(),
            ..fit(&[(0, 1)], 1, true)
        };
        assert!(old.differs(&moved).unwrap().contains("reserved"));
    }
}
