//! `[ … ]` and `test`: strings, numbers, files, `!`, `-a`, `-o`, parentheses.
//!
//! Source: the GRUB manual, "test".

use std::cmp::Ordering;
use std::rc::Rc;

use super::{FileRef, Files};

/// How deep parentheses may nest.
const MAX_DEPTH: usize = 20;

/// What a command answers: its exit status, as far as it can be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Yes,
    No,
    /// Only GRUB knows: the command it depends on.
    Unknown(Rc<str>),
}

impl Answer {
    pub(super) fn negated(self, negated: bool) -> Self {
        match (self, negated) {
            (Self::Yes, true) => Self::No,
            (Self::No, true) => Self::Yes,
            (answer, _) => answer,
        }
    }
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// The answer to the words of a test; paths without a device are on `root`.
pub(super) fn test(words: &[String], root: &str, files: &dyn Files) -> Answer {
    let mut test = Test {
        words,
        at: 0,
        root,
        files,
        depth: 0,
    };
    let answer = test.any();
    match test.at == words.len() {
        true => answer,
        false => unknown("test"),
    }
}

fn unknown(on: &str) -> Answer {
    Answer::Unknown(on.into())
}

struct Test<'a> {
    words: &'a [String],
    at: usize,
    root: &'a str,
    files: &'a dyn Files,
    depth: usize,
}

impl Test<'_> {
    fn peek(&self, ahead: usize) -> Option<&str> {
        self.words.get(self.at + ahead).map(String::as_str)
    }

    /// Tests with `-o` between them.
    fn any(&mut self) -> Answer {
        let mut answer = self.all();
        while self.peek(0) == Some("-o") {
            self.at += 1;
            answer = match (answer, self.all()) {
                (Answer::Yes, _) | (_, Answer::Yes) => Answer::Yes,
                (Answer::No, other) => other,
                (on, _) => on,
            };
        }
        answer
    }

    /// Tests with `-a` between them.
    fn all(&mut self) -> Answer {
        let mut answer = self.one();
        while self.peek(0) == Some("-a") {
            self.at += 1;
            answer = match (answer, self.one()) {
                (Answer::No, _) | (_, Answer::No) => Answer::No,
                (Answer::Yes, other) => other,
                (on, _) => on,
            };
        }
        answer
    }

    fn one(&mut self) -> Answer {
        let mut negated = false;
        // A word alone is tested for being there, also `!`.
        while self.peek(0) == Some("!") && self.peek(1).is_some() {
            negated = !negated;
            self.at += 1;
        }
        self.plain().negated(negated)
    }

    fn plain(&mut self) -> Answer {
        let Some(first) = self.peek(0) else {
            return Answer::No;
        };
        if let (Some(operator), Some(second)) = (self.peek(1), self.peek(2))
            && let Some(answer) = self.binary(first, operator, second)
        {
            self.at += 3;
            return answer;
        }
        if let Some(second) = self.peek(1)
            && let Some(answer) = self.unary(first, second)
        {
            self.at += 2;
            return answer;
        }
        if first == "(" && self.depth < MAX_DEPTH {
            self.at += 1;
            self.depth += 1;
            let answer = self.any();
            self.depth -= 1;
            // The closing one may be missing; then words are left, or none.
            self.at += usize::from(self.peek(0) == Some(")"));
            return answer;
        }
        let there = !first.is_empty();
        self.at += 1;
        there.into()
    }

    fn unary(&self, operator: &str, word: &str) -> Option<Answer> {
        let file = || FileRef::parse(word, self.root);
        let yes = match operator {
            "-n" => !word.is_empty(),
            "-z" => word.is_empty(),
            "-e" => self.files.is_file(&file()) || self.files.is_dir(&file()),
            // Whether a file is empty is not asked: configurations test what they write.
            "-f" | "-s" => self.files.is_file(&file()),
            "-d" => self.files.is_dir(&file()),
            _ => return None,
        };
        Some(yes.into())
    }

    fn binary(&self, a: &str, operator: &str, b: &str) -> Option<Answer> {
        let numbers = || number(a).cmp(&number(b));
        let yes = match operator {
            "=" | "==" => a == b,
            "!=" => a != b,
            "<" => a < b,
            "<=" => a <= b,
            ">" => a > b,
            ">=" => a >= b,
            "-eq" => numbers() == Ordering::Equal,
            "-ne" => numbers() != Ordering::Equal,
            "-lt" => numbers() == Ordering::Less,
            "-le" => numbers() != Ordering::Greater,
            "-gt" => numbers() == Ordering::Greater,
            "-ge" => numbers() != Ordering::Less,
            "-nt" | "-ot" => return Some(unknown(operator)),
            "-pgt" | "-plt" => {
                let (a, b) = after_prefix(a, b);
                if operator == "-pgt" { a > b } else { a < b }
            }
            _ => return None,
        };
        Some(yes.into())
    }
}

/// The number that a word begins with, else 0.
fn number(text: &str) -> i64 {
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let end = text.find(|c: char| !c.is_ascii_digit());
    let digits = text.get(..end.unwrap_or(text.len())).unwrap_or_default();
    let number: i64 = digits.parse().unwrap_or(0);
    if negative { -number } else { number }
}

/// The numbers behind what both words begin with.
fn after_prefix(a: &str, b: &str) -> (i64, i64) {
    let same = a.char_indices().zip(b.chars());
    let differs = same.into_iter().find(|((_, a), b)| a != b);
    let at = differs.map_or(a.len().min(b.len()), |((at, _), _)| at);
    let rest = |text: &str| number(text.get(at..).unwrap_or_default());
    (rest(a), rest(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Few;

    impl Files for Few {
        fn is_file(&self, file: &FileRef) -> bool {
            file.path == "/f"
        }
        fn is_dir(&self, file: &FileRef) -> bool {
            file.path == "/d"
        }
        fn read(&self, _: &FileRef) -> Result<Vec<u8>, String> {
            Err(String::new())
        }
        fn list(&self, _: &FileRef) -> Option<Vec<String>> {
            None
        }
    }

    fn ask(words: &[&str]) -> Answer {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        test(&words, "", &Few)
    }

    #[test]
    fn what_configurations_ask() {
        for yes in [
            &["x"][..],
            &["a", "=", "a"],
            &["xy", "==", "xy"],
            &["a", "!=", "b"],
            &["!", "a", "=", "b"],
            &["", "=", ""],
            &["-n", "x"],
            &["-z", ""],
            &["-f", "/f", "-a", "-d", "(hd0)/d"],
            &["-s", "/x", "-o", "-e", "/d"],
            &["10", "-gt", "9"],
            &["-1", "-lt", "0"],
            &["(", "", "-o", "y", ")", "-a", "z"],
            &["!", ""],
            &["!"],
            &["-f"],
            &["=", "=", "="],
            &["a10", "-pgt", "a9"],
        ] {
            assert_eq!(ask(yes), Answer::Yes, "{yes:?}");
        }
        for no in [
            &[][..],
            &[""],
            &["a", "=", "b"],
            &["!", "x"],
            &["-n", ""],
            &["-f", "/d"],
            &["x", "-a", ""],
            &["08", "-eq", "9"],
        ] {
            assert_eq!(ask(no), Answer::No, "{no:?}");
        }
        for unknown in [
            &["a", "b"][..],
            &["/f", "-nt", "/d"],
            &["!", "/f", "-nt", "/d"],
        ] {
            assert!(matches!(ask(unknown), Answer::Unknown(_)), "{unknown:?}");
        }
        // What is known decides where it can.
        assert_eq!(ask(&["/f", "-nt", "/d", "-o", "x"]), Answer::Yes);
        assert_eq!(ask(&["/f", "-nt", "/d", "-a", ""]), Answer::No);
    }

    #[test]
    fn nesting_ends() {
        let _ = ask(&["("; 10_000]);
        let _ = ask(&["!"; 10_000]);
    }
}
