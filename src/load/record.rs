//! What rkexec loaded, for as long as this boot lasts: /run/rkexec.
//!
//! The kernel tells that an image is loaded, but not which one. The record names
//! its files, its command line and the machine it was loaded for. With it, the same
//! image can be loaded again, and `status` can tell when it no longer fits.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bstr::{BString, ByteSlice as _};
use serde::{Deserialize, Serialize};

use super::carry::AtExec;
use super::lock::{self, DIR};
use super::{exec_page, record_v1};
use crate::base::{Syscall, Target, bytes};
use crate::crash::fit::Fit;
use crate::host::loaded::Loaded;
use crate::host::security::Security;
use crate::host::{Host, HostError, Root};
use crate::image::Image;
use crate::job::{Fresh, Job, Kept};
use crate::layout::Blobs;
use crate::plan::Plan;
use crate::request::SyscallChoice;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// Version of the format.
pub(super) const SCHEMA: u32 = 2;

/// What was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadRecord {
    /// Version of the format. [`record_v1`] reads version 1; others are ignored.
    pub(super) schema: u32,
    /// Which boot it belongs to. A record of another boot (a copied /run) is ignored.
    pub(super) boot_id: String,
    /// Version of rkexec that loaded it.
    pub rkexec: String,
    /// When, seconds since 1970.
    pub loaded_at: u64,
    /// What was asked for. A load of the record asks for it again.
    #[serde(rename = "job")]
    pub kept: Kept,
    /// By which call it was loaded.
    pub syscall: Syscall,
    /// `uname -r` of the kernel, when its file tells.
    pub release: Option<String>,
    /// Digests of what was loaded from the files.
    pub blobs: Option<Blobs>,
    /// The command line that was made, without what a crash load adds.
    #[serde(with = "bytes::kept")]
    pub cmdline: BString,
    /// Memory that the kernel takes to start, bytes.
    pub init_size: u64,
    /// kexec_load was tried first, and the kernel refused it for a reason that no fact
    /// tells (a security module, a filter).
    pub kexec_load_refused: bool,
    /// What the crash kernel was loaded for; `None` for `exec`.
    pub fit: Option<Fit>,
    /// What `exec` does before the jump; `None`: nothing, or an older rkexec wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_exec: Option<AtExec>,
    /// An older rkexec wrote it, and what was asked cannot be told from it.
    #[serde(skip)]
    pub(super) is_job_unknown: bool,
}

/// The record does not say how the same is loaded again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "its record was written by rkexec {0}, which did not keep what was asked of a UKI with addons"
)]
pub struct NotAsked(String);

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

/// The record of what was loaded before, out of the way while a call replaces the image.
///
/// A process can be killed at any time. If it is killed between the call and the new
/// record, the old record would describe an image that is no longer loaded. With no record,
/// `status` says that it does not know the image.
#[must_use]
pub(super) struct SetAside {
    record: PathBuf,
    aside: PathBuf,
}

impl SetAside {
    /// Puts the record back: what it describes is still loaded.
    pub(super) fn restore(self) -> Result<(), RecordError> {
        std::fs::rename(&self.aside, &self.record).map_err(|source| RecordError::Write {
            path: self.record.clone(),
            source,
        })
    }
}

impl Drop for SetAside {
    /// After `restore` the file is no longer there, which is fine.
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.aside);
    }
}

fn file(target: Target) -> String {
    format!("{DIR}/{target}.json")
}

/// Why what is at `path`, the record or its directory, may come from somebody else than
/// root; `None`: it is root's alone. A captured machine has no `owner`.
pub(super) fn distrust(path: &Path, owner: Option<u32>) -> Option<String> {
    let Ok(facts) = path.symlink_metadata() else {
        return Some("cannot be looked at".to_owned());
    };
    if facts.is_symlink() {
        return Some("is a symbolic link".to_owned());
    }
    let owner = owner?;
    if facts.uid() != owner {
        return Some(format!("belongs to the user {}, not to root", facts.uid()));
    }
    let mode = facts.permissions().mode() & 0o7777;
    let others_write = mode & 0o022 != 0;
    others_write.then(|| format!("may be written to by others than root (mode {mode:04o})"))
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
            kept: Kept::of(job),
            syscall: plan.syscall(),
            release: image.release().map(str::to_owned),
            blobs: plan.blobs.clone(),
            cmdline: made.to_owned(),
            init_size: image.memory_size(),
            kexec_load_refused: host.security.kexec_load_refused,
            fit: plan.crash.as_ref().map(|crash| {
                let target = crash.reservation.target;
                Fit::new(target, &crash.dump, plan.is_kept_up(host), host)
            }),
            at_exec: AtExec::of(job, host, plan),
            is_job_unknown: false,
        })
    }

    /// The record of this boot, if there is one that this version can read. One that is
    /// not root's alone is ignored with a warning.
    ///
    /// # Errors
    /// When it is there and cannot be read; as a rule only root can.
    fn read(root: &Root, target: Target, warn: &dyn Fn(&str)) -> Result<Option<Self>, HostError> {
        match Self::read_whole(root, target, warn) {
            Err(HostError::Malformed { path, .. }) if path == file(target) => Ok(None),
            other => other,
        }
    }

    /// The same, but a record that is malformed is an error.
    fn read_whole(
        root: &Root,
        target: Target,
        warn: &dyn Fn(&str),
    ) -> Result<Option<Self>, HostError> {
        let owner = root.is_system().then_some(0);
        Self::read_of(owner, root, target, warn)
    }

    /// The same of a file that belongs to `owner`; `None`: to anybody, as a captured
    /// machine may.
    fn read_of(
        owner: Option<u32>,
        root: &Root,
        target: Target,
        warn: &dyn Fn(&str),
    ) -> Result<Option<Self>, HostError> {
        let name = file(target);
        let Some(bytes) = root.read_optional(&name)? else {
            return Ok(None);
        };
        // Whoever may write to the directory can put another file in.
        for path in [DIR, &name] {
            if let Some(why) = distrust(&root.path(path), owner) {
                warn(&format!("the record {name} is ignored: {path} {why}"));
                return Ok(None);
            }
        }
        let boot_id = boot_id(root)?;
        let record = Self::parse(&bytes);
        let record = record.map_err(|error| HostError::malformed(&name, error.to_string()))?;
        Ok(record.filter(|record| record.boot_id == boot_id))
    }

    /// `None`: a record of another version.
    fn parse(bytes: &[u8]) -> serde_json::Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        match serde_json::from_slice::<Version>(bytes)?.schema {
            record_v1::SCHEMA => Ok(record_v1::parse(bytes)),
            SCHEMA => serde_json::from_slice(bytes).map(Some),
            _ => Ok(None),
        }
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
        warn: &dyn Fn(&str),
    ) -> Result<Option<Self>, HostError> {
        Self::if_loaded(target, loaded, || Self::read(root, target, warn))
    }

    /// The same, but a record of this version that is malformed is an error.
    ///
    /// # Errors
    /// When it is there and cannot be read, or is malformed.
    pub fn of_loaded_whole(
        root: &Root,
        target: Target,
        loaded: &Loaded,
        warn: &dyn Fn(&str),
    ) -> Result<Option<Self>, HostError> {
        Self::if_loaded(target, loaded, || Self::read_whole(root, target, warn))
    }

    fn if_loaded(
        target: Target,
        loaded: &Loaded,
        read: impl FnOnce() -> Result<Option<Self>, HostError>,
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
        Ok(read()?.filter(|record| record.fit.as_ref().is_none_or(is_it)))
    }

    /// Keeps the record, for root only: it tells addresses.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, root: &Root) -> Result<(), RecordError> {
        let path = root.path(&file(self.kept.target));
        let write = || {
            let directory = lock::directory(root)?;
            let (new, mut file) = Temporary::create(&directory, self.kept.target)?;
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            new.become_file(&path)
        };
        write().map_err(|source| RecordError::Write {
            path: path.clone(),
            source,
        })
    }

    /// Sets the record of `target` aside before a call that may replace its image. `None`
    /// where there is no record, and where nobody can write to its directory: then the
    /// new record cannot be written either, and the caller says so.
    pub(super) fn set_aside(root: &Root, target: Target) -> Option<SetAside> {
        let record = root.path(&file(target));
        if record.is_dir() {
            return None;
        }
        let aside = root.path(&format!("{}.before", file(target)));
        std::fs::rename(&record, &aside).ok()?;
        Some(SetAside { record, aside })
    }

    /// Forgets the record of `target`, and the page that belongs to its image.
    ///
    /// # Errors
    /// When there is one and it cannot be removed.
    pub fn remove(root: &Root, target: Target) -> Result<(), RecordError> {
        if target == Target::Normal {
            exec_page::remove(root);
        }
        let path = root.path(&file(target));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| RecordError::Write { path, source }),
        }
    }

    /// The load that makes the same again, with a new seed and time.
    ///
    /// # Errors
    /// When an older rkexec wrote the record, and what was asked cannot be told from it.
    pub fn job(&self, fresh: Fresh) -> Result<Job, NotAsked> {
        match self.is_job_unknown {
            true => Err(NotAsked(self.rkexec.clone())),
            false => Ok(self.kept.job(fresh)),
        }
    }

    /// Tells `security` if this load found that the kernel refuses kexec_load although no
    /// fact says so. With `--syscall auto`, the plan then chooses the same call again.
    pub fn teach(&self, choice: SyscallChoice, security: &mut Security) {
        if self.kexec_load_refused && choice == SyscallChoice::Auto {
            security.kexec_load_refused = true;
        }
    }

    /// In what the files and options of this load differ from those of another, in words;
    /// `None` when they do not. Memory and CPUs of the machine do not count.
    #[must_use]
    pub fn differs_in_input(&self, wanted: &Self) -> Option<String> {
        let (old, new) = (self.blobs.as_ref(), wanted.blobs.as_ref());
        let kernel = |blobs: Option<&Blobs>| blobs.and_then(|blobs| blobs.kernel.clone());
        let initrd = |blobs: Option<&Blobs>| blobs.map(|blobs| blobs.initrd.clone());
        let outcomes = [
            (self.syscall == wanted.syscall, "the system call"),
            (
                kernel(old).is_some() && kernel(old) == kernel(new),
                "the kernel",
            ),
            (initrd(old) == initrd(new), "the initrd"),
            (self.cmdline == wanted.cmdline, "the command line"),
        ];
        let other = outcomes.into_iter().find(|(same, _)| !same);
        let other = other.map(|(_, what)| what);
        let other = other.or_else(|| self.kept.differs(&wanted.kept));
        other.map(|what| format!("{what} has changed since the load"))
    }

    /// How this load differs from `wanted`, in words; `None` when loading `wanted`
    /// would change nothing.
    #[must_use]
    pub fn differs(&self, wanted: &Self) -> Option<String> {
        if let Some(what) = self.differs_in_input(wanted) {
            return Some(what);
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
