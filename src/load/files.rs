//! The files of a load.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use bstr::BString;

use crate::base::bytes::shown_name;
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
}

impl Files {
    /// Opens the files of `job`.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub fn open(job: &Job) -> anyhow::Result<Self> {
        Self::open_with(job, open)
    }

    /// The same with another way to `open` a file, which is to be what the second argument
    /// says.
    ///
    /// # Errors
    /// When one cannot be opened.
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
        // In this order: the first file that is missing is the one that is named.
        Ok(Self {
            kernel: open(&job.kernel, "kernel")?,
            initrds: initrds.collect::<Result<_, _>>()?,
            addons: addons.collect::<Result<_, _>>()?,
            modules: modules.collect::<Result<_, _>>()?,
        })
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
