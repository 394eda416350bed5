//! The rooms of src/ import downward only: the order is the table in
//! ARCHITECTURE.md, from the ground up.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at what it did not expect"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The rooms of ARCHITECTURE.md's table "Rooms", the lowest first.
fn rooms() -> Vec<String> {
    let text = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let (_, section) = text.split_once("## Rooms\n").expect("a section Rooms");
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| row.split(['/', '`']).next().unwrap().to_owned())
        .collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The room that a path below src/ belongs to; `None` for lib.rs and main.rs.
fn room_of(path: &Path) -> Option<String> {
    let first = path.strip_prefix("src").unwrap().iter().next().unwrap();
    let room = first.to_str().unwrap().trim_end_matches(".rs");
    (room != "lib" && room != "main").then(|| room.to_owned())
}

/// Tests may look at any room.
fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    name == "tests.rs" || name.ends_with("_tests.rs") || path.iter().any(|part| part == "tests")
}

/// The rooms that `source` names: `crate::ROOM`, and each of `crate::{ROOM, …}`.
fn imports(source: &str) -> BTreeSet<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let mut rooms = BTreeSet::new();
    for line in code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        for (at, found) in line.match_indices("crate::") {
            let rest = &line[at + found.len()..];
            if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            assert!(
                !rest.starts_with('{'),
                "one `use crate::ROOM` a room: {line}"
            );
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            rooms.insert(rest[..end.unwrap_or(rest.len())].to_owned());
        }
    }
    rooms
}

/// The imports of `room` that stand above it in `order`, or are not in it.
fn upward(order: &[String], room: &str, imports: &BTreeSet<String>) -> Vec<String> {
    let place = |room: &str| order.iter().position(|known| known == room);
    let own = place(room).unwrap_or_else(|| panic!("{room} is not in ARCHITECTURE.md's table"));
    let is_up = |import: &&String| place(import).is_none_or(|place| place > own);
    imports.iter().filter(is_up).cloned().collect()
}

#[test]
fn rooms_import_downward_only() {
    let order = rooms();
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for path in files.iter().filter(|path| !is_test(path)) {
        let Some(room) = room_of(path) else { continue };
        let source = fs::read_to_string(path).unwrap();
        for import in upward(&order, &room, &imports(&source)) {
            wrong.push(format!("{}: crate::{import}", path.display()));
        }
        seen.insert(room);
    }
    assert!(wrong.is_empty(), "upward imports:\n{}", wrong.join("\n"));
    let named: BTreeSet<String> = order.into_iter().collect();
    assert_eq!(named, seen, "ARCHITECTURE.md's table and src/");
}

#[test]
fn an_upward_import_is_seen() {
    let order = ["base", "host", "plan"].map(str::to_owned);
    let planted = "use crate::base::PhysRange;\n    let x = crate::plan::plan();\n// crate::cli\n";
    let imports = imports(planted);
    assert_eq!(upward(&order, "host", &imports), ["plan"]);
    assert_eq!(upward(&order, "plan", &imports), [""; 0]);
    assert_eq!(upward(&order, "base", &imports), ["plan"]);
}

/// Rooms that serve every architecture and boot protocol.
const NEUTRAL: [&str; 6] = ["cmdline", "request", "job", "layout", "plan", "load"];
/// Words of x86 and of its boot protocol, in lower case.
const X86_WORDS: [&str; 10] = [
    "e820",
    "boot_params",
    "zero page",
    "zero_page",
    "mixed mode",
    "640 kib",
    "la57",
    "xloadflags",
    "setup_header",
    "bzimage",
];

/// The words of x86 in `source`, but for the names of roles, which JSON has.
fn x86_words(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.contains("=> \"boot_params\""));
    let lower = lines.map(str::to_lowercase).collect::<Vec<_>>().join("\n");
    let found = X86_WORDS.iter().filter(|word| lower.contains(**word));
    found.map(|word| (*word).to_owned()).collect()
}

#[test]
fn the_frame_knows_no_word_of_x86() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let mut wrong = Vec::new();
    for path in files.iter().filter(|path| !is_test(path)) {
        let is_neutral = room_of(path).is_some_and(|room| NEUTRAL.contains(&&*room));
        let source = fs::read_to_string(path).unwrap();
        if is_neutral {
            let words = x86_words(&source).into_iter();
            wrong.extend(words.map(|word| format!("{}: {word}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(
        x86_words("// The Zero Page\nlet e820 = 1;"),
        ["e820", "zero page"]
    );
}
