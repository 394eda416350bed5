//! `rkexec inspect`: what a kernel file is.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Context, load, render};
use crate::handover::Capability;
use crate::image::Image;
use crate::sys::MappedFile;

/// `rkexec inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(context: &Context, args: &InspectArgs) -> anyhow::Result<()> {
    let file = MappedFile::open(&args.file).context("opening the file failed")?;
    let image = load::probe(&file)?;
    let Image::Linux(linux) = &image;
    let capability = Capability::read(linux, &args.file, &context.root);
    for note in &capability.notes {
        context.warn(note);
    }
    context.print(
        || render::text::image(&image) + &render::text::capability(&capability),
        || {
            let mut object = render::json::image(&image);
            if let Some(fields) = object.as_object_mut() {
                fields.insert("schema".to_owned(), 1.into());
                fields.extend(render::json::capability(&capability));
            }
            object
        },
    )
}
