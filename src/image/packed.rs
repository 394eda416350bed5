//! Kernel files that are packed as a whole: `vmlinux.gz`, `xen.gz`, `Image.zst`.

use std::borrow::Cow;

use super::ImageError;
use super::decompress::{self, Compression, DEFAULT_CAP};

/// What lies in a kernel file: its bytes, or what they unpack to, in memory.
#[derive(Debug, Clone)]
pub struct Contents<'a> {
    /// How the file is packed.
    pub compression: Option<Compression>,
    bytes: Cow<'a, [u8]>,
}

impl<'a> Contents<'a> {
    /// Unpacks `file` when it begins as a packed file does; to at most
    /// [`DEFAULT_CAP`] bytes. What follows the first stream is ignored.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub fn of(file: &'a [u8]) -> Result<Self, ImageError> {
        let compression = decompress::compression(file);
        let bytes = match compression {
            None => Cow::Borrowed(file),
            Some(_) => Cow::Owned(decompress::decompress(file, DEFAULT_CAP)?),
        };
        Ok(Self { compression, bytes })
    }

    /// The bytes to look at.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
