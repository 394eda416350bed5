//! `rkexec status`: what is loaded, and what may forbid a load.

mod text;

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::Context as _;
use bstr::ByteSlice as _;
use clap::Args;
use serde_json::{Value, json};

use super::Context;
use super::render::json::{insert, insert_list, ranges};
use crate::base::{Syscall, Target};
use crate::crash::sizing::{MARGIN, Sizing};
use crate::crash::{CrashError, Reservation};
use crate::host::kho::Kho;
use crate::host::loaded::Loaded;
use crate::host::security::Security;
use crate::host::{self, Host, Root};
use crate::image::{decompress, initramfs};
use crate::job::Fresh;
use crate::load::armed::{Armed, Hidden};
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

pub(super) fn run(context: &Context, args: &StatusArgs) -> anyhow::Result<()> {
    let status = Status::read(context, args.check)?;
    if let Some(warning) = &status.too_small {
        context.warn(warning);
    }
    context.print(
        || text::of(&status, context.global.verbose),
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
        let secure_boot = host::secure_boot(root);
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
                let warning = sizing.and_then(|sizing| sizing.too_small(host.cmdline.as_bstr()));
                (sizing, warning)
            }
            _ => (None, None),
        };
        Ok(Self {
            armed: Armed::of(&loaded, &crash, host.as_ref()),
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
    let job = record.kept.job(Fresh::draw().ok()?);
    let files = Files::open_with(&job, open).ok()?;
    let contents = files.contents().ok()?;
    let prepared = Prepared::new(&job, &files, &contents).ok()?;
    let cap = decompress::DEFAULT_CAP * 4;
    let initrds = prepared.initrds().iter();
    let sizes = initrds.map(|initrd| initramfs::unpacked_size(initrd, cap).ok());
    sizes.sum()
}

/// The record as JSON.
fn recorded(record: &LoadRecord) -> Value {
    let mut json = json!({
        "release": record.release,
        "syscall": record.syscall,
        "loaded_at": record.loaded_at,
        "digests": record.blobs,
        "watchdog": record.kept.watchdog,
        "kernel_updates": record.fit.as_ref().map(|fit| fit.kernel_updates),
    });
    if let Some(fields) = json.as_object_mut() {
        insert(fields, "kernel", record.kept.kernel.as_os_str().as_bytes());
        let names = record.kept.initrds.iter();
        let names = names.map(|path| path.as_os_str().as_bytes());
        insert_list(fields, "initrds", names);
        insert_list(
            fields,
            "modules",
            record.kept.modules.iter().map(|line| &***line),
        );
        insert(fields, "cmdline", &record.cmdline);
    }
    json
}

/// Kexec Handover as JSON.
fn handover(kho: &Kho) -> Value {
    let Kho { state, .. } = kho;
    let size = state.scratch_size();
    json!({
        "on": kho.on,
        "reason": kho.why,
        "preserved": kho.preserved,
        "sessions": state.sessions,
        "scratch": state.scratch.as_deref().map(|scratch| json!(ranges(scratch))),
        "scratch_size": size.map(|(size, _)| size),
        "scratch_size_is_all": size.map(|(_, is_all)| is_all),
        "taken_over": state.taken_over,
        "generation": state.generation,
        "format": state.format,
        "luo": state.luo,
    })
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
        "kho": handover(&security.kho),
        "kho_reason": security.kho.why,
        "kho_preserved": security.kho.preserved,
        "environment": security.environment.name(),
        "config_kexec": security.config.kexec,
        "config_kexec_file": security.config.kexec_file,
        "obstacles": obstacles,
    })
}
