//! extlinux.conf and syslinux.cfg, of SYSLINUX and of U-Boot.
//!
//! Source: the SYSLINUX documentation ("Config", "Menu") and U-Boot's "Generic Distro
//! Configuration". Keywords are in any case. Where a label says nothing, APPEND before the
//! first label holds; `APPEND -` says that there is none.
//!
//! What is started when nobody chooses: what ONTIMEOUT names, where SYSLINUX asks (PROMPT) or
//! a menu does (UI, or DEFAULT with a module); else what DEFAULT names; else MENU DEFAULT, of a
//! menu or of U-Boot; else the first label. tests/vm/landing/extlinux.rs holds this against
//! SYSLINUX itself.

use std::rc::Rc;

use super::text::{Text, is_clean, key_value};
use super::{MAX_ENTRIES, MAX_INITRDS, Problem, TOO_MANY_INITRDS, note};

/// How deep files may include each other.
const MAX_DEPTH: usize = 8;
/// Files that are read in all, against files that include each other many times.
const MAX_FILES: usize = 64;

/// A label. Paths are as the file has them: absolute, or relative to the directory of the
/// first file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Label {
    /// LABEL.
    pub name: String,
    /// MENU LABEL, without the mark of the hot key.
    pub title: Option<String>,
    /// LINUX or KERNEL.
    pub kernel: Option<String>,
    /// INITRD, else `initrd=` of APPEND, in order.
    pub initrds: Vec<String>,
    /// APPEND, without `initrd=`.
    pub cmdline: String,
    /// FDT.
    pub devicetree: Option<String>,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
    append: Option<String>,
    /// APPEND of its menu.
    inherited: Option<Rc<str>>,
    other: Option<String>,
}

/// A configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The labels in the order of the file.
    pub labels: Vec<Label>,
    /// What is started when nobody chooses, a number in `labels`.
    pub default: Option<usize>,
    /// What is wrong with the configuration as a whole.
    pub problems: Vec<Problem>,
}

/// Reads a file that a configuration includes, or says why it cannot be read.
type Read<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<u8>, Problem>;

/// Reads a configuration. `read` is asked for the files that it includes.
pub fn parse(bytes: &[u8], read: Read<'_>) -> Config {
    let mut reader = Reader {
        read,
        files: 0,
        config: Config::default(),
        current: None,
        menus: vec![None],
        default: None,
        on_timeout: None,
        menu_default: None,
        has_menu: false,
        asks: false,
        in_help: false,
    };
    reader.file(bytes, 0);
    reader.finish()
}

struct Reader<'a> {
    read: Read<'a>,
    files: usize,
    config: Config,
    /// The label that a line belongs to, a number in its labels.
    current: Option<usize>,
    /// APPEND of the menu and of those around it, which stands before a label.
    menus: Vec<Option<Rc<str>>>,
    default: Option<String>,
    on_timeout: Option<String>,
    menu_default: Option<usize>,
    /// UI names a menu.
    has_menu: bool,
    /// PROMPT: somebody is asked who may not answer.
    asks: bool,
    /// Between TEXT HELP and ENDTEXT.
    in_help: bool,
}

impl Reader<'_> {
    fn file(&mut self, bytes: &[u8], depth: usize) {
        self.files += 1;
        let text = Text::of(bytes);
        for problem in text.problems.iter().cloned() {
            note(&mut self.config.problems, problem);
        }
        for (_, line) in text.lines() {
            if line.starts_with('#') {
                continue;
            }
            let (key, value) = key_value(line).unwrap_or((line, ""));
            let key = key.to_ascii_uppercase();
            if self.in_help {
                self.in_help = key != "ENDTEXT";
                continue;
            }
            self.line(&key, value, depth);
            let clean = is_clean(line);
            if let Some(label) = self.label_here().filter(|_| !clean) {
                note(&mut label.problems, Problem::NotText);
            } else if !clean {
                note(&mut self.config.problems, Problem::NotText);
            }
        }
    }

    fn line(&mut self, key: &str, value: &str, depth: usize) {
        match key {
            "LABEL" => return self.label(value),
            "DEFAULT" => return self.default = Some(value.to_owned()),
            "ONTIMEOUT" => return self.on_timeout = Some(value.to_owned()),
            "UI" => return self.has_menu = true,
            "PROMPT" => return self.asks = value.trim() != "0",
            "INCLUDE" => return self.include(value, depth),
            "MENU" => return self.menu(value, depth),
            "TEXT" => return self.in_help = value.eq_ignore_ascii_case("HELP"),
            _ => {}
        }
        let Some(label) = self.label_here() else {
            if let ("APPEND", Some(append)) = (key, self.menus.last_mut()) {
                *append = Some(value.into());
            }
            return;
        };
        let own = || Some(value.to_owned());
        match key {
            "LINUX" => (label.kernel, label.other) = (own(), None),
            "KERNEL" if is_program(value) => label.other = Some(format!("KERNEL {value}")),
            "KERNEL" => (label.kernel, label.other) = (own(), None),
            "APPEND" => label.append = own(),
            "INITRD" => {
                let files = value.split(',').filter(|file| !file.is_empty());
                label.initrds.extend(files.map(str::to_owned));
            }
            "FDT" | "DEVICETREE" => label.devicetree = own(),
            "BOOT" | "BSS" | "PXE" | "FDIMAGE" | "COMBOOT" | "COM32" | "CONFIG" | "LOCALBOOT" => {
                label.other = Some(format!("{key} {value}"));
            }
            _ => {}
        }
    }

    fn label_here(&mut self) -> Option<&mut Label> {
        self.config.labels.get_mut(self.current?)
    }

    fn label(&mut self, name: &str) {
        // What follows belongs to no other label.
        self.current = None;
        if self.config.labels.len() == MAX_ENTRIES {
            return note(&mut self.config.problems, Problem::TooMany);
        }
        self.current = Some(self.config.labels.len());
        self.config.labels.push(Label {
            name: name.to_owned(),
            inherited: self.menus.last().cloned().flatten(),
            ..Label::default()
        });
    }

    fn menu(&mut self, value: &str, depth: usize) {
        let (key, value) = key_value(value).unwrap_or((value, ""));
        let number = self.current;
        match (key.to_ascii_uppercase().as_str(), self.label_here()) {
            // A menu within the menu ends the label before it.
            ("BEGIN", _) => {
                self.current = None;
                self.menus.push(self.menus.last().cloned().flatten());
            }
            ("END", _) => {
                self.current = None;
                if self.menus.len() > 1 {
                    self.menus.pop();
                }
            }
            ("INCLUDE", _) => {
                // Behind the name the tag of a menu may follow.
                let file = value.split_ascii_whitespace().next().unwrap_or_default();
                self.include(file, depth);
            }
            ("LABEL", Some(label)) => label.title = Some(value.replacen('^', "", 1)),
            ("DEFAULT", Some(_)) => self.menu_default = number,
            ("PASSWD", Some(label)) => note(&mut label.problems, Problem::Password),
            _ => {}
        }
    }

    fn include(&mut self, file: &str, depth: usize) {
        if depth == MAX_DEPTH || self.files >= MAX_FILES {
            let limit = Problem::Limit("its files include too many others");
            return note(&mut self.config.problems, limit);
        }
        match (self.read)(file) {
            Ok(bytes) => self.file(&bytes, depth + 1),
            Err(problem) => note(&mut self.config.problems, problem),
        }
    }

    fn finish(mut self) -> Config {
        for label in &mut self.config.labels {
            let (own, inherited) = (label.append.take(), label.inherited.take());
            let append = own.as_deref().or(inherited.as_deref());
            finish_label(label, append.unwrap_or_default());
        }
        let program = self.default.take_if(|name| is_program(name));
        let has_menu = self.has_menu || program.is_some();
        let waits = has_menu || self.asks;
        let default = self.default.take().map(|name| match key_value(&name) {
            // A menu looks at the first word.
            Some((label, _)) if has_menu => label.to_owned(),
            _ => name,
        });
        let on_timeout = self.on_timeout.take().filter(|_| waits);
        let named = on_timeout.or(default);
        let by_name = named.as_deref().and_then(|name| self.named(name));
        if let (Some(name), None, None) = (named, by_name, self.menu_default) {
            note(&mut self.config.problems, Problem::NoSuchDefault(name));
        }
        let first = (!self.config.labels.is_empty()).then_some(0);
        self.config.default = by_name.or(self.menu_default).or(first);
        self.config
    }

    /// The label that DEFAULT or ONTIMEOUT names. Words behind it are added to its command
    /// line: then it is a label of its own, as the one without them can be chosen, too.
    fn named(&mut self, name: &str) -> Option<usize> {
        let labels = &mut self.config.labels;
        let find = |name: &str| labels.iter().position(|label| label.name == name);
        if let Some(found) = find(name) {
            return Some(found);
        }
        let (label, words) = key_value(name)?;
        let mut label = labels.get(find(label)?)?.clone();
        if labels.len() == MAX_ENTRIES {
            note(&mut self.config.problems, Problem::TooMany);
            return None;
        }
        name.clone_into(&mut label.name);
        label.cmdline = format!("{} {words}", label.cmdline).trim_start().to_owned();
        labels.push(label);
        Some(labels.len() - 1)
    }
}

fn finish_label(label: &mut Label, append: &str) {
    let append = if append == "-" { "" } else { append };
    let words = append.split_ascii_whitespace();
    let (initrds, rest): (Vec<_>, Vec<_>) = words.partition(|word| word.starts_with("initrd="));
    label.cmdline = rest.join(" ");
    if let (Some(files), true) = (initrds.last(), label.initrds.is_empty()) {
        let files = files.trim_start_matches("initrd=").split(',');
        let files = files.filter(|file| !file.is_empty());
        label.initrds = files.map(str::to_owned).collect();
    }
    if label.initrds.len() > MAX_INITRDS {
        label.initrds.truncate(MAX_INITRDS);
        note(&mut label.problems, TOO_MANY_INITRDS);
    }
    match (label.other.take(), &label.kernel) {
        (Some(other), _) => {
            label.kernel = None;
            note(&mut label.problems, Problem::OtherProgram(other));
        }
        (None, None) => label.problems.push(Problem::NoKernel),
        (None, Some(_)) => {}
    }
}

/// Whether KERNEL names something else than a Linux, by the end of its name.
fn is_program(file: &str) -> bool {
    const PROGRAMS: [&str; 9] = ["c32", "cbt", "com", "bss", "bs", "bin", "img", "0", "efi"];
    let file = file.split_ascii_whitespace().next().unwrap_or_default();
    let name = file.rsplit('/').next().unwrap_or(file);
    // A version ends with a number, too: only `pxelinux.0` itself is meant by `0`.
    let end = name
        .rsplit_once('.')
        .map(|(stem, end)| (stem, end.to_ascii_lowercase()));
    end.is_some_and(|(stem, end)| {
        PROGRAMS.contains(&&*end) && (end != "0" || !stem.contains(|c: char| c.is_ascii_digit()))
    })
}

#[cfg(test)]
#[path = "extlinux_tests.rs"]
mod tests;
