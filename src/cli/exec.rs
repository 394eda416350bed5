//! `rkexec exec`: boots the loaded kernel.

use clap::Args;

use super::{Context, NothingLoaded};
use crate::host::loaded::Loaded;
use crate::host::security::Security;
use crate::sys::{self, SysError, kexec};

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
        return Err(anyhow::Error::new(NothingLoaded).context("exec failed"));
    }
    let security = Security::read(&context.root)?;
    if !args.no_sync {
        sys::sync();
    }
    match kexec::reboot_kexec() {
        Ok(never) => match never {},
        Err(errno) => Err(SysError::reboot(&security, &loaded, errno).into()),
    }
}
