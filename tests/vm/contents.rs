//! What is in a pool: the host writes a pattern while one kernel runs, and
//! finds it whole when the next one does. The next kernel says how it was kept.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use goblin::elf::program_header::{PT_LOAD, ProgramHeader};
use serde_json::{Value, json};

use crate::chain::Chain;
use crate::lab::{self, Kernel};
use crate::qemu::Outcome;
use crate::ram::Ram;
use crate::trip::Plan;
use crate::witness::{Row, Stage, hex, show};

const MIB: u64 = 1 << 20;
/// setup_data types: see asm/setup_data.h.
const SETUP_INDIRECT: u64 = 1 << 31;

/// Pools of a chain of kexecs, and what is done for them.
struct Test<'a> {
    name: &'a str,
    kernel: &'a str,
    /// The kernel of every second stage, if it is another one.
    other: Option<&'a str>,
    memory: u64,
    pool: (u64, u64),
    supplies: u64,
    trips: u32,
    /// Load options of the first stage, which names the pool; the others do not.
    first_options: &'a str,
    /// Load options of every stage.
    options: &'a str,
}

/// A pool of 64 MiB in 1 GiB, where KASLR may choose: it does above 512 MiB
/// only (choose_random_location() in arch/x86/boot/compressed/kaslr.c).
const SMALL: Test<'static> = Test {
    name: "",
    kernel: "",
    other: None,
    memory: 1024 * MIB,
    pool: (576 * MIB, 64 * MIB),
    supplies: 768 * MIB,
    trips: 3,
    first_options: "--pool 576M,64M",
    options: "",
};

impl Test<'_> {
    /// Makes the trips; how many pages of the pool were damaged in all.
    fn run(&self) -> Result<(usize, Outcome)> {
        let kernel = Kernel::new(self.kernel)?;
        let other = Kernel::new(self.other.unwrap_or(self.kernel))?;
        let (start, size) = self.pool;
        let ram = Ram::new(self.memory)?;
        let mut damaged = 0;
        let outcome = Chain::new(self.name, &kernel, self.trips, self.supplies)
            .crosswise(&other)
            // In the first kernel nobody else may use the pool.
            .first_words(&format!("memmap={size:#x}${start:#x}"))
            .first_options(self.first_options)
            .options(self.options)
            .run(&ram, |stage| {
                let stage = stage.number();
                if stage > 1 {
                    damaged += ram.damaged_pages(start, size, u64::from(stage) - 1)?;
                }
                // A pattern of its own for every trip; the last one stays.
                if stage <= self.trips {
                    ram.fill(start, size, u64::from(stage))?;
                }
                Ok(())
            })?;
        damaged += ram.damaged_pages(start, size, u64::from(self.trips))?;
        for stage in 1..=self.trips + 1 {
            let kernel = if stage % 2 == 1 { &kernel } else { &other };
            ensure!(outcome.stage(stage)?.text("release")? == kernel.release);
        }
        Ok((damaged, outcome))
    }

    /// Makes the trips, and holds every kernel to `protection`.
    fn kept(&self, protection: &str) -> Result<Outcome> {
        let (damaged, outcome) = self.run()?;
        for stage in 1..=self.trips {
            let (before, after) = (outcome.stage(stage)?, outcome.stage(stage + 1)?);
            self.arrived(before, after, protection, stage == 1)
                .with_context(|| format!("from stage {stage} to the next"))
                .with_context(|| outcome.story())?;
        }
        ensure!(damaged == 0, "{damaged} pages of the pool were damaged");
        Ok(outcome)
    }

    fn row(&self, kind: &str) -> Row {
        Row {
            start: self.pool.0,
            end: self.pool.0 + self.pool.1,
            kind: kind.to_owned(),
        }
    }

    /// Holds the plan of `before` and what `after` says to `protection`.
    fn arrived(&self, before: Stage, after: Stage, protection: &str, first: bool) -> Result<()> {
        let plan = Plan::of(before)?;
        let pool = self.row("pool");
        plan.keeps_off(std::slice::from_ref(&pool))?;
        plan.kept(after)?;
        let planned = &plan.json["pools"][0];
        let address = Value::String(format!("{:#x}", pool.start));
        for (field, value) in [
            ("name", &json!("default_pmpool")),
            ("start", &address),
            ("size", &json!(self.pool.1)),
            ("bitmap", &address),
            ("protection", &json!(protection)),
        ] {
            ensure!(planned[field] == *value, "{field}: {planned}");
        }
        ensure!((planned["origin"] == "--pool") == first, "{planned}");
        as_planned(after)?;

        let told = after.firmware_map()?;
        let kind = match protection {
            "reserved" => "Reserved",
            _ => "System RAM",
        };
        ensure!(
            told.iter()
                .any(|row| row.kind == kind && row.start <= pool.start && pool.end <= row.end),
            "told of\n{}",
            show(&told)
        );
        let indirect = after
            .setup_data_types()
            .iter()
            .any(|kind| kind & SETUP_INDIRECT != 0);
        ensure!(indirect == (protection == "indirect"), "SETUP_INDIRECT");
        let cmdline: Vec<&str> = after.text("cmdline")?.split(' ').collect();
        let pmpool = format!("pmpool={:#x},{:#x}", self.pool.0, self.pool.1);
        let kernel = protection == "kernel";
        for (word, wanted) in [
            (pmpool.as_str(), kernel),
            ("nokaslr", kernel && !plan.is_direct()),
        ] {
            ensure!(cmdline.contains(&word) == wanted, "{word}: {cmdline:?}");
        }
        plan.runs_where_it_was_put(after)
    }

    /// For every trip: where the loader put the kernel, and where it ran.
    fn places(&self, outcome: &Outcome) -> Result<Vec<(u64, u64)>> {
        let mut places = Vec::new();
        for stage in 1..=self.trips {
            let segments = Plan::of(outcome.stage(stage)?)?.segments;
            let iomem = outcome.stage(stage + 1)?.iomem()?;
            let start = |rows: &[Row], kind: &str| {
                let row = rows.iter().find(|row| row.kind == kind);
                Ok::<_, anyhow::Error>(row.with_context(|| format!("no {kind}"))?.start)
            };
            places.push((start(&segments, "kernel")?, start(&iomem, "Kernel code")?));
        }
        Ok(places)
    }

    /// The trips with KASLR on, and seen to be on.
    fn kept_with_kaslr(&self, protection: &str) -> Result<()> {
        let outcome = self.kept(protection)?;
        let places = self.places(&outcome)?;
        let runs: BTreeSet<u64> = places.iter().map(|(_, runs)| *runs).collect();
        // With hundreds of slots, chance takes one twice once in a while.
        ensure!(runs.len() + 1 >= places.len(), "KASLR is off: {places:x?}");
        Ok(())
    }
}

/// Holds `rkexec report` in a kernel to "as planned", with nothing left out of
/// what can be seen there.
pub(crate) fn as_planned(stage: Stage) -> Result<()> {
    let text = stage.text("report.out")?;
    let report: Value = serde_json::from_str(text).context("the report")?;
    let status = stage.text("report.status")?;
    ensure!(status == "0", "{}{text}", stage.text("report.err")?);
    ensure!(report["as_planned"] == true, "{text}");
    let items = report["items"].as_array().context("items")?;
    for wanted in [
        "command line",
        "memory map",
        "setup_data chain",
        "pool default_pmpool",
    ] {
        let item = items.iter().find(|item| item["item"] == wanted);
        let item = item.with_context(|| format!("no {wanted} in {text}"))?;
        ensure!(item["verdict"] == "as_planned", "{item}");
    }
    Ok(())
}

/// Each kernel names the pool or carries it on, is entered with a pool that was
/// named or carried on, and loads the other one.
fn between_debian_kernels(protection: &str, kernel: &str, other: &str, direct: &str) -> Result<()> {
    Test {
        name: &format!("contents-{protection}"),
        kernel,
        other: Some(other),
        // Debian's images do not tell their configuration.
        options: &format!("--syscall kexec_load --pool-protect {protection} --direct {direct}"),
        ..SMALL
    }
    .kept_with_kaslr(protection)
}

#[test]
fn a_pool_under_6_1_and_6_12_indirect() -> Result<()> {
    // The kernels' own KASLR keeps off the pool.
    between_debian_kernels("indirect", "6.1", "6.12", "off")
}

#[test]
fn a_pool_under_6_12_and_6_1_reserved() -> Result<()> {
    between_debian_kernels("reserved", "6.12", "6.1", "on")
}

/// The loader finds out by itself that this kernel understands pools. What
/// keeps the pool then is tests/vm/pmpool.c, in the place of the real consumer.
/// `tests/handover N` makes N trips.
#[test]
fn a_pool_under_a_kernel_that_knows_pools() -> Result<()> {
    let trips = lab::asked("RKEXEC_HANDOVER")?.unwrap_or(10);
    let test = Test {
        name: "contents-of-kernel",
        kernel: "of",
        trips,
        ..SMALL
    };
    let outcome = test.kept("kernel")?;
    randomized(&test, &outcome)?;
    for stage in 2..=test.trips + 1 {
        let stage = outcome.stage(stage)?;
        let kept = format!(
            "pmpool: {:#018x},{:#018x} is kept",
            test.pool.0, test.pool.1
        );
        let log = stage.text("dmesg")?;
        ensure!(log.contains(&kept), "{log}");
        // RAM, and nothing that the kernel lists lies in it.
        let pool = test.row("pool");
        let inside: Vec<Row> = stage
            .iomem()?
            .into_iter()
            .filter(|row| row.overlaps(&pool))
            .collect();
        ensure!(
            inside.len() == 1 && inside[0].kind == "System RAM",
            "{}",
            show(&inside)
        );
    }
    Ok(())
}

/// KASLR is on in every kernel that the loader placed: for its two places, and for where
/// it maps memory. Of some 500 slots, 10 kernels take about 9.9 different ones.
fn randomized(test: &Test<'_>, outcome: &Outcome) -> Result<()> {
    let (mut physical, mut linear) = (BTreeSet::new(), BTreeSet::new());
    let mut virtual_ = BTreeSet::new();
    for stage in 1..=test.trips {
        let plan = Plan::of(outcome.stage(stage)?)?;
        ensure!(
            plan.json["direct"]["randomized"] == true,
            "{}",
            plan.json["direct"]
        );
        physical.insert(plan.json["direct"]["physical"].as_str().map(str::to_owned));
        let mapping = Mapping::of(outcome.stage(stage + 1)?.bytes("kcore")?)?;
        let put = plan.json["direct"]["virtual"].as_str().context("virtual")?;
        ensure!(
            mapping.text == hex(put)?,
            "the kernel runs at {:#x}, and was put at {put}",
            mapping.text
        );
        virtual_.insert(mapping.text);
        linear.insert(mapping.linear);
    }
    for (what, different) in [
        ("physical places", physical.len()),
        ("virtual places", virtual_.len()),
        ("places of the linear mapping", linear.len()),
    ] {
        let least = usize::try_from(test.trips)? * 4 / 5;
        ensure!(different >= least, "{different} {what} of {}", test.trips);
    }
    Ok(())
}

/// Where a kernel maps itself and all memory, by the headers of its /proc/kcore.
struct Mapping {
    /// Its own first byte, virtual.
    text: u64,
    /// Physical address 0, virtual.
    linear: u64,
}

impl Mapping {
    fn of(kcore: &[u8]) -> Result<Self> {
        let header = goblin::elf::Elf::parse_header(kcore)?;
        let context = goblin::container::Ctx::new(
            goblin::container::Container::Big,
            goblin::container::Endian::Little,
        );
        let at = usize::try_from(header.e_phoff)?;
        let headers = ProgramHeader::parse(kcore, at, header.e_phnum.into(), context)?;
        let loads = || headers.iter().filter(|header| header.p_type == PT_LOAD);
        // KERNEL_IMAGE_SIZE from __START_KERNEL_map on, below the modules.
        let own = 0xffff_ffff_8000_0000..0xffff_ffff_c000_0000;
        let text = loads().find(|load| own.contains(&load.p_vaddr));
        let ram = loads().find(|load| load.p_vaddr < own.start && load.p_paddr < 1 << 32);
        let ram = ram.context("no RAM in kcore")?;
        Ok(Self {
            text: text.context("no text in kcore")?.p_vaddr,
            linear: ram.p_vaddr - ram.p_paddr,
        })
    }
}

/// The same, and nothing is done for the pool, in which the next kernel runs then:
/// the damage is seen.
#[test]
fn damage_is_seen_without_protection() -> Result<()> {
    let test = Test {
        name: "contents-unprotected",
        kernel: "6.12",
        other: None,
        memory: 2048 * MIB,
        // All where KASLR may choose, but for too little at the end.
        pool: (512 * MIB, 1504 * MIB),
        supplies: 256 * MIB,
        trips: 1,
        first_options: "",
        // What the first command line reserves would stay reserved.
        options: "--no-carry-pools --memory-map firmware --direct off",
    };
    let (damaged, outcome) = test.run()?;
    outcome.stage(2)?;
    ensure!(damaged > 0, "the next kernel did not touch the pool");
    Ok(())
}
