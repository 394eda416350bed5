//! The files of a load.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use bstr::BString;
use sha2::{Digest as _, Sha256};

use crate::base::bytes::{hex, shown_name};
use crate::image::{self, Contents, Found, ImageError};
use crate::job::Job;
use crate::sys::{Changed, MappedFile};

/// The files that a plan is made from, open and mapped.
#[derive(Debug)]
pub struct Files {
    /// The kernel.
    pub kernel: MappedFile,
    /// The initrds, in order.
    pub initrds: Vec<MappedFile>,
    /// The addons of a UKI, in order.
    pub addons: Vec<MappedFile>,
    /// A multiboot kernel's modules, in order.
    pub modules: Vec<MappedFile>,
    /// Files whose contents the next kernel finds in memory, in order. They may be empty.
    pub carried: Vec<MappedFile>,
}

impl Files {
    /// Opens the files of `job`.
    ///
    /// # Errors
    /// When one cannot be opened, or is not what the boot entry says.
    pub fn open(job: &Job) -> anyhow::Result<Self> {
        Self::open_with(job, open)
    }

    /// The same with another way to `open` a file, which is to be what the second argument
    /// says.
    ///
    /// # Errors
    /// When one cannot be opened, or is not what the boot entry says.
    pub fn open_with(
        job: &Job,
        open: impl Fn(&Path, &str) -> anyhow::Result<MappedFile>,
    ) -> anyhow::Result<Self> {
        let initrds = job.initrds.iter().map(|path| open(path, "initrd"));
        let addons = job.addons.iter().map(|path| open(path, "addon"));
        let modules = job
            .modules
            .iter()
            .map(|module| open(file_of(module), "module"));
        let carried = job
            .carry
            .iter()
            .map(|path| MappedFile::open_any(path).context("opening a file to carry failed"));
        // In this order: the first file that is missing is the one that is named.
        let files = Self {
            kernel: open(&job.kernel, "kernel")?,
            initrds: initrds.collect::<Result<_, _>>()?,
            addons: addons.collect::<Result<_, _>>()?,
            modules: modules.collect::<Result<_, _>>()?,
            carried: carried.collect::<Result<_, _>>()?,
        };
        files.are_those_of(job)?;
        Ok(files)
    }

    /// Fails unless the kernel and the initrds are what the boot entry says.
    fn are_those_of(&self, job: &Job) -> anyhow::Result<()> {
        let initrds = job.initrds.iter().zip(&self.initrds);
        for (path, file) in std::iter::once((&job.kernel, &self.kernel)).chain(initrds) {
            for (_, sha256) in job.hashes.iter().filter(|(of, _)| of == path) {
                let found: [u8; 32] = Sha256::digest(file.bytes()).into();
                anyhow::ensure!(
                    found == *sha256,
                    "{} is not the file that the boot entry was made for: its SHA-256 is {}, not {}",
                    shown_name(path),
                    hex(&found),
                    hex(sha256)
                );
            }
        }
        Ok(())
    }

    /// What lies in the kernel's file, unpacked where it is packed.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub fn contents(&self) -> anyhow::Result<Contents<'_>> {
        contents(&self.kernel)
    }

    /// The bytes of the initrds.
    #[must_use]
    pub fn initrd_bytes(&self) -> Vec<&[u8]> {
        self.initrds.iter().map(MappedFile::bytes).collect()
    }

    pub(super) fn unchanged(&self) -> Result<(), Changed> {
        std::iter::once(&self.kernel)
            .chain(&self.initrds)
            .chain(&self.addons)
            .chain(&self.modules)
            .chain(&self.carried)
            .try_for_each(MappedFile::unchanged)
    }
}

/// Opens the file `path`, which is to be a `what`.
///
/// # Errors
/// When it cannot be opened.
pub fn open(path: &Path, what: &str) -> anyhow::Result<MappedFile> {
    MappedFile::open(path).with_context(|| format!("opening the {what} failed"))
}

/// The file of `module`, which is `FILE ARGS`.
fn file_of(module: &BString) -> &Path {
    let file = module.split(|byte| *byte == b' ').next();
    Path::new(OsStr::from_bytes(file.unwrap_or_default()))
}

/// The file's contents, unpacked if it is packed.
///
/// # Errors
/// When it cannot be unpacked.
pub fn contents(file: &MappedFile) -> anyhow::Result<Contents<'_>> {
    Contents::of(file.bytes()).with_context(|| reading(file))
}

/// What `contents`, which lie in `file`, are; of a UKI the kernel of its first profile.
///
/// # Errors
/// As [`image::open`].
pub fn found<'a>(file: &MappedFile, contents: &'a Contents<'_>) -> anyhow::Result<Found<'a>> {
    let found: Result<_, ImageError> = image::open(contents, None);
    found.with_context(|| reading(file))
}

/// What failed when `file` is not what it should be.
pub(super) fn reading(file: &MappedFile) -> String {
    format!("reading {} failed", shown_name(file.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file may be exchanged after the boot entry was read: what is opened counts.
    #[test]
    fn the_files_that_are_opened_are_those_of_the_entry() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
        let sha256 = |text: &str| <[u8; 32]>::from(Sha256::digest(text));
        write("kernel", "a kernel");
        write("initrd", "an initrd");
        let job = Job {
            kernel: path("kernel"),
            initrds: vec![path("initrd")],
            hashes: vec![
                (path("kernel"), sha256("a kernel")),
                (path("initrd"), sha256("an initrd")),
                (path("replaced"), sha256("is not opened")),
            ],
            ..Job::default()
        };
        assert_eq!(Files::open(&job).unwrap().initrds.len(), 1);
        for (name, text) in [("kernel", "a kernel"), ("initrd", "an initrd")] {
            write(name, "other");
            let error = Files::open(&job).unwrap_err().to_string();
            assert!(error.contains("is not the file that the boot entry was made for"));
            assert!(error.contains(&format!("/{name} ")), "{error}");
            write(name, text);
        }
    }
}
