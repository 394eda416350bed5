//! Disks with partitions and file systems, made without root: mke2fs and mtools write the
//! file systems, sfdisk the table.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::lab;

const MIB: u64 = 1 << 20;
/// Where the first partition begins, as every tool has it.
const FIRST: u64 = MIB;

/// What is to be on a file system, as a directory.
pub(super) struct Tree(tempfile::TempDir);

impl Tree {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    pub(super) fn directory(&self, path: &str) -> Result<()> {
        Ok(fs::create_dir_all(self.path(path))?)
    }

    /// A file, with the directories above it.
    pub(super) fn file(&self, path: &str, content: &[u8]) -> Result<()> {
        let to = self.path(path);
        fs::create_dir_all(to.parent().context("no directory")?)?;
        fs::write(&to, content).with_context(|| path.to_owned())
    }

    pub(super) fn executable(&self, path: &str, content: &[u8]) -> Result<()> {
        self.file(path, content)?;
        let mode = fs::Permissions::from_mode(0o755);
        Ok(fs::set_permissions(self.path(path), mode)?)
    }

    /// The file system as ext2, ext3 or ext4, of `mib` MiB, with that UUID.
    pub(super) fn ext(&self, kind: &str, uuid: &str, mib: u64) -> Result<FileSystem> {
        let image = tempfile::NamedTempFile::new()?;
        lab::output(
            Command::new("/sbin/mke2fs")
                .args(["-q", "-F", "-t", kind, "-U", uuid, "-E", "root_owner=0:0"])
                .arg("-d")
                .args([self.0.path(), image.path()])
                .arg(format!("{mib}M")),
        )?;
        Ok(FileSystem { image, mib })
    }

    /// The file system as FAT, of `mib` MiB.
    pub(super) fn fat(&self, mib: u64) -> Result<FileSystem> {
        let image = tempfile::NamedTempFile::new()?;
        image.as_file().set_len(mib * MIB)?;
        let sectors = (mib * MIB / 512).to_string();
        let at = |command: &mut Command| -> Result<()> {
            lab::output(command.arg("-i").arg(image.path())).map(drop)
        };
        at(Command::new("mformat").args(["-T", &sectors, "-h", "16", "-s", "63"]))?;
        let mut names = Vec::new();
        for entry in fs::read_dir(self.0.path())? {
            names.push(entry?.path());
        }
        let mut copy = Command::new("mcopy");
        copy.args(["-s", "-i"]).arg(image.path()).args(names);
        lab::output(copy.arg("::"))?;
        Ok(FileSystem { image, mib })
    }
}

/// A file system that was made.
pub(super) struct FileSystem {
    image: tempfile::NamedTempFile,
    mib: u64,
}

/// A disk.
pub(super) struct Disk(tempfile::NamedTempFile);

impl Disk {
    /// A disk with a table of the kind `label` (`dos` or `gpt`), and partitions: the type as
    /// sfdisk has it, and the file system.
    pub(super) fn new(label: &str, partitions: &[(&str, &FileSystem)]) -> Result<Self> {
        let disk = tempfile::NamedTempFile::new()?;
        let mut table = format!("label: {label}\n");
        let mut at = FIRST;
        for (kind, system) in partitions {
            let size = system.mib * MIB;
            table += &format!("start={}, size={}, {kind}\n", at / 512, size / 512);
            copy(system.image.path(), disk.as_file(), at)?;
            at += size;
        }
        // A GPT has a copy at the end.
        disk.as_file().set_len(at + MIB)?;
        let mut sfdisk = Command::new("/sbin/sfdisk");
        let mut sfdisk = sfdisk
            .arg("--quiet")
            .arg(disk.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .context("sfdisk")?;
        let mut input = sfdisk.stdin.take().context("sfdisk's input")?;
        input.write_all(table.as_bytes())?;
        drop(input);
        ensure!(sfdisk.wait()?.success(), "sfdisk fails for\n{table}");
        Ok(Self(disk))
    }

    /// Writes the start of the first sector, up to the table of partitions, and what follows
    /// from the second sector on.
    pub(super) fn boot_code(&self, first: &[u8], behind: &[u8]) -> Result<()> {
        let first = first.get(..440).unwrap_or(first);
        ensure!(512 + behind.len() as u64 <= FIRST, "no room for boot code");
        self.0.as_file().write_all_at(first, 0)?;
        Ok(self.0.as_file().write_all_at(behind, 512)?)
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Copies what is not zero in a file.
fn copy(from: &Path, to: &File, mut at: u64) -> Result<()> {
    let bytes = fs::read(from)?;
    for block in bytes.chunks(1 << 16) {
        if block.iter().any(|byte| *byte != 0) {
            to.write_all_at(block, at)?;
        }
        at += block.len() as u64;
    }
    Ok(())
}
