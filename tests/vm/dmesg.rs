//! The log of a kernel that panicked: what `rkexec vmcore-dmesg` prints in the
//! capture kernel is what makedumpfile extracts there.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, Outcome, line};

/// The capture kernel's command line.
const CMDLINE: &str = line!("quiet nr_cpus=1 reset_devices rkexec.stage=2");

/// Arms the crash kernel by `loader`: a system call of rkexec's, or kexec-tools.
fn load(loader: &str) -> String {
    let (initrd, cmdline) = ("--initrd=/next/initrd", CMDLINE);
    if loader == "kexec-tools" {
        return format!("try load kexec -c -p /next/vmlinuz {initrd} --command-line='{cmdline}'\n");
    }
    format!(
        "try load rkexec load --panic /next/vmlinuz {initrd} --cmdline '{cmdline}' --syscall {loader}\n"
    )
}

/// Records of several lines, of white space, and of bytes that are no text. The
/// shell writes line by line, cat(1) all at once.
const ODD: &str = r"exec 8>/dev/kmsg
    printf 'odd: one\n  two\n\nthree' >/tmp/odd && cat /tmp/odd >&8
    printf 'odd: \t|\033[1m|\001|\177|\\x41|\303\274|\377' >&8
    printf 'odd:' >&8
";

/// The capture kernel: both read /proc/vmcore, and what makedumpfile makes of it
/// is read as well.
const CAPTURE: &str = "try text rkexec vmcore-dmesg /proc/vmcore
    try json rkexec vmcore-dmesg /proc/vmcore --output json
    try makedumpfile makedumpfile --dump-dmesg /proc/vmcore /tmp/dmesg
    record extracted </tmp/dmesg
    rkexec vmcore-dmesg /proc/vmcore | head -n 1 | record first
    ";

/// Runs `script` in `guest`, which panics, and compares what the capture kernel
/// finds, which then runs `after`.
fn log_of(guest: Guest, kernel: &Kernel, script: &str, after: &str) -> Result<Outcome> {
    let mut capture = Archive::new();
    let capture_script = format!("{CAPTURE}{after}");
    capture.file("test/stage-2", 0o644, capture_script.as_bytes());
    capture.program(Path::new("/usr/bin/makedumpfile"), "bin/makedumpfile")?;
    let outcome = guest
        .program("/sbin/kexec")?
        .append("printk.devkmsg=on")
        .file("next/vmlinuz", &std::fs::read(kernel.image())?)
        .file("next/initrd", &initramfs::initrd(kernel, capture)?)
        .script(script)
        .timeout(Duration::from_secs(600))
        .run()?;

    let stage = outcome.stage(2)?;
    let ours = stage.bytes("text.out")?;
    let theirs = as_unsigned(stage.bytes("extracted")?);
    let (ours, theirs) = (lines(ours)?, lines(&theirs)?);
    for (ours, theirs) in ours.iter().zip(&theirs) {
        ensure!(ours == theirs, "{ours:?}, and makedumpfile: {theirs:?}");
    }
    ensure!(
        ours.len() == theirs.len(),
        "{} lines, and makedumpfile: {}",
        ours.len(),
        theirs.len()
    );
    ensure!(
        stage.text("text.err")?.is_empty(),
        "{}",
        stage.text("text.err")?
    );
    for panic in [
        "sysrq: Trigger a crash",
        "Kernel panic - not syncing: sysrq triggered crash",
    ] {
        ensure!(ours.iter().any(|line| line.ends_with(panic)), "no {panic}");
    }
    ensure!(stage.text("first")? == ours.first().context("no lines")?.trim());

    let json: Value = serde_json::from_str(stage.text("json.out")?)?;
    ensure!(
        json["schema"] == 1 && json["release"] == kernel.release,
        "{}",
        json["release"]
    );
    let records = json["lines"].as_array().context("lines")?;
    let texts = records.iter().filter_map(|record| record["text"].as_str());
    let of_json: usize = texts.clone().map(|text| text.split('\n').count()).sum();
    ensure!(
        of_json == ours.len(),
        "{of_json} lines in JSON, {} as text",
        ours.len()
    );
    let seqs = records.iter().map(|record| record["seq"].as_u64());
    ensure!(seqs.is_sorted() && texts.clone().any(|text| text == "odd: one\n  two\n\nthree"));
    ensure!(
        texts
            .clone()
            .any(|text| text == "odd: \t|\u{1b}[1m|\u{1}|\u{7f}|\\x41|ü|\\xff")
    );
    Ok(outcome)
}

/// makedumpfile 1.7.2 takes a byte for a signed number: `\xffffffc3` is `\xc3`.
fn as_unsigned(text: &[u8]) -> Vec<u8> {
    const SIGN: &[u8] = b"\\xffffff";
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(SIGN) {
            out.extend(b"\\x");
            rest = behind;
        } else {
            out.push(*byte);
            rest = behind;
        }
    }
    out
}

fn lines(log: &[u8]) -> Result<Vec<&str>> {
    let log = std::str::from_utf8(log)?;
    let log = log.strip_suffix('\n').context("no newline at the end")?;
    // White space may end a line here, but a carriage return is no end.
    Ok(log.split('\n').collect())
}

/// The ring that is built in has wrapped, and its IDs have overflowed, when the
/// second CPU panics. The kernel decides what the log is like, and the call who writes
/// the dump's header: each is tried once.
fn wrapped(series: &str, syscall: &str) -> Result<()> {
    let kernel = Kernel::new(series)?;
    let fill =
        "i=0; while [ $i -lt 9000 ]; do echo \"filler $i $((i * i))\" >&8; i=$((i + 1)); done";
    let panic = "sent; taskset 2 sh -c 'echo c >/proc/sysrq-trigger'";
    let script = format!("{}{ODD}{fill}\n{ODD}{panic}\n", load(syscall));
    let guest = Guest::new(&format!("dmesg-{series}-{syscall}"), &kernel)
        .cpus(2)
        .append("crashkernel=256M");
    let outcome = log_of(guest, &kernel, &script, "")?;
    let log = outcome.stage(2)?.text("text.out")?;
    ensure!(!log.contains("Linux version"), "the ring did not wrap");
    ensure!(log.contains("filler 8999 "));
    ensure!(log.contains("CPU: 1 "), "another CPU panicked");
    Ok(())
}

#[test]
fn the_log_of_6_1_by_kexec_file_load() -> Result<()> {
    wrapped("6.1", "kexec_file_load")
}

#[test]
fn the_log_of_6_12_by_kexec_load() -> Result<()> {
    wrapped("6.12", "kexec_load")
}

/// A ring of its own size lies in the direct mapping; an independent loader; and
/// the dumps that makedumpfile saves.
#[test]
fn a_larger_log_and_saved_dumps() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let saved = "
    try save makedumpfile -E -d 31 /proc/vmcore /tmp/elf
    try saved rkexec vmcore-dmesg /tmp/elf
    ls -l /tmp/elf | record size
    rm /tmp/elf
    try compress makedumpfile -l -d 31 /proc/vmcore /tmp/kdump
    refused compressed rkexec vmcore-dmesg /tmp/kdump
    try hint makedumpfile --dump-dmesg /tmp/kdump /tmp/hint
    record hinted </tmp/hint
    rm /tmp/kdump
    makedumpfile -F -l -d 31 /proc/vmcore 2>/tmp/err | head -c 8192 >/tmp/flat
    refused flattened rkexec vmcore-dmesg /tmp/flat
    ";
    // The dumps need room.
    let guest = Guest::new("dmesg-saved", &kernel)
        .memory("2G")
        .append("crashkernel=512M log_buf_len=1M");
    let script = format!(
        "{}{ODD}sent; echo c >/proc/sysrq-trigger\n",
        load("kexec-tools")
    );
    let outcome = log_of(guest, &kernel, &script, saved)?;
    let stage = outcome.stage(2)?;
    let log = stage.bytes("text.out")?;
    ensure!(stage.text("text.out")?.contains("Linux version"));
    ensure!(
        stage.bytes("saved.out")? == log,
        "the saved ELF dump has another log"
    );
    ensure!(
        as_unsigned(stage.bytes("hinted")?) == log,
        "the hint misleads"
    );
    for (name, what) in [
        ("compressed", "kdump-compressed"),
        ("flattened", "flattened"),
    ] {
        ensure!(stage.text(&format!("{name}.status"))? == "1");
        ensure!(stage.text(&format!("{name}.err"))?.contains(what));
    }
    Ok(())
}

/// QEMU knows physical addresses only: the ring is found by the guest's own page
/// tables, and no kernel has panicked.
#[test]
fn a_dump_by_qemu() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dump = dir.path().join("dump");
    let mut log = Vec::new();
    let guest = Guest::new("dmesg-qemu", &Kernel::new("6.12")?)
        .memory("512M")
        .append("log_buf_len=1M")
        .args(["-device", "vmcoreinfo"])
        .script("modules qemu_fw_cfg; dmesg | record log; from_host");
    guest.conduct(|guest| {
        log = guest.wait_for(1, "log")?;
        guest.dump_memory(&dump)?;
        guest.quit()
    })?;
    let mut rkexec = Command::new(lab::rkexec()?);
    let found = lab::output(rkexec.arg("vmcore-dmesg").arg(&dump))?;
    ensure!(found == log, "{}", String::from_utf8_lossy(&found));
    Ok(())
}
