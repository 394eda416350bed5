//! systemd-boot: files of the Boot Loader Specification, and unified kernel images.

use std::fs;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::load::{bootable, plan};
use super::{MOUNTS, arch, entries, link, machine, marks, no_problems, read, texts, variable};
use crate::Lab;
use crate::common::pe::TinyPe;

#[test]
fn arch_with_systemd_boot() {
    let lab = arch();
    let found = read(&lab);
    no_problems(&found);
    assert_eq!(texts(&found, "id"), ["arch.conf", "arch-fallback.conf"]);
    assert_eq!(texts(&found, "kernel"), ["/boot/vmlinuz-linux"; 2]);
    assert_eq!(texts(&found, "cmdline"), ["root=PARTUUID=1 rw"; 2]);
    // Both have the running line: nothing tells them apart but their order.
    assert_eq!(marks(&found), [Some(0), None, Some(0)]);

    variable(&lab, "LoaderEntrySelected", "arch-fallback.conf");
    assert_eq!(marks(&read(&lab))[2], Some(0));
    variable(&lab, "LoaderInfo", "systemd-boot 255.4");
    assert_eq!(marks(&read(&lab))[2], Some(1));
    let current = ["plan", "--root", "m", "--entry", "current"];
    let said = lab.run(&current).err;
    assert!(
        said.contains("warning: the boot entry `arch-fallback.conf` has the running command line, but nothing tells the release"),
        "{said}"
    );

    variable(&lab, "LoaderEntryDefault", "arch-f*");
    variable(&lab, "LoaderEntryOneShot", "arch.conf");
    assert_eq!(marks(&read(&lab))[..2], [Some(1), Some(0)]);
    variable(&lab, "LoaderEntryPreferred", "ARCH.conf");
    // It is the default that the next boot starts.
    assert_eq!(marks(&read(&lab))[..2], [Some(0), None]);
    variable(&lab, "LoaderEntryDefault", "arch.conf");
    variable(&lab, "LoaderEntryPreferred", "@saved");
    variable(&lab, "LoaderEntryLastBooted", "arch-fallback.conf");
    assert_eq!(marks(&read(&lab))[0], Some(1));
    lab.write("m/boot/loader/loader.conf", "default auto-windows\n");
    for name in ["LoaderEntryDefault", "LoaderEntryPreferred"] {
        variable(&lab, name, "");
    }
    let found = read(&lab);
    assert_eq!(marks(&found)[0], None);
    assert!(
        found["problems"].to_string().contains("auto-windows"),
        "{found:#}"
    );
}

/// What systemd-boot would start is not known, and no other entry is shown in its place.
#[test]
fn variables_that_cannot_be_read() {
    let said = |lab: &Lab| {
        let found = read(lab);
        assert_eq!(marks(&found)[..2], [None, None], "{found:#}");
        let error = lab.fails(1, &["plan", "--root", "m", "--entry", "default"]);
        assert!(error.contains("is the default is not known"), "{error}");
        assert!(
            error.contains("systemd-boot may start another entry"),
            "{error}"
        );
        found["problems"].to_string()
    };
    let lab = arch();
    let efi = lab.path().join("m/sys/firmware/efi");
    fs::create_dir_all(&efi).unwrap();
    let none = "EFI variables cannot be read (efivarfs is not mounted there";
    assert!(said(&lab).contains(none));
    fs::create_dir(efi.join("efivars")).unwrap();
    assert!(said(&lab).contains(none));
    // The firmware has variables, and systemd-boot has set none.
    lab.write("m/sys/firmware/efi/efivars/Boot0000-x", "x");
    let found = read(&lab);
    no_problems(&found);
    assert_eq!(marks(&found)[0], Some(0));
    let name = "LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    let path = format!("m/sys/firmware/efi/efivars/{name}");
    lab.write(&path, b"attr\0\xd8a\0");
    assert!(said(&lab).contains("it is not UTF-16"));
    lab.write(&path, "");
    assert!(said(&lab).contains("it is cut short"));
    fs::remove_file(lab.path().join(&path)).unwrap();
    fs::create_dir(lab.path().join(&path)).unwrap();
    let problems = said(&lab);
    assert!(
        problems.contains(name) && problems.contains("cannot be read ("),
        "{problems}"
    );
    // GRUB reads none of them.
    lab.write(
        "m/boot/grub/grub.cfg",
        "menuentry 'GRUB' { linux /vmlinuz-linux }\n",
    );
    let found = read(&lab);
    no_problems(&found);
    assert_eq!(marks(&found)[0], Some(0));
}

#[test]
fn counters_put_entries_last() {
    let lab = arch();
    lab.write("m/boot/loader/loader.conf", "preferred new*\n");
    lab.write(
        "m/boot/loader/entries/new+0-3.conf",
        "title New\nsort-key aaa\nlinux /vmlinuz-linux\n",
    );
    let found = read(&lab);
    assert_eq!(
        texts(&found, "id"),
        ["arch.conf", "arch-fallback.conf", "new.conf"]
    );
    assert_eq!(marks(&found)[0], Some(0));
    let left = lab.path().join("m/boot/loader/entries/new+0-3.conf");
    fs::rename(left, lab.path().join("m/boot/loader/entries/new+2-1.conf")).unwrap();
    let found = read(&lab);
    assert_eq!(
        texts(&found, "id"),
        ["new.conf", "arch.conf", "arch-fallback.conf"]
    );
    assert_eq!(marks(&found)[0], Some(0));
}

#[test]
fn the_boot_loader_that_ran_last_decides() {
    let lab = arch();
    lab.write(
        "m/boot/grub/grub.cfg",
        "menuentry 'Old GRUB' { linux /vmlinuz-linux }\n",
    );
    assert_eq!(
        texts(&read(&lab), "id"),
        ["Old GRUB", "arch.conf", "arch-fallback.conf"]
    );
    assert_eq!(marks(&read(&lab))[0], Some(0));
    variable(&lab, "LoaderInfo", "systemd-boot 255.4");
    assert_eq!(
        texts(&read(&lab), "id"),
        ["arch.conf", "arch-fallback.conf", "Old GRUB"]
    );
    assert_eq!(marks(&read(&lab))[0], Some(0));
}

#[test]
fn a_grub_that_starts_no_more_hides_no_entries() {
    let lab = arch();
    lab.write("m/boot/grub/grub.cfg", "blscfg\n");
    let sources = || texts(&read(&lab), "source");
    assert_eq!(sources(), ["grub-bls"; 2]);
    variable(&lab, "LoaderInfo", "systemd-boot 255.4");
    assert_eq!(sources(), ["bls", "bls", "grub-bls", "grub-bls"]);
    assert_eq!(marks(&read(&lab))[0], Some(0));
}

/// Entries that systemd-boot leaves out of its menu are never its choice.
#[test]
fn what_systemd_boot_does_not_list_is_not_the_default() {
    let lab = arch();
    for (name, text) in [
        ("arch-other", "linux /vmlinuz-linux\narchitecture aa64\n"),
        ("arch-gone", "linux /gone\n"),
        ("arch-nothing", "title Nothing\n"),
        ("arch-tool", "efi /gone.efi\n"),
        ("auto-arch", "linux /vmlinuz-linux\n"),
    ] {
        let text = format!("sort-key a\n{text}");
        lab.write(&format!("m/boot/loader/entries/{name}.conf"), text);
    }
    lab.write("m/boot/EFI/Linux/arch-broken.efi", "text");
    lab.write("m/boot/loader/loader.conf", "default *arch*\n");
    variable(&lab, "LoaderEntryOneShot", "arch-other.conf");
    let found = read(&lab);
    let ids = texts(&found, "id");
    assert_eq!(ids.len(), 8, "{ids:?}");
    let [default, one_shot, _] = marks(&found);
    assert_eq!((&*ids[default.unwrap()], one_shot), ("arch.conf", None));
    let other = ids.iter().position(|id| id == "arch-other.conf").unwrap();
    assert_eq!(entries(&found)[other]["usable"], json!(false));
    lab.write("m/boot/loader/loader.conf", "timeout 1\n");
    let default = marks(&read(&lab))[0];
    assert_eq!(ids[default.unwrap()], "arch.conf");
}

/// A link to an image is an image: it brings its own command line.
#[test]
fn a_link_to_an_image_keeps_its_command_line() {
    let lab = bootable();
    fs::remove_file(lab.path().join("m/boot/grub/grub.cfg")).unwrap();
    lab.write("m/proc/self/mountinfo", MOUNTS);
    let image = TinyPe::uki().without(".dtb").build();
    lab.write("m/boot/efi/images/a.efi", image);
    link(&lab, "m/boot/efi/EFI/Linux/a.efi", "../../images/a.efi");
    let addon = TinyPe::new([(".cmdline", &b"added"[..])]).build();
    lab.write("m/boot/efi/EFI/Linux/a.efi.extra.d/own.addon.efi", addon);
    let ended = lab.run(&["plan", "--root", "m", "--entry", "a"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        !ended.err.contains("own command line is not used"),
        "{ended:?}"
    );
    let plan = plan(&lab, &["--entry", "a"]);
    assert_eq!(plan["cmdline"], "root=LABEL=x  quiet added");
}

#[test]
fn unified_kernel_images() {
    let lab = machine("6.12.0-tiny", "root=LABEL=x  quiet");
    lab.write("m/efi/EFI/Linux/debian-6.12+3.efi", TinyPe::uki().build());
    lab.write(
        "m/efi/EFI/Linux/two.efi",
        TinyPe::uki()
            .with(".profile", b"ID=main\n")
            .with(".profile", b"ID=rescue\nTITLE=Rescue\n")
            .with(".cmdline", b"single")
            .build(),
    );
    lab.write("m/efi/EFI/Linux/broken.efi", "text");
    lab.write("m/efi/EFI/Linux/notes.txt", "text");
    let found = read(&lab);
    assert_eq!(
        texts(&found, "id"),
        ["two.efi", "two.efi@1", "debian-6.12.efi", "broken.efi"]
    );
    assert_eq!(
        texts(&found, "title")[..3],
        ["Debian", "Debian (Rescue)", "Debian"]
    );
    assert_eq!(texts(&found, "version")[..3], ["6.12.0-tiny"; 3]);
    assert_eq!(texts(&found, "profile"), ["main", "rescue", "-", "-"]);
    assert_eq!(
        texts(&found, "cmdline")[..2],
        ["root=LABEL=x  quiet", "single"]
    );
    assert_eq!(
        texts(&found, "kernel")[2],
        "/efi/EFI/Linux/debian-6.12+3.efi"
    );
    assert_eq!(entries(&found)[3]["problems"], json!(["it is no PE file"]));
    assert_eq!(marks(&found), [Some(0), None, Some(0)]);
}

/// A stub of NixOS: the kernel and the initrd lie beside it, and it has their SHA-256.
#[test]
fn nixos_with_lanzaboote() {
    let lab = bootable();
    let hash = |text: &[u8]| Sha256::digest(text).to_vec();
    let kernel = fs::read(lab.path().join("vmlinuz")).unwrap();
    let stub = TinyPe::new([
        (
            ".osrel",
            &b"ID=nixos\nPRETTY_NAME=\"NixOS (Generation 2)\"\nVERSION_ID=Generation 2\n"[..],
        ),
        (".cmdline", b"init=/nix/store/x quiet"),
        (".linux", br"\EFI\nixos\kernel-6.12.efi"),
        (".linuxh", &hash(&kernel)),
        (".initrd", br"\EFI\nixos\initrd-6.12.efi"),
        (".initrdh", &hash(b"070701")),
    ]);
    lab.write("m/efi/EFI/Linux/nixos-generation-2.efi", stub.build());
    lab.write("m/efi/EFI/nixos/kernel-6.12.efi", kernel);
    lab.write("m/efi/EFI/nixos/initrd-6.12.efi", "070701");
    fs::remove_file(lab.path().join("m/boot/grub/grub.cfg")).unwrap();
    lab.write(
        "m/proc/self/mountinfo",
        "28 1 8:2 / / rw - ext4 /dev/sda2 rw\n41 28 8:1 / /efi rw - vfat /dev/sda1 rw\n",
    );
    let found = read(&lab);
    no_problems(&found);
    assert_eq!(texts(&found, "title"), ["NixOS (Generation 2)"]);
    assert_eq!(texts(&found, "kernel"), ["/efi/EFI/nixos/kernel-6.12.efi"]);
    assert_eq!(
        entries(&found)[0]["initrds"],
        json!(["/efi/EFI/nixos/initrd-6.12.efi"])
    );
    let args = ["plan", "-q", "--root", "m", "--entry", "nixos-generation-2"];
    lab.succeeds(&args);
    lab.write("m/efi/EFI/nixos/initrd-6.12.efi", "070702");
    let said = lab.fails(1, &args);
    assert!(
        said.contains("initrd-6.12.efi is not the file that the boot entry was made for"),
        "{said}"
    );
}

#[test]
fn addons_are_loaded_and_credentials_are_named() {
    let lab = bootable();
    fs::remove_file(lab.path().join("m/boot/grub/grub.cfg")).unwrap();
    lab.write("m/proc/self/mountinfo", MOUNTS);
    let image = TinyPe::uki().without(".dtb").build();
    lab.write("m/boot/efi/EFI/Linux/a+2.efi", image);
    let addon = |words: &[u8]| TinyPe::new([(".cmdline", words)]).build();
    lab.write(
        "m/boot/efi/EFI/Linux/a.efi.extra.d/own.addon.efi",
        addon(b"own"),
    );
    lab.write("m/boot/efi/EFI/Linux/a.efi.extra.d/secret.cred", "x");
    lab.write("m/boot/efi/loader/addons/all.addon.efi", addon(b"all"));
    // systemd-stub leaves it out.
    let other = TinyPe::new([(".cmdline", &b"other"[..]), (".uname", b"5.10")]).build();
    lab.write("m/boot/efi/loader/addons/other.addon.efi", other);
    let found = read(&lab);
    assert_eq!(
        entries(&found)[0]["addons"],
        json!([
            "/boot/efi/loader/addons/all.addon.efi",
            "/boot/efi/EFI/Linux/a.efi.extra.d/own.addon.efi"
        ])
    );
    assert!(
        entries(&found)[0]["problems"]
            .to_string()
            .contains("secret.cred"),
        "{found:#}"
    );
    assert_eq!(entries(&found)[0]["usable"], json!(true));
    let plan = plan(&lab, &["--entry", "a"]);
    assert_eq!(plan["cmdline"], "root=LABEL=x  quiet all own");
    let said = lab.run(&["plan", "--root", "m", "--entry", "a"]).err;
    assert!(
        said.contains("other.addon.efi is made for the kernel 5.10"),
        "{said}"
    );
    // Neither does it take what is no addon.
    lab.write("m/boot/efi/loader/addons/text.addon.efi", "text");
    let empty = TinyPe::new([(".sbat", &b"x"[..])]).build();
    lab.write("m/boot/efi/loader/addons/empty.addon.efi", empty);
    let ended = lab.run(&["plan", "--root", "m", "--entry", "a"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for why in [
        "text.addon.efi cannot be used (this is no addon for a UKI: it is no PE file)",
        "empty.addon.efi cannot be used (this is no addon for a UKI: it has none of",
    ] {
        assert!(ended.err.contains(why), "{ended:?}");
    }
    let own = lab.fails(
        1,
        &[
            "plan",
            "--root",
            "m",
            "--entry",
            "a",
            "--addon",
            "m/boot/efi/loader/addons/other.addon.efi",
        ],
    );
    assert!(
        own.contains("an addon is made for the kernel 5.10"),
        "{own}"
    );
}
