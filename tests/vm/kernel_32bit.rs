//! Kernels that are entered in 32-bit mode: Debian's for 32-bit x86, an x86_64 one that
//! does not say that it has a 64-bit entry, and memtest86+ for 32-bit x86.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::multiboot::memtest;
use crate::qemu::Guest;
use crate::trip::{self, Plan, Trip};

/// xloadflags: there is a 64-bit entry (XLF_KERNEL_64).
const XLOADFLAGS: usize = 0x236;

/// An initrd whose programs a 32-bit kernel can run.
fn initrd(next: &Kernel) -> Result<Vec<u8>> {
    let mut overlay = Archive::new();
    overlay.file("payload", 0o644, &trip::payload(next));
    overlay.file("test/stage-2", 0o644, b"uname -m | record machine\n");
    // Behind the 64-bit one, in whose place it comes.
    let busybox = trip::host_file(&next.file("busybox"))?;
    overlay.file("bin/busybox", 0o755, &busybox);
    initramfs::initrd(next, overlay)
}

/// From 6.12, which runs with five levels of page tables here, to Debian's 32-bit
/// kernel, on a machine with BIOS and on one with EFI: what it finds is what was
/// planned. That it switches off through ACPI shows that it found the tables.
#[test]
fn a_32_bit_debian_kernel_boots_with_map_initrd_and_command_line() -> Result<()> {
    let next = Kernel::new("686")?;
    for (name, uefi) in [("kernel-32bit", false), ("kernel-32bit-efi", true)] {
        let cmdline = trip::chain_cmdline("2");
        let request = trip::request("/next/initrd", &cmdline, "");
        let script = trip::load_script(&request);
        let outcome = Guest::new(name, &Kernel::new("6.12")?)
            .uefi(uefi)
            .file("next/vmlinuz", &trip::host_file(&next.image())?)
            .file("next/initrd", &initrd(&next)?)
            .script(&format!("{script}\ntry exec rkexec exec"))
            .run()?;
        let (before, after) = (outcome.stage(1)?, outcome.stage(2)?);
        let plan = Plan::of(before)?;
        assert_eq!(plan.json["image"]["entry_mode"], "32-bit");
        for segment in &plan.segments {
            ensure!(segment.end < 1 << 32, "{segment:?}");
        }
        assert_eq!(after.text("release")?, next.release);
        assert_eq!(after.text("machine")?, "i686");
        assert_eq!(after.text("cmdline")?, cmdline);
        assert_eq!(
            after.digest("payload-digest")?,
            trip::sha256(&trip::payload(&next)),
            "the initrd's payload is damaged"
        );
        plan.kept(after)?;
        let no_efi = "gets no EFI: it is entered in 32-bit mode";
        let warnings = plan.json["warnings"].to_string();
        assert_eq!(warnings.contains(no_efi), uefi, "{warnings}");
        ensure!(after.text("efi").is_err(), "half of EFI");
    }
    Ok(())
}

#[test]
fn an_x86_64_kernel_that_names_no_64_bit_entry_boots() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let mut image = trip::host_file(&kernel.image())?;
    let flags = image.get_mut(XLOADFLAGS).context("no header")?;
    *flags &= !1;
    let guest = Guest::new("no-64bit-entry", &kernel);
    let arrival = Trip::to(&kernel).image(image).run(guest)?;
    assert_eq!(arrival.plan.json["image"]["entry_mode"], "32-bit");
    arrival.after()?.text("cmdline").map(drop)
}

#[test]
fn a_32_bit_memtest_boots() -> Result<()> {
    let guest = Guest::new("memtest32", &Kernel::small()?).timeout(Duration::from_secs(600));
    let outcome = memtest(guest, "memtest32.bin")?;
    let plan = Plan::of(outcome.stage_of_any_end(1)?)?;
    assert_eq!(plan.json["image"]["entry_mode"], "32-bit");
    Ok(())
}
