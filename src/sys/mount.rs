//! A partition that is mounted for this process alone, read-only.
//!
//! unshare(2) gives this process a list of mounts of its own, and setns(2) brings it back. The
//! machine's list does not change. As long as the partition is mounted here, the machine cannot
//! mount it for writing: the kernel has one file system for both (EBUSY).

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{major, minor};
use nix::unistd::{chroot, fchdir};

use crate::host::door::read_part;

/// Bytes from the start of a file system in which all of [`FILE_SYSTEMS`] have their marks.
const START: usize = 4096;

/// A file system that can be mounted without a write to its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// What mount(2) calls it.
    pub name: &'static str,
    /// Options without which a read-only mount may write to the device, to recover what a
    /// journal holds. Boot loaders do not look into journals either.
    options: Option<&'static str>,
}

const VFAT: FileSystem = FileSystem {
    name: "vfat",
    options: None,
};
const EXT4: FileSystem = FileSystem {
    name: "ext4",
    options: Some("noload"),
};
const XFS: FileSystem = FileSystem {
    name: "xfs",
    options: Some("norecovery"),
};

impl FileSystem {
    /// The file system that begins with `start`; `None`: another one. The driver of ext4
    /// mounts ext2 and ext3 as well.
    #[must_use]
    pub fn of(start: &[u8]) -> Option<Self> {
        let has = |at: usize, mark: &[u8]| start.get(at..at + mark.len()) == Some(mark);
        let is_fat = has(510, b"\x55\xaa") && (has(54, b"FAT") || has(82, b"FAT32"));
        if has(1024 + 56, b"\x53\xef") {
            Some(EXT4)
        } else if has(0, b"XFSB") {
            Some(XFS)
        } else if is_fat {
            Some(VFAT)
        } else {
            None
        }
    }
}

/// A block device, open for reading.
#[derive(Debug)]
pub struct Device {
    path: PathBuf,
    file: File,
}

impl Device {
    /// Opens the block device at `path`.
    ///
    /// # Errors
    /// When it cannot be opened, or is not the device with these numbers.
    pub fn open(path: &Path, numbers: (u32, u32)) -> io::Result<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(path)?;
        let metadata = file.metadata()?;
        let own = (major(metadata.rdev()), minor(metadata.rdev()));
        let expected = (u64::from(numbers.0), u64::from(numbers.1));
        if !metadata.file_type().is_block_device() || own != expected {
            let what = "it is not the device that the kernel means";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let path = path.to_owned();
        Ok(Self { path, file })
    }

    /// `size` bytes from `at` on, or fewer at the end.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(&self, at: u64, size: usize) -> io::Result<Vec<u8>> {
        read_part(&self.file, at, size)
    }

    /// What it holds; `None`: no file system that can be mounted here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn file_system(&self) -> io::Result<Option<FileSystem>> {
        Ok(FileSystem::of(&self.read(0, START)?))
    }
}

/// The list of mounts of this process is its own, until this is dropped. Then what was added
/// is unmounted, and the process has the machine's list again. Files that are still open stay
/// readable, and keep the file system in use.
#[derive(Debug)]
pub struct PrivateMounts {
    /// The machine's list, and this process's directories in it.
    machine: File,
    root: File,
    directory: File,
    added: RefCell<Vec<PathBuf>>,
}

impl PrivateMounts {
    /// Gives this process a list of its own. What the machine mounts and unmounts from now
    /// on happens in it as well, but nothing goes back.
    ///
    /// # Errors
    /// When this process may not do so.
    pub fn new() -> io::Result<Self> {
        let directory = |path: &str| {
            let mut options = OpenOptions::new();
            let flags = libc::O_PATH | libc::O_DIRECTORY;
            options.read(true).custom_flags(flags).open(path)
        };
        let machine = File::open("/proc/thread-self/ns/mnt")?;
        let (root, directory) = (directory("/")?, directory(".")?);
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = Self {
            machine,
            root,
            directory,
            added: RefCell::default(),
        };
        let nothing = None::<&str>;
        let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
        mount(nothing, "/", nothing, flags, nothing)?;
        Ok(private)
    }

    /// Mounts `device` on the directory `point`, so that nothing is written to it and no
    /// program or device in it counts.
    ///
    /// # Errors
    /// When it cannot be mounted: the kernel has no driver, or the device is in use.
    pub fn add(&self, device: &Device, kind: FileSystem, point: &Path) -> io::Result<()> {
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let (source, name) = (Some(device.path.as_path()), Some(kind.name));
        mount(source, point, name, flags, kind.options)?;
        self.added.borrow_mut().push(point.to_owned());
        Ok(())
    }

    /// Goes back to the machine's list. setns(2) makes the root directory that of the list.
    fn leave(&self) -> io::Result<()> {
        setns(&self.machine, CloneFlags::CLONE_NEWNS)?;
        fchdir(&self.root)?;
        chroot(".")?;
        Ok(fchdir(&self.directory)?)
    }
}

impl Drop for PrivateMounts {
    fn drop(&mut self) {
        for point in self.added.get_mut().drain(..).rev() {
            let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
            // It is mounted in a list that ends with this process at the latest.
            let _ = umount2(&point, flags);
        }
        // A process with several threads stays where it is: nothing is mounted there any more.
        let _ = self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_by_their_marks() {
        let marked = |marks: &[(usize, &[u8])]| {
            let mut start = vec![0; START];
            for (at, mark) in marks {
                start[*at..at + mark.len()].copy_from_slice(mark);
            }
            FileSystem::of(&start).map(|found| found.name)
        };
        let boot: (usize, &[u8]) = (510, b"\x55\xaa");
        assert_eq!(marked(&[boot, (82, b"FAT32   ")]), Some("vfat"));
        assert_eq!(marked(&[boot, (54, b"FAT12   ")]), Some("vfat"));
        assert_eq!(marked(&[boot]), None);
        assert_eq!(marked(&[(1080, b"\x53\xef")]), Some("ext4"));
        // What was there before it was formatted anew.
        assert_eq!(
            marked(&[boot, (54, b"FAT16"), (1080, b"\x53\xef")]),
            Some("ext4")
        );
        assert_eq!(marked(&[(0, b"XFSB")]), Some("xfs"));
        assert_eq!(FileSystem::of(b""), None);
    }

    #[test]
    fn only_the_block_device_with_the_numbers_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "x").unwrap();
        for path in [file.as_path(), Path::new("/dev/null")] {
            let error = Device::open(path, (1, 3)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
        std::os::unix::fs::symlink("/dev/null", dir.path().join("l")).unwrap();
        let error = Device::open(&dir.path().join("l"), (1, 3)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }
}
