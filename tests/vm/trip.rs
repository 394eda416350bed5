//! One round trip by rkexec, and what the plan promised of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, Outcome, line};
use crate::witness::{Row, Stage, hex, merged, show};

/// What the next kernels' command lines have in common. `retain_initrd` keeps
/// /sys/firmware/initrd (6.12), so that the next kernel can digest all of it.
const CMDLINE: &str = line!("quiet retain_initrd rkexec.stage=");

/// Size of the random file in the next initrd, bytes.
const PAYLOAD: usize = 1 << 20;

/// A round trip: the first kernel loads and boots `next`.
#[derive(Debug)]
pub(crate) struct Trip<'a> {
    next: &'a Kernel,
    options: String,
    words: String,
    bytes: &'static [u8],
    before: String,
    after: String,
    programs: Vec<String>,
    image: Option<Vec<u8>>,
}

/// A round trip that arrived.
#[derive(Debug)]
pub(crate) struct Arrival {
    outcome: Outcome,
    pub(crate) plan: Plan,
}

impl<'a> Trip<'a> {
    pub(crate) fn to(next: &'a Kernel) -> Self {
        Self {
            next,
            options: "--syscall kexec_load".to_owned(),
            words: String::new(),
            bytes: b"",
            before: String::new(),
            after: String::new(),
            programs: Vec::new(),
            image: None,
        }
    }

    /// The next kernel's file, instead of its bzImage.
    pub(crate) fn image(mut self, file: Vec<u8>) -> Self {
        self.image = Some(file);
        self
    }

    /// Load options for `plan` and `load`, instead of `--syscall kexec_load`.
    pub(crate) fn options(mut self, options: &str) -> Self {
        options.clone_into(&mut self.options);
        self
    }

    /// Words at the end of the next kernel's command line.
    pub(crate) fn append(mut self, words: &str) -> Self {
        self.words = format!(" {words}");
        self
    }

    /// A last word for the next kernel's command line that need not be UTF-8.
    pub(crate) fn bytes(mut self, word: &'static [u8]) -> Self {
        self.bytes = word;
        self
    }

    /// What the first kernel does before the plan is made.
    pub(crate) fn before(mut self, script: &str) -> Self {
        script.clone_into(&mut self.before);
        self
    }

    /// What the next kernel does when it has reported.
    pub(crate) fn after(mut self, script: &str) -> Self {
        script.clone_into(&mut self.after);
        self
    }

    /// Programs of this machine for the next kernel's initrd.
    pub(crate) fn programs(mut self, paths: &[&str]) -> Self {
        self.programs = paths.iter().map(|&path| path.to_owned()).collect();
        self
    }

    /// The next kernel's command line, without the word of [`Self::bytes`].
    pub(crate) fn cmdline(&self) -> String {
        format!("{CMDLINE}2{}", self.words)
    }

    /// The next kernel.
    pub(crate) fn next(&self) -> &Kernel {
        self.next
    }

    /// What follows `rkexec plan` or `rkexec load` in the first kernel.
    pub(crate) fn request(&self) -> String {
        let request = request("/next/initrd", &self.cmdline(), &self.options);
        if self.bytes.is_empty() {
            return request;
        }
        let octal = self.bytes.iter().map(|byte| format!("\\{byte:03o}"));
        let octal: String = octal.collect();
        format!("{request} --append \"$(printf '{octal}')\"")
    }

    /// The next kernel's initrd.
    pub(crate) fn initrd(&self) -> Result<Vec<u8>> {
        let mut overlay = Archive::new();
        overlay.file("payload", 0o644, &payload(self.next));
        overlay.file("test/stage-2", 0o644, self.after.as_bytes());
        for program in &self.programs {
            overlay.program(Path::new(program), program)?;
        }
        initramfs::initrd(self.next, overlay)
    }

    /// `guest` with the next kernel and the script that loads it.
    pub(crate) fn prepare(&self, guest: Guest, initrd: &[u8]) -> Result<Guest> {
        let image = match &self.image {
            Some(image) => image.clone(),
            None => std::fs::read(self.next.image())?,
        };
        Ok(guest
            .file("next/vmlinuz", &image)
            .file("next/initrd", initrd)
            .file("test/load", load_script(&self.request()).as_bytes()))
    }

    /// Makes the trip, and holds what arrived against the plan.
    pub(crate) fn run(self, guest: Guest) -> Result<Arrival> {
        let initrd = self.initrd()?;
        let script = format!("{}\n. /test/load\ntry exec rkexec exec\n", self.before);
        let outcome = self.prepare(guest, &initrd)?.script(&script).run()?;
        let after = outcome.stage(2)?;
        let plan = Plan::of(outcome.stage(1)?)?;

        ensure!(after.text("release")? == self.next.release);
        let mut promised = self.cmdline().into_bytes();
        if !self.bytes.is_empty() {
            promised.extend([b" ", self.bytes].concat());
        }
        let cmdline = after.bytes("cmdline")?.trim_ascii();
        ensure!(
            cmdline == promised,
            "{:?}, not {:?}",
            cmdline.escape_ascii().to_string(),
            promised.escape_ascii().to_string()
        );
        let planned = match std::str::from_utf8(&promised) {
            Ok(promised) => plan.json["cmdline"] == promised,
            Err(_) => plan.json["cmdline_bytes"] == rkexec::base::bytes::hex(&promised),
        };
        ensure!(planned, "{}", plan.json["cmdline"]);
        ensure!(
            after.digest("payload-digest")? == sha256(&payload(self.next)),
            "the initrd's payload is damaged"
        );
        if self.next.release.starts_with("6.12.") {
            ensure!(
                after.digest("initrd-digest")? == sha256(&initrd),
                "the initrd is damaged"
            );
        }
        plan.kept(after)?;
        plan.placed_well(outcome.stage(1)?)?;
        plan.runs_where_it_was_put(after)?;
        Ok(Arrival { outcome, plan })
    }
}

/// Loads /next/vmlinuz in a guest, and records the plan that was loaded.
pub(crate) fn load_script(request: &str) -> String {
    format!(
        "try load rkexec load {request} --output json
         record loaded </sys/kernel/kexec_loaded\n"
    )
}

/// What follows `rkexec plan` or `rkexec load`.
pub(crate) fn request(initrd: &str, cmdline: &str, options: &str) -> String {
    format!("/next/vmlinuz --initrd {initrd} --cmdline '{cmdline}' {options}")
}

/// The command line of stage `stage` in a chain.
pub(crate) fn chain_cmdline(stage: &str) -> String {
    format!("{CMDLINE}{stage}")
}

/// Bytes that no two kernels share and that do not compress.
pub(crate) fn payload(next: &Kernel) -> Vec<u8> {
    noise(&next.release, PAYLOAD)
}

/// `size` random-looking bytes that depend on `seed` alone.
pub(crate) fn noise(seed: &str, size: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 32);
    let mut block = Sha256::digest(seed);
    while bytes.len() < size {
        bytes.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    bytes.truncate(size);
    bytes
}

/// As sha256sum prints it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

impl Arrival {
    /// The first kernel's report.
    pub(crate) fn before(&self) -> Result<Stage<'_>> {
        self.outcome.stage(1)
    }

    /// The next kernel's report.
    pub(crate) fn after(&self) -> Result<Stage<'_>> {
        self.outcome.stage(2)
    }
}

/// What `rkexec load --output json` said, which is what `rkexec plan` says.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) json: Value,
    /// The map that the next kernel is to be told of.
    pub(crate) map: Vec<Row>,
    /// Where the segments go; `kind` is the role.
    pub(crate) segments: Vec<Row>,
}

impl Plan {
    /// The plan that `stage` loaded.
    pub(crate) fn of(stage: Stage) -> Result<Self> {
        Self::parse(stage.text("load.out")?)
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let json: Value = serde_json::from_str(text).context("the plan")?;
        ensure!(json["schema"] == 1, "schema {}", json["schema"]);
        // `e820` is what is handed over. By kexec_load that is the reconciled
        // map; by kexec_file_load the kernel hands over the one it booted with.
        let map = e820_map(&json, "e820", "type")?;
        if json["syscall"]["name"] == "kexec_load" {
            let reconciled = e820_map(&json, "memory_map", "e820")?;
            ensure!(map == reconciled, "e820 and memory_map differ:\n{text}");
        }
        let segments = rows(&json, "segments")?
            .iter()
            .map(|row| range(row, "mem", "memsz", row["role"].as_str().context("role")?))
            .collect::<Result<Vec<Row>>>()?;
        Ok(Self {
            json,
            map,
            segments,
        })
    }

    /// Whether `after` was told of the map that was promised.
    pub(crate) fn kept(&self, after: Stage) -> Result<()> {
        let told = after.firmware_map()?;
        ensure!(
            told == self.map,
            "the next kernel was told of\n{}\nand the plan promised\n{}",
            show(&told),
            show(&self.map)
        );
        Ok(())
    }

    /// Whether the loader placed the kernel itself, and did not leave it to the kernel's
    /// own unpacker.
    pub(crate) fn is_direct(&self) -> bool {
        self.json["direct"]["physical"].is_string()
    }

    /// Whether the kernel runs where the loader put it, if that was the loader's to decide.
    pub(crate) fn runs_where_it_was_put(&self, after: Stage) -> Result<()> {
        let Some(put) = self.json["direct"]["physical"].as_str() else {
            return Ok(());
        };
        let (put, rows) = (hex(put)?, after.iomem()?);
        let code = rows.iter().find(|row| row.kind == "Kernel code");
        let runs = code.context("no Kernel code in iomem")?.start;
        ensure!(
            runs == put,
            "the kernel runs at {runs:#x}, and was put at {put:#x}"
        );
        Ok(())
    }

    /// Whether every segment lies in plain System RAM of the kernel that
    /// loaded it, and in RAM of the map that is handed over.
    fn placed_well(&self, before: Stage) -> Result<()> {
        let iomem = before.iomem()?;
        let ram = |rows: &[Row]| -> Vec<Row> {
            let rows = rows.iter().filter(|row| row.kind == "System RAM");
            merged(rows.cloned().collect())
        };
        for rows in [ram(&iomem), ram(&self.map)] {
            for segment in &self.segments {
                ensure!(
                    rows.iter()
                        .any(|row| row.start <= segment.start && segment.end <= row.end),
                    "{} is not in RAM:\n{}",
                    show(std::slice::from_ref(segment)),
                    show(&rows)
                );
            }
        }
        Ok(())
    }

    /// Whether no segment touches any of `rows`.
    pub(crate) fn keeps_off(&self, rows: &[Row]) -> Result<()> {
        ensure!(!rows.is_empty(), "nothing to keep off");
        for segment in &self.segments {
            for row in rows {
                ensure!(
                    !segment.overlaps(row),
                    "{} lies in {}",
                    show(std::slice::from_ref(segment)),
                    show(std::slice::from_ref(row))
                );
            }
        }
        Ok(())
    }
}

fn rows<'a>(json: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    json[name].as_array().with_context(|| name.to_owned())
}

fn range(row: &Value, start: &str, size: &str, kind: &str) -> Result<Row> {
    let at = hex(row[start].as_str().with_context(|| row.to_string())?)?;
    let size = row[size].as_u64().with_context(|| row.to_string())?;
    Ok(Row {
        start: at,
        end: at + size,
        kind: kind.to_owned(),
    })
}

/// The rows of the array `name` that have an e820 type, with that as kind.
fn e820_map(json: &Value, name: &str, kind: &str) -> Result<Vec<Row>> {
    let mut map = Vec::new();
    for row in rows(json, name)? {
        if let Some(number) = row[kind].as_u64() {
            map.push(range(row, "start", "size", e820_name(number))?);
        } else {
            ensure!(row[kind].is_null(), "{row}");
        }
    }
    Ok(merged(map))
}

/// The name that the kernel prints for an e820 type: e820_type_to_string in
/// arch/x86/kernel/e820.c.
fn e820_name(number: u64) -> &'static str {
    match number {
        1 => "System RAM",
        2 => "Reserved",
        3 => "ACPI Tables",
        4 => "ACPI Non-volatile Storage",
        5 => "Unusable memory",
        7 => "Persistent Memory",
        12 => "Persistent Memory (legacy)",
        0xefff_ffff => "Soft Reserved",
        _ => "Unknown E820 type",
    }
}

/// The word after `--syscall` for the tests that go through both.
pub(crate) const SYSCALLS: [&str; 2] = ["kexec_load", "kexec_file_load"];

/// A copy of a host file for a guest.
pub(crate) fn host_file(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| path.display().to_string())
}

/// tests/vm/NAME.c as a static program.
pub(crate) fn compiled(name: &str) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let program = dir.path().join(name);
    let source = format!("{}/tests/vm/{name}.c", env!("CARGO_MANIFEST_DIR"));
    let mut gcc = Command::new("gcc");
    lab::output(gcc.args(["-static", "-O1", "-o"]).arg(&program).arg(source))?;
    host_file(&program)
}
