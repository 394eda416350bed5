//! Every rule is seen to fail, each on a plan that was good before one thing in
//! it was broken.

use std::collections::BTreeSet;

use super::*;
use crate::base::{Syscall, Target, Told};
use crate::boot::Protocol;
use crate::carry::Capability;
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::image::probe;
use crate::layout::{Excluded, Segment};
use crate::plan::excluded::by_line;
use crate::plan::{Given, KhoPlan, plan};
use crate::request::{LoadRequest, SyscallChoice};
use crate::testing::bzimage::TinyBzImage;
use crate::testing::host::{Says as _, host, range, tell_for_a_dump};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// 1 GiB in two entries that touch, with a reservation for a crash kernel.
fn machine() -> Host {
    let mut host = host(
        "00001000-0009ffff : System RAM\n\
         00100000-3fffffff : System RAM\n\
         \x20 10000000-1fffffff : Crash kernel\n",
    )
    .boot_e820([(0x1000, 0x9_ffff, 1), (MIB, GIB - 1, 1)]);
    host.total_ram = GIB;
    host.loaded.crash_size = Some(256 * MIB);
    tell_for_a_dump(&mut host);
    host
}

/// What the rules say of the plan for `target` with the command line `line` after
/// `edit` was at it.
fn broken(target: Target, line: &str, edit: impl FnOnce(&mut Plan<'_>)) -> Result<(), PlanError> {
    let (host, file) = (machine(), TinyBzImage::new(0x1000).build());
    let image = probe(&file).unwrap();
    let request = LoadRequest {
        cmdline: CmdlineRequest {
            base: CmdlineBase::Given(line.into()),
            ..CmdlineRequest::default()
        },
        syscall: SyscallChoice::Only(Syscall::KexecLoad),
        target,
        ..LoadRequest::default()
    };
    let initrd = [7; 5000];
    let Checked(mut plan) = plan(
        &request,
        &host,
        &image,
        &Given::initrds(&[&initrd]),
        Capability::unknown,
    )
    .unwrap();
    edit(&mut plan);
    let taken = by_line(Protocol::of(&image), plan.cmdline.as_bstr(), target);
    validate(plan, &host, &taken).map(drop)
}

fn violation(edit: impl FnOnce(&mut Plan<'_>)) -> Violation {
    match broken(Target::Normal, "quiet memmap=1M$0x30000000", edit) {
        Err(PlanError::Invalid(violation)) => violation,
        other => panic!("{other:?}"),
    }
}

fn segments<'p, 'a>(plan: &'p mut Plan<'a>) -> &'p mut Vec<Segment<'a>> {
    match &mut plan.method {
        Method::Segments { segments, .. } => segments,
        Method::File { .. } => panic!("no segments"),
    }
}

fn enter(plan: &mut Plan<'_>, at: u64) {
    match &mut plan.method {
        Method::Segments { entry, .. } => *entry = at,
        Method::File { .. } => panic!("no entry"),
    }
}

fn at(plan: &mut Plan<'_>, role: Role) -> usize {
    let mut roles = plan.segments().iter().map(|segment| segment.role);
    roles.position(|other| other == role).unwrap()
}

/// Makes `edit` of the place of the segment `role`.
fn moved(plan: &mut Plan<'_>, role: Role, to: PhysRange) {
    let at = at(plan, role);
    segments(plan)[at].mem = to;
    segments(plan).sort_by_key(|segment| segment.mem);
}

#[test]
fn a_plan_that_nobody_touched_keeps_the_rules() {
    for target in [Target::Normal, Target::Crash] {
        broken(target, "quiet", |_| ()).unwrap();
    }
}

#[test]
fn every_rule_is_seen_to_fail() {
    let place = range(0x2000_0000, 0x2000_0fff);
    let violations = [
        violation(|plan| {
            let first = plan.segments()[0].clone();
            segments(plan).resize(SEGMENT_MAX + 1, first);
        }),
        violation(|plan| moved(plan, Role::Purgatory, range(0x2000_0800, 0x2000_8fff))),
        violation(|plan| {
            let at = at(plan, Role::Initrd);
            segments(plan)[at].buf = vec![0; 0x2001].into();
        }),
        violation(|plan| {
            let kernel = at(plan, Role::Kernel);
            let start = plan.segments()[kernel].mem.start();
            moved(plan, Role::SetupData, range(start, start + 0xfff));
        }),
        // Beyond the RAM, and where the first kernel's BIOS is.
        violation(|plan| moved(plan, Role::BootParams, range(GIB, GIB + 0x1fff))),
        violation(|plan| moved(plan, Role::SetupData, range(0x1000_0000, 0x1000_0fff))),
        violation(|plan| {
            plan.excluded.push(Excluded {
                range: place,
                name: "a test".to_owned(),
                reason: "",
            });
            moved(plan, Role::SetupData, place);
        }),
        // The map says RAM, and the table that is handed over does not.
        violation(|plan| {
            let at = at(plan, Role::Purgatory);
            let purgatory = plan.segments()[at].mem;
            let ram = plan.told.pop().unwrap().0;
            let below = range(ram.start(), purgatory.start() + 0xfff);
            plan.told.push((below, Told::RAM));
        }),
        violation(|plan| {
            plan.excluded.clear();
            moved(plan, Role::SetupData, range(0x3000_0000, 0x3000_0fff));
        }),
        violation(|plan| enter(plan, 0)),
        violation(|plan| enter(plan, 0x2000_0000)),
        violation(|plan| hands_over(plan, &[(0x2000_0000, 0x2fff_ffff)])),
        violation(|plan| {
            hands_over(plan, &[SCRATCH]);
            let at = at(plan, Role::Initrd);
            segments(plan)[at].role = Role::Preserved;
        }),
        violation(|plan| hands_over(plan, &[SCRATCH, SCRATCH])),
    ];
    let seen: BTreeSet<usize> = violations.iter().map(number).collect();
    assert_eq!(seen, (0..RULES).collect(), "{violations:#?}");
    for violation in violations {
        assert!(!violation.to_string().is_empty());
    }
}

const RULES: usize = 12;

/// A new rule does not compile here until it has a number, and is missed above
/// until it has a plan that breaks it.
fn number(violation: &Violation) -> usize {
    match violation {
        Violation::TooManySegments { .. } => 0,
        Violation::NotOnPages { .. } => 1,
        Violation::Overfull { .. } => 2,
        Violation::Overlap { .. } => 3,
        Violation::OutsideRam { .. } => 4,
        Violation::InExcluded { .. } => 5,
        Violation::NotTold { .. } => 6,
        Violation::TakenAway { .. } => 7,
        Violation::Entry(_) => 8,
        Violation::OutsideScratch { .. } => 9,
        Violation::InScratch(_) => 10,
        Violation::Scratch { .. } => 11,
    }
}

/// Passed on by the loader, the scratch memory is the running kernel's.
#[test]
fn what_is_passed_on_lies_in_the_scratch_memory_of_the_running_kernel() {
    let passed_on = |plan: &mut Plan<'_>, scratch: &[(u64, u64)]| {
        hands_over(plan, scratch);
        plan.kho.as_mut().unwrap().way = Way::Forwarded;
    };
    broken(Target::Normal, "quiet", |plan| passed_on(plan, &[SCRATCH])).unwrap();
    // Regions that touch are one place.
    broken(Target::Normal, "quiet", |plan| {
        let kernel = at(plan, Role::Kernel);
        let middle = plan.segments()[kernel].mem.start() + 0x1000;
        passed_on(plan, &[(SCRATCH.0, middle - 1), (middle, SCRATCH.1)]);
    })
    .unwrap();
    let outside = violation(|plan| passed_on(plan, &[(0x2000_0000, 0x2fff_ffff)]));
    assert!(matches!(outside, Violation::OutsideScratch { .. }));
}

/// Where the segments lie.
const SCRATCH: (u64, u64) = (0x3800_0000, 0x3fff_ffff);

/// Has `plan` hand something over, with that scratch memory: first and last byte.
fn hands_over(plan: &mut Plan<'_>, scratch: &[(u64, u64)]) {
    plan.kho = Some(KhoPlan {
        way: Way::Built,
        format: "kho-v4".to_owned(),
        scratch: scratch
            .iter()
            .map(|(start, last)| range(*start, *last))
            .collect(),
        scratch_sum: Vec::new(),
        preserved: Vec::new(),
        carried: Vec::new(),
        pools: Vec::new(),
    });
}

#[test]
fn scratch_memory_is_whole_blocks_of_ram_that_nobody_keeps() {
    broken(Target::Normal, "quiet", |plan| hands_over(plan, &[SCRATCH])).unwrap();
    let lower = (0x2000_0000, 0x203f_ffff);
    for regions in [[SCRATCH, lower], [lower, SCRATCH]] {
        broken(Target::Normal, "quiet", |plan| hands_over(plan, &regions)).unwrap();
    }
    let (start, last) = SCRATCH;
    for (scratch, says) in [
        (&[(start - 0x1000, last)][..], "whole blocks"),
        (&[SCRATCH, (last + 1 - (4 << 20), last)], "before it"),
        (&[SCRATCH, (last + 1, last + (4 << 20))], "outside the RAM"),
        (
            &[(0x3000_0000, 0x303f_ffff), SCRATCH],
            "in memmap=1M$0x30000000",
        ),
        (&[(0x1000_0000, 0x103f_ffff), SCRATCH], "in Crash kernel"),
    ] {
        let said = violation(|plan| hands_over(plan, scratch)).to_string();
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn entries_that_touch_are_one_place() {
    broken(Target::Normal, "quiet", |plan| {
        let kernel = at(plan, Role::Kernel);
        let middle = plan.segments()[kernel].mem.start() + 0x1000;
        let ram = plan.told.pop().unwrap().0;
        for part in [(ram.start(), middle), (middle, ram.end())] {
            let part = PhysRange::from_bounds(part.0, part.1).unwrap();
            plan.told.push((part, Told::RAM));
        }
    })
    .unwrap();
}

#[test]
fn a_crash_kernels_segments_lie_in_its_own_ram_but_for_the_header_of_the_dump() {
    let nothing_told = |role| {
        broken(Target::Crash, "quiet", |plan| {
            let at = at(plan, role);
            let mem = plan.segments()[at].mem;
            let split = |(range, kind): (PhysRange, Told)| {
                let part = |start, end| PhysRange::from_bounds(start, end).ok();
                let below = part(range.start(), range.end().min(mem.start()));
                let above = part(range.start().max(mem.end()), range.end());
                [below, above]
                    .into_iter()
                    .flatten()
                    .map(move |it| (it, kind))
            };
            plan.told = std::mem::take(&mut plan.told)
                .into_iter()
                .flat_map(split)
                .collect();
        })
    };
    for role in [
        Role::Kernel,
        Role::Initrd,
        Role::BootParams,
        Role::SetupData,
        Role::Purgatory,
    ] {
        let name = role.name();
        assert!(
            matches!(
                nothing_told(role),
                Err(PlanError::Invalid(Violation::NotTold { role, .. })) if role == name
            ),
            "{name}"
        );
    }
    nothing_told(Role::Elfcorehdr).unwrap();
}

#[test]
fn all_segments_together_are_no_more_than_half_of_the_ram() {
    let error = broken(Target::Normal, "quiet", |plan| {
        moved(plan, Role::Kernel, range(0x2000_0000, 0x2fff_ffff));
        moved(plan, Role::Initrd, range(0x30_0000, 0xfff_ffff));
    });
    // 256 MiB and 253 MiB: still less than half.
    error.unwrap();
    let error = broken(Target::Normal, "quiet", |plan| {
        moved(plan, Role::Kernel, range(0x2000_0000, 0x2fff_ffff));
        moved(plan, Role::Initrd, range(MIB, 0xfff_ffff));
        moved(plan, Role::BootParams, range(0x3000_0000, 0x300f_ffff));
    });
    assert!(
        matches!(error, Err(PlanError::TooLarge { limit, .. }) if limit == GIB / 2),
        "{error:?}"
    );
}
