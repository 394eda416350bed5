//! Chooses the system call from facts, before any call is made, and gives the reason.

use bstr::{BStr, ByteSlice as _};

use super::PlanError;
use crate::base::{PAGE_SIZE, PhysRange, Syscall, Target, Told, human};
use crate::boot::{FileRefusal, Protocol};
use crate::carry::Handover;
use crate::cmdline::{self, Cmdline};
use crate::crash::{self, HotplugChoice};
use crate::host::Host;
use crate::host::crash::DM_CRYPT_KEYS;
use crate::memory::{MapPolicy, MemoryKind, MemoryMap, Region, kernel_map};
use crate::request::{DirectChoice, KhoChoice, LoadRequest, SyscallChoice};

/// The system call, and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Decision {
    /// Which one.
    pub name: Syscall,
    /// Why.
    pub reason: String,
}

/// What a choice is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'d, 'a> {
    /// What was asked for.
    pub request: &'d LoadRequest,
    /// The machine.
    pub host: &'d Host,
    /// How the kernel is booted.
    pub boot: Protocol<'d, 'a>,
    /// The reconciled map.
    pub map: &'d MemoryMap,
    /// The pools and the tree.
    pub handover: &'d Handover,
    /// The command line.
    pub line: &'d Cmdline,
    /// The loader itself hands over files.
    pub carries: bool,
}

/// Decides. `lost` says what kexec_load would lose of what the running kernel hands over.
///
/// # Errors
/// When the request contradicts the choice, or kexec_load is forbidden and
/// kexec_file_load would refuse, or do harm that the request does not accept.
pub(super) fn decide(asked: Asked<'_, '_>, lost: Option<String>) -> Result<Decision, PlanError> {
    let Asked {
        request,
        host,
        boot,
        map,
        handover,
        line,
        carries,
    } = asked;
    let decision = |name, reason: String| Ok(Decision { name, reason });
    let needs_load = needs_kexec_load(request, handover, carries);
    let refuses = boot.file_refusal(host);
    let asked_for = "asked for with --syscall".to_owned();
    match request.syscall {
        SyscallChoice::Only(Syscall::KexecLoad) => decision(Syscall::KexecLoad, asked_for),
        SyscallChoice::Only(Syscall::KexecFileLoad) => match (needs_load, refuses) {
            // Leaving the option out would not help.
            (
                _,
                Some(FileRefusal {
                    reason,
                    decides: Some(_),
                    ..
                }),
            ) => Err(PlanError::FileLoadRefuses { reason }),
            (Some((option, reason)), _) => Err(PlanError::NotWithFileLoad { option, reason }),
            (None, Some(FileRefusal { reason, .. })) => Err(PlanError::FileLoadRefuses { reason }),
            (None, None) => decision(Syscall::KexecFileLoad, asked_for),
        },
        SyscallChoice::Auto => {
            let forbidden = host.security.forbids_kexec_load(host.secure_boot());
            let Some(forbidden) = forbidden.map(str::to_owned).or(lost) else {
                let is_able = refuses.is_none()
                    && needs_load.is_none()
                    && host.security.config.kexec_file != Some(false)
                    && !harm(request.target, host, boot, map, &kernel_map(host), line)
                        .iter()
                        .any(|harm| harm.severe);
                if let Some(because) = favours_file_load(request, host).filter(|_| is_able) {
                    return decision(Syscall::KexecFileLoad, because);
                }
                let decides = refuses.and_then(|refusal| refusal.decides);
                let because = match (decides, needs_load) {
                    (Some(because), _) => because.to_owned(),
                    (None, Some((option, reason))) => format!("{option} needs it: {reason}"),
                    (None, None) => "only with it rkexec can correct the memory map, choose the addresses and check the parts"
                        .to_owned(),
                };
                return decision(Syscall::KexecLoad, because);
            };
            let neither = |harm: String, way_out: Option<String>| PlanError::NoSyscall {
                forbidden: forbidden.clone(),
                harm,
                way_out,
            };
            if let Some(FileRefusal {
                reason, way_out, ..
            }) = refuses
            {
                let way_out = way_out.map(str::to_owned);
                return Err(neither(format!("refuses this image: {reason}"), way_out));
            }
            if let Some((option, reason)) = needs_load {
                // A carried pool is there without an option, so there is none to leave out.
                let way_out = option
                    .starts_with("--")
                    .then(|| format!("leave {option} out: only kexec_load can do it"));
                return Err(neither(format!("cannot do {option} ({reason})"), way_out));
            }
            let kernels = kernel_map(host);
            let mut harm = harm(request.target, host, boot, map, &kernels, line).into_iter();
            match harm.find(|harm| harm.severe) {
                Some(harm) => Err(neither(
                    harm.what,
                    Some("--syscall kexec_file_load loads all the same".to_owned()),
                )),
                None => decision(Syscall::KexecFileLoad, forbidden),
            }
        }
    }
}

/// What a crash kernel gets from kexec_file_load alone on this machine.
fn favours_file_load(request: &LoadRequest, host: &Host) -> Option<String> {
    if request.target != Target::Crash {
        return None;
    }
    let keys = host.crash.dm_crypt_keys.len();
    if keys > 0 {
        return Some(format!(
            "only kexec_file_load passes on the {keys} dm-crypt keys of {DM_CRYPT_KEYS}, with which \
             the crash kernel opens the encrypted disk for the dump"
        ));
    }
    let untold = crash::contents(host, &[]).err()?;
    Some(format!(
        "{untold}; with kexec_file_load the kernel describes itself"
    ))
}

/// The option that only kexec_load can fulfil, and why.
fn needs_kexec_load(
    request: &LoadRequest,
    handover: &Handover,
    carries: bool,
) -> Option<(&'static str, &'static str)> {
    let placing = "the running kernel places the segments itself";
    let mapping = "the running kernel hands over its own map";
    let telling = "the running kernel takes no device tree and no pools from a loader";
    [
        (
            request.kho == KhoChoice::Forward,
            "--kho forward",
            "with kexec_file_load the running kernel would hand over its own tree",
        ),
        (
            carries,
            "--carry",
            "only kexec_load takes files that rkexec prepared",
        ),
        (handover.has_pools(), "a pool", telling),
        (request.handover.dtb.is_some(), "--dtb", telling),
        (request.mem_min.is_some(), "--mem-min", placing),
        (request.mem_max.is_some(), "--mem-max", placing),
        (
            request.memory_map == MapPolicy::Firmware,
            "--memory-map firmware",
            mapping,
        ),
        (
            !request.include_driver_managed.is_empty(),
            "--include-driver-managed",
            mapping,
        ),
        (
            request.no_efi,
            "--no-efi",
            "the running kernel hands over what it has of EFI",
        ),
        (
            request.serial_port.is_some(),
            "--serial-port",
            "the running kernel's purgatory prints nothing",
        ),
        (
            request.direct == DirectChoice::On,
            "--direct on",
            "the running kernel loads the kernel's file as it is",
        ),
        (
            request.no_digest,
            "--no-digest",
            "the running kernel's purgatory always verifies",
        ),
        (
            request.hotplug == HotplugChoice::Off,
            "--hotplug off",
            "the running kernel updates what it loaded itself wherever it can",
        ),
    ]
    .into_iter()
    .find_map(|(wished, option, reason)| wished.then_some((option, reason)))
}

/// What goes wrong when the next kernel is given the running kernel's own map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Harm {
    /// What kexec_file_load does, for instance `drops 12 of the 140 entries of the memory map`.
    pub what: String,
    /// Bad enough that the call is used only when the operator asks for it.
    pub severe: bool,
}

/// Compares the reconciled map with the one that kexec_file_load hands over to a
/// kernel with the command line `line`.
pub(super) fn harm(
    target: Target,
    host: &Host,
    boot: Protocol<'_, '_>,
    map: &MemoryMap,
    kernels: &[(PhysRange, Told)],
    line: &Cmdline,
) -> Vec<Harm> {
    let mut harm = Vec::new();
    let dropped = kernels.len().saturating_sub(boot.file_map_entries());
    if dropped > 0 {
        let what = format!(
            "drops {dropped} of the {} entries of the memory map",
            kernels.len()
        );
        harm.push(Harm { what, severe: true });
    }
    // A crash kernel is told that only its reservation is RAM.
    if target == Target::Crash {
        return harm;
    }
    // Memory set aside by `memmap=` stays set aside if the next line has the same words.
    let (here, next) = (by_hand(host.cmdline.as_bstr()), by_hand(line.as_bstr()));
    let is_lost = here.iter().any(|word| !next.contains(word));
    let severe = |kind: &MemoryKind| match kind {
        MemoryKind::DriverManaged(_) | MemoryKind::PersistentMemory | MemoryKind::SoftReserved => {
            true
        }
        MemoryKind::PersistentMemoryLegacy => here.is_empty() || is_lost,
        MemoryKind::Reserved => is_lost,
        _ => false,
    };
    let (tables, others): (Vec<&Region>, Vec<&Region>) = map
        .regions()
        .iter()
        .partition(|region| region.kind == MemoryKind::EfiTables);
    for wanted in [true, false] {
        let regions = others
            .iter()
            .filter(|region| severe(&region.kind) == wanted)
            .copied();
        if let Some((bytes, first, kind)) = handed_over_as_ram(regions, kernels) {
            harm.push(Harm {
                what: format!(
                    "passes {} on as RAM that must stay reserved, first {first:#} ({kind})",
                    human(bytes)
                ),
                severe: wanted,
            });
        }
    }
    // Not severe: every EFI machine has such tables, and kernels run without them.
    if let Some((bytes, first, _)) = handed_over_as_ram(tables.into_iter(), kernels) {
        harm.push(Harm {
            what: format!(
                "takes {} that hold tables of EFI for free RAM, first {first:#}: they may be overwritten, \
                 and the next kernel does without them",
                human(bytes)
            ),
            severe: false,
        });
    }
    harm
}

/// The `memmap=` words of `line`, which set memory aside.
fn by_hand(line: &BStr) -> Vec<&BStr> {
    let words = cmdline::words(line);
    words.filter(|word| word.starts_with(b"memmap=")).collect()
}

/// Bytes that are not RAM in `regions` but RAM in `kernels`: how many, the first range
/// of them, and its kind.
fn handed_over_as_ram<'a>(
    regions: impl Iterator<Item = &'a Region>,
    kernels: &[(PhysRange, Told)],
) -> Option<(u64, PhysRange, String)> {
    let mut first = None;
    let mut bytes = 0;
    for region in regions.filter(|region| region.told != Some(Told::RAM)) {
        let after = kernels.partition_point(|(range, _)| range.end() <= region.range.start());
        let near = kernels
            .iter()
            .skip(after)
            .take_while(|(range, _)| range.start() < region.range.end());
        for (range, _) in near.filter(|(_, kind)| kind.is_ram()) {
            // Every kernel reserves page 0.
            let part = range
                .intersection(region.range)
                .filter(|part| part.end() > PAGE_SIZE);
            bytes += part.map_or(0, PhysRange::size);
            first = first.or(part.map(|part| (part, region.kind.in_words())));
        }
    }
    first.map(|(range, kind)| (bytes, range, kind))
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
