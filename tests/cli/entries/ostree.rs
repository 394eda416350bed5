//! ostree: each deployment is a file of the Boot Loader Specification in the directory that
//! the link /boot/loader leads to, and has its kernel in a directory of its own.
//!
//! Source: ostree's documentation, "Anatomy of a Deployment" and "Managing the system /boot".

use std::fs;

use super::{GRUB_HEAD, files, grubenv, link, machine, marks, no_problems, read, texts};
use crate::Lab;

const RELEASES: [&str; 2] = ["6.11.5-300.fc41.x86_64", "6.11.4-301.fc41.x86_64"];
const LINE: &str = "rw root=UUID=r007 ostree=/ostree/boot.1/fedora-coreos";

/// The line of a deployment; the newest has the number 0.
fn line(number: usize) -> String {
    format!("{LINE}/{number}a/0")
}

/// A machine that runs the deployment `running`: its root file system is a directory of the
/// disk's, which is on /sysroot. `boot` is the line of /boot in the list of mounts.
fn deployed(running: usize, boot: &str) -> Lab {
    let line = line(running);
    let image = format!(
        "(hd0,gpt3)/ostree/fedora-coreos-{running}a/vmlinuz-{}",
        RELEASES[running]
    );
    let lab = machine(RELEASES[running], &format!("BOOT_IMAGE={image} {line}"));
    lab.write(
        "m/proc/self/mountinfo",
        format!(
            "28 1 8:4 /ostree/deploy/fedora-coreos/deploy/{running}a.0 / rw - xfs /dev/sda4 rw\n\
             29 28 8:4 / /sysroot ro - xfs /dev/sda4 rw\n{boot}"
        ),
    );
    link(&lab, "m/boot/loader", "loader.1");
    lab
}

/// The entry of the deployment `number` in the file `name`; paths begin with `prefix`.
fn deployment(lab: &Lab, name: &str, number: usize, prefix: &str) {
    let release = RELEASES[number];
    let directory = format!("/ostree/fedora-coreos-{number}a");
    lab.write(
        &format!("m/boot/loader.1/entries/{name}"),
        format!(
            "title Fedora CoreOS 41 (ostree:{number})\nversion {}\noptions {}\n\
             linux {prefix}{directory}/vmlinuz-{release}\n\
             initrd {prefix}{directory}/initramfs-{release}.img\n",
            2 - number,
            line(number)
        ),
    );
    files(
        lab,
        &[
            &format!("/boot{directory}/vmlinuz-{release}"),
            &format!("/boot{directory}/initramfs-{release}.img"),
        ],
    );
}

/// GRUB reads the files itself. Both names that ostree has given them sort by their number.
#[test]
fn the_newest_deployment_is_the_default() {
    for names in [
        ["ostree-2.conf", "ostree-1.conf"],
        ["ostree-2-fedora-coreos.conf", "ostree-1-fedora-coreos.conf"],
    ] {
        let lab = deployed(1, "41 28 8:3 / /boot ro - ext4 /dev/sda3 rw\n");
        link(&lab, "m/dev/disk/by-uuid/b00t", "../../sda3");
        lab.write(
            "m/boot/grub2/grub.cfg",
            format!("{GRUB_HEAD}search --no-floppy --fs-uuid --set=root b00t\nblscfg\n"),
        );
        lab.write("m/boot/grub2/grubenv", grubenv(""));
        for (number, name) in names.into_iter().enumerate() {
            deployment(&lab, name, number, "");
        }
        // What a deployment before this one left behind.
        lab.write(
            "m/boot/loader.0/entries/ostree-9.conf",
            "title Old\nlinux /gone\n",
        );
        let found = read(&lab);
        no_problems(&found);
        assert_eq!(texts(&found, "source"), ["grub-bls"; 2]);
        let ids = names.map(|name| name.trim_end_matches(".conf"));
        assert_eq!(texts(&found, "id"), ids);
        assert_eq!(texts(&found, "cmdline"), [line(0), line(1)]);
        assert_eq!(
            texts(&found, "kernel")[0],
            format!("/boot/ostree/fedora-coreos-0a/vmlinuz-{}", RELEASES[0])
        );
        assert_eq!(marks(&found), [Some(0), None, Some(1)]);
    }
}

/// /boot is a directory of the disk's file system. Its entries name files from there or,
/// with `bootprefix`, from the root of the file system.
#[test]
fn boot_on_the_root_file_system() {
    for prefix in ["", "/boot"] {
        let lab = deployed(0, "41 28 8:4 /boot /boot rw - xfs /dev/sda4 rw\n");
        for (number, name) in ["ostree-2.conf", "ostree-1.conf"].into_iter().enumerate() {
            deployment(&lab, name, number, prefix);
        }
        let found = read(&lab);
        no_problems(&found);
        assert_eq!(texts(&found, "source"), ["bls"; 2], "{prefix}");
        assert_eq!(texts(&found, "version"), ["2", "1"]);
        assert_eq!(marks(&found), [Some(0), None, Some(0)]);
        fs::remove_dir_all(lab.path().join("m/boot/ostree/fedora-coreos-1a")).unwrap();
        let problems = read(&lab)["entries"][1]["problems"].to_string();
        assert!(
            problems.contains("vmlinuz-6.11.4-301.fc41.x86_64: no such file"),
            "{problems}"
        );
    }
}
