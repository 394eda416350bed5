//! The header of a blob and the three blocks that it places.

use super::error::TreeError;

/// Largest blob that is read, bytes: no Linux takes a larger one
/// (MAX_FDT_SIZE of arm64; Documentation/arch/arm64/booting.rst).
pub const MAX_INPUT: u32 = 2 << 20;

const MAGIC: u32 = 0xd00d_feed;
/// The version written. 16 differs only in that its header ends before
/// `size_dt_struct`.
const VERSION: u32 = 17;
const FIRST_VERSION: u32 = 16;
const HEADER_V16: u32 = 36;
const HEADER: u32 = 40;

/// An entry of the memory reservation block. It may be any two numbers but
/// two zeros, which end the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Physical address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
}

/// What a blob is made of.
pub(super) struct Blocks<'a> {
    pub(super) boot_cpuid_phys: u32,
    pub(super) reservations: Vec<Reservation>,
    /// The structure block; in version 16, all that could be part of it.
    pub(super) structure: &'a [u8],
    pub(super) strings: &'a [u8],
}

/// Takes a blob of at most `limit` bytes apart.
pub(super) fn split(blob: &[u8], limit: u32) -> Result<Blocks<'_>, TreeError> {
    let truncated = |need: u32| TreeError::Truncated {
        have: blob.len(),
        need: need.into(),
    };
    let field = |index: usize| {
        let bytes = blob.get(index * 4..).and_then(<[_]>::first_chunk);
        bytes
            .map(|bytes| u32::from_be_bytes(*bytes))
            .ok_or_else(|| truncated(HEADER))
    };
    let magic = field(0)?;
    if magic != MAGIC {
        return Err(TreeError::NotATree { magic });
    }
    let (total, version, last_compatible) = (field(1)?, field(5)?, field(6)?);
    if version < FIRST_VERSION || last_compatible > version.min(VERSION) {
        return Err(TreeError::Version {
            version,
            last_compatible,
        });
    }
    if total > limit {
        return Err(TreeError::InputTooBig { size: total });
    }
    let header = if version < VERSION {
        HEADER_V16
    } else {
        HEADER
    };
    let blob = usize::try_from(total)
        .ok()
        .and_then(|total| blob.get(..total))
        .ok_or_else(|| truncated(total))?;
    if total < header {
        return Err(TreeError::Truncated {
            have: blob.len(),
            need: header.into(),
        });
    }
    let block = |block, align: u32, offset: u32, size: u32| {
        let fault = |why| TreeError::Block {
            block,
            offset,
            size,
            why,
        };
        if offset < header {
            return Err(fault("overlaps the header"));
        }
        if !offset.is_multiple_of(align) {
            return Err(fault("is not aligned"));
        }
        slice(blob, offset, size).ok_or_else(|| fault("is not inside the blob"))
    };
    let [off_structure, off_strings, off_reservations] = [field(2)?, field(3)?, field(4)?];
    let size_structure = if version < VERSION {
        total.saturating_sub(off_structure)
    } else {
        field(9)?
    };
    let rest = total.saturating_sub(off_reservations);
    let reservations = block("memory reservation block", 8, off_reservations, rest)?;
    Ok(Blocks {
        boot_cpuid_phys: field(7)?,
        reservations: read_reservations(reservations).ok_or(TreeError::Block {
            block: "memory reservation block",
            offset: off_reservations,
            size: rest,
            why: "has no end",
        })?,
        structure: block("structure block", 4, off_structure, size_structure)?,
        strings: block("strings block", 1, off_strings, field(8)?)?,
    })
}

fn slice(blob: &[u8], offset: u32, size: u32) -> Option<&[u8]> {
    let start = usize::try_from(offset).ok()?;
    let size = usize::try_from(size).ok()?;
    blob.get(start..)?.get(..size)
}

/// The entries up to the one that ends the block.
fn read_reservations(block: &[u8]) -> Option<Vec<Reservation>> {
    let mut entries = Vec::new();
    for entry in block.as_chunks::<8>().0.as_chunks::<2>().0 {
        let [address, size] = entry.map(u64::from_be_bytes);
        if (address, size) == (0, 0) {
            return Some(entries);
        }
        entries.push(Reservation { address, size });
    }
    None
}

/// Puts a blob together: header, reservations, structure, strings, side by side.
pub(super) fn assemble(
    boot_cpuid_phys: u32,
    reservations: &[Reservation],
    structure: &[u8],
    strings: &[u8],
) -> Result<Vec<u8>, TreeError> {
    let entries = reservations
        .iter()
        .flat_map(|entry| [entry.address, entry.size])
        .chain([0, 0]);
    let reserved: Vec<u8> = entries.flat_map(u64::to_be_bytes).collect();
    let size = reserved.len() + structure.len() + strings.len();
    let number = |number: usize| u32::try_from(number).map_err(|_| TreeError::TooBig { size });
    let off_structure = HEADER.saturating_add(number(reserved.len())?);
    let off_strings = off_structure.saturating_add(number(structure.len())?);
    let header = [
        MAGIC,
        HEADER.saturating_add(number(size)?),
        off_structure,
        off_strings,
        HEADER,
        VERSION,
        FIRST_VERSION,
        boot_cpuid_phys,
        number(strings.len())?,
        number(structure.len())?,
    ]
    .map(u32::to_be_bytes);
    Ok([header.as_flattened(), &reserved, structure, strings].concat())
}
