//! The watchdog of `rkexec exec`, for when the next kernel hangs.

use super::exec::ExecArgs;
use super::{Context, Usage};
use crate::load::record::LoadRecord;
use crate::load::watchdog::{Armed, WayBack};

/// The watchdog that is to be armed just before the jump; `record` is that of the load.
/// What is against it is found now, before anything is done.
pub(super) fn way_back(
    context: &Context,
    args: &ExecArgs,
    record: Option<&LoadRecord>,
) -> anyhow::Result<Option<WayBack>> {
    let root = &context.root;
    let recorded = || record.and_then(|record| record.kept.watchdog);
    let Some(seconds) = args.watchdog.or_else(recorded) else {
        return Ok(None);
    };
    if args.shutdown {
        let why = format!(
            "the init system makes the jump, and arms no watchdog unless it is told to: systemd does with \
             KExecWatchdogSec={seconds} in /etc/systemd/system.conf"
        );
        if args.watchdog.is_some() {
            return Err(Usage(format!(
                "exec failed: not both --watchdog and --shutdown: {why}"
            ))
            .into());
        }
        context.warn(&why);
        return Ok(None);
    }
    let way_back = match WayBack::find(root, seconds) {
        Ok(way_back) => way_back,
        Err(error) if args.runs_by_other => return Ok(go_on_without(context, &error)),
        Err(error) => return Err(error),
    };
    match way_back.held(root) {
        None => Ok(Some(way_back)),
        Some(held) if args.runs_by_other => {
            context.warn(&format!("{}; {}", held.why(), way_back.runs_already()));
            Ok(None)
        }
        Some(held) => Err(held.into()),
    }
}

/// Says why no watchdog is armed. At the end of a shutdown nobody is there to mend it, and
/// the jump is what was asked for.
fn go_on_without<T>(context: &Context, error: &anyhow::Error) -> Option<T> {
    context.warn(&format!("no watchdog is armed: {error:#}"));
    None
}

/// Arms it.
pub(super) fn arm(
    context: &Context,
    args: &ExecArgs,
    way_back: WayBack,
) -> anyhow::Result<Option<Armed>> {
    match way_back.arm(&context.root) {
        Ok((armed, warning)) => {
            warning.iter().for_each(|warning| context.warn(warning));
            Ok(Some(armed))
        }
        Err(error) if args.runs_by_other => Ok(go_on_without(context, &error.into())),
        Err(error) => Err(error.into()),
    }
}
