//! `rkexec memmap`: the reconciled map.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::{Context, render};
use crate::host::Host;
use crate::memory::{MapPolicy, MemoryMap};

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let host = Host::read(&context.root).context("reading the memory map failed")?;
    let map = MemoryMap::reconcile(&host, MapPolicy::FixedUp, &BTreeSet::new());
    context.print(
        || render::text::memory_map(&map),
        || serde_json::json!({ "schema": 1, "memory_map": render::json::memory_map(&map) }),
    )
}
