//! Stubs, new and old, and what is none.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::image::{Contents, open};
use crate::testing::pe::TinyPe;

const KERNEL: &[u8] = br"\EFI\nixos\kernel-6.12-abc.efi";
const INITRD: &[u8] = br"\EFI\nixos\initrd-6.12-abc.efi";

fn stub<'a>(more: &[(&'a str, &'a [u8])]) -> TinyPe {
    let first = [
        (".osrel", &b"ID=x\n"[..]),
        (".cmdline", b"init=/x  quiet\n"),
    ];
    TinyPe::new(first.into_iter().chain(more.iter().copied()))
}

#[test]
fn a_stub_names_two_files() {
    for [kernel, hash, initrd] in [
        [".linux", ".linuxh", ".initrd"],
        [".kernelp", ".kernelh", ".initrdp"],
    ] {
        let file = stub(&[
            (kernel, KERNEL),
            (initrd, INITRD),
            (hash, &[0xab; 32]),
            (".initrdh", &[0x01; 32]),
        ])
        .build();
        let stub = Stub::parse(&file).unwrap();
        assert_eq!(stub.kernel.path.as_bytes(), KERNEL);
        assert_eq!(stub.kernel.file(), "EFI/nixos/kernel-6.12-abc.efi");
        assert_eq!(stub.kernel.hex(), "ab".repeat(32));
        assert_eq!(stub.initrd.as_ref().unwrap().path.as_bytes(), INITRD);
        assert_eq!(stub.initrd.as_ref().unwrap().hex(), "01".repeat(32));
        assert_eq!(stub.cmdline.as_deref(), Some("init=/x  quiet"));
        let contents = Contents::of(&file).unwrap();
        let error = open(&contents, None).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "a lanzaboote stub of NixOS: it holds no kernel, but names files on the EFI system partition: kernel \
                 \\EFI\\nixos\\kernel-6.12-abc.efi (SHA-256 {}), initrd \\EFI\\nixos\\initrd-6.12-abc.efi \
                 (SHA-256 {}); load these files: ESP/EFI/nixos/kernel-6.12-abc.efi --initrd \
                 ESP/EFI/nixos/initrd-6.12-abc.efi",
                "ab".repeat(32),
                "01".repeat(32)
            )
        );
    }
}

#[test]
fn a_stub_may_have_no_initrd() {
    let file = stub(&[(".linux", KERNEL), (".linuxh", &[7; 32])]).build();
    let stub = Stub::parse(&file).unwrap();
    assert_eq!(stub.initrd, None);
    assert!(
        stub.to_string()
            .ends_with("ESP/EFI/nixos/kernel-6.12-abc.efi")
    );
}

#[test]
fn what_is_no_stub() {
    for sections in [
        &[(".linux", KERNEL)][..],
        &[(".linux", KERNEL), (".linuxh", &[1; 31])],
        &[(".linux", b"a\x1b[2Jb"), (".linuxh", &[1; 32])],
        &[(".linux", b"\xff"), (".linuxh", &[1; 32])],
        &[(".linux", b"\0x"), (".linuxh", &[1; 32])],
        &[(".linux", &[b'x'; 1025]), (".linuxh", &[1; 32])],
        &[(".linuxh", &[1; 32])],
    ] {
        assert_eq!(Stub::parse(&stub(sections).build()), None);
    }
    assert_eq!(Stub::parse(&TinyPe::uki().build()), None);
    assert_eq!(Stub::parse(b"MZ"), None);
}

proptest! {
    #[test]
    fn any_paths(path in vec(any::<u8>(), 0..64), hash in vec(any::<u8>(), 31..33)) {
        let file = stub(&[(".linux", &path), (".linuxh", &hash)]).build();
        if let Some(stub) = Stub::parse(&file) {
            prop_assert!(!stub.to_string().contains(char::is_control));
        }
    }
}
