//! Whether an initrd is complete, and in a format that Linux unpacks.
//!
//! Every load checks this, so it must be cheap. Where the format tells where it ends (cpio,
//! zstd, lz4, xz, bzip2), the check goes from header to header and unpacks only the first
//! bytes. gzip ends with the unpacked size: a size that cpio can have is accepted. Any
//! other gzip stream is unpacked completely, and the result discarded.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

use super::decompress::{
    Compression, LZ4_BLOCK, LZ4_BOUND, LZ4_LEGACY, LZMA_LIMIT_KIB, MAX_WINDOW, compression,
};
use super::initramfs::{archive_end, is_cpio};

/// What people write for "no initrd" where a file must be given: zeroes.
const NOTHING: usize = 4;
/// The most that is unpacked to find out whether a stream is whole, bytes: Linux unpacks
/// an initrd to memory.
const MOST: u64 = 4 << 30;
/// GNU cpio, bsdcpio and the kernel's own fill their archives up to a multiple of this, bytes.
const CPIO_BLOCK: u64 = 512;
/// A packed initrd is not smaller than its contents by more than this.
const RATIO: u64 = 16;

/// Why the next kernel will not unpack all of an initrd.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Zeroes, and nothing else.
    #[error("it has nothing but zeroes")]
    Zeroes,
    /// An archive is cut short.
    #[error("the {what} archive that begins at byte {at} is cut short")]
    Cut {
        /// How it is packed.
        what: &'static str,
        /// Where it begins.
        at: usize,
    },
    /// Linux knows no such archive.
    #[error("byte {at} does not begin a cpio archive, and Linux cannot unpack it: {is}")]
    Unknown {
        /// Where it begins.
        at: usize,
        /// What is known of it.
        is: String,
    },
    /// It cannot be unpacked.
    #[error("the {what} archive that begins at byte {at} is damaged: {why}")]
    Damaged {
        /// How it is packed.
        what: &'static str,
        /// Where it begins.
        at: usize,
        /// What the unpacker says.
        why: String,
    },
    /// It unpacks to something else.
    #[error("what the {what} data at byte {at} unpacks to is no cpio archive: {is}")]
    NoCpio {
        /// How it is packed.
        what: &'static str,
        /// Where it begins.
        at: usize,
        /// What is known of it.
        is: String,
    },
}

/// Looks whether `initrd` is a row of whole archives, each plain cpio or packed, with
/// zeroes between them.
///
/// # Errors
/// What is wrong with the first one that is not whole.
pub fn check(initrd: &[u8]) -> Result<(), Flaw> {
    check_sparse(initrd, |at| Some(at..initrd.len()))
}

/// The same for bytes with holes, which `data` skips: it returns the first part at or
/// behind an offset that is no hole. Reading a hole of a file on a tmpfs takes memory, which
/// there may not be.
///
/// # Errors
/// As [`check`].
pub fn check_sparse(
    initrd: &[u8],
    data: impl Fn(usize) -> Option<Range<usize>>,
) -> Result<(), Flaw> {
    let mut at = 0;
    loop {
        let Some(begin) = first_nonzero(initrd, at, &data) else {
            return match at {
                0 if initrd.len() > NOTHING => Err(Flaw::Zeroes),
                _ => Ok(()),
            };
        };
        at = begin;
        let rest = initrd.get(at..).unwrap_or_default();
        let end = match (is_cpio(rest), compression(rest)) {
            (true, _) => Some(archive_end(rest).ok_or(Flaw::Cut { what: "cpio", at })?),
            (false, Some(format)) => packed(rest, format).map_err(|fault| fault.at(format, at))?,
            (false, None) => {
                let is = describe(rest);
                return Err(Flaw::Unknown { at, is });
            }
        };
        match end {
            Some(end) => at += end,
            None => return Ok(()),
        }
    }
}

/// Where the first byte from `at` on is that is not zero. Linux skips any number of zeroes.
fn first_nonzero(
    initrd: &[u8],
    mut at: usize,
    data: impl Fn(usize) -> Option<Range<usize>>,
) -> Option<usize> {
    // Reading one page costs less than the search for the next hole.
    if initrd.get(at).is_some_and(|byte| *byte != 0) {
        return Some(at);
    }
    while at < initrd.len() {
        let part = data(at)?;
        // A file that changes meanwhile may have any parts.
        let part = part.start.max(at)..part.end.min(initrd.len());
        let bytes = initrd.get(part.clone())?;
        if let Some(zeroes) = bytes.iter().position(|byte| *byte != 0) {
            return Some(part.start + zeroes);
        }
        at = part.end.max(at + 1);
    }
    None
}

/// What is wrong with a packed archive.
enum Fault {
    Cut,
    NotForLinux,
    Damaged(String),
    NoCpio(Vec<u8>),
}

impl Fault {
    fn at(self, format: Compression, at: usize) -> Flaw {
        let what = format.name();
        match self {
            Self::Cut => Flaw::Cut { what, at },
            Self::NotForLinux => Flaw::Unknown {
                at,
                is: "it is an lz4 frame of today, and Linux unpacks the legacy one (lz4 -l)"
                    .to_owned(),
            },
            Self::Damaged(why) => Flaw::Damaged { what, at, why },
            Self::NoCpio(begin) => Flaw::NoCpio {
                what,
                at,
                is: describe(&begin),
            },
        }
    }

    fn of(error: &io::Error) -> Self {
        match error.kind() {
            ErrorKind::UnexpectedEof => Self::Cut,
            _ => Self::Damaged(error.to_string()),
        }
    }
}

/// Where the packed archive at the start of `bytes` ends; `None` if it is whole, but its
/// end is not known.
fn packed(bytes: &[u8], format: Compression) -> Result<Option<usize>, Fault> {
    let end = match format {
        Compression::Zstd => Some(zstd_end(bytes).ok_or(Fault::Cut)?),
        Compression::Lz4 if bytes.starts_with(LZ4_LEGACY) => {
            Some(lz4_end(bytes).ok_or(Fault::Cut)?)
        }
        Compression::Lz4 => return Err(Fault::NotForLinux),
        // lzop is known by its name only.
        Compression::Lzo => return Ok(None),
        Compression::Gzip | Compression::Bzip2 | Compression::Lzma | Compression::Xz => None,
    };
    let told = match format {
        Compression::Gzip => gzip_is_plausible(bytes),
        Compression::Bzip2 => bzip2_ends(bytes),
        Compression::Xz => xz_ends(bytes),
        Compression::Lzma => false,
        _ => true,
    };
    let mut reader = reader(bytes, format)?;
    let mut begin = Vec::new();
    reader
        .by_ref()
        .take(6)
        .read_to_end(&mut begin)
        .map_err(|error| Fault::of(&error))?;
    if !is_cpio(&begin) {
        return Err(Fault::NoCpio(begin));
    }
    if !told {
        io::copy(&mut reader.take(MOST), &mut io::sink()).map_err(|error| Fault::of(&error))?;
    }
    Ok(end)
}

/// What `bytes` unpack to, piece by piece.
fn reader<'a>(bytes: &'a [u8], format: Compression) -> Result<Box<dyn Read + 'a>, Fault> {
    let failed = |error: io::Error| Fault::of(&error);
    Ok(match format {
        Compression::Gzip => Box::new(flate2::bufread::GzDecoder::new(bytes)),
        Compression::Bzip2 => Box::new(bzip2::bufread::BzDecoder::new(bytes)),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(
            bytes,
            false,
            LZMA_LIMIT_KIB,
        )),
        Compression::Lzma => Box::new(
            lzma_rust2::LzmaReader::new_mem_limit(bytes, LZMA_LIMIT_KIB, None).map_err(failed)?,
        ),
        Compression::Zstd => Box::new(
            ruzstd::decoding::StreamingDecoder::new_with_max_window_size(
                bytes,
                u64::from(MAX_WINDOW),
            )
            .map_err(|error| Fault::Damaged(error.to_string()))?,
        ),
        Compression::Lz4 | Compression::Lzo => Box::new(io::Cursor::new(first_of_lz4(bytes)?)),
    })
}

/// What the first block of a legacy lz4 frame unpacks to.
fn first_of_lz4(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut plain = vec![0; LZ4_BLOCK];
    let size = word(bytes, 4).ok_or(Fault::Cut)?;
    let block = bytes.get(8..).and_then(|rest| rest.get(..size));
    let length = lz4_flex::block::decompress_into(block.ok_or(Fault::Cut)?, &mut plain)
        .map_err(|error| Fault::Damaged(error.to_string()))?;
    plain.truncate(length);
    Ok(plain)
}

/// The four bytes at `at`, little-endian.
fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let word = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
    usize::try_from(word).ok()
}

/// Where a zstd frame ends (RFC 8878, 3.1.1).
fn zstd_end(bytes: &[u8]) -> Option<usize> {
    const SINGLE_SEGMENT: u8 = 1 << 5;
    const CHECKSUM: u8 = 1 << 2;
    let flags = *bytes.get(4)?;
    let single = flags & SINGLE_SEGMENT != 0;
    let window = usize::from(!single);
    let dictionary = [0, 1, 2, 4].get(usize::from(flags & 3))?;
    let size = match flags >> 6 {
        0 => usize::from(single),
        wide => 1 << wide,
    };
    let mut at = 5 + window + dictionary + size;
    loop {
        let [low, middle, high] = *bytes.get(at..)?.first_chunk::<3>()?;
        let head = u32::from_le_bytes([low, middle, high, 0]);
        let size = usize::try_from(head >> 3).ok()?;
        // A block of type 1 holds one byte, which is repeated.
        at += 3 + if head >> 1 & 3 == 1 { 1 } else { size };
        if head & 1 == 1 {
            break;
        }
    }
    at += if flags & CHECKSUM != 0 { 4 } else { 0 };
    (at <= bytes.len()).then_some(at)
}

/// Where legacy lz4 frames end: they have no mark of their end, and a cut between two
/// blocks does not show.
fn lz4_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 4;
    while let Some(size) = word(bytes, at) {
        if bytes.get(at..)?.starts_with(LZ4_LEGACY) {
            at += 4;
        } else if size == 0 || size > LZ4_BOUND {
            return Some(at);
        } else {
            at += 4 + size;
        }
    }
    let left = bytes.get(at..)?;
    left.iter().all(|byte| *byte == 0).then_some(at)
}

/// Whether the last four bytes may be the size of the cpio archive that `bytes` unpack to.
/// One in a thousand truncated streams passes this by chance.
fn gzip_is_plausible(bytes: &[u8]) -> bool {
    let packed = bytes.len() as u64;
    let Some(size) = bytes.last_chunk().map(|size| u32::from_le_bytes(*size)) else {
        return false;
    };
    let size = u64::from(size);
    size > 0 && size % CPIO_BLOCK == 0 && (packed / 2..=packed * RATIO).contains(&size)
}

/// Whether the end of a bzip2 stream is there: 48 bits that mark it, at any bit, and a
/// checksum of 32 behind them. Zeroes may follow.
fn bzip2_ends(bytes: &[u8]) -> bool {
    const MARK: u128 = 0x1772_4538_5090;
    let end = without_zeroes(bytes).len();
    // The checksum may end with zeroes, too: there is room for it in any case.
    let last = bytes.get(..bytes.len().min(end + 4)).unwrap_or_default();
    let tail = last
        .get(last.len().saturating_sub(16)..)
        .unwrap_or_default();
    let tail = tail
        .iter()
        .fold(0_u128, |all, byte| all << 8 | u128::from(*byte));
    (32..=80).any(|shift| tail >> shift & 0xffff_ffff_ffff == MARK)
}

/// Whether `bytes`, less the zeroes behind them, are one xz stream from the first byte to the
/// last by the index at its end (the .xz file format, 2.1.2 and 4).
fn xz_ends(bytes: &[u8]) -> bool {
    const HEADER: u64 = 12;
    const FOOTER: usize = 12;
    let stream = without_zeroes(bytes);
    let whole = || {
        let (body, footer) = stream.split_at_checked(stream.len().checked_sub(FOOTER)?)?;
        if !footer.ends_with(b"YZ") || footer.get(8..10)? != stream.get(6..8)? {
            return None;
        }
        let size = word(footer, 4)?.checked_add(1)?.checked_mul(4)?;
        let mut index = body.get(body.len().checked_sub(size)?..)?.split_first()?;
        if *index.0 != 0 {
            return None;
        }
        let records = number(&mut index.1)?;
        let mut blocks = 0_u64;
        for _ in 0..records {
            let packed = number(&mut index.1)?;
            number(&mut index.1)?;
            blocks = blocks.checked_add(packed.checked_next_multiple_of(4)?)?;
        }
        let all = blocks.checked_add(HEADER + size as u64 + FOOTER as u64)?;
        Some(all == stream.len() as u64)
    };
    whole() == Some(true)
}

/// A number as xz writes them: 7 bits in a byte, the lowest first.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for place in 0..9 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << (place * 7);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn without_zeroes(bytes: &[u8]) -> &[u8] {
    let last = bytes.iter().rposition(|byte| *byte != 0);
    let end = last.map_or(0, |last| last + 1);
    bytes.get(..end).unwrap_or_default()
}

/// Describes the first bytes of something that Linux does not unpack.
fn describe(bytes: &[u8]) -> String {
    let magics: [(usize, &[u8], &str); 5] = [
        (
            0,
            b"070707",
            "it is a cpio archive of the old format, and Linux unpacks the new one (cpio -H newc)",
        ),
        (
            0,
            b"\xc7\x71",
            "it is a binary cpio archive, and Linux unpacks the new format (cpio -H newc)",
        ),
        (257, b"ustar", "it is a tar archive"),
        (0, b"hsqs", "it is a squashfs file system"),
        (0, b"\x7fELF", "it is an ELF file"),
    ];
    let known = magics.iter().find(|(at, magic, _)| {
        let there = bytes.get(*at..).unwrap_or_default();
        there.starts_with(magic)
    });
    if let Some((_, _, is)) = known {
        return (*is).to_owned();
    }
    match bytes.get(..6).unwrap_or(bytes) {
        [] => "it is empty".to_owned(),
        begin => {
            let hex: String = begin.iter().map(|byte| format!(" {byte:02x}")).collect();
            format!("it begins with{hex}")
        }
    }
}

#[cfg(test)]
#[path = "whole_tests.rs"]
mod tests;
