//! The way back: a next kernel that hangs is reset by the machine's watchdog, QEMU's
//! i6300esb, and one that comes up keeps it quiet.

use anyhow::{Result, ensure};

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::{Guest, Outcome};
use crate::trip::{self, host_file};

/// The running kernel leaves watchdogs running when it jumps.
const KEEPS: &str = "watchdog.stop_on_reboot=0";

/// A guest that has a watchdog, the next kernel at /next with `after` as its script.
fn guest(name: &str, kernel: &Kernel, after: &str) -> Result<Guest> {
    let next = Kernel::new("6.12")?;
    let mut overlay = Archive::new();
    overlay.file("test/stage-2", 0o644, after.as_bytes());
    Ok(Guest::new(name, kernel)
        .mostly_sleeps()
        .args(["-device", "i6300esb"])
        .file("next/vmlinuz", &host_file(&next.image())?)
        .file("next/initrd", &initramfs::initrd(&next, overlay)?))
}

/// Loads the next kernel with `options`.
fn load(options: &str) -> String {
    let options = format!("--syscall kexec_load {options}");
    trip::load_script(&trip::request(
        "/next/initrd",
        &trip::chain_cmdline("2"),
        &options,
    ))
}

/// Init of the first kernel: after the reset it reports, as stage 3. Before, it is the
/// init of every guest.
const FIRST_INIT: &str = "#!/bin/busybox sh
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modprobe virtio_pci
modprobe virtio_blk
if [ \"$(head -c 5 /dev/vda)\" = armed ]; then
  stty -F /dev/ttyS1 raw -echo
  echo >/dev/ttyS1
  stage=3
  . /etc/functions
  record cmdline </proc/cmdline
  modprobe i6300esb
  record bootstatus </sys/class/watchdog/watchdog0/bootstatus
  echo 0 | record end
  poweroff -f
  sleep 60
fi
umount /dev /sys /proc
exec /every-init
";

#[test]
fn a_next_kernel_that_hangs_is_reset_and_the_machine_boots_cold() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let dir = tempfile::tempdir()?;
    let disk = dir.path().join("disk");
    std::fs::File::create(&disk)?.set_len(1 << 20)?;
    let drive = format!("file={},format=raw,if=none,id=disk", disk.display());
    let hang = "record up </proc/uptime; sent; while :; do sleep 1000; done\n";
    let load = load("--watchdog 60");
    let outcome = guest("watchdog-hang", &kernel, hang)?
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
        .args(["-action", "reboot=reset,watchdog=reset"])
        .append(KEEPS)
        .executable("init", FIRST_INIT.as_bytes())
        .executable("every-init", include_bytes!("init"))
        .script(&format!(
            "modules i6300esb virtio_pci virtio_blk
             {load}
             try status rkexec status
             printf armed | dd of=/dev/vda conv=notrunc,fsync
             try exec rkexec kexec -e"
        ))
        .run()?;
    let cold = outcome.stage(3)?;
    let status = outcome.stage(1)?.text("status.out")?;
    ensure!(
        status.contains("watchdog:      exec arms it with 60 seconds"),
        "{status}"
    );
    let next = outcome.stage(2)?;
    next.text("up")?;
    let line = next.text("cmdline")?;
    ensure!(line.ends_with(" watchdog.open_timeout=60"), "{line}");
    let line = cold.text("cmdline")?;
    ensure!(line.ends_with(KEEPS), "not the first kernel's: {line}");
    // WDIOF_CARDRESET of include/uapi/linux/watchdog.h.
    assert_eq!(cold.text("bootstatus")?, "32");
    Ok(())
}

/// Opens the watchdog and keeps it off for longer than it counts. Its driver stops it when it
/// starts, and opening starts it anew.
const KEEP_OFF: &str = "
modules i6300esb
exec 8>/dev/watchdog0
while [ $(cut -d. -f1 /proc/uptime) -lt 75 ]; do printf . >&8; sleep 2; done
record up </proc/uptime
printf V >&8
exec 8>&-
";

/// What comes of `jump`, a script that ends in a jump.
fn kept_off(name: &str, first: &str, jump: &str) -> Result<Outcome> {
    let kernel = Kernel::new(first)?;
    let outcome = guest(name, &kernel, KEEP_OFF)?
        .append(KEEPS)
        .script(jump)
        .run()?;
    outcome.stage(2)?.text("up")?;
    Ok(outcome)
}

#[test]
fn a_next_kernel_that_comes_up_keeps_it_quiet() -> Result<()> {
    let load = load("");
    let jump = format!("modules i6300esb\n{load}\ntry exec rkexec exec --watchdog 60");
    let outcome = kept_off("watchdog-quiet", "6.1", &jump)?;
    // That is recorded at the load alone.
    let line = outcome.stage(2)?.text("cmdline")?;
    ensure!(!line.contains("open_timeout"), "{line}");
    Ok(())
}

#[test]
fn kexec_e_jumps_with_the_watchdog_that_another_program_holds() -> Result<()> {
    let load = load("--watchdog 90");
    let jump = format!(
        "modprobe i6300esb heartbeat=60
         {load}
         exec 8>/dev/watchdog0
         export NO_COLOR=1
         sh -c 'exec rkexec kexec -e 8>&-' 2>/dev/ttyS0"
    );
    let outcome = kept_off("watchdog-held", "6.12", &jump)?;
    let warning = "holds watchdog0 (i6300ESB timer), which one program alone can arm; it counts 60 seconds, not 90";
    ensure!(outcome.console.contains(warning), "{}", outcome.story());
    Ok(())
}

#[test]
fn what_is_against_it_is_said_before_anything_is_done() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let load = "rkexec load /next/vmlinuz --initrd /next/initrd --cmdline x --watchdog 60";
    let outcome = guest("watchdog-stopped", &kernel, "")?
        .script(&format!(
            "refused none {load}
             modules i6300esb
             refused stopped {load}
             record loaded </sys/kernel/kexec_loaded"
        ))
        .run()?;
    let stage = outcome.stage(1)?;
    for (name, said) in [
        (
            "none",
            "planning failed: this machine has no watchdog device",
        ),
        (
            "stopped",
            "planning failed: the running kernel stops watchdog0 (i6300ESB timer) when it jumps",
        ),
    ] {
        assert_eq!(stage.text(&format!("{name}.status"))?, "1");
        let error = stage.text(&format!("{name}.err"))?;
        ensure!(error.starts_with(&format!("rkexec: {said}")), "{error}");
    }
    ensure!(
        stage
            .text("stopped.err")?
            .contains("watchdog.stop_on_reboot=0")
    );
    assert_eq!(stage.text("loaded")?, "0");
    Ok(())
}

/// In a PID namespace of its own nobody reboots (EINVAL).
#[test]
fn it_is_stopped_again_when_there_is_no_jump() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let load = load("--watchdog 60");
    let outcome = guest("watchdog-disarm", &kernel, "")?
        .append(KEEPS)
        .script(&format!(
            "modules i6300esb
             {load}
             refused long rkexec exec --watchdog 3000
             refused shutdown rkexec exec --watchdog 60 --shutdown
             exec 8>/dev/watchdog0
             refused held sh -c 'exec rkexec exec 8>&-'
             printf V >&8
             exec 8>&-
             refused jump unshare -p -f rkexec exec
             record state </sys/class/watchdog/watchdog0/state
             record timeout </sys/class/watchdog/watchdog0/timeout
             rmmod i6300esb
             modprobe i6300esb nowayout=1
             refused nowayout unshare -p -f rkexec exec"
        ))
        .run()?;
    let stage = outcome.stage(1)?;
    for (name, code, said) in [
        ("long", "1", "counts at most 2046 seconds, not 3000"),
        ("shutdown", "2", "KExecWatchdogSec=60"),
        ("held", "1", "holds watchdog0 (i6300ESB timer)"),
        ("jump", "1", "exec failed: "),
        ("nowayout", "1", "and resets the machine in 60 seconds"),
    ] {
        let error = stage.text(&format!("{name}.err"))?;
        assert_eq!(
            stage.text(&format!("{name}.status"))?,
            code,
            "{name}: {error}"
        );
        ensure!(error.contains(said), "{name}: {error}");
    }
    // It was armed with the time of the load, and is stopped.
    assert_eq!(stage.text("timeout")?, "60");
    assert_eq!(stage.text("state")?, "inactive");
    let jump = stage.text("jump.err")?;
    ensure!(!jump.contains("watchdog0"), "{jump}");
    Ok(())
}
