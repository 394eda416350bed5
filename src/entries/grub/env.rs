//! Variables, and the words of a command with their values.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::syntax::{Part, Word};

/// Most bytes of one value.
pub(super) const MAX_VALUE: usize = 64 << 10;
/// Most bytes of all values and names.
const MAX_ALL: usize = 1 << 20;
/// Most variables: every entry has a copy of them. GRUB's own configurations set some 60.
const MAX_VARS: usize = 4096;

/// The variable of all arguments. In quotes each of them is a word of its own.
const ALL: &str = "@";

/// A value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Var {
    value: Rc<str>,
    /// What only GRUB can answer, and the value hangs on.
    doubt: Option<Rc<str>>,
    /// It is there in submenus.
    exported: bool,
}

/// The variables.
#[derive(Debug, Clone, Default)]
pub(super) struct Env {
    vars: BTreeMap<Rc<str>, Var>,
    /// Bytes of all values and names.
    size: usize,
}

/// The arguments of a function, or of the block of an entry.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    pub(super) words: Vec<String>,
    /// What one of them hangs on.
    pub(super) doubt: Option<Rc<str>>,
}

impl Arguments {
    /// Says what the variable `name` hangs on, which has arguments.
    fn doubtful(&self, name: &str, found: &mut Words) {
        let doubt = self.doubt.iter();
        let doubts = doubt.map(|on| (name.to_owned(), Rc::clone(on)));
        found.doubts.extend(doubts);
    }
}

/// The words of a command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) words: Vec<String>,
    /// Variables that are not set.
    pub(super) unset: Vec<String>,
    /// Variables whose values are doubtful, and what they hang on.
    pub(super) doubts: Vec<(String, Rc<str>)>,
    /// The bytes that were taken to make the words.
    pub(super) size: usize,
}

impl Words {
    /// What a doubtful word hangs on.
    pub(super) fn doubt(&self) -> Option<&Rc<str>> {
        self.doubts.first().map(|(_, on)| on)
    }
}

impl Env {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(|var| &*var.value)
    }

    /// What a variable hangs on.
    pub(super) fn doubt_of(&self, name: &str) -> Option<&Rc<str>> {
        self.vars.get(name)?.doubt.as_ref()
    }

    /// Sets a variable; a value that is too large is left out, and is doubtful.
    pub(super) fn set(&mut self, name: &str, value: &str, doubt: Option<Rc<str>>) {
        let Some(before) = self.slot(name).map(|var| var.value.len()) else {
            return;
        };
        let size = self.size - before + value.len();
        let fits = value.len() <= MAX_VALUE && size <= MAX_ALL;
        let Some(var) = self.vars.get_mut(name) else {
            return;
        };
        (var.value, var.doubt) = match fits {
            true => (value.into(), doubt),
            false => (Rc::default(), Some("a value that is too large".into())),
        };
        let after = var.value.len();
        self.size = self.size - before + after;
    }

    /// The variable, made when there is none; `None`: there are too many.
    fn slot(&mut self, name: &str) -> Option<&mut Var> {
        if !self.vars.contains_key(name) {
            let size = self.size + name.len();
            if self.vars.len() == MAX_VARS || size > MAX_ALL {
                return None;
            }
            self.size = size;
            self.vars.insert(name.into(), Var::default());
        }
        self.vars.get_mut(name)
    }

    /// The value is not known.
    pub(super) fn doubt(&mut self, name: &str, on: &Rc<str>) {
        if let Some(var) = self.slot(name) {
            var.doubt = Some(Rc::clone(on));
        }
    }

    pub(super) fn unset(&mut self, name: &str) {
        if let Some(var) = self.vars.remove(name) {
            self.size -= name.len() + var.value.len();
        }
    }

    pub(super) fn export(&mut self, name: &str) {
        if let Some(var) = self.slot(name) {
            var.exported = true;
        }
    }

    /// The variables of a submenu: the exported ones.
    pub(super) fn exported(&self) -> Self {
        let vars = self.vars.iter().filter(|(_, var)| var.exported);
        let vars: BTreeMap<_, _> = vars
            .map(|(name, var)| (name.clone(), var.clone()))
            .collect();
        let size = size(&vars);
        Self { vars, size }
    }

    /// The words with their values. White space ends a word where a value is not quoted.
    /// `arguments` are those of the function that runs.
    pub(super) fn words(&self, words: &[Word], arguments: &Arguments) -> Words {
        let mut found = Words::default();
        let mut room = MAX_VALUE;
        for word in words {
            // `"$@"` and `"$*"` without arguments are no words.
            let is_nothing = arguments.words.is_empty()
                && !word.parts.is_empty()
                && word.parts.iter().all(is_list);
            let is_word = word.quoted && !is_nothing;
            let mut making = Making {
                text: String::new(),
                is_word,
            };
            for part in &word.parts {
                if room == 0 {
                    break;
                }
                match part {
                    Part::Text(text) => making.push(text, &mut room),
                    Part::Var { name, quoted: true } if name == ALL => {
                        room = room.saturating_sub(arguments.words.len());
                        arguments.doubtful(ALL, &mut found);
                        making.arguments(&arguments.words, &mut room, &mut found.words);
                    }
                    Part::Var { name, quoted } => {
                        if matches!(&**name, ALL | "*") {
                            room = room.saturating_sub(arguments.words.len());
                        }
                        let value = self.value(name, arguments, &mut found);
                        making.value(&value, *quoted, &mut room, &mut found.words);
                    }
                }
            }
            making.end(&mut found.words);
        }
        if room == 0 {
            let too_large = ("…".to_owned(), "a value that is too large".into());
            found.doubts.push(too_large);
        }
        found.size = MAX_VALUE - room;
        found
    }

    fn value(&self, name: &str, arguments: &Arguments, found: &mut Words) -> Rc<str> {
        let number = name.parse::<usize>().ok();
        let argument: Option<Rc<str>> = match (name, number) {
            (ALL | "*", _) => Some(arguments.words.join(" ").into()),
            ("#", _) => Some(arguments.words.len().to_string().into()),
            (_, Some(number)) => {
                let word = number.checked_sub(1).and_then(|at| arguments.words.get(at));
                Some(word.map_or_else(Rc::default, |word| word.as_str().into()))
            }
            _ => None,
        };
        if let Some(argument) = argument {
            arguments.doubtful(name, found);
            return argument;
        }
        let Some(var) = self.vars.get(name) else {
            found.unset.push(name.to_owned());
            return Rc::default();
        };
        if let Some(on) = &var.doubt {
            found.doubts.push((name.to_owned(), Rc::clone(on)));
        }
        Rc::clone(&var.value)
    }
}

/// Whether the part is all arguments, in quotes.
fn is_list(part: &Part) -> bool {
    match part {
        Part::Var { name, quoted: true } => matches!(&**name, ALL | "*"),
        Part::Var { .. } | Part::Text(_) => false,
    }
}

/// Bytes of all values and names.
fn size(vars: &BTreeMap<Rc<str>, Var>) -> usize {
    let sizes = vars.iter();
    sizes.map(|(name, var)| name.len() + var.value.len()).sum()
}

/// A word that is being made.
struct Making {
    text: String,
    is_word: bool,
}

impl Making {
    fn push(&mut self, text: &str, room: &mut usize) {
        if text.len() > *room {
            *room = 0;
            return;
        }
        *room -= text.len();
        self.text.push_str(text);
        self.is_word |= !text.is_empty();
    }

    fn value(&mut self, value: &str, quoted: bool, room: &mut usize, words: &mut Vec<String>) {
        if quoted {
            return self.push(value, room);
        }
        let mut pieces = value.split(|c: char| c.is_ascii_whitespace());
        self.push(pieces.next().unwrap_or_default(), room);
        for piece in pieces {
            if *room == 0 {
                return;
            }
            *room -= 1;
            self.end(words);
            self.push(piece, room);
        }
    }

    /// Words that begin and end where the arguments do.
    fn arguments(&mut self, arguments: &[String], room: &mut usize, words: &mut Vec<String>) {
        for (number, argument) in arguments.iter().enumerate() {
            if number > 0 {
                self.end(words);
            }
            self.push(argument, room);
            self.is_word = true;
        }
    }

    /// Ends the word, if it is one.
    fn end(&mut self, words: &mut Vec<String>) {
        if std::mem::take(&mut self.is_word) {
            words.push(std::mem::take(&mut self.text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_have_a_bound_in_all() {
        let mut env = Env::default();
        for number in 0..MAX_VARS {
            let name = format!("{}{number}", "n".repeat(MAX_VALUE));
            env.set(&name, "value", None);
            env.export(&name);
            env.doubt(&format!("{name}d"), &"x".into());
            assert!(env.size <= MAX_ALL);
            assert_eq!(env.size, size(&env.vars));
        }
        assert_eq!(env.exported().size, size(&env.exported().vars));
        let names: Vec<_> = env.vars.keys().cloned().collect();
        names.iter().for_each(|name| env.unset(name));
        assert_eq!(env.size, 0);
    }
}
