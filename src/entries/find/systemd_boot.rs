//! systemd-boot: files of the Boot Loader Specification and unified kernel images on the EFI
//! system partition and the extended boot loader partition.

use std::io;

use bstr::BString;

use super::variables::Variables;
use super::volumes::{Place, Volumes, why};
use super::{Entry, Menu, Source};
use crate::entries::bls::{self, Bls};
use crate::entries::grub::Fs;
use crate::entries::loader_conf::{self, LoaderConf};
use crate::entries::order::Key;
use crate::entries::text::is_clean;
use crate::entries::{MAX_ENTRIES, MAX_FILE, Part, Problem, glob, note, os_release};
use crate::host::inside::Kind;
use crate::image::label::{self, Label, Labels};
use crate::image::lanzaboote::{Named, Stub};
use crate::image::uki::Addon;

const ENTRIES: &str = "loader/entries";
const IMAGES: &str = "EFI/Linux";
/// Addons for all images.
const ADDONS: &str = "loader/addons";
/// Most bytes of a stub of NixOS, which has no kernel in it.
const MAX_STUB: usize = 4 << 20;

/// Entries with what decides about their places.
type Keyed = Vec<(Key, Entry)>;

/// Names that systemd-boot gives to what it finds besides: other systems, and what it does
/// itself.
const AUTO: &str = "auto-";
/// The names of systemd-boot(7).
const AUTO_NAMES: [&str; 7] = [
    "auto-windows",
    "auto-osx",
    "auto-efi-shell",
    "auto-efi-default",
    "auto-reboot-to-firmware-setup",
    "auto-poweroff",
    "auto-reboot",
];

/// The entries below the directories `bases` in their order, and the choice. `without_files`:
/// GRUB has the files of the Boot Loader Specification in its own menu.
pub(super) fn menu(
    volumes: &Volumes<'_>,
    bases: &[String],
    variables: &Variables,
    without_files: bool,
) -> Menu {
    let mut menu = Menu::default();
    let mut keyed = Keyed::new();
    let mut seen = Vec::new();
    for base in bases {
        if !without_files {
            each(
                volumes,
                &mut menu,
                &mut seen,
                &format!("{base}/{ENTRIES}"),
                |path, place, menu| {
                    keyed.extend(file(volumes, base, path, place, menu));
                },
            );
        }
        each(
            volumes,
            &mut menu,
            &mut seen,
            &format!("{base}/{IMAGES}"),
            |path, place, menu| {
                keyed.extend(image(volumes, base, path, place, menu));
            },
        );
    }
    keyed.sort_by(|(a, _), (b, _)| a.compare(b));
    let conf = conf(volumes, bases, &mut menu);
    choose(&keyed, &conf, variables, &mut menu);
    menu.entries = keyed.into_iter().map(|(_, entry)| entry).collect();
    menu
}

/// Calls `take` for each file in `directory`, unless the directory was seen by another path.
fn each(
    volumes: &Volumes<'_>,
    menu: &mut Menu,
    seen: &mut Vec<String>,
    directory: &str,
    mut take: impl FnMut(&str, &Place, &mut Menu),
) {
    let Some(place) = volumes.place(directory) else {
        return;
    };
    let names = match volumes.list(&place) {
        Ok(names) => names,
        Err(error) => return menu.note_unreadable(directory, &error),
    };
    let real = volumes.real_path(&place);
    if seen.contains(&real) {
        return;
    }
    seen.push(real);
    if names.len() > MAX_ENTRIES {
        menu.note(directory, Problem::TooMany);
    }
    for name in names.iter().take(MAX_ENTRIES) {
        let path = format!("{directory}/{name}");
        if !menu.may_read(directory, 0) {
            break;
        }
        let place = Place {
            path: format!("{}/{name}", place.path),
            ..place.clone()
        };
        take(&path, &place, menu);
    }
}

/// An entry of type 1.
fn file(
    volumes: &Volumes<'_>,
    base: &str,
    path: &str,
    place: &Place,
    menu: &mut Menu,
) -> Option<(Key, Entry)> {
    let name = path.rsplit('/').next()?;
    bls::id_of(name, ".conf")?;
    let bytes = match volumes.read_file(place) {
        Ok(bytes) => bytes,
        Err(error) => {
            menu.note_error(path, &error);
            return None;
        }
    };
    if !menu.may_read(path, bytes.len()) {
        return None;
    }
    let bls = bls::parse(name, &bytes)?;
    let key = bls.key();
    Some((key, bls_entry(volumes, base, path, place, bls)))
}

fn bls_entry(volumes: &Volumes<'_>, base: &str, path: &str, place: &Place, bls: Bls) -> Entry {
    let mut entry = Entry::new(&bls.id, Source::Bls, path);
    entry.cmdline = (bls.linux.is_some() || !bls.options.is_empty()).then(|| bls.cmdline());
    entry.problems = bls.problems;
    let mut path = |part: Part, name: &String| {
        on(volumes, base, place, name).unwrap_or_else(|problem| {
            note(&mut entry.problems, part.fault(problem));
            format!("{base}/{}", name.trim_start_matches('/'))
        })
    };
    let kernel = bls.linux.as_ref().or(bls.uki.as_ref());
    entry.kernel = kernel.map(|name| path(Part::Kernel, name));
    if let (None, Some(program)) = (kernel, &bls.efi) {
        path(Part::Kernel, program);
    }
    let initrds = bls.initrds.iter();
    entry.initrds = initrds.map(|name| path(Part::Initrd, name)).collect();
    let devicetree = bls.devicetree.as_ref();
    entry.devicetree = devicetree.map(|name| path(Part::Devicetree, name));
    if !bls.overlays.is_empty() {
        let what = "it has overlays of a device tree, which this program does not apply";
        entry.note(Part::Devicetree, Problem::Other(what.to_owned()));
    }
    entry.title = bls.title;
    entry.version = bls.version;
    entry.profile = bls.profile;
    entry
}

/// The file `name` of an entry at `place`: below the directory that holds loader/, else below
/// the root of the file system.
fn on(volumes: &Volumes<'_>, base: &str, place: &Place, name: &str) -> Result<String, Problem> {
    let below = format!("{base}/{}", name.trim_start_matches('/'));
    let below = volumes
        .place(&below)
        .filter(|own| own.volume == place.volume);
    let below = below.filter(|own| volumes.kind(own).is_ok());
    let found = match below {
        Some(own) => own,
        None => volumes.resolve(place.volume, &Fs::Config, name)?,
    };
    volumes.file(&found)
}

/// The entries of a UKI, or the one of a stub of NixOS.
fn image(volumes: &Volumes<'_>, base: &str, path: &str, place: &Place, menu: &mut Menu) -> Keyed {
    let name = path.rsplit('/').next().unwrap_or(path);
    let Some((id, tries)) = bls::id_of(name, ".efi") else {
        return Keyed::new();
    };
    if volumes.kind(place).ok() == Some(Kind::Directory) {
        return Keyed::new();
    }
    let mut size_read = 0;
    let read = volumes.parts(place).and_then(|mut parts| {
        let labels = label::read(&mut |at, size| parts.read(at, size));
        size_read += parts.count;
        let labels = labels?;
        let mut stub = None;
        if matches!(labels, Labels::Stub(_)) {
            let bytes = volumes.read_start(place, MAX_STUB)?;
            size_read += bytes.len();
            stub = Stub::parse(&bytes);
        }
        Ok((labels, stub))
    });
    menu.may_read(path, size_read);
    let (labels, stub) = match read {
        Ok(read) => read,
        Err(error) => {
            menu.note_error(path, &error);
            return Keyed::new();
        }
    };
    let mut made = Maker {
        volumes,
        base,
        path,
        place,
        key: Key {
            name: id.clone(),
            tries,
            ..Key::default()
        },
    };
    match (labels, stub) {
        (Labels::Uki(labels), _) => {
            let labels = labels.into_iter().enumerate();
            let entries = labels.map(|(number, label)| {
                let release = label.release.clone();
                let (key, mut entry) = made.uki(number, label);
                made.add_beside(&id, release.as_ref(), &mut entry, menu);
                (key, entry)
            });
            entries.collect()
        }
        (Labels::Stub(label), Some(stub)) => vec![made.stub(label, stub)],
        (Labels::Stub(_), None) => vec![made.broken("it is a damaged stub of lanzaboote")],
        (Labels::Other(why), _) => vec![made.broken(&why)],
    }
}

/// Makes the entries of one file.
struct Maker<'a> {
    volumes: &'a Volumes<'a>,
    base: &'a str,
    path: &'a str,
    place: &'a Place,
    key: Key,
}

impl Maker<'_> {
    fn entry(&self) -> Entry {
        let mut entry = Entry::new(&self.key.id(), Source::Uki, self.path);
        if self.key.is_bad() {
            entry.problems.push(Problem::NoTriesLeft);
        }
        entry
    }

    /// The entry of the profile `number`.
    fn uki(&mut self, number: usize, label: Label) -> (Key, Entry) {
        let release = os_release::parse(&label.os_release);
        self.key.profile = number;
        self.key.sort_key = release.sort_key;
        self.key.version.clone_from(&release.version);
        let mut entry = self.entry();
        let profile = label.profile.unwrap_or_default();
        entry.title = match (release.title, &profile.title) {
            (Some(title), Some(own)) => Some(format!("{title} ({own})")),
            (title, own) => title.or_else(|| own.clone()),
        };
        entry.version = label
            .release
            .map(|release| release.to_string())
            .or(release.version);
        entry.cmdline = label.cmdline.map(|line| line.to_string());
        entry.profile = profile.id.or((number > 0).then(|| number.to_string()));
        let texts = [&entry.title, &entry.version, &entry.cmdline];
        if !texts.into_iter().flatten().all(|text| is_clean(text)) {
            entry.problems.push(Problem::NotText);
        }
        match self.volumes.file(self.place) {
            Ok(path) => entry.kernel = Some(path),
            Err(problem) => entry.note(Part::Kernel, problem),
        }
        entry.is_uki = true;
        (self.key.clone(), entry)
    }

    /// What systemd-stub adds to the image: addons for all images, then those of its own.
    /// Credentials and extensions are not added by this program. `release` is that of the
    /// image's kernel.
    fn add_beside(&self, id: &str, release: Option<&BString>, entry: &mut Entry, menu: &mut Menu) {
        let (directory, _) = self.path.rsplit_once('/').unwrap_or_default();
        let own = format!("{directory}/{id}.extra.d");
        for directory in [format!("{}/{ADDONS}", self.base), own] {
            let Some(place) = self.volumes.place(&directory) else {
                continue;
            };
            let names = match self.volumes.list(&place) {
                Ok(names) => names,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => {
                    let (path, why) = (directory, why(&error));
                    entry.problems.push(Problem::File { path, why });
                    continue;
                }
            };
            for name in names {
                if !menu.may_read(&directory, name.len()) {
                    break;
                }
                let ends = |end: &str| name.to_ascii_lowercase().ends_with(end);
                let file = Place {
                    path: format!("{}/{name}", place.path),
                    ..place.clone()
                };
                if ends(".addon.efi") {
                    match self.addon(&file, release, menu) {
                        Ok(path) => entry.addons.push(path),
                        Err(problem) => note(&mut entry.problems, problem),
                    }
                } else if ends(".cred") || ends(".raw") {
                    entry
                        .problems
                        .push(Problem::NotAdded(format!("{directory}/{name}")));
                }
            }
        }
    }

    /// The path of an addon, if it is for the kernel `release`. One of at most
    /// [`MAX_FILE`] bytes is read as for a load.
    fn addon(
        &self,
        place: &Place,
        release: Option<&BString>,
        menu: &mut Menu,
    ) -> Result<String, Problem> {
        let addon = self.volumes.file(place)?;
        let failed = |error: io::Error| Problem::File {
            why: why(&error),
            path: addon.clone(),
        };
        let bytes = self.volumes.read_file(place).map_err(failed)?;
        menu.may_read(self.path, bytes.len());
        if bytes.len() <= MAX_FILE
            && let Err(error) = Addon::parse(&bytes)
        {
            let why = error.to_string();
            return Err(Problem::NoAddon { addon, why });
        }
        let mut parts = self.volumes.parts(place).map_err(failed)?;
        let own = label::addon_release(&mut |at, size| parts.read(at, size)).map_err(failed)?;
        match (own, release) {
            (Some(own), Some(release)) if own != *release => Err(Problem::OtherKernel {
                addon,
                release: own.to_string(),
            }),
            _ => Ok(addon),
        }
    }

    /// A stub of NixOS: the kernel and the initrd that it names, and what they must be.
    fn stub(&mut self, label: Label, stub: Stub) -> (Key, Entry) {
        let (key, mut entry) = self.uki(0, label);
        let mut take = |part: Part, named: Named| {
            let name = named.file();
            let path = on(self.volumes, self.base, self.place, &name);
            let path = path.unwrap_or_else(|problem| {
                note(&mut entry.problems, part.fault(problem));
                format!("{}/{name}", self.base)
            });
            entry.hashes.push((path.clone(), named.sha256));
            path
        };
        let kernel = take(Part::Kernel, stub.kernel);
        let initrd = stub.initrd.map(|named| take(Part::Initrd, named));
        entry.initrds = initrd.into_iter().collect();
        entry.kernel = Some(kernel);
        entry.is_uki = false;
        entry.cmdline = Some(stub.cmdline.unwrap_or_default());
        (key, entry)
    }

    fn broken(&mut self, why: &str) -> (Key, Entry) {
        let mut entry = self.entry();
        entry.problems.push(Problem::Other(why.to_owned()));
        (self.key.clone(), entry)
    }
}

/// The loader.conf of the EFI system partition.
fn conf(volumes: &Volumes<'_>, bases: &[String], menu: &mut Menu) -> LoaderConf {
    for base in bases {
        let path = format!("{base}/loader/loader.conf");
        let Some(place) = volumes.place(&path) else {
            continue;
        };
        match volumes.read_file(&place) {
            Ok(bytes) => {
                let conf = loader_conf::parse(&bytes);
                for problem in &conf.problems {
                    menu.note(&path, problem.clone());
                }
                return conf;
            }
            Err(error) => menu.note_unreadable(&path, &error),
        }
    }
    LoaderConf::default()
}

/// Whether systemd-boot has the entry in its menu. What it cannot start is left out, and
/// names that begin with `auto-` are those of its own entries.
fn is_listed(entry: &Entry) -> bool {
    let is_its_own = entry.source == Source::Bls && entry.id.starts_with(AUTO);
    let mut problems = entry.problems.iter();
    let left_out = |problem: &Problem| {
        problem.part() == Some(Part::Kernel)
            || matches!(problem, Problem::NoKernel | Problem::OtherArchitecture(_))
    };
    let is_broken = entry.source == Source::Uki && entry.kernel.is_none();
    !is_its_own && !is_broken && !problems.any(left_out)
}

/// The choice of systemd-boot: preferred, then default, each first by its variable and then
/// by loader.conf; else the first entry.
fn choose(keyed: &Keyed, conf: &LoaderConf, variables: &Variables, menu: &mut Menu) {
    let find = |pattern: &str, good_only: bool| {
        keyed.iter().position(|(key, entry)| {
            let is_good = !(good_only && key.is_bad());
            is_listed(entry) && is_good && glob::fits(pattern, &key.id())
        })
    };
    let first_one = keyed.iter().position(|(_, entry)| is_listed(entry));
    let meaning = |pattern: &Option<String>| match pattern.as_deref() {
        Some("@saved") => variables.last_booted.clone(),
        Some("@current") => variables.selected.clone(),
        pattern => pattern.map(str::to_owned),
    };
    // In this order; those that are preferred do not count without tries left.
    let patterns = [
        (&variables.preferred, true),
        (&conf.preferred, true),
        (&variables.default, false),
        (&conf.default, false),
    ];
    let patterns = patterns
        .into_iter()
        .filter_map(|(pattern, good_only)| Some((meaning(pattern)?, good_only)));
    let (mut missing, mut default, mut is_its_own) = (Vec::new(), None, false);
    for (pattern, good_only) in patterns {
        default = find(&pattern, good_only);
        if default.is_some() {
            break;
        }
        is_its_own = may_be_its_own(&pattern);
        if is_its_own {
            let what = "the default";
            menu.note("loader.conf", Problem::NotAmong { what, id: pattern });
            break;
        }
        missing.push(pattern);
    }
    if default.is_none() && !is_its_own && first_one.is_some() {
        for pattern in missing {
            menu.note("loader.conf", Problem::NoSuchDefault(pattern));
        }
    }
    menu.default = default.or(first_one.filter(|_| !is_its_own));
    let one_shot = variables.one_shot.clone();
    let once = one_shot.as_deref().and_then(|pattern| find(pattern, false));
    menu.one_shot = once.filter(|_| once != menu.default);
    if let (Some(id), None) = (one_shot, once) {
        let what = "the one-shot entry";
        menu.note("LoaderEntryOneShot", Problem::NotAmong { what, id });
    }
}

/// Whether an entry that systemd-boot makes itself may fit `pattern`. Which of them there are,
/// only systemd-boot knows.
fn may_be_its_own(pattern: &str) -> bool {
    let mut names = AUTO_NAMES.iter();
    pattern.to_ascii_lowercase().starts_with(AUTO) || names.any(|name| glob::fits(pattern, name))
}
