//! `rkexec retrieve` in a kernel that took sessions over. What is handed over is made, and
//! once taken out, by programs that know nothing of rkexec.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::initramfs::{self, Archive};
use crate::lab::Kernel;
use crate::qemu::Guest;
use crate::trip::{self, host_file, noise, sha256};
use crate::witness::Stage;

/// Kexec Handover and live update, with scratch memory for what is loaded.
const WORDS: &str = "kho=on liveupdate=on kho_scratch=16M,64M,16M";

/// Makes sessions of files in memory (include/uapi/linux/liveupdate.h):
/// `SESSION TOKEN FILE TOKEN FILE … -- SESSION …`. They are handed over while it runs.
const CARRY: &str = r#"
open(my $device, "+<", "/dev/liveupdate") or die "device: $!";
my @open;
while (@ARGV) {
  my $call = pack("Lla64", 72, 0, shift);
  ioctl($device, 0xBA00, $call) or die "session: $!";
  open(my $session, "+<&=", (unpack("Ll", $call))[1]) or die "session: $!";
  push @open, $session;
  while (@ARGV and (my $token = shift) ne "--") {
    open(my $from, "<", my $path = shift) or die "file: $!";
    my $memory = syscall(319, $path, 0);
    open(my $to, "+<&=", $memory) or die "memory: $!";
    while (sysread($from, my $piece, 65536)) {
      syswrite($to, $piece) == length $piece or die "$path: $!";
    }
    $call = pack("LlQ", 16, fileno($to), $token);
    ioctl($session, 0xBA40, $call) or die "$path: $!";
  }
}
open(my $ready, ">", "/tmp/ready"); close($ready);
sleep(1000);
"#;

/// Prints a file out of the session that process PID has open: `PID SESSION TOKEN`
/// (pidfd_open(2), pidfd_getfd(2)).
pub(crate) const PEEK: &str = r#"
my ($pid, $name, $token) = @ARGV;
my ($fd) = grep { readlink("/proc/$pid/fd/$_") eq "anon_inode:[luo_session] $name" } 0..20;
defined $fd or die "no session in $pid";
my $process = syscall(434, $pid + 0, 0);
my $copy = syscall(438, $process, $fd + 0, 0);
open(my $session, "+<&=", $copy) or die "session: $!";
my $call = pack("LlQ", 16, 0, $token);
ioctl($session, 0xBA41, $call) or die "file: $!";
open(my $file, "<&=", (unpack("Ll", $call))[1]) or die "file: $!";
sysseek($file, 0, 0);
while (sysread($file, my $piece, 65536)) { syswrite(STDOUT, $piece) }
"#;

/// An agent that has taken the session `agent`, and no longer has the device open.
const AGENT: &str = r#"
open(my $device, "+<", "/dev/liveupdate") or die "device: $!";
my $call = pack("Lla64", 72, 0, "agent");
ioctl($device, 0xBA01, $call) or die "session: $!";
close($device);
open(my $ready, ">", "/tmp/taken"); close($ready);
sleep(1000);
"#;

/// What happens in the next kernel.
const RETRIEVE: &str = r#"
mkdir /mnt /small
mount -t tmpfs tmpfs /mnt
mount -t tmpfs -o size=256k tmpfs /small
# Who has the session of rkexec open.
holders() {
  local process
  for process in /proc/[0-9]*; do
    if ls -l "$process/fd" 2>/dev/null | grep -q 'luo_session\] rkexec$'; then
      echo "${process#/proc/}"
    fi
  done
}

sleep 1000 <>/dev/liveupdate &
until ls -l /proc/$!/fd | grep -q liveupdate; do sleep 0.1; done
refused busy rkexec retrieve /mnt/busy
kill $!
wait $! || true

# Killed in the middle of a file (SIGXFSZ), then no room for the files: they stay in the
# session.
refused killed sh -c 'ulimit -f 100; exec rkexec retrieve /mnt/killed'
ls -A /mnt/killed | record killed-names
holders | record killed-holder
refused full rkexec retrieve /small/dir
ls -A /small/dir | record full-names
holders | record full-holder
try whole rkexec retrieve /mnt/whole --output json
holders | record whole-holder
(cd /mnt/whole && sha256sum -- * .[a-z]*) | record whole-digests
du -k /mnt/whole/sparse | record sparse
stat -c %a /mnt/whole/large | record mode
refused again rkexec retrieve /mnt/again

refused damaged rkexec retrieve /mnt/damaged --session damaged --output json
holder=$(sed -n 's/.*"held_by": \([0-9]*\).*/\1/p' /tmp/out)
ls /mnt/damaged | record damaged-names
refused hostile rkexec retrieve /mnt/hostile --session hostile
ls -A /mnt/hostile | record hostile-names
ls / /mnt | grep -c evil | record evil
refused peek perl /peek "$holder" damaged 2
try token rkexec retrieve /mnt/token --session damaged --token 2
sha256sum /mnt/token/2 | record token-digest
refused finished rkexec retrieve /mnt/finished --session damaged --token 1

try kept rkexec retrieve /mnt/kept --session 'first vm' --token 5 --keep --output json
try vm rkexec retrieve /mnt/vm --session 'first vm' --token 5 --token 18446744073709551615 -q
(cd /mnt/vm && sha256sum *) | record vm-digests
refused missing rkexec retrieve /mnt/missing --session other --token 9
refused no-manifest rkexec retrieve /mnt/no-manifest --session other

perl /agent &
until [ -e /tmp/taken ]; do sleep 0.1; done
refused taken rkexec retrieve /mnt/taken --session agent
"#;

/// A manifest as the documentation has it, of these files.
fn manifest(files: &[(&str, &[u8])]) -> Vec<u8> {
    let files = files.iter().map(
        |(name, content)| json!({ "name": name, "size": content.len(), "sha256": sha256(content) }),
    );
    let manifest = json!({ "manifest": 1, "files": files.collect::<Vec<_>>() });
    manifest.to_string().into_bytes()
}

/// The sessions and their files.
struct Carried {
    large: Vec<u8>,
    sparse: Vec<u8>,
    small: Vec<u8>,
}

impl Carried {
    fn new() -> Self {
        let mut sparse = vec![0; 4 << 20];
        sparse[0] = 1;
        sparse[(2 << 20) - 3..(2 << 20) + 3].fill(2);
        Self {
            large: noise("retrieve-large", 777_777),
            sparse,
            small: noise("retrieve-small", 5000),
        }
    }

    /// The first kernel's guest, with a script that hands everything over and then runs
    /// `then`.
    fn guest(&self, name: &str, kernel: &Kernel, then: &str) -> Result<Guest> {
        let (large, sparse, small) = (&*self.large, &*self.sparse, &*self.small);
        let whole = manifest(&[
            ("large", large),
            ("empty", b""),
            ("sparse", sparse),
            (".small file", small),
        ]);
        let damaged = manifest(&[("good", small), ("wrong", b"what it was")]);
        let hostile = manifest(&[("fine", small), ("../evil", small)]);
        let script = format!(
            "perl /carry rkexec 0 /c/whole 1 /c/large 2 /c/empty 3 /c/sparse 4 /c/small \
               -- damaged 0 /c/damaged 1 /c/small 2 /c/large \
               -- hostile 0 /c/hostile 1 /c/small 2 /c/small \
               -- 'first vm' 5 /c/small 18446744073709551615 /c/large \
               -- other 0 /c/small -- agent 1 /c/small &
             until [ -e /tmp/ready ]; do sleep 0.1; done
             {then}"
        );
        Ok(Guest::new(name, kernel)
            .append(WORDS)
            .program("/usr/bin/perl")?
            .file("carry", CARRY.as_bytes())
            .file("c/whole", &whole)
            .file("c/damaged", &damaged)
            .file("c/hostile", &hostile)
            .file("c/large", large)
            .file("c/empty", b"")
            .file("c/sparse", sparse)
            .file("c/small", small)
            .script(&script))
    }
}

/// `rkexec retrieve` failed, and said this.
fn fails(stage: Stage<'_>, name: &str, expected: &[&str]) -> Result<()> {
    let said = stage.text(&format!("{name}.err"))?;
    ensure!(
        stage.text(&format!("{name}.status"))? == "1",
        "{name}: {said}"
    );
    for part in expected {
        ensure!(said.contains(part), "{name}: {said}");
    }
    Ok(())
}

/// The digests that sha256sum printed, by the name of the file.
pub(crate) fn digests(stage: Stage<'_>, name: &str) -> Result<Vec<(String, String)>> {
    let lines = stage.text(name)?.lines();
    let pairs = lines.map(|line| {
        let (digest, file) = line.split_once("  ").context(line.to_owned())?;
        Ok((file.to_owned(), digest.to_owned()))
    });
    let mut pairs = pairs.collect::<Result<Vec<_>>>()?;
    pairs.sort();
    Ok(pairs)
}

/// Files of each kind arrive under their names; whatever goes wrong, nothing is lost.
#[test]
fn files_that_were_handed_over_are_written_back() -> Result<()> {
    let kernel = Kernel::new("kho")?;
    let carried = Carried::new();
    let line = format!("{} {WORDS}", trip::chain_cmdline("2"));
    let load = trip::load_script(&trip::request("/next/initrd", &line, ""));
    let mut overlay = Archive::new();
    overlay.program(std::path::Path::new("/usr/bin/perl"), "/usr/bin/perl")?;
    overlay.file("peek", 0o644, PEEK.as_bytes());
    overlay.file("agent", 0o644, AGENT.as_bytes());
    overlay.file("test/stage-2", 0o644, RETRIEVE.as_bytes());
    let outcome = carried
        .guest("retrieve", &kernel, &format!("{load}\nrkexec exec"))?
        .file("next/vmlinuz", &host_file(&kernel.image())?)
        .file("next/initrd", &initramfs::initrd(&kernel, overlay)?)
        .run()?;
    let stage = outcome.stage(2)?;
    whole(stage, &carried)?;
    damaged(stage, &carried)?;
    others(stage, &carried)
}

/// The session of rkexec, at first without room for it.
fn whole(stage: Stage<'_>, carried: &Carried) -> Result<()> {
    fails(
        stage,
        "busy",
        &[
            "another program has /dev/liveupdate open",
            "(EBUSY)",
            "hint: `fuser",
        ],
    )?;
    assert_eq!(
        stage.text("killed.status")?,
        "153",
        "{}",
        stage.text("killed.err")?
    );
    assert_eq!(stage.text("killed-names")?, ".partial-0");
    let holder = stage.text("full-holder")?;
    assert_eq!(stage.text("killed-holder")?, holder);
    ensure!(!holder.is_empty() && !holder.contains('\n'), "{holder}");
    let kept = format!("hint: nothing is lost: process {holder} keeps the session open");
    fails(
        stage,
        "full",
        &["writing /small/dir/large: No space left on device", &kept],
    )?;
    assert_eq!(stage.text("full-names")?, "");

    assert_eq!(
        stage.text("whole.status")?,
        "0",
        "{}",
        stage.text("whole.err")?
    );
    assert_eq!(stage.text("whole-holder")?, "");
    let file = |name: &str, token: u64, content: &[u8]| json!({ "name": name, "token": token, "size": content.len(), "verified": true, "fault": null });
    let printed: Value = serde_json::from_str(stage.text("whole.out")?)?;
    assert_eq!(
        printed,
        json!({
            "schema": 1, "session": "rkexec", "finished": true, "held_by": null,
            "files": [
                file("large", 1, &carried.large),
                file("empty", 2, b""),
                file("sparse", 3, &carried.sparse),
                file(".small file", 4, &carried.small),
            ],
        })
    );
    let expected = [
        (".small file", &*carried.small),
        ("empty", b""),
        ("large", &carried.large),
        ("sparse", &carried.sparse),
    ];
    let expected = expected.map(|(name, content)| (name.to_owned(), sha256(content)));
    assert_eq!(digests(stage, "whole-digests")?, expected);
    let sparse = stage.text("sparse")?.split_whitespace().next();
    assert_eq!(sparse, Some("12"), "KiB of a file with three pages of data");
    assert_eq!(stage.text("mode")?, "600");
    fails(stage, "again", &["there is no session rkexec", "(ENOENT)"])
}

/// A session with a file that is not what its manifest says, and one whose manifest leads
/// out of the directory.
fn damaged(stage: Stage<'_>, carried: &Carried) -> Result<()> {
    let bytes = format!(
        "it has {} bytes, and 11 were handed over",
        carried.large.len()
    );
    let fault = format!("1 of 2 files did not arrive: wrong (token 2): {bytes}");
    fails(
        stage,
        "damaged",
        &[&fault, "hint: nothing is lost: process "],
    )?;
    let printed: Value = serde_json::from_str(stage.text("damaged.out")?)?;
    assert_eq!(printed["finished"], false);
    assert_eq!(printed["files"][0]["verified"], true);
    assert_eq!(printed["files"][1]["verified"], false);
    assert_eq!(printed["files"][1]["fault"], bytes);
    assert_eq!(stage.text("damaged-names")?, "good");
    // Another program finds the file where it was.
    assert_eq!(
        stage.text("peek.status")?,
        "0",
        "{}",
        stage.text("peek.err")?
    );
    ensure!(
        stage.bytes("peek.out")? == carried.large,
        "another program got another file"
    );
    assert_eq!(
        stage.text("token.status")?,
        "0",
        "{}",
        stage.text("token.err")?
    );
    assert_eq!(stage.digest("token-digest")?, sha256(&carried.large));
    fails(stage, "finished", &["there is no session damaged"])?;

    fails(
        stage,
        "hostile",
        &["the file with token 0: `../evil` is no name of a file"],
    )?;
    assert_eq!(stage.text("hostile-names")?, "");
    assert_eq!(stage.text("evil")?, "0");
    Ok(())
}

/// Sessions of other programs.
fn others(stage: Stage<'_>, carried: &Carried) -> Result<()> {
    let kept: Value = serde_json::from_str(stage.text("kept.out")?)?;
    assert_eq!(kept["finished"], false);
    ensure!(kept["held_by"].is_number(), "{kept}");
    assert_eq!(kept["files"][0]["verified"], false);
    assert_eq!(stage.text("vm.status")?, "0", "{}", stage.text("vm.err")?);
    let expected = [
        ("18446744073709551615", &carried.large),
        ("5", &carried.small),
    ];
    let expected = expected.map(|(name, content)| (name.to_owned(), sha256(content)));
    assert_eq!(digests(stage, "vm-digests")?, expected);
    fails(
        stage,
        "missing",
        &["9 (token 9): the session has no file with this token (ENOENT)"],
    )?;
    fails(
        stage,
        "no-manifest",
        &["the file with token 0: it is no manifest of rkexec"],
    )?;
    fails(
        stage,
        "taken",
        &[
            "another program has taken the session agent: perl (",
            "(EINVAL)",
        ],
    )
}
