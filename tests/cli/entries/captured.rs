//! The entries of a captured machine.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::load::bootable;
use super::{arch, debian, entries, grubenv, link, variable};
use crate::common::pe::TinyPe;
use crate::{Lab, captured};

/// The facts that a capture needs, as far as the machine `m` does not have them.
fn with_facts(lab: Lab) -> Lab {
    let from = format!("{}/.", captured("bios-512m"));
    let to = lab.path().join("m");
    let status = Command::new("cp").args(["-rn", &from]).arg(to).status();
    assert!(status.unwrap().success());
    lab
}

fn read(lab: &Lab, root: &str) -> Value {
    let args = ["entries", "--root", root, "--output", "json"];
    serde_json::from_str(&lab.succeeds(&args)).unwrap()
}

/// Captures `m`; the entries are the same as before.
fn same(lab: &Lab) -> Value {
    let ended = lab.run(&["capture", "--root", "m", "copy"]);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let found = read(lab, "m");
    assert!(!entries(&found).is_empty());
    assert_eq!(read(lab, "copy"), found);
    found
}

#[test]
fn grub_with_an_environment_block_elsewhere() {
    let lab = with_facts(debian());
    let environment = grubenv("next_entry=0\nsaved_entry=gnulinux-advanced>1\n");
    lab.write("m/boot/grub/env/grubenv", environment);
    link(&lab, "m/boot/grub/grubenv", "env/../env/grubenv");
    // One kernel is missing here, and is missing there.
    fs::remove_file(lab.path().join("m/boot/vmlinuz-6.1.0-17-amd64")).unwrap();
    let found = same(&lab);
    assert!(
        found
            .to_string()
            .contains("vmlinuz-6.1.0-17-amd64: no such file")
    );
    let kernel = lab.path().join("copy/boot/vmlinuz-6.1.0-18-amd64");
    assert_eq!(fs::metadata(kernel).unwrap().len(), 0);
}

#[test]
fn systemd_boot_with_links_and_variables() {
    let lab = with_facts(arch());
    fs::rename(
        lab.path().join("m/boot/loader"),
        lab.path().join("m/boot/loader.1"),
    )
    .unwrap();
    link(&lab, "m/boot/loader", "/loader.1");
    variable(&lab, "LoaderInfo", "systemd-boot 255.4");
    variable(&lab, "LoaderEntryOneShot", "arch-fallback.conf");
    let found = same(&lab);
    assert!(
        entries(&found)
            .iter()
            .any(|entry| entry["one_shot"] == true)
    );
}

#[test]
fn images_without_their_kernels() {
    let lab = bootable();
    let kernel = vec![b'k'; 3 << 20];
    let image = TinyPe::new([
        (".osrel", &b"ID=debian\nPRETTY_NAME=Debian\n"[..]),
        (".cmdline", b"root=LABEL=x"),
        (".uname", b"6.12.0"),
        (".linux", &kernel),
    ]);
    lab.write("m/boot/efi/EFI/Linux/a.efi", image.build());
    let addon = TinyPe::new([(".cmdline", &b"added"[..])]).build();
    lab.write("m/boot/efi/EFI/Linux/a.efi.extra.d/own.addon.efi", addon);
    let found = same(&lab);
    let image = entries(&found).iter().find(|entry| entry["id"] == "a.efi");
    assert_eq!(image.unwrap()["cmdline"], "root=LABEL=x");
    let copied = fs::metadata(lab.path().join("copy/boot/efi/EFI/Linux/a.efi"));
    assert!(copied.unwrap().len() <= 1 << 20);
}

#[test]
fn links_to_kernels() {
    let lab = with_facts(Lab::new());
    lab.write("m/boot/vmlinuz-6.1.0", "x");
    lab.write("m/boot/initrd.img-6.1.0", "x");
    link(&lab, "m/vmlinuz", "boot/vmlinuz-6.1.0");
    link(&lab, "m/initrd.img", "boot/initrd.img-6.1.0");
    let found = same(&lab);
    assert_eq!(entries(&found)[0]["version"], "6.1.0");
}
