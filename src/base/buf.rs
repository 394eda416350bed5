//! Bytes that go into memory.

use std::borrow::Cow;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes of a file, or bytes that the loader made. Copies of it share the bytes.
#[derive(Clone)]
pub struct Buf<'a>(Kind<'a>);

#[derive(Clone)]
enum Kind<'a> {
    File(&'a [u8]),
    Made(Arc<Vec<u8>>, Range<usize>),
}

impl Buf<'_> {
    /// The bytes of `made` in `range`, as far as they are there.
    #[must_use]
    pub fn part(made: &Arc<Vec<u8>>, range: Range<usize>) -> Self {
        Self(Kind::Made(Arc::clone(made), range))
    }
}

impl<'a> Buf<'a> {
    /// Its bytes in `range`, as far as they are there.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        match &self.0 {
            Kind::File(bytes) => {
                let end = range.end.min(bytes.len());
                let part: &'a [u8] = bytes.get(range.start..end).unwrap_or_default();
                part.into()
            }
            Kind::Made(made, own) => {
                let at = |offset: usize| own.start.saturating_add(offset).min(own.end);
                Self::part(made, at(range.start)..at(range.end))
            }
        }
    }
}

impl Deref for Buf<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Kind::File(bytes) => bytes,
            Kind::Made(made, range) => {
                let end = range.end.min(made.len());
                made.get(range.start..end).unwrap_or_default()
            }
        }
    }
}

impl<'a> From<&'a [u8]> for Buf<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Kind::File(bytes))
    }
}

impl From<Vec<u8>> for Buf<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self(Kind::Made(Arc::new(bytes), range))
    }
}

impl<'a> From<Cow<'a, [u8]>> for Buf<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        match bytes {
            Cow::Borrowed(bytes) => bytes.into(),
            Cow::Owned(bytes) => bytes.into(),
        }
    }
}

impl PartialEq for Buf<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Buf<'_> {}

impl fmt::Debug for Buf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_share_what_was_made_and_end_where_it_ends() {
        let made = Arc::new(b"kernel".to_vec());
        let part = Buf::part(&made, 1..3);
        assert_eq!(&*part, b"er");
        assert!(std::ptr::eq(&raw const part[0], &raw const made[1]));
        assert_eq!(&*Buf::part(&made, 4..9), b"el");
        assert!(Buf::part(&made, 7..9).is_empty());
        assert_eq!(part, Buf::from(&b"er"[..]));
        assert_eq!(part.clone(), Buf::from(b"er".to_vec()));
        assert_ne!(part, Buf::from(b"re".to_vec()));
    }

    #[test]
    fn slices_end_where_the_bytes_end() {
        let made = Buf::part(&Arc::new(b"a kernel".to_vec()), 2..8);
        for buf in [made, Buf::from(&b"kernel"[..])] {
            assert_eq!(&*buf.slice(1..3), b"er");
            assert_eq!(&*buf.slice(4..9), b"el");
            assert!(buf.slice(6..7).is_empty() && buf.slice(9..12).is_empty());
        }
    }
}
