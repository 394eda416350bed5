//! The plan: everything a load does, decided before any of it is done.
//!
//! [`plan`] is pure: it reads no file, no clock, no environment, and takes its
//! randomness from the request. A [`Checked`] plan is the only road to a system call.
//!
//! The frame here is the same for every boot protocol. What differs between them it asks
//! of `boot::Protocol`.

mod advice;
mod at_exec;
mod built;
mod decide;
mod error;
mod excluded;
mod file_flags;
mod idle;
mod keep;
mod kho;
mod kho_plan;
mod place;
mod pools;
mod predict;
mod scratch;
mod set_aside;
mod validate;
mod watchdog;

use std::cell::LazyCell;
use std::collections::BTreeSet;

use bstr::{BString, ByteSlice as _};

pub use advice::general_warnings;
pub use at_exec::AtExecError;
pub use built::CarryError;
pub use decide::Decision;
pub use error::PlanError;
pub use kho::KhoError;
pub use kho_plan::{Carried, CarriedFile, Given, KhoPlan, Way};
pub use validate::{Checked, Violation};

use self::keep::Running;
use crate::base::{PhysRange, Syscall, Target, Told};
use crate::boot::{EMPTY_INITRD, Firmware, Protocol, TableSummary, Taken};
use crate::carry::gather::running_record;
use crate::carry::{Capability, Handover, PlannedPool, Protection, kho_pools};
use crate::cmdline::{self, Cmdline, CmdlineBase};
use crate::crash::{self, Reservation};
use crate::fdt::DeviceTree;
use crate::host::Host;
use crate::image::Image;
use crate::kho::Node;
use crate::layout::{Blobs, Excluded, Placement, Segment, stream_size};
use crate::memory::MemoryMap;
use crate::request::{KhoChoice, LoadRequest};
use crate::sys::{FileFlags, Hotplug};
use built::Built;

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
        /// Where the kernel runs; `None` where its own unpacker decides.
        placement: Option<Placement>,
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
    /// Why the loader unpacks and places the kernel itself, or does not; `None` where the
    /// boot protocol knows one way only.
    pub direct: Option<String>,
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
    /// What is handed over by Kexec Handover; `None`: nothing.
    pub kho: Option<KhoPlan>,
    /// The crash kernel's part; `None` for a kernel for `exec`.
    pub crash: Option<CrashPlan>,
    /// Digests of what is loaded from files; `None` where nothing uses them: without
    /// `--panic`, with kexec_file_load or `--no-digest`.
    pub blobs: Option<Blobs>,
    /// Why [`EMPTY_INITRD`] is handed over; `None` when it is not.
    pub empty_initrd: Option<&'static str>,
    /// What the operator should know.
    pub warnings: Vec<String>,
    /// Those of the warnings that only inform: nothing is lost, and nothing fails.
    notes: Vec<String>,
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
    /// Whether `warning` only informs: nothing is lost, and nothing fails.
    #[must_use]
    pub fn is_note(&self, warning: &String) -> bool {
        self.notes.contains(warning)
    }

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

    /// Where the kernel runs; `None` where its own unpacker or the running kernel decides.
    #[must_use]
    pub const fn placement(&self) -> Option<Placement> {
        match self.method {
            Method::Segments { placement, .. } => placement,
            Method::File { .. } => None,
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
    /// The files to carry.
    carried: &'i [Carried<'a>],
    /// Why Kexec Handover preserves no pools that it could preserve; `None`: it does.
    without_kho: Option<&'i str>,
}

/// What is settled before anything is placed.
#[derive(Debug)]
struct Ground {
    cmdline: Cmdline,
    memory_map: MemoryMap,
    crash: Option<CrashPlan>,
    tree: Option<DeviceTree>,
    pools: Vec<PlannedPool>,
    /// What the loader itself hands over by Kexec Handover.
    built: Option<Built>,
    kho: Option<KhoPlan>,
    /// The node with the running kernel's tree, where that is passed on.
    node: Option<Node>,
    firmware: Firmware,
    empty_initrd: Option<&'static str>,
    excluded: Vec<Excluded>,
    /// Why the system call was taken.
    reason: String,
    /// Why the loader unpacks the kernel itself, or does not.
    direct: Option<String>,
    warnings: Vec<String>,
    /// Those of the warnings that only inform.
    notes: Vec<String>,
}

impl Ground {
    /// With nothing settled but these.
    fn of(cmdline: Cmdline, memory_map: MemoryMap) -> Self {
        Self {
            cmdline,
            memory_map,
            crash: None,
            tree: None,
            pools: Vec::new(),
            built: None,
            kho: None,
            node: None,
            firmware: Firmware::default(),
            empty_initrd: None,
            excluded: Vec::new(),
            reason: String::new(),
            direct: None,
            warnings: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Says what only informs.
    fn inform(&mut self, notes: impl IntoIterator<Item = String>) {
        for note in notes {
            self.warnings.push(note.clone());
            self.notes.push(note);
        }
    }

    /// Settles what the running kernel hands over, and the files that go with it. `target`
    /// is asked only where something is handed over.
    fn keep<F: FnOnce() -> Capability>(
        &mut self,
        inputs: Inputs<'_, '_>,
        running: Running,
        target: &LazyCell<Capability, F>,
    ) -> Result<(), PlanError> {
        let line = self.cmdline.as_bstr();
        let lost = kho::check(inputs, &running, line, || (**target).clone())?;
        self.warnings.extend(lost);
        self.kho = running.plan(inputs.host);
        if let Some(kho) = &mut self.kho
            && at_exec::is_way(&running, inputs.carried)
        {
            at_exec::check(inputs, target)?;
            at_exec::put(kho, inputs.carried);
            self.warnings.push(at_exec::WARNING.to_owned());
            self.warnings.extend(at_exec::check_size(inputs)?);
            let pages = at_exec::check_pages(inputs, target)?;
            let pages = pages.filter(|said| !self.warnings.contains(said));
            self.warnings.extend(pages);
        }
        if let Running::Forwarded { node, .. } = running {
            self.node = Some(node);
        }
        Ok(())
    }

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
        let of_crash = crash.map(|_| advice::crash_warnings(host, syscall, line));
        self.warnings.extend(of_kernel);
        self.warnings.extend(of_crash.into_iter().flatten());
        self.inform(crash.and_then(|crash| advice::later_cpus(host, crash, syscall)));
        self.warnings.append(&mut self.firmware.warnings);
        if syscall == Syscall::KexecLoad && request.target == Target::Normal {
            let pools = pools::protect(inputs, &handover, target, &self.cmdline)?;
            for planned in &pools.planned {
                let (pool, (told, why)) = (&planned.pool, pools::told(planned.protection));
                self.memory_map
                    .set_pool(pool.range(), pool.name(), told, why);
            }
            (self.pools, self.cmdline) = (pools.planned, pools.cmdline);
            self.built = Built::with_pools(self.built.take(), &self.pools, &host.release)?;
            self.inform(pools.note);
            self.warnings.extend(pools.warnings);
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
            direct: self.direct,
            cmdline: self.cmdline,
            memory_map: self.memory_map,
            told,
            excluded: self.excluded,
            pools: self.pools,
            kho: self.kho,
            crash: self.crash,
            blobs,
            empty_initrd: self.empty_initrd,
            warnings: self.warnings,
            notes: self.notes,
        }
    }
}

/// Plans the load of `image` with the `given` files. `target` is what is known of the
/// next kernel's configuration; it is asked only when there are pools, or state is handed
/// over by Kexec Handover.
///
/// # Errors
/// When the request contradicts itself or cannot be fulfilled on this machine.
pub fn plan<'a>(
    request: &LoadRequest,
    host: &Host,
    image: &Image<'a>,
    given: &Given<'_, 'a>,
    target: impl FnOnce() -> Capability,
) -> Result<Checked<Plan<'a>>, PlanError> {
    let target = LazyCell::new(target);
    let first = attempt(request, host, image, given, &target, None);
    match first {
        // Nobody asked for Kexec Handover, and pools need none.
        Err(error)
            if error.is_no_handover_room()
                && request.handover.protect.is_none()
                && given.carried.is_empty() =>
        {
            let why = error.to_string();
            let again = attempt(request, host, image, given, &target, Some(&why));
            again.map_err(|_| error)
        }
        first => first,
    }
}

/// Plans as [`plan`] does. `without_kho` says why Kexec Handover preserves no pools.
fn attempt<'a, F: FnOnce() -> Capability>(
    request: &LoadRequest,
    host: &Host,
    image: &Image<'a>,
    given: &Given<'_, 'a>,
    target: &LazyCell<Capability, F>,
    without_kho: Option<&str>,
) -> Result<Checked<Plan<'a>>, PlanError> {
    if let Some(refusal) = host.security.environment.refuses() {
        return Err(PlanError::Environment(refusal));
    }
    let Given { initrds, carried } = *given;
    let boot = Protocol::of(image);
    boot.check_request(request, initrds)?;
    check_drivers(&request.include_driver_managed)?;
    let asked = command_line(request, host, boot.cmdline_limit())?;
    let cmdline = watchdog::on_line(boot.cmdline(&asked)?, request, image)?;
    let is_built = built::is_wanted(request, host, image, carried)?;
    let (cmdline, switched_on) = built::on_line(cmdline, carried)?;
    let drivers = &request.include_driver_managed;
    let mut memory_map = MemoryMap::reconcile(host, request.memory_map, drivers);
    // A crash kernel only reads the dead kernel's memory. It takes over no state.
    let handover = match request.target {
        Target::Normal => Handover::gather(&request.handover, host)?,
        Target::Crash => Handover::default(),
    };
    handover.check_places(&memory_map, &host.iomem.crash_kernel())?;
    let (handover, mut cmdline, of_own) = own_pools(request, boot, handover, cmdline)?;
    let asked_of = decide::Asked {
        request,
        host,
        boot,
        map: &memory_map,
        handover: &handover,
        line: &cmdline,
        carries: is_built,
    };
    let (decision, running) = keep::decide(asked_of)?;
    let (Decision { name, reason }, flags, idle) = file_flags::of(decision, request, host);
    let mut warnings = advice::general_warnings(host);
    warnings.extend(advice::empty_line(request, asked.as_bstr()));
    warnings.extend(of_own);
    let mut notes = idle::warnings(request, host, boot, &handover);
    notes.extend(idle);
    notes.extend(running.idle(request.kho, &host.security.kho));
    warnings.extend(notes.iter().cloned());
    warnings.extend(switched_on);
    warnings.extend(running.lost(&host.security.kho));
    warnings.extend(watchdog::check(request, host, image)?);

    let crash = crash_plan(request, host, &mut memory_map, &mut cmdline, name)?;
    boot.check_machine(host)?;
    let road = boot.road(request, host, name, cmdline.as_bstr(), &memory_map.told())?;
    let boot = boot.by(road.as_ref());
    warnings.extend(road.iter().filter_map(|road| road.warning.clone()));

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
        carried,
        without_kho,
    };
    let built = is_built.then(|| Built::of(inputs, target));
    let mut ground = Ground {
        built: built.transpose()?,
        crash,
        firmware,
        empty_initrd,
        reason,
        direct: road.as_ref().map(|road| road.reason.clone()),
        warnings,
        notes,
        ..Ground::of(cmdline, memory_map)
    };
    ground.keep(inputs, running, target)?;
    let taken = ground.settle(inputs, name, handover, || (**target).clone())?;
    let plan = match name {
        Syscall::KexecLoad => place::by_segments(inputs, ground),
        Syscall::KexecFileLoad => predict::by_file(inputs, ground, flags),
    }?;
    validate::validate(plan, host, &taken)
}

/// The pools that the running kernel hands over itself: the next kernel takes them back by
/// words of its command line. With `--kho drop` the loader hands them over.
fn own_pools(
    request: &LoadRequest,
    boot: Protocol<'_, '_>,
    mut handover: Handover,
    cmdline: Cmdline,
) -> Result<(Handover, Cmdline, Option<String>), PlanError> {
    if request.kho == KhoChoice::Drop || boot.reserves_pools().is_some() {
        handover.take_own()?;
    }
    let (cmdline, warning) = pools::take_back(&handover.own, cmdline)?;
    Ok((handover, cmdline, warning))
}

/// What a crash kernel needs besides a kernel; `None` for another one. Restricts `map` to
/// its reservation, and adds to the command line.
fn crash_plan(
    request: &LoadRequest,
    host: &Host,
    map: &mut MemoryMap,
    cmdline: &mut Cmdline,
    syscall: Syscall,
) -> Result<Option<CrashPlan>, PlanError> {
    if request.target == Target::Normal {
        return Ok(None);
    }
    let asked_cmdline = cmdline.as_bstr().to_owned();
    if !cmdline::has(&asked_cmdline, cmdline::NO_MEMHOTPLUG) {
        *cmdline = cmdline.with(cmdline::NO_MEMHOTPLUG)?;
    }
    let reservation = Reservation::of(host)?;
    reservation.restrict(map)?;
    let hotplug = crash::hotplug(host, request.hotplug)?;
    Ok(Some(CrashPlan {
        dump: crash::dumped(map),
        reservation,
        hotplug: hotplug.filter(|_| syscall == Syscall::KexecLoad),
        asked_cmdline,
    }))
}

/// The command line. `--no-carry-pools` also strips from a reused one `pmpool=`, and the
/// words by which the running kernel took pools back.
fn command_line(request: &LoadRequest, host: &Host, limit: usize) -> Result<Cmdline, PlanError> {
    let mut wish = request.cmdline.clone();
    if request.handover.no_carry && wish.base == CmdlineBase::Running {
        wish.remove.push("pmpool".into());
        wish.remove.extend(words_of_pools(host));
    }
    let running = match request.target {
        Target::Normal => host.cmdline.clone(),
        Target::Crash => cmdline::for_crash(host.cmdline.as_bstr()),
    };
    Ok(Cmdline::make(
        &wish,
        &watchdog::anew(request, running),
        limit,
    )?)
}

/// The words of the running command line by which that kernel took pools back.
fn words_of_pools(host: &Host) -> Vec<BString> {
    // A damaged record names no pools.
    let record = running_record(host).ok().flatten();
    let pools = record.map_or_else(Vec::new, |record| record.pools);
    let mut words = Vec::new();
    for pool in pools.iter().filter(|it| it.protection == Protection::Kho) {
        let named = kho_pools::words_by_name(&pool.name, host.cmdline.as_bstr());
        let its = named
            .into_iter()
            .filter(|(_, size)| *size == Some(pool.size));
        words.extend(its.map(|(word, _)| word.to_owned()));
    }
    words
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
