//! Which entry a word means.

use super::find::{Entry, Found, Nearness, Running};
use super::{Part, Problem};

/// The word for the entry that the next boot would start.
pub const DEFAULT: &str = "default";
/// The word for the entry that the running kernel was started from.
pub const CURRENT: &str = "current";

/// Most ids that an error names.
const NAMED: usize = 5;

/// Why no entry is chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// No entry has that name.
    #[error("no boot entry is called `{name}`{}", listed(.near))]
    Unknown {
        /// The name.
        name: String,
        /// The ids of entries that are named alike, else of the first ones.
        near: Vec<String>,
    },
    /// Several entries have that name.
    #[error("`{name}` means several boot entries{}", listed(.ids))]
    Several {
        /// The name.
        name: String,
        /// Their ids.
        ids: Vec<String>,
    },
    /// No entry is the default.
    #[error("no boot entry is the default")]
    NoDefault,
    /// The default is not known.
    #[error("which entry is the default is not known: {file}: {problem}")]
    UnknownDefault {
        /// The file of the configuration.
        file: String,
        /// Why not.
        problem: Problem,
    },
    /// The running kernel was started from no entry.
    #[error("no boot entry has the command line and the release of the running kernel{}", listed(.near))]
    NoCurrent {
        /// The ids of those that are most alike.
        near: Vec<String>,
    },
    /// The entry cannot be booted.
    #[error("the boot entry `{id}` cannot be booted: {problem}")]
    Faulty {
        /// Its id.
        id: String,
        /// Why not.
        problem: Problem,
    },
}

impl ChoiceError {
    /// A way out.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoCurrent { .. } => {
                "`rkexec entries -v` shows them; --reuse-cmdline takes the running command line for a kernel file"
            }
            _ => "`rkexec entries` shows the boot entries of this machine",
        }
    }
}

fn listed(ids: &[String]) -> String {
    match ids {
        [] => String::new(),
        ids => format!("; entries: {}", ids.join(", ")),
    }
}

/// The entry that `name` means: [`DEFAULT`] (the one-shot entry goes before it, as at the next
/// boot), [`CURRENT`], an id, the last part of an id behind `>`, an id without `.conf` or
/// `.efi`, or a title. Others take the place of the parts `replaced`.
///
/// # Errors
/// When none or several are meant, the default is not known, or the one that is meant cannot
/// be booted.
pub fn choose<'e>(
    found: &'e Found,
    name: &str,
    running: Option<&Running>,
    replaced: &[Part],
) -> Result<&'e Entry, ChoiceError> {
    let entries = &found.entries;
    let chosen = match name {
        DEFAULT => next_boot(found),
        CURRENT => current(entries, running),
        name => named(entries, name),
    }?;
    match chosen.fault_without(replaced) {
        Some(problem) => Err(ChoiceError::Faulty {
            id: chosen.id.clone(),
            problem: problem.clone(),
        }),
        None => Ok(chosen),
    }
}

fn next_boot(found: &Found) -> Result<&Entry, ChoiceError> {
    let mut about = found.about_default.iter();
    let unknown = about.find(|(_, problem)| !matches!(problem, Problem::NoSuchDefault(_)));
    if let Some((file, problem)) = unknown.cloned() {
        return Err(ChoiceError::UnknownDefault { file, problem });
    }
    let entries = &found.entries;
    let once = entries.iter().find(|entry| entry.one_shot);
    let default = || entries.iter().find(|entry| entry.default);
    once.or_else(default).ok_or(ChoiceError::NoDefault)
}

fn current<'e>(entries: &'e [Entry], running: Option<&Running>) -> Result<&'e Entry, ChoiceError> {
    if let Some(entry) = entries.iter().find(|entry| entry.current) {
        return Ok(entry);
    }
    let nearness =
        |entry: &Entry| running.map_or(Nearness::Other, |running| running.nearness(entry));
    let nearest = entries.iter().map(nearness).max();
    let nearest = nearest.filter(|nearest| *nearest > Nearness::Other);
    let near = entries
        .iter()
        .filter(|entry| Some(nearness(entry)) == nearest);
    let near = near.take(NAMED).map(|entry| entry.id.clone()).collect();
    Err(ChoiceError::NoCurrent { near })
}

fn named<'e>(entries: &'e [Entry], name: &str) -> Result<&'e Entry, ChoiceError> {
    let tests: [&dyn Fn(&Entry) -> bool; 4] = [
        &|entry| entry.id == name,
        &|entry| {
            let stem = [".conf", ".efi"]
                .into_iter()
                .find_map(|end| entry.id.strip_suffix(end));
            stem == Some(name)
        },
        &|entry| {
            entry
                .id
                .rsplit_once('>')
                .is_some_and(|(_, last)| last == name)
        },
        &|entry| entry.title.as_deref() == Some(name),
    ];
    let ids = |found: &[&Entry]| {
        found
            .iter()
            .take(NAMED)
            .map(|entry| entry.id.clone())
            .collect()
    };
    // Entries with one id differ in their titles.
    let with_titles = |found: &[&Entry]| {
        let title = |entry: &Entry| entry.title.clone().unwrap_or_default();
        let names = found.iter().take(NAMED);
        names
            .map(|entry| format!("{} ({})", entry.id, title(entry)))
            .collect()
    };
    for test in tests {
        let found: Vec<&Entry> = entries.iter().filter(|entry| test(entry)).collect();
        match &found[..] {
            [] => {}
            [entry] => return Ok(entry),
            several => {
                let same = several.windows(2).any(|two| match two {
                    [a, b] => a.id == b.id,
                    _ => false,
                });
                let ids = if same {
                    with_titles(several)
                } else {
                    ids(several)
                };
                let name = name.to_owned();
                return Err(ChoiceError::Several { name, ids });
            }
        }
    }
    let lower = name.to_lowercase();
    let is_near = |entry: &&Entry| entry.id.to_lowercase().contains(&lower);
    let mut near: Vec<&Entry> = entries.iter().filter(is_near).collect();
    if near.is_empty() {
        near = entries.iter().collect();
    }
    let (name, near) = (name.to_owned(), ids(&near));
    Err(ChoiceError::Unknown { name, near })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entries::find::Source;

    fn entry(id: &str, title: &str) -> Entry {
        Entry {
            title: Some(title.to_owned()),
            kernel: Some("/boot/vmlinuz".to_owned()),
            ..Entry::new(id, Source::Grub, "/boot/grub/grub.cfg")
        }
    }

    fn entries() -> Vec<Entry> {
        let mut all = vec![
            entry("simple", "Debian"),
            entry("advanced>6.1", "Debian, with Linux 6.1"),
            entry("advanced>5.10", "Debian, with Linux 5.10"),
            entry("other>5.10", "Other"),
            entry("arch.conf", "Arch"),
            entry("locked", "Locked"),
        ];
        all[2].default = true;
        all[5].problems = vec![Problem::Unset("x".to_owned()), Problem::Password];
        all
    }

    fn found(entries: Vec<Entry>) -> Found {
        Found {
            entries,
            ..Found::default()
        }
    }

    fn id(name: &str) -> Result<String, ChoiceError> {
        choose(&found(entries()), name, None, &[]).map(|entry| entry.id.clone())
    }

    #[test]
    fn names() {
        for (name, entry) in [
            ("simple", "simple"),
            ("advanced>5.10", "advanced>5.10"),
            ("6.1", "advanced>6.1"),
            ("arch", "arch.conf"),
            ("Debian", "simple"),
            ("default", "advanced>5.10"),
        ] {
            assert_eq!(id(name).as_deref(), Ok(entry), "{name}");
        }
        let said = |name: &str| id(name).unwrap_err().to_string();
        assert_eq!(
            said("5.10"),
            "`5.10` means several boot entries; entries: advanced>5.10, other>5.10"
        );
        assert_eq!(
            said("advanced"),
            "no boot entry is called `advanced`; entries: advanced>6.1, advanced>5.10"
        );
        let twins = found(vec![entry("a", "Twin"), entry("a", "Other twin")]);
        assert_eq!(
            choose(&twins, "a", None, &[]).unwrap_err().to_string(),
            "`a` means several boot entries; entries: a (Twin), a (Other twin)"
        );
        assert_eq!(
            choose(&twins, "Twin", None, &[]).unwrap().title.as_deref(),
            Some("Twin")
        );
        assert!(
            said("x")
                .ends_with("entries: simple, advanced>6.1, advanced>5.10, other>5.10, arch.conf")
        );
        assert!(
            said("locked")
                .starts_with("the boot entry `locked` cannot be booted: the boot loader asks")
        );
        assert_eq!(
            choose(&Found::default(), "default", None, &[]),
            Err(ChoiceError::NoDefault)
        );
    }

    #[test]
    fn a_default_that_is_not_known_is_refused() {
        let doubtful = Problem::Doubtful {
            name: "default".to_owned(),
            on: "probe".to_owned(),
        };
        for (problem, refused) in [
            (doubtful, true),
            (Problem::TooLarge, true),
            (Problem::NoSuchDefault("zz".to_owned()), false),
        ] {
            let mut found = found(entries());
            let file = "/boot/grub/grub.cfg".to_owned();
            found.about_default = vec![(file.clone(), problem.clone())];
            assert!(choose(&found, "simple", None, &[]).is_ok());
            let chosen = choose(&found, "default", None, &[]);
            let unknown = ChoiceError::UnknownDefault { file, problem };
            match refused {
                true => assert_eq!(chosen, Err(unknown)),
                false => assert_eq!(chosen.unwrap().id, "advanced>5.10"),
            }
        }
    }

    #[test]
    fn the_next_boot_goes_before_the_default() {
        let mut all = entries();
        all[0].one_shot = true;
        let all = found(all);
        assert_eq!(choose(&all, "default", None, &[]).unwrap().id, "simple");
    }

    #[test]
    fn the_nearest_ones_are_named_where_none_is_current() {
        let mut all = entries();
        all[1].version = Some("6.1.0-9-amd64".to_owned());
        all[1].cmdline = Some("a b".to_owned());
        let running = Running::of("6.1.0-9-amd64", b"BOOT_IMAGE=/vmlinuz-6.1.0-9-amd64 a c");
        let near = vec!["advanced>6.1".to_owned()];
        assert_eq!(
            choose(&found(all.clone()), "current", Some(&running), &[]),
            Err(ChoiceError::NoCurrent { near })
        );
        all[1].cmdline = Some("a c".to_owned());
        running.mark(&mut all);
        assert_eq!(
            choose(&found(all), "current", Some(&running), &[])
                .unwrap()
                .id,
            "advanced>6.1"
        );
    }
}
