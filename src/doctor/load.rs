//! Checks of the load itself.

use super::{Facts, Said, Severity};
use crate::base::Syscall;
use crate::refusal::{CallFacts, Cause, forbidden, missing, short_of_memory};

/// What a finding is read from where no fact of its own is behind it.
const PLAN: &str = "the plan (rkexec plan)";

/// Whether the kernel must refuse the load. Of a machine alone: whether it must refuse both
/// system calls, or one of them.
pub(super) fn refused(facts: &Facts<'_>) -> Vec<Said> {
    if let Some(planned) = facts.planned() {
        let refusal = planned
            .refusal
            .clone()
            .map(|cause| (Severity::Blocker, cause));
        let refusal = refusal.or_else(|| not_there(&planned.call));
        let said = refusal.map(|(severity, cause)| Said::cause(severity, &cause, PLAN));
        return said.into_iter().collect();
    }
    // Why there is no plan is said by the next check.
    if facts.load.is_some() {
        return Vec::new();
    }
    let cause = |syscall| {
        let call = CallFacts::new(syscall, facts.target, facts.security, facts.loaded);
        let call = CallFacts {
            efi_secure_boot: facts.secure_boot,
            ..call
        };
        let forbidden = forbidden(&call).map(|cause| (Severity::Blocker, cause));
        match (not_there(&call), forbidden) {
            (Some((Severity::Risk, _)), Some(forbidden)) => Some(forbidden),
            (not_there, forbidden) => not_there.or(forbidden),
        }
    };
    match [Syscall::KexecLoad, Syscall::KexecFileLoad].map(|call| (call, cause(call))) {
        [(_, Some((one_is, one))), (_, Some((other_is, other)))] => {
            // With a call that may be there, the load may work.
            let severity = one_is.max(other_is);
            let mut said = vec![Said::cause(severity, &one, PLAN)];
            if other != one {
                said.push(Said::cause(severity, &other, PLAN));
            }
            said
        }
        [(call, Some((_, cause))), _] | [_, (call, Some((_, cause)))] => {
            let only = format!(
                "only {} can load a kernel here: {}",
                call.other(),
                cause.why
            );
            let evidence = cause.evidence.unwrap_or(PLAN);
            vec![Said::new(Severity::Note, only, evidence)]
        }
        [_, _] => Vec::new(),
    }
}

/// Whether the call is built into the kernel. A configuration in /boot may be another
/// kernel's.
fn not_there(call: &CallFacts<'_>) -> Option<(Severity, Cause)> {
    let severity = match call.kernel_tells_what_is_built() {
        true => Severity::Blocker,
        false => Severity::Risk,
    };
    missing(call).map(|cause| (severity, cause))
}

/// Why there is no plan, or its warnings.
pub(super) fn plan(facts: &Facts<'_>) -> Vec<Said> {
    match facts.load.map(|load| &load.plan) {
        None => Vec::new(),
        Some(Err(cause)) => vec![Said::cause(Severity::Blocker, cause, PLAN)],
        Some(Ok(planned)) => {
            let warnings = planned.plan.warnings.iter();
            warnings
                .map(|warning| of_warning(warning, planned.plan.is_note(warning)))
                .collect()
        }
    }
}

/// What the way out stands behind in a warning.
const ADD: &str = ". Add: ";

/// A warning of the plan, with the way out that it names.
fn of_warning(warning: &str, is_note: bool) -> Said {
    let severity = match is_note {
        true => Severity::Note,
        false => Severity::Risk,
    };
    match warning.split_once(ADD) {
        Some((finding, add)) => Said::new(severity, finding, PLAN).way_out(add),
        None => Said::new(severity, warning, PLAN),
    }
}

/// Why the other system call could not load this.
pub(super) fn other_call(facts: &Facts<'_>) -> Vec<Said> {
    let other = facts.load.and_then(|load| load.other.as_ref());
    let Some((syscall, cause)) = other else {
        return Vec::new();
    };
    let why = &cause.why;
    vec![Said {
        finding: format!("{syscall}, which is not taken, could not load this: {why}"),
        ..Said::cause(
            Severity::Note,
            cause,
            format!("a plan with --syscall {syscall}"),
        )
    }]
}

/// Facts that are not known. Without the machine's memory nothing can be said for a load.
pub(super) fn unread(facts: &Facts<'_>) -> Vec<Said> {
    let mut said = Vec::new();
    if let Err(cause) = facts.host {
        let finding = format!("most checks were not made: {}", cause.why);
        let evidence = "/proc and /sys";
        said.push(Said {
            way_out: cause.hint.clone(),
            ..Said::new(Severity::Risk, finding, evidence)
        });
    }
    let unread = facts.around.unread.iter();
    said.extend(unread.map(|why| {
        let finding = format!("a check was not made: {why}");
        Said::new(Severity::Note, finding, "/proc, /sys and /etc")
    }));
    said
}

/// Whether the memory is enough for the load.
pub(super) fn memory(facts: &Facts<'_>) -> Vec<Said> {
    let cause = facts
        .planned()
        .and_then(|planned| short_of_memory(&planned.call));
    let said = cause.map(|cause| Said::cause(Severity::Risk, &cause, PLAN));
    said.into_iter().collect()
}
