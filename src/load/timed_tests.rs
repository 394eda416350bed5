//! Loads whose purgatory leaves time stamps, with a fake kernel behind the door.

use std::fs;

use super::tests::Lab;
use crate::base::Target;
use crate::host::iomem;
use crate::load::record::LoadRecord;

/// Purgatory's fields, as purgatory/README.md has them: why there is no page, the place of
/// the stamps, and the page with its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fields {
    unknown: u32,
    stamps: u64,
    page: u64,
    nonce: u64,
}

impl Fields {
    fn of(lab: &Lab) -> Self {
        let image = lab.kernel.entered.borrow();
        let u64_at = |at: usize| u64::from_le_bytes(image[at..at + 8].try_into().unwrap());
        Self {
            unknown: u32::from_le_bytes(image[44..48].try_into().unwrap()),
            stamps: u64_at(432),
            page: u64_at(440),
            nonce: u64_at(448),
        }
    }
}

fn lab_in(directory: &str) -> Lab {
    let lab = Lab::at(tempfile::tempdir_in(directory).unwrap());
    let mut host = lab.kernel.host.borrow_mut();
    host.cpu.steady_tsc = true;
    // The page has a place in the memory of the machine that tests.
    let iomem = b"00001000-0009ffff : System RAM\n00100000-ffffffffff : System RAM\n  \
                  10000000-1fffffff : Crash kernel\n";
    host.iomem = iomem::parse(iomem).unwrap();
    drop(host);
    lab
}

/// What `exec` finds: the number, the time of the load, its own time, the address.
fn page(lab: &Lab) -> Option<[u64; 4]> {
    let bytes = fs::read(lab.root.path("/run/rkexec/exec-time")).ok()?;
    let (words, _) = bytes.as_chunks();
    let words: Vec<u64> = words.iter().copied().map(u64::from_le_bytes).collect();
    words.first_chunk().copied()
}

/// Where this process is told physical addresses, there is a page; else purgatory is told
/// why there is none.
#[test]
fn purgatory_is_told_of_the_page_that_exec_finds() {
    let lab = lab_in("/dev/shm");
    lab.load(&lab.job("one", Target::Normal)).unwrap();
    let fields = Fields::of(&lab);
    assert_ne!(fields.stamps, 0);
    let Some([nonce, load, exec, address]) = page(&lab) else {
        assert_ne!(fields.unknown, 0, "{fields:?}");
        assert_eq!((fields.page, fields.nonce), (0, 0));
        return;
    };
    assert_eq!(fields.unknown, 0);
    assert_eq!((fields.page, fields.nonce), (address, nonce));
    assert!(load > 0 && exec == 0);

    // A failed load leaves the page of what is loaded, and another load has its own.
    lab.kernel.then_fails(libc::ENOMEM);
    lab.load(&lab.job("two", Target::Normal)).unwrap_err();
    assert_eq!(page(&lab), Some([nonce, load, exec, address]));
    lab.load(&lab.job("two", Target::Normal)).unwrap();
    assert!(page(&lab).unwrap()[0] > nonce);
    // So does a crash kernel, which has none.
    lab.load(&lab.job("one", Target::Crash)).unwrap();
    assert_eq!(Fields::of(&lab).stamps, 0);
    assert!(page(&lab).is_some());
    // What has no stamps, and what is unloaded, has no page.
    lab.kernel.host.borrow_mut().cpu.steady_tsc = false;
    lab.load(&lab.job("one", Target::Normal)).unwrap();
    assert_eq!(Fields::of(&lab).stamps, 0);
    assert_eq!(page(&lab), None);
    lab.kernel.host.borrow_mut().cpu.steady_tsc = true;
    lab.load(&lab.job("one", Target::Normal)).unwrap();
    assert!(page(&lab).is_some());
    LoadRecord::remove(&lab.root, Target::Crash).unwrap();
    assert!(page(&lab).is_some());
    LoadRecord::remove(&lab.root, Target::Normal).unwrap();
    assert_eq!(page(&lab), None);
    // Nothing else stays behind.
    let names = fs::read_dir(lab.root.path("/run/rkexec")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), Vec::<std::ffi::OsString>::new());
}

/// The sources lie on a disk as a rule.
#[test]
fn a_file_system_on_a_disk_has_no_page() {
    let lab = lab_in(env!("CARGO_MANIFEST_DIR"));
    let kind = nix::sys::statfs::statfs(&lab.root.path("/")).unwrap();
    if kind.filesystem_type() == nix::sys::statfs::TMPFS_MAGIC {
        return;
    }
    lab.load(&lab.job("one", Target::Normal)).unwrap();
    let fields = Fields::of(&lab);
    assert_eq!((fields.unknown, fields.page), (3, 0));
    assert_ne!(fields.stamps, 0);
    assert_eq!(page(&lab), None);
}
