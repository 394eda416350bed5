//! Where the time of a kexec went: from the time stamps of `exec` and purgatory, and the
//! time at which this kernel started init.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::Record;
use super::stamps::Stamps;
use crate::host::Host;
use crate::host::cpu::Cpu;
use crate::sys::tsc::Clock;

/// A machine that slept for longer than this after its boot has no end of the last phase:
/// the time stamp counter went on, or began anew, and the kernel's clock stood still.
const ASLEEP: Duration = Duration::from_millis(100);

/// Why a load leaves no time stamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Untimed {
    /// It is a crash kernel's: nobody calls `exec`.
    CrashKernel,
    /// Reading the counter may need the hypervisor, and nobody answers that in purgatory.
    ConfidentialGuest,
    /// The counter is not known to keep its rate.
    UnsteadyCounter,
}

impl Untimed {
    /// Why a kernel for `exec` on a machine with `cpu` gets no time stamps.
    #[must_use]
    pub const fn of(cpu: &Cpu) -> Option<Self> {
        if cpu.confidential.is_some() {
            Some(Self::ConfidentialGuest)
        } else if cpu.steady_tsc {
            None
        } else {
            Some(Self::UnsteadyCounter)
        }
    }

    const fn why(self) -> &'static str {
        match self {
            Self::CrashKernel => "a crash kernel is started by a panic, and not by exec",
            Self::ConfidentialGuest => {
                "a confidential guest's time stamp counter cannot be read in purgatory"
            }
            Self::UnsteadyCounter => {
                "the kernel before did not know whether its time stamp counter keeps its rate"
            }
        }
    }
}

/// One phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its name, as in JSON.
    pub name: &'static str,
    /// What happened in it.
    pub what: &'static str,
    /// How long it took, or why that was not measured.
    pub time: Result<Duration, Cow<'static, str>>,
}

/// Names of the phases, and what happened in them. The last three are the downtime.
const PHASES: [(&str, &str); 4] = [
    ("load", "rkexec planned and loaded"),
    ("exec_to_purgatory", "the kernel before stopped its devices"),
    ("verification", "purgatory checked what was loaded"),
    ("kernel_to_init", "this kernel started"),
];

/// The phases of the kexec that started the machine `host`. `clock` is its time stamp
/// counter, and `init` says when its kernel started init, on CLOCK_MONOTONIC; both are asked
/// only when there are stamps.
#[must_use]
pub fn phases(
    host: &Host,
    record: Option<&Record>,
    clock: impl FnOnce() -> Result<Clock, &'static str>,
    init: impl FnOnce() -> Option<Duration>,
) -> [Phase; 4] {
    let times = match stamps(host, record) {
        Ok(stamps) => times(stamps, clock(), init()),
        Err(why) => [Err(why), Err(why), Err(why), Err(why)],
    };
    let mut times = times.map(|time| time.map_err(Cow::Borrowed)).into_iter();
    PHASES.map(|(name, what)| Phase {
        name,
        what,
        time: times.next().unwrap_or(Err(Cow::Borrowed(""))),
    })
}

/// The stamps that arrived, or why there are none.
fn stamps(host: &Host, record: Option<&Record>) -> Result<Stamps, &'static str> {
    let Some(record) = record else {
        return Err(
            "rkexec did not start this kernel, or it was loaded with kexec_file_load, which has another purgatory",
        );
    };
    if let Some(untimed) = record.untimed {
        return Err(untimed.why());
    }
    let nodes = host
        .boot_params
        .iter()
        .flat_map(|running| &running.setup_data);
    let mut nodes = nodes.filter(|node| Stamps::is_node(&node.data)).peekable();
    if nodes.peek().is_none() {
        return Err("the rkexec that loaded this kernel left no time stamps");
    }
    nodes
        .find_map(|node| Stamps::parse(&node.data))
        .ok_or("purgatory left no time stamps")
}

type Time = Result<Duration, &'static str>;

fn times(stamps: Stamps, clock: Result<Clock, &'static str>, init: Option<Duration>) -> [Time; 4] {
    let between = |from: u64, to: u64| {
        let time = clock?.time(from, to);
        time.ok_or("the time stamp counter was set back")
    };
    let exec = stamps.exec.map_err(|unknown| unknown.why());
    // Both times are in one page.
    let no_load = exec.err().unwrap_or("the load did not note it");
    [
        stamps.load.ok_or(no_load),
        exec.and_then(|exec| between(exec, stamps.entered)),
        between(stamps.entered, stamps.verified),
        clock.and_then(|clock| until_init(&clock, stamps.verified, init)),
    ]
}

/// From `verified` until CLOCK_MONOTONIC showed `init`.
fn until_init(clock: &Clock, verified: u64, init: Option<Duration>) -> Time {
    let init =
        init.ok_or("the kernel's log no longer has the line that says when init was started")?;
    if clock.asleep > ASLEEP {
        return Err("the machine slept since it was booted");
    }
    let since = clock.time(verified, clock.now);
    let after = clock.uptime.checked_sub(init);
    since
        .zip(after)
        .and_then(|(since, after)| since.checked_sub(after))
        .ok_or("the time stamp counter was set back")
}

/// From the call of `exec` until init; `None` when a phase of it is not known.
#[must_use]
pub fn downtime(phases: &[Phase; 4]) -> Option<Duration> {
    let [_load, down @ ..] = phases;
    down.iter().map(|phase| phase.time.as_ref().ok()).sum()
}

#[cfg(test)]
#[path = "phases_tests.rs"]
mod tests;
