//! `rkexec status` for people.

use std::fmt::Write as _;

use super::Status;
use crate::base::bytes::{shown, shown_name};
use crate::base::printable::inline;
use crate::base::{Syscall, Target, human};
use crate::crash::sizing::Sizing;
use crate::host::kho::{Kho, State};
use crate::host::loaded::Loaded;
use crate::host::security::Lockdown;
use crate::load::armed::{Armed, NOT_TOLD};
use crate::load::record::LoadRecord;
use crate::refusal::Cause;

/// The answers first: the crash kernel, the kernel for `exec`, and what blocks a load.
/// With `all` every other fact, too.
pub(super) fn of(status: &Status, all: bool) -> String {
    let loaded = &status.loaded;
    let crash = status.crash.as_ref();
    let verdict = verdict(&status.armed, crash.map(release), loaded);
    let mut out = format!("crash kernel: {}\n", inline(&verdict));
    out += &details(crash);
    if let Some(sizing) = &status.sizing {
        let _ = writeln!(out, "  {:<14} {}", "memory:", memory(sizing));
    }
    let exec = match (loaded.normal, &status.normal) {
        (Some(true), Some(record)) => format!("ready, {}", release(record)),
        (Some(true), None) => "loaded, by another tool".to_owned(),
        (Some(false), _) => "none is loaded".to_owned(),
        (None, _) => "cannot tell: /sys/kernel/kexec_loaded is missing".to_owned(),
    };
    let _ = writeln!(out, "exec kernel:  {}", inline(&exec));
    out += &details(status.normal.as_ref());
    out += &of_obstacles(&status.obstacles);
    if all {
        out.push('\n');
        out += &facts(status);
    }
    out
}

/// Whether the next panic is dumped, in one sentence. `release` is that of the crash kernel.
fn verdict(armed: &Armed, release: Option<&str>, loaded: &Loaded) -> String {
    let which = release.map_or_else(String::new, |release| format!(", {release}"));
    match armed {
        Armed::Yes => format!("ready{which}, up to date"),
        Armed::Stale(why) => format!("OUT OF DATE{which}: {why}"),
        Armed::Unknown(why) => format!("loaded{which}; cannot tell whether it fits: {why}"),
        Armed::NotTold => format!("cannot tell whether one is loaded: {NOT_TOLD}"),
        Armed::No => format!("NOT loaded ({})", reservation(loaded)),
    }
}

/// The size of the reservation, which the kernel does not tell during a load.
fn reservation(loaded: &Loaded) -> String {
    match loaded.crash_size {
        _ if loaded.busy => "a load is under way".to_owned(),
        None => "size of the reservation unknown".to_owned(),
        Some(0) => "no memory is reserved for one".to_owned(),
        Some(size) => format!("{} reserved", human(size)),
    }
}

fn release(record: &LoadRecord) -> &str {
    let release = record.release.as_deref();
    release.unwrap_or("a kernel without a version")
}

/// What the record says of a loaded kernel.
fn details(record: Option<&LoadRecord>) -> String {
    let Some(record) = record else {
        return String::new();
    };
    let file = shown_name(&record.kept.kernel);
    let watchdog = match record.kept.watchdog {
        Some(seconds) => format!(
            "  {:<14} exec arms it with {seconds} seconds\n",
            "watchdog:"
        ),
        None => String::new(),
    };
    format!(
        "  {:<14} {file}, through {}\n  {:<14} {}\n{watchdog}",
        "file:",
        record.syscall,
        "command line:",
        shown(&record.cmdline)
    )
}

/// What the crash kernel needs of its reservation.
fn memory(sizing: &Sizing) -> String {
    let verdict = if sizing.is_enough() {
        "enough"
    } else {
        "TOO SMALL"
    };
    let reserved = human(sizing.reserved);
    format!("{reserved} reserved, {verdict}: {}", sizing.sum())
}

/// What may matter to a load, a line each.
fn facts(status: &Status) -> String {
    let Status {
        loaded,
        security,
        secure_boot,
        ..
    } = status;
    let yes_no = |fact: Option<bool>| match fact {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let lockdown = match security.lockdown {
        Some(Lockdown::None) => "none",
        Some(Lockdown::Integrity) => "integrity",
        Some(Lockdown::Confidentiality) => "confidentiality",
        None => "unknown",
    };
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<30} {}", inline(value));
    };
    line("crash kernel's reservation:", &reservation(loaded));
    let update = match loaded.crash_elfcorehdr_size {
        Some(_) => "yes, when memory or CPUs change",
        None => "no: load again when memory or CPUs change",
    };
    line("crash kernel's auto-update:", update);
    line("loads left until reboot:", &left(security.limit_reboot));
    line(
        "crash loads left until reboot:",
        &left(security.limit_panic),
    );
    line("kexec_load_disabled:", yes_no(security.load_disabled));
    line("CAP_SYS_BOOT:", yes_no(security.cap_sys_boot));
    line("lockdown:", lockdown);
    line("Secure Boot:", yes_no(*secure_boot));
    line("IMA checks kernels:", yes_no(security.ima_appraise_kexec));
    line("Kexec Handover (KHO):", &handover(&security.kho));
    if security.kho.on {
        for (name, value) in of_state(&security.kho.state) {
            line(name, &value);
        }
    }
    if let Some(name) = security.environment.name() {
        line("runs on:", name);
    }
    line("CONFIG_KEXEC:", yes_no(security.config.kexec));
    line("CONFIG_KEXEC_FILE:", yes_no(security.config.kexec_file));
    out
}

/// What a limit leaves.
fn left(limit: Option<i64>) -> String {
    match limit {
        Some(count @ 0..) => count.to_string(),
        Some(_) | None => "no limit".to_owned(),
    }
}

/// What blocks a load, each cause once.
fn of_obstacles(obstacles: &[(Syscall, Target, Cause)]) -> String {
    let mut causes: Vec<(&Cause, Vec<(Syscall, Target)>)> = Vec::new();
    for (syscall, target, cause) in obstacles {
        match causes.iter_mut().find(|(known, _)| *known == cause) {
            Some((_, loads)) => loads.push((*syscall, *target)),
            None => causes.push((cause, vec![(*syscall, *target)])),
        }
    }
    let mut out = String::new();
    for (cause, loads) in causes {
        let _ = writeln!(
            out,
            "blocked:      {}: {}",
            blocked(&loads),
            inline(&cause.why)
        );
        if let Some(hint) = &cause.hint {
            let _ = writeln!(out, "  hint: {}", inline(hint));
        }
    }
    out
}

/// Which loads, of the two system calls and the two images.
fn blocked(loads: &[(Syscall, Target)]) -> String {
    let image = |target| match target {
        Target::Normal => "a kernel for exec",
        Target::Crash => "a crash kernel",
    };
    match loads {
        [(_, target), (_, other)] if target == other => format!("loading {}", image(*target)),
        [(syscall, _), (other, _)] if syscall == other => format!("every {syscall}"),
        [_, _, _, _] => "every load".to_owned(),
        loads => {
            let loads = loads.iter();
            let loads = loads.map(|(syscall, target)| format!("{syscall} of {}", image(*target)));
            loads.collect::<Vec<_>>().join(" and ")
        }
    }
}

/// Kexec Handover, why it is so, and what it preserves.
fn handover(kho: &Kho) -> String {
    let state = if kho.on { "on" } else { "off" };
    let preserved = match kho.preserved.as_deref() {
        _ if !kho.on => String::new(),
        None => "; what it preserves is not visible".to_owned(),
        Some([]) => "; it preserves nothing".to_owned(),
        Some(names) => format!("; it preserves {}", names.join(" and ")),
    };
    format!("{state} ({}){preserved}", kho.why)
}

/// What a kernel with Kexec Handover tells of it.
fn of_state(state: &State) -> [(&'static str, String); 4] {
    let chain = match (state.taken_over, state.generation) {
        (false, _) => "not to this kernel".to_owned(),
        (true, Some(number)) => format!("to this kernel, which is number {number} of its chain"),
        (true, None) => "to this kernel".to_owned(),
    };
    let sessions = match state.sessions.as_deref() {
        None => "not visible".to_owned(),
        Some([]) => "none".to_owned(),
        Some(names) => names.join(", "),
    };
    let formats = [&state.format, &state.luo].into_iter().flatten();
    let formats: Vec<&str> = formats.map(String::as_str).collect();
    let formats = match &*formats {
        [] => "not visible".to_owned(),
        formats => formats.join(", "),
    };
    [
        ("  state handed over:", chain),
        ("  formats that it writes:", formats),
        ("  live update sessions:", sessions),
        ("  scratch memory:", scratch(state)),
    ]
}

/// What the scratch memory takes from this machine.
fn scratch(state: &State) -> String {
    let Some((size, is_all)) = state.scratch_size() else {
        return "not visible".to_owned();
    };
    let share = match size.saturating_mul(100).checked_div(state.ram) {
        Some(percent) => format!(", {percent} % of the RAM"),
        None => String::new(),
    };
    let (least, regions) = match &state.scratch {
        Some(regions) if is_all => ("", format!(" in {} regions", regions.len())),
        _ => ("at least ", String::new()),
    };
    format!(
        "{least}{}{regions}{share}: only what can be moved may lie there",
        human(size)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_is_under_way_hides_the_reservation() {
        let said = |busy, crash_size| {
            reservation(&Loaded {
                busy,
                crash_size,
                ..Loaded::default()
            })
        };
        assert_eq!(said(true, None), "a load is under way");
        assert_eq!(said(false, None), "size of the reservation unknown");
        assert_eq!(said(false, Some(0)), "no memory is reserved for one");
        assert_eq!(said(false, Some(256 << 20)), "256 MiB reserved");
    }

    #[test]
    fn scratch_memory_is_what_is_known_of_it() {
        let mut state = State::default();
        assert_eq!(scratch(&state), "not visible");
        state.scratch_free = 64 << 20;
        assert_eq!(
            scratch(&state),
            "at least 64 MiB: only what can be moved may lie there"
        );
        let region = |start| crate::base::PhysRange::new(start, 128 << 20).unwrap();
        state.scratch = Some(vec![region(0x1000_0000), region(0x2000_0000)]);
        state.ram = 1 << 30;
        assert_eq!(
            scratch(&state),
            "256 MiB in 2 regions, 25 % of the RAM: only what can be moved may lie there"
        );
    }

    #[test]
    fn the_verdict_is_one_sentence() {
        let loaded = Loaded {
            crash_size: Some(256 << 20),
            ..Loaded::default()
        };
        let said = |armed| verdict(&armed, Some("6.12.117"), &loaded);
        assert_eq!(said(Armed::Yes), "ready, 6.12.117, up to date");
        assert_eq!(
            said(Armed::Stale("a CPU came".to_owned())),
            "OUT OF DATE, 6.12.117: a CPU came"
        );
        let unknown = Armed::Unknown("its record is for root only".to_owned());
        assert_eq!(
            verdict(&unknown, None, &loaded),
            "loaded; cannot tell whether it fits: its record is for root only"
        );
        assert_eq!(said(Armed::No), "NOT loaded (256 MiB reserved)");
        assert!(said(Armed::NotTold).starts_with("cannot tell whether one is loaded: "));
        // Only what is ready passes the check.
        assert_eq!(Armed::Yes.complaint(), None);
        for armed in [
            Armed::No,
            Armed::NotTold,
            Armed::Stale(String::new()),
            unknown,
        ] {
            assert!(armed.complaint().is_some());
        }
    }

    #[test]
    fn every_cause_is_said_once() {
        let cause = |why: &str| Cause::new(why).hint("h");
        let load = |syscall, target, why| (syscall, target, cause(why));
        let (file, segments) = (Syscall::KexecFileLoad, Syscall::KexecLoad);
        let all = [
            load(segments, Target::Normal, "x"),
            load(segments, Target::Crash, "x"),
            load(file, Target::Normal, "x"),
            load(file, Target::Crash, "x"),
        ];
        let of = |obstacles: &[_]| of_obstacles(obstacles);
        assert_eq!(of(&all), "blocked:      every load: x\n  hint: h\n");
        assert_eq!(
            of(&all[..2]),
            "blocked:      every kexec_load: x\n  hint: h\n"
        );
        assert_eq!(
            of(&[all[1].clone(), all[3].clone()]),
            "blocked:      loading a crash kernel: x\n  hint: h\n"
        );
        assert_eq!(
            of(&[all[0].clone(), all[2].clone()]),
            "blocked:      loading a kernel for exec: x\n  hint: h\n"
        );
        assert_eq!(
            of(&[all[0].clone(), load(file, Target::Crash, "y")]),
            "blocked:      kexec_load of a kernel for exec: x\n  hint: h\n\
             blocked:      kexec_file_load of a crash kernel: y\n  hint: h\n"
        );
        assert_eq!(
            of(&all[..3]),
            "blocked:      kexec_load of a kernel for exec and kexec_load of a crash kernel and \
             kexec_file_load of a kernel for exec: x\n  hint: h\n"
        );
        assert_eq!(of(&[]), "");
    }
}
