//! Kernel files: what they are, and what a loader must know of them.

pub mod bzimage;
pub mod decompress;
pub mod ikconfig;
pub mod initramfs;
pub mod signature;

pub use bzimage::BzImage;

/// A kernel file, by format.
#[derive(Debug, Clone)]
pub enum Image<'a> {
    /// x86 bzImage with a 64-bit entry.
    BzImage(BzImage<'a>),
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
    #[error("malformed bzImage: {0}")]
    Malformed(String),
}

/// Formats that are told by their first bytes, for the message that says what
/// a file is when it is no bzImage. Packed ones are known to [`decompress`].
const MAGICS: [(&[u8], &str); 3] = [
    (b"\x7fELF", "an ELF file (vmlinux?); a bzImage is needed"),
    (b"070701", "a cpio archive (an initrd?)"),
    (b"\xd0\x0d\xfe\xed", "a device tree blob"),
];

/// Finds out what `file` is.
///
/// # Errors
/// When it is no kernel, one of a kind that cannot be loaded, or damaged.
pub fn probe(file: &[u8]) -> Result<Image<'_>, ImageError> {
    if let Some(image) = BzImage::parse(file)? {
        return Ok(Image::BzImage(image));
    }
    if let Some((_, what)) = MAGICS.iter().find(|(magic, _)| file.starts_with(magic)) {
        return Err(ImageError::NotAKernel(format!("this is {what}")));
    }
    if let Some(compression) = decompress::compression(file) {
        let what = format!("this is {} data; unpack it first", compression.name());
        return Err(ImageError::NotAKernel(what));
    }
    if file.get(0x38..0x3c) == Some(b"ARM\x64") {
        return Err(ImageError::Unsupported(
            "an arm64 Image: this program loads x86_64 kernels".to_owned(),
        ));
    }
    if file.starts_with(b"MZ") {
        return Err(ImageError::NotAKernel(pe_kind(file)));
    }
    let what = format!("no boot sector with \"HdrS\" in its {} bytes", file.len());
    Err(ImageError::NotAKernel(what))
}

/// What a PE file without a Linux boot sector is.
fn pe_kind(file: &[u8]) -> String {
    let is_uki = goblin::pe::PE::parse(file).is_ok_and(|pe| {
        pe.sections
            .iter()
            .any(|section| section.name().is_ok_and(|name| name == ".linux"))
    });
    if is_uki {
        "this is a unified kernel image (UKI); pass the kernel, the initrd and the command line inside it".to_owned()
    } else {
        "this is a PE file without a Linux boot sector".to_owned()
    }
}
