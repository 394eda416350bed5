//! What EFI leaves in memory: the initrd of an earlier boot's stub, and the tables that
//! the next kernel reads.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::lab::Kernel;
use crate::qemu::{End, Guest, line};
use crate::round_trip::runtime_map;
use crate::trip::{Trip, host_file};
use crate::witness::{Row, Stage, hex};

/// The command line of a kernel that gets no initrd: it panics for want of a root, and
/// that is how far a kernel without one comes.
const NO_INITRD: &str = line!("earlyprintk=ttyS0,115200 rkexec.stage=2");

/// The first kernel was started by its EFI stub, with an initrd (QEMU's -kernel and
/// -initrd); the next one is given none by `load`, which `boot` boots.
fn without_an_initrd(name: &str, options: &str, boot: &str) -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let request = format!("/next/vmlinuz --cmdline '{NO_INITRD}' {options}");
    let script = format!(
        "try load rkexec load {request} --output json
         sent
         {boot}"
    );
    let outcome = Guest::new(name, &kernel)
        .uefi(true)
        .memory("2G")
        .append("crashkernel=256M")
        .file("next/vmlinuz", &host_file(&kernel.image())?)
        .script(&script)
        .timeout(Duration::from_secs(180))
        .run()?;
    let before = outcome.stage_of_any_end(1)?;
    // What is to be mended is there.
    let log = before.text("dmesg")?;
    let efi = log
        .lines()
        .find(|line| line.contains("efi: ") && line.contains("INITRD="));
    efi.context("the stub left no INITRD table")?;
    let plan: serde_json::Value = serde_json::from_str(before.text("load.out")?)?;
    ensure!(plan["empty_initrd"].is_string(), "{plan}");
    let (_, next) = outcome
        .console
        .split_once("rkexec.stage=2")
        .with_context(|| outcome.story())?;
    ensure!(
        next.contains("Unable to mount root fs")
            && !next.contains("Cannot find place for new RAMDISK"),
        "{}",
        outcome.story()
    );
    ensure!(outcome.end == End::Reset, "{}", outcome.story());
    Ok(())
}

#[test]
fn no_initrd_by_kexec_load() -> Result<()> {
    without_an_initrd(
        "efi-no-initrd-kexec_load",
        "--syscall kexec_load",
        "rkexec exec",
    )
}

#[test]
fn no_initrd_by_kexec_file_load() -> Result<()> {
    without_an_initrd(
        "efi-no-initrd-kexec_file_load",
        "--syscall kexec_file_load",
        "rkexec exec",
    )
}

#[test]
fn no_initrd_for_a_crash_kernel() -> Result<()> {
    without_an_initrd(
        "efi-no-initrd-panic",
        "--panic --syscall kexec_load",
        "echo c >/proc/sysrq-trigger",
    )
}

/// The ranges of a stage's runtime map.
pub(crate) fn runtime_ranges(stage: Stage<'_>) -> Result<Vec<Row>> {
    let lines = runtime_map(stage)?;
    let value = |entry: &str, file: &str| {
        let line = format!("{entry}/{file}:");
        let mut values = lines.iter().filter_map(|other| other.strip_prefix(&*line));
        hex(values.next().with_context(|| line.clone())?)
    };
    let entries = lines
        .iter()
        .filter_map(|line| line.split_once("/phys_addr:"));
    entries
        .map(|(entry, start)| {
            let start = hex(start)?;
            Ok(Row {
                start,
                end: start + value(entry, "num_pages")? * 4096,
                kind: "EFI".to_owned(),
            })
        })
        .collect()
}

/// Sets `table` to the end of a range that the runtime map lists inside System RAM.
const FIND_TABLE: &str = "
for entry in /sys/firmware/efi/runtime-map/*; do
  start=$(($(cat $entry/phys_addr)))
  end=$((start + $(cat $entry/num_pages) * 4096))
  while read range colon name; do
    [ \"$name\" = 'System RAM' ] || continue
    first=$((0x${range%-*})); last=$((0x${range#*-}))
    if [ $first -le $start ] && [ $end -le $((last + 1)) ]; then table=$end; fi
  done </proc/iomem
done
table=$(printf 0x%x $table)
printf '%s' $table | record table
rkexec capture /tmp/captured >/tmp/out
ls /tmp/captured/dev | record captured-memory
";

/// Everything is to lie as high as it can below the end of the memory attributes table:
/// the last segment would lie on it.
#[test]
fn tables_in_system_ram_are_kept() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let arrival = Trip::to(&kernel)
        .before(FIND_TABLE)
        .options("--syscall kexec_load --mem-max $table")
        .run(Guest::new("efi-tables", &kernel).uefi(true))?;
    let (before, after) = (arrival.before()?, arrival.after()?);
    let end = hex(before.text("table")?)?;
    let ranges = runtime_ranges(before)?;
    ensure!(ranges.iter().any(|row| row.end == end), "{ranges:?}");
    arrival.plan.keeps_off(&ranges)?;
    let close = |row: &&Row| row.end <= end && end - row.end < 1 << 20;
    ensure!(
        arrival.plan.segments.iter().any(|row| close(&row)),
        "no segment came near the table"
    );
    // The configuration table can be read, and has a dozen entries of 24 bytes.
    let memory = before.text("captured-memory")?.lines();
    let sizes = memory.filter_map(|name| hex(name.rsplit_once('-')?.1).ok());
    let sizes: Vec<u64> = sizes.collect();
    ensure!(sizes.contains(&0x78), "no system table: {sizes:x?}");
    ensure!(
        sizes.iter().any(|size| *size >= 240 && size % 24 == 0),
        "no configuration table: {sizes:x?}"
    );
    let log = after.text("dmesg")?;
    ensure!(log.contains("MEMATTR="), "{log}");
    ensure!(!log.contains("Unexpected EFI Memory Attributes"), "{log}");
    assert_eq!(runtime_map(before)?, runtime_map(after)?);
    Ok(())
}
