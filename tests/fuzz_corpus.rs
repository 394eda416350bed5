//! The fuzz targets on stable: every seed, every way to cut it short, and some
//! thousand mutations of it, always the same ones.
//!
//! `fuzz/run` gives them more time where there is no libFuzzer: `RKEXEC_FUZZ_SECONDS` for
//! each target, with other mutations in every run. What `fuzz/found/TARGET/` holds was a
//! finding once, and is run as well.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[path = "../fuzz/entry.rs"]
mod entry;
#[path = "../fuzz/entry_boot.rs"]
mod entry_boot;
#[path = "../fuzz/entry_machine.rs"]
mod entry_machine;
#[path = "../fuzz/seeds.rs"]
mod seeds;

/// Mutated inputs per target.
const CASES: u32 = 4000;

/// Marsaglia's xorshift64: the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `end`, 0 when that is 0.
    fn below(&mut self, end: usize) -> usize {
        let end = end.max(1) as u64;
        usize::try_from(self.next() % end).unwrap_or(0)
    }
}

/// Numbers at the edge of something, little-endian and as text.
const NUMBERS: [u64; 10] = [
    0,
    1,
    0x7f,
    0xff,
    0x1000,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 46,
    u64::MAX - 1,
    u64::MAX,
];
const WORDS: [&[u8]; 10] = [
    b"\n",
    b"\0",
    b"  ",
    b"-",
    b" : ",
    b"0x",
    b"System RAM",
    b"System RAM (kmem)",
    b"ffffffffffffffff",
    b"\xff\xfe",
];

/// One to four changes of `bytes`.
fn mutate(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = bytes.len().min(at + 1 + random.below(40));
        match random.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << random.below(8),
            1 if !bytes.is_empty() => bytes[at] = random.next().to_le_bytes()[0],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => {
                let part = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, part);
            }
            5 => {
                let word = WORDS[random.below(WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            6 => {
                let number = NUMBERS[random.below(NUMBERS.len())].to_le_bytes();
                let size = [1, 2, 4, 8][random.below(4)];
                let size = size.min(bytes.len() - at);
                bytes[at..at + size].copy_from_slice(&number[..size]);
            }
            7 => {
                let number = format!("{:x}", NUMBERS[random.below(NUMBERS.len())]);
                bytes.splice(at..at, number.into_bytes());
            }
            _ => {
                bytes.truncate(at);
                bytes.extend(&other[random.below(other.len())..]);
            }
        }
    }
}

/// The longest that a target may take for one input.
const LIMIT: Duration = Duration::from_secs(1);

/// A target in a long run.
struct Hunt {
    name: &'static str,
    target: fn(&[u8]) -> bool,
    slowest: Duration,
}

impl Hunt {
    /// Runs the target once. An input that it dies of, or takes too long for, is kept.
    fn once(&mut self, bytes: &[u8]) {
        let run = || {
            let started = Instant::now();
            let done = catch_unwind(AssertUnwindSafe(|| (self.target)(bytes)));
            (done, started.elapsed())
        };
        let (done, mut took) = run();
        if took > LIMIT {
            // A busy machine stands still at times.
            took = took.min(run().1);
        }
        self.slowest = self.slowest.max(took);
        let (name, kept) = (self.name, directory("fuzz/artifacts").join(self.name));
        if done.is_err() || took > LIMIT {
            std::fs::create_dir_all(kept.parent().unwrap_or(&kept)).ok();
            let written = std::fs::write(&kept, bytes);
            panic!("{name}: {took:?}, see {}: {written:?}", kept.display());
        }
    }
}

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Mutates for `RKEXEC_FUZZ_SECONDS`, if that is set. The line at the end is the one of
/// `fuzz/run`: target, executions, seconds, the slowest in milliseconds, and the most
/// memory of this process in KiB.
fn hunt(name: &'static str, target: fn(&[u8]) -> bool, seeds: &[Vec<u8>]) {
    let Ok(seconds) = std::env::var("RKEXEC_FUZZ_SECONDS") else {
        return;
    };
    let seconds = Duration::from_secs(seconds.parse().unwrap());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut random = Random((now.as_secs() << 30) | u64::from(now.subsec_nanos()) | 1);
    let mut hunt = Hunt {
        name,
        target,
        slowest: Duration::ZERO,
    };
    let (started, mut executions) = (Instant::now(), 0_u64);
    while started.elapsed() < seconds {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        // Most are near to a seed, some are far from all.
        for _ in 0..=random.below(4) * random.below(4) {
            let other = &seeds[random.below(seeds.len())];
            mutate(&mut bytes, other, &mut random);
        }
        hunt.once(&bytes);
        executions += 1;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.unwrap().trim_end_matches("kB").trim();
    println!(
        "fuzz: {name} {executions} {:.1} {} {peak}",
        started.elapsed().as_secs_f64(),
        hunt.slowest.as_millis()
    );
}

/// What was found once, and is a fault no more.
fn found(name: &str) -> Vec<Vec<u8>> {
    let Ok(files) = std::fs::read_dir(directory("fuzz/found").join(name)) else {
        return Vec::new();
    };
    let read = |file: std::io::Result<std::fs::DirEntry>| std::fs::read(file.unwrap().path());
    files.map(|file| read(file).unwrap()).collect()
}

/// Runs `target` over the seeds called `name` and what they can be turned into.
fn run(name: &'static str, target: fn(&[u8]) -> bool) {
    let all = seeds::all();
    let seeds = all.iter().find(|(n, _)| *n == name).map(|(_, seeds)| seeds);
    let seeds = seeds.map_or(&[][..], Vec::as_slice);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for (number, seed) in seeds.iter().enumerate() {
        assert!(target(seed), "{name}: seed {number} is refused");
        for length in 0..seed.len() {
            target(&seed[..length]);
        }
    }
    for bytes in found(name) {
        target(&bytes);
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut accepted = 0;
    for _ in 0..CASES {
        let mut bytes = seeds[random.below(seeds.len())].clone();
        let other = &seeds[random.below(seeds.len())];
        mutate(&mut bytes, other, &mut random);
        accepted += u32::from(target(&bytes));
    }
    // Neither all nor none: the mutations reach both sides of the checks.
    assert!(
        (CASES / 100..CASES * 99 / 100).contains(&accepted),
        "{name}: {accepted} of {CASES} mutations accepted"
    );
    hunt(name, target, seeds);
}

#[test]
fn iomem() {
    run("iomem", entry::iomem);
}

#[test]
fn taken() {
    run("taken", entry::taken);
}

#[test]
fn cmdline() {
    run("cmdline", entry::cmdline);
}

#[test]
fn memmap() {
    run("memmap", entry::memmap);
}

#[test]
fn boot_params() {
    run("boot_params", entry::boot_params);
}

#[test]
fn bzimage() {
    run("bzimage", entry::bzimage);
}

#[test]
fn vmlinux() {
    run("vmlinux", entry::vmlinux);
}

#[test]
fn relocations() {
    run("relocations", entry::relocations);
}

#[test]
fn multiboot() {
    run("multiboot", entry::multiboot);
}

#[test]
fn uki() {
    run("uki", entry::uki);
}

#[test]
fn lanzaboote() {
    run("lanzaboote", entry::lanzaboote);
}

#[test]
fn device_tree() {
    run("device_tree", entry::device_tree);
}

#[test]
fn chain() {
    run("chain", entry::chain);
}

#[test]
fn vmcore() {
    run("vmcore", entry::vmcore);
}

#[test]
fn kernel_config() {
    run("kernel_config", entry::kernel_config);
}

#[test]
fn ikconfig() {
    run("ikconfig", entry::ikconfig);
}

#[test]
fn kho_kernel() {
    run("kho_kernel", entry::kho_kernel);
}

#[test]
fn kho_blob() {
    run("kho_blob", entry::kho_blob);
}

#[test]
fn kho_tree() {
    run("kho_tree", entry::kho_tree);
}

#[test]
fn manifest() {
    run("manifest", entry::manifest);
}

#[test]
fn initrd() {
    run("initrd", entry::initrd);
}

#[test]
fn gzip() {
    run("gzip", entry::decompress);
}

#[test]
fn bzip2() {
    run("bzip2", entry::decompress);
}

#[test]
fn lzma() {
    run("lzma", entry::decompress);
}

#[test]
fn xz() {
    run("xz", entry::decompress);
}

#[test]
fn zstd() {
    run("zstd", entry::decompress);
}

#[test]
fn lz4() {
    run("lz4", entry::decompress);
}

#[test]
fn boot_entry() {
    run("boot_entry", entry_boot::boot_entry);
}

#[test]
fn loader_conf() {
    run("loader_conf", entry_boot::loader_conf);
}

#[test]
fn grubenv() {
    run("grubenv", entry_boot::grubenv);
}

#[test]
fn default_kexec() {
    run("default_kexec", entry_boot::default_kexec);
}

#[test]
fn grub_cfg() {
    run("grub_cfg", entry_boot::grub_cfg);
}

#[test]
fn extlinux() {
    run("extlinux", entry_boot::extlinux);
}

#[test]
fn gpt() {
    run("gpt", entry_machine::gpt);
}

#[test]
fn efi_tables() {
    run("efi_tables", entry_machine::efi_tables);
}

#[test]
fn mounts() {
    run("mounts", entry_machine::mounts);
}
