//! The commands that set variables: `set`, `export`, `unset`, `increment`, `load_env`,
//! `search`.

use std::rc::Rc;

use super::condition::Answer;
use super::run::Run;
use super::{FileRef, Fs, Problem};
use crate::entries::grubenv;

impl Run<'_> {
    pub(super) fn variables(
        &mut self,
        command: &str,
        rest: &[String],
        doubt: Option<&Rc<str>>,
    ) -> Answer {
        for word in rest {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            if let Some(value) = value {
                self.env.set(name, value, doubt.cloned());
            }
            match command {
                "unset" => self.env.unset(name),
                "export" => self.env.export(name),
                // GRUB looks at one word: the others are what white space in a value made.
                _ => break,
            }
        }
        Answer::Yes
    }

    pub(super) fn count(&mut self, command: &str, rest: &[String]) -> Answer {
        let Some(name) = rest.first() else {
            return Answer::No;
        };
        let Some(number) = self
            .env
            .get(name)
            .and_then(|value| value.parse::<i64>().ok())
        else {
            return Answer::No;
        };
        let step = if command == "increment" { 1 } else { -1 };
        let doubt = self.env.doubt_of(name).cloned();
        self.env
            .set(name, &number.saturating_add(step).to_string(), doubt);
        Answer::Yes
    }

    pub(super) fn load_env(&mut self, rest: &[String]) -> Answer {
        let prefix = self.env.get("prefix").unwrap_or_default();
        let mut path = format!("{prefix}/grubenv");
        let mut only = Vec::new();
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match word.strip_prefix("--file=") {
                Some(file) => file.clone_into(&mut path),
                None if word == "-f" || word == "--file" => {
                    path = rest.next().cloned().unwrap_or_default();
                }
                None if word.starts_with('-') => {}
                None => only.push(word),
            }
        }
        let file = FileRef::parse(&path, self.root());
        if is_block_list(&file.path) {
            let why = "GRUB keeps its environment in these blocks of the device, where this program does not read it";
            self.note(Problem::Unread {
                path: file.path,
                why: why.to_owned(),
            });
            return Answer::No;
        }
        let bytes = match self.read(&file) {
            Ok(bytes) => bytes,
            Err(problem) => {
                if problem.hides_default() {
                    self.note(problem);
                }
                return Answer::No;
            }
        };
        let variables = match grubenv::parse(&bytes) {
            Ok(variables) => variables,
            Err(problem) => {
                let (path, why) = (file.path, problem.to_string());
                self.note(match problem {
                    Problem::TooLarge => Problem::Unread { path, why },
                    _ => Problem::File { path, why },
                });
                return Answer::No;
            }
        };
        for (name, value) in variables {
            let is_next = name == "next_entry" && !value.is_empty();
            self.saw_next |= is_next;
            let counts = only.is_empty() || only.contains(&&name);
            if counts && (self.with_next || !is_next) {
                self.env.set(&name, &value, None);
            }
        }
        Answer::Yes
    }

    /// `search --fs-uuid --set=root UUID`, and its short forms.
    pub(super) fn search(
        &mut self,
        command: &str,
        rest: &[String],
        doubt: Option<&Rc<str>>,
    ) -> Answer {
        let mut kind = command.strip_prefix("search.").unwrap_or("file");
        let mut variable = (kind != "file" || command != "search").then(|| "root".to_owned());
        let mut names = Vec::new();
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            match word.as_str() {
                "-u" | "--fs-uuid" => kind = "fs_uuid",
                "-l" | "--label" | "--fs-label" => kind = "fs_label",
                "-f" | "--file" => kind = "file",
                "-s" | "--set" => variable = Some("root".to_owned()),
                word if word.starts_with("--set=") => {
                    variable = word.split_once('=').map(|(_, name)| name.to_owned());
                }
                // Hints only make the search quick.
                word if word.starts_with("--hint") && !word.contains('=') => drop(rest.next()),
                word if word.starts_with('-') => {}
                _ => names.push(word.clone()),
            }
        }
        // `--set root UUID` and `search.fs_uuid UUID root` name the variable as a word.
        let name = match (&names[..], command == "search") {
            ([], _) => return Answer::No,
            ([name], _) => name.clone(),
            ([first, second, ..], true) => {
                variable = Some(first.clone());
                second.clone()
            }
            ([first, second, ..], false) => {
                variable = Some(second.clone());
                first.clone()
            }
        };
        let found = match kind {
            "fs_uuid" => Fs::Uuid(name),
            "fs_label" => Fs::Label(name),
            _ => Fs::Holding(name),
        };
        if let Some(variable) = variable {
            self.env.set(&variable, &found.device(), doubt.cloned());
        }
        Answer::Yes
    }
}

/// Whether a path names blocks of the device instead of a file: `512+1,+2`.
fn is_block_list(path: &str) -> bool {
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    path.split(',').all(|blocks| {
        let pair = blocks.split_once('+');
        pair.is_some_and(|(start, count)| is_number(start) && is_number(count) && !count.is_empty())
    })
}
