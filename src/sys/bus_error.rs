//! What is said when a mapped file cannot be read.
//!
//! The kernel answers such a read with SIGBUS: the file became shorter under the map, or
//! its disk has a read error. The page cannot be had, so the process ends. It ends with a
//! message and the exit code of a failure.
#![allow(unsafe_code)]

use std::ffi::c_int;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// What is printed.
const MESSAGE: &[u8] = b"rkexec: a file could not be read to its end: it became shorter meanwhile, or its disk has a read error\n\
    hint: `dmesg` names a disk that fails; try again when nobody writes to the file; `rkexec status` says what is loaded\n";
/// The exit code of a verb that failed.
const FAILED: c_int = 1;

/// Has a read of a mapped file that fails end this process with a message.
pub fn explain_failed_reads() {
    let flags = SaFlags::SA_ONSTACK | SaFlags::SA_RESETHAND;
    let action = SigAction::new(SigHandler::Handler(explain), flags, SigSet::empty());
    // SAFETY: the handler calls write and _exit alone, which a handler may call, and
    // touches no memory but a constant. Nobody else of this process handles SIGBUS.
    // Without the handler SIGBUS still ends the process, so an error is no harm.
    let _ = unsafe { sigaction(Signal::SIGBUS, &action) };
}

extern "C" fn explain(_: c_int) {
    // SAFETY: the pointer and the length are those of a constant.
    unsafe { libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
    // SAFETY: it ends the process at once, and runs no code of it.
    unsafe { libc::_exit(FAILED) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsRawFd as _;
    use std::path::Path;

    use super::*;
    use crate::sys::MappedFile;

    /// A file that becomes shorter under the map, read in a child.
    #[test]
    fn a_read_beyond_the_end_ends_with_a_message() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&[7; 8192]).unwrap();
        let mapped = MappedFile::of(file.reopen().unwrap(), Path::new("x")).unwrap();
        file.as_file().set_len(0).unwrap();
        let (mut said, there) = std::io::pipe().unwrap();
        // SAFETY: the child calls what a signal handler may, reads a map, and ends.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: both descriptors are open.
            unsafe { libc::dup2(there.as_raw_fd(), libc::STDERR_FILENO) };
            explain_failed_reads();
            let byte = std::hint::black_box(mapped.bytes())[5000];
            // SAFETY: it ends the child at once.
            unsafe { libc::_exit(c_int::from(byte) + 100) }
        }
        drop(there);
        let mut text = Vec::new();
        said.read_to_end(&mut text).unwrap();
        let mut status = 0;
        // SAFETY: `status` is an int of ours.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status));
        assert_eq!(libc::WEXITSTATUS(status), FAILED);
        assert_eq!(text, MESSAGE);
        drop::<File>(file.into_file());
    }
}
