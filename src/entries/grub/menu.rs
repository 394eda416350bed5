//! Entries and submenus, and which entry is started.

use std::rc::Rc;

use super::condition::Answer;
use super::env::{Arguments, Words};
use super::run::{Run, doubtful};
use super::syntax::{Block, Command};
use super::{Boot, Entry, MAX_ENTRIES, Problem, note};

/// How deep submenus may nest.
const MAX_DEPTH: usize = 8;
/// Items of all menus: [`MAX_ENTRIES`] entries, and as many submenus.
const MAX_ITEMS: usize = 2 * MAX_ENTRIES;

/// An entry or a submenu before it is carried out.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) title: String,
    pub(super) id: Option<String>,
    /// It is started without a password.
    pub(super) unrestricted: bool,
    pub(super) problems: Vec<Problem>,
    /// What `$1` and so on are in its block: the title, then the words behind it.
    pub(super) arguments: Arguments,
    /// The file that it stands in; `None`: the first one.
    pub(super) file: Option<Rc<str>>,
    pub(super) kind: Kind,
}

/// What an item is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Entry(Rc<Block>),
    Menu(Rc<Block>),
    /// An entry that is known already.
    Ready {
        boot: Box<Boot>,
        version: Option<String>,
    },
}

impl Item {
    /// An item with the words that follow `menuentry` or `submenu`.
    pub(super) fn new(kind: Kind, words: &[String]) -> Self {
        let mut item = Self {
            title: String::new(),
            id: None,
            unrestricted: false,
            problems: Vec::new(),
            arguments: Arguments::default(),
            file: None,
            kind,
        };
        let mut titles = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) if name.starts_with("--") => (name, Some(value)),
                _ => (word.as_str(), None),
            };
            match name {
                "--unrestricted" => item.unrestricted = true,
                "--id" => {
                    item.id = value
                        .or_else(|| words.next().map(String::as_str))
                        .map(str::to_owned)
                }
                "--class" | "--users" | "--hotkey" | "--source" if value.is_none() => {
                    words.next();
                }
                name if name.starts_with("--") => {}
                _ => titles.push(word.clone()),
            }
        }
        item.title = titles.first().cloned().unwrap_or_default();
        item.arguments.words = titles;
        item
    }

    /// What the item is called in the id of an entry.
    fn name(&self) -> String {
        let id = self.id.as_ref().filter(|id| !id.is_empty());
        id.unwrap_or(&self.title).replace('>', ">>")
    }
}

/// An item that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    title: String,
    id: Option<String>,
    content: Content,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    /// The number of the entry.
    Entry(usize),
    Menu(Vec<Node>),
}

/// Where a menu is.
#[derive(Clone, Default)]
struct Place {
    /// The id of the menu, with `>` behind it.
    id: String,
    position: String,
    depth: usize,
    /// A password is asked for on the way.
    password: bool,
}

impl Run<'_> {
    /// `menuentry` or `submenu`.
    pub(super) fn menu_entry(
        &mut self,
        command: &str,
        rest: &[String],
        own: &Command,
        words: &Words,
    ) -> Answer {
        let Some(block) = &own.block else {
            let (line, what) = (own.line, format!("`{command}` without a block"));
            self.note(Problem::Syntax { line, what });
            return Answer::No;
        };
        let kind = match command {
            "submenu" => Kind::Menu(Rc::clone(block)),
            _ => Kind::Entry(Rc::clone(block)),
        };
        let mut item = Item::new(kind, rest);
        item.file.clone_from(&self.file);
        item.arguments.doubt = words.doubt().cloned();
        for doubt in &words.doubts {
            note(&mut item.problems, doubtful(doubt));
        }
        if !block.closed {
            let (line, what) = (own.line, "`{` without `}`".to_owned());
            item.problems
                .push(self.located(Problem::Syntax { line, what }));
        }
        if self.entry.is_some() {
            let (line, what) = (
                own.line,
                "it stands in the block of another entry".to_owned(),
            );
            item.problems
                .push(self.located(Problem::Syntax { line, what }));
        }
        self.push(item).into()
    }

    /// Puts an item into the menu, while there is room for one.
    pub(super) fn push(&mut self, item: Item) -> bool {
        let has_room = self.made < MAX_ITEMS;
        if has_room {
            self.made += 1;
            self.items.push(item);
        } else {
            self.note(Problem::TooMany);
        }
        has_room
    }

    /// Carries out the items of the menu, and of its submenus.
    pub(super) fn build(&mut self) -> Vec<Node> {
        self.build_at(&Place::default())
    }

    fn build_at(&mut self, place: &Place) -> Vec<Node> {
        let mut nodes = Vec::new();
        let mut items = std::mem::take(&mut self.items);
        items.reverse();
        while let Some(item) = items.pop() {
            if self.entries.len() == MAX_ENTRIES {
                self.note(Problem::TooMany);
                break;
            }
            let position = nodes.len();
            let position = format!("{}{position}", place.position);
            let id = format!("{}{}", place.id, item.name());
            // An empty list as well: then nobody knows a password.
            let has_users = self.env.get("superusers").is_some();
            let password = place.password || (has_users && !item.unrestricted);
            let content = match &item.kind {
                Kind::Menu(block) => {
                    let below = Place {
                        id: format!("{id}>"),
                        position: format!("{position}>"),
                        depth: place.depth + 1,
                        password,
                    };
                    Content::Menu(self.submenu(block, &item, &below))
                }
                Kind::Entry(_) | Kind::Ready { .. } => {
                    let mut entry = Entry {
                        id,
                        title: item.title.clone(),
                        position,
                        ..Entry::default()
                    };
                    self.entry(&item, &mut entry);
                    if password {
                        entry.problems.push(Problem::Password);
                    }
                    self.entries.push(entry);
                    // Entries within the block of this one.
                    let nested = std::mem::take(&mut self.items);
                    items.extend(nested.into_iter().rev());
                    Content::Entry(self.entries.len() - 1)
                }
            };
            nodes.push(Node {
                title: item.title,
                id: item.id,
                content,
            });
        }
        nodes
    }

    fn submenu(&mut self, block: &Rc<Block>, item: &Item, place: &Place) -> Vec<Node> {
        for problem in &item.problems {
            self.note(problem.clone());
        }
        if place.depth == MAX_DEPTH {
            self.note(Problem::Limit("submenus nest too deep"));
            return Vec::new();
        }
        let inside = self.env.exported();
        let before = std::mem::replace(&mut self.env, inside);
        self.block(block, item);
        let nodes = self.build_at(place);
        self.env = before;
        nodes
    }

    /// Carries out the block of an item.
    fn block(&mut self, block: &Block, item: &Item) {
        let before = std::mem::replace(&mut self.arguments, item.arguments.clone());
        self.within(item.file.clone(), |run| run.list(&block.body));
        self.arguments = before;
        // `return` ends this block alone.
        self.returning = false;
    }

    fn entry(&mut self, item: &Item, entry: &mut Entry) {
        let before = std::mem::replace(&mut self.problems, item.problems.clone());
        match &item.kind {
            Kind::Ready { boot, version } => {
                entry.boot.clone_from(boot);
                entry.version.clone_from(version);
                entry.from_bls = true;
            }
            Kind::Entry(block) | Kind::Menu(block) => {
                let env = self.env.clone();
                self.env.set("chosen", &entry.id, None);
                self.entry = Some(Entry::default());
                self.block(block, item);
                entry.boot = self.entry.take().unwrap_or_default().boot;
                self.env = env;
                if entry.boot.kernel.is_none() && !self.problems.iter().any(is_other) {
                    self.note(Problem::NoKernel);
                }
            }
        }
        entry.problems = std::mem::replace(&mut self.problems, before);
    }
}

/// Whether the problem says why an entry names no kernel.
fn is_other(problem: &Problem) -> bool {
    match problem {
        Problem::In { problem, .. } => is_other(problem),
        other => matches!(
            other,
            Problem::OtherProgram(_) | Problem::NotFollowed { .. }
        ),
    }
}

/// The entry that `default` names, and whether it names one. A number counts from 0; a name
/// is an id or a title; behind `>` the choice in the submenu follows. As in GRUB the first
/// item is taken for a name that there is not.
pub(super) fn choose(nodes: &[Node], default: &str) -> (Option<usize>, bool) {
    let (first, rest) = split(default);
    let number = first
        .parse::<usize>()
        .ok()
        .filter(|_| !first.starts_with('+'));
    let named = |node: &Node| node.id.as_deref() == Some(&first) || node.title == first;
    let at = match number {
        Some(number) => (number < nodes.len()).then_some(number),
        None if first.is_empty() => Some(0),
        None => nodes.iter().position(named),
    };
    let found = at.is_some() || nodes.is_empty();
    match nodes.get(at.unwrap_or(0)).map(|node| &node.content) {
        Some(Content::Entry(number)) => (Some(*number), found),
        Some(Content::Menu(nodes)) => {
            let (chosen, there) = choose(nodes, if found { rest } else { "" });
            (chosen, found && there)
        }
        None => (None, found),
    }
}

/// The part before the first single `>`, in which `>>` is a `>`, and the part behind it.
fn split(path: &str) -> (String, &str) {
    let mut name = String::new();
    let mut rest = path;
    while let Some((before, behind)) = rest.split_once('>') {
        name.push_str(before);
        match behind.strip_prefix('>') {
            Some(after) => {
                name.push('>');
                rest = after;
            }
            None => return (name, behind),
        }
    }
    name.push_str(rest);
    (name, "")
}
