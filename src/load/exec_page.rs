//! The page in which `exec` leaves the time for purgatory: the only page of a file in
//! memory, /run/rkexec/exec-time.
//!
//! `exec` runs in another process, later, and cannot write into the loaded image. So the
//! load makes the page and tells purgatory its physical address, and a number that no
//! other load has. Purgatory takes what lies there only beside that number. Nothing here
//! makes a load or an `exec` fail: a time that is not known is not measured.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statfs::{FsType, TMPFS_MAGIC, fstatfs};

use super::lock::{self, DIR};
use super::record::distrust;
use crate::base::PAGE_SIZE;
use crate::carry::stamps::{self, ExecUnknown};
use crate::host::{Root, cpu};
use crate::layout::Role;
use crate::plan::Plan;
use crate::purgatory::{self, ExecPlace};
use crate::sys::memfd;
use crate::sys::page::FilePage;
use crate::sys::tsc;

const FILE: &str = "exec-time";
/// RAMFS_MAGIC of include/uapi/linux/magic.h: the other file system that keeps its files in
/// memory, an initramfs for one.
const RAMFS: FsType = FsType(0x8584_58f6);
/// The most that is held after one try, in bytes: little beside the size of a kernel, so
/// that not much more is held than has to be.
const LARGEST_HELD: u64 = 2 << 20;
/// What is held beyond the bytes of the image: the kernel gives out memory in no order.
const MORE_HELD: u64 = 16 << 20;

/// Purgatory with its page for `exec`, for one load.
#[derive(Debug)]
pub(super) struct Timed {
    /// The bytes of purgatory, told of the page.
    pub(super) purgatory: Vec<u8>,
    page: Option<ExecPage>,
}

/// A page that is not yet the one `exec` finds; its file is removed on drop.
#[derive(Debug)]
struct ExecPage {
    file: File,
    path: PathBuf,
}

impl Drop for ExecPage {
    /// After a rename the file is no longer there, which is fine.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Timed {
    /// Makes the page for `plan`; `None` when its purgatory leaves no time stamps.
    pub(super) fn of(plan: &Plan<'_>, root: &Root) -> Option<Self> {
        let mut segments = plan.segments().iter();
        let purgatory = segments.find(|segment| segment.role == Role::Purgatory)?;
        if !purgatory::leaves_stamps(&purgatory.buf) {
            return None;
        }
        let (place, page) = match ExecPage::outside(plan, root) {
            Ok((place, page)) => (Ok(place), Some(page)),
            Err(why) => (Err(why), None),
        };
        Some(Self {
            purgatory: purgatory::with_exec_place(&purgatory.buf, place),
            page,
        })
    }

    /// Lets `exec` find the page, now that the image is loaded, which took `load`.
    pub(super) fn keep(self, root: &Root, load: Duration) {
        let nanoseconds = u64::try_from(load.as_nanos()).unwrap_or(0);
        if let Some(page) = self.page
            && page
                .file
                .write_all_at(&nanoseconds.to_le_bytes(), stamps::LOAD_OFFSET)
                .is_ok()
            && fs::rename(&page.path, path(root)).is_ok()
        {
            return;
        }
        remove(root);
    }
}

impl ExecPage {
    /// A page that no segment of `plan` will overwrite, in RAM that purgatory can read.
    ///
    /// The kernel often gives out one page after the other, and a kernel takes many MiB. So
    /// what lies where a segment goes is held until a page is found, and more with each try.
    fn outside(plan: &Plan<'_>, root: &Root) -> Result<(ExecPlace, Self), ExecUnknown> {
        let is_outside = |address| {
            let mut told = plan.told.iter().filter(|(_, kind)| kind.is_ram());
            let mut segments = plan.segments().iter();
            told.any(|(range, _)| range.contains(address))
                && !segments.any(|segment| segment.mem.contains(address))
        };
        let directory = lock::directory(root).map_err(|_| ExecUnknown::NoFile)?;
        let image: u64 = plan.segments().iter().map(|it| it.mem.size()).sum();
        let most = image + MORE_HELD;
        // Half of what programs can still take: the load needs memory as well.
        let most = cpu::available(root).map_or(most, |free| most.min(free / 2));
        let mut held = Vec::new();
        for more in to_hold(most) {
            let (page, mapped) = Self::create(&directory).map_err(|_| ExecUnknown::NoFile)?;
            let kind = fstatfs(&page.file).map_err(|_| ExecUnknown::NoFile)?;
            if ![TMPFS_MAGIC, RAMFS].contains(&kind.filesystem_type()) {
                return Err(ExecUnknown::NoMemoryFile);
            }
            let address = mapped.physical().ok().flatten();
            let address = address.ok_or(ExecUnknown::NoAddress)?;
            if is_outside(address) {
                let nonce = tsc::now().ok_or(ExecUnknown::NoFile)?;
                let contents = stamps::exec_page(nonce, address);
                page.file
                    .write_all_at(&contents, 0)
                    .map_err(|_| ExecUnknown::NoFile)?;
                return Ok((ExecPlace { address, nonce }, page));
            }
            let passed = memfd::filled(c"rkexec-held", more);
            held.push((mapped, passed.map_err(|_| ExecUnknown::NoPlace)?));
        }
        Err(ExecUnknown::NoPlace)
    }

    /// A new file of one page in `directory`.
    fn create(directory: &Path) -> io::Result<(Self, FilePage)> {
        let path = directory.join(format!("{FILE}.{}.new", std::process::id()));
        // Left by a killed process that had the same ID.
        let _ = fs::remove_file(&path);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)?;
        let page = Self { file, path };
        page.file.set_len(PAGE_SIZE)?;
        page.file.write_all_at(&[0], 0)?;
        let mapped = FilePage::of(&page.file)?;
        Ok((page, mapped))
    }
}

/// How much is held after each page that lies where a segment goes, in bytes, until that is
/// `most` bytes: twice as much each time, so that a few MiB take a few tries.
fn to_hold(most: u64) -> impl Iterator<Item = u64> {
    let sizes = std::iter::successors(Some(PAGE_SIZE), |size| Some((size * 2).min(LARGEST_HELD)));
    let mut held = 0;
    sizes.take_while(move |size| {
        let goes_on = held <= most;
        held += PAGE_SIZE + size;
        goes_on
    })
}

fn path(root: &Root) -> PathBuf {
    root.path(&format!("{DIR}/{FILE}"))
}

/// Removes the page of an image that is no longer loaded.
pub(super) fn remove(root: &Root) {
    let _ = fs::remove_file(path(root));
}

/// Leaves the time for purgatory. To be called when nothing comes any more but the call
/// that boots the loaded kernel. Does nothing where there is no page, and where the page
/// no longer is where it was when the kernel was loaded.
pub fn stamp(root: &Root) {
    // Without a stamp the time is not measured, and `report` says so.
    let _ = try_stamp(root);
}

fn try_stamp(root: &Root) -> Option<()> {
    let path = path(root);
    // Whoever may write there could have this process write into another file.
    let owner = Some(nix::unistd::geteuid().as_raw());
    if distrust(&root.path(DIR), owner)
        .or(distrust(&path, owner))
        .is_some()
    {
        return None;
    }
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let mut contents = [0; stamps::PAGE_CONTENTS];
    file.read_exact_at(&mut contents, 0).ok()?;
    let physical = FilePage::of(&file).ok()?.physical().ok()??;
    if stamps::address_of(&contents)? != physical {
        return None;
    }
    let now = tsc::now()?.to_le_bytes();
    file.write_all_at(&now, stamps::EXEC_OFFSET).ok()
}

#[cfg(test)]
#[path = "exec_page_tests.rs"]
mod tests;
