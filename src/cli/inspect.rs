//! `rkexec inspect`: what a kernel file is.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::{Context, render};
use crate::carry::Capability;
use crate::image::{Found, ImageError};
use crate::load::files;
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
    let contents = files::contents(&file)?;
    let Found { image, uki } = match files::found(&file, &contents) {
        Ok(found) => found,
        Err(error) => {
            return match error.downcast_ref() {
                Some(ImageError::Lanzaboote(stub)) => context.print(
                    || render::lanzaboote::text(stub),
                    || render::lanzaboote::json(stub),
                ),
                _ => Err(error),
            };
        }
    };
    let capability = image
        .linux()
        .map(|linux| Capability::read(linux, &args.file, &context.root));
    for note in capability.iter().flat_map(|capability| &capability.notes) {
        context.warn(note);
    }
    let text = capability.as_ref().map(render::text::capability);
    context.print(
        || {
            let uki = uki.as_ref().zip(image.linux());
            let uki = uki.map(|(uki, linux)| render::uki::text(uki, linux));
            render::text::image(&image)
                + text.as_deref().unwrap_or_default()
                + &uki.unwrap_or_default()
        },
        || {
            let mut object = render::json::image(&image);
            if let Some(fields) = object.as_object_mut() {
                fields.insert("schema".to_owned(), 1.into());
                fields.extend(capability.iter().flat_map(render::json::capability));
                if let Some((uki, linux)) = uki.as_ref().zip(image.linux()) {
                    fields.insert("uki".to_owned(), render::uki::json(uki, linux));
                }
            }
            object
        },
    )
}
