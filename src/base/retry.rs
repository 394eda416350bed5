//! Repeats a call while the kernel is busy.

use std::time::Duration;

/// Repeats `call` while `is_busy` holds for its error, at most `tries` times, with
/// `wait` in between.
pub(crate) fn patiently<T, E>(
    tries: u32,
    wait: Duration,
    mut sleep: impl FnMut(Duration),
    is_busy: impl Fn(&E) -> bool,
    mut call: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    for _ in 1..tries {
        match call() {
            Err(error) if is_busy(&error) => sleep(wait),
            other => return other,
        }
    }
    call()
}
