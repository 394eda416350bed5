//! A Debian 12 system and its own tools, the clients of kexec-tools.

use std::time::Duration;

use anyhow::Result;

use crate::qemu::Guest;

/// A system under emulation boots in half a minute.
const TIMEOUT: Duration = Duration::from_secs(900);

#[test]
fn kdump_tools_saves_a_dump() -> Result<()> {
    let outcome = Guest::debian("debian-kdump")?
        .memory("1G")
        .append("crashkernel=256M")
        .script(
            "record crash-loaded </sys/kernel/kexec_crash_loaded
             try unload kdump-config unload
             record crash-unloaded </sys/kernel/kexec_crash_loaded
             try load kdump-config load
             record crash-loaded-again </sys/kernel/kexec_crash_loaded
             try status kdump-config status
             sync
             echo c >/proc/sysrq-trigger",
        )
        .file(
            "test/stage-2",
            b"ls -lR /var/crash | record crash
              try dmesg cat /var/crash/2*/dmesg.2*
              try load kexec -l /vmlinuz --initrd=/initrd.img --reuse-cmdline --append=by=kexec-tools
              systemctl kexec
              sleep 300",
        )
        .file("test/stage-3", b"true")
        .timeout(TIMEOUT)
        .run()?;
    outcome.stage(3)?;
    Ok(())
}
