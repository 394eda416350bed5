//! Kernels of a few sections.

use super::*;
use crate::testing::elf::{ALLOC, CODE, TinyElf, sections};

#[test]
fn what_is_freed_is_left_out() {
    let kernel = sections(&[
        (".text", ALLOC | CODE, b"code"),
        (".rodata", ALLOC, b"kept"),
        // Linux 7.2 has some code in it.
        (".data", ALLOC | CODE | 1, b"more"),
        (".init.data", ALLOC | 1, b"an initramfs"),
        (".comment", 0, b"gcc"),
    ]);
    assert_eq!(kept(&kernel), Some(vec![&b"code"[..], b"kept", b"more"]));
}

#[test]
fn without_sections_it_is_the_whole_file() {
    let kernel = TinyElf::vmlinux().build();
    assert_eq!(kept(&kernel), Some(vec![&*kernel]));
}

#[test]
fn what_is_no_kernel_tells_nothing() {
    assert_eq!(kept(b""), None);
    assert_eq!(kept(b"\x7fELF kho-v4\0"), None);
    let kernel = sections(&[(".rodata", ALLOC, b"kept")]);
    // The table is cut off.
    assert_eq!(kept(&kernel[..kernel.len() - 1]), None);
}

#[test]
fn sections_that_overlap_are_not_searched_one_by_one() {
    let mut kernel = sections(&[(".a", ALLOC, &[7; 300]), (".b", ALLOC, &[8; 300])]);
    let table = kernel.len() - 4 * 64;
    for number in 1..=2 {
        let header = table + number * 64;
        let size = kernel.len() as u64;
        kernel[header + 24..header + 32].copy_from_slice(&0_u64.to_le_bytes());
        kernel[header + 32..header + 40].copy_from_slice(&size.to_le_bytes());
    }
    assert_eq!(kept(&kernel), None);
}
