//! The pages that the next kernel preserves, as segments.
//!
//! A large file is loaded from where it is mapped: its pages are a segment of their own.
//! Everything else is copied together, because a load has few segments.

use std::collections::BTreeSet;

use super::{Role, Segment};
use crate::base::{Buf, PAGE_BYTES, PAGE_SIZE, PhysRange};
use crate::kho::Encoded;

/// Smaller files are copied, bytes: that costs less than the search for a segment.
const LARGE: usize = 1 << 20;
/// Pages side by side that come from one place.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Physical address.
    start: u64,
    /// How many.
    pages: usize,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Pages that the encoder made, from this one on.
    Made(usize),
    /// A file, from this byte on.
    File(usize, usize),
}

impl Extent {
    fn end(&self) -> u64 {
        self.start + self.pages as u64 * PAGE_SIZE
    }

    /// Takes `next` in if it goes on where this one ends.
    fn joins(&mut self, next: &Self) -> bool {
        let goes_on = match (self.source, next.source) {
            (Source::Made(first), Source::Made(at)) => first + self.pages == at,
            (Source::File(file, first), Source::File(other, at)) => {
                file == other && first + self.pages * PAGE_BYTES == at
            }
            _ => false,
        };
        let joins = goes_on && self.end() == next.start;
        if joins {
            self.pages += next.pages;
        }
        joins
    }
}

/// The segments for what is `encoded`, at most `most`, in address order. `files` are those
/// of its one session. `None`: the memory for it lies in more than `most` pieces.
#[must_use]
pub fn preserved<'a>(
    mut encoded: Encoded,
    files: &[Buf<'a>],
    most: usize,
    rule: &str,
) -> Option<Vec<Segment<'a>>> {
    encoded.pages.sort_by_key(|(page, _)| *page);
    let extents = extents(&encoded);
    let mut mapped = BTreeSet::new();
    if runs(&extents, &mapped) > most {
        return None;
    }
    let mut large: Vec<(usize, usize)> = files
        .iter()
        .enumerate()
        .map(|(file, bytes)| (bytes.len(), file))
        .filter(|(size, _)| *size >= LARGE)
        .collect();
    large.sort_unstable_by(|one, two| two.cmp(one));
    for (_, file) in large {
        mapped.insert(file);
        if runs(&extents, &mapped) > most {
            mapped.remove(&file);
        }
    }
    Some(segments(&extents, &mapped, &encoded, files, rule))
}

/// The pages in address order, joined.
fn extents(encoded: &Encoded) -> Vec<Extent> {
    let made = encoded.pages.iter().enumerate();
    let made = made.map(|(number, (page, _))| (*page, Source::Made(number)));
    let of_files = encoded.contents.iter().filter_map(|content| {
        let offset = usize::try_from(content.offset).ok()?;
        Some((content.page, Source::File(content.file, offset)))
    });
    let mut pages: Vec<(u64, Source)> = made.chain(of_files).collect();
    pages.sort_unstable_by_key(|(page, _)| *page);
    let mut extents: Vec<Extent> = Vec::new();
    for (start, source) in pages {
        let next = Extent {
            start,
            pages: 1,
            source,
        };
        if !extents.last_mut().is_some_and(|last| last.joins(&next)) {
            extents.push(next);
        }
    }
    extents
}

/// Whether the extent is loaded from where its file is mapped.
fn is_mapped(extent: &Extent, mapped: &BTreeSet<usize>) -> bool {
    matches!(extent.source, Source::File(file, _) if mapped.contains(&file))
}

/// How many segments there are when the files `mapped` are not copied.
fn runs(extents: &[Extent], mapped: &BTreeSet<usize>) -> usize {
    let mut count = 0;
    let mut copied_to = None;
    for extent in extents {
        let is_mapped = is_mapped(extent, mapped);
        if is_mapped || copied_to != Some(extent.start) {
            count += 1;
        }
        copied_to = (!is_mapped).then(|| extent.end());
    }
    count
}

fn segments<'a>(
    extents: &[Extent],
    mapped: &BTreeSet<usize>,
    encoded: &Encoded,
    files: &[Buf<'a>],
    rule: &str,
) -> Vec<Segment<'a>> {
    let mut segments = Vec::new();
    let mut copy: (u64, Vec<u8>) = (0, Vec::new());
    let mut push = |start: u64, buf: Buf<'a>, size: u64| {
        if let Ok(mem) = PhysRange::new(start, size) {
            segments.push(Segment {
                role: Role::Preserved,
                buf,
                mem,
                rule: rule.to_owned(),
            });
        }
    };
    for extent in extents {
        let is_mapped = is_mapped(extent, mapped);
        let (start, bytes) = &mut copy;
        let size = bytes.len() as u64;
        if size > 0 && (is_mapped || *start + size != extent.start) {
            push(*start, std::mem::take(bytes).into(), size);
        }
        match extent.source {
            Source::File(file, offset) if is_mapped => {
                let part = part(files, file, offset, extent.pages * PAGE_BYTES);
                push(extent.start, part, extent.end() - extent.start);
                continue;
            }
            _ if bytes.is_empty() => *start = extent.start,
            _ => {}
        }
        let end = bytes.len() + extent.pages * PAGE_BYTES;
        match extent.source {
            Source::File(file, offset) => {
                bytes.extend_from_slice(&part(files, file, offset, extent.pages * PAGE_BYTES));
            }
            Source::Made(first) => {
                for (_, page) in encoded.pages.iter().skip(first).take(extent.pages) {
                    bytes.extend_from_slice(page);
                    bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
                }
            }
        }
        // The rest of a file's last page is zero.
        bytes.resize(end, 0);
    }
    let (start, bytes) = copy;
    let size = bytes.len() as u64;
    if size > 0 {
        push(start, bytes.into(), size);
    }
    segments
}

/// At most `size` bytes of a file from `offset` on.
fn part<'a>(files: &[Buf<'a>], file: usize, offset: usize, size: usize) -> Buf<'a> {
    let file = files.get(file);
    file.map_or_else(
        || Vec::new().into(),
        |file| file.slice(offset..offset.saturating_add(size)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kho::{File, Name, Session, State, encode};

    /// Files of these sizes, and what is encoded of them into `pages`.
    fn encoded(sizes: &[usize], pages: impl Iterator<Item = u64>) -> (Vec<Vec<u8>>, Encoded) {
        let files: Vec<Vec<u8>> = sizes.iter().map(|size| vec![0xa5; *size]).collect();
        let of_session = sizes.iter().zip(0..);
        let of_session = of_session.map(|(size, token)| File {
            token,
            size: *size as u64,
        });
        let state = State {
            sessions: vec![Session {
                name: Name::new("s").unwrap(),
                files: of_session.collect(),
            }],
            ..State::default()
        };
        let encoded = encode(&state, pages).unwrap();
        (files, encoded)
    }

    /// The segments in memory, byte by byte.
    fn memory(segments: &[Segment<'_>]) -> Vec<(u64, Vec<u8>)> {
        let pages = segments.iter().flat_map(|segment| {
            let mut bytes = segment.buf.to_vec();
            bytes.resize(usize::try_from(segment.mem.size()).unwrap(), 0);
            let pages: Vec<Vec<u8>> = bytes.chunks(PAGE_BYTES).map(<[u8]>::to_vec).collect();
            (segment.mem.start()..).step_by(PAGE_BYTES).zip(pages)
        });
        pages.collect()
    }

    #[test]
    fn as_few_segments_as_there_may_be_hold_the_same_bytes() {
        let piece = |start: u64, pages: u64| (start..start + pages * PAGE_SIZE).step_by(PAGE_BYTES);
        // The second file lies in two pieces.
        let pages = || piece(1 << 30, 700).chain(piece(1 << 32, 10_000));
        let sizes = [5000, (2 << 20) + 5, 100, 5 << 20, 0];
        let (files, encoded) = encoded(&sizes, pages());
        let files: Vec<Buf<'_>> = files.iter().map(|file| Buf::from(&**file)).collect();
        let with = |most| preserved(encoded.clone(), &files, most, "");
        assert!(with(1).is_none());
        let copied = with(2).unwrap();
        assert_eq!(copied.len(), 2);
        for most in 3..16 {
            let segments = with(most).unwrap();
            assert!(segments.len() <= most);
            assert!(memory(&segments) == memory(&copied), "{most}");
        }
        // The large ones are not copied, however many pieces they lie in.
        let all = with(16).unwrap();
        let mapped = all.iter().filter(|segment| {
            let bytes = segment.buf.as_ptr_range();
            files
                .iter()
                .any(|file| file.as_ptr_range().contains(&bytes.start))
        });
        let mapped: usize = mapped.map(|segment| segment.buf.len()).sum();
        assert_eq!(mapped, (7 << 20) + 5);
        // Behind the end of a file are zeroes.
        let of_files = memory(&all)
            .iter()
            .flat_map(|(_, page)| page.clone())
            .filter(|byte| *byte == 0xa5)
            .count();
        assert!(of_files >= sizes.iter().sum());
    }
}
