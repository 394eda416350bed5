//! bzImage headers, good and bad.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::image::{Image, probe};
use crate::testing::bzimage::{PAYLOAD_OFFSET, SETUP_SIZE, TinyBzImage, VERSION, field};

/// Bytes of the protected-mode part.
const KERNEL_SIZE: usize = 64 << 10;

fn tiny() -> TinyBzImage {
    TinyBzImage::new(KERNEL_SIZE)
}

/// Why the image is refused.
#[track_caller]
fn refused(image: TinyBzImage) -> String {
    probe(&image.build()).unwrap_err().to_string()
}

#[test]
fn a_good_image() {
    let file = tiny().build();
    let Ok(Image::Linux(image)) = probe(&file) else {
        panic!("not a Linux");
    };
    assert_eq!(image.protocol(), (2, 15));
    assert_eq!(image.version, Some(VERSION));
    assert_eq!(image.release(), Some("6.12.0-tiny"));
    assert_eq!(*image.loads[0].bytes, file[SETUP_SIZE..]);
    assert_eq!(image.payload, &file[SETUP_SIZE + PAYLOAD_OFFSET..]);
    assert_eq!(image.compression(), "xz");
    assert_eq!(image.cmdline_limit, 2047);
    assert_eq!(image.geometry.size, 0x180_0000);
    assert_eq!(image.geometry.floor, 0x100_0000);
    assert_eq!(image.geometry.align, 0x20_0000);
    for (bit, name) in xloadflags::NAMES {
        assert!(image.has(bit), "{name}");
    }
    assert!(!image.has(1 << 7));
}

#[test]
fn what_lies_behind_the_kernel_is_not_loaded() {
    // As on a partition: much more than the kernel's memory has room for.
    let good = tiny().build();
    let mut file = good.clone();
    file.resize(64 << 20, 0xaa);
    let image = parse(&file).unwrap().unwrap();
    assert_eq!(*image.loads[0].bytes, good[SETUP_SIZE..]);
    assert_eq!(image.file, good);
    assert_eq!(image.behind, file.len() - good.len());
    assert_eq!(parse(&good).unwrap().unwrap().behind, 0);
    // A syssize of 0 says nothing of the end.
    let silent = tiny().u32(field::SYSSIZE, 0).build();
    let image = parse(&silent).unwrap().unwrap();
    assert_eq!((image.loads[0].bytes.len(), image.behind), (KERNEL_SIZE, 0));
}

/// A bzImage that is a PE file as well, whose certificate table has `size` bytes
/// behind the kernel.
fn with_signature(size: usize) -> Vec<u8> {
    let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let end = SETUP_SIZE + KERNEL_SIZE;
    // No sections, an optional header of 160 bytes with 6 data directories.
    let mut file = tiny()
        .put(0x3c, &number(0x40))
        .put(0x40, b"PE\0\0")
        .put(0x44, &0x8664_u16.to_le_bytes())
        .put(0x54, &160_u16.to_le_bytes())
        .put(0x58, &0x20b_u16.to_le_bytes())
        .put(0x58 + 108, &number(6))
        .put(0x58 + 112 + 32, &number(if size == 0 { 0 } else { end }))
        .put(0x58 + 112 + 36, &number(size))
        .build();
    file.resize(end + size, 0x5a);
    file
}

#[test]
fn the_signature_behind_the_kernel_is_kept_for_the_running_kernel() {
    let signed = with_signature(1472);
    let image = parse(&signed).unwrap().unwrap();
    assert_eq!(image.loads[0].bytes.len(), KERNEL_SIZE);
    assert_eq!((image.file, image.behind), (&signed[..], 0));
    // And what lies behind that is in the way of it.
    for (size, more) in [(1472, 5000), (0, 5000)] {
        let exact = with_signature(size);
        let mut file = exact.clone();
        file.resize(exact.len() + more, 0xff);
        let image = parse(&file).unwrap().unwrap();
        assert_eq!((image.file, image.behind), (&exact[..], more));
        assert_eq!(
            crate::image::signature::is_signed(image.file),
            Some(size != 0)
        );
    }
    // A table that reaches beyond the file is a matter of whoever verifies it.
    let cut = &signed[..signed.len() - 100];
    assert_eq!(parse(cut).unwrap().unwrap().file, cut);
}

#[test]
fn a_kernel_without_a_64_bit_entry_is_entered_in_32_bit_mode() {
    for (image, protocol) in [
        (tiny().u16(field::XLOADFLAGS, 0x7e), (2, 15)),
        (tiny().u16(field::XLOADFLAGS, 0x04), (2, 15)),
        // Of a time when these bits meant nothing.
        (
            tiny().u16(field::VERSION, 0x020b).u8(field::JUMP, 0x62),
            (2, 11),
        ),
        (
            tiny().u16(field::VERSION, 0x020a).u8(field::JUMP, 0x62),
            (2, 10),
        ),
    ] {
        let file = image.build();
        let image = parse(&file).unwrap().unwrap();
        assert_eq!(image.x86.entry_mode, EntryMode::Protected);
        assert_eq!((image.entry, image.protocol()), (0, protocol));
        assert!(image.is_32_bit() && !image.reaches_above_4g());
    }
    let file = tiny().build();
    let image = parse(&file).unwrap().unwrap();
    assert_eq!(
        (image.x86.entry_mode, image.entry),
        (EntryMode::Long, 0x200)
    );
    assert!(image.reaches_above_4g());
}

#[test]
fn fields_behind_the_header_are_not_read() {
    // Protocol 2.12 ends at 0x268: what follows there is code.
    let file = tiny()
        .u16(field::VERSION, 0x020c)
        .u8(field::JUMP, 0x66)
        .put(0x264, &[0xff; 8])
        .build();
    let image = parse(&file).unwrap().unwrap();
    let header = image.x86.header.unwrap();
    assert_eq!(header.handover_offset.get(), 0xffff_ffff);
    assert_eq!(header.kernel_info_offset.get(), 0);
}

#[test]
fn setup_sects_0_is_4() {
    let mut file = tiny().u8(field::SETUP_SECTS, 0).build();
    file.splice(5 * 512..SETUP_SIZE, []);
    let image = parse(&file).unwrap().unwrap();
    assert_eq!(*image.loads[0].bytes, file[5 * 512..]);
    assert_eq!(image.loads[0].bytes.len(), KERNEL_SIZE);
}

#[test]
fn compressions_by_their_magic() {
    let with = |magic: &[u8]| tiny().put(SETUP_SIZE + PAYLOAD_OFFSET, magic).build();
    for (magic, name) in [
        (&b"\x1f\x8b"[..], "gzip"),
        (b"BZh", "bzip2"),
        (b"\x5d\0\0", "lzma"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x89LZO", "lzo"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x7fELF", "none"),
        (b"????", "unknown"),
    ] {
        let file = with(magic);
        assert_eq!(parse(&file).unwrap().unwrap().compression(), name);
    }
}

#[test]
fn a_bad_version_string_is_no_reason_to_refuse() {
    for image in [
        tiny().u16(field::KERNEL_VERSION, 0),
        tiny().u16(field::KERNEL_VERSION, 0xffff),
        tiny().put(0x600, b"\xff\xfe\0"),
        tiny().put(0x600, b"\0"),
        tiny().put(0x600, b"a\x1b[2Jb\0"),
        tiny().put(0x600, &[b'x'; SETUP_SIZE - 0x600]),
    ] {
        let file = image.build();
        let image = parse(&file).unwrap().unwrap();
        assert_eq!((image.version, image.release()), (None, None));
    }
}

#[test]
fn an_image_that_names_no_payload_has_none() {
    let file = tiny()
        .u32(field::PAYLOAD_OFFSET, 0)
        .u32(field::PAYLOAD_LENGTH, 0)
        .build();
    let image = parse(&file).unwrap().unwrap();
    assert!(image.payload.is_empty());
    assert_eq!(image.compression(), "unknown");
}

#[test]
fn kernels_of_other_kinds_are_refused_by_name() {
    let old = |version| tiny().u16(field::VERSION, version).u8(field::JUMP, 0x3e);
    let real_mode = |says, number| {
        format!(
            "no Linux, but a program for boot loaders that looks like one, as memdisk and iPXE do (it says \
             \"{says}\", boot protocol {number}): it starts in 16-bit real mode and calls the BIOS, and a kexec \
             enters kernels in 32-bit or 64-bit mode: start it from the boot loader"
        )
    };
    for (image, message) in [
        (
            tiny().u8(field::LOADFLAGS, 0x80),
            "a zImage (boot protocol 2.15): it is loaded below 1 MiB and starts in 16-bit real mode, which \
             a kexec cannot enter: a bzImage is needed"
                .to_owned(),
        ),
        (
            old(0x0203).put(0x600, b"MEMDISK 6.04 20200816\0"),
            real_mode("MEMDISK 6.04 20200816", "2.03"),
        ),
        (
            old(0x0207).put(0x600, b"1.0.0+git-20190125.36a4c85-5.1\0"),
            real_mode("1.0.0+git-20190125.36a4c85-5.1", "2.07"),
        ),
        (
            old(0x0209).put(0x600, b"2.6.26-2-686 (Debian 2.6.26) #1 SMP\0"),
            "Linux 2.6.26-2-686 (Debian 2.6.26) #1 SMP (boot protocol 2.09): its header does not say how \
             much memory the kernel takes; Linux 2.6.31 (protocol 2.10) and later say it"
                .to_owned(),
        ),
        (
            tiny().u16(field::VERSION, 0).u16(field::KERNEL_VERSION, 0),
            real_mode("", "0.00"),
        ),
    ] {
        assert_eq!(refused(image), message);
    }
    // The header ends in front of its version: a boot loader's trick of old times.
    assert!(refused(tiny().u8(field::JUMP, 0)).starts_with("a zImage (boot protocol 0.00)"));
}

#[test]
fn absurd_fields_are_named() {
    for (image, message) in [
        (
            tiny().u16(field::BOOT_FLAG, 0x55aa),
            "boot_flag is 0x55aa, not 0xaa55",
        ),
        (
            tiny().u8(field::SETUP_SECTS, 255),
            "the file is incomplete: the last 124 KiB of 192 KiB are missing; copy or download it again",
        ),
        (
            tiny().u8(field::SETUP_SECTS, 8),
            "the file is incomplete: the last 512 B of 68.5 KiB are missing; copy or download it again",
        ),
        (
            tiny().u32(field::SYSSIZE, u32::MAX),
            "the file is incomplete: the last 63.9 GiB of 64 GiB are missing; copy or download it again",
        ),
        (
            tiny().u32(field::KERNEL_ALIGNMENT, 0),
            "kernel_alignment 0x0 is not a power of two up to 0x40000000",
        ),
        (
            tiny().u32(field::KERNEL_ALIGNMENT, 0x30_0000),
            "kernel_alignment 0x300000 is not a power of two up to 0x40000000",
        ),
        (
            tiny().u32(field::KERNEL_ALIGNMENT, 1 << 31),
            "kernel_alignment 0x80000000 is not a power of two up to 0x40000000",
        ),
        (
            tiny().u32(field::INIT_SIZE, 0),
            "init_size 0x0 is less than the kernel's 0x10000 bytes",
        ),
        (
            tiny().u32(field::INIT_SIZE, 0xffff),
            "init_size 0xffff is less than the kernel's 0x10000 bytes",
        ),
        (
            tiny().u64(field::PREF_ADDRESS, u64::MAX),
            "pref_address 0xffffffffffffffff is beyond physical memory",
        ),
        (
            tiny().u64(field::PREF_ADDRESS, 1 << 52),
            "pref_address 0x10000000000000 is beyond physical memory",
        ),
        (tiny().u32(field::CMDLINE_SIZE, 0), "cmdline_size is 0"),
        (
            tiny().u32(field::PAYLOAD_OFFSET, 0x1_0000),
            "the payload (0xfd00 bytes at 0x10000) lies outside the kernel's 0x10000 bytes",
        ),
        (
            tiny().u32(field::PAYLOAD_OFFSET, u32::MAX),
            "the payload (0xfd00 bytes at 0xffffffff) lies outside the kernel's 0x10000 bytes",
        ),
        (
            tiny().u32(field::PAYLOAD_LENGTH, u32::MAX),
            "the payload (0xffffffff bytes at 0x300) lies outside the kernel's 0x10000 bytes",
        ),
    ] {
        assert_eq!(refused(image), format!("malformed bzImage: {message}"));
    }
}

#[test]
fn the_largest_numbers_that_are_sane() {
    // An init_size of nearly 4 GiB is a matter of the machine, not of the file.
    let file = tiny()
        .u32(field::INIT_SIZE, u32::MAX)
        .u32(field::CMDLINE_SIZE, u32::MAX)
        .u32(field::KERNEL_ALIGNMENT, 1 << 30)
        .build();
    let image = parse(&file).unwrap().unwrap();
    assert_eq!(image.cmdline_limit, 0xffff_ffff);
}

#[test]
fn truncated_anywhere() {
    // As large as a real one, so that many 4 KiB boundaries lie in it.
    let file = TinyBzImage::new(12 << 20).build();
    assert!(parse(&file).unwrap().is_some());
    let boundaries = (0..file.len()).step_by(4096);
    let in_the_header = 0..field::END;
    let others = [SETUP_SIZE - 1, SETUP_SIZE, SETUP_SIZE + 1, file.len() - 1];
    for length in boundaries.chain(in_the_header).chain(others) {
        let error = probe(&file[..length]).unwrap_err();
        let expected = match error {
            // What is left of the file does not even say what it was.
            ImageError::NotAKernel(_) => length < field::VERSION,
            ImageError::Malformed { ref what, .. } => {
                length >= field::VERSION && what.starts_with("the file is incomplete")
            }
            _ => false,
        };
        assert!(expected, "{length} bytes: {error}");
    }
}

#[test]
fn the_last_paragraph_of_memtest_is_not_filled() {
    let mut file = tiny().u32(field::PAYLOAD_LENGTH, 0).build();
    let whole = file.len();
    file.truncate(whole - 8);
    assert!(parse(&file).unwrap().is_some());
    file.truncate(whole - 16);
    assert!(parse(&file).is_err());
    let mut linux = tiny().build();
    linux.truncate(whole - 8);
    assert!(parse(&linux).is_err());
}

#[test]
fn truncated_where_the_header_hides_it() {
    // Even a syssize of 0 does not hide that the payload is gone.
    let file = tiny().u32(field::SYSSIZE, 0).build();
    for length in (SETUP_SIZE..file.len()).step_by(4096) {
        assert!(
            matches!(probe(&file[..length]), Err(ImageError::Malformed { .. })),
            "{length} bytes"
        );
    }
}

/// What holds of every image that is accepted.
fn check(file: &[u8]) -> Result<(), TestCaseError> {
    let Ok(Image::Linux(image)) = probe(file) else {
        return Ok(());
    };
    let geometry = &image.geometry;
    prop_assert!(!image.loads[0].bytes.is_empty() && image.loads[0].bytes.len() < file.len());
    prop_assert!(geometry.size >= image.loads[0].bytes.len() as u64);
    prop_assert!(geometry.align.is_power_of_two());
    prop_assert!(geometry.floor + geometry.size <= 1 << 52);
    prop_assert!(image.payload.len() <= image.loads[0].bytes.len());
    prop_assert!(image.cmdline_limit > 0);
    prop_assert_eq!(image.is_32_bit(), !image.has(xloadflags::KERNEL_64));
    prop_assert!(image.protocol() >= (2, 10));
    prop_assert!(file.starts_with(image.file) && image.file.len() + image.behind == file.len());
    prop_assert!(!image.version.is_some_and(str::is_empty));
    let _ = (image.compression(), image.release());
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes(file in vec(any::<u8>(), 0..2048)) {
        check(&file)?;
    }

    #[test]
    fn any_bytes_behind_a_magic(
        magic in proptest::sample::select(vec![&b"MZ"[..], b"\x7fELF", b"\x1f\x8b", b"\xfd7zXZ\0"]),
        rest in vec(any::<u8>(), 0..1024),
    ) {
        check(&[magic, &rest].concat())?;
    }

    #[test]
    fn any_header(header in vec(any::<u8>(), field::END - field::VERSION)) {
        check(&tiny().put(field::VERSION, &header).build())?;
    }

    #[test]
    fn mutated(
        mutations in vec((0..field::END, any::<u8>()), 1..4),
        length in prop_oneof![Just(usize::MAX), 0..KERNEL_SIZE],
    ) {
        let image = mutations.into_iter().fold(tiny(), |image, (at, byte)| image.u8(at, byte));
        let mut file = image.build();
        file.truncate(length);
        check(&file)?;
    }
}
