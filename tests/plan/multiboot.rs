//! The same of multiboot kernels: on random machines, with random modules. What
//! version 2 is told is read by a crate that others wrote for their kernels.

#![allow(unsafe_code, reason = "the crate reads from an address")]

use multiboot2::{BootInformation, MemoryAreaType};
use proptest::collection::vec;
use proptest::prelude::*;
use rkexec::base::{PhysRange, Told};
use rkexec::boot::BootError;
use rkexec::carry::Capability;
use rkexec::cmdline::{CmdlineBase, CmdlineRequest};
use rkexec::image::multiboot::Module;
use rkexec::image::{Image, probe};
use rkexec::layout::Role;
use rkexec::plan::{Given, Plan, PlanError, plan};
use rkexec::request::LoadRequest;

use super::common::multiboot::{Segment, TinyElf, header_v1, header_v2, tag};
use super::machine::Machine;
use super::next_kernel::{self, Memory};
use super::{of_any_machine, refused};

const MIB: u64 = 1 << 20;
const FOUR_GIB: u64 = 1 << 32;

#[derive(Debug, Clone)]
struct Wish {
    version: u32,
    /// min, max, align, preference.
    relocatable: Option<[u32; 4]>,
    elf: TinyElf,
    /// Size of each module.
    modules: Vec<usize>,
    request: LoadRequest,
}

/// Loads behind a header, some on one page, some with memory beyond their bytes.
fn any_loads() -> impl Strategy<Value = Vec<(u64, usize, u64)>> {
    let size = prop_oneof![1..100_usize, 4000..5000_usize];
    let beyond = prop_oneof![Just(0), 0..9000_u64];
    let gap = prop_oneof![0..64_u64, 0..20_000_u64];
    vec((gap, size, beyond), 0..4)
}

fn any_relocation() -> impl Strategy<Value = Option<[u32; 4]>> {
    let bounds = (0..64_u32, 0..64_u32, 0..10_u32, 0..4_u32);
    let one = bounds.prop_map(|(min, size, align, preference)| {
        let min = min << 20;
        [
            min,
            min + (size << 22) + 0xf_ffff,
            0x1000 << align,
            preference,
        ]
    });
    prop::option::weighted(0.7, one)
}

fn any_wish() -> impl Strategy<Value = Wish> {
    let modules = vec(
        prop_oneof![0..20_usize, 4090..4100_usize, 0..9000_usize],
        0..20,
    );
    let address = || prop_oneof![0..0x1000_0000_u64, 0..FOUR_GIB];
    (
        (1..=2_u32, any_relocation(), any_loads(), 0..0x3000_u64),
        prop_oneof![6 => Just(MIB), 2 => 0x10_0000..0x100_0000_u64, 1 => 0..FOUR_GIB - 0x100_0000],
        modules,
        "[ -~]{0,40}",
        (
            prop::option::weighted(0.1, address()),
            prop::option::weighted(0.1, address()),
        ),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(kind, base, modules, line, (mem_min, mem_max), no_digest)| {
                let (version, relocatable, loads, offset) = kind;
                let relocatable = relocatable.filter(|_| version == 2);
                let header = match (version, relocatable) {
                    (1, _) => header_v1(3, &[]),
                    (_, Some(bounds)) => header_v2(0, &[tag(10, 0, &bounds)]),
                    (_, None) => header_v2(0, &[]),
                };
                let mut elf = TinyElf::new(base + offset, &header);
                let mut at = base + offset + header.len() as u64;
                for (gap, size, bss) in loads {
                    at += gap;
                    elf.segments.push(Segment {
                        paddr: at,
                        bytes: vec![size.to_le_bytes()[0] | 1; size],
                        bss,
                        high: 0,
                    });
                    at += size as u64 + bss;
                }
                Wish {
                    version,
                    relocatable,
                    elf,
                    modules,
                    request: LoadRequest {
                        cmdline: CmdlineRequest {
                            base: CmdlineBase::Given(line.into()),
                            ..CmdlineRequest::default()
                        },
                        mem_min,
                        mem_max,
                        no_digest,
                        ..LoadRequest::default()
                    },
                }
            },
        )
}

#[test]
fn every_multiboot_plan_keeps_the_rules() {
    of_any_machine(400, any_wish(), |machine, wish| {
        let file = wish.elf.build();
        let modules: Vec<Vec<u8>> = wish
            .modules
            .iter()
            .zip(1..)
            .map(|(size, fill)| vec![fill; *size])
            .collect();
        let mut image = probe(&file).unwrap();
        let Image::Multiboot(kernel) = &mut image else {
            return Err(TestCaseError::fail("not a multiboot kernel"));
        };
        kernel.name = "kernel".into();
        kernel.modules = modules
            .iter()
            .zip(1..)
            .map(|(bytes, number)| Module {
                bytes,
                cmdline: format!("module {number}").into(),
            })
            .collect();
        match plan(
            &wish.request,
            &machine.host,
            &image,
            &Given::default(),
            Capability::unknown,
        ) {
            Ok(plan) => {
                check(&plan, &machine, &wish, &modules)?;
                Ok(true)
            }
            // A kernel may be linked to a place that is taken.
            Err(PlanError::Boot(BootError::Occupied { .. })) => Ok(false),
            Err(error) => refused(&error),
        }
    });
}

fn check(
    plan: &Plan<'_>,
    machine: &Machine,
    wish: &Wish,
    modules: &[Vec<u8>],
) -> Result<(), TestCaseError> {
    let request = &wish.request;
    let map = machine.told(false, false);
    prop_assert_eq!(&plan.told, &map);
    check_places(plan, machine, request)?;

    // Purgatory's way into the kernel.
    let memory = Memory::new(plan);
    let purgatory = plan.segments().iter().find(|s| s.role == Role::Purgatory);
    let at = purgatory.unwrap().mem.start();
    let number = |offset, size| memory.number(at + offset, size);
    let (flags, entry, ebx, eax) = (number(12, 4), number(16, 8), number(24, 8), number(40, 4));
    prop_assert_eq!(flags & 9, if request.no_digest { 8 } else { 9 });
    let magic = if wish.version == 1 {
        0x2bad_b002
    } else {
        0x36d7_6289
    };
    prop_assert_eq!(eax, magic);

    check_kernel(&memory, wish, entry)?;
    check_told(plan, &memory, wish, modules, (entry, ebx))?;
    check_digests(plan, &memory, at, request)
}

/// The kernel is whole, and where it may be.
fn check_kernel(memory: &Memory, wish: &Wish, entry: u64) -> Result<(), TestCaseError> {
    let shift = entry.wrapping_sub(wish.elf.entry);
    let end = wish
        .elf
        .segments
        .iter()
        .map(|s| s.paddr + s.bytes.len() as u64 + s.bss)
        .max();
    let end = end.unwrap().wrapping_add(shift);
    match wish.relocatable {
        None => prop_assert_eq!(shift, 0),
        Some([min, max, align, _]) => {
            prop_assert!(entry >= u64::from(min) && end <= u64::from(max) + 1);
            prop_assert_eq!(entry % u64::from(align), 0);
        }
    }
    for segment in &wish.elf.segments {
        let start = segment.paddr.wrapping_add(shift);
        let size = segment.bytes.len() as u64;
        prop_assert_eq!(&memory.read(start, size), &segment.bytes);
        let bss = memory.read(start + size, segment.bss);
        prop_assert!(bss.iter().all(|byte| *byte == 0));
    }
    Ok(())
}

/// It is told the truth.
fn check_told(
    plan: &Plan<'_>,
    memory: &Memory,
    wish: &Wish,
    modules: &[Vec<u8>],
    (entry, ebx): (u64, u64),
) -> Result<(), TestCaseError> {
    let told = match wish.version {
        1 => read_v1(memory, ebx),
        _ => {
            prop_assert_eq!(ebx % 8, 0);
            read_v2(memory, ebx)
        }
    };
    prop_assert_eq!(&told.cmdline, &plan.cmdline.to_string());
    prop_assert_eq!(&told.map, &plan.told);
    prop_assert_eq!(told.load_base, wish.relocatable.map(|_| entry));
    prop_assert_eq!(told.modules.len(), modules.len());
    for (number, ((start, end, line), bytes)) in told.modules.iter().zip(modules).enumerate() {
        prop_assert_eq!(line, &format!("module {}", number + 1));
        prop_assert_eq!((start % 4096, end - start), (0, bytes.len() as u64));
        prop_assert_eq!(&memory.read(*start, end - start), bytes);
    }
    Ok(())
}

/// Everything that has bytes is digested, but purgatory itself, which lies at `at`.
fn check_digests(
    plan: &Plan<'_>,
    memory: &Memory,
    at: u64,
    request: &LoadRequest,
) -> Result<(), TestCaseError> {
    let digested: Vec<(PhysRange, Vec<u8>)> = (0..memory.number(at + 36, 4))
        .map(|n| at + 48 + n * 24)
        .map(|at| {
            let range = PhysRange::new(memory.number(at, 8), memory.number(at + 8, 8));
            (range.unwrap(), memory.read(at + 16, 8))
        })
        .collect();
    let others = plan
        .segments()
        .iter()
        .filter(|s| s.role != Role::Purgatory && !s.buf.is_empty() && !request.no_digest);
    let mut expected = 0;
    for segment in others {
        expected += 1;
        let range = PhysRange::new(segment.mem.start(), segment.buf.len() as u64).unwrap();
        let digest = next_kernel::digest(&segment.buf).to_vec();
        prop_assert!(digested.contains(&(range, digest)), "{:?}", segment.role);
    }
    prop_assert_eq!(digested.len(), expected);
    Ok(())
}

fn check_places(
    plan: &Plan<'_>,
    machine: &Machine,
    request: &LoadRequest,
) -> Result<(), TestCaseError> {
    let usable = machine.usable(false);
    prop_assert!(plan.segments().len() <= 16);
    for pair in plan.segments().windows(2) {
        prop_assert!(pair[0].mem.end() <= pair[1].mem.start());
    }
    let min = request.mem_min.unwrap_or(0).max(MIB);
    let max = request.mem_max.unwrap_or(u64::MAX).min(FOUR_GIB);
    for segment in plan.segments() {
        let mem = segment.mem;
        prop_assert_eq!((mem.start() % 4096, mem.end() % 4096), (0, 0));
        prop_assert!(segment.buf.len() as u64 <= mem.size());
        prop_assert!(min <= mem.start() && mem.end() <= max, "{:?}", mem);
        prop_assert!(usable.iter().any(|ram| ram.covers(mem)), "{:?}", mem);
        prop_assert!(!plan.excluded.iter().any(|out| out.range.overlaps(mem)));
    }
    let last_choice = machine
        .hot_added()
        .any(|ram| plan.segments().iter().any(|s| ram.overlaps(s.mem)));
    let said = plan.warnings.iter().any(|w| w.contains("added since boot"));
    prop_assert_eq!(last_choice, said);
    Ok(())
}

/// What a kernel learns.
struct Information {
    cmdline: String,
    map: Vec<(PhysRange, Told)>,
    /// Start, end, command line.
    modules: Vec<(u64, u64, String)>,
    load_base: Option<u64>,
}

fn string(memory: &Memory, address: u64) -> String {
    let bytes = (address..).map(|at| memory.read(at, 1)[0]);
    String::from_utf8(bytes.take_while(|byte| *byte != 0).collect()).unwrap()
}

fn read_v1(memory: &Memory, at: u64) -> Information {
    let word = |address| memory.number(address, 4);
    assert_eq!(word(at) & 0x4d, 0x4d, "memory, command line, modules, map");
    let (length, map) = (word(at + 44), word(at + 48));
    let entries = (map..map + length).step_by(24);
    let modules = (0..word(at + 20)).map(|n| word(at + 24) + 16 * n);
    Information {
        cmdline: string(memory, word(at + 16)),
        map: entries
            .map(|entry| {
                assert_eq!(word(entry), 20);
                let start = memory.number(entry + 4, 8);
                let range = PhysRange::new(start, memory.number(entry + 12, 8)).unwrap();
                (range, Told(u32::try_from(word(entry + 20)).unwrap()))
            })
            .collect(),
        modules: modules
            .map(|module| {
                let line = string(memory, word(module + 8));
                (word(module), word(module + 4), line)
            })
            .collect(),
        load_base: None,
    }
}

fn read_v2(memory: &Memory, at: u64) -> Information {
    let size = memory.number(at, 4);
    // The crate wants it at a multiple of 8, as a kernel has it.
    let words: Vec<u64> = (0..size / 8)
        .map(|n| memory.number(at + 8 * n, 8))
        .collect();
    // SAFETY: `words` holds all of it, is aligned, and lives to the end.
    let information = unsafe { BootInformation::load(words.as_ptr().cast()) }.unwrap();
    let tag = information.memory_map_tag().unwrap();
    assert_eq!((tag.entry_size(), tag.entry_version()), (24, 0));
    assert!(information.efi_sdt64_tag().is_none());
    let loader = information.boot_loader_name_tag().unwrap();
    assert!(loader.name().unwrap().starts_with("rkexec "));
    Information {
        cmdline: information
            .command_line_tag()
            .unwrap()
            .cmdline()
            .unwrap()
            .to_owned(),
        map: tag
            .memory_areas()
            .iter()
            .map(|area| {
                let kind = match area.typ() {
                    MemoryAreaType::Available => 1,
                    MemoryAreaType::Reserved => 2,
                    MemoryAreaType::AcpiAvailable => 3,
                    MemoryAreaType::ReservedHibernate => 4,
                    MemoryAreaType::Defective => 5,
                    MemoryAreaType::Custom(other) => other,
                };
                let range = PhysRange::new(area.start_address(), area.size()).unwrap();
                (range, Told(kind))
            })
            .collect(),
        modules: information
            .module_tags()
            .map(|module| {
                (
                    module.start_address().into(),
                    module.end_address().into(),
                    module.cmdline().unwrap().to_owned(),
                )
            })
            .collect(),
        load_base: information
            .load_base_addr_tag()
            .map(|tag| tag.load_base_addr().into()),
    }
}
