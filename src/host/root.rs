//! The directory below which the machine's files are read.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Largest file read from /proc or /sys, bytes: 100,000 iomem lines are 6 MB.
const MAX_FILE: u64 = 64 << 20;

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
    /// The file was read, and is not what it should be.
    #[error("{path}: {what}")]
    Malformed {
        /// Path as on the machine, without the root directory.
        path: String,
        /// What is wrong with it, with the line number where there are lines.
        what: String,
    },
    /// /proc/iomem shows only zeroes: the reader lacks CAP_SYS_ADMIN.
    #[error("/proc/iomem shows every address as 0: the memory map is hidden from this user")]
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
            _ => None,
        }
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
/// Every file that is read is remembered, so that `capture` copies what the
/// readers really look at and nothing else.
#[derive(Debug)]
pub struct Root {
    dir: PathBuf,
    record: Option<RefCell<BTreeMap<String, Vec<u8>>>>,
}

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
            record: None,
        }
    }

    /// Keeps a copy of every file that is read from now on.
    #[must_use]
    pub fn recording(mut self) -> Self {
        self.record = Some(RefCell::default());
        self
    }

    /// The files read so far, by path on the machine.
    #[must_use]
    pub fn into_record(self) -> BTreeMap<String, Vec<u8>> {
        self.record.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Whether this is the running machine.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.dir == Path::new("/")
    }

    /// `path` (absolute on the machine) below the root directory.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.join(path.trim_start_matches('/'))
    }

    /// The bytes of `path`, `None` when there is no such file.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub fn read_optional(&self, path: &str) -> Result<Option<Vec<u8>>, HostError> {
        let failed = |source| HostError::Read {
            path: path.to_owned(),
            source,
        };
        match read_capped(&self.path(path)) {
            Ok(bytes) => {
                if let Some(record) = &self.record {
                    record.borrow_mut().insert(path.to_owned(), bytes.clone());
                }
                Ok(Some(bytes))
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

    /// The bytes of `path`, which must be there.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, HostError> {
        self.read_optional(path)?.ok_or_else(|| HostError::Read {
            path: path.to_owned(),
            source: io::Error::from(io::ErrorKind::NotFound),
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
        let Some(bytes) = self.read_optional(path)? else {
            return Ok(None);
        };
        let text =
            String::from_utf8(bytes).map_err(|_| HostError::malformed(path, "not UTF-8 text"))?;
        Ok(Some(text.trim().to_owned()))
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
        let entries = match std::fs::read_dir(self.path(path)) {
            Ok(entries) => entries,
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
        let mut names = Vec::new();
        for entry in entries {
            names.push(
                entry
                    .map_err(failed)?
                    .file_name()
                    .to_string_lossy()
                    .into_owned(),
            );
        }
        names.sort_unstable();
        Ok(Some(names))
    }
}

/// Reads a file of unknown size (procfs says 0) with one large buffer, so that
/// the kernel walks its tables in as few steps as possible.
fn read_capped(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::with_capacity(1 << 16);
    std::fs::File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "larger than 64 MiB",
        ));
    }
    Ok(bytes)
}
