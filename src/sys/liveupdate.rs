//! Sessions of the Live Update Orchestrator (LUO): those that the kernel before handed
//! over, and those that this kernel is to hand over, through /dev/liveupdate
//! (include/uapi/linux/liveupdate.h, Linux 6.19).
//!
//! The kernel finishes a session that it was given when nobody has it open any more, and
//! frees the files that nobody took out of it. So a process of its own ([`Holder`]) keeps
//! a session open until its files are saved, whatever happens to this process.
//!
//! It hands over a session ([`Outgoing`]) that is open when it enters the next kernel.
//! One that is closed before is gone, and no harm is done.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsString, c_int, c_long};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::ptr;

use nix::poll::{PollFd, PollFlags, poll};

use super::Errno;
use crate::base::bytes::shown;

/// LIVEUPDATE_IOCTL_CREATE_SESSION: `_IO(LIVEUPDATE_IOCTL_TYPE, 0x00)`.
const CREATE_SESSION: libc::Ioctl = 0xba00;
/// LIVEUPDATE_IOCTL_RETRIEVE_SESSION: `_IO(LIVEUPDATE_IOCTL_TYPE, 0x01)`.
const RETRIEVE_SESSION: libc::Ioctl = 0xba01;
/// LIVEUPDATE_SESSION_PRESERVE_FD: `_IO(LIVEUPDATE_IOCTL_TYPE, 0x40)`.
const PRESERVE_FD: libc::Ioctl = 0xba40;
/// LIVEUPDATE_SESSION_RETRIEVE_FD: `_IO(LIVEUPDATE_IOCTL_TYPE, 0x41)`.
const RETRIEVE_FD: libc::Ioctl = 0xba41;
/// LIVEUPDATE_SESSION_FINISH: `_IO(LIVEUPDATE_IOCTL_TYPE, 0x42)`.
const FINISH: libc::Ioctl = 0xba42;

/// LIVEUPDATE_SESSION_NAME_LENGTH: bytes of a name with its NUL.
const NAME_LENGTH: usize = 64;

/// The device.
pub const DEVICE: &str = "/dev/liveupdate";
/// What a [`Holder`] is called in /proc/PID/comm.
pub const HOLDER: &CStr = c"rkexec-hold";

/// How long the end of a [`Holder`] is waited for, milliseconds.
const END: u16 = 2000;

/// `struct liveupdate_ioctl_create_session` and `struct liveupdate_ioctl_retrieve_session`.
#[repr(C)]
struct SessionCall {
    size: u32,
    fd: i32,
    name: [u8; NAME_LENGTH],
}

/// `struct liveupdate_session_preserve_fd`, where the caller gives the descriptor, and
/// `struct liveupdate_session_retrieve_fd`, where the kernel does.
#[repr(C)]
struct FileCall {
    size: u32,
    fd: i32,
    token: u64,
}

/// `struct liveupdate_session_finish`.
#[repr(C)]
struct FinishCall {
    size: u32,
    reserved: u32,
}

/// The name of a session: 1 to 63 bytes without NUL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionName(Vec<u8>);

/// A text is no name of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a session has 1 to 63 bytes")]
pub struct NoSessionName;

impl SessionName {
    /// Takes `name`.
    ///
    /// # Errors
    /// When no session can have it.
    pub fn new(name: OsString) -> Result<Self, NoSessionName> {
        let name = name.into_vec();
        if name.is_empty() || name.len() >= NAME_LENGTH || name.contains(&0) {
            return Err(NoSessionName);
        }
        Ok(Self(name))
    }

    /// Its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        shown(&self.0).fmt(f)
    }
}

/// The device, which one process at a time may have open.
#[derive(Debug)]
pub struct Device(File);

impl Device {
    /// Opens it.
    ///
    /// # Errors
    /// That of open(2).
    pub fn open() -> Result<Self, Errno> {
        let opened = OpenOptions::new().read(true).write(true).open(DEVICE);
        opened.map(Self).map_err(|error| errno(&error))
    }

    /// Takes the session `name` that the kernel before handed over. It can be taken once.
    ///
    /// # Errors
    /// That of the call.
    pub fn session(&self, name: &SessionName) -> Result<Session, Errno> {
        self.open_session(RETRIEVE_SESSION, name).map(Session)
    }

    /// Makes the session `name` for the next kernel, with no file in it.
    ///
    /// # Errors
    /// That of the call.
    pub fn create(&self, name: &SessionName) -> Result<Outgoing, Errno> {
        self.open_session(CREATE_SESSION, name).map(Outgoing)
    }

    fn open_session(&self, request: libc::Ioctl, name: &SessionName) -> Result<OwnedFd, Errno> {
        let mut call = SessionCall {
            size: size::<SessionCall>(),
            fd: -1,
            name: [0; NAME_LENGTH],
        };
        for (to, from) in call.name.iter_mut().zip(&name.0) {
            *to = *from;
        }
        // SAFETY: this is the structure of both calls.
        unsafe { ioctl(&self.0, request, &mut call)? };
        // SAFETY: the kernel made this descriptor for us just now.
        Ok(unsafe { OwnedFd::from_raw_fd(call.fd) })
    }
}

/// A session for the next kernel. It is handed over only if it is open until then: when
/// the last descriptor is closed, the kernel gives its files up again.
#[derive(Debug)]
pub struct Outgoing(OwnedFd);

impl Outgoing {
    /// Puts `file`, a file in memory, into it under `token`. From now on its size is fixed,
    /// and its pages stay where they are.
    ///
    /// # Errors
    /// That of the call.
    pub fn preserve(&self, file: &File, token: u64) -> Result<(), Errno> {
        let mut call = FileCall {
            size: size::<FileCall>(),
            fd: file.as_raw_fd(),
            token,
        };
        // SAFETY: this is the structure of that call.
        unsafe { ioctl(&self.0, PRESERVE_FD, &mut call) }
    }
}

/// A session that was handed over. Its files stay in it until it is finished.
#[derive(Debug)]
pub struct Session(OwnedFd);

impl Session {
    /// The file with `token`. It is the same file for everybody who asks, so its position
    /// is shared: read it at offsets.
    ///
    /// # Errors
    /// That of the call.
    pub fn file(&self, token: u64) -> Result<File, Errno> {
        let mut call = FileCall {
            size: size::<FileCall>(),
            fd: -1,
            token,
        };
        // SAFETY: this is the structure of that call.
        unsafe { ioctl(&self.0, RETRIEVE_FD, &mut call)? };
        // SAFETY: the kernel made this descriptor for us just now.
        Ok(unsafe { File::from_raw_fd(call.fd) })
    }

    /// Ends it: the kernel frees the files that nobody has open.
    ///
    /// # Errors
    /// That of the call.
    pub fn finish(&self) -> Result<(), Errno> {
        let mut call = FinishCall {
            size: size::<FinishCall>(),
            reserved: 0,
        };
        // SAFETY: this is the structure of that call.
        unsafe { ioctl(&self.0, FINISH, &mut call) }
    }

    /// Starts the process that keeps this session open. It has nothing else open, and it
    /// belongs to no terminal.
    ///
    /// # Errors
    /// When no process, or no pipe to it, can be made.
    pub fn hold(&self) -> Result<Holder, Errno> {
        let (mut ready, writer) = io::pipe().map_err(|error| errno(&error))?;
        // SAFETY: the child makes system calls only, and never returns.
        let child = unsafe { libc::fork() };
        if child == -1 {
            return Err(Errno::last());
        }
        if child == 0 {
            hold_open(self.0.as_raw_fd(), writer.as_raw_fd());
        }
        drop(writer);
        // It ends when the child has closed everything: from then on no signal of this
        // terminal reaches it. An error says no more than that.
        let _ = ready.read(&mut [0]);
        Holder::open(child)
    }
}

/// A process that keeps a session open and does nothing else.
#[derive(Debug)]
pub struct Holder {
    pid: libc::pid_t,
    process: OwnedFd,
}

impl Holder {
    /// The process `pid`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(pid: libc::pid_t) -> Result<Self, Errno> {
        // SAFETY: the call takes two numbers.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let process = descriptor(process)?;
        Ok(Self { pid, process })
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// The session that is its descriptor `fd`.
    ///
    /// # Errors
    /// That of pidfd_getfd(2).
    pub fn session(&self, fd: RawFd) -> Result<Session, Errno> {
        // SAFETY: the call takes three numbers.
        let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.process.as_raw_fd(), fd, 0) };
        descriptor(copy).map(Session)
    }

    /// Ends it, and waits until it has. One that has ended by itself is no error.
    pub fn end(self) {
        let none = ptr::null::<libc::siginfo_t>();
        let process = self.process.as_raw_fd();
        // SAFETY: without a siginfo_t the kernel makes its own.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process, libc::SIGKILL, none, 0) };
        // A descriptor of a process can be read when that has ended.
        let mut ended = [PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ended, END);
    }
}

/// What the child of [`Session::hold`] does: closes all but `session`, `ready` last, and
/// waits to be ended.
fn hold_open(session: RawFd, ready: RawFd) -> ! {
    let (low, high) = (session - 1, session + 1);
    // SAFETY: system calls that touch no memory but two literals. The process never
    // returns to what it was forked from, so no descriptor of that is used again.
    unsafe {
        libc::setsid();
        // No file system stays busy because of it.
        libc::chdir(c"/".as_ptr());
        libc::prctl(libc::PR_SET_NAME, HOLDER.as_ptr());
        if low >= 0 {
            libc::syscall(libc::SYS_close_range, 0, low, 0);
        }
        libc::syscall(libc::SYS_close_range, high, c_int::MAX, 0);
        libc::close(ready);
        loop {
            libc::pause();
        }
    }
}

/// Makes the call.
///
/// # Safety
/// `argument` is the structure that the header defines for `request`, and begins with its
/// size.
unsafe fn ioctl<T>(fd: &impl AsRawFd, request: libc::Ioctl, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: the kernel reads and writes the bytes of `argument` and no others.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request, ptr::from_mut(argument)) };
    if done == -1 {
        return Err(Errno::last());
    }
    Ok(())
}

/// What a call that makes a descriptor returned.
fn descriptor(returned: c_long) -> Result<OwnedFd, Errno> {
    let fd = c_int::try_from(returned).unwrap_or(-1);
    if fd < 0 {
        return Err(Errno::last());
    }
    // SAFETY: the kernel made this descriptor for us just now.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The size of a structure that is far smaller than 4 GiB.
#[expect(clippy::cast_possible_truncation, reason = "structures of a few bytes")]
const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

fn errno(error: &io::Error) -> Errno {
    Errno::new(error.raw_os_error().unwrap_or(libc::EIO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;

    #[test]
    fn the_structures_are_those_of_the_header() {
        assert_eq!(size::<SessionCall>(), 72);
        assert_eq!(std::mem::offset_of!(SessionCall, name), 8);
        assert_eq!(size::<FileCall>(), 16);
        assert_eq!(std::mem::offset_of!(FileCall, token), 8);
        assert_eq!(size::<FinishCall>(), 8);
    }

    #[test]
    fn names_that_a_session_can_have() {
        let name = |bytes: &[u8]| SessionName::new(std::ffi::OsStr::from_bytes(bytes).to_owned());
        assert_eq!(name(b"first vm").unwrap().to_string(), "first vm");
        assert_eq!(name(&[b'x'; 63]).unwrap().bytes(), [b'x'; 63]);
        assert_eq!(name(b"\xff\x1b").unwrap().to_string(), "\\xff\\x1b");
        for bytes in [&b""[..], &[b'x'; 64], b"a\0b"] {
            assert_eq!(name(bytes), Err(NoSessionName));
        }
    }

    /// The process lives until it is ended, and has one file open: that is what the kernel
    /// needs to keep a session.
    #[test]
    fn a_holder_keeps_one_file_open_until_it_is_ended() {
        let (mut reader, writer) = io::pipe().unwrap();
        let held = Session(writer.into());
        let fd = held.0.as_raw_fd();
        let holder = held.hold().unwrap();
        drop(held);
        let proc = format!("/proc/{}", holder.pid());
        let comm = std::fs::read(format!("{proc}/comm")).unwrap();
        assert_eq!(comm.trim_ascii(), HOLDER.to_bytes());
        let open = std::fs::read_dir(format!("{proc}/fd")).unwrap();
        let open: Vec<_> = open.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(open, [OsString::from(fd.to_string())]);
        assert_eq!(
            std::fs::read_link(format!("{proc}/cwd")).unwrap(),
            std::path::Path::new("/")
        );
        // Its end is the end of the last writer.
        holder.end();
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn what_is_no_session_is_refused() {
        let no_session = Session(File::open("/dev/null").unwrap().into());
        let errno = no_session.file(1).unwrap_err();
        assert_eq!(errno.number(), libc::ENOTTY);
        assert_eq!(no_session.finish().unwrap_err().number(), libc::ENOTTY);
        let file = File::open("/dev/null").unwrap();
        let no_session = Outgoing(file.try_clone().unwrap().into());
        let errno = no_session.preserve(&file, 1).unwrap_err();
        assert_eq!(errno.number(), libc::ENOTTY);
    }
}
