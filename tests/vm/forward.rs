//! What a kernel with Kexec Handover preserves goes on to the next kernel: passed on by the
//! loader through kexec_load, and by the kernel itself through kexec_file_load. The sessions
//! are made by a program that knows nothing of rkexec, and by `rkexec exec`.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::Guest;
use crate::trip::{self, Plan, host_file, noise, sha256};
use crate::witness::Stage;

/// Kexec Handover and live update, with scratch memory for what is loaded.
const WORDS: &str = "kho=on liveupdate=on kho_scratch=16M,64M,16M";

/// What sets the pool's memory aside in the first kernel: a session may lie in any other.
const POOL: &str = "memmap=16M$0x10000000";

/// Makes the session NAME of one file in memory, with token 7, and closes the device:
/// `NAME FILE` (include/uapi/linux/liveupdate.h). It is handed over while this runs.
const SESSION: &str = r#"
my ($name, $path) = @ARGV;
open(my $device, "+<", "/dev/liveupdate") or die "device: $!";
my $call = pack("Lla64", 72, 0, $name);
ioctl($device, 0xBA00, $call) or die "session: $!";
open(my $session, "+<&=", (unpack("Ll", $call))[1]) or die "session: $!";
close($device);
open(my $from, "<", $path) or die "file: $!";
open(my $to, "+<&=", syscall(319, $path, 0)) or die "memory: $!";
while (sysread($from, my $piece, 65536)) { syswrite($to, $piece) or die "$path: $!" }
$call = pack("LlQ", 16, fileno($to), 7);
ioctl($session, 0xBA40, $call) or die "$path: $!";
open(my $ready, ">", "/tmp/ready-$name"); close($ready);
sleep(1000);
"#;

/// `session NAME FILE` in the scripts: the session is there from now on.
const MAKE: &str = r#"
session() {
  perl /session "$1" "$2" &
  until [ -e "/tmp/ready-$1" ]; do sleep 0.1; done
}
# arrived NAME SESSION: the file of another program's session.
arrived() {
  try "$1" rkexec retrieve "/mnt/$1" --session "$2" --token 7 -q
  sha256sum "/mnt/$1/7" | record "$1-digest"
}
"#;

/// The first kernel: what it preserves is passed on through kexec_load.
fn first(line: &str) -> String {
    let request = format!("/next/vmlinuz --initrd /next/initrd --cmdline '{line}'");
    format!(
        r#"
{MAKE}
session early /c/early
try dropped rkexec plan {request} --kho drop --output json

# Not --pool alone: with --carry too, exec adds a session to what is passed on.
try load rkexec load {request} --pool 0x10000000,16M --pool-protect reserved \
  --carry /c/large --carry /c/empty --output json
record loaded </sys/kernel/kexec_loaded
session late /c/late

umount /sys/kernel/debug
refused hidden rkexec exec
mount -t debugfs debugfs /sys/kernel/debug
cp /run/rkexec/normal.json /tmp/normal.json
sed -i 's/"map":[0-9]*/"map":4096/' /run/rkexec/normal.json
refused other rkexec exec
cp /tmp/normal.json /run/rkexec/normal.json
mv /c/empty /c/elsewhere
refused missing rkexec exec
mv /c/elsewhere /c/empty
sleep 1000 <>/dev/liveupdate &
until ls -l /proc/$!/fd | grep -q liveupdate; do sleep 0.1; done
refused busy rkexec exec
kill $!
wait $! || true
session rkexec /c/early
refused exists rkexec exec
kill $!
wait $! || true
# The contents are those at exec.
cp /c/later /c/large
rkexec exec
"#
    )
}

/// The second kernel: it was given state, so that only kexec_file_load keeps it.
fn second(line: &str) -> String {
    let request = format!("/next/vmlinuz --initrd /next/initrd --cmdline '{line}'");
    format!(
        r#"
{MAKE}
mkdir -p /mnt
mount -t tmpfs tmpfs /mnt
try status rkexec status --output json
arrived early early
arrived late late
try own rkexec retrieve /mnt/own --output json
(cd /mnt/own && sha256sum large empty) | record own-digests

session third /mnt/early/7
# The pool would go on as well, which only kexec_load can do.
refused pool rkexec load {request}
refused forward rkexec plan {request} --kho forward
refused digest rkexec plan {request} --no-carry-pools --no-digest
refused forced rkexec load {request} --syscall kexec_load
try load rkexec load {request} --no-carry-pools --carry /mnt/own/large --output json
rkexec kexec -e
"#
    )
}

/// The third kernel.
fn third() -> String {
    format!(
        r#"
{MAKE}
mkdir -p /mnt
mount -t tmpfs tmpfs /mnt
arrived third third
try own rkexec retrieve /mnt/own --output json
sha256sum /mnt/own/large | record own-digest
"#
    )
}

fn succeeded(stage: Stage<'_>, name: &str) -> Result<()> {
    let said = stage.text(&format!("{name}.err"))?;
    ensure!(
        stage.text(&format!("{name}.status"))? == "0",
        "{name}: {said}"
    );
    Ok(())
}

/// `rkexec` failed, and said this.
fn failed(stage: Stage<'_>, name: &str, expected: &str) -> Result<()> {
    let said = stage.text(&format!("{name}.err"))?;
    ensure!(
        stage.text(&format!("{name}.status"))? == "1",
        "{name}: {said}"
    );
    ensure!(said.contains(expected), "{name}: {said}");
    Ok(())
}

/// Sessions made before and after the load, and files of `exec`, survive two kexecs: passed
/// on through kexec_load with a pool, and kept through kexec_file_load.
#[test]
fn sessions_survive_kexec_load_and_kexec_file_load() -> Result<()> {
    let kernel = Kernel::new("kho")?;
    let [early, late] = ["early", "late"].map(|name| noise(name, 300_000));
    let [large, later] = ["large", "later"].map(|name| noise(name, 3_777_777));
    let line = |stage: &str| format!("{} {WORDS}", trip::chain_cmdline(stage));
    let stage = |number: u32, script: &str| -> Result<Archive> {
        let mut overlay = Archive::new();
        overlay.program(std::path::Path::new("/usr/bin/perl"), "/usr/bin/perl")?;
        overlay.file("session", 0o644, SESSION.as_bytes());
        overlay.file(&format!("test/stage-{number}"), 0o644, script.as_bytes());
        Ok(overlay)
    };
    let image = host_file(&kernel.image())?;
    let last = initramfs::initrd(&kernel, stage(3, &third())?)?;
    let mut next = stage(2, &second(&line("3")))?;
    next.file("next/vmlinuz", 0o644, &image);
    next.file("next/initrd", 0o644, &last);
    let outcome = Guest::new("kho-forward", &kernel)
        .append(&format!("{WORDS} {POOL}"))
        .program("/usr/bin/perl")?
        .file("session", SESSION.as_bytes())
        .file("c/early", &early)
        .file("c/late", &late)
        .file("c/large", &large)
        .file("c/later", &later)
        .file("c/empty", b"")
        .file("next/vmlinuz", &image)
        .file("next/initrd", &initramfs::initrd(&kernel, next)?)
        .script(&first(&line("2")))
        .run()?;
    loaded(outcome.stage(1)?)?;

    let stage = outcome.stage(2)?;
    let log = stage.text("dmesg")?;
    for said in [
        "KHO: found kexec handover data",
        "luo: Retrieved live update data",
    ] {
        ensure!(log.contains(said), "{said}: {log}");
    }
    for (name, content) in [("early", &early), ("late", &late)] {
        succeeded(stage, name)?;
        assert_eq!(stage.digest(&format!("{name}-digest"))?, sha256(content));
    }
    succeeded(stage, "own")?;
    let digests = stage.text("own-digests")?;
    for (name, content) in [("large", &*later), ("empty", b"")] {
        let line = format!("{}  {name}", sha256(content));
        ensure!(digests.contains(&line), "{line}: {digests}");
    }
    kept(stage)?;

    let stage = outcome.stage(3)?;
    succeeded(stage, "third")?;
    assert_eq!(stage.digest("third-digest")?, sha256(&early));
    succeeded(stage, "own")?;
    assert_eq!(stage.digest("own-digest")?, sha256(&later));
    Ok(())
}

/// What the first kernel said.
fn loaded(stage: Stage<'_>) -> Result<()> {
    succeeded(stage, "load")?;
    let plan = Plan::of(stage)?.json;
    assert_eq!(plan["syscall"]["name"], "kexec_load");
    assert_eq!(plan["kho"]["way"], "forwarded", "{}", plan["kho"]);
    assert_eq!(plan["kho"]["carried"][0]["name"], "large");
    assert_eq!(plan["kho"]["carried"][0]["sha256"], Value::Null);
    assert_eq!(plan["pools"][0]["protection"], "reserved");
    assert_eq!(stage.text("loaded")?, "1");
    succeeded(stage, "dropped")?;
    let dropped: Value = serde_json::from_str(stage.text("dropped.out")?)?;
    assert_eq!(dropped["kho"]["way"], "dropped");
    let warnings = dropped["warnings"].to_string();
    let lost = "--kho drop: LUO with the session early is lost";
    ensure!(warnings.contains(lost), "{warnings}");

    failed(stage, "hidden", "mount debugfs to forward KHO state")?;
    let other = "handed-over state changed since the load: load again";
    failed(stage, "other", other)?;
    failed(stage, "missing", "exec failed: reading /c/empty")?;
    let busy = "another program has /dev/liveupdate open";
    failed(stage, "busy", busy)?;
    let exists = "there is a session rkexec already, which another program has made: perl (";
    failed(stage, "exists", exists)
}

/// What the second kernel said, which was given state.
fn kept(stage: Stage<'_>) -> Result<()> {
    let status: Value = serde_json::from_str(stage.text("status.out")?)?;
    assert_eq!(status["kho"]["taken_over"], true);
    let itself = "this kernel was itself started with handed-over state and does not show its tree: only \
                  kexec_file_load keeps it";
    failed(stage, "pool", itself)?;
    failed(stage, "forward", itself)?;
    failed(stage, "digest", itself)?;
    failed(stage, "forced", itself)?;
    succeeded(stage, "load")?;
    let plan = Plan::of(stage)?.json;
    assert_eq!(plan["syscall"]["name"], "kexec_file_load");
    assert_eq!(plan["kho"]["way"], "at_exec", "{}", plan["kho"]);
    assert_eq!(
        plan["kho"]["carried"],
        json!([{ "name": "large", "size": 3_777_777, "sha256": null, "token": 1 }])
    );
    let warnings = plan["warnings"].to_string();
    ensure!(warnings.contains("those at exec"), "{warnings}");
    Ok(())
}
