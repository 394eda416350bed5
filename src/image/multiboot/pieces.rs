//! What is loaded, cut into whole pages.

use std::borrow::Cow;

use super::Load;
use crate::base::{PAGE_SIZE, PhysRange};

/// Whole pages, and the bytes they begin with; the rest of them is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The pages.
    pub mem: PhysRange,
    /// At most as many bytes as `mem` has.
    pub bytes: Cow<'a, [u8]>,
}

/// The pieces of a kernel whose `loads` (in address order, disjoint) are moved up
/// by `shift` bytes, modulo 2^64: in address order, and no page is in two of them.
/// Bytes are copied only where a load begins inside of a page.
///
/// `None` when something would lie beyond 2^64.
#[must_use]
pub fn pieces<'a>(loads: &[Load<'a>], shift: u64) -> Option<Vec<Piece<'a>>> {
    let mut pieces: Vec<Piece<'a>> = Vec::with_capacity(loads.len());
    for load in loads {
        let start = load.range.start().wrapping_add(shift);
        let range = PhysRange::new(start, load.range.size()).ok()?;
        let first_page = start & !(PAGE_SIZE - 1);
        let end = range.end().checked_next_multiple_of(PAGE_SIZE)?;
        let offset = usize::try_from(start - first_page).ok()?;
        match pieces.last_mut() {
            Some(last) if last.mem.end() > first_page => {
                let filled = last.mem.start() + last.bytes.len() as u64;
                let mem = PhysRange::from_bounds(last.mem.start(), end).ok()?;
                if load.bytes.is_empty() {
                    last.mem = mem;
                } else if filled > first_page || last.mem.start() == first_page {
                    // Both have bytes in this page, or nothing else is in the piece.
                    let at = usize::try_from(start - last.mem.start()).ok()?;
                    let bytes = last.bytes.to_mut();
                    bytes.resize(at, 0);
                    bytes.extend_from_slice(load.bytes);
                    last.mem = mem;
                } else {
                    // The zeroes before need no bytes.
                    last.mem = PhysRange::from_bounds(last.mem.start(), first_page).ok()?;
                    pieces.push(piece(first_page, end, offset, load.bytes)?);
                }
            }
            _ => pieces.push(piece(first_page, end, offset, load.bytes)?),
        }
    }
    Some(pieces)
}

/// A piece with `bytes` behind `offset` zeroes.
fn piece(start: u64, end: u64, offset: usize, bytes: &[u8]) -> Option<Piece<'_>> {
    let mem = PhysRange::from_bounds(start, end).ok()?;
    let bytes = if offset == 0 || bytes.is_empty() {
        Cow::Borrowed(bytes)
    } else {
        let mut copy = vec![0; offset];
        copy.extend_from_slice(bytes);
        Cow::Owned(copy)
    };
    Some(Piece { mem, bytes })
}
