//! What `exec` does for the data that is not on the disks yet, and how it leaves
//! the jump to the init system.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, Outcome};
use crate::trip::{self, host_file};

/// What the next kernel does: is the file on the disk?
const AFTER: &str = "
modules virtio_pci virtio_blk minix
mkdir /mnt; mount -t minix -o ro /dev/vda /mnt
if [ -e /mnt/file ]; then sha256sum </mnt/file; fi | record file-digest
";

/// A guest with a disk of 64 MiB at /mnt that takes `rate` bytes a second, and a
/// file of 8 MiB on it that is still in memory. It ends in `exec`.
fn disk(name: &str, rate: &str, exec: &str) -> Result<Outcome> {
    let kernel = Kernel::new("6.12")?;
    let dir = tempfile::tempdir()?;
    let image = dir.path().join("disk");
    std::fs::File::create(&image)?.set_len(64 << 20)?;
    lab::output(Command::new("/sbin/mkfs.minix").arg("-3").arg(&image))?;
    let mut overlay = Archive::new();
    overlay.file("test/stage-2", 0o644, AFTER.as_bytes());
    let drive = format!(
        "file={},format=raw,if=none,id=disk,throttling.bps-write={rate}",
        image.display()
    );
    let load = trip::load_script(&trip::request(
        "/next/initrd",
        &trip::chain_cmdline("2"),
        "--syscall kexec_load",
    ));
    Guest::new(name, &kernel)
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
        .file("next/vmlinuz", &host_file(&kernel.image())?)
        .file("next/initrd", &initramfs::initrd(&kernel, overlay)?)
        .file("payload", &trip::noise("disk", 8 << 20))
        .script(&format!(
            "{load}
             modules virtio_pci virtio_blk minix
             mkdir /mnt; mount -t minix /dev/vda /mnt
             cp /payload /mnt/file
             export NO_COLOR=1
             {exec} 2>/dev/ttyS0"
        ))
        .run()
}

#[test]
fn what_is_cached_is_written_and_what_stays_mounted_is_named() -> Result<()> {
    let outcome = disk("exec-sync", "1000000000", "rkexec exec")?;
    let digest = outcome.stage(2)?.digest("file-digest")?;
    assert_eq!(digest, trip::sha256(&trip::noise("disk", 8 << 20)));
    let warning = "rkexec: warning: these file systems are NOT unmounted: /mnt (minix)";
    assert!(outcome.console.contains(warning), "{}", outcome.story());
    Ok(())
}

#[test]
fn quiet_is_quiet() -> Result<()> {
    let outcome = disk("exec-quiet", "1000000000", "rkexec -q exec")?;
    outcome.stage(2)?;
    assert!(!outcome.console.contains("rkexec:"), "{}", outcome.story());
    Ok(())
}

/// The disk would take half an hour.
#[test]
fn a_disk_that_hangs_does_not_hang_the_jump() -> Result<()> {
    let outcome = disk("exec-hang", "4096", "rkexec exec --sync-limit 5")?;
    outcome.stage(2)?;
    let warning = "rkexec: warning: writing data to disk made no progress for 5 s, and the machine boots all the same: \
                   data may be lost on /mnt (minix)";
    assert!(outcome.console.contains(warning), "{}", outcome.story());
    Ok(())
}

/// Eight times the limit, and something is written all the time.
#[test]
fn a_slow_disk_is_waited_for() -> Result<()> {
    let outcome = disk("exec-slow", "400000", "rkexec exec --sync-limit 4")?;
    let digest = outcome.stage(2)?.digest("file-digest")?;
    assert_eq!(digest, trip::sha256(&trip::noise("disk", 8 << 20)));
    Ok(())
}

/// systemctl of a system that runs systemd, as far as exec can see.
const SYSTEMCTL: &str = "
cat >/bin/systemctl <<'END'
#!/bin/sh
case $1 in
  --version) echo 'systemd 261' ;;
  *)
    echo \"systemctl: $*\" >/dev/ttyS0
    exec rkexec exec
    ;;
esac
END
chmod +x /bin/systemctl
";

#[test]
fn the_init_system_makes_the_jump() -> Result<()> {
    let kernel = Kernel::small()?;
    let load = trip::load_script(&trip::request(
        "/next/initrd",
        &trip::chain_cmdline("2"),
        "--syscall kexec_load",
    ));
    let outcome = Guest::new("exec-shutdown", &kernel)
        .file("next/vmlinuz", &host_file(&kernel.image())?)
        .file("next/initrd", &initramfs::initrd(&kernel, Archive::new())?)
        .script(&format!(
            "refused nothing rkexec exec --shutdown
             {load}
             for name in reboot shutdown systemctl; do rm -f /bin/$name /sbin/$name; done
             refused nobody rkexec exec --shutdown
             {SYSTEMCTL}
             refused not-running rkexec exec --shutdown
             mkdir -p /run/systemd/system
             try exec rkexec exec --shutdown"
        ))
        .run()?;
    let before = outcome.stage(1)?;
    assert_eq!(before.text("nothing.status")?, "3");
    for name in ["nobody", "not-running"] {
        assert_eq!(before.text(&format!("{name}.status"))?, "1");
        let error = before.text(&format!("{name}.err"))?;
        ensure!(
            error.starts_with("rkexec: exec failed: no running systemd"),
            "{error}"
        );
    }
    outcome.stage(2)?;
    assert!(
        outcome.console.contains("systemctl: kexec"),
        "{}",
        outcome.story()
    );
    Ok(())
}
