//! Kernel files: what they are, and what a loader must know of them.

pub mod bzimage;
pub mod decompress;
pub mod ikconfig;
pub mod initramfs;
pub mod initrd_files;
pub mod label;
pub mod lanzaboote;
pub mod linux;
pub mod multiboot;
mod near;
mod packed;
mod pe;
mod relocations;
pub mod sections;
pub mod signature;
pub mod uki;
pub mod unpacked;
pub mod vmlinux;
pub mod whole;

pub use linux::LinuxKernel;
pub use multiboot::Multiboot;
pub use packed::Contents;
pub use uki::Uki;
pub use unpacked::Unpacked;

use decompress::{Compression, DecompressError};

/// A kernel file, by format.
#[derive(Debug, Clone)]
pub enum Image<'a> {
    /// Linux for x86.
    Linux(LinuxKernel<'a>),
    /// Another kernel, of a format that Xen and many small ones have.
    Multiboot(Multiboot<'a>),
}

impl<'a> Image<'a> {
    /// The kernel, if it is a Linux.
    #[must_use]
    pub const fn linux(&self) -> Option<&LinuxKernel<'a>> {
        match self {
            Self::Linux(kernel) => Some(kernel),
            Self::Multiboot(_) => None,
        }
    }

    /// What kexec_file_load is given; empty for what it does not take.
    #[must_use]
    pub fn file(&self) -> &'a [u8] {
        self.linux().map_or(&[], |linux| linux.file)
    }

    /// `uname -r` of the kernel, when its file tells.
    #[must_use]
    pub fn release(&self) -> Option<&'a str> {
        self.linux().and_then(LinuxKernel::release)
    }

    /// Memory that the kernel takes to start, bytes.
    #[must_use]
    pub fn memory_size(&self) -> u64 {
        match self {
            Self::Linux(kernel) => kernel.geometry.size,
            Self::Multiboot(kernel) => kernel.span.size(),
        }
    }
}

/// Why a file is not a kernel that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Nothing in it looks like a kernel.
    #[error("not a kernel image: {0}")]
    NotAKernel(String),
    /// It is a kernel of a kind that this program does not load.
    #[error("{0}")]
    Unsupported(String),
    /// It is a kernel image, and damaged.
    #[error("malformed {format}: {what}")]
    Malformed {
        /// The format.
        format: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// It is packed, and cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] DecompressError),
    /// The file inside of it is faulty.
    #[error("in {container}: {error}")]
    Inside {
        /// What it lies in.
        container: String,
        /// What is wrong with it.
        error: Box<ImageError>,
    },
    /// It only names the files of a kernel that lies elsewhere.
    #[error("{0}")]
    Lanzaboote(Box<lanzaboote::Stub>),
    /// It lacks the requested profile.
    #[error("no profile {wish}: {there}")]
    NoProfile {
        /// What was asked for.
        wish: String,
        /// What there is.
        there: String,
    },
}

/// A format by name. A file may be readable in several formats; this chooses one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wish {
    /// A bzImage.
    BzImage,
    /// A Linux in an ELF file.
    Vmlinux,
    /// Multiboot, version 1.
    Multiboot1,
    /// Multiboot, version 2.
    Multiboot2,
}

impl Wish {
    /// Reads `file` so. `None`: it is no file of this format.
    fn parse(self, file: &[u8]) -> Result<Option<Image<'_>>, ImageError> {
        let multiboot = |version| Ok(Multiboot::parse_as(file, version)?.map(Image::Multiboot));
        match self {
            Self::BzImage => Ok(bzimage::parse(file)?.map(Image::Linux)),
            Self::Vmlinux => Ok(vmlinux::parse(file)?.map(Image::Linux)),
            Self::Multiboot1 => multiboot(multiboot::Version::One),
            Self::Multiboot2 => multiboot(multiboot::Version::Two),
        }
    }
}

/// What a kernel file holds.
#[derive(Debug, Clone)]
pub struct Found<'a> {
    /// The kernel.
    pub image: Image<'a>,
    /// What lies around it, when that is a UKI: initrd, command line and more.
    pub uki: Option<Uki<'a>>,
}

/// Finds out what a file holds, and takes the kernel of `profile` where it is a UKI.
///
/// # Errors
/// When it is no kernel, one of a kind that cannot be loaded, or damaged; or
/// when there is no such profile.
pub fn open<'a>(
    contents: &'a Contents<'_>,
    profile: Option<&str>,
) -> Result<Found<'a>, ImageError> {
    open_as(contents, profile, None)
}

/// As [`open`], but reads a file in the format `wish` if it has several. A file without
/// that format is read in the one it has.
///
/// # Errors
/// As those of [`open`].
pub fn open_as<'a>(
    contents: &'a Contents<'_>,
    profile: Option<&str>,
    wish: Option<Wish>,
) -> Result<Found<'a>, ImageError> {
    let packed = contents.compression.map(Compression::name);
    let mut found = unpacked(contents.bytes(), profile, wish).map_err(|error| match packed {
        None => error,
        Some(name) => ImageError::Inside {
            container: format!("the {name} data"),
            error: Box::new(error),
        },
    })?;
    match &mut found.image {
        Image::Linux(kernel) => drop(kernel.around.splice(..0, packed)),
        Image::Multiboot(kernel) => kernel.packed = packed,
    }
    Ok(found)
}

fn unpacked<'a>(
    bytes: &'a [u8],
    profile: Option<&str>,
    wish: Option<Wish>,
) -> Result<Found<'a>, ImageError> {
    if let (None, Some(wish)) = (profile, wish)
        && let Some(image) = wish.parse(bytes)?
    {
        return Ok(Found { image, uki: None });
    }
    // A bzImage is a PE file as well, and never a UKI.
    let mut uki = match bzimage::parse(bytes) {
        Ok(None) => match lanzaboote::Stub::parse(bytes) {
            Some(stub) => return Err(stub.into()),
            None => Uki::parse(bytes)?,
        },
        _ => None,
    };
    if let Some(wish) = profile {
        uki = match uki {
            Some(uki) => Some(uki.choose(wish)?),
            None => {
                return Err(ImageError::NoProfile {
                    wish: wish.to_owned(),
                    there: "only a UKI has profiles".to_owned(),
                });
            }
        };
    }
    let image = match &uki {
        Some(uki) => Image::Linux(uki.kernel()?),
        None => probe(bytes)?,
    };
    Ok(Found { image, uki })
}

/// Finds out which kernel `file` is, when it is one without anything around it.
///
/// # Errors
/// When it is no kernel, one of a kind that cannot be loaded, or damaged.
pub fn probe(file: &[u8]) -> Result<Image<'_>, ImageError> {
    if let Some(image) = bzimage::parse(file)? {
        return Ok(Image::Linux(image));
    }
    if let Some(image) = Multiboot::parse(file)? {
        return Ok(Image::Multiboot(image));
    }
    if let Some(image) = vmlinux::parse(file)? {
        return Ok(Image::Linux(image));
    }
    Err(near::miss(file))
}
