//! How much memory the crash kernel takes, for every kernel that is installed.

use std::io::ErrorKind;
use std::path::Path;

use super::sizing::Sizing;
use crate::host::loaded::Loaded;
use crate::host::{HostError, Root, iomem};
use crate::image::{self, Contents};
use crate::sys::MappedFile;

const BOOT: &str = "/boot";
/// What the name of a kernel begins with, before its release.
const KERNEL: &str = "vmlinuz-";
/// Where the initrd of a release lies, the one made for a crash kernel first: kdump-tools of
/// Debian; Fedora and RHEL; SUSE; then what each distribution boots.
const INITRDS: [(&str, &str); 6] = [
    ("/var/lib/kdump/initrd.img-", ""),
    ("/boot/initramfs-", "kdump.img"),
    ("/boot/initrd-", "-kdump"),
    ("/boot/initrd.img-", ""),
    ("/boot/initramfs-", ".img"),
    ("/boot/initrd-", ""),
];

/// What one kernel needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Estimate {
    /// The kernel.
    pub kernel: String,
    /// The initrd that was counted; `None`: the kernel has none.
    pub initrd: Option<String>,
    /// `uname -r` of the kernel, where its file tells.
    pub release: Option<String>,
    /// The sum; or why there is none.
    pub sizing: Result<Sizing, String>,
}

/// The sum for every kernel in /boot of the machine below `root`, by the names of the files.
///
/// # Errors
/// When /boot or what is reserved cannot be read.
pub fn estimates(root: &Root) -> Result<Vec<Estimate>, HostError> {
    let names = root.list(BOOT)?.unwrap_or_default();
    let reserved = reserved(root)?;
    let kernels = names.iter().filter_map(|name| name.strip_prefix(KERNEL));
    Ok(kernels.map(|of| estimate(root, of, reserved)).collect())
}

/// Bytes that are reserved now: low and high by /proc/iomem, where this process may read it.
fn reserved(root: &Root) -> Result<u64, HostError> {
    let ranges = iomem::read(root).map(|iomem| iomem.crash_kernel());
    match ranges {
        Ok(ranges) => Ok(ranges.iter().map(|range| range.size()).sum()),
        Err(_) => Ok(Loaded::read(root)?.crash_size.unwrap_or(0)),
    }
}

fn estimate(root: &Root, of: &str, reserved: u64) -> Estimate {
    let kernel = format!("{BOOT}/{KERNEL}{of}");
    let candidates = INITRDS
        .iter()
        .map(|(start, end)| format!("{start}{of}{end}"));
    // One that is there and cannot be read is no reason to take another.
    let initrd = candidates.into_iter().find(|path| match root.open(path) {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    });
    let mut release = None;
    let mut sum = || -> Result<Sizing, String> {
        let file = open(root, &kernel)?;
        let contents = Contents::of(file.bytes()).map_err(|error| error.to_string())?;
        let found = image::open(&contents, None).map_err(|error| error.to_string())?;
        release = found.image.release().map(str::to_owned);
        let initrd = initrd.as_deref().map(|path| open(root, path)).transpose()?;
        let bytes: Vec<&[u8]> = initrd.iter().map(MappedFile::bytes).collect();
        Sizing::in_reserved(reserved, found.image.memory_size(), &bytes)
            .ok_or_else(|| "its initrd cannot be unpacked".to_owned())
    };
    let sizing = sum();
    Estimate {
        kernel,
        initrd,
        release,
        sizing,
    }
}

fn open(root: &Root, path: &str) -> Result<MappedFile, String> {
    let file = root.open(path).map_err(|error| error.to_string())?;
    MappedFile::of(file, Path::new(path)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::bzimage::TinyBzImage;

    /// A FIFO stands for a file that this process may not read: root may read all.
    #[test]
    fn an_initrd_that_cannot_be_read_is_not_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let boot = dir.path().join("boot");
        std::fs::create_dir(&boot).unwrap();
        std::fs::write(boot.join("vmlinuz-1"), TinyBzImage::direct().build()).unwrap();
        let mode = nix::sys::stat::Mode::S_IRUSR;
        nix::unistd::mkfifo(&boot.join("initrd.img-1"), mode).unwrap();
        let found = estimates(&Root::at(dir.path())).unwrap();
        assert_eq!(found[0].initrd.as_deref(), Some("/boot/initrd.img-1"));
        assert!(found[0].sizing.is_err());
    }

    #[test]
    fn every_kernel_of_boot() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, bytes: &[u8]| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let cpio = include_bytes!("../../tests/data/initrd/cpio");
        write("boot/vmlinuz-1", &TinyBzImage::direct().build());
        write("boot/vmlinuz-2", &TinyBzImage::direct().build());
        write("boot/vmlinuz-3", b"no kernel");
        write("boot/initrd.img-1", b"not this one");
        write("var/lib/kdump/initrd.img-1", cpio);
        write("boot/config-1", b"");
        write("sys/kernel/kexec_crash_size", b"4096\n");
        let found = estimates(&Root::at(dir.path())).unwrap();
        let kernels: Vec<&str> = found.iter().map(|one| &*one.kernel).collect();
        assert_eq!(
            kernels,
            ["/boot/vmlinuz-1", "/boot/vmlinuz-2", "/boot/vmlinuz-3"]
        );
        let first = found[0].sizing.as_ref().unwrap();
        assert_eq!((first.initrd, first.reserved), (cpio.len() as u64, 4096));
        assert_eq!(
            found[0].initrd.as_deref(),
            Some("/var/lib/kdump/initrd.img-1")
        );
        assert_eq!(found[1].initrd, None);
        assert!(found[1].sizing.is_ok() && found[2].sizing.is_err());
        assert_eq!(estimates(&Root::at("/nothing-here")).unwrap(), []);
    }
}
