//! `rkexec capture`: a machine to plan for elsewhere.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::Context;
use crate::base::human;
use crate::host::capture;

/// `rkexec capture`.
#[derive(Debug, Args)]
pub(super) struct CaptureArgs {
    /// Where to: a new directory, or an empty one to which only you may write.
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(super) fn run(context: &Context, args: &CaptureArgs) -> anyhow::Result<()> {
    let report = capture::capture(&context.root, &args.dir).context("capture failed")?;
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
