//! `rkexec exec`: boots the loaded kernel.

use clap::Args;

use super::{Context, NothingLoaded};
use crate::host::loaded::Loaded;
use crate::host::security::Security;
use crate::sys::{self, Errno, SysError, kexec};

/// `rkexec exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Do not write cached data to the disks first.
    #[arg(long)]
    no_sync: bool,
}

pub(super) fn run(context: &Context, args: &ExecArgs) -> anyhow::Result<()> {
    context.on_this_machine("exec")?;
    let loaded = Loaded::read(&context.root)?;
    if loaded.normal == Some(false) {
        return Err(NothingLoaded::Known.into());
    }
    let security = Security::read(&context.root)?;
    if !args.no_sync {
        sys::sync();
    }
    match kexec::reboot_kexec() {
        Ok(never) => match never {},
        Err(errno) => Err(refused(&security, &loaded, errno)),
    }
}

fn refused(security: &Security, loaded: &Loaded, errno: Errno) -> anyhow::Error {
    let error = SysError::reboot(security, loaded, errno);
    if errno.number() == libc::EINVAL && loaded.normal.is_none() {
        NothingLoaded::Answered(error).into()
    } else {
        error.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{exit_code, hint};
    use std::process::ExitCode;

    #[test]
    fn einval_without_sysfs_is_nothing_loaded() {
        let code = |normal, errno| {
            let loaded = Loaded {
                normal,
                ..Loaded::default()
            };
            let error = refused(&Security::default(), &loaded, Errno::new(errno));
            assert!(error.to_string().starts_with("exec failed: "), "{error}");
            assert!(hint(&error).is_some());
            format!("{:?}", exit_code(&error))
        };
        let exit = |code| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(None, libc::EINVAL), exit(3));
        assert_eq!(code(None, libc::EPERM), exit(1));
        assert_eq!(code(Some(true), libc::EINVAL), exit(1));
    }
}
