//! Plans that carry files, read by a reader that follows addresses as the next kernel does.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use rkexec::base::PhysRange;
use rkexec::carry::{Capability, HandoverRequest, Pool, Protection, Reads};
use rkexec::image::probe;
use rkexec::layout::Role;
use rkexec::plan::{Carried, CarryError, Given, Plan, PlanError, plan};
use rkexec::request::{DirectChoice, LoadRequest};
use sha2::{Digest as _, Sha256};

use crate::common::bzimage::{TinyBzImage, field};
use crate::common::kho::{Found, Ram};
use crate::machine::{Machine, any_cramped_machine, any_roomy_machine};
use crate::next_kernel::{self, NextKernel};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;

#[derive(Clone)]
struct Wish {
    image: Vec<u8>,
    init_size: u64,
    direct: bool,
    initrd: Vec<u8>,
    files: Vec<Vec<u8>>,
    cpus: u64,
    line: String,
    mem_min: Option<u64>,
    has_pool: bool,
}

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<usize> = self.files.iter().map(Vec::len).collect();
        let (size, line) = (self.init_size, &self.line);
        writeln!(
            f,
            "files {sizes:?}, kernel {size:#x}, {line}, {} CPUs, from {:#x?} on, pool: {}",
            self.cpus, self.mem_min, self.has_pool
        )
    }
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let size = prop_oneof![
        3 => 0..20_000_usize,
        1 => Just(0),
        1 => Just(8192),
        1 => (1 << 20)..(5_usize << 20),
    ];
    let files = prop_oneof![4 => vec(size, 1..6), 1 => vec(0..5000_usize, 60..80)];
    let word = prop_oneof![
        3 => Just(""),
        1 => Just("kho=on"),
        1 => Just("crashkernel=200M"),
        1 => Just("memmap=64M$0x10000000"),
        1 => Just("nokaslr liveupdate=1"),
        1 => Just("crashkernel=64M@0x10000000"),
        1 => Just("crashkernel=100M,high"),
        1 => Just("default_hugepagesz=1G hugepages=1"),
        1 => Just("cma=64M@0-4G swiotlb=65536"),
    ];
    // Above the place of `memmap=`, and not on a page.
    let mem_min = prop_oneof![4 => Just(None), 1 => (MIB..64 * MIB).prop_map(Some)];
    let (init_size, initrd) = (1..0x400_u64, prop_oneof![Just(0), 1..100_000_usize]);
    let more = (mem_min, any::<bool>());
    (
        files,
        word,
        init_size,
        any::<bool>(),
        initrd,
        1..64_u64,
        more,
    )
        .prop_map(
            |(sizes, line, init_size, direct, initrd, cpus, (mem_min, has_pool))| {
                let init_size = init_size * 0x1_0000;
                let image = match direct {
                    true => TinyBzImage::direct().build(),
                    false => TinyBzImage::new(0x2000)
                        .u32(field::INIT_SIZE, init_size as u32)
                        .build(),
                };
                let files = sizes.iter().zip(1_usize..);
                let files = files.map(|(size, seed)| {
                    let bytes = (0..*size).map(|at| (at * seed + at / 251) as u8 | 1);
                    bytes.collect()
                });
                Wish {
                    image,
                    init_size,
                    direct,
                    initrd: vec![7; initrd],
                    files: files.collect(),
                    cpus,
                    line: format!("quiet {line}"),
                    mem_min,
                    has_pool,
                }
            },
        )
}

/// A kernel that reads what is written.
pub(crate) fn reads() -> Capability {
    let reads = |format: &str| Reads::One(format.to_owned());
    let mut target = Capability::unknown();
    target.kho.kho = reads("kho-v4");
    target.kho.luo = reads("luo-v5");
    target.kho.memfd = reads("memfd-v2");
    target.kho.memblock = reads("memblock-v1");
    target
}

fn carried(files: &[Vec<u8>]) -> Vec<Carried<'_>> {
    let files = files.iter().zip(1..);
    let named = files.map(|(bytes, number)| Carried {
        name: format!("file-{number}").into(),
        bytes,
    });
    named.collect()
}

/// A pool on RAM of boot that no word of the lines takes.
fn pool(machine: &Machine) -> Option<Pool> {
    let mut places = machine.usable(false).into_iter().filter_map(|ram| {
        let start = ram.start().max(0x1400_0000).next_multiple_of(2 * MIB);
        let place = PhysRange::new(start, 16 * MIB).ok()?;
        let is_added = machine.hot_added().any(|added| added.overlaps(place));
        (ram.covers(place) && !is_added).then_some(place)
    });
    let place = places.next()?;
    Some(Pool::new("pool", place, place.start()).unwrap())
}

#[test]
fn the_next_kernel_finds_the_files_and_nothing_else() {
    of_machines(150, any_roomy_machine());
}

#[test]
fn two_regions_of_scratch_memory_do_as_well() {
    let two = of_machines(100, any_cramped_machine());
    assert!(two > 10, "only {two} plans have two regions");
}

/// Checks plans for these machines, of which some have a pool, and says how many have two
/// regions of scratch memory.
fn of_machines(cases: u32, machines: impl Strategy<Value = Machine>) -> u32 {
    let (two, pools) = (Cell::new(0), Cell::new(0));
    crate::of_these_machines(cases, machines, any_wish(), |machine, wish| {
        let mut machine = machine;
        machine.host.possible_cpus = Some(wish.cpus);
        let image = probe(&wish.image).unwrap();
        let pool = wish.has_pool.then(|| pool(&machine)).flatten();
        let request = LoadRequest {
            cmdline: crate::line(&wish.line),
            seed: Some([wish.cpus as u8; 32]),
            direct: match wish.direct {
                true => DirectChoice::On,
                false => DirectChoice::Auto,
            },
            mem_min: wish.mem_min,
            handover: HandoverRequest {
                protect: pool.as_ref().map(|_| Protection::Kho),
                pools: pool.iter().cloned().collect(),
                ..HandoverRequest::default()
            },
            ..LoadRequest::default()
        };
        let (carried, initrds) = (carried(&wish.files), [&*wish.initrd]);
        let given = Given {
            initrds: &initrds,
            carried: &carried,
        };
        match plan(&request, &machine.host, &image, &given, reads) {
            Ok(plan) => {
                check(&plan, &machine, &wish, pool.as_ref())?;
                let regions = plan.kho.as_ref().unwrap().scratch.len();
                two.set(two.get() + u32::from(regions == 2));
                pools.set(pools.get() + u32::from(pool.is_some()));
                Ok(true)
            }
            Err(error) => may_be_refused(&error),
        }
    });
    assert!(
        pools.get() > cases / 20,
        "only {} plans have a pool",
        pools.get()
    );
    two.get()
}

fn may_be_refused(error: &PlanError) -> Result<bool, TestCaseError> {
    match error {
        PlanError::Place(_) | PlanError::TooLarge { .. } => Ok(false),
        PlanError::Carry(
            CarryError::NoScratch { .. } | CarryError::NoRoom(_) | CarryError::TooLarge { .. },
        ) => Ok(false),
        PlanError::TakenAway { error, .. } => may_be_refused(error),
        error => Err(TestCaseError::fail(error.to_string())),
    }
}

fn check(
    plan: &Plan<'_>,
    machine: &Machine,
    wish: &Wish,
    pool: Option<&Pool>,
) -> Result<(), TestCaseError> {
    let next = NextKernel::boot(plan);
    let node = next.kho.unwrap();
    let word = |at: u64| next.memory.number(node.start() + at, 8);
    // The tree and the list of scratch memory lie in the node, off which KASLR keeps.
    let (tree, list) = (
        PhysRange::new(word(0), word(8)).unwrap(),
        PhysRange::new(word(16), word(24)).unwrap(),
    );
    prop_assert!(node.covers(tree) && node.covers(list) && !tree.overlaps(list));
    let regions = (0..list.size() / 16).map(|number| {
        let at = list.start() + number * 16;
        PhysRange::new(next.memory.number(at, 8), next.memory.number(at + 8, 8)).unwrap()
    });
    let scratch: Vec<PhysRange> = regions.collect();
    check_scratch(plan, machine, &scratch)?;
    check_kaslr(plan, wish, &scratch)?;
    let bounds = wish.mem_min.unwrap_or(0);
    prop_assert!(plan.segments().iter().all(|it| it.mem.start() >= bounds));
    for kept in pool.iter().map(|pool| pool.range()) {
        prop_assert!(!scratch.iter().any(|region| region.overlaps(kept)));
        prop_assert!(!plan.segments().iter().any(|it| it.mem.overlaps(kept)));
    }

    let preserved = plan.segments().iter();
    let preserved = preserved.filter(|segment| segment.role == Role::Preserved);
    let pages = preserved.clone().flat_map(|segment| {
        let count = segment.mem.size() / PAGE;
        (0..count).map(|number| {
            let from = segment.buf.len().min((number * PAGE) as usize);
            let to = segment.buf.len().min(((number + 1) * PAGE) as usize);
            (segment.mem.start() + number * PAGE, &segment.buf[from..to])
        })
    });
    let ram = Ram::of(pages.clone());
    let found = Found::read(&next.memory.read(tree.start(), tree.size()), &ram);
    let named = |pool: &Pool| {
        let range = pool.range();
        ("pool".to_owned(), range.start(), range.size())
    };
    prop_assert_eq!(&found.pools, &Vec::from_iter(pool.map(named)));
    let [(session, files)] = &found.sessions[..] else {
        return Err(TestCaseError::fail("not one session"));
    };
    prop_assert_eq!(session, "rkexec");
    check_files(files, &ram, &wish.files)?;

    // What is preserved is what the reader went through, and the map is beside it.
    let blocks = found.map.iter();
    let mapped =
        blocks.flat_map(|(page, order)| (*page..page + (PAGE << order)).step_by(PAGE as usize));
    let mapped: BTreeSet<u64> = mapped.collect();
    let of_pool = pool.into_iter().flat_map(|pool| {
        let range = pool.range();
        (range.start()..range.end()).step_by(PAGE as usize)
    });
    let wanted: BTreeSet<u64> = found.kept.iter().copied().chain(of_pool).collect();
    prop_assert!(mapped == wanted);
    prop_assert!(mapped.is_disjoint(&found.map_pages));
    let loaded: BTreeSet<u64> = pages.map(|(page, _)| page).collect();
    let used: BTreeSet<u64> = found.kept.union(&found.map_pages).copied().collect();
    prop_assert!(loaded == used, "pages that nobody asked for");

    // Purgatory verifies all of it.
    for segment in preserved {
        let bytes = PhysRange::new(segment.mem.start(), segment.buf.len() as u64).unwrap();
        let digest = next.digested.iter().find(|(range, _)| *range == bytes);
        prop_assert_eq!(digest.unwrap().1, next_kernel::digest(&segment.buf));
    }
    let line = String::from_utf8(next.cmdline.clone()).unwrap();
    for parameter in ["kho=", "liveupdate="] {
        prop_assert_eq!(line.matches(parameter).count(), 1, "{}", line);
    }
    Ok(())
}

/// The regions are whole blocks of RAM of boot, and all but what is preserved lies in one.
fn check_scratch(
    plan: &Plan<'_>,
    machine: &Machine,
    scratch: &[PhysRange],
) -> Result<(), TestCaseError> {
    let kho = plan.kho.as_ref().unwrap();
    prop_assert_eq!(&kho.scratch[..], scratch);
    prop_assert!(scratch[0].end() <= 1 << 32);
    let usable = machine.usable(false);
    for region in scratch {
        prop_assert_eq!((region.start() | region.end()) % (4 << 20), 0);
        prop_assert!(usable.iter().any(|ram| ram.covers(*region)), "{region:?}");
        prop_assert!(!machine.hot_added().any(|added| added.overlaps(*region)));
        prop_assert!(!plan.excluded.iter().any(|it| it.range.overlaps(*region)));
    }
    prop_assert!(scratch.len() < 2 || !scratch[0].overlaps(scratch[1]));
    prop_assert!(plan.segments().len() <= 16);
    for segment in plan.segments() {
        let mem = segment.mem;
        if segment.role == Role::Preserved {
            prop_assert!(!scratch.iter().any(|region| region.overlaps(mem)));
            prop_assert!(usable.iter().any(|ram| ram.covers(mem)), "{mem:?}");
            prop_assert!(!machine.hot_added().any(|added| added.overlaps(mem)));
            prop_assert!(!plan.excluded.iter().any(|it| it.range.overlaps(mem)));
        } else {
            prop_assert!(scratch.iter().any(|region| region.covers(mem)), "{mem:?}");
        }
    }
    for pair in plan.segments().windows(2) {
        prop_assert!(pair[0].mem.end() <= pair[1].mem.start());
    }
    Ok(())
}

/// A kernel that unpacks itself finds a place at random: in the scratch memory, not below
/// the place where it was loaded or 512 MiB, and off everything that was loaded.
fn check_kaslr(plan: &Plan<'_>, wish: &Wish, scratch: &[PhysRange]) -> Result<(), TestCaseError> {
    let segments = plan.segments();
    let kernel = segments.iter().find(|it| it.role == Role::Kernel).unwrap();
    let (size, start) = (wish.init_size, kernel.mem.start());
    if wish.direct || wish.line.contains("nokaslr") {
        return Ok(());
    }
    let slots = scratch.iter().flat_map(|region| {
        let first = region.start().max(start.min(512 << 20));
        (first.next_multiple_of(2 << 20)..region.end().saturating_sub(size)).step_by(2 << 20)
    });
    let slots = slots.filter_map(|slot| PhysRange::new(slot, size).ok());
    let is_free = |slot: &PhysRange| !segments.iter().any(|it| it.mem.overlaps(*slot));
    let slots: Vec<PhysRange> = slots.filter(is_free).collect();
    prop_assert!(!slots.is_empty(), "no place for the kernel");
    if wish.line.contains("crashkernel=200M") {
        // Wherever it goes, a crash kernel's memory fits beside it.
        let others = segments.iter().filter(|it| it.role != Role::Kernel);
        let others: Vec<PhysRange> = others.map(|it| it.mem).collect();
        for slot in slots {
            let taken =
                |at: PhysRange| at.overlaps(slot) || others.iter().any(|it| it.overlaps(at));
            let mut places = scratch.iter().flat_map(|region| {
                let first = region.start().next_multiple_of(16 << 20);
                let places = (first..region.end()).step_by(16 << 20);
                let places = places.filter_map(|at| PhysRange::new(at, 200 << 20).ok());
                places.filter(|place| region.covers(*place))
            });
            prop_assert!(
                places.any(|place| !taken(place)),
                "with the kernel at {slot:?}"
            );
        }
    }
    Ok(())
}

/// The files have their bytes, with zeroes behind them, and the list says so.
fn check_files(
    found: &[(u64, u64, BTreeMap<u64, u64>)],
    ram: &Ram,
    files: &[Vec<u8>],
) -> Result<(), TestCaseError> {
    let bytes = |(_, size, pages): &(u64, u64, BTreeMap<u64, u64>)| {
        let numbers: Vec<u64> = pages.keys().copied().collect();
        assert_eq!(numbers, Vec::from_iter(0..size.div_ceil(PAGE)));
        let mut bytes = Vec::new();
        for page in pages.values() {
            bytes.extend_from_slice(ram.bytes(*page, 4096));
        }
        let tail = bytes.split_off(*size as usize);
        assert!(tail.iter().all(|byte| *byte == 0));
        bytes
    };
    let tokens: Vec<u64> = found.iter().map(|(token, ..)| *token).collect();
    prop_assert_eq!(tokens, Vec::from_iter(0..=files.len() as u64));
    let list: serde_json::Value = serde_json::from_slice(&bytes(&found[0])).unwrap();
    for (number, file) in files.iter().enumerate() {
        prop_assert!(bytes(&found[number + 1]) == *file, "file {number}");
        let listed = &list["files"][number];
        prop_assert_eq!(&listed["name"], &format!("file-{}", number + 1));
        prop_assert_eq!(&listed["size"], file.len());
        let digest: String = Sha256::digest(file)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        prop_assert_eq!(&listed["sha256"], &digest);
    }
    Ok(())
}
