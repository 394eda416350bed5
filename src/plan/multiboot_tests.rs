//! Plans of multiboot kernels.

use super::*;
use crate::boot::BootError;
use crate::carry::{Pool, Protection};
use crate::cmdline::{CmdlineError, CmdlineRequest};
use crate::host::security::Lockdown;
use crate::image::{multiboot, probe};
use crate::layout::{PlaceError, Role};
use crate::plan::{Given, plan as make};
use crate::request::SyscallChoice;
use crate::sys::SEGMENT_MAX;
use crate::testing::host::{Says as _, host, range};
use crate::testing::multiboot::{TinyElf, header_v1, header_v2, tag};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// A BIOS machine of 2 GiB with a reservation, and more RAM above 4 GiB.
fn machine() -> Host {
    host(
        "00000000-00000fff : Reserved\n\
         00001000-0009fbff : System RAM\n\
         0009fc00-0009ffff : Reserved\n\
         000f0000-000fffff : Reserved\n\
         00100000-7fffffff : System RAM\n\
         \x20 20000000-2fffffff : Crash kernel\n\
         100000000-17fffffff : System RAM\n",
    )
}

/// A kernel of 5,000 bytes and 3 pages of bss.
fn file(header: &[u8], at: u64) -> Vec<u8> {
    let mut bytes = header.to_vec();
    bytes.resize(5000, 0x90);
    let mut elf = TinyElf::new(at, &bytes);
    elf.entry = at + 64;
    elf.segments[0].bss = 3 * 4096;
    elf.build()
}

fn v1_at(at: u64) -> Vec<u8> {
    file(&header_v1(3, &[]), at)
}

fn v2(tags: &[Vec<u8>]) -> Vec<u8> {
    file(&header_v2(0, tags), 2 * MIB)
}

/// Plans `file` with modules of these sizes.
fn planned(
    request: &LoadRequest,
    host: &Host,
    file: &[u8],
    sizes: &[usize],
) -> Result<Owned, PlanError> {
    let contents: Vec<Vec<u8>> = sizes
        .iter()
        .zip(1..)
        .map(|(size, fill)| vec![fill; *size])
        .collect();
    let mut image = probe(file).unwrap();
    if let Image::Multiboot(kernel) = &mut image {
        kernel.name = "/boot/kernel".into();
        kernel.modules = contents
            .iter()
            .zip(1..)
            .map(|(bytes, number)| multiboot::Module {
                bytes,
                cmdline: format!("/module-{number} x").into(),
            })
            .collect();
    }
    let plan = make(
        request,
        host,
        &image,
        &Given::default(),
        Capability::unknown,
    )?;
    Ok(Owned {
        entry: plan.entry().unwrap(),
        cmdline: plan.cmdline.to_string(),
        segments: plan
            .segments()
            .iter()
            .map(|s| (s.role, s.mem, s.buf.to_vec(), s.rule.clone()))
            .collect(),
        told: plan.told.clone(),
        warnings: plan.warnings.clone(),
        reason: plan.reason.clone(),
        pools: plan.pools.clone(),
    })
}

/// What of a plan outlives its files.
#[derive(Debug)]
struct Owned {
    entry: u64,
    cmdline: String,
    segments: Vec<(Role, PhysRange, Vec<u8>, String)>,
    told: Vec<(PhysRange, Told)>,
    warnings: Vec<String>,
    reason: String,
    pools: Vec<PlannedPool>,
}

impl Owned {
    fn places(&self, role: Role) -> Vec<PhysRange> {
        let found = self.segments.iter().filter(|(other, ..)| *other == role);
        found.map(|(_, mem, ..)| *mem).collect()
    }

    /// The bytes at a physical address, to the end of their segment.
    fn at(&self, address: u64) -> &[u8] {
        let (_, mem, bytes, _) = self
            .segments
            .iter()
            .find(|(_, mem, ..)| mem.contains(address))
            .unwrap();
        &bytes[usize::try_from(address - mem.start()).unwrap()..]
    }

    fn number(&self, address: u64) -> u32 {
        u32::from_le_bytes(self.at(address)[..4].try_into().unwrap())
    }

    fn string(&self, address: u64) -> &str {
        let bytes = self.at(address);
        let end = bytes.iter().position(|byte| *byte == 0).unwrap();
        std::str::from_utf8(&bytes[..end]).unwrap()
    }

    /// What purgatory is told: flags, entry, EBX, EAX.
    fn purgatory(&self) -> (u32, u64, u64, u32) {
        let at = self.places(Role::Purgatory)[0].start();
        assert_eq!(self.at(at)[..8], *b"RKXPURG1");
        let long = |offset| {
            u64::from(self.number(at + offset)) | u64::from(self.number(at + offset + 4)) << 32
        };
        (
            self.number(at + 12),
            long(16),
            long(24),
            self.number(at + 40),
        )
    }
}

fn line(text: &str) -> LoadRequest {
    LoadRequest {
        cmdline: CmdlineRequest {
            base: CmdlineBase::Given(text.into()),
            ..CmdlineRequest::default()
        },
        ..LoadRequest::default()
    }
}

#[test]
fn a_fixed_kernel_lies_where_it_is_linked_and_all_else_above_it() {
    let plan = planned(&line("a b"), &machine(), &v1_at(3 * MIB), &[5000, 1, 0]).unwrap();
    let kernel = range(3 * MIB, 3 * MIB + 5 * 4096 - 1);
    assert_eq!(plan.places(Role::Kernel), [kernel]);
    assert_eq!(plan.cmdline, "/boot/kernel a b");
    assert_eq!(
        plan.reason,
        "kexec_file_load does not take a multiboot kernel"
    );
    let (flags, entry, ebx, eax) = plan.purgatory();
    assert_eq!((flags & 8, entry, eax), (8, 3 * MIB + 64, 0x2bad_b002));
    assert_eq!(
        plan.string(plan.number(ebx + 16).into()),
        "/boot/kernel a b"
    );

    // Behind the kernel, each on its own pages, in the order in which they were given.
    let modules = plan.places(Role::Module);
    assert_eq!(modules.len(), 3);
    assert_eq!(modules[0].start(), kernel.end());
    assert_eq!(plan.number(ebx + 20), 3);
    let list = u64::from(plan.number(ebx + 24));
    for (at, (module, size)) in (list..).step_by(16).zip(modules.iter().zip([5000, 1, 0])) {
        let (start, end) = (plan.number(at), plan.number(at + 4));
        assert_eq!(u64::from(start), module.start());
        assert_eq!(end - start, size);
    }
    assert_eq!(plan.string(plan.number(list + 24).into()), "/module-2 x");
    for (role, mem, ..) in &plan.segments {
        assert!(mem.end() < 4 * GIB, "{role:?}");
        assert!(mem.start() >= kernel.start(), "{role:?}");
    }
    assert_eq!(plan.places(Role::BootParams).len(), 1);
    assert!(plan.places(Role::Purgatory)[0].contains(plan.entry));
    assert_eq!(plan.places(Role::SetupData), []);
}

#[test]
fn the_reason_is_told_when_a_fixed_kernel_finds_no_place() {
    let told = |at: u64, request: &LoadRequest| {
        let error = planned(request, &machine(), &v1_at(at), &[]).unwrap_err();
        assert!(
            matches!(error, PlanError::Boot(BootError::Occupied { .. })),
            "{error}"
        );
        assert!(error.hint().is_some() && !error.is_usage());
        error.to_string()
    };
    let plain = LoadRequest::default();
    assert_eq!(
        told(0x2000_0000, &plain),
        "the kernel must lie at 20000000-20004fff, as it is not relocatable, and cannot: \
         20000000-2fffffff is Crash kernel: reserved for the crash kernel"
    );
    for (at, expected) in [
        (0x9_0000, "segments lie from 0x100000 to 0xffffefff ("),
        (2 * GIB - 8192, "there is no RAM at 0x80000000"),
        (3 * GIB, "there is no RAM at 0xc0000000"),
    ] {
        let message = told(at, &plain);
        assert!(message.contains(expected), "{message}");
    }
    let below = LoadRequest {
        mem_max: Some(16 * MIB),
        ..LoadRequest::default()
    };
    assert!(told(16 * MIB, &below).contains("segments lie from 0x100000 to 0xffffff ("));
    let mut reserved = machine();
    reserved.iomem = host("00100000-002fffff : System RAM\n00300000-003fffff : Reserved\n00400000-0fffffff : System RAM\n").iomem;
    let error = planned(&plain, &reserved, &v1_at(3 * MIB - 4096), &[]).unwrap_err();
    assert!(
        error.to_string().ends_with(
            "00300000-003fffff is reserved: not RAM: same type as in the running kernel"
        ),
        "{error}"
    );
}

#[test]
fn a_relocatable_kernel_lies_where_it_would_rather_be() {
    for (preference, expected) in [(2, 0x1fc0_0000), (0, 0x1fc0_0000), (1, 0x0100_0000)] {
        let tags = [tag(
            10,
            0,
            &[0x100_0000, 0x1fff_ffff, 0x40_0000, preference],
        )];
        let plan = planned(&line("x"), &machine(), &v2(&tags), &[1]).unwrap();
        let kernel = plan.places(Role::Kernel);
        assert_eq!(kernel, [range(expected, expected + 5 * 4096 - 1)]);
        let (_, entry, ebx, eax) = plan.purgatory();
        assert_eq!((entry, eax), (expected + 64, 0x36d7_6289));
        // The first tag says where it lies.
        assert_eq!((plan.number(ebx + 8), plan.number(ebx + 12)), (21, 12));
        assert_eq!(u64::from(plan.number(ebx + 16)), expected);
    }
    // Its own bounds leave nothing.
    let tags = [tag(10, 0, &[0x8000_0000, 0x9000_0000, 4096, 0])];
    let error = planned(&line("x"), &machine(), &v2(&tags), &[]).unwrap_err();
    assert!(
        matches!(error, PlanError::Place(PlaceError::NoHole(_))),
        "{error}"
    );
    // Linked inside of a page, and moved to the start of one.
    let mut elf = TinyElf::new(
        2 * MIB + 0x123,
        &header_v2(0, &[tag(10, 0, &[0, u32::MAX, 0, 1])]),
    );
    elf.segments[0].bytes.resize(5000, 7);
    let plan = planned(&line("x"), &machine(), &elf.build(), &[]).unwrap();
    assert_eq!(plan.places(Role::Kernel), [range(MIB, MIB + 8191)]);
    assert_eq!(plan.purgatory().1, MIB);
}

#[test]
fn more_modules_than_segments_share_the_last_one() {
    let sizes: Vec<usize> = (0..20).map(|n| 4000 + 97 * n).collect();
    let plan = planned(&line("x"), &machine(), &v1_at(MIB), &sizes).unwrap();
    assert_eq!(plan.segments.len(), SEGMENT_MAX);
    let (.., ebx, _) = plan.purgatory();
    let list = u64::from(plan.number(ebx + 24));
    for ((at, size), fill) in (list..).step_by(16).zip(&sizes).zip(1..) {
        let (start, end) = (plan.number(at), plan.number(at + 4));
        assert_eq!(usize::try_from(end - start).unwrap(), *size);
        assert_eq!(start % 4096, 0);
        assert!(
            plan.at(start.into())[..*size]
                .iter()
                .all(|byte| *byte == fill)
        );
    }
    // A kernel that takes all the segments itself.
    let mut elf = TinyElf::new(MIB, &header_v1(0, &[]));
    for number in 1..14 {
        let mut segment = elf.segments[0].clone();
        segment.paddr = MIB * (1 + number);
        elf.segments.push(segment);
    }
    assert_eq!(
        planned(&line("x"), &machine(), &elf.build(), &[])
            .unwrap()
            .segments
            .len(),
        16
    );
    let error = planned(&line("x"), &machine(), &elf.build(), &[1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the kernel alone is 14 segments, and there is room for 13"
    );
}

#[test]
fn what_a_kernel_requires_to_be_told_and_cannot_be() {
    let refusal = |host: &Host, tags: &[Vec<u8>], request: &LoadRequest| {
        planned(request, host, &v2(tags), &[])
            .unwrap_err()
            .to_string()
    };
    let start = "this multiboot kernel requires to be told of";
    let mut request = line("x");
    request.firmware_tables.no_rsdp = Some("nobody knows".to_owned());
    for (tags, expected) in [
        (
            tag(1, 0, &[4, 12]),
            "EFI 64-bit system table (tag 12), and cannot be: that is not known once the firmware has gone",
        ),
        (
            tag(1, 0, &[15]),
            "ACPI new RSDP (tag 15), and cannot be: nobody knows",
        ),
        (
            tag(1, 0, &[8]),
            "framebuffer info (tag 8), and cannot be: the running kernel was told of no screen",
        ),
        (
            tag(1, 0, &[99]),
            "a tag of the unknown type 99, and cannot be: that is not known once the firmware has gone",
        ),
        (
            tag(4, 0, &[3]),
            "a console, and cannot be: the running kernel was told of no screen",
        ),
    ] {
        assert_eq!(
            refusal(&machine(), &[tags], &request),
            format!("{start} {expected}")
        );
    }
    // What it only asks for is left out.
    let wishes = [
        tag(1, 1, &[12, 15, 99]),
        tag(1, 0, &[1, 2, 3, 4, 6, 21]),
        tag(4, 1, &[3]),
    ];
    let plan = planned(&request, &machine(), &v2(&wishes), &[]).unwrap();
    assert!(
        plan.warnings
            .iter()
            .any(|w| w.contains("RSDP): nobody knows; ")),
        "{:?}",
        plan.warnings
    );

    // A text screen is no use to a kernel that says it cannot write to one.
    let mut text = machine().boot_e820([(0, 0x9_fbff, 1), (MIB, 2 * GIB - 1, 1)]);
    let info = &mut text.boot_params.as_mut().unwrap().params.screen_info;
    (info[6], info[7], info[14], info[15]) = (3, 80, 25, 1);
    assert!(
        planned(
            &request,
            &text,
            &v2(&[tag(4, 0, &[3]), tag(1, 0, &[8])]),
            &[]
        )
        .is_ok()
    );
    assert_eq!(
        refusal(&text, &[tag(4, 0, &[1])], &request),
        format!(
            "{start} a console, and cannot be: there is a text screen, and it cannot write to one"
        )
    );
}

#[test]
fn options_for_linux_are_refused() {
    let file = v1_at(MIB);
    let image = probe(&file).unwrap();
    let refusal = |request: &LoadRequest, initrds: &[&[u8]]| {
        let error = make(
            request,
            &machine(),
            &image,
            &Given::initrds(initrds),
            Capability::unknown,
        )
        .unwrap_err();
        assert!(error.is_usage(), "{error}");
        (error.to_string(), error.hint().is_some())
    };
    let plain = line("x");
    assert_eq!(
        refusal(&plain, &[b"initrd"]),
        (
            "--initrd is not for a multiboot kernel: it takes modules".to_owned(),
            true
        )
    );
    let mut request = plain.clone();
    request.target = Target::Crash;
    assert!(
        refusal(&request, &[])
            .0
            .starts_with("--panic is not for a multiboot kernel")
    );
    let mut request = plain.clone();
    request.handover.dtb = Some(Vec::new());
    assert!(refusal(&request, &[]).0.starts_with("--dtb is not"));
    let mut request = plain;
    request.handover.protect = Some(Protection::Indirect);
    assert!(
        refusal(&request, &[])
            .0
            .starts_with("--pool-protect is not")
    );
}

#[test]
fn pools_are_reserved() {
    let mut request = line("x");
    request.handover.pools = vec![Pool::parse_option("64M,16M").unwrap()];
    let pool = range(64 * MIB, 80 * MIB - 1);
    for protect in [None, Some(Protection::Reserved)] {
        request.handover.protect = protect;
        let plan = planned(&request, &machine(), &v1_at(MIB), &[3]).unwrap();
        assert_eq!(plan.pools[0].protection, Protection::Reserved);
        assert!(plan.told.contains(&(pool, Told::RESERVED)));
    }
    let error = planned(&request, &machine(), &v1_at(65 * MIB), &[]).unwrap_err();
    assert!(
        error.to_string().contains("is pool default_pmpool"),
        "{error}"
    );
}

#[test]
fn only_kexec_load_will_do() {
    let mut request = line("x");
    request.syscall = SyscallChoice::Only(Syscall::KexecFileLoad);
    let error = planned(&request, &machine(), &v1_at(MIB), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "kexec_file_load refuses this image: it is a multiboot kernel, and the running kernel loads Linux only"
    );
    // An option that only kexec_load can do is not the reason.
    request.mem_min = Some(MIB);
    let error = planned(&request, &machine(), &v1_at(MIB), &[]).unwrap_err();
    assert!(
        matches!(error, PlanError::FileLoadRefuses { .. }),
        "{error}"
    );
    request.mem_min = None;
    let mut locked = machine();
    locked.security.lockdown = Some(Lockdown::Integrity);
    let error = planned(&line("x"), &locked, &v1_at(MIB), &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot load: kernel lockdown forbids kexec_load, and kexec_file_load refuses this \
         image: it is a multiboot kernel, and the running kernel loads Linux only"
    );
    request.syscall = SyscallChoice::Only(Syscall::KexecLoad);
    assert!(planned(&request, &machine(), &v1_at(MIB), &[]).is_ok());
}

#[test]
fn xen_is_warned_of() {
    let mut header = header_v1(3, &[]);
    header.extend(b"Xen version %d.%d\0Xen-e820\0Multiboot-e820\0");
    let file = file(&header, 2 * MIB);
    let warned = |host: &Host, text: &str, word: &str| {
        let plan = planned(&line(text), host, &file, &[]).unwrap();
        plan.warnings.iter().any(|w| w.contains(word))
    };
    assert!(warned(&machine(), "console=com1", "no-real-mode"));
    assert!(!warned(
        &machine(),
        "console=com1 no-real-mode",
        "no-real-mode"
    ));
    assert!(!warned(&machine(), "x", "boot services"));
    let mut efi = machine();
    efi.efi = Some(crate::host::efi::Efi::default());
    assert!(warned(&efi, "x", "Xen starts on an EFI machine"));
}

#[test]
fn a_command_line_with_a_nul_is_refused_wherever_it_is() {
    let file = v1_at(MIB);
    let mut image = probe(&file).unwrap();
    let Image::Multiboot(kernel) = &mut image else {
        panic!("not multiboot");
    };
    kernel.modules = vec![multiboot::Module {
        bytes: b"x",
        cmdline: "a\0b".into(),
    }];
    let error = make(
        &line("x"),
        &machine(),
        &image,
        &Given::default(),
        Capability::unknown,
    )
    .unwrap_err();
    assert!(
        matches!(error, PlanError::Cmdline(CmdlineError::Nul(1))),
        "{error}"
    );
}
