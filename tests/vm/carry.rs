//! `rkexec load --carry` on kernels that know nothing of Kexec Handover: the next kernel's
//! own /dev/liveupdate gives the files back, to `rkexec retrieve` and to programs that know
//! nothing of rkexec. `tests/handover N` makes N trips from each kernel.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, Outcome};
use crate::retrieve::{PEEK, digests};
use crate::trip::{self, Plan, host_file, noise, sha256};
use crate::witness::{Row, hex};

/// Takes the files out with rkexec, which keeps the session open, and then with a program
/// that looks into its open files.
const TAKE_OUT: &str = r#"
mkdir /mnt
mount -t tmpfs -o size=700m tmpfs /mnt
try taken rkexec retrieve /mnt/back --keep --output json
(cd /mnt/back && sha256sum *) | record back
holder=$(sed -n 's/.*"held_by": \([0-9]*\).*/\1/p' /tmp/out)
rm -r /mnt/back
for token in $(seq 1 "$FILES"); do
  perl /peek "$holder" rkexec "$token" | sha256sum | sed "s/-/$token/"
done | record peeked
try finished rkexec retrieve /mnt/finished -q
"#;

/// Prints a file out of a session: `SESSION TOKEN` (include/uapi/linux/liveupdate.h).
const TAKE: &str = r#"
my ($name, $token) = @ARGV;
open(my $device, "+<", "/dev/liveupdate") or die "device: $!";
my $call = pack("Lla64", 72, 0, $name);
ioctl($device, 0xBA01, $call) or die "session: $!";
open(my $session, "+<&=", (unpack("Ll", $call))[1]) or die "session: $!";
$call = pack("LlQ", 16, 0, $token);
ioctl($session, 0xBA41, $call) or die "file: $!";
open(my $file, "<&=", (unpack("Ll", $call))[1]) or die "file: $!";
while (sysread($file, my $piece, 65536)) { syswrite(STDOUT, $piece) }
"#;

/// A load from one kernel into the kernel with Kexec Handover.
struct Carry<'s> {
    name: &'s str,
    first: &'s str,
    options: &'s str,
    memory: &'s str,
    /// Makes the files in /carry, in the first kernel.
    make: &'s str,
    files: usize,
}

impl Carry<'_> {
    fn run(&self, more: impl FnOnce(Guest) -> Guest) -> Result<Outcome> {
        let next = Kernel::new("kho")?;
        let mut overlay = Archive::new();
        overlay.program(std::path::Path::new("/usr/bin/perl"), "/usr/bin/perl")?;
        overlay.file("peek", 0o644, PEEK.as_bytes());
        let take_out = format!("FILES={}\n{TAKE_OUT}", self.files);
        overlay.file("test/stage-2", 0o644, take_out.as_bytes());
        let outcome = more(self.guest(&next, overlay)?).run()?;
        self.check(&outcome, &next)?;
        Ok(outcome)
    }

    /// The guest, with `overlay` in the next kernel's initrd.
    fn guest(&self, next: &Kernel, overlay: Archive) -> Result<Guest> {
        let line = trip::chain_cmdline("2");
        let request = trip::request("/next/initrd", &line, self.options);
        let load = format!(
            "rkexec load {request} --output json \
             $(for number in $(seq 1 {}); do echo --carry /carry/$number; done)",
            self.files
        );
        let script = format!(
            "mkdir -p /carry
             {}
             (cd /carry && sha256sum *) | record made
             try load {load}
             rkexec exec",
            self.make
        );
        Ok(Guest::new(self.name, &Kernel::new(self.first)?)
            .memory(self.memory)
            .file("next/vmlinuz", &host_file(&next.image())?)
            .file("next/initrd", &initramfs::initrd(next, overlay)?)
            .script(&script))
    }

    fn check(&self, outcome: &Outcome, next: &Kernel) -> Result<()> {
        let (before, after) = (outcome.stage(1)?, outcome.stage(2)?);
        assert_eq!(after.text("release")?, next.release);
        let log = after.text("dmesg")?;
        for said in [
            "KHO: found kexec handover data",
            "luo: Retrieved live update data",
        ] {
            ensure!(log.contains(said), "{said}: {log}");
        }
        for name in ["taken", "finished"] {
            let said = after.text(&format!("{name}.err"))?;
            assert_eq!(after.text(&format!("{name}.status"))?, "0", "{said}");
        }
        let made = digests(before, "made")?;
        assert_eq!(made.len(), self.files);
        assert_eq!(digests(after, "back")?, made, "by rkexec retrieve");
        assert_eq!(digests(after, "peeked")?, made, "by another program");
        let taken: Value = serde_json::from_str(after.text("taken.out")?)?;
        let files = taken["files"].as_array().context("files")?;
        ensure!(files.iter().all(|file| file["verified"] == true), "{taken}");

        let plan = Plan::of(before)?;
        assert_eq!(plan.json["kho"]["way"], "built");
        assert_eq!(plan.json["kho"]["version"], "kho-v4");
        let said = plan.json["warnings"].to_string();
        ensure!(said.contains("kho=on liveupdate=on were added"), "{said}");
        plan.kept(after)?;
        plan.runs_where_it_was_put(after)?;
        let code = after.iomem()?;
        let code = code.iter().find(|row| row.kind == "Kernel code");
        let code = code.context("no Kernel code in iomem")?.start;
        let scratch = scratch(&plan.json)?;
        ensure!(
            scratch
                .iter()
                .any(|row| row.start <= code && code < row.end),
            "the kernel runs at {code:#x}, outside the scratch memory"
        );
        Ok(())
    }
}

fn scratch(plan: &Value) -> Result<Vec<Row>> {
    let regions = plan["kho"]["scratch"].as_array().context("scratch")?;
    let row = |region: &Value| {
        let start = hex(region["start"].as_str().context("start")?)?;
        let size = region["size"].as_u64().context("size")?;
        Ok(Row {
            start,
            end: start + size,
            kind: String::new(),
        })
    };
    regions.iter().map(row).collect()
}

/// `megabytes` in one file from the kernel `first`. With `without`, rkexec does not run in the
/// next kernel, and the file is taken out by [`TAKE`] alone.
fn one_file(first: &str, megabytes: u32, direct: &str, without: bool) -> Result<()> {
    let make = format!("dd if=/dev/urandom of=/carry/1 bs=1M count={megabytes} 2>/dev/null");
    let carry = Carry {
        name: &format!("carry-{first}"),
        first,
        options: &format!("--direct {direct}"),
        memory: if megabytes > 100 { "2G" } else { "1G" },
        make: &make,
        files: 1,
    };
    if !without {
        return carry.run(|guest| guest).map(drop);
    }
    let mut overlay = Archive::new();
    overlay.program(std::path::Path::new("/usr/bin/perl"), "/usr/bin/perl")?;
    overlay.file("take", 0o644, TAKE.as_bytes());
    overlay.file(
        "test/stage-2",
        0o644,
        b"perl /take rkexec 1 | sha256sum | sed 's/-/1/' | record taken",
    );
    let outcome = carry.guest(&Kernel::new("kho")?, overlay)?.run()?;
    let (before, after) = (outcome.stage(1)?, outcome.stage(2)?);
    assert_eq!(digests(after, "taken")?, digests(before, "made")?);
    Ok(())
}

/// With and without KASLR by the loader, and with either program in the next kernel.
#[test]
#[ignore = "it takes many minutes: tests/handover runs it"]
fn one_file_again_and_again() -> Result<()> {
    let trips = lab::asked("RKEXEC_HANDOVER")?.context("tests/handover says how often")?;
    for first in ["6.1", "6.12"] {
        for trip in 1..=trips {
            let direct = if trip % 4 < 2 { "on" } else { "off" };
            one_file(first, 64, direct, trip % 2 == 0)
                .with_context(|| format!("trip {trip} from {first}"))?;
            eprintln!("{trip} of {trips} trips of 64 MiB from {first}");
        }
    }
    one_file("6.12", 300, "on", false)?;
    eprintln!("300 MiB from 6.12");
    Ok(())
}

/// A large file, an empty one, one with holes, and one that ends inside a page, into a
/// kernel that unpacks itself and chooses its place.
#[test]
fn files_arrive_in_a_kernel_that_chooses_its_place() -> Result<()> {
    let carry = Carry {
        name: "carry",
        first: "6.12",
        options: "--direct off",
        memory: "1G",
        make: "dd if=/dev/urandom of=/carry/1 bs=1M count=64 2>/dev/null
               : >/carry/2
               dd if=/dev/urandom of=/carry/3 bs=4096 count=3 seek=700 2>/dev/null
               truncate -s 5M /carry/3
               cp /next/odd /carry/4",
        files: 4,
    };
    let odd = noise("carry", 777_777);
    let outcome = carry.run(|guest| guest.file("next/odd", &odd))?;
    let back = digests(outcome.stage(2)?, "back")?;
    assert_eq!(back[3], ("4".to_owned(), sha256(&odd)));
    Ok(())
}

/// More files than a block of the session has, into a kernel that the loader places.
#[test]
fn seventy_files_arrive_in_a_kernel_that_the_loader_places() -> Result<()> {
    let carry = Carry {
        name: "carry-seventy",
        first: "6.1",
        options: "--direct on",
        memory: "1G",
        make: "for number in $(seq 1 70); do
                 dd if=/dev/urandom of=/carry/$number bs=777 count=$number 2>/dev/null
               done",
        files: 70,
    };
    carry.run(|guest| guest).map(drop)
}
