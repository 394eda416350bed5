//! The plan: everything a load does, decided before any of it is done.
//!
//! [`plan`] is pure: it reads no file, no clock, no environment, and takes its
//! randomness from the request. A [`Plan`] is the only road to a system call.

mod advice;
mod chain;
mod decide;
mod error;
mod excluded;
mod file_flags;
mod firmware;
mod idle;
mod initrd;
mod multiboot;
mod place;
mod pools;
mod protected;
pub mod taken;
mod validate;

use std::borrow::Cow;
use std::collections::BTreeSet;

use bstr::{BString, ByteSlice as _};

pub use decide::{Decision, SyscallChoice};
pub use error::PlanError;
pub use firmware::{EMPTY_INITRD, FirmwareError};
pub use initrd::{INITRD_PAD, stream_size};
pub use validate::Violation;

use crate::abi::x86::E820Type;
use crate::abi::x86::boot_params::E820_MAX_ENTRIES_ZEROPAGE;
use crate::base::{PhysRange, Syscall, Target};
use crate::carry::record::Blob;
use crate::carry::{Capability, Handover, HandoverRequest, Pool, Protection};
use crate::cmdline::{self, Cmdline, CmdlineBase, CmdlineRequest};
use crate::crash::{self, HotplugChoice, Reservation};
use crate::host::Host;
use crate::host::firmware_tables::FirmwareTables;
use crate::image::linux::{Format, xloadflags};
use crate::image::{Image, LinuxKernel};
use crate::memory::{MapPolicy, MemoryMap, kernel_map};
use crate::purgatory::{self, Digest};
use crate::sys::{FileFlags, Hotplug};

/// What the operator asks for.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// The command line.
    pub cmdline: CmdlineRequest,
    /// Which system call.
    pub syscall: SyscallChoice,
    /// How the map for the next kernel is made.
    pub memory_map: MapPolicy,
    /// Drivers whose memory is handed over as RAM after all.
    pub include_driver_managed: BTreeSet<String>,
    /// Segments lie at or above this physical address.
    pub mem_min: Option<u64>,
    /// Segments lie below this physical address.
    pub mem_max: Option<u64>,
    /// Purgatory does not verify.
    pub no_digest: bool,
    /// The next kernel is told nothing of EFI.
    pub no_efi: bool,
    /// First I/O port of the UART that purgatory reports on, instead of the console's.
    pub serial_port: Option<u16>,
    /// Seed for the next kernel's random number generator; `None` hands over none.
    pub seed: Option<[u8; 32]>,
    /// The device tree and the pools.
    pub handover: HandoverRequest,
    /// The time of the load for the record, seconds since 1970.
    pub time: u64,
    /// For `exec`, or for a panic.
    pub target: Target,
    /// Whether the kernel shall update elfcorehdr itself.
    pub hotplug: HotplugChoice,
    /// Flags for kexec_file_load.
    pub file_flags: FileFlags,
    /// The firmware's root pointers, for a multiboot kernel.
    pub firmware_tables: FirmwareTables,
}

impl LoadRequest {
    /// The UART on which purgatory reports: the one asked for, else the console's.
    fn port_for_reports(&self, host: &Host) -> Option<u16> {
        let consoles = || host.serial.as_ref().map(|serial| serial.port);
        self.serial_port.or_else(consoles)
    }
}

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The protected-mode part of the image.
    Kernel,
    /// The initrds, one behind the other; several parts when pages are shared.
    Initrd,
    /// The zero page and the command line, or the multiboot information.
    BootParams,
    /// The setup_data chain and the EFI memory map.
    SetupData,
    /// The code that verifies the digest and enters the kernel.
    Purgatory,
    /// The ELF header of the dump.
    Elfcorehdr,
    /// A multiboot kernel's module.
    Module,
}

impl Role {
    /// The role's name, as in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::BootParams => "boot_params",
            Self::SetupData => "setup_data",
            Self::Purgatory => "purgatory",
            Self::Elfcorehdr => "elfcorehdr",
            Self::Module => "module",
        }
    }
}

/// One entry given to kexec_load.
#[derive(Debug, Clone)]
pub struct Segment<'a> {
    /// What it is for.
    pub role: Role,
    /// Its bytes; the rest of `mem` is zeroed.
    pub buf: Cow<'a, [u8]>,
    /// Where it goes, in whole pages.
    pub mem: PhysRange,
    /// The rule that put it there.
    pub rule: String,
}

/// A range that is kept from segments, or from the next kernel, by a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excluded {
    /// The addresses.
    pub range: PhysRange,
    /// What it is called where it was found.
    pub name: String,
    /// Why it is kept out.
    pub reason: &'static str,
}

/// One node of the setup_data chain, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct SetupDataSummary {
    /// SETUP_* name without the prefix.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Payload in bytes.
    pub size: usize,
}

/// Everything a load does.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// Which system call, and why.
    pub syscall: Decision,
    /// The command line.
    pub cmdline: Cmdline,
    /// Where the running kernel jumps to: purgatory; `None` when the running
    /// kernel places everything itself (kexec_file_load).
    pub entry: Option<u64>,
    /// The segments, in address order; empty with kexec_file_load.
    pub segments: Vec<Segment<'a>>,
    /// The reconciled map.
    pub memory_map: MemoryMap,
    /// What the next kernel will find in its e820.
    pub e820: Vec<(PhysRange, E820Type)>,
    /// What is kept out, and why.
    pub excluded: Vec<Excluded>,
    /// The chain; empty with kexec_file_load.
    pub setup_data: Vec<SetupDataSummary>,
    /// The pools.
    pub pools: Vec<PlannedPool>,
    /// The crash kernel's part; `None` for a kernel for `exec`.
    pub crash: Option<CrashPlan>,
    /// Digests of what is loaded from files; `None` without `--panic` when
    /// nothing uses them (kexec_file_load, `--no-digest`).
    pub blobs: Option<Blobs>,
    /// Flags for kexec_file_load that were asked for and that the kernel takes.
    pub file_flags: FileFlags,
    /// Why [`EMPTY_INITRD`] is handed over; `None` when it is not.
    pub empty_initrd: Option<&'static str>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// A pool as it is handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPool {
    /// The pool.
    pub pool: Pool,
    /// Where it is known from.
    pub origin: &'static str,
    /// How the next kernel is kept off it.
    pub protection: Protection,
    /// Why it is protected so.
    pub reason: String,
}

/// The part of a plan that only a crash kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrashPlan {
    /// Where it may run.
    pub reservation: Reservation,
    /// The RAM that the dump holds.
    pub dump: Vec<PhysRange>,
    /// The flag by which the kernel updates elfcorehdr, and the size in bytes
    /// that it wants for it; `None` with kexec_file_load, where it decides itself.
    pub hotplug: Option<(Hotplug, u64)>,
    /// The requested command line, without the parameters that a crash load adds.
    pub asked_cmdline: BString,
}

/// What is loaded from files, by its digests.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Blobs {
    /// The kernel: a bzImage's protected-mode part, or the PT_LOADs of a vmlinux.
    pub kernel: Option<Blob>,
    /// The initrds as one stream, part by part.
    pub initrd: Vec<Blob>,
}

impl Blobs {
    /// Those of `segments`, whose digests are `digests`; `None` when there are none.
    fn of(segments: &[Segment<'_>], digests: &[(PhysRange, Digest)]) -> Option<Self> {
        let of = |role| {
            let pairs = segments.iter().zip(digests);
            pairs
                .filter(move |(segment, _)| segment.role == role)
                .map(|(segment, (_, digest))| (&*segment.buf, *digest))
        };
        (!digests.is_empty()).then(|| Self {
            kernel: joined(of(Role::Kernel)),
            initrd: of(Role::Initrd)
                .map(|(bytes, digest)| Blob::new(bytes, &digest))
                .collect(),
        })
    }

    /// The same for files that no segment holds.
    fn of_files(image: &LinuxKernel<'_>, initrds: &[&[u8]]) -> Self {
        let blob = |bytes: &[u8]| Blob::new(bytes, &purgatory::digest(bytes));
        let loads = image.loads.iter().map(|load| load.bytes);
        let parts = initrd::parts(initrds, usize::MAX);
        Self {
            kernel: joined(loads.map(|bytes| (bytes, purgatory::digest(bytes)))),
            initrd: parts.iter().map(|part| blob(part)).collect(),
        }
    }
}

/// Several parts as one: their digest is that of their digests.
fn joined<'a>(parts: impl Iterator<Item = (&'a [u8], Digest)>) -> Option<Blob> {
    let parts: Vec<(&[u8], Digest)> = parts.collect();
    match parts.as_slice() {
        [] => None,
        [(bytes, digest)] => Some(Blob::new(bytes, digest)),
        parts => {
            let digests: Vec<Digest> = parts.iter().map(|(_, digest)| *digest).collect();
            Some(Blob {
                size: parts.iter().map(|(bytes, _)| bytes.len()).sum(),
                ..Blob::new(&[], &purgatory::digest(&digests.concat()))
            })
        }
    }
}

impl Plan<'_> {
    /// A plan of which nothing is placed yet.
    fn new(
        syscall: Decision,
        cmdline: Cmdline,
        memory_map: MemoryMap,
        warnings: Vec<String>,
    ) -> Self {
        Self {
            syscall,
            cmdline,
            entry: None,
            segments: Vec::new(),
            memory_map,
            e820: Vec::new(),
            excluded: Vec::new(),
            setup_data: Vec::new(),
            pools: Vec::new(),
            crash: None,
            blobs: None,
            file_flags: FileFlags::default(),
            empty_initrd: None,
            warnings,
        }
    }

    /// For `exec`, or for a panic.
    #[must_use]
    pub fn target(&self) -> Target {
        self.crash
            .as_ref()
            .map_or(Target::Normal, |_| Target::Crash)
    }

    /// Whether the kernel updates the crash image itself when memory or CPUs
    /// come and go.
    #[must_use]
    pub fn kernel_updates(&self) -> bool {
        self.crash.as_ref().is_some_and(|c| c.hotplug.is_some())
    }

    /// Whether the running kernel keeps the loaded crash kernel up to date, by its own
    /// choice or as this plan lets it.
    #[must_use]
    pub fn is_kept_up(&self, host: &Host) -> bool {
        match self.syscall.name {
            Syscall::KexecLoad => self.kernel_updates(),
            // After kexec_file_load the kernel updates the image if it can.
            Syscall::KexecFileLoad => host.loaded.crash_elfcorehdr_size.is_some(),
        }
    }

    /// Sum of the segments' sizes in memory, bytes.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.mem.size()).sum()
    }
}

/// Plans the load of `image` with `initrds`. `target` is what is known of the
/// next kernel's configuration; it is asked only when there are pools.
///
/// # Errors
/// When the request contradicts itself or cannot be fulfilled on this machine.
pub fn plan<'a>(
    request: &LoadRequest,
    host: &Host,
    image: &Image<'a>,
    initrds: &[&'a [u8]],
    target: impl FnOnce() -> Capability,
) -> Result<Plan<'a>, PlanError> {
    if let Some(refusal) = host.security.environment.refuses() {
        return Err(PlanError::Environment(refusal));
    }
    let image = match image {
        Image::Linux(image) => image,
        Image::Multiboot(image) => return multiboot::plan(request, host, image, initrds),
    };
    check_drivers(&request.include_driver_managed)?;
    let limit = image.cmdline_limit();
    let mut cmdline = command_line(request, host, limit)?;
    let mut memory_map =
        MemoryMap::reconcile(host, request.memory_map, &request.include_driver_managed);
    // A crash kernel only reads the dead kernel's memory. It takes over no state.
    let handover = match request.target {
        Target::Normal => Handover::gather(&request.handover, host)?,
        Target::Crash => Handover::default(),
    };
    handover.check_places(&memory_map, &host.iomem.crash_kernel())?;

    let mut warnings = advice::general_warnings(request, host);
    warnings.extend(advice::empty_line(request, cmdline.as_bstr()));
    warnings.extend(idle::warnings(request, host, &handover));
    if image.format == Format::Vmlinux {
        warnings.push(
            "no KASLR: a vmlinux always starts at a fixed address. The bzImage (vmlinuz) of the same kernel has KASLR"
                .to_owned(),
        );
    }
    let syscall = decide::decide(request, host, image, &memory_map, &handover, &cmdline)?;
    let crash = match request.target {
        Target::Normal => None,
        Target::Crash => {
            let asked = cmdline.as_bstr().to_owned();
            if !cmdline::has(&asked, cmdline::NO_MEMHOTPLUG) {
                cmdline = cmdline.with(cmdline::NO_MEMHOTPLUG)?;
            }
            Some(crash_plan(
                request,
                host,
                &mut memory_map,
                asked,
                syscall.name,
            )?)
        }
    };
    // A 32-bit entry is reached without paging.
    let enters_paging = !image.is_32_bit();
    if enters_paging && host.cpu.la57 && !image.has(xloadflags::FIVE_LEVEL) {
        return Err(PlanError::FiveLevel);
    }
    let mut plan = Plan {
        crash,
        ..Plan::new(syscall, cmdline, memory_map, warnings)
    };
    plan.take_file_flags(request, host);
    if let Some(crash) = &plan.crash {
        plan.warnings
            .extend(advice::crash_warnings(host, crash, &plan));
        plan.warnings.extend(protected::crash_warning(image, crash));
    }
    let told = firmware::told(request, host, image, &plan)?;
    plan.warnings.extend(told.warning);
    if initrd::stream_size(initrds) == 0 {
        plan.empty_initrd = told.empty_initrd;
    }
    let empty = [EMPTY_INITRD];
    let initrds = match plan.empty_initrd {
        Some(_) => &empty[..],
        None => initrds,
    };
    match plan.syscall.name {
        Syscall::KexecLoad => {
            if handover.has_pools() {
                pools::protect(request, &handover, &target(), &mut plan)?;
            } else if request.target == Target::Crash {
                // A crash kernel may use only its reservation.
            } else if !request.handover.no_carry {
                handover.check_cmdline(plan.cmdline.as_bstr())?;
            } else if cmdline::has(plan.cmdline.as_bstr(), "pmpool") {
                plan.warnings.push(
                    "pmpool= on the command line names no pool that is handed over: what lies there is lost"
                        .to_owned(),
                );
            }
            plan.e820 = plan.memory_map.e820();
            plan.excluded = excluded::excluded(host, &plan, &excluded::by_line(&plan));
            let efi = told.efi.as_ref();
            place::place(request, host, image, initrds, &handover, efi, &mut plan)
                .map_err(|error| place::explain(error, request, host, image, initrds, &plan))?;
        }
        Syscall::KexecFileLoad => {
            plan.excluded = excluded::excluded(host, &plan, &excluded::by_line(&plan));
            excluded::warn_of_file_load(&mut plan);
            let fits = place::fits(request, host, image, initrds, &plan)
                .map_err(|error| place::explain(error, request, host, image, initrds, &plan));
            if plan.crash.is_some() {
                plan.e820 = plan.memory_map.e820();
                fits?;
                plan.blobs = Some(Blobs::of_files(image, initrds));
            } else {
                // For other reasons the running kernel's own answer says more.
                if let Err(error @ PlanError::TakenAway { .. }) = fits {
                    return Err(error);
                }
                plan.e820 = kernel_map(host);
                if plan.e820.is_empty() {
                    plan.warnings.push(
                        "the memory map that the running kernel hands over is not known: neither \
                         /sys/kernel/boot_params nor /sys/firmware/memmap is there"
                            .to_owned(),
                    );
                }
            }
            let line = &plan.cmdline;
            let harm = decide::harm(request.target, host, &plan.memory_map, &plan.e820, line);
            let harm = harm
                .into_iter()
                .map(|harm| format!("kexec_file_load {}", harm.what));
            plan.warnings.extend(harm);
            plan.e820.truncate(E820_MAX_ENTRIES_ZEROPAGE);
            let keeps_tree = request.handover.uki_dtb.is_none() && plan.keeps_the_running_tree();
            if handover.tree.is_some() && !keeps_tree {
                let whose = match request.handover.uki_dtb {
                    Some(_) => "the UKI",
                    None => "the running kernel",
                };
                plan.warnings.push(format!(
                    "kexec_file_load leaves the device tree of {whose} behind"
                ));
            }
        }
    }
    let about_map = advice::map_warnings(request, &plan);
    plan.warnings.extend(about_map);
    validate::validate(&plan, host, &excluded::by_line(&plan))?;
    Ok(plan)
}

/// What a crash kernel needs besides a kernel.
fn crash_plan(
    request: &LoadRequest,
    host: &Host,
    map: &mut MemoryMap,
    asked_cmdline: BString,
    syscall: Syscall,
) -> Result<CrashPlan, PlanError> {
    let reservation = Reservation::of(host)?;
    reservation.restrict(map)?;
    let hotplug = crash::hotplug(host, request.hotplug)?;
    Ok(CrashPlan {
        dump: crash::dumped(map),
        reservation,
        hotplug: hotplug.filter(|_| syscall == Syscall::KexecLoad),
        asked_cmdline,
    })
}

/// The command line. `--no-carry-pools` also strips `pmpool=` from a reused one.
fn command_line(request: &LoadRequest, host: &Host, limit: usize) -> Result<Cmdline, PlanError> {
    let mut wish = request.cmdline.clone();
    if request.handover.no_carry && wish.base == CmdlineBase::Running {
        wish.remove.push("pmpool".into());
    }
    let running = match request.target {
        Target::Normal => host.cmdline.clone(),
        Target::Crash => cmdline::for_crash(host.cmdline.as_bstr()),
    };
    Ok(Cmdline::make(&wish, &running, limit)?)
}

fn check_drivers(drivers: &BTreeSet<String>) -> Result<(), PlanError> {
    match drivers.iter().find(|driver| *driver != "kmem") {
        Some(driver) if driver == "virtio_mem" => Err(PlanError::NotIncludable {
            driver: driver.clone(),
            reason: "the hypervisor may have unplugged parts of it, and its driver unplugs all of it when it starts",
        }),
        Some(driver) => Err(PlanError::NotIncludable {
            driver: driver.clone(),
            reason: "nothing is known of this driver",
        }),
        None => Ok(()),
    }
}
