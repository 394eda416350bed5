//! What only a multiboot kernel is given, and not Linux: modules, and the firmware's
//! root pointers.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use bstr::BString;

use super::load::open_file;
use super::{Context, Usage};
use crate::host::Host;
use crate::host::firmware_tables::FirmwareTables;
use crate::image::Image;
use crate::image::multiboot::Module;
use crate::load::Files;
use crate::load::record::Job;
use crate::request::LoadRequest;
use crate::sys::MappedFile;

/// Opens the files of `modules`, each `FILE ARGS`.
pub(super) fn open(modules: &[BString]) -> anyhow::Result<Vec<MappedFile>> {
    let open = |module: &BString| {
        let file = module.split(|byte| *byte == b' ').next();
        open_file(
            Path::new(OsStr::from_bytes(file.unwrap_or_default())),
            "module",
        )
    };
    modules.iter().map(open).collect()
}

/// Gives `image` what else it needs, and completes the request for it.
pub(super) fn complete<'a>(
    context: &Context,
    host: &Host,
    job: &Job,
    files: &'a Files,
    image: &mut Image<'a>,
    request: &mut LoadRequest,
) -> anyhow::Result<()> {
    let Image::Multiboot(kernel) = image else {
        if job.modules.is_empty() {
            return Ok(());
        }
        let why = "planning failed: --module works only with multiboot kernels (Xen), and this is a Linux kernel: use --initrd FILE";
        return Err(Usage(why.to_owned()).into());
    };
    kernel.name = job.kernel.as_os_str().as_bytes().into();
    kernel.modules = files
        .modules
        .iter()
        .zip(&job.modules)
        .map(|(file, cmdline)| Module {
            bytes: file.bytes(),
            cmdline: cmdline.clone(),
        })
        .collect();
    request.firmware_tables = FirmwareTables::read(&context.root, host);
    Ok(())
}
