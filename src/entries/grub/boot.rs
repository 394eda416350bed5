//! The commands of an entry: what it starts.

use super::condition::Answer;
use super::env::Words;
use super::run::{Run, doubtful};
use super::{FileRef, Problem};
use crate::entries::text::is_clean;
use crate::entries::{MAX_INITRDS, TOO_MANY_INITRDS};

/// Most modules of one entry: each is looked for on the machine.
const MAX_MODULES: usize = 100;
const TOO_MANY_MODULES: Problem = Problem::Limit("an entry has more than 100 modules");

impl Run<'_> {
    /// Carries out a command that says what an entry starts. `None`: it is another command,
    /// or no entry runs.
    pub(super) fn boot(
        &mut self,
        name: &str,
        rest: &[String],
        words: &Words,
        line: usize,
    ) -> Option<Answer> {
        let root = self.root().to_owned();
        let boot = &mut self.entry.as_mut()?.boot;
        let file = |path: &String| FileRef::parse(path, &root);
        match name {
            "linux" | "linux16" | "linuxefi" | "multiboot" | "multiboot2" | "xen_hypervisor" => {
                let files: Vec<_> = rest.iter().skip_while(|word| is_option(word)).collect();
                boot.kernel = files.first().map(|path| file(path));
                boot.cmdline = line_of(files.get(1..).unwrap_or_default());
            }
            "initrd" | "initrd16" | "initrdefi" => {
                // `newc:name:path` puts a file into the initrd: that is no initrd of its own.
                boot.initrds = rest.iter().take(MAX_INITRDS).map(file).collect();
                if rest.len() > MAX_INITRDS {
                    self.note(TOO_MANY_INITRDS);
                }
                if let Some(word) = rest.iter().find(|word| word.starts_with("newc:")) {
                    let what = format!("{name} {word}");
                    self.note(Problem::NotFollowed { line, what });
                }
            }
            "module" | "module2" | "xen_module" | "xen_linux" | "xen_initrd" => {
                let words: Vec<_> = rest.iter().skip_while(|word| is_option(word)).collect();
                let (path, arguments) = words.split_first()?;
                if boot.modules.len() < MAX_MODULES {
                    boot.modules.push((file(path), line_of(arguments)));
                } else {
                    self.note(TOO_MANY_MODULES);
                }
            }
            "devicetree" => boot.devicetree = rest.first().map(file),
            _ if is_other_program(name) => {
                let what = [&[name.to_owned()], rest].concat().join(" ");
                self.note(Problem::OtherProgram(what));
                return Some(Answer::Yes);
            }
            _ => return None,
        }
        for name in &words.unset {
            self.note(Problem::Unset(name.clone()));
        }
        for doubt in &words.doubts {
            self.note(doubtful(doubt));
        }
        if !words.words.iter().all(|word| is_clean(word)) {
            self.note(Problem::NotText);
        }
        Some(Answer::Yes)
    }
}

/// An option of `module2`, for instance `--nounzip`.
fn is_option(word: &str) -> bool {
    word.starts_with("--")
}

/// The command line that GRUB makes of words: one with a blank is put into quotes, and a
/// backslash stands before quotes and backslashes.
fn line_of(words: &[&String]) -> String {
    let word = |word: &&String| {
        let mut text = String::new();
        let quote = if word.contains(' ') { "\"" } else { "" };
        text.push_str(quote);
        for c in word.chars() {
            if matches!(c, '\\' | '\'' | '"') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push_str(quote);
        text
    };
    words.iter().map(word).collect::<Vec<_>>().join(" ")
}

/// Commands that start something else than a Linux or a multiboot kernel.
fn is_other_program(name: &str) -> bool {
    matches!(
        name,
        "chainloader"
            | "ntldr"
            | "appleloader"
            | "drivemap"
            | "freedos"
            | "plan9"
            | "fwsetup"
            | "reboot"
            | "halt"
            | "exit"
            | "efiboot"
            | "uki"
    ) || name.starts_with("xnu_")
        || name.starts_with("kfreebsd")
        || name.starts_with("knetbsd")
        || name.starts_with("kopenbsd")
}
