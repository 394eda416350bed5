//! The one door for files: whatever is read below a root directory is opened here.
//!
//! A captured machine may come from an untrusted source, with anything in place of a
//! file. So only regular files are opened, no open or read blocks, reads end at a
//! limit, and symbolic links stay below the root directory.

use std::fs::{File, FileType};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Component, Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::Mode;

/// Most that is read of a file, by what it is, bytes.
pub(crate) mod limit {
    /// A table or a blob of /proc or /sys: 100,000 lines of iomem are 6 MB.
    pub(crate) const FILE: u64 = 64 << 20;
    /// A value: one page of sysfs as a rule.
    pub(crate) const VALUE: u64 = 64 << 10;
    /// The program headers of /proc/kcore: 65,535 of 56 bytes, and what lies before.
    pub(crate) const START: u64 = 4 << 20;
    /// All files of a captured machine in all.
    pub(crate) const ALL: u64 = 512 << 20;
    /// Names in a directory.
    pub(crate) const NAMES: usize = 1 << 20;
}

/// Opens without blocking and without acquiring a terminal.
const CAREFULLY: i32 = libc::O_NONBLOCK | libc::O_NOCTTY;

/// Opens the regular file `path`, which an operator named.
///
/// # Errors
/// When there is none, it cannot be opened, or it is something else.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .custom_flags(CAREFULLY)
        .open(path)?;
    regular(file)
}

/// As [`open_regular`], but `path` lies below the directory `dir`: a symbolic link means
/// a path below `dir`, too, and never leads out of it.
pub(super) fn open_below(dir: &Path, path: &str) -> io::Result<File> {
    let base = directory(dir)?;
    // Check the type with O_PATH first: really opening a device may have an effect.
    regular(resolve(&base, path, OFlag::O_PATH)?.into())?;
    let flags = OFlag::O_RDONLY | OFlag::from_bits_retain(CAREFULLY);
    regular(resolve(&base, path, flags)?.into())
}

/// At most `limit` bytes of `file`.
///
/// # Errors
/// When it has more, or cannot be read.
pub(crate) fn read_all(file: File, limit: u64) -> io::Result<Vec<u8>> {
    let bytes = read_start(file, limit + 1)?;
    if bytes.len() as u64 > limit {
        let what = match limit >> 20 {
            0 => format!("larger than {} KiB", limit >> 10),
            mebibytes => format!("larger than {mebibytes} MiB"),
        };
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

/// At most the first `size` bytes. A file of unknown size (procfs says 0) is read with one
/// large buffer, so that the kernel walks its tables in as few steps as possible.
pub(super) fn read_start(file: File, size: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(1 << 16);
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `size` bytes of `file` from `at` on, or fewer at its end.
pub(crate) fn read_part(file: &File, at: u64, size: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The names in the directory `path` below `dir`, in no order.
pub(super) fn list_below(dir: &Path, path: &str) -> io::Result<Vec<String>> {
    let base = directory(dir)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    names_of(Dir::from_fd(resolve(&base, path, flags)?)?)
}

/// The names in an open directory, in no order.
pub(super) fn names_of(mut dir: Dir) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in dir.iter() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name != "." && name != ".." {
            push(&mut names, name)?;
        }
    }
    Ok(names)
}

/// The names in the directory `path` of this machine, in no order.
pub(super) fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        push(
            &mut names,
            entry?.file_name().to_string_lossy().into_owned(),
        )?;
    }
    Ok(names)
}

fn push(names: &mut Vec<String>, name: String) -> io::Result<()> {
    if names.len() == limit::NAMES {
        let what = format!("more than {} entries", limit::NAMES);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    names.push(name);
    Ok(())
}

/// The file, if it is a regular one.
pub(super) fn regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = format!("a {}, not a regular file", kind_name(kind));
    // Containers mask a file so: /dev/null is mounted over it.
    let error = match kind.is_char_device() {
        true => io::ErrorKind::Unsupported,
        false => io::ErrorKind::InvalidInput,
    };
    Err(io::Error::new(error, what))
}

/// What a file is that is not a regular one.
pub(crate) fn kind_name(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "directory"
    } else if kind.is_fifo() {
        "pipe"
    } else if kind.is_char_device() {
        "character device"
    } else if kind.is_block_device() {
        "block device"
    } else if kind.is_socket() {
        "socket"
    } else {
        "special file"
    }
}

pub(super) fn directory(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(dir, flags, Mode::empty())?)
}

pub(super) fn resolve(base: &OwnedFd, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let below = Path::new(path.trim_start_matches('/'));
    match openat2(base, below, how) {
        // Before Linux 5.6; filters of old containers say EPERM of a call they do not know.
        Err(Errno::ENOSYS | Errno::EPERM) => without_links(base, below, flags),
        other => Ok(other?),
    }
}

/// Opens `below` step by step and follows no symbolic link: `capture` writes none.
pub(super) fn without_links(base: &OwnedFd, below: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let steps: PathBuf = below
        .components()
        .filter(|step| *step != Component::CurDir)
        .collect();
    let (Some(name), true) = (
        steps.file_name(),
        steps
            .components()
            .all(|step| matches!(step, Component::Normal(_))),
    ) else {
        return Err(Errno::EINVAL.into());
    };
    let always = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut dir = base.as_fd().try_clone_to_owned()?;
    for step in steps.parent().into_iter().flat_map(Path::components) {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | always;
        dir = openat(&dir, step.as_os_str(), flags, Mode::empty())?;
    }
    Ok(openat(&dir, name, flags | always, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    fn says(result: io::Result<File>) -> String {
        result.unwrap_err().to_string()
    }

    fn text(file: File) -> String {
        String::from_utf8(read_all(file, 100).unwrap()).unwrap()
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&dir.path().join("pipe"), Mode::S_IRUSR).unwrap();
        let _socket = UnixListener::bind(dir.path().join("socket")).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "x").unwrap();
        for (name, kind) in [("pipe", "pipe"), ("socket", "socket"), ("sub", "directory")] {
            let expected = format!("a {kind}, not a regular file");
            assert_eq!(says(open_below(dir.path(), name)), expected);
        }
        let pipe = says(open_regular(&dir.path().join("pipe")));
        assert_eq!(pipe, "a pipe, not a regular file");
        let device = says(open_regular(Path::new("/dev/null")));
        assert_eq!(device, "a character device, not a regular file");
        let device = says(open_below(Path::new("/"), "dev/null"));
        assert_eq!(device, "a character device, not a regular file");
        assert_eq!(text(open_below(dir.path(), "/sub/file").unwrap()), "x");
    }

    #[test]
    fn symbolic_links_stay_below_the_root() {
        let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("secret"), "secret").unwrap();
        fs::create_dir(root.path().join("proc")).unwrap();
        fs::write(root.path().join("file"), "inside").unwrap();
        let link = |target: &Path, name: &str| {
            symlink(target, root.path().join("proc").join(name)).unwrap();
        };
        let secret = outside.path().join("secret");
        link(&secret, "absolute");
        link(
            &Path::new("../../../../../../../../..").join(secret.strip_prefix("/").unwrap()),
            "up",
        );
        link(outside.path(), "directory");
        link(Path::new("/file"), "inside");
        link(Path::new("../file"), "beside");
        let open = |name: &str| open_below(root.path(), &format!("/proc/{name}"));
        for name in ["absolute", "up", "directory/secret", "../../x"] {
            let error = open(name).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound, "{name}: {error}");
        }
        for name in ["inside", "beside"] {
            assert_eq!(text(open(name).unwrap()), "inside");
        }
        assert!(list_below(root.path(), "/proc/directory").is_err());
        let mut names = list_below(root.path(), "/proc").unwrap();
        names.sort_unstable();
        assert_eq!(names, ["absolute", "beside", "directory", "inside", "up"]);

        // Without openat2, no link is followed.
        let base = directory(root.path()).unwrap();
        let plain = |name: &str| without_links(&base, Path::new(name), OFlag::O_RDONLY);
        assert_eq!(text(plain("file").unwrap().into()), "inside");
        for name in [
            "proc/inside",
            "proc/absolute",
            "proc/directory/secret",
            "../file",
            "",
        ] {
            assert!(plain(name).is_err(), "{name}");
        }
    }

    #[test]
    fn reads_end_at_their_limit() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), "12345").unwrap();
        let file = || open_below(dir.path(), "f").unwrap();
        assert_eq!(read_all(file(), 5).unwrap(), b"12345");
        assert_eq!(read_start(file(), 3).unwrap(), b"123");
        let error = read_all(file(), 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        File::create(dir.path().join("f"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap();
        let error = read_all(file(), limit::VALUE).unwrap_err();
        assert_eq!(error.to_string(), "larger than 64 KiB");
    }
}
