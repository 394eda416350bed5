//! Records of version 1, which an rkexec before a package upgrade wrote in this boot.

use std::path::PathBuf;

use bstr::BString;
use serde::Deserialize;

use super::record::{LoadRecord, SCHEMA as NOW};
use crate::base::{Syscall, Target, bytes};
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::crash::HotplugChoice;
use crate::crash::fit::Fit;
use crate::image::Wish;
use crate::job::Kept;
use crate::layout::Blobs;
use crate::request::{DirectChoice, KhoChoice, SyscallChoice};
use crate::sys::FileFlags;

/// Version of the format.
pub(super) const SCHEMA: u32 = 1;

#[derive(Deserialize)]
struct V1 {
    boot_id: String,
    rkexec: String,
    loaded_at: u64,
    target: Target,
    syscall: Syscall,
    #[serde(with = "bytes::kept")]
    kernel: PathBuf,
    release: Option<String>,
    #[serde(with = "bytes::kept_list")]
    initrds: Vec<PathBuf>,
    #[serde(default, with = "bytes::kept_list")]
    modules: Vec<BString>,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    wish: Option<Wish>,
    #[serde(default, with = "bytes::kept_list")]
    addons: Vec<PathBuf>,
    blobs: Option<Blobs>,
    #[serde(with = "bytes::kept")]
    cmdline: BString,
    /// The first ones did not keep it.
    #[serde(default)]
    asked: Option<Asked>,
    digest: bool,
    no_efi: bool,
    serial_port: Option<u16>,
    hotplug: HotplugChoice,
    mem_min: Option<u64>,
    mem_max: Option<u64>,
    init_size: u64,
    #[serde(default)]
    kexec_load_refused: bool,
    #[serde(default)]
    file_flags: FileFlags,
    fit: Option<Fit>,
}

/// What the plan decided something from.
#[derive(Deserialize)]
struct Asked {
    cmdline: CmdlineRequest,
    syscall: SyscallChoice,
}

/// The record in `bytes`; `None` when it is none.
pub(super) fn parse(bytes: &[u8]) -> Option<LoadRecord> {
    let old: V1 = serde_json::from_slice(bytes).ok()?;
    let is_job_unknown = old.asked.is_none() && !old.addons.is_empty();
    // Without addons, the line that was made makes itself again.
    let asked = old.asked.unwrap_or_else(|| Asked {
        cmdline: CmdlineRequest {
            base: CmdlineBase::Given(old.cmdline.clone()),
            ..CmdlineRequest::default()
        },
        syscall: SyscallChoice::Only(old.syscall),
    });
    Some(LoadRecord {
        schema: NOW,
        boot_id: old.boot_id,
        rkexec: old.rkexec,
        loaded_at: old.loaded_at,
        kept: Kept {
            kernel: old.kernel,
            initrds: old.initrds,
            profile: old.profile,
            wish: old.wish,
            addons: old.addons,
            modules: old.modules,
            target: old.target,
            cmdline: asked.cmdline,
            syscall: asked.syscall,
            mem_min: old.mem_min,
            mem_max: old.mem_max,
            direct: DirectChoice::default(),
            no_digest: !old.digest,
            no_efi: old.no_efi,
            serial_port: old.serial_port,
            hotplug: old.hotplug,
            file_flags: old.file_flags,
            watchdog: None,
            carry: Vec::new(),
            kho: KhoChoice::default(),
        },
        syscall: old.syscall,
        release: old.release,
        blobs: old.blobs,
        cmdline: old.cmdline,
        init_size: old.init_size,
        kexec_load_refused: old.kexec_load_refused,
        fit: old.fit,
        at_exec: None,
        is_job_unknown,
    })
}
