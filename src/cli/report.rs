//! `rkexec report`: what arrived in this kernel.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::render::Detail;
use super::render::stream::List;
use super::{Context, render};
use crate::abi::x86::setup_data::type_name;
use crate::base::date::utc;
use crate::base::printable::inline;
use crate::carry::record::Record;
use crate::carry::report::{Report, Verdict};
use crate::host::Host;
use crate::memory::kernel_map;

/// Why `report` ends in exit code 1.
#[derive(Debug, thiserror::Error)]
enum NotAsPlanned {
    #[error("the hand-over is not as planned: {0}")]
    Wrong(String),
    #[error(
        "nothing to check: this kernel was not started by rkexec, or it was loaded with kexec_file_load"
    )]
    NoRecord,
}

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let host = Host::read(&context.root).context("reading what arrived failed")?;
    let report = Report::of(&host).context("reading what arrived failed")?;
    let json = || ReportJson {
        report: &report,
        host: &host,
    };
    let detail = Detail::of(false, context.global.verbose);
    match &report.record {
        // The error says it all, and only who asks for more gets the rest.
        None if detail == Detail::Short && context.is_for_people() => {}
        None => context.print(|| arrived(&report, &host, detail), json)?,
        Some(record) => context.print(
            || verdict(&report, record) + "\n" + &arrived(&report, &host, detail),
            json,
        )?,
    }
    if report.record.is_none() {
        return Err(NotAsPlanned::NoRecord.into());
    }
    let wrong = wrong(&report);
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(NotAsPlanned::Wrong(wrong).into())
    }
}

/// What differs or is missing, in a few words.
fn wrong(report: &Report) -> String {
    let wrong = report
        .items
        .iter()
        .filter(|item| matches!(item.verdict, Verdict::Differs | Verdict::Missing));
    let wrong: Vec<String> = wrong
        .map(|item| format!("{} {}", item.item, item.verdict.name()))
        .collect();
    wrong.join(", ")
}

/// The answer, and below it every item.
fn verdict(report: &Report, record: &Record) -> String {
    let wrong = wrong(report);
    let mut out = if wrong.is_empty() {
        "as planned\n".to_owned()
    } else {
        format!("NOT as planned: {wrong}\n")
    };
    let _ = writeln!(
        out,
        "loaded by rkexec {} from kernel {} at {}\n",
        inline(&record.rkexec),
        inline(&record.from),
        utc(record.loaded_at)
    );
    for item in &report.items {
        let _ = write!(out, "{:<20} {}", item.item, item.verdict.name());
        let _ = if item.detail.is_empty() {
            writeln!(out)
        } else {
            writeln!(out, ": {}", inline(&item.detail))
        };
    }
    out
}

/// What this kernel got.
fn arrived(report: &Report, host: &Host, detail: Detail) -> String {
    let mut out = String::new();
    let nodes = host.boot_params.iter();
    let nodes: Vec<_> = nodes.flat_map(|running| &running.setup_data).collect();
    if !nodes.is_empty() {
        out.push_str("passed by the previous kernel or the boot loader:\n");
    }
    for node in nodes {
        let name = type_name(node.kind);
        let what = render::text::setup_data(name);
        let size = render::human(node.data.len() as u64);
        let _ = match detail {
            Detail::Full => writeln!(out, "  {what} ({name}, {:#x}, {size})", node.kind),
            _ => writeln!(out, "  {what} ({name}, {size})"),
        };
    }
    let map = kernel_map(host);
    let ram = map.iter().filter(|(_, kind)| kind.is_ram());
    let ram: u64 = ram.map(|(range, _)| range.size()).sum();
    let _ = writeln!(out, "\nmemory map ({} of RAM):", render::human(ram));
    let map: Vec<_> = map
        .into_iter()
        .map(|(range, kind)| (range, render::map::kind_of(kind, detail)))
        .collect();
    out.push_str(&render::table::ranges(&map, detail == Detail::Full, "-v"));
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
