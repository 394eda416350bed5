//! Planning on machines of any size: made-up ones, since no real one is at hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rkexec::base::PhysRange;
use rkexec::cmdline::{CmdlineBase, CmdlineRequest};
use rkexec::crash::{self, Reservation, elfcorehdr};
use rkexec::host::crash::{KernelMapping, Note};
use rkexec::host::{Host, Root, iomem};
use rkexec::image;
use rkexec::memory::{MapPolicy, MemoryMap};
use rkexec::plan::{Given, plan};
use rkexec::request::LoadRequest;

use crate::lab::Kernel;
use crate::measure;

const ROUNDS: usize = 11;

/// Lines of /proc/iomem for each range of RAM, itself included.
const LINES_PER_RANGE: usize = 10;

/// Where the rest of the made-up machine is from.
const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machines/big");

pub(crate) fn run(rkexec: &Path, kernel: &Kernel) -> Result<()> {
    let directory = measure::directory()?;
    let (small, large) = (
        directory.path().join("small"),
        directory.path().join("large"),
    );
    make_machine(&small, 1_000)?;
    make_machine(&large, 10_000)?;
    println!(
        "planning: 10,000 and 100,000 lines of iomem; a firmware map of 1,000 and 10,000 entries"
    );
    let file = fs::read(kernel.image())?;
    let image = image::probe(&file)?;
    let [
        mut small_process,
        mut large_process,
        mut small_library,
        mut large_library,
    ] = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        small_process.push(process(rkexec, &small, kernel)?);
        large_process.push(process(rkexec, &large, kernel)?);
        small_library.push(library(&small, &image)?);
        large_library.push(library(&large, &image)?);
    }
    measure::show("rkexec plan, 10,000 lines", &small_process);
    measure::show("rkexec plan, 100,000 lines", &large_process);
    // Without the start of the process, the kernel's digest and the text.
    measure::show("facts and plan alone, 10,000 lines", &small_library);
    measure::show("facts and plan alone, 100,000 lines", &large_library);
    println!(
        "plan with 100,000 lines and 10,000 ranges of RAM: {:.3} s (wanted: below 0.5)",
        measure::median(&large_process).as_secs_f64()
    );
    elfcorehdr()?;
    println!(
        "growth with 10 times the lines: {:.1} x, facts and plan alone {:.1} x (wanted: at most 15)",
        measure::ratio(&large_process, &small_process),
        measure::ratio(&large_library, &small_library)
    );
    Ok(())
}

/// The ELF header of a dump from 100,000 memory blocks, of which two touch each
/// time, with 4,096 CPUs; goblin reads it back.
fn elfcorehdr() -> Result<()> {
    const BLOCKS: u64 = 100_000;
    const BLOCK: u64 = 128 << 20;
    let mut iomem = String::new();
    for number in 0..BLOCKS {
        let start = (number + number / 2 + 1) * BLOCK;
        let driver = if number % 3 == 0 { " (virtio_mem)" } else { "" };
        row(
            &mut iomem,
            0,
            start,
            start + BLOCK,
            &format!("System RAM{driver}"),
        );
    }
    let reserved = (BLOCKS * 2) * BLOCK;
    row(&mut iomem, 0, reserved, reserved + (1 << 30), "System RAM");
    row(
        &mut iomem,
        1,
        reserved,
        reserved + (1 << 30),
        "Crash kernel",
    );
    let mut host = Host::read_for_crash(&Root::at(MACHINE))?;
    host.iomem = iomem::parse(iomem.as_bytes())?;
    let note = |number: u32| Note {
        address: u64::from(number) << 12,
        size: 368,
    };
    host.crash.cpus = (0..4096).map(|number| (number, note(number))).collect();
    host.crash.vmcoreinfo = Some(note(4096));
    host.crash.mapping.get_or_insert(KernelMapping {
        direct_map: 0xffff_8880_0000_0000,
        text: 0xffff_ffff_8100_0000,
        image: PhysRange::new(0x100_0000, 0x200_0000)?,
    });

    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let mut map = MemoryMap::reconcile(&host, MapPolicy::FixedUp, &BTreeSet::new());
        Reservation::of(&host)?.restrict(&mut map)?;
        let ram = crash::dumped(&map);
        let bytes = elfcorehdr::build(&crash::contents(&host, &ram)?)?;
        times.push(start.elapsed());
        let headers = goblin::elf::Elf::parse(&bytes)?.program_headers;
        ensure!(headers.len() == 4096 + 2 + ram.len() && ram.len() == 50_000);
        let loads = headers.iter().skip(4096 + 2);
        let size: u64 = loads.map(|load| load.p_memsz).sum();
        ensure!(size == BLOCKS * BLOCK, "{size:#x}");
    }
    measure::show("elfcorehdr, with the reconciled map", &times);
    println!(
        "elfcorehdr for 4,096 CPUs and 100,000 ranges of RAM: {:.3} s (wanted: below 0.5)",
        measure::median(&times).as_secs_f64()
    );
    Ok(())
}

fn process(rkexec: &Path, machine: &Path, kernel: &Kernel) -> Result<Duration> {
    let mut command = Command::new(rkexec);
    command
        .args(["plan", "--cmdline", "quiet", "--syscall", "kexec_load"])
        .arg("--root")
        .args([machine, &kernel.image()]);
    measure::time(&mut command)
}

fn library(machine: &Path, image: &image::Image<'_>) -> Result<Duration> {
    let request = LoadRequest {
        cmdline: CmdlineRequest {
            base: CmdlineBase::Given("quiet".into()),
            ..CmdlineRequest::default()
        },
        no_digest: true,
        ..LoadRequest::default()
    };
    let start = Instant::now();
    let host = Host::read(&Root::at(machine))?;
    let plan = plan(
        &request,
        &host,
        image,
        &Given::default(),
        rkexec::carry::Capability::unknown,
    )?;
    let took = start.elapsed();
    ensure!(!plan.segments().is_empty(), "the plan has no segments");
    Ok(took)
}

/// A machine with `ranges` ranges of RAM, holes and reserved memory between
/// them, a tenth of it added by drivers; all but that was there at boot.
fn make_machine(machine: &Path, ranges: usize) -> Result<()> {
    copy(Path::new(MACHINE), machine)?;
    let mut iomem = String::new();
    let mut firmware = vec![
        (0, 0x1000, "Reserved", 2),
        (0x1000, 0xa_0000, "System RAM", 1),
    ];
    row(&mut iomem, 0, 0, 0x1000, "Reserved");
    row(&mut iomem, 0, 0x1000, 0xa_0000, "System RAM");
    for number in 1..ranges {
        // Every range has 1 GiB of addresses for itself.
        let start = u64::try_from(number)? << 30;
        let (end, reserved) = (start + (3 << 28), start + (3 << 28) + (1 << 20));
        let driver = number % 10 == 0;
        let children = if driver {
            row(&mut iomem, 0, start, end, &format!("virtio{number}"));
            row(&mut iomem, 1, start, end, "System RAM (virtio_mem)");
            LINES_PER_RANGE - 3
        } else {
            row(&mut iomem, 0, start, end, "System RAM");
            firmware.push((start, end, "System RAM", 1));
            LINES_PER_RANGE - 2
        };
        let depth = if driver { 2 } else { 1 };
        for child in 0..children {
            let at = start + (u64::try_from(child)? << 21);
            row(&mut iomem, depth, at, at + (1 << 20), "Kernel data");
        }
        row(&mut iomem, 0, end, reserved, "Reserved");
        firmware.push((end, reserved, "Reserved", 2));
    }
    fs::write(machine.join("proc/iomem"), iomem)?;

    let memmap = machine.join("sys/firmware/memmap");
    fs::remove_dir_all(&memmap)?;
    let mut e820 = Vec::new();
    for (number, (start, end, name, kind)) in firmware.into_iter().enumerate() {
        let entry = memmap.join(number.to_string());
        fs::create_dir_all(&entry)?;
        fs::write(entry.join("start"), format!("{start:#x}\n"))?;
        fs::write(entry.join("end"), format!("{:#x}\n", end - 1))?;
        fs::write(entry.join("type"), format!("{name}\n"))?;
        e820.extend(u64::to_le_bytes(start));
        e820.extend(u64::to_le_bytes(end - start));
        e820.extend(u32::to_le_bytes(kind));
    }
    boot_params(&machine.join("sys/kernel/boot_params"), &e820)
}

/// The boot e820: 128 entries in the zero page, the rest in a SETUP_E820_EXT node
/// (Documentation/arch/x86/zero-page.rst, asm/setup_data.h).
fn boot_params(directory: &Path, e820: &[u8]) -> Result<()> {
    let data = directory.join("data");
    let mut zero_page = fs::read(&data)?;
    let (inline, beyond) = e820.split_at(128 * 20);
    zero_page
        .get_mut(0x2d0..0x2d0 + inline.len())
        .context("the zero page is too short")?
        .copy_from_slice(inline);
    *zero_page.get_mut(0x1e8).context("no e820_entries")? = 128;
    fs::write(data, zero_page)?;
    let node = directory.join("setup_data/0");
    fs::create_dir_all(&node)?;
    fs::write(node.join("type"), "0x1\n")?;
    Ok(fs::write(node.join("data"), beyond)?)
}

/// One line of /proc/iomem.
fn row(iomem: &mut String, depth: usize, start: u64, end: u64, name: &str) {
    let indent = "  ".repeat(depth);
    *iomem += &format!("{indent}{start:08x}-{:08x} : {name}\n", end - 1);
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
