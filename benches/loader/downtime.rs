//! From `exec` to the next kernel's init, beside kexec-tools: what users wait for.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::measure;
use crate::qemu::{Guest, line};

const ROUNDS: usize = 3;

/// What the next kernel is told.
const CMDLINE: &str = line!("quiet rkexec.stage=2");

/// An initrd beside the programs of the test, and the ratio that is wanted.
const CASES: [(usize, f64); 2] = [(1, 0.72), (100, 0.62)];

pub(crate) fn run(_rkexec: &Path, kernel: &Kernel) -> Result<()> {
    for (mib, wanted) in CASES {
        println!("exec to init: a kernel and {mib} MiB of initrd in a guest (TCG, one CPU)");
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(by(
                kernel,
                mib,
                "rkexec load /next/vmlinuz --initrd /next/initrd --syscall kexec_load --cmdline",
                "rkexec exec",
            )?);
            theirs.push(by(
                kernel,
                mib,
                "kexec -c -l /next/vmlinuz --initrd=/next/initrd --command-line",
                "kexec -e",
            )?);
        }
        measure::show("rkexec exec to the next init", &ours);
        measure::show("kexec -e to the next init", &theirs);
        println!(
            "exec to init with {mib} MiB of initrd: {:.2} x kexec-tools (wanted: at most {wanted})",
            measure::ratio(&ours, &theirs)
        );
    }
    Ok(())
}

/// One guest, from its `exec` to the first word of the next init.
fn by(kernel: &Kernel, mib: usize, load: &str, exec: &str) -> Result<Duration> {
    let mut overlay = Archive::new();
    let payload: Vec<u8> = measure::noise().take(mib << 17).flatten().collect();
    overlay.file("payload", 0o644, &payload);
    let script = format!("try load {load} '{CMDLINE}'\nfrom_host | record go\n{exec}\n");
    let guest = Guest::new("bench-downtime", kernel)
        .memory("2G")
        .program("/sbin/kexec")?
        .file("next/vmlinuz", &std::fs::read(kernel.image())?)
        .file("next/initrd", &initramfs::initrd(kernel, overlay)?)
        .script(&script);
    let mut took = None;
    guest
        .conduct(|guest| {
            guest.wait_for(1, "load.status")?;
            guest.say("go")?;
            guest.wait_for(1, "go")?;
            let start = Instant::now();
            guest.wait_for(2, "release")?;
            took = Some(start.elapsed());
            // It switches itself off.
            guest.wait_for(2, "end").map(drop)
        })?
        .stage_of_any_end(2)?;
    took.context("the guest did not come that far")
}
