//! `--watchdog` in the plan: whether one can be armed, and what the command line says.

use bstr::{BString, ByteSlice as _};

use super::PlanError;
use crate::base::{Target, version};
use crate::cmdline::{self, Cmdline, CmdlineError, OPEN_TIMEOUT};
use crate::host::Host;
use crate::image::Image;
use crate::refusal::watchdog;
use crate::request::LoadRequest;

/// Since when Linux knows [`OPEN_TIMEOUT`].
const SINCE: (u32, u32) = (5, 3);

/// What the operator should know of the watchdog that `request` asks for.
pub(super) fn check(
    request: &LoadRequest,
    host: &Host,
    image: &Image<'_>,
) -> Result<Vec<String>, PlanError> {
    let Some(seconds) = request.watchdog else {
        return Ok(Vec::new());
    };
    if request.target == Target::Crash {
        return Err(PlanError::WatchdogForCrash);
    }
    let device = watchdog::choose(&host.watchdogs, seconds).map_err(PlanError::Watchdog)?;
    let held = (device.active == Some(true)).then(|| {
        let cause = watchdog::held(device, seconds, None);
        let hint = cause.hint.unwrap_or_default();
        format!(
            "exec cannot arm the watchdog as things are now: {} ({hint})",
            cause.why
        )
    });
    let release = image.release().unwrap_or_default();
    let is_unknown = version(release).is_some_and(|version| version < SINCE);
    let unknown = is_unknown.then(|| {
        format!(
            "Linux {release} does not know {OPEN_TIMEOUT}= (5.3 does): when its watchdog driver has started, a hang \
             is not noticed any more"
        )
    });
    let doubt = watchdog::doubt(&host.watchdogs, device);
    Ok([held, unknown, doubt].into_iter().flatten().collect())
}

/// The running command line for `request`: its [`OPEN_TIMEOUT`] is that of an earlier load.
pub(super) fn anew(request: &LoadRequest, running: BString) -> BString {
    match request.watchdog {
        Some(_) if cmdline::has(&running, OPEN_TIMEOUT) => {
            cmdline::without(running.as_bstr(), OPEN_TIMEOUT)
        }
        _ => running,
    }
}

/// `line` for `request`: Linux is told for how long it keeps the watchdog off by itself,
/// unless the line says that already.
pub(super) fn on_line(
    line: Cmdline,
    request: &LoadRequest,
    image: &Image<'_>,
) -> Result<Cmdline, CmdlineError> {
    match request.watchdog {
        Some(seconds) if image.linux().is_some() && !cmdline::has(line.as_bstr(), OPEN_TIMEOUT) => {
            line.with(&format!("{OPEN_TIMEOUT}={seconds}"))
        }
        _ => Ok(line),
    }
}
