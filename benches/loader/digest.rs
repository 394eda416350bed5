//! A plan with the digest of a large initrd, beside `openssl` over the same file.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::lab::Kernel;
use crate::{INITRD_MIB, measure};

const ROUNDS: usize = 11;

/// A captured machine with room for the initrd.
const MACHINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machines/big");

pub(crate) fn run(rkexec: &Path, kernel: &Kernel) -> Result<()> {
    let directory = measure::directory()?;
    let initrd = directory.path().join("initrd");
    measure::noise_file(&initrd, INITRD_MIB)?;
    println!("digest: {INITRD_MIB} MiB, turn by turn");
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut plan = Command::new(rkexec);
        plan.args(["plan", "--root", MACHINE, "--syscall", "kexec_load"])
            // Unpacking the kernel takes no digest.
            .args(["--direct", "off", "--cmdline", "quiet", "--initrd"])
            .args([&initrd, &kernel.image()]);
        ours.push(measure::time(&mut plan)?);
        let mut openssl = Command::new("openssl");
        openssl.args(["dgst", "-sha256"]).arg(&initrd);
        theirs.push(measure::time(&mut openssl)?);
    }
    measure::show("rkexec plan", &ours);
    measure::show("openssl dgst -sha256", &theirs);
    println!(
        "plan with the digest of {INITRD_MIB} MiB: {:.2} x openssl (wanted: at most 0.15)",
        measure::ratio(&ours, &theirs)
    );
    Ok(())
}
