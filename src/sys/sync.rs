//! sync(2) with an end.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// Pause between two checks whether the child is done.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes that must reach the disks to extend the limit. A healthy disk writes more than
/// this in that time.
const PROGRESS: u64 = 1 << 20;

/// Writes what is cached to the disks, as sync(2) does, for as long as that makes
/// progress; says whether it is done. `unwritten` tells how many bytes are left, in
/// this machine's whole memory. When a mebibyte less is left there is `limit` anew.
///
/// sync(2) waits for a dead network file system as long as that is dead, and no
/// signal ends the wait. So a child waits, and is left behind when time is over.
/// A thread would not do: the process could not end before it. Where no child can be
/// made this process waits, without a limit.
pub fn sync_within(limit: Duration, unwritten: impl FnMut() -> Option<u64>) -> bool {
    in_a_child(limit, unwritten, || {
        // SAFETY: sync() touches no memory of this process.
        unsafe { libc::sync() }
    })
}

/// Runs `work` in a child and waits for its end. `work` may only do what a signal
/// handler may: other threads' locks stay taken in a child.
fn in_a_child(limit: Duration, mut unwritten: impl FnMut() -> Option<u64>, work: fn()) -> bool {
    // SAFETY: the child runs `work`, which does only what a signal handler may,
    // and _exit, which returns to nothing of ours.
    let child = unsafe { libc::fork() };
    if child == -1 {
        work();
        return true;
    }
    if child == 0 {
        work();
        // SAFETY: it ends the child at once, and runs no handler of the parent's.
        unsafe { libc::_exit(0) }
    }
    let mut least = unwritten();
    // A limit too long for the clock means no limit.
    let from_now = || Instant::now().checked_add(limit);
    let mut end = from_now();
    loop {
        // SAFETY: no status is written through the null pointer.
        let ended = unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG) };
        // EINTR cannot be with WNOHANG; any other error means no such child.
        if ended != 0 {
            return true;
        }
        let left = end.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()));
        if !left.is_zero() {
            std::thread::sleep(LOOK.min(left));
            continue;
        }
        // Check only when the limit is over. Other processes may write as well, so
        // progress means that less is left than ever before.
        let now = unwritten();
        match (now, least) {
            (Some(now), Some(before)) if now.saturating_add(PROGRESS) <= before => {
                least = Some(now);
                end = from_now();
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hang() {
        // SAFETY: pause() only waits for a signal, and alarm() brings one, so that no
        // child outlives the tests for long.
        unsafe {
            libc::alarm(20);
            libc::pause();
        }
    }

    #[test]
    fn a_child_that_ends_is_waited_for() {
        let start = Instant::now();
        assert!(in_a_child(Duration::from_secs(60), || None, || {}));
        assert!(start.elapsed() < Duration::from_secs(50));
        for limit in [Duration::from_secs(i64::MAX.unsigned_abs()), Duration::MAX] {
            assert!(in_a_child(limit, || None, || {}));
        }
    }

    #[test]
    fn a_child_that_hangs_is_left() {
        let start = Instant::now();
        // Unknown, not shrinking, and (below) shrinking by too little.
        for unwritten in [None, Some(5 << 20)] {
            assert!(!in_a_child(Duration::from_millis(100), || unwritten, hang));
        }
        let mut left = 5 << 20;
        let little = || {
            left -= PROGRESS - 1;
            Some(left)
        };
        assert!(!in_a_child(Duration::from_millis(100), little, hang));
        assert!(start.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn progress_is_waited_for() {
        let (mut left, mut looks) = (5 << 20, 0);
        let less = || {
            looks += 1;
            left -= PROGRESS;
            (left > 0).then_some(left)
        };
        assert!(!in_a_child(Duration::from_millis(10), less, hang));
        assert_eq!(looks, 5);
    }
}
