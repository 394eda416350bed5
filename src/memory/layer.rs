//! One source's view of memory: sorted, disjoint ranges with a value each.

use std::collections::BTreeMap;

use crate::base::{PhysRange, Told};

/// Sorted, disjoint ranges, each with what the source says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer<T>(Vec<(PhysRange, T)>);

impl<T> Default for Layer<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Clone + PartialEq> Layer<T> {
    /// A layer from sorted, disjoint ranges. A range that overlaps its predecessor
    /// is cut to the part behind it.
    pub fn push(&mut self, range: PhysRange, value: T) {
        let floor = self.0.last().map_or(0, |(last, _)| last.end());
        if let Ok(range) = PhysRange::from_bounds(range.start().max(floor), range.end()) {
            match self.0.last_mut() {
                Some((last, v)) if last.end() == range.start() && *v == value => {
                    *last = join(*last, range);
                }
                _ => self.0.push((range, value)),
            }
        }
    }

    /// The entries, in address order.
    #[must_use]
    pub fn entries(&self) -> &[(PhysRange, T)] {
        &self.0
    }

    /// A cursor that answers for ascending addresses.
    fn cursor(&self) -> impl FnMut(u64) -> Option<T> + '_ {
        let mut rest = self.0.iter().peekable();
        move |address| {
            while rest.next_if(|(range, _)| range.end() <= address).is_some() {}
            rest.peek()
                .filter(|(range, _)| range.contains(address))
                .map(|(_, value)| value.clone())
        }
    }
}

impl Layer<Told> {
    /// A layer from typed ranges in any order. Where entries overlap, the
    /// larger type number wins, as in the kernel (`e820__update_table`).
    #[must_use]
    pub fn from_types(entries: impl IntoIterator<Item = (PhysRange, Told)>) -> Self {
        let mut edges: Vec<(u64, Told, bool)> = Vec::new();
        for (range, kind) in entries {
            edges.push((range.start(), kind, true));
            edges.push((range.end(), kind, false));
        }
        edges.sort_unstable_by_key(|(address, ..)| *address);
        let mut open: BTreeMap<Told, usize> = BTreeMap::new();
        let mut layer = Self::default();
        let mut since = 0;
        for (address, kind, starts) in edges {
            if let (Some((&top, _)), Ok(range)) = (
                open.last_key_value(),
                PhysRange::from_bounds(since, address),
            ) {
                layer.push(range, top);
            }
            since = address;
            let count = open.entry(kind).or_default();
            *count = if starts {
                *count + 1
            } else {
                count.saturating_sub(1)
            };
            if *count == 0 {
                open.remove(&kind);
            }
        }
        layer
    }
}

/// Calls `visit` for every stretch on which all three layers are constant and
/// at least one says something, in address order.
pub(super) fn sweep<A, B, C>(
    a: &Layer<A>,
    b: &Layer<B>,
    c: &Layer<C>,
    mut visit: impl FnMut(PhysRange, Option<A>, Option<B>, Option<C>),
) where
    A: Clone + PartialEq,
    B: Clone + PartialEq,
    C: Clone + PartialEq,
{
    fn edges<T>(layer: &Layer<T>) -> impl Iterator<Item = u64> + '_ {
        layer
            .0
            .iter()
            .flat_map(|(range, _)| [range.start(), range.end()])
    }
    let mut edges: Vec<u64> = edges(a).chain(edges(b)).chain(edges(c)).collect();
    edges.sort_unstable();
    edges.dedup();
    let (mut at_a, mut at_b, mut at_c) = (a.cursor(), b.cursor(), c.cursor());
    for pair in edges.windows(2) {
        let &[start, end] = pair else { continue };
        let (va, vb, vc) = (at_a(start), at_b(start), at_c(start));
        if let (true, Ok(range)) = (
            va.is_some() || vb.is_some() || vc.is_some(),
            PhysRange::from_bounds(start, end),
        ) {
            visit(range, va, vb, vc);
        }
    }
}

/// The range from the first byte of `a` to the end of `b`, which follows it.
pub(super) fn join(a: PhysRange, b: PhysRange) -> PhysRange {
    PhysRange::from_bounds(a.start(), b.end()).unwrap_or(a)
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
