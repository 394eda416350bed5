//! The search for places: free memory, less what was already given out.

use crate::base::{PAGE_SIZE, PhysRange, human};

/// From which end a place is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The highest place that fits.
    TopDown,
    /// The lowest place that fits.
    BottomUp,
}

/// A place that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Want {
    /// What it is for, in errors.
    pub what: &'static str,
    /// Size in bytes, rounded up to whole pages.
    pub size: u64,
    /// Alignment of the first byte: a power of two, at least a page.
    pub align: u64,
    /// The place lies inside these bounds.
    pub bounds: PhysRange,
    /// Where to start looking.
    pub direction: Direction,
}

/// No place for something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough free memory for {what}: it needs {} in one piece{}, between {:#x} and {:#x}; {}",
    human(*size), aligned(*align), bounds.start(), bounds.last(), describe(largest)
)]
pub struct NoHole {
    /// What the place was for.
    pub what: &'static str,
    /// Size wanted, bytes.
    pub size: u64,
    /// Alignment wanted, bytes.
    pub align: u64,
    /// Bounds wanted.
    pub bounds: PhysRange,
    /// The three largest free places inside the bounds, largest first.
    pub largest: Vec<PhysRange>,
}

fn describe(largest: &[PhysRange]) -> String {
    if largest.is_empty() {
        return "nothing is free there".to_owned();
    }
    let list: Vec<String> = largest
        .iter()
        .map(|piece| format!("{} ({piece:#})", human(piece.size())))
        .collect();
    format!("the largest free there: {}", list.join(", "))
}

/// An alignment that is worth a word: every place begins on a page.
fn aligned(align: u64) -> String {
    if align > PAGE_SIZE {
        format!(", aligned to {}", human(align))
    } else {
        String::new()
    }
}

/// Free memory in whole pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holes {
    /// Sorted, disjoint, not adjacent, page-aligned.
    free: Vec<PhysRange>,
}

impl Holes {
    /// The whole pages inside `ranges`, which may come in any order and overlap.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = PhysRange>) -> Self {
        let mut ranges: Vec<PhysRange> = ranges.into_iter().collect();
        ranges.sort_unstable();
        let mut merged: Vec<PhysRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            match merged.last_mut() {
                Some(last) if range.start() <= last.end() => {
                    *last = PhysRange::from_bounds(last.start(), last.end().max(range.end()))
                        .unwrap_or(*last);
                }
                _ => merged.push(range),
            }
        }
        // Pages are cut only after merging: two neighbours may share one.
        Self {
            free: merged.into_iter().filter_map(whole_pages).collect(),
        }
    }

    /// What is free, in address order.
    #[must_use]
    pub fn free(&self) -> &[PhysRange] {
        &self.free
    }

    /// Removes every page that one of `ranges` touches. It is one pass, because there may be
    /// as many ranges as holes.
    pub fn remove_all(&mut self, ranges: impl IntoIterator<Item = PhysRange>) {
        let mut taken: Vec<PhysRange> = ranges.into_iter().filter_map(touched_pages).collect();
        taken.sort_unstable();
        let mut taken = taken.into_iter().peekable();
        let mut left = Vec::with_capacity(self.free.len());
        for hole in &self.free {
            let mut start = hole.start();
            while let Some(range) = taken.peek() {
                if range.start() >= hole.end() {
                    break;
                }
                left.extend(PhysRange::from_bounds(start, range.start().min(hole.end())).ok());
                start = start.max(range.end());
                // The range may reach into the next hole.
                if range.end() > hole.end() {
                    break;
                }
                taken.next();
            }
            left.extend(PhysRange::from_bounds(start, hole.end()).ok());
        }
        self.free = left;
    }

    /// Removes every page that `range` touches.
    pub fn remove(&mut self, range: PhysRange) {
        let Some(pages) = touched_pages(range) else {
            return;
        };
        let (start, end) = (pages.start(), pages.end());
        let first = self.free.partition_point(|free| free.end() <= start);
        let after = self.free.partition_point(|free| free.start() < end);
        let Some(touched) = self.free.get(first..after) else {
            return;
        };
        let left = touched
            .first()
            .and_then(|r| PhysRange::from_bounds(r.start(), start).ok());
        let right = touched
            .last()
            .and_then(|r| PhysRange::from_bounds(end, r.end()).ok());
        self.free
            .splice(first..after, left.into_iter().chain(right));
    }

    /// Keeps only what lies in `ranges`.
    pub fn keep(&mut self, ranges: &[PhysRange]) {
        let parts = self.free.iter().flat_map(|free| {
            let of = ranges.iter();
            of.filter_map(|range| free.intersection(*range))
        });
        *self = Self::new(parts.collect::<Vec<_>>());
    }

    /// Finds a place and takes it out.
    ///
    /// # Errors
    /// [`NoHole`], with the bounds and the three largest places there were.
    pub fn take(&mut self, want: &Want) -> Result<PhysRange, NoHole> {
        let found = match want.direction {
            Direction::TopDown => self.free.iter().rev().find_map(|free| fit(*free, want)),
            Direction::BottomUp => self.free.iter().find_map(|free| fit(*free, want)),
        };
        let place = found.ok_or_else(|| self.no_hole(want))?;
        self.remove(place);
        Ok(place)
    }

    /// How many places there are for `want`: multiples of its alignment.
    #[must_use]
    pub fn count(&self, want: &Want) -> u64 {
        self.slots(want).map(|(_, count)| count).sum()
    }

    /// The place with the number `number` of those that [`Holes::count`] counts, from 0.
    #[must_use]
    pub fn nth(&self, want: &Want, number: u64) -> Option<PhysRange> {
        let size = want.size.max(1).checked_next_multiple_of(PAGE_SIZE)?;
        let mut left = number;
        for (first, count) in self.slots(want) {
            if left < count {
                return PhysRange::new(first + left * want.align.max(PAGE_SIZE), size).ok();
            }
            left -= count;
        }
        None
    }

    /// For every hole, the lowest place for `want` and how many there are.
    fn slots(&self, want: &Want) -> impl Iterator<Item = (u64, u64)> {
        let from = |direction| Want { direction, ..*want };
        let (lowest, highest) = (from(Direction::BottomUp), from(Direction::TopDown));
        self.free.iter().filter_map(move |free| {
            let (first, last) = (fit(*free, &lowest)?, fit(*free, &highest)?);
            let more = (last.start() - first.start()) / want.align.max(PAGE_SIZE);
            Some((first.start(), more + 1))
        })
    }

    fn no_hole(&self, want: &Want) -> NoHole {
        let mut largest: Vec<PhysRange> = self
            .free
            .iter()
            .filter_map(|free| free.intersection(want.bounds))
            .collect();
        largest.sort_unstable_by_key(|range| std::cmp::Reverse(range.size()));
        largest.truncate(3);
        NoHole {
            what: want.what,
            size: want.size,
            align: want.align,
            bounds: want.bounds,
            largest,
        }
    }
}

/// The place for `want` inside `free`, if there is one.
fn fit(free: PhysRange, want: &Want) -> Option<PhysRange> {
    let room = free.intersection(want.bounds)?;
    let size = want.size.max(1).checked_next_multiple_of(PAGE_SIZE)?;
    let align = want.align.max(PAGE_SIZE);
    let start = match want.direction {
        Direction::TopDown => room.end().checked_sub(size)? & !(align - 1),
        Direction::BottomUp => room.start().checked_next_multiple_of(align)?,
    };
    PhysRange::new(start, size)
        .ok()
        .filter(|place| room.covers(*place))
}

/// All of every page that `range` touches.
fn touched_pages(range: PhysRange) -> Option<PhysRange> {
    let end = range.end().checked_next_multiple_of(PAGE_SIZE);
    PhysRange::from_bounds(range.start() & !(PAGE_SIZE - 1), end.unwrap_or(u64::MAX)).ok()
}

/// The whole pages inside `range`.
fn whole_pages(range: PhysRange) -> Option<PhysRange> {
    let start = range.start().checked_next_multiple_of(PAGE_SIZE)?;
    PhysRange::from_bounds(start, range.end() & !(PAGE_SIZE - 1)).ok()
}

#[cfg(test)]
#[path = "holes_tests.rs"]
mod tests;
