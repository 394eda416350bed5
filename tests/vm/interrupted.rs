//! Loads that do not come to their end, or whose files, directories and clocks do not
//! stand still: what rkexec says is loaded is what is loaded.

use anyhow::{Result, ensure};

use crate::common::bzimage::{TinyBzImage, field};
use crate::lab::{self, Kernel};
use crate::qemu::Guest;
use crate::trip::{self, Trip, compiled, host_file};
use crate::witness::Stage;

/// A kernel that takes few pages, so that few allocations are made for it.
pub(crate) fn tiny() -> Vec<u8> {
    let kernel = TinyBzImage::new(0x4000);
    kernel.u32(field::INIT_SIZE, 0x8000).build()
}

/// What a shell knows of what is loaded: `known TARGET` prints whether an image is
/// loaded, the exit code of `status --check`, and the command line in the record.
pub(crate) const KNOWN: &str = r#"
known() {
  local file=kexec_crash_loaded code=0
  if [ $1 = normal ]; then file=kexec_loaded; fi
  rkexec status --check --output json >/tmp/status 2>/dev/null || code=$?
  line=$(sed -n "/\"$1_record\": {/,/}/s/.*\"cmdline\": \"\([a-z]*\).*/\1/p" /tmp/status)
  echo "$(cat /sys/kernel/$file) $code ${line:-none}"
}
"#;

/// Kills `load --panic` at its system calls, from the lock on: at each one from shortly
/// before the call to the kernel to the end, and at every tenth before. One line each:
/// its number, what came of it, whether the call to the kernel succeeded, what is known
/// then, and which image is loaded in truth. The image of before is `old`, by then
/// loaded again if it was replaced.
const KILLS: &str = r#"
load='rkexec load --panic /next/vmlinuz --initrd /next/initrd'
mkdir -p /run
$load --cmdline old
step kill 0 $load --cmdline old
read what calls call </tmp/step
echo $call | record call
n=1 what=killed
: >/tmp/kills
while [ $what = killed ]; do
  case $(known crash) in
    "1 0 old") ;;
    *) $load --cmdline old ;;
  esac
  step kill $n $load --cmdline new >/dev/null 2>&1 || true
  read what calls rest </tmp/step
  case "$calls $(cat /sys/kernel/kexec_crash_loaded)" in
    *" 0") truth=none ;;
    "0 1") truth=old ;;
    *) truth=new ;;
  esac
  echo "$n $what $calls $(known crash) $truth" >>/tmp/kills
  if [ $n -lt $((call - 20)) ]; then n=$((n + 10)); else n=$((n + 1)); fi
done
record kills </tmp/kills
"#;

#[test]
#[ignore = "it takes many minutes: tests/faults runs it"]
fn killed_at_every_step_the_record_never_lies() -> Result<()> {
    let outcome = Guest::new("killed", &Kernel::small()?)
        .append("crashkernel=64M")
        .executable("bin/step", &compiled("step")?)
        .file("next/vmlinuz", &tiny())
        .file("next/initrd", &[7; 5000])
        .timeout(std::time::Duration::from_secs(1200))
        .script(&format!("{KNOWN}{KILLS}"))
        .run()?;
    let lines: Vec<&str> = outcome.stage(1)?.text("kills")?.lines().collect();
    ensure!(lines.len() > 30, "{} steps", lines.len());
    let (mut before, mut between, mut behind) = (0, 0, 0);
    for line in &lines {
        let words: Vec<&str> = line.split(' ').collect();
        let &[_, what, calls, loaded, check, recorded, truth] = &*words else {
            anyhow::bail!("{line}");
        };
        let is_true = (recorded == "none" || recorded == truth)
            && (check != "0" || (loaded == "1" && recorded == truth))
            && (truth == "none") == (loaded == "0");
        ensure!(is_true, "{line}\n{}", lines.join("\n"));
        match (calls, recorded) {
            ("0", _) => before += 1,
            (_, "none") => between += 1,
            _ => behind += 1,
        }
        ensure!((what == "ended") == (Some(line) == lines.last()), "{line}");
    }
    eprintln!("killed: {before} steps before the call, {between} behind it, {behind} recorded");
    ensure!(before > 0 && between > 0 && behind > 0, "{lines:?}");
    Ok(())
}

/// What is done to a file when the kernel is called: name, script, and whether it may be
/// loaded all the same.
const CHANGES: [(&str, &str, bool); 6] = [
    ("kernel-grows", "echo x >>/tmp/kernel", false),
    ("initrd-grows", "echo x >>/tmp/initrd", false),
    ("kernel-is-cut", ": >/tmp/kernel", false),
    ("initrd-is-cut", "truncate -s 4096 /tmp/initrd", false),
    // What was opened is what the kernel reads. That its name is gone is a change.
    ("vanish", "rm /tmp/kernel /tmp/initrd", true),
    ("renamed-over", "mv /tmp/other /tmp/initrd", true),
];

#[test]
fn files_that_change_at_the_call_leave_nothing_false_loaded() -> Result<()> {
    let mut script = format!("{KNOWN}\nmkdir -p /run\n");
    for syscall in trip::SYSCALLS {
        for (name, change, _) in CHANGES {
            script += &format!(
                "cp /next/vmlinuz /tmp/kernel
                 cp /next/initrd /tmp/initrd
                 cp /next/initrd /tmp/other
                 rkexec load /next/vmlinuz --initrd /next/initrd --cmdline old
                 refused {name}-{syscall} step do '{change}' rkexec load /tmp/kernel \
                   --initrd /tmp/initrd --cmdline new --syscall {syscall}
                 record {name}-{syscall}.step </tmp/step
                 known normal | record {name}-{syscall}.known\n"
            );
        }
    }
    let outcome = Guest::new("changing-files", &Kernel::small()?)
        .executable("bin/step", &compiled("step")?)
        .file("next/vmlinuz", &tiny())
        .file("next/initrd", &[7; 9000])
        .script(&script)
        .run()?;
    let stage = outcome.stage(1)?;
    for syscall in trip::SYSCALLS {
        for (name, _, may_load) in CHANGES {
            changed(stage, &format!("{name}-{syscall}"), may_load)?;
        }
    }
    Ok(())
}

/// Holds what was said of the change `name` to what is loaded.
fn changed(stage: Stage<'_>, name: &str, may_load: bool) -> Result<()> {
    let text = |record: &str| stage.text(&format!("{name}.{record}"));
    let (status, message, known) = (text("status")?, text("err")?, text("known")?);
    ensure!(text("step")? == "done", "{name}: no call was made");
    // Whether there is an image, and whose record there is.
    let known = match known.split(' ').collect::<Vec<_>>()[..] {
        [loaded, _, recorded] => (loaded.to_owned(), recorded.to_owned()),
        _ => anyhow::bail!("{name}: {known}"),
    };
    let is = |loaded: &str, recorded: &str| known == (loaded.to_owned(), recorded.to_owned());
    match status {
        "0" => ensure!(may_load && is("1", "new"), "{name}: {known:?}"),
        "1" => {
            let unloaded = message.contains("nothing is loaded now");
            let stays = is("1", "old") && !unloaded;
            ensure!(
                stays || (is("0", "none") && unloaded),
                "{name}: {known:?}: {message}"
            );
            let says = [
                "became empty",
                "was changed",
                "became shorter",
                "cut short",
                "open for writing",
            ];
            ensure!(
                says.iter().any(|words| message.contains(words)),
                "{name}: {message}"
            );
        }
        other => anyhow::bail!("{name}: exit code {other}: {message}"),
    }
    Ok(())
}

/// A full /run holds no record, and a clock that jumps changes none. The record of `new`
/// is longer than a page, which is what the old one leaves.
#[test]
fn a_full_run_and_a_clock_that_jumps() -> Result<()> {
    let kernel = Kernel::small()?;
    let line = trip::chain_cmdline("2");
    let trip = Trip::to(&kernel).after("date -s 1980-01-01; refused report rkexec report");
    let script = format!(
        "{KNOWN}
         load='rkexec load --panic /next/tiny --initrd /next/initrd'
         mkdir -p /run
         mount -t tmpfs -o size=32k tmpfs /run
         $load --cmdline old
         known crash | record first
         cat /dev/zero >/run/zero 2>/dev/null || true
         long=$(head -c 1800 /dev/zero | tr '\\000' x)
         try full $load --cmdline \"new$long\"
         known crash | record full
         rm /run/zero
         try again $load --cmdline again
         known crash | record again
         date -s 1980-01-01
         known crash | record past
         date -s 2100-01-01
         known crash | record future
         try status rkexec status
         . /test/load
         date -s 1990-01-01
         try exec rkexec exec\n"
    );
    let guest = Guest::new("full-run", &kernel)
        .append("crashkernel=64M")
        .file("next/tiny", &tiny())
        .script(&script);
    let outcome = trip
        .prepare(guest, &trip.initrd()?)?
        .script(&script)
        .run()?;
    let (before, after) = (outcome.stage(1)?, outcome.stage(2)?);
    assert_eq!(before.text("first")?, "1 0 old");
    // It is loaded, and nobody says that it is the old one, nor that it fits.
    assert_eq!(before.text("full")?, "1 3 none");
    let said = before.text("full.err")?;
    ensure!(
        said.contains("what was loaded is not recorded: writing /run/rkexec/crash.json"),
        "{said}"
    );
    for name in ["again", "past", "future"] {
        assert_eq!(before.text(name)?, "1 0 again", "{name}");
    }
    assert_eq!(after.text("cmdline")?, line);
    assert_eq!(
        after.text("report.status")?,
        "0",
        "{}",
        after.text("report.err")?
    );
    Ok(())
}

/// Sector of the disk that cannot be read: in the middle of the kernel, which is the first
/// file of a file system whose inodes take less than 1 MiB.
const SECTOR: u64 = 2 << 20 >> 9;

/// A disk with a read error: the message says so, and what was loaded before stays.
#[test]
fn a_disk_that_fails_ends_the_load_with_a_message() -> Result<()> {
    let (kernel, next) = (Kernel::new("6.12")?, Kernel::small()?);
    let disk = tempfile::NamedTempFile::new()?;
    disk.as_file().set_len(32 << 20)?;
    lab::output(
        std::process::Command::new("/sbin/mkfs.minix")
            .arg("-3")
            .arg(disk.path()),
    )?;
    let error = "file.inject-error.0";
    let drive = format!(
        "if=none,id=disk,driver=raw,file.driver=blkdebug,file.image.filename={},{error}.event=read_aio,\
         {error}.iotype=read,{error}.sector={SECTOR},{error}.errno=5",
        disk.path().display()
    );
    let mut script = format!(
        "{KNOWN}
         modules virtio_pci virtio_blk minix
         mkdir -p /run /slow
         mount -t minix /dev/vda /slow
         cat /next/vmlinuz /next/vmlinuz /next/vmlinuz >/slow/large
         umount /slow
         mount -t minix -o ro /dev/vda /slow
         refused premise cat /slow/large
         rkexec load /next/vmlinuz --initrd /next/initrd --cmdline old\n"
    );
    for syscall in trip::SYSCALLS {
        for (name, files) in [
            ("kernel", "/slow/large --initrd /next/initrd"),
            ("initrd", "/next/vmlinuz --initrd /slow/large"),
        ] {
            script += &format!(
                "echo 3 >/proc/sys/vm/drop_caches
                 refused {name}-{syscall} rkexec load {files} --cmdline new --syscall {syscall}
                 known normal | record {name}-{syscall}.known\n"
            );
        }
    }
    let outcome = Guest::new("failing-disk", &kernel)
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
        .file("next/vmlinuz", &host_file(&next.image())?)
        .file("next/initrd", &[7; 9000])
        .script(&script)
        .run()?;
    let stage = outcome.stage(1)?;
    let premise = stage.text("premise.err")?;
    ensure!(
        premise.contains("Input/output error"),
        "the disk has no error: {premise}"
    );
    for syscall in trip::SYSCALLS {
        for name in ["kernel", "initrd"] {
            let name = format!("{name}-{syscall}");
            let text = |record: &str| stage.text(&format!("{name}.{record}"));
            let message = text("err")?;
            assert_eq!(text("status")?, "1", "{name}: {message}");
            ensure!(message.contains("read error"), "{name}: {message}");
            ensure!(message.contains("hint: "), "{name}: {message}");
            assert_eq!(text("known")?, "1 3 old", "{name}");
        }
    }
    Ok(())
}
