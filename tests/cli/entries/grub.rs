//! GRUB, as distributions configure it.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use super::{
    GRUB_HEAD, MOUNTS, debian, entries, files, grub_entry, grubenv, link, machine, marks,
    no_problems, read, texts,
};
use crate::Lab;

/// The files of a kernel on Fedora and its relatives.
fn kernel_and_initramfs(lab: &Lab, version: &str) {
    files(
        lab,
        &[
            &format!("/boot/vmlinuz-{version}"),
            &format!("/boot/initramfs-{version}.img"),
        ],
    );
}

#[test]
fn debian_12_with_grub() {
    let lab = debian();
    lab.write(
        "m/boot/grub/grubenv",
        grubenv("saved_entry=gnulinux-advanced>gnulinux-6.1.0-17-amd64-advanced\n"),
    );
    let found = read(&lab);
    no_problems(&found);
    assert_eq!(
        texts(&found, "id"),
        [
            "gnulinux-simple",
            "gnulinux-advanced>gnulinux-6.1.0-18-amd64-advanced",
            "gnulinux-advanced>gnulinux-6.1.0-17-amd64-advanced",
        ]
    );
    // The path in grub.cfg begins at the file system of /boot.
    assert_eq!(texts(&found, "kernel")[2], "/boot/vmlinuz-6.1.0-17-amd64");
    assert_eq!(
        entries(&found)[2]["initrds"],
        json!(["/boot/initrd.img-6.1.0-17-amd64"])
    );
    assert_eq!(texts(&found, "cmdline")[0], "root=UUID=r007 ro quiet");
    assert_eq!(texts(&found, "source")[0], "grub");
    assert_eq!(marks(&found), [Some(2), None, Some(2)]);
    assert_eq!(found["schema"], 1);

    lab.write(
        "m/boot/grub/grubenv",
        grubenv("next_entry=gnulinux-simple\nsaved_entry=1>0\n"),
    );
    assert_eq!(marks(&read(&lab)), [Some(1), Some(0), Some(2)]);
}

#[test]
fn the_first_lines_are_the_answer() {
    let lab = debian();
    lab.write("m/boot/grub/grubenv", grubenv("next_entry=1>1\n"));
    let text = lab.succeeds(&["entries", "--root", "m"]);
    let mut lines = text.lines();
    assert_eq!(
        lines.next().unwrap(),
        "next boot: gnulinux-advanced>gnulinux-6.1.0-17-amd64-advanced (Debian GNU/Linux, with Linux 6.1.0-17-amd64), once"
    );
    assert_eq!(
        lines.next().unwrap(),
        "default: gnulinux-simple (Debian GNU/Linux)"
    );
    assert!(
        text.contains("\nGRUB, /boot/grub/grub.cfg:\n  gnulinux-simple"),
        "{text}"
    );
    let all = lab.succeeds(&["entries", "-v", "--root", "m"]);
    assert!(
        all.contains("command line  root=UUID=r007 ro quiet\n"),
        "{all}"
    );
    assert!(all.contains("[next boot, current]"), "{all}");
}

#[test]
fn missing_files_and_file_systems_are_said() {
    let lab = debian();
    lab.write("m/boot/grub/grubenv", grubenv("saved_entry=0\n"));
    fs::remove_file(lab.path().join("m/boot/initrd.img-6.1.0-18-amd64")).unwrap();
    fs::remove_file(lab.path().join("m/dev/disk/by-uuid/b00t")).unwrap();
    let text = fs::read_to_string(lab.path().join("m/boot/grub/grub.cfg")).unwrap();
    // The first entry searches a file system that is there, but not mounted.
    link(&lab, "m/dev/disk/by-uuid/900d", "../../sdb1");
    link(&lab, "m/dev/disk/by-uuid/b00t", "../../sda1");
    lab.write("m/boot/grub/grub.cfg", text.replacen("b00t", "900d", 1));
    let found = read(&lab);
    let problems = |number: usize| entries(&found)[number]["problems"].to_string();
    assert!(problems(0).contains(
        "/vmlinuz-6.1.0-18-amd64 lies on the file system with the UUID 900d, which is not mounted"
    ));
    assert_eq!(
        problems(1),
        "[\"/boot/initrd.img-6.1.0-18-amd64: no such file\"]"
    );
    assert_eq!(problems(2), "[]");
    assert_eq!(entries(&found)[1]["usable"], json!(false));
    let text = lab.succeeds(&["entries", "--root", "m"]);
    assert!(
        text.contains("cannot be booted\n    /boot/initrd.img-6.1.0-18-amd64: no such file\n"),
        "{text}"
    );
}

#[test]
fn no_path_leads_out_of_the_machine() {
    let lab = debian();
    lab.write("m/boot/grub/grubenv", grubenv("saved_entry=0\n"));
    lab.write("secret", "s");
    let kernel = lab.path().join("m/boot/vmlinuz-6.1.0-18-amd64");
    fs::remove_file(&kernel).unwrap();
    for target in [
        "/etc/passwd",
        "../../secret",
        "../../../../../../../../etc/passwd",
    ] {
        symlink(target, &kernel).unwrap();
        let found = read(&lab);
        assert_eq!(
            entries(&found)[0]["usable"],
            json!(false),
            "{target}: {found:#}"
        );
        fs::remove_file(&kernel).unwrap();
    }
    symlink("/vmlinuz-6.1.0-17-amd64", &kernel).unwrap();
    assert_eq!(
        texts(&read(&lab), "kernel")[0],
        "/boot/vmlinuz-6.1.0-17-amd64"
    );
}

/// Fedora and RHEL 8, 9 and 10.
#[test]
fn fedora_with_blscfg() {
    let lab = machine(
        "6.8.5-301.fc40.x86_64",
        "BOOT_IMAGE=(hd0,gpt1)/vmlinuz-6.8.5-301.fc40.x86_64 root=UUID=r007 ro rhgb",
    );
    lab.write("m/proc/self/mountinfo", MOUNTS);
    link(&lab, "m/dev/disk/by-uuid/b00t", "../../sda1");
    lab.write(
        "m/boot/grub2/grub.cfg",
        format!("{GRUB_HEAD}search --no-floppy --fs-uuid --set=root b00t\ninsmod blscfg\nblscfg\n"),
    );
    lab.write(
        "m/boot/grub2/grubenv",
        grubenv("saved_entry=aaaa-6.8.5-301.fc40.x86_64\nkernelopts=root=UUID=r007 ro rhgb\n"),
    );
    for version in ["6.8.5-301.fc40.x86_64", "6.10.1-200.fc40.x86_64"] {
        lab.write(
            &format!("m/boot/loader/entries/aaaa-{version}.conf"),
            format!(
                "title Fedora Linux ({version}) 40\nversion {version}\nlinux /vmlinuz-{version}\n\
                 initrd /initramfs-{version}.img $tuned_initrd\noptions $kernelopts $tuned_params\n\
                 grub_users $grub_users\ngrub_arg --unrestricted\ngrub_class fedora\n"
            ),
        );
        kernel_and_initramfs(&lab, version);
    }
    let found = read(&lab);
    no_problems(&found);
    assert_eq!(
        texts(&found, "id"),
        ["aaaa-6.10.1-200.fc40.x86_64", "aaaa-6.8.5-301.fc40.x86_64"]
    );
    assert_eq!(texts(&found, "source"), ["grub-bls"; 2]);
    assert_eq!(texts(&found, "version")[0], "6.10.1-200.fc40.x86_64");
    assert_eq!(texts(&found, "cmdline"), ["root=UUID=r007 ro rhgb"; 2]);
    assert_eq!(marks(&found), [Some(1), None, Some(1)]);
}

#[test]
fn centos_7_names_its_default_by_title() {
    let lab = machine(
        "3.10.0-1127.el7.x86_64",
        "BOOT_IMAGE=/vmlinuz-3.10.0-1127.el7.x86_64 root=/dev/mapper/centos-root ro",
    );
    lab.write("m/proc/self/mountinfo", MOUNTS);
    let entry = |version: &str| {
        format!(
            "menuentry 'CentOS Linux ({version}) 7 (Core)' --unrestricted $menuentry_id_option 'gnulinux-{version}-advanced' {{\n\
             set root='hd0,msdos1'\n linux16 /vmlinuz-{version} root=/dev/mapper/centos-root ro\n\
             initrd16 /initramfs-{version}.img\n}}\n"
        )
    };
    let versions = ["3.10.0-1160.el7.x86_64", "3.10.0-1127.el7.x86_64"];
    // On EFI machines it lies on the EFI system partition.
    lab.write(
        "m/boot/efi/EFI/centos/grub.cfg",
        format!("{GRUB_HEAD}{}", versions.map(entry).concat()),
    );
    lab.write(
        "m/boot/efi/EFI/centos/grubenv",
        grubenv("saved_entry=CentOS Linux (3.10.0-1127.el7.x86_64) 7 (Core)\n"),
    );
    for version in versions {
        kernel_and_initramfs(&lab, version);
    }
    let found = read(&lab);
    no_problems(&found);
    assert_eq!(texts(&found, "file"), ["/boot/efi/EFI/centos/grub.cfg"; 2]);
    assert_eq!(
        texts(&found, "kernel")[1],
        "/boot/vmlinuz-3.10.0-1127.el7.x86_64"
    );
    assert_eq!(marks(&found), [Some(1), None, Some(1)]);
}

/// The root is a subvolume, and grub.cfg has paths from the file system's own root; openSUSE's
/// paths begin at the default subvolume.
#[test]
fn opensuse_and_other_subvolumes() {
    for path in ["/@/boot", "/boot"] {
        let lab = machine("6.4.0-150600.21-default", "root=UUID=r007 ro quiet");
        lab.write(
            "m/proc/self/mountinfo",
            "28 1 0:30 /@ / rw - btrfs /dev/mapper/system-root rw\n",
        );
        link(&lab, "m/dev/mapper/system-root", "../dm-0");
        link(&lab, "m/dev/disk/by-uuid/b00t", "../../dm-0");
        let version = "6.4.0-150600.21-default";
        lab.write(
            "m/boot/grub2/grub.cfg",
            format!(
                "set btrfs_relative_path=\"y\"\n{GRUB_HEAD}{}",
                grub_entry("openSUSE Leap", "simple", path, version)
            ),
        );
        files(
            &lab,
            &[
                &format!("/boot/vmlinuz-{version}"),
                &format!("/boot/initrd.img-{version}"),
            ],
        );
        let found = read(&lab);
        no_problems(&found);
        assert_eq!(
            texts(&found, "kernel"),
            [format!("/boot/vmlinuz-{version}")],
            "{path}"
        );
        assert_eq!(marks(&found), [Some(0), None, Some(0)]);
    }
}

/// The root is mounted as /dev/root, or as another device of the same file system.
#[test]
fn a_file_system_has_more_than_one_name() {
    let version = "6.1.0";
    for (device, source) in [("8:2", "/dev/root"), ("0:30", "/dev/sdb2")] {
        let lab = machine(version, "root=UUID=r007 ro quiet");
        lab.write(
            "m/proc/self/mountinfo",
            format!("28 1 {device} / / rw - btrfs {source} rw\n"),
        );
        link(&lab, "m/dev/disk/by-uuid/b00t", "../../sda2");
        lab.write("m/sys/class/block/sda2/dev", "8:2\n");
        for name in ["sda2", "sdb2"] {
            lab.write(&format!("m/sys/fs/btrfs/b00t/devices/{name}"), "");
        }
        lab.write(
            "m/boot/grub/grub.cfg",
            format!(
                "{GRUB_HEAD}{}",
                grub_entry("Linux", "simple", "/boot", version)
            ),
        );
        files(&lab, &["/boot/vmlinuz-6.1.0", "/boot/initrd.img-6.1.0"]);
        no_problems(&read(&lab));
    }
}

#[test]
fn ubuntu_with_a_snippet_of_its_own_and_a_password() {
    let lab = machine("6.8.0-31-generic", "root=UUID=r007 ro quiet");
    let head = "set superusers=\"root\"\npassword_pbkdf2 root grub.pbkdf2.sha512.1.2\n";
    let vt = "function gfxmode {\n set gfxpayload=\"${1}\"\n if [ \"${1}\" = keep ]; then\n  set vt_handoff=vt.handoff=7\n fi\n}\n";
    lab.write(
        "m/boot/grub/grub.cfg",
        format!(
            "{head}{GRUB_HEAD}{vt}menuentry 'Ubuntu' --unrestricted {{\n gfxmode keep\n\
             linux /boot/vmlinuz-6.8.0-31-generic root=UUID=r007 ro quiet $vt_handoff\n}}\n\
             menuentry 'Locked' {{\n linux /boot/vmlinuz-6.8.0-31-generic\n}}\n"
        ),
    );
    files(&lab, &["/boot/vmlinuz-6.8.0-31-generic"]);
    let found = read(&lab);
    assert_eq!(
        texts(&found, "cmdline")[0],
        "root=UUID=r007 ro quiet vt.handoff=7"
    );
    assert_eq!(entries(&found)[0]["problems"], json!([]));
    assert!(
        entries(&found)[1]["problems"]
            .to_string()
            .contains("password")
    );
}
