//! The examples/ on real kernels. The service may do what it must in spite of its
//! fence, and so may the udev rule with its units, under a real systemd; the
//! capture script saves the dump of a real panic.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::arm::{armed_with, guest, plug};
use crate::initramfs::Archive;
use crate::lab::{self, Kernel};
use crate::qemu::Guest;
use crate::witness::Stage;

/// Takes over from /init: a root file system as a machine has it, so that
/// services can have one of their own, and systemd in it.
const INIT: &str = "#!/bin/sh
set -e
mkdir /new
mount -t tmpfs tmpfs /new
cp -a /bin /etc /lib /lib64 /next /sbin /test /usr /new
for fs in dev proc sys; do
  mkdir /new/$fs
  mount --move /$fs /new/$fs
done
mkdir -p /new/boot /new/home /new/root /new/run /new/tmp /new/var/tmp
exec switch_root /new /lib/systemd/systemd
";

const TARGET: &str = "
[Unit]
Wants=check.service rkexec-arm.service
";

const CHECK_SERVICE: &str = "
[Unit]
After=rkexec-arm.service
[Service]
Type=oneshot
ExecStart=/bin/sh /test/check
";

/// There is no journal.
const LOG: &str = "
[Service]
StandardOutput=append:/run/log
StandardError=append:/run/log
";

const CHECK: &str = "
export PATH=/bin:/sbin:/usr/bin
record() {
  {
    printf 'record 1 %s ' \"$1\"
    base64 -w 0
    printf ' .\\n'
  } >/dev/ttyS1
}
trace=/sys/kernel/debug/tracing
# Waits until the log says $1. What never comes shows what came, on the console.
says() {
  local tries=600
  until grep -q \"$1\" /run/log; do
    sleep 0.5
    tries=$((tries - 1))
    [ $tries != 0 ] || { cat /run/log >/dev/ttyS0; poweroff -f; }
  done
}

mount -t debugfs debugfs /sys/kernel/debug
for call in kexec_load kexec_file_load; do
  echo 1 >$trace/events/syscalls/sys_enter_$call/enable
done
touch /run/log
systemctl start rkexec-arm.service
says watching
pid=$(systemctl show -P MainPID rkexec-arm.service)
grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/$pid/status | record fence
echo | record plug-1
says anew
systemctl stop rkexec-arm.service
systemctl show -P Result rkexec-arm.service | record result
mv /run/log /run/service
record service </run/service
rkexec status --check >/dev/null 2>&1
echo $? | record check-1

touch /run/log
/lib/systemd/systemd-udevd --daemon
systemctl enable --now rkexec-rearm.path rkexec-rearm.service &
# An event while it arms.
until pidof rkexec; do sleep 0.1; done
echo | record plug-2
says added
until [ $(systemctl show -P ActiveState rkexec-rearm.service) = inactive ] && [ ! -e /run/rkexec-rearm ]; do
  sleep 0.5
done
mv /run/log /run/rule
record rule </run/rule
grep sys_kexec $trace/trace | record loads
rkexec status --check >/dev/null 2>&1
echo $? | record check-2
echo 0 | record end
poweroff -f
";

/// A file of examples/.
pub(crate) fn example(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name);
    fs::read(&path).with_context(|| path.display().to_string())
}

/// `guest` with systemd, udevd, and what examples/ says to install.
fn with_systemd(mut guest: Guest) -> Result<Guest> {
    for program in ["/lib/systemd/systemd", "/lib/systemd/systemd-udevd"] {
        guest = guest.program(program)?;
    }
    guest = guest
        .program("/bin/systemctl")?
        .executable("usr/sbin/rkexec", &fs::read(lab::rkexec()?)?)
        .executable("test/init", INIT.as_bytes())
        .file("test/check", CHECK.as_bytes())
        .file(
            "etc/udev/rules.d/60-rkexec-rearm.rules",
            &example("udev/60-rkexec-rearm.rules")?,
        );
    for target in [
        "basic", "local-fs", "paths", "shutdown", "slices", "sockets", "sysinit", "timers",
        "umount",
    ] {
        let path = format!("lib/systemd/system/{target}.target");
        guest = guest.file(&path, &fs::read(Path::new("/").join(&path))?);
    }
    for unit in [
        "rkexec-arm.service",
        "rkexec-rearm.path",
        "rkexec-rearm.service",
    ] {
        let content = example(&format!("systemd/{unit}"))?;
        guest = guest.file(&format!("etc/systemd/system/{unit}"), &content);
        if unit.ends_with(".service") {
            let drop_in = format!("etc/systemd/system/{unit}.d/log.conf");
            guest = guest.file(&drop_in, LOG.as_bytes());
        }
    }
    Ok(guest
        .file("etc/systemd/system/default.target", TARGET.as_bytes())
        .file("etc/systemd/system/check.service", CHECK_SERVICE.as_bytes()))
}

/// CAP_SYS_BOOT, CAP_SYS_ADMIN, CAP_SYS_RAWIO and CAP_NET_ADMIN.
const CAPABILITIES: u64 = 1 << 22 | 1 << 21 | 1 << 17 | 1 << 12;

fn fenced_in(before: Stage) -> Result<()> {
    let fence = before.text("fence")?;
    for line in [
        format!("CapBnd:\t{CAPABILITIES:016x}"),
        "NoNewPrivs:\t1".to_owned(),
        "Seccomp:\t2".to_owned(),
    ] {
        ensure!(fence.lines().any(|has| *has == line), "{line:?}: {fence}");
    }
    Ok(())
}

#[test]
fn the_service_and_the_rule_keep_a_machine_armed() -> Result<()> {
    let kernel = Kernel::new("6.1")?;
    let guest = with_systemd(guest("arm-systemd", &kernel)?)?;
    let outcome = guest.conduct(|guest| {
        guest.wait_for(1, "plug-1")?;
        plug(guest, "one")?;
        guest.wait_for(1, "plug-2")?;
        plug(guest, "two")
    })?;
    let before = outcome.stage(1)?;
    fenced_in(before)?;
    let service = before.text("service")?;
    assert!(service.contains("loaded anew: the memory "), "{service}");
    assert!(service.ends_with("ended by SIGTERM"), "{service}");
    assert_eq!(before.text("result")?, "success");
    let rule = before.text("rule")?;
    assert!(
        rule.contains("was added, and the dump would not hold it"),
        "{rule}"
    );
    for check in ["check-1", "check-2"] {
        assert_eq!(before.text(check)?, "0", "{check}");
    }
    // At the start, and for each of the two; more where a look saw half of the second one.
    let loads = before.text("loads")?.lines().count();
    assert!((3..=5).contains(&loads), "{loads}: {rule}");
    Ok(())
}

/// A root file system for the capture script. In a PID namespace of its own a
/// reboot ends no more than that: its first process, by SIGHUP.
const CAPTURE: &str = "
mkdir /mnt
mount -t tmpfs tmpfs /mnt
mount -o remount,ro none /mnt
export rootmnt=/mnt
refused capture unshare -p -f /scripts/local-bottom/rkexec-capture
cd /mnt/var/crash/*
ls | record saved
record saved-dmesg <dmesg
try reread makedumpfile --dump-dmesg vmcore /tmp/dmesg
record dmesg-of-the-dump </tmp/dmesg
grep ' /mnt ' /proc/mounts | record mounted
";

#[test]
fn the_capture_script_saves_a_real_dump() -> Result<()> {
    let mut overlay = Archive::new();
    overlay.file("test/stage-2", 0o644, CAPTURE.as_bytes());
    overlay.file(
        "scripts/local-bottom/rkexec-capture",
        0o755,
        &example("initramfs-tools/scripts/local-bottom/rkexec-capture")?,
    );
    overlay.program(Path::new("/usr/bin/makedumpfile"), "bin/makedumpfile")?;
    let kernel = Kernel::new("6.12")?;
    let outcome = armed_with("capture-script", &kernel, overlay)?
        .script("try arm rkexec arm\nsent\necho c >/proc/sysrq-trigger\n")
        .run()?;
    let after = outcome.stage(2)?;
    let said = after.text("capture.out")?;
    assert!(said.contains("the dump is in /var/crash/"), "{said}");
    assert_eq!(after.text("capture.status")?, "129", "{said}");
    assert_eq!(after.text("saved")?, "dmesg\nvmcore");
    let mounted = after.text("mounted")?;
    assert!(mounted.contains(" ro,"), "{mounted}");
    for log in ["saved-dmesg", "dmesg-of-the-dump"] {
        let text = after.text(log)?;
        assert!(text.contains("sysrq triggered crash"), "{log}: {text}");
    }
    Ok(())
}
