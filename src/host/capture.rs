//! Copies what the planner reads into a directory.

use std::io;
use std::path::{Path, PathBuf};

use super::firmware_tables::FirmwareTables;
use super::root::Record;
use super::surroundings::Surroundings;
use super::tree::NewTree;
use super::{Host, HostError, Root};
use crate::base::Target;

/// What was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct CaptureReport {
    /// Files written.
    pub files: usize,
    /// Their size, bytes.
    pub bytes: u64,
}

/// Why a machine was not captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A fact could not be read; nothing was written.
    #[error("reading this machine")]
    Host(#[from] HostError),
    /// The kernel is busy and does not tell every fact; nothing was written.
    #[error("a load is under way, and the kernel does not tell the size of the crash reservation")]
    Busy,
    /// The directory has something in it.
    #[error(
        "{} exists and is not an empty directory",
        crate::base::bytes::shown_name(dir)
    )]
    NotEmpty {
        /// The directory.
        dir: PathBuf,
    },
    /// Other users could write to the directory while it is filled.
    #[error("{} {what}", crate::base::bytes::shown_name(dir))]
    NotOurs {
        /// The directory.
        dir: PathBuf,
        /// Why it is not used.
        what: String,
    },
    /// A file or directory of the capture could not be written.
    #[error("writing {}", crate::base::bytes::shown_name(path))]
    Write {
        /// Which one.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What was written does not read like the machine.
    #[error(
        "{} does not give the facts of the machine it was captured from",
        crate::base::bytes::shown_name(dir)
    )]
    Differs {
        /// The directory.
        dir: PathBuf,
    },
}

impl CaptureError {
    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Host(error) => error.hint(),
            Self::Busy => Some("try again when the other load is done"),
            Self::NotEmpty { .. } | Self::NotOurs { .. } => {
                Some("name a directory that does not exist yet")
            }
            Self::Write { .. } | Self::Differs { .. } => None,
        }
    }

    pub(super) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write {
            path: path.to_owned(),
            source,
        }
    }
}

/// Reads every fact below `root` and copies the files that were read below `dir`,
/// so that `Host::read_for_crash(&Root::at(dir))` gives the same facts. What `also` reads of
/// the root that it is given is copied as well. `dir` is created, for its owner only: the
/// files tell addresses that the kernel hides from users.
///
/// # Errors
/// When a fact cannot be read (in particular when /proc/iomem is hidden), when `dir`
/// exists and is not empty or other users may write to it, or when it cannot be written.
pub fn capture(
    root: &Root,
    dir: &Path,
    also: impl FnOnce(&Root),
) -> Result<CaptureReport, CaptureError> {
    let recorder = root.recorder();
    let host = Host::read_for_crash(&recorder)?;
    if host.loaded.busy {
        return Err(CaptureError::Busy);
    }
    // Only multiboot kernels use these tables, so a missing one is no error.
    let tables = FirmwareTables::read(&recorder, &host);
    // `doctor` looks at these. A plan needs none, so what is malformed is no error here.
    let _ = Surroundings::read(&recorder, Target::Crash);
    also(&recorder);
    // Write only after everything was read: a failed capture leaves no files.
    let report = write(&recorder.into_recording(), NewTree::claim(dir)?)?;
    let copied = Root::at(dir);
    match Host::read_for_crash(&copied) {
        Ok(copy) if copy == host && FirmwareTables::read(&copied, &copy).rsdp == tables.rsdp => {
            Ok(report)
        }
        _ => Err(CaptureError::Differs {
            dir: dir.to_owned(),
        }),
    }
}

fn write(record: &Record, mut tree: NewTree) -> Result<CaptureReport, CaptureError> {
    for path in &record.directories {
        tree.directory(path)?;
    }
    let mut report = CaptureReport { files: 0, bytes: 0 };
    for (path, content) in &record.files {
        tree.file(path, content)?;
        report.files += 1;
        report.bytes += content.len() as u64;
    }
    // The files are there, and none was written through a link.
    for (path, target) in &record.links {
        tree.link(path, target)?;
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in [
            ("proc/sys/kernel/osrelease", "6.12.0\n"),
            ("proc/cmdline", "console=ttyS0\n"),
            (
                "proc/iomem",
                "00001000-0009ffff : System RAM\n00100000-1fffffff : System RAM\n",
            ),
            ("proc/cpuinfo", "flags\t\t: fpu\n"),
            ("proc/meminfo", "MemTotal: 500000 kB\n"),
            ("proc/uptime", "not read by anybody\n"),
            ("sys/class/tty/console/active", "ttyS0\n"),
        ] {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        dir
    }

    #[test]
    fn a_capture_gives_the_same_host() {
        let machine = machine();
        // Both are facts although there is no file in them.
        for dir in [
            "sys/firmware/memmap",
            "sys/firmware/efi",
            "sys/kernel/debug/kho",
        ] {
            std::fs::create_dir_all(machine.path().join(dir)).unwrap();
        }
        let root = Root::at(machine.path());
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("a/b");
        let report = capture(&root, &dir, |_| {}).unwrap();
        assert_eq!(report.files, 6);
        let host = Host::read_for_crash(&root).unwrap();
        assert_eq!(Host::read_for_crash(&Root::at(&dir)).unwrap(), host);
        assert_eq!(host.firmware_map, Some(Vec::new()));
        assert!(host.efi.is_some() && host.security.kho.on);
        assert!(!dir.join("proc/uptime").exists());
        // And without them.
        let bare = self::machine();
        let root = Root::at(bare.path());
        let dir = out.path().join("c");
        capture(&root, &dir, |_| {}).unwrap();
        let host = Host::read_for_crash(&Root::at(&dir)).unwrap();
        assert_eq!(host.firmware_map, None);
        assert_eq!(host.efi, None);
        assert_eq!(host, Host::read_for_crash(&root).unwrap());
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused() {
        let machine = machine();
        let out = tempfile::tempdir().unwrap();
        capture(&Root::at(machine.path()), out.path(), |_| {}).unwrap();
        let again = capture(&Root::at(machine.path()), out.path(), |_| {}).unwrap_err();
        assert!(matches!(again, CaptureError::NotEmpty { .. }), "{again}");
        let file = out.path().join("proc/iomem");
        let on_file = capture(&Root::at(machine.path()), &file, |_| {}).unwrap_err();
        assert!(
            matches!(on_file, CaptureError::NotEmpty { .. }),
            "{on_file}"
        );
    }

    #[test]
    fn a_hidden_map_is_not_captured() {
        let machine = machine();
        std::fs::write(
            machine.path().join("proc/iomem"),
            "00000000-00000000 : System RAM\n",
        )
        .unwrap();
        let out = tempfile::tempdir().unwrap();
        let dir = out.path().join("x");
        let error = capture(&Root::at(machine.path()), &dir, |_| {}).unwrap_err();
        assert!(
            matches!(error, CaptureError::Host(HostError::Hidden)),
            "{error}"
        );
        assert!(!dir.exists());
    }
}
