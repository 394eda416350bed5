//! The man pages in man/ are what the parser's definitions make of them.
//! `SNAPSHOTS=overwrite cargo test --test man` writes them anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;
use std::process::Command;

use snapbox::data::DataFormat;
use snapbox::{Assert, Data};

fn generated(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_rkexec"))
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The verbs, as `--help` lists them.
fn verbs() -> Vec<String> {
    let help = generated(&["--help"]);
    let groups = help.lines().take_while(|line| *line != "Options:");
    let rows = groups.filter_map(|line| line.strip_prefix("  "));
    let names = rows.filter_map(|row| row.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The file of a verb's page: `kexec` has a name of its own.
fn file_of(verb: &str) -> String {
    match verb {
        "kexec" => "kexec.8".to_owned(),
        verb => format!("rkexec-{verb}.8"),
    }
}

#[test]
fn the_pages_say_what_the_parser_says() {
    let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let assert = Assert::new().action_env("SNAPSHOTS");
    let check = |name: &str, page: String| {
        let expected = Data::read_from(&man.join(name), Some(DataFormat::Text)).raw();
        assert.eq(Data::text(page).raw(), expected);
    };
    let verbs = verbs();
    assert!(verbs.len() >= 10, "{verbs:?}");
    check("rkexec.8", generated(&["generate", "man"]));
    for verb in &verbs {
        check(&file_of(verb), generated(&["generate", "man", verb]));
    }
    let pages = std::fs::read_dir(&man).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .path()
            .extension()
            .is_some_and(|extension| extension == "8")
    });
    assert_eq!(pages.count(), verbs.len() + 1, "a page of no verb");
}

#[test]
fn mandoc_has_nothing_to_warn_of() {
    let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let pages = std::fs::read_dir(man).unwrap();
    for page in pages.map(|entry| entry.unwrap().path()) {
        if page.extension().is_none_or(|extension| extension != "8") {
            continue;
        }
        let lint = Command::new("mandoc")
            .args(["-Tlint", "-Wwarning"])
            .arg(&page)
            .output()
            .expect("running mandoc: tests/vm/setup installs it");
        let said = String::from_utf8_lossy(&lint.stdout);
        assert!(said.is_empty() && lint.status.success(), "{said}");
    }
}

/// The pages that are written by hand. Which other pages this machine has is no
/// matter of these.
#[test]
fn the_pages_written_by_hand_are_well_formed() {
    for page in ["rkexec.toml.5", "rkexec-carry.7"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(page);
        let output = Command::new("mandoc")
            .args(["-T", "lint", "-W", "style"])
            .arg(path)
            .output()
            .expect("running mandoc: run tests/vm/setup first");
        let text = String::from_utf8(output.stdout).unwrap();
        let faults: Vec<&str> = text
            .lines()
            .filter(|line| !line.contains("referenced manual not found"))
            .collect();
        assert_eq!(faults, Vec::<&str>::new(), "{page}");
    }
}

/// A page of each verb that hands something over, or takes it, leads to rkexec-carry(7);
/// and the options that this page names are there.
#[test]
fn the_page_about_what_survives_is_found_and_holds() {
    let man = Path::new(env!("CARGO_MANIFEST_DIR")).join("man");
    let read = |name: &str| std::fs::read_to_string(man.join(name)).unwrap();
    for page in ["rkexec.8", "rkexec-load.8", "rkexec-retrieve.8"] {
        assert!(read(page).contains(r".BR rkexec\-carry (7)"), "{page}");
    }
    let known = format!(
        "{}{}{}",
        generated(&["load", "--help"]),
        generated(&["exec", "--help"]),
        generated(&["retrieve", "--help"])
    );
    let page = read("rkexec-carry.7").replace("\\-", "-");
    let words = page.split_whitespace();
    let words = words.filter_map(|word| word.strip_prefix("--"));
    let macros = page.lines().filter_map(|line| line.split_once("Fl -"));
    let macros = macros.filter_map(|(_, rest)| rest.split_whitespace().next());
    let named: Vec<&str> = words.chain(macros).collect();
    assert!(named.len() >= 10, "{named:?}");
    for option in named {
        assert!(known.contains(&format!("--{option}")), "--{option}");
    }
}
