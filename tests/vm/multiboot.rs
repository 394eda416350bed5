//! Kernels that are no Linux: one of multiboot that says what it was given, Xen
//! with a Debian kernel as dom0, and memtest86+.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::initramfs::Archive;
use crate::lab::{self, Kernel};
use crate::qemu::{End, Guest, Outcome};
use crate::trip::{self, Plan, Trip};
use crate::witness::{Stage, hex};

/// What the witness ends QEMU with: 0x21 << 1 | 1.
const DONE: &str = "exit status: 67";
/// Emulation is slow, and Xen does much before its dom0 starts.
const PATIENCE: Duration = Duration::from_secs(900);

/// The witness for `version`, linked at `base`.
fn witness(version: u32, base: u64) -> Result<Vec<u8>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/witness_kernel");
    let dir = tempfile::tempdir()?;
    let (object, kernel) = (dir.path().join("kernel.o"), dir.path().join("kernel"));
    lab::output(
        Command::new("gcc")
            .args(["-m32", "-c", &format!("-DVERSION={version}")])
            .arg(source.join("kernel.S"))
            .arg("-o")
            .arg(&object),
    )?;
    // Pages of 64 bytes: the loads share real ones.
    lab::output(
        Command::new("ld")
            .args(["-m", "elf_i386", "-static", "-z", "max-page-size=64"])
            .arg(format!("--defsym=BASE={base:#x}"))
            .arg("-T")
            .arg(source.join("kernel.ld"))
            .arg("-o")
            .args([&kernel, &object]),
    )?;
    trip::host_file(&kernel)
}

/// What the witness said: name, and bytes, in order.
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn of(outcome: &Outcome) -> Result<Self> {
        let done = matches!(&outcome.end, End::Qemu(words) if words.starts_with(DONE));
        ensure!(done, "{:?}: {}", outcome.end, outcome.story());
        let lines = outcome.console.lines();
        let said = lines
            .filter_map(|line| line.trim_end_matches('\r').strip_prefix("multiboot "))
            .map(|line| {
                let (name, digits) = line.split_once(' ').context("a line without a value")?;
                let bytes = digits.as_bytes().chunks(2);
                let bytes = bytes.map(|two| Ok(u8::from_str_radix(std::str::from_utf8(two)?, 16)?));
                Ok((name.to_owned(), bytes.collect::<Result<_>>()?))
            });
        let said: Vec<_> = said.collect::<Result<_>>()?;
        ensure!(
            said.last().is_some_and(|(name, _)| name == "end"),
            "{}",
            outcome.story()
        );
        Ok(Self(said))
    }

    fn all(&self, name: &str) -> Vec<&[u8]> {
        let found = self.0.iter().filter(|(other, _)| other == name);
        found.map(|(_, bytes)| bytes.as_slice()).collect()
    }

    fn one(&self, name: &str) -> Result<&[u8]> {
        let all = self.all(name);
        ensure!(all.len() == 1, "{} lines {name}", all.len());
        Ok(all[0])
    }

    fn text(&self, name: &str) -> Result<&str> {
        Ok(std::str::from_utf8(self.one(name)?)?)
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i])).into()
}

fn long(bytes: &[u8], at: usize) -> u64 {
    word(bytes, at) | word(bytes, at + 4) << 32
}

/// The map of a plan: start, size, type.
fn promised_map(plan: &Plan) -> Result<Vec<(u64, u64, u64)>> {
    let rows = plan.json["e820"].as_array().context("e820")?;
    rows.iter()
        .map(|row| {
            let start = hex(row["start"].as_str().context("start")?)?;
            let number = |name: &str| row[name].as_u64().context("a number");
            Ok((start, number("size")?, number("type")?))
        })
        .collect()
}

/// The first module is not of whole pages, the second one begins with a page of zeroes.
fn modules() -> [Vec<u8>; 2] {
    let mut second = vec![0; 4096];
    second.extend(trip::noise("second", 3001));
    [trip::noise("first", 5003), second]
}

/// What the witness is loaded with.
const PARTS: &str = "/next/kernel --module '/next/first a b' --module /next/second";

/// Boots the witness from Linux, by `rkexec load` or by another `load`;
/// what it said, what the plan was, and what Linux was.
fn told(
    guest: Guest,
    version: u32,
    base: u64,
    load: Option<&str>,
) -> Result<(Said, Plan, Outcome)> {
    let request = format!("{PARTS} --cmdline 'one  two'");
    let rkexec_load = format!("rkexec load {request}");
    let load = load.unwrap_or(&rkexec_load);
    let [first, second] = modules();
    let outcome = guest
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        .file("next/kernel", &witness(version, base)?)
        .file("next/first", &first)
        .file("next/second", &second)
        .script(&format!(
            "try plan rkexec plan {request} --output json
             try load {load}
             modprobe dmi-sysfs || true
             for file in /sys/firmware/dmi/tables/smbios_entry_point; do
               [ ! -e $file ] || record smbios <$file
             done
             try exec rkexec exec"
        ))
        .run()?;
    let said = Said::of(&outcome)?;
    let plan = Plan::parse(outcome.stage_of_any_end(1)?.text("plan.out")?)?;
    check(&said, &plan, version)?;
    Ok((said, plan, outcome))
}

/// What holds for both versions.
fn check(said: &Said, plan: &Plan, version: u32) -> Result<()> {
    let state = said.one("state")?;
    let (eax, ebx, start) = (word(state, 0), word(state, 4), word(state, 8));
    let (eflags, cr0, cr4, efer) = (
        word(state, 12),
        word(state, 16),
        word(state, 20),
        word(state, 24),
    );
    assert_eq!(
        eax,
        if version == 1 {
            0x2bad_b002
        } else {
            0x36d7_6289
        }
    );
    assert_eq!(eflags & 0x2_0200, 0, "VM and IF");
    assert_eq!(cr0 & 0x8000_0001, 1, "PE without PG");
    assert_eq!((cr4, efer), (0, 0));
    let segment = |role: &str| {
        let mut found = plan.segments.iter().filter(|row| row.kind == role);
        found.next().context("no such segment")
    };
    assert_eq!(ebx, segment("boot_params")?.start);
    let kernel = segment("kernel")?;
    ensure!(
        kernel.start < start && start < kernel.end,
        "{start:#x}, {kernel:?}"
    );
    assert_eq!(said.text("data")?, "loaded from the file to the last byte");
    assert_eq!(said.one("bss")?, [0; 4]);

    let [first, second] = modules();
    assert_eq!(said.all("module"), [&first[..], &second[..]]);
    assert_eq!(plan.json["cmdline"], "/next/kernel one  two");
    Ok(())
}

/// The tags of version 2 by type, modules apart.
fn tags(information: &[u8]) -> Result<(BTreeMap<u64, &[u8]>, Vec<&[u8]>)> {
    let (mut tags, mut modules) = (BTreeMap::new(), Vec::new());
    let mut at = 8;
    while at < information.len() {
        let size = usize::try_from(word(information, at + 4))?;
        let body = &information[at + 8..at + size];
        match word(information, at) {
            3 => modules.push(body),
            kind => ensure!(tags.insert(kind, body).is_none(), "two tags {kind}"),
        }
        at = (at + size).next_multiple_of(8);
    }
    ensure!(at == information.len() && tags.contains_key(&0), "no end");
    Ok((tags, modules))
}

/// The ACPI tables that Linux found in the firmware: `ACPI: RSDT 0x…` in its log.
fn logged_table(stage: Stage, name: &str) -> Result<u64> {
    let line = stage.text("dmesg")?.lines().find_map(|line| {
        line.split_once(&format!("ACPI: {name} 0x"))
            .map(|(_, rest)| rest)
    });
    let address = line.and_then(|rest| rest.split_whitespace().next());
    hex(address.with_context(|| format!("no {name} in the log"))?)
}

#[test]
fn a_multiboot_1_kernel_is_told_what_was_planned() -> Result<()> {
    let guest = Guest::new("multiboot-1", &Kernel::new("6.12")?);
    let kexec = format!("rkexec kexec -l {PARTS} --command-line='one  two'");
    let (said, plan, _) = told(guest, 1, 0x240_0000, Some(&kexec))?;
    let information = said.one("information")?;
    assert_eq!(word(information, 0), 0x24d, "flags");
    assert_eq!(said.text("cmdline")?, "/next/kernel one  two");
    ensure!(said.text("loader")?.starts_with("rkexec "));
    assert_eq!(
        said.all("string"),
        [&b"/next/first a b"[..], b"/next/second"]
    );
    let map: Vec<_> = said
        .one("map")?
        .chunks(24)
        .map(|entry| (long(entry, 4), long(entry, 12), word(entry, 20)))
        .collect();
    assert_eq!(map, promised_map(&plan)?);
    // 1 GiB less what SeaBIOS keeps, from 1 MiB on.
    let (lower, upper) = (word(information, 4), word(information, 8));
    assert_eq!(lower, 639);
    ensure!((0xf_f000..0x10_0000 - 1024).contains(&upper), "{upper:#x}");
    Ok(())
}

#[test]
fn a_multiboot_2_kernel_is_moved_and_told_of_screen_and_firmware() -> Result<()> {
    let guest = Guest::new("multiboot-2", &Kernel::new("6.12")?).args(["-device", "VGA"]);
    let (said, plan, outcome) = told(guest, 2, 0x240_0000, None)?;
    let (tags, modules) = tags(said.one("information")?)?;
    let strings: Vec<&[u8]> = modules.iter().map(|module| &module[8..]).collect();
    assert_eq!(strings, [&b"/next/first a b\0"[..], b"/next/second\0"]);
    assert_eq!(tags[&1], b"/next/kernel one  two\0");
    let map: Vec<_> = tags[&6][8..]
        .chunks(24)
        .map(|entry| (long(entry, 0), long(entry, 8), word(entry, 16)))
        .collect();
    assert_eq!(map, promised_map(&plan)?);
    // It asked for the highest place below 512 MiB, and is told which that is.
    let base = word(tags[&21], 0);
    assert_eq!(base, 0x1fc0_0000);
    let kernel = plan.segments.iter().find(|row| row.kind == "kernel");
    assert_eq!(kernel.context("kernel")?.start, base);
    // 80 columns, 25 lines of text.
    let screen = tags[&8];
    assert_eq!(
        (long(screen, 0), word(screen, 12), word(screen, 16)),
        (0xb_8000, 80, 25)
    );
    assert_eq!(screen[21], 2);
    // The RSDP of SeaBIOS leads to the table that Linux found.
    let before = outcome.stage_of_any_end(1)?;
    let rsdp = tags[&14];
    ensure!(rsdp.starts_with(b"RSD PTR "));
    assert_eq!(
        rsdp.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)),
        0
    );
    assert_eq!(word(rsdp, 16), logged_table(before, "RSDT")?);
    assert_eq!(&tags[&13][8..], before.bytes("smbios")?);
    Ok(())
}

/// With OVMF: a frame buffer, and an RSDP in memory that the kernel of Debian shows
/// with iomem=relaxed only.
#[test]
fn a_multiboot_2_kernel_on_an_efi_machine() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    for (name, relaxed) in [("multiboot-2-efi", true), ("multiboot-2-efi-strict", false)] {
        let guest = Guest::new(name, &kernel)
            .uefi(true)
            .append(if relaxed { "iomem=relaxed" } else { "" })
            .args(["-device", "VGA", "-net", "none"]);
        let (said, plan, outcome) = told(guest, 2, 0x240_0000, None)?;
        let (tags, _) = tags(said.one("information")?)?;
        let screen = tags[&8];
        ensure!(long(screen, 0) >= 0x8000_0000 && screen[20] == 32 && screen[21] == 1);
        assert_eq!(screen[24..], [16, 8, 8, 8, 0, 8]);
        for kind in [11, 12, 17, 18, 19, 20] {
            ensure!(!tags.contains_key(&kind), "half of EFI");
        }
        let warnings = plan.json["warnings"].to_string();
        ensure!(warnings.contains("told nothing of EFI"), "{warnings}");
        let before = outcome.stage_of_any_end(1)?;
        match (relaxed, tags.get(&15)) {
            (true, Some(rsdp)) => {
                assert_eq!(long(rsdp, 24), logged_table(before, "XSDT")?);
            }
            (_, found) => {
                ensure!(found.is_none() && !relaxed, "RSDP: {found:?}");
                ensure!(warnings.contains("/dev/mem"), "{warnings}");
            }
        }
    }
    Ok(())
}

/// The lab's Xen, and what follows `rkexec load` to boot it with `next` as dom0.
fn xen(guest: Guest, trip: &Trip, options: &str, dom0: &str) -> Result<(Guest, String)> {
    // dom0 has a kernel of its own to try.
    let mut kernel = Archive::new();
    kernel.file(
        "next/vmlinuz",
        0o644,
        &trip::host_file(&trip.next().image())?,
    );
    let guest = guest
        .file(
            "next/xen.gz",
            &trip::host_file(&lab::part("xen")?.join("xen.gz"))?,
        )
        .file("next/vmlinuz", &trip::host_file(&trip.next().image())?)
        .file("next/initrd", &[trip.initrd()?, kernel.finish()].concat())
        .timeout(PATIENCE);
    let request = format!(
        "/next/xen.gz --cmdline 'console=com1 com1=115200,8n1 loglvl=all noreboot {options}' \
         --module '/next/vmlinuz {dom0}' --module /next/initrd"
    );
    Ok((guest, request))
}

/// Xen took the map that it was given.
fn took_the_map(outcome: &Outcome, plan: &Plan) -> Result<()> {
    let (_, map) = outcome
        .console
        .split_once("Multiboot-e820")
        .with_context(|| outcome.story())?;
    for (start, size, kind) in promised_map(plan)? {
        let name = match kind {
            1 => "usable",
            2 => "reserved",
            _ => continue,
        };
        let line = format!("[{start:016x}, {:016x}] ({name})", start + size - 1);
        ensure!(map.contains(&line), "{line}: {}", outcome.story());
    }
    Ok(())
}

/// Xen, and a Debian kernel on it that reaches its /init and knows where it is.
#[test]
fn xen_boots_with_a_debian_dom0() -> Result<()> {
    let (first, dom0) = (Kernel::new("6.12")?, Kernel::new("6.1")?);
    let trip = Trip::to(&dom0).after(
        "record hypervisor </sys/hypervisor/type
         record xen-version </sys/hypervisor/version/major
         record xen-memory </proc/meminfo
         load='/next/vmlinuz --cmdline x'
         refused plan rkexec plan $load
         refused load rkexec load $load
         refused file rkexec load $load --syscall kexec_file_load
         refused panic rkexec load $load --panic
         refused segments rkexec kexec -c -l /next/vmlinuz --append=x
         rkexec status | record xen-status
         refused unload rkexec unload",
    );
    let cmdline = "console=hvc0 panic=-1 rkexec.stage=2";
    // Before 9.1, QEMU's emulation does not allow IRET in user mode with SMAP, and a
    // dom0's kernel runs in user mode.
    let guest = Guest::new("xen", &first).memory("2G").cpu("max,smap=off");
    let (guest, request) = xen(guest, &trip, "no-real-mode", cmdline)?;
    let outcome = guest
        .script(&format!(
            "{}\ntry exec rkexec exec",
            trip::load_script(&request)
        ))
        .run()?;
    let after = outcome.stage(2)?;
    assert_eq!(after.text("hypervisor")?, "xen");
    assert_eq!(after.text("xen-version")?, "4");
    assert_eq!(after.text("release")?, dom0.release);
    assert_eq!(after.text("cmdline")?, cmdline, "without the file's name");
    assert_eq!(
        after.digest("payload-digest")?,
        trip::sha256(&trip::payload(&dom0)),
        "the initrd's payload is damaged"
    );
    // Its kernel would oops, and keep the lock of kexec: nothing is called.
    for (name, code) in [
        ("plan", "1"),
        ("load", "1"),
        ("file", "1"),
        ("panic", "1"),
        ("segments", "255"),
    ] {
        let said = after.text(&format!("{name}.err"))?;
        ensure!(
            said.contains("this is dom0 of Xen, a paravirtual (PV) guest"),
            "{name}: {said}"
        );
        ensure!(said.contains("Xen's own command line"), "{name}: {said}");
        assert_eq!(after.text(&format!("{name}.status"))?, code, "{name}");
    }
    let status = after.text("xen-status")?;
    ensure!(
        status.contains("every load: this is dom0 of Xen"),
        "{status}"
    );
    // The lock is free, and an unload does no harm.
    assert_eq!(
        after.text("unload.status")?,
        "0",
        "{}",
        after.text("unload.err")?
    );
    let plan = Plan::of(outcome.stage(1)?)?;
    took_the_map(&outcome, &plan)?;
    let warnings: &Value = &plan.json["warnings"];
    ensure!(!warnings.to_string().contains("no-real-mode"), "{warnings}");
    Ok(())
}

/// Loads and boots `file` of memtest86+ in `guest`, and waits until it has gone through a
/// part of the memory. It shows its screen on the serial port, where its options put it.
pub(crate) fn memtest(guest: Guest, file: &str) -> Result<Outcome> {
    let image = trip::host_file(&lab::part("memtest")?.join(file))?;
    let guest = guest
        .args(["-device", "VGA"])
        .file("next/memtest", &image)
        .script(
            "request=\"/next/memtest --cmdline console=ttyS0,115200\"
             try load rkexec load $request --output json
             try exec rkexec exec",
        );
    // It found the memory in the map that it was given, and goes through it.
    let shown = [
        "Memtest86+ v6",
        "Memory  : 1023MB",
        "Status: Testing",
        " #3 ",
    ];
    let outcome = guest.conduct(|guest| {
        guest.wait_for(1, "load.status")?;
        for text in shown {
            guest.wait_for_console(text)?;
        }
        guest.quit()
    })?;
    assert_eq!(outcome.end, End::Stopped);
    ensure!(
        outcome.console.contains("Errors: 0 "),
        "{}",
        outcome.story()
    );
    Ok(outcome)
}

#[test]
fn memtest_boots() -> Result<()> {
    // It cannot be entered with five levels of page tables.
    let guest = Guest::new("memtest", &Kernel::small()?)
        .cpu("max,la57=off")
        .timeout(PATIENCE);
    let outcome = memtest(guest, "memtest.bin")?;
    let plan = Plan::of(outcome.stage_of_any_end(1)?)?;
    assert_eq!(plan.json["image"]["format"], "bzImage");
    let kernel = plan.segments.iter().find(|row| row.kind == "kernel");
    assert_eq!(
        kernel.context("kernel")?.start,
        1 << 20,
        "it is not relocatable"
    );
    Ok(())
}
