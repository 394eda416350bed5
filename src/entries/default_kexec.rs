//! /etc/default/kexec of Debian's kexec-tools: which kernel its scripts load.
//!
//! Source: the comments of that file, and POSIX ("Shell Command Language", 2.2 Quoting), for
//! a shell reads it. Assignments are followed, of words with quotes and backslashes. Nothing
//! is carried out and nothing is substituted: what would need that is a [`Problem`].

use std::iter::Peekable;
use std::str::Chars;

use super::text::{Text, is_clean};
use super::{Part, Problem, note};

/// What such files say. Of several assignments to one variable the last counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DefaultKexec {
    /// `KERNEL_IMAGE`.
    pub kernel: Option<String>,
    /// `INITRD`.
    pub initrd: Option<String>,
    /// `APPEND`: the whole command line.
    pub append: Option<String>,
    /// What is wrong with the files.
    pub problems: Vec<Problem>,
}

impl DefaultKexec {
    /// Reads one more file.
    pub fn read(&mut self, bytes: &[u8]) {
        let text = Text::of(bytes);
        for problem in text.problems.iter().cloned() {
            note(&mut self.problems, problem);
        }
        let mut reader = Reader {
            chars: text.text.chars().peekable(),
            line: 1,
        };
        while reader.chars.peek().is_some() {
            let line = reader.line;
            match reader.command() {
                Ok(words) => self.command(line, &words),
                Err(what) => {
                    let what = what.to_owned();
                    note(&mut self.problems, Problem::Syntax { line, what });
                }
            }
        }
    }

    fn command(&mut self, line: usize, words: &[Word]) {
        let words = match words {
            [first, rest @ ..] if first.text == "export" => rest,
            all => all,
        };
        for word in words {
            let Some((name, value)) = word.assignment() else {
                let what = word.text.clone();
                return note(&mut self.problems, Problem::NotFollowed { line, what });
            };
            let (variable, part) = match name {
                "KERNEL_IMAGE" => (&mut self.kernel, Part::Kernel),
                "INITRD" => (&mut self.initrd, Part::Initrd),
                "APPEND" => (&mut self.append, Part::Cmdline),
                _ => continue,
            };
            *variable = Some(value.to_owned());
            if word.is_substituted {
                let what = word.text.clone();
                let problem = Problem::NotFollowed { line, what };
                note(&mut self.problems, part.fault(problem));
            }
            if !is_clean(value) {
                note(&mut self.problems, part.fault(Problem::NotText));
            }
        }
    }
}

/// A word of a command, without its quotes.
#[derive(Default)]
struct Word {
    text: String,
    /// Where its value begins, if it has the form of an assignment.
    value: Option<usize>,
    /// Something in it would be substituted.
    is_substituted: bool,
    /// It holds an operator, such as `|`.
    is_operator: bool,
}

impl Word {
    fn assignment(&self) -> Option<(&str, &str)> {
        let (name, value) = self.text.split_at_checked(self.value?)?;
        let name = name.strip_suffix('=').filter(|_| !self.is_operator)?;
        Some((name, value))
    }

    /// An equals sign without quotes: an assignment, if a name stands before it.
    fn equals(&mut self, is_quoted: bool) {
        let mut chars = self.text.chars();
        let is_name = chars
            .next()
            .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
            && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
        self.text.push('=');
        if is_name && !is_quoted && self.value.is_none() {
            self.value = Some(self.text.len());
        }
    }
}

struct Reader<'t> {
    chars: Peekable<Chars<'t>>,
    /// The line of the next character.
    line: usize,
}

impl Reader<'_> {
    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        self.line += usize::from(next == Some('\n'));
        next
    }

    /// The words up to the end of the command: a line break or a semicolon.
    fn command(&mut self) -> Result<Vec<Word>, &'static str> {
        let mut words = Vec::new();
        loop {
            match self.chars.peek() {
                None => return Ok(words),
                Some('\n' | ';') => {
                    self.next();
                    return Ok(words);
                }
                Some('#') => while self.chars.next_if(|c| *c != '\n').is_some() {},
                Some(c) if c.is_ascii_whitespace() => drop(self.next()),
                Some(_) => words.push(self.word()?),
            }
        }
    }

    fn word(&mut self) -> Result<Word, &'static str> {
        const OPEN: &str = "a quote is not closed";
        let mut word = Word::default();
        let mut is_quoted = false;
        while let Some(c) = self
            .chars
            .next_if(|c| *c != ';' && !c.is_ascii_whitespace())
        {
            is_quoted |= matches!(c, '\'' | '"' | '\\');
            match c {
                '\'' => loop {
                    match self.next().ok_or(OPEN)? {
                        '\'' => break,
                        c => word.text.push(c),
                    }
                },
                '"' => loop {
                    match self.next().ok_or(OPEN)? {
                        '"' => break,
                        '\\' => match self.next().ok_or(OPEN)? {
                            '\n' => {}
                            c @ ('$' | '`' | '"' | '\\') => word.text.push(c),
                            c => word.text.extend(['\\', c]),
                        },
                        c @ ('$' | '`') => self.substitution(c, &mut word)?,
                        c => word.text.push(c),
                    }
                },
                // A line break behind it joins two lines.
                '\\' => word.text.extend(self.next().filter(|c| *c != '\n')),
                '=' => word.equals(is_quoted),
                c @ ('$' | '`') => self.substitution(c, &mut word)?,
                c => {
                    word.is_operator |= matches!(c, '&' | '|' | '<' | '>' | '(' | ')');
                    word.text.push(c);
                }
            }
        }
        Ok(word)
    }

    /// What begins with `first`, as it is written: a variable, or a command between
    /// parentheses or backquotes.
    fn substitution(&mut self, first: char, word: &mut Word) -> Result<(), &'static str> {
        const OPEN: &str = "a substitution is not closed";
        word.is_substituted = true;
        word.text.push(first);
        if first == '`' {
            loop {
                let c = self.next().ok_or(OPEN)?;
                word.text.push(c);
                if c == '`' {
                    return Ok(());
                }
            }
        }
        let mut open = 0_usize;
        while open != 0 || self.chars.peek() == Some(&'(') {
            let c = self.next().ok_or(OPEN)?;
            match c {
                '(' => open += 1,
                ')' => open -= 1,
                _ => {}
            }
            word.text.push(c);
            if open == 0 {
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> DefaultKexec {
        let mut said = DefaultKexec::default();
        said.read(text.as_bytes());
        said
    }

    /// What KERNEL_IMAGE is.
    fn kernel(text: &str) -> String {
        let said = read(text);
        assert_eq!(said.problems, [], "{text}");
        said.kernel.unwrap()
    }

    #[test]
    fn a_file_as_the_package_makes_it() {
        let said = read(
            "# Defaults for kexec initscript\n\n# Load a kexec kernel (true/false)\nLOAD_KEXEC=true\n\n\
             KERNEL_IMAGE=\"/vmlinuz\"\nINITRD=\"/initrd.img\"\n\n# If empty, use current /proc/cmdline\n\
             APPEND=\"\"\n\nUSE_GRUB_CONFIG=false\n",
        );
        let expected = DefaultKexec {
            kernel: Some("/vmlinuz".to_owned()),
            initrd: Some("/initrd.img".to_owned()),
            append: Some(String::new()),
            problems: Vec::new(),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn words_as_a_shell_reads_them() {
        for (text, expected) in [
            ("KERNEL_IMAGE=/a", "/a"),
            ("  export KERNEL_IMAGE=/a # b", "/a"),
            ("KERNEL_IMAGE='/a b'", "/a b"),
            ("KERNEL_IMAGE=/a\\ b", "/a b"),
            ("KERNEL_IMAGE=/a' b'\"c\"", "/a bc"),
            ("KERNEL_IMAGE=\"a\\\"b\\c\\$d\"", "a\"b\\c$d"),
            ("KERNEL_IMAGE='$a`b`'", "$a`b`"),
            ("KERNEL_IMAGE=\"a\nb\"", "a\nb"),
            ("KERNEL_IMAGE=/a\\\nb", "/ab"),
            ("KERNEL_IMAGE=/a#b=c", "/a#b=c"),
            ("KERNEL_IMAGE=/a; KERNEL_IMAGE=/b INITRD=x", "/b"),
            ("KERNEL_IMAGE=/a\r\n", "/a"),
            ("KERNEL_IMAGE=", ""),
            ("KERNEL_IMAGE=/a\nOTHER=$(reboot (x) \ny) B=`a b`", "/a"),
        ] {
            assert_eq!(kernel(text), expected, "{text}");
        }
        assert_eq!(read("#KERNEL_IMAGE=/a").kernel, None);
        assert_eq!(read("XKERNEL_IMAGE=/a").kernel, None);
    }

    /// A later file goes before an earlier one.
    #[test]
    fn several_files() {
        let mut said = read("KERNEL_IMAGE=/a\nAPPEND=x");
        said.read(b"KERNEL_IMAGE=/b\n");
        assert_eq!(said.kernel.as_deref(), Some("/b"));
        assert_eq!(said.append.as_deref(), Some("x"));
    }

    #[test]
    fn what_is_not_followed_is_told() {
        let not_followed = |line, what: &str| Problem::NotFollowed {
            line,
            what: what.to_owned(),
        };
        for (text, problem) in [
            (
                "\nKERNEL_IMAGE=/a$(b)",
                Part::Kernel.fault(not_followed(2, "KERNEL_IMAGE=/a$(b)")),
            ),
            (
                "INITRD=\"`b`\"",
                Part::Initrd.fault(not_followed(1, "INITRD=`b`")),
            ),
            (
                "APPEND=\"$(cat /proc/cmdline) x\"",
                Part::Cmdline.fault(not_followed(1, "APPEND=$(cat /proc/cmdline) x")),
            ),
            (
                "INITRD=/a$B-$(c d)",
                Part::Initrd.fault(not_followed(1, "INITRD=/a$B-$(c d)")),
            ),
            ("a=1\n. /b", not_followed(2, ".")),
            (
                "a=$(b",
                Problem::Syntax {
                    line: 1,
                    what: "a substitution is not closed".to_owned(),
                },
            ),
            ("'KERNEL_IMAGE'=/a", not_followed(1, "KERNEL_IMAGE=/a")),
            ("KERNEL_IMAGE=/a&", not_followed(1, "KERNEL_IMAGE=/a&")),
            ("1=2", not_followed(1, "1=2")),
            (
                "a=1\nKERNEL_IMAGE='/a",
                Problem::Syntax {
                    line: 2,
                    what: "a quote is not closed".to_owned(),
                },
            ),
            ("APPEND=a\0", Part::Cmdline.fault(Problem::NotText)),
        ] {
            assert!(
                read(text).problems.contains(&problem),
                "{text:?}: {:?}",
                read(text)
            );
        }
        let said = read("if true; then\nKERNEL_IMAGE=/a\nfi\n");
        let expected = ["if", "then", "fi"];
        let expected = expected.map(|word| not_followed(if word == "fi" { 3 } else { 1 }, word));
        assert_eq!(said.problems, expected);
    }
}
