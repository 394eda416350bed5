//! Many kexecs in a row in one guest, without a reset: nothing grows, nothing is lost.
//! `tests/soak N` makes N of them, the suite [`TRIPS`].
//!
//! The stages take turns: kexec_load with direct load, kexec_file_load, kexec_load with
//! the kernel's own unpacker, kexec_file_load. kexec_file_load hands over no pool, so the
//! first stage reserves memory, and the map keeps it reserved from kexec to kexec.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::chain::Chain;
use crate::efi::runtime_ranges;
use crate::lab::{self, Kernel};
use crate::ram::Ram;
use crate::witness::{Row, Stage, merged, show};

/// Kexecs, where `tests/soak` does not say otherwise.
const TRIPS: u32 = 25;
const MIB: u64 = 1 << 20;
const MEMORY: u64 = 1024 * MIB;
/// What is reserved, and filled by the host in every stage.
const RESERVED: (u64, u64) = (576 * MIB, 16 * MIB);
const SUPPLIES: u64 = 768 * MIB;

/// What the stages load with, in turn.
const TURNS: [&str; 4] = [
    "--syscall kexec_load --direct on",
    "--syscall kexec_file_load",
    "--syscall kexec_load --direct off",
    "--syscall kexec_file_load",
];

/// What every stage says of itself besides what all guests say.
const LOOK: &str = "
echo 3 >/proc/sys/vm/drop_caches
record meminfo </proc/meminfo
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
(cd /sys/firmware/efi/efivars && sha256sum *) | record efi-variables
";

/// Bytes by which setup_data may differ from that of an earlier stage of the same turn:
/// its record holds times and addresses, in decimal.
const RECORD_SLACK: usize = 64;
/// Bytes by which MemTotal may: the kernel keeps pages around setup_data and boot tables.
const TOTAL_SLACK: u64 = 256 << 10;
/// Bytes by which MemFree may be less: what the kernel has not given back at that moment
/// differs.
const FREE_SLACK: u64 = 8 << 20;

/// What must be as it was: of one stage.
#[derive(Debug)]
struct Look {
    stage: u32,
    told: Vec<Row>,
    memory: Vec<Row>,
    e820_entries: usize,
    line: String,
    chain: Vec<u64>,
    chain_bytes: usize,
    runtime_map: Vec<Row>,
    variables: String,
    total: u64,
    free: u64,
}

impl Look {
    fn of(stage: Stage<'_>) -> Result<Self> {
        let iomem = stage.iomem()?.into_iter();
        let kinds = ["System RAM", "Reserved", "ACPI", "Persistent", "Soft"];
        let is_memory = |row: &Row| kinds.iter().any(|kind| row.kind.starts_with(kind));
        let word = format!("rkexec.stage={} ", stage.number());
        let nodes = 0..stage.setup_data_types().len();
        let chain_bytes = nodes.map(|node| {
            // An indirect node shows no bytes.
            let data = stage.bytes(&format!("setup-data-{node}.data"));
            data.map_or(0, <[u8]>::len)
        });
        let line = stage.text("cmdline")?;
        ensure!(line.contains(&word), "{line}");
        let variables = stage.text("efi-variables")?.to_owned();
        ensure!(!variables.is_empty(), "no EFI variables");
        Ok(Self {
            stage: stage.number(),
            told: stage.firmware_map()?,
            memory: merged(iomem.filter(is_memory).collect()),
            e820_entries: stage.boot_e820()?.len(),
            line: line.replace(&word, ""),
            chain: stage.setup_data_types(),
            chain_bytes: chain_bytes.sum(),
            runtime_map: runtime_ranges(stage)?,
            variables,
            total: meminfo(stage, "meminfo", "MemTotal:")?,
            free: meminfo(stage, "meminfo", "MemFree:")?,
        })
    }

    /// Holds a later stage against this one. `alike`: both were loaded in the same way.
    fn holds(&self, later: &Self, alike: bool) -> Result<()> {
        ensure!(
            self.told == later.told,
            "told of\n{}\nand before of\n{}",
            show(&later.told),
            show(&self.told)
        );
        ensure!(
            self.runtime_map == later.runtime_map,
            "EFI runtime map\n{}\nand before\n{}",
            show(&later.runtime_map),
            show(&self.runtime_map)
        );
        ensure!(
            self.variables == later.variables,
            "EFI variables:\n{}\nand before\n{}",
            later.variables,
            self.variables
        );
        if !alike {
            return Ok(());
        }
        ensure!(
            self.memory == later.memory,
            "/proc/iomem:\n{}\nand before\n{}",
            show(&later.memory),
            show(&self.memory)
        );
        ensure!(self.line == later.line, "{}\n{}", self.line, later.line);
        let entries = (self.e820_entries, later.e820_entries);
        ensure!(entries.0 == entries.1, "e820 entries: {entries:?}");
        let chains = (&self.chain, &later.chain);
        ensure!(chains.0 == chains.1, "setup_data: {chains:x?}");
        let bytes = (self.chain_bytes, later.chain_bytes);
        ensure!(
            bytes.0.abs_diff(bytes.1) <= RECORD_SLACK,
            "bytes of setup_data: {bytes:?}"
        );
        let total = (self.total, later.total);
        ensure!(total.0.abs_diff(total.1) <= TOTAL_SLACK, "{total:?}");
        let free = (self.free, later.free);
        let lost = free.0.saturating_sub(free.1);
        ensure!(lost <= FREE_SLACK, "MemFree: {free:?}");
        Ok(())
    }
}

/// Bytes that `record` of /proc/meminfo says of `key`.
pub(crate) fn meminfo(stage: Stage<'_>, record: &str, key: &str) -> Result<u64> {
    let mut lines = stage.text(record)?.lines();
    let value = lines.find_map(|line| line.strip_prefix(key));
    let value = value.with_context(|| format!("no {key}"))?;
    let kilobytes: u64 = value.trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes << 10)
}

/// Whether everything that the loader handed over arrived. kexec_file_load hands over no
/// record, and then there is nothing to say.
fn reported(stage: Stage<'_>, by_load: bool) -> Result<()> {
    let report: Value = serde_json::from_str(stage.text("report.out")?)?;
    let planned = match by_load {
        true => Value::Bool(true),
        false => Value::Null,
    };
    ensure!(report["as_planned"] == planned, "{report}");
    Ok(())
}

#[test]
fn nothing_grows_from_kexec_to_kexec() -> Result<()> {
    let trips = lab::asked("RKEXEC_SOAK")?.unwrap_or(TRIPS);
    let ram = Ram::new(MEMORY)?;
    let (start, size) = RESERVED;
    let mut looks: BTreeMap<u32, Look> = BTreeMap::new();
    let mut started = None;
    let turn = |stage: u32| stage % 4;
    // The stage before this one called kexec_load.
    let by_load = |stage: u32| stage.is_multiple_of(2);
    let mut check = |stage: Stage<'_>| -> Result<()> {
        let number = stage.number();
        if number == 1 {
            return Ok(());
        }
        let look = Look::of(stage)?;
        for earlier in looks.values() {
            let alike = turn(earlier.stage) == turn(number);
            earlier
                .holds(&look, alike)
                .with_context(|| format!("stage {number}, not as stage {}", earlier.stage))?;
        }
        reported(stage, by_load(number)).with_context(|| format!("stage {number}"))?;
        looks.entry(turn(number)).or_insert(look);
        Ok(())
    };
    let outcome = Chain::new("soak", &Kernel::small()?, trips, SUPPLIES)
        .uefi()
        .first_words(&format!("memmap={size:#x}${start:#x}"))
        .turns(&TURNS)
        .before(LOOK)
        .run_with(
            &ram,
            |stage| {
                let number = stage.number();
                let begun = started.get_or_insert_with(Instant::now);
                let done = number - 1;
                if done > 0 {
                    let damaged = ram.damaged_pages(start, size, u64::from(done))?;
                    ensure!(damaged == 0, "{damaged} reserved pages in stage {number}");
                }
                if done > 0 && (done.is_multiple_of(25) || done == trips) {
                    let seconds = begun.elapsed().as_secs_f64();
                    let each = seconds / f64::from(done);
                    eprintln!("soak: {done} kexecs in a row in {seconds:.0} s, {each:.2} s each");
                }
                ram.fill(start, size, u64::from(number))
            },
            &mut check,
        )?;
    check(outcome.stage(trips + 1)?)?;
    let damaged = ram.damaged_pages(start, size, u64::from(trips) + 1)?;
    ensure!(damaged == 0, "{damaged} reserved pages at the end");
    Ok(())
}
