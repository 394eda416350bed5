//! When a storm of hotplug events is over: a pure state machine, told the time.
//!
//! At boot, or when a machine is given much memory at once, each memory block
//! and each CPU has events of its own, hundreds in a few seconds. They are
//! answered together: once they have paused, or have gone on for too long.

use std::time::Duration;

use crate::sys::uevent::Uevent;

/// A storm is over when nothing happened for so long.
pub const QUIET: Duration = Duration::from_secs(2);
/// A storm is answered after so long, even if it goes on. Later events begin the next one.
pub const LONGEST: Duration = Duration::from_secs(30);

/// Events without a pause of [`QUIET`] between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storm {
    /// How many there were.
    pub events: u64,
    /// When the first one came.
    pub first: Duration,
    /// When the last one came.
    pub last: Duration,
}

/// The storm that goes on, if one does. Times are those of one clock that never
/// goes back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Storms {
    current: Option<Storm>,
}

/// Whether an event may have changed what a dump of this machine must hold:
/// memory or a CPU came, went, or was switched on or off.
#[must_use]
pub fn matters(event: &Uevent) -> bool {
    let (subsystem, action) = (event.subsystem.as_str(), event.action.as_str());
    matches!(subsystem, "memory" | "cpu")
        && matches!(action, "add" | "remove" | "online" | "offline")
}

impl Storm {
    /// When it is to be answered, unless there are more events until then.
    #[must_use]
    pub fn due(&self) -> Duration {
        (self.last + QUIET).min(self.first + LONGEST)
    }
}

impl Storms {
    /// An event that matters, at the time `now`.
    pub fn event(&mut self, now: Duration) {
        let storm = self.current.get_or_insert(Storm {
            events: 0,
            first: now,
            last: now,
        });
        storm.events += 1;
        storm.last = now;
    }

    /// When the storm that goes on is to be answered; `None` when it is calm.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.current.as_ref().map(Storm::due)
    }

    /// The storm to be answered at the time `now`, once.
    pub fn over(&mut self, now: Duration) -> Option<Storm> {
        self.current.take_if(|storm| storm.due() <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn event(subsystem: &str, action: &str) -> Uevent {
        Uevent {
            action: action.to_owned(),
            devpath: "/devices/x".to_owned(),
            subsystem: subsystem.to_owned(),
            seqnum: 1,
        }
    }

    #[test]
    fn what_matters() {
        for subsystem in ["memory", "cpu"] {
            for action in ["add", "remove", "online", "offline"] {
                assert!(matters(&event(subsystem, action)));
            }
            for action in ["change", "bind", "move", ""] {
                assert!(!matters(&event(subsystem, action)));
            }
        }
        assert!(!matters(&event("block", "add")));
        assert!(!matters(&event("memory_tiering", "add")));
    }

    #[test]
    fn a_pause_ends_it() {
        let mut storms = Storms::default();
        assert_eq!(storms.due(), None);
        assert_eq!(storms.over(ms(5)), None);
        storms.event(ms(1000));
        storms.event(ms(2999));
        assert_eq!(storms.due(), Some(ms(4999)));
        assert_eq!(storms.over(ms(4998)), None);
        let storm = storms.over(ms(4999)).unwrap();
        assert_eq!(
            (storm.events, storm.first, storm.last),
            (2, ms(1000), ms(2999))
        );
        assert_eq!(storms.over(ms(9999)), None);
    }

    #[test]
    fn thirty_seconds_end_it() {
        let mut storms = Storms::default();
        for second in 0..=29 {
            storms.event(ms(second * 1000));
            assert_eq!(storms.over(ms(second * 1000)), None);
        }
        assert_eq!(storms.due(), Some(ms(30_000)));
        storms.event(ms(30_000));
        assert_eq!(storms.over(ms(30_000)).unwrap().events, 31);
        assert_eq!(storms.due(), None);
    }

    /// Checks every millisecond which events are not yet answered, and whether an answer
    /// is due.
    fn naive(events: &[u64], until: u64) -> Vec<(u64, u64)> {
        let mut answers = Vec::new();
        let mut unseen: Vec<u64> = Vec::new();
        for now in 0..=until {
            unseen.extend(events.iter().filter(|event| **event == now));
            let quiet = unseen.iter().all(|event| event + 2000 <= now);
            let long = unseen.iter().any(|event| event + 30_000 <= now);
            if !unseen.is_empty() && (quiet || long) {
                answers.push((now, unseen.len() as u64));
                unseen.clear();
            }
        }
        answers
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn answers_come_when_a_naive_look_at_the_clock_gives_them(
            // Short gaps and a few long ones, so that both ends of a storm are met.
            gaps in prop::collection::vec(prop_oneof![8 => 0..1999_u64, 1 => 1990..2010_u64, 1 => 0..9000_u64], 0..80),
        ) {
            let events: Vec<u64> = gaps
                .iter()
                .scan(0, |now, gap| { *now += gap; Some(*now) })
                .collect();
            let until = events.last().copied().unwrap_or(0) + 40_000;
            // As the loop does it: sleeps until the next event or until it is due.
            let mut storms = Storms::default();
            let mut answers = Vec::new();
            let mut coming = events.iter().copied().peekable();
            loop {
                let next = coming.peek().copied().map(ms);
                let now = match (next, storms.due()) {
                    (None, None) => break,
                    (Some(event), Some(due)) if due < event => due,
                    (Some(event), _) => {
                        coming.next();
                        storms.event(event);
                        event
                    }
                    (None, Some(due)) => due,
                };
                if let Some(storm) = storms.over(now) {
                    let now = u64::try_from(now.as_millis()).unwrap();
                    answers.push((now, storm.events));
                }
            }
            prop_assert_eq!(answers, naive(&events, until));
        }
    }
}
