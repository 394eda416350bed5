//! A round trip to look at: Debian 6.12 in QEMU plans, loads and boots Debian
//! 6.12, and the next kernel says what it was given. `examples/round-trip`
//! prepares the machine for it; the parts are those of the VM tests.

#![allow(dead_code, reason = "the VM tests use the rest")]

#[path = "../tests/vm/initramfs.rs"]
mod initramfs;
#[path = "../tests/vm/lab.rs"]
mod lab;
#[path = "../tests/vm/qemu.rs"]
mod qemu;
#[path = "../tests/vm/trip.rs"]
mod trip;
#[path = "../tests/vm/witness.rs"]
mod witness;

use std::process::ExitCode;

use anyhow::Result;

use lab::Kernel;
use qemu::Guest;
use trip::Trip;

fn main() -> ExitCode {
    match round_trip() {
        Ok(()) => {
            println!("\nround trip: ok");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:?}");
            println!("\nround trip: FAILED");
            ExitCode::FAILURE
        }
    }
}

fn round_trip() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    println!("Booting {} in QEMU ...", kernel.release);
    let trip = Trip::to(&kernel).append("greeting=hello").options("");
    // The plan in words, beside the one in JSON that the check is made with.
    let request = trip.request();
    let words = format!(
        "try words rkexec plan {request}\n\
         record request <<'EOF'\nrkexec plan {request}\nEOF\n"
    );
    let arrival = trip
        .before(&words)
        .run(Guest::new("example-round-trip", &kernel))?;
    let (before, after) = (arrival.before()?, arrival.after()?);

    println!(
        "\n# {}\n{}",
        before.text("request")?,
        before.text("words.out")?
    );
    println!("\n# rkexec load ...\n{}", before.text("load.out")?);
    println!("\n# rkexec exec");
    println!("\nThe next kernel says:");
    println!("  release       {}", after.text("release")?);
    println!("  command line  {}", after.text("cmdline")?);
    println!("  initrd        sha256 {}", after.digest("initrd-digest")?);
    println!("  memory map    as planned:");
    for row in after.firmware_map()? {
        println!("    {:012x}-{:012x}  {}", row.start, row.end - 1, row.kind);
    }
    println!("  and it has switched the power off");
    Ok(())
}
