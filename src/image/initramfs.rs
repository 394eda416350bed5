//! How large an initrd is once it is unpacked.
//!
//! An initrd is a row of archives, each plain cpio or packed, with zeroes between
//! them (Documentation/driver-api/early-userspace/buffer-format.rst).

use super::decompress::{self, Compression, DecompressError};

/// Magic of a cpio archive that the kernel unpacks, without and with checksums.
const MAGICS: [&[u8]; 2] = [b"070701", b"070702"];
/// Size of a cpio header, bytes; every field behind the magic has 8 hex digits.
pub(super) const HEADER: usize = 110;
/// Number of the fields `c_filesize` and `c_namesize`.
const FILE_SIZE: usize = 6;
const NAME_SIZE: usize = 11;
pub(super) const TRAILER: &[u8] = b"TRAILER!!!\0";

/// Why an initrd's size is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InitramfsError {
    /// It cannot be unpacked.
    #[error(transparent)]
    Decompress(#[from] DecompressError),
    /// A cpio archive ends early, or its header is no header.
    #[error("malformed cpio archive at byte {0}")]
    Cpio(usize),
}

/// Bytes that `initrd` takes when it is unpacked: those of plain archives, and of
/// the first packed one, which is the last archive as all generators make it.
/// More than `cap` bytes are an error. The bytes are only counted, not kept.
///
/// # Errors
/// When an archive is damaged, or packed in an unknown way.
pub fn unpacked_size(initrd: &[u8], cap: usize) -> Result<u64, InitramfsError> {
    let mut at = 0;
    let mut size = 0;
    loop {
        let rest = initrd.get(at..).unwrap_or_default();
        let Some(zeroes) = rest.iter().position(|byte| *byte != 0) else {
            return Ok(size);
        };
        at += zeroes;
        let rest = initrd.get(at..).unwrap_or_default();
        if is_cpio(rest) {
            let end = archive_end(rest).ok_or(InitramfsError::Cpio(at))?;
            size += end as u64;
            at += end;
        } else {
            return Ok(size + decompress::unpacked_size(rest, cap)?);
        }
    }
}

/// How the main archive is packed; `None` when all are plain cpio.
#[must_use]
pub fn compression(initrd: &[u8]) -> Option<Compression> {
    let mut rest = initrd;
    loop {
        let zeroes = rest.iter().position(|byte| *byte != 0)?;
        rest = rest.get(zeroes..)?;
        if !is_cpio(rest) {
            return decompress::compression(rest);
        }
        rest = rest.get(archive_end(rest)?..)?;
    }
}

pub(super) fn is_cpio(bytes: &[u8]) -> bool {
    MAGICS.iter().any(|magic| bytes.starts_with(magic))
}

/// Where the archive at the start of `bytes` ends.
pub(super) fn archive_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0_usize;
    loop {
        let entry = bytes.get(at..)?;
        if !is_cpio(entry) {
            return None;
        }
        let (name_size, file_size) = sizes(entry)?;
        let name = HEADER + name_size;
        let content = name.checked_next_multiple_of(4)?;
        let end = content
            .checked_add(file_size)?
            .checked_next_multiple_of(4)?;
        if entry.get(HEADER..name)? == TRAILER {
            return Some(at + end.min(entry.len()));
        }
        at = at.checked_add(end)?;
    }
}

/// The sizes of an entry's name, with its NUL, and of its content, by the header at the start
/// of `entry`, bytes.
pub(super) fn sizes(entry: &[u8]) -> Option<(usize, usize)> {
    let field = |number: usize| {
        let digits = entry.get(6 + number * 8..)?.get(..8)?;
        usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    Some((field(NAME_SIZE)?, field(FILE_SIZE)?))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn entry(archive: &mut Vec<u8>, name: &str, content: &[u8]) {
        let mut fields = [0; 13];
        (fields[FILE_SIZE], fields[NAME_SIZE]) = (content.len(), name.len() + 1);
        archive.extend(b"070701");
        for field in fields {
            archive.extend(format!("{field:08x}").bytes());
        }
        for part in [format!("{name}\0").as_bytes(), content] {
            archive.extend(part);
            archive.resize(archive.len().next_multiple_of(4), 0);
        }
    }

    fn cpio(content: &[u8]) -> Vec<u8> {
        let mut archive = Vec::new();
        entry(&mut archive, "etc/file", content);
        entry(&mut archive, "TRAILER!!!", b"");
        archive
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn plain_and_packed_archives_count() {
        let (early, main) = (cpio(b"microcode"), cpio(&[7; 100_000]));
        let mut initrd = early.clone();
        initrd.resize(1024, 0);
        initrd.extend(gzip(&main));
        let expected = (early.len() + main.len()) as u64;
        assert_eq!(unpacked_size(&initrd, 1 << 20), Ok(expected));
        assert_eq!(compression(&initrd), Some(Compression::Gzip));
        assert_eq!(unpacked_size(&early, 0), Ok(early.len() as u64));
        assert_eq!(compression(&early), None);
        assert_eq!(unpacked_size(&[0; 99], 0), Ok(0));
        assert!(matches!(
            unpacked_size(&initrd, 1000),
            Err(InitramfsError::Decompress(DecompressError::TooLarge { .. }))
        ));
    }

    #[test]
    fn damage_is_an_error_at_every_length() {
        let archive = cpio(b"content");
        for end in 6..archive.len() - 3 {
            assert_eq!(
                unpacked_size(&archive[..end], 1 << 20),
                Err(InitramfsError::Cpio(0)),
                "{end}"
            );
        }
        assert!(unpacked_size(b"no archive", 1 << 20).is_err());
    }
}
