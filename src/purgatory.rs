//! The purgatory image: embeds it, fills its parameter block, and computes the
//! digests that it will check. The contract is in `purgatory/README.md`.

use std::mem::offset_of;

use crate::base::PhysRange;
use crate::carry::stamps::ExecUnknown;

#[path = "../purgatory/abi.rs"]
mod abi;

include!(concat!(env!("OUT_DIR"), "/purgatory.rs"));

pub use crate::sys::digest::{Digest, digest};
pub use abi::{Evidence, Fault, MAX_REGIONS};

/// Offset of the entry point from the start of the image, in bytes.
pub const ENTRY: u64 = ENTRY_OFFSET;
/// Offset of `extern "C" fn(*mut Evidence) -> u32` from the start of the image,
/// in bytes: what the purgatory runs before the jump. 0 is "all is well", the
/// rest is [`Fault`]. It executes no privileged instruction, so that tests and
/// benchmarks can call it.
pub const VERIFY: u64 = VERIFY_OFFSET;
/// Offset of `extern "C" fn(u64)` from the start of the image, in bytes: what the
/// purgatory runs after the check, with the time of its entry. It leaves the time stamps
/// that a [`Request`] wants, and executes no privileged instruction.
pub const STAMP: u64 = STAMP_OFFSET;

/// In which state of the CPU the next kernel is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Long mode, as Linux wants it: RSI holds the argument.
    Long,
    /// 32-bit protected mode without paging, as the 32-bit entry of Linux wants it:
    /// ESI holds the argument. The image itself must lie below 4 GiB, too.
    Protected,
    /// The same mode as Multiboot wants it: EBX holds the argument.
    Multiboot {
        /// What EAX holds.
        eax: u32,
    },
}

/// What the purgatory is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Entry point of the next kernel, physical.
    pub entry: u64,
    /// What a register holds at the entry: the physical address of the kernel's first
    /// table.
    pub argument: u64,
    /// In which state the kernel is entered.
    pub mode: Mode,
    /// First I/O port of a 16550 to print failures on.
    pub serial_port: Option<u16>,
    /// Check the digests before the jump.
    pub verify: bool,
    /// Where to leave the time stamps ([`crate::carry::stamps`]), physical; `None`: the
    /// time stamp counter is not read.
    pub stamps: Option<u64>,
}

/// The page in which `exec` leaves its stamp for purgatory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecPlace {
    /// Its physical address.
    pub address: u64,
    /// The number that says that it belongs to the loaded image.
    pub nonce: u64,
}

/// Why there is no image for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// More regions than the parameter block holds.
    #[error("purgatory can verify {MAX_REGIONS} segments, but the plan has {0}")]
    TooManyRegions(usize),
    /// A region at the null address.
    #[error("purgatory cannot verify a segment at physical address 0 ({0:?})")]
    AddressZero(PhysRange),
    /// Protected mode does not reach it.
    #[error("purgatory cannot reach {0:#x} from 32-bit protected mode")]
    AboveFourGib(u64),
}

/// Bytes the image takes in memory with its stack, a multiple of the page size.
#[must_use]
pub const fn size() -> u64 {
    MEMORY_SIZE
}

/// The image for `request`, to be placed on any page boundary with its memory
/// beyond these bytes zeroed up to [`size`].
///
/// Every region of `digests` is verified, in this order, when the request says
/// so; [`digest`] makes a digest. The image itself is not to be among them: it
/// changes itself when it starts.
///
/// # Errors
/// When a region cannot be verified.
pub fn image(request: &Request, digests: &[(PhysRange, Digest)]) -> Result<Vec<u8>, ImageError> {
    if digests.len() > MAX_REGIONS {
        return Err(ImageError::TooManyRegions(digests.len()));
    }
    if let Some((range, _)) = digests.iter().find(|(range, _)| range.start() == 0) {
        return Err(ImageError::AddressZero(*range));
    }
    let high = above_four_gib(request).filter(|_| request.mode != Mode::Long);
    if let Some(high) = high {
        return Err(ImageError::AboveFourGib(high));
    }
    let mut image = block(request, digests);
    image.extend_from_slice(IMAGE.get(image.len()..).unwrap_or_default());
    Ok(image)
}

/// Whether `image`, which [`image()`] made, leaves time stamps.
#[must_use]
pub fn leaves_stamps(image: &[u8]) -> bool {
    let field = image.get(offset_of!(abi::Params, stamps)..);
    field
        .and_then(<[u8]>::first_chunk)
        .is_some_and(|address| u64::from_le_bytes(*address) != 0)
}

/// `image` with the place where `exec` leaves its stamp, or the reason why there is none.
#[must_use]
pub fn with_exec_place(image: &[u8], place: Result<ExecPlace, ExecUnknown>) -> Vec<u8> {
    let mut image = image.to_vec();
    let mut put = |offset: usize, bytes: &[u8]| {
        if let Some(field) = image.get_mut(offset..offset + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    match place {
        Ok(ExecPlace { address, nonce }) => {
            put(offset_of!(abi::Params, exec_page), &address.to_le_bytes());
            put(offset_of!(abi::Params, nonce), &nonce.to_le_bytes());
        }
        Err(why) => {
            let number = why.number().to_le_bytes();
            put(offset_of!(abi::Params, exec_unknown), &number);
        }
    }
    image
}

/// The address in the request that 32 bits do not hold.
fn above_four_gib(request: &Request) -> Option<u64> {
    [request.entry, request.argument]
        .into_iter()
        .find(|address| u32::try_from(*address).is_err())
}

/// The parameter block, field by field as `abi::Params` has them.
fn block(request: &Request, digests: &[(PhysRange, Digest)]) -> Vec<u8> {
    let (protected_mode, multiboot) = match request.mode {
        Mode::Long => (false, None),
        Mode::Protected => (true, None),
        Mode::Multiboot { eax } => (true, Some(eax)),
    };
    let eax = multiboot.unwrap_or(0);
    let mut flags = 0;
    for (flag, wanted) in [
        (abi::FLAG_VERIFY, request.verify),
        (abi::FLAG_SERIAL, request.serial_port.is_some()),
        (abi::FLAG_PROTECTED_MODE, protected_mode),
        (abi::FLAG_EBX, multiboot.is_some()),
    ] {
        if wanted {
            flags |= flag;
        }
    }
    let count = u32::try_from(digests.len()).unwrap_or(u32::MAX);
    let mut block = Vec::with_capacity(IMAGE.len());
    block.extend(abi::MAGIC.to_le_bytes());
    block.extend(abi::ABI_VERSION.to_le_bytes());
    block.extend(flags.to_le_bytes());
    block.extend(request.entry.to_le_bytes());
    block.extend(request.argument.to_le_bytes());
    block.extend(request.serial_port.unwrap_or(0).to_le_bytes());
    block.extend(0_u16.to_le_bytes());
    block.extend(count.to_le_bytes());
    block.extend(eax.to_le_bytes());
    block.extend(0_u32.to_le_bytes());
    for (range, digest) in digests {
        block.extend(range.start().to_le_bytes());
        block.extend(range.size().to_le_bytes());
        block.extend(digest);
    }
    block.resize(offset_of!(abi::Params, stamps), 0);
    block.extend(request.stamps.unwrap_or(0).to_le_bytes());
    block.resize(size_of::<abi::Params>(), 0);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            entry: 0x1_0020_0200,
            argument: 0x9_0000,
            mode: Mode::Long,
            serial_port: Some(0x2f8),
            verify: true,
            stamps: None,
        }
    }

    #[test]
    fn the_place_of_the_stamps_and_of_the_exec_page() {
        let plain = image(&request(), &[]).unwrap();
        assert!(!leaves_stamps(&plain) && !leaves_stamps(&[]));
        let stamps = Some(0x1_2345_6010);
        let wanted = Request {
            stamps,
            ..request()
        };
        let range = PhysRange::new(0x1234_5000, 0x6000).unwrap();
        let bytes = image(&wanted, &[(range, [7; 8]); MAX_REGIONS]).unwrap();
        assert!(leaves_stamps(&bytes));
        let u64_at = |bytes: &[u8], at: usize| -> u64 {
            u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
        };
        // As purgatory/README.md has them.
        assert_eq!(u64_at(&bytes, 432), 0x1_2345_6010);
        assert_eq!((u64_at(&bytes, 440), u64_at(&bytes, 448)), (0, 0));
        let place = ExecPlace {
            address: 0xabc_d000,
            nonce: 77,
        };
        let with = with_exec_place(&bytes, Ok(place));
        assert_eq!((u64_at(&with, 440), u64_at(&with, 448)), (0xabc_d000, 77));
        assert_eq!(with[..440], bytes[..440]);
        assert_eq!(with[456..], bytes[456..]);
        let without = with_exec_place(&bytes, Err(ExecUnknown::NoAddress));
        assert_eq!(without[44..48], 4_u32.to_le_bytes());
        assert_eq!(u64_at(&without, 440), 0);
    }

    #[test]
    fn the_block_is_as_the_purgatory_reads_it() {
        use std::mem::offset_of;
        let range = PhysRange::new(0x1234_5000, 0x6000).unwrap();
        let image = image(&request(), &[(range, [7; 8])]).unwrap();
        let u64_at = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
        let u32_at = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap());
        assert_eq!(&image[..8], b"RKXPURG1");
        assert_eq!(u32_at(offset_of!(abi::Params, version)), abi::ABI_VERSION);
        assert_eq!(u32_at(offset_of!(abi::Params, flags)), 5);
        assert_eq!(u64_at(offset_of!(abi::Params, entry)), 0x1_0020_0200);
        assert_eq!(u64_at(offset_of!(abi::Params, boot_params)), 0x9_0000);
        assert_eq!(u32_at(offset_of!(abi::Params, serial_port)), 0x2f8);
        assert_eq!(u32_at(offset_of!(abi::Params, region_count)), 1);
        assert_eq!(u32_at(offset_of!(abi::Params, eax)), 0);
        let region = offset_of!(abi::Params, regions);
        assert_eq!(u64_at(region), 0x1234_5000);
        assert_eq!(u64_at(region + 8), 0x6000);
        assert_eq!(image[region + 16..region + 24], [7; 8]);
        assert_eq!(u64_at(region + size_of::<abi::Region>()), 0);
    }

    #[test]
    fn protected_mode_reaches_what_32_bits_hold() {
        use std::mem::offset_of;
        let mode = Mode::Multiboot { eax: 0x2bad_b002 };
        let entry = 0x10_000c;
        let low = Request {
            entry,
            mode,
            ..request()
        };
        let bytes = image(&low, &[]).unwrap();
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(u32_at(offset_of!(abi::Params, flags)), 29);
        assert_eq!(u32_at(offset_of!(abi::Params, eax)), 0x2bad_b002);
        let linux = Request {
            mode: Mode::Protected,
            ..low
        };
        let bytes = image(&linux, &[]).unwrap();
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(u32_at(offset_of!(abi::Params, flags)), 13);
        assert_eq!(u32_at(offset_of!(abi::Params, eax)), 0);
        let high = 1 << 32;
        for request in [
            Request { entry: high, ..low },
            Request {
                entry: high,
                ..linux
            },
            Request {
                argument: high,
                ..low
            },
        ] {
            let refused = Err(ImageError::AboveFourGib(high));
            assert_eq!(image(&request, &[]), refused);
        }
    }

    #[test]
    fn the_image_has_its_code_and_its_stack() {
        let image = image(&request(), &[]).unwrap();
        assert_eq!(image.len(), IMAGE.len());
        let length = u64::try_from(image.len()).unwrap();
        assert!(size() >= length + 8192 && size().is_multiple_of(4096));
        for offset in [ENTRY, VERIFY] {
            let block = u64::try_from(size_of::<abi::Params>()).unwrap();
            assert!((block..length).contains(&offset), "{offset:#x}");
        }
        // cli; cld
        let entry = usize::try_from(ENTRY).unwrap();
        assert_eq!(image[entry..entry + 2], [0xfa, 0xfc]);
    }

    #[test]
    fn what_the_block_cannot_say_is_refused() {
        let range = PhysRange::new(0x1000, 1).unwrap();
        let full = [(range, [0; 8]); MAX_REGIONS];
        assert!(image(&request(), &full).is_ok());
        let over = [(range, [0; 8]); MAX_REGIONS + 1];
        assert_eq!(
            image(&request(), &over),
            Err(ImageError::TooManyRegions(MAX_REGIONS + 1))
        );
        let zero = PhysRange::new(0, 1).unwrap();
        assert_eq!(
            image(&request(), &[(zero, [0; 8])]),
            Err(ImageError::AddressZero(zero))
        );
    }
}
