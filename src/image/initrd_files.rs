//! The names of the files in an initrd.

use super::decompress::{self, DecompressError};
use super::initramfs::{HEADER, TRAILER, archive_end, is_cpio, sizes};

/// Longest name that Linux unpacks (PATH_MAX), with its NUL, bytes.
const NAME_MAX: usize = 4096;

/// Where a file of an initrd lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// In an archive that is not packed. The kernel itself can read it before it unpacks
    /// anything, if it is the first.
    Plain,
    /// In an archive that is packed.
    Packed,
}

/// Calls `each` with the name of every file in `initrd`: those of plain archives, and of the
/// first packed one, which is the last archive as all generators make it. Of a packed archive
/// at most `cap` bytes are read. Names have no `./` or `/` at their start. What follows a
/// malformed header is left out.
///
/// # Errors
/// When the packed archive is damaged, or packed in an unknown way.
pub fn names(
    initrd: &[u8],
    cap: usize,
    mut each: impl FnMut(Part, &[u8]),
) -> Result<(), DecompressError> {
    let mut rest = initrd;
    loop {
        let Some(zeroes) = rest.iter().position(|byte| *byte != 0) else {
            return Ok(());
        };
        rest = rest.get(zeroes..).unwrap_or_default();
        if !is_cpio(rest) {
            let mut archive = Archive::default();
            return decompress::unpack_to(rest, cap, &mut |piece| {
                archive.take(piece, |name| each(Part::Packed, name));
            });
        }
        let end = archive_end(rest).unwrap_or(rest.len());
        let (archive, behind) = rest.split_at(end.min(rest.len()));
        Archive::default().take(archive, |name| each(Part::Plain, name));
        rest = behind;
    }
}

/// A row of cpio archives that comes in pieces.
#[derive(Default)]
struct Archive {
    /// The start of an entry, as far as it is there: header and name.
    entry: Vec<u8>,
    /// Bytes of content still to be passed over.
    skip: usize,
    /// A header is none: nothing that follows is understood.
    is_lost: bool,
}

impl Archive {
    fn take(&mut self, mut piece: &[u8], mut each: impl FnMut(&[u8])) {
        while !piece.is_empty() && !self.is_lost {
            if self.skip > 0 {
                let passed = self.skip.min(piece.len());
                self.skip -= passed;
                piece = piece.get(passed..).unwrap_or_default();
                continue;
            }
            // Between archives there are zeroes, and no header begins with one.
            if self.entry.is_empty() && piece.first() == Some(&0) {
                piece = piece.get(1..).unwrap_or_default();
                continue;
            }
            let wanted = match self.wanted() {
                Some(wanted) => wanted,
                None => {
                    self.is_lost = true;
                    return;
                }
            };
            let missing = wanted.saturating_sub(self.entry.len()).min(piece.len());
            let (now, later) = piece.split_at(missing);
            self.entry.extend_from_slice(now);
            piece = later;
            if self.entry.len() >= HEADER && self.wanted() == Some(self.entry.len()) {
                self.finish(&mut each);
            }
        }
    }

    /// Bytes of the entry up to the end of its name; those of a header until that is whole.
    /// `None`: it is no header.
    fn wanted(&self) -> Option<usize> {
        if self.entry.len() < HEADER {
            return Some(HEADER);
        }
        let (name, _) = sizes(&self.entry).filter(|_| is_cpio(&self.entry))?;
        match name {
            0 => None,
            // Linux passes over such an entry (`do_header` in init/initramfs.c), and so does
            // `finish`.
            1..=NAME_MAX => Some(HEADER + name),
            _ => Some(HEADER),
        }
    }

    /// The name of the entry is whole.
    fn finish(&mut self, each: &mut impl FnMut(&[u8])) {
        let name = self.entry.get(HEADER..).unwrap_or_default();
        let (name_size, content) = sizes(&self.entry).unwrap_or_default();
        // A name without the NUL at its end is none for Linux either.
        if name != TRAILER
            && let Some(name) = name.strip_suffix(&[0])
        {
            let name = name.strip_prefix(b"./").unwrap_or(name);
            each(name.strip_prefix(b"/").unwrap_or(name));
        }
        // At most 4 GiB: the field has 8 hexadecimal digits.
        let whole = HEADER.saturating_add(name_size).next_multiple_of(4);
        let unread = whole.saturating_sub(self.entry.len());
        self.skip = unread.saturating_add(content.next_multiple_of(4));
        self.entry.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn cpio(names: &[&str]) -> Vec<u8> {
        let mut archive = Vec::new();
        for name in names.iter().copied().chain(["TRAILER!!!"]) {
            let content = vec![b'0'; name.len() % 7];
            let mut fields = [0; 13];
            (fields[6], fields[11]) = (content.len(), name.len() + 1);
            archive.extend(b"070701");
            for field in fields {
                archive.extend(format!("{field:08x}").bytes());
            }
            for part in [format!("{name}\0").as_bytes(), &content] {
                archive.extend(part);
                archive.resize(archive.len().next_multiple_of(4), 0);
            }
        }
        archive
    }

    fn found(initrd: &[u8]) -> Vec<(Part, String)> {
        let mut all = Vec::new();
        let name = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        names(initrd, 1 << 20, |part, bytes| all.push((part, name(bytes)))).unwrap();
        all
    }

    #[test]
    fn plain_and_packed_files_are_told_apart() {
        let early = cpio(&["kernel/x86/microcode/GenuineIntel.bin"]);
        let main = cpio(&[
            "./bin/sh",
            "/etc/passwd",
            ".hidden",
            "usr/lib/modules/6.1.0",
        ]);
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&main).unwrap();
        let mut initrd = early;
        initrd.resize(1024, 0);
        initrd.extend(packer.finish().unwrap());
        let packed = |name: &str| (Part::Packed, name.to_owned());
        let early = "kernel/x86/microcode/GenuineIntel.bin".to_owned();
        assert_eq!(
            found(&initrd),
            [
                (Part::Plain, early),
                packed("bin/sh"),
                packed("etc/passwd"),
                packed(".hidden"),
                packed("usr/lib/modules/6.1.0"),
            ]
        );
        assert_eq!(found(&[0; 16]), []);
        assert!(names(b"no archive", 1 << 20, |_, _| {}).is_err());
    }

    /// Such an entry is passed over, and what follows is read.
    #[test]
    fn names_that_linux_does_not_take() {
        let long = "x".repeat(NAME_MAX);
        assert_eq!(found(&cpio(&[&long, "a"])), [(Part::Plain, "a".to_owned())]);
        let longest = "x".repeat(NAME_MAX - 1);
        assert_eq!(found(&cpio(&[&longest])), [(Part::Plain, longest)]);
        let mut unended = cpio(&["abc", "d"]);
        assert_eq!(unended[HEADER + 3], 0);
        unended[HEADER + 3] = b'!';
        assert_eq!(found(&unended), [(Part::Plain, "d".to_owned())]);
    }

    #[test]
    fn pieces_of_any_size_give_the_same_names() {
        let bytes = [cpio(&["a", "bc", "def/ghi"]), vec![0; 9], cpio(&["x"])].concat();
        for size in 1..bytes.len() {
            let mut archive = Archive::default();
            let mut all = Vec::new();
            for piece in bytes.chunks(size) {
                archive.take(piece, |name| all.push(name.to_vec()));
            }
            assert_eq!(all, [&b"a"[..], b"bc", b"def/ghi", b"x"], "{size}");
        }
    }

    #[test]
    fn what_is_no_header_ends_it() {
        let mut bytes = cpio(&["a"]);
        bytes.extend([b'7'; 300]);
        let mut archive = Archive::default();
        let mut count = 0;
        archive.take(&bytes, |_| count += 1);
        assert_eq!((count, archive.is_lost), (1, true));
    }
}
