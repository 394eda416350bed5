//! The job, and what the kernel's file brings: the parts of a UKI and of its addons.

use bstr::{BString, ByteSlice as _};

use crate::base::bytes::shown;
use crate::base::{Syscall, Target};
use crate::cmdline::CmdlineBase;
use crate::image::uki::{Addon, Uki};
use crate::image::{Found, ImageError, signature};
use crate::request::LoadRequest;

/// What goes with the kernel, from the job and from the kernel's file.
#[derive(Debug, Clone)]
pub struct Merged<'a> {
    /// The initrds, in order: microcode first, where the kernel looks for it.
    pub initrds: Vec<&'a [u8]>,
    /// The request, with what the UKI says where the options say nothing.
    pub request: LoadRequest,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// Why the parts do not go together.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A part is damaged.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Addons need something to be added to.
    #[error("--addon goes with a UKI, and this kernel is none")]
    NoUki,
    /// An addon is made for another kernel.
    #[error("an addon is made for the kernel {addon}, and the UKI has {uki}")]
    OtherKernel {
        /// Its `.uname`.
        addon: String,
        /// The UKI's.
        uki: String,
    },
}

impl<'a> Merged<'a> {
    /// The parts of `found` and `addons`, then the initrds in `files`, for `request`.
    ///
    /// The order is systemd-stub's. Command lines and initrds of addons follow those of
    /// the UKI. Microcode of addons goes before the UKI's, the last addon's first. The
    /// last device tree counts. A command line or device tree in the request replaces
    /// the UKI's; the running command line replaces those of the addons, too.
    ///
    /// # Errors
    /// When a part is damaged or made for another kernel.
    pub fn of(
        request: &LoadRequest,
        found: &Found<'a>,
        addons: &[Addon<'a>],
        files: &[&'a [u8]],
    ) -> Result<Self, MergeError> {
        let mut parts = Self {
            initrds: files.to_vec(),
            request: request.clone(),
            warnings: Vec::new(),
        };
        match &found.uki {
            Some(uki) => parts.take(uki, addons)?,
            None if addons.is_empty() => {}
            None => return Err(MergeError::NoUki),
        }
        Ok(parts)
    }

    fn take(&mut self, uki: &Uki<'a>, addons: &[Addon<'a>]) -> Result<(), MergeError> {
        for addon in addons {
            same_kernel(uki, addon.parts())?;
        }
        let addons = || addons.iter().map(Addon::parts);
        let all = || std::iter::once(uki).chain(addons());

        let microcode = all().rev().filter_map(|uki| uki.section(".ucode"));
        let initrds = all().filter_map(|uki| uki.section(".initrd"));
        self.initrds.splice(..0, microcode.chain(initrds));

        let line = |uki: &Uki<'_>| uki.cmdline().filter(|line| !line.is_empty());
        let own = line(uki);
        let added = addons().filter_map(line);
        let cmdline = &mut self.request.cmdline;
        let unused: Vec<BString> = match &mut cmdline.base {
            CmdlineBase::Empty => {
                let lines: Vec<BString> = own.into_iter().chain(added).collect();
                if !lines.is_empty() {
                    cmdline.base = CmdlineBase::Given(bstr::join(b" ", lines).into());
                }
                Vec::new()
            }
            CmdlineBase::Given(_) => {
                cmdline.append.splice(..0, added);
                own.into_iter().collect()
            }
            // The running line may already contain the addons' lines.
            CmdlineBase::Running => own.into_iter().chain(added).collect(),
        };
        if !unused.is_empty() {
            self.warnings.push(format!(
                "the UKI's own command line is not used: {}",
                shown(&bstr::join(b" ", unused))
            ));
        }

        let dtb = all().filter_map(Uki::dtb).next_back();
        match (dtb, self.request.target) {
            (Some(_), Target::Normal) if self.request.handover.dtb.is_some() => {
                let why = "the UKI's own device tree is not used";
                self.warnings.push(why.to_owned());
            }
            (Some(dtb), Target::Normal) => {
                self.request.handover.uki_dtb = Some(dtb.to_vec());
            }
            (_, Target::Crash) | (None, Target::Normal) => {}
        }
        Ok(())
    }
}

/// As systemd-stub: an addon that names a kernel is for that one.
fn same_kernel<'a>(uki: &Uki<'a>, addon: &Uki<'a>) -> Result<(), MergeError> {
    let name = |uki: &Uki<'a>| {
        let uname = uki.section(".uname")?;
        Some(uname.trim_end_with(|c| matches!(c, '\0' | '\n')).as_bstr())
    };
    match (name(uki), name(addon)) {
        (Some(uki), Some(addon)) if uki != addon => Err(MergeError::OtherKernel {
            addon: shown(addon).to_string(),
            uki: shown(uki).to_string(),
        }),
        _ => Ok(()),
    }
}

/// Which signature is lost, for a plan; `None` when there was none to lose.
#[must_use]
pub fn lost_signature(found: &Found<'_>, syscall: Syscall) -> Option<String> {
    let kernel = found.image.linux()?;
    found
        .uki
        .as_ref()
        .filter(|uki| uki.is_signed() != Some(false))?;
    let lost = "the signature of the UKI covers the file as a whole, and the parts are loaded";
    let instead = match (syscall, signature::is_signed(kernel.file)) {
        (Syscall::KexecLoad, _) => "kexec_load looks at no signature",
        (Syscall::KexecFileLoad, Some(true)) => {
            "the running kernel looks at the kernel's own signature, and at none of initrd and command line"
        }
        (Syscall::KexecFileLoad, Some(false)) => "the kernel inside has no signature of its own",
        (Syscall::KexecFileLoad, None) => "the signature of the kernel inside cannot be read",
    };
    Some(format!("{lost}: {instead}"))
}

#[cfg(test)]
#[path = "merged_tests.rs"]
mod tests;
