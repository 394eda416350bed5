//! Text for people.

use std::fmt::Write as _;
use std::path::Path;

use super::json::xload_names;
use super::{human, multiboot};
use crate::base::bytes::shown_name;
use crate::base::printable::inline;
use crate::base::{Syscall, Target, Told};
use crate::carry::Capability;
use crate::image::Image;
use crate::memory::{MemoryMap, Region};
use crate::plan::{CrashPlan, Plan};

/// After a load: one line, with `verbose` the whole plan.
pub(in crate::cli) fn loaded(
    plan: &Plan<'_>,
    image: &Image<'_>,
    kernel: &Path,
    verbose: bool,
) -> String {
    let mut out = if verbose {
        self::plan(plan, image, kernel, false)
    } else {
        String::new()
    };
    let release = match image {
        Image::Linux(image) => image.release().unwrap_or("a kernel without a version"),
        Image::Multiboot(image) => multiboot::title(image),
    };
    let _ = writeln!(
        out,
        "{} {} through {}: {}",
        match plan.target() {
            Target::Normal => "loaded",
            Target::Crash => "armed with",
        },
        inline(release),
        plan.syscall(),
        plan.reason
    );
    out
}

/// The whole plan.
pub(in crate::cli) fn plan(
    plan: &Plan<'_>,
    image: &Image<'_>,
    kernel: &Path,
    explain: bool,
) -> String {
    let mut out = String::new();
    let what = match image {
        Image::Linux(linux) => {
            let (major, minor) = linux.protocol();
            let release = linux.release().unwrap_or("of unknown version");
            let format = linux.format_name();
            let entered = if linux.is_32_bit() {
                ", entered in 32-bit mode"
            } else {
                ""
            };
            format!("{release} ({format}, protocol {major}.{minor:02}{entered})")
        }
        Image::Multiboot(image) => format!("no Linux ({})", image.format_name()),
    };
    let _ = writeln!(out, "kernel:    {}, {}", shown_name(kernel), inline(&what));
    let _ = writeln!(out, "cmdline:   {}", plan.cmdline);
    let _ = writeln!(
        out,
        "syscall:   {}, because: {}",
        plan.syscall(),
        plan.reason
    );
    match plan.entry() {
        Some(entry) => {
            let _ = writeln!(out, "entry:     {entry:#x} (purgatory)");
            let _ = writeln!(out, "\nsegments ({} of memory):", human(plan.total_size()));
            for segment in plan.segments() {
                let size = human(segment.mem.size());
                let _ = writeln!(
                    out,
                    "  {}  {size:>10}  {}",
                    segment.mem,
                    segment.role.name()
                );
                if explain {
                    let _ = writeln!(
                        out,
                        "      {}; {} of its bytes are given",
                        segment.rule,
                        segment.buf.len()
                    );
                }
            }
        }
        None => out.push_str("segments:  placed by the running kernel\n"),
    }
    if let Some(why) = plan.empty_initrd {
        let _ = writeln!(out, "initrd:    an empty one, because: {why}");
    }
    if !plan.setup_data().is_empty() {
        let nodes: Vec<String> = plan
            .setup_data()
            .iter()
            .map(|node| format!("{} ({} bytes)", node.kind, node.size))
            .collect();
        let _ = writeln!(out, "\nsetup_data: {}", nodes.join(", "));
    }
    if let Some(crash) = &plan.crash {
        out.push_str(&self::crash(plan, crash));
    }
    if !plan.pools.is_empty() {
        out.push_str("\npools:\n");
        for planned in &plan.pools {
            let pool = &planned.pool;
            let _ = writeln!(
                out,
                "  {}  {:>10}  {}, bitmap at {:#x}, from {}; protection {}, because: {}",
                pool.range(),
                human(pool.range().size()),
                inline(pool.name()),
                pool.bitmap(),
                planned.origin,
                planned.protection,
                planned.reason
            );
        }
    }
    if explain {
        out.push_str("\nmemory map, and what the next kernel is told:\n");
        out.push_str(&memory_map(&plan.memory_map));
    } else {
        out.push_str("\nthe next kernel's memory map:\n");
        for (range, kind) in &plan.told {
            let _ = writeln!(out, "  {range}  {:>10}  {kind}", human(range.size()));
        }
    }
    if !plan.excluded.is_empty() {
        out.push_str("\nkept free of segments:\n");
        for excluded in &plan.excluded {
            let size = human(excluded.range.size());
            let _ = writeln!(
                out,
                "  {}  {size:>10}  {}: {}",
                excluded.range,
                inline(&excluded.name),
                excluded.reason
            );
        }
    }
    for warning in &plan.warnings {
        let _ = writeln!(out, "\nwarning: {}", inline(warning));
    }
    out
}

/// What makes it a crash kernel.
fn crash(plan: &Plan<'_>, crash: &CrashPlan) -> String {
    let reserved = &crash.reservation;
    let mut out = format!(
        "\ncrash kernel: in {} ({} reserved)\n",
        reserved.target,
        human(reserved.target.size())
    );
    let dumped: u64 = crash.dump.iter().map(|range| range.size()).sum();
    let _ = writeln!(
        out,
        "  its dump holds {} of RAM in {} ranges",
        human(dumped),
        crash.dump.len()
    );
    let _ = match (plan.syscall(), crash.hotplug) {
        (Syscall::KexecLoad, Some((flag, _))) => writeln!(
            out,
            "  the kernel updates elfcorehdr itself when memory or CPUs come and go ({flag}); \
             purgatory does not verify it for that"
        ),
        (Syscall::KexecLoad, None) => writeln!(
            out,
            "  the kernel does not update elfcorehdr: load again when memory or CPUs come or go"
        ),
        (Syscall::KexecFileLoad, _) => {
            writeln!(out, "  elfcorehdr is made by the running kernel")
        }
    };
    out
}

/// The reconciled map: a line for each region, and who says so and why.
pub(in crate::cli) fn memory_map(map: &MemoryMap) -> String {
    let mut out = String::new();
    for region in map.regions() {
        let size = human(region.range.size());
        let _ = writeln!(
            out,
            "  {}  {size:>10}  {:<24} -> {:<32} segments: {}",
            region.range,
            kind(region),
            told(region.told),
            region.placement.name()
        );
        let _ = writeln!(
            out,
            "      {} [{}]",
            region.reason,
            inline(&region.sources.lines().join("; "))
        );
    }
    out
}

fn kind(region: &Region) -> String {
    match region.kind.driver() {
        Some(driver) => format!("{} ({})", region.kind.name(), inline(driver)),
        None => region.kind.name().to_owned(),
    }
}

fn told(kind: Option<Told>) -> String {
    kind.map_or_else(|| "(absent)".to_owned(), |kind| kind.to_string())
}

/// What a kernel file is.
pub(in crate::cli) fn image(image: &Image<'_>) -> String {
    let image = match image {
        Image::Linux(image) => image,
        Image::Multiboot(image) => return multiboot::text(image),
    };
    let geometry = &image.geometry;
    let (major, minor) = image.protocol();
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<14} {}", inline(&value));
    };
    let machine = if image.is_32_bit() {
        "x86, entered in 32-bit mode"
    } else {
        "x86_64"
    };
    line("format:", format!("{} ({machine})", image.format_name()));
    line("version:", image.version.unwrap_or("unknown").to_owned());
    line("protocol:", format!("{major}.{minor:02}"));
    line("alignment:", human(geometry.align));
    line("init_size:", human(geometry.size));
    line("pref_address:", format!("{:#x}", geometry.floor));
    let relocatable = if geometry.fixed { "no" } else { "yes" };
    line("relocatable:", relocatable.to_owned());
    line("cmdline_size:", format!("{} bytes", image.cmdline_limit));
    line("xloadflags:", xload_names(image).join(" "));
    line("kernel:", human(image.loaded_size()));
    if image.behind > 0 {
        let behind = human(image.behind as u64);
        line("behind it:", format!("{behind} that are not loaded"));
    }
    line(
        "payload:",
        format!(
            "{}, {}",
            human(image.payload.len() as u64),
            image.compression()
        ),
    );
    out
}

/// What the kernel in an image can do: lines behind those of [`image`].
pub(in crate::cli) fn capability(capability: &Capability) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<14} {}", inline(&value));
    };
    line(
        "unpacked:",
        match &capability.unpacked {
            Ok(size) => human(*size as u64),
            Err(error) => format!("unknown: {error}"),
        },
    );
    line(
        "setup_data:",
        match capability.setup_type_max {
            Some(max) => format!("types up to {max:#x}"),
            None => "unknown: no kernel_info".to_owned(),
        },
    );
    out.push_str("config:\n");
    for (symbol, fact) in capability.facts() {
        let (value, from) = (fact.value.name(), &fact.read_from);
        let _ = writeln!(out, "  {symbol:<22} {value:<8} ({})", inline(from));
    }
    out
}
