//! Pools that Kexec Handover preserves, from a kernel without it on: the host writes a
//! pattern while one kernel runs, and finds it whole when the next one does. That kernel's
//! own log says that it took the pools back.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::chain::Chain;
use crate::lab::{self, Kernel};
use crate::qemu::Outcome;
use crate::ram::Ram;
use crate::trip::Plan;
use crate::witness::Stage;

const MIB: u64 = 1 << 20;
const MEMORY: u64 = 1024 * MIB;
/// Where KASLR may choose: above 512 MiB only.
const POOL: (u64, u64) = (576 * MIB, 64 * MIB);
/// Where the kernel itself writes its log.
const LOG: (u64, u64) = (704 * MIB, 4 * MIB);
const SUPPLIES: u64 = 768 * MIB;
/// The last load is by the running kernel, which hands the pools on itself.
const TRIPS: u32 = 5;
/// Without a word about KHO, with it switched off, and in the last two stages on.
const KHO: &str = "'$(case $next in 3) echo kho=off;; 5|6) echo kho=on;; *) echo nokho;; esac)'";

/// Both who may choose the kernel's place do: the loader, and the kernel's own unpacker.
const DIRECT: &str = "--direct '$(case $stage in 2|4) echo off;; *) echo auto;; esac)'";

/// Reads what the kernel before wrote to the pool `log`, and leaves a line there itself.
const PSTORE: &str = "
if [ -e /dev/pmsg0 ]; then
  mount -t pstore pstore /sys/fs/pstore
  ls /sys/fs/pstore | record pstore
  cat /sys/fs/pstore/pmsg-ramoops-0 2>/dev/null | record pmsg
  cat /sys/fs/pstore/console-ramoops-0 2>/dev/null | record console
  echo \"written in stage $stage\" >/dev/pmsg0
  echo \"<1>said in stage $stage\" >/dev/kmsg
fi
";

/// `trips` kexecs with these words about KHO for the next kernel, and how many pages of the
/// pool were damaged.
fn run(name: &str, trips: u32, kho: &str) -> Result<(Outcome, usize)> {
    let (first, kernel) = (Kernel::new("6.12")?, Kernel::new("kho")?);
    let ram = Ram::new(MEMORY)?;
    let set_aside = |(start, size): (u64, u64)| format!("memmap={size:#x}${start:#x}");
    let words = format!(
        "{kho} ramoops.mem_name=log ramoops.pmsg_size=0x10000 ramoops.console_size=0x80000 \
         ramoops.record_size=0x10000"
    );
    let mut damaged = 0;
    let outcome = Chain::new(name, &kernel, trips, SUPPLIES)
        .from(&first)
        .first_words(&format!("{} {}", set_aside(POOL), set_aside(LOG)))
        .first_options("--pool 576M,64M --pool 704M,4M,name=log")
        .options(DIRECT)
        .words(&words)
        .before(PSTORE)
        .run(&ram, |stage| {
            let stage = stage.number();
            if stage > 1 {
                damaged += ram.damaged_pages(POOL.0, POOL.1, u64::from(stage) - 1)?;
            }
            ram.fill(POOL.0, POOL.1, u64::from(stage))
        })?;
    damaged += ram.damaged_pages(POOL.0, POOL.1, u64::from(trips) + 1)?;
    Ok((outcome, damaged))
}

#[test]
fn pools_survive_with_kaslr_and_with_kho_off() -> Result<()> {
    // What the running kernel does not load itself goes by rkexec's record.
    survive("kho-pools", TRIPS, KHO, |stage| stage < TRIPS)
}

/// Without a word about KHO, and with it switched off.
#[test]
#[ignore = "it takes many minutes: tests/handover runs it"]
fn pools_survive_again_and_again() -> Result<()> {
    let trips = lab::asked("RKEXEC_HANDOVER")?.context("tests/handover says how often")?;
    for kho in ["nokho", "kho=off"] {
        survive("kho-pools-again", trips, kho, |_| true)?;
        eprintln!("{trips} of {trips} kexecs with two pools each and {kho}");
    }
    Ok(())
}

/// `is_built` says of which stages rkexec hands the pools on, and not the running kernel.
fn survive(name: &str, trips: u32, kho: &str, is_built: impl Fn(u32) -> bool) -> Result<()> {
    let (outcome, damaged) = run(name, trips, kho)?;
    ensure!(damaged == 0, "{damaged} pages of the pool were damaged");
    let mut places = BTreeSet::new();
    for stage in 1..=trips {
        let (before, after) = (outcome.stage(stage)?, outcome.stage(stage + 1)?);
        arrived(before, after, stage, is_built(stage))
            .with_context(|| format!("from stage {stage} to the next"))
            .with_context(|| outcome.story())?;
        let iomem = after.iomem()?;
        let code = iomem.iter().find(|row| row.kind == "Kernel code");
        places.insert(code.context("no kernel code")?.start);
    }
    // The scratch memory has some forty slots, of which chance takes one twice now and then.
    ensure!(places.len() >= 3, "KASLR is off: {places:x?}");
    Ok(())
}

fn arrived(before: Stage, after: Stage, stage: u32, is_built: bool) -> Result<()> {
    let log = after.text("dmesg")?;
    for said in [
        "KHO: found kexec handover data",
        "Revived memory reservation 'default_pmpool' from KHO",
        "Revived memory reservation 'log' from KHO",
    ] {
        ensure!(log.contains(said), "{said}: {log}");
    }
    let cmdline = after.text("cmdline")?;
    for word in ["reserve_mem=64M:4K:default_pmpool", "reserve_mem=4M:4K:log"] {
        let times = cmdline.split(' ').filter(|it| *it == word).count();
        ensure!(times == 1, "{word}: {cmdline}");
    }
    ensure!(!cmdline.contains("nokaslr"), "{cmdline}");

    let plan = Plan::of(before)?;
    let (syscall, kho) = (&plan.json["syscall"]["name"], &plan.json["kho"]);
    match is_built {
        true => ensure!(kho["way"] == "built" && syscall == "kexec_load", "{kho}"),
        false => ensure!(
            kho["way"] == "kept" && syscall == "kexec_file_load",
            "{kho}"
        ),
    }
    if is_built {
        let pools = plan.json["pools"].as_array().context("pools")?;
        ensure!(pools.len() == 2, "{pools:?}");
        ensure!(
            pools.iter().all(|pool| pool["protection"] == "kho"),
            "{pools:?}"
        );
        reported(after)?;
    }
    // The kernel's own log, and a line of a program, both written before the kexec.
    if stage > 1 {
        let written = format!("written in stage {stage}\n");
        ensure!(
            after.text("pmsg")? == written.trim(),
            "{}",
            after.text("pstore")?
        );
        let console = after.text("console")?;
        let line = format!("said in stage {stage}");
        ensure!(console.contains(&line), "{line}: {console}");
    }
    Ok(())
}

/// `report` says that all arrived, and by what it knows.
fn reported(after: Stage) -> Result<()> {
    let text = after.text("report.out")?;
    let report: Value = serde_json::from_str(text).context("the report")?;
    ensure!(report["as_planned"] == true, "{text}");
    ensure!(report["kho"]["taken_over"] == true, "{text}");
    let items = report["items"].as_array().context("items")?;
    for wanted in ["Kexec Handover", "pool default_pmpool", "pool log"] {
        let item = items.iter().find(|item| item["item"] == wanted);
        let item = item.with_context(|| format!("no {wanted} in {text}"))?;
        ensure!(item["verdict"] == "as_planned", "{item}");
    }
    Ok(())
}
