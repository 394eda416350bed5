//! The time stamps that the image leaves, in user space.

use std::time::Duration;

use rkexec::carry::stamps::{self, ExecUnknown, Stamps};
use rkexec::purgatory::Request;
use rkexec::sys::tsc;

use crate::REQUEST;
use crate::mapping::Mapping;

const NONCE: u64 = 0x1234_5678_9abc_def0;

/// The parameter block of purgatory/README.md.
const EXEC_UNKNOWN: usize = 44;
const EXEC_PAGE: usize = 440;
const NONCE_FIELD: usize = 448;

fn address(bytes: &[u8]) -> u64 {
    bytes.as_ptr().addr() as u64
}

/// An image that leaves stamps in `node`, and finds the page of `exec` at `page`.
fn image(node: &[u8], page: u64) -> Mapping {
    let stamps = Some(address(node));
    let mapping = Mapping::new(&Request { stamps, ..REQUEST }, &[]);
    mapping.write(EXEC_PAGE, &page.to_le_bytes());
    mapping.write(NONCE_FIELD, &NONCE.to_le_bytes());
    mapping
}

/// The page as `exec` leaves it.
fn page(nonce: u64, load: u64, exec: u64) -> Vec<u8> {
    let words = [nonce, load, exec, 0x5000];
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

#[test]
fn the_stamps_of_exec_and_of_purgatory_itself() {
    // What lies behind them stays.
    let mut node = Stamps::blank();
    node.extend([0xaa; 8]);
    let page = page(NONCE, 3_000_000_000, 555);
    let before = tsc::now().unwrap();
    image(&node, address(&page)).stamp(777);
    let after = tsc::now().unwrap();
    let (found, behind) = node.split_at(stamps::SIZE);
    let found = Stamps::parse(found).unwrap();
    assert_eq!(found.load, Some(Duration::from_secs(3)));
    assert_eq!((found.exec, found.entered), (Ok(555), 777));
    assert!((before..=after).contains(&found.verified), "{found:?}");
    assert_eq!(behind, [0xaa; 8]);
}

#[test]
fn a_page_of_another_load_or_without_a_stamp_is_told_apart() {
    let of_another = page(NONCE + 1, 1, 2);
    let not_called = page(NONCE, 1_000_000_000, 0);
    for (page, load, why) in [
        (&of_another, None, ExecUnknown::PageLost),
        (
            &not_called,
            Some(Duration::from_secs(1)),
            ExecUnknown::NotStamped,
        ),
    ] {
        let node = Stamps::blank();
        image(&node, address(page)).stamp(777);
        let found = Stamps::parse(&node).unwrap();
        assert_eq!((found.load, found.exec), (load, Err(why)));
        assert_eq!(found.entered, 777);
    }
    let node = Stamps::blank();
    let without = image(&node, 0);
    let number = ExecUnknown::NoPlace.number();
    without.write(EXEC_UNKNOWN, &number.to_le_bytes());
    without.stamp(777);
    let found = Stamps::parse(&node).unwrap();
    assert_eq!(found.exec, Err(ExecUnknown::NoPlace));
}

#[test]
fn without_a_place_no_stamp_is_left() {
    let page = page(NONCE, 1, 2);
    let mapping = Mapping::new(&REQUEST, &[]);
    mapping.write(EXEC_PAGE, &address(&page).to_le_bytes());
    mapping.stamp(777);
}
