//! The directory below which the machine's files are read.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::door::{self, limit};

/// Physical memory.
const MEMORY: &str = "/dev/mem";
/// The file of a captured machine with what is free where its dumps go, bytes.
const FREE_SPACE: &str = "/var/crash-statvfs";

/// Why a fact could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The file could not be read.
    #[error("reading {path}")]
    Read {
        /// Path as on the machine, without the root directory.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file that every machine has is missing in a captured one.
    #[error("{}: no such file", crate::base::bytes::shown_name(.0))]
    NotCaptured(PathBuf),
    /// The file was read, and is not what it should be.
    #[error("{path}: {what}")]
    Malformed {
        /// Path as on the machine, without the root directory.
        path: String,
        /// What is wrong with it, with the line number where there are lines.
        what: String,
    },
    /// The file changed between any two of so many reads.
    #[error("{path} changed during each of {reads} reads")]
    Unsteady {
        /// Path as on the machine, without the root directory.
        path: String,
        /// How often it was read.
        reads: u32,
    },
    /// /proc/iomem shows only zeroes: the reader lacks CAP_SYS_ADMIN.
    #[error(
        "only root may see the memory map: to other users /proc/iomem shows every address as 0"
    )]
    Hidden,
}

impl HostError {
    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Hidden => {
                Some("run as root (CAP_SYS_ADMIN), or plan on a captured machine with --root DIR")
            }
            Self::NotCaptured(_) => Some(
                "--root wants a directory that `rkexec capture` made: is it one, and complete?",
            ),
            Self::Unsteady { .. } => {
                Some("memory or devices are being added or removed: try again when that is over")
            }
            error if error.is_denied() => {
                Some("run as root, or plan on a captured machine with --root DIR")
            }
            _ => None,
        }
    }

    /// Whether this process may not read the file (EACCES, EPERM).
    #[must_use]
    pub fn is_denied(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }

    /// Whether a device lies over the file, as containers mask files with /dev/null.
    pub(super) fn is_masked(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::Unsupported)
    }

    /// Whether the kernel answered EBUSY: it is changing what the file tells.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
    }

    pub(crate) fn malformed(path: &str, what: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

/// Where /proc, /sys and /boot are read from: `/`, or a captured machine.
///
/// A captured machine is not trusted: its files are opened through the
/// [`door`](super::door), and its symbolic links never lead out of `dir`.
///
/// Every file that is read is remembered, so that `capture` copies what the
/// readers really look at and nothing else.
#[derive(Debug, Clone)]
pub struct Root {
    dir: PathBuf,
    /// What was read of a captured machine so far, bytes.
    total: Cell<u64>,
    record: Option<RefCell<Record>>,
}

/// What was read below a recording [`Root`], by path on the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The files and their bytes.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The directories that were listed and exist: an empty one is a fact, too.
    pub directories: BTreeSet<String>,
    /// The symbolic links that were followed, and what they say.
    pub links: BTreeMap<String, String>,
}

/// An open file of a process: the path of its link in /proc/PID/fd, and what that says.
pub type OpenFile = (String, Vec<u8>);

impl Root {
    /// The running machine.
    #[must_use]
    pub fn system() -> Self {
        Self::at("/")
    }

    /// A captured machine below `dir`.
    #[must_use]
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            total: Cell::new(0),
            record: None,
        }
    }

    /// The same directory, with an empty record.
    #[must_use]
    pub fn recorder(&self) -> Self {
        Self::at(&self.dir).recording()
    }

    /// Keeps a copy of every file that is read from now on.
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.record = Some(RefCell::default());
        self
    }

    /// Whether what is read is kept.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.record.is_some()
    }

    /// Keeps `bytes` of a file that was read by other means. What has no bytes says only
    /// that there is such a file.
    pub fn keep_file(&self, path: &str, bytes: &[u8]) {
        if let Some(record) = &self.record {
            let mut record = record.borrow_mut();
            let kept = record.files.entry(path.to_owned()).or_default();
            if bytes.len() > kept.len() {
                bytes.clone_into(kept);
            }
        }
    }

    /// Keeps that there is a directory.
    pub fn keep_directory(&self, path: &str) {
        if let Some(record) = &self.record {
            record.borrow_mut().directories.insert(path.to_owned());
        }
    }

    /// Keeps what a symbolic link says.
    pub fn keep_link(&self, path: &str, target: &str) {
        if let Some(record) = &self.record {
            let links = &mut record.borrow_mut().links;
            links.insert(path.to_owned(), target.to_owned());
        }
    }

    /// Forgets what was read of a file: the next answer counts.
    pub fn forget(&self, path: &str) {
        if let Some(record) = &self.record {
            record.borrow_mut().files.remove(path);
        }
    }

    /// The files and directories read so far.
    #[must_use]
    pub fn into_recording(self) -> Record {
        self.record.map(RefCell::into_inner).unwrap_or_default()
    }

    /// `path` (absolute on the machine) below the root directory.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }

    /// Whether this is the running machine, not a captured one.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.dir == Path::new("/")
    }

    /// Fails unless there is a directory: for those who take a machine for one that has
    /// nothing of what they look for.
    ///
    /// # Errors
    /// When there is none.
    pub fn is_there(&self) -> Result<(), HostError> {
        match self.dir.is_dir() {
            true => Ok(()),
            false => Err(HostError::NotCaptured(self.dir.clone())),
        }
    }

    /// Opens the regular file `path`; of a captured machine only what lies below its
    /// directory.
    ///
    /// # Errors
    /// When it cannot be opened, or is no regular file.
    pub fn open(&self, path: &str) -> io::Result<File> {
        if self.is_system() {
            door::open_regular(&self.path(path))
        } else {
            door::open_below(&self.dir, path)
        }
    }

    /// All of `path`, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`Self::open`]; or it cannot be read, or is larger.
    pub fn read_limited(&self, path: &str, limit: u64) -> io::Result<Vec<u8>> {
        self.count(door::read_all(self.open(path)?, limit)?)
    }

    /// Counts what was read of a captured machine.
    fn count(&self, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
        let total = self.total.get().saturating_add(bytes.len() as u64);
        self.total.set(total);
        if total > limit::ALL && !self.is_system() {
            let what = format!(
                "the files of this machine have more than {} MiB in all",
                limit::ALL >> 20
            );
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        Ok(bytes)
    }

    /// The bytes of `path`, `None` when there is no such file.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read_optional(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.keep(path, self.read_limited(path, limit::FILE))
    }

    /// The first `size` bytes of `path`, or all it has, and no more than
    /// [`limit::START`]; `None` as in [`Root::read_permitted`].
    ///
    /// # Errors
    /// As [`Root::read_permitted`].
    pub fn read_start_permitted(
        &self,
        path: &str,
        size: usize,
    ) -> Result<Option<Vec<u8>>, HostError> {
        let size = (size as u64).min(limit::START);
        let read = self
            .open(path)
            .and_then(|file| self.count(door::read_start(file, size)?));
        permitted(self.keep(path, read))
    }

    /// What was read of `path`, recorded.
    fn keep(&self, path: &str, read: io::Result<Vec<u8>>) -> Result<Option<Vec<u8>>, HostError> {
        let failed = |source| HostError::Read {
            path: path.to_owned(),
            source,
        };
        match read {
            Ok(bytes) => {
                let Some(record) = &self.record else {
                    return Ok(Some(bytes));
                };
                let mut record = record.borrow_mut();
                let kept = record.files.entry(path.to_owned()).or_default();
                // Of a file that changes all the time the first answer counts. More of a file
                // counts as well.
                if bytes.len() > kept.len() && bytes.starts_with(kept) {
                    *kept = bytes;
                }
                Ok(Some(kept.clone()))
            }
            // ENODEV, ENOENT and ENXIO are how sysfs says that a fact does not exist here.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ENODEV | libc::ENXIO | libc::ENOTDIR)
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// The bytes of `path`; `None` when there is no such file, and also when this
    /// process may not read it (EACCES, EPERM): for facts that are optional.
    ///
    /// # Errors
    /// When the file is there and cannot be read for another reason.
    pub fn read_permitted(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        permitted(self.read_optional(path))
    }

    /// As [`Root::read_line`], but `None` also when this process may not read it.
    ///
    /// # Errors
    /// When it cannot be read for another reason, or is not UTF-8.
    pub fn read_line_permitted(&self, path: &str) -> Result<Option<String>, HostError> {
        permitted(self.read_line(path))
    }

    /// As [`Root::list`], but `None` also when this process may not list it.
    ///
    /// # Errors
    /// When it cannot be listed for another reason.
    pub fn list_permitted(&self, path: &str) -> Result<Option<Vec<String>>, HostError> {
        permitted(self.list(path))
    }

    /// The bytes of `path`, which must be there.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, HostError> {
        self.read_optional(path)?.ok_or_else(|| {
            if self.is_system() {
                HostError::Read {
                    path: path.to_owned(),
                    source: io::Error::from_raw_os_error(libc::ENOENT),
                }
            } else {
                HostError::NotCaptured(self.path(path))
            }
        })
    }

    /// The text of `path`, which must be there and be UTF-8.
    ///
    /// # Errors
    /// As [`Root::read`]; or it is not UTF-8.
    pub fn read_text(&self, path: &str) -> Result<String, HostError> {
        String::from_utf8(self.read(path)?)
            .map_err(|_| HostError::malformed(path, "not UTF-8 text"))
    }

    /// The text of `path`, trimmed; `None` when there is no such file.
    ///
    /// # Errors
    /// When it cannot be read or is not UTF-8.
    pub fn read_line(&self, path: &str) -> Result<Option<String>, HostError> {
        let Some(bytes) = self.keep(path, self.read_limited(path, limit::VALUE))? else {
            return Ok(None);
        };
        let text =
            String::from_utf8(bytes).map_err(|_| HostError::malformed(path, "not UTF-8 text"))?;
        Ok(Some(text.trim().to_owned()))
    }

    /// The `size` bytes of physical memory at `address`: /dev/mem, of which a kernel
    /// with CONFIG_STRICT_DEVMEM shows what is not RAM; of a captured machine the
    /// part that was captured.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_memory(&self, address: u64, size: usize) -> Result<Vec<u8>, HostError> {
        let part = format!("{MEMORY}-{address:#x}-{size:#x}");
        if let Some(bytes) = self.read_optional(&part)? {
            return Ok(bytes);
        }
        let memory = if self.is_system() {
            File::open(MEMORY)
        } else {
            self.open(MEMORY)
        };
        let mut bytes = vec![0; size];
        memory
            .and_then(|memory| memory.read_exact_at(&mut bytes, address))
            .map_err(|source| HostError::Read {
                path: format!("{MEMORY} at {address:#x}"),
                source,
            })?;
        if let Some(record) = &self.record {
            record.borrow_mut().files.insert(part, bytes.clone());
        }
        Ok(bytes)
    }

    /// Bytes that are free for programs on the file system of `directory`, or of the
    /// nearest directory above it that there is; `None` when that is not known, and where a
    /// symbolic link leads to it: that may be a file system that does not answer. A captured
    /// machine has the number in a file.
    ///
    /// # Errors
    /// When the file of a captured machine is malformed.
    pub fn free_space(&self, directory: &str) -> Result<Option<u64>, HostError> {
        if !self.is_system() {
            return super::text::optional_decimal(self, FREE_SPACE);
        }
        let mut nearest = Path::new("/");
        let above: Vec<&Path> = Path::new(directory).ancestors().collect();
        for directory in above.into_iter().rev() {
            match directory.symlink_metadata() {
                Ok(found) if found.is_symlink() => return Ok(None),
                Ok(_) => nearest = directory,
                Err(_) => break,
            }
        }
        let Ok(found) = nix::sys::statvfs::statvfs(nearest) else {
            return Ok(None);
        };
        let free = found
            .blocks_available()
            .saturating_mul(found.fragment_size());
        self.keep_file(FREE_SPACE, format!("{free}\n").as_bytes());
        Ok(Some(free))
    }

    /// Names in the directory `path`, sorted; `None` when there is no such directory.
    ///
    /// # Errors
    /// When it is there and cannot be listed.
    pub fn list(&self, path: &str) -> Result<Option<Vec<String>>, HostError> {
        let failed = |source| HostError::Read {
            path: path.to_owned(),
            source,
        };
        let mut names = match self.names(path) {
            Ok(names) => names,
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(failed(e)),
        };
        names.sort_unstable();
        if let Some(record) = &self.record {
            record.borrow_mut().directories.insert(path.to_owned());
        }
        Ok(Some(names))
    }

    /// Names in the directory `path`, in no order. They are not recorded.
    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        match self.is_system() {
            true => door::list(&self.path(path)),
            false => door::list_below(&self.dir, path),
        }
    }

    /// The links in /proc/PID/fd of all processes that begin with `start`, each with its
    /// path; `None` when this process may not look into every other. Only those links
    /// are recorded, as files, for a captured machine has files in their place.
    ///
    /// # Errors
    /// When /proc cannot be listed.
    pub fn open_files(&self, start: &[u8]) -> Result<Option<Vec<OpenFile>>, HostError> {
        let mut found = Vec::new();
        let is_process = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit());
        let processes = self.names("/proc").map_err(|source| HostError::Read {
            path: "/proc".to_owned(),
            source,
        })?;
        // With `hidepid` the processes of others are not there at all.
        if self.is_system() && !processes.iter().any(|name| name == "1") {
            return Ok(None);
        }
        for process in processes.into_iter().filter(is_process) {
            let dir = format!("/proc/{process}/fd");
            let files = match self.names(&dir) {
                Ok(files) => files,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
                // The process has ended.
                Err(_) => continue,
            };
            for file in files {
                let path = format!("{dir}/{file}");
                // The file may have been closed meanwhile.
                let Ok(link) = self.link(&path) else { continue };
                if link.starts_with(start) {
                    if let Some(record) = &self.record {
                        let files = &mut record.borrow_mut().files;
                        files.insert(path.clone(), link.clone());
                    }
                    found.push((path, link));
                }
            }
        }
        Ok(Some(found))
    }

    /// Where the symbolic link `path` of this machine leads; of a captured machine the
    /// bytes of the file that has its place.
    fn link(&self, path: &str) -> io::Result<Vec<u8>> {
        if self.is_system() {
            let target = std::fs::read_link(self.path(path))?;
            return Ok(target.into_os_string().into_vec());
        }
        self.read_limited(path, limit::VALUE)
    }
}

/// Turns "not permitted" into "not told".
fn permitted<T>(result: Result<Option<T>, HostError>) -> Result<Option<T>, HostError> {
    match result {
        Err(error) if error.is_denied() => Ok(None),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_none_and_a_required_one_names_itself() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(root.read_optional("/proc/nothing").unwrap(), None);
        assert_eq!(root.list("/sys/nothing").unwrap(), None);
        // What is missing in a captured machine is named by where it was looked for.
        let error = root.read("/proc/nothing").unwrap_err();
        let missing = root.path("/proc/nothing");
        assert_eq!(
            error.to_string(),
            format!("{}: no such file", missing.display())
        );
        assert!(error.hint().unwrap().contains("rkexec capture"));
        let error = Root::system().read("/proc/nothing").unwrap_err();
        assert_eq!(error.to_string(), "reading /proc/nothing");
        assert_eq!(error.hint(), None);
    }

    #[test]
    fn only_a_missing_permission_is_forgiven() {
        let denied = |kind: io::ErrorKind| {
            permitted::<()>(Err(HostError::Read {
                path: "/x".into(),
                source: kind.into(),
            }))
        };
        assert!(denied(io::ErrorKind::PermissionDenied).unwrap().is_none());
        assert!(denied(io::ErrorKind::InvalidData).is_err());
        let eperm = io::Error::from_raw_os_error(libc::EPERM);
        assert_eq!(eperm.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn a_captured_machine_is_read_up_to_limits() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let sized = |name: &str, size: u64| {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_len(size).unwrap();
        };
        sized("value", limit::VALUE + 1);
        sized("table", limit::FILE);
        sized("start", 100 << 30);
        let cause = |error: HostError| match error {
            HostError::Read { source, .. } => source.to_string(),
            other => other.to_string(),
        };
        assert_eq!(
            cause(root.read_line("/value").unwrap_err()),
            "larger than 64 KiB"
        );
        let start = root.read_start_permitted("/start", 90 << 30).unwrap();
        assert_eq!(start.unwrap().len() as u64, limit::START);
        let error = cause(root.read("/start").unwrap_err());
        assert_eq!(error, "larger than 64 MiB");
        let mut reads = std::iter::repeat_with(|| root.read("/table")).take(9);
        let error = cause(reads.find_map(Result::err).unwrap());
        assert_eq!(
            error,
            "the files of this machine have more than 512 MiB in all"
        );
    }

    #[test]
    fn a_recorder_keeps_files_and_listed_directories() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("sys/empty")).unwrap();
        std::fs::write(dir.path().join("sys/file"), "x").unwrap();
        let root = Root::at(dir.path()).recorder();
        root.read("/sys/file").unwrap();
        // A record gives one answer only.
        std::fs::write(dir.path().join("sys/file"), "y").unwrap();
        assert_eq!(root.read("/sys/file").unwrap(), b"x");
        root.read_optional("/sys/missing").unwrap();
        root.list("/sys/empty").unwrap();
        root.list("/sys/missing").unwrap();
        let record = root.into_recording();
        assert_eq!(record.files, [("/sys/file".into(), b"x".to_vec())].into());
        assert_eq!(record.directories, ["/sys/empty".into()].into());
    }
}
