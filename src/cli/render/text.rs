//! A plan as text: what is decided first, then the tables.

use std::fmt::Write as _;

use super::map::{self, Totals, kind_of};
use super::table::{self, Table};
use super::{Detail, address, human, multiboot, range, uki};
use crate::base::bytes::shown_name;
use crate::base::printable::inline;
use crate::base::{Syscall, Target};
use crate::carry::stamps;
use crate::image::Image;
use crate::image::uki::Uki;
use crate::load::Files;
use crate::plan::{CrashPlan, Plan};
use crate::sys::MappedFile;

/// What prints all of a list that is folded.
const EXPLAIN: &str = "rkexec plan --explain";

/// A plan, and what it was made from.
#[derive(Clone, Copy)]
pub(in crate::cli) struct Shown<'a> {
    pub(in crate::cli) plan: &'a Plan<'a>,
    pub(in crate::cli) image: &'a Image<'a>,
    /// The UKI that the image came in.
    pub(in crate::cli) uki: Option<&'a Uki<'a>>,
    pub(in crate::cli) files: &'a Files,
    /// Whether a load must fail by the facts of the machine. A warning says why.
    pub(in crate::cli) refused: bool,
}

/// After a load: one line, with `verbose` the whole plan.
pub(in crate::cli) fn loaded(shown: Shown<'_>, verbose: bool) -> String {
    let mut out = if verbose {
        self::plan(shown, Detail::Short) + "\n"
    } else {
        String::new()
    };
    let Shown { plan, image, .. } = shown;
    let _ = writeln!(
        out,
        "{} {} through {}: {}",
        match plan.target() {
            Target::Normal => "loaded",
            Target::Crash => "armed with",
        },
        inline(name(image)),
        plan.syscall(),
        plan.reason
    );
    out.extend(plan.kho.as_ref().map(super::kho::summary));
    out
}

/// What the kernel is called.
pub(in crate::cli) fn name<'a>(image: &Image<'a>) -> &'a str {
    match image {
        Image::Linux(image) => image.release().unwrap_or("a kernel without a version"),
        Image::Multiboot(image) => multiboot::title(image),
    }
}

/// The whole plan.
pub(in crate::cli) fn plan(shown: Shown<'_>, detail: Detail) -> String {
    let plan = shown.plan;
    let mut out = summary(shown, detail);
    out.push_str(&segments(plan, detail));
    if let Some(crash) = &plan.crash {
        out.push_str(&self::crash(plan, crash));
    }
    out.push_str(&pools(plan));
    out.extend(plan.kho.iter().map(|kho| super::kho::text(kho, detail)));
    let all = detail > Detail::Short;
    let told = plan.told.iter();
    let told: Vec<_> = told
        .map(|(range, kind)| (*range, kind_of(*kind, detail)))
        .collect();
    out.push_str("\nmemory map of the next kernel:\n");
    out.push_str(&table::ranges(&told, all, EXPLAIN));
    // With kexec_file_load the running kernel decides.
    if plan.entry().is_some() && !plan.excluded.is_empty() {
        let excluded = plan.excluded.iter();
        let excluded: Vec<_> = excluded
            .map(|kept| {
                let what = format!("{}: {}", inline(&kept.name), kept.reason);
                (kept.range, what)
            })
            .collect();
        out.push_str("\nmemory kept free of segments:\n");
        out.push_str(&table::ranges(&excluded, all, EXPLAIN));
    }
    if all {
        out.push_str("\nevery range of this machine:\n");
        out.push_str(&map::memory_map(&plan.memory_map, detail));
    }
    out
}

/// The answer in one line.
fn answer(shown: Shown<'_>) -> String {
    let (plan, image, refused) = (shown.plan, shown.image, shown.refused);
    format!(
        "{}: {}, {}, through {}{}\n",
        if refused {
            "planned, but a load is refused now"
        } else {
            "can be loaded"
        },
        inline(name(image)),
        match plan.target() {
            Target::Normal => "for exec",
            Target::Crash => "as the crash kernel",
        },
        plan.syscall(),
        match plan.warnings.len() {
            0 => String::new(),
            1 => " (1 warning)".to_owned(),
            count => format!(" ({count} warnings)"),
        }
    )
}

/// The answer in one line, and below it from what, how, and how much RAM.
fn summary(shown: Shown<'_>, detail: Detail) -> String {
    let Shown {
        plan,
        image,
        uki,
        files,
        ..
    } = shown;
    let mut out = answer(shown);
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<10} {value}");
    };
    let sized = |file: &MappedFile| human(file.bytes().len() as u64);
    let kernel = shown_name(files.kernel.path());
    line(
        "kernel:",
        &format!("{kernel} ({}, {})", sized(&files.kernel), format_of(image)),
    );
    if let Some(profile) = uki.and_then(uki::chosen) {
        line("profile:", &profile);
    }
    let loads = [
        ("initrd:", &files.initrds),
        ("addon:", &files.addons),
        ("module:", &files.modules),
    ];
    for (mut name, files) in loads {
        for file in files {
            line(
                name,
                &format!("{} ({})", shown_name(file.path()), sized(file)),
            );
            name = "";
        }
    }
    if let Some(why) = plan.empty_initrd {
        line("initrd:", &format!("an empty one, because: {why}"));
    }
    line("cmdline:", &plan.cmdline.to_string());
    let totals = Totals::of(&plan.memory_map, &plan.told);
    line("RAM:", &totals.to_string());
    let reason = &plan.reason;
    line(
        "syscall:",
        &format!("{}, because: {reason}", plan.syscall()),
    );
    if let Some(reason) = &plan.direct {
        let what = match plan.placement() {
            Some(place) => format!(
                "{}, virtual {}, because: {reason}",
                address(place.physical),
                address(place.virtual_address)
            ),
            None => format!("decides itself when it starts, because: {reason}"),
        };
        line("runs at:", &what);
    }
    if let Some(entry) = plan.entry() {
        line("entry:", &format!("{} (purgatory)", address(entry)));
    }
    let passed = plan.tables().iter();
    let passed: Vec<String> = passed
        .map(|node| match detail {
            Detail::Short => setup_data(node.kind, node.size).to_owned(),
            _ => format!(
                "{} ({}, {})",
                setup_data(node.kind, node.size),
                node.kind,
                human(node.size as u64)
            ),
        })
        .collect();
    if !passed.is_empty() {
        line("passed on:", &passed.join(", "));
    }
    out
}

/// The format of the kernel's file.
fn format_of(image: &Image<'_>) -> String {
    let linux = match image {
        Image::Linux(linux) => linux,
        Image::Multiboot(image) => return image.format_name(),
    };
    let (major, minor) = linux.protocol();
    let entered = if linux.is_32_bit() {
        ", entered in 32-bit mode"
    } else {
        ""
    };
    format!(
        "{}, protocol {major}.{minor:02}{entered}",
        linux.format_name()
    )
}

/// What a node of setup_data is for, by the name of its type and the size of its payload
/// in bytes.
pub(in crate::cli) fn setup_data(kind: &str, size: usize) -> &str {
    match kind {
        // A record is longer.
        "NONE" if size == stamps::SIZE => "time stamps for rkexec report",
        "NONE" => "record for rkexec report",
        "E820_EXT" => "rest of the memory map",
        "DTB" => "device tree",
        "EFI" => "EFI tables",
        "RNG_SEED" => "random seed",
        "INDIRECT" => "protection of a pool",
        "KEXEC_KHO" => "Kexec Handover",
        other => other,
    }
}

/// What is loaded where; explained, also by which rule.
fn segments(plan: &Plan<'_>, detail: Detail) -> String {
    if plan.entry().is_none() {
        return "\nsegments: placed by the running kernel\n".to_owned();
    }
    let mut table = Table::new([false, true, false]);
    for segment in plan.segments() {
        let role = segment.role.name().to_owned();
        table.push([range(segment.mem), human(segment.mem.size()), role]);
    }
    let mut out = format!("\nsegments ({} of memory):\n", human(plan.total_size()));
    for (line, segment) in table.lines().zip(plan.segments()) {
        let _ = writeln!(out, "  {line}");
        if detail > Detail::Short {
            let bytes = segment.buf.len() as u64;
            let rest = if bytes < segment.mem.size() {
                format!("; {} of it are loaded, the rest is zero", human(bytes))
            } else {
                String::new()
            };
            let _ = writeln!(out, "      {}{rest}", segment.rule);
        }
    }
    out
}

fn pools(plan: &Plan<'_>) -> String {
    if plan.pools.is_empty() {
        return String::new();
    }
    let mut table = Table::new([false, true, false]);
    for planned in &plan.pools {
        let (pool, reason) = (&planned.pool, &planned.reason);
        let what = format!(
            "{}, bitmap at {}, from {}; protection {}, because: {reason}",
            inline(pool.name()),
            address(pool.bitmap()),
            planned.origin,
            planned.protection,
        );
        table.push([range(pool.range()), human(pool.range().size()), what]);
    }
    format!("\npools:\n{}", table.text())
}

/// What makes it a crash kernel.
fn crash(plan: &Plan<'_>, crash: &CrashPlan) -> String {
    let reserved = &crash.reservation;
    let dumped: u64 = crash.dump.iter().map(|range| range.size()).sum();
    let update = match (plan.syscall(), crash.hotplug) {
        (Syscall::KexecLoad, Some((flag, _))) => format!(
            "the running kernel updates elfcorehdr when memory or CPUs change \
             ({flag}), so purgatory does not check it"
        ),
        (Syscall::KexecLoad, None) => "the running kernel does not update elfcorehdr: \
             load again when memory or CPUs change"
            .to_owned(),
        (Syscall::KexecFileLoad, _) => "the running kernel makes elfcorehdr".to_owned(),
    };
    format!(
        "\ncrash kernel:\n  it runs in {} ({} reserved)\n  its dump holds {} of RAM in {} ranges\n  {update}\n",
        range(reserved.target),
        human(reserved.target.size()),
        human(dumped),
        crash.dump.len()
    )
}
