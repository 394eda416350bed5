//! `--entry`: the files and the command line of a boot entry.

use super::Context;
use super::load::device_tree;
use crate::base::Target;
use crate::base::bytes::{shown, shown_name};
use crate::entries::Part;
use crate::entries::choice;
use crate::entries::find::{self, Entry, Found, Nearness, OwnMount, Running};
use crate::job::{EntryFiles, Options};
use crate::load::Tell as _;
use crate::sys::mount::PrivateMounts;
use anyhow::Context as _;
use bstr::BString;

/// A boot entry that was chosen, and what it says. Its files are there until it is dropped.
#[derive(Debug)]
pub(super) struct Chosen {
    pub(super) entry: Entry,
    pub(super) files: EntryFiles,
    /// What is odd with it.
    warnings: Vec<String>,
    /// Where it has files that no other program sees.
    own_mounts: Vec<OwnMount>,
    /// What mounts them.
    _private: Option<PrivateMounts>,
}

impl Chosen {
    /// One that says nothing.
    #[cfg(test)]
    pub(super) fn of(entry: Entry) -> Self {
        Self {
            entry,
            files: EntryFiles::default(),
            warnings: Vec::new(),
            own_mounts: Vec::new(),
            _private: None,
        }
    }

    /// Which entry it is, for the operator who asked for `name`; `None`: he named it so
    /// himself.
    pub(super) fn line(&self, name: Option<&str>) -> Option<String> {
        let id = shown(&self.entry.id);
        let once = self.once();
        match name {
            None => {
                let comma = if once.is_empty() { "" } else { "," };
                Some(format!(
                    "no kernel is named: the default boot entry `{id}`{once}{comma} is taken"
                ))
            }
            Some(name) if name == self.entry.id => None,
            Some(name) => Some(format!("`{name}` is the boot entry `{id}`{once}")),
        }
    }

    /// Says to the operator what is odd with it, when it is to be loaded for `target`.
    pub(super) fn warn(&self, context: &Context, target: Target) {
        for warning in &self.warnings {
            context.warn(warning);
        }
        for OwnMount { device, point } in &self.own_mounts {
            let (device, point) = (shown(device), shown(point));
            context.note(&format!(
                "{device} is not mounted: it is read through a read-only mount on {point} that only this command sees"
            ));
            if target == Target::Crash {
                context.warn(&format!(
                    "files of the crash kernel are on {device}, which is not mounted: if a later load fails and removes this crash kernel, it cannot be loaded again from there"
                ));
            }
        }
    }

    /// That it is an entry for the next boot alone.
    pub(super) fn once(&self) -> &'static str {
        match self.entry.one_shot {
            true => {
                ", which the boot loader would start once, and still will at the next cold boot"
            }
            false => "",
        }
    }
}

const WHAT: &str = "reading the boot entries failed";

/// The entry called `name`, and what it says. Others take the place of the parts `replaced`.
pub(super) fn of_name(context: &Context, name: &str, replaced: &[Part]) -> anyhow::Result<Chosen> {
    let found = find::find_and_hold(&context.root).context(WHAT)?;
    of_found(context, found, name, replaced)
}

/// The same for more than the next boot: an entry that the boot loader would start once is not
/// the default.
pub(super) fn lasting(context: &Context, name: &str, replaced: &[Part]) -> anyhow::Result<Chosen> {
    let (mut found, private) = find::find_and_hold(&context.root).context(WHAT)?;
    for entry in &mut found.entries {
        entry.one_shot = false;
    }
    of_found(context, (found, private), name, replaced)
}

fn of_found(
    context: &Context,
    (found, private): (Found, Option<PrivateMounts>),
    name: &str,
    replaced: &[Part],
) -> anyhow::Result<Chosen> {
    let running = Running::read(&context.root).context(WHAT)?;
    let entry = choice::choose(&found, name, running.as_ref(), replaced)
        .context("choosing a boot entry failed")?;
    let id = shown(&entry.id);
    let mut warnings = Vec::new();
    if name == choice::DEFAULT && !entry.one_shot {
        for (file, problem) in &found.about_default {
            let problem = problem.to_string();
            warnings.push(format!("{}: {}", shown(file), shown(&problem)));
        }
    }
    let has_name = |other: &&Entry| other.id == name && other.id != entry.id;
    if matches!(name, choice::DEFAULT | choice::CURRENT)
        && found.entries.iter().any(|other| has_name(&other))
    {
        warnings.push(format!(
            "a boot entry has the id `{name}`, too: that one is chosen by its title alone"
        ));
    }
    let is_likely = |running: &Running| running.nearness(entry) == Nearness::Likely;
    if name == choice::CURRENT && running.as_ref().is_some_and(is_likely) {
        warnings.push(format!(
            "the boot entry `{id}` has the running command line, but nothing tells the release of its kernel: it may be another kernel than the running one"
        ));
    }
    for problem in &entry.problems {
        let problem = problem.to_string();
        warnings.push(format!("the boot entry `{id}`: {}", shown(&problem)));
    }
    Ok(Chosen {
        files: of(context, entry, replaced)?,
        entry: entry.clone(),
        warnings,
        own_mounts: own_mounts(&found, entry),
        _private: private,
    })
}

/// The partitions with files of the entry that this process mounted for itself.
fn own_mounts(found: &Found, entry: &Entry) -> Vec<OwnMount> {
    let files = entry.kernel.iter().chain(&entry.initrds);
    let files = files
        .chain(&entry.addons)
        .chain(entry.modules.iter().map(|(file, _)| file));
    let mut own: Vec<OwnMount> = files
        .filter_map(|file| found.own_mount_of(file).cloned())
        .collect();
    own.dedup();
    own
}

/// The parts of an entry whose place the options take.
pub(super) fn replaced(options: &Options) -> Vec<Part> {
    let line = &options.line;
    let parts = [
        (Part::Initrd, !options.initrds.is_empty()),
        (Part::Devicetree, options.rest.handover.dtb.is_some()),
        (Part::Cmdline, line.given.is_some() || line.running),
        (Part::Module, !options.modules.is_empty()),
    ];
    let parts = parts.into_iter().filter(|(_, is_given)| *is_given);
    parts.map(|(part, _)| part).collect()
}

fn of(context: &Context, entry: &Entry, replaced: &[Part]) -> anyhow::Result<EntryFiles> {
    let path = |path: &String| context.root.path(path);
    let module = |(file, arguments): &(String, String)| {
        let file = path(file).into_os_string();
        let module = format!("{} {arguments}", file.to_string_lossy());
        BString::from(module.trim_end())
    };
    // A UKI brings its own line, and its addons add to that.
    let line = entry.cmdline.as_deref().filter(|_| !entry.is_uki);
    let dtb = entry.devicetree.as_ref();
    let dtb = dtb.filter(|_| !replaced.contains(&Part::Devicetree));
    let dtb = dtb.map(path);
    let modules = entry.modules.iter().map(|(file, _)| path(file));
    for file in modules.filter(|_| !replaced.contains(&Part::Module)) {
        anyhow::ensure!(
            !file.to_string_lossy().contains(char::is_whitespace),
            "the module {} of the boot entry has white space in its path: what follows that would be taken for the module's arguments",
            shown_name(&file)
        );
    }
    Ok(EntryFiles {
        kernel: entry.kernel.as_ref().map(path).unwrap_or_default(),
        initrds: entry.initrds.iter().map(path).collect(),
        line: line.map(BString::from),
        profile: entry.profile.clone(),
        addons: entry.addons.iter().map(path).collect(),
        modules: entry.modules.iter().map(module).collect(),
        dtb: dtb.as_deref().map(device_tree).transpose()?,
        hashes: entry
            .hashes
            .iter()
            .map(|(file, sha256)| (path(file), *sha256))
            .collect(),
    })
}
