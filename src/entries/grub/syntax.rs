//! The grammar of grub.cfg: words, commands, blocks, `if`, `for`, `while`, `function`.
//!
//! Source: the GRUB manual, "Writing full configuration files directly" (words and quoting,
//! reserved words, the shell-like commands). What does not follow the grammar becomes a
//! [`Statement::Bad`], and reading goes on behind it.

use std::rc::Rc;

/// How deep blocks and conditions may nest.
const MAX_DEPTH: usize = 40;
/// Words that mean something where a command begins.
const RESERVED: [&str; 6] = ["then", "elif", "else", "fi", "do", "done"];

/// A piece of a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Text as it is.
    Text(String),
    /// The value of a variable.
    Var {
        /// Its name.
        name: String,
        /// Between double quotes: white space in the value does not end the word.
        quoted: bool,
    },
}

/// A word before its variables have values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) parts: Vec<Part>,
    /// It has quotes, so it is a word even when it is empty.
    pub(super) quoted: bool,
}

impl Word {
    /// Its text, when it has neither quotes nor variables.
    pub(super) fn plain(&self) -> Option<&str> {
        match &self.parts[..] {
            [Part::Text(text)] if !self.quoted => Some(text),
            _ => None,
        }
    }

    fn push(&mut self, c: char) {
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text.push(c),
            _ => self.parts.push(Part::Text(c.to_string())),
        }
    }
}

/// The statements between braces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) body: Vec<Statement>,
    /// The closing brace is there.
    pub(super) closed: bool,
}

/// A command with its words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) line: usize,
    pub(super) words: Vec<Word>,
    pub(super) block: Option<Rc<Block>>,
    /// `!` stands before it.
    pub(super) negated: bool,
}

/// One arm of an `if`: the condition, and what follows `then`.
pub(super) type Arm = (Vec<Statement>, Vec<Statement>);

/// A statement.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Statement {
    Command(Command),
    If {
        line: usize,
        arms: Vec<Arm>,
        otherwise: Vec<Statement>,
    },
    For {
        line: usize,
        name: String,
        words: Vec<Word>,
        body: Vec<Statement>,
    },
    /// `while` or `until`.
    Loop {
        line: usize,
        body: Vec<Statement>,
    },
    Function {
        name: String,
        body: Rc<Block>,
    },
    Bad {
        line: usize,
        what: String,
    },
}

/// Reads a configuration.
pub(super) fn parse(text: &str) -> Vec<Statement> {
    let mut parser = Parser {
        rest: text,
        line: 1,
        depth: 0,
        kept: None,
        bad: None,
    };
    parser.list(&[], false).0
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(Word),
    /// A line break or a semicolon.
    End,
    Open,
    Close,
    Eof,
}

/// Where a list of statements ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stop {
    Word(String),
    Close,
    Eof,
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    depth: usize,
    /// A token that was looked at and not taken.
    kept: Option<Token>,
    /// What is wrong with the word that was read last.
    bad: Option<&'static str>,
}

impl Parser<'_> {
    /// Statements up to one of the words `stops`, in a block up to its closing brace.
    fn list(&mut self, stops: &[&str], in_block: bool) -> (Vec<Statement>, Stop) {
        let mut list = Vec::new();
        loop {
            let line = self.line;
            match self.token() {
                Token::End => {}
                Token::Eof => return (list, Stop::Eof),
                Token::Close if in_block => return (list, Stop::Close),
                Token::Close => list.push(bad(line, "`}` without `{`")),
                Token::Open => list.push(bad(line, "`{` without a command")),
                Token::Word(word) => {
                    let plain = word.plain().unwrap_or_default().to_owned();
                    if stops.contains(&&*plain) {
                        return (list, Stop::Word(plain));
                    }
                    self.statement(&plain, word, in_block, &mut list);
                }
            }
            if let Some(what) = self.bad.take() {
                list.push(bad(line, what));
            }
        }
    }

    fn statement(&mut self, plain: &str, word: Word, in_block: bool, list: &mut Vec<Statement>) {
        let line = self.line;
        if RESERVED.contains(&plain) {
            return list.push(bad(line, &format!("`{plain}` in the wrong place")));
        }
        if self.depth == MAX_DEPTH && matches!(plain, "if" | "for" | "while" | "until" | "function")
        {
            return list.push(bad(line, "blocks nest too deep"));
        }
        self.depth += 1;
        match plain {
            "if" => self.condition(line, in_block, list),
            "for" => self.each(line, in_block, list),
            "while" | "until" => self.repeat(line, in_block, list),
            "function" => self.function(line, list),
            "!" => {
                let command = self.command(Word::default(), true);
                list.push(Statement::Command(command));
            }
            _ => {
                let command = self.command(word, false);
                list.push(Statement::Command(command));
            }
        }
        self.depth -= 1;
    }

    fn command(&mut self, first: Word, negated: bool) -> Command {
        let mut command = Command {
            line: self.line,
            words: if negated { Vec::new() } else { vec![first] },
            block: None,
            negated,
        };
        loop {
            match self.token() {
                Token::Word(word) => command.words.push(word),
                Token::End | Token::Eof => return command,
                Token::Close => {
                    self.kept = Some(Token::Close);
                    return command;
                }
                Token::Open => {
                    command.block = Some(Rc::new(self.block()));
                    return command;
                }
            }
        }
    }

    /// What follows an opening brace.
    fn block(&mut self) -> Block {
        if self.depth >= MAX_DEPTH {
            self.bad = Some("blocks nest too deep");
            let (body, closed) = (Vec::new(), true);
            return Block { body, closed };
        }
        self.depth += 1;
        let (body, stop) = self.list(&[], true);
        self.depth -= 1;
        Block {
            body,
            closed: stop == Stop::Close,
        }
    }

    fn condition(&mut self, line: usize, in_block: bool, list: &mut Vec<Statement>) {
        let mut arms = Vec::new();
        let mut otherwise = Vec::new();
        loop {
            let (asked, stop) = self.list(&["then"], in_block);
            if !self.reached(&stop, "then", line, list) {
                break;
            }
            let (body, stop) = self.list(&["elif", "else", "fi"], in_block);
            arms.push((asked, body));
            match &stop {
                Stop::Word(word) if word == "elif" => continue,
                Stop::Word(word) if word == "else" => {
                    let (body, stop) = self.list(&["fi"], in_block);
                    otherwise = body;
                    self.reached(&stop, "fi", line, list);
                }
                stop => drop(self.reached(stop, "fi", line, list)),
            }
            break;
        }
        list.push(Statement::If {
            line,
            arms,
            otherwise,
        });
    }

    fn each(&mut self, line: usize, in_block: bool, list: &mut Vec<Statement>) {
        let mut words = Vec::new();
        loop {
            match self.token() {
                Token::Word(word) => words.push(word),
                Token::End => break,
                other => {
                    self.kept = Some(other);
                    break;
                }
            }
        }
        let mut words = words.into_iter();
        let name = words
            .next()
            .and_then(|word| word.plain().map(str::to_owned));
        let is_in = words.next().is_some_and(|word| word.plain() == Some("in"));
        let (_, stop) = self.list(&["do"], in_block);
        if !self.reached(&stop, "do", line, list) {
            return;
        }
        let (body, stop) = self.list(&["done"], in_block);
        self.reached(&stop, "done", line, list);
        match name.filter(|_| is_in) {
            Some(name) => list.push(Statement::For {
                line,
                name,
                words: words.collect(),
                body,
            }),
            None => list.push(bad(line, "`for` without a name and `in`")),
        }
    }

    fn repeat(&mut self, line: usize, in_block: bool, list: &mut Vec<Statement>) {
        let (_, stop) = self.list(&["do"], in_block);
        if !self.reached(&stop, "do", line, list) {
            return;
        }
        let (body, stop) = self.list(&["done"], in_block);
        self.reached(&stop, "done", line, list);
        list.push(Statement::Loop { line, body });
    }

    fn function(&mut self, line: usize, list: &mut Vec<Statement>) {
        let name = match self.token() {
            Token::Word(word) => word.plain().map(str::to_owned),
            other => {
                self.kept = Some(other);
                None
            }
        };
        let open = loop {
            match self.token() {
                Token::End => {}
                Token::Open => break true,
                other => {
                    self.kept = Some(other);
                    break false;
                }
            }
        };
        let (Some(name), true) = (name, open) else {
            return list.push(bad(line, "`function` without a name and `{`"));
        };
        let body = self.block();
        if !body.closed {
            list.push(bad(line, "`{` without `}`"));
        }
        list.push(Statement::Function {
            name,
            body: Rc::new(body),
        });
    }

    /// Whether the word that must follow was reached. A closing brace is kept for the block
    /// that it closes.
    fn reached(&mut self, stop: &Stop, word: &str, line: usize, list: &mut Vec<Statement>) -> bool {
        if *stop == Stop::Word(word.to_owned()) {
            return true;
        }
        if *stop == Stop::Close {
            self.kept = Some(Token::Close);
        }
        list.push(bad(line, &format!("`{word}` is missing")));
        false
    }

    fn next(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = self.rest.get(c.len_utf8()..).unwrap_or_default();
        if c == '\n' {
            self.line += 1;
        }
        Some(c)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn token(&mut self) -> Token {
        if let Some(kept) = self.kept.take() {
            return kept;
        }
        loop {
            match self.peek() {
                None => return Token::Eof,
                Some(' ' | '\t' | '\r') => drop(self.next()),
                Some('\\') if self.rest.starts_with("\\\n") || self.rest.starts_with("\\\r\n") => {
                    while self.next() != Some('\n') {}
                }
                Some('#') => {
                    let end = self.rest.find('\n').unwrap_or(self.rest.len());
                    self.rest = self.rest.get(end..).unwrap_or_default();
                }
                Some(c) => {
                    let token = match c {
                        '\n' | ';' => Token::End,
                        '{' => Token::Open,
                        '}' => Token::Close,
                        _ => return Token::Word(self.word()),
                    };
                    self.next();
                    return token;
                }
            }
        }
    }

    fn word(&mut self) -> Word {
        let mut word = Word::default();
        while let Some(c) = self.peek() {
            match c {
                ' ' | '\t' | '\r' | '\n' | ';' | '{' | '}' => break,
                '\'' => {
                    self.next();
                    self.single(&mut word);
                }
                '"' => {
                    self.next();
                    self.double(&mut word);
                }
                '$' => {
                    self.next();
                    self.variable(&mut word, false);
                }
                '\\' => {
                    self.next();
                    match self.next() {
                        Some('\n') | None => {}
                        Some(c) => word.push(c),
                    }
                }
                '|' | '&' | '<' | '>' => {
                    self.bad = Some("one of | & < > stands outside of quotes");
                    self.next();
                    word.push(c);
                }
                c => {
                    self.next();
                    word.push(c);
                }
            }
        }
        word
    }

    fn single(&mut self, word: &mut Word) {
        word.quoted = true;
        loop {
            match self.next() {
                Some('\'') => return,
                Some(c) => word.push(c),
                None => return self.bad = Some("a quote is not closed"),
            }
        }
    }

    fn double(&mut self, word: &mut Word) {
        word.quoted = true;
        loop {
            match self.next() {
                Some('"') => return,
                Some('$') => self.variable(word, true),
                Some('\\') => match self.next() {
                    Some('\n') => {}
                    Some(c @ ('$' | '"' | '\\')) => word.push(c),
                    Some(c) => {
                        word.push('\\');
                        word.push(c);
                    }
                    None => return self.bad = Some("a quote is not closed"),
                },
                Some(c) => word.push(c),
                None => return self.bad = Some("a quote is not closed"),
            }
        }
    }

    /// What follows a `$`.
    fn variable(&mut self, word: &mut Word, quoted: bool) {
        let braced = self.rest.strip_prefix('{');
        let text = braced.unwrap_or(self.rest);
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let special = text.starts_with(['?', '@', '*', '#']);
        let end = match special {
            true => 1,
            false => text.find(|c| !is_name(c)).unwrap_or(text.len()),
        };
        let (name, rest) = text.split_at(end);
        let rest = match braced {
            Some(_) => rest.strip_prefix('}'),
            None => Some(rest),
        };
        match rest.filter(|_| !name.is_empty()) {
            Some(rest) => {
                let name = name.to_owned();
                word.parts.push(Part::Var { name, quoted });
                self.rest = rest;
            }
            // `$"…"` is a text to translate. Any other `$` stands for itself.
            None if !quoted && self.rest.starts_with('"') => {}
            None => word.push('$'),
        }
    }
}

fn bad(line: usize, what: &str) -> Statement {
    Statement::Bad {
        line,
        what: what.to_owned(),
    }
}

#[cfg(test)]
#[path = "syntax_tests.rs"]
mod tests;
