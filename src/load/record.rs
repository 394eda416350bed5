//! What rkexec loaded, for as long as this boot lasts: /run/rkexec.
//!
//! The kernel tells that an image is loaded, but not which one. The record names
//! its files, its command line and the machine it was loaded for. With it, the same
//! image can be loaded again, and `status` can tell when it no longer fits.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use bstr::{BString, ByteSlice as _};
use serde::{Deserialize, Serialize};

use super::lock::{self, DIR};
use crate::base::{Syscall, Target, bytes};
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::crash::HotplugChoice;
use crate::crash::fit::Fit;
use crate::host::loaded::Loaded;
use crate::host::security::Security;
use crate::host::{Host, HostError, Root};
use crate::image::{Image, Wish};
use crate::layout::Blobs;
use crate::plan::Plan;
use crate::request::{LoadRequest, SyscallChoice};
use crate::sys::FileFlags;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Version of the format.
const SCHEMA: u32 = 1;

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// Version of the format. A record of another version is ignored.
    schema: u32,
    /// Which boot it belongs to. A record of another boot (a copied /run) is ignored.
    boot_id: String,
    /// Version of rkexec that loaded it.
    pub rkexec: String,
    /// When, seconds since 1970.
    pub loaded_at: u64,
    /// For `exec` or for a panic.
    pub target: Target,
    /// By which call.
    pub syscall: Syscall,
    /// The kernel's file.
    #[serde(with = "bytes::kept")]
    pub kernel: PathBuf,
    /// `uname -r` of the kernel, when its file tells.
    pub release: Option<String>,
    /// The initrds' files.
    #[serde(with = "bytes::kept_list")]
    pub initrds: Vec<PathBuf>,
    /// A multiboot kernel's modules, each a file and, behind a space, its arguments.
    #[serde(default, with = "bytes::kept_list")]
    pub modules: Vec<BString>,
    /// `--profile`.
    #[serde(default)]
    pub profile: Option<String>,
    /// The format that the kernel's file is read as, where it has several.
    #[serde(default)]
    pub wish: Option<Wish>,
    /// The addons' files.
    #[serde(default, with = "bytes::kept_list")]
    pub addons: Vec<PathBuf>,
    /// Digests of what was loaded from these files.
    pub blobs: Option<Blobs>,
    /// The command line that was made, without what a crash load adds.
    #[serde(with = "bytes::kept")]
    pub cmdline: BString,
    /// What it was made of; an older rkexec did not keep that.
    #[serde(default)]
    asked: Option<Asked>,
    /// Whether purgatory verifies.
    pub digest: bool,
    /// `--no-efi`.
    pub no_efi: bool,
    /// `--serial-port`.
    pub serial_port: Option<u16>,
    /// `--hotplug`.
    pub hotplug: HotplugChoice,
    /// `--mem-min`.
    pub mem_min: Option<u64>,
    /// `--mem-max`.
    pub mem_max: Option<u64>,
    /// Memory that the kernel takes to start, bytes.
    pub init_size: u64,
    /// kexec_load was tried first, and the kernel refused it for a reason that no fact
    /// tells (a security module, a filter).
    #[serde(default)]
    pub kexec_load_refused: bool,
    /// `--no-cma` and `--force-dtb`, where the kernel takes them.
    #[serde(default)]
    pub file_flags: FileFlags,
    /// What the crash kernel was loaded for; `None` for `exec`.
    pub fit: Option<Fit>,
}

/// What was asked for, where the plan decided something from it. A load of the record
/// decides again: a UKI and its addons bring their words to the command line anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    cmdline: CmdlineRequest,
    syscall: SyscallChoice,
}

/// The record does not say how the same is loaded again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its record was written by rkexec {0}, which did not keep what was asked of a UKI with addons"
)]
pub struct NotAsked(String);

/// The files of a load, and what is asked of it.
#[derive(Debug, Clone)]
pub struct Job {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initrds, in order.
    pub initrds: Vec<PathBuf>,
    /// The profile of a UKI; `None`: its first.
    pub profile: Option<String>,
    /// The format that the kernel's file is read as, where it has several; `None`: the
    /// one that tells most.
    pub wish: Option<Wish>,
    /// Addons to a UKI, in order.
    pub addons: Vec<PathBuf>,
    /// A multiboot kernel's modules, each a file and, behind a space, its arguments.
    pub modules: Vec<BString>,
    /// The rest.
    pub request: LoadRequest,
}

/// Why there is no record, or it could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file could not be read.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A file could not be written.
    #[error("writing {}", crate::base::bytes::shown_name(path))]
    Write {
        /// Its name.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A file with a unique name, removed on drop unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    /// A new file in `directory`, for the record of `target`.
    fn create(directory: &Path, target: Target) -> io::Result<(Self, File)> {
        let path = directory.join(format!("{target}.{}.new", std::process::id()));
        let create = || {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
        };
        let file = create().or_else(|error| match error.kind() {
            // Left by a killed process that had the same ID.
            io::ErrorKind::AlreadyExists => std::fs::remove_file(&path).and_then(|()| create()),
            _ => Err(error),
        })?;
        Ok((Self(path), file))
    }

    fn become_file(self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.0, path)
    }
}

impl Drop for Temporary {
    /// After a rename the file is no longer there, which is fine.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn file(target: Target) -> String {
    format!("{DIR}/{target}.json")
}

fn boot_id(root: &Root) -> Result<String, HostError> {
    Ok(root.read_line(BOOT_ID)?.unwrap_or_default())
}

impl LoadRecord {
    /// The record of `plan`, made from `job` for `host`.
    ///
    /// # Errors
    /// When the boot's id cannot be read.
    pub fn of(
        root: &Root,
        job: &Job,
        host: &Host,
        image: &Image<'_>,
        plan: &Plan<'_>,
    ) -> Result<Self, HostError> {
        let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let made = match (image, &plan.crash) {
            (_, Some(crash)) => crash.asked_cmdline.as_bstr(),
            // Leave out the name: a load of the record takes it from the file.
            (Image::Multiboot(kernel), None) => {
                let line = plan.cmdline.as_bstr();
                let rest = line.strip_prefix(kernel.name.as_slice()).unwrap_or(line);
                rest.trim_ascii_start().as_bstr()
            }
            (Image::Linux(_), None) => plan.cmdline.as_bstr(),
        };
        Ok(Self {
            schema: SCHEMA,
            boot_id: boot_id(root)?,
            rkexec: env!("CARGO_PKG_VERSION").to_owned(),
            loaded_at: job.request.time,
            target: job.request.target,
            syscall: plan.syscall(),
            kernel: real(&job.kernel),
            release: image.release().map(str::to_owned),
            initrds: job.initrds.iter().map(|path| real(path)).collect(),
            modules: job.modules.clone(),
            profile: job.profile.clone(),
            wish: job.wish,
            addons: job.addons.iter().map(|path| real(path)).collect(),
            blobs: plan.blobs.clone(),
            cmdline: made.to_owned(),
            asked: Some(Asked {
                cmdline: job.request.cmdline.clone(),
                syscall: job.request.syscall,
            }),
            digest: !job.request.no_digest,
            no_efi: job.request.no_efi,
            serial_port: job.request.serial_port,
            hotplug: job.request.hotplug,
            mem_min: job.request.mem_min,
            mem_max: job.request.mem_max,
            init_size: image.memory_size(),
            kexec_load_refused: host.security.kexec_load_refused,
            file_flags: plan.file_flags(),
            fit: plan.crash.as_ref().map(|crash| {
                let target = crash.reservation.target;
                Fit::new(target, &crash.dump, plan.is_kept_up(host), host)
            }),
        })
    }

    /// The record of this boot, if there is one that this version can read.
    ///
    /// # Errors
    /// When it is there and cannot be read; as a rule only root can.
    fn read(root: &Root, target: Target) -> Result<Option<Self>, HostError> {
        let Some(bytes) = root.read_optional(&file(target))? else {
            return Ok(None);
        };
        // Ignore a record of another version, or half written by a killed process.
        let record = serde_json::from_slice::<Self>(&bytes).ok();
        let boot_id = boot_id(root)?;
        Ok(record.filter(|record| record.schema == SCHEMA && record.boot_id == boot_id))
    }

    /// The record of what is loaded now. `None` when nothing is, or when the kernel does not
    /// handle hotplug for the image as recorded: then another tool loaded it since.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of_loaded(
        root: &Root,
        target: Target,
        loaded: &Loaded,
    ) -> Result<Option<Self>, HostError> {
        let is_loaded = match target {
            Target::Normal => loaded.normal,
            Target::Crash => loaded.crash,
        };
        if is_loaded != Some(true) {
            return Ok(None);
        }
        let is_it = |fit: &Fit| {
            let updates = loaded.kernel_updates();
            updates.is_none_or(|updates| updates == fit.kernel_updates)
        };
        let record = Self::read(root, target)?;
        Ok(record.filter(|record| record.fit.as_ref().is_none_or(is_it)))
    }

    /// Keeps the record, for root only: it tells addresses.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, root: &Root) -> Result<(), RecordError> {
        let path = root.path(&file(self.target));
        let write = || {
            let directory = lock::directory(root)?;
            let (new, mut file) = Temporary::create(&directory, self.target)?;
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            new.become_file(&path)
        };
        write().map_err(|source| RecordError::Write {
            path: path.clone(),
            source,
        })
    }

    /// Forgets the record of `target`.
    ///
    /// # Errors
    /// When there is one and it cannot be removed.
    pub fn remove(root: &Root, target: Target) -> Result<(), RecordError> {
        let path = root.path(&file(target));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| RecordError::Write { path, source }),
        }
    }

    /// The load that makes the same again, of a crash kernel: what `--panic` goes with is
    /// all there, and what it does not go with (pools, a device tree, another map) is not.
    ///
    /// # Errors
    /// When an older rkexec wrote the record, and what was asked cannot be told from it.
    pub fn job(&self, seed: Option<[u8; 32]>, time: u64) -> Result<Job, NotAsked> {
        let (cmdline, syscall) = match &self.asked {
            Some(asked) => (asked.cmdline.clone(), asked.syscall),
            None if !self.addons.is_empty() => return Err(NotAsked(self.rkexec.clone())),
            None => {
                let cmdline = CmdlineRequest {
                    base: CmdlineBase::Given(self.cmdline.clone()),
                    ..CmdlineRequest::default()
                };
                (cmdline, SyscallChoice::Only(self.syscall))
            }
        };
        Ok(Job {
            kernel: self.kernel.clone(),
            initrds: self.initrds.clone(),
            profile: self.profile.clone(),
            wish: self.wish,
            addons: self.addons.clone(),
            modules: self.modules.clone(),
            request: LoadRequest {
                cmdline,
                syscall,
                mem_min: self.mem_min,
                mem_max: self.mem_max,
                no_digest: !self.digest,
                no_efi: self.no_efi,
                serial_port: self.serial_port,
                seed,
                time,
                target: self.target,
                hotplug: self.hotplug,
                file_flags: self.file_flags,
                ..LoadRequest::default()
            },
        })
    }

    /// Tells `security` if this load found that the kernel refuses kexec_load although no
    /// fact says so. With `--syscall auto`, the plan then chooses the same call again.
    pub fn teach(&self, choice: SyscallChoice, security: &mut Security) {
        if self.kexec_load_refused && choice == SyscallChoice::Auto {
            security.kexec_load_refused = true;
        }
    }

    /// How this load differs from `wanted`, in words; `None` when loading `wanted`
    /// would change nothing.
    #[must_use]
    pub fn differs(&self, wanted: &Self) -> Option<String> {
        let (old, new) = (self.blobs.as_ref(), wanted.blobs.as_ref());
        let kernel = |blobs: Option<&Blobs>| blobs.and_then(|blobs| blobs.kernel.clone());
        let initrd = |blobs: Option<&Blobs>| blobs.map(|blobs| blobs.initrd.clone());
        let facts = [
            (self.syscall == wanted.syscall, "the system call"),
            (
                kernel(old).is_some() && kernel(old) == kernel(new),
                "the kernel",
            ),
            (initrd(old) == initrd(new), "the initrd"),
            (self.cmdline == wanted.cmdline, "the command line"),
            (self.digest == wanted.digest, "whether purgatory verifies"),
            (self.no_efi == wanted.no_efi, "whether EFI is handed over"),
            (
                self.serial_port == wanted.serial_port,
                "the serial port of purgatory",
            ),
            (
                (self.mem_min, self.mem_max) == (wanted.mem_min, wanted.mem_max),
                "the bounds for segments",
            ),
        ];
        let other = facts.into_iter().find(|(same, _)| !same);
        if let Some((_, what)) = other {
            return Some(format!("{what} has changed since the load"));
        }
        match (&self.fit, &wanted.fit) {
            (Some(old), Some(new)) => old.differs(new),
            (None, None) => None,
            _ => Some("the target has changed since the load".to_owned()),
        }
    }
}

#[cfg(test)]
#[path = "record_bytes_tests.rs"]
mod bytes_tests;
#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
