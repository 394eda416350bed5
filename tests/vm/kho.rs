//! Kexec Handover (KHO) and the sessions of its Live Update Orchestrator (LUO): what a
//! kernel with them shows, and what must not be loaded there.

use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::formats::vmlinux;
use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::Guest;
use crate::trip::{self, host_file};
use crate::witness::Stage;

/// What switches everything on, with 80 MiB of scratch memory and a pool.
const WORDS: &str = "kho=on liveupdate=on kho_scratch=16M,64M,0 reserve_mem=4M:2M:pool";

/// Holds a session of LUO open in a process of its own (include/uapi/linux/liveupdate.h:
/// LIVEUPDATE_IOCTL_CREATE_SESSION takes size, fd and name).
const SESSION: &str = r#"
perl -e '
  open(my $device, "+<", "/dev/liveupdate") or die "open: $!";
  my $call = pack("Lla64", 72, 0, "first vm");
  ioctl($device, 0xBA00, $call) or die "ioctl: $!";
  open(my $ready, ">", "/tmp/ready"); close($ready);
  sleep(1000);
' &
until [ -e /tmp/ready ]; do sleep 0.1; done
"#;

fn kho(stage: Stage, name: &str) -> Result<Value> {
    let status: Value = serde_json::from_str(stage.text(name)?)?;
    Ok(status["kho"].clone())
}

/// Bytes of scratch memory that debugfs shows, by this test's own reading of it.
fn shown_scratch(stage: Stage) -> Result<u64> {
    let sizes = stage.text("scratch-len")?.lines();
    sizes
        .map(|line| Ok(u64::from_str_radix(line.trim_start_matches("0x"), 16)?))
        .sum()
}

/// Bytes that /proc/meminfo says of `key`.
fn meminfo(stage: Stage, key: &str) -> Result<u64> {
    let lines = stage.text("meminfo")?.lines();
    let mut words = lines.filter_map(|line| line.strip_prefix(key));
    let value = words.next().context(key.to_owned())?;
    let kilobytes: u64 = value.trim_matches([':', ' ', 'k', 'B']).parse()?;
    Ok(kilobytes << 10)
}

/// What `status` says in a kernel with KHO, with and without debugfs, and in the kernel
/// that takes its state over.
#[test]
fn status_shows_what_a_kernel_with_kho_hands_over() -> Result<()> {
    let kernel = Kernel::new("kho")?;
    let look = "
        try status rkexec status --output json
        try text rkexec status -v
        record scratch-len </sys/kernel/debug/kho/out/scratch_len
        record meminfo </proc/meminfo
    ";
    let line = format!("{} {WORDS}", trip::chain_cmdline("2"));
    let load = trip::load_script(&trip::request("/next/initrd", &line, ""));
    let script = format!(
        "{SESSION}
         {look}
         {load}
         umount /sys/kernel/debug
         try hidden rkexec status --output json
         rkexec exec"
    );
    let mut overlay = Archive::new();
    overlay.file("test/stage-2", 0o644, look.as_bytes());
    let outcome = Guest::new("kho-status", &kernel)
        .append(WORDS)
        .program("/usr/bin/perl")?
        .file("next/vmlinuz", &host_file(&kernel.image())?)
        .file("next/initrd", &initramfs::initrd(&kernel, overlay)?)
        .script(&script)
        .run()?;

    let (first, second) = (outcome.stage(1)?, outcome.stage(2)?);
    let log = first.text("dmesg")?;
    ensure!(
        log.contains("KHO: scratch areas: lowmem: 16MiB global: 64MiB"),
        "{log}"
    );
    let shown = kho(first, "status.out")?;
    let total = shown_scratch(first)?;
    ensure!(total >= 80 << 20, "{total}");
    assert_eq!(shown["on"], true, "{shown}");
    assert_eq!(shown["sessions"], json!(["first vm"]));
    assert_eq!(shown["scratch_size"], total);
    assert_eq!(shown["scratch_size_is_all"], true);
    assert_eq!(shown["generation"], 1);
    assert_eq!(shown["taken_over"], false);
    assert_eq!(shown["format"], "kho-v4");
    assert_eq!(shown["luo"], "luo-v5");
    assert_eq!(shown["preserved"], json!(["LUO", "memblock"]));
    let text = first.text("text.out")?;
    ensure!(
        text.contains("live update sessions:        first vm"),
        "{text}"
    );

    // Without debugfs: the names of open files, and what is free of the scratch memory.
    let hidden = kho(first, "hidden.out")?;
    assert_eq!(hidden["on"], true, "{hidden}");
    assert_eq!(hidden["sessions"], json!(["first vm"]));
    assert_eq!(hidden["generation"], 1);
    assert_eq!(hidden["scratch"], Value::Null);
    assert_eq!(hidden["scratch_size_is_all"], false);
    let free = hidden["scratch_size"].as_u64().context("scratch_size")?;
    ensure!(free > 0 && free <= total, "{free} of {total}");
    let unaccounted = meminfo(first, "CmaFree")? - meminfo(first, "CmaTotal")?;
    ensure!(
        free.abs_diff(unaccounted) < 32 << 20,
        "{free}, {unaccounted}"
    );

    // The next kernel took over, and counts on.
    let log = second.text("dmesg")?;
    for said in [
        "KHO: found kexec handover data",
        "Revived memory reservation 'pool' from KHO",
        "luo: Retrieved live update data",
    ] {
        ensure!(log.contains(said), "{said}: {log}");
    }
    let after = kho(second, "status.out")?;
    assert_eq!(after["generation"], 2, "{after}");
    assert_eq!(after["taken_over"], true);
    assert_eq!(after["format"], "kho-v4");
    assert_eq!(after["sessions"], json!([]));
    assert_eq!(after["scratch"], shown["scratch"]);
    Ok(())
}

/// The kernel's bzImage, as one that reads another format of live update: `from` in its
/// payload is `to`. It is not one that starts.
fn patched(kernel: &Kernel, from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = vmlinux(kernel)?;
    let mut found = 0;
    while let Some(at) = unpacked.windows(from.len()).position(|bytes| bytes == from) {
        unpacked[at..at + to.len()].copy_from_slice(to);
        found += 1;
    }
    ensure!(found == 1, "{found} times {}", from.escape_ascii());
    let mut plain = tempfile::tempfile()?;
    std::io::Write::write_all(&mut plain, &unpacked)?;
    std::io::Seek::rewind(&mut plain)?;
    let packed = lab::output(Command::new("gzip").arg("-9nc").stdin(Stdio::from(plain)))?;

    // payload_offset and payload_length (Documentation/arch/x86/boot.rst).
    let mut file = host_file(&kernel.image())?;
    let offset = u32::from_le_bytes(file[0x248..0x24c].try_into()?);
    let start = (usize::from(file[0x1f1]) + 1) * 512 + usize::try_from(offset)?;
    let place = file.get_mut(start..start + packed.len());
    place.context("the payload")?.copy_from_slice(&packed);
    file[0x24c..0x250].copy_from_slice(&u32::try_from(packed.len())?.to_le_bytes());
    Ok(file)
}

/// A kernel that panics on what this one hands over is not loaded; the same kernel that
/// reads it is, and one without KHO is with a warning.
#[test]
fn a_kernel_that_panics_on_the_sessions_is_not_loaded() -> Result<()> {
    // The running kernel puts all that it loads into its scratch memory, so this is small.
    let (kernel, old) = (Kernel::new("kho")?, Kernel::small()?);
    let load = |file: &str| format!("rkexec load {file} --cmdline '{WORDS}'");
    let script = format!(
        "{SESSION}
         refused other {other}
         record loaded-other </sys/kernel/kexec_loaded
         refused plan rkexec plan /next/other --cmdline 'kho=off' --output json
         refused same {same}
         record loaded-same </sys/kernel/kexec_loaded
         try without {without}
         refused forced {forced} --syscall kexec_load
         refused forward {forced} --kho forward
         record loaded-without </sys/kernel/kexec_loaded
         try dropped {forced} --kho drop",
        other = load("/next/other"),
        same = load("/next/vmlinuz"),
        without = load("/next/old"),
        forced = load("/next/other"),
    );
    let outcome = Guest::new("kho-other-luo", &kernel)
        .append(WORDS)
        .program("/usr/bin/perl")?
        .file("next/vmlinuz", &host_file(&kernel.image())?)
        .file("next/other", &patched(&kernel, b"luo-v5\0", b"luo-v1\0")?)
        .file("next/old", &host_file(&old.image())?)
        .script(&script)
        .run()?;
    let stage = outcome.stage(1)?;
    assert_eq!(stage.text("other.status")?, "1");
    let message = stage.text("other.err")?;
    ensure!(
        message.contains("the new kernel reads luo-v1 and panics at boot on luo-v5"),
        "{message}"
    );
    assert_eq!(stage.text("loaded-other")?, "0");
    // Without KHO that kernel starts, and says what is lost.
    assert_eq!(
        stage.text("plan.status")?,
        "0",
        "{}",
        stage.text("plan.err")?
    );
    let plan: Value = serde_json::from_str(stage.text("plan.out")?)?;
    let warnings = plan["warnings"].to_string();
    ensure!(warnings.contains("does not turn on KHO"), "{warnings}");
    assert_eq!(
        stage.text("same.status")?,
        "0",
        "{}",
        stage.text("same.err")?
    );
    assert_eq!(stage.text("loaded-same")?, "1");
    let warning = stage.text("without.err")?;
    ensure!(
        warning.contains("no Kexec Handover (CONFIG_KEXEC_HANDOVER): it drops LUO and memblock with the session first vm"),
        "{warning}"
    );
    // Passed on by the loader, it would panic as well.
    for name in ["forced", "forward"] {
        assert_eq!(stage.text(&format!("{name}.status"))?, "1");
        let message = stage.text(&format!("{name}.err"))?;
        ensure!(
            message.contains("the new kernel reads luo-v1 and panics at boot on luo-v5"),
            "{message}"
        );
    }
    assert_eq!(stage.text("loaded-without")?, "1");
    let warning = stage.text("dropped.err")?;
    ensure!(
        warning.contains("--kho drop: LUO and memblock with the session first vm is lost"),
        "{warning}"
    );
    Ok(())
}

/// What `inspect` reads from the kernels themselves.
#[test]
fn the_formats_are_read_from_the_kernels() -> Result<()> {
    let formats = |series: &str| -> Result<Value> {
        let kernel = Kernel::new(series)?;
        let mut rkexec = Command::new(lab::rkexec()?);
        let dir = tempfile::tempdir()?;
        // Nothing of this machine's /boot.
        rkexec.arg("--root").arg(dir.path());
        rkexec.args(["inspect", "--output", "json"]);
        let out = lab::output(rkexec.arg(kernel.image()))?;
        Ok(serde_json::from_slice(&out)?)
    };
    let with = formats("kho")?;
    let expected = json!({
        "kho": "kho-v4", "luo": "luo-v5", "memfd": "memfd-v2", "memblock": "memblock-v1",
    });
    assert_eq!(with["kho"], expected);
    for symbol in [
        "CONFIG_KEXEC_HANDOVER",
        "CONFIG_LIVEUPDATE",
        "CONFIG_LIVEUPDATE_MEMFD",
    ] {
        assert_eq!(with["config"][symbol]["value"], "yes", "{symbol}");
    }
    let none = json!({ "kho": "none", "luo": "none", "memfd": "none", "memblock": "none" });
    for series in ["6.12", "of"] {
        assert_eq!(formats(series)?["kho"], none, "{series}");
    }
    Ok(())
}
