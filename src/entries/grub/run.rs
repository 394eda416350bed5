//! Carries out a configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::condition::{Answer, test};
use super::env::{Arguments, Env, Words};
use super::menu::Item;
use super::syntax::{self, Arm, Block, Command, Part, Statement, Word};
use super::{CONFIG, Config, Entry, FileRef, Files, Problem, Start, note};
use crate::entries::text::Text;

/// Statements that are carried out in all: 1,000 entries take some 20,000.
const MAX_STEPS: usize = 200_000;
/// How deep functions may call each other, and files include each other.
const MAX_DEPTH: usize = 12;
/// Words and parts of words that count as one step: a command may have 1 MiB of them.
const PARTS_A_STEP: usize = 64;
/// Bytes of values in the words of a command that count as one step.
pub(super) const BYTES_A_STEP: usize = 256;
/// Bytes of all files that are read, each as often as it is read.
const MAX_BYTES: usize = 4 << 20;
const TOO_MANY_BYTES: &str = "its files have more than 4 MiB in all";
/// Commands that make or change entries.
const WEIGHTY: [&str; 17] = [
    "menuentry",
    "submenu",
    "blscfg",
    "source",
    ".",
    "configfile",
    "linux",
    "linux16",
    "linuxefi",
    "initrd",
    "initrd16",
    "initrdefi",
    "multiboot",
    "multiboot2",
    "module",
    "module2",
    "chainloader",
];

/// Reads the configuration whose bytes are `bytes`.
#[must_use]
pub fn read(start: &Start, bytes: &[u8], files: &dyn Files) -> Config {
    let (config, saw_next) = Run::new(start, files, true).all(bytes);
    if !saw_next {
        return config;
    }
    // What `next_entry` names is started once; the default is what comes after that.
    let (mut later, _) = Run::new(start, files, false).all(bytes);
    let once = config.default.and_then(|at| config.entries.get(at));
    // Several entries may have one id.
    let same = |entry: &Entry| once.is_some_and(|once| once.position == entry.position);
    let one_shot = later.entries.iter().position(same);
    later.one_shot = one_shot.filter(|_| one_shot != later.default);
    for problem in config.problems {
        note(&mut later.problems, problem);
    }
    later
}

/// A configuration that is being carried out.
pub(super) struct Run<'a> {
    pub(super) files: &'a dyn Files,
    pub(super) env: Env,
    /// The functions, each with the file that it stands in.
    functions: BTreeMap<String, (Rc<Block>, Option<Rc<str>>)>,
    /// The arguments of the function or of the entry that runs.
    pub(super) arguments: Arguments,
    /// The menu that is being made.
    pub(super) items: Vec<Item>,
    /// What the entry that runs starts.
    pub(super) entry: Option<Entry>,
    /// What is wrong, with the entry that runs or with the configuration.
    pub(super) problems: Vec<Problem>,
    /// The entries that are ready.
    pub(super) entries: Vec<Entry>,
    /// How many items were put into menus.
    pub(super) made: usize,
    steps: usize,
    depth: usize,
    bytes: usize,
    pub(super) returning: bool,
    /// The file that is carried out; `None`: the first one.
    pub(super) file: Option<Rc<str>>,
    /// `next_entry` counts.
    pub(super) with_next: bool,
    /// `next_entry` has a value.
    pub(super) saw_next: bool,
}

impl<'a> Run<'a> {
    fn new(start: &Start, files: &'a dyn Files, with_next: bool) -> Self {
        let mut env = Env::default();
        let directory = start
            .path
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory);
        let prefix = format!("({CONFIG}){directory}");
        let config = format!("({CONFIG}){}", start.path);
        let (cpu, platform) = if start.efi {
            ("x86_64", "efi")
        } else {
            ("i386", "pc")
        };
        for (name, value) in [
            ("root", CONFIG),
            ("prefix", &prefix),
            ("config_directory", &prefix),
            ("config_file", &config),
            ("cmdpath", &prefix),
            ("grub_cpu", cpu),
            ("grub_platform", platform),
            ("feature_200_final", "y"),
            ("feature_all_video_module", "y"),
            ("feature_chainloader_bpb", "y"),
            ("feature_default_font_path", "y"),
            ("feature_menuentry_id", "y"),
            ("feature_menuentry_options", "y"),
            ("feature_nativedisk_cmd", "y"),
            ("feature_ntldr", "y"),
            ("feature_platform_search_hint", "y"),
            ("feature_timeout_style", "y"),
        ] {
            env.set(name, value, None);
            env.export(name);
        }
        Self {
            files,
            env,
            functions: BTreeMap::new(),
            arguments: Arguments::default(),
            items: Vec::new(),
            entry: None,
            problems: Vec::new(),
            entries: Vec::new(),
            made: 0,
            steps: 0,
            depth: 0,
            bytes: 0,
            returning: false,
            file: None,
            with_next,
            saw_next: false,
        }
    }

    fn all(mut self, bytes: &[u8]) -> (Config, bool) {
        self.source(bytes);
        let nodes = self.build();
        let chosen = self.env.get("default").unwrap_or_default().to_owned();
        if let Some(on) = self.env.doubt_of("default") {
            let (name, on) = ("default".to_owned(), on.to_string());
            self.note(Problem::Doubtful { name, on });
        }
        let (default, found) = super::menu::choose(&nodes, &chosen);
        if !found {
            self.note(Problem::NoSuchDefault(chosen));
        }
        let config = Config {
            entries: self.entries,
            default,
            one_shot: None,
            problems: self.problems,
        };
        (config, self.saw_next)
    }

    /// Says what is wrong, once.
    pub(super) fn note(&mut self, problem: Problem) {
        let problem = self.located(problem);
        note(&mut self.problems, problem);
    }

    /// `problem`, with the file that its line is in.
    pub(super) fn located(&self, problem: Problem) -> Problem {
        let has_line = matches!(
            problem,
            Problem::Syntax { .. } | Problem::NotFollowed { .. }
        );
        match self.file.as_ref().filter(|_| has_line) {
            Some(file) => Problem::In {
                file: file.to_string(),
                problem: Box::new(problem),
            },
            None => problem,
        }
    }

    /// Carries out `run` as text of `file`.
    pub(super) fn within<T>(
        &mut self,
        file: Option<Rc<str>>,
        run: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = std::mem::replace(&mut self.file, file);
        let answer = run(self);
        self.file = before;
        answer
    }

    /// Carries out the text of a file.
    fn source(&mut self, bytes: &[u8]) -> Answer {
        let text = Text::of(bytes);
        for problem in &text.problems {
            self.note(problem.clone());
        }
        let answer = self.list(&syntax::parse(&text.text));
        self.returning = false;
        answer
    }

    /// Reads a file.
    pub(super) fn read(&mut self, file: &FileRef) -> Result<Vec<u8>, Problem> {
        let bytes = match self.has_bytes(0) {
            true => self.files.read(file),
            false => Ok(Vec::new()),
        };
        match bytes {
            Ok(bytes) if self.has_bytes(bytes.len()) => Ok(bytes),
            Ok(_) => Err(Problem::Limit(TOO_MANY_BYTES)),
            Err(why) => Err(self.failed(file, why)),
        }
    }

    /// Whether `count` more bytes are read.
    fn has_bytes(&mut self, count: usize) -> bool {
        self.bytes = self.bytes.saturating_add(count);
        self.bytes <= MAX_BYTES
    }

    pub(super) fn list(&mut self, list: &[Statement]) -> Answer {
        let mut last = Answer::Yes;
        for statement in list {
            if self.returning || !self.step() {
                break;
            }
            last = self.statement(statement);
        }
        last
    }

    /// Whether there is another step.
    fn step(&mut self) -> bool {
        self.has_steps(1)
    }

    /// Whether there are `count` more steps.
    pub(super) fn has_steps(&mut self, count: usize) -> bool {
        self.steps = self.steps.saturating_add(count);
        if self.steps >= MAX_STEPS {
            let limit = "it takes more than 200,000 steps";
            self.note(Problem::Limit(limit));
        }
        self.steps < MAX_STEPS
    }

    fn statement(&mut self, statement: &Statement) -> Answer {
        match statement {
            Statement::Command(command) => {
                let answer = self.command(command);
                answer.negated(command.negated)
            }
            Statement::If {
                line,
                arms,
                otherwise,
            } => self.condition(*line, arms, otherwise),
            Statement::For {
                line,
                name,
                words,
                body,
            } => self.each(*line, name, words, body),
            Statement::Loop { line, body } => {
                let on = "while".into();
                self.not_followed(*line, &on, &[body]);
                Answer::Unknown(on)
            }
            Statement::Function { name, body } => {
                let function = (Rc::clone(body), self.file.clone());
                self.functions.insert(name.clone(), function);
                Answer::Yes
            }
            Statement::Bad { line, what } => {
                let (line, what) = (*line, what.clone());
                self.note(Problem::Syntax { line, what });
                Answer::No
            }
        }
    }

    /// The first arm whose condition holds. One that only GRUB can answer does not; what it
    /// would have changed is doubtful afterwards.
    fn condition(&mut self, line: usize, arms: &[Arm], otherwise: &[Statement]) -> Answer {
        let mut unknown = Vec::new();
        let mut chosen = otherwise;
        for (number, (asked, body)) in arms.iter().enumerate() {
            match self.list(asked) {
                Answer::Yes => {
                    chosen = body;
                    break;
                }
                Answer::No => {}
                Answer::Unknown(on) => unknown.push((number, on)),
            }
        }
        let answer = self.list(chosen);
        for (number, on) in unknown {
            let arms = arms.get(number..).unwrap_or_default();
            let mut bodies: Vec<&[Statement]> = arms.iter().map(|(_, body)| &body[..]).collect();
            bodies.push(otherwise);
            self.not_followed(line, &on, &bodies);
        }
        answer
    }

    /// Whether there are steps for making these words.
    fn has_words(&mut self, words: &[Word]) -> bool {
        let parts = words.iter().map(|word| 1 + word.parts.len());
        self.has_steps(parts.sum::<usize>() / PARTS_A_STEP)
    }

    fn each(&mut self, line: usize, name: &str, words: &[Word], body: &[Statement]) -> Answer {
        if !self.has_words(words) {
            return Answer::No;
        }
        let words = self.env.words(words, &self.arguments);
        if !self.has_steps(words.size / BYTES_A_STEP) {
            return Answer::No;
        }
        let is_pattern = |word: &String| word.contains(['*', '?', '[', '(']);
        let doubt = words.doubt().cloned();
        let pattern = words.words.iter().find(|word| is_pattern(word));
        if let Some(on) = doubt.or(pattern.map(|word| format!("for {name} in {word}").into())) {
            self.not_followed(line, &on, &[body]);
            self.env.doubt(name, &on);
            return Answer::Unknown(on);
        }
        let mut last = Answer::Yes;
        for word in &words.words {
            if self.returning || !self.step() {
                break;
            }
            self.env.set(name, word, None);
            last = self.list(body);
        }
        last
    }

    /// Makes doubtful what `bodies` would change, as only GRUB can answer `on`.
    fn not_followed(&mut self, line: usize, on: &Rc<str>, bodies: &[&[Statement]]) {
        let mut seen = Seen::default();
        for body in bodies {
            self.look(body, &mut seen);
        }
        for name in &seen.names {
            self.env.doubt(name, on);
        }
        if seen.is_weighty {
            let what = on.to_string();
            self.note(Problem::NotFollowed { line, what });
        }
    }

    /// Finds what statements would change.
    fn look(&mut self, list: &[Statement], seen: &mut Seen) {
        for statement in list {
            if !self.step() {
                return;
            }
            match statement {
                Statement::Command(command) => self.look_at(command, seen),
                Statement::If {
                    arms, otherwise, ..
                } => {
                    for (asked, body) in arms {
                        self.look(asked, seen);
                        self.look(body, seen);
                    }
                    self.look(otherwise, seen);
                }
                Statement::For { name, body, .. } => {
                    seen.names.insert(name.clone());
                    self.look(body, seen);
                }
                Statement::Loop { body, .. } => self.look(body, seen),
                Statement::Function { .. } | Statement::Bad { .. } => {}
            }
        }
    }

    fn look_at(&mut self, command: &Command, seen: &mut Seen) {
        let Some(first) = command.words.first() else {
            return;
        };
        let plain = first.plain().unwrap_or_default();
        seen.is_weighty |= WEIGHTY.contains(&plain);
        let changes = match plain {
            "set" | "unset" | "export" => command.words.get(1..).unwrap_or_default(),
            _ => command.words.get(..1).unwrap_or_default(),
        };
        for word in changes {
            let Some(Part::Text(text)) = word.parts.first() else {
                continue;
            };
            match text.split_once('=') {
                Some((name, _)) => drop(seen.names.insert(name.to_owned())),
                None if plain == "unset" => drop(seen.names.insert(text.clone())),
                None => {}
            }
        }
        let function = self.functions.get(plain).cloned();
        if let Some((block, _)) = function.filter(|_| seen.functions.insert(plain.to_owned())) {
            self.look(&block.body, seen);
        }
    }

    fn command(&mut self, command: &Command) -> Answer {
        if !self.has_words(&command.words) {
            return Answer::No;
        }
        let words = self.env.words(&command.words, &self.arguments);
        if !self.has_steps(words.size / BYTES_A_STEP) {
            return Answer::No;
        }
        let Some((name, rest)) = words.words.split_first() else {
            return Answer::Yes;
        };
        let line = command.line;
        if let Some(answer) = self.boot(name, rest, &words, line) {
            return answer;
        }
        match name.as_str() {
            "[" => match rest.split_last() {
                Some((last, rest)) if last == "]" => self.test(rest, &words),
                _ => Answer::Unknown("[".into()),
            },
            "test" => self.test(rest, &words),
            "true" => Answer::Yes,
            "false" => Answer::No,
            "return" => {
                self.returning = true;
                rest.first().is_none_or(|status| status == "0").into()
            }
            "set" | "export" | "unset" => self.variables(name, rest, words.doubt()),
            // Ubuntu's question whether the graphics card is on a list of those that need text
            // mode. Taken for "no": all that hangs on it is the console's first picture.
            "hwmatch" => {
                self.env.set("match", "0", None);
                Answer::Yes
            }
            "increment" | "decrement" => self.count(name, rest),
            "load_env" => self.load_env(rest),
            "search" | "search.fs_uuid" | "search.fs_label" | "search.file" => {
                self.search(name, rest, words.doubt())
            }
            "source" | "." | "configfile" | "normal" => self.include(rest, line),
            "eval" => {
                let text = rest.join(" ");
                if !self.has_bytes(text.len()) {
                    self.note(Problem::Limit(TOO_MANY_BYTES));
                    return Answer::No;
                }
                self.deeper(|run| run.source(text.as_bytes()))
            }
            "menuentry" | "submenu" => self.menu_entry(name, rest, command, &words),
            "blscfg" => self.blscfg(),
            // They change nothing that an entry could show.
            "insmod" | "rmmod" | "echo" | "terminal" | "terminal_input" | "terminal_output"
            | "save_env" | "background_image" | "background_color" | "loadfont" | "sleep"
            | "clear" | "play" | "serial" | "password" | "password_pbkdf2" | "boot" | ":" => {
                Answer::Yes
            }
            _ => self.other(name, rest, &words),
        }
    }

    /// A test of doubtful words is doubtful.
    fn test(&self, rest: &[String], words: &Words) -> Answer {
        match words.doubt() {
            Some(on) => Answer::Unknown(Rc::clone(on)),
            None => test(rest, self.root(), self.files),
        }
    }

    pub(super) fn root(&self) -> &str {
        self.env.get("root").unwrap_or(CONFIG)
    }

    /// A function, an assignment without `set`, or a command that is not known.
    fn other(&mut self, name: &str, rest: &[String], words: &Words) -> Answer {
        if let Some((block, file)) = self.functions.get(name).cloned() {
            return self.deeper(|run| {
                let arguments = Arguments {
                    words: rest.to_vec(),
                    doubt: words.doubt().cloned(),
                };
                let before = std::mem::replace(&mut run.arguments, arguments);
                let answer = run.within(file, |run| run.list(&block.body));
                run.returning = false;
                run.arguments = before;
                answer
            });
        }
        if let Some((variable, value)) = name.split_once('=') {
            self.env.set(variable, value, words.doubt().cloned());
            return Answer::Yes;
        }
        let on: Rc<str> = name.into();
        // `regexp --set=1:name …`, `probe --set=name …`, `read name`
        for word in rest {
            let set = word.strip_prefix("--set=").map(|set| {
                let behind = set.split_once(':');
                behind.map_or(set, |(_, name)| name)
            });
            let read = (name == "read").then_some(word.as_str());
            if let Some(variable) = set.or(read) {
                self.env.doubt(variable, &on);
            }
        }
        Answer::Unknown(on)
    }

    /// Runs what may run itself again.
    fn deeper(&mut self, run: impl FnOnce(&mut Self) -> Answer) -> Answer {
        if self.depth == MAX_DEPTH {
            let limit = "functions or files call each other too deep";
            self.note(Problem::Limit(limit));
            return Answer::No;
        }
        self.depth += 1;
        let answer = run(self);
        self.depth -= 1;
        answer
    }

    fn include(&mut self, rest: &[String], line: usize) -> Answer {
        let path = rest.iter().find(|word| !word.starts_with('-'));
        let Some(path) = path.filter(|_| self.entry.is_none()) else {
            let what = format!("configfile {}", rest.join(" "));
            self.note(Problem::NotFollowed { line, what });
            return Answer::No;
        };
        let file = FileRef::parse(path, self.root());
        match self.read(&file) {
            Ok(bytes) => {
                let name = Some(file.path.into());
                self.deeper(|run| run.within(name, |run| run.source(&bytes)))
            }
            Err(problem) => {
                self.note(problem);
                Answer::No
            }
        }
    }

    /// What is wrong with a file of the configuration that could not be read. GRUB misses
    /// one that is not there as well; what it finds in one that is there is not known.
    fn failed(&self, file: &FileRef, why: String) -> Problem {
        let is_there = self.files.is_file(file);
        let path = file.path.clone();
        match is_there {
            true => Problem::Unread { path, why },
            false => Problem::File { path, why },
        }
    }
}

/// What statements would change.
#[derive(Default)]
struct Seen {
    names: BTreeSet<String>,
    functions: BTreeSet<String>,
    is_weighty: bool,
}

/// What is to be said of a doubtful variable.
pub(super) fn doubtful((name, on): &(String, Rc<str>)) -> Problem {
    Problem::Doubtful {
        name: name.clone(),
        on: on.to_string(),
    }
}
