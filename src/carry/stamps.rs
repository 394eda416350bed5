//! When the stages of a kexec began: the time stamps that purgatory leaves in a node of
//! the setup_data chain (`purgatory/stamps.rs` has its layout), and the page in which
//! `exec` leaves one for purgatory.

use std::time::Duration;

#[path = "../../purgatory/stamps.rs"]
mod layout;

use layout::{ExecPage, STAMPS_MAGIC};

/// Bytes of the node's payload.
pub const SIZE: usize = size_of::<layout::Stamps>();
/// Where the page has the duration of the load, bytes from its start.
pub const LOAD_OFFSET: u64 = std::mem::offset_of!(ExecPage, load) as u64;
/// Where the page has the time of `exec`, bytes from its start.
pub const EXEC_OFFSET: u64 = std::mem::offset_of!(ExecPage, exec) as u64;
/// Bytes that the page's contents take.
pub const PAGE_CONTENTS: usize = size_of::<ExecPage>();

/// Why it is not known when `exec` called the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExecUnknown {
    /// `exec` left nothing in the page.
    NotStamped,
    /// Something else lay where the page was.
    PageLost,
    /// /run/rkexec does not lie in memory.
    NoMemoryFile,
    /// The kernel did not tell the page's physical address.
    NoAddress,
    /// Every page that was tried will be overwritten by a segment.
    NoPlace,
    /// The page's file could not be made.
    NoFile,
    /// A number that this version does not know.
    Other,
}

impl ExecUnknown {
    const KNOWN: [(Self, u32); 6] = [
        (Self::NotStamped, layout::EXEC_NOT_STAMPED),
        (Self::PageLost, layout::EXEC_PAGE_LOST),
        (Self::NoMemoryFile, layout::EXEC_NO_MEMORY_FILE),
        (Self::NoAddress, layout::EXEC_NO_ADDRESS),
        (Self::NoPlace, layout::EXEC_NO_PLACE),
        (Self::NoFile, layout::EXEC_NO_FILE),
    ];

    /// Its number in the stamps.
    #[must_use]
    pub fn number(self) -> u32 {
        let mut known = Self::KNOWN.iter();
        let number = known.find(|(why, _)| *why == self);
        number.map_or(u32::MAX, |(_, number)| *number)
    }

    fn of(number: u32) -> Option<Self> {
        if number == layout::EXEC_KNOWN {
            return None;
        }
        let mut known = Self::KNOWN.iter();
        let why = known.find(|(_, known)| *known == number);
        Some(why.map_or(Self::Other, |(why, _)| *why))
    }

    /// The reason in words.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::NotStamped => {
                "neither `rkexec exec` nor `kexec -e` started this kernel, or the page for their time stamp was moved"
            }
            Self::PageLost => "the page for the time stamp of exec was overwritten",
            Self::NoMemoryFile => "/run/rkexec was not on a tmpfs",
            Self::NoAddress => {
                "the kernel before did not tell where the page for the time stamp of exec was"
            }
            Self::NoPlace => {
                "every page that was tried for the time stamp of exec lay where this kernel was to go"
            }
            Self::NoFile => "no page for the time stamp of exec could be made in /run/rkexec",
            Self::Other => "for a reason that this version does not know",
        }
    }
}

/// The stamps, as values of the time stamp counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamps {
    /// How long the load took.
    pub load: Option<Duration>,
    /// When `exec` called the running kernel.
    pub exec: Result<u64, ExecUnknown>,
    /// When purgatory was entered.
    pub entered: u64,
    /// When purgatory had checked all segments.
    pub verified: u64,
}

impl Stamps {
    /// The payload of a node that purgatory has not filled in yet.
    #[must_use]
    pub fn blank() -> Vec<u8> {
        let mut payload = STAMPS_MAGIC.to_le_bytes().to_vec();
        payload.resize(SIZE, 0);
        payload
    }

    /// Whether `payload` is that of such a node.
    #[must_use]
    pub fn is_node(payload: &[u8]) -> bool {
        payload.len() == SIZE && payload.starts_with(&STAMPS_MAGIC.to_le_bytes())
    }

    /// The stamps in `payload`; `None` when it has none, or purgatory left none.
    #[must_use]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        if !Self::is_node(payload) {
            return None;
        }
        let [_, load, exec, entered, verified, unknown] = words(payload)?;
        let [a, b, c, d, ..] = unknown.to_le_bytes();
        let unknown = ExecUnknown::of(u32::from_le_bytes([a, b, c, d]));
        (entered != 0).then_some(Self {
            load: (load != 0).then_some(Duration::from_nanos(load)),
            exec: match (unknown, exec) {
                (Some(why), _) => Err(why),
                (None, 0) => Err(ExecUnknown::NotStamped),
                (None, exec) => Ok(exec),
            },
            entered,
            verified,
        })
    }
}

/// The contents of the page that `exec` writes to, for the image with the number `nonce`,
/// when the page has the physical address `address`.
#[must_use]
pub fn exec_page(nonce: u64, address: u64) -> [u8; PAGE_CONTENTS] {
    let mut contents = [0; PAGE_CONTENTS];
    let (words, _) = contents.as_chunks_mut();
    for (word, value) in words.iter_mut().zip([nonce, 0, 0, address]) {
        *word = value.to_le_bytes();
    }
    contents
}

/// The physical address in the contents of such a page.
#[must_use]
pub fn address_of(contents: &[u8; PAGE_CONTENTS]) -> Option<u64> {
    words(contents).map(|[_, _, _, address]| address)
}

/// The first `N` words.
fn words<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (chunks, _) = bytes.as_chunks();
    let words: Vec<u64> = chunks.iter().copied().map(u64::from_le_bytes).collect();
    words.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(words: [u64; 5]) -> Vec<u8> {
        let words = words.into_iter().flat_map(u64::to_le_bytes);
        b"RKXTIME1".iter().copied().chain(words).collect()
    }

    #[test]
    fn stamps_are_read_as_purgatory_writes_them() {
        let known = Stamps::parse(&node([1_500_000_000, 10, 20, 30, 0])).unwrap();
        let expected = Stamps {
            load: Some(Duration::from_millis(1500)),
            exec: Ok(10),
            entered: 20,
            verified: 30,
        };
        assert_eq!(known, expected);
        for number in 1..=6 {
            let stamps = Stamps::parse(&node([0, 0, 20, 30, number])).unwrap();
            let why = stamps.exec.unwrap_err();
            assert_eq!(u64::from(why.number()), number);
            assert_eq!(stamps.load, None);
        }
        let newer = Stamps::parse(&node([0, 10, 20, 30, 77])).unwrap();
        assert_eq!(newer.exec, Err(ExecUnknown::Other));
        let silent = Stamps::parse(&node([0, 0, 20, 30, 0])).unwrap();
        assert_eq!(silent.exec, Err(ExecUnknown::NotStamped));
    }

    #[test]
    fn other_nodes_and_unfilled_ones_have_no_stamps() {
        assert!(Stamps::is_node(&Stamps::blank()));
        assert_eq!(Stamps::parse(&Stamps::blank()), None);
        let full = node([1, 2, 3, 4, 0]);
        assert!(Stamps::parse(&full).is_some());
        for end in 0..full.len() {
            assert_eq!(Stamps::parse(&full[..end]), None, "{end}");
        }
        assert_eq!(Stamps::parse(&[&full[..], b"x"].concat()), None);
        assert!(!Stamps::is_node(b"RKXREC1\n{}"));
    }

    #[test]
    fn the_page_has_its_address_and_room_for_the_stamps() {
        let contents = exec_page(7, 0x1234_5000);
        assert_eq!(address_of(&contents), Some(0x1234_5000));
        assert_eq!(words(&contents), Some([7, 0, 0, 0x1234_5000]));
        assert_eq!((LOAD_OFFSET, EXEC_OFFSET), (8, 16));
    }
}
