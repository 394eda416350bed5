//! GRUB on a BIOS, with the grub.cfg that Debian's own grub-mkconfig writes.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::disk::Disk;
use super::{Case, files, initrd, prove, system};
use crate::initramfs::Archive;
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, line};
use crate::trip::host_file;

/// That of the root file system.
const UUID: &str = "6a0b8c2e-0c1f-4a55-9d6e-0123456789ab";
/// What the kernels are called. The older one is not the default of the menu.
const NEW: &str = "6.12.9-amd64";
const OLD: &str = "6.1.0-38-amd64";
/// Programs of GRUB that run on the machine.
const PROGRAMS: [&str; 8] = [
    "usr/bin/grub-editenv",
    "usr/bin/grub-mkrelpath",
    "usr/bin/grub-script-check",
    "usr/sbin/grub-mkconfig",
    "usr/sbin/grub-probe",
    "usr/sbin/grub-reboot",
    "usr/sbin/grub-set-default",
    "usr/bin/grub-file",
];
const LIBRARIES: &str = "lib/x86_64-linux-gnu";
const MAPPER: &str = "libdevmapper.so.1.02.1";

/// The link is udev's, and grub-mkconfig looks for it.
const AT_BOOT: &str = "mkdir -p /dev/disk/by-uuid
ln -s ../../vda1 /dev/disk/by-uuid/UUID
if [ -e /boot/grub/grubenv ]; then grub-editenv - list | record environment; fi\n";

/// The first boot's grub.cfg is of the test; the next one is that of Debian.
const FIRST: &str = "try mkconfig grub-mkconfig -o /boot/grub/grub.cfg
record grub.cfg </boot/grub/grub.cfg\n";

/// The disk: GRUB behind the table of partitions, as grub-install puts it there.
fn disk(loaders: &Path) -> Result<Disk> {
    let kernel = host_file(&Kernel::small()?.image())?;
    let tree = system()?;
    for version in [OLD, NEW] {
        tree.file(&format!("boot/vmlinuz-{version}"), &kernel)?;
        let name = format!("boot/initrd.img-{version}");
        tree.file(&name, &initrd(version, "/dev/vda1")?)?;
    }
    let from = loaders.join("usr/lib/grub/i386-pc");
    for entry in std::fs::read_dir(&from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(".mod") || name.ends_with(".lst") {
            tree.file(
                &format!("boot/grub/i386-pc/{name}"),
                &host_file(&entry.path())?,
            )?;
        }
    }
    let first = format!(
        "linux /boot/vmlinuz-{NEW} {}\ninitrd /boot/initrd.img-{NEW}\nboot\n",
        line!("quiet")
    );
    tree.file("boot/grub/grub.cfg", first.as_bytes())?;
    let defaults = format!(
        "GRUB_DEFAULT=saved\nGRUB_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\n\
         GRUB_CMDLINE_LINUX_DEFAULT=quiet\nGRUB_CMDLINE_LINUX='{}'\n\
         GRUB_TERMINAL=console\nGRUB_GFXPAYLOAD_LINUX=text\n",
        line!("")
    );
    tree.file("etc/default/grub", defaults.as_bytes())?;
    let disk = Disk::new(
        "dos",
        &[("type=83, bootable", &tree.ext("ext4", UUID, 96)?)],
    )?;

    let core = tempfile::NamedTempFile::new()?;
    lab::output(
        Command::new(loaders.join("usr/bin/grub-mkimage"))
            .env("LD_LIBRARY_PATH", loaders.join(LIBRARIES))
            .args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-d"])
            .arg(&from)
            .arg("-o")
            .arg(core.path())
            .args(["biosdisk", "part_msdos", "ext2"]),
    )?;
    disk.boot_code(
        &host_file(&from.join("boot.img"))?,
        &host_file(core.path())?,
    )?;
    Ok(disk)
}

/// GRUB's programs, with dpkg, by which Debian's grub-mkconfig compares versions, and the
/// shell of Debian: that of busybox takes the dpkg of busybox for it.
fn programs(loaders: &Path, archive: &mut Archive) -> Result<()> {
    let library = format!("{LIBRARIES}/{MAPPER}");
    archive.program(&loaders.join(&library), &library)?;
    for path in PROGRAMS {
        archive.program(&loaders.join(path), path)?;
    }
    archive.program(Path::new("/usr/bin/dpkg"), "usr/bin/dpkg")?;
    archive.program(Path::new("/bin/dash"), "bin/sh")?;
    for directory in ["etc/grub.d", "usr/share/grub", "usr/lib/grub"] {
        for entry in std::fs::read_dir(loaders.join(directory))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let content = host_file(&entry.path())?;
                archive.file(&format!("{directory}/{name}"), 0o755, &content);
            }
        }
    }
    Ok(())
}

fn cases() -> Vec<Case> {
    let case = |what, set: &str, initrd, word| Case {
        what,
        set: set
            .replace("UUID", UUID)
            .replace("OLD", OLD)
            .replace("NEW", NEW),
        initrd,
        word,
    };
    vec![
        case(
            "saved_entry by ids",
            "grub-set-default 'gnulinux-advanced-UUID>gnulinux-OLD-advanced-UUID'",
            OLD,
            "quiet",
        ),
        case(
            "by titles",
            "grub-set-default 'Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux NEW (recovery mode)'",
            NEW,
            "single",
        ),
        case(
            "next_entry",
            "grub-reboot 'gnulinux-advanced-UUID>gnulinux-OLD-recovery-UUID'",
            OLD,
            "single",
        ),
        case(
            "a submenu, and none of its entries",
            "grub-set-default 1",
            NEW,
            "quiet",
        ),
        // As GRUB_DEFAULT has it.
        case(
            "by numbers, in grub.cfg itself",
            "sed -i 's/set default=.*saved_entry.*/set default=\"1>2\"/' /boot/grub/grub.cfg",
            OLD,
            "quiet",
        ),
    ]
}

/// The third case is that of next_entry: a cold boot takes it away, and a kexec does not.
#[test]
fn grub() -> Result<()> {
    let loaders = lab::part("loaders")?;
    let cases = cases();
    let at_boot = AT_BOOT.replace("UUID", UUID);
    let mut files = files(FIRST, &at_boot, &cases)?;
    programs(&loaders, &mut files)?;
    let disk = disk(&loaders)?;
    let outcome = prove(
        Guest::from_disk("landing-grub", disk.path(), files)?,
        &cases,
    )?;
    let next = |stage: u32| -> Result<bool> {
        let environment = outcome.stage(stage)?.text("environment")?;
        let mut lines = environment.lines();
        Ok(lines.any(|line| line.starts_with("next_entry=gnulinux-")))
    };
    assert_eq!([next(5)?, next(6)?, next(7)?], [false, true, false]);
    let said = outcome.stage(6)?.text("said")?;
    ensure!(said.contains("start once"), "{said}");
    Ok(())
}
