//! extlinux on a BIOS, installed by Debian's own program.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::disk::Disk;
use super::{Case, files, initrd, prove, system};
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, line};
use crate::trip::host_file;

const UUID: &str = "7c3a5b1e-5f0d-4b55-a2c9-0123456789ab";
const CONFIG: &str = "/boot/extlinux/extlinux.conf";
/// Labels of each configuration.
const NAMES: [&str; 3] = ["one", "two", "three"];

/// The disk with everything but ldlinux.sys, which `install` adds.
fn disk(loaders: &Path) -> Result<Disk> {
    let kernel = host_file(&Kernel::small()?.image())?;
    let tree = system()?;
    for name in NAMES {
        tree.file(&format!("boot/vmlinuz-{name}"), &kernel)?;
        let initrd = initrd(name, "/dev/vda1")?;
        tree.file(&format!("boot/initrd-{name}"), &initrd)?;
    }
    let modules = loaders.join("usr/lib/syslinux/modules/bios");
    for module in ["menu.c32", "libutil.c32", "libcom32.c32"] {
        let content = host_file(&modules.join(module))?;
        tree.file(&format!("boot/extlinux/{module}"), &content)?;
    }
    let first = config("DEFAULT one\n", "");
    tree.file(CONFIG.trim_start_matches('/'), first.as_bytes())?;
    // extlinux knows nothing of what ext4 has more.
    let disk = Disk::new(
        "dos",
        &[("type=83, bootable", &tree.ext("ext2", UUID, 64)?)],
    )?;
    let code = host_file(&loaders.join("usr/lib/EXTLINUX/mbr.bin"))?;
    disk.boot_code(&code, &[])?;
    Ok(disk)
}

/// A configuration: what stands before the labels, and what is in the second one besides.
fn config(head: &str, second: &str) -> String {
    let mut text = head.to_owned();
    for name in NAMES {
        text += &format!(
            "LABEL {name}\n  LINUX ../vmlinuz-{name}\n  APPEND initrd=../initrd-{name} {} label={name}\n",
            line!("quiet")
        );
        if name == "two" {
            text += second;
        }
    }
    text
}

/// Installs extlinux on the disk, which only a kernel can that has it mounted.
fn install(loaders: &Path, disk: &Disk) -> Result<()> {
    let program = loaders.join("usr/bin/extlinux");
    let drive = format!(
        "file={},if=virtio,format=raw,cache=unsafe",
        disk.path().display()
    );
    let guest = Guest::new("landing-extlinux-install", &Kernel::small()?)
        .args(["-drive", &drive])
        // The partition is mounted meanwhile.
        .append("bdev_allow_write_mounted=1")
        .program(program.to_str().context("a path that is no text")?)?
        .executable("bin/extlinux", &host_file(&program)?);
    let script = "mkdir /mnt
         try mount mount -t ext4 /dev/vda1 /mnt
         try install extlinux --install /mnt/boot/extlinux
         try umount umount /mnt";
    let outcome = guest.script(script).run()?;
    outcome.stage(1).map(drop)
}

fn cases() -> Vec<Case> {
    let case = |what, head: &str, second: &str, initrd, word| Case {
        what,
        set: format!("cat >{CONFIG} <<'END'\n{}END", config(head, second)),
        initrd,
        word,
    };
    vec![
        case("a default", "DEFAULT two\n", "", "two", "label=two"),
        // Neither of both counts where nobody is asked.
        case(
            "without a prompt and without a menu",
            "DEFAULT three\nONTIMEOUT one\n",
            "  MENU DEFAULT\n",
            "three",
            "label=three",
        ),
        case(
            "a prompt",
            "DEFAULT one\nPROMPT 1\nTIMEOUT 10\nONTIMEOUT three\n",
            "",
            "three",
            "label=three",
        ),
        case(
            "a menu",
            "UI menu.c32\nTIMEOUT 10\nDEFAULT three\n",
            "  MENU DEFAULT\n",
            "three",
            "label=three",
        ),
        case(
            "a default with more words",
            "DEFAULT two more=words\n",
            "",
            "two",
            "more=words",
        ),
    ]
}

#[test]
fn extlinux() -> Result<()> {
    let loaders = lab::part("loaders")?;
    let (disk, cases) = (disk(&loaders)?, cases());
    install(&loaders, &disk)?;
    let files = files("", "", &cases)?;
    let guest = Guest::from_disk("landing-extlinux", disk.path(), files)?;
    prove(guest, &cases).map(drop)
}
