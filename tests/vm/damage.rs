//! A segment that changes after its digest was taken: the purgatory says so on
//! the serial console and stops there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context, Result, ensure};
use goblin::elf::Elf;

use crate::formats::vmlinux;
use crate::lab::Kernel;
use crate::qemu::{End, Guest};
use crate::ram::Ram;
use crate::trip::{Plan, Trip};

const PAGE: usize = 4096;
const MEMORY: u64 = 512 << 20;

/// Turns the byte at `at` of an image over, wherever in the guest's memory
/// there is a page of that image: the page cache's, those in which the kernel
/// keeps the segment until exec, and the destination, if it is there already.
fn damage(ram: &File, image: &[u8], at: usize) -> Result<usize> {
    let around = at - 32..at + 32;
    let in_page = at % PAGE;
    ensure!((32..PAGE - 32).contains(&in_page), "crosses a page");
    let pattern = &image[around];
    let mut copies = 0;
    let mut page = [0; PAGE];
    for start in (0..MEMORY).step_by(PAGE) {
        ram.read_exact_at(&mut page, start)?;
        if page[in_page - 32..].starts_with(pattern) {
            ram.write_all_at(&[!image[at]], start + in_page as u64)?;
            copies += 1;
        }
    }
    Ok(copies)
}

fn damaged(name: &str, role: &str) -> Result<()> {
    let kernel = Kernel::small()?;
    // Without KASLR the loader changes nothing in the kernel that it unpacks.
    let trip = Trip::to(&kernel).append("nokaslr");
    let initrd = trip.initrd()?;
    let ram = Ram::new(MEMORY)?;
    let file = ram.file();
    let guest = ram.attach(Guest::new(name, &kernel));
    let guest = trip
        .prepare(guest, &initrd)?
        .script(". /test/load\nfrom_host | record go\ntry exec rkexec exec\n");
    let outcome = guest.conduct(|guest| {
        guest.wait_for(1, "loaded")?;
        // In the middle of the part that is loaded; a page of the kernel's segment
        // is a page of the unpacked kernel.
        let copies = match role {
            "initrd" => damage(file, &initrd, initrd.len() / 2 / PAGE * PAGE + 2000)?,
            _ => {
                let image = vmlinux(&kernel)?;
                let elf = Elf::parse(&image)?;
                let code = &elf.program_headers[0];
                let middle = usize::try_from(code.p_offset + code.p_filesz / 2)?;
                damage(file, &image, middle / PAGE * PAGE + 2000)?
            }
        };
        ensure!(copies >= 1, "no page of the {role} in memory");
        guest.say("go")?;
        guest.wait_for(1, "go")?;
        guest.wait_for_console("halted")?;
        guest.wait_for_halt()?;
        guest.quit()
    })?;

    assert_eq!(outcome.end, End::Stopped, "{}", outcome.story());
    assert!(outcome.stage_of_any_end(2).is_err(), "the next kernel ran");
    let plan = Plan::of(outcome.stage_of_any_end(1)?)?;
    let segment = plan.segments.iter().find(|segment| segment.kind == role);
    let segment = segment.with_context(|| format!("no {role} segment"))?;
    let message = outcome
        .console
        .lines()
        .find(|line| line.contains("purgatory"));
    let message = message.context("no message")?;
    assert!(message.contains("digest mismatch"), "{message}");
    let address = format!("{:x}", segment.start);
    assert!(message.contains(&address), "{message}: not {address}");
    Ok(())
}

#[test]
fn a_damaged_initrd_stops_in_purgatory() -> Result<()> {
    damaged("damaged-initrd", "initrd")
}

#[test]
fn a_damaged_kernel_stops_in_purgatory() -> Result<()> {
    damaged("damaged-kernel", "kernel")
}
