//! How fast and how small rkexec is, beside kexec-tools and openssl, turn by turn.
//!
//! `benches/run` prepares the machine and runs this. Words on the command line
//! (`load`, `downtime`, `digest`, `planning`, `start`, `doctor`, `entries`) select parts. Exits non-zero when
//! something does not work, never for a ratio.

use std::path::Path;

use anyhow::Result;

use crate::lab::Kernel;

mod digest;
mod doctor;
mod downtime;
mod entries;
mod load;
mod measure;
mod planning;
mod start;

#[path = "../../tests/vm/initramfs.rs"]
mod initramfs;
#[path = "../../tests/vm/lab.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod lab;
#[path = "../../tests/vm/outcome.rs"]
mod outcome;
#[path = "../../tests/vm/qemu.rs"]
#[expect(dead_code, reason = "the tests use the rest")]
mod qemu;
#[path = "../../tests/vm/witness.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "the tests use the rest, and its own tests are not run here"
)]
mod witness;

/// The initrd's size, MiB.
const INITRD_MIB: usize = 200;

/// One part: the binary, the kernel to load.
type Part = fn(&Path, &Kernel) -> Result<()>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` runs this as well, and means no measurement.
    if !words.iter().any(|word| word == "--bench") {
        return Ok(());
    }
    let rkexec = lab::rkexec()?;
    let kernel = Kernel::new("6.12")?;
    let parts: [(&str, Part); 7] = [
        ("start", start::run),
        ("load", load::run),
        ("downtime", downtime::run),
        ("digest", digest::run),
        ("planning", planning::run),
        ("doctor", doctor::run),
        ("entries", entries::run),
    ];
    let all = words.iter().all(|word| word.starts_with('-'));
    for (name, run) in parts {
        if all || words.iter().any(|word| word == name) {
            run(&rkexec, &kernel)?;
        }
    }
    Ok(())
}
