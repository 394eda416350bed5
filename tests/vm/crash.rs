//! Real panics: the capture kernel is the witness of what the dump holds.

use std::os::unix::fs::FileExt as _;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow, ensure};
use goblin::elf::Elf;
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};

use crate::formats::{Ukify, vmlinux};
use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::memory::{PLUG_KMEM, PLUG_VIRTIO_MEM};
use crate::qemu::{End, Guest, Outcome, line};
use crate::ram::Ram;
use crate::trip::{Plan, compiled, host_file};
use crate::witness::{Row, Stage, merged};

/// The capture kernel's command line.
const CMDLINE: &str = line!("quiet nr_cpus=1 reset_devices rkexec.stage=2");

/// What the capture kernel does. `core` is as much of the dump as holds its headers.
const CAPTURE: &str = "
try dmesg makedumpfile --dump-dmesg /proc/vmcore /tmp/dmesg
record dmesg-of-the-dump </tmp/dmesg
dd if=/proc/vmcore bs=4K count=16 2>/dev/null | record core
try dump makedumpfile -l -d 31 /proc/vmcore /tmp/dump
ls -l /tmp/dump | record dump-size
record iomem-at-end </proc/iomem
";

const PANIC: &str = "sent; echo c >/proc/sysrq-trigger\n";
const PANIC_ON_CPU_1: &str = "sent; taskset 2 sh -c 'echo c >/proc/sysrq-trigger'\n";

/// Word that tests/vm/pattern.c writes.
const WORD: &str = "the quick brown fox was here";

/// tests/vm/pattern.c, compiled once.
fn pattern() -> Result<&'static [u8]> {
    static PROGRAM: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let make = || compiled("pattern").map_err(|error| format!("{error:#}"));
    match PROGRAM.get_or_init(make) {
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(anyhow!("pattern.c: {error}")),
    }
}

/// One panic.
struct Crash<'a> {
    name: &'a str,
    first: &'a str,
    /// The crash kernel's file, instead of the bzImage of `first`.
    image: Option<Vec<u8>>,
    /// What goes with the file.
    parts: String,
    options: &'a str,
    before: String,
    panic: &'a str,
    capture: String,
}

impl<'a> Crash<'a> {
    /// A kernel of series `first` that is its own capture kernel.
    fn of(name: &'a str, first: &'a str) -> Self {
        Self {
            name,
            first,
            image: None,
            parts: format!("--initrd /next/initrd --cmdline '{CMDLINE}'"),
            options: "--syscall kexec_load",
            before: String::new(),
            panic: PANIC,
            capture: CAPTURE.to_owned(),
        }
    }

    /// The capture kernel's initrd.
    fn initrd(&self) -> Result<Vec<u8>> {
        let mut overlay = Archive::new();
        overlay.file("test/stage-2", 0o644, self.capture.as_bytes());
        overlay.file("bin/pattern", 0o755, pattern()?);
        overlay.program("/usr/bin/makedumpfile".as_ref(), "bin/makedumpfile")?;
        initramfs::initrd(&Kernel::new(self.first)?, overlay)
    }

    /// A guest with everything but the panic's script.
    fn guest(&self) -> Result<Guest> {
        let kernel = Kernel::new(self.first)?;
        let image = match &self.image {
            Some(image) => image.clone(),
            None => host_file(&kernel.image())?,
        };
        Ok(Guest::new(self.name, &kernel)
            .append("crashkernel=256M")
            .file("next/vmlinuz", &image)
            .file("next/initrd", &self.initrd()?)
            .executable("bin/pattern", pattern()?))
    }

    /// What follows `rkexec plan` or `rkexec load`.
    fn request(&self) -> String {
        format!("--panic /next/vmlinuz {} {}", self.parts, self.options)
    }

    fn script(&self) -> String {
        let request = self.request();
        format!(
            "{}
             try load rkexec load {request} --output json
             try status rkexec status --check --output json
             {}",
            self.before, self.panic
        )
    }

    /// Loads, panics, captures.
    fn run(&self, guest: Guest) -> Result<Outcome> {
        let outcome = guest.script(&self.script()).run()?;
        let before = outcome.stage_of_any_end(1)?;
        ensure!(
            before.text("load.status")? == "0",
            "{}",
            before.text("load.err")?
        );
        Ok(outcome)
    }
}

/// The RAM of the running kernel that the dump has to hold.
fn dumpable(before: Stage) -> Result<Vec<Row>> {
    let iomem = before.iomem()?;
    let crash: Vec<&Row> = iomem
        .iter()
        .filter(|row| row.kind == "Crash kernel")
        .collect();
    ensure!(!crash.is_empty(), "no reservation");
    let mut ram = Vec::new();
    // A kernel that was loaded by kexec shows its setup_data as pieces of RAM.
    let rows = iomem
        .iter()
        .filter(|row| row.kind.starts_with("System RAM"));
    for row in merged(rows.cloned().collect()) {
        let mut start = row.start.max(1 << 20);
        for hole in crash
            .iter()
            .filter(|hole| row.start <= hole.start && hole.end <= row.end)
        {
            ram.push(Row {
                start,
                end: hole.start,
                kind: String::new(),
            });
            start = hole.end;
        }
        if start < row.end {
            ram.push(Row {
                start,
                end: row.end,
                kind: String::new(),
            });
        }
    }
    Ok(ram)
}

/// Holds the dump against what the panicked kernel said of itself.
fn dump_is_whole(outcome: &Outcome, ram: &[Row], cpus: usize) -> Result<()> {
    let after = outcome.stage(2)?;
    let log = after.text("dmesg-of-the-dump")?;
    ensure!(
        log.contains("Kernel panic - not syncing: sysrq triggered crash"),
        "{log}"
    );
    let size = after.text("dump-size")?;
    let bytes: u64 = size.split_whitespace().nth(4).context("ls")?.parse()?;
    ensure!(bytes > 1 << 20, "{size}");

    let core = after.bytes("core")?;
    let elf = Elf::parse(core)?;
    let loads = elf
        .program_headers
        .iter()
        .filter(|header| header.p_type == PT_LOAD);
    // The kernel merges all notes into one; every CPU left its registers in it.
    let note = elf
        .program_headers
        .iter()
        .find(|header| header.p_type == PT_NOTE);
    let note = note.context("no notes")?;
    let status = core[usize::try_from(note.p_offset)?..]
        .windows(12)
        .filter(|bytes| *bytes == [5, 0, 0, 0, 0x50, 1, 0, 0, 1, 0, 0, 0])
        .count();
    ensure!(status == cpus, "{status} notes of CPUs, not {cpus}");
    let loads: Vec<(u64, u64)> = loads
        .map(|load| (load.p_paddr, load.p_paddr + load.p_memsz))
        .collect();
    for row in ram {
        // /proc/vmcore shows whole pages.
        let (start, end) = (row.start & !4095, row.end.next_multiple_of(4096));
        ensure!(
            loads.contains(&(start, end)),
            "{start:x}-{end:x} is not in the dump: {loads:x?}"
        );
    }
    // All of RAM, and the kernel's text once more.
    ensure!(loads.len() == ram.len() + 1, "{loads:x?}");
    Ok(())
}

/// The capture kernel was told of the reservation and the low memory alone.
fn told_of_its_own_memory_alone(outcome: &Outcome) -> Result<()> {
    let plan = Plan::of(outcome.stage_of_any_end(1)?)?;
    let told = outcome.stage(2)?.firmware_map()?;
    its_own_ram(outcome, &told).context("told of it")?;
    if plan.json["syscall"]["name"] == "kexec_load" {
        plan.kept(outcome.stage(2)?)?;
    }
    Ok(())
}

/// The second of two CPUs panics.
fn a_panic_is_dumped(name: &str, first: &str, syscall: &str) -> Result<()> {
    let options = format!("--syscall {syscall}");
    let crash = Crash {
        options: &options,
        panic: PANIC_ON_CPU_1,
        ..Crash::of(name, first)
    };
    let outcome = crash.run(crash.guest()?.cpus(2))?;
    let before = outcome.stage_of_any_end(1)?;
    let status: serde_json::Value = serde_json::from_str(before.text("status.out")?)?;
    assert_eq!(status["armed"]["state"], "yes");
    assert_eq!(status["crash_record"]["syscall"], syscall);
    captured(&outcome, 2)
}

/// The capture kernel was what it had to be, and so is the dump.
fn captured(outcome: &Outcome, cpus: usize) -> Result<()> {
    let before = outcome.stage_of_any_end(1)?;
    dump_is_whole(outcome, &dumpable(before)?, cpus)?;
    told_of_its_own_memory_alone(outcome)?;
    let cmdline = outcome.stage(2)?.text("cmdline")?;
    let words: Vec<&str> = cmdline
        .split(' ')
        .filter(|word| !word.starts_with("elfcorehdr="))
        .collect();
    assert_eq!(words.join(" "), format!("{CMDLINE} acpi_no_memhotplug"));
    took_no_memory_of_the_dump(outcome)
}

/// Hot-added memory that the capture kernel's own drivers find is the dump's.
pub(crate) fn took_no_memory_of_the_dump(outcome: &Outcome) -> Result<()> {
    let at_end = outcome.stage(2)?.rows("iomem-at-end")?;
    its_own_ram(outcome, &at_end).context("took it")
}

/// What `map`, the capture kernel's, calls RAM, a driver's included, is the reservation
/// and the low memory.
fn its_own_ram(outcome: &Outcome, map: &[Row]) -> Result<()> {
    let before = outcome.stage_of_any_end(1)?.iomem()?;
    for ram in map.iter().filter(|row| row.kind.starts_with("System RAM")) {
        let mut reserved = before.iter().filter(|row| row.kind == "Crash kernel");
        let own = reserved.any(|own| own.start <= ram.start && ram.end <= own.end);
        ensure!(
            own || ram.end <= 1 << 20,
            "{ram:x?} is not the capture kernel's: {map:x?}"
        );
    }
    Ok(())
}

// Each kernel, each call, and one CPU or two meet in pairs, also with what follows:
// 6.12 by kexec_load with one CPU is `a_panic_captured_by_a_vmlinux`, 6.1 by
// kexec_file_load with one is `a_panic_captured_by_a_uki`.

#[test]
fn a_panic_of_6_12_by_kexec_file_load() -> Result<()> {
    a_panic_is_dumped("crash-6.12-kexec_file_load", "6.12", "kexec_file_load")
}

#[test]
fn a_panic_of_6_1_by_kexec_load() -> Result<()> {
    a_panic_is_dumped("crash-6.1-kexec_load", "6.1", "kexec_load")
}

/// It runs where the plan put it, inside the reservation.
#[test]
fn a_panic_captured_by_a_vmlinux() -> Result<()> {
    let crash = Crash {
        image: Some(vmlinux(&Kernel::new("6.12")?)?),
        ..Crash::of("crash-vmlinux", "6.12")
    };
    let outcome = crash.run(crash.guest()?)?;
    let plan = Plan::of(outcome.stage_of_any_end(1)?)?;
    ensure!(plan.json["image"]["format"] == "vmlinux");
    captured(&outcome, 1)
}

/// Its own initrd and command line, and no file that kexec_file_load could read.
#[test]
fn a_panic_captured_by_a_uki() -> Result<()> {
    let kernel = Kernel::new("6.1")?;
    let crash = Crash {
        parts: String::new(),
        options: "--syscall kexec_file_load",
        ..Crash::of("crash-uki", "6.1")
    };
    let ukify = Ukify::new()?;
    let file = ukify.uki("uki", &kernel.image(), &crash.initrd()?, CMDLINE, &[])?;
    let crash = Crash {
        image: Some(host_file(&file)?),
        ..crash
    };
    let outcome = crash.run(crash.guest()?)?;
    let plan = Plan::of(outcome.stage_of_any_end(1)?)?;
    ensure!(plan.json["image"]["format"] == "UKI of bzImage");
    captured(&outcome, 1)
}

/// A script that fills a page of the memory called `kind` and records where it is.
fn hold_pattern(kind: &str) -> String {
    format!(
        "range=$(sed -n 's/^ *\\([0-9a-f]*\\)-\\([0-9a-f]*\\) : {kind}$/\\1 \\2/p' /proc/iomem | tail -n 1)
         pattern hold $range >/tmp/where 2>/tmp/pattern.err &
         for second in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
           grep -q 0x /tmp/where && break
           sleep 1
         done
         record pattern.err </tmp/pattern.err
         record where </tmp/where\n"
    )
}

/// What is at the address that the first kernel gave on the capture kernel's
/// command line is read out of the dump.
const READ_PATTERN: &str = "
where=$(sed 's/.*where=\\(0x[0-9a-f]*\\).*/\\1/' /proc/cmdline)
try found pattern read /proc/vmcore $where
";

/// A driver's memory is in the dump, with what a process had in it.
fn driver_memory_is_dumped(crash: &Crash, guest: Guest, kind: &str) -> Result<()> {
    let outcome = crash.run(guest)?;
    let before = outcome.stage_of_any_end(1)?;
    let address = before.text("where")?;
    ensure!(address.starts_with("0x"), "{}", before.text("pattern.err")?);
    let at = crate::witness::hex(address)?;
    let memory = before.rows("plugged")?;
    let memory: Vec<&Row> = memory.iter().filter(|row| row.kind == kind).collect();
    ensure!(
        memory.iter().any(|row| row.start <= at && at < row.end),
        "{address}: {memory:x?}"
    );
    let after = outcome.stage(2)?;
    ensure!(
        after.text("found.out")? == WORD,
        "{}",
        after.text("found.err")?
    );
    ensure!(
        after.text("dump.status")? == "0",
        "{}",
        after.text("dump.err")?
    );
    took_no_memory_of_the_dump(&outcome)
}

/// 450 MiB of 512 are plugged: of one memory block the device keeps a part.
#[test]
fn virtio_mem_is_in_the_dump() -> Result<()> {
    let crash = Crash {
        before: format!(
            "{PLUG_VIRTIO_MEM}{}",
            hold_pattern("System RAM (virtio_mem)")
        ),
        options: "--syscall kexec_load --append where=$(cat /tmp/where)",
        capture: format!("modules virtio_pci virtio_mem{READ_PATTERN}{CAPTURE}"),
        ..Crash::of("crash-virtio-mem", "6.12")
    };
    let guest = crash
        .guest()?
        .memory("1G,slots=4,maxmem=8G")
        .args(["-object", "memory-backend-ram,id=v0,size=1G"])
        .args(["-device", "virtio-mem-pci,memdev=v0,requested-size=450M"]);
    driver_memory_is_dumped(&crash, guest, "System RAM (virtio_mem)")
}

#[test]
fn kmem_is_in_the_dump() -> Result<()> {
    let crash = Crash {
        before: format!("{PLUG_KMEM}{}", hold_pattern("System RAM (kmem)")),
        options: "--syscall kexec_load --append where=$(cat /tmp/where)",
        capture: format!("{READ_PATTERN}{CAPTURE}"),
        ..Crash::of("crash-kmem", "6.1")
    };
    let mut guest = crash.guest()?.memory("2G").append("memmap=512M!1G");
    for tool in ["/usr/bin/ndctl", "/usr/bin/daxctl"] {
        guest = guest.program(tool)?;
    }
    driver_memory_is_dumped(&crash, guest, "System RAM (kmem)")
}

/// Memory that the firmware sets aside for a purpose (Soft Reserved): kmem uses it as
/// RAM, here and in a capture kernel that is told of it.
#[test]
fn soft_reserved_memory_is_in_the_dump() -> Result<()> {
    const PLUG: &str = "
        echo offline >/sys/devices/system/memory/auto_online_blocks
        modules dax_hmem device_dax kmem
        for second in 1 2 3 4 5 6 7 8 9 10; do
          grep -q kmem /proc/iomem && break
          sleep 1
        done
        for block in /sys/devices/system/memory/memory*; do
          [ $(cat $block/state) = online ] || echo online_movable >$block/state
        done
        record plugged </proc/iomem
    ";
    let crash = Crash {
        before: format!("{PLUG}{}", hold_pattern("System RAM (kmem)")),
        options: "--syscall kexec_load --append where=$(cat /tmp/where)",
        capture: format!("modules dax_hmem device_dax kmem{READ_PATTERN}{CAPTURE}"),
        ..Crash::of("crash-soft-reserved", "6.12")
    };
    let guest = crash
        .guest()?
        .memory("2G")
        .append("memmap=512M%0x40000000-1+0xefffffff");
    driver_memory_is_dumped(&crash, guest, "System RAM (kmem)")
}

/// One byte of the initrd, where it lies for the panic.
#[test]
fn a_damaged_crash_image_stops_in_purgatory() -> Result<()> {
    let crash = Crash {
        panic: "from_host | record go\nsent\necho c >/proc/sysrq-trigger\n",
        ..Crash::of("crash-damaged", "6.12")
    };
    let ram = Ram::new(1 << 30)?;
    let guest = ram.attach(crash.guest()?).script(&crash.script());
    let outcome = guest.conduct(|guest| {
        let plan = guest.wait_for(1, "load.out")?;
        let plan = Plan::parse(std::str::from_utf8(&plan)?)?;
        guest.wait_for(1, "status.status")?;
        let initrd = plan
            .segments
            .iter()
            .find(|segment| segment.kind == "initrd");
        let at = initrd.context("no initrd")?.start + 123_456;
        let mut byte = [0];
        ram.file().read_exact_at(&mut byte, at)?;
        ram.file().write_all_at(&[byte[0] ^ 1], at)?;
        guest.say("go")?;
        guest.wait_for_console("digest mismatch")?;
        guest.wait_for_halt()?;
        guest.quit()
    })?;
    ensure!(outcome.end == End::Stopped, "{}", outcome.story());
    ensure!(
        outcome.stage_of_any_end(2).is_err(),
        "the capture kernel ran"
    );
    Ok(())
}

/// Loads that fail, and what is armed after each.
fn failing_reloads() -> String {
    let request = Crash::of("", "6.12").request();
    format!(
        "try first rkexec load {request}
         cp /next/vmlinuz /tmp/vmlinuz
         check() {{
           record $1-loaded </sys/kernel/kexec_crash_loaded
           refused $1-check rkexec status --check
         }}
         check first

         # Larger than the reservation: seen before the call.
         dd if=/dev/zero of=/tmp/large bs=1M count=250 2>/dev/null
         refused large rkexec load {request} --initrd /tmp/large
         refused large-file rkexec load {request} --initrd /tmp/large --syscall kexec_file_load
         rm /tmp/large
         check large
         refused hotplug rkexec load {request} --hotplug off --syscall kexec_file_load

         # Open for writing: the kernel sees it when the old image is gone.
         exec 8>>/tmp/vmlinuz
         file=\"--panic /tmp/vmlinuz --initrd /next/initrd --cmdline x --syscall kexec_file_load\"
         refused busy rkexec load $file
         check busy

         # What was loaded cannot be loaded again: its file is another one.
         cp /next/initrd /tmp/initrd
         try second rkexec load --panic /next/vmlinuz --initrd /tmp/initrd --cmdline x
         echo >>/tmp/initrd
         refused lost rkexec load $file
         check lost

         try third rkexec load {request}
         echo 0 >/proc/sys/kernel/kexec_load_limit_panic
         refused limit rkexec load {request}
         check limit
         refused unload rkexec unload --panic
         refused unload-file kexec -s -p -u
         check end
        "
    )
    .replace("--syscall kexec_load ", "")
}

/// What goes wrong with a reload, and what is armed after it.
#[test]
fn a_failed_reload_leaves_the_machine_armed() -> Result<()> {
    let outcome = Crash::of("crash-reload", "6.12")
        .guest()?
        .program("/sbin/kexec")?
        .script(&failing_reloads())
        .run()?;
    let stage = outcome.stage(1)?;
    let armed = |step: &str, loaded: &str, check: &str| -> Result<()> {
        let is_loaded = stage.text(&format!("{step}-loaded"))?;
        ensure!(is_loaded == loaded, "{step}: loaded {is_loaded}");
        let status = stage.text(&format!("{step}-check.status"))?;
        ensure!(
            status == check,
            "{step}: {}",
            stage.text(&format!("{step}-check.err"))?
        );
        Ok(())
    };
    let failed = |step: &str, words: &[&str]| -> Result<()> {
        let message = stage.text(&format!("{step}.err"))?;
        ensure!(
            stage.text(&format!("{step}.status"))? == "1",
            "{step}: {message}"
        );
        for word in words {
            ensure!(message.contains(word), "{step}: no {word:?} in {message}");
        }
        Ok(())
    };
    armed("first", "1", "0")?;
    failed(
        "large",
        &[
            "not enough free memory for the initrd",
            "the largest free there",
            "hint: boot with crashkernel=",
        ],
    )?;
    failed("large-file", &["not enough free memory for the initrd"])?;
    armed("large", "1", "0")?;
    ensure!(stage.text("hotplug.status")? == "2");
    failed(
        "busy",
        &[
            "which the attempt had thrown out, is armed again",
            "open for writing",
        ],
    )?;
    armed("busy", "1", "0")?;
    failed(
        "lost",
        &[
            "the machine is NOT armed",
            "its files are no longer what they were",
        ],
    )?;
    armed("lost", "0", "3")?;
    failed("limit", &["stays armed", "kexec_load_limit_panic"])?;
    armed("limit", "1", "0")?;
    armed("end", "1", "0")
}

/// What the attempt threw out is a UKI with an addon: it is loaded again with the words
/// of both, once.
#[test]
fn a_uki_with_an_addon_is_armed_again_as_it_was() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let crash = Crash::of("crash-reload-uki", "6.12");
    let ukify = Ukify::new()?;
    let file = ukify.uki("uki", &kernel.image(), &crash.initrd()?, CMDLINE, &[])?;
    let addon = ukify.build(
        "addon",
        "addonx64.efi.stub",
        &["--cmdline", "rkexec.addon=1"],
    )?;
    let script = "
        try first rkexec load --panic /test/uki --addon /test/addon --append last
        try before rkexec status --output json
        # Open for writing: the kernel sees it when the old image is gone.
        cp /next/vmlinuz /tmp/vmlinuz
        exec 8>>/tmp/vmlinuz
        refused busy rkexec load --panic /tmp/vmlinuz --initrd /next/initrd --cmdline x --syscall kexec_file_load
        try after rkexec status --check --output json
    ";
    let outcome = crash
        .guest()?
        .file("test/uki", &host_file(&file)?)
        .file("test/addon", &host_file(&addon)?)
        .script(script)
        .run()?;
    let stage = outcome.stage(1)?;
    let busy = stage.text("busy.err")?;
    ensure!(busy.contains("is armed again"), "{busy}");
    for step in ["before", "after"] {
        let status: serde_json::Value = serde_json::from_str(stage.text(&format!("{step}.out"))?)?;
        assert_eq!(status["armed"]["state"], "yes", "{step}");
        let line = &status["crash_record"]["cmdline"];
        assert_eq!(line, &format!("{CMDLINE} rkexec.addon=1 last"), "{step}");
    }
    Ok(())
}

/// The kernel that panics was placed by the loader, and so is the one that captures: the
/// tools for dumps find both. Stage 0 boots the kernel that the other tests begin with.
#[test]
fn a_panic_after_a_direct_load_is_captured_by_one() -> Result<()> {
    let crash = Crash {
        options: "--syscall kexec_load --direct on",
        ..Crash::of("crash-direct", "6.12")
    };
    let load = format!(
        "cd /
         find init bin sbin lib lib64 etc next test $(ls -d usr 2>/dev/null) >/tmp/list
         mkdir -p proc sys dev tmp; printf 'proc\\nsys\\ndev\\ntmp\\n' >>/tmp/list
         cpio -o -H newc -F /tmp/initrd </tmp/list
         try load rkexec load /next/vmlinuz --initrd /tmp/initrd --syscall kexec_load \
           --direct on --cmdline '{}' --output json
         try exec rkexec exec\n",
        line!("quiet crashkernel=256M rkexec.stage=1")
    );
    let guest = crash.guest()?.append("rkexec.stage=0");
    let outcome = crash.run(guest.file("test/stage-0", load.as_bytes()))?;
    let first = Plan::of(outcome.stage_of_any_end(0)?)?;
    let panicked = outcome.stage_of_any_end(1)?;
    first.runs_where_it_was_put(panicked)?;
    let second = Plan::of(panicked)?;
    for plan in [&first, &second] {
        ensure!(
            plan.json["direct"]["randomized"] == true,
            "{}",
            plan.json["direct"]
        );
    }
    second.runs_where_it_was_put(outcome.stage(2)?)?;
    captured(&outcome, 1)
}
