//! A directory that only this process fills.
//!
//! Another user with write access could put a symbolic link where a file is about to be
//! written. So the directory must be new, or empty and writable by us only. Everything
//! below it is created; no existing file is opened and no symbolic link is followed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, geteuid, symlinkat, unlinkat};

use super::capture::CaptureError;

const DIRECTORY: OFlag = OFlag::O_PATH
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// The directory, and what was created below it.
#[derive(Debug)]
pub(crate) struct NewTree {
    path: PathBuf,
    base: OwnedFd,
    made: BTreeSet<PathBuf>,
}

impl NewTree {
    /// Creates the directory `dir`, for its owner only; or takes an existing one, if it is
    /// empty and no other user may write to it.
    pub(crate) fn claim(dir: &Path) -> Result<Self, CaptureError> {
        let failed = |error: io::Error| CaptureError::write(dir, error);
        let (base, is_new) = create(dir).map_err(failed)?;
        let facts = fstat(&base).map_err(|error| failed(error.into()))?;
        let refuse = |what: String| CaptureError::NotOurs {
            dir: dir.to_owned(),
            what,
        };
        if kind(&facts) == SFlag::S_IFLNK {
            return Err(refuse("is a symbolic link".to_owned()));
        }
        let is_empty = || is_empty(&base).map_err(failed);
        if kind(&facts) != SFlag::S_IFDIR || !is_new && !is_empty()? {
            return Err(CaptureError::NotEmpty {
                dir: dir.to_owned(),
            });
        }
        if let Some(what) = others(facts.st_uid, facts.st_mode, geteuid().as_raw()) {
            return Err(refuse(what));
        }
        Ok(Self {
            path: dir.to_owned(),
            base,
            made: BTreeSet::new(),
        })
    }

    /// Creates the directory `path`, an absolute one, below this.
    pub(super) fn directory(&mut self, path: &str) -> Result<(), CaptureError> {
        let path = below(path);
        self.open(path)
            .map(drop)
            .map_err(|error| CaptureError::write(&self.path.join(path), error))
    }

    /// Creates the file `path`, an absolute one, below this.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) -> Result<(), CaptureError> {
        let path = below(path);
        self.create_file(path, content)
            .map_err(|error| CaptureError::write(&self.path.join(path), error))
    }

    /// Creates the symbolic link `path`, an absolute one, below this.
    pub(super) fn link(&mut self, path: &str, target: &str) -> Result<(), CaptureError> {
        let path = below(path);
        self.create_link(path, target)
            .map_err(|error| CaptureError::write(&self.path.join(path), error))
    }

    fn create_link(&mut self, path: &Path, target: &str) -> io::Result<()> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let dir = self.open(path.parent().unwrap_or(Path::new("")))?;
        match symlinkat(target, &dir, name) {
            // It was read by that name, too, and what was read is there.
            Err(Errno::EEXIST) => Ok(()),
            other => Ok(other?),
        }
    }

    fn create_file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let dir = self.open(path.parent().unwrap_or(Path::new("")))?;
        new_file(&dir, name)?.write_all(content)
    }

    /// Creates the file `name` in this directory, when `fill` has filled it and answers
    /// that it is right. Until then it is called `partial`, and else it is removed.
    pub(crate) fn file_when_right(
        &self,
        name: &OsStr,
        partial: &OsStr,
        fill: impl FnOnce(&File) -> io::Result<bool>,
    ) -> Result<bool, CaptureError> {
        let attempt = || {
            let file = new_file(&self.base, partial)?;
            let is_right = fill(&file)?;
            if is_right {
                file.sync_all()?;
                renameat(&self.base, partial, &self.base, name)?;
            }
            Ok(is_right)
        };
        let result = attempt().map_err(|error| CaptureError::write(&self.path.join(name), error));
        if !matches!(result, Ok(true)) {
            // It may not be there. What is wrong is in the result.
            let _ = unlinkat(&self.base, partial, UnlinkatFlags::NoRemoveDir);
        }
        result
    }

    /// Waits until the names in this directory are on the disk.
    pub(crate) fn sync(&self) -> Result<(), CaptureError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = openat(&self.base, ".", flags, Mode::empty());
        let synced = opened
            .map_err(io::Error::from)
            .and_then(|dir| File::from(dir).sync_all());
        synced.map_err(|error| CaptureError::write(&self.path, error))
    }

    /// Opens the directory `path` below this and creates its missing parts. Existing parts
    /// were created here.
    fn open(&mut self, path: &Path) -> io::Result<OwnedFd> {
        let mut dir = self.base.as_fd().try_clone_to_owned()?;
        let mut so_far = PathBuf::new();
        for name in path {
            so_far.push(name);
            if !self.made.contains(&so_far) {
                mkdirat(&dir, name, Mode::S_IRWXU)?;
                self.made.insert(so_far.clone());
            }
            dir = openat(&dir, name, DIRECTORY, Mode::empty())?;
        }
        Ok(dir)
    }
}

/// Creates `name` in `dir`, for its owner only.
fn new_file(dir: &OwnedFd, name: &OsStr) -> io::Result<File> {
    let flags =
        OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(File::from(openat(
        dir,
        name,
        flags,
        Mode::S_IRUSR | Mode::S_IWUSR,
    )?))
}

fn below(path: &str) -> &Path {
    Path::new(path.trim_start_matches('/'))
}

/// Creates the directory `dir` and those above it that are missing, and opens it. Says
/// whether it is new; when it is not, what is opened may be anything, a link included.
fn create(dir: &Path) -> io::Result<(OwnedFd, bool)> {
    let parent_of = |dir: &Path| match dir.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let any = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let Some(name) = dir.file_name() else {
        // `/`, `..`: always there.
        return Ok((open(dir, any, Mode::empty())?, false));
    };
    let path = parent_of(dir);
    // The existing part of the operator's path may contain links. New directories are none.
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let parent = match open(&path, flags, Mode::empty()) {
        Err(Errno::ENOENT) => match create(&path)? {
            (parent, true) => parent,
            // Another process created it first.
            (_, false) => return Err(Errno::EEXIST.into()),
        },
        other => other?,
    };
    let is_new = match mkdirat(&parent, name, Mode::S_IRWXU) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(error) => return Err(error.into()),
    };
    let flags = if is_new { DIRECTORY } else { any };
    Ok((openat(&parent, name, flags, Mode::empty())?, is_new))
}

fn kind(facts: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT
}

fn is_empty(dir: &OwnedFd) -> io::Result<bool> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut dir = Dir::from_fd(openat(dir, ".", flags, Mode::empty())?)?;
    for entry in dir.iter() {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Who else may write to a directory of `owner` with `mode`, in words.
fn others(owner: u32, mode: u32, me: u32) -> Option<String> {
    const WRITABLE: u32 = 0o022;
    if owner != me {
        return Some(format!(
            "belongs to user {owner}, who could put symbolic links into it"
        ));
    }
    (mode & WRITABLE != 0).then(|| {
        "can be written to by other users, who could put symbolic links into it".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    const FILE: &str = "/sys/kernel/kexec/loaded";

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_is_created_is_for_the_owner_only() {
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("a/b");
        let mut tree = NewTree::claim(&dir).unwrap();
        tree.directory("/sys/empty").unwrap();
        tree.file(FILE, b"1").unwrap();
        tree.file("/sys/kernel/vmcoreinfo", b"2").unwrap();
        assert_eq!(fs::read(dir.join("sys/kernel/kexec/loaded")).unwrap(), b"1");
        assert_eq!(fs::read(dir.join("sys/kernel/vmcoreinfo")).unwrap(), b"2");
        assert_eq!(mode(&dir.join("sys/kernel/vmcoreinfo")), 0o600);
        for directory in ["", "..", "sys", "sys/empty", "sys/kernel/kexec"] {
            assert_eq!(mode(&dir.join(directory)), 0o700, "{directory}");
        }
    }

    #[test]
    fn planted_links_are_not_followed_at_any_level() {
        let levels = [
            "sys",
            "sys/kernel",
            "sys/kernel/kexec",
            "sys/kernel/kexec/loaded",
        ];
        for level in levels {
            for dangling in [true, false] {
                let (out, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
                let mut tree = NewTree::claim(&out.path().join("d")).unwrap();
                let link = out.path().join("d").join(level);
                let parent = link.parent().unwrap();
                fs::create_dir_all(parent).unwrap();
                // What lies above the link was created by this tree.
                let above = level.rsplit_once('/').map_or("", |(above, _)| above);
                let mut so_far = PathBuf::new();
                for name in Path::new(above) {
                    so_far.push(name);
                    tree.made.insert(so_far.clone());
                }
                let victim = outside.path().join("victim");
                if !dangling && level == FILE.trim_start_matches('/') {
                    fs::write(&victim, "precious").unwrap();
                } else if !dangling {
                    fs::create_dir(&victim).unwrap();
                }
                symlink(&victim, &link).unwrap();
                let error = tree.file(FILE, b"1").unwrap_err();
                assert!(
                    matches!(error, CaptureError::Write { .. }),
                    "{level}: {error}"
                );
                assert_eq!(victim.exists(), !dangling, "{level}");
                if victim.is_dir() {
                    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "{level}");
                } else if !dangling {
                    assert_eq!(fs::read(&victim).unwrap(), b"precious");
                }
            }
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_directory_that_was_created_is_not_followed() {
        let (out, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = out.path().join("d");
        let mut tree = NewTree::claim(&dir).unwrap();
        tree.directory("/sys").unwrap();
        fs::remove_dir(dir.join("sys")).unwrap();
        symlink(outside.path(), dir.join("sys")).unwrap();
        assert!(tree.file("/sys/file", b"1").is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        // The directory itself is held: another one of its name changes nothing.
        fs::rename(&dir, out.path().join("moved")).unwrap();
        symlink(outside.path(), &dir).unwrap();
        tree.file("/file", b"1").unwrap();
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        assert!(out.path().join("moved/file").exists());
    }

    #[test]
    fn a_file_has_its_name_when_it_is_right() {
        let out = tempfile::tempdir().unwrap();
        let tree = NewTree::claim(&out.path().join("d")).unwrap();
        let dir = out.path().join("d");
        let make = |name: &str, answer: io::Result<bool>| {
            tree.file_when_right(name.as_ref(), "partial".as_ref(), |mut file| {
                file.write_all(b"1")?;
                assert_eq!(fs::read(dir.join("partial")).unwrap(), b"1");
                answer
            })
        };
        assert!(make("right", Ok(true)).unwrap());
        assert!(!make("wrong", Ok(false)).unwrap());
        let full = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = make("failed", Err(full)).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("writing {}", dir.join("failed").display())
        );
        tree.sync().unwrap();
        let names: Vec<_> = fs::read_dir(&dir).unwrap().collect();
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(mode(&dir.join("right")), 0o600);

        // A link that somebody put there is not followed.
        let victim = out.path().join("victim");
        symlink(&victim, dir.join("partial")).unwrap();
        assert!(
            tree.file_when_right("x".as_ref(), "partial".as_ref(), |_| Ok(true))
                .is_err()
        );
        assert!(!victim.exists());
    }

    #[test]
    fn a_directory_that_exists_must_be_empty_and_ours() {
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("d");
        fs::create_dir(&dir).unwrap();
        NewTree::claim(&dir).unwrap();
        let says = |dir: &Path| NewTree::claim(dir).unwrap_err().to_string();
        let at = |what: &str| format!("{} {what}", dir.display());

        let writable = at("can be written to by other users, who could put symbolic links into it");
        for mode in [0o770, 0o707] {
            fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(says(&dir), writable);
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.join("x"), "").unwrap();
        let no_empty = at("exists and is not an empty directory");
        assert_eq!(says(&dir), no_empty);

        let link = out.path().join("link");
        for target in [Path::new("d"), Path::new("nothing")] {
            symlink(target, &link).unwrap();
            assert_eq!(
                says(&link),
                format!("{} is a symbolic link", link.display())
            );
            fs::remove_file(&link).unwrap();
        }
        assert!(!out.path().join("nothing").exists());
        assert!(NewTree::claim(Path::new("/")).is_err());
    }

    #[test]
    fn another_owner_is_named() {
        assert_eq!(others(7, 0o700, 7), None);
        assert_eq!(others(7, 0o755, 7), None);
        let said = others(1000, 0o700, 0).unwrap();
        assert!(said.starts_with("belongs to user 1000"), "{said}");
        assert!(others(0, 0o775, 0).is_some());
    }
}
