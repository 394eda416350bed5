//! The same command lines through kexec-tools and through rkexec under the name
//! `kexec`, in a guest each: what differs is on a list, and in kexec(8).
//!
//! The lab's kexec-tools is Debian's 2.0.25, whose default is `-c`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::efi::runtime_ranges;
use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::{Guest, Outcome};
use crate::trip::host_file;
use crate::witness::{Row, Stage, show};

/// Longest life of a guest that runs a hundred command lines, or boots twice.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Who loads: what a script's `$kexec` is.
const LOADERS: [(&str, &str); 2] = [
    ("kexec-tools", "kexec=/sbin/kexec\n"),
    ("rkexec", "ln -s /bin/rkexec /tmp/kexec; kexec=/tmp/kexec\n"),
];

/// A kernel and files that are none, for command lines.
const FILES: &str = "
: >/empty
head -c 4096 /next/vmlinuz >/cut
printf 'no kernel at all %2000d' 1 >/junk
user() { su nobody -c \"$kexec $*\"; }
long() { $kexec \"$@\" --append=\"$(seq -s a 1 900)\"; }
";

/// How a command line ends.
enum Ends {
    /// Alike.
    Same,
    /// With kexec-tools, with rkexec, and the entry of kexec(8) that says why.
    Differs(i32, i32, &'static str),
}

use Ends::{Differs, Same};

/// Command lines in an order that makes sense. A line that begins with `!` is the
/// shell's, `user` and `long` stand for `$kexec`.
const LINES: &[(&str, Ends)] = &[
    ("--print-ckr-size", Same),
    ("-S", Same),
    ("-S -l", Same),
    ("-e", Same),
    ("-e -y -x", Same),
    ("-u", Same),
    ("-p -u", Same),
    // Files.
    ("-c -l /missing", Same),
    ("-s -l /missing", Same),
    ("-a -l /missing", Same),
    ("-c -l /junk", Same),
    ("-s -l /junk", Same),
    ("-a -l /junk", Same),
    ("-c -l /empty", Same),
    ("-s -l /empty", Same),
    ("-c -l /cut", Same),
    ("-s -l /cut", Same),
    ("-a -l /cut", Same),
    ("-c -l /", Same),
    ("-s -l /", Same),
    ("-c -l /dev/null", Same),
    ("-c -l /next/vmlinuz --initrd=/missing", Same),
    ("-s -l /next/vmlinuz --initrd=/missing", Same),
    ("-a -l /next/vmlinuz --initrd=/missing", Same),
    ("-c -l /next/vmlinuz --initrd=/empty", Same),
    (
        "-s -l /next/vmlinuz --initrd=/empty",
        Differs(253, 1, "Files"),
    ),
    // Values and types.
    ("-c -t nonsense -l /next/vmlinuz", Same),
    ("-s -t nonsense -l /next/vmlinuz", Differs(0, 255, "\\-t")),
    ("-c -t multiboot-x86 -l /next/vmlinuz", Same),
    ("-c -t bzImage64 -l /next/vmlinuz", Same),
    ("-c -t bzImage -l /next/vmlinuz", Same),
    (
        "-c -l /next/vmlinuz --mem-min=0x10000000 --mem-max=0x10100000",
        Same,
    ),
    ("-c -l /next/vmlinuz --mem-min=zz", Same),
    ("-c -l /next/vmlinuz --serial=foo", Same),
    ("-c -l /next/vmlinuz --serial=ttyS1 --serial-baud=100", Same),
    (
        "-c -l /next/vmlinuz --serial=ttyS1 --serial-baud=9600",
        Same,
    ),
    (
        "-c -l /next/vmlinuz --console-serial --console-vga --reset-vga",
        Same,
    ),
    ("-c -l /next/vmlinuz --reuse-video-type", Same),
    (
        "-c -l /next/vmlinuz --real-mode",
        Differs(0, 1, "\\-\\-real\\-mode"),
    ),
    ("-c -l /next/vmlinuz --entry-32bit", Same),
    (
        "-s -l /next/vmlinuz --entry-32bit",
        Differs(255, 0, "\\-\\-entry\\-32bit"),
    ),
    ("-c -l /next/vmlinuz --args-linux", Same),
    (
        "-c -l /next/vmlinuz --args-elf",
        Differs(0, 1, "\\-\\-args\\-elf"),
    ),
    (
        "-c -l /next/vmlinuz --module=x",
        Differs(0, 1, "\\-\\-module"),
    ),
    ("-c -l /next/vmlinuz --reuseinitrd", Same),
    ("-c -l /next/vmlinuz --load-preserve-context", Same),
    ("-c -l /next/vmlinuz --bogus", Same),
    ("-c -l /next/vmlinuz --mem", Same),
    ("-c -l /next/vmlinuz /other", Same),
    ("-i -c -l /next/vmlinuz", Same),
    ("-i -s -l /next/vmlinuz", Same),
    ("-s --mem-min=1 -l /next/vmlinuz", Same),
    ("-d -c --append=a --noefi --load /next/vmlinuz", Same),
    ("-d -s -l /next/vmlinuz --append=a", Same),
    ("long -c -l /next/vmlinuz", Same),
    ("long -s -l /next/vmlinuz", Same),
    ("long -a -l /next/vmlinuz", Same),
    ("-l", Same),
    ("-f", Same),
    ("-p -l", Same),
    // What is loaded.
    ("-S -l", Same),
    ("-u /next/vmlinuz", Same),
    ("-S -l", Same),
    ("-c -l /next/vmlinuz --initrd /next/initrd --append a", Same),
    ("-S -l", Same),
    ("-S", Same),
    ("-a -u", Same),
    ("-S -l", Same),
    ("--status --load", Same),
    // The crash kernel.
    ("-p -c /next/vmlinuz --append=a --initrd=/next/initrd", Same),
    ("-S", Same),
    ("-d -S", Same),
    ("-p -S", Same),
    ("-S -l", Same),
    ("-p -u", Same),
    ("-S", Same),
    ("-p -s /next/vmlinuz --append=a --initrd=/next/initrd", Same),
    ("-S", Same),
    ("-s -p -u", Same),
    ("-S", Same),
    ("-l -p -a /next/vmlinuz --reuse-cmdline", Same),
    ("-S", Same),
    ("-u -p", Differs(255, 0, "\\-u")),
    ("-S", Same),
    (
        "-p -c /next/vmlinuz --append=a --pass-memmap-cmdline --elf64-core-headers",
        Same,
    ),
    ("-p -c /next/vmlinuz --append=a --elf32-core-headers", Same),
    ("-p -f /next/vmlinuz", Same),
    ("-p -e", Same),
    // More than the reservation.
    ("! truncate -s 250M /large", Same),
    ("-p -c /next/vmlinuz --append=a --initrd=/large", Same),
    ("-p -s /next/vmlinuz --append=a --initrd=/large", Same),
    ("-p -a /next/vmlinuz --append=a --initrd=/large", Same),
    ("! rm /large", Same),
    ("-p -u", Same),
    // A user that may not.
    ("user -S -l", Same),
    ("user -e", Same),
    ("user -s -l /next/vmlinuz", Same),
    ("user -u", Same),
    ("user -p -u", Same),
    ("user --print-ckr-size", Same),
    ("-c -l /next/vmlinuz", Same),
    ("user -e", Same),
    ("user -e -y", Same),
    ("-u", Same),
    // A kernel that does not tell.
    (
        "! umount /sys/kernel/debug; umount /sys/kernel/security; mount -t tmpfs none /sys/kernel",
        Same,
    ),
    ("-S", Same),
    ("-S -l", Same),
    ("-e", Same),
    ("! umount /sys/kernel", Same),
    // A kernel that must not.
    ("! echo 1 >/proc/sys/kernel/kexec_load_disabled", Same),
    ("-c -l /next/vmlinuz", Same),
    ("-s -l /next/vmlinuz", Same),
    ("-a -l /next/vmlinuz", Same),
    ("-p -c -l /next/vmlinuz", Same),
    ("-f -a /next/vmlinuz", Same),
    ("-u", Same),
];

/// A guest with a kernel to load.
fn guest(name: &str, loader: &str, kernel: &Kernel, next: &Kernel, initrd: &[u8]) -> Result<Guest> {
    Guest::new(&format!("drop-in-{name}-{loader}"), kernel)
        .timeout(TIMEOUT)
        .file("next/vmlinuz", &host_file(&next.image())?)
        .file("next/initrd", initrd)
        .program("/sbin/kexec")
}

#[test]
fn exit_codes() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    // Nobody enters it.
    let next = Kernel::small()?;
    let plain = initramfs::initrd(&next, Archive::new())?;
    let mut outcomes = Vec::new();
    for (loader, is) in LOADERS {
        let mut script = format!("{is}{FILES}");
        for (number, (line, _)) in LINES.iter().enumerate() {
            script += &match line.split_once(' ') {
                Some(("!", line)) => format!("{line}\n"),
                Some(("user" | "long", _)) => format!("refused {number} {line}\n"),
                _ => format!("refused {number} $kexec {line}\n"),
            };
        }
        let guest = guest("codes", loader, &kernel, &next, &plain)?.append("crashkernel=192M");
        outcomes.push(guest.script(&script).run()?);
    }
    let [theirs, ours] = [outcomes[0].stage(1)?, outcomes[1].stage(1)?];
    let mut wrong = String::new();
    for (number, (line, ends)) in LINES.iter().enumerate() {
        if line.starts_with('!') {
            continue;
        }
        let code =
            |stage: Stage| -> Result<i32> { Ok(stage.text(&format!("{number}.status"))?.parse()?) };
        let (theirs_code, ours_code) = (code(theirs)?, code(ours)?);
        let as_listed = match ends {
            Same => theirs_code == ours_code,
            Differs(theirs, ours, _) => (theirs_code, ours_code) == (*theirs, *ours),
        };
        if !as_listed {
            let said = |stage: Stage| stage.text(&format!("{number}.err")).map(str::to_owned);
            wrong += &format!(
                "{line}: kexec-tools {theirs_code}, rkexec {ours_code}\n{}\n{}\n",
                said(theirs)?,
                said(ours)?
            );
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    Ok(())
}

/// Entries of kexec(8) about what the next kernel may see otherwise, and what the
/// comparison leaves out for each.
const DIFFERENCES: [&str; 6] = [
    // Words that kexec-tools passes on from one boot to the next.
    "\\-\\-reuse\\-cmdline",
    // The first page, which kexec-tools gives as RAM from 1 KiB on.
    "Memory map",
    // acpi_rsdp=, which kexec-tools gives a crash kernel without EFI besides boot_params.
    "ACPI",
    // The order of its descriptors, which kexec-tools takes from the directory.
    "EFI",
    // The first MiB in the dump, which holds nothing of the kernel that crashed,
    // and where the dump's header lies.
    "Dump",
    // acpi_no_memhotplug, without which the capture kernel takes memory of the dump.
    "Crash kernel",
];

/// A load and a jump, and where they are made.
struct Way {
    name: &'static str,
    kernel: fn() -> Result<Kernel>,
    uefi: bool,
    /// Options for `$kexec` besides files and command line.
    options: &'static str,
    /// The jump.
    jump: &'static str,
}

/// What init does on `kexec KERNEL`: it shows what it was told, and jumps.
const SHUTDOWN: &str = "
{ echo '#!/bin/sh'; echo 'echo \"shutdown: $*\" >/dev/ttyS0'; echo \"exec $kexec -e\"; } >/sbin/shutdown
chmod +x /sbin/shutdown
";

impl Way {
    /// Goes it with both loaders.
    fn go(&self) -> Result<()> {
        let kernel = (self.kernel)()?;
        let plain = initramfs::initrd(&kernel, Archive::new())?;
        let mut outcomes = Vec::new();
        for (loader, is) in LOADERS {
            let script = format!(
                "{is}{SHUTDOWN}
                 try load $kexec {} /next/vmlinuz --initrd=/next/initrd --reuse-cmdline \
                   --append='rkexec.stage=2 last=\"one two\"'
                 refused status $kexec -S -l
                 {}",
                self.options, self.jump
            );
            // Words of a boot loader and of an earlier kexec, and words that only look so.
            let words = "BOOT_IMAGE=/boot/k initrd=old quoted=\"a b\" kexec_jump_back_entry=0x1 \
                         retain_initrd initrd_stays=1";
            let guest = guest(self.name, loader, &kernel, &kernel, &plain)?
                .uefi(self.uefi)
                .append(words);
            outcomes.push(guest.script(&script).run()?);
        }
        self.compare(&outcomes[0], &outcomes[1])
    }

    fn compare(&self, theirs: &Outcome, ours: &Outcome) -> Result<()> {
        for name in ["load.status", "status.status"] {
            let (theirs, ours) = (theirs.stage(1)?.text(name), ours.stage(1)?.text(name));
            ensure!(
                theirs.as_ref().ok() == ours.as_ref().ok(),
                "{name}: {theirs:?} {ours:?}"
            );
        }
        // kexec-tools gives away what EFI still needs. With kexec_file_load the running
        // kernel makes the map, whichever loader calls it.
        let by_file = self.options.starts_with("-s");
        let kept = match self.uefi && !by_file {
            true => runtime_ranges(ours.stage(1)?)?,
            false => Vec::new(),
        };
        let (theirs, ours) = (theirs.stage(2)?, ours.stage(2)?);
        let one_boot_only = ["initrd=", "kexec_jump_back_entry="];
        let words = |stage: Stage<'_>| -> Result<Vec<String>> {
            let words = stage.text("cmdline")?.split_whitespace();
            let kept =
                words.filter(|word| !one_boot_only.iter().any(|start| word.starts_with(start)));
            Ok(kept.map(str::to_owned).collect())
        };
        ensure!(
            words(theirs)? == words(ours)?,
            "{:?}\n{:?}",
            words(theirs)?,
            words(ours)?
        );
        let cmdline = ours.text("cmdline")?;
        for word in ["quoted=\"a b\"", "initrd_stays=1", "last=\"one two\""] {
            ensure!(cmdline.contains(word), "no {word} in {cmdline}");
        }
        for start in one_boot_only.iter().chain(&["BOOT_IMAGE"]) {
            let left = cmdline.split(' ').find(|word| word.starts_with(start));
            ensure!(left.is_none(), "{left:?} is left in {cmdline}");
        }
        for name in ["release", "initrd-digest"] {
            ensure!(theirs.text(name)? == ours.text(name)?, "{name}");
        }
        same_map(theirs, ours, (0, 0), &kept)?;
        for (name, of) in [
            ("the RSDP", rsdp as fn(Stage<'_>) -> Result<String>),
            ("ACPI", acpi),
            ("EFI", efi),
        ] {
            ensure!(
                of(theirs)? == of(ours)?,
                "{name}:\n{}\n{}",
                of(theirs)?,
                of(ours)?
            );
        }
        let efi = efi(ours)?;
        let expected = self.uefi && !self.options.contains("--noefi");
        ensure!(efi.is_empty() != expected, "EFI: {efi}");
        ensure!(!acpi(ours)?.is_empty(), "no ACPI");
        Ok(())
    }
}

/// Both were told of the same memory, the first page aside, and the hole that
/// each leaves for the dump's header in the memory between `reserved`. Memory that EFI
/// needs `kept` is Reserved to the kernel that rkexec loaded.
fn same_map(theirs: Stage<'_>, ours: Stage<'_>, reserved: (u64, u64), kept: &[Row]) -> Result<()> {
    let map = |stage: Stage<'_>| -> Result<Vec<Row>> {
        let mut rows = stage.firmware_map()?;
        rows.retain(|row| row.end > 4096);
        for row in &mut rows {
            row.start = row.start.max(4096);
            if row.kind == "System RAM" && reserved.0 <= row.start && row.end <= reserved.1 {
                (row.start, row.end) = reserved;
            }
        }
        rows.dedup();
        Ok(rows)
    };
    let (mut theirs, ours) = (map(theirs)?, map(ours)?);
    for kept in kept {
        let inside =
            |row: &Row| row.kind == "System RAM" && row.start <= kept.start && kept.end <= row.end;
        if let Some(at) = theirs.iter().position(inside) {
            let row = theirs.remove(at);
            let part = |start, end, kind: &str| Row {
                start,
                end,
                kind: kind.to_owned(),
            };
            let parts = [
                part(row.start, kept.start, &row.kind),
                part(kept.start, kept.end, "Reserved"),
                part(kept.end, row.end, &row.kind),
            ];
            let parts = parts.into_iter().filter(|part| part.start < part.end);
            theirs.splice(at..at, parts);
        }
    }
    ensure!(
        theirs == ours,
        "kexec-tools:\n{}\nrkexec:\n{}",
        show(&theirs),
        show(&ours)
    );
    Ok(())
}

/// acpi_rsdp_addr of boot_params (Documentation/arch/x86/zero-page.rst).
fn rsdp(stage: Stage<'_>) -> Result<String> {
    let field = stage.bytes("boot-params")?.get(0x70..0x78);
    Ok(format!("{:x?}", field.context("boot_params")?))
}

/// The ACPI tables that the kernel found, and where.
fn acpi(stage: Stage<'_>) -> Result<String> {
    let tables = stage.text("dmesg")?.lines().filter_map(|line| {
        // Not every kernel writes the time in front.
        let message = line.split_once("] ").map_or(line, |(_, message)| message);
        let is_table = message.starts_with("ACPI: ") && message.contains(" 0x");
        is_table.then(|| format!("{message}\n"))
    });
    Ok(tables.collect())
}

/// /sys/firmware/efi: its files and the descriptors of the runtime map, whatever
/// their order; nothing without EFI.
fn efi(stage: Stage<'_>) -> Result<String> {
    let Ok(files) = stage.text("efi") else {
        return Ok(String::new());
    };
    let mut descriptors: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in stage.text("efi-runtime-map")?.lines() {
        let (directory, field) = line.rsplit_once('/').context("a path")?;
        descriptors.entry(directory).or_default().push(field);
    }
    descriptors
        .values_mut()
        .for_each(|fields| fields.sort_unstable());
    let descriptors: BTreeSet<Vec<&str>> = descriptors.into_values().collect();
    Ok(format!("{files}\n{descriptors:#?}"))
}

macro_rules! ways {
    ($($name:ident: $kernel:ident, uefi $uefi:literal, $options:literal, $jump:literal;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            Way {
                name: stringify!($name),
                kernel: $kernel,
                uefi: $uefi,
                options: $options,
                jump: $jump,
            }
            .go()
        }
    )*};
}

fn debian() -> Result<Kernel> {
    Kernel::new("6.12")
}

fn small() -> Result<Kernel> {
    Kernel::small()
}

// Debian's kernel with BIOS and with EFI.
ways! {
    by_segments: debian, uefi false, "-c -l", "try exec $kexec -e";
    by_file: small, uefi false, "-s -l", "try exec $kexec -e";
    by_auto: small, uefi false, "-a -l", "try exec $kexec -e -y -x";
    at_once: small, uefi false, "-c -d -f", "";
    by_the_init_system: small, uefi false, "-c", "";
    by_segments_with_uefi: debian, uefi true, "-c -i --load", "try exec $kexec --exec";
    by_file_with_uefi: small, uefi true, "-s -l", "try exec $kexec -e";
    without_efi: small, uefi true, "-c -l --noefi", "try exec $kexec -e";
}

/// A panic, and the dump of it.
fn crash(name: &str, options: &str) -> Result<()> {
    const CAPTURE: &str = "
        dd if=/proc/vmcore bs=4K count=16 2>/dev/null | record core
        try dmesg makedumpfile --dump-dmesg /proc/vmcore /tmp/dmesg
        grep -c 'sysrq triggered crash' /tmp/dmesg | record panics
    ";
    let kernel = Kernel::new("6.12")?;
    let mut overlay = Archive::new();
    overlay.file("test/stage-2", 0o644, CAPTURE.as_bytes());
    overlay.program("/usr/bin/makedumpfile".as_ref(), "bin/makedumpfile")?;
    let initrd = initramfs::initrd(&kernel, overlay)?;
    let mut outcomes = Vec::new();
    for (loader, is) in LOADERS {
        let script = format!(
            "{is}
             try load $kexec -p {options} /next/vmlinuz --initrd=/next/initrd --reuse-cmdline \
               --append='rkexec.stage=2 nr_cpus=1 reset_devices'
             refused status $kexec -S
             sent; echo c >/proc/sysrq-trigger"
        );
        let guest = guest(name, loader, &kernel, &kernel, &initrd)?
            .append("crashkernel=256M@256M nokaslr retain_initrd BOOT_IMAGE=/boot/k");
        outcomes.push(guest.script(&script).run()?);
    }
    let [theirs, ours] = [&outcomes[0], &outcomes[1]];
    for name in ["load.status", "status.status"] {
        let code = |outcome: &Outcome| -> Result<String> {
            Ok(outcome.stage_of_any_end(1)?.text(name)?.to_owned())
        };
        ensure!(code(theirs)? == code(ours)?, "{name}");
    }
    let (theirs, ours) = (theirs.stage(2)?, ours.stage(2)?);
    let words = |stage: Stage<'_>| -> Result<Vec<String>> {
        let words = stage.text("cmdline")?.split_whitespace();
        let address = ["elfcorehdr=", "acpi_rsdp="];
        let kept = words.filter(|word| !address.iter().any(|start| word.starts_with(start)));
        Ok(kept.map(str::to_owned).collect())
    };
    let mut expected = words(theirs)?;
    expected.push("acpi_no_memhotplug".to_owned());
    ensure!(words(ours)? == expected, "{:?}\n{expected:?}", words(ours)?);
    ensure!(!ours.text("cmdline")?.contains("crashkernel"));
    for name in ["release", "initrd-digest", "panics"] {
        ensure!(theirs.text(name)? == ours.text(name)?, "{name}");
    }
    ensure!(ours.text("panics")? == "1");
    same_map(theirs, ours, (256 << 20, 512 << 20), &[])?;
    ensure!(acpi(theirs)? == acpi(ours)? && rsdp(theirs)? == rsdp(ours)?);
    let (theirs, ours) = (dumped(theirs)?, dumped(ours)?);
    ensure!(theirs == ours, "{theirs:x?}\n{ours:x?}");
    Ok(())
}

/// The memory above the first MiB that the dump holds, and the kernel's text.
fn dumped(stage: Stage<'_>) -> Result<Vec<(u64, u64)>> {
    let elf = goblin::elf::Elf::parse(stage.bytes("core")?)?;
    let loads = elf
        .program_headers
        .iter()
        .filter(|header| header.p_type == goblin::elf::program_header::PT_LOAD);
    let mut loads: Vec<(u64, u64)> = loads
        .map(|load| (load.p_paddr, load.p_paddr + load.p_memsz))
        .filter(|(_, end)| *end > 1 << 20)
        .collect();
    loads.sort_unstable();
    ensure!(loads.len() >= 2, "{loads:x?}");
    Ok(loads)
}

#[test]
fn a_crash_by_segments() -> Result<()> {
    crash("crash-c", "-c")
}

#[test]
fn a_crash_by_file() -> Result<()> {
    crash("crash-s", "-s")
}

/// Every difference that is listed here has its entry in kexec(8).
#[test]
fn differences_are_documented() {
    let page = include_str!("../../man/kexec.8");
    let entries = LINES.iter().filter_map(|(_, ends)| match ends {
        Differs(_, _, entry) => Some(*entry),
        Same => None,
    });
    for entry in entries.chain(DIFFERENCES) {
        let heads = [format!("\n.TP\n.B {entry}\n"), format!("\\fB{entry}\\fR")];
        assert!(heads.iter().any(|head| page.contains(head)), "{entry}");
    }
}
