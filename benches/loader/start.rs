//! The size of the binary, and how long it takes to start.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::lab::Kernel;
use crate::measure;

const ROUNDS: usize = 51;

pub(crate) fn run(rkexec: &Path, _kernel: &Kernel) -> Result<()> {
    let size = std::fs::metadata(rkexec)
        .with_context(|| rkexec.display().to_string())?
        .len();
    println!("start: {} has {} KiB", rkexec.display(), size >> 10);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(measure::time(Command::new(rkexec).arg("--version"))?);
        theirs.push(measure::time(Command::new("kexec").arg("--version"))?);
    }
    measure::show("rkexec --version", &ours);
    measure::show("kexec --version", &theirs);
    Ok(())
}
