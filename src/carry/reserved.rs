//! Memory that `reserve_mem=SIZE:ALIGN:NAME` sets aside, and that a kernel with Kexec
//! Handover hands over by that name (mm/memblock.c, `reserve_mem`).

use std::fmt;

use bstr::BStr;

use crate::base::{human, parse_size};
use crate::cmdline;
use crate::fdt::DeviceTree;
use crate::kho::{MAX_POOL_NAME, MAX_POOLS};

/// Least alignment, bytes (`SMP_CACHE_BYTES`): less, and 0 as well, means this.
const LEAST_ALIGNMENT: u64 = 64;

/// Memory that the running kernel set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// Its name.
    pub name: String,
    /// Its physical address; `None` when that is not visible.
    pub start: Option<u64>,
    /// Its size, bytes.
    pub size: u64,
}

impl fmt::Display for Reserved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", human(self.size))?;
        match self.start {
            Some(start) => write!(f, " at {start:#x}"),
            None => Ok(()),
        }
    }
}

/// A word `reserve_mem=` of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Its value, for people.
    pub text: String,
    /// How much it asks for, bytes.
    pub size: u64,
    /// Of what the address must be a multiple, bytes. The kernel takes it for a mask.
    pub align: u64,
    /// The name.
    pub name: String,
}

/// The words of `line` that count.
#[must_use]
pub fn words(line: &BStr) -> Vec<Word> {
    let values = cmdline::values(line, "reserve_mem");
    values.filter_map(word).take(MAX_POOLS).collect()
}

/// The word of that value. `None`: the kernel does not take it, or in a notation that is
/// not read here.
pub(super) fn word(value: &BStr) -> Option<Word> {
    let text = std::str::from_utf8(value).ok()?;
    let (size, rest) = text.split_once(':')?;
    let (align, name) = rest.split_once(':')?;
    let (size, align) = (parse_size(size).ok()?, parse_size(align).ok()?);
    let is_name = (1..=MAX_POOL_NAME).contains(&name.len());
    (size > 0 && is_name).then(|| Word {
        text: text.to_owned(),
        size,
        align: align.max(LEAST_ALIGNMENT),
        name: name.to_owned(),
    })
}

/// What the running kernel set aside: its `blob` for the next kernel shows it, else its
/// own command line `line` tells without addresses.
#[must_use]
pub fn reserved(blob: Option<&[u8]>, line: &BStr) -> Vec<Reserved> {
    blob.and_then(of_blob).unwrap_or_else(|| {
        let words = words(line).into_iter();
        let without_place = words.map(|word| Reserved {
            name: word.name,
            start: None,
            size: word.size,
        });
        without_place.collect()
    })
}

/// The nodes of the blob: a device tree, but with numbers of this machine's byte order
/// (include/linux/kho/abi/memblock.h).
fn of_blob(blob: &[u8]) -> Option<Vec<Reserved>> {
    let tree = DeviceTree::read(blob).ok()?;
    let nodes = tree.root().children().iter();
    let reserved = nodes.map(|node| {
        let number = |name| Some(u64::from_le_bytes(node.property(name)?.try_into().ok()?));
        Some(Reserved {
            name: node.name().to_owned(),
            start: Some(number("start")?),
            size: number("size")?,
        })
    });
    reserved.collect()
}

impl Reserved {
    /// Whether a kernel with `word` on its line takes it back (`reserve_mem_kho_revive`).
    #[must_use]
    pub fn is_asked_by(&self, word: &Word) -> bool {
        let misplaced = self.start.unwrap_or(0) & (word.align - 1) != 0;
        self.name == word.name && self.size == word.size && !misplaced
    }
}

#[cfg(test)]
#[path = "reserved_tests.rs"]
mod tests;
