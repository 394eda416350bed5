//! Carries out a plan: one system call, and a check that the files did not change.

use std::ffi::CString;
use std::os::fd::AsFd as _;

use super::door::RunningKernel;
use super::files::Files;
use super::record::RecordError;
use crate::host::Host;
use crate::image::Image;
use crate::image::signature::is_signed;
use crate::image::uki;
use crate::layout::{INITRD_PAD, Role, stream_size};
use crate::plan::{Checked, Method, Plan};
use crate::refusal::{CallFacts, SysError};
use crate::sys::kexec::WhenBusy;
use crate::sys::{Changed, FileFlags, KexecSegment, MappedFile, memfd};
use bstr::BStr;

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The call failed, or must fail and was not made.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// Kernel or initrd could not be copied to a file for kexec_file_load.
    #[error("copying {what} in memory failed")]
    Copy {
        /// Kernel or initrd.
        what: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// `exec` would not know what to do.
    #[error("load failed: what exec must hand over cannot be recorded; {after}")]
    NotRecorded {
        /// The cause.
        #[source]
        source: RecordError,
        /// What is loaded now.
        after: After,
    },
    /// A file changed while it was loaded.
    #[error("load failed: {changed}; {after}")]
    Changed {
        /// What changed.
        changed: Changed,
        /// What is loaded now.
        after: After,
    },
}

/// What is loaded after a file changed.
#[derive(Debug, thiserror::Error)]
pub enum After {
    /// What was loaded before.
    #[error("nothing was loaded")]
    NotLoaded,
    /// Nothing: what was loaded before had been replaced.
    #[error("it was unloaded again, nothing is loaded now")]
    Unloaded,
    /// What was made of the files; its digests may be wrong.
    #[error("it is still loaded and must not be booted: {0}")]
    StillLoaded(Box<SysError>),
}

impl LoadError {
    /// Whether what was loaded before is gone for certain.
    #[must_use]
    pub const fn has_replaced(&self) -> bool {
        matches!(
            self,
            Self::Changed {
                after: After::Unloaded | After::StillLoaded(_),
                ..
            } | Self::NotRecorded { .. }
        )
    }

    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Sys(error) => error.hint(),
            Self::Changed { .. } => Some("load again when nothing writes to the file any more"),
            Self::NotRecorded { .. } => {
                Some("rkexec keeps its records in /run/rkexec, which root must be able to write to")
            }
            Self::Copy { source, .. } => {
                let is_unreadable = source.raw_os_error() == Some(libc::EFAULT);
                is_unreadable.then_some(
                    "the file became shorter meanwhile, or its disk has a read error: `dmesg` names a \
                     disk that fails",
                )
            }
        }
    }
}

/// Has `kernel` load the kernel of `plan`, which was made for `image` in `files`, with
/// these bytes of `purgatory` instead of the plan's. What was loaded before is replaced; when this fails, a kernel for `exec` stays, and a crash
/// kernel may be lost.
///
/// # Errors
/// When the call must fail by the facts, when it fails, or when a file changed
/// meanwhile; the image is unloaded then, for its digest may be wrong.
pub(super) fn load(
    kernel: &dyn RunningKernel,
    plan: &Checked<Plan<'_>>,
    host: &Host,
    image: &Image<'_>,
    files: &Files,
    purgatory: Option<&[u8]>,
) -> Result<(), LoadError> {
    let facts = facts(plan, host, image);
    if let Some(error) = SysError::forbidden(&facts) {
        return Err(error.into());
    }
    // Check before the call, while a changed file does no harm.
    let changed = |changed, after| LoadError::Changed { changed, after };
    files
        .unchanged()
        .map_err(|what| changed(what, After::NotLoaded))?;
    let when_busy = WhenBusy::within(&host.security, facts.target);
    match &plan.method {
        Method::Segments {
            entry, segments, ..
        } => {
            let segments: Vec<KexecSegment<'_>> = segments
                .iter()
                .map(|segment| KexecSegment {
                    buf: purgatory
                        .filter(|_| segment.role == Role::Purgatory)
                        .unwrap_or(&segment.buf),
                    mem: segment.mem.start(),
                    memsz: segment.mem.size(),
                })
                .collect();
            kernel
                .kexec_load(*entry, &segments, facts.target, facts.hotplug, when_busy)
                .map_err(|errno| SysError::failed(&facts, errno))?;
        }
        Method::File {
            kernel: file,
            initrds,
            flags,
        } => {
            let with = (plan.cmdline.as_bstr(), *flags);
            file_load(kernel, file, initrds, with, files, &facts, when_busy)?;
        }
    }
    files
        .unchanged()
        .map_err(|what| changed(what, unload_after_change(kernel, &facts, when_busy)))
}

/// With kexec_file_load the kernel reads the files itself. It keeps writers off while it
/// reads, not before. Parts of a file, and several files, are copied; their files are
/// checked again when they were read, for the kernel sees the copies only.
fn file_load(
    running: &dyn RunningKernel,
    kernel: &[u8],
    initrds: &[&[u8]],
    (line, flags): (&BStr, FileFlags),
    files: &Files,
    facts: &CallFacts<'_>,
    when_busy: WhenBusy,
) -> Result<(), LoadError> {
    let copy = |what, name, pieces: &[&[u8]], align| {
        memfd::concatenate(name, pieces, align).map_err(|source| LoadError::Copy { what, source })
    };
    let kernel = match whole(kernel, std::slice::from_ref(&files.kernel)) {
        Some(_) => None,
        None => Some(copy("the kernel", c"rkexec-kernel", &[kernel], 1)?),
    };
    let single = match initrds {
        [initrd] => whole(initrd, &files.initrds),
        _ => None,
    };
    let joined = match single {
        None if !initrds.is_empty() => {
            Some(copy("the initrds", c"rkexec-initrd", initrds, INITRD_PAD)?)
        }
        _ => None,
    };
    if kernel.is_some() || joined.is_some() {
        files.unchanged().map_err(|what| LoadError::Changed {
            changed: what,
            after: After::NotLoaded,
        })?;
    }
    let initrd = joined.as_ref().map(|joined| joined.as_fd());
    // A Cmdline holds no NUL.
    let cmdline = CString::new(line.to_vec()).unwrap_or_default();
    let kernel = kernel.as_ref().map(|kernel| kernel.as_fd());
    running
        .kexec_file_load(
            kernel.unwrap_or(files.kernel.fd()),
            initrd.or(single.map(MappedFile::fd)),
            &cmdline,
            facts.target,
            flags,
            when_busy,
        )
        .map_err(|errno| SysError::failed(facts, errno).into())
}

/// The file whose whole contents are `bytes`.
pub(super) fn whole<'a>(bytes: &[u8], files: &'a [MappedFile]) -> Option<&'a MappedFile> {
    files.iter().find(|file| std::ptr::eq(file.bytes(), bytes))
}

/// Unloads what was loaded by `plan`, which was made for `image`: it must not be booted.
pub(super) fn unload_again(
    kernel: &dyn RunningKernel,
    plan: &Plan<'_>,
    host: &Host,
    image: &Image<'_>,
) -> After {
    let facts = facts(plan, host, image);
    let when_busy = WhenBusy::within(&host.security, facts.target);
    unload_after_change(kernel, &facts, when_busy)
}

/// Unloads what was loaded from a file that changed.
fn unload_after_change(
    kernel: &dyn RunningKernel,
    facts: &CallFacts<'_>,
    when_busy: WhenBusy,
) -> After {
    match kernel.unload(facts.syscall, facts.target, when_busy) {
        Ok(()) => After::Unloaded,
        Err(errno) => {
            let unload = CallFacts {
                unload: true,
                ..*facts
            };
            After::StillLoaded(Box::new(SysError::failed(&unload, errno)))
        }
    }
}

/// The facts by which a refusal is explained.
pub(super) fn facts<'a>(plan: &Plan<'_>, host: &'a Host, image: &Image<'_>) -> CallFacts<'a> {
    let sizes = plan.segments().iter().map(|segment| segment.mem.size());
    let (bytes, held, largest, largest_file, signed) = match &plan.method {
        Method::Segments { .. } => (plan.total_size(), 0, sizes.max().unwrap_or(0), 0, None),
        Method::File {
            kernel, initrds, ..
        } => {
            let (memory, initrd) = (image.memory_size(), stream_size(initrds));
            let largest_file = (kernel.len() as u64).max(initrd);
            let signed = is_signed(kernel);
            (
                memory + initrd,
                kernel.len() as u64 + initrd,
                memory.max(initrd),
                largest_file,
                signed,
            )
        }
    };
    CallFacts {
        signed,
        efi_secure_boot: host.secure_boot(),
        cmdline_size: plan.cmdline.as_bstr().len() as u64 + 1,
        cmdline_limit: image.linux().map(|linux| linux.cmdline_limit as u64),
        segments: plan.segments().len(),
        bytes,
        held,
        largest,
        largest_file,
        in_uki: image
            .linux()
            .is_some_and(|linux| linux.around.contains(&uki::NAME)),
        total_ram: host.total_ram,
        available_ram: host.available_ram,
        hotplug: plan.crash.as_ref().and_then(|c| Some(c.hotplug?.0)),
        ..CallFacts::new(plan.syscall(), plan.target(), &host.security, &host.loaded)
    }
}
