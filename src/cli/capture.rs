//! `rkexec capture`: a machine to plan for elsewhere.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::Context;
use crate::base::human;
use crate::entries::find::{self, Found};
use crate::host::{Root, capture};

/// `rkexec capture`.
#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    /// Where to: a new directory, or an empty one to which only you may write.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(context: &Context, args: &CaptureArgs) -> anyhow::Result<()> {
    let mut entries = Ok(Found::default());
    let read_entries = |root: &Root| entries = find::find(root);
    let report =
        capture::capture(&context.root, &args.dir, read_entries).context("capture failed")?;
    match (entries, find::find(&Root::at(&args.dir))) {
        (Ok(found), Ok(copied)) if found.entries == copied.entries => {}
        (Ok(_), _) => context.warn(
            "the capture shows other boot entries than this machine has: a part of the boot loader's configuration is too large or could not be read",
        ),
        (Err(error), _) => {
            let error = anyhow::Error::from(error);
            context.warn(&format!("the boot loader's configuration was not saved: {error:#}"));
        }
    }
    context.print(
        || {
            format!(
                "saved {} files, {}, in {}\n",
                report.files,
                human(report.bytes),
                crate::base::bytes::shown_name(&args.dir)
            )
        },
        || serde_json::json!({ "schema": 1, "files": report.files, "size": report.bytes }),
    )
}
