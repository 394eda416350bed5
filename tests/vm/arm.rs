//! `rkexec arm` on machines whose memory grows: what is loaded stays true, with
//! no more loads than needed, and the dump of a real panic is the witness.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use goblin::elf::Elf;
use goblin::elf::program_header::PT_LOAD;
use serde_json::{Value, json};

use crate::crash::took_no_memory_of_the_dump;
use crate::examples::example;
use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, Outcome, Running, line};
use crate::trip::host_file;
use crate::witness::Stage;

/// What is plugged: four memory blocks of 128 MiB.
const PLUGGED: u64 = 512 << 20;
/// Events of the storm: four blocks are added and set online, then one goes
/// offline and online again, over and over.
const EVENTS: u64 = 50;

/// A capture kernel that breaks down says where on the console.
pub(crate) const CONFIG: &str = concat!(
    "
kernel = '/next/vmlinuz'
initrd = ['/next/initrd']
minimum_reservation = '128M'

[cmdline]
line = '",
    line!("earlyprintk=ttyS0 rkexec.stage=2"),
    "'
"
);

/// Counts the system calls from here on.
const TRACE: &str = "
trace=/sys/kernel/debug/tracing
for call in kexec_load kexec_file_load; do
  echo 1 >$trace/events/syscalls/sys_enter_$call/enable
done
";

/// Stays armed in the background.
const WATCH: &str = "
rkexec arm --watch >/tmp/watch 2>/tmp/watch.err &
watch=$!
until grep -q watching /tmp/watch; do kill -0 $watch; sleep 0.2; done
";

/// The host plugs memory; then come the other events of the storm.
const STORM: &str = "
echo offline >/sys/devices/system/memory/auto_online_blocks
blocks() { ls -d /sys/devices/system/memory/memory[0-9]*; }
blocks >/tmp/before
record watching </tmp/watch
until [ $(blocks | wc -l) -ge $(($(wc -l </tmp/before) + 4)) ]; do sleep 0.1; done
added=$(blocks | grep -vxFf /tmp/before)
for block in $added; do echo online_movable >$block/state; done
for pair in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21; do
  echo offline >$block/state
  echo online_movable >$block/state
done
record plugged </proc/iomem
until [ $(awk '{ sum += $1 } END { print sum }' /tmp/watch) -ge 50 ]; do
  kill -0 $watch
  sleep 0.5
done
";

/// Ends the watch, asks how it stands, and panics.
const END: &str = "
kill -TERM $watch
status=0
wait $watch || status=$?
echo $status | record watch-status
record watch </tmp/watch
record watch-errors </tmp/watch.err
try again rkexec arm --output json
try check rkexec status --check
grep sys_kexec $trace/trace | record loads
udevadm test --action=online /sys/devices/system/memory/memory0 2>/dev/null | record udev
sent
echo c >/proc/sysrq-trigger
";

/// As much of the dump as holds its program headers.
const CAPTURE: &str = "
dd if=/proc/vmcore bs=4K count=16 2>/dev/null | record core
record iomem-at-end </proc/iomem
";

/// A guest that is to be armed with its own kernel, which only shows the dump's headers.
pub(crate) fn guest(name: &str, kernel: &Kernel) -> Result<Guest> {
    let mut overlay = Archive::new();
    overlay.file("test/stage-2", 0o644, CAPTURE.as_bytes());
    armed_with(name, kernel, overlay)
}

/// A guest that is to be armed with its own kernel; `overlay` is what the capture
/// kernel's initramfs has besides what all have.
pub(crate) fn armed_with(name: &str, kernel: &Kernel, overlay: Archive) -> Result<Guest> {
    Ok(Guest::new(name, kernel)
        .memory("1G,slots=4,maxmem=4G")
        .append("crashkernel=256M")
        .timeout(Duration::from_secs(600))
        .file("next/vmlinuz", &host_file(&kernel.image())?)
        .file("next/initrd", &initramfs::initrd(kernel, overlay)?)
        .file("etc/rkexec.toml", CONFIG.as_bytes()))
}

/// Where it is that the rule is enabled.
const ENABLED: &str = "etc/systemd/system/paths.target.wants/rkexec-rearm.path";
/// What udev would run for an event of memory, in a guest that is armed.
const RULE: &str = "udev/60-rkexec-rearm.rules";

/// Plugs memory into an armed guest, with a storm of events, and lets it panic.
fn storm(name: &str, series: &str) -> Result<Outcome> {
    let kernel = Kernel::new(series)?;
    let guest = guest(name, &kernel)?
        .program("/bin/udevadm")?
        .file("etc/udev/rules.d/60-rkexec-rearm.rules", &example(RULE)?)
        .file(ENABLED, b"")
        .script(&format!("{TRACE}{WATCH}{STORM}{END}"));
    guest.conduct(|guest| {
        guest.wait_for(1, "watching")?;
        plug(guest, "more")
    })
}

/// Plugs memory in, which QEMU calls `name`.
pub(crate) fn plug(guest: &mut Running, name: &str) -> Result<()> {
    guest.execute(
        "object-add",
        &json!({ "qom-type": "memory-backend-ram", "id": name, "size": PLUGGED }),
    )?;
    guest.execute(
        "device_add",
        &json!({ "driver": "pc-dimm", "id": format!("dimm-{name}"), "memdev": name }),
    )
}

/// The lines of the watch's log, and how many events they answer.
fn log(before: Stage<'_>) -> Result<(Vec<&str>, u64)> {
    let lines: Vec<&str> = before.text("watch")?.lines().collect();
    let answered = lines
        .iter()
        .filter_map(|line| line.split(' ').next()?.parse::<u64>().ok())
        .sum();
    ensure!(before.text("watch-errors")?.is_empty());
    ensure!(before.text("watch-status")? == "0", "{lines:?}");
    ensure!(
        lines.first() == Some(&"armed with /next/vmlinuz: no crash kernel was loaded; watching"),
        "{lines:?}"
    );
    ensure!(lines.last() == Some(&"ended by SIGTERM"), "{lines:?}");
    Ok((lines, answered))
}

/// How often the kernel was asked to load something.
fn loads(before: Stage) -> Result<usize> {
    Ok(before.text("loads")?.lines().count())
}

/// Whether the rule of examples/ would arm anew.
fn rearmed_by_udev(before: Stage) -> Result<bool> {
    let would = before.text("udev")?;
    ensure!(would.contains("ACTION=online"), "{would}");
    Ok(would.contains("run: '/bin/touch /run/rkexec-rearm'"))
}

/// A second `arm` loaded nothing, and the machine is armed.
fn armed_to_the_end(before: Stage) -> Result<()> {
    ensure!(
        before.text("again.status")? == "0",
        "{}",
        before.text("again.err")?
    );
    let again: Value = serde_json::from_str(before.text("again.out")?)?;
    ensure!(
        again["armed"] == true && again["loaded"] == false,
        "{again}"
    );
    ensure!(
        before.text("check.status")? == "0",
        "{}",
        before.text("check.err")?
    );
    Ok(())
}

/// The dump has what was plugged.
fn dumped(outcome: &Outcome) -> Result<()> {
    let before = outcome.stage_of_any_end(1)?;
    let had = before.iomem()?;
    let plugged = before.rows("plugged")?;
    let plugged = plugged
        .iter()
        .find(|row| row.kind == "System RAM" && !had.contains(row));
    let plugged = plugged.context("nothing was plugged")?;
    ensure!(plugged.end - plugged.start == PLUGGED, "{plugged:x?}");
    let core = outcome.stage(2)?.bytes("core")?;
    let elf = Elf::parse(core)?;
    let loads: Vec<(u64, u64)> = elf
        .program_headers
        .iter()
        .filter(|header| header.p_type == PT_LOAD)
        .map(|load| (load.p_paddr, load.p_paddr + load.p_memsz))
        .collect();
    ensure!(
        loads.contains(&(plugged.start, plugged.end)),
        "{plugged:x?} is not in the dump: {loads:x?}"
    );
    took_no_memory_of_the_dump(outcome)
}

#[test]
fn a_storm_under_6_1_is_one_load() -> Result<()> {
    let outcome = storm("arm-6.1", "6.1")?;
    let before = outcome.stage_of_any_end(1)?;
    let (lines, answered) = log(before).with_context(|| outcome.story())?;
    assert_eq!(answered, EVENTS, "{lines:?}");
    let anew: Vec<&&str> = lines.iter().filter(|line| line.contains("anew")).collect();
    assert_eq!(anew.len(), 1, "{lines:?}");
    assert!(
        anew[0].contains("loaded anew: the memory 0x100000000-0x11fffffff was added"),
        "{lines:?}"
    );
    // The first one, and the one that the storm made.
    assert_eq!(loads(before)?, 2, "{}", before.text("loads")?);
    assert!(rearmed_by_udev(before)?);
    armed_to_the_end(before)?;
    dumped(&outcome)
}

#[test]
fn a_storm_under_6_12_is_left_to_the_kernel() -> Result<()> {
    let outcome = storm("arm-6.12", "6.12")?;
    let before = outcome.stage_of_any_end(1)?;
    let (lines, answered) = log(before).with_context(|| outcome.story())?;
    assert_eq!(answered, EVENTS, "{lines:?}");
    for line in &lines[1..lines.len() - 1] {
        assert!(
            line.ends_with(": nothing to do: the kernel updates what is loaded itself"),
            "{lines:?}"
        );
    }
    assert_eq!(loads(before)?, 1, "{}", before.text("loads")?);
    assert!(!rearmed_by_udev(before)?);
    armed_to_the_end(before)?;
    dumped(&outcome)
}

/// The initrd comes from a disk that takes some ten seconds for it. By then the plan
/// is made, and nothing is loaded that the kernel could keep up.
const SLOW_LOAD: &str = "
modules virtio_pci virtio_blk minix
mkdir /slow
mount -t minix /dev/vda /slow
cp /next/initrd /slow/initrd
umount /slow
echo 3 >/proc/sys/vm/drop_caches
mount -t minix -o ro /dev/vda /slow
echo online >/sys/devices/system/memory/auto_online_blocks
sed -i s,/next/initrd,/slow/initrd, /etc/rkexec.toml
rkexec arm >/tmp/load 2>&1 &
load=$!
sleep 2
record loading </proc/iomem
status=0
wait $load || status=$?
echo $status | record load-status
record load </tmp/load
record plugged </proc/iomem
grep sys_kexec $trace/trace | record loads
sent
echo c >/proc/sysrq-trigger
";

#[test]
fn memory_that_comes_during_a_load_is_in_the_dump() -> Result<()> {
    let disk = tempfile::NamedTempFile::new()?;
    disk.as_file().set_len(64 << 20)?;
    lab::output(Command::new("/sbin/mkfs.minix").arg("-3").arg(disk.path()))?;
    let drive = format!(
        "file={},format=raw,if=none,id=disk,throttling.bps-read=1000000",
        disk.path().display()
    );
    let guest = guest("arm-meanwhile", &Kernel::new("6.12")?)?
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
        .script(&format!("{TRACE}{SLOW_LOAD}"));
    let outcome = guest.conduct(|guest| {
        guest.wait_for(1, "loading")?;
        plug(guest, "more")
    })?;
    let before = outcome.stage_of_any_end(1)?;
    assert_eq!(before.text("load-status")?, "0", "{}", before.text("load")?);
    assert_eq!(loads(before)?, 2, "{}", before.text("loads")?);
    dumped(&outcome)
}

/// What `arm` says of a load, for each of several changes.
const CHANGES: &str = "
arm() { try $1 rkexec arm --output json; }
arm first
arm again
echo >>/next/initrd
arm initrd
echo \"append = 'nr_cpus=1'\" >>/etc/rkexec.toml
arm cmdline
sed -i '1i digest = false' /etc/rkexec.toml
arm digest
rkexec unload --panic
arm unloaded
rm /run/rkexec/*
arm unrecorded
# Another tool replaces it: the kernel does not keep up what that loads.
try other kexec -c -p /next/vmlinuz --initrd=/next/initrd --append=x
try status rkexec status --output json
arm replaced
arm still
# No space: a new record takes the place of the old one.
mount -t tmpfs -o mode=700,size=32k none /run/rkexec
try refill rkexec load --panic /next/vmlinuz --initrd /next/initrd --cmdline x
refused fill dd if=/dev/zero of=/run/rkexec/fill bs=4k
arm full
# Where there is none, it cannot be written.
rm /run/rkexec/*.json
refused fill-up dd if=/dev/zero of=/run/rkexec/fill bs=4k
arm unwritten
ls -A /run/rkexec | record left
try no-record rkexec status --output json
rm /run/rkexec/fill
arm recorded
sed -i s/128M/300M/ /etc/rkexec.toml
refused small rkexec arm
sed -i \"1i when_impossible = 'warn'\" /etc/rkexec.toml
try small-warns rkexec arm --output json
record loaded </sys/kernel/kexec_crash_loaded
";

#[test]
fn only_what_differs_is_loaded() -> Result<()> {
    // What is loaded a dozen times, and never entered.
    let next = Kernel::small()?;
    let outcome = guest("arm-changes", &Kernel::new("6.12")?)?
        .file("next/vmlinuz", &host_file(&next.image())?)
        .file("next/initrd", &initramfs::initrd(&next, Archive::new())?)
        .program("/sbin/kexec")?
        .script(CHANGES)
        .run()?;
    let before = outcome.stage(1)?;
    let nothing = "";
    let unrecorded = "which crash kernel was loaded before is not recorded";
    for (change, reason) in [
        ("first", "no crash kernel was loaded"),
        ("again", nothing),
        ("initrd", "the initrd has changed since the load"),
        ("cmdline", "the command line has changed since the load"),
        (
            "digest",
            "whether purgatory verifies has changed since the load",
        ),
        ("unloaded", "no crash kernel was loaded"),
        ("unrecorded", unrecorded),
        ("replaced", unrecorded),
        ("still", nothing),
        ("full", "the command line has changed since the load"),
        ("unwritten", unrecorded),
        ("recorded", unrecorded),
    ] {
        let said: Value = serde_json::from_str(before.text(&format!("{change}.out"))?)?;
        let expected = json!({
            "schema": 1,
            "armed": true,
            "loaded": !reason.is_empty(),
            "reason": Some(reason).filter(|reason| !reason.is_empty()),
            "kernel": "/next/vmlinuz",
        });
        assert_eq!(said, expected, "{change}");
    }
    for status in ["status.out", "no-record.out"] {
        let status: Value = serde_json::from_str(before.text(status)?)?;
        assert_eq!(status["armed"]["state"], "unknown", "{status}");
        assert_eq!(status["crash_record"], Value::Null);
    }
    let warned = before.text("unwritten.err")?;
    assert!(warned.contains("is not recorded"), "{warned}");
    // Nothing half written stays.
    let left: Vec<&str> = before.text("left")?.split_whitespace().collect();
    assert_eq!(left, ["fill", "lock"]);
    assert_eq!(before.text("small.status")?, "1");
    let small = before.text("small.err")?;
    assert!(
        small.starts_with(
            "rkexec: arm failed: 256 MiB are reserved for a crash kernel, and the configuration wants 300 MiB"
        ),
        "{small}"
    );
    // What was loaded before it was asked for too much stays, and that is said.
    assert_eq!(before.text("loaded")?, "1");
    let warned = before.text("small-warns.err")?;
    assert!(
        warned.contains("warning: nothing is loaded: 256 MiB are reserved")
            && warned.contains("; the crash kernel loaded before stays armed"),
        "{warned}"
    );
    let said: Value = serde_json::from_str(before.text("small-warns.out")?)?;
    assert_eq!(
        (&said["armed"], &said["loaded"]),
        (&json!(true), &json!(false))
    );
    Ok(())
}

/// Both load from a disk that takes some seconds for it, and one after the other.
const TWO_AT_ONCE: &str = "
modules virtio_pci virtio_blk minix
mkdir /slow
mount -t minix /dev/vda /slow
cp /next/initrd /slow/initrd
umount /slow
load_from() { rkexec load --panic /next/vmlinuz --initrd $1/initrd --cmdline \"reset_devices $2\"; }
for round in 1 2; do
  echo 3 >/proc/sys/vm/drop_caches
  mount -t minix -o ro /dev/vda /slow
  load_from /slow first >/tmp/first 2>&1 &
  first=$!
  until [ -s /run/rkexec/lock ]; do sleep 0.1; done
  load_from /next second >/tmp/second 2>&1 &
  second=$!
  status=0
  wait $first || status=$?
  echo $status | record first-status-$round
  record first-$round </tmp/first
  status=0
  wait $second || status=$?
  echo $status | record second-status-$round
  record second-$round </tmp/second
  try check-$round rkexec status --check --output json
  record loaded-$round </sys/kernel/kexec_crash_loaded
  umount /slow
  rkexec unload --panic
  : >/run/rkexec/lock
done
# Nobody is kept off where there is no place for a lock.
mount -t tmpfs -o ro,mode=700 none /run/rkexec
try readonly rkexec load --panic /next/vmlinuz --initrd /next/initrd --cmdline reset_devices
record loaded-readonly </sys/kernel/kexec_crash_loaded
";

#[test]
fn two_loads_at_once_end_well_both() -> Result<()> {
    let disk = tempfile::NamedTempFile::new()?;
    disk.as_file().set_len(64 << 20)?;
    lab::output(Command::new("/sbin/mkfs.minix").arg("-3").arg(disk.path()))?;
    let drive = format!(
        "file={},format=raw,if=none,id=disk,throttling.bps-read=2000000",
        disk.path().display()
    );
    let outcome = guest("arm-two-at-once", &Kernel::new("6.12")?)?
        .cpus(2)
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
        .script(TWO_AT_ONCE)
        .run()?;
    let stage = outcome.stage(1)?;
    for round in [1, 2] {
        for load in ["first", "second"] {
            let said = stage.text(&format!("{load}-{round}"))?;
            ensure!(
                stage.text(&format!("{load}-status-{round}"))? == "0",
                "{load}: {said}"
            );
            ensure!(!said.contains("NOT armed"), "{said}");
        }
        let waited = stage.text(&format!("second-{round}"))?;
        ensure!(
            waited.contains("rkexec: another rkexec (PID ")
                && waited.contains(" is loading: waiting"),
            "{waited}"
        );
        ensure!(stage.text(&format!("loaded-{round}"))? == "1");
        ensure!(stage.text(&format!("check-{round}.status"))? == "0");
        let status: Value = serde_json::from_str(stage.text(&format!("check-{round}.out"))?)?;
        assert_eq!(status["armed"]["state"], "yes", "{status}");
        // The record is that of the last one, which is loaded.
        assert_eq!(status["crash_record"]["cmdline"], "reset_devices second");
    }
    let warned = stage.text("readonly.err")?;
    ensure!(
        warned.contains("no other rkexec is kept from loading at the same time: ")
            && warned.contains("is not recorded"),
        "{warned}"
    );
    ensure!(stage.text("readonly.status")? == "0" && stage.text("loaded-readonly")? == "1");
    Ok(())
}

#[test]
fn a_machine_without_a_reservation() -> Result<()> {
    let script = "
refused fails rkexec arm
sed -i \"1i when_impossible = 'warn'\" /etc/rkexec.toml
try warns rkexec arm
try json rkexec arm --output json
try watches rkexec arm --watch
";
    let outcome = Guest::new("arm-impossible", &Kernel::new("6.12")?)
        .file("etc/rkexec.toml", CONFIG.as_bytes())
        .script(script)
        .run()?;
    let before = outcome.stage(1)?;
    let why = "no memory is reserved for a crash kernel";
    assert_eq!(before.text("fails.status")?, "1");
    let failed = before.text("fails.err")?;
    assert!(
        failed.starts_with(&format!(
            "rkexec: arm failed: {why}\nhint: add crashkernel="
        )),
        "{failed}"
    );
    for warned in ["warns", "json", "watches"] {
        let said = before.text(&format!("{warned}.err"))?;
        assert_eq!(said, format!("rkexec: warning: not armed: {why}"));
    }
    for silent in ["warns.out", "watches.out"] {
        assert_eq!(before.text(silent)?, "");
    }
    let said: Value = serde_json::from_str(before.text("json.out")?)?;
    let expected = json!({ "schema": 1, "armed": false, "loaded": false, "reason": why });
    assert_eq!(said, expected);
    Ok(())
}
