//! `rkexec inspect`: what kernel files are.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::Value;

use super::{Context, Output, hint, render, say, say_error, write_out, written};
use crate::base::bytes::shown_name;
use crate::carry::Capability;
use crate::image::{Found, ImageError};
use crate::load::files;
use crate::sys::MappedFile;

/// `rkexec inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The files. With --output json there is one object for each, and several are a line each.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

/// Some files could not be inspected. Why was said for each.
#[derive(Debug, thiserror::Error)]
#[error("inspect failed for {0} of {1} files")]
struct SomeFailed(usize, usize);

pub(super) fn run(context: &Context, args: &InspectArgs) -> anyhow::Result<()> {
    if let [file] = &*args.files {
        let (text, json) = inspect(context, file)?;
        return context.print(|| text, || json);
    }
    let mut failed = 0;
    for (number, file) in args.files.iter().enumerate() {
        match inspect(context, file) {
            Ok((text, json)) => several(context, number, file, &text, &json)?,
            Err(error) => {
                failed += 1;
                say_error(&format!("rkexec: {error:#}"));
                if let Some(hint) = hint(&error) {
                    say(&format!("hint: {hint}"));
                }
            }
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(SomeFailed(failed, args.files.len()).into()),
    }
}

/// Prints one of several files.
fn several(
    context: &Context,
    number: usize,
    file: &Path,
    text: &str,
    json: &Value,
) -> anyhow::Result<()> {
    if context.global.output == Output::Json {
        let mut line = Vec::new();
        written(render::stream::compact(&mut line, json))?;
        line.push(b'\n');
        return write_out(&line);
    }
    let gap = if number > 0 { "\n" } else { "" };
    context.print(|| format!("{gap}{}:\n{text}", shown_name(file)), || json)
}

/// What a file is, for people and for programs.
fn inspect(context: &Context, path: &Path) -> anyhow::Result<(String, Value)> {
    let file = MappedFile::open(path).context("opening the file failed")?;
    let contents = files::contents(&file)?;
    let (text, mut json) = match files::found(&file, &contents) {
        Ok(found) => described(context, path, &found),
        Err(error) => match error.downcast_ref() {
            Some(ImageError::Lanzaboote(stub)) => (
                render::lanzaboote::text(stub),
                render::lanzaboote::json(stub),
            ),
            _ => return Err(error),
        },
    };
    if let Some(fields) = json.as_object_mut() {
        render::json::insert(fields, "path", path.as_os_str().as_bytes());
    }
    Ok((text, json))
}

/// The same for a kernel.
fn described(context: &Context, path: &Path, found: &Found<'_>) -> (String, Value) {
    let Found { image, uki } = found;
    let linux = image.linux();
    let capability = linux.map(|linux| Capability::read(linux, path, &context.root));
    for note in capability.iter().flat_map(|capability| &capability.notes) {
        context.warn(note);
    }
    let mut text = render::image(image);
    let mut json = render::json::image(image);
    if let Some((linux, capability)) = linux.zip(capability.as_ref()) {
        text += &render::capability(linux, capability);
        if let Some(fields) = json.as_object_mut() {
            fields.extend(render::json::capability(linux, capability));
        }
    }
    if let Some(fields) = json.as_object_mut() {
        fields.insert("schema".to_owned(), 1.into());
    }
    if let Some((uki, linux)) = uki.as_ref().zip(linux) {
        text += &render::uki::text(uki, linux);
        if let Some(fields) = json.as_object_mut() {
            fields.insert("uki".to_owned(), render::uki::json(uki, linux));
        }
    }
    (text, json)
}
