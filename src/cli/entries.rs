//! `rkexec entries`: the machine's boot entries.

use anyhow::Context as _;

use super::{Context, render};
use crate::entries::find;

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let found = find::find(&context.root).context("reading the boot entries failed")?;
    let verbose = context.global.verbose;
    context.print(
        || render::entries::text(&found, verbose),
        || render::entries::json(&found),
    )
}
