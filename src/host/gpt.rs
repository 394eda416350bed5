//! The partition table of a disk: GPT.
//!
//! Source: the UEFI specification, "GUID Partition Table (GPT) Disk Layout". Only the first
//! of the two tables is read. The crate `gpt` panics at entries of another size than 128
//! bytes, which the specification allows, and allocates what the disk says.

use std::io;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

/// The first bytes of the header.
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Where the checksum of the header is in it.
const CHECKSUM: std::ops::Range<usize> = 16..20;
/// Most bytes of all entries: 128 entries of 128 bytes are usual.
const MAX_ENTRIES: usize = 1 << 20;

/// The header, in the second sector.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    signature: [u8; 8],
    revision: U32,
    size: U32,
    checksum: U32,
    reserved: U32,
    own_sector: U64,
    other_sector: U64,
    first_usable: U64,
    last_usable: U64,
    disk: Guid,
    entries: U64,
    entry_count: U32,
    entry_size: U32,
    entries_checksum: U32,
}

/// The part of an entry that is used here.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    kind: Guid,
    id: Guid,
}

/// A GUID as it is stored.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned, PartialEq)]
#[repr(C)]
struct Guid {
    first: U32,
    second: U16,
    third: U16,
    rest: [u8; 8],
}

impl std::fmt::Display for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, second, third) = (self.first.get(), self.second.get(), self.third.get());
        let [a, b, rest @ ..] = self.rest;
        write!(f, "{first:08x}-{second:04x}-{third:04x}-{a:02x}{b:02x}-")?;
        rest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A partition. GUIDs are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1.
    pub number: u32,
    /// The GUID of its type.
    pub kind: String,
    /// Its own GUID.
    pub id: String,
}

/// The partitions of a disk with sectors of `sector` bytes; `None`: there is no valid table.
/// `read` reads bytes of the disk: as many as asked for from an offset, or fewer at its end.
///
/// # Errors
/// When the disk cannot be read.
pub fn read(
    sector: usize,
    read: &mut dyn FnMut(u64, usize) -> io::Result<Vec<u8>>,
) -> io::Result<Option<Vec<Partition>>> {
    let block = read(sector as u64, sector)?;
    let Some((at, count, size, checksum)) = header(&block) else {
        return Ok(None);
    };
    let Some(at) = at.checked_mul(sector as u64) else {
        return Ok(None);
    };
    let entries = read(at, count * size)?;
    if entries.len() != count * size || crc32(&[&entries]) != checksum {
        return Ok(None);
    }
    Ok(Some(partitions(&entries, size)))
}

/// Where the entries begin, in sectors, how many there are, how large each is, and their
/// checksum.
fn header(block: &[u8]) -> Option<(u64, usize, usize, u32)> {
    let (header, _) = Header::ref_from_prefix(block).ok()?;
    if header.signature != *SIGNATURE {
        return None;
    }
    let bytes = block.get(..usize::try_from(header.size.get()).ok()?)?;
    let (before, behind) = (bytes.get(..CHECKSUM.start)?, bytes.get(CHECKSUM.end..)?);
    // The checksum counts as zero.
    if crc32(&[before, &[0; 4], behind]) != header.checksum.get() {
        return None;
    }
    let count = usize::try_from(header.entry_count.get()).ok()?;
    let size = usize::try_from(header.entry_size.get()).ok()?;
    let fits = count
        .checked_mul(size)
        .is_some_and(|all| all <= MAX_ENTRIES);
    let is_whole = size >= size_of::<Entry>();
    let sums = header.entries_checksum.get();
    (fits && is_whole).then_some((header.entries.get(), count, size, sums))
}

fn partitions(entries: &[u8], size: usize) -> Vec<Partition> {
    let entries = (1..).zip(entries.chunks_exact(size));
    let entries = entries.filter_map(|(number, bytes)| {
        let (entry, _) = Entry::ref_from_prefix(bytes).ok()?;
        let is_used = bytes.get(..size_of::<Guid>())? != [0; size_of::<Guid>()];
        is_used.then(|| Partition {
            number,
            kind: entry.kind.to_string(),
            id: entry.id.to_string(),
        })
    });
    entries.collect()
}

/// The CRC-32 of all parts in a row.
fn crc32(parts: &[&[u8]]) -> u32 {
    let mut sum = flate2::Crc::new();
    parts.iter().for_each(|part| sum.update(part));
    sum.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ESP: [u8; 16] = [
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9,
        0x3b,
    ];

    /// A disk whose table has `entries` of `size` bytes from the third sector on.
    fn disk(sector: usize, size: usize, entries: &[[u8; 32]]) -> Vec<u8> {
        let mut table = Vec::new();
        for entry in entries {
            table.extend_from_slice(entry);
            table.resize(table.len() + size - 32, 0);
        }
        let mut header = vec![0; 92];
        header[..8].copy_from_slice(SIGNATURE);
        header[12..16].copy_from_slice(&92_u32.to_le_bytes());
        header[72..80].copy_from_slice(&2_u64.to_le_bytes());
        let count = u32::try_from(entries.len()).unwrap();
        header[80..84].copy_from_slice(&count.to_le_bytes());
        header[84..88].copy_from_slice(&u32::try_from(size).unwrap().to_le_bytes());
        header[88..92].copy_from_slice(&crc32(&[&table]).to_le_bytes());
        seal(&mut header);
        let mut disk = vec![0; sector];
        disk.extend(header);
        disk.resize(2 * sector, 0);
        disk.extend(table);
        disk
    }

    /// Writes the checksum of the header.
    fn seal(header: &mut [u8]) {
        header[CHECKSUM].fill(0);
        let sum = crc32(&[&header[..92]]);
        header[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    }

    fn read_disk(sector: usize, disk: &[u8]) -> Option<Vec<Partition>> {
        read(sector, &mut |at, size| {
            let at = usize::try_from(at).unwrap_or(usize::MAX).min(disk.len());
            Ok(disk[at..].iter().take(size).copied().collect())
        })
        .unwrap()
    }

    fn entry(kind: [u8; 16]) -> [u8; 32] {
        let mut entry = [7; 32];
        entry[..16].copy_from_slice(&kind);
        entry
    }

    #[test]
    fn types_and_numbers() {
        for (sector, size) in [(512, 128), (4096, 128), (512, 256)] {
            let disk = disk(sector, size, &[entry([0; 16]), entry(ESP), entry([1; 16])]);
            let found = read_disk(sector, &disk).unwrap();
            let expected = Partition {
                number: 2,
                kind: "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".to_owned(),
                id: "07070707-0707-0707-0707-070707070707".to_owned(),
            };
            assert_eq!(found.first(), Some(&expected));
            assert_eq!(found.len(), 2);
        }
    }

    #[test]
    fn what_is_damaged_or_too_large_is_no_table() {
        let good = disk(512, 128, &[entry(ESP)]);
        assert!(read_disk(512, &good).is_some());
        for at in [512, 512 + 24, 1024 + 3] {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(read_disk(512, &bad), None, "{at}");
        }
        assert_eq!(read_disk(512, &good[..1100]), None);
        assert_eq!(read_disk(512, &good[..600]), None);
        for (count, size) in [(u32::MAX, u32::MAX), (1 << 20, 128), (1, 0), (1, 16)] {
            let mut bad = good.clone();
            bad[512 + 80..512 + 84].copy_from_slice(&count.to_le_bytes());
            bad[512 + 84..512 + 88].copy_from_slice(&size.to_le_bytes());
            seal(&mut bad[512..]);
            assert_eq!(read_disk(512, &bad), None, "{count} {size}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 92..200)) {
            let mut disk = vec![0; 512];
            disk.extend(&bytes);
            disk[512..520].copy_from_slice(SIGNATURE);
            disk[524..528].copy_from_slice(&92_u32.to_le_bytes());
            seal(&mut disk[512..]);
            let _ = read_disk(512, &disk);
        }
    }
}
