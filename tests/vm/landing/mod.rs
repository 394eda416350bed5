//! `rkexec reboot` lands in the boot entry that a cold reboot lands in.
//!
//! A machine with a boot loader of its own boots from its disk. For each case it sets what
//! decides about the entry, reboots by rkexec, says in which entry it is, resets, and says
//! it again. Both must be the same entry, and the one that the case expects.
//!
//! All entries have one kernel, the small one. They differ in their command lines and their
//! initrds, and the kernel that was started says both.

mod disk;
mod extlinux;
mod grub;
mod systemd_boot;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::initramfs::{self, Archive};
use crate::lab;
use crate::outcome::Outcome;
use crate::qemu::Guest;
use crate::witness::Stage;
use disk::Tree;

/// What the kernel says of the boot loader that started it, in the upper four bits
/// (`type_of_loader`): kexec.
const KEXEC: u32 = 0xd;
/// A machine boots a dozen times.
const TIMEOUT: Duration = Duration::from_secs(900);
/// What decides about the next entry, and which one is expected.
struct Case {
    what: &'static str,
    /// Shell that sets it.
    set: String,
    /// The initrd of the entry.
    initrd: &'static str,
    /// A word of its command line.
    word: &'static str,
}

/// Where a reboot landed.
#[derive(Debug, PartialEq, Eq)]
struct Landed<'a> {
    initrd: &'a str,
    /// Without what only a boot loader adds.
    cmdline: String,
}

impl<'a> Landed<'a> {
    fn of(stage: Stage<'a>) -> Result<Self> {
        let words = stage.text("cmdline")?.split(' ');
        // GRUB and SYSLINUX say which kernel and initrd they loaded.
        let own =
            words.filter(|word| !word.starts_with("BOOT_IMAGE=") && !word.starts_with("initrd="));
        Ok(Self {
            initrd: stage.text("initrd")?,
            cmdline: own.collect::<Vec<_>>().join(" "),
        })
    }

    /// The kernel file that the boot loader names on the command line.
    fn image(stage: Stage<'a>) -> Result<Option<&'a str>> {
        let mut words = stage.text("cmdline")?.split(' ');
        Ok(words.find_map(|word| word.strip_prefix("BOOT_IMAGE=")))
    }
}

/// Whether the kernel of the stage was started by kexec.
fn by_kexec(stage: Stage<'_>) -> Result<bool> {
    let number: u32 = stage.text("loader")?.parse()?;
    Ok(number >> 4 == KEXEC)
}

/// An initrd that says `name`, and starts the system on the partition `root`.
fn initrd(name: &str, root: &str) -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "root"] {
        archive.directory(directory);
    }
    archive.program(Path::new("/bin/busybox"), "bin/busybox")?;
    archive.file("init", 0o755, include_bytes!("initrd-init"));
    archive.file("name", 0o644, name.as_bytes());
    archive.file("root-device", 0o644, root.as_bytes());
    initramfs::gzip(&archive.finish())
}

/// What the root file system of every machine has.
fn system() -> Result<Tree> {
    let tree = Tree::new()?;
    for directory in [
        "bin", "dev", "proc", "sys", "run", "tmp", "etc", "efi", "boot",
    ] {
        tree.directory(directory)?;
    }
    tree.executable("bin/busybox", &std::fs::read("/bin/busybox")?)?;
    tree.executable("sbin/init", include_bytes!("init"))?;
    Ok(tree)
}

/// The files that come to the machine on the second disk: rkexec, and the scripts of all
/// stages. `first` runs before the first case; `at_boot` whenever the machine came up.
fn files(first: &str, at_boot: &str, cases: &[Case]) -> Result<Archive> {
    let mut archive = Archive::new();
    let dir = tempfile::tempdir()?;
    let rkexec = dir.path().join("rkexec");
    initramfs::stripped(&lab::rkexec()?, &rkexec)?;
    archive.program(&rkexec, "bin/rkexec")?;
    archive.file("etc/functions", 0o644, include_bytes!("../functions"));
    archive.file("test/at-boot", 0o644, at_boot.as_bytes());
    let mut script = first.to_owned();
    for (case, number) in cases.iter().zip(1..) {
        // The stage before the kexec, and the one behind it.
        script += &case.set;
        // What it prints goes to the disk before the jump: the next stage sends it.
        script += "\ntry entries rkexec entries --output json
            sent
            rkexec reboot >/reboot.out 2>/reboot.err || {
              record failed </reboot.err
              exit 1
            }
            sleep 60\n";
        let mut stage = |number: u32, script: &str| {
            archive.file(&format!("test/stage-{number}"), 0o644, script.as_bytes());
        };
        stage(2 * number - 1, &script);
        stage(
            2 * number,
            "record said </reboot.out\nrecord warned </reboot.err\nsent\ncold\n",
        );
        script.clear();
    }
    let last = 2 * cases.len() + 1;
    archive.file(&format!("test/stage-{last}"), 0o644, b"true\n");
    Ok(archive)
}

/// Runs all cases on one machine, and holds them against what they expect.
fn prove(guest: Guest, cases: &[Case]) -> Result<Outcome> {
    let outcome = guest.timeout(TIMEOUT).run()?;
    // The last boot tells that all came to pass.
    let last = u32::try_from(2 * cases.len() + 1)?;
    outcome.stage(last)?;
    for (case, number) in cases.iter().zip(1..) {
        landed(&outcome, case, number)
            .with_context(|| format!("{}: {}", outcome.log.display(), case.what))?;
    }
    Ok(outcome)
}

fn landed(outcome: &Outcome, case: &Case, number: u32) -> Result<()> {
    let [before, kexec, cold] =
        [2 * number - 1, 2 * number, 2 * number + 1].map(|stage| outcome.stage(stage));
    let (before, kexec, cold) = (before?, kexec?, cold?);
    ensure!(
        by_kexec(kexec)? && !by_kexec(cold)?,
        "not by kexec, or not cold"
    );
    let (rkexec, loader) = (Landed::of(kexec)?, Landed::of(cold)?);
    ensure!(
        rkexec == loader,
        "rkexec boots {rkexec:?}, the boot loader {loader:?}"
    );
    let is_expected =
        loader.initrd == case.initrd && loader.cmdline.split(' ').any(|word| word == case.word);
    ensure!(is_expected, "both boot {loader:?}");
    // All kernels are alike: the names of their files must be.
    if let Some(image) = Landed::image(cold)? {
        let file = next_kernel(before)?;
        let name = |path: &str| path.rsplit('/').next().map(str::to_owned);
        ensure!(
            name(&file) == name(image),
            "rkexec loads {file}, the boot loader {image}"
        );
    }
    Ok(())
}

/// The kernel file of the entry that `rkexec entries` says is next.
fn next_kernel(stage: Stage<'_>) -> Result<String> {
    let found: Value = serde_json::from_str(stage.text("entries.out")?)?;
    let entries = found["entries"].as_array().context("no entries")?;
    let next = |flag: &str| entries.iter().find(|entry| entry[flag] == true);
    let next = next("one_shot").or_else(|| next("default"));
    let kernel = next.and_then(|entry| entry["kernel"].as_str());
    Ok(kernel.context("no entry is next")?.to_owned())
}
