//! Layers against an address space of a few bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const END: u64 = 40;

fn any_range() -> impl Strategy<Value = PhysRange> {
    (0..END, 1..=END).prop_filter_map("empty", |(start, end)| {
        PhysRange::from_bounds(start, end).ok()
    })
}

fn at<T: Clone>(entries: &[(PhysRange, T)], address: u64) -> Option<T> {
    entries
        .iter()
        .find(|(range, _)| range.contains(address))
        .map(|(_, value)| value.clone())
}

/// Whether entries are in order, do not overlap, and no two could be one.
fn is_canonical<T: PartialEq>(entries: &[(PhysRange, T)]) -> bool {
    entries.windows(2).all(|pair| {
        let ((a, x), (b, y)) = (&pair[0], &pair[1]);
        a.end() < b.start() || (a.end() == b.start() && x != y)
    })
}

fn any_layer() -> impl Strategy<Value = Layer<u8>> {
    vec((any_range(), 0..3_u8), 0..8).prop_map(|mut entries| {
        entries.sort_by_key(|(range, _)| *range);
        let mut layer = Layer::default();
        for (range, value) in entries {
            layer.push(range, value);
        }
        layer
    })
}

proptest! {
    #[test]
    fn of_overlapping_ranges_the_larger_type_wins(entries in vec((any_range(), 1..6_u32), 0..10)) {
        let entries: Vec<_> =
            entries.into_iter().map(|(range, kind)| (range, Told(kind))).collect();
        let layer = Layer::from_types(entries.iter().copied());
        for address in 0..END {
            let covering = entries.iter().filter(|(range, _)| range.contains(address));
            let expected = covering.map(|(_, kind)| *kind).max();
            prop_assert_eq!(at(layer.entries(), address), expected, "at {}", address);
        }
        prop_assert!(is_canonical(layer.entries()));
    }

    #[test]
    fn push_keeps_what_came_first(entries in vec((any_range(), 0..3_u8), 0..8)) {
        let mut layer = Layer::default();
        let mut bytes: [Option<u8>; 40] = [None; 40];
        let mut floor = 0;
        for (range, value) in entries {
            layer.push(range, value);
            for address in range.start().max(floor)..range.end() {
                bytes[usize::try_from(address).unwrap()] = Some(value);
            }
            floor = floor.max(range.end());
        }
        for (address, expected) in (0..END).zip(bytes) {
            prop_assert_eq!(at(layer.entries(), address), expected);
        }
        prop_assert!(is_canonical(layer.entries()));
    }

    #[test]
    fn sweep_visits_every_address_once(a in any_layer(), b in any_layer(), c in any_layer()) {
        let mut visited = Vec::new();
        sweep(&a, &b, &c, |range, a, b, c| visited.push((range, (a, b, c))));
        for address in 0..END {
            let there = (at(a.entries(), address), at(b.entries(), address), at(c.entries(), address));
            let expected = (there != (None, None, None)).then_some(there);
            prop_assert_eq!(at(&visited, address), expected, "at {}", address);
        }
        for pair in visited.windows(2) {
            prop_assert!(pair[0].0.end() <= pair[1].0.start());
        }
    }
}
