//! What is encoded, read by a reader that has nothing in common with the encoder: it
//! follows addresses as the next kernel does.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing::kho::{Found, Ram};

const PAGE: u64 = 4096;

/// Holds what is read against what was asked for. `forbidden` has no page of it.
fn check(state: &State, encoded: &Encoded, free: &BTreeSet<u64>, forbidden: &[PhysRange]) {
    let pages = encoded.pages.iter();
    let ram = Ram::of(pages.map(|(page, bytes)| (*page, &**bytes)));
    let found = Found::read(&encoded.tree, &ram);
    let pools = state.pools.iter();
    let pools: Vec<_> = pools
        .map(|pool| (pool.name.0.clone(), pool.range.start(), pool.range.size()))
        .collect();
    assert_eq!(found.pools, pools);
    let metadata = state.release.clone().map(|release| (release, 1));
    assert_eq!(found.metadata, metadata);
    let mut expected = Vec::new();
    for (number, session) in state.sessions.iter().enumerate() {
        let files = session.files.iter().enumerate().map(|(at, file)| {
            let own = encoded.contents.iter();
            let own = own.filter(|content| (content.session, content.file) == (number, at));
            let pages = own.map(|content| (content.offset / PAGE, content.page));
            let pages: BTreeMap<_, _> = pages.collect();
            assert_eq!(pages.len() as u64, file.size.div_ceil(PAGE));
            (file.token, file.size, pages)
        });
        expected.push((session.name.0.clone(), files.collect()));
    }
    assert!(found.sessions == expected);

    // The map has what the reader went through, and the pools, and nothing else.
    let mut mapped = BTreeSet::new();
    for (start, order) in &found.map {
        for page in 0..1_u64 << order {
            assert!(mapped.insert(start + page * PAGE), "{start:#x} twice");
        }
    }
    let of_pools = pools
        .iter()
        .flat_map(|(_, start, size)| (*start..start + size).step_by(4096));
    let wanted: BTreeSet<u64> = found.kept.iter().copied().chain(of_pools).collect();
    assert!(mapped == wanted);
    assert!(found.map_pages.is_disjoint(&mapped));
    // A file's page is a single one: larger ones crash kernels without huge pages.
    let single = |page: &&u64| found.map.contains(&(**page, 0));
    assert_eq!(found.kept.iter().filter(single).count(), found.kept.len());

    let contents = encoded.contents.iter().map(|content| content.page);
    let used = encoded.pages.iter().map(|(page, _)| *page).chain(contents);
    let used: Vec<u64> = used.collect();
    let distinct: BTreeSet<u64> = used.iter().copied().collect();
    assert_eq!(distinct.len(), used.len());
    assert!(distinct.is_subset(free));
    for page in &distinct {
        let page = PhysRange::new(*page, PAGE).unwrap();
        assert!(!forbidden.iter().any(|range| range.overlaps(page)));
    }
}

fn name<const MAX: usize>(name: &str) -> Name<MAX> {
    Name::new(name).unwrap()
}

fn session(number: usize, sizes: &[u64]) -> Session {
    Session {
        name: name(&format!("session-{number}")),
        files: sizes
            .iter()
            .zip(7..)
            .map(|(size, token)| File { token, size: *size })
            .collect(),
    }
}

/// Free pages from `first` on, every `step` pages, but none of `forbidden`.
fn free(first: u64, step: u64, forbidden: &[PhysRange], count: usize) -> BTreeSet<u64> {
    (0..)
        .map(|number| first + number * step * PAGE)
        .filter(|page| {
            let page = PhysRange::new(*page, PAGE).unwrap();
            !forbidden.iter().any(|range| range.overlaps(page))
        })
        .take(count)
        .collect()
}

fn any_pools() -> impl Strategy<Value = Vec<Pool>> {
    // Each in its own GiB from 64 GiB on.
    let places = vec((0..2048_u64, 1..2048_u64), 0..=8);
    places.prop_map(|places| {
        let pools = places.into_iter().zip(0_u64..);
        let pools = pools.map(|((page, pages), number)| Pool {
            name: name(&format!("p{number}")),
            range: PhysRange::new(((64 + number) << 30) + page * PAGE, pages * PAGE).unwrap(),
        });
        pools.collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_independent_reader_finds_what_was_asked_for(
        sizes in vec(vec(prop_oneof![Just(0), 1..20_000_u64, Just(300 * PAGE)], 0..6), 0..6),
        pools in any_pools(),
        (first, step) in (1..1_u64 << 24, prop_oneof![Just(1), 1..40_000_u64]),
        scratch in (0..1_u64 << 14, 1..1_u64 << 12),
        with_release in any::<bool>(),
    ) {
        let sessions = sizes.iter().enumerate();
        let state = State {
            sessions: sessions.map(|(number, sizes)| session(number, sizes)).collect(),
            pools,
            release: with_release.then(|| "6.12.0".to_owned()),
        };
        let scratch = PhysRange::new(scratch.0 << 22, scratch.1 << 22).unwrap();
        let mut forbidden = vec![scratch];
        forbidden.extend(state.pools.iter().map(|pool| pool.range));
        let free = free(first * PAGE, step, &forbidden, 40_000);
        let encoded = encode(&state, free.iter().copied()).unwrap();
        check(&state, &encoded, &free, &forbidden);
    }
}

/// More entries than a block has, and more records than a list of pages has.
#[test]
fn chains_have_as_many_blocks_as_they_need() {
    let large = 520 << 20;
    let mut sessions: Vec<Session> = (0..120).map(|number| session(number, &[1])).collect();
    sessions.push(session(500, &[0; 130]));
    sessions.push(session(501, &[large, 777_777]));
    let state = State {
        sessions,
        ..State::default()
    };
    let free = free(1 << 30, 1, &[], 140_000);
    let encoded = encode(&state, free.iter().copied()).unwrap();
    check(&state, &encoded, &free, &[]);
}

#[test]
fn nothing_is_a_state_as_well() {
    let free = free(0x1000, 1, &[], 1);
    let encoded = encode(&State::default(), free.iter().copied()).unwrap();
    check(&State::default(), &encoded, &free, &[]);
    assert_eq!(encoded.pages.len(), 1);
}

#[test]
fn what_a_kernel_does_not_take_is_refused() {
    let refused = |state: &State| {
        let free = free(0x1000, 1, &[], 100);
        encode(state, free).unwrap_err().to_string()
    };
    let sessions = |sessions: &[Session]| State {
        sessions: sessions.to_vec(),
        ..State::default()
    };
    let pools = |ranges: &[(u64, u64)]| State {
        pools: ranges
            .iter()
            .zip(0..)
            .map(|((start, size), number)| Pool {
                name: name(&format!("p{number}")),
                range: PhysRange::new(*start, *size).unwrap(),
            })
            .collect(),
        ..State::default()
    };
    let twice = sessions(&[session(1, &[]), session(1, &[])]);
    assert_eq!(refused(&twice), "two sessions have the name session-1");
    let mut one = session(1, &[1, 2]);
    one.files[1].token = 7;
    let said = "two files of the session session-1 have the token 7";
    assert_eq!(refused(&sessions(&[one])), said);
    let said = "the state needs more than the 100 pages that are free for it";
    assert_eq!(refused(&sessions(&[session(1, &[1 << 20])])), said);
    let nine: Vec<_> = (1..=9).map(|number| (number << 20, PAGE)).collect();
    let said = "9 pools are more than the 8 that a kernel takes";
    assert_eq!(refused(&pools(&nine)), said);
    for ranges in [
        [(0x1000, 0x800); 2],
        [(0x20_0000, 0x2000), (0x20_1000, 0x1000)],
    ] {
        assert!(refused(&pools(&ranges)).contains("whole pages of its own"));
    }
    for bad in ["", "sixteen letters.", "a b", "a\0"] {
        assert_eq!(Name::<15>::new(bad), None, "{bad:?}");
    }
}

#[test]
fn the_node_holds_all_that_it_points_to() {
    let regions = [(0x1000_0000, 64 << 20), (0x4000_0000, 4 << 20)];
    let regions = regions.map(|(start, size)| PhysRange::new(start, size).unwrap());
    let tree = vec![0xd0, 0x0d, 0xfe, 0xed, 5];
    let node = Node::new(regions.into(), tree.clone()).unwrap();
    let base = 0x3456_7010;
    let bytes = node.bytes_at(base);
    assert_eq!(bytes.len(), node.size());
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let at = |address: u64| usize::try_from(address - base).unwrap();
    let (tree_at, array_at) = (at(word(0)), at(word(16)));
    assert_eq!((word(8), word(24)), (5, 32));
    assert_eq!(bytes[tree_at..], tree);
    assert_eq!(tree_at % 8, 0);
    for (number, region) in regions.iter().enumerate() {
        let entry = array_at + number * 16;
        assert_eq!(
            (word(entry), word(entry + 8)),
            (region.start(), region.size())
        );
    }
    assert_eq!(Node::new(Vec::new(), vec![0; MAX_NODE - 31]), None);
    assert!(Node::new(Vec::new(), vec![0; MAX_NODE - 32]).is_some());
}
