//! A directory whose files do not lead out of it: a file system as the boot loader sees it,
//! which knows nothing of what is mounted over its directories.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};

use super::door;
use super::root::Root;

/// A directory. Links in it, absolute ones as well, mean paths below it; on the running
/// machine nothing that is mounted below it belongs to it.
#[derive(Debug)]
pub struct Inside {
    dir: OwnedFd,
    /// The path of the machine's root directory, as the kernel tells paths; empty for `/`.
    above: Option<String>,
    point: String,
    one_mount: bool,
}

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// Something else.
    Other,
}

impl Root {
    /// The directory `point` of the machine.
    ///
    /// # Errors
    /// When there is none, or it cannot be opened.
    pub fn inside(&self, point: &str) -> io::Result<Inside> {
        let top = door::directory(&self.path("/"))?;
        let above = told(&top).map(|path| path.trim_end_matches('/').to_owned());
        let below = point.trim_matches('/');
        let dir = match (below.is_empty(), self.is_system()) {
            (true, _) => top,
            (false, true) => door::directory(&self.path(point))?,
            (false, false) => door::resolve(&top, below, OFlag::O_PATH | OFlag::O_DIRECTORY)?,
        };
        Ok(Inside {
            dir,
            above,
            point: point.trim_end_matches('/').to_owned(),
            one_mount: self.is_system(),
        })
    }
}

impl Inside {
    /// What `path` leads to. Nothing is opened for that.
    ///
    /// # Errors
    /// When it leads nowhere, or (EXDEV) to another file system.
    pub fn kind(&self, path: &str) -> io::Result<Kind> {
        let kind = File::from(self.open(path, OFlag::O_PATH)?)
            .metadata()?
            .file_type();
        Ok(if kind.is_file() {
            Kind::File
        } else if kind.is_dir() {
            Kind::Directory
        } else {
            Kind::Other
        })
    }

    /// The path on the machine that `path` leads to, with all links followed.
    ///
    /// # Errors
    /// As [`Self::kind`].
    pub fn real_path(&self, path: &str) -> io::Result<String> {
        let file = self.open(path, OFlag::O_PATH)?;
        let real = told(&file).zip(self.above.as_deref());
        let below = real.and_then(|(real, above)| real.strip_prefix(above).map(str::to_owned));
        // Without /proc the kernel does not tell it.
        Ok(below.unwrap_or_else(|| format!("{}/{}", self.point, path.trim_start_matches('/'))))
    }

    /// What the symbolic link `path` says. The link itself is not followed.
    ///
    /// # Errors
    /// When it is no link.
    pub fn link(&self, path: &str) -> io::Result<String> {
        let link = self.open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        let target = readlinkat(&link, "")?;
        Ok(target.to_string_lossy().into_owned())
    }

    /// Opens the regular file that `path` leads to.
    ///
    /// # Errors
    /// As [`Self::kind`]; or it is no regular file.
    pub fn open_file(&self, path: &str) -> io::Result<File> {
        // What is no file may do something when it is opened.
        door::regular(self.open(path, OFlag::O_PATH)?.into())?;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        door::regular(self.open(path, flags)?.into())
    }

    /// At most `limit` bytes of the file; what follows them is not read.
    ///
    /// # Errors
    /// As [`Self::open_file`]; or it cannot be read.
    pub fn read_start(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        door::read_start(self.open_file(path)?, limit as u64)
    }

    /// The names in a directory, sorted; those that are no UTF-8 with U+FFFD in them.
    ///
    /// # Errors
    /// When there is no such directory, or it cannot be listed.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let dir = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut names = door::names_of(Dir::from_fd(dir)?)?;
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let mut resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        if self.one_mount {
            resolve |= ResolveFlag::RESOLVE_NO_XDEV;
        }
        let how = OpenHow::new()
            .flags(flags | OFlag::O_CLOEXEC)
            .resolve(resolve);
        let below = match path.trim_start_matches('/') {
            "" => Path::new("."),
            below => Path::new(below),
        };
        match openat2(&self.dir, below, how) {
            // Before Linux 5.6; filters of old containers say EPERM of a call they do not know.
            Err(Errno::ENOSYS | Errno::EPERM) => door::without_links(&self.dir, below, flags),
            other => Ok(other?),
        }
    }
}

/// The path of an open file, as the kernel tells it.
fn told(file: &OwnedFd) -> Option<String> {
    let link = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::read_link(link)
        .ok()?
        .into_os_string()
        .into_string()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_within_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path().join("boot");
        fs::create_dir_all(boot.join("sub")).unwrap();
        fs::write(boot.join("vmlinuz-1"), "kernel").unwrap();
        fs::write(dir.path().join("secret"), "s").unwrap();
        symlink("/vmlinuz-1", boot.join("absolute")).unwrap();
        symlink("../vmlinuz-1", boot.join("sub/relative")).unwrap();
        symlink("../../secret", boot.join("out")).unwrap();
        symlink("loop", boot.join("loop")).unwrap();
        let root = Root::at(dir.path());
        let inside = root.inside("/boot").unwrap();
        for path in [
            "vmlinuz-1",
            "/absolute",
            "/sub/relative",
            "/../../vmlinuz-1",
        ] {
            assert_eq!(inside.kind(path).unwrap(), Kind::File, "{path}");
            assert_eq!(inside.real_path(path).unwrap(), "/boot/vmlinuz-1", "{path}");
        }
        assert_eq!(inside.link("sub/relative").unwrap(), "../vmlinuz-1");
        assert!(inside.link("vmlinuz-1").is_err());
        assert_eq!(inside.kind("/").unwrap(), Kind::Directory);
        assert_eq!(inside.read_start("absolute", 3).unwrap(), b"ker");
        for path in ["out", "/secret", "loop", "/etc/passwd", "", "a\0b"] {
            assert!(inside.read_start(path, 9).is_err(), "{path}");
        }
        assert_eq!(
            inside.list("/").unwrap(),
            ["absolute", "loop", "out", "sub", "vmlinuz-1"]
        );
        assert!(inside.list("/vmlinuz-1").is_err());
        let top = root.inside("/").unwrap();
        assert_eq!(top.real_path("boot/vmlinuz-1").unwrap(), "/boot/vmlinuz-1");
        assert!(root.inside("/nothing").is_err());
    }

    #[test]
    fn what_is_mounted_below_belongs_to_another_file_system() {
        let root = Root::system().inside("/").unwrap();
        let error = root.kind("/proc/version").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
        assert_eq!(root.kind("/etc").unwrap(), Kind::Directory);
    }
}
