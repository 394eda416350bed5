//! The search for holes against one that looks at every page.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Pages of the small address space, after its first address.
const PAGES: u64 = 48;
const END: u64 = PAGES * PAGE_SIZE;

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(start, end).unwrap()
}

/// Any range of the small address space, most on page boundaries or near them.
fn any_range() -> impl Strategy<Value = PhysRange> {
    let edge = || {
        (
            0..=PAGES,
            prop_oneof![Just(0), Just(1), Just(4095), 0..4096_u64],
        )
    };
    (edge(), edge()).prop_filter_map("empty", |((a, x), (b, y))| {
        let (a, b) = (a * PAGE_SIZE + x, b * PAGE_SIZE + y);
        PhysRange::from_bounds(a.min(b), a.max(b).min(END)).ok()
    })
}

fn any_want() -> impl Strategy<Value = Want> {
    let size = prop_oneof![1..6 * PAGE_SIZE, (1..6_u64).prop_map(|n| n * PAGE_SIZE)];
    (size, 0..6_u32, any_range(), any::<bool>()).prop_map(|(size, shift, bounds, top_down)| Want {
        what: "a test",
        size,
        align: PAGE_SIZE << shift >> 1,
        bounds,
        direction: if top_down {
            Direction::TopDown
        } else {
            Direction::BottomUp
        },
    })
}

/// Numbers of the pages all of whose bytes lie in some of `ranges`.
fn whole_pages_of(ranges: &[PhysRange]) -> BTreeSet<u64> {
    (0..PAGES)
        .filter(|page| {
            let (mut at, end) = (page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
            while at < end {
                match ranges
                    .iter()
                    .filter(|r| r.contains(at))
                    .map(|r| r.end())
                    .max()
                {
                    Some(next) => at = next,
                    None => return false,
                }
            }
            true
        })
        .collect()
}

fn pages(range: PhysRange) -> impl Iterator<Item = u64> {
    range.start() / PAGE_SIZE..range.end().div_ceil(PAGE_SIZE)
}

/// The runs of free pages, in address order.
fn runs(free: &BTreeSet<u64>) -> Vec<PhysRange> {
    let mut runs: Vec<PhysRange> = Vec::new();
    for page in free {
        let (start, end) = (page * PAGE_SIZE, (page + 1) * PAGE_SIZE);
        match runs.last_mut() {
            Some(last) if last.end() == start => *last = range(last.start(), end),
            _ => runs.push(range(start, end)),
        }
    }
    runs
}

/// The place for `want`, by trying every page.
fn place(free: &BTreeSet<u64>, want: &Want) -> Option<PhysRange> {
    let size = want.size.div_ceil(PAGE_SIZE) * PAGE_SIZE;
    let fits = |page: &u64| {
        let place = range(page * PAGE_SIZE, page * PAGE_SIZE + size);
        place.start().is_multiple_of(want.align.max(PAGE_SIZE))
            && want.bounds.covers(place)
            && pages(place).all(|page| free.contains(&page))
    };
    let start = match want.direction {
        Direction::TopDown => (0..PAGES).rev().find(fits),
        Direction::BottomUp => (0..PAGES).find(fits),
    }?;
    Some(range(start * PAGE_SIZE, start * PAGE_SIZE + size))
}

proptest! {
    #[test]
    fn as_page_by_page(
        ranges in vec(any_range(), 0..12),
        steps in vec(prop_oneof![
            any_range().prop_map(Ok),
            any_want().prop_map(Err),
            any_want().prop_map(Err),
        ], 0..16),
    ) {
        let mut holes = Holes::new(ranges.iter().copied());
        let mut free = whole_pages_of(&ranges);
        prop_assert_eq!(holes.free(), runs(&free));
        for step in steps {
            match step {
                Ok(taken) => {
                    holes.remove(taken);
                    free.retain(|page| !pages(taken).any(|gone| gone == *page));
                }
                Err(want) => match (holes.take(&want), place(&free, &want)) {
                    (Ok(found), expected) => {
                        prop_assert_eq!(Some(found), expected);
                        free.retain(|page| !pages(found).any(|gone| gone == *page));
                    }
                    (Err(error), expected) => {
                        prop_assert_eq!(None, expected);
                        prop_assert_eq!((error.size, error.align), (want.size, want.align));
                        prop_assert_eq!(error.bounds, want.bounds);
                        let mut there: Vec<PhysRange> =
                            runs(&free).iter().filter_map(|run| run.intersection(want.bounds)).collect();
                        for shown in &error.largest {
                            prop_assert!(there.contains(shown), "{shown:?} is not free");
                        }
                        there.sort_by_key(|run| std::cmp::Reverse(run.size()));
                        let sizes = |runs: &[PhysRange]| -> Vec<u64> {
                            runs.iter().take(3).map(|run| run.size()).collect()
                        };
                        prop_assert_eq!(sizes(&error.largest), sizes(&there));
                        prop_assert!(error.largest.len() <= 3);
                    }
                },
            }
            prop_assert_eq!(holes.free(), runs(&free));
        }
    }

    /// No arithmetic fails at the ends of the address space.
    #[test]
    fn extremes(
        start in prop_oneof![Just(0), Just(u64::MAX - 1), any::<u64>()],
        end in prop_oneof![Just(u64::MAX), any::<u64>()],
        size in prop_oneof![Just(0), Just(u64::MAX), any::<u64>(), 1..100_000_u64],
        shift in 0..64_u32,
        direction in prop_oneof![Just(Direction::TopDown), Just(Direction::BottomUp)],
    ) {
        let Ok(free) = PhysRange::from_bounds(start, end) else { return Ok(()) };
        let mut holes = Holes::new([free]);
        let bounds = range(0, u64::MAX);
        let want = Want { what: "a test", size, align: 1 << shift, bounds, direction };
        match holes.take(&want) {
            Ok(place) => {
                prop_assert!(free.covers(place));
                prop_assert!(place.size() >= size && place.size() > 0);
                prop_assert_eq!(place.start() % want.align, 0);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
        holes.remove(free);
        prop_assert_eq!(holes.free(), []);
    }
}

#[test]
fn two_ranges_that_share_a_page_make_it_whole() {
    let holes = Holes::new([range(0x1800, 0x3000), range(0x800, 0x1800)]);
    assert_eq!(holes.free(), [range(0x1000, 0x3000)]);
}

#[test]
fn the_message_names_object_bounds_and_the_three_largest() {
    let mut holes = Holes::new([
        range(0x10_0000, 0x10_1000),
        range(0x20_0000, 0x20_4000),
        range(0x30_0000, 0x30_2000),
        range(0x40_0000, 0x40_3000),
        range(0x100_0000, 0x200_0000),
    ]);
    let error = holes
        .take(&Want {
            what: "the initrd",
            size: 0x5000,
            align: 0x1000,
            bounds: range(0x10_0000, 0x80_0000),
            direction: Direction::TopDown,
        })
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "not enough free memory for the initrd: it needs 20 KiB in one piece, between 0x100000 and 0x7fffff; \
         the largest free there: 16 KiB (0x200000-0x203fff), \
         12 KiB (0x400000-0x402fff), 8 KiB (0x300000-0x301fff)"
    );
    let error = Holes::default()
        .take(&Want {
            what: "purgatory",
            size: 1,
            align: 0x20_0000,
            bounds: range(0, 0x1000),
            direction: Direction::BottomUp,
        })
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "not enough free memory for purgatory: it needs 1 B in one piece, aligned to 2 MiB, between 0x0 and 0xfff; \
         nothing is free there"
    );
}

proptest! {
    #[test]
    fn removing_all_is_removing_each(
        ranges in vec(any_range(), 0..12),
        taken in vec(any_range(), 0..12),
    ) {
        let mut at_once = Holes::new(ranges.iter().copied());
        let mut one_by_one = at_once.clone();
        at_once.remove_all(taken.iter().copied());
        taken.iter().for_each(|range| one_by_one.remove(*range));
        prop_assert_eq!(at_once, one_by_one);
    }
}

proptest! {
    /// The n-th place is the n-th of those that a search step by step finds.
    #[test]
    fn every_place_has_a_number(
        holes in proptest::collection::vec((0_u64..64, 1_u64..12), 0..6),
        size in 1_u64..5,
        align in 0_u32..3,
    ) {
        let ranges = holes.iter().map(|(start, size)| PhysRange::new(start * PAGE_SIZE, size * PAGE_SIZE).unwrap());
        let holes = Holes::new(ranges);
        let want = Want {
            what: "a test",
            size: size * PAGE_SIZE,
            align: PAGE_SIZE << align,
            bounds: PhysRange::from_bounds(2 * PAGE_SIZE, 60 * PAGE_SIZE).unwrap(),
            direction: Direction::TopDown,
        };
        let step = 1_usize << align;
        let starts = (0_u64..64).step_by(step).map(|page| page * PAGE_SIZE);
        let naive: Vec<PhysRange> = starts
            .map(|start| PhysRange::new(start, want.size).unwrap())
            .filter(|place| want.bounds.covers(*place))
            .filter(|place| holes.free().iter().any(|free| free.covers(*place)))
            .collect();
        prop_assert_eq!(holes.count(&want), naive.len() as u64);
        for (number, place) in (0_u64..).zip(&naive) {
            prop_assert_eq!(holes.nth(&want, number), Some(*place));
        }
        prop_assert_eq!(holes.nth(&want, naive.len() as u64), None);
    }
}
