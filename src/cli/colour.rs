//! Colour for the words that a reader must not miss, on a terminal only.

use std::ffi::OsStr;
use std::io::IsTerminal;

use clap::builder::styling::{AnsiColor, Style};

/// Words at the start of a line, and their colours.
const WORDS: [(&str, AnsiColor); 2] = [("warning:", AnsiColor::Yellow), ("hint:", AnsiColor::Cyan)];
/// What stands in front of a warning. Alone it begins an error.
const OURS: &str = "rkexec:";

/// Whether what goes to `stream` is coloured.
pub(super) fn of(stream: &impl IsTerminal) -> bool {
    let variable = |name| std::env::var_os(name);
    wanted(
        stream.is_terminal(),
        variable("NO_COLOR").as_deref(),
        variable("TERM").as_deref(),
    )
}

/// A terminal that knows colours, and nobody who wants none (<https://no-color.org>).
fn wanted(terminal: bool, no_color: Option<&OsStr>, term: Option<&OsStr>) -> bool {
    let forbidden = no_color.is_some_and(|value| !value.is_empty());
    terminal && !forbidden && term.is_some_and(|term| term != "dumb")
}

/// Colours the first word of each line if it is a warning or a hint.
pub(super) fn paint(text: &str) -> String {
    text.split_inclusive('\n').map(painted).collect()
}

/// Colours the name in front of an error.
pub(super) fn paint_error(line: &str) -> String {
    match line.strip_prefix(OURS) {
        Some(rest) => in_colour(OURS, AnsiColor::Red) + rest,
        None => line.to_owned(),
    }
}

fn in_colour(word: &str, colour: AnsiColor) -> String {
    let style = Style::new().bold().fg_color(Some(colour.into()));
    format!("{style}{word}{style:#}")
}

fn painted(line: &str) -> String {
    let start = line.trim_start_matches(' ');
    // "rkexec: warning:" is a warning.
    let behind = start.strip_prefix(OURS).unwrap_or(start);
    let start = behind.strip_prefix(' ').unwrap_or(behind);
    let (before, _) = line.split_at(line.len() - start.len());
    let found = WORDS.iter().find_map(|(word, colour)| {
        let rest = start.strip_prefix(word)?;
        Some(format!("{before}{}{rest}", in_colour(word, *colour)))
    });
    found.unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_for_terminals_that_know_it_and_for_those_who_want_it() {
        let wanted = |terminal, no_color: Option<&str>, term: Option<&str>| {
            wanted(terminal, no_color.map(OsStr::new), term.map(OsStr::new))
        };
        assert!(wanted(true, None, Some("xterm")));
        assert!(wanted(true, Some(""), Some("linux")));
        assert!(!wanted(false, None, Some("xterm")));
        assert!(!wanted(true, Some("1"), Some("xterm")));
        assert!(!wanted(true, None, Some("dumb")));
        assert!(!wanted(true, None, None));
    }

    #[test]
    fn the_first_word_is_coloured() {
        let plain = "rkexec: warning: a\n  hint: b\nrkexec: c failed: hint: d\nRAM: warning:\n";
        assert_eq!(
            paint(plain),
            "rkexec: \x1b[1m\x1b[33mwarning:\x1b[0m a\n  \x1b[1m\x1b[36mhint:\x1b[0m b\n\
             rkexec: c failed: hint: d\nRAM: warning:\n"
        );
        assert_eq!(
            paint_error("rkexec: c failed: hint: d"),
            "\x1b[1m\x1b[31mrkexec:\x1b[0m c failed: hint: d"
        );
    }
}
