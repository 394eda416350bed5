//! Several initrds as one stream, without copying them.

use std::borrow::Cow;

use crate::base::PAGE_SIZE;

/// Every initrd is padded to this, bytes: the unpacker looks for the next
/// archive at a multiple of 4 (init/initramfs.c,
/// Documentation/driver-api/early-userspace/buffer-format.rst).
pub const INITRD_PAD: usize = 4;

/// Size of the stream that `files` make, bytes.
#[must_use]
pub fn stream_size(files: &[&[u8]]) -> u64 {
    files
        .iter()
        .map(|file| file.len().next_multiple_of(INITRD_PAD) as u64)
        .sum()
}

/// Cuts the stream into parts that start on pages: whole pages of a file stay
/// where they are mapped, a page that two files share is copied. When that
/// makes more than `limit` parts, the stream is copied as a whole.
///
/// The parts lie one behind the other; only the last may end inside a page.
#[must_use]
pub fn parts<'a>(files: &[&'a [u8]], limit: usize) -> Vec<Cow<'a, [u8]>> {
    let page = usize::try_from(PAGE_SIZE).unwrap_or(4096);
    let mut parts: Vec<Cow<'a, [u8]>> = Vec::new();
    let mut shared: Vec<u8> = Vec::new();
    for (index, file) in files.iter().enumerate() {
        let is_last = index + 1 == files.len();
        let mut rest = *file;
        if !shared.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(page - shared.len()));
            shared.extend_from_slice(head);
            rest = tail;
            if shared.len() == page {
                parts.push(Cow::Owned(std::mem::take(&mut shared)));
            }
        }
        let whole = if is_last {
            rest.len()
        } else {
            rest.len() - rest.len() % page
        };
        let (pages, tail) = rest.split_at(if shared.is_empty() { whole } else { 0 });
        if !pages.is_empty() {
            parts.push(Cow::Borrowed(pages));
        }
        // The last file's padding is the zeroed end of its page.
        shared.extend_from_slice(tail);
        if !is_last {
            let padding = file.len().next_multiple_of(INITRD_PAD) - file.len();
            shared.resize(shared.len() + padding, 0);
            if shared.len() == page {
                parts.push(Cow::Owned(std::mem::take(&mut shared)));
            }
        }
    }
    if !shared.is_empty() {
        parts.push(Cow::Owned(shared));
    }
    if parts.len() > limit {
        parts = vec![Cow::Owned(
            parts.iter().flat_map(|part| part.iter().copied()).collect(),
        )];
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive(files: &[&[u8]]) -> Vec<u8> {
        let mut stream = Vec::new();
        for file in files {
            stream.resize(stream.len().next_multiple_of(INITRD_PAD), 0);
            stream.extend_from_slice(file);
        }
        stream
    }

    proptest! {
        #[test]
        fn parts_are_the_stream(
            sizes in proptest::collection::vec(prop_oneof![0usize..20, 4080usize..4110, 8180usize..8200], 1..8),
            limit in 1usize..20,
        ) {
            let files: Vec<Vec<u8>> =
                sizes.iter().zip(1u8..).map(|(size, fill)| vec![fill; *size]).collect();
            let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
            let parts = parts(&files, limit);
            prop_assert!(parts.len() <= limit);
            for part in parts.iter().rev().skip(1) {
                prop_assert_eq!(part.len() % 4096, 0);
            }
            let stream = parts.concat();
            prop_assert_eq!(&stream, &naive(&files));
            prop_assert_eq!(stream.len().next_multiple_of(INITRD_PAD) as u64, stream_size(&files));
        }
    }

    #[test]
    fn one_file_is_not_copied() {
        let file = vec![1; 10_001];
        assert!(matches!(parts(&[&file], 12)[..], [Cow::Borrowed(part)] if part.len() == 10_001));
    }

    #[test]
    fn large_files_share_one_copied_page() {
        let (a, b) = (vec![1; 5000], vec![2; 9000]);
        let parts = parts(&[&a, &b], 12);
        assert!(matches!(
            parts[..],
            [Cow::Borrowed(_), Cow::Owned(_), Cow::Borrowed(_)]
        ));
    }
}
