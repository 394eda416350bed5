//! Kernel files besides the bzImage: vmlinux, files packed as a whole, and UKIs
//! that ukify makes. The next kernel is the witness.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rkexec::image::bzimage;

use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, Outcome};
use crate::ram::Ram;
use crate::trip::{self, Plan, Trip};
use crate::witness::Stage;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;
/// Where the kernel files and the initrd lie in a guest, whichever kernel runs:
/// memory that every command line reserves.
const SUPPLIES: u64 = 768 * MIB;
const SUPPLIES_SIZE: u64 = 160 * MIB;

/// One kexec: which file, how it is loaded, and what is expected of it.
struct Step {
    format: &'static str,
    /// The kernel file; empty: the same as in the step before.
    file: Vec<u8>,
    /// What follows the file's name.
    options: String,
    /// The next kernel's command line.
    cmdline: String,
    /// The next kernel's initrd.
    initrd: Vec<u8>,
}

/// The command line of the kernel after `step` kexecs.
fn cmdline(step: usize) -> String {
    let stage = trip::chain_cmdline(&(step + 1).to_string());
    let (at, size) = (SUPPLIES, SUPPLIES_SIZE / MIB);
    format!("{stage} iomem=relaxed memmap={size}M${at:#x}")
}

/// What `command` makes of `input`.
fn through(command: &[&str], input: &[u8]) -> Result<Vec<u8>> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input)?;
    std::io::Seek::rewind(&mut file)?;
    let (program, args) = command.split_first().context("no program")?;
    lab::output(Command::new(program).args(args).stdin(Stdio::from(file)))
}

/// The vmlinux inside the kernel's bzImage.
pub(crate) fn vmlinux(kernel: &Kernel) -> Result<Vec<u8>> {
    let file = trip::host_file(&kernel.image())?;
    let image = bzimage::parse(&file)?.context("no bzImage")?;
    Ok(image.unpacked()?.into_owned())
}

/// Files for ukify, and what it makes of them.
pub(crate) struct Ukify(tempfile::TempDir);

impl Ukify {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.0.path().join(name);
        fs::write(&path, bytes)?;
        Ok(path)
    }

    /// Builds the UKI `name` of a kernel, an initrd and a command line, and what `more`
    /// says; where it is.
    pub(crate) fn uki(
        &self,
        name: &str,
        kernel: &Path,
        initrd: &[u8],
        line: &str,
        more: &[&str],
    ) -> Result<PathBuf> {
        let initrd = self.file("initrd", initrd)?;
        let (kernel, initrd) = (text(kernel)?, text(&initrd)?);
        let parts = ["--linux", kernel, "--initrd", initrd, "--cmdline", line];
        self.build(name, "linuxx64.efi.stub", &[&parts[..], more].concat())
    }

    /// Builds `name` from these options, around `stub`; where it is.
    pub(crate) fn build(&self, name: &str, stub: &str, options: &[&str]) -> Result<PathBuf> {
        let ukify = lab::part("ukify")?.join("usr");
        let path = self.0.path().join(name);
        lab::output(
            Command::new("/usr/bin/python3")
                .env("PYTHONPATH", ukify.join("lib/python3/dist-packages"))
                .arg(ukify.join("bin/ukify"))
                .arg("build")
                .arg("--stub")
                .arg(ukify.join("lib/systemd/boot/efi").join(stub))
                .arg("--output")
                .arg(&path)
                .args(options),
        )?;
        Ok(path)
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is no text")
}

/// What every stage does: takes the next file and the initrd out of the reserved
/// memory, loads it, and enters it.
fn script(steps: &[Step]) -> String {
    let mut choice = String::new();
    for (step, number) in steps.iter().zip(1..) {
        choice += &format!("{number}) set -- {} ;;\n", step.options);
    }
    format!(
        "page() {{ dd if=/dev/mem bs={PAGE} skip=$(({} + $1)) count=$2 2>/dev/null; }}
        if [ -e /microcode ]; then record microcode </microcode; fi
        if [ $stage -le {} ]; then
          eval $(page 0 1 | tr -d '\\000')
          mkdir -p /next
          eval \"set -- \\$kernel_$stage\"
          page $1 $2 >/next/kernel
          truncate -s $3 /next/kernel
          page $initrd_at $initrd_pages >/next/initrd
          truncate -s $initrd_size /next/initrd
          case $stage in
          {choice}
          esac
          try load rkexec load /next/kernel \"$@\" --output json
          try exec rkexec exec
        fi\n",
        SUPPLIES / PAGE as u64,
        steps.len()
    )
}

/// Writes the files of `steps` and the initrd into the guest's memory, behind a
/// page that says where they are.
fn supply(ram: &Ram, steps: &[Step], initrd: &[u8]) -> Result<()> {
    let pages = |bytes: &[u8]| bytes.len().div_ceil(PAGE);
    let mut table = format!(
        "initrd_at=1 initrd_pages={} initrd_size={}\n",
        pages(initrd),
        initrd.len()
    );
    let mut at = 1;
    let mut write = |bytes: &[u8]| -> Result<usize> {
        let start = at;
        at += pages(bytes);
        ensure!(u64::try_from(at * PAGE)? <= SUPPLIES_SIZE, "no room");
        ram.file()
            .write_all_at(bytes, SUPPLIES + (start * PAGE) as u64)?;
        Ok(start)
    };
    write(initrd)?;
    let mut file = String::new();
    for (step, number) in steps.iter().zip(1..) {
        if !step.file.is_empty() {
            let start = write(&step.file)?;
            file = format!("{start} {} {}", pages(&step.file), step.file.len());
        }
        table += &format!("kernel_{number}='{file}'\n");
    }
    ensure!(table.len() <= PAGE, "a table of {} bytes", table.len());
    ram.file().write_all_at(table.as_bytes(), SUPPLIES)?;
    Ok(())
}

/// Makes the kexecs one after the other in one guest.
fn run(name: &str, kernel: &Kernel, steps: &[Step], initrd: &[u8]) -> Result<Outcome> {
    let ram = Ram::new(1024 * MIB)?;
    supply(&ram, steps, initrd)?;
    let guest = ram
        .attach(Guest::new(name, kernel))
        .timeout(Duration::from_secs(60 * (steps.len() as u64 + 4)))
        .append(&format!(
            "iomem=relaxed memmap={}M${SUPPLIES:#x}",
            SUPPLIES_SIZE / MIB
        ))
        .script(&script(steps));
    guest.run()
}

/// The initrd of every stage but the first: its script and a payload.
fn initrd(kernel: &Kernel, script: &str, stages: usize) -> Result<Vec<u8>> {
    let mut overlay = Archive::new();
    overlay.file("payload", 0o644, &trip::payload(kernel));
    for stage in 2..=stages {
        overlay.file(&format!("test/stage-{stage}"), 0o644, script.as_bytes());
    }
    initramfs::initrd(kernel, overlay)
}

/// Holds what `after` says against the plan of `before`.
fn arrived(kernel: &Kernel, step: &Step, before: Stage, after: Stage) -> Result<Plan> {
    let plan = Plan::of(before)?;
    let format = &plan.json["image"]["format"];
    ensure!(format == step.format, "{format}, not {}", step.format);
    ensure!(after.text("release")? == kernel.release);
    ensure!(
        plan.json["cmdline"] == step.cmdline,
        "{}",
        plan.json["cmdline"]
    );
    let line = after.text("cmdline")?;
    ensure!(line == step.cmdline, "{line:?}, not {:?}", step.cmdline);
    ensure!(
        after.digest("payload-digest")? == trip::sha256(&trip::payload(kernel)),
        "the initrd's payload is damaged"
    );
    ensure!(
        after.digest("initrd-digest")? == trip::sha256(&step.initrd),
        "the initrd is damaged"
    );
    Ok(plan)
}

/// The small kernel as vmlinux, in six compressions, and as UKI.
#[test]
fn every_format_boots() -> Result<()> {
    let kernel = Kernel::new("of")?;
    let (bzimage, vmlinux) = (trip::host_file(&kernel.image())?, vmlinux(&kernel)?);
    let packed: [(&str, &[&str], &[u8]); 8] = [
        ("vmlinux", &["cat"], &vmlinux),
        ("gzip of bzImage", &["gzip", "-c"], &bzimage),
        ("xz of vmlinux", &["xz", "-c", "-1"], &vmlinux),
        ("zstd of vmlinux", &["zstd", "-c", "-q"], &vmlinux),
        ("lz4 of vmlinux", &["lz4", "-l", "-c", "-q"], &vmlinux),
        (
            "lzma of bzImage",
            &["xz", "--format=lzma", "-c", "-1"],
            &bzimage,
        ),
        ("bzip2 of vmlinux", &["bzip2", "-c"], &vmlinux),
        ("lz4 of bzImage", &["lz4", "-c", "-q"], &bzimage),
    ];
    let mut steps = Vec::new();
    for ((format, command, file), number) in packed.into_iter().zip(1..) {
        // What is no bzImage file as it is, kexec_file_load is given from memory.
        let syscall = match format {
            "lz4 of bzImage" => "kexec_file_load",
            _ => "kexec_load",
        };
        let cmdline = cmdline(number);
        steps.push(Step {
            format,
            file: through(command, file)?,
            options: format!("--initrd /next/initrd --cmdline '{cmdline}' --syscall {syscall}"),
            cmdline,
            initrd: Vec::new(),
        });
    }
    let script = script(&steps);
    let initrd = initrd(&kernel, &script, steps.len() + 1)?;
    for step in &mut steps {
        step.initrd.clone_from(&initrd);
    }
    let outcome = run("formats", &kernel, &steps, &initrd)?;
    for (step, number) in steps.iter().zip(1..) {
        let (before, after) = (outcome.stage(number)?, outcome.stage(number + 1)?);
        let plan = arrived(&kernel, step, before, after).with_context(|| step.format)?;
        if step.format.ends_with("vmlinux") {
            plan.kept(after)?;
            plan.runs_where_it_was_put(after)?;
            ensure!(plan.is_direct(), "{}", plan.json["direct"]);
        }
    }
    Ok(())
}

/// A UKI with microcode, an initrd, and two profiles with a command line each:
/// the first profile, the other one with an addon, and by kexec_file_load.
#[test]
fn a_uki_made_by_ukify_boots() -> Result<()> {
    let kernel = Kernel::new("of")?;
    let uki = "UKI of bzImage";
    let options = [
        "--syscall kexec_load",
        "--syscall kexec_load --profile other --addon /test/addon",
        "--syscall kexec_file_load --cmdline \"$(cat /test/line)\"",
    ];
    let addon = "rkexec.addon=1";
    let lines = [cmdline(1), format!("{} {addon}", cmdline(2)), cmdline(3)];
    let mut steps: Vec<Step> = options
        .iter()
        .zip(lines)
        .map(|(options, cmdline)| Step {
            format: uki,
            file: Vec::new(),
            options: (*options).to_owned(),
            cmdline,
            initrd: Vec::new(),
        })
        .collect();
    let script = script(&steps);

    let ukify = Ukify::new()?;
    let addon = ukify.build("addon", "addonx64.efi.stub", &["--cmdline", addon])?;
    let mut overlay = Archive::new();
    overlay.file("payload", 0o644, &trip::payload(&kernel));
    overlay.file("test/addon", 0o644, &fs::read(addon)?);
    overlay.file("test/line", 0o644, cmdline(3).as_bytes());
    for stage in 2..=steps.len() + 1 {
        overlay.file(&format!("test/stage-{stage}"), 0o644, script.as_bytes());
    }
    let initrd = initramfs::initrd(&kernel, overlay)?;
    let mut microcode = Archive::new();
    microcode.file("microcode", 0o644, b"microcode");
    let microcode = microcode.finish();

    let (line, other) = (cmdline(1), cmdline(2));
    let profile = ukify.build(
        "profile",
        "addonx64.efi.stub",
        &["--profile", "ID=other\nTITLE=Another", "--cmdline", &other],
    )?;
    let file = ukify.uki(
        "uki",
        &kernel.image(),
        &initrd,
        &line,
        &[
            "--microcode",
            text(&ukify.file("microcode", &microcode)?)?,
            "--uname",
            &kernel.release,
            "--os-release",
            "ID=test",
            "--profile",
            "ID=main",
            "--join-profile",
            text(&profile)?,
        ],
    )?;
    let file = fs::read(file)?;
    let whole = [microcode, initrd.clone()].concat();
    for step in &mut steps {
        step.initrd.clone_from(&whole);
    }
    steps[0].file = file;
    let outcome = run("uki", &kernel, &steps, &initrd)?;
    for (step, number) in steps.iter().zip(1..) {
        let (before, after) = (outcome.stage(number)?, outcome.stage(number + 1)?);
        arrived(&kernel, step, before, after).with_context(|| step.options.clone())?;
        ensure!(after.text("microcode")? == "microcode");
    }
    Ok(())
}

/// Debian's kernel as vmlinux, above 4 GiB, with five levels of page tables and
/// with UEFI, of which the kernel behind it still knows everything.
#[test]
fn a_large_vmlinux_runs_above_4_gib_with_uefi() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let arrival = Trip::to(&kernel)
        .image(vmlinux(&kernel)?)
        .options("--syscall kexec_load --mem-min 4G")
        .run(Guest::new("vmlinux", &kernel).memory("6G").uefi(true))?;
    let (before, after) = (arrival.before()?, arrival.after()?);
    ensure!(arrival.plan.json["image"]["format"] == "vmlinux");
    let kernel = &arrival.plan.segments;
    ensure!(kernel.iter().all(|segment| segment.start >= 4096 * MIB));
    ensure!(arrival.plan.is_direct(), "{}", arrival.plan.json["direct"]);
    ensure!(after.text("cpu-flags")?.contains(" la57"));
    let map = "efi-runtime-map";
    ensure!(before.text(map)? == after.text(map)?);
    ensure!(!before.text(map)?.is_empty());
    Ok(())
}

/// Signs a PE file with the key that Debian's ovmf package has for tests, and
/// whose certificate is in the `db` of the variables that lie beside it.
fn signed(ukify: &Ukify, name: &str, file: &Path) -> Result<PathBuf> {
    const OVMF: &str = "/usr/share/ovmf/PkKek-1-snakeoil";
    let key = lab::output(
        Command::new("openssl")
            .args(["rsa", "-passin", "pass:snakeoil", "-in"])
            .arg(format!("{OVMF}.key")),
    )?;
    let key = ukify.file("key", &key)?;
    let out = ukify.0.path().join(name);
    lab::output(
        Command::new("sbsign")
            .arg("--key")
            .arg(key)
            .args(["--cert", &format!("{OVMF}.pem"), "--output"])
            .arg(&out)
            .arg(file),
    )?;
    Ok(out)
}

/// Under lockdown a UKI is loaded by the signature of the kernel inside; its own
/// does not help.
#[test]
fn under_lockdown_the_signature_of_the_kernel_inside_counts() -> Result<()> {
    let (first, next) = (Kernel::new("6.12")?, Kernel::new("of")?);
    let ukify = Ukify::new()?;
    let mut overlay = Archive::new();
    overlay.file("payload", 0o644, &trip::payload(&next));
    let initrd = initramfs::initrd(&next, overlay)?;
    let line = trip::chain_cmdline("2");
    let uki = |name: &str, kernel: &Path| -> Result<Vec<u8>> {
        let uname = ["--uname", &next.release];
        let file = ukify.uki(name, kernel, &initrd, &line, &uname)?;
        Ok(fs::read(signed(&ukify, &format!("{name}-signed"), &file)?)?)
    };
    let kernel = signed(&ukify, "kernel", &next.image())?;
    let vars = ukify.file(
        "vars",
        &trip::host_file(Path::new("/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"))?,
    )?;
    let code = "/usr/share/OVMF/OVMF_CODE_4M.fd";
    let outcome = Guest::new("lockdown-uki", &first)
        .args([
            "-drive",
            &format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"),
            "-drive",
            &format!("if=pflash,format=raw,unit=1,file={}", text(&vars)?),
        ])
        .append("lockdown=integrity")
        .file("next/outside", &uki("outside", &next.image())?)
        .file("next/both", &uki("both", &kernel)?)
        .script(
            "refused outside rkexec load /next/outside
            record loaded </sys/kernel/kexec_loaded
            try load rkexec load /next/both --output json
            try exec rkexec exec",
        )
        .run()?;
    let before = outcome.stage(1)?;
    let message = before.text("outside.err")?;
    let why = "the kernel inside the UKI has no signature";
    ensure!(message.contains(why), "no {why:?} in {message:?}");
    ensure!(before.text("outside.status")? == "1");
    ensure!(before.text("loaded")? == "0");
    let plan = Plan::of(before)?;
    ensure!(plan.json["syscall"]["name"] == "kexec_file_load");
    let warning = "the running kernel looks at the kernel's own signature";
    ensure!(plan.json["warnings"].to_string().contains(warning));
    let after = outcome.stage(2)?;
    ensure!(after.text("release")? == next.release);
    ensure!(after.text("cmdline")? == line);
    ensure!(after.digest("initrd-digest")? == trip::sha256(&initrd));
    Ok(())
}
