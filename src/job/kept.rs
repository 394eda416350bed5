//! A job as the record of a load keeps it.

use std::path::{Path, PathBuf};

use bstr::BString;
use serde::{Deserialize, Serialize};

use super::{Fresh, Job};
use crate::base::{Target, bytes};
use crate::cmdline::CmdlineRequest;
use crate::crash::HotplugChoice;
use crate::image::Wish;
use crate::request::{DirectChoice, KhoChoice, LoadRequest, SyscallChoice};
use crate::sys::FileFlags;

/// A job without what is new for every load (seed, time), and without what no crash kernel
/// is given: pools, a device tree, another memory map. Only crash kernels are loaded from a
/// record.
///
/// An option is kept by a field here, and a line each in [`Kept::of`], [`Kept::job`] and
/// [`Kept::differs`]. The compiler names those that are missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The kernel's file.
    #[serde(with = "bytes::kept")]
    pub kernel: PathBuf,
    /// The initrds' files.
    #[serde(with = "bytes::kept_list")]
    pub initrds: Vec<PathBuf>,
    /// `--profile`.
    pub profile: Option<String>,
    /// The format that the kernel's file is read as.
    pub wish: Option<Wish>,
    /// The addons' files.
    #[serde(with = "bytes::kept_list")]
    pub addons: Vec<PathBuf>,
    /// A multiboot kernel's modules, each a file and, behind a space, its arguments.
    #[serde(with = "bytes::kept_list")]
    pub modules: Vec<BString>,
    /// The files of `--carry`.
    #[serde(default, with = "bytes::kept_list")]
    pub carry: Vec<PathBuf>,
    /// For `exec` or for a panic.
    pub target: Target,
    /// What the command line is made of. A UKI and its addons bring their words anew.
    pub cmdline: CmdlineRequest,
    /// `--syscall`.
    pub syscall: SyscallChoice,
    /// `--mem-min`.
    pub mem_min: Option<u64>,
    /// `--mem-max`.
    pub mem_max: Option<u64>,
    /// `--direct`.
    #[serde(default)]
    pub direct: DirectChoice,
    /// `--no-digest`.
    pub no_digest: bool,
    /// `--no-efi`.
    pub no_efi: bool,
    /// `--serial-port`.
    pub serial_port: Option<u16>,
    /// `--hotplug`.
    pub hotplug: HotplugChoice,
    /// `--no-cma` and `--force-dtb`.
    pub file_flags: FileFlags,
    /// `--watchdog`, seconds.
    #[serde(default)]
    pub watchdog: Option<u64>,
    /// `--kho`.
    #[serde(default)]
    pub kho: KhoChoice,
}

impl Kept {
    /// What is kept of `job`. Files are named by their real paths.
    #[must_use]
    pub fn of(job: &Job) -> Self {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let Job {
            kernel,
            initrds,
            profile,
            wish,
            addons,
            modules,
            carry,
            // A record tells of each file what it was.
            hashes: _,
            request,
        } = job;
        let LoadRequest {
            cmdline,
            syscall,
            memory_map: _,
            include_driver_managed: _,
            mem_min,
            mem_max,
            direct,
            no_digest,
            no_efi,
            serial_port,
            seed: _,
            handover: _,
            kho,
            assume_kho: _,
            time: _,
            target,
            hotplug,
            file_flags,
            watchdog,
            firmware_tables: _,
        } = request;
        Self {
            kernel: real(kernel),
            initrds: initrds.iter().map(|path| real(path)).collect(),
            profile: profile.clone(),
            wish: *wish,
            addons: addons.iter().map(|path| real(path)).collect(),
            modules: modules.clone(),
            carry: carry.iter().map(|path| real(path)).collect(),
            target: *target,
            cmdline: cmdline.clone(),
            syscall: *syscall,
            mem_min: *mem_min,
            mem_max: *mem_max,
            direct: *direct,
            no_digest: *no_digest,
            no_efi: *no_efi,
            serial_port: *serial_port,
            hotplug: *hotplug,
            file_flags: *file_flags,
            watchdog: *watchdog,
            kho: *kho,
        }
    }

    /// The job that loads the same again.
    #[must_use]
    pub fn job(&self, fresh: Fresh) -> Job {
        let Self {
            kernel,
            initrds,
            profile,
            wish,
            addons,
            modules,
            carry,
            target,
            cmdline,
            syscall,
            mem_min,
            mem_max,
            direct,
            no_digest,
            no_efi,
            serial_port,
            hotplug,
            file_flags,
            watchdog,
            kho,
        } = self.clone();
        Job {
            kernel,
            initrds,
            profile,
            wish,
            addons,
            modules,
            carry,
            hashes: Vec::new(),
            request: LoadRequest {
                cmdline,
                syscall,
                mem_min,
                mem_max,
                direct,
                no_digest,
                no_efi,
                serial_port,
                seed: Some(fresh.seed),
                time: fresh.time,
                target,
                hotplug,
                file_flags,
                watchdog,
                kho,
                ..LoadRequest::default()
            },
        }
    }

    /// Which option differs from that of `wanted`; `None`: a load of `wanted` asks for the
    /// same.
    ///
    /// What files and facts decide is compared by its outcome, in the record: contents of
    /// files, the command line, the call, hotplug.
    #[must_use]
    pub fn differs(&self, wanted: &Self) -> Option<&'static str> {
        let Self {
            kernel: _,
            initrds: _,
            profile: _,
            wish: _,
            addons: _,
            modules: _,
            // No crash kernel has any.
            carry: _,
            target: _,
            cmdline: _,
            syscall: _,
            mem_min,
            mem_max,
            direct,
            no_digest,
            no_efi,
            serial_port,
            hotplug: _,
            file_flags: _,
            // No crash kernel has one.
            watchdog: _,
            kho: _,
        } = wanted;
        let options = [
            (self.direct == *direct, "who unpacks the kernel"),
            (self.no_digest == *no_digest, "whether purgatory verifies"),
            (self.no_efi == *no_efi, "whether EFI is handed over"),
            (
                self.serial_port == *serial_port,
                "the serial port of purgatory",
            ),
            (
                (self.mem_min, self.mem_max) == (*mem_min, *mem_max),
                "the bounds for segments",
            ),
        ];
        let other = options.into_iter().find(|(same, _)| !same);
        other.map(|(_, what)| what)
    }
}
