//! `rkexec report`: what arrived in this kernel.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::Context;
use super::render;
use super::render::Detail;
use super::render::stream::List;
use super::render::table::Table;
use crate::abi::x86::setup_data::type_name;
use crate::base::date::utc;
use crate::base::printable::inline;
use crate::carry::gather::running_record;
use crate::carry::phases::{Phase, downtime, phases};
use crate::carry::record::Record;
use crate::carry::report::{Report, Verdict};
use crate::host::handed_over::HandedOver;
use crate::host::place::Place;
use crate::host::{Host, Root, kmsg};
use crate::memory::kernel_map;
use crate::sys::tsc::Clock;

mod kho;

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
    let root = &context.root;
    let host = Host::read(root).context("reading what arrived failed")?;
    let place = Place::read(root, &host.iomem);
    let handed = HandedOver::read(root).context("reading what arrived failed")?;
    let report = Report::of(&host, &place, &handed).context("reading what arrived failed")?;
    let clock = || clock(root, &host);
    let init = || kmsg::init_started(root);
    let phases = phases(&host, report.record.as_ref(), clock, init);
    let json = || ReportJson {
        report: &report,
        host: &host,
        place: &place,
        phases: &phases,
        handed: &handed,
    };
    let detail = Detail::of(false, context.global.verbose);
    match &report.record {
        // The error says it all, and only who asks for more gets the rest.
        None if detail == Detail::Short && context.is_for_people() => {}
        None => context.print(|| arrived(&report, &host, &handed, detail), json)?,
        Some(record) => context.print(
            || {
                let times = where_the_time_went(&phases);
                let place = placed(&report, &place);
                let arrived = arrived(&report, &host, &handed, detail);
                format!("{}\n{times}\n{place}\n{arrived}", verdict(&report, record))
            },
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

/// How long the kexec took that started the running kernel, in words; `None`: rkexec did not
/// make it, or it was not measured.
pub(super) fn last_kexec(root: &Root) -> Option<String> {
    let host = Host::read(root).ok()?;
    let record = running_record(&host).ok()??;
    let clock = || clock(root, &host);
    let init = || kmsg::init_started(root);
    in_words(&phases(&host, Some(&record), clock, init))
}

fn in_words(phases: &[Phase; 4]) -> Option<String> {
    let [_load, _exec, in_purgatory, in_kernel] = phases;
    let known = |phase: &Phase| phase.time.as_ref().ok().copied();
    let (time, from) = match downtime(phases) {
        Some(time) => (time, "exec"),
        // Who made the jump left no time stamp.
        None => (known(in_purgatory)? + known(in_kernel)?, "the jump"),
    };
    let seconds = time.as_secs_f64();
    Some(format!(
        "the last kexec took {seconds:.1} s from {from} to init"
    ))
}

/// The time stamp counter of the machine below `root`, or why no time can be told by it.
fn clock(root: &Root, host: &Host) -> Result<Clock, &'static str> {
    if !root.is_system() {
        Err("a captured machine has no time stamp counter")
    } else if !host.cpu.steady_tsc {
        Err("this kernel does not know whether its time stamp counter keeps its rate")
    } else {
        Clock::measure().ok_or("the time stamp counter cannot be read")
    }
}

/// The phases, and their sum where all of them are known.
fn where_the_time_went(phases: &[Phase; 4]) -> String {
    const TITLE: &str = "where the time went:";
    let [first, rest @ ..] = phases;
    if let Err(why) = &first.time
        && rest.iter().all(|phase| phase.time.as_ref() == Err(why))
    {
        return format!("{TITLE} not measured: {why}\n");
    }
    let mut table = Table::new([false, true, false]);
    let seconds = |time: Duration| format!("{:.3} s", time.as_secs_f64());
    for phase in phases {
        let name = phase.name.replace('_', " ");
        table.push(match &phase.time {
            Ok(time) => [name, seconds(*time), phase.what.to_owned()],
            Err(why) => [name, "-".to_owned(), format!("not measured: {why}")],
        });
    }
    if let Some(downtime) = downtime(phases) {
        let what = "the sum without the load".to_owned();
        table.push(["exec to init".to_owned(), seconds(downtime), what]);
    }
    format!("{TITLE}\n{}", table.text())
}

/// Where the kernel runs.
fn placed(report: &Report, place: &Place) -> String {
    let Some(physical) = place.physical else {
        return "this kernel does not show where it runs\n".to_owned();
    };
    let hidden = || "hidden".to_owned();
    let address = place.virtual_.map_or_else(hidden, render::address);
    let planned = match report.is_placed_as_planned() {
        Some(true) => "as planned",
        Some(false) => "NOT where it was put",
        None => "it chose its place itself",
    };
    format!(
        "this kernel runs at {} (virtual address {address}): {planned}\n",
        render::address(physical)
    )
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
fn arrived(report: &Report, host: &Host, handed: &HandedOver, detail: Detail) -> String {
    let mut out = String::new();
    let nodes = host.boot_params.iter();
    let nodes: Vec<_> = nodes.flat_map(|running| &running.setup_data).collect();
    if !nodes.is_empty() {
        out.push_str("passed by the previous kernel or the boot loader:\n");
    }
    for node in nodes {
        let name = type_name(node.kind);
        let what = render::text::setup_data(name, node.data.len());
        let size = render::human(node.data.len() as u64);
        let _ = match detail {
            Detail::Full => writeln!(out, "  {what} ({name}, {:#x}, {size})", node.kind),
            _ => writeln!(out, "  {what} ({name}, {size})"),
        };
    }
    out.push_str(&kho::text(host, handed));
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
    place: &'a Place,
    phases: &'a [Phase; 4],
    handed: &'a HandedOver,
}

impl Serialize for ReportJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            report,
            host,
            place,
            phases,
            handed,
        } = self;
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
        let phases = phases.iter().map(|phase| {
            let time = phase.time.as_ref();
            json!({
                "name": phase.name,
                "seconds": time.ok().map(Duration::as_secs_f64),
                "not_measured": time.err(),
            })
        });
        let placed = json!({
            "physical": place.physical.map(render::json::address),
            "virtual": place.virtual_.map(render::json::address),
            "as_planned": report.is_placed_as_planned(),
        });
        let as_planned = report.record.as_ref().map(|_| report.is_as_planned());
        let tree = report.tree.as_ref().map(|tree| tree.to_dts());
        let mut fields = serializer.serialize_map(None)?;
        fields.serialize_entry("as_planned", &as_planned)?;
        fields.serialize_entry("device_tree", &tree)?;
        fields.serialize_entry("e820", &render::json::e820(&kernel_map(host)))?;
        fields.serialize_entry("items", &report.items)?;
        fields.serialize_entry("kho", &kho::json(host, handed))?;
        fields.serialize_entry("phases", &List(phases))?;
        fields.serialize_entry("placed", &placed)?;
        fields.serialize_entry("pools", &List(pools))?;
        fields.serialize_entry("record", &report.record)?;
        fields.serialize_entry("schema", &1)?;
        fields.serialize_entry("setup_data", &List(nodes))?;
        fields.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_kexec_in_words() {
        let phase = |milliseconds: Option<u64>| Phase {
            name: "x",
            what: "x",
            time: milliseconds
                .map(Duration::from_millis)
                .ok_or_else(|| "not seen".into()),
        };
        let words = |times: [Option<u64>; 4]| in_words(&times.map(phase));
        assert_eq!(
            words([None, Some(1000), Some(100), Some(2000)]).as_deref(),
            Some("the last kexec took 3.1 s from exec to init")
        );
        assert_eq!(
            words([Some(9), None, Some(100), Some(2000)]).as_deref(),
            Some("the last kexec took 2.1 s from the jump to init")
        );
        assert_eq!(words([Some(9), Some(1), None, Some(2000)]), None);
        assert_eq!(words([Some(9), Some(1), Some(1), None]), None);
    }

    #[test]
    fn a_machine_that_rkexec_did_not_boot_has_no_last_kexec() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(last_kexec(&Root::at(dir.path())), None);
    }
}
