//! Checks of what is around the load: consoles, file systems, devices, the way back.

use bstr::{BStr, ByteSlice as _};

use super::{Facts, Said, Severity};
use crate::base::{Target, human};
use crate::cmdline;
use crate::host::mounts::Mount;
use crate::plan::general_warnings;
use crate::refusal::watchdog::choose;

/// The time that a watchdog is proposed for, seconds: a boot takes less.
const WAY_BACK: u64 = 300;
/// What a kernel keeps its time by when it trusts no time stamp counter.
const COARSE_CLOCKS: [&str; 4] = ["hpet", "acpi_pm", "jiffies", "refined-jiffies"];
/// Most names that a finding lists.
const MOST_NAMES: usize = 4;

/// The new command line, where a plan was made.
fn new_line<'a>(facts: &Facts<'a>) -> Option<&'a BStr> {
    facts
        .planned()
        .map(|planned| planned.plan.cmdline.as_bstr())
}

/// Whether a plan was made, and for a Linux kernel.
fn is_linux(facts: &Facts<'_>) -> bool {
    facts
        .planned()
        .is_some_and(|planned| planned.call.cmdline_limit.is_some())
}

/// A few of `names`, and how many more there are.
fn listed(names: &[String]) -> String {
    let few = names.iter().take(MOST_NAMES).map(String::as_str);
    let few = few.collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => few,
        more => format!("{few} and {more} more"),
    }
}

/// What the machine is, where no plan says it.
pub(super) fn environment(facts: &Facts<'_>) -> Vec<Said> {
    let (None, Ok(host)) = (facts.load, facts.host) else {
        return Vec::new();
    };
    let warnings = general_warnings(host).into_iter();
    let risk = |warning| Said::new(Severity::Risk, warning, "/proc/cpuinfo, the release");
    warnings.map(risk).collect()
}

/// LoadPin.
pub(super) fn security_module(facts: &Facts<'_>) -> Vec<Said> {
    if !facts.around.load_pin {
        return Vec::new();
    }
    let finding = "LoadPin refuses kexec_load, and kexec_file_load of a kernel that does not lie on the disk that \
         it pinned";
    let said = Said::new(Severity::Risk, finding, "/sys/kernel/security/lsm: loadpin");
    vec![
        said.way_out("--syscall kexec_file_load, with kernel and initrd from the root file system"),
    ]
}

/// The name of the device in a value of console=: `ttyS1,115200n8` is for ttyS1.
fn device(value: &BStr) -> String {
    let name = value.split(|byte| *byte == b',').next().unwrap_or_default();
    String::from_utf8_lossy(name).into_owned()
}

/// Serial consoles of the new line, and those that it lacks.
pub(super) fn console(facts: &Facts<'_>) -> Vec<Said> {
    let Some(line) = new_line(facts).filter(|_| is_linux(facts)) else {
        return Vec::new();
    };
    let consoles = &facts.around.consoles;
    let wanted: Vec<(&BStr, String)> = cmdline::values(line, "console")
        .map(|value| (value, device(value)))
        .collect();
    let mut said = Vec::new();
    for (value, name) in &wanted {
        if consoles.has_uart(name) != Some(false) {
            continue;
        }
        // The lines of cloud images name a port that not every machine has.
        let is_only = !wanted.iter().any(|(_, other)| other != name);
        let severity = match is_only {
            true => Severity::Risk,
            false => Severity::Note,
        };
        let finding = format!(
            "console={name} is on the new command line, and the running kernel found no UART there"
        );
        let evidence = format!("/sys/class/tty/{name}/type: 0, or no {name}");
        said.push(
            Said::new(severity, finding, evidence).way_out(format!("--remove console={value}")),
        );
    }
    let is_serial = |name: &str| name.starts_with("ttyS") || name.starts_with("hvc");
    let mut active = consoles.active.iter().filter(|name| is_serial(name));
    let lacking = active.find(|name| !wanted.iter().any(|(_, wanted)| wanted == *name));
    if let Some(name) = lacking.filter(|_| !wanted.iter().any(|(_, name)| is_serial(name))) {
        let running = facts.host.map(|host| host.cmdline.as_bstr());
        let running = running.unwrap_or_default();
        // With its speed, where the running line says one.
        let mut values = cmdline::values(running, "console");
        let same = values.find(|value| device(value) == *name);
        let value = same.map_or_else(|| name.clone(), |value| value.to_string());
        let finding = format!(
            "the messages of the next kernel do not go to {name}, where those of the running one go"
        );
        let evidence = "/sys/class/tty/console/active, and the new command line";
        said.push(
            Said::new(Severity::Note, finding, evidence)
                .way_out(format!("--append console={value}")),
        );
    }
    said
}

/// A screen that a driver has taken over.
pub(super) fn screen(facts: &Facts<'_>) -> Vec<Said> {
    let consoles = &facts.around.consoles;
    let is_other = facts.planned().is_some() && !is_linux(facts);
    let Some(name) = consoles.of_driver().filter(|_| !is_other) else {
        return Vec::new();
    };
    let finding = format!(
        "the screen belongs to {name}: the next kernel shows nothing on it until its own driver for the card starts"
    );
    let said = Said::new(Severity::Note, finding, format!("/proc/fb: {name}"));
    let mut ports = consoles.serial.iter().filter(|(_, has_uart)| *has_uart);
    let way_out = match ports.next() {
        Some((port, _)) => {
            format!("--append console={port},115200")
        }
        None => "see that you reach the machine without its screen".to_owned(),
    };
    vec![said.way_out(way_out)]
}

/// What is mounted for writing on disks of this machine.
pub(super) fn mounts(facts: &Facts<'_>) -> Vec<Said> {
    unmounted(
        facts,
        |mount| !mount.is_network(),
        |names| format!("{names}: mounted for writing, and `rkexec exec` alone unmounts nothing"),
    )
}

/// What is mounted for writing of other machines.
pub(super) fn network_mounts(facts: &Facts<'_>) -> Vec<Said> {
    unmounted(facts, Mount::is_network, |names| {
        format!(
            "{names}: storage of another machine is mounted for writing; `rkexec exec` alone leaves its locks there, \
             and what is not written yet is lost"
        )
    })
}

/// A finding about the mounts that `is_meant` takes. Where systemd runs, it unmounts them if
/// it is asked to; else nobody is known to.
fn unmounted(
    facts: &Facts<'_>,
    is_meant: impl Fn(&Mount) -> bool,
    finding: impl Fn(&str) -> String,
) -> Vec<Said> {
    let mounts = facts.around.mounts.iter().filter(|mount| is_meant(mount));
    let points = mounts.clone().map(|mount| &*mount.point).collect();
    let names: Vec<String> = mounts
        .map(|mount| format!("{} ({})", mount.point, mount.kind))
        .collect();
    // A crash kernel does not wait for anybody.
    if names.is_empty() || facts.target == Target::Crash {
        return Vec::new();
    }
    let (severity, way_out) = match facts.around.services.systemd {
        true => (
            Severity::Note,
            "rkexec exec --shutdown: systemd stops the services and unmounts them".to_owned(),
        ),
        false => (
            Severity::Risk,
            format!(
                "{} before rkexec exec, once the services are stopped",
                umount(points)
            ),
        ),
    };
    let said = Said::new(severity, finding(&listed(&names)), "/proc/self/mountinfo");
    vec![said.way_out(way_out)]
}

/// The command that unmounts `points`, the deepest first, or all where they are many. umount(8):
/// -r mounts read-only what is busy.
fn umount(mut points: Vec<&str>) -> String {
    if points.len() > MOST_NAMES {
        return "umount -a -r".to_owned();
    }
    let depth = |point: &&str| point.split('/').filter(|name| !name.is_empty()).count();
    points.sort_by_key(|point| std::cmp::Reverse(depth(point)));
    let words = points.into_iter().map(for_shell);
    format!("umount -r {}", words.collect::<Vec<_>>().join(" "))
}

/// `word` as a shell takes it for one word.
fn for_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@,%=".contains(c);
    match word.starts_with('/') && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// Virtual functions that are switched on.
pub(super) fn virtual_functions(facts: &Facts<'_>) -> Vec<Said> {
    let devices = facts.around.pci.iter();
    let devices = devices.filter(|device| device.virtual_functions > 0);
    let files: Vec<String> = devices
        .clone()
        .map(|device| format!("/sys/bus/pci/devices/{}/sriov_numvfs", device.address))
        .collect();
    let devices: Vec<String> = devices
        .map(|device| {
            let count = device.virtual_functions;
            format!("{} at {} ({count})", device.driver, device.address)
        })
        .collect();
    if devices.is_empty() {
        return Vec::new();
    }
    let finding = format!(
        "virtual functions are switched on: {}; the next kernel switches them off as it finds them, and waits a \
         second for each of these devices",
        listed(&devices)
    );
    let evidence = "/sys/bus/pci/devices/*/sriov_numvfs";
    vec![
        Said::new(Severity::Note, finding, evidence)
            .way_out(format!("echo 0 | tee {}", files.join(" "))),
    ]
}

/// Time that is not kept by the time stamp counter.
pub(super) fn clock(facts: &Facts<'_>) -> Vec<Said> {
    let around = facts.around;
    let Some(source) = around.clock_source.as_deref() else {
        return Vec::new();
    };
    let has_tsc = around.clock_sources.iter().any(|name| name == "tsc");
    if has_tsc || !COARSE_CLOCKS.contains(&source) {
        return Vec::new();
    }
    let finding = format!(
        "the running kernel keeps its time by {source}, not by the time stamp counter: its starts are slower, and \
         `rkexec report` cannot tell how long the jump took"
    );
    let evidence = "/sys/devices/system/clocksource/clocksource0";
    vec![Said::new(Severity::Note, finding, evidence)]
}

/// A watchdog that nobody asked for.
pub(super) fn watchdog(facts: &Facts<'_>) -> Vec<Said> {
    let (Some(load), Ok(host), Target::Normal) = (facts.load, facts.host, facts.target) else {
        return Vec::new();
    };
    if load.watchdog.is_some() || facts.planned().is_none() {
        return Vec::new();
    }
    let Ok(device) = choose(&host.watchdogs, WAY_BACK) else {
        return Vec::new();
    };
    let finding = format!(
        "{device} could reset the machine if the next kernel hangs, and no watchdog is asked for"
    );
    let said = Said::new(Severity::Note, finding, "/sys/class/watchdog");
    vec![said.way_out(format!("--watchdog {WAY_BACK}"))]
}

/// What the new command line has the next kernel do later.
pub(super) fn next_kernel(facts: &Facts<'_>) -> Vec<Said> {
    let Some(line) = new_line(facts).filter(|_| is_linux(facts)) else {
        return Vec::new();
    };
    let mut said = Vec::new();
    let timeout = cmdline::value(line, "panic");
    if timeout.is_none_or(|seconds| seconds == "0") {
        let what = match facts.target {
            Target::Normal => "the next kernel",
            Target::Crash => "the crash kernel",
        };
        let finding = format!(
            "{what} stays where it is if it panics itself: panic= is not on its command line"
        );
        said.push(
            Said::new(Severity::Note, finding, "the new command line").way_out("--append panic=30"),
        );
    }
    let name = "sysctl.kernel.kexec_load_disabled";
    if facts.target == Target::Normal && cmdline::value(line, name).is_some_and(|is| is == "1") {
        let finding = "the next kernel may load no kernel, and no crash kernel either";
        said.push(
            Said::new(
                Severity::Note,
                finding,
                format!("the new command line: {name}=1"),
            )
            .way_out(format!("--remove {name}")),
        );
    }
    said
}

/// Kexec Handover.
pub(super) fn handover(facts: &Facts<'_>) -> Vec<Said> {
    let kho = &facts.security.kho;
    if !kho.on {
        return Vec::new();
    }
    let read_from = |is_shown: bool, other: &str| match is_shown {
        true => format!("{}; /sys/kernel/debug/kho", kho.why),
        false => format!("{}; {other}", kho.why),
    };
    let mut said = Vec::new();
    if let Some((size, is_all)) = kho.state.scratch_size() {
        let least = if is_all { "" } else { "at least " };
        let finding = format!(
            "Kexec Handover keeps {least}{} of memory for the start of the next kernel",
            human(size)
        );
        let evidence = read_from(is_all, "/proc/meminfo: CmaFree, CmaTotal");
        said.push(Said::new(Severity::Note, finding, evidence));
    }
    let preserved = kho.preserved.as_deref();
    if let Some(names) = preserved.filter(|names| !names.is_empty()) {
        let finding = format!("Kexec Handover preserves {}", listed(names));
        let evidence = read_from(kho.shown, "the running command line");
        said.push(Said::new(Severity::Note, finding, evidence));
    }
    let sessions = kho.state.sessions.as_deref();
    if let Some(names) = sessions.filter(|names| !names.is_empty()) {
        let finding = format!(
            "sessions of live update are open: {}; the next kernel gets them only if it reads their format",
            listed(names)
        );
        let said_of_it = Said::new(Severity::Note, finding, "/proc/*/fd");
        // A plan says itself whether it does.
        said.push(match facts.load {
            None => said_of_it.way_out("rkexec plan KERNEL says whether it does"),
            Some(_) => said_of_it,
        });
    }
    said
}
