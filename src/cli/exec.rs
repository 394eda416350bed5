//! `rkexec exec`: boots the loaded kernel, at once or at the end of a shutdown.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::options::parse_watchdog;
use super::shutdown::{NoInitSystem, Shutdown, systemd_version};
use super::watchdog::{arm, way_back};
use super::{Context, NothingLoaded, say_error};
use crate::base::{Target, parse_digits};
use crate::host::loaded::Loaded;
use crate::host::mounts::{self, Mount};
use crate::host::security::Security;
use crate::host::{HostError, cpu};
use crate::load::record::LoadRecord;
use crate::load::{self, watchdog::Armed};
use crate::refusal::SysError;
use crate::sys::{self, Errno, kexec};

/// How long the writing of cached data may make no progress, unless the operator says
/// otherwise: many seconds of a slow disk's work, and few of a person's patience.
pub(super) const SYNC_SECONDS: u64 = 30;
/// The longest such time: a day, for more is a mistake.
const MAX_SYNC_SECONDS: u64 = 24 * 60 * 60;

const FAILED: &str = "exec failed";

/// `rkexec exec`.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Do not write cached data to the disks first.
    #[arg(long)]
    pub(super) no_sync: bool,
    /// Boot anyway when writing to disk makes no progress for this many seconds, 0 to 86400.
    #[arg(long, value_name = "SECONDS", default_value_t = SYNC_SECONDS, value_parser = parse_seconds, conflicts_with = "no_sync")]
    pub(super) sync_limit: u64,
    /// Have the init system stop services and unmount first: systemctl kexec, or what other init systems have.
    #[arg(long, conflicts_with_all = ["no_sync", "sync_limit"])]
    pub(super) shutdown: bool,
    /// Arm the machine's watchdog just before the jump: a next kernel that hangs is reset after this time, 1 to 86400.
    ///
    /// Without it the time counts that load --watchdog recorded, if there is one.
    #[arg(long, value_name = "SECONDS", value_parser = parse_watchdog)]
    pub(super) watchdog: Option<u64>,
    /// A watchdog that another program holds runs already, which is no error: at the end of
    /// a shutdown (`kexec -e`) that is the init system's.
    #[arg(skip)]
    pub(super) runs_by_other: bool,
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
    let record = recorded(context, &loaded)?;
    let way_back = way_back(context, args, record.as_ref())?;
    let at_exec = record.and_then(|record| record.at_exec);
    let at_exec = at_exec.unwrap_or_default();
    let to_carry = at_exec.prepare(&context.root)?;
    let shutdown = Shutdown::find(&context.root);
    if args.shutdown {
        let shutdown = shutdown.ok_or(NoInitSystem).context(FAILED)?;
        let shutdown = shutdown.looked_at(&context.root, systemd_version);
        return shutdown.go(context, &at_exec.files).context(FAILED);
    }
    let limit = Duration::from_secs(args.sync_limit);
    let written = if args.no_sync {
        Written::NotAsked
    } else if sys::sync_within(limit, || cpu::unwritten(&context.root)) {
        Written::All
    } else {
        Written::Late(limit)
    };
    let has_shutdown = shutdown.is_some_and(|shutdown| shutdown.boots_what_is_loaded());
    if let Some(warning) = left_behind(&written, mounts::writable(&context.root), has_shutdown) {
        context.warn(&warning);
    }
    // The kernel hands over what is open when it makes the jump.
    let _carried = to_carry.hand_over(&context.root)?;
    let armed = match way_back {
        Some(way_back) => arm(context, args, way_back)?,
        None => None,
    };
    load::stamp(&context.root);
    match kexec::reboot_kexec() {
        Ok(never) => match never {},
        Err(errno) => {
            if let Some(Err(counts_on)) = armed.map(Armed::disarm) {
                say_error(&format!("rkexec: {counts_on}"));
            }
            let security = Security::read(&context.root).unwrap_or_default();
            Err(refused(&security, &loaded, errno))
        }
    }
}

/// The record of what is loaded; `None`: there is none. A jump without one that is there
/// could lose the files that it names.
fn recorded(context: &Context, loaded: &Loaded) -> Result<Option<LoadRecord>, Unrecorded> {
    let warn = |warning: &str| context.warn(warning);
    let root = &context.root;
    let record = LoadRecord::of_loaded_whole(root, Target::Normal, loaded, &warn);
    record.or_else(|error| {
        // Then the kernel refuses the jump, and says more.
        let may_not = || Security::read(root).is_ok_and(|it| it.cap_sys_boot == Some(false));
        match error.is_denied() && may_not() {
            true => Ok(None),
            false => Err(Unrecorded(error)),
        }
    })
}

/// `exec` where the record of the load is there and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "exec failed: the record of the load, which tells what is to be done before the jump, cannot be read"
)]
pub(super) struct Unrecorded(#[source] HostError);

impl Unrecorded {
    pub(super) const HINT: &str = "load again as root, or remove /run/rkexec/normal.json: then nothing is done that the load asked for (files \
         of --carry, --watchdog, the comparison of passed-on state)";
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
/// `has_shutdown` says whether `exec --shutdown` would end in the loaded kernel.
fn left_behind(
    written: &Written,
    mounts: Result<Vec<Mount>, HostError>,
    has_shutdown: bool,
) -> Option<String> {
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
        Written::All if has_shutdown => format!(
            "these file systems are NOT unmounted: {where_}; next time use rkexec exec --shutdown"
        ),
        Written::All => format!("these file systems are NOT unmounted: {where_}"),
        Written::NotAsked => format!("data that is not yet written to disk is lost on {where_}"),
        Written::Late(limit) => format!(
            "writing data to disk made no progress for {} s, and the machine boots all the same: data may be \
             lost on {where_}",
            limit.as_secs()
        ),
    })
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
    use crate::host::Root;
    use std::process::ExitCode;

    #[test]
    fn a_record_that_is_there_must_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context {
            root: Root::at(dir.path()),
            ..Context::plain()
        };
        let loaded = |normal| Loaded {
            normal,
            ..Loaded::default()
        };
        let recorded = |normal| recorded(&context, &loaded(normal));
        let is_none = |normal| recorded(normal).unwrap().is_none();
        assert!(is_none(Some(true)));
        let path = context.root.path("/run/rkexec/normal.json");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        // Those of other versions tell nothing.
        for other in [r#"{"schema": 1}"#, r#"{"schema": 3}"#] {
            std::fs::write(&path, other).unwrap();
            assert!(is_none(Some(true)), "{other}");
        }
        for malformed in ["", "{", r#"{"schema": 2}"#] {
            std::fs::write(&path, malformed).unwrap();
            let error = anyhow::Error::from(recorded(Some(true)).unwrap_err());
            let said = format!("{error:#}");
            assert!(said.starts_with("exec failed: the record of the load"));
            assert!(said.contains("/run/rkexec/normal.json: "), "{said}");
            assert!(hint(&error).unwrap().contains("load again as root"));
            assert!(is_none(None) && is_none(Some(false)));
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(recorded(Some(true)).is_err());
    }

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
            root: "/".to_owned(),
            point: point.to_owned(),
            source: "/dev/sda1".to_owned(),
            kind: kind.to_owned(),
            writable: true,
        };
        let warn = |written| {
            let mounts = vec![mount("/", "ext4"), mount("/srv/a\nb", "nfs4")];
            left_behind(&written, Ok(mounts), true).unwrap()
        };
        let late = Written::Late(Duration::from_secs(7));
        assert_eq!(
            warn(late),
            "writing data to disk made no progress for 7 s, and the machine boots all the same: data may be \
             lost on / (ext4), /srv/a\\nb (nfs4)"
        );
        assert!(warn(Written::All).starts_with("these file systems are NOT unmounted: / (ext4), "));
        assert!(warn(Written::NotAsked).contains("is lost on / (ext4)"));
        assert_eq!(left_behind(&late, Ok(Vec::new()), true), None);
        let unknown = HostError::malformed("/proc/self/mountinfo", "line 1: x");
        let warning = left_behind(&Written::All, Err(unknown), false).unwrap();
        assert!(warning.ends_with("line 1: x)"), "{warning}");
    }
}
