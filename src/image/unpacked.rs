//! The kernel inside of a file, unpacked by the loader: it goes into memory without the
//! kernel's own unpacker.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::decompress::DecompressError;
use super::linux::{Geometry, LinuxKernel, Load};
use super::relocations::{RelocationError, Relocations};
use super::{ImageError, vmlinux};
use crate::base::Buf;

/// Why the loader cannot place the kernel of a file itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnpackedError {
    /// The file does not tell where the kernel is.
    #[error("the file has no packed kernel inside")]
    NoPayload,
    /// It cannot be unpacked.
    #[error("the kernel inside of the file: {0}")]
    Unpack(#[from] DecompressError),
    /// It unpacks to something else.
    #[error("what the file unpacks to is no Linux kernel in an ELF file")]
    NoKernel,
    /// It unpacks to a kernel that is damaged.
    #[error("the kernel inside of the file: {0}")]
    Malformed(#[from] ImageError),
    /// Its relocation lists are damaged.
    #[error("the kernel inside of the file: {0}")]
    Relocations(#[from] RelocationError),
    /// It is of another version than the file says.
    #[error("the file is Linux {file}, and the kernel inside of it {inside}")]
    Version {
        /// What the file says.
        file: String,
        /// What the kernel inside says.
        inside: String,
    },
}

impl UnpackedError {
    /// Whether the kernel's own unpacker must fail as well.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Unpack(DecompressError::Malformed { .. } | DecompressError::Size { .. })
        )
    }
}

/// An unpacked kernel, checked.
#[derive(Debug)]
pub struct Unpacked<'a> {
    bytes: Cow<'a, [u8]>,
    /// What is loaded: bytes from where the kernel is placed, and where it is in `bytes`.
    loads: Vec<(u64, Range<usize>)>,
    /// The entry point, bytes from where the kernel is placed.
    entry: u64,
    geometry: Geometry,
    relocations: Option<Relocations>,
}

impl<'a> Unpacked<'a> {
    /// Unpacks the kernel in the file of `kernel`, where it is packed. This takes as much
    /// memory as the kernel has bytes, and the dictionary of its compression.
    ///
    /// # Errors
    /// When there is no such kernel, or it is damaged.
    pub fn of(kernel: &LinuxKernel<'a>) -> Result<Self, UnpackedError> {
        if kernel.payload.is_empty() {
            return Err(UnpackedError::NoPayload);
        }
        Self::read(kernel.unpacked()?, kernel)
    }

    /// The same of `bytes`, to which the kernel in the file of `kernel` was unpacked.
    ///
    /// # Errors
    /// As those of [`Self::of`].
    pub fn read(bytes: Cow<'a, [u8]>, kernel: &LinuxKernel<'_>) -> Result<Self, UnpackedError> {
        let outline = vmlinux::outline(&bytes)?.ok_or(UnpackedError::NoKernel)?;
        let inside = outline.version.split_ascii_whitespace().next();
        if let (Some(file), Some(inside)) = (kernel.release(), inside)
            && file != inside
        {
            let (file, inside) = (file.to_owned(), inside.to_owned());
            return Err(UnpackedError::Version { file, inside });
        }
        let relocations = Relocations::find(&bytes, &outline)?;
        let geometry = Geometry {
            size: outline.size,
            align: kernel.geometry.align.max(vmlinux::ALIGNMENT),
            floor: outline.base,
            fixed: kernel.geometry.fixed,
        };
        let (loads, entry) = (outline.loads, outline.entry);
        Ok(Self {
            bytes,
            loads,
            entry,
            geometry,
            relocations,
        })
    }

    /// Whether it can run at another virtual address than the one that it is linked for.
    #[must_use]
    pub const fn is_relocatable(&self) -> bool {
        self.relocations.is_some()
    }

    /// Which place it needs. It is linked for the lowest address of it, and its virtual
    /// address lies as far above the kernel's mapping.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Has it run `delta` bytes above the virtual address that it is linked for, where
    /// it is relocatable. A kernel that was not packed is copied for this.
    pub fn relocate(&mut self, delta: u64) {
        if let Some(relocations) = &self.relocations {
            relocations.apply(self.bytes.to_mut(), delta);
        }
    }

    /// The kernel as it goes into memory. All else is as `file` says, where it came from.
    #[must_use]
    pub fn into_kernel(self, file: &LinuxKernel<'a>) -> LinuxKernel<'a> {
        let part: Box<dyn Fn(Range<usize>) -> Buf<'a>> = match self.bytes {
            Cow::Borrowed(bytes) => Box::new(|range| bytes.get(range).unwrap_or_default().into()),
            Cow::Owned(bytes) => {
                let bytes = Arc::new(bytes);
                Box::new(move |range| Buf::part(&bytes, range))
            }
        };
        let loads = self.loads.into_iter().map(|(offset, range)| Load {
            offset,
            bytes: part(range),
        });
        LinuxKernel {
            loads: loads.collect(),
            geometry: self.geometry,
            entry: self.entry,
            ..file.clone()
        }
    }
}

#[cfg(test)]
#[path = "unpacked_tests.rs"]
mod tests;
