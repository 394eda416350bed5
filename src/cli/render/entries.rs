//! Boot entries.

use std::fmt::Write as _;

use serde::Serialize;

use super::table::Table;
use crate::base::bytes::shown;
use crate::entries::find::{Entry, Found, OwnMount, Source};

/// For people: what is started, then the entries by the file that they come from, each in
/// one line; with `verbose` all of each.
pub(in crate::cli) fn text(found: &Found, verbose: bool) -> String {
    let mut text = head(found);
    let mut files: Vec<(&str, &str)> = Vec::new();
    for entry in &found.entries {
        let group = group(entry);
        if !files.contains(&group) {
            files.push(group);
        }
    }
    for (source, place) in files {
        let _ = writeln!(text, "\n{source}, {}:", shown(place));
        let entries = found
            .entries
            .iter()
            .filter(|entry| group(entry) == (source, place));
        if verbose {
            text.extend(entries.map(full));
        } else {
            text += &short(entries);
        }
    }
    if !found.problems.is_empty() {
        text.push_str("\nproblems:\n");
        for (file, problem) in &found.problems {
            let _ = writeln!(text, "  {}: {}", shown(file), shown(&problem.to_string()));
        }
    }
    if !found.own_mounts.is_empty() {
        text.push_str("\nnot mounted, and mounted read-only for this command alone:\n");
        for OwnMount { device, point } in &found.own_mounts {
            let _ = writeln!(text, "  {} on {}", shown(device), shown(point));
        }
    }
    text
}

/// The answer: what the next boot starts, and what is the default.
fn head(found: &Found) -> String {
    let mut text = String::new();
    let name = |entry: &Entry| match &entry.title {
        Some(title) if *title != entry.id => format!("{} ({})", shown(&entry.id), shown(title)),
        _ => shown(&entry.id).to_string(),
    };
    let mut entries = found.entries.iter();
    if let Some(entry) = entries.find(|entry| entry.one_shot) {
        let _ = writeln!(text, "next boot: {}, once", name(entry));
    }
    match found.entries.iter().find(|entry| entry.default) {
        Some(entry) => {
            let _ = writeln!(text, "default: {}", name(entry));
        }
        None if found.entries.is_empty() => text.push_str("no boot entries were found\n"),
        None if found.about_default.is_empty() => {
            text.push_str("default: none of the entries\n");
        }
        None => text.push_str("default: not known, as the problems at the end say\n"),
    }
    text
}

/// What an entry stands below: the boot loader's name, and the file or directory.
fn group(entry: &Entry) -> (&'static str, &str) {
    let directory = entry
        .file
        .rsplit_once('/')
        .map_or("", |(directory, _)| directory);
    match entry.source {
        Source::Grub | Source::GrubBls => ("GRUB", &entry.file),
        Source::Bls => ("Boot Loader Specification", directory),
        Source::Uki => ("unified kernel images", directory),
        Source::Extlinux => ("extlinux", &entry.file),
        Source::KexecTools => ("kexec-tools", &entry.file),
        Source::Links => (
            "links to kernels",
            if directory.is_empty() { "/" } else { directory },
        ),
    }
}

/// The marks of an entry.
fn marks(entry: &Entry) -> String {
    let marks = [
        (entry.one_shot, "next boot"),
        (entry.default, "default"),
        (entry.current, "current"),
        (entry.fault().is_some(), "cannot be booted"),
    ];
    let marks = marks.into_iter().filter(|(is_set, _)| *is_set);
    marks.map(|(_, mark)| mark).collect::<Vec<_>>().join(", ")
}

fn short<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let entries: Vec<&Entry> = entries.collect();
    let mut table = Table::new([false; 3]);
    for entry in &entries {
        let kernel = entry.kernel.as_deref().unwrap_or("-");
        table.push([
            shown(&entry.id).to_string(),
            shown(kernel).to_string(),
            marks(entry),
        ]);
    }
    let mut text = String::new();
    for (line, entry) in table.lines().zip(entries) {
        let _ = writeln!(text, "  {line}");
        text += &problems(entry);
    }
    text
}

fn full(entry: &Entry) -> String {
    let mut text = format!("  {}", shown(&entry.id));
    let marks = marks(entry);
    if !marks.is_empty() {
        let _ = write!(text, "  [{marks}]");
    }
    text.push('\n');
    let mut table = Table::new([false; 2]);
    let mut row = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            table.push([format!("  {name}"), shown(value).to_string()]);
        }
    };
    row("title", entry.title.as_deref());
    row("version", entry.version.as_deref());
    row("kernel", entry.kernel.as_deref());
    for initrd in &entry.initrds {
        row("initrd", Some(initrd));
    }
    for (file, arguments) in &entry.modules {
        row("module", Some(format!("{file} {arguments}").trim_end()));
    }
    row("device tree", entry.devicetree.as_deref());
    row("profile", entry.profile.as_deref());
    for addon in &entry.addons {
        row("addon", Some(addon));
    }
    row("command line", entry.cmdline.as_deref());
    text + &table.text() + &problems(entry)
}

fn problems(entry: &Entry) -> String {
    let problems = entry.problems.iter();
    let lines = problems.map(|problem| format!("    {}\n", shown(&problem.to_string())));
    lines.collect()
}

/// What is printed as JSON.
#[derive(Serialize)]
pub(in crate::cli) struct Json<'a> {
    entries: Vec<EntryJson<'a>>,
    own_mounts: Vec<OwnMountJson<'a>>,
    problems: Vec<ProblemJson<'a>>,
    schema: u32,
}

#[derive(Serialize)]
struct EntryJson<'a> {
    addons: &'a [String],
    cmdline: Option<&'a str>,
    current: bool,
    default: bool,
    devicetree: Option<&'a str>,
    file: &'a str,
    id: &'a str,
    initrds: &'a [String],
    kernel: Option<&'a str>,
    modules: Vec<ModuleJson<'a>>,
    one_shot: bool,
    problems: Vec<String>,
    profile: Option<&'a str>,
    source: &'static str,
    title: Option<&'a str>,
    usable: bool,
    version: Option<&'a str>,
}

#[derive(Serialize)]
struct ModuleJson<'a> {
    arguments: &'a str,
    file: &'a str,
}

#[derive(Serialize)]
struct OwnMountJson<'a> {
    device: &'a str,
    point: &'a str,
}

#[derive(Serialize)]
struct ProblemJson<'a> {
    file: &'a str,
    problem: String,
}

/// For programs.
pub(in crate::cli) fn json(found: &Found) -> Json<'_> {
    let entries = found.entries.iter().map(|entry| EntryJson {
        addons: &entry.addons,
        cmdline: entry.cmdline.as_deref(),
        current: entry.current,
        default: entry.default,
        devicetree: entry.devicetree.as_deref(),
        file: &entry.file,
        id: &entry.id,
        initrds: &entry.initrds,
        kernel: entry.kernel.as_deref(),
        modules: entry
            .modules
            .iter()
            .map(|(file, arguments)| ModuleJson { arguments, file })
            .collect(),
        one_shot: entry.one_shot,
        problems: entry.problems.iter().map(ToString::to_string).collect(),
        profile: entry.profile.as_deref(),
        source: entry.source.name(),
        title: entry.title.as_deref(),
        usable: entry.fault().is_none(),
        version: entry.version.as_deref(),
    });
    let problems = found.problems.iter().map(|(file, problem)| ProblemJson {
        file,
        problem: problem.to_string(),
    });
    let own_mounts = found.own_mounts.iter();
    Json {
        entries: entries.collect(),
        own_mounts: own_mounts
            .map(|OwnMount { device, point }| OwnMountJson { device, point })
            .collect(),
        problems: problems.collect(),
        schema: 1,
    }
}
