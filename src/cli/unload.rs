//! `rkexec unload`: gives back the memory of a loaded kernel.

use clap::Args;

use super::Context;
use crate::host::loaded::Loaded;
use crate::host::security::{Lockdown, Security};
use crate::sys::kexec::{self, WhenBusy};
use crate::sys::{Attempt, SysError, Syscall, Target};

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
    let security = Security::read(&context.root)?;
    let loaded = Loaded::read(&context.root)?;
    let attempt = Attempt {
        unload: true,
        ..Attempt::new(syscall(&security), target, &security, &loaded)
    };
    if let Some(error) = SysError::forbidden(&attempt) {
        return Err(error.into());
    }
    let when_busy = WhenBusy::within(&security, target);
    kexec::unload(attempt.syscall, target, when_busy)
        .map_err(|errno| SysError::failed(&attempt, errno))?;
    let was = match target {
        Target::Normal => loaded.normal,
        Target::Crash => loaded.crash,
    };
    let what = if args.panic { "crash kernel" } else { "kernel" };
    context.print(
        || match was {
            Some(false) => format!("no {what} was loaded\n"),
            _ => format!("the {what} is unloaded\n"),
        },
        || serde_json::json!({ "schema": 1, "unloaded": was != Some(false), "syscall": attempt.syscall }),
    )
}

/// Lockdown and IMA forbid an unload through kexec_load, not the one through
/// kexec_file_load.
fn syscall(security: &Security) -> Syscall {
    let locked = security.lockdown.is_some_and(|mode| mode != Lockdown::None);
    let file_only =
        locked || security.ima_appraise_kexec == Some(true) || security.config.kexec == Some(false);
    if file_only || security.config.kexec_file == Some(true) {
        Syscall::KexecFileLoad
    } else {
        Syscall::KexecLoad
    }
}
