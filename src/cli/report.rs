//! `rkexec report`: what arrived in this kernel.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::render::stream::List;
use super::{Context, render};
use crate::abi::x86::setup_data::type_name;
use crate::base::printable::inline;
use crate::carry::report::{Report, Verdict};
use crate::host::Host;
use crate::memory::kernel_map;

/// Why `report` ends in exit code 1.
#[derive(Debug, thiserror::Error)]
enum NotAsPlanned {
    #[error("the hand-over is not as planned: {0}")]
    Wrong(String),
    #[error(
        "report failed: this kernel holds no record: rkexec did not load it through kexec_load"
    )]
    NoRecord,
}

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let host = Host::read(&context.root).context("reading what arrived failed")?;
    let report = Report::of(&host).context("reading what arrived failed")?;
    context.print(
        || text(&report, &host),
        || ReportJson {
            report: &report,
            host: &host,
        },
    )?;
    let wrong = report
        .items
        .iter()
        .filter(|item| matches!(item.verdict, Verdict::Differs | Verdict::Missing));
    let wrong: Vec<String> = wrong
        .map(|item| format!("{} {}", item.item, item.verdict.name()))
        .collect();
    if report.record.is_none() {
        Err(NotAsPlanned::NoRecord.into())
    } else if wrong.is_empty() {
        Ok(())
    } else {
        Err(NotAsPlanned::Wrong(wrong.join(", ")).into())
    }
}

fn text(report: &Report, host: &Host) -> String {
    let mut out = String::new();
    match &report.record {
        Some(record) => {
            let _ = writeln!(
                out,
                "loaded by rkexec {} from {}, {} seconds after 1970-01-01\n",
                inline(&record.rkexec),
                inline(&record.from),
                record.loaded_at
            );
        }
        None => out.push_str("no record: nothing to compare with\n\n"),
    }
    for item in &report.items {
        let _ = write!(out, "{:<20} {}", item.item, item.verdict.name());
        let _ = if item.detail.is_empty() {
            writeln!(out)
        } else {
            writeln!(out, ": {}", inline(&item.detail))
        };
    }
    out.push_str("\nsetup_data:\n");
    for node in host
        .boot_params
        .iter()
        .flat_map(|running| &running.setup_data)
    {
        let _ = writeln!(
            out,
            "  {} ({:#x}), {} bytes",
            type_name(node.kind),
            node.kind,
            node.data.len()
        );
    }
    out.push_str("\nmemory map:\n");
    for (range, kind) in kernel_map(host) {
        let _ = writeln!(
            out,
            "  {range}  {:>10}  {kind}",
            render::human(range.size())
        );
    }
    if let Some(tree) = &report.tree {
        let _ = writeln!(out, "\ndevice tree:\n{}", tree.to_dts());
    }
    out
}

/// What is printed as JSON.
struct ReportJson<'a> {
    report: &'a Report,
    host: &'a Host,
}

impl Serialize for ReportJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { report, host } = self;
        let nodes = host
            .boot_params
            .iter()
            .flat_map(|running| &running.setup_data);
        let nodes =
            nodes.map(|node| json!({ "type": type_name(node.kind), "size": node.data.len() }));
        let pools = report.pools.iter().map(|pool| {
            json!({
                "name": pool.name(),
                "start": render::json::address(pool.range().start()),
                "size": pool.range().size(),
                "bitmap": render::json::address(pool.bitmap()),
            })
        });
        let as_planned = report.record.as_ref().map(|_| report.is_as_planned());
        let tree = report.tree.as_ref().map(|tree| tree.to_dts());
        let mut fields = serializer.serialize_map(None)?;
        fields.serialize_entry("as_planned", &as_planned)?;
        fields.serialize_entry("device_tree", &tree)?;
        fields.serialize_entry("e820", &render::json::e820(&kernel_map(host)))?;
        fields.serialize_entry("items", &report.items)?;
        fields.serialize_entry("pools", &List(pools))?;
        fields.serialize_entry("record", &report.record)?;
        fields.serialize_entry("schema", &1)?;
        fields.serialize_entry("setup_data", &List(nodes))?;
        fields.end()
    }
}
