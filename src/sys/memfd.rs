//! Files in memory: an empty one, and several pieces as one file for kexec_file_load,
//! which takes one descriptor for the initrd.
//!
//! Such a copy is memory of its own beside the page cache of the files, for as
//! long as the descriptor is open: a single initrd is better given as it is.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{F_ADD_SEALS, FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// MFD_NOEXEC_SEAL of include/uapi/linux/memfd.h, Linux 6.3. Without it a
/// machine with vm.memfd_noexec=2 refuses the file.
const MFD_NOEXEC_SEAL: u32 = 0x8;

/// A sealed file in memory, named `name` in /proc/PID/fd, with `pieces` one
/// after the other, each padded with zeroes to a multiple of `align` bytes.
///
/// Nothing can change the file any more, this process included.
///
/// # Errors
/// When the kernel has no memory for it, or no memfd_create.
pub fn concatenate(name: &CStr, pieces: &[&[u8]], align: usize) -> io::Result<OwnedFd> {
    let mut file = File::from(create(name)?);
    for piece in pieces {
        file.write_all(piece)?;
        let padding = piece.len().next_multiple_of(align) - piece.len();
        file.write_all(&vec![0; padding])?;
    }
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    let seal: FcntlArg<'_> = F_ADD_SEALS(seals);
    fcntl(&file, seal)?;
    Ok(file.into())
}

/// An empty file in memory that one may write to.
///
/// It has no seal but that against seals, so that every kernel with live update takes it
/// over. Where vm.memfd_noexec is set, the kernel adds the one against execution.
///
/// # Errors
/// When the kernel makes none.
pub fn empty(name: &CStr) -> io::Result<File> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into())
}

/// A file in memory of `size` bytes, all of them zero and with memory of their own.
///
/// # Errors
/// When the kernel has no memory for it, or no memfd_create.
pub fn filled(name: &CStr, size: u64) -> io::Result<File> {
    let mut file = empty(name)?;
    io::copy(&mut io::repeat(0).take(size), &mut file)?;
    Ok(file)
}

fn create(name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let noexec = MFdFlags::from_bits_retain(flags.bits() | MFD_NOEXEC_SEAL);
    match memfd_create(name, noexec) {
        // Before Linux 6.3.
        Err(Errno::EINVAL) => memfd_create(name, flags),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};
    use std::os::unix::fs::FileExt;

    fn contents(fd: OwnedFd) -> Vec<u8> {
        let mut file = File::from(fd);
        file.rewind().unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn pieces_follow_each_other_padded() {
        let fd = concatenate(c"initrd", &[b"abcde", b"", b"1234", b"z"], 4).unwrap();
        assert_eq!(contents(fd), b"abcde\0\0\x001234z\0\0\0");
    }

    #[test]
    fn no_pieces_are_an_empty_file() {
        assert_eq!(contents(concatenate(c"initrd", &[], 4).unwrap()), b"");
    }

    #[test]
    fn large_pieces_arrive_whole() {
        let big: Vec<u8> = (0..3_000_001_u32).map(|n| n.to_le_bytes()[1]).collect();
        let bytes = contents(concatenate(c"initrd", &[&big, b"end"], 4).unwrap());
        assert_eq!(bytes.len(), 3_000_004 + 4);
        assert_eq!(&bytes[..big.len()], &big[..]);
        assert_eq!(&bytes[3_000_004..], b"end\0");
    }

    #[test]
    fn an_empty_one_can_be_written_and_not_sealed() {
        let file = empty(c"carried").unwrap();
        file.write_all_at(b"abc", 4096).unwrap();
        assert_eq!(contents(file.try_clone().unwrap().into()).len(), 4099);
        let seal: FcntlArg<'_> = F_ADD_SEALS(SealFlag::F_SEAL_WRITE);
        assert_eq!(fcntl(&file, seal), Err(Errno::EPERM));
    }

    #[test]
    fn a_filled_one_has_memory_of_its_own() {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = filled(c"held", 123 << 12).unwrap().metadata().unwrap();
        assert_eq!(metadata.len(), 123 << 12);
        assert_eq!(metadata.blocks() * 512, 123 << 12);
    }

    #[test]
    fn nobody_writes_to_it_any_more() {
        let file = File::from(concatenate(c"initrd", &[b"abcd"], 4).unwrap());
        for refused in [
            file.write_at(b"x", 0).map(drop),
            file.set_len(2),
            file.set_len(9),
        ] {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
    }
}
