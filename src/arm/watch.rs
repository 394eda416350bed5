//! Staying armed: what is done when memory or CPUs come and go.

use std::io;
use std::time::{Duration, Instant};

use super::storm::{Storm, Storms, matters};
use crate::sys::uevent::{Listener, Wake};

/// How what is loaded compares with what configuration and machine ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nothing needs to be loaded, because…
    Fits(String),
    /// The crash kernel must be loaded, because…
    Stale(String),
}

/// The machine that is to stay armed.
pub trait Machine {
    /// Looks at what is loaded.
    ///
    /// # Errors
    /// When that cannot be found out.
    fn assess(&mut self) -> anyhow::Result<State>;

    /// Loads the crash kernel, and says what is loaded now.
    ///
    /// # Errors
    /// When it cannot be loaded.
    fn arm(&mut self) -> anyhow::Result<String>;
}

/// What happens outside, and when.
pub trait Outside {
    /// The time of a clock that never goes back.
    fn now(&self) -> Duration;

    /// Waits as [`Listener::wait`] does.
    ///
    /// # Errors
    /// When events and signals can no longer be received.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Wake>;
}

/// The kernel's events and this process's signals.
#[derive(Debug)]
pub struct Kernel {
    listener: Listener,
    start: Instant,
}

impl Kernel {
    /// Starts to listen: what happens from now on is found.
    ///
    /// # Errors
    /// As [`Listener::open`].
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            listener: Listener::open()?,
            start: Instant::now(),
        })
    }
}

impl Outside for Kernel {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Wake> {
        self.listener.wait(timeout)
    }
}

/// Pause before the retry after a failure. It doubles with each further failure.
pub const RETRY: Duration = Duration::from_secs(60);
/// The longest time between two tries.
pub const RETRY_LONGEST: Duration = Duration::from_secs(3600);

/// The next retry after a failure.
struct Retry {
    due: Duration,
    wait: Duration,
}

/// Watches until a signal ends it. Each decision goes to `log` as one line, with whether
/// it was a failure. After a failure the machine may not be armed, so the load is tried
/// again: after [`RETRY`], or when the next event comes.
///
/// # Errors
/// When events and signals can no longer be received, or `log` fails.
pub fn watch(
    machine: &mut impl Machine,
    outside: &mut impl Outside,
    mut log: impl FnMut(&str, bool) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut storms = Storms::default();
    let mut retry: Option<Retry> = None;
    loop {
        let now = outside.now();
        let storm = storms.over(now);
        let why = storm.as_ref().map(summary).or_else(|| {
            let again = retry.as_ref().is_some_and(|retry| retry.due <= now);
            again.then(|| "after a failure".to_owned())
        });
        if let Some(why) = why {
            let (answer, failed) = answer(machine);
            log(&format!("{why}: {}", answer.replace('\n', " ")), failed)?;
            let before = retry.filter(|_| storm.is_none());
            let wait = before.map_or(RETRY, |retry| (retry.wait * 2).min(RETRY_LONGEST));
            let due = outside.now() + wait;
            retry = failed.then_some(Retry { due, wait });
        }
        let again = retry.as_ref().map(|retry| retry.due);
        let due = storms.due().into_iter().chain(again).min();
        let timeout = due.map(|due| due.saturating_sub(outside.now()));
        match outside.wait(timeout)? {
            Wake::Event(event) if !matters(&event) => {}
            // One of the lost events may have mattered.
            Wake::Event(_) | Wake::Lost => storms.event(outside.now()),
            Wake::Timeout => {}
            Wake::Signal(signal) => return log(&format!("ended by {signal}"), false),
        }
    }
}

/// Loads the crash kernel if needed. Returns the line for the log, and whether it failed.
fn answer(machine: &mut impl Machine) -> (String, bool) {
    match machine.assess() {
        Ok(State::Fits(why)) => (format!("nothing to do: {why}"), false),
        Ok(State::Stale(why)) => match machine.arm() {
            Ok(what) => (format!("loaded anew: {why}; {what}"), false),
            Err(error) => (format!("failed to load anew: {why}; {error:#}"), true),
        },
        Err(error) => (
            format!("failed to find out what is loaded: {error:#}"),
            true,
        ),
    }
}

fn summary(storm: &Storm) -> String {
    let seconds = (storm.last - storm.first).as_secs_f64();
    match storm.events {
        1 => "1 event".to_owned(),
        events => format!("{events} events in {seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::uevent::Uevent;
    use std::collections::VecDeque;

    /// A machine that follows a script: what each look finds, how each load ends.
    #[derive(Default)]
    struct Script {
        looks: VecDeque<anyhow::Result<State>>,
        loads: VecDeque<anyhow::Result<String>>,
    }

    impl Machine for Script {
        fn assess(&mut self) -> anyhow::Result<State> {
            self.looks.pop_front().expect("one look too many")
        }

        fn arm(&mut self) -> anyhow::Result<String> {
            self.loads.pop_front().expect("one load too many")
        }
    }

    /// Time that passes while it is waited; at the end comes SIGTERM.
    struct Time {
        now: Duration,
        wakes: VecDeque<(u64, Wake)>,
    }

    impl Outside for Time {
        fn now(&self) -> Duration {
            self.now
        }

        fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Wake> {
            let end = timeout.map(|timeout| self.now + timeout);
            let next = self.wakes.front().map(|(at, _)| Duration::from_millis(*at));
            match (next, end) {
                (Some(next), Some(end)) if end < next => {
                    self.now = end;
                    Ok(Wake::Timeout)
                }
                (Some(next), _) => {
                    self.now = self.now.max(next);
                    Ok(self.wakes.pop_front().unwrap().1)
                }
                (None, Some(end)) => {
                    self.now = end;
                    Ok(Wake::Timeout)
                }
                (None, None) => Ok(Wake::Signal("SIGTERM")),
            }
        }
    }

    fn event(subsystem: &str) -> Wake {
        Wake::Event(Uevent {
            action: "online".to_owned(),
            devpath: "/devices/x".to_owned(),
            subsystem: subsystem.to_owned(),
            seqnum: 1,
        })
    }

    fn fits() -> anyhow::Result<State> {
        Ok(State::Fits("it fits".to_owned()))
    }

    fn stale() -> anyhow::Result<State> {
        Ok(State::Stale("memory came".to_owned()))
    }

    /// The log of a watch over `wakes`, after which nothing of the script is left.
    fn run(mut machine: Script, wakes: Vec<(u64, Wake)>) -> Vec<String> {
        let mut time = Time {
            now: Duration::ZERO,
            wakes: wakes.into(),
        };
        let mut lines = Vec::new();
        watch(&mut machine, &mut time, |line, failed| {
            assert_eq!(failed, line.contains(": failed to "));
            lines.push(line.to_owned());
            Ok(())
        })
        .unwrap();
        assert!(machine.looks.is_empty() && machine.loads.is_empty());
        lines
    }

    #[test]
    fn a_storm_is_one_load_and_one_line() {
        let machine = Script {
            looks: [stale()].into(),
            loads: [Ok("armed".to_owned())].into(),
        };
        let storm = (0..50).map(|n| (n * 100, event("memory"))).collect();
        assert_eq!(
            run(machine, storm),
            [
                "50 events in 4.9 s: loaded anew: memory came; armed",
                "ended by SIGTERM"
            ]
        );
    }

    #[test]
    fn nothing_is_loaded_when_it_fits() {
        let machine = Script {
            looks: [fits(), fits()].into(),
            ..Script::default()
        };
        let wakes = vec![(0, event("cpu")), (5000, Wake::Lost)];
        let line = "1 event: nothing to do: it fits";
        assert_eq!(run(machine, wakes), [line, line, "ended by SIGTERM"]);
    }

    #[test]
    fn other_events_are_no_reason_to_look() {
        let wakes = vec![(0, event("block")), (1, event("net"))];
        assert_eq!(run(Script::default(), wakes), ["ended by SIGTERM"]);
        // Nor do they keep a storm from ending.
        let machine = Script {
            looks: [fits()].into(),
            ..Script::default()
        };
        let mut wakes = vec![(0, event("memory"))];
        wakes.extend((1..10).map(|second| (second * 1000, event("block"))));
        wakes.push((2500, Wake::Signal("SIGINT")));
        assert_eq!(
            run(machine, wakes),
            ["1 event: nothing to do: it fits", "ended by SIGINT"]
        );
    }

    #[test]
    fn after_a_failure_it_goes_on() {
        let machine = Script {
            looks: [stale(), Err(anyhow::anyhow!("no /proc")), stale()].into(),
            loads: [
                Err(anyhow::anyhow!("EBUSY,\nreally").context("load failed")),
                Ok("armed".to_owned()),
            ]
            .into(),
        };
        let wakes = [0, 10_000, 20_000].map(|at| (at, event("memory"))).to_vec();
        assert_eq!(
            run(machine, wakes),
            [
                "1 event: failed to load anew: memory came; load failed: EBUSY, really",
                "1 event: failed to find out what is loaded: no /proc",
                "1 event: loaded anew: memory came; armed",
                "ended by SIGTERM",
            ]
        );
    }

    #[test]
    fn a_failure_is_tried_again_without_an_event() {
        let failed = || Err(anyhow::anyhow!("no"));
        let machine = Script {
            looks: [stale(), stale(), failed(), stale(), fits()].into(),
            loads: [
                Err(anyhow::anyhow!("no")),
                Err(anyhow::anyhow!("no")),
                Ok("armed".to_owned()),
            ]
            .into(),
        };
        // 2 s after the event, then 60, 120 and 240 s later.
        let wakes = vec![
            (0, event("memory")),
            (421_900, event("block")),
            (422_100, event("memory")),
        ];
        let failure = "failed to load anew: memory came; no";
        assert_eq!(
            run(machine, wakes),
            [
                format!("1 event: {failure}"),
                format!("after a failure: {failure}"),
                "after a failure: failed to find out what is loaded: no".to_owned(),
                "after a failure: loaded anew: memory came; armed".to_owned(),
                "1 event: nothing to do: it fits".to_owned(),
                "ended by SIGTERM".to_owned(),
            ]
        );
    }

    #[test]
    fn a_signal_ends_it_in_the_middle_of_a_storm() {
        let wakes = vec![(0, event("memory")), (1000, Wake::Signal("SIGTERM"))];
        assert_eq!(run(Script::default(), wakes), ["ended by SIGTERM"]);
    }

    #[test]
    fn a_storm_without_end_is_answered_every_thirty_seconds() {
        let machine = Script {
            looks: [fits(), fits()].into(),
            ..Script::default()
        };
        let wakes = (0..=60).map(|n| (n * 1000, event("memory"))).collect();
        assert_eq!(
            run(machine, wakes),
            [
                "31 events in 30.0 s: nothing to do: it fits",
                "30 events in 29.0 s: nothing to do: it fits",
                "ended by SIGTERM",
            ]
        );
    }
}
