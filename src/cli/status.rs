//! `rkexec status`: what is loaded, and what may forbid a load.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use bstr::ByteSlice as _;
use clap::Args;
use serde_json::{Value, json};

use super::render::json::{insert, insert_list};
use super::sizing::{sum, too_small};
use super::{Context, render};
use crate::base::bytes::{shown, shown_name};
use crate::base::printable::inline;
use crate::base::{Syscall, Target};
use crate::crash::sizing::{MARGIN, Sizing};
use crate::crash::{CrashError, Reservation};
use crate::host::kho::Kho;
use crate::host::loaded::Loaded;
use crate::host::security::{Lockdown, Security};
use crate::host::{Host, Root, efi};
use crate::image::{decompress, initramfs};
use crate::job::Fresh;
use crate::load::record::LoadRecord;
use crate::load::{Files, Prepared};
use crate::refusal::{CallFacts, Cause, forbidden};
use crate::sys::MappedFile;

/// `rkexec status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Exit with 3 unless a crash kernel is loaded that is known to fit the machine as it is now.
    #[arg(long)]
    check: bool,
}

/// `status --check`: no crash kernel is loaded that is known to fit this machine.
#[derive(Debug, thiserror::Error)]
#[error("check failed: {0}")]
pub(super) struct NotArmed(String);

/// Why it is not known whether a crash kernel is loaded.
const NOT_TOLD: &str = "/sys/kernel/kexec_crash_loaded is missing";

/// Everything that is shown.
struct Status {
    loaded: Loaded,
    security: Security,
    secure_boot: Option<bool>,
    obstacles: Vec<(Syscall, Target, Cause)>,
    normal: Option<LoadRecord>,
    crash: Option<LoadRecord>,
    armed: Armed,
    sizing: Option<Sizing>,
    /// The warning, when `sizing` exceeds the reservation.
    too_small: Option<String>,
}

/// State of the crash kernel.
enum Armed {
    /// None is loaded.
    No,
    /// The kernel does not tell whether one is loaded.
    NotTold,
    /// One is loaded and fits the machine.
    Yes,
    /// One is loaded, but memory or CPUs changed since.
    Stale(String),
    /// One is loaded, but which is unknown: rkexec did not load it, or its record is unreadable.
    Unknown(String),
}

impl Armed {
    fn name(&self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Stale(_) => "stale",
            Self::Unknown(_) | Self::NotTold => "unknown",
        }
    }

    fn why(&self) -> Option<&str> {
        match self {
            Self::No | Self::Yes => None,
            Self::NotTold => Some(NOT_TOLD),
            Self::Stale(why) | Self::Unknown(why) => Some(why),
        }
    }

    /// Why `--check` fails; `None` when a panic is known to boot a crash kernel that fits.
    fn complaint(&self) -> Option<String> {
        Some(match self {
            Self::Yes => return None,
            Self::No => "no crash kernel is loaded".to_owned(),
            Self::NotTold => format!("cannot tell whether a crash kernel is loaded: {NOT_TOLD}"),
            Self::Stale(why) => {
                format!("the crash kernel does not fit the machine any more: {why}")
            }
            Self::Unknown(why) => {
                format!("cannot tell whether the loaded crash kernel fits the machine: {why}")
            }
        })
    }
}

pub(super) fn run(context: &Context, args: &StatusArgs) -> anyhow::Result<()> {
    let status = Status::read(context, args.check)?;
    if let Some(warning) = &status.too_small {
        context.warn(warning);
    }
    context.print(
        || text(&status, context.global.verbose),
        || to_json(&status),
    )?;
    match status.armed.complaint() {
        Some(complaint) if args.check => Err(NotArmed(complaint).into()),
        _ => Ok(()),
    }
}

impl Status {
    fn read(context: &Context, check: bool) -> anyhow::Result<Self> {
        let root = &context.root;
        let loaded = Loaded::read(root)?;
        let security = Security::read(root)?;
        let secure_boot = efi::read(root)?.and_then(|efi| efi.secure_boot);
        let obstacles = [Syscall::KexecLoad, Syscall::KexecFileLoad]
            .into_iter()
            .flat_map(|syscall| [(syscall, Target::Normal), (syscall, Target::Crash)])
            .filter_map(|(syscall, target)| {
                let facts = CallFacts {
                    efi_secure_boot: secure_boot,
                    ..CallFacts::new(syscall, target, &security, &loaded)
                };
                Some((syscall, target, forbidden(&facts)?))
            })
            .collect();
        // Only root may read a record. Other users still get the rest.
        let record = |target| match LoadRecord::of_loaded(root, target, &loaded, &|warning| {
            context.warn(warning)
        }) {
            Err(error) if error.is_denied() => Ok(Err(Hidden)),
            record => record.map(Ok),
        };
        let crash = record(Target::Crash)?;
        let host = match (loaded.crash, Host::read_for_crash(root)) {
            (Some(true), _) if check && loaded.busy => {
                return Err(CrashError::Busy).context("check failed");
            }
            (Some(true), Err(error)) if check => return Err(error).context("check failed"),
            (Some(true), host) => host.map_err(|error| format!("{:#}", anyhow::Error::from(error))),
            _ => Err(String::new()),
        };
        let (sizing, too_small) = match (&crash, &host) {
            (Ok(Some(record)), Ok(host)) if !check => {
                let sizing = sizing(root, record, host);
                let warning = sizing.and_then(|sizing| too_small(&sizing, host.cmdline.as_bstr()));
                (sizing, warning)
            }
            _ => (None, None),
        };
        Ok(Self {
            armed: armed(&loaded, &crash, host.as_ref()),
            sizing,
            too_small,
            normal: record(Target::Normal)?.unwrap_or_default(),
            loaded,
            security,
            secure_boot,
            obstacles,
            crash: crash.unwrap_or_default(),
        })
    }
}

/// A record that this user may not read.
struct Hidden;

fn armed(
    loaded: &Loaded,
    record: &Result<Option<LoadRecord>, Hidden>,
    host: Result<&Host, &String>,
) -> Armed {
    match loaded.crash {
        Some(true) => {}
        Some(false) => return Armed::No,
        None => return Armed::NotTold,
    }
    let unknown = |why: &str| Armed::Unknown(why.to_owned());
    let Ok(record) = record else {
        return unknown("its record is for root only");
    };
    let Some(fit) = record.as_ref().and_then(|record| record.fit.as_ref()) else {
        return unknown("there is no record of it: another tool loaded it");
    };
    match host.map(|host| fit.now(host)) {
        Ok(Err(error @ CrashError::Busy)) => Armed::Unknown(error.to_string()),
        Ok(Ok(now)) => fit.differs(&now).map_or(Armed::Yes, Armed::Stale),
        Ok(Err(error)) => Armed::Stale(error.to_string()),
        Err(error) => Armed::Unknown(error.clone()),
    }
}

/// The memory that the loaded crash kernel needs; `None` when its files are gone. Files
/// of a captured machine are opened only below its directory.
fn sizing(root: &Root, record: &LoadRecord, host: &Host) -> Option<Sizing> {
    let reservation = Reservation::of(host).ok()?;
    let blobs = record.blobs.as_ref()?;
    let unpacked = unpacked(root, record)?;
    Some(Sizing {
        reserved: sum_of(reservation.all.iter().map(|range| range.size())),
        kernel: record.init_size,
        initrd: sum_of(blobs.initrd.iter().map(|blob| blob.size as u64)),
        unpacked,
        margin: MARGIN,
    })
}

/// The sum, without overflow: files and records may hold any numbers.
fn sum_of(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add)
}

/// Bytes that the initrds take unpacked: those of the files, and of a UKI.
fn unpacked(root: &Root, record: &LoadRecord) -> Option<u64> {
    let open = |path: &Path, _: &str| {
        let name = path.to_str().context("not UTF-8")?;
        Ok(MappedFile::of(root.open(name)?, path)?)
    };
    let job = record.job.job(Fresh::draw().ok()?);
    let files = Files::open_with(&job, open).ok()?;
    let contents = files.contents().ok()?;
    let prepared = Prepared::new(&job, &files, &contents).ok()?;
    let cap = decompress::DEFAULT_CAP * 4;
    let initrds = prepared.initrds().iter();
    let sizes = initrds.map(|initrd| initramfs::unpacked_size(initrd, cap).ok());
    sizes.sum()
}

/// The answers first: the crash kernel, the kernel for `exec`, and what blocks a load.
/// With `all` every other fact, too.
fn text(status: &Status, all: bool) -> String {
    let loaded = &status.loaded;
    let mut out = format!("crash kernel: {}\n", inline(&verdict(status)));
    out += &details(status.crash.as_ref());
    if let Some(sizing) = &status.sizing {
        let _ = writeln!(out, "  {:<14} {}", "memory:", memory(sizing));
    }
    let exec = match (loaded.normal, &status.normal) {
        (Some(true), Some(record)) => format!("ready, {}", release(record)),
        (Some(true), None) => "loaded, by another tool".to_owned(),
        (Some(false), _) => "none is loaded".to_owned(),
        (None, _) => "cannot tell: /sys/kernel/kexec_loaded is missing".to_owned(),
    };
    let _ = writeln!(out, "exec kernel:  {}", inline(&exec));
    out += &details(status.normal.as_ref());
    out += &of_obstacles(&status.obstacles);
    if all {
        out.push('\n');
        out += &facts(status);
    }
    out
}

/// Whether the next panic is dumped, in one sentence.
fn verdict(status: &Status) -> String {
    let loaded = &status.loaded;
    let which = status.crash.as_ref().map(release);
    let which = which.map_or_else(String::new, |release| format!(", {release}"));
    match &status.armed {
        Armed::Yes => format!("ready{which}, up to date"),
        Armed::Stale(why) => format!("OUT OF DATE{which}: {why}"),
        Armed::Unknown(why) => format!("loaded{which}; cannot tell whether it fits: {why}"),
        Armed::NotTold => format!("cannot tell whether one is loaded: {NOT_TOLD}"),
        Armed::No => format!("NOT loaded ({})", reservation(loaded)),
    }
}

/// The size of the reservation, which the kernel does not tell during a load.
fn reservation(loaded: &Loaded) -> String {
    match loaded.crash_size {
        _ if loaded.busy => "a load is under way".to_owned(),
        None => "size of the reservation unknown".to_owned(),
        Some(0) => "no memory is reserved for one".to_owned(),
        Some(size) => format!("{} reserved", render::human(size)),
    }
}

fn release(record: &LoadRecord) -> &str {
    let release = record.release.as_deref();
    release.unwrap_or("a kernel without a version")
}

/// What the record says of a loaded kernel.
fn details(record: Option<&LoadRecord>) -> String {
    let Some(record) = record else {
        return String::new();
    };
    let file = shown_name(&record.job.kernel);
    format!(
        "  {:<14} {file}, through {}\n  {:<14} {}\n",
        "file:",
        record.syscall,
        "command line:",
        shown(&record.cmdline)
    )
}

/// What the crash kernel needs of its reservation.
fn memory(sizing: &Sizing) -> String {
    let verdict = if sizing.is_enough() {
        "enough"
    } else {
        "TOO SMALL"
    };
    let reserved = render::human(sizing.reserved);
    format!("{reserved} reserved, {verdict}: {}", sum(sizing))
}

/// What may matter to a load, a line each.
fn facts(status: &Status) -> String {
    let Status {
        loaded,
        security,
        secure_boot,
        ..
    } = status;
    let yes_no = |fact: Option<bool>| match fact {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let lockdown = match security.lockdown {
        Some(Lockdown::None) => "none",
        Some(Lockdown::Integrity) => "integrity",
        Some(Lockdown::Confidentiality) => "confidentiality",
        None => "unknown",
    };
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<30} {}", inline(value));
    };
    line("crash kernel's reservation:", &reservation(loaded));
    let update = match loaded.crash_elfcorehdr_size {
        Some(_) => "yes, when memory or CPUs change",
        None => "no: load again when memory or CPUs change",
    };
    line("crash kernel's auto-update:", update);
    line("loads left until reboot:", &left(security.limit_reboot));
    line(
        "crash loads left until reboot:",
        &left(security.limit_panic),
    );
    line("kexec_load_disabled:", yes_no(security.load_disabled));
    line("CAP_SYS_BOOT:", yes_no(security.cap_sys_boot));
    line("lockdown:", lockdown);
    line("Secure Boot:", yes_no(*secure_boot));
    line("IMA checks kernels:", yes_no(security.ima_appraise_kexec));
    line("Kexec Handover (KHO):", &handover(&security.kho));
    if let Some(name) = security.environment.name() {
        line("runs on:", name);
    }
    line("CONFIG_KEXEC:", yes_no(security.config.kexec));
    line("CONFIG_KEXEC_FILE:", yes_no(security.config.kexec_file));
    out
}

/// What a limit leaves.
fn left(limit: Option<i64>) -> String {
    match limit {
        Some(count @ 0..) => count.to_string(),
        Some(_) | None => "no limit".to_owned(),
    }
}

/// What blocks a load, each cause once.
fn of_obstacles(obstacles: &[(Syscall, Target, Cause)]) -> String {
    let mut causes: Vec<(&Cause, Vec<(Syscall, Target)>)> = Vec::new();
    for (syscall, target, cause) in obstacles {
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, loads)) => loads.push((*syscall, *target)),
            None => causes.push((cause, vec![(*syscall, *target)])),
        }
    }
    let mut out = String::new();
    for (cause, loads) in causes {
        let _ = writeln!(
            out,
            "blocked:      {}: {}",
            blocked(&loads),
            inline(&cause.why)
        );
        if let Some(hint) = &cause.hint {
            let _ = writeln!(out, "  hint: {}", inline(hint));
        }
    }
    out
}

/// Which loads, of the two system calls and the two images.
fn blocked(loads: &[(Syscall, Target)]) -> String {
    let image = |target| match target {
        Target::Normal => "a kernel for exec",
        Target::Crash => "a crash kernel",
    };
    match loads {
        [(_, target), (_, other)] if target == other => format!("loading {}", image(*target)),
        [(syscall, _), (other, _)] if syscall == other => format!("every {syscall}"),
        [_, _, _, _] => "every load".to_owned(),
        loads => {
            let loads = loads.iter();
            let loads = loads.map(|(syscall, target)| format!("{syscall} of {}", image(*target)));
            loads.collect::<Vec<_>>().join(" and ")
        }
    }
}

/// Kexec Handover, why it is so, and what it preserves.
fn handover(kho: &Kho) -> String {
    let state = if kho.on { "on" } else { "off" };
    let preserved = match kho.preserved.as_deref() {
        _ if !kho.on => String::new(),
        None => "; what it preserves is not visible".to_owned(),
        Some([]) => "; it preserves nothing".to_owned(),
        Some(names) => format!("; it preserves {}", names.join(" and ")),
    };
    format!("{state} ({}){preserved}", kho.why)
}

/// The record as JSON.
fn recorded(record: &LoadRecord) -> Value {
    let mut json = json!({
        "release": record.release,
        "syscall": record.syscall,
        "loaded_at": record.loaded_at,
        "digests": record.blobs,
        "kernel_updates": record.fit.as_ref().map(|fit| fit.kernel_updates),
    });
    if let Some(fields) = json.as_object_mut() {
        insert(fields, "kernel", record.job.kernel.as_os_str().as_bytes());
        let names = record.job.initrds.iter();
        let names = names.map(|path| path.as_os_str().as_bytes());
        insert_list(fields, "initrds", names);
        insert_list(
            fields,
            "modules",
            record.job.modules.iter().map(|line| &***line),
        );
        insert(fields, "cmdline", &record.cmdline);
    }
    json
}

fn to_json(status: &Status) -> Value {
    let Status {
        loaded,
        security,
        secure_boot,
        obstacles,
        ..
    } = status;
    let obstacles: Vec<Value> = obstacles
        .iter()
        .map(|(syscall, target, cause)| {
            json!({ "syscall": syscall, "target": target, "why": cause.why, "hint": cause.hint })
        })
        .collect();
    let record = |record: &Option<LoadRecord>| record.as_ref().map(recorded);
    json!({
        "schema": 1,
        "loaded": loaded.normal,
        "crash_loaded": loaded.crash,
        "normal_record": record(&status.normal),
        "crash_record": record(&status.crash),
        "armed": { "state": status.armed.name(), "why": status.armed.why() },
        "sizing": status.sizing.map(|sizing| json!({
            "enough": sizing.is_enough(), "needed": sizing.needed(), "terms": sizing,
        })),
        "crash_hotplug_cpu": loaded.crash_hotplug_cpu,
        "crash_hotplug_memory": loaded.crash_hotplug_memory,
        "crash_size": loaded.crash_size,
        "load_under_way": loaded.busy,
        "crash_elfcorehdr_size": loaded.crash_elfcorehdr_size,
        "lockdown": security.lockdown,
        "secure_boot": secure_boot,
        "kexec_load_disabled": security.load_disabled,
        "kexec_load_limit_reboot": security.limit_reboot,
        "kexec_load_limit_panic": security.limit_panic,
        "cap_sys_boot": security.cap_sys_boot,
        "ima_appraise_kexec": security.ima_appraise_kexec,
        "kho": security.kho.on,
        "kho_reason": security.kho.why,
        "kho_preserved": security.kho.preserved,
        "environment": security.environment.name(),
        "config_kexec": security.config.kexec,
        "config_kexec_file": security.config.kexec_file,
        "obstacles": obstacles,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_is_under_way_hides_the_reservation() {
        let said = |busy, crash_size| {
            reservation(&Loaded {
                busy,
                crash_size,
                ..Loaded::default()
            })
        };
        assert_eq!(said(true, None), "a load is under way");
        assert_eq!(said(false, None), "size of the reservation unknown");
        assert_eq!(said(false, Some(0)), "no memory is reserved for one");
        assert_eq!(said(false, Some(256 << 20)), "256 MiB reserved");
    }

    #[test]
    fn every_cause_is_said_once() {
        let cause = |why: &str| Cause {
            why: why.to_owned(),
            hint: Some("h".to_owned()),
        };
        let load = |syscall, target, why| (syscall, target, cause(why));
        let (file, segments) = (Syscall::KexecFileLoad, Syscall::KexecLoad);
        let all = [
            load(segments, Target::Normal, "x"),
            load(segments, Target::Crash, "x"),
            load(file, Target::Normal, "x"),
            load(file, Target::Crash, "x"),
        ];
        let of = |obstacles: &[_]| of_obstacles(obstacles);
        assert_eq!(of(&all), "blocked:      every load: x\n  hint: h\n");
        assert_eq!(
            of(&all[..2]),
            "blocked:      every kexec_load: x\n  hint: h\n"
        );
        assert_eq!(
            of(&[all[1].clone(), all[3].clone()]),
            "blocked:      loading a crash kernel: x\n  hint: h\n"
        );
        assert_eq!(
            of(&[all[0].clone(), all[2].clone()]),
            "blocked:      loading a kernel for exec: x\n  hint: h\n"
        );
        assert_eq!(
            of(&[all[0].clone(), load(file, Target::Crash, "y")]),
            "blocked:      kexec_load of a kernel for exec: x\n  hint: h\n\
             blocked:      kexec_file_load of a crash kernel: y\n  hint: h\n"
        );
        assert_eq!(
            of(&all[..3]),
            "blocked:      kexec_load of a kernel for exec and kexec_load of a crash kernel and \
             kexec_file_load of a kernel for exec: x\n  hint: h\n"
        );
        assert_eq!(of(&[]), "");
    }
}
