//! The exit code that kexec-tools has for a failure. kexec(8) lists them.

use super::request::{BadRequest, BadValue};
use crate::base::Syscall;
use crate::boot::BootError;
use crate::cli::{NothingLoaded, Usage};
use crate::cmdline::CmdlineError;
use crate::image::ImageError;
use crate::load::{LoadError, ModulesForLinux};
use crate::plan::PlanError;
use crate::refusal::SysError;
use crate::sys::OpenError;

/// kexec-tools gave up by itself.
pub(super) const DIED: u8 = 1;
/// A function of kexec-tools returned -1.
pub(super) const FAILED: u8 = 255;
/// kexec_file_load does not take the image, and nothing else may be tried: -3.
const FILE_LOAD_REFUSED: u8 = 253;

/// The errnos after which kexec-tools tries the other call where it may.
const FALLS_BACK: [i32; 4] = [libc::ENOSYS, libc::EINVAL, libc::ENOEXEC, libc::ENOTSUP];

/// The exit code for a command line that cannot be followed.
pub(super) fn bad_request(error: &BadRequest) -> u8 {
    match error {
        BadRequest::NoKernel => FAILED,
        BadRequest::Value(BadValue { fails_late, .. }) if *fails_late => FAILED,
        _ => DIED,
    }
}

/// The exit code for a failure, with the call that was asked for; auto tries
/// kexec_file_load first with kexec-tools.
pub(super) fn failure(error: &anyhow::Error, syscall: Option<Syscall>) -> u8 {
    let segments_only = syscall == Some(Syscall::KexecLoad);
    let file_only = syscall == Some(Syscall::KexecFileLoad);
    let code = error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref::<OpenError>() {
            // kexec-tools opens files for kexec_file_load in another function than the rest.
            let not_opened = matches!(
                error,
                OpenError::Missing(_) | OpenError::Unreadable(_) | OpenError::Io { .. }
            );
            return Some(if not_opened && !segments_only {
                FAILED
            } else {
                DIED
            });
        }
        if let Some(error) = cause.downcast_ref::<PlanError>() {
            return Some(plan(error, syscall));
        }
        let refused = match cause.downcast_ref::<LoadError>() {
            Some(LoadError::Sys(error)) => falls_back(error),
            _ => cause.downcast_ref().is_some_and(is_damaged),
        };
        if refused && file_only {
            return Some(FILE_LOAD_REFUSED);
        }
        let known = matches!(cause.downcast_ref(), Some(NothingLoaded::Known));
        (known || cause.is::<Usage>() || cause.is::<ModulesForLinux>()).then_some(DIED)
    });
    code.unwrap_or(FAILED)
}

/// Whether the image is a kernel to which kexec_file_load would answer ENOEXEC.
fn is_damaged(error: &ImageError) -> bool {
    match error {
        ImageError::Malformed { .. } | ImageError::Unpack(_) => true,
        ImageError::Inside { error, .. } => is_damaged(error),
        _ => false,
    }
}

fn plan(error: &PlanError, syscall: Option<Syscall>) -> u8 {
    let segments_only = syscall == Some(Syscall::KexecLoad);
    let file_only = syscall == Some(Syscall::KexecFileLoad);
    match error {
        PlanError::Cmdline(CmdlineError::TooLong { .. }) | PlanError::FileLoadRefuses { .. }
            if file_only =>
        {
            FILE_LOAD_REFUSED
        }
        // With kexec_file_load, the kernel itself would fail to find a place.
        PlanError::NotInReservation { .. } if !segments_only => FAILED,
        PlanError::Place(_)
        | PlanError::NotInReservation { .. }
        | PlanError::Boot(BootError::Occupied { .. })
        | PlanError::NotWithFileLoad { .. }
        | PlanError::Crash(_) => DIED,
        _ => FAILED,
    }
}

fn falls_back(error: &SysError) -> bool {
    let number = error.errno.map(crate::sys::Errno::number);
    number.is_some_and(|number| FALLS_BACK.contains(&number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Target;
    use crate::host::loaded::Loaded;
    use crate::host::security::Security;
    use crate::layout::PlaceError;
    use crate::refusal::CallFacts;
    use crate::sys::Errno;
    use anyhow::Context as _;

    const CALLS: [Option<Syscall>; 3] =
        [Some(Syscall::KexecLoad), Some(Syscall::KexecFileLoad), None];

    /// The codes for -c, -s and -a.
    fn codes(error: impl Into<anyhow::Error>) -> [u8; 3] {
        let error: anyhow::Error = Err::<(), _>(error.into()).context("x").unwrap_err();
        CALLS.map(|syscall| failure(&error, syscall))
    }

    /// All of these were seen with kexec-tools 2.0.25 and Linux 6.12.
    #[test]
    fn as_kexec_tools_has_them() {
        assert_eq!(codes(OpenError::Missing("x".into())), [1, 255, 255]);
        assert_eq!(codes(OpenError::Unreadable("x".into())), [1, 255, 255]);
        assert_eq!(codes(OpenError::Empty("x".into())), [1, 1, 1]);
        assert_eq!(codes(OpenError::Directory("x".into())), [1, 1, 1]);
        assert_eq!(
            codes(ImageError::NotAKernel(String::new())),
            [255, 255, 255]
        );
        let malformed = ImageError::Malformed {
            format: "bzImage",
            what: String::new(),
        };
        assert_eq!(codes(malformed), [255, 253, 255]);
        let too_long = CmdlineError::TooLong {
            length: 3,
            limit: 2,
        };
        assert_eq!(codes(PlanError::from(too_long)), [255, 253, 255]);
        let nowhere = PlaceError::Unreachable {
            what: "x",
            min: 0,
            max: 0,
        };
        assert_eq!(codes(PlanError::from(nowhere))[0], 1);
        assert_eq!(codes(NothingLoaded::Known), [1, 1, 1]);
        assert_eq!(codes(Usage(String::new())), [1, 1, 1]);
        assert_eq!(codes(std::io::Error::other("x")), [255, 255, 255]);
    }

    #[test]
    fn errnos() {
        let (security, loaded) = (Security::default(), Loaded::default());
        let call = |errno| {
            let facts = CallFacts::new(Syscall::KexecFileLoad, Target::Normal, &security, &loaded);
            codes(LoadError::Sys(SysError::failed(&facts, Errno::new(errno))))
        };
        assert_eq!(call(libc::EPERM), [255, 255, 255]);
        assert_eq!(call(libc::ENOEXEC), [255, 253, 255]);
        assert_eq!(call(libc::EADDRNOTAVAIL), [255, 255, 255]);
    }
}
