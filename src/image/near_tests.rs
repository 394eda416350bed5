//! What files are called that are no kernels.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::image::probe;
use crate::testing::elf::TinyElf;
use crate::testing::pe::TinyPe;

/// A file of `size` zeroes with `bytes` at `at`.
fn with(size: usize, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0; size];
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[track_caller]
fn named(file: &[u8], message: &str) {
    let error = probe(file).unwrap_err().to_string();
    let is = format!("not a kernel image: this is {message}");
    assert!(
        error == is || error == message,
        "{error:?}, not {message:?}"
    );
}

#[test]
fn files_are_called_by_their_magic() {
    let others = ": this program loads x86_64 kernels";
    for (at, magic, message) in [
        (0, &b"070701000"[..], "a cpio archive (an initrd?)"),
        (0, b"\xd0\x0d\xfe\xed", "a device tree blob, or a FIT image"),
        (0, b"hsqs", "a squashfs file system"),
        (0, b"\x1f\x8b\x08", "gzip data"),
        (0, b"\xfd7zXZ\0", "xz data"),
        (0, b"\x28\xb5\x2f\xfd", "zstd data"),
        (0, b"BZh9", "bzip2 data"),
        (0, b"\x02\x21\x4c\x18", "lz4 data"),
        (0, b"\x5d\0\0\x80", "lzma data"),
        (0, b"\x89LZO", "lzo data"),
        (0, b"#!/bin/sh\n", "a script"),
        (
            0,
            b"#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.12",
            "the configuration of a kernel",
        ),
        (257, b"ustar\x0000", "a tar archive"),
        (0x438, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
        (
            510,
            b"\x55\xaa",
            "a boot sector, or a whole disk, without \"HdrS\" at 0x202",
        ),
        (0, b"MZ", "a DOS program, or the beginning of a PE file"),
    ] {
        named(&with(0x1000, at, magic), message);
    }
    for (at, magic, name) in [
        (0x38, &b"ARM\x64"[..], "an arm64 Image"),
        (0x38, b"RSC\x05", "a riscv64 Image"),
        (0x24, b"\x18\x28\x6f\x01", "an Arm zImage"),
        (4, b"zimg", "an EFI zboot image"),
    ] {
        named(&with(0x1000, at, magic), &format!("{name}{others}"));
    }
    let unnamed = |file: &[u8], message: &str| {
        named(file, &format!("not a kernel image: {message}"));
    };
    unnamed(b"", "the file is empty");
    unnamed(&[0; 5000], "the file has nothing but zeroes");
    unnamed(b"xxxxxxxxxx", "this is a text file");
    unnamed(
        b"x\0xxxxxxxx",
        "this is a file of 10 bytes, too short for the boot sector of a bzImage",
    );
    unnamed(
        &[0xf1; 5000],
        "this is a file of an unknown format: it has no boot sector with \"HdrS\", and is neither \
         an ELF nor a PE file",
    );
}

/// GRUB holds the magic of multiboot, and so does a disk that it boots.
#[test]
fn what_has_a_name_is_not_called_by_the_magic_of_multiboot() {
    let grub = |mut file: Vec<u8>| {
        file[0x1042..0x1046].copy_from_slice(&0x1bad_b002_u32.to_le_bytes());
        file
    };
    named(
        &grub(with(0x2000, 510, b"\x55\xaa")),
        "a boot sector, or a whole disk, without \"HdrS\" at 0x202",
    );
    named(
        &grub(with(0x2000, 0x438, b"\x53\xef")),
        "an ext2, ext3 or ext4 file system",
    );
    named(
        &grub(with(
            0x2000,
            0,
            &TinyPe::new([(".text", &b"x"[..])]).build(),
        )),
        "a PE file for x86_64 without a Linux boot sector and without a section .linux",
    );
    named(
        &grub(vec![0xf1; 0x2000]),
        "not a kernel image: this is no multiboot 1 kernel, although the magic of its header is at \
         0x1042: that is no multiple of 4",
    );
}

#[test]
fn elf_files_are_told_apart() {
    let changed = |change: fn(&mut TinyElf)| {
        let mut image = TinyElf::vmlinux();
        change(&mut image);
        image.build()
    };
    let for_x86 = ", and this program loads x86_64 kernels";
    let mut image = TinyElf::vmlinux();
    image.machine = 3;
    named(
        &image.build(),
        "an ELF file for 32-bit x86: of a 32-bit Linux, take the bzImage",
    );
    for (machine, name) in [(183, "arm64"), (243, "riscv64")] {
        let mut image = TinyElf::vmlinux();
        image.machine = machine;
        named(&image.build(), &format!("an ELF file for {name}{for_x86}"));
    }
    for (file, message) in [
        (
            changed(|image| image.loads.clear()),
            "an ELF file without a PT_LOAD: there is nothing to load",
        ),
        (
            changed(|image| image.loads.iter_mut().for_each(|load| load.bytes.clear())),
            "an ELF file with debug information alone: its PT_LOADs have no bytes",
        ),
        (
            changed(|image| image.kind = 1),
            "an ELF object file (a module of a kernel?)",
        ),
        (
            changed(|image| image.kind = 4),
            "an ELF core file (a dump of a kernel?)",
        ),
        (
            changed(|image| image.loads[0].virtual_ = 0x40_0000),
            "an ELF file for x86_64, but no vmlinux: either it is not linked where Linux is, or it has \
             no \"Linux version\" in it",
        ),
    ] {
        named(&file, message);
    }
    named(
        &changed(|_| ())[..100],
        "an ELF file whose program headers are not all there",
    );
    let error = probe(b"\x7fELF\x02\x01").unwrap_err().to_string();
    assert!(error.contains("an ELF file with a bad header"), "{error}");
    named(
        &std::fs::read(std::env::current_exe().unwrap()).unwrap(),
        "a program for Linux",
    );
}

#[test]
fn pe_files_are_told_apart() {
    let pe = |names: &[&str]| TinyPe::new(names.iter().map(|name| (*name, &b"x"[..])));
    named(
        &pe(&[".text", ".cmdline"]).build(),
        "a UKI without a kernel (no section .linux): an addon for x86_64, for --addon?",
    );
    named(
        &pe(&[".text", ".sdmagic"]).build(),
        "a part of systemd-boot for x86_64: a UKI has a section .linux",
    );
    let mut arm64 = pe(&[".text"]);
    arm64.machine = 0xaa64;
    named(
        &arm64.build(),
        "a PE file for arm64 without a Linux boot sector and without a section .linux",
    );
    let cut = pe(&[".text"]).build();
    let error = probe(&cut[..0xa0]).unwrap_err().to_string();
    assert!(error.contains("a damaged PE file: "), "{error}");
}

proptest! {
    #[test]
    fn any_bytes_get_a_name(
        magic in proptest::sample::select(vec![&b"MZ"[..], b"\x7fELF\x02\x01", b"\x7fELF\x01\x02", b""]),
        rest in vec(any::<u8>(), 0..1024),
    ) {
        let error = miss(&[magic, &rest].concat()).to_string();
        prop_assert!(!error.contains('\n') && error.len() < 300);
    }
}
