//! Initramfs archives: cpio "newc", as Documentation/driver-api/early-userspace/
//! buffer-format.rst in the kernel describes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::lab::{self, Kernel};

/// Modules that some guest needs; every guest of a Debian kernel carries them.
const MODULES: [&str; 13] = [
    "virtio_pci",
    "virtio_mem",
    "nd_e820",
    "nd_pmem",
    "dax_pmem",
    "device_dax",
    "kmem",
    "dax_hmem",
    "efivarfs",
    "qemu_fw_cfg",
    "virtio_blk",
    "minix",
    "i6300esb",
];

/// An archive in the making.
#[derive(Debug, Clone, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    /// Every path in it, so that directories and libraries come once.
    paths: BTreeSet<String>,
}

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A file, with the directories above it.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.directories_above(path);
        self.entry(path, 0o100_000 | mode, content);
    }

    /// An empty directory, with those above it.
    pub(crate) fn directory(&mut self, path: &str) {
        self.directories_above(&format!("{path}/x"));
    }

    /// A program of this machine, with the libraries that ldd says it needs.
    pub(crate) fn program(&mut self, path: &Path, to: &str) -> Result<()> {
        let content = fs::read(path).with_context(|| path.display().to_string())?;
        self.file(to, 0o755, &content);
        let mut ldd = Command::new("ldd");
        // A static program makes ldd fail; that it is static is all it says then.
        let listing = ldd.arg(path).output().context("running ldd")?;
        for line in String::from_utf8_lossy(&listing.stdout).lines() {
            let Some(library) = line.split_whitespace().find(|word| word.starts_with('/')) else {
                continue;
            };
            if !self.paths.contains(library.trim_start_matches('/')) {
                let content = fs::read(library).with_context(|| library.to_owned())?;
                self.file(library, 0o755, &content);
            }
        }
        Ok(())
    }

    /// The archive with its trailer.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn directories_above(&mut self, path: &str) {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            if !self.paths.contains(&path[..at]) {
                self.entry(&path[..at], 0o040_755, &[]);
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_start_matches('/');
        self.paths.insert(path.to_owned());
        // magic, ino, mode, uid, gid, nlink, mtime, filesize, dev and rdev
        // (major, minor), namesize, check
        self.bytes.extend_from_slice(
            format!(
                "070701{:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
                self.paths.len(),
                0,
                0,
                1,
                0,
                content.len(),
                0,
                0,
                0,
                0,
                path.len() + 1,
                0
            )
            .as_bytes(),
        );
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        pad(&mut self.bytes);
        self.bytes.extend_from_slice(content);
        pad(&mut self.bytes);
    }
}

/// The kernel looks for the next archive at a multiple of four bytes.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// What every guest starts from, compressed: busybox, rkexec, /init, and modules
/// of the kernel. Made once in a run of the tests for each kernel.
fn base(kernel: &Kernel) -> Result<Arc<[u8]>> {
    static MADE: Mutex<BTreeMap<String, Arc<[u8]>>> = Mutex::new(BTreeMap::new());
    // A test that panicked left it as it was.
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(bytes) = made.get(&kernel.release) {
        return Ok(Arc::clone(bytes));
    }
    let bytes: Arc<[u8]> = make_base(kernel).context("the guests' initramfs")?.into();
    made.insert(kernel.release.clone(), Arc::clone(&bytes));
    Ok(bytes)
}

/// What a guest is without rkexec: busybox, which is static, and /init.
pub(crate) fn skeleton() -> Result<Archive> {
    let mut archive = Archive::new();
    for directory in ["bin", "proc", "sys", "dev", "tmp", "sbin", "test"] {
        archive.directory(directory);
    }
    archive.program(Path::new("/bin/busybox"), "bin/busybox")?;
    archive.file("init", 0o755, include_bytes!("init"));
    archive.file("etc/functions", 0o644, include_bytes!("functions"));
    archive.file(
        "etc/passwd",
        0o644,
        b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
    );
    archive.file("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n");
    Ok(archive)
}

/// A program without symbols: a fifth of the size, which the emulated CPU would
/// unpack and digest.
pub(crate) fn stripped(program: &Path, to: &Path) -> Result<()> {
    lab::output(Command::new("strip").arg("-o").arg(to).arg(program))?;
    Ok(())
}

fn make_base(kernel: &Kernel) -> Result<Vec<u8>> {
    let mut archive = skeleton()?;
    let dir = tempfile::tempdir()?;
    let rkexec = dir.path().join("rkexec");
    stripped(&lab::rkexec()?, &rkexec)?;
    archive.program(&rkexec, "bin/rkexec")?;
    if kernel.has_modules() {
        for (path, bytes) in kernel.modules(&MODULES)? {
            let path = format!("lib/modules/{}/{path}", kernel.release);
            archive.file(&path, 0o644, &bytes);
        }
    }
    gzip(&archive.finish())
}

/// Compressed, and filled up so that another archive may follow.
pub(crate) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    file.write_all(bytes)?;
    std::io::Seek::rewind(&mut file)?;
    let mut compressed = lab::output(Command::new("gzip").arg("-1c").stdin(Stdio::from(file)))?;
    pad(&mut compressed);
    Ok(compressed)
}

/// A whole initrd for `kernel`: the base, then `overlay`.
pub(crate) fn initrd(kernel: &Kernel, overlay: Archive) -> Result<Vec<u8>> {
    let mut bytes = base(kernel)?.to_vec();
    bytes.extend_from_slice(&overlay.finish());
    Ok(bytes)
}
