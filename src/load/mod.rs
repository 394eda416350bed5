//! Carrying out a plan: one system call, and a look whether the files stayed
//! what they were.

pub mod record;

use std::ffi::CString;
use std::os::fd::AsFd as _;

use crate::host::Host;
use crate::image::BzImage;
use crate::image::signature::is_signed;
use crate::plan::{self, INITRD_PAD, Plan};
use crate::sys::kexec::{self, WhenBusy};
use crate::sys::{Attempt, Changed, KexecSegment, MappedFile, SysError, Syscall, memfd};

/// The files that a plan was made from.
#[derive(Debug)]
pub struct Files {
    /// The kernel.
    pub kernel: MappedFile,
    /// The initrds, in order.
    pub initrds: Vec<MappedFile>,
}

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The call failed, or must fail and was not made.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The initrds could not be joined.
    #[error("joining the initrds in memory failed")]
    Join(#[source] std::io::Error),
    /// A file changed while it was loaded.
    #[error("load failed: {changed}; {after}")]
    Changed {
        /// What changed.
        changed: Changed,
        /// What is loaded now.
        after: String,
    },
}

impl LoadError {
    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Sys(error) => error.hint(),
            Self::Changed { .. } => Some("load again when nothing writes to the file any more"),
            Self::Join(_) => None,
        }
    }
}

impl Files {
    /// The bytes of the initrds.
    #[must_use]
    pub fn initrd_bytes(&self) -> Vec<&[u8]> {
        self.initrds.iter().map(MappedFile::bytes).collect()
    }

    fn unchanged(&self) -> Result<(), Changed> {
        std::iter::once(&self.kernel)
            .chain(&self.initrds)
            .try_for_each(MappedFile::unchanged)
    }
}

/// Loads the kernel of `plan`. What was loaded before is replaced; when this
/// fails, a kernel for `exec` stays, and a crash kernel may be lost.
///
/// # Errors
/// When the call must fail by the facts, when it fails, or when a file changed
/// meanwhile; the image is unloaded then, for its digest may be wrong.
pub fn load(
    plan: &Plan<'_>,
    host: &Host,
    image: &BzImage<'_>,
    files: &Files,
) -> Result<(), LoadError> {
    let attempt = attempt(plan, host, image, files);
    if let Some(error) = SysError::forbidden(&attempt) {
        return Err(error.into());
    }
    // A file that changed before the call costs nothing yet.
    let changed = |changed, after: String| LoadError::Changed { changed, after };
    files
        .unchanged()
        .map_err(|what| changed(what, "nothing was loaded".to_owned()))?;
    let when_busy = WhenBusy::within(&host.security, attempt.target);
    let called = match (plan.syscall.name, plan.entry) {
        (Syscall::KexecLoad, entry) => {
            let segments: Vec<KexecSegment<'_>> = plan
                .segments
                .iter()
                .map(|segment| KexecSegment {
                    buf: &segment.buf,
                    mem: segment.mem.start(),
                    memsz: segment.mem.size(),
                })
                .collect();
            kexec::kexec_load(
                entry.unwrap_or_default(),
                &segments,
                attempt.target,
                attempt.hotplug,
                when_busy,
            )
        }
        (Syscall::KexecFileLoad, _) => return file_load(plan, files, &attempt, when_busy),
    };
    called.map_err(|errno| SysError::failed(&attempt, errno))?;
    files
        .unchanged()
        .map_err(|what| changed(what, unload_after_change(&attempt, when_busy)))
}

/// The kernel reads the files itself and holds them against writers while it
/// does: what it loads of a file given as it is, is what it read. Joined initrds
/// were read here before, so their files are looked at once more.
fn file_load(
    plan: &Plan<'_>,
    files: &Files,
    attempt: &Attempt<'_>,
    when_busy: WhenBusy,
) -> Result<(), LoadError> {
    let joined = match files.initrds.len() {
        0 | 1 => None,
        _ => Some(
            memfd::concatenate(c"rkexec-initrd", &files.initrd_bytes(), INITRD_PAD)
                .map_err(LoadError::Join)?,
        ),
    };
    if joined.is_some() {
        files.unchanged().map_err(|what| LoadError::Changed {
            changed: what,
            after: "nothing was loaded".to_owned(),
        })?;
    }
    let initrd = match &joined {
        Some(joined) => Some(joined.as_fd()),
        None => files.initrds.first().map(MappedFile::fd),
    };
    // A Cmdline holds no NUL.
    let cmdline = CString::new(plan.cmdline.as_str()).unwrap_or_default();
    kexec::kexec_file_load(
        files.kernel.fd(),
        initrd,
        &cmdline,
        attempt.target,
        when_busy,
    )
    .map_err(|errno| SysError::failed(attempt, errno).into())
}

/// Unloads what was loaded from a file that changed, and says how that went.
fn unload_after_change(attempt: &Attempt<'_>, when_busy: WhenBusy) -> String {
    match kexec::unload(attempt.syscall, attempt.target, when_busy) {
        Ok(()) => "it was unloaded again, nothing is loaded now".to_owned(),
        Err(errno) => {
            let unload = Attempt {
                unload: true,
                ..*attempt
            };
            format!(
                "it is still loaded and must not be booted: {}",
                SysError::failed(&unload, errno)
            )
        }
    }
}

/// The facts by which a refusal is explained.
fn attempt<'a>(plan: &Plan<'_>, host: &'a Host, image: &BzImage<'_>, files: &Files) -> Attempt<'a> {
    let joined = plan::stream_size(&files.initrd_bytes());
    let sizes = plan.segments.iter().map(|segment| segment.mem.size());
    let (bytes, largest) = match plan.syscall.name {
        Syscall::KexecLoad => (plan.total_size(), sizes.max().unwrap_or(0)),
        Syscall::KexecFileLoad => {
            let (kernel, initrd) = (u64::from(image.header.init_size.get()), joined);
            (kernel + initrd, kernel.max(initrd))
        }
    };
    let signed = match plan.syscall.name {
        Syscall::KexecLoad => None,
        Syscall::KexecFileLoad => is_signed(files.kernel.bytes()),
    };
    Attempt {
        signed,
        efi_secure_boot: host.efi.as_ref().and_then(|efi| efi.secure_boot),
        cmdline_size: plan.cmdline.as_str().len() as u64 + 1,
        cmdline_limit: Some(u64::from(image.header.cmdline_size.get())),
        segments: plan.segments.len(),
        bytes,
        largest,
        largest_file: (files.kernel.bytes().len() as u64).max(joined),
        total_ram: host.total_ram,
        available_ram: host.available_ram,
        hotplug: plan.crash.as_ref().and_then(|c| Some(c.hotplug?.0)),
        ..Attempt::new(
            plan.syscall.name,
            plan.target(),
            &host.security,
            &host.loaded,
        )
    }
}
