//! vmlinux files, good, bad, and nearly.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::image::{Image, probe};
use crate::testing::elf::{self, BANNER as TINY_BANNER, BASE, TinyElf};

const VERSION: &str = "6.12.0-tiny (builder@host) (gcc (GCC) 12.2.0, GNU ld 2.40) #1 SMP";

fn tiny() -> TinyElf {
    TinyElf::vmlinux()
}

fn changed(change: impl FnOnce(&mut TinyElf)) -> Vec<u8> {
    let mut image = tiny();
    change(&mut image);
    image.build()
}

/// The tiny kernel with another banner.
fn called(release: &str) -> Vec<u8> {
    changed(|image| {
        let bytes = &mut image.loads[0].bytes;
        bytes[0x900..0x900 + TINY_BANNER.len()].fill(0);
        let banner = format!("Linux version {release} (a@b) #1\n");
        bytes[0x900..0x900 + banner.len()].copy_from_slice(banner.as_bytes());
    })
}

/// Wherever the words are, the search for the banner ends.
#[test]
fn words_of_the_banner_without_end() {
    let mut elf = tiny();
    elf.loads[0].bytes = b"Linux version 6".repeat(0x10_0000);
    elf.loads[0].size = 0x200_0000;
    elf.loads.truncate(1);
    assert!(parse(&elf.build()).unwrap().is_none());
    // A real one behind too many others is not found, and one behind few is.
    for (others, found) in [(900, true), (2000, false)] {
        let mut elf = tiny();
        let mut bytes = elf.loads[0].bytes.clone();
        bytes.splice(0..0, b"Linux version x".repeat(others));
        elf.loads[0].size = 0x10_0000;
        elf.loads[0].bytes = bytes;
        elf.loads.truncate(1);
        assert_eq!(parse(&elf.build()).unwrap().is_some(), found, "{others}");
    }
}

#[track_caller]
fn kernel(file: &[u8]) -> LinuxKernel<'_> {
    parse(file).unwrap().unwrap()
}

#[test]
fn a_good_image() {
    let file = tiny().build();
    let Ok(Image::Linux(image)) = probe(&file) else {
        panic!("not a Linux kernel");
    };
    assert_eq!(image.format, Format::Vmlinux);
    assert_eq!(image.version, Some(VERSION));
    assert_eq!(image.release(), Some("6.12.0-tiny"));
    assert_eq!(image.entry, 0xb53);
    assert_eq!(image.payload, file);
    assert_eq!(image.compression(), "none");
    assert_eq!(image.unpacked().unwrap(), file);
    assert_eq!(image.protocol(), (2, 15));
    assert_eq!(image.cmdline_limit, 2047);
    assert_eq!(image.setup_type_max, Some(0x8000_0009));
    assert_eq!(image.geometry.floor, 0x100_0000);
    assert_eq!(image.geometry.align, 0x20_0000);
    assert_eq!(image.geometry.size, 0x25_5000);
    // Without these the root file system would be mounted read-write.
    assert!(!image.geometry.fixed && image.x86.header.is_none());
    assert!(
        image.has(
            xloadflags::KERNEL_64 | xloadflags::CAN_BE_LOADED_ABOVE_4G | xloadflags::EFI_KEXEC
        )
    );
    assert!(!image.has(xloadflags::FIVE_LEVEL));

    let loads: Vec<_> = image
        .loads
        .iter()
        .map(|load| (load.offset, load.bytes.len(), load.bytes[0x234]))
        .collect();
    let expected = [
        (0, 0x3000, 62),
        (0x20_0000, 0x2000, 2),
        (0x20_3000, 0x1800, 3),
        (0x20_5000, 0x1234, 4),
    ];
    assert_eq!(loads, expected);
}

#[test]
fn what_the_series_tells() {
    for (release, protocol, efi, setup_type_max) in [
        ("2.6.39", (2, 12), false, None),
        ("3.10.0-1160.el7.x86_64", (2, 12), false, None),
        ("3.14.0", (2, 13), true, None),
        ("5.4.300", (2, 13), true, None),
        ("5.5.0-rc1", (2, 15), true, Some(0x8000_0006)),
        ("6.1.0-56-amd64", (2, 15), true, Some(0x8000_0009)),
        ("6.16.0", (2, 15), true, Some(0x8000_000a)),
    ] {
        let file = called(release);
        let image = kernel(&file);
        assert_eq!(image.release(), Some(release));
        assert_eq!(image.protocol(), protocol, "{release}");
        assert_eq!(image.has(xloadflags::EFI_KEXEC), efi, "{release}");
        assert_eq!(image.setup_type_max, setup_type_max, "{release}");
    }
}

#[test]
fn five_level_paging_is_known_from_an_export_the_configuration_or_the_series() {
    let with =
        |text: &[u8]| changed(|image| image.loads[1].bytes[..text.len()].copy_from_slice(text));
    let flags = xloadflags::FIVE_LEVEL | xloadflags::FIVE_LEVEL_ENABLED;
    assert!(kernel(&with(b"\0ptrs_per_p4d\0")).has(flags));
    assert!(kernel(&called("7.3.4")).has(flags));
    assert!(!kernel(&with(b"\0ptrs_per_p4d_x\0")).has(flags));
    for (config, expected) in [
        ("CONFIG_X86_5LEVEL=y\n", true),
        ("# CONFIG_X86_5LEVEL is not set\n", false),
    ] {
        let mut packer = flate2::write::GzEncoder::new(b"IKCFG_ST".to_vec(), Default::default());
        std::io::Write::write_all(&mut packer, config.as_bytes()).unwrap();
        let mut inside = packer.finish().unwrap();
        inside.extend(b"IKCFG_ED");
        assert_eq!(kernel(&with(&inside)).has(flags), expected, "{config}");
    }
}

#[test]
fn other_elf_files_are_none() {
    let others = [
        changed(|image| image.class = 1),
        changed(|image| image.order = 2),
        changed(|image| image.machine = 183),
        changed(|image| image.kind = 1),
        changed(|image| image.kind = 4),
        changed(|image| image.loads.clear()),
        // A program with the banner's words.
        changed(|image| {
            for load in &mut image.loads {
                load.virtual_ = load.physical;
            }
        }),
        // Another system, linked where Linux is; and only the format of a banner.
        changed(|image| image.loads[0].bytes[0x900..0x920].fill(b'x')),
        called("%s"),
        // Debug information alone.
        changed(|image| image.loads.iter_mut().for_each(|load| load.bytes.clear())),
    ];
    for (number, file) in others.iter().enumerate() {
        assert!(parse(file).unwrap().is_none(), "{number}");
        assert!(probe(file).is_err(), "{number}");
    }
    let itself = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(parse(&itself).unwrap().is_none());
}

#[test]
fn absurd_headers_are_named() {
    for (file, message) in [
        (
            changed(|image| image.loads.extend(vec![elf::Load::new(1 << 30, 1, &[]); 5])),
            "9 PT_LOADs, more than 8",
        ),
        (
            changed(|image| {
                image.loads[0].physical += 0x1000;
                image.loads[0].virtual_ += 0x1000;
            }),
            "it is linked for 0x1001000, which is no multiple of 0x200000",
        ),
        (
            changed(|image| image.loads[1].size = 0x1fff),
            "PT_LOAD 1 has 0x2000 bytes, and 0x1fff in memory",
        ),
        (
            changed(|image| image.loads[1].physical = BASE + 0x2000),
            "PT_LOAD 1 at 0x1002000 overlaps what ends at 0x1003000",
        ),
        (
            changed(|image| image.loads[1].physical += 0x800),
            "PT_LOAD 1 at 0x1200800 begins inside a page",
        ),
        (
            changed(|image| image.loads[3].size = u64::MAX),
            "PT_LOAD 3 at 0x1205000 ends beyond physical memory",
        ),
        (
            changed(|image| image.loads[3].size = 1 << 52),
            "PT_LOAD 3 at 0x1205000 ends beyond physical memory",
        ),
        (
            changed(|image| image.loads[3].size = 1 << 32),
            "it takes 0x100205000 bytes of memory",
        ),
        (
            changed(|image| image.entry += elf::START_KERNEL_MAP),
            "no PT_LOAD has the entry point 0xffffffff81000b53",
        ),
        (
            changed(|image| image.entry = BASE - 1),
            "no PT_LOAD has the entry point 0xffffff",
        ),
    ] {
        let error = probe(&file).unwrap_err().to_string();
        assert_eq!(error, format!("malformed vmlinux: {message}"));
    }
}

#[test]
fn truncated_anywhere() {
    let file = tiny().build();
    let banner = memmem::find(&file, TINY_BANNER.as_bytes()).unwrap() + TINY_BANNER.len();
    for length in (0..file.len()).step_by(97).chain([banner - 1, banner]) {
        let error = probe(&file[..length]).unwrap_err();
        let truncated = error
            .to_string()
            .starts_with("malformed vmlinux: truncated: PT_LOAD");
        // Before its banner is there, nothing says that it is Linux.
        assert_eq!(truncated, length >= banner, "{length} bytes: {error}");
    }
}

/// What holds of every image that is accepted.
fn check(file: &[u8]) -> Result<(), TestCaseError> {
    let Ok(Some(image)) = parse(file) else {
        return Ok(());
    };
    let span = image.geometry.size;
    prop_assert!(!image.loads.is_empty() && image.loads.len() <= MAX_LOADS);
    prop_assert_eq!(image.loads[0].offset, 0);
    let mut end = 0;
    for load in &image.loads {
        prop_assert!(!load.bytes.is_empty());
        prop_assert!(load.offset >= end && load.offset.is_multiple_of(PAGE_SIZE));
        end = load.offset + load.bytes.len() as u64;
    }
    prop_assert!(end <= span);
    prop_assert!(
        image.loads.iter().any(|load| image.entry >= load.offset
            && image.entry < load.offset + load.bytes.len() as u64)
    );
    prop_assert!(image.geometry.floor.is_multiple_of(ALIGNMENT));
    prop_assert!(
        image
            .release()
            .is_some_and(|release| series(release).is_some())
    );
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_behind_the_magic(rest in vec(any::<u8>(), 0..1024)) {
        check(&[b"\x7fELF\x02\x01", &rest[..]].concat())?;
    }

    #[test]
    fn mutated_headers(
        mutations in vec((0..288_usize, any::<u8>()), 1..5),
        cut in prop_oneof![Just(usize::MAX), 0..0x1_0000_usize],
    ) {
        let mut file = tiny().build();
        for (at, byte) in mutations {
            file[at] = byte;
        }
        file.truncate(cut);
        check(&file)?;
    }
}
