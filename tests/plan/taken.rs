//! The same of crash kernels, of pools, and of command lines that take memory
//! away: on random machines, with the truth of every word beside it.

use proptest::collection::vec;
use proptest::prelude::*;
use rkexec::base::{PhysRange, Syscall, Target};
use rkexec::carry::{Capability, HandoverError, Pool, Protection};
use rkexec::cmdline::{CmdlineBase, CmdlineRequest};
use rkexec::host::Host;
use rkexec::host::crash::{KernelMapping, Note};
use rkexec::host::firmware_memmap::FirmwareRegion;
use rkexec::host::iomem::Resource;
use rkexec::image::probe;
use rkexec::layout::Role;
use rkexec::plan::{Given, Plan, PlanError, plan};
use rkexec::request::{LoadRequest, SyscallChoice};

use super::common::bzimage::{TinyBzImage, field};
use super::machine::Machine;
use super::{of_any_machine, refused};

const PAGE: u64 = 4096;
const CMA: u64 = 4 << 20;
const LOW: u64 = 1 << 20;

/// A part of the memory that segments may use: which range of it, and where in it
/// the part starts and ends, in 255ths.
#[derive(Debug, Clone, Copy)]
struct Part {
    of: usize,
    from: u8,
    to: u8,
}

fn any_part() -> impl Strategy<Value = Part> {
    let mostly_high = prop_oneof![1 => any::<u8>(), 2 => 128..=255_u8];
    (any::<usize>(), mostly_high, any::<u8>()).prop_map(|(of, a, b)| Part {
        of,
        from: a.min(b),
        to: a.max(b),
    })
}

impl Part {
    /// Its range, in whole multiples of `unit`.
    fn range(self, usable: &[PhysRange], unit: u64) -> Option<PhysRange> {
        let range = usable.get(self.of % usable.len().max(1))?;
        let at = |n: u8| range.start() + range.size() / 255 * u64::from(n);
        let start = at(self.from).max(LOW).next_multiple_of(unit);
        PhysRange::from_bounds(start, at(self.to) / unit * unit).ok()
    }
}

/// What a word says of its memory.
#[derive(Debug, Clone, Copy)]
enum Form {
    Mark(char),
    Removed,
    Turned(u32),
    Mem,
    Limit,
    Crashkernel,
    Cma,
}

fn any_form() -> impl Strategy<Value = Form> {
    prop_oneof![
        3 => prop::sample::select(&['$', '!', '#'][..]).prop_map(Form::Mark),
        1 => Just(Form::Removed),
        1 => prop::sample::select(&[2_u32, 3, 7, 13, 0xefff_ffff][..]).prop_map(Form::Turned),
        1 => Just(Form::Mem),
        1 => Just(Form::Limit),
        1 => Just(Form::Crashkernel),
        1 => Just(Form::Cma),
    ]
}

impl Form {
    /// The word, and what it takes away.
    fn word(self, range: PhysRange) -> (String, PhysRange) {
        let (start, size) = (range.start(), range.size());
        let above = PhysRange::from_bounds(start, u64::MAX).unwrap();
        match self {
            Self::Mark(mark) => (format!("memmap={}K{mark}{start:#x}", size >> 10), range),
            Self::Removed => (format!("memmap={size}%{start:#X}-1"), range),
            Self::Turned(kind) => (format!("memmap={size:#x}%{start}-1+{kind}"), range),
            Self::Mem => (format!("mem={start:#x}"), above),
            Self::Limit => (format!("memmap={start}"), above),
            Self::Crashkernel => (format!("crashkernel={size:#x}@{start:#x}"), range),
            Self::Cma => (format!("cma={size}@{start:#x}"), range),
        }
    }

    /// Whether a second word of this name makes the first one void.
    fn is_single(self) -> bool {
        matches!(self, Self::Crashkernel | Self::Cma)
    }
}

#[derive(Debug, Clone)]
struct Wish {
    initrd: usize,
    init_size: u32,
    words: Vec<(Form, Part)>,
    /// `memmap=exactmap`, and the only memory that is left.
    exact: Option<Part>,
    /// A crash kernel's reservation, and what the firmware calls that memory.
    crash: Option<(Part, Option<&'static str>)>,
    pools: Vec<Part>,
    protect: Protection,
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let firmware = [
        "Reserved",
        "ACPI Tables",
        "Soft Reserved",
        "Unusable memory",
    ];
    let firmware = prop::option::of(prop::sample::select(firmware.to_vec()));
    let protect = [
        Protection::Kernel,
        Protection::Indirect,
        Protection::Reserved,
    ];
    (
        (0..20_000_usize, 0x4000..0x10_0000_u32),
        vec((any_form(), any_part()), 0..3),
        prop::option::weighted(0.1, any_part()),
        prop::option::weighted(0.4, (any_part(), firmware)),
        vec(any_part(), 0..3),
        prop::sample::select(protect.to_vec()),
    )
        .prop_map(
            |((initrd, init_size), words, exact, crash, pools, protect)| Wish {
                initrd,
                init_size,
                words,
                exact,
                crash,
                pools,
                protect,
            },
        )
}

/// Sets `range`, which lies in System RAM, aside for a crash kernel.
fn reserve(host: &mut Host, range: PhysRange, firmware: Option<&str>) -> bool {
    let mut roots = host.iomem.roots.iter_mut();
    let ram = roots.find(|root| root.name == "System RAM" && root.range.covers(range));
    let Some(ram) = ram.filter(|ram| ram.children.is_empty()) else {
        return false;
    };
    ram.children.push(Resource {
        range,
        name: "Crash kernel".to_owned(),
        children: Vec::new(),
    });
    // Where entries overlap the larger type counts.
    let map = host.firmware_map.get_or_insert_default();
    map.extend(firmware.map(|name| FirmwareRegion {
        range,
        name: name.to_owned(),
    }));
    let note = Note {
        address: 0x3000_0000,
        size: 0x160,
    };
    host.crash.cpus = vec![(0, note), (1, note)];
    host.crash.vmcoreinfo = Some(note);
    host.crash.mapping = Some(KernelMapping {
        direct_map: 0xffff_8880_0000_0000,
        text: 0xffff_ffff_8100_0000,
        image: PhysRange::new(0x200_0000, 0x100_0000).unwrap(),
    });
    host.loaded.crash_size = Some(range.size());
    true
}

/// A command line, and the truth about it.
#[derive(Debug, Default)]
struct Line {
    text: String,
    taken: Vec<PhysRange>,
    /// With `memmap=exactmap` all but this.
    left: Option<PhysRange>,
}

impl Line {
    fn of(wish: &Wish, usable: &[PhysRange], crash: bool) -> Self {
        let mut line = Self::default();
        if let Some(left) = wish.exact.and_then(|part| part.range(usable, PAGE)) {
            let (start, size) = (left.start(), left.size());
            line.text = format!("memmap=exactmap,{size:#x}@{start:#x} ");
            line.left = Some(left);
        }
        let mut seen = Vec::new();
        for (form, part) in &wish.words {
            let kind = std::mem::discriminant(form);
            if form.is_single() && seen.contains(&kind) {
                continue;
            }
            seen.push(kind);
            if let Some(range) = part.range(usable, PAGE) {
                let (word, taken) = form.word(range);
                line.text.push_str(&word);
                line.text.push(' ');
                // A capture kernel finds that memory in use.
                if !(crash && matches!(form, Form::Crashkernel)) {
                    line.taken.push(taken);
                }
            }
        }
        line.text.push_str("quiet");
        line
    }

    /// Whether any of `range` is gone.
    fn takes(&self, range: PhysRange) -> bool {
        self.taken.iter().any(|taken| taken.overlaps(range))
            || self.left.is_some_and(|left| !left.covers(range))
    }
}

/// Pools in `usable` that share nothing.
fn pools(wish: &Wish, usable: &[PhysRange]) -> Vec<Pool> {
    let mut pools: Vec<Pool> = Vec::new();
    for (part, number) in wish.pools.iter().zip(0..) {
        let Some(range) = part.range(usable, CMA) else {
            continue;
        };
        if pools.iter().all(|pool| !pool.range().overlaps(range)) {
            let name = if number == 0 {
                "default_pmpool".to_owned()
            } else {
                format!("pool-{number}")
            };
            pools.push(Pool::new(&name, range, range.start()).unwrap());
        }
    }
    pools
}

fn target() -> Capability {
    Capability {
        setup_type_max: Some(0x8000_0009),
        ..Capability::unknown()
    }
}

#[test]
fn no_segment_and_no_pool_lies_where_the_next_kernel_has_no_memory() {
    of_any_machine(500, any_wish(), |mut machine, wish| {
        let usable = machine.usable(false);
        let crash = wish.crash.and_then(|(part, firmware)| {
            let range = part.range(&usable, PAGE)?;
            reserve(&mut machine.host, range, firmware).then_some(range)
        });
        let line = Line::of(&wish, &usable, crash.is_some());
        let pools = match crash {
            Some(_) => Vec::new(),
            None => pools(&wish, &usable),
        };
        let mut request = LoadRequest {
            cmdline: CmdlineRequest {
                base: CmdlineBase::Given(line.text.clone().into()),
                ..CmdlineRequest::default()
            },
            syscall: SyscallChoice::Only(Syscall::KexecLoad),
            target: crash.map_or(Target::Normal, |_| Target::Crash),
            ..LoadRequest::default()
        };
        request.handover.pools.clone_from(&pools);
        request.handover.protect = (!pools.is_empty()).then_some(wish.protect);
        request.handover.assume_pmpool = true;
        let file = TinyBzImage::new(0x1000)
            .u32(field::INIT_SIZE, wish.init_size)
            .u32(field::KERNEL_ALIGNMENT, 0x1000)
            .u64(field::PREF_ADDRESS, LOW)
            .build();
        let image = probe(&file).unwrap();
        let initrd = vec![7; wish.initrd];
        match plan(
            &request,
            &machine.host,
            &image,
            &Given::initrds(&[&initrd]),
            target,
        ) {
            Ok(plan) => {
                check(&plan, &machine, &line)?;
                if let Some(reservation) = crash {
                    check_crash(&plan, &machine, reservation)?;
                }
                check_pools(&plan, &pools, &line)?;
                Ok(true)
            }
            Err(error) => why(&error, &pools, &line),
        }
    });
}

/// Why there may be no plan.
fn why(error: &PlanError, pools: &[Pool], line: &Line) -> Result<bool, TestCaseError> {
    match error {
        PlanError::TakenAway { error, .. } => {
            prop_assert!(!line.taken.is_empty() || line.left.is_some());
            why(error, pools, line)
        }
        PlanError::Handover(HandoverError::TakenAway { range, .. }) => {
            // `memmap=exactmap` makes RAM of a reserved pool where it says RAM.
            prop_assert!(line.takes(*range) || line.left.is_some());
            prop_assert!(pools.iter().any(|it| it.range() == *range));
            Ok(false)
        }
        // Of what a crash kernel's reservation lacks.
        PlanError::NotInReservation { .. } | PlanError::Crash(_) => Ok(false),
        error => refused(error),
    }
}

fn check(plan: &Plan<'_>, machine: &Machine, line: &Line) -> Result<(), TestCaseError> {
    let usable = machine.usable(false);
    for segment in plan.segments() {
        let (role, mem) = (segment.role.name(), segment.mem);
        prop_assert!(
            !line.takes(mem),
            "{role} at {mem:?} is taken: {}",
            line.text
        );
        prop_assert!(
            usable.iter().any(|ram| ram.covers(mem)),
            "{role} at {mem:?}"
        );
        prop_assert!(
            segment.role == Role::Elfcorehdr || told_ram(plan, mem),
            "{role} at {mem:?} is not told to be RAM"
        );
        for excluded in &plan.excluded {
            prop_assert!(!excluded.range.overlaps(mem), "{role} at {mem:?}");
        }
    }
    Ok(())
}

/// Whether the next kernel is told that all of `range` is RAM.
fn told_ram(plan: &Plan<'_>, range: PhysRange) -> bool {
    let ram = plan.told.iter().filter(|(_, kind)| kind.is_ram());
    ram.filter_map(|(ram, _)| ram.intersection(range))
        .map(PhysRange::size)
        .sum::<u64>()
        == range.size()
}

fn check_crash(
    plan: &Plan<'_>,
    machine: &Machine,
    reservation: PhysRange,
) -> Result<(), TestCaseError> {
    let own = machine.host.iomem.crash_kernel();
    let mut header = None;
    for segment in plan.segments() {
        prop_assert!(reservation.covers(segment.mem), "{:?}", segment.mem);
        if segment.role == Role::Elfcorehdr {
            header = Some(segment.mem);
        }
    }
    let header = header.unwrap();
    // The capture kernel has what is its own, and nothing else.
    for (start, end) in [
        (reservation.start(), header.start()),
        (header.end(), reservation.end()),
    ] {
        let part = PhysRange::from_bounds(start, end);
        prop_assert!(part.is_err() || told_ram(plan, part.unwrap()));
    }
    for (range, kind) in &plan.told {
        prop_assert!(!range.overlaps(header));
        let its_own = range.end() <= LOW || own.iter().any(|own| own.covers(*range));
        prop_assert!(!kind.is_ram() || its_own, "{range:?}");
    }
    Ok(())
}

fn check_pools(plan: &Plan<'_>, pools: &[Pool], line: &Line) -> Result<(), TestCaseError> {
    prop_assert_eq!(plan.pools.len(), pools.len());
    for planned in &plan.pools {
        let range = planned.pool.range();
        prop_assert!(plan.segments().iter().all(|it| !it.mem.overlaps(range)));
        let is_ram = planned.protection != Protection::Reserved;
        prop_assert_eq!(told_ram(plan, range), is_ram);
        prop_assert!(!is_ram || !line.takes(range), "{range:?}: {}", line.text);
        // `memmap=exactmap` makes RAM of it, or leaves it out, if no word follows.
        let only_exact = line.left.is_some() && line.taken.is_empty();
        prop_assert!(is_ram || !only_exact, "{range:?}: {}", line.text);
    }
    Ok(())
}
