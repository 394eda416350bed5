//! `rkexec memmap`: the reconciled map.

use std::collections::BTreeSet;

use anyhow::Context as _;
use serde::Serialize;

use super::render::Detail;
use super::render::map::Totals;
use super::{Context, render};
use crate::host::Host;
use crate::memory::{MapPolicy, MemoryMap};

/// What is printed as JSON.
#[derive(Serialize)]
struct Memmap<M> {
    memory_map: M,
    schema: u32,
}

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let host = Host::read(&context.root).context("reading the memory map failed")?;
    let map = MemoryMap::reconcile(&host, MapPolicy::FixedUp, &BTreeSet::new());
    context.print(
        || {
            let detail = Detail::of(false, context.global.verbose);
            let totals = Totals::of_map(&map);
            let map = render::map::memory_map(&map, detail);
            format!("RAM: {totals}\n\n{map}")
        },
        || Memmap {
            memory_map: render::json::memory_map(&map),
            schema: 1,
        },
    )
}
