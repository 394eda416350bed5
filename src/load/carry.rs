//! What `exec` does for Kexec Handover just before the jump, as the load recorded it.
//!
//! Where the running kernel hands over the files of `--carry`, `exec` puts them into a
//! session of live update. Where the load passed the kernel's tree on, `exec` looks whether
//! the tree is still the same.
//!
//! The session must be open until the kernel makes the jump, so the process that calls
//! reboot(2) makes it. If there is no jump, the session ends with the process, and the
//! kernel hands nothing over.

use std::ffi::CStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bstr::BString;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::base::bytes::{kept, shown_name};
use crate::base::human;
use crate::carry::manifest::{self, Manifest, ManifestError, Proof};
use crate::cmdline;
use crate::host::openers::of_session;
use crate::host::security::Security;
use crate::host::{Host, Root, cpu};
use crate::job::Job;
use crate::kho::forward::{ForwardError, Tree, forward};
use crate::plan::{Plan, Way};
use crate::refusal::SysError;
use crate::refusal::live_update::LiveUpdateFacts;
use crate::sys::liveupdate::{Device, Outgoing, SessionName};
use crate::sys::memfd;

/// What a file in memory is called in /proc/PID/fd.
const IN_MEMORY: &CStr = c"rkexec-carry";
/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// What `exec` does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtExec {
    /// The files that it hands over, in the order of their tokens.
    pub files: Vec<CarriedFile>,
    /// What the running kernel handed over when the load passed its tree on; `None` when it
    /// did not.
    pub forwarded: Option<Tree>,
}

impl AtExec {
    /// What `exec` does after a load of `plan`, which was made of `job` for `host`; `None`
    /// when that is nothing.
    #[must_use]
    pub fn of(job: &Job, host: &Host, plan: &Plan<'_>) -> Option<Self> {
        let kho = plan.kho.as_ref()?;
        let forwarded = match kho.way {
            Way::Forwarded => forward(&host.security.kho).ok().map(|(tree, _)| tree),
            Way::AtExec => None,
            Way::Built | Way::Kept | Way::Dropped => return None,
        };
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let files = kho.carried.iter().zip(&job.carry);
        let files = files.map(|(file, path)| CarriedFile {
            name: file.name.clone(),
            path: absolute(path),
        });
        Some(Self {
            files: files.collect(),
            forwarded,
        })
    }

    /// Finds out whether it can be done, before anything is done: opens the files, and holds
    /// the tree of the running kernel against the one that was passed on.
    ///
    /// # Errors
    /// When a file is missing, when the tree is another one, and when the facts cannot be
    /// read.
    pub fn prepare(&self, root: &Root) -> anyhow::Result<ToCarry> {
        if let Some(then) = &self.forwarded {
            let kho = Security::read(root).context("exec failed")?.kho;
            match forward(&kho) {
                Ok((now, _)) if now == *then => {}
                Ok(_) => return Err(CarryError::OtherState.into()),
                Err(why) => return Err(CarryError::NotCompared(why).into()),
            }
        }
        let to_carry = ToCarry::open(&self.files)?;
        // Where it is not known, the copying tells.
        if let Some(available) = cpu::available(root) {
            to_carry.check_size(available)?;
        }
        Ok(to_carry)
    }
}

/// A file that `exec` hands over, as the record of the load names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CarriedFile {
    /// The name that it has in the manifest.
    #[serde(with = "kept")]
    pub name: BString,
    /// Where it is.
    #[serde(with = "kept")]
    pub path: PathBuf,
}

/// Why a file is not handed over.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// It cannot be read.
    #[error(
        "exec failed: reading {}, which is to be handed over",
        shown_name(path)
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("exec failed: {}, which is to be handed over, is not a regular file", shown_name(.0))]
    NotRegular(PathBuf),
    /// Somebody wrote to it meanwhile.
    #[error("exec failed: {} changed while it was copied", shown_name(.0))]
    Changed(PathBuf),
    /// There is no memory for it.
    #[error("exec failed: copying {} to memory, to hand it over", shown_name(path))]
    Copy {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// They do not fit into memory.
    #[error(
        "exec failed: the files to hand over are {}, and {} of memory are available to copy them to",
        human(*size),
        human(*available)
    )]
    TooLarge {
        /// All files together, bytes.
        size: u64,
        /// MemAvailable, bytes.
        available: u64,
    },
    /// The tree that was passed on is no longer that of the running kernel.
    #[error("exec failed: handed-over state changed since the load: load again")]
    OtherState,
    /// Whether it is, is not known.
    #[error("exec failed: whether handed-over state changed since the load is not known: {0}")]
    NotCompared(ForwardError),
    /// The manifest cannot be made.
    #[error("exec failed: making the manifest of the files that are handed over")]
    Manifest(#[from] ManifestError),
}

impl CarryError {
    /// A way out, where there is one.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Read { .. } | Self::NotRegular(_) => {
                Some("put the file back, or load again with other files for --carry")
            }
            Self::TooLarge { .. } => {
                Some("stop what takes memory, or load again with less for --carry")
            }
            Self::Changed(_) => Some("stop the program that writes to it, and try again"),
            Self::NotCompared(why) => why.hint(),
            Self::OtherState => Some("what came since the load would be lost with this one"),
            Self::Copy { .. } | Self::Manifest(_) => None,
        }
    }
}

/// Files that are to be handed over, open for reading.
#[derive(Debug)]
pub struct ToCarry(Vec<(CarriedFile, File)>);

/// Files that the kernel hands over if it makes the jump before this value is dropped.
#[derive(Debug)]
#[must_use = "the kernel hands over only what is open"]
pub struct Carried {
    _session: Outgoing,
}

impl ToCarry {
    /// Opens `files`.
    ///
    /// # Errors
    /// When one is missing, or is no regular file.
    pub fn open(files: &[CarriedFile]) -> Result<Self, CarryError> {
        let files = files.iter().map(|file| {
            let open = open(&file.path)?;
            Ok((file.clone(), open))
        });
        files.collect::<Result<_, _>>().map(Self)
    }

    /// Checks that `available` bytes of memory hold a copy of each.
    ///
    /// # Errors
    /// When they do not, and when a file cannot be looked at.
    fn check_size(&self, available: u64) -> Result<(), CarryError> {
        let sizes = self.0.iter().map(|(file, open)| {
            let facts = open.metadata().map_err(|source| CarryError::Read {
                path: file.path.clone(),
                source,
            })?;
            Ok(facts.len())
        });
        let size = sizes.sum::<Result<u64, CarryError>>()?;
        match size > available {
            true => Err(CarryError::TooLarge { size, available }),
            false => Ok(()),
        }
    }

    /// Has the kernel hand them over as they are now: copies them to memory, and puts the
    /// copies into the session `rkexec`, behind a manifest. `None`: there are none.
    ///
    /// # Errors
    /// When a file cannot be copied, and when the kernel does not take one. Then nothing is
    /// handed over.
    pub fn hand_over(&self, root: &Root) -> anyhow::Result<Option<Carried>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let name = SessionName::new(manifest::SESSION.into())?;
        let device = Device::open();
        let device =
            device.map_err(|errno| SysError::no_outgoing_device(&facts(root, &name), errno))?;
        let session = device.create(&name);
        let session = session
            .map_err(|errno| SysError::no_outgoing_session(&facts(root, &name), &name, errno))?;
        let (manifest, copies) = self.copies()?;
        let refused = |what: String, errno| SysError::not_handed_over(what, errno);
        session
            .preserve(&manifest, manifest::TOKEN)
            .map_err(|errno| refused("the manifest".to_owned(), errno))?;
        let tokens = manifest::TOKEN + 1..;
        for (token, (copy, (file, _))) in tokens.zip(copies.iter().zip(&self.0)) {
            session
                .preserve(copy, token)
                .map_err(|errno| refused(shown_name(&file.path).to_string(), errno))?;
        }
        Ok(Some(Carried { _session: session }))
    }

    /// The manifest and a copy of each file, in memory.
    fn copies(&self) -> Result<(File, Vec<File>), CarryError> {
        let mut copies = Vec::new();
        let mut proofs = Vec::new();
        for (file, open) in &self.0 {
            let (copy, proof) = copy(open, &file.path)?;
            copies.push(copy);
            proofs.push((file.name.clone(), proof));
        }
        let written = Manifest::new(proofs)?;
        let in_memory = || {
            let mut file = memfd::empty(IN_MEMORY)?;
            file.write_all(&written.encode()?)?;
            Ok(file)
        };
        let manifest = in_memory().map_err(|source| CarryError::Copy {
            path: "the manifest".into(),
            source,
        })?;
        Ok((manifest, copies))
    }
}

/// What explains a refusal of the kernel. What cannot be read is left out.
fn facts(root: &Root, name: &SessionName) -> LiveUpdateFacts {
    let line = crate::host::cmdline::read(root).unwrap_or_default();
    let open = of_session(root, name.bytes()).unwrap_or_default();
    let open_in = open
        .into_iter()
        .map(|open| format!("{} ({})", open.command, open.pid));
    LiveUpdateFacts {
        kho: Security::read(root).unwrap_or_default().kho,
        is_asked_for: cmdline::truth(&line, "liveupdate") == Some(true),
        open_in: open_in.collect(),
    }
}

/// Opens the file `path`, without waiting for the other end of a pipe.
fn open(path: &Path) -> Result<File, CarryError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let not_read = |source| CarryError::Read {
        path: path.to_owned(),
        source,
    };
    let file = opened.map_err(not_read)?;
    match file.metadata().map_err(not_read)?.is_file() {
        true => Ok(file),
        false => Err(CarryError::NotRegular(path.to_owned())),
    }
}

/// A copy of the file `path` in memory, and what the manifest says of it.
fn copy(from: &File, path: &Path) -> Result<(File, Proof), CarryError> {
    copy_with(from, path, |piece, at| from.read_at(piece, at))
}

/// The same, which reads pieces of the file by `read`.
fn copy_with(
    from: &File,
    path: &Path,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> Result<(File, Proof), CarryError> {
    let not_read = |source| CarryError::Read {
        path: path.to_owned(),
        source,
    };
    let no_copy = |source| CarryError::Copy {
        path: path.to_owned(),
        source,
    };
    let before = from.metadata().map_err(not_read)?;
    let mut to = memfd::empty(IN_MEMORY).map_err(no_copy)?;
    let mut sum = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut size = 0;
    loop {
        let read = match read(&mut piece, size) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(not_read(error)),
        };
        let bytes = piece.get(..read).unwrap_or_default();
        sum.update(bytes);
        to.write_all(bytes).map_err(no_copy)?;
        size += read as u64;
    }
    let after = from.metadata().map_err(not_read)?;
    if size != before.len() || state(&before) != state(&after) {
        return Err(CarryError::Changed(path.to_owned()));
    }
    let sha256 = sum.finalize().into();
    Ok((to, Proof { size, sha256 }))
}

/// What differs when somebody has written to a file.
fn state(file: &Metadata) -> [i64; 4] {
    [
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::bytes::hex;
    use crate::kho::{State, encode};

    fn file(dir: &Path, name: &str, content: &[u8]) -> CarriedFile {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        CarriedFile {
            name: name.into(),
            path,
        }
    }

    fn contents(file: &File) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    #[test]
    fn copies_are_the_files_and_the_manifest_describes_them() {
        let dir = tempfile::tempdir().unwrap();
        let large: Vec<u8> = (0..2_500_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let files = [
            file(dir.path(), "large", &large),
            file(dir.path(), "empty", b""),
        ];
        let (manifest, copies) = ToCarry::open(&files).unwrap().copies().unwrap();
        assert!(contents(&copies[0]) == large);
        assert_eq!(contents(&copies[1]), b"");
        let manifest = Manifest::parse(&contents(&manifest)).unwrap();
        let described: Vec<_> = manifest
            .files()
            .map(|(token, name, proof)| (token, name.to_string(), proof.size, hex(&proof.sha256)))
            .collect();
        let sum = hex(&Sha256::digest(&large));
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(
            described,
            [
                (1, "large".to_owned(), 2_500_000, sum),
                (2, "empty".to_owned(), 0, empty.to_owned())
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_named_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let good = file(dir.path(), "good", b"x");
        let missing = CarriedFile {
            name: "gone".into(),
            path: dir.path().join("gone"),
        };
        let error = ToCarry::open(&[good.clone(), missing]).unwrap_err();
        assert!(matches!(&error, CarryError::Read { path, .. } if path.ends_with("gone")));
        assert!(error.hint().is_some());
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe, dir.path().to_owned()] {
            let other = CarriedFile {
                name: "x".into(),
                path: path.clone(),
            };
            let error = ToCarry::open(&[other]).unwrap_err();
            assert!(matches!(error, CarryError::NotRegular(named) if named == path));
        }
        // Two files of one name have no manifest.
        let error = ToCarry::open(&[good.clone(), good]).unwrap().copies();
        assert!(matches!(error, Err(CarryError::Manifest(_))));
    }

    #[test]
    fn files_that_do_not_fit_into_memory_are_refused_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        let files = ["a", "b"].map(|name| file(dir.path(), name, &[7; 1024]));
        let at_exec = AtExec {
            files: files.to_vec(),
            forwarded: None,
        };
        let prepare = |available: u32| {
            let text = format!("MemTotal: 9 kB\nMemAvailable: {available} kB\n");
            std::fs::write(dir.path().join("proc/meminfo"), text).unwrap();
            at_exec.prepare(&root).map(|_| ())
        };
        prepare(2).unwrap();
        prepare(0).unwrap();
        let error = prepare(1).unwrap_err();
        assert_eq!(
            error.to_string(),
            "exec failed: the files to hand over are 2 KiB, and 1 KiB of memory are available to copy them to"
        );
        let error = error.downcast_ref::<CarryError>().unwrap();
        assert!(error.hint().is_some());
        std::fs::remove_file(dir.path().join("proc/meminfo")).unwrap();
        at_exec.prepare(&root).unwrap();
    }

    #[test]
    fn a_file_that_changes_is_not_handed_over() {
        let dir = tempfile::tempdir().unwrap();
        let old = file(dir.path(), "log", b"one line\n");
        let open = open(&old.path).unwrap();
        // It is copied as it is now, and not as it was when it was opened.
        std::fs::write(&old.path, b"another line\n").unwrap();
        let (same, _) = copy(&open, &old.path).unwrap();
        assert_eq!(contents(&same), b"another line\n");
        let mut reads = 0;
        let grows = copy_with(&open, &old.path, |piece, at| {
            let read = open.read_at(piece, at);
            reads += 1;
            if reads == 1 {
                let mut more = OpenOptions::new().append(true).open(&old.path).unwrap();
                more.write_all(b"more\n").unwrap();
            }
            read
        });
        assert!(matches!(grows, Err(CarryError::Changed(path)) if path == old.path));
    }

    #[test]
    fn what_was_passed_on_is_compared_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let write = |name: &str, content: &[u8]| {
            let path = root.path(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        let shown = "/sys/kernel/debug/kho/out";
        let tree = |map: u64| {
            let pages = (0..8).map(|page| map + page * 4096);
            encode(&State::default(), pages).unwrap().tree
        };
        write("/proc/sys/kernel/osrelease", b"7.2.13\n");
        write("/proc/cmdline", b"kho=on\n");
        write(&format!("{shown}/scratch_phys"), b"0x10000000\n");
        write(&format!("{shown}/scratch_len"), b"0x4000000\n");
        write(&format!("{shown}/sub_fdts/kexec-metadata"), b"");
        write(&format!("{shown}/fdt"), &tree(0x3000_0000));
        let kho = || Security::read(&root).unwrap().kho;
        let at_exec = AtExec {
            files: Vec::new(),
            forwarded: Some(forward(&kho()).unwrap().0),
        };
        let says = || {
            let error = at_exec.prepare(&root).unwrap_err();
            let error = error.downcast_ref::<CarryError>().unwrap();
            (error.to_string(), error.hint().is_some())
        };
        at_exec.prepare(&root).unwrap();
        write(&format!("{shown}/fdt"), &tree(0x3800_0000));
        let other = "exec failed: handed-over state changed since the load: load again";
        assert_eq!(says(), (other.to_owned(), true));
        std::fs::remove_dir_all(root.path("/sys/kernel/debug/kho")).unwrap();
        let (said, hint) = says();
        assert!(
            said.contains("mount debugfs to forward KHO state") && hint,
            "{said}"
        );
    }
}
