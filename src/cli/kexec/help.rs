//! `kexec --help` and kexec(8), both from the table.

use std::fmt::Write as _;

use super::options::{Does, GROUPS, Opt};
use crate::cli::generate::DATE;

/// Columns of the help.
const WIDTH: usize = 80;
/// Column where its texts begin.
const INDENT: usize = 8;
/// What no option says, for kexec(8): written by hand.
const MORE: &str = include_str!("../../../man/kexec.roff");

/// The version of kexec-tools whose command line this is.
pub(super) const KEXEC_TOOLS: &str = "2.0.32";

/// What `--help` prints.
pub(super) fn help() -> String {
    let mut out = String::from(
        "Usage: kexec [OPTION]... [KERNEL]\n\
         Boots another kernel from the running one: rkexec with the command line of kexec-tools.\n\
         Without -l, -p, -u, -e, -f or -S: loads KERNEL and reboots into it by the init system.\n",
    );
    for group in GROUPS {
        let _ = write!(out, "\n{}:\n", group.title);
        for option in group.options {
            let _ = writeln!(out, "  {}", usage(option, str::to_owned, str::to_owned));
            wrap(&mut out, &text(option));
        }
    }
    out.push_str("\nkexec(8) tells what differs from kexec-tools, and the exit codes.\n");
    out
}

/// `-t, --type=TYPE`, with each name and each value dressed by a function.
fn usage(option: &Opt, name: impl Fn(&str) -> String, value: impl Fn(&str) -> String) -> String {
    let letter = option
        .letter
        .map(|letter| format!("-{}", char::from(letter)));
    let long = option.names.iter().map(|name| format!("--{name}"));
    let with_value = |spelling: String| {
        let joint = if spelling.starts_with("--") { "=" } else { " " };
        let value = option.value.map(|text| format!("{joint}{}", value(text)));
        name(&spelling) + &value.unwrap_or_default()
    };
    let all: Vec<String> = letter.into_iter().chain(long).map(with_value).collect();
    all.join(", ")
}

/// What the option does, or why it does nothing.
fn text(option: &Opt) -> String {
    match option.does {
        Does::Ignored(why) => format!("{} Ignored: {why}.", option.help),
        Does::Refused(why) => format!("{} Refused: {why}.", option.help),
        _ => option.help.to_owned(),
    }
}

fn wrap(out: &mut String, text: &str) {
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && INDENT + line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(out, "{:INDENT$}{line}", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    let _ = writeln!(out, "{:INDENT$}{line}", "");
}

/// kexec(8).
pub(in crate::cli) fn man_page() -> String {
    let mut out = format!(
        ".TH KEXEC 8 \"{DATE}\" \"rkexec {}\" \"System Manager's Manual\"\n\
         .SH NAME\nkexec \\- boots another kernel from the running one\n\
         .SH SYNOPSIS\n.B kexec\n.RI [ OPTION \"]... [\" KERNEL ]\n",
        env!("CARGO_PKG_VERSION")
    );
    let (description, rest) = MORE.split_once(".\\\" OPTIONS\n").unwrap_or((MORE, ""));
    out.push_str(description);
    out.push_str(".SH OPTIONS\n");
    let bold = |text: &str| format!("\\fB{}\\fR", roff(text));
    let italic = |text: &str| format!("\\fI{}\\fR", roff(text));
    for group in GROUPS {
        let _ = writeln!(out, ".SS \"{}\"", group.title);
        for option in group.options {
            let _ = writeln!(out, ".TP\n{}", usage(option, bold, italic));
            paragraph(&mut out, &text(option));
            if !option.differs.is_empty() {
                out.push_str(".IP\n.I Differs:\n");
                paragraph(&mut out, option.differs);
            }
        }
    }
    out.push_str(rest);
    out
}

/// A sentence on each line, as roff likes it.
fn paragraph(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some((sentence, more)) = rest.split_once(". ") {
        let _ = writeln!(out, "{}.", line(sentence));
        rest = more;
    }
    let _ = writeln!(out, "{}", line(rest));
}

/// A line that is no request.
fn line(text: &str) -> String {
    let text = roff(text);
    if text.starts_with(['.', '\'']) {
        format!("\\&{text}")
    } else {
        text
    }
}

/// Text with what roff would take for its own escaped.
fn roff(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kexec::options;

    #[test]
    fn every_option_is_in_both() {
        let (help, page) = (help(), man_page());
        for option in options::all() {
            let names = option.names.iter().map(|name| format!("--{name}"));
            let letter = option
                .letter
                .map(|letter| format!("-{}", char::from(letter)));
            for name in names.chain(letter) {
                let listed = help.lines().any(|line| {
                    let mut words = line.trim_start().split([',', '=', ' ']);
                    line.starts_with("  -") && words.any(|word| word == name)
                });
                assert!(listed, "{name} is not in the help");
                assert!(
                    page.contains(&format!("\\fB{}\\fR", roff(&name))),
                    "{name} is not in the page"
                );
            }
            assert!(page.contains(&line(option.differs.split(". ").next().unwrap_or(""))));
        }
        assert!(page.contains(".SH \"EXIT STATUS\""));
    }

    #[test]
    fn lines_are_not_too_long() {
        for line in help().lines().filter(|line| line.starts_with("   ")) {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn roff_takes_no_word_for_a_request() {
        let mut out = String::new();
        paragraph(&mut out, ".x -y. 'z \\");
        assert_eq!(out, "\\&.x \\-y.\n\\&'z \\e\n");
    }
}
