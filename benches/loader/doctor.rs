//! How long `doctor` takes: for a machine alone, and with a kernel and an initrd that it looks
//! into.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::initramfs::Archive;
use crate::lab::Kernel;
use crate::measure;

const ROUNDS: usize = 11;
/// The machine: one with a reservation and many lines of iomem.
const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machines/big");
/// Contents of the initrd, MiB: as much as Debian's with all modules, of which a part does not
/// pack.
const FILES_MIB: usize = 256;
const NOISE_MIB: usize = 32;

pub(crate) fn run(rkexec: &Path, kernel: &Kernel) -> Result<()> {
    let directory = measure::directory()?;
    let initrd = directory.path().join("initrd");
    fs::write(&initrd, packed_initrd()?)?;
    println!(
        "doctor: an initrd of {} MiB, {FILES_MIB} MiB unpacked (gzip)",
        fs::metadata(&initrd)?.len() >> 20
    );
    let doctor = || {
        let mut command = Command::new(rkexec);
        command.args(["doctor", "--root", MACHINE]);
        command
    };
    let load = |more: &[&str]| {
        let mut command = doctor();
        command.arg(kernel.image()).arg("--initrd").arg(&initrd);
        command.args(["--cmdline", "console=ttyS0 reset_devices panic=1"]);
        command.args(more);
        command
    };
    let [mut alone, mut exec, mut panic] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        alone.push(measure::time(&mut doctor())?);
        exec.push(measure::time(&mut load(&[]))?);
        panic.push(measure::time(&mut load(&["--panic"]))?);
    }
    measure::show("rkexec doctor", &alone);
    measure::show("rkexec doctor KERNEL", &exec);
    measure::show("rkexec doctor --panic KERNEL", &panic);
    for (what, times, wanted) in [
        ("doctor without an image", &alone, 0.5),
        ("doctor with an image", &exec, 3.0),
        ("doctor with an image for a panic", &panic, 3.0),
    ] {
        let took = measure::median(times).as_secs_f64();
        println!("{what}: {took:.3} s (wanted: below {wanted})");
    }
    Ok(())
}

fn packed_initrd() -> Result<Vec<u8>> {
    let mut archive = Archive::new();
    let noise: Vec<u8> = measure::noise().flatten().take(1 << 20).collect();
    let text = b"a line of a module that packs well\n".repeat((1 << 20) / 35);
    for number in 0..FILES_MIB {
        let content = if number < NOISE_MIB { &noise } else { &text };
        archive.file(&format!("lib/{number}"), 0o644, content);
    }
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(&archive.finish())?;
    Ok(packer.finish()?)
}
