//! `rkexec load` and `rkexec plan`: the same road, and one of them turns back
//! before the system call.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;

use super::options::LoadArgs;
use super::{Context, render};
use crate::handover::Capability;
use crate::host::Host;
use crate::image::{self, Image};
use crate::load::Files;
use crate::plan::{self, Plan};
use crate::sys::MappedFile;

/// `rkexec plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Say for every segment which rule put it there, and for every range why it is what it is.
    #[arg(long)]
    explain: bool,
    /// Draw the memory map and the segments into FILE.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// `rkexec load`.
pub(super) fn load(context: &Context, args: &LoadArgs) -> anyhow::Result<()> {
    context.on_this_machine("load")?;
    let host = Host::read(&context.root).context("planning failed")?;
    let files = open(args)?;
    let image = probe(&files.kernel)?;
    let plan = make(context, args, &host, &image, &files)?;
    for warning in &plan.warnings {
        context.warn(warning);
    }
    let Image::BzImage(bzimage) = &image;
    crate::load::load(&plan, &host, bzimage, &files)?;
    let kernel = args.kernel.as_path();
    context.print(
        || render::text::loaded(&plan, &image, kernel, context.global.verbose),
        || render::json::plan(&plan, &image, kernel),
    )
}

/// `rkexec plan`.
pub(super) fn plan(context: &Context, args: &PlanArgs) -> anyhow::Result<()> {
    let host = Host::read(&context.root).context("planning failed")?;
    let files = open(&args.load)?;
    let image = probe(&files.kernel)?;
    let plan = make(context, &args.load, &host, &image, &files)?;
    if let Some(path) = &args.svg {
        let picture = render::svg::plan(&plan);
        std::fs::write(path, picture)
            .with_context(|| format!("writing {} failed", path.display()))?;
    }
    let kernel = args.load.kernel.as_path();
    context.print(
        || render::text::plan(&plan, &image, kernel, args.explain),
        || render::json::plan(&plan, &image, kernel),
    )
}

pub(super) fn open(args: &LoadArgs) -> anyhow::Result<Files> {
    let initrds = args.initrd.iter().map(|path| open_file(path, "initrd"));
    Ok(Files {
        kernel: open_file(&args.kernel, "kernel")?,
        initrds: initrds.collect::<Result<_, _>>()?,
    })
}

fn open_file(path: &Path, what: &str) -> anyhow::Result<MappedFile> {
    MappedFile::open(path).with_context(|| format!("opening the {what} failed"))
}

/// What the file is.
pub(super) fn probe(file: &MappedFile) -> anyhow::Result<Image<'_>> {
    image::probe(file.bytes()).with_context(|| format!("reading {} failed", file.path().display()))
}

pub(super) fn make<'a>(
    context: &Context,
    args: &LoadArgs,
    host: &Host,
    image: &Image<'a>,
    files: &'a Files,
) -> anyhow::Result<Plan<'a>> {
    let dtb = args
        .dtb
        .as_deref()
        .map(|path| open_file(path, "device tree"))
        .transpose()?;
    let dtb = dtb.map(|file| file.bytes().to_vec());
    let time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let request = args.request(dtb, random_seed()?, time.as_secs());
    let Image::BzImage(bzimage) = image;
    let target = || Capability::read(bzimage, files.kernel.path(), &context.root);
    plan::plan(&request, host, image, &files.initrd_bytes(), target).context("planning failed")
}

fn random_seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .context("reading /dev/urandom failed")?;
    Ok(seed)
}
