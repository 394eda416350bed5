//! A reservation for a crash kernel in memory that the firmware calls Reserved, and
//! that the command line of the running kernel made RAM.

use anyhow::{Result, ensure};

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::Guest;
use crate::trip::{self, Plan, host_file};
use crate::witness::Row;

/// Words of the kernel that panics. It was told of Reserved memory there.
const WORDS: &str = "crashkernel=200M@0x10000000 memmap=256M%0x10000000-2+1";
const RESERVATION: (u64, u64) = (0x1000_0000, 0x1c80_0000);

const CAPTURE: &str = "
try dmesg makedumpfile --dump-dmesg /proc/vmcore /tmp/dmesg
record dmesg-of-the-dump </tmp/dmesg
";

/// The initrd of a stage: what it does, and what it loads.
fn initrd(
    kernel: &Kernel,
    stage: u32,
    script: &str,
    load: Option<(&[u8], &[u8])>,
) -> Result<Vec<u8>> {
    let mut overlay = Archive::new();
    overlay.file(&format!("test/stage-{stage}"), 0o644, script.as_bytes());
    match load {
        Some((image, initrd)) => {
            overlay.file("next/vmlinuz", 0o644, image);
            overlay.file("next/initrd", 0o644, initrd);
        }
        None => overlay.program("/usr/bin/makedumpfile".as_ref(), "bin/makedumpfile")?,
    }
    initramfs::initrd(kernel, overlay)
}

#[test]
fn a_reservation_in_what_the_firmware_calls_reserved_captures_a_panic() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let image = host_file(&kernel.image())?;
    let request = |stage: &str, words: &str, options: &str| {
        let line = format!("{} {words}", trip::chain_cmdline(stage));
        trip::request("/next/initrd", &line, options)
    };
    let to_panic = request("2", WORDS, "--syscall kexec_load");
    let to_capture = request(
        "3",
        "nr_cpus=1 reset_devices",
        "--panic --syscall kexec_load",
    );
    let panic = format!(
        "{}\nsent; echo c >/proc/sysrq-trigger\n",
        trip::load_script(&to_capture)
    );
    let capture = initrd(&kernel, 3, CAPTURE, None)?;
    let panics = initrd(&kernel, 2, &panic, Some((&image, &capture)))?;
    let outcome = Guest::new("crash-map-not-ram", &kernel)
        .append("memmap=256M$0x10000000")
        .file("next/vmlinuz", &image)
        .file("next/initrd", &panics)
        .script(&format!(
            "{}\ntry exec rkexec exec\n",
            trip::load_script(&to_panic)
        ))
        .run()?;

    let before = outcome.stage_of_any_end(2)?;
    let own = |kind: &str| Row {
        start: RESERVATION.0,
        end: RESERVATION.1,
        kind: kind.to_owned(),
    };
    let iomem = before.iomem()?;
    ensure!(iomem.contains(&own("Crash kernel")), "{iomem:x?}");
    let firmware = before.firmware_map()?;
    let reserved = firmware
        .iter()
        .any(|row| row.kind == "Reserved" && row.overlaps(&own("")));
    ensure!(reserved, "the firmware calls it RAM: {firmware:x?}");

    let plan = Plan::of(before)?;
    for segment in &plan.segments {
        let (start, end) = RESERVATION;
        ensure!(start <= segment.start && segment.end <= end, "{segment:x?}");
    }
    let after = outcome.stage(3)?;
    plan.kept(after)?;
    let log = after.text("dmesg-of-the-dump")?;
    ensure!(
        log.contains("Kernel panic - not syncing: sysrq triggered crash"),
        "{log}"
    );
    Ok(())
}
