//! One load at a time: a lock below /run/rkexec.
//!
//! A load looks at what is loaded, makes the call and keeps the record. Without the lock,
//! another load in between would leave a record of the wrong image, and a failure message
//! about an image that is no longer loaded.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::host::Root;

/// Where the lock and the records are: a tmpfs, so that they end with the boot.
pub(super) const DIR: &str = "/run/rkexec";
const NAME: &str = "lock";
/// How long to wait for another rkexec. A load takes seconds.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Pause between two tries for the lock.
const POLL: Duration = Duration::from_millis(50);

/// Holds off the loads of other rkexecs until it is dropped, or this process ends.
#[derive(Debug)]
pub struct Lock {
    /// flock(2) lasts as long as the file is open.
    _file: File,
}

/// Why the lock is not held.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another rkexec has it.
    #[error(
        "{} has been loading or unloading a kernel for more than {} seconds: nothing was done",
        other(*.pid),
        .waited.as_secs()
    )]
    Busy {
        /// Its process ID, if the lock file names it.
        pid: Option<u32>,
        /// How long it was waited for.
        waited: Duration,
    },
    /// There is no place for a lock.
    #[error("locking {} failed", crate::base::bytes::shown_name(path))]
    Io {
        /// The lock's file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl LockError {
    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Busy { pid: Some(pid), .. } => Some(format!(
                "`ps -fp {pid}` shows what it does: try again when it is done, or end it"
            )),
            Self::Busy { pid: None, .. } => Some("try again when it is done".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// Another rkexec, by its process where that is known.
#[must_use]
pub fn other(pid: Option<u32>) -> String {
    pid.map_or_else(
        || "another rkexec".to_owned(),
        |pid| format!("another rkexec (PID {pid})"),
    )
}

impl Lock {
    /// Takes the lock. If another rkexec has it, calls `waiting` and waits for at most
    /// `limit`.
    ///
    /// # Errors
    /// When the other one does not end, and when there is no place for a lock.
    pub fn take(
        root: &Root,
        limit: Duration,
        mut sleep: impl FnMut(Duration),
        waiting: impl FnOnce(Option<u32>),
    ) -> Result<Self, LockError> {
        let path = root.path(DIR).join(NAME);
        let failed = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        directory(root).map_err(failed)?;
        let mut waiting = Some(waiting);
        let mut waited = Duration::ZERO;
        loop {
            // Open it in every round: if the file was removed, a new one holds the lock.
            let file = open(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, &path) => {
                    claim(&file);
                    return Ok(Self { _file: file });
                }
                Ok(()) | Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
            let pid = holder(&file);
            if waited >= limit {
                return Err(LockError::Busy { pid, waited });
            }
            if let Some(waiting) = waiting.take() {
                waiting(pid);
            }
            sleep(POLL);
            waited += POLL;
        }
    }
}

/// The directory of lock and records, made if it is missing. Only root may write to it,
/// or others could put files and links of theirs in.
///
/// # Errors
/// When it cannot be made, or others may write to it.
pub(super) fn directory(root: &Root) -> io::Result<PathBuf> {
    let path = root.path(DIR);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)?;
    let facts = path.symlink_metadata()?;
    let own = facts.uid() == nix::unistd::geteuid().as_raw();
    if facts.is_dir() && own && facts.permissions().mode() & 0o022 == 0 {
        return Ok(path);
    }
    Err(io::Error::other(format!(
        "{DIR} is not a directory that root alone may write to"
    )))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
}

/// Whether `path` still names the open file.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |facts: &std::fs::Metadata| (facts.dev(), facts.ino());
    match (file.metadata(), path.symlink_metadata()) {
        (Ok(open), Ok(named)) => id(&open) == id(&named),
        _ => false,
    }
}

/// Writes this process's ID into the lock file. If that fails, a waiting rkexec names none.
fn claim(file: &File) {
    let _ = file
        .set_len(0)
        .and_then(|()| file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
}

/// The process ID in the lock file.
fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::fs::Permissions;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        (dir, root)
    }

    /// Takes the lock, which is free.
    fn free(root: &Root) -> Lock {
        let sleep = |_| panic!("it is free");
        Lock::take(root, LIMIT, sleep, |_| panic!("nobody has it")).unwrap()
    }

    #[test]
    fn the_second_waits_for_the_first_and_says_for_whom() {
        let (_dir, root) = root();
        let first = Cell::new(Some(free(&root)));
        let (polls, said) = (Cell::new(0), RefCell::new(Vec::new()));
        let sleep = |time| {
            assert_eq!(time, POLL);
            polls.set(polls.get() + 1);
            if polls.get() == 3 {
                drop(first.take());
            }
        };
        let second = Lock::take(&root, LIMIT, sleep, |pid| said.borrow_mut().push(pid));
        assert!(second.is_ok());
        assert_eq!(polls.get(), 3);
        assert_eq!(said.into_inner(), [Some(std::process::id())]);
        drop(second);
        free(&root);
    }

    #[test]
    fn there_is_an_end_to_waiting() {
        let (_dir, root) = root();
        let _first = free(&root);
        let error = Lock::take(&root, LIMIT, |_| (), |_| ()).unwrap_err();
        let pid = std::process::id();
        assert_eq!(
            error.to_string(),
            format!(
                "another rkexec (PID {pid}) has been loading or unloading a kernel for more than 60 seconds: nothing was done"
            )
        );
        assert!(error.hint().unwrap().contains(&format!("ps -fp {pid}")));
        assert_eq!(other(None), "another rkexec");
    }

    #[test]
    fn a_lock_whose_file_is_removed_is_another_one() {
        let (dir, root) = root();
        let first = free(&root);
        let path = dir.path().join("run/rkexec/lock");
        std::fs::remove_file(&path).unwrap();
        let second = free(&root);
        drop(first);
        // The second one holds it still.
        assert!(Lock::take(&root, POLL, |_| (), |_| ()).is_err());
        drop(second);
        free(&root);
    }

    #[test]
    fn nothing_of_others_is_taken_for_the_lock() {
        let (dir, root) = root();
        let taken = |root: &Root| Lock::take(root, POLL, |_| (), |_| ()).map(drop);
        let run = dir.path().join("run/rkexec");
        std::fs::create_dir_all(&run).unwrap();
        std::fs::set_permissions(&run, Permissions::from_mode(0o777)).unwrap();
        let LockError::Io { source, .. } = taken(&root).unwrap_err() else {
            panic!("not refused for its directory");
        };
        let why = "/run/rkexec is not a directory that root alone may write to";
        assert_eq!(source.to_string(), why);
        std::fs::set_permissions(&run, Permissions::from_mode(0o700)).unwrap();
        let victim = dir.path().join("victim");
        std::fs::write(&victim, "mine").unwrap();
        std::os::unix::fs::symlink(&victim, run.join("lock")).unwrap();
        assert!(taken(&root).is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"mine");
        // Nor is a link in place of the directory.
        std::fs::remove_dir_all(&run).unwrap();
        std::os::unix::fs::symlink(dir.path(), &run).unwrap();
        assert!(taken(&root).is_err());
    }
}
