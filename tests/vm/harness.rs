//! The lab itself: it sees a good round trip, and it sees failure.

use std::time::Duration;

use anyhow::Result;

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::{End, Guest, line};
use crate::witness::{Row, Stage};

/// kexec-tools, an independent loader, from 6.12 to 6.1.
#[test]
fn a_round_trip_with_kexec_tools_is_seen() -> Result<()> {
    let (first, next) = (Kernel::new("6.12")?, Kernel::new("6.1")?);
    let outcome = Guest::new("harness-kexec-tools", &first)
        .program("/sbin/kexec")?
        .file("next/vmlinuz", &std::fs::read(next.image())?)
        .file("next/initrd", &initramfs::initrd(&next, Archive::new())?)
        .script(
            &"try load kexec -c -l /next/vmlinuz --initrd=/next/initrd \
             --command-line='LINE'
             try exec kexec -e"
                .replace("LINE", line!("quiet rkexec.stage=2 by=kexec-tools")),
        )
        .run()?;
    let (before, after) = (outcome.stage(1)?, outcome.stage(2)?);
    assert_eq!(before.text("release")?, first.release);
    assert_eq!(after.text("release")?, next.release);
    assert!(after.text("cmdline")?.ends_with("by=kexec-tools"));
    // kexec-tools keeps the first 1 KiB to itself.
    let above = |stage: Stage| -> Result<Vec<Row>> {
        let rows = stage.firmware_map()?.into_iter();
        Ok(rows.filter(|row| row.start >= 1 << 20).collect())
    };
    assert_eq!(above(before)?, above(after)?);
    assert!(before.boot_e820()?.len() > 3);
    Ok(())
}

#[test]
fn a_panic_is_no_power_off() -> Result<()> {
    let outcome = Guest::new("harness-panic", &Kernel::small()?)
        // A record that the panic cuts short would be another failure.
        .script("sent; echo c >/proc/sysrq-trigger")
        .run()?;
    assert_eq!(outcome.end, End::Reset);
    assert!(outcome.stage(1).is_err());
    assert!(outcome.console.contains("sysrq"), "{}", outcome.story());
    Ok(())
}

#[test]
fn a_failed_script_is_seen() -> Result<()> {
    let outcome = Guest::new("harness-script", &Kernel::small()?)
        .script("try this false\ntry never true")
        .run()?;
    assert_eq!(outcome.end, End::PowerOff);
    let stage = outcome.stage_of_any_end(1)?;
    assert_eq!(stage.text("this.status")?, "1");
    assert_eq!(stage.text("end")?, "1");
    assert!(stage.text("never.status").is_err());
    assert!(outcome.stage(1).is_err(), "a script failed");
    Ok(())
}

#[test]
fn a_hang_is_ended_by_the_timeout() -> Result<()> {
    let outcome = Guest::new("harness-hang", &Kernel::small()?)
        .script("sleep 1000")
        .timeout(Duration::from_secs(8))
        .run()?;
    assert_eq!(outcome.end, End::Timeout);
    Ok(())
}
