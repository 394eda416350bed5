//! sync(2) with an end.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use super::Errno;

/// How often is looked whether the child is done.
const LOOK: Duration = Duration::from_millis(20);

/// Writes what is cached to the disks, as sync(2) does, and waits for at most
/// `limit`; says whether it is done.
///
/// sync(2) waits for a dead network file system as long as that is dead, and no
/// signal ends the wait. So a child waits, and is left behind when time is over.
/// A thread would not do: the process could not end before it.
///
/// # Errors
/// When no child can be made; nothing was written then.
pub fn sync_within(limit: Duration) -> Result<bool, Errno> {
    in_a_child(limit, || {
        // SAFETY: sync() touches no memory of this process.
        unsafe { libc::sync() }
    })
}

/// Runs `work` in a child and waits for its end, for at most `limit`. `work` may
/// only do what a signal handler may: other threads' locks stay taken in a child.
fn in_a_child(limit: Duration, work: fn()) -> Result<bool, Errno> {
    let end = Instant::now() + limit;
    // SAFETY: the child runs `work`, which does only what a signal handler may,
    // and _exit, which returns to nothing of ours.
    let child = unsafe { libc::fork() };
    if child == -1 {
        return Err(Errno::last());
    }
    if child == 0 {
        work();
        // SAFETY: it ends the child at once, and runs no handler of the parent's.
        unsafe { libc::_exit(0) }
    }
    loop {
        // SAFETY: no status is written through the null pointer.
        let ended = unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG) };
        let left = end.saturating_duration_since(Instant::now());
        match ended {
            0 if left.is_zero() => return Ok(false),
            0 => std::thread::sleep(LOOK.min(left)),
            // EINTR cannot be with WNOHANG; any other error means no such child.
            _ => return Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_ends_is_waited_for() {
        let start = Instant::now();
        assert_eq!(in_a_child(Duration::from_secs(60), || {}), Ok(true));
        assert!(start.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn a_child_that_hangs_is_left() {
        let start = Instant::now();
        let hang = || {
            // SAFETY: pause() only waits for a signal, and alarm() brings one, so
            // that no child outlives the tests for long.
            unsafe {
                libc::alarm(20);
                libc::pause();
            }
        };
        assert_eq!(in_a_child(Duration::from_millis(100), hang), Ok(false));
        assert!(start.elapsed() < Duration::from_secs(15));
    }
}
