//! Files that were read, and the job for them: what a plan is made of besides the facts.

use std::os::unix::ffi::OsStrExt as _;

use anyhow::Context as _;

use super::files::{Files, reading};
use super::initrds;
use super::record::LoadRecord;
use crate::carry::Capability;
use crate::crash::sizing::Sizing;
use crate::host::firmware_tables::FirmwareTables;
use crate::host::{Host, HostError, Root};
use crate::image::multiboot::Module;
use crate::image::uki::{Addon, Uki};
use crate::image::{self, Contents, Found, Image};
use crate::job::{Job, Merged, lost_signature};
use crate::plan::{self, Carried, Checked, Given, Plan};
use crate::refusal::{CallFacts, SysError};

/// A load that is ready to be planned, on whatever facts.
#[derive(Debug)]
pub struct Prepared<'a> {
    /// What was asked for.
    pub job: &'a Job,
    /// The files.
    pub files: &'a Files,
    found: Found<'a>,
    merged: Merged<'a>,
    carried: Vec<Carried<'a>>,
}

/// `--module` with a Linux.
#[derive(Debug, thiserror::Error)]
#[error(
    "planning failed: --module works only with multiboot kernels (Xen), and this is a Linux kernel: use --initrd FILE"
)]
pub struct ModulesForLinux;

impl<'a> Prepared<'a> {
    /// Reads `files`, the files of `job`, with the `contents` of its kernel's file.
    ///
    /// # Errors
    /// When one is not what it should be, and when they do not go together.
    pub fn new(job: &'a Job, files: &'a Files, contents: &'a Contents<'_>) -> anyhow::Result<Self> {
        let reading_kernel = || reading(&files.kernel);
        let mut found = image::open_as(contents, job.profile.as_deref(), job.wish)
            .with_context(reading_kernel)?;
        let addons: Vec<Addon<'_>> = files
            .addons
            .iter()
            .map(|file| Addon::parse(file.bytes()).with_context(|| reading(file)))
            .collect::<Result<_, _>>()?;
        let merged = Merged::of(&job.request, &found, &addons, &files.initrd_bytes())
            .with_context(reading_kernel)?;
        match &mut found.image {
            Image::Multiboot(kernel) => {
                kernel.name = job.kernel.as_os_str().as_bytes().into();
                let modules = files.modules.iter().zip(&job.modules);
                kernel.modules = modules
                    .map(|(file, cmdline)| Module {
                        bytes: file.bytes(),
                        cmdline: cmdline.clone(),
                    })
                    .collect();
            }
            Image::Linux(_) if job.modules.is_empty() => {}
            Image::Linux(_) => return Err(ModulesForLinux.into()),
        }
        let carried = files.carried.iter().map(|file| {
            let name = file.path().file_name().unwrap_or_default().as_bytes();
            Carried {
                name: name.into(),
                bytes: file.bytes(),
            }
        });
        Ok(Self {
            carried: carried.collect(),
            job,
            files,
            found,
            merged,
        })
    }

    /// The kernel.
    #[must_use]
    pub const fn image(&self) -> &Image<'a> {
        &self.found.image
    }

    /// The UKI that the kernel lies in.
    #[must_use]
    pub const fn uki(&self) -> Option<&Uki<'a>> {
        self.found.uki.as_ref()
    }

    /// The initrds, of the UKI and its addons as well.
    #[must_use]
    pub fn initrds(&self) -> &[&'a [u8]] {
        &self.merged.initrds
    }

    /// Plans the load for the machine `host`, whose files are below `root`.
    ///
    /// # Errors
    /// When it cannot be loaded on this machine as it was asked for.
    pub fn plan(&self, host: &Host, root: &Root) -> anyhow::Result<Checked<Plan<'a>>> {
        let image = &self.found.image;
        let mut request = self.merged.request.clone();
        if let Image::Multiboot(_) = image {
            request.firmware_tables = FirmwareTables::read(root, host);
        }
        let capability = || match image.linux() {
            Some(linux) => Capability::read(linux, self.files.kernel.path(), root),
            None => Capability::unknown(),
        };
        let initrds = &self.merged.initrds;
        let given = Given {
            initrds,
            carried: &self.carried,
        };
        let mut plan =
            plan::plan(&request, host, image, &given, capability).context("planning failed")?;
        plan.warn(self.merged.warnings.iter().cloned());
        if image.linux().is_some() {
            let flaws = initrds::warnings(&self.files.initrds, initrds);
            plan.warn(flaws);
        }
        let lost = lost_signature(&self.found, plan.syscall());
        plan.warn(lost);
        Ok(plan)
    }

    /// How much memory the crash kernel of `plan` takes to run. The initrds are unpacked to
    /// find that out. `None`: it is no crash kernel, or an initrd cannot be unpacked.
    #[must_use]
    pub fn sizing(&self, plan: &Plan<'_>) -> Option<Sizing> {
        let crash = plan.crash.as_ref()?;
        let kernel = self.image().memory_size();
        Sizing::of(&crash.reservation, kernel, self.initrds())
    }

    /// What decides about a load of `plan`, made for `host`.
    #[must_use]
    pub fn call_facts<'f>(&self, host: &'f Host, plan: &Plan<'_>) -> CallFacts<'f> {
        super::call::facts(plan, host, self.image())
    }

    /// Why a load of `plan`, made for `host`, must fail by the facts; `None` when nothing is
    /// known against it.
    #[must_use]
    pub fn refusal(&self, host: &Host, plan: &Plan<'_>) -> Option<SysError> {
        SysError::forbidden(&self.call_facts(host, plan))
    }

    /// The record to keep when `plan`, made for `host`, is loaded.
    ///
    /// # Errors
    /// When the boot's id cannot be read.
    pub fn record(
        &self,
        root: &Root,
        host: &Host,
        plan: &Plan<'_>,
    ) -> Result<LoadRecord, HostError> {
        LoadRecord::of(root, self.job, host, &self.found.image, plan)
    }
}
