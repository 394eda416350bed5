//! The fuzz targets on stable: every seed, every way to cut it short, and some
//! thousand mutations of it, always the same ones.

#[path = "../fuzz/entry.rs"]
mod entry;
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

/// Runs `target` over the seeds called `name` and what they can be turned into.
fn run(name: &str, target: fn(&[u8]) -> bool) {
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
