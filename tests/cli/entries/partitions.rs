//! Machines with several partitions for boot loaders.

use std::fs;

use serde_json::json;

use super::{arch, marks, no_problems, read, texts, variable};
use crate::Lab;

const ROOT: &str = "28 1 8:2 / / rw - ext4 /dev/sda2 rw\n";

/// The partition `name` is an EFI system partition.
fn esp(lab: &Lab, name: &str, minor: u32, guid: &str) {
    lab.write(
        &format!("m/sys/class/block/{name}/dev"),
        format!("8:{minor}\n"),
    );
    let kind = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
    lab.write(
        &format!("m/run/udev/data/b8:{minor}"),
        format!("E:ID_PART_ENTRY_TYPE={kind}\nE:ID_PART_ENTRY_UUID={guid}\n"),
    );
}

/// Arch, started by systemd-boot from sda1.
fn started() -> Lab {
    let lab = arch();
    variable(&lab, "LoaderInfo", "systemd-boot 255.4");
    variable(&lab, "LoaderDevicePartUUID", "AAAA-1");
    esp(&lab, "sda1", 1, "aaaa-1");
    lab
}

/// What /etc/fstab has for the EFI system partition may have the choice of systemd-boot.
#[test]
fn the_default_is_not_known_without_the_efi_system_partition() {
    let lab = started();
    lab.write(
        "m/proc/self/mountinfo",
        format!("{ROOT}41 28 8:3 / /boot rw - ext4 /dev/sda3 rw\n"),
    );
    lab.write("m/etc/fstab", "/dev/sda1 /efi vfat noauto 0 0\n");
    let found = read(&lab);
    let what = "the partition of /efi in /etc/fstab that is not mounted: its entries are not seen";
    assert_eq!(
        found["problems"],
        json!([{ "file": "/dev/sda1", "problem": what }])
    );
    assert_eq!(texts(&found, "id").len(), 2);
    assert_eq!(marks(&found)[0], None);
    let said = lab.fails(1, &["plan", "--root", "m", "--entry", "default"]);
    assert!(
        said.contains("which entry is the default is not known"),
        "{said}"
    );
}

/// It is read wherever it is mounted, and first.
#[test]
fn the_efi_system_partition_may_be_mounted_anywhere() {
    let lab = started();
    let mounts = |boot: &str| {
        let text = format!("{ROOT}40 28 8:1 / /mnt/esp rw - vfat /dev/sda1 rw\n{boot}");
        lab.write("m/proc/self/mountinfo", text);
    };
    fs::create_dir_all(lab.path().join("m/mnt")).unwrap();
    fs::rename(lab.path().join("m/boot"), lab.path().join("m/mnt/esp")).unwrap();
    lab.write("m/boot/loader/loader.conf", "default other*\n");
    lab.write("m/boot/loader/entries/other.conf", "linux /other\n");
    lab.write("m/boot/other", "x");
    mounts("41 28 8:3 / /boot rw - ext4 /dev/sda3 rw\n");
    let found = read(&lab);
    no_problems(&found);
    assert_eq!(texts(&found, "id").len(), 3);
    let default = marks(&found)[0].unwrap();
    assert_eq!(texts(&found, "kernel")[default], "/mnt/esp/vmlinuz-linux");

    // Another EFI system partition is none that systemd-boot reads.
    mounts("41 28 8:17 / /boot rw - vfat /dev/sdb1 rw\n");
    esp(&lab, "sdb1", 17, "bbbb-1");
    let found = read(&lab);
    assert_eq!(texts(&found, "id"), ["arch.conf", "arch-fallback.conf"]);
    let what = "an EFI system partition that the boot loader was not started from: its entries are left out";
    assert_eq!(
        found["problems"],
        json!([{ "file": "/boot", "problem": what }])
    );
}

/// What systemd-boot starts is none of the entries: Windows, or the firmware's menu.
#[test]
fn another_system_is_not_replaced_by_linux() {
    let refused = |lab: &Lab, what: &str| {
        let said = lab.fails(1, &["plan", "--root", "m", "--entry", "default"]);
        assert!(
            said.contains("which entry is the default is not known"),
            "{said}"
        );
        assert!(
            said.contains(&format!("{what} is none of the entries")),
            "{said}"
        );
    };
    for name in ["auto-windows", "auto-reboot-to-firmware-setup", "gone.conf"] {
        let lab = arch();
        variable(&lab, "LoaderEntryOneShot", name);
        assert_eq!(marks(&read(&lab))[..2], [Some(0), None]);
        refused(&lab, &format!("the one-shot entry `{name}`"));
    }
    for name in ["auto-windows", "AUTO-*", "*windows"] {
        let lab = arch();
        variable(&lab, "LoaderEntryDefault", name);
        assert_eq!(marks(&read(&lab))[0], None, "{name}");
        refused(&lab, &format!("the default `{name}`"));
        // What goes before it has the choice.
        variable(&lab, "LoaderEntryPreferred", "arch-f*");
        assert_eq!(marks(&read(&lab))[0], Some(1));
    }
    let lab = arch();
    variable(&lab, "LoaderEntryDefault", "*");
    assert_eq!(marks(&read(&lab))[0], Some(0));
}
