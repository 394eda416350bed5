//! Kernels inside of files, unpacked as they go into memory.

use super::*;
use crate::image::{Image, probe};
use crate::testing::bzimage::TinyBzImage;
use crate::testing::elf::{BANNER, TinyElf, relocations};

/// The tiny kernel with relocation lists, as it is before it is packed.
fn payload() -> Vec<u8> {
    let lists = relocations(&[0x1000], None, &[0x20]);
    [TinyElf::vmlinux().build(), lists].concat()
}

#[track_caller]
fn linux(file: &[u8]) -> LinuxKernel<'_> {
    match probe(file).unwrap() {
        Image::Linux(kernel) => kernel,
        Image::Multiboot(_) => panic!("a multiboot kernel"),
    }
}

#[test]
fn the_kernel_of_a_bzimage_is_that_of_its_vmlinux() {
    let (file, plain) = (TinyBzImage::holding(&payload()).build(), payload());
    let (bzimage, vmlinux) = (linux(&file), linux(&plain));
    let unpacked = Unpacked::of(&bzimage).unwrap();
    assert!(unpacked.is_relocatable());
    let kernel = unpacked.into_kernel(&bzimage);
    assert_eq!(kernel.loads, vmlinux.loads);
    assert_eq!(kernel.entry, vmlinux.entry);
    assert_eq!(kernel.geometry, vmlinux.geometry);
    // The rest is the file's: the header goes into the zero page.
    assert_eq!(kernel.format, bzimage.format);
    assert_eq!(kernel.x86.flags, bzimage.x86.flags);
    assert!(kernel.x86.header.is_some());
    assert_eq!(kernel.file, bzimage.file);
}

#[test]
fn relocation_is_seen_in_what_is_loaded() {
    let file = TinyBzImage::holding(&payload()).build();
    let kernel = linux(&file);
    let mut moved = Unpacked::of(&kernel).unwrap();
    moved.relocate(0x20_0000);
    let (still, moved) = (Unpacked::of(&kernel).unwrap(), moved);
    let (still, moved) = (still.into_kernel(&kernel), moved.into_kernel(&kernel));
    assert_ne!(still.loads[0], moved.loads[0]);
    assert_eq!(still.loads[1..], moved.loads[1..]);
}

/// A vmlinux that is not relocated stays where its file is mapped.
#[test]
fn a_vmlinux_is_not_copied() {
    let file = TinyElf::vmlinux().build();
    let kernel = linux(&file);
    let unpacked = Unpacked::of(&kernel).unwrap();
    assert!(!unpacked.is_relocatable());
    let loads = unpacked.into_kernel(&kernel).loads;
    assert!(std::ptr::eq(
        &raw const *loads[0].bytes,
        &raw const *kernel.loads[0].bytes
    ));
}

#[track_caller]
fn fails(file: &[u8], text: &str) {
    assert_eq!(Unpacked::of(&linux(file)).unwrap_err().to_string(), text);
}

#[test]
fn what_is_no_kernel_is_named() {
    fails(
        &TinyBzImage::new(0x1000).build(),
        "what the file unpacks to is no Linux kernel in an ELF file",
    );
    let mut cut = payload();
    cut.truncate(0x3000);
    fails(
        &TinyBzImage::holding(&cut).build(),
        "the kernel inside of the file: malformed vmlinux: truncated: PT_LOAD 0 has 0x3000 bytes \
         at 0x1000, and the file 0x2000 of them",
    );
    let odd = [payload(), b"x".to_vec()].concat();
    fails(
        &TinyBzImage::holding(&odd).build(),
        "the kernel inside of the file: 17 bytes behind the kernel are no row of 32-bit words",
    );
    let mut other = TinyElf::vmlinux();
    let banner = BANNER.replace("6.12.0-tiny", "6.12.9-tiny");
    other.loads[0].bytes[0x900..0x900 + banner.len()].copy_from_slice(banner.as_bytes());
    fails(
        &TinyBzImage::holding(&other.build()).build(),
        "the file is Linux 6.12.0-tiny, and the kernel inside of it 6.12.9-tiny",
    );
    let memtest = TinyBzImage::new(0x1000).u32(crate::testing::bzimage::field::PAYLOAD_LENGTH, 0);
    fails(&memtest.build(), "the file has no packed kernel inside");
}
