//! `rkexec unload`: gives back the memory of a loaded kernel.

use clap::Args;

use super::Context;
use super::load::session;
use crate::base::{Syscall, Target};
use crate::host;
use crate::host::loaded::Loaded;
use crate::host::security::Security;
use crate::load::ThisKernel;
use crate::load::record::LoadRecord;
use crate::refusal::{CallFacts, SysError};
use crate::sys::kexec::{self, WhenBusy};

/// `rkexec unload`.
#[derive(Debug, Args)]
pub(super) struct UnloadArgs {
    /// The crash kernel.
    #[arg(long)]
    panic: bool,
}

pub(super) fn run(context: &Context, args: &UnloadArgs) -> anyhow::Result<()> {
    context.on_this_machine("unload")?;
    let target = if args.panic {
        Target::Crash
    } else {
        Target::Normal
    };
    let (was, syscall) = unload(context, target)?;
    let what = if args.panic { "crash kernel" } else { "kernel" };
    context.print(
        || match was {
            Some(false) => format!("no {what} was loaded\n"),
            _ => format!("the {what} is unloaded\n"),
        },
        || serde_json::json!({ "schema": 1, "unloaded": was != Some(false), "syscall": syscall }),
    )
}

/// Unloads; says whether something was loaded, where the kernel tells, and
/// which call unloaded it.
pub(super) fn unload(context: &Context, target: Target) -> anyhow::Result<(Option<bool>, Syscall)> {
    let kernel = ThisKernel::new(&context.root);
    let _alone = session(context, &kernel).alone()?;
    let security = Security::read(&context.root)?;
    let loaded = Loaded::read(&context.root)?;
    let secure_boot = host::secure_boot(&context.root);
    let syscall = syscall(&security, secure_boot);
    let facts = CallFacts {
        unload: true,
        efi_secure_boot: secure_boot,
        ..CallFacts::new(syscall, target, &security, &loaded)
    };
    if let Some(error) = SysError::forbidden(&facts) {
        return Err(error.into());
    }
    let when_busy = WhenBusy::within(&security, target);
    let call = |syscall| kexec::unload(syscall, target, when_busy).map(|()| syscall);
    let by = call(syscall)
        .or_else(|errno| match errno.is_refusal() {
            // Report the first call's error, not the second one's.
            true => call(syscall.other()).map_err(|_| errno),
            false => Err(errno),
        })
        .map_err(|errno| SysError::failed(&facts, errno))?;
    if let Err(error) = LoadRecord::remove(&context.root, target) {
        context.warn(&format!("{:#}", anyhow::Error::from(error)));
    }
    let was = match target {
        Target::Normal => loaded.normal,
        Target::Crash => loaded.crash,
    };
    Ok((was, by))
}

/// What forbids a load through kexec_load forbids an unload through it, and not
/// the one through kexec_file_load.
fn syscall(security: &Security, secure_boot: Option<bool>) -> Syscall {
    let file_only = security.forbids_kexec_load(secure_boot).is_some();
    if file_only || security.config.kexec_file == Some(true) {
        Syscall::KexecFileLoad
    } else {
        Syscall::KexecLoad
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::security::Lockdown;

    #[test]
    fn the_call_that_may_unload() {
        let mut security = Security::default();
        assert_eq!(syscall(&security, None), Syscall::KexecLoad);
        assert_eq!(syscall(&security, Some(true)), Syscall::KexecFileLoad);
        security.config.kexec_sig = Some(false);
        assert_eq!(syscall(&security, Some(true)), Syscall::KexecLoad);
        // What Kexec Handover preserves survives an unload.
        security.kho.on = true;
        assert_eq!(syscall(&security, None), Syscall::KexecLoad);
        security.lockdown = Some(Lockdown::Integrity);
        assert_eq!(syscall(&security, None), Syscall::KexecFileLoad);
    }
}
