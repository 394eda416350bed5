//! The map of preserved pages: a radix tree (include/linux/kho_radix_tree.h and
//! `kho_radix_add_page` of kernel/liveupdate/kexec_handover.c, on pages of 4 KiB).
//!
//! A key has the order and the number of a block of pages. Its lowest 15 bits choose a
//! bit in a page of bits, and the others, 9 at a time, the tables above.

use std::collections::BTreeMap;

use super::{EncodeError, Memory};
use crate::base::{PAGE_BYTES, PhysRange};

/// Tables above a page of bits.
const TABLES: u32 = 5;
/// Bits of a key that choose a bit in a page of bits.
const LEAF_BITS: u32 = 15;
/// Bits of a key that choose an entry of a table.
const TABLE_BITS: u32 = 9;
/// Where a key has the bit of order 0: above the numbers of all pages.
const ORDER_0: u32 = 52;
/// Bits of an address within a page.
const PAGE_SHIFT: u32 = 12;

/// The key of the block of 2^`order` pages at `address`.
const fn key(address: u64, order: u32) -> u64 {
    1 << (ORDER_0 - order) | address >> (PAGE_SHIFT + order)
}

/// `range` in blocks as the kernel cuts it, and as it expects to get it back: each as
/// large as its address and the rest allow (`__kho_preserve_pages`).
pub(super) fn natural(range: PhysRange) -> impl Iterator<Item = (u64, u32)> {
    let mut at = range.start() >> PAGE_SHIFT;
    let end = range.end() >> PAGE_SHIFT;
    std::iter::from_fn(move || {
        let left = end.checked_sub(at).filter(|left| *left > 0)?;
        let order = at.trailing_zeros().min(left.ilog2());
        let block = (at << PAGE_SHIFT, order);
        at += 1 << order;
        Some(block)
    })
}

/// Writes the map of all that is kept. Its own pages are not: the kernel frees them when
/// it has read the map. Gives the address of its root.
pub(super) fn write(memory: &mut Memory<impl Iterator<Item = u64>>) -> Result<u64, EncodeError> {
    let mut leaves: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (address, order) in &memory.kept {
        let key = key(*address, *order);
        let leaf = leaves.entry(key >> LEAF_BITS);
        let bits = leaf.or_insert_with(|| vec![0; PAGE_BYTES]);
        let bit = key & ((1 << LEAF_BITS) - 1);
        if let Some(byte) = usize::try_from(bit / 8)
            .ok()
            .and_then(|at| bits.get_mut(at))
        {
            *byte |= 1 << (bit % 8);
        }
    }
    // From the lowest tables up: each entry is a page that is there already.
    let mut level = place(leaves, memory)?;
    for _ in 0..TABLES {
        let mut tables: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
        for (prefix, page) in level {
            let table = tables.entry(prefix >> TABLE_BITS);
            let table = table.or_insert_with(|| vec![0; PAGE_BYTES]);
            let entry = prefix & ((1 << TABLE_BITS) - 1);
            let (entries, _) = table.as_chunks_mut::<8>();
            let place = usize::try_from(entry).ok();
            if let Some(place) = place.and_then(|at| entries.get_mut(at)) {
                *place = page.to_le_bytes();
            }
        }
        level = place(tables, memory)?;
    }
    // All keys have the same bits above those of the root: none.
    match level.first_key_value() {
        Some((_, root)) => Ok(*root),
        None => {
            let root = memory.take()?;
            memory.put(root, vec![0; PAGE_BYTES]);
            Ok(root)
        }
    }
}

/// Gives each of `pages` a place.
fn place(
    pages: BTreeMap<u64, Vec<u8>>,
    memory: &mut Memory<impl Iterator<Item = u64>>,
) -> Result<BTreeMap<u64, u64>, EncodeError> {
    let mut places = BTreeMap::new();
    for (prefix, bytes) in pages {
        let page = memory.take()?;
        memory.put(page, bytes);
        places.insert(prefix, page);
    }
    Ok(places)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that were seen in kernels.
    #[test]
    fn keys() {
        let index = |key: u64, level: u32| key >> (LEAF_BITS + TABLE_BITS * (level - 1)) & 511;
        assert_eq!(index(key(0, 0), 5), 2);
        assert_eq!((index(key(0, 9), 5), index(key(0, 9), 4)), (0, 2));
        // One page of bits is 128 MiB of single pages, or 64 GiB of blocks of 2 MiB.
        assert_eq!(key((128 << 20) - 1, 0) >> LEAF_BITS, key(0, 0) >> LEAF_BITS);
        assert_eq!(key(128 << 20, 0) >> LEAF_BITS, (key(0, 0) >> LEAF_BITS) + 1);
        assert_eq!(key((64 << 30) - 1, 9) >> LEAF_BITS, key(0, 9) >> LEAF_BITS);
    }

    #[test]
    fn ranges_in_blocks() {
        let of = |start, size| natural(PhysRange::new(start, size).unwrap()).collect::<Vec<_>>();
        assert_eq!(of(0x1000, 0x1000), [(0x1000, 0)]);
        assert_eq!(of(0x20_0000, 0x20_0000), [(0x20_0000, 9)]);
        assert_eq!(of(0x3000, 0x6000), [(0x3000, 0), (0x4000, 2), (0x8000, 0)]);
    }
}
