//! How plans, maps and images are shown: text for people, JSON for programs,
//! SVG for the eye.
//!
//! In text every size is written by [`human`], every address by [`address`] and every
//! range by [`range`].

pub(super) mod doctor;
pub(super) mod entries;
mod image;
pub(super) mod json;
mod kho;
pub(super) mod lanzaboote;
pub(super) mod map;
mod multiboot;
pub(super) mod stream;
pub(super) mod svg;
pub(super) mod table;
pub(super) mod text;
pub(super) mod uki;

pub(super) use image::{capability, image};

pub(super) use crate::base::human;

use crate::base::PhysRange;

/// An address.
pub(super) fn address(address: u64) -> String {
    format!("{address:#x}")
}

/// A range: its first and its last address.
pub(super) fn range(range: PhysRange) -> String {
    format!("{range:#}")
}

/// How much a text for people says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Detail {
    /// What is decided. Long lists are folded.
    Short,
    /// Also why, and every row of every list.
    Explained,
    /// Also the numbers behind the names, and who says so.
    Full,
}

impl Detail {
    /// By the options `--explain` and `-v`.
    pub(super) fn of(explain: bool, verbose: bool) -> Self {
        match (explain, verbose) {
            (_, true) => Self::Full,
            (true, false) => Self::Explained,
            (false, false) => Self::Short,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_with_their_last_address() {
        let whole = PhysRange::new(0x1_0000_0000, 0x1000).unwrap();
        assert_eq!(range(whole), "0x100000000-0x100000fff");
    }
}
