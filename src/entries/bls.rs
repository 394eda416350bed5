//! Entries of type 1 of the Boot Loader Specification: one file each in loader/entries.
//!
//! Source: the UAPI Group's "Boot Loader Specification" and "Automatic Boot Assessment".
//! The keys `grub_*` are what Fedora's GRUB adds to it.

use super::order::{Key, Tries};
use super::text::{Text, is_clean, key_value};
use super::{MAX_INITRDS, Problem, TOO_MANY_INITRDS};

/// The end of an entry's file name.
const SUFFIX: &str = ".conf";
/// The architecture of this program's kernels, as the specification names it.
const ARCHITECTURE: &str = "x64";

/// An entry. Paths are as the file has them: from the root of its file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bls {
    /// The file name without its counter: `6.1+3-0.conf` has the id `6.1.conf`.
    pub id: String,
    /// The counter in the file name.
    pub tries: Option<Tries>,
    /// `title`.
    pub title: Option<String>,
    /// `version`.
    pub version: Option<String>,
    /// `machine-id`.
    pub machine_id: Option<String>,
    /// `sort-key`.
    pub sort_key: Option<String>,
    /// `architecture`.
    pub architecture: Option<String>,
    /// `linux`.
    pub linux: Option<String>,
    /// `efi`: a program for the firmware.
    pub efi: Option<String>,
    /// `uki`: a unified kernel image.
    pub uki: Option<String>,
    /// `profile` of that image.
    pub profile: Option<String>,
    /// `initrd`, in order.
    pub initrds: Vec<String>,
    /// `options`, in order.
    pub options: Vec<String>,
    /// `devicetree`.
    pub devicetree: Option<String>,
    /// `devicetree-overlay`.
    pub overlays: Vec<String>,
    /// `grub_users`, when the key is there: who may start the entry.
    pub grub_users: Option<String>,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
}

impl Bls {
    /// The command line: all `options`, with a space between them.
    #[must_use]
    pub fn cmdline(&self) -> String {
        self.options.join(" ")
    }

    /// What decides about the entry's place.
    #[must_use]
    pub fn key(&self) -> Key {
        Key {
            name: self.id.clone(),
            sort_key: self.sort_key.clone(),
            machine_id: self.machine_id.clone(),
            version: self.version.clone(),
            tries: self.tries,
            profile: 0,
        }
    }
}

/// Reads the entry in the file `name`. `None`: not the name of an entry.
#[must_use]
pub fn parse(name: &str, bytes: &[u8]) -> Option<Bls> {
    let (id, tries) = id_of(name, SUFFIX)?;
    let text = Text::of(bytes);
    let mut entry = Bls {
        id,
        tries,
        ..Bls::default()
    };
    let mut clean = true;
    for (_, line) in text.lines().filter(|(_, line)| !line.starts_with('#')) {
        clean &= is_clean(line);
        if let Some((key, value)) = key_value(line) {
            entry.take(key, value);
        }
    }
    entry.problems = text.problems;
    if !clean {
        entry.problems.push(Problem::NotText);
    }
    entry.check();
    Some(entry)
}

impl Bls {
    /// One line. Of a key that may stand only once the last line counts.
    fn take(&mut self, key: &str, value: &str) {
        let one = match key {
            "title" => &mut self.title,
            "version" => &mut self.version,
            "machine-id" => &mut self.machine_id,
            "sort-key" => &mut self.sort_key,
            "architecture" => &mut self.architecture,
            "linux" => &mut self.linux,
            "efi" => &mut self.efi,
            "uki" => &mut self.uki,
            "profile" => &mut self.profile,
            "devicetree" => &mut self.devicetree,
            "grub_users" => &mut self.grub_users,
            "initrd" => return self.initrds.push(value.to_owned()),
            "options" => return self.options.push(value.to_owned()),
            "devicetree-overlay" => {
                let overlays = value.split_ascii_whitespace().map(str::to_owned);
                return self.overlays.extend(overlays);
            }
            _ => return,
        };
        *one = Some(value.to_owned());
    }

    fn check(&mut self) {
        if self.linux.is_none() && self.uki.is_none() {
            self.problems.push(match &self.efi {
                Some(efi) => Problem::OtherProgram(efi.clone()).told(),
                None => Problem::NoKernel,
            });
        }
        let other = self.architecture.as_ref();
        if let Some(other) = other.filter(|own| !own.eq_ignore_ascii_case(ARCHITECTURE)) {
            self.problems
                .push(Problem::OtherArchitecture(other.clone()));
        }
        if self.initrds.len() > MAX_INITRDS {
            self.initrds.truncate(MAX_INITRDS);
            self.problems.push(TOO_MANY_INITRDS);
        }
        if self.tries.is_some_and(|tries| tries.left == 0) {
            self.problems.push(Problem::NoTriesLeft);
        }
    }
}

/// The id in a file name that ends with `suffix`, and its counter: `+LEFT` or `+LEFT-DONE`
/// before the suffix. `None`: a hidden file, or another suffix.
#[must_use]
pub fn id_of(name: &str, suffix: &str) -> Option<(String, Option<Tries>)> {
    let at = name.len().checked_sub(suffix.len())?;
    let (stem, end) = (name.get(..at)?, name.get(at..)?);
    if stem.is_empty() || stem.starts_with('.') || !end.eq_ignore_ascii_case(suffix) {
        return None;
    }
    let counted = stem.rsplit_once('+').and_then(|(stem, counter)| {
        let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
        let tries = Tries {
            left: number(left)?,
            done: number(done)?,
        };
        (!stem.is_empty()).then_some((stem, tries))
    });
    Some(match counted {
        Some((stem, tries)) => (format!("{stem}{end}"), Some(tries)),
        None => (name.to_owned(), None),
    })
}

/// Digits alone: `parse` would take a sign.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_read() {
        let file = b"# An entry\r\n\
            title      Fedora 18 (Spherical Cow)\r\n\
            version    3.7.2-201.fc18.x86_64\n\
            machine-id 4098b3f648d74c13b1f04ccfba7798e8\n\
            sort-key   fedora\n\
            architecture X64\n\
            linux      /6a9857a3/3.7.2/linux\n\
            initrd     /ucode.img\n\
            initrd     /6a9857a3/3.7.2/initrd\n\
            options    root=UUID=6d3376e4-fc93 ro\n\
            options    quiet  splash\n\
            devicetree /dtb/a.dtb\n\
            devicetree-overlay /o/a.dtbo /o/b.dtbo\n\
            grub_users $grub_users\n\
            grub_class kernel\n\
            efi\n";
        let entry = parse("6a9857a3-3.7.2+5.conf", file).unwrap();
        assert_eq!(entry.id, "6a9857a3-3.7.2.conf");
        assert_eq!(entry.tries, Some(Tries { left: 5, done: 0 }));
        assert_eq!(entry.title.as_deref(), Some("Fedora 18 (Spherical Cow)"));
        assert_eq!(entry.sort_key.as_deref(), Some("fedora"));
        assert_eq!(entry.linux.as_deref(), Some("/6a9857a3/3.7.2/linux"));
        assert_eq!(entry.initrds, ["/ucode.img", "/6a9857a3/3.7.2/initrd"]);
        assert_eq!(entry.cmdline(), "root=UUID=6d3376e4-fc93 ro quiet  splash");
        assert_eq!(entry.devicetree.as_deref(), Some("/dtb/a.dtb"));
        assert_eq!(entry.overlays, ["/o/a.dtbo", "/o/b.dtbo"]);
        assert_eq!(entry.grub_users.as_deref(), Some("$grub_users"));
        assert_eq!(entry.efi, None);
        assert_eq!(entry.problems, []);
    }

    #[test]
    fn names_and_counters() {
        let id = |name| id_of(name, SUFFIX);
        let counted = |id: &str, left, done| Some((id.to_owned(), Some(Tries { left, done })));
        let plain = |id: &str| Some((id.to_owned(), None));
        assert_eq!(id("a+3.conf"), counted("a.conf", 3, 0));
        assert_eq!(id("a+0-4.conf"), counted("a.conf", 0, 4));
        assert_eq!(id("a+1+2-3.CONF"), counted("a+1.CONF", 2, 3));
        for name in [
            "a+.conf",
            "a+x.conf",
            "a+1-.conf",
            "a++1x.conf",
            "a+-1.conf",
            "+1.conf",
            "a+99999999999.conf",
        ] {
            assert_eq!(id(name), plain(name), "{name}");
        }
        for name in [".conf", ".a.conf", "a.conf.bak", "conf", "", "ä"] {
            assert_eq!(id(name), None, "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let problems = |bytes: &[u8]| parse("a+0.conf", bytes).unwrap().problems;
        assert_eq!(problems(b""), [Problem::NoKernel, Problem::NoTriesLeft]);
        assert!(problems(b"linux /a\0").contains(&Problem::NotText));
        assert!(problems(b"linux /a\nversion \xff").contains(&Problem::NotText));
        assert!(
            problems(b"efi /shell.efi").contains(&Problem::OtherProgram("/shell.efi".to_owned()))
        );
        let many = problems("linux /a\ninitrd /i\n".repeat(101).as_bytes());
        assert_eq!(many, [TOO_MANY_INITRDS, Problem::NoTriesLeft]);
        let other = Problem::OtherArchitecture("aa64".to_owned());
        assert!(problems(b"linux /a\narchitecture aa64").contains(&other));
    }
}
