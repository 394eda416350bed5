//! What others may have written on the disk, and what cannot be read.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::load::bootable;
use super::{
    GRUB_HEAD, MOUNTS, arch, debian, entries, files, grubenv, link, machine, marks, read, texts,
};

/// No link and no path on the EFI system partition leads out of it.
#[test]
fn no_path_leads_out_of_the_efi_system_partition() {
    let lab = arch();
    lab.write("m/etc/secret", "s");
    lab.write("m/boot/loader/entries/up.conf", "linux /../../etc/secret\n");
    link(&lab, "m/boot/out", "../etc/secret");
    link(&lab, "m/boot/absolute", "/etc/secret");
    lab.write("m/boot/loader/entries/out.conf", "linux /out\n");
    lab.write("m/boot/loader/entries/absolute.conf", "linux /absolute\n");
    symlink(
        "../../../etc/secret",
        lab.path().join("m/boot/loader/entries/link.conf"),
    )
    .unwrap();
    let found = read(&lab);
    for id in ["up.conf", "out.conf", "absolute.conf"] {
        let entry = entries(&found)
            .iter()
            .find(|entry| entry["id"] == id)
            .unwrap();
        assert_eq!(entry["usable"], json!(false), "{entry:#}");
    }
    let ids = texts(&found, "id");
    assert!(!ids.contains(&"link.conf".to_owned()), "{ids:?}");
    assert!(
        found["problems"].to_string().contains("link.conf"),
        "{found:#}"
    );
}

/// The same file with several counters: sorting has an answer.
#[test]
fn many_counters_of_one_entry() {
    let lab = arch();
    for number in 0..40 {
        let name = format!("m/boot/loader/entries/arch+{number}.conf");
        lab.write(&name, "linux /vmlinuz-linux\n");
    }
    assert_eq!(entries(&read(&lab)).len(), 42);
}

/// A file system that /etc/fstab has for /boot may hold the default.
#[test]
fn the_default_is_not_known_without_the_file_system_of_boot() {
    let lab = machine("6.1.0", "quiet");
    lab.write(
        "m/proc/self/mountinfo",
        "28 1 8:2 / / rw - ext4 /dev/sda2 rw\n",
    );
    lab.write("m/etc/fstab", "UUID=b00t /boot ext4 noauto 0 2\n");
    link(&lab, "m/vmlinuz", "boot/vmlinuz-6.1.0");
    link(&lab, "m/initrd.img", "boot/initrd.img-6.1.0");
    files(&lab, &["/boot/vmlinuz-6.1.0", "/boot/initrd.img-6.1.0"]);
    let found = read(&lab);
    let what = "the partition of /boot in /etc/fstab that is not mounted: its entries are not seen";
    assert_eq!(
        found["problems"],
        json!([{ "file": "UUID=b00t", "problem": what }])
    );
    assert_eq!(marks(&found)[0], None);
    let said = lab.fails(1, &["plan", "--root", "m", "--entry", "default"]);
    assert!(
        said.contains("which entry is the default is not known"),
        "{said}"
    );
    // It is mounted, or no device.
    for fstab in ["/dev/sda2 /boot ext4", "/sysroot/boot /boot none bind"] {
        lab.write("m/etc/fstab", fstab);
        lab.write("m/sys/class/block/sda2/dev", "8:2\n");
        let found = read(&lab);
        assert_eq!(
            (marks(&found)[0], &found["problems"]),
            (Some(0), &json!([]))
        );
    }
}

/// Of a RAID the RAID is mounted, not its parts.
#[test]
fn parts_of_a_raid_are_not_missed() {
    let lab = debian();
    lab.write("m/boot/grub/grubenv", grubenv(""));
    lab.write("m/sys/class/block/sdb1/dev", "8:17\n");
    lab.write("m/sys/class/block/sdb1/holders/md0/dev", "9:0\n");
    let data = "E:ID_PART_ENTRY_TYPE=c12a7328-f81f-11d2-ba4b-00a0c93ec93b\n";
    lab.write("m/run/udev/data/b8:17", data);
    assert_eq!(read(&lab)["problems"], json!([]));
}

#[test]
fn a_missing_link_to_the_initrd_is_a_fault() {
    let lab = bootable();
    fs::remove_dir_all(lab.path().join("m/boot/grub")).unwrap();
    lab.write("m/proc/self/mountinfo", MOUNTS);
    link(&lab, "m/vmlinuz", "boot/vmlinuz-1");
    let found = read(&lab);
    let problems = entries(&found)[0]["problems"].to_string();
    assert!(problems.contains("/initrd.img: no such file"), "{problems}");
    let plan = |args: &[&str]| {
        let head = [
            "plan",
            "-q",
            "--root",
            "m",
            "--entry",
            "vmlinuz",
            "--cmdline",
            "x",
        ];
        lab.run(&[&head, args].concat())
    };
    let ended = plan(&[]);
    assert!(ended.err.contains("/initrd.img: no such file"), "{ended:?}");
    assert_eq!(plan(&["--initrd", "m/boot/initrd-1"]).code, Some(0));
    // It need not be a link.
    lab.write("m/initrd.img", "070701");
    assert_eq!(entries(&read(&lab))[0]["initrds"], json!(["/initrd.img"]));
}

/// What is in a file that cannot be read is not known; one that is not there has nothing.
#[test]
fn an_included_file_that_cannot_be_read_may_hold_the_default() {
    let lab = machine("6.1.0", "quiet");
    lab.write("m/proc/self/mountinfo", MOUNTS);
    lab.write(
        "m/boot/extlinux/extlinux.conf",
        "include more.conf\nlabel a\n linux /a\n",
    );
    files(&lab, &["/boot/a"]);
    let found = read(&lab);
    assert_eq!(marks(&found)[0], Some(0));
    assert!(
        found["problems"]
            .to_string()
            .contains("more.conf: no such file"),
        "{found:#}"
    );
    fs::create_dir(lab.path().join("m/boot/extlinux/more.conf")).unwrap();
    let found = read(&lab);
    assert_eq!(marks(&found)[0], None);
    let problems = found["problems"].to_string();
    assert!(
        problems.contains("more.conf: a directory, not a regular file"),
        "{problems}"
    );
}

/// Without --unrestricted an entry asks for a password as soon as superusers are set, also to
/// nobody. An entry with its own users does so as well.
#[test]
fn entries_behind_a_password_are_not_booted_unasked() {
    for superusers in ["root", ""] {
        let lab = bootable();
        lab.write(
            "m/boot/grub/grub.cfg",
            format!(
                "{GRUB_HEAD}set superusers=\"{superusers}\"\nexport superusers\n\
                 menuentry 'Locked' --id locked {{ linux /vmlinuz-1\n}}\n\
                 menuentry 'Users' --users bob --id users {{ linux /vmlinuz-1\n}}\n\
                 submenu 'More' --id more {{\n menuentry 'Inner' --unrestricted --id inner {{ linux /vmlinuz-1\n}}\n}}\n\
                 menuentry 'Open' --unrestricted --id open {{ linux /vmlinuz-1\n}}\n"
            ),
        );
        lab.write("m/boot/grub/grubenv", grubenv("saved_entry=locked\n"));
        let found = read(&lab);
        let usable = entries(&found).iter().map(|entry| &entry["usable"]);
        let usable: Vec<_> = usable.collect();
        assert_eq!(usable, [false, false, false, true], "{found:#}");
        for name in ["locked", "default", "inner"] {
            let said = lab.fails(1, &["plan", "--root", "m", "--entry", name]);
            assert!(said.contains("asks for a password"), "{said}");
        }
        lab.succeeds(&["plan", "-q", "--root", "m", "--entry", "open"]);
    }
}
