//! Input files, mapped and not copied.
//!
//! The bytes are the page cache's, so a file of 200 MiB costs this process no
//! anonymous memory. The price: they are not ours. Whoever may write to the
//! file can change them under the map, so [`MappedFile::unchanged`] is asked
//! after the system call that copied them, and the image is unloaded when the
//! answer is no. A file that is cut short under the map makes the next read of
//! the missing pages fatal for the process (SIGBUS), and [`super::bus_error`]
//! says so; the kernel's own copy of such a page fails with EFAULT. Package managers write a new file and rename it over the old name,
//! which leaves the map alone.
#![allow(unsafe_code)]

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::host::door::kind_name;
use memmap2::{Advice, Mmap, MmapOptions};
use nix::unistd::Whence;

/// Why a file cannot be an input.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No file has that name.
    #[error("{}: no such file", crate::base::bytes::shown_name(.0))]
    Missing(PathBuf),
    /// The name is a directory's.
    #[error("{}: is a directory, not a file", crate::base::bytes::shown_name(.0))]
    Directory(PathBuf),
    /// A pipe, socket or device: it cannot be mapped, nor read twice.
    #[error(
        "{}: is a {kind}, not a regular file",
        crate::base::bytes::shown_name(path)
    )]
    NotRegular {
        /// The name.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The file has no bytes.
    #[error("{}: the file is empty", crate::base::bytes::shown_name(.0))]
    Empty(PathBuf),
    /// This user may not read it.
    #[error("{}: permission denied", crate::base::bytes::shown_name(.0))]
    Unreadable(PathBuf),
    /// The file could not be opened, examined or mapped for another reason.
    #[error("{}: {doing} failed", crate::base::bytes::shown_name(path))]
    Io {
        /// The name.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A file is not what it was when it was opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: the file was changed while it was in use ({what})",
    crate::base::bytes::shown_name(path)
)]
pub struct Changed {
    /// The name it was opened by.
    pub path: PathBuf,
    /// Which of the facts differs, with both values.
    pub what: String,
}

/// What fstat(2) says of a file; equal as long as the file was not changed.
///
/// Kernels before 6.13 stamp times with a clock that ticks every 1 to 10 ms: a
/// write in the same tick as the last one before the file was opened goes
/// unseen. So do writes through a shared map made writable earlier. The digest
/// that purgatory verifies covers both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    /// Seconds and nanoseconds.
    mtime: (i64, i64),
    /// Seconds and nanoseconds; unlike mtime, no program can set it back.
    ctime: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: (metadata.mtime(), metadata.mtime_nsec()),
            ctime: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// The first difference to `now`, in words.
    fn difference(self, now: Self) -> Option<String> {
        if (self.dev, self.ino) != (now.dev, now.ino) {
            Some("another file".to_owned())
        } else if self.size != now.size {
            Some(format!("size {} became {}", self.size, now.size))
        } else if self.mtime != now.mtime {
            Some(format!(
                "modification time {} became {}",
                time(self.mtime),
                time(now.mtime)
            ))
        } else if self.ctime != now.ctime {
            Some(format!(
                "status change time {} became {}",
                time(self.ctime),
                time(now.ctime)
            ))
        } else {
            None
        }
    }
}

fn time((seconds, nanoseconds): (i64, i64)) -> String {
    format!("{seconds}.{nanoseconds:09}")
}

/// A regular file, mapped read-only. Only [`MappedFile::open_any`] opens an empty one.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    file: File,
    map: Mmap,
    stamp: Stamp,
}

impl MappedFile {
    /// Opens and maps the file `path`. Reading ahead begins at once, in the
    /// background.
    ///
    /// # Errors
    /// When it is missing, unreadable, empty or not a regular file.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::of(open_for_reading(path)?, path)
    }

    /// The same of a file that may be empty.
    ///
    /// # Errors
    /// When it is missing, unreadable or not a regular file.
    pub fn open_any(path: &Path) -> Result<Self, OpenError> {
        Self::of_any(open_for_reading(path)?, path)
    }

    /// Maps `file`, which was opened for reading by the name `path`.
    ///
    /// # Errors
    /// When it is empty or not a regular file, or cannot be mapped.
    pub fn of(file: File, path: &Path) -> Result<Self, OpenError> {
        let mapped = Self::of_any(file, path)?;
        match mapped.stamp.size {
            0 => Err(OpenError::Empty(path.to_owned())),
            _ => Ok(mapped),
        }
    }

    fn of_any(file: File, path: &Path) -> Result<Self, OpenError> {
        let metadata = file
            .metadata()
            .map_err(|source| io_error(path, "fstat", source))?;
        check_kind(path, &metadata)?;
        let map = map(&file).map_err(|source| io_error(path, "mapping", source))?;
        // Only advice: a file system that cannot read ahead still gives the bytes.
        let _ = map.advise(Advice::WillNeed);
        Ok(Self {
            path: path.to_owned(),
            stamp: Stamp::of(&metadata),
            file,
            map,
        })
    }

    /// The contents, as long as they were when the file was opened.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The first part of the file, at or behind `at`, that is no hole; `None` when only a hole
    /// follows. A file system that knows no holes has one part.
    #[must_use]
    pub fn data_from(&self, at: usize) -> Option<Range<usize>> {
        let seek = |at: usize, whence| {
            let offset = i64::try_from(at).map_err(|_| nix::Error::EOVERFLOW)?;
            let found = nix::unistd::lseek(&self.file, offset, whence)?;
            usize::try_from(found).map_err(|_| nix::Error::EOVERFLOW)
        };
        let start = match seek(at, Whence::SeekData) {
            Ok(start) => start,
            // Behind the last part, or behind the end.
            Err(nix::Error::ENXIO) => return None,
            Err(_) => return Some(at..self.map.len()),
        };
        let end = seek(start, Whence::SeekHole).unwrap_or(self.map.len());
        Some(start..end)
    }

    /// The descriptor, for kexec_file_load.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The name it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file is still what it was when it was opened: size,
    /// modification time and status change time of the open file. A rename over
    /// its name, or removing it, also counts as a change, since both touch the
    /// status; the bytes are the old ones then.
    ///
    /// # Errors
    /// When it is not, or cannot be examined any more.
    pub fn unchanged(&self) -> Result<(), Changed> {
        let what = match self.file.metadata() {
            Ok(now) => self.stamp.difference(Stamp::of(&now)),
            Err(error) => Some(format!("fstat failed: {error}")),
        };
        match what {
            None => Ok(()),
            Some(what) => Err(Changed {
                path: self.path.clone(),
                what,
            }),
        }
    }
}

fn open_for_reading(path: &Path) -> Result<File, OpenError> {
    // O_NONBLOCK, so that a pipe without a writer is refused, not waited for.
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|source| open_error(path, source))
}

fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only and private to this value, which keeps it for
    // as long as the slices it lends. Rust's memory model asks that nobody writes
    // to the file meanwhile, and no map can promise that: whoever may write to a
    // kernel file owns the next boot anyway, so it is not an attack to defend
    // against but an accident to report, which `unchanged` does. Readers treat
    // the bytes as untrusted whatever they were a moment ago. A file cut short
    // ends the process by SIGBUS, which is no undefined behaviour.
    unsafe { MmapOptions::new().map(file) }
}

fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), OpenError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    let path = path.to_owned();
    if kind.is_dir() {
        return Err(OpenError::Directory(path));
    }
    Err(OpenError::NotRegular {
        path,
        kind: kind_name(kind),
    })
}

fn open_error(path: &Path, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::NotFound => OpenError::Missing(path.to_owned()),
        io::ErrorKind::PermissionDenied => OpenError::Unreadable(path.to_owned()),
        _ if source.raw_os_error() == Some(libc::ENXIO) => OpenError::NotRegular {
            path: path.to_owned(),
            kind: "socket or a device without a driver",
        },
        _ => io_error(path, "opening", source),
    }
}

fn io_error(path: &Path, doing: &'static str, source: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        doing,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;
    use std::time::{Duration, SystemTime};

    /// A directory with a file `kernel` of the given contents.
    fn file(contents: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kernel");
        fs::write(&path, contents).unwrap();
        // Older than any tick of the clock, so that every later change shows.
        let past = SystemTime::now() - Duration::from_secs(60);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_modified(past)
            .unwrap();
        (dir, path)
    }

    /// Lets the clock that stamps files tick on.
    fn tick() {
        std::thread::sleep(Duration::from_millis(25));
    }

    #[test]
    fn bytes_are_those_of_the_file() {
        let (_dir, path) = file(b"some kernel");
        let mapped = MappedFile::open(&path).unwrap();
        assert_eq!(mapped.bytes(), b"some kernel");
        assert_eq!(mapped.path(), path);
        assert_eq!(mapped.unchanged(), Ok(()));
    }

    #[test]
    fn a_file_to_carry_may_be_empty() {
        let (dir, path) = file(b"");
        let mapped = MappedFile::open_any(&path).unwrap();
        assert_eq!((mapped.bytes(), mapped.unchanged()), (&b""[..], Ok(())));
        assert!(MappedFile::open_any(dir.path()).is_err());
    }

    #[test]
    fn the_descriptor_is_closed_on_exec() {
        let (_dir, path) = file(b"k");
        let mapped = MappedFile::open(&path).unwrap();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", mapped.fd().as_raw_fd()));
        let flags = info.unwrap();
        let flags = flags
            .lines()
            .find_map(|l| l.strip_prefix("flags:"))
            .unwrap();
        let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(flags & libc::O_CLOEXEC, libc::O_CLOEXEC);
        assert_eq!(flags & libc::O_ACCMODE, libc::O_RDONLY);
    }

    #[test]
    fn what_is_no_input_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let empty = dir.path().join("empty");
        fs::write(&empty, b"").unwrap();
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();

        let says = |path: &Path| MappedFile::open(path).unwrap_err().to_string();
        let at = |path: &Path, what: &str| format!("{}: {what}", path.display());
        assert_eq!(says(&missing), at(&missing, "no such file"));
        assert_eq!(
            says(dir.path()),
            at(dir.path(), "is a directory, not a file")
        );
        assert_eq!(says(&empty), at(&empty, "the file is empty"));
        assert_eq!(says(&pipe), at(&pipe, "is a pipe, not a regular file"));
        assert!(says(&socket).contains("socket"), "{}", says(&socket));
        assert_eq!(
            says(Path::new("/dev/null")),
            "/dev/null: is a character device, not a regular file"
        );
        let below = empty.join("file");
        assert_eq!(says(&below), at(&below, "opening failed"));
    }

    #[test]
    fn a_refusal_to_read_is_named() {
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        assert_eq!(
            open_error(Path::new("/boot/k"), denied).to_string(),
            "/boot/k: permission denied"
        );
    }

    #[test]
    fn holes_are_no_parts() {
        let (_dir, path) = file(b"");
        let writer = File::options().write(true).open(&path).unwrap();
        writer.set_len(8 << 20).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&writer, b"data", 4 << 20).unwrap();
        let mapped = MappedFile::open(&path).unwrap();
        let part = mapped.data_from(0).unwrap();
        // A file system may have larger blocks than pages.
        assert!(part.contains(&(4 << 20)), "{part:?}");
        assert!(part.start > 0 && part.end < 8 << 20, "{part:?} holds holes");
        assert_eq!(mapped.data_from(part.start + 1).unwrap().end, part.end);
        assert_eq!(mapped.data_from(part.end), None);
        assert_eq!(mapped.data_from(9 << 20), None);
    }

    #[test]
    fn a_written_file_is_changed() {
        let (_dir, path) = file(b"some kernel");
        let mapped = MappedFile::open(&path).unwrap();
        tick();
        let mut writer = File::options().write(true).open(&path).unwrap();
        writer.write_all(b"X").unwrap();
        let changed = mapped.unchanged().unwrap_err();
        assert!(changed.what.starts_with("modification time"), "{changed}");
        assert_eq!(changed.path, path);
    }

    #[test]
    fn a_longer_or_shorter_file_is_changed() {
        for (size, says) in [(20, "size 11 became 20"), (0, "size 11 became 0")] {
            let (_dir, path) = file(b"some kernel");
            let mapped = MappedFile::open(&path).unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(size)
                .unwrap();
            assert_eq!(mapped.unchanged().unwrap_err().what, says);
        }
    }

    #[test]
    fn setting_the_modification_time_back_hides_nothing() {
        let (_dir, path) = file(b"some kernel");
        let mapped = MappedFile::open(&path).unwrap();
        tick();
        let before = fs::metadata(&path).unwrap().modified().unwrap();
        let mut writer = File::options().write(true).open(&path).unwrap();
        writer.write_all(b"X").unwrap();
        writer.set_modified(before).unwrap();
        let changed = mapped.unchanged().unwrap_err();
        assert!(changed.what.starts_with("status change time"), "{changed}");
    }

    #[test]
    fn a_file_put_in_its_place_leaves_the_bytes() {
        let (dir, path) = file(b"some kernel");
        let mapped = MappedFile::open(&path).unwrap();
        tick();
        let new = dir.path().join("new");
        fs::write(&new, b"other bytes").unwrap();
        fs::rename(&new, &path).unwrap();
        assert_eq!(mapped.bytes(), b"some kernel");
        assert!(mapped.unchanged().is_err());
    }

    #[test]
    fn reading_and_copying_change_nothing() {
        let (dir, path) = file(b"some kernel");
        let mapped = MappedFile::open(&path).unwrap();
        tick();
        fs::copy(&path, dir.path().join("copy")).unwrap();
        assert_eq!(mapped.unchanged(), Ok(()));
        // The check itself sees a change of rights.
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(mapped.unchanged().is_err());
    }
}
