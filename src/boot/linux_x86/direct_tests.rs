//! Which kernels the loader places itself, and where.

use super::*;
use crate::carry::Capability;
use crate::image::{Image, probe};
use crate::layout::Role;
use crate::plan::{Checked, Given, Plan, PlanError, plan};
use crate::request::SyscallChoice;
use crate::testing::bzimage::{TinyBzImage, field};
use crate::testing::elf::{TinyElf, relocations};
use crate::testing::host::{Says as _, host, range};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Where Linux is linked, virtual.
const LINKED: u64 = START_KERNEL_MAP + 0x100_0000;

/// The tiny kernel in a bzImage, with relocation lists.
fn bzimage() -> TinyBzImage {
    let lists = relocations(&[0x1000], None, &[0x20]);
    TinyBzImage::holding(&[TinyElf::vmlinux().build(), lists].concat())
}

/// A machine of 4 GiB with a hole below the end, and a reservation in the middle.
fn machine() -> Host {
    host(
        "00001000-0009ffff : System RAM\n00100000-bfffffff : System RAM\n\
         100000000-13fffffff : System RAM\n  110000000-11fffffff : Reserved\n",
    )
    .boot_e820([
        (0x1000, 0x9_ffff, 1),
        (MIB, 3 * GIB - 1, 1),
        (4 * GIB, 5 * GIB - 1, 1),
    ])
}

fn request(seed: u64, line: &str) -> LoadRequest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut request = LoadRequest {
        syscall: SyscallChoice::Only(Syscall::KexecLoad),
        seed: Some(bytes),
        ..LoadRequest::default()
    };
    request.cmdline.append.push(line.into());
    request
}

fn planned<'a>(
    file: &'a [u8],
    request: &LoadRequest,
    host: &Host,
) -> Result<Checked<Plan<'a>>, PlanError> {
    let image: Image<'a> = probe(file).unwrap();
    plan(
        request,
        host,
        &image,
        &Given::default(),
        Capability::unknown,
    )
}

/// Where the kernel runs, and why.
fn outcome(file: &[u8], request: &LoadRequest, host: &Host) -> (Option<Placement>, String) {
    let plan = planned(file, request, host).unwrap();
    (plan.placement(), plan.direct.clone().unwrap())
}

#[test]
fn the_kernel_is_relocated_and_told_so() {
    let file = bzimage().build();
    let plan = planned(&file, &request(1, "quiet"), &machine()).unwrap();
    let placement = plan.placement().unwrap();
    assert!(placement.randomized);
    let first = |plan: &Plan<'_>| {
        let mut segments = plan.segments().iter();
        let kernel = segments
            .find(|segment| segment.role == Role::Kernel)
            .unwrap();
        let value = kernel.buf[0x1000..].first_chunk().unwrap();
        (kernel.mem.start(), u64::from_le_bytes(*value))
    };
    let still = planned(&file, &request(1, "nokaslr"), &machine()).unwrap();
    let ((at, value), (_, linked)) = (first(&plan), first(&still));
    assert_eq!(at, placement.physical);
    // The 64-bit value at 0x1000 has grown by as much as the kernel has moved.
    let moved = value.wrapping_sub(linked);
    assert_eq!(moved, placement.virtual_address - LINKED);
    assert_eq!(still.placement().unwrap().virtual_address, LINKED);
    let loadflags = |plan: &Plan<'_>| {
        let mut segments = plan.segments().iter();
        let params = segments
            .find(|segment| segment.role == Role::BootParams)
            .unwrap();
        params.buf[field::LOADFLAGS]
    };
    assert_eq!(loadflags(&plan), 1 << 1, "KASLR_FLAG");
    assert_eq!(loadflags(&still), 0);
}

/// The seed decides, and nothing else.
#[test]
fn the_same_seed_gives_the_same_place() {
    let file = bzimage().build();
    let of = |seed| {
        outcome(&file, &request(seed, "quiet"), &machine())
            .0
            .unwrap()
    };
    assert_eq!(of(7), of(7));
    assert_ne!(of(7), of(8));
}

/// Chi-square over `count` equal bins: below the value that chance exceeds once in 10,000.
#[track_caller]
fn is_uniform(bins: &[u32]) {
    let (total, count) = (f64::from(bins.iter().sum::<u32>()), bins.len() as f64);
    let expected = total / count;
    let chi: f64 = bins
        .iter()
        .map(|bin| (f64::from(*bin) - expected).powi(2) / expected)
        .sum();
    // Wilson-Hilferty, with the normal quantile 3.719.
    let degrees = count - 1.0;
    let limit =
        degrees * (1.0 - 2.0 / (9.0 * degrees) + 3.719 * (2.0 / (9.0 * degrees)).sqrt()).powi(3);
    assert!(chi < limit, "chi-square {chi} of {degrees}, above {limit}");
}

#[test]
fn places_spread_over_all_free_memory() {
    let file = bzimage().build();
    let host = machine();
    let image = probe(&file).unwrap();
    let kernel = image.linux().unwrap();
    // As planning does, without the digests of ten thousand plans.
    let map = crate::memory::MemoryMap::reconcile(
        &host,
        crate::memory::MapPolicy::FixedUp,
        &std::collections::BTreeSet::new(),
    );
    let taken = crate::layout::Excluded {
        range: range(GIB, GIB + 256 * MIB - 1),
        name: "memmap=256M$1G".to_owned(),
        reason: "a test",
    };
    let excluded = [taken];
    let (mut physical, mut virtual_) = (std::collections::BTreeMap::new(), vec![0_u32; 504]);
    for seed in 0..10_000 {
        let request = request(seed, "quiet");
        let line = b"quiet".as_bstr();
        let road = road(
            kernel,
            &request,
            &host,
            Syscall::KexecLoad,
            line,
            &map.told(),
        )
        .unwrap();
        let direct = road.direct.unwrap();
        let limits = super::super::limits(kernel, &host);
        let mut places = Places::new(&request, limits, &map, &excluded, None).unwrap();
        let (place, placement, _) = direct.place(&mut places).unwrap();
        assert!(place.start() >= 0x100_0000 && place.start().is_multiple_of(2 * MIB));
        assert!(
            !excluded.iter().any(|it| it.range.overlaps(place)),
            "{place}"
        );
        assert!(
            !range(0x1_1000_0000, 0x1_1fff_ffff).overlaps(place),
            "{place}"
        );
        assert!(!range(3 * GIB, 4 * GIB - 1).overlaps(place), "{place}");
        *physical.entry(place.start()).or_insert(0_u32) += 1;
        let slot = (placement.virtual_address - LINKED) / (2 * MIB);
        virtual_[usize::try_from(slot).unwrap()] += 1;
    }
    let size = kernel_size(kernel);
    let slots = |start: u64, end: u64| (end - size - start) / (2 * MIB) + 1;
    let expected = slots(0x100_0000, GIB)
        + slots(GIB + 256 * MIB, 3 * GIB)
        + slots(4 * GIB, 0x1_1000_0000)
        + slots(0x1_2000_0000, 5 * GIB);
    let mut bins: Vec<u32> = physical.into_values().collect();
    assert!(bins.len() as u64 <= expected);
    bins.resize(usize::try_from(expected).unwrap(), 0);
    is_uniform(&bins);
    // 1 GiB, less 16 MiB below and the kernel's size: (1024 - 16 - 4) / 2 and the first one.
    virtual_.truncate(usize::try_from((GIB - 0x100_0000 - size) / (2 * MIB) + 1).unwrap());
    is_uniform(&virtual_);
}

/// Memory that the kernel takes, whole pages.
fn kernel_size(kernel: &LinuxKernel<'_>) -> u64 {
    Unpacked::of(kernel).unwrap().geometry().size
}

#[test]
fn these_reasons_switch_kaslr_or_the_whole_of_it_off() {
    let file = bzimage().build();
    for (line, why) in [
        (
            "nokaslr",
            "it is unpacked before the downtime; nokaslr on its command line",
        ),
        (
            "movable_node",
            "movable_node on its command line: only its unpacker knows which memory can be unplugged",
        ),
    ] {
        let (placement, reason) = outcome(&file, &request(3, line), &machine());
        assert_eq!(reason, why);
        assert!(!placement.is_some_and(|place| place.randomized));
    }
    let plain = TinyBzImage::holding(&TinyElf::vmlinux().build()).build();
    let (placement, reason) = outcome(&plain, &request(3, ""), &machine());
    assert_eq!(
        reason,
        "it is unpacked before the downtime; it has no relocation lists, so no KASLR"
    );
    assert_eq!(placement.unwrap().virtual_address, LINKED);
}

#[test]
fn the_unpacker_runs_where_it_has_to() {
    let five_levels = Host {
        cpu: crate::host::cpu::Cpu {
            la57: true,
            ..Default::default()
        },
        ..machine()
    };
    let guest = Host {
        cpu: crate::host::cpu::Cpu {
            confidential: Some("tdx_guest"),
            ..Default::default()
        },
        ..machine()
    };
    let four_of_five = bzimage().u16(field::XLOADFLAGS, 0x3f).build();
    let thirty_two = bzimage().u16(field::XLOADFLAGS, 0).build();
    let whole = bzimage().build();
    for (file, host, line, says) in [
        (
            &whole,
            five_levels.clone(),
            "no5lvl",
            "only its unpacker can leave the 5-level paging",
        ),
        (
            &four_of_five,
            five_levels.clone(),
            "",
            "only its unpacker can leave the 5-level paging",
        ),
        (
            &whole,
            machine().cmdline("no5lvl"),
            "",
            "only the unpacker can switch 5-level paging on",
        ),
        (&whole, guest, "", "confidential guest (tdx_guest)"),
        (&thirty_two, machine(), "", "entered in 32-bit mode"),
    ] {
        let mut request = request(3, line);
        let (placement, reason) = outcome(file, &request, &host);
        assert_eq!(placement, None, "{reason}");
        assert!(reason.contains(says), "{reason}");
        request.direct = DirectChoice::On;
        let error = planned(file, &request, &host).unwrap_err().to_string();
        assert!(
            error.starts_with("--direct on is not possible: ") && error.contains(says),
            "{error}"
        );
    }
    // These are no reasons.
    for (host, line) in [(five_levels, ""), (machine().cmdline("no5lvl"), "no5lvl")] {
        assert!(outcome(&whole, &request(3, line), &host).0.is_some());
    }
    let off = LoadRequest {
        direct: DirectChoice::Off,
        ..request(3, "")
    };
    assert_eq!(
        outcome(&whole, &off, &machine()),
        (None, "--direct off".to_owned())
    );
}

#[test]
fn a_payload_that_is_not_understood_is_a_warning_and_with_on_an_error() {
    let file = TinyBzImage::new(0x1000).build();
    let mut request = request(3, "quiet");
    let plan = planned(&file, &request, &machine()).unwrap();
    assert_eq!(plan.placement(), None);
    assert_eq!(
        plan.warnings,
        [
            "no direct load, and the kernel unpacks itself: what the file unpacks to is no Linux kernel \
          in an ELF file"
        ]
    );
    request.direct = DirectChoice::On;
    assert!(planned(&file, &request, &machine()).is_err());
}

#[test]
fn a_damaged_payload_is_called_damaged() {
    let mut file = TinyBzImage::direct().build();
    // The size of what it unpacks to.
    *file.last_mut().unwrap() ^= 1;
    let plan = planned(&file, &request(3, "quiet"), &machine()).unwrap();
    let [warning] = &plan.warnings[..] else {
        panic!("{:?}", plan.warnings);
    };
    let said = "the kernel is damaged, and will probably stop while it unpacks itself: ";
    assert!(warning.starts_with(said), "{warning}");
}

#[test]
fn a_kernel_too_large_for_its_mapping_keeps_its_unpacker() {
    let mut elf = TinyElf::vmlinux();
    elf.loads[3].size = GIB - 0x100_0000;
    let lists = relocations(&[0x1000], None, &[0x20]);
    let file = TinyBzImage::holding(&[elf.build(), lists].concat()).build();
    let (placement, reason) = outcome(&file, &request(3, "quiet"), &machine());
    assert_eq!(placement, None);
    assert!(
        reason.ends_with("and maps no more than 0x40000000"),
        "{reason}"
    );
}

/// The kernel does not take the only place in which it fits beside the initrd.
#[test]
fn an_initrd_that_took_the_kernels_place_goes_elsewhere() {
    let host = host("00100000-01ffffff : System RAM\n03000000-033fffff : System RAM\n")
        .boot_e820([(MIB, 32 * MIB - 1, 1), (48 * MIB, 52 * MIB - 1, 1)]);
    let mut elf = TinyElf::vmlinux();
    elf.loads[3].size = 12 * MIB;
    let lists = relocations(&[0x1000], None, &[0x20]);
    let file = TinyBzImage::holding(&[elf.build(), lists].concat()).build();
    let image = probe(&file).unwrap();
    let initrd = vec![7; 15 << 20];
    let request = request(3, "quiet");
    let plan = plan(
        &request,
        &host,
        &image,
        &Given::initrds(&[&initrd]),
        Capability::unknown,
    )
    .unwrap();
    assert_eq!(plan.placement().unwrap().physical, 16 * MIB);
    let mut segments = plan.segments().iter();
    let initrd = segments.find(|segment| segment.role == Role::Initrd);
    assert!(initrd.unwrap().mem.end() <= 16 * MIB);
}

/// A vmlinux that keeps its relocation lists has KASLR, and another one says why not.
#[test]
fn a_vmlinux_has_kaslr_where_it_keeps_its_lists() {
    let plain = TinyElf::vmlinux().build();
    let lists = relocations(&[0x1000], None, &[0x20]);
    let with_lists = [plain.clone(), lists].concat();
    let (placement, _) = outcome(&with_lists, &request(3, ""), &machine());
    assert!(placement.unwrap().randomized);
    let (placement, reason) = outcome(&with_lists, &request(3, "movable_node"), &machine());
    assert!(
        !placement.unwrap().randomized && reason.contains("movable_node"),
        "{reason}"
    );
    let (placement, reason) = outcome(&plain, &request(3, ""), &machine());
    assert!(
        !placement.unwrap().randomized && reason.contains("no KASLR"),
        "{reason}"
    );
}

#[test]
fn gigabyte_pages_are_kept_free() {
    let told = [
        (range(0, 4 * GIB + 5 * MIB), Told::RAM),
        (range(5 * GIB + MIB, 9 * GIB), Told::RAM),
    ];
    let of = |line: &str| -> Vec<u64> {
        let pages = gigabyte_pages(line.into(), &told);
        assert!(pages.len() <= told.len());
        let numbers = |range: &PhysRange| range.start() / GIB..range.end() / GIB;
        pages.iter().flat_map(numbers).collect()
    };
    assert_eq!(of("hugepagesz=1G hugepages=6"), [0, 1, 2, 3, 6, 7]);
    assert_eq!(
        of("hugepagesz=1G hugepages=2 hugepagesz=2M hugepages=9"),
        [0, 1]
    );
    assert_eq!(of("hugepages=4"), [0_u64; 0]);
    assert_eq!(
        of("hugepagesz=1G hugepages=99999999999999"),
        [0, 1, 2, 3, 6, 7, 8]
    );
    assert_eq!(of("hugepagesz=1G"), [0_u64; 0]);
    // The kernel keeps off them, and takes one when there is nothing else.
    let file = bzimage().build();
    for seed in 0..20 {
        let request = request(seed, "hugepagesz=1G hugepages=3");
        let place = outcome(&file, &request, &machine()).0.unwrap().physical;
        assert!(!(GIB..3 * GIB).contains(&place), "{place:#x}");
    }
    assert!(
        outcome(&file, &request(1, "hugepagesz=1G hugepages=99"), &machine())
            .0
            .is_some()
    );
}
