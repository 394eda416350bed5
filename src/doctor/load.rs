//! Checks of the load itself.

use super::{Facts, Said, Severity};
use crate::base::{Syscall, Target};
use crate::host::security::{Lockdown, Security};
use crate::refusal::{CallFacts, Cause, forbidden, short_of_memory};

/// Where it is read that the machine is none where a kexec can work.
const OF_ENVIRONMENT: &str = "/sys/hypervisor, /sys/kernel/boot_params, the release";

/// Whether the kernel must refuse the load. Of a machine alone: whether it must refuse both
/// system calls, or one of them.
pub(super) fn refused(facts: &Facts<'_>) -> Vec<Said> {
    let evidence = evidence(facts);
    if let Some(planned) = facts.planned() {
        let refusal = planned.refusal.iter();
        let refusal = refusal.map(|cause| Said::cause(Severity::Blocker, cause, &*evidence));
        return refusal.collect();
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
        forbidden(&call)
    };
    match [Syscall::KexecLoad, Syscall::KexecFileLoad].map(|call| (call, cause(call))) {
        [(_, Some(one)), (_, Some(other))] => {
            let mut said = vec![Said::cause(Severity::Blocker, &one, &*evidence)];
            if other != one {
                said.push(Said::cause(Severity::Blocker, &other, &*evidence));
            }
            said
        }
        [(call, Some(cause)), _] | [_, (call, Some(cause))] => {
            let only = format!(
                "only {} can load a kernel here: {}",
                call.other(),
                cause.why
            );
            vec![Said::new(Severity::Note, only, evidence)]
        }
        [_, _] => Vec::new(),
    }
}

/// The facts that speak against loads, as far as they are set.
fn evidence(facts: &Facts<'_>) -> String {
    let Security {
        lockdown,
        load_disabled,
        cap_sys_boot,
        user_namespace,
        ima_appraise_kexec,
        environment,
        config,
        ..
    } = facts.security;
    let limit = facts.security.load_limit(facts.target);
    let is_locked = lockdown.is_some_and(|mode| mode != Lockdown::None);
    let no_reservation = facts.target == Target::Crash && facts.loaded.crash_size == Some(0);
    let all = [
        (environment.refuses().is_some(), OF_ENVIRONMENT),
        (*cap_sys_boot == Some(false), "/proc/self/status: CapEff"),
        (*user_namespace == Some(true), "/proc/self/uid_map"),
        (
            *load_disabled == Some(true),
            "/proc/sys/kernel/kexec_load_disabled: 1",
        ),
        (limit == Some(0), "/proc/sys/kernel/kexec_load_limit_*: 0"),
        (is_locked, "/sys/kernel/security/lockdown"),
        (
            facts.secure_boot == Some(true),
            "the EFI variable SecureBoot: 1",
        ),
        (
            *ima_appraise_kexec == Some(true),
            "/sys/kernel/security/ima/policy",
        ),
        (
            config.kexec == Some(false),
            "the configuration: no CONFIG_KEXEC",
        ),
        (
            config.kexec_file == Some(false),
            "the configuration: no CONFIG_KEXEC_FILE",
        ),
        (no_reservation, "/sys/kernel/kexec_crash_size: 0"),
        (
            facts.target == Target::Crash && facts.loaded.crash.is_none(),
            "/sys/kernel/kexec_crash_loaded is missing",
        ),
    ];
    let set = all.into_iter().filter(|(is_set, _)| *is_set);
    let set: Vec<&str> = set.map(|(_, name)| name).collect();
    if set.is_empty() {
        return "the plan, MemTotal of /proc/meminfo".to_owned();
    }
    set.join("; ")
}

/// Why there is no plan, or its warnings.
pub(super) fn plan(facts: &Facts<'_>) -> Vec<Said> {
    const EVIDENCE: &str = "the plan (rkexec plan)";
    match facts.load.map(|load| &load.plan) {
        None => Vec::new(),
        Some(Err(cause)) => {
            let evidence = match facts.security.environment.refuses() {
                Some(_) => OF_ENVIRONMENT,
                None => EVIDENCE,
            };
            vec![Said::cause(Severity::Blocker, cause, evidence)]
        }
        Some(Ok(planned)) => {
            let warnings = planned.plan.warnings.iter();
            warnings
                .map(|warning| of_warning(warning, EVIDENCE))
                .collect()
        }
    }
}

/// Parts of the plan's warnings that only tell how it is: nothing is lost, and nothing fails.
const INFORMATION: [&str; 3] = [
    " possible CPUs are there: ",
    " has no effect: ",
    "the pools are protected by ",
];
/// What the way out stands behind in a warning.
const ADD: &str = ". Add: ";

/// A warning of the plan, with the way out that it names.
fn of_warning(warning: &str, evidence: &str) -> Said {
    let is_information = INFORMATION.iter().any(|part| warning.contains(part));
    let severity = match is_information {
        true => Severity::Note,
        false => Severity::Risk,
    };
    match warning.split_once(ADD) {
        Some((finding, add)) => Said::new(severity, finding, evidence).way_out(add),
        None => Said::new(severity, warning, evidence),
    }
}

/// Why the other system call could not load this.
pub(super) fn other_call(facts: &Facts<'_>) -> Vec<Said> {
    let other = facts.load.and_then(|load| load.other.as_ref());
    let Some((syscall, Cause { why, .. })) = other else {
        return Vec::new();
    };
    let finding = format!("{syscall}, which is not taken, could not load this: {why}");
    let evidence = format!("a plan with --syscall {syscall}");
    vec![Said::new(Severity::Note, finding, evidence)]
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
    let evidence = "/proc/meminfo: MemAvailable";
    let said = cause.map(|cause| Said::cause(Severity::Risk, &cause, evidence));
    said.into_iter().collect()
}
