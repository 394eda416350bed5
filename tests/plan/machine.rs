//! Random machines that come with the truth about themselves.

use std::fmt::{self, Write as _};

use proptest::collection::vec;
use proptest::prelude::*;
use rkexec::base::{PhysRange, Told};
use rkexec::host::Host;

use crate::common::host::{Says as _, host};

/// A stretch of memory, by how it came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Ram,
    /// RAM with the kernel and a crash kernel's reservation in its middle.
    RamWithCrashKernel,
    /// Reserved by the kernel in what the firmware calls RAM.
    ReservedSince,
    /// A type of the firmware.
    Typed(u32, &'static str),
    /// The same, with a dax device and RAM of the kmem driver in its second half.
    WithKmem(u32, &'static str),
    /// The same on an old kernel: plain System RAM.
    WithPlainRam(u32, &'static str),
    /// `memmap=nn!ss`: RAM for the firmware.
    LegacyPmem,
    LegacyPmemWithKmem,
    VirtioMem,
    /// A DIMM, and whether the firmware map was told of it.
    HotAdded(bool),
    /// `mem=`.
    Withheld,
    Device,
}

const TYPES: [(u32, &str); 8] = [
    (2, "Reserved"),
    (3, "ACPI Tables"),
    (4, "ACPI Non-volatile Storage"),
    (5, "Unusable memory"),
    (7, "Persistent Memory"),
    (12, "Persistent Memory (legacy)"),
    (13, "Unknown E820 type"),
    (0xefff_ffff, "Soft Reserved"),
];
/// Those in which a kmem device can be.
const FOR_KMEM: [(u32, &str); 2] = [(7, "Persistent Memory"), (0xefff_ffff, "Soft Reserved")];

fn any_what() -> impl Strategy<Value = What> {
    prop_oneof![
        8 => Just(What::Ram),
        2 => Just(What::RamWithCrashKernel),
        2 => Just(What::ReservedSince),
        4 => prop::sample::select(&TYPES[..]).prop_map(|(kind, name)| What::Typed(kind, name)),
        1 => prop::sample::select(&FOR_KMEM[..]).prop_map(|(kind, name)| What::WithKmem(kind, name)),
        1 => Just(What::WithPlainRam(7, "Persistent Memory")),
        1 => Just(What::LegacyPmem),
        1 => Just(What::LegacyPmemWithKmem),
        1 => Just(What::VirtioMem),
        1 => any::<bool>().prop_map(What::HotAdded),
        1 => Just(What::Withheld),
        1 => Just(What::Device),
    ]
}

/// Sizes from a page to a TiB, in pages.
fn any_pages() -> impl Strategy<Value = u64> {
    prop_oneof![3..16_u64, 3..0x1000_u64, 3..0x10_0000_u64, Just(1 << 28),]
}

#[derive(Debug, Clone)]
struct Block {
    /// Whole pages in front of it.
    gap: u64,
    /// Bytes by which it starts behind and ends before a page boundary.
    ragged: (u64, u64),
    pages: u64,
    what: What,
}

/// What is true of a range.
#[derive(Debug, Clone)]
struct Truth {
    range: PhysRange,
    /// Type told to the next kernel.
    told: Option<u32>,
    /// The same with `--include-driver-managed kmem`.
    told_with_kmem: Option<u32>,
    /// Type of the firmware.
    firmware: Option<u32>,
    usable: bool,
    hot_added: bool,
}

/// A machine, and the truth about it.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) host: Host,
    truth: Vec<Truth>,
}

fn any_block() -> impl Strategy<Value = Block> {
    let edge = || prop_oneof![4 => Just(0), 1 => (1..4_u64).prop_map(|n| n * 0x400)];
    let gap = prop_oneof![3 => Just(0), 1 => 1..64_u64];
    (gap, (edge(), edge()), any_pages(), any_what()).prop_map(|(gap, ragged, pages, what)| Block {
        gap,
        ragged,
        pages,
        what,
    })
}

pub(crate) fn any_machine() -> impl Strategy<Value = Machine> {
    let blocks = prop_oneof![
        2 => vec(any_block(), 1..20),
        1 => vec(any_block(), 150..260),
    ];
    (blocks, any::<bool>()).prop_map(|(blocks, low)| Machine::new(&blocks, low))
}

/// A machine with a GiB of RAM at the start, and whatever else.
pub(crate) fn any_roomy_machine() -> impl Strategy<Value = Machine> {
    let blocks = prop_oneof![
        2 => vec(any_block(), 0..20),
        1 => vec(any_block(), 150..260),
    ];
    let first = Block {
        gap: 0,
        ragged: (0, 0),
        pages: 1 << 18,
        what: What::Ram,
    };
    blocks.prop_map(move |mut blocks| {
        blocks.insert(0, first.clone());
        Machine::new(&blocks, true)
    })
}

/// A machine whose RAM below 4 GiB is small blocks: scratch memory is often two regions.
pub(crate) fn any_cramped_machine() -> impl Strategy<Value = Machine> {
    let block = |gap, pages, what| Block {
        gap,
        ragged: (0, 0),
        pages,
        what,
    };
    // 80 MiB to 400 MiB each, and 2 GiB to 32 GiB above or nothing.
    let low = vec(20_000..100_000_u64, 3..8);
    let above = prop::option::weighted(0.6, (1_u64 << 19)..(1 << 23));
    (low, above).prop_map(move |(low, above)| {
        let low = low.into_iter().flat_map(|pages| {
            let kept = block(0, 256, What::Typed(2, "Reserved"));
            [block(0, pages, What::Ram), kept]
        });
        let above = above.map(|pages| block(1 << 20, pages, What::Ram));
        Machine::new(&low.chain(above).collect::<Vec<_>>(), true)
    })
}

impl fmt::Debug for Machine {
    /// What a failed test has to show, and no more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.host.iomem)?;
        for region in self.host.firmware_map.iter().flatten() {
            writeln!(f, "firmware {} {}", region.range, region.name)?;
        }
        Ok(())
    }
}

impl Machine {
    fn new(blocks: &[Block], low: bool) -> Self {
        let mut build = Build::default();
        if low {
            // As on every PC.
            build.add(0, 0xfff, What::ReservedSince);
            build.add(0x1000, 0x9_fbff, What::Ram);
            build.add(0x9_fc00, 0x9_ffff, What::Typed(2, "Reserved"));
        }
        let mut at = 0x10_0000;
        for (index, block) in blocks.iter().enumerate() {
            // There is no machine without any RAM at boot.
            let what = if index == 0 && !low {
                What::Ram
            } else {
                block.what
            };
            let start = at + block.gap * 4096 + block.ragged.0;
            at += (block.gap + block.pages) * 4096;
            build.add(start, at - block.ragged.1 - 1, what);
        }
        let mut host = host(&build.iomem)
            .boot_e820(build.boot)
            .firmware(build.firmware);
        let ram = build.truth.iter().filter(|truth| truth.usable);
        host.total_ram = ram.map(|truth| truth.range.size()).sum();
        host.cpu.steady_tsc = blocks.len().is_multiple_of(2);
        Self {
            host,
            truth: build.truth,
        }
    }

    /// What the next kernel is to be told, neighbours of one type joined.
    pub(crate) fn told(&self, firmware: bool, kmem: bool) -> Vec<(PhysRange, Told)> {
        let mut told: Vec<(PhysRange, Told)> = Vec::new();
        for truth in &self.truth {
            let kind = if firmware {
                truth.firmware
            } else if kmem {
                truth.told_with_kmem
            } else {
                truth.told
            };
            let Some(kind) = kind.map(Told) else {
                continue;
            };
            match told.last_mut() {
                Some((last, before)) if last.end() == truth.range.start() && *before == kind => {
                    *last = PhysRange::from_bounds(last.start(), truth.range.end()).unwrap();
                }
                _ => told.push((truth.range, kind)),
            }
        }
        told
    }

    /// Where segments may go, neighbours joined.
    pub(crate) fn usable(&self, firmware: bool) -> Vec<PhysRange> {
        let mut usable: Vec<PhysRange> = Vec::new();
        for truth in &self.truth {
            if !truth.usable || (firmware && truth.firmware != Some(1)) {
                continue;
            }
            match usable.last_mut() {
                Some(last) if last.end() == truth.range.start() => {
                    *last = PhysRange::from_bounds(last.start(), truth.range.end()).unwrap();
                }
                _ => usable.push(truth.range),
            }
        }
        usable
    }

    /// Where they may go when nothing else is left.
    pub(crate) fn hot_added(&self) -> impl Iterator<Item = PhysRange> {
        self.truth
            .iter()
            .filter(|truth| truth.hot_added)
            .map(|truth| truth.range)
    }
}

/// The three sources and the truth, being written.
#[derive(Default)]
struct Build {
    iomem: String,
    firmware: Vec<(u64, u64, &'static str)>,
    boot: Vec<(u64, u64, u32)>,
    truth: Vec<Truth>,
}

impl Build {
    fn line(&mut self, depth: usize, start: u64, last: u64, name: &str) {
        let indent = 2 * depth;
        writeln!(self.iomem, "{:indent$}{start:08x}-{last:08x} : {name}", "").unwrap();
    }

    fn firmware(&mut self, start: u64, last: u64, kind: u32, name: &'static str) {
        self.firmware.push((start, last, name));
        self.boot.push((start, last, kind));
    }

    fn truth(
        &mut self,
        start: u64,
        last: u64,
        told: Option<u32>,
        firmware: Option<u32>,
    ) -> &mut Truth {
        self.truth.push(Truth {
            range: PhysRange::from_inclusive(start, last).unwrap(),
            told,
            told_with_kmem: told,
            firmware,
            usable: false,
            hot_added: false,
        });
        self.truth.last_mut().unwrap()
    }

    fn add(&mut self, start: u64, last: u64, what: What) {
        const RAM: &str = "System RAM";
        let half = (start + (last - start) / 2) & !0xfff;
        match what {
            What::Ram => {
                self.line(0, start, last, RAM);
                self.firmware(start, last, 1, RAM);
                self.truth(start, last, Some(1), Some(1)).usable = true;
            }
            What::RamWithCrashKernel => {
                self.line(0, start, last, RAM);
                self.line(1, start, half - 1, "Kernel code");
                self.line(1, half, half + 0xfff, "Crash kernel");
                self.firmware(start, last, 1, RAM);
                self.truth(start, half - 1, Some(1), Some(1)).usable = true;
                self.truth(half, half + 0xfff, Some(1), Some(1));
                if half + 0x1000 <= last {
                    self.truth(half + 0x1000, last, Some(1), Some(1)).usable = true;
                }
            }
            What::ReservedSince => {
                self.line(0, start, last, "Reserved");
                self.firmware(start, last, 1, RAM);
                self.truth(start, last, Some(2), Some(1));
            }
            What::Typed(kind, name) => {
                self.line(0, start, last, name);
                self.firmware(start, last, kind, name);
                self.truth(start, last, Some(kind), Some(kind));
            }
            What::WithKmem(kind, name) | What::WithPlainRam(kind, name) => {
                let plain = matches!(what, What::WithPlainRam(..));
                self.line(0, start, last, name);
                self.line(1, start, last, "dax0.0");
                self.line(2, half, last, if plain { RAM } else { "System RAM (kmem)" });
                self.firmware(start, last, kind, name);
                self.truth(start, half - 1, Some(kind), Some(kind));
                self.truth(half, last, Some(kind), Some(kind))
                    .told_with_kmem = Some(1);
            }
            What::LegacyPmem => {
                self.line(0, start, last, "Persistent Memory (legacy)");
                self.line(1, start, half - 1, "namespace0.0");
                self.firmware(start, last, 1, RAM);
                self.truth(start, last, Some(12), Some(1));
            }
            What::LegacyPmemWithKmem => {
                self.line(0, start, last, "Persistent Memory (legacy)");
                self.line(1, start, last, "dax1.0");
                self.line(2, half, last, "System RAM (kmem)");
                self.firmware(start, last, 1, RAM);
                self.truth(start, half - 1, Some(12), Some(1));
                self.truth(half, last, Some(12), Some(1)).told_with_kmem = Some(1);
            }
            What::VirtioMem => {
                self.line(0, start, last, "PCI Bus 0000:00");
                self.line(1, start, last, "virtio0");
                self.line(2, half, last, "System RAM (virtio_mem)");
            }
            What::HotAdded(known) => {
                self.line(0, start, last, RAM);
                if known {
                    self.firmware.push((start, last, RAM));
                }
                let truth = self.truth(start, last, Some(1), known.then_some(1));
                (truth.usable, truth.hot_added) = (true, true);
            }
            What::Withheld => {
                self.firmware(start, last, 1, RAM);
                self.truth(start, last, None, Some(1));
            }
            What::Device => self.line(0, start, last, "0000:00:1f.2"),
        }
    }
}
