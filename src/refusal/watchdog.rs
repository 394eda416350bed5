//! Why no watchdog can be armed for the next kernel, and what to do about it.

use super::Cause;
use crate::host::watchdog::{OUTSIDE, Watchdog, Watchdogs};

/// Where the watchdogs are read.
const DEVICES: &str = "/sys/class/watchdog";
/// What softdog calls itself: a timer of the kernel that runs.
const SOFTWARE: &str = "Software Watchdog";
/// Drivers that stop their watchdog when the running kernel jumps to another one, unless
/// `watchdog.stop_on_reboot=0` forbids it, by what they call themselves: those of
/// drivers/watchdog in Linux 7.2 that call `watchdog_stop_on_reboot` and exist on x86.
const STOPPED: [&str; 15] = [
    "CGBC Watchdog",
    "Exar XR28V38x Watchdog",
    "GPIO Watchdog",
    "IT87 WDT",
    "KEMPLD Watchdog",
    "Lenovo SE10 Watchdog",
    "Lenovo SE30 watchdog",
    "SP5100 TCO timer",
    "W83627HF Watchdog",
    "i6300ESB timer",
    "iTCO_wdt",
    "intel_oc_wdt",
    "mlx-wdt-main",
    "wdat_wdt",
    "xen_wdt",
];
/// A driver that leaves it running: hpwdt.
const KEPT: &str = "HPE iLO2+ HW Watchdog Timer";

/// A program that has a watchdog open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its process ID.
    pub pid: u32,
    /// Its name, of /proc/PID/comm.
    pub name: String,
}

/// The watchdog that can be armed for `seconds`: the first one that nothing is known
/// against, and of those the first that no program has running.
///
/// # Errors
/// When there is none: what is against the first one.
pub fn choose(watchdogs: &Watchdogs, seconds: u64) -> Result<&Watchdog, Cause> {
    let mut usable: Option<&Watchdog> = None;
    let mut against = None;
    for device in &watchdogs.devices {
        match objection(watchdogs, device, seconds) {
            Some(cause) => against = against.or(Some(cause)),
            None if device.active != Some(true) => return Ok(device),
            None => usable = usable.or(Some(device)),
        }
    }
    usable.ok_or_else(|| against.unwrap_or_else(no_device))
}

fn no_device() -> Cause {
    Cause::new("this machine has no watchdog device (/dev/watchdog)")
        .hint(
            "load the driver of its watchdog first, for example modprobe iTCO_wdt (Intel), sp5100_tco (AMD) or \
             ipmi_watchdog (servers), or leave --watchdog out",
        )
        .read_from(DEVICES)
}

/// What is against `device`; `None` when nothing is known.
fn objection(watchdogs: &Watchdogs, device: &Watchdog, seconds: u64) -> Option<Cause> {
    let cause = |why: String, hint: String| Some(Cause::new(why).hint(hint).read_from(DEVICES));
    let identity = device.identity.as_deref().unwrap_or_default();
    if identity == SOFTWARE {
        return cause(
            format!("{device} is a timer of the running kernel, and ends with it"),
            "load the driver of a hardware watchdog".to_owned(),
        );
    }
    if let Some(most) = device.max_timeout.filter(|most| *most < seconds) {
        return cause(
            format!("{device} counts at most {most} seconds, not {seconds}"),
            format!("--watchdog {most} is possible"),
        );
    }
    if let Some(least) = device.min_timeout.filter(|least| *least > seconds) {
        return cause(
            format!("{device} counts at least {least} seconds, not {seconds}"),
            format!("--watchdog {least} is possible"),
        );
    }
    let is_stopped = match watchdogs.stop_on_reboot {
        Some(stops) => stops,
        None => STOPPED.contains(&identity),
    };
    if is_stopped {
        return cause(
            format!("the running kernel stops {device} when it jumps to the next one"),
            "boot the running kernel with watchdog.stop_on_reboot=0 on its command line (Linux 5.7 and later), then \
             it leaves watchdogs running"
                .to_owned(),
        );
    }
    None
}

/// A warning where it is not known whether `device` goes on when the kernel jumps.
#[must_use]
pub fn doubt(watchdogs: &Watchdogs, device: &Watchdog) -> Option<String> {
    // Its driver does not use the kernel's core for watchdogs, whose parameter that is.
    if device.name == OUTSIDE {
        return Some(format!(
            "whether the driver of /dev/{OUTSIDE} leaves it running at the jump is not known, nor whether it takes \
             the time: that of IPMI makes 120 s of less"
        ));
    }
    let is_known =
        watchdogs.stop_on_reboot == Some(false) || device.identity.as_deref() == Some(KEPT);
    (!is_known).then(|| {
        format!(
            "whether the driver of {device} leaves it running at the jump is not known: \
             watchdog.stop_on_reboot=0 on the running kernel's command line makes it so (Linux 5.7 and later)"
        )
    })
}

/// Why `device` cannot be armed for `seconds` while another program has it: `holder`, if
/// that is known.
#[must_use]
pub fn held(device: &Watchdog, seconds: u64, holder: Option<&Holder>) -> Cause {
    let who = match holder {
        Some(Holder { pid: 1, name }) => format!("the init system ({name}, PID 1)"),
        Some(Holder { pid, name }) => format!("{name} (PID {pid})"),
        None => "another program".to_owned(),
    };
    let hint = match holder {
        Some(Holder { pid, .. }) if *pid != 1 => {
            format!(
                "stop that program first: whoever has {} open keeps it off",
                device.name
            )
        }
        _ => format!(
            "if that is systemd, have it arm the watchdog: KExecWatchdogSec={seconds} in /etc/systemd/system.conf, \
             systemctl daemon-reexec, and boot with rkexec exec --shutdown"
        ),
    };
    Cause::new(format!(
        "{who} holds {device}, which one program alone can arm"
    ))
    .hint(hint)
}

/// What a device does that was told to count `asked` seconds: it says that it counts
/// `granted`, and that the hardware has `left` of them, where its driver tells.
/// `Ok`: a warning, where it counts longer.
///
/// # Errors
/// When it counts less. The machine would be reset while the next kernel still starts.
pub fn counts(
    device: &Watchdog,
    asked: u64,
    granted: u64,
    left: Option<u64>,
) -> Result<Option<String>, Cause> {
    let less = |why: String, most| Cause::new(why).hint(format!("--watchdog {most} is possible"));
    if granted < asked {
        let why = format!("{device} counts {granted} seconds, not {asked}");
        return Err(less(why, granted));
    }
    // A second may have passed, and drivers round down.
    if let Some(left) = left.filter(|left| *left > 0 && left.saturating_add(2) < asked) {
        let why = format!(
            "{device} counts {left} seconds by itself, not {asked}: the running kernel counts the rest, and that \
             ends at the jump"
        );
        return Err(less(why, left));
    }
    Ok((granted > asked).then(|| format!("{device} counts {granted} seconds instead of {asked}")))
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
