//! Where the time went, and where the kernel runs, as the next kernel reports it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rkexec::sys::tsc::Clock;
use serde_json::Value;

use crate::formats::vmlinux;
use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::{Guest, Outcome};
use crate::trip::{self, Trip};
use crate::witness::Stage;

/// The first program of the next kernel: it says that it runs, and becomes the init of
/// every guest.
const FIRST: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs devtmpfs /dev
echo 'record 2 arrived eA== .' >/dev/ttyS1
exec /init
";

/// One kexec of the kernel `kernel` into itself. `before_exec` is what its script does when
/// the next kernel is loaded. Also gives the time from the word before `exec` until the
/// next kernel's first program.
fn kexec(name: &str, kernel: &Kernel, before_exec: &str) -> Result<(Outcome, Duration)> {
    // Both kernels would measure their counter against an emulated timer, and on a busy
    // host be wrong once in some dozens of boots.
    let clock = Clock::measure().context("no counter")?;
    let kilohertz = u128::from(clock.ticks) * 1_000_000 / clock.within.as_nanos();
    let known = format!("tsc_early_khz={kilohertz}");
    let cmdline = format!("{} {known} rdinit=/first", trip::chain_cmdline("2"));
    let load = trip::load_script(&trip::request(
        "/next/initrd",
        &cmdline,
        "--syscall kexec_load",
    ));
    let report =
        "cat /sys/devices/system/clocksource/clocksource0/current_clocksource | record clock-source
        try text rkexec report
        try report rkexec report --output json
";
    let mut overlay = Archive::new();
    overlay.file("first", 0o755, FIRST.as_bytes());
    overlay.file("test/stage-2", 0o644, report.as_bytes());
    let guest = Guest::new(name, kernel)
        .append(&known)
        .file("next/vmlinuz", &trip::host_file(&kernel.image())?)
        .file("next/initrd", &initramfs::initrd(kernel, overlay)?)
        .script(&format!(
            "{load}
             {before_exec}
             echo x | record before
             exec rkexec exec --no-sync"
        ));
    let mut took = Duration::ZERO;
    let outcome = guest.conduct(|guest| {
        guest.wait_for(1, "before")?;
        let start = Instant::now();
        guest.wait_for(2, "arrived")?;
        took = start.elapsed();
        Ok(())
    })?;
    Ok((outcome, took))
}

fn report(stage: Stage<'_>) -> Result<Value> {
    serde_json::from_str(stage.text("report.out")?).context("the report")
}

/// Seconds of the four phases.
fn phases(report: &Value) -> Result<[Option<f64>; 4]> {
    let phases = report["phases"].as_array().context("phases")?;
    let names: Vec<_> = phases.iter().map(|phase| &phase["name"]).collect();
    ensure!(
        names
            == [
                "load",
                "exec_to_purgatory",
                "verification",
                "kernel_to_init"
            ],
        "{names:?}"
    );
    let seconds: Vec<_> = phases
        .iter()
        .map(|phase| phase["seconds"].as_f64())
        .collect();
    seconds.try_into().ok().context("not four phases")
}

/// The guest's counter follows the host's clock, however busy the host is.
#[test]
fn the_phases_are_the_time_that_the_host_saw() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let (outcome, took) = kexec("phases", &kernel, "")?;
    let after = outcome.stage(2)?;
    let report = report(after)?;
    let [Some(load), Some(exec), Some(verification), Some(boot)] = phases(&report)? else {
        anyhow::bail!("a phase was not measured: {}", report["phases"]);
    };
    for (seconds, most) in [
        (load, 60.0),
        (exec, 20.0),
        (verification, 20.0),
        (boot, 60.0),
    ] {
        ensure!(0.0 < seconds && seconds < most, "{}", report["phases"]);
    }
    let (sum, took) = (exec + verification + boot, took.as_secs_f64());
    println!("the host saw {took:.3} s, and the phases are {sum:.3} s");
    ensure!(
        (sum - took).abs() < took / 10.0,
        "the host saw {took:.3} s, and the phases are {sum:.3} s: {}",
        report["phases"]
    );
    let text = after.text("text.out")?;
    ensure!(text.contains("\nwhere the time went:\n  load "), "{text}");
    ensure!(text.contains("\n  exec to init "), "{text}");

    // The loader chose the place.
    let placed = &report["placed"];
    let rows = after.iomem()?;
    let code = rows.iter().find(|row| row.kind == "Kernel code");
    let code = code.context("no code")?.start;
    ensure!(placed["physical"] == format!("{code:#x}"), "{placed}");
    ensure!(
        placed["virtual"]
            .as_str()
            .is_some_and(|address| address.starts_with("0xffffffff")),
        "{placed}"
    );
    ensure!(placed["as_planned"] == true, "{placed}");
    ensure!(report["as_planned"] == true, "{report}");
    Ok(())
}

/// Another page in the place of the one that purgatory was told of: `exec` leaves no stamp,
/// and all but that time is measured.
#[test]
fn a_page_that_was_moved_gets_no_stamp() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let page = "/run/rkexec/exec-time";
    let moved = format!(
        "cp {page} /run/rkexec/other; chmod 600 /run/rkexec/other; mv /run/rkexec/other {page}"
    );
    let (outcome, _) = kexec("phases-moved", &kernel, &moved)?;
    let report = report(outcome.stage(2)?)?;
    let [_, exec, verification, boot] = phases(&report)?;
    ensure!(exec.is_none(), "{}", report["phases"]);
    let why = report["phases"][1]["not_measured"].as_str();
    ensure!(
        why.is_some_and(|why| why.contains("moved") || why.contains("overwritten")),
        "{}",
        report["phases"]
    );
    ensure!(
        verification.is_some() && boot.is_some(),
        "{}",
        report["phases"]
    );
    ensure!(report["as_planned"] == true, "{report}");
    Ok(())
}

/// A vmlinux runs where the loader puts it, and `report` says that it does.
#[test]
fn a_vmlinux_is_reported_where_it_was_put() -> Result<()> {
    let kernel = Kernel::small()?;
    let arrival = Trip::to(&kernel)
        .image(vmlinux(&kernel)?)
        .after("try report rkexec report --output json")
        .run(Guest::new("phases-vmlinux", &kernel))?;
    let report = report(arrival.after()?)?;
    let kernels = arrival.plan.segments.iter();
    let put = kernels
        .filter(|row| row.kind == "kernel")
        .map(|row| row.start)
        .min();
    let put = put.context("no kernel")?;
    let placed = &report["placed"];
    ensure!(placed["physical"] == format!("{put:#x}"), "{placed}");
    ensure!(placed["as_planned"] == true, "{placed}");
    Ok(())
}
