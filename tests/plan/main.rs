//! What holds of every plan, on random machines and for random requests.
//!
//! The machines come with the truth about themselves, which no code of the
//! library had a hand in: where segments may go, and what the next kernel is to
//! be told. Plans are looked at as the next kernel will see them, by reading
//! physical addresses out of the segments.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may stop at what it did not expect, and knows its numbers"
)]

mod carry;
#[path = "../common/mod.rs"]
mod common;
mod machine;
mod multiboot;
mod next_kernel;
mod taken;

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rkexec::base::{PhysRange, Syscall};
use rkexec::carry::Capability;
use rkexec::cmdline::{CmdlineBase, CmdlineRequest};
use rkexec::image::LinuxKernel;
use rkexec::image::linux::Format;
use rkexec::image::{Image, probe};
use rkexec::layout::Role;
use rkexec::memory::MapPolicy;
use rkexec::plan::{Given, Plan, PlanError, plan};
use rkexec::request::{LoadRequest, SyscallChoice};

use common::bzimage::{TinyBzImage, field};
use common::elf::{self, Load, TinyElf};
use machine::{Machine, any_machine};
use next_kernel::NextKernel;

/// xloadflags of an image that must stay below 4 GiB.
const BELOW_4G: u16 = 0x7d;
/// xloadflags of an image that is entered in 32-bit mode.
const NO_64_BIT_ENTRY: u16 = 0x7e;

#[derive(Clone)]
struct Wish {
    image: Vec<u8>,
    /// The kernel that the loader finds in the image, where it places that itself.
    inside: Option<Vec<u8>>,
    initrds: Vec<Vec<u8>>,
    request: LoadRequest,
}

impl fmt::Debug for Wish {
    /// What a failed test has to show, and no more.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<usize> = self.initrds.iter().map(Vec::len).collect();
        writeln!(f, "\ninitrds {sizes:?}\n{:#?}", self.request)?;
        match probe(&self.image) {
            Ok(Image::Linux(image)) => writeln!(f, "{:?} {:?}", image.geometry, image.x86),
            other => writeln!(f, "{other:?}"),
        }
    }
}

/// A kernel's file, and the kernel in it that the loader places itself.
fn any_image() -> impl Strategy<Value = (Vec<u8>, Option<Vec<u8>>)> {
    prop_oneof![
        3 => any_bzimage().prop_map(|file| (file, None)),
        1 => any_vmlinux().prop_map(|file| (file.clone(), Some(file))),
        1 => any_vmlinux().prop_map(|inside| {
            (TinyBzImage::holding(&inside).build(), Some(inside))
        }),
    ]
}

/// Relocation lists for values in the first page of a kernel.
fn any_relocations() -> impl Strategy<Value = [Option<Vec<u64>>; 3]> {
    // Values do not overlap.
    let list = |from: u64| {
        vec(0..0x80_u64, 0..5).prop_map(move |at| {
            let places = BTreeSet::from_iter(at);
            Vec::from_iter(places.into_iter().map(|at| from + at * 8))
        })
    };
    let inverse = prop::option::of(list(0x400));
    (list(0), inverse, list(0x900))
        .prop_map(|(wide, inverse, narrow)| [Some(wide), inverse, Some(narrow)])
}

/// A vmlinux linked anywhere, with its loads apart or side by side, and with relocation
/// lists or without.
fn any_vmlinux() -> impl Strategy<Value = Vec<u8>> {
    let load = (1..0x3000_usize, 0..0x4000_u64, 0..0x30_u64);
    let lists = prop::option::of(any_relocations());
    (
        1..40_u64,
        prop::collection::vec(load, 1..5),
        0..0x1000_u64,
        lists,
    )
        .prop_map(|(base, loads, entry, lists)| {
            let mut image = TinyElf::vmlinux();
            let base = base << 21;
            let mut code = image.loads[0].bytes.clone();
            code.truncate(0x1000);
            image.loads = vec![Load::at(base, 0x1000, &code)];
            image.entry = base + entry;
            let mut at = base + 0x1000;
            for (bytes, beyond, gap) in loads {
                at += gap << 12;
                let size = bytes as u64 + beyond;
                image.loads.push(Load::at(at, size, &vec![7; bytes]));
                at = (at + size).next_multiple_of(0x1000);
            }
            let mut file = image.build();
            if let Some([wide, inverse, narrow]) = lists {
                let of = |list: Option<Vec<u64>>| {
                    // They are counted from where the tiny kernel is linked.
                    list.map(|list| {
                        Vec::from_iter(
                            list.iter()
                                .map(|at| at.wrapping_add(base.wrapping_sub(elf::BASE))),
                        )
                    })
                };
                let (wide, narrow) = (of(wide).unwrap(), of(narrow).unwrap());
                file.extend(elf::relocations(&wide, of(inverse).as_deref(), &narrow));
            }
            file
        })
}

fn any_bzimage() -> impl Strategy<Value = Vec<u8>> {
    let pref = prop_oneof![
        4 => Just(0x100_0000_u64),
        1 => Just(0x10_0000),
        1 => 0..0x1_0000_0000_u64,
    ];
    (
        (1..8_usize).prop_map(|n| n * 0x510),
        0x4000..0x400_0000_u32,
        0..20_u32,
        pref,
        prop_oneof![5 => Just(0x7f), 2 => Just(BELOW_4G), 2 => Just(NO_64_BIT_ENTRY)],
        prop::bool::weighted(0.9),
    )
        .prop_map(|(size, init_size, shift, pref, xloadflags, relocatable)| {
            let image = TinyBzImage::new(size)
                .u32(field::INIT_SIZE, init_size)
                .u32(field::KERNEL_ALIGNMENT, 0x40 << shift)
                .u64(field::PREF_ADDRESS, pref)
                .u8(field::RELOCATABLE_KERNEL, u8::from(relocatable))
                // What is no loader's value must not leak into boot_params.
                .u32(field::RAMDISK_IMAGE, 0xdead_beef)
                .u32(field::RAMDISK_SIZE, 0xdead_beef)
                .u64(field::SETUP_DATA, 0xdead_beef);
            image.u16(field::XLOADFLAGS, xloadflags).build()
        })
}

fn any_request() -> impl Strategy<Value = LoadRequest> {
    let address = || prop_oneof![0..0x2000_0000_u64, 0..0x100_0000_0000_u64];
    (
        prop::collection::vec(prop_oneof![8 => b' '..=b'~', 1 => 0x80..=0xff_u8], 0..40),
        prop::option::weighted(0.2, address()),
        prop::option::weighted(0.2, address()),
        prop::option::of(any::<[u8; 32]>()),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(line, mem_min, mem_max, seed, firmware, kmem, no_digest)| LoadRequest {
                cmdline: CmdlineRequest {
                    base: CmdlineBase::Given(line.into()),
                    ..CmdlineRequest::default()
                },
                syscall: SyscallChoice::Only(Syscall::KexecLoad),
                memory_map: if firmware {
                    MapPolicy::Firmware
                } else {
                    MapPolicy::FixedUp
                },
                include_driver_managed: kmem
                    .then(|| "kmem".to_owned())
                    .into_iter()
                    .collect::<BTreeSet<_>>(),
                mem_min,
                mem_max,
                no_digest,
                seed,
                ..LoadRequest::default()
            },
        )
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let size = prop_oneof![0..20_usize, 4090..4100_usize, 0..20_000_usize];
    let initrds = vec((size, any::<u8>()), 0..4).prop_map(|files| {
        files
            .into_iter()
            .map(|(size, fill)| vec![fill; size])
            .collect()
    });
    (any_image(), initrds, any_request()).prop_map(|((image, inside), initrds, request)| Wish {
        image,
        inside,
        initrds,
        request,
    })
}

/// What asks for that command line.
fn line(line: &str) -> CmdlineRequest {
    CmdlineRequest {
        base: CmdlineBase::Given(line.into()),
        ..CmdlineRequest::default()
    }
}

/// Runs `case` with random machines and wishes. It says whether there was a plan,
/// and of a third of the cases there must be.
fn of_any_machine<W: fmt::Debug>(
    cases: u32,
    wishes: impl Strategy<Value = W>,
    case: impl Fn(Machine, W) -> Result<bool, TestCaseError>,
) {
    of_these_machines(cases, any_machine(), wishes, case);
}

/// The same with these `machines`.
fn of_these_machines<W: fmt::Debug>(
    cases: u32,
    machines: impl Strategy<Value = Machine>,
    wishes: impl Strategy<Value = W>,
    case: impl Fn(Machine, W) -> Result<bool, TestCaseError>,
) {
    let (made, all) = (Cell::new(0), Cell::new(0));
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let result = runner.run(&(machines, wishes), |(machine, wish)| {
        all.set(all.get() + 1);
        made.set(made.get() + u32::from(case(machine, wish)?));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}\n{runner}");
    }
    let (made, all) = (made.get(), all.get());
    assert!(made * 3 > all, "only {made} of {all} cases made a plan");
}

/// What may be wrong with a request on a machine, and nothing else.
fn refused(error: &PlanError) -> Result<bool, TestCaseError> {
    match error {
        PlanError::Place(_) | PlanError::TooLarge { .. } => Ok(false),
        error => Err(TestCaseError::fail(error.to_string())),
    }
}

#[test]
fn every_plan_keeps_the_rules() {
    of_any_machine(300, any_wish(), |machine, wish| {
        let files: Vec<&[u8]> = wish.initrds.iter().map(Vec::as_slice).collect();
        let image = probe(&wish.image).unwrap();
        let (request, host) = (&wish.request, &machine.host);
        let plan = || {
            plan(
                request,
                host,
                &image,
                &Given::initrds(&files),
                Capability::unknown,
            )
        };
        match plan() {
            Ok(made) => {
                check(&made, &machine, &wish, &image)?;
                same(&made, &plan().unwrap())?;
                Ok(true)
            }
            Err(error) => refused(&error),
        }
    });
}

fn check(
    plan: &Plan<'_>,
    machine: &Machine,
    wish: &Wish,
    image: &Image<'_>,
) -> Result<(), TestCaseError> {
    let inside = wish.inside.as_ref().map(|file| probe(file).unwrap());
    let file = image.linux().unwrap();
    let image = inside.as_ref().and_then(Image::linux).unwrap_or(file);
    let request = &wish.request;
    let firmware = request.memory_map == MapPolicy::Firmware;
    let kmem = !request.include_driver_managed.is_empty();

    // The map is the truth.
    prop_assert_eq!(&plan.told, &machine.told(firmware, kmem));
    let usable = machine.usable(firmware);

    // The segments lie where they may.
    prop_assert!(plan.segments().len() <= 16);
    for pair in plan.segments().windows(2) {
        prop_assert!(pair[0].mem.end() <= pair[1].mem.start());
    }
    let (min, max) = (
        request.mem_min.unwrap_or(0).max(0x10_0000),
        request.mem_max.unwrap_or(u64::MAX),
    );
    let above_4g = file.reaches_above_4g();
    for segment in plan.segments() {
        let mem = segment.mem;
        prop_assert_eq!((mem.start() % 4096, mem.end() % 4096), (0, 0));
        prop_assert!(segment.buf.len() as u64 <= mem.size());
        prop_assert!(!segment.buf.is_empty());
        prop_assert!(min <= mem.start() && mem.end() <= max, "{:?}", mem);
        // 64 TiB is what the decompressor reaches with 4-level paging.
        let reach = if above_4g { 1 << 46 } else { 1 << 32 };
        prop_assert!(mem.end() <= reach, "{:?}", mem);
        // 896 MiB is what a 32-bit kernel maps for good.
        if segment.role == Role::Kernel && image.is_32_bit() {
            prop_assert!(mem.end() <= 0x3800_0000, "{:?}", mem);
        }
        if segment.role == Role::Initrd && !above_4g {
            prop_assert!(mem.end() <= image.initrd_end);
        }
        prop_assert!(
            usable.iter().any(|ram| ram.covers(mem)),
            "{} at {mem:?} is not in the RAM that may be used",
            segment.role.name()
        );
        for excluded in &plan.excluded {
            prop_assert!(!excluded.range.overlaps(mem));
        }
        prop_assert!(
            plan.told
                .iter()
                .any(|(range, kind)| kind.is_ram() && range.covers(mem)),
            "the next kernel is not told that {mem:?} is RAM"
        );
    }

    let kernel = check_kernel(plan, image)?;
    let next = NextKernel::boot(plan);
    check_entry(plan, &next, kernel, image, wish)?;
    check_told(plan, &next, wish)?;
    check_digests(plan, &next, request)?;
    prop_assert_eq!(next.protected_mode, image.is_32_bit());
    prop_assert_eq!(next.leaves_stamps, machine.host.cpu.steady_tsc);

    // The last choice is taken only when it is, and then it is said.
    let in_last_choice = plan
        .segments()
        .iter()
        .any(|s| machine.hot_added().any(|ram| ram.overlaps(s.mem)));
    let said = plan
        .warnings
        .iter()
        .any(|warning| warning.contains("added since boot"));
    prop_assert_eq!(in_last_choice, said);
    Ok(())
}

/// The kernel runs where it wants. Gives its place.
fn check_kernel(plan: &Plan<'_>, image: &LinuxKernel<'_>) -> Result<PhysRange, TestCaseError> {
    let segments = plan.segments().iter();
    let of_kernel = segments.filter(|segment| segment.role == Role::Kernel);
    let geometry = &image.geometry;
    let parts: Vec<PhysRange> = of_kernel.map(|segment| segment.mem).collect();
    prop_assert_eq!(parts.len(), image.loads.len());
    for pair in parts.windows(2) {
        prop_assert_eq!(pair[0].end(), pair[1].start());
    }
    let kernel = PhysRange::from_bounds(parts[0].start(), parts[parts.len() - 1].end()).unwrap();
    prop_assert!(kernel.start() >= geometry.floor);
    prop_assert_eq!(kernel.start() % geometry.align, 0);
    prop_assert!(kernel.size() >= geometry.size);
    if geometry.fixed {
        prop_assert_eq!(kernel.start(), geometry.floor);
    }
    Ok(kernel)
}

/// It is entered at its entry point, and is what its file says.
fn check_entry(
    plan: &Plan<'_>,
    next: &NextKernel,
    kernel: PhysRange,
    image: &LinuxKernel<'_>,
    wish: &Wish,
) -> Result<(), TestCaseError> {
    if image.format == Format::BzImage {
        let entry = if image.is_32_bit() { 0 } else { 0x200 };
        prop_assert_eq!(next.kernel_entry, kernel.start() + entry);
        if image.is_32_bit() {
            prop_assert_eq!((next.loaded_high, next.code32_start), (1, kernel.start()));
        }
        prop_assert_eq!(next.setup_header_of_image(), next_header(&wish.image));
    } else {
        let inside = wish.inside.as_ref().unwrap();
        let (entry, mut bytes) = next_kernel::of_elf(inside);
        let placement = plan.placement().unwrap();
        prop_assert_eq!(placement.physical, kernel.start());
        let linked = elf::START_KERNEL_MAP + image.geometry.floor;
        let delta = placement.virtual_address - linked;
        prop_assert_eq!(delta % 0x20_0000, 0);
        prop_assert!(placement.randomized || delta == 0);
        // What the kernel maps of itself.
        prop_assert!(image.geometry.floor + delta + image.geometry.size <= 1 << 30);
        prop_assert_eq!(next.kaslr, placement.randomized);
        next_kernel::relocate(&mut bytes, inside, linked, delta);
        prop_assert_eq!(next.kernel_entry, kernel.start() + entry);
        let loaded = next.memory.read(kernel.start(), bytes.len() as u64);
        prop_assert!(loaded == bytes, "the kernel is not what its PT_LOADs say");
    }
    Ok(())
}

/// It finds everything by the addresses it is given.
fn check_told(plan: &Plan<'_>, next: &NextKernel, wish: &Wish) -> Result<(), TestCaseError> {
    let request = &wish.request;
    prop_assert_eq!(&next.e820, &plan.told);
    prop_assert_eq!(&next.cmdline[..], plan.cmdline.as_bstr());
    prop_assert_eq!(&next.initrd, &stream(&wish.initrds));
    prop_assert_eq!(next.seed, request.seed);
    let kinds: Vec<&str> = plan.tables().iter().map(|node| node.kind).collect();
    let mut expected = Vec::new();
    if plan.told.len() > 128 {
        expected.push("E820_EXT");
    }
    if request.seed.is_some() {
        expected.push("RNG_SEED");
    }
    // The time stamps, and the record.
    expected.extend(next.leaves_stamps.then_some("NONE"));
    expected.push("NONE");
    prop_assert_eq!(kinds, expected);
    Ok(())
}

/// Everything but purgatory is digested, unless that is not wanted.
fn check_digests(
    plan: &Plan<'_>,
    next: &NextKernel,
    request: &LoadRequest,
) -> Result<(), TestCaseError> {
    let digested: Vec<PhysRange> = next.digested.iter().map(|(range, _)| *range).collect();
    let others: Vec<PhysRange> = plan
        .segments()
        .iter()
        .filter(|segment| segment.role != Role::Purgatory && !request.no_digest)
        .map(|s| PhysRange::new(s.mem.start(), s.buf.len() as u64).unwrap())
        .collect();
    let sorted: BTreeSet<_> = digested.iter().collect();
    prop_assert_eq!(sorted, others.iter().collect::<BTreeSet<_>>());
    prop_assert_eq!(digested.len(), others.len());
    for (range, digest) in &next.digested {
        prop_assert_eq!(
            *digest,
            next_kernel::digest(&next.memory.read(range.start(), range.size()))
        );
    }
    prop_assert_eq!(next.verifies, !request.no_digest);
    Ok(())
}

/// The initrds as the kernel's unpacker wants them, without the padding at the end.
fn stream(files: &[Vec<u8>]) -> Vec<u8> {
    let mut stream = Vec::new();
    for file in files {
        stream.extend(file);
        stream.resize(stream.len().next_multiple_of(4), 0);
    }
    stream
}

/// What of the image's header no loader writes to.
fn next_header(image: &[u8]) -> Vec<u8> {
    next_kernel::image_fields(image)
}

fn same(a: &Plan<'_>, b: &Plan<'_>) -> Result<(), TestCaseError> {
    prop_assert_eq!(a.decision(), b.decision());
    prop_assert_eq!(a.entry(), b.entry());
    prop_assert_eq!(&a.memory_map, &b.memory_map);
    prop_assert_eq!(&a.told, &b.told);
    prop_assert_eq!(&a.excluded, &b.excluded);
    prop_assert_eq!(a.tables(), b.tables());
    prop_assert_eq!(&a.warnings, &b.warnings);
    prop_assert_eq!(a.segments().len(), b.segments().len());
    for (a, b) in a.segments().iter().zip(b.segments()) {
        prop_assert_eq!((a.role, a.mem, &a.rule), (b.role, b.mem, &b.rule));
        prop_assert!(a.buf == b.buf);
    }
    Ok(())
}

/// The seed changes bytes and no place, so that a plan can be shown beforehand.
#[test]
fn the_seed_moves_nothing() {
    let machine =
        common::host::host("00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n");
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let with = |fill| {
        let request = LoadRequest {
            seed: Some([fill; 32]),
            ..LoadRequest::default()
        };
        plan(
            &request,
            &machine,
            &image,
            &Given::default(),
            Capability::unknown,
        )
        .unwrap()
    };
    let (a, b) = (with(1), with(2));
    let places = |plan: &Plan<'_>| -> Vec<_> {
        plan.segments()
            .iter()
            .map(|s| (s.role, s.mem, s.buf.len()))
            .collect()
    };
    assert_eq!(places(&a), places(&b));
    let differ: Vec<Role> = a
        .segments()
        .iter()
        .zip(b.segments())
        .filter(|(a, b)| a.buf != b.buf)
        .map(|(a, _)| a.role)
        .collect();
    assert_eq!(differ.len(), 2, "{differ:?}");
    assert!(differ.contains(&Role::SetupData) && differ.contains(&Role::Purgatory));
}
