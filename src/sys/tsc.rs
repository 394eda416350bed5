//! The time stamp counter of the CPU, and how fast it runs.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::time::Duration;

/// The shortest and the longest time over which the counter is measured.
const MEASURED: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(500)];
/// The machine has run for so many times the time that is measured, between these two: the
/// error of the rate counts for all of its uptime.
const UPTIME_OF_MEASURED: u32 = 5000;
/// How often counter and clock are read together. The reads that took the least time count.
const READS: usize = 8;

/// What a counter says of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// It made so many ticks,
    pub ticks: u64,
    /// in this time.
    pub within: Duration,
    /// What it showed
    pub now: u64,
    /// when CLOCK_MONOTONIC_RAW showed this: the time since boot without sleep.
    pub uptime: Duration,
    /// How long the machine slept since its boot.
    pub asleep: Duration,
}

impl Clock {
    /// Measures the counter against the kernel's clock, which takes 20 ms to half a
    /// second. `None` where one of them cannot be read.
    #[must_use]
    pub fn measure() -> Option<Self> {
        let (tsc, start) = pair()?;
        let [least, most] = MEASURED;
        std::thread::sleep((start / UPTIME_OF_MEASURED).clamp(least, most));
        let (now, uptime) = pair()?;
        let with_sleep = clock(libc::CLOCK_BOOTTIME)?;
        Some(Self {
            ticks: now.checked_sub(tsc).filter(|ticks| *ticks != 0)?,
            within: uptime.checked_sub(start)?,
            now,
            uptime,
            asleep: with_sleep.saturating_sub(clock(libc::CLOCK_MONOTONIC)?),
        })
    }

    /// The time from one value of the counter to another; `None` when it went back.
    #[must_use]
    pub fn time(&self, from: u64, to: u64) -> Option<Duration> {
        let ticks = u128::from(to.checked_sub(from)?);
        let nanoseconds =
            ticks.checked_mul(self.within.as_nanos())? / u128::from(self.ticks.max(1));
        u64::try_from(nanoseconds).ok().map(Duration::from_nanos)
    }
}

/// The counter; `None` where this process may not read it (PR_SET_TSC of prctl(2)): RDTSC
/// would end it.
#[must_use]
pub fn now() -> Option<u64> {
    let mut mode: c_int = 0;
    // SAFETY: the kernel writes an int to the address given.
    let answer = unsafe { libc::prctl(libc::PR_GET_TSC, &raw mut mode) };
    if answer == 0 && mode == libc::PR_TSC_SIGSEGV {
        return None;
    }
    // SAFETY: every x86_64 CPU has RDTSC, and this process may use it.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

/// Counter and CLOCK_MONOTONIC_RAW at one moment.
fn pair() -> Option<(u64, Duration)> {
    let read = || {
        let before = now()?;
        let time = clock(libc::CLOCK_MONOTONIC_RAW)?;
        let took = now()?.checked_sub(before)?;
        Some((took, before + took / 2, time))
    };
    let best = (0..READS).filter_map(|_| read()).min();
    best.map(|(_, tsc, time)| (tsc, time))
}

fn clock(id: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes a timespec to the address given.
    let answer = unsafe { libc::clock_gettime(id, &raw mut time) };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    (answer == 0).then(|| Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_time() {
        let clock = Clock {
            ticks: 50_000_000,
            within: Duration::from_millis(20),
            now: 0,
            uptime: Duration::ZERO,
            asleep: Duration::ZERO,
        };
        let second = 2_500_000_000;
        assert_eq!(clock.time(7, 7 + second), Some(Duration::from_secs(1)));
        // Years of ticks do not overflow.
        let year = 365 * 24 * 60 * 60;
        assert_eq!(
            clock.time(0, second * year),
            Some(Duration::from_secs(year))
        );
        assert_eq!(clock.time(8, 7), None);
    }

    #[test]
    fn the_counter_of_this_cpu_is_measured() {
        let clock = Clock::measure().unwrap();
        assert!(clock.within >= MEASURED[0], "{clock:?}");
        let measured = clock.time(clock.now - clock.ticks, clock.now);
        let measured = measured.unwrap();
        let error = measured.abs_diff(clock.within);
        assert!(error < Duration::from_micros(1), "{clock:?}");
        assert!(now().unwrap() > clock.now);
    }
}
