//! The plan: everything a load does, decided before any of it is done.
//!
//! [`plan`] is pure: it reads no file, no clock, no environment, and takes its
//! randomness from the request. A [`Checked`] plan is the only road to a system call.
//!
//! The frame here is the same for every boot protocol. What differs between them it asks
//! of `boot::Protocol`.

mod advice;
mod decide;
mod error;
mod excluded;
mod file_flags;
mod idle;
mod place;
mod pools;
mod predict;
mod validate;

use std::collections::BTreeSet;

use bstr::{BString, ByteSlice as _};

pub use decide::Decision;
pub use error::PlanError;
pub use validate::{Checked, Violation};

use crate::base::{PhysRange, Syscall, Target, Told};
use crate::boot::{EMPTY_INITRD, Firmware, Protocol, TableSummary, Taken};
use crate::carry::{Capability, Handover, PlannedPool};
use crate::cmdline::{self, Cmdline, CmdlineBase};
use crate::crash::{self, Reservation};
use crate::fdt::DeviceTree;
use crate::host::Host;
use crate::image::Image;
use crate::layout::{Blobs, Excluded, Segment, stream_size};
use crate::memory::MemoryMap;
use crate::request::LoadRequest;
use crate::sys::{FileFlags, Hotplug};

/// How the kernel is loaded.
#[derive(Debug, Clone)]
pub enum Method<'a> {
    /// kexec_load: this program places everything.
    Segments {
        /// Where the running kernel jumps to: purgatory.
        entry: u64,
        /// The segments, in address order.
        segments: Vec<Segment<'a>>,
        /// What the first table leads to, for people.
        tables: Vec<TableSummary>,
    },
    /// kexec_file_load: the running kernel places everything.
    File {
        /// The kernel's file, without its containers.
        kernel: &'a [u8],
        /// The initrds, in order.
        initrds: Vec<&'a [u8]>,
        /// Flags that were asked for and that the kernel takes.
        flags: FileFlags,
    },
}

/// Everything a load does.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    /// How the kernel is loaded.
    pub method: Method<'a>,
    /// Why so.
    pub reason: String,
    /// The command line.
    pub cmdline: Cmdline,
    /// The reconciled map.
    pub memory_map: MemoryMap,
    /// What the next kernel is told of memory. With kexec_file_load, what the running
    /// kernel is expected to tell it.
    pub told: Vec<(PhysRange, Told)>,
    /// What is kept out, and why.
    pub excluded: Vec<Excluded>,
    /// The pools.
    pub pools: Vec<PlannedPool>,
    /// The crash kernel's part; `None` for a kernel for `exec`.
    pub crash: Option<CrashPlan>,
    /// Digests of what is loaded from files; `None` where nothing uses them: without
    /// `--panic`, with kexec_file_load or `--no-digest`.
    pub blobs: Option<Blobs>,
    /// Why [`EMPTY_INITRD`] is handed over; `None` when it is not.
    pub empty_initrd: Option<&'static str>,
    /// What the operator should know.
    pub warnings: Vec<String>,
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

impl<'a> Plan<'a> {
    /// Which system call.
    #[must_use]
    pub const fn syscall(&self) -> Syscall {
        match self.method {
            Method::Segments { .. } => Syscall::KexecLoad,
            Method::File { .. } => Syscall::KexecFileLoad,
        }
    }

    /// Which system call, and why.
    #[must_use]
    pub fn decision(&self) -> Decision {
        Decision {
            name: self.syscall(),
            reason: self.reason.clone(),
        }
    }

    /// The segments, in address order; none with kexec_file_load.
    #[must_use]
    pub fn segments(&self) -> &[Segment<'a>] {
        match &self.method {
            Method::Segments { segments, .. } => segments,
            Method::File { .. } => &[],
        }
    }

    /// Where the running kernel jumps to; `None` with kexec_file_load.
    #[must_use]
    pub const fn entry(&self) -> Option<u64> {
        match self.method {
            Method::Segments { entry, .. } => Some(entry),
            Method::File { .. } => None,
        }
    }

    /// What the first table of the boot protocol leads to; nothing with kexec_file_load.
    #[must_use]
    pub fn tables(&self) -> &[TableSummary] {
        match &self.method {
            Method::Segments { tables, .. } => tables,
            Method::File { .. } => &[],
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
        match self.method {
            Method::Segments { .. } => self.kernel_updates(),
            // After kexec_file_load the kernel updates the image if it can.
            Method::File { .. } => host.loaded.crash_elfcorehdr_size.is_some(),
        }
    }

    /// Sum of the segments' sizes in memory, bytes.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        let sizes = self.segments().iter().map(|segment| segment.mem.size());
        sizes.sum()
    }
}

/// What every step of planning reads.
#[derive(Debug, Clone, Copy)]
struct Inputs<'i, 'a> {
    request: &'i LoadRequest,
    host: &'i Host,
    image: &'i Image<'a>,
    boot: Protocol<'i, 'a>,
    /// The initrds, with the empty one where it is handed over.
    initrds: &'i [&'a [u8]],
}

/// What is settled before anything is placed.
#[derive(Debug)]
struct Ground {
    cmdline: Cmdline,
    memory_map: MemoryMap,
    crash: Option<CrashPlan>,
    tree: Option<DeviceTree>,
    pools: Vec<PlannedPool>,
    firmware: Firmware,
    empty_initrd: Option<&'static str>,
    excluded: Vec<Excluded>,
    /// Why the system call was taken.
    reason: String,
    warnings: Vec<String>,
}

impl Ground {
    /// Settles the pools and the memory that is kept free. Gives what the command line takes away from the next kernel.
    fn settle(
        &mut self,
        inputs: Inputs<'_, '_>,
        syscall: Syscall,
        handover: Handover,
        target: impl FnOnce() -> Capability,
    ) -> Result<Vec<Taken>, PlanError> {
        let Inputs {
            request,
            host,
            boot,
            ..
        } = inputs;
        let (line, crash) = (self.cmdline.as_bstr(), self.crash.as_ref());
        let dumped = crash.map_or(&[][..], |crash| &crash.dump);
        let of_kernel = boot.warnings(request, host, &handover, line, dumped);
        let of_crash = crash.map(|crash| advice::crash_warnings(host, crash, syscall, line));
        self.warnings.extend(of_kernel);
        self.warnings.extend(of_crash.into_iter().flatten());
        self.warnings.append(&mut self.firmware.warnings);
        if syscall == Syscall::KexecLoad && request.target == Target::Normal {
            let pools = pools::protect(inputs, &handover, target, &self.cmdline)?;
            for planned in &pools.planned {
                let (pool, (told, why)) = (&planned.pool, pools::told(planned.protection));
                self.memory_map
                    .set_pool(pool.range(), pool.name(), told, why);
            }
            (self.pools, self.cmdline) = (pools.planned, pools.cmdline);
            self.warnings.extend(pools.warning);
        }
        self.tree = handover.tree;
        let taken = excluded::by_line(boot, self.cmdline.as_bstr(), request.target);
        let own = self.crash.as_ref().map(|crash| crash.reservation.target);
        self.excluded = excluded::excluded(host, &self.memory_map, own, &taken);
        Ok(taken)
    }

    /// The plan that loads by `method`, which tells the next kernel `told`.
    fn plan(
        self,
        method: Method<'_>,
        told: Vec<(PhysRange, Told)>,
        blobs: Option<Blobs>,
    ) -> Plan<'_> {
        Plan {
            method,
            reason: self.reason,
            cmdline: self.cmdline,
            memory_map: self.memory_map,
            told,
            excluded: self.excluded,
            pools: self.pools,
            crash: self.crash,
            blobs,
            empty_initrd: self.empty_initrd,
            warnings: self.warnings,
        }
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
) -> Result<Checked<Plan<'a>>, PlanError> {
    if let Some(refusal) = host.security.environment.refuses() {
        return Err(PlanError::Environment(refusal));
    }
    let boot = Protocol::of(image);
    boot.check_request(request, initrds)?;
    check_drivers(&request.include_driver_managed)?;
    let asked = command_line(request, host, boot.cmdline_limit())?;
    let cmdline = boot.cmdline(&asked)?;
    let memory_map =
        MemoryMap::reconcile(host, request.memory_map, &request.include_driver_managed);
    // A crash kernel only reads the dead kernel's memory. It takes over no state.
    let handover = match request.target {
        Target::Normal => Handover::gather(&request.handover, host)?,
        Target::Crash => Handover::default(),
    };
    handover.check_places(&memory_map, &host.iomem.crash_kernel())?;
    let Decision { name, mut reason } =
        decide::decide(request, host, boot, &memory_map, &handover, &cmdline)?;
    let (flags, idle) = file_flags::taken(request.file_flags, name, host);
    for flag in flags.names() {
        reason += ", with ";
        reason += flag;
    }
    let mut warnings = advice::general_warnings(request, host);
    warnings.extend(advice::empty_line(request, asked.as_bstr()));
    warnings.extend(idle::warnings(request, host, boot, &handover));
    warnings.extend(idle);

    let (mut memory_map, mut cmdline, mut crash) = (memory_map, cmdline, None);
    if request.target == Target::Crash {
        let asked = cmdline.as_bstr().to_owned();
        if !cmdline::has(&asked, cmdline::NO_MEMHOTPLUG) {
            cmdline = cmdline.with(cmdline::NO_MEMHOTPLUG)?;
        }
        crash = Some(crash_plan(request, host, &mut memory_map, asked, name)?);
    }
    boot.check_machine(host)?;

    let empty = [EMPTY_INITRD];
    let firmware = boot.firmware(request, host, name, cmdline.as_bstr())?;
    let no_initrd = stream_size(initrds) == 0;
    let empty_initrd = firmware.empty_initrd.filter(|_| no_initrd);
    let inputs = Inputs {
        request,
        host,
        image,
        boot,
        initrds: match empty_initrd {
            Some(_) => &empty[..],
            None => initrds,
        },
    };
    let mut ground = Ground {
        cmdline,
        memory_map,
        crash,
        pools: Vec::new(),
        tree: None,
        firmware,
        empty_initrd,
        excluded: Vec::new(),
        reason,
        warnings,
    };
    let taken = ground.settle(inputs, name, handover, target)?;
    let plan = match name {
        Syscall::KexecLoad => place::by_segments(inputs, ground),
        Syscall::KexecFileLoad => predict::by_file(inputs, ground, flags),
    }?;
    validate::validate(plan, host, &taken)
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

#[cfg(test)]
mod firmware_tests;
#[cfg(test)]
mod multiboot_tests;
