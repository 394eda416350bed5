//! `rkexec exec`: boots the loaded kernel, at once or at the end of a shutdown.

use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::{Context, NothingLoaded};
use crate::base::parse_digits;
use crate::host::loaded::Loaded;
use crate::host::mounts::{self, Mount};
use crate::host::security::Security;
use crate::host::{HostError, Root, cpu};
use crate::refusal::SysError;
use crate::sys::{self, Errno, kexec};

/// How long the writing of cached data may make no progress, unless the operator says
/// otherwise: many seconds of a slow disk's work, and few of a person's patience.
pub(super) const SYNC_SECONDS: u64 = 30;
/// The longest such time: a day, for more is a mistake.
const MAX_SYNC_SECONDS: u64 = 24 * 60 * 60;

/// `rkexec exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Do not write cached data to the disks first.
    #[arg(long)]
    pub(super) no_sync: bool,
    /// Boot anyway when writing to disk makes no progress for this many seconds, 0 to 86400.
    #[arg(long, value_name = "SECONDS", default_value_t = SYNC_SECONDS, value_parser = parse_seconds, conflicts_with = "no_sync")]
    pub(super) sync_limit: u64,
    /// Have the init system stop services and unmount first: systemctl kexec, or shutdown -r now.
    #[arg(long, conflicts_with_all = ["no_sync", "sync_limit"])]
    pub(super) shutdown: bool,
}

fn parse_seconds(text: &str) -> Result<u64, String> {
    let seconds = parse_digits(text, 10).ok();
    seconds
        .filter(|seconds| *seconds <= MAX_SYNC_SECONDS)
        .ok_or_else(|| {
            format!("not a whole number of seconds from 0 to {MAX_SYNC_SECONDS} (a day)")
        })
}

pub(super) fn run(context: &Context, args: &ExecArgs) -> anyhow::Result<()> {
    context.on_this_machine("exec")?;
    // What cannot be found out must not keep a machine from rebooting.
    let loaded = Loaded::read(&context.root).unwrap_or_default();
    if loaded.normal == Some(false) {
        return Err(NothingLoaded::Known.into());
    }
    if args.shutdown {
        return by_the_init_system(context);
    }
    let limit = Duration::from_secs(args.sync_limit);
    let written = if args.no_sync {
        Written::NotAsked
    } else if sys::sync_within(limit, || cpu::unwritten(&context.root)) {
        Written::All
    } else {
        Written::Late(limit)
    };
    if let Some(warning) = left_behind(&written, mounts::writable(&context.root)) {
        context.warn(&warning);
    }
    match kexec::reboot_kexec() {
        Ok(never) => match never {},
        Err(errno) => {
            let security = Security::read(&context.root).unwrap_or_default();
            Err(refused(&security, &loaded, errno))
        }
    }
}

/// What became of the cached data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    All,
    NotAsked,
    /// The writing stood still for so long.
    Late(Duration),
}

/// What the jump leaves behind, for a warning; `None` when nothing can be lost.
fn left_behind(written: &Written, mounts: Result<Vec<Mount>, HostError>) -> Option<String> {
    let where_ = match &mounts {
        Ok(mounts) if mounts.is_empty() => return None,
        Ok(mounts) => {
            let names: Vec<String> = mounts
                .iter()
                .map(|mount| format!("{} ({})", mount.point.escape_debug(), mount.kind))
                .collect();
            names.join(", ")
        }
        Err(error) => format!("file systems that are not known ({error})"),
    };
    Some(match written {
        Written::All => format!(
            "these file systems are NOT unmounted: {where_}; next time use rkexec exec --shutdown"
        ),
        Written::NotAsked => format!("data that is not yet written to disk is lost on {where_}"),
        Written::Late(limit) => format!(
            "writing data to disk made no progress for {} s, and the machine boots all the same: data may be \
             lost on {where_}",
            limit.as_secs()
        ),
    })
}

/// A command that has the init system reboot the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shutdown {
    program: &'static str,
    arguments: &'static [&'static str],
    /// It is told to boot the loaded kernel, and need not find that out.
    knows: bool,
}

/// The commands, the best one first, where they may lie.
const SHUTDOWNS: [(&[&str], &[&str]); 2] = [
    (
        &[
            "/sbin/shutdown",
            "/usr/sbin/shutdown",
            "/bin/shutdown",
            "/usr/bin/shutdown",
        ],
        &["-r", "now"],
    ),
    (
        &[
            "/sbin/reboot",
            "/usr/sbin/reboot",
            "/bin/reboot",
            "/usr/bin/reboot",
        ],
        &[],
    ),
];

impl Shutdown {
    /// The command for the init system that runs on this machine.
    fn find(root: &Root) -> Option<Self> {
        let there = |paths: &[&'static str]| {
            let mut paths = paths.iter().copied();
            paths.find(|path| root.path(path).is_file())
        };
        // sd_booted(3): the directory is there if and only if systemd is init.
        if root.path("/run/systemd/system").is_dir()
            && let Some(program) = there(&["/usr/bin/systemctl", "/bin/systemctl"])
        {
            return Some(Self {
                program,
                arguments: &["kexec"],
                knows: true,
            });
        }
        SHUTDOWNS.iter().find_map(|(paths, arguments)| {
            Some(Self {
                program: there(paths)?,
                arguments,
                knows: false,
            })
        })
    }
}

fn by_the_init_system(context: &Context) -> anyhow::Result<()> {
    let Some(shutdown) = Shutdown::find(&context.root) else {
        return Err(NoInitSystem.into());
    };
    let shown = [&[shutdown.program], shutdown.arguments].concat().join(" ");
    if !shutdown.knows {
        context.warn(&format!(
            "{shown} reboots through the firmware, unless the init system itself boots the loaded kernel at the end (kexec -e)"
        ));
    }
    let status = Command::new(shutdown.program)
        .args(shutdown.arguments)
        .status()
        .with_context(|| format!("exec failed: running {shown}"))?;
    anyhow::ensure!(status.success(), "exec failed: {shown} ended with {status}");
    Ok(())
}

/// `exec --shutdown` where nothing is known that shuts down.
#[derive(Debug, thiserror::Error)]
#[error("exec failed: no running systemd, and no program shutdown or reboot, was found")]
pub(super) struct NoInitSystem;

impl NoInitSystem {
    pub(super) const HINT: &str =
        "rkexec exec without --shutdown boots at once, without stopping services";
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

    #[test]
    fn what_is_left_behind_is_named() {
        let mount = |point: &str, kind: &str| Mount {
            device: (8, 1),
            point: point.to_owned(),
            kind: kind.to_owned(),
            writable: true,
        };
        let warn = |written| {
            let mounts = vec![mount("/", "ext4"), mount("/srv/a\nb", "nfs4")];
            left_behind(&written, Ok(mounts)).unwrap()
        };
        let late = Written::Late(Duration::from_secs(7));
        assert_eq!(
            warn(late),
            "writing data to disk made no progress for 7 s, and the machine boots all the same: data may be \
             lost on / (ext4), /srv/a\\nb (nfs4)"
        );
        assert!(warn(Written::All).starts_with("these file systems are NOT unmounted: / (ext4), "));
        assert!(warn(Written::NotAsked).contains("is lost on / (ext4)"));
        assert_eq!(left_behind(&late, Ok(Vec::new())), None);
        let unknown = HostError::malformed("/proc/self/mountinfo", "line 1: x");
        let warning = left_behind(&Written::All, Err(unknown)).unwrap();
        assert!(warning.contains("line 1: x"), "{warning}");
    }

    #[test]
    fn the_init_system_that_runs_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let file = |path: &str| {
            let path = root.path(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        };
        let found = || Shutdown::find(&root).map(|s| (s.program, s.arguments, s.knows));
        assert_eq!(found(), None);
        file("/usr/sbin/reboot");
        assert_eq!(found(), Some(("/usr/sbin/reboot", &[][..], false)));
        file("/bin/shutdown");
        // systemctl alone does not mean that systemd runs.
        file("/usr/bin/systemctl");
        assert_eq!(found(), Some(("/bin/shutdown", &["-r", "now"][..], false)));
        std::fs::create_dir_all(root.path("/run/systemd/system")).unwrap();
        assert_eq!(found(), Some(("/usr/bin/systemctl", &["kexec"][..], true)));
    }
}
