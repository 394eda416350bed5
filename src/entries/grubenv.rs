//! The environment block of GRUB: `saved_entry`, `next_entry`, `kernelopts`.
//!
//! Source: the GRUB manual, "The GRUB environment block" and grub-editenv. The block
//! begins with one line of comment; each further line is NAME=VALUE, where a backslash
//! stands before a backslash or a line break that belongs to the value. `#` fills the rest.

use super::Problem;
use super::text::{Text, is_clean};

/// The first line.
const HEADER: &str = "# GRUB Environment Block\n";

/// The variables in the order of the file.
///
/// # Errors
/// When it is no environment block.
pub fn parse(bytes: &[u8]) -> Result<Vec<(String, String)>, Problem> {
    let text = Text::of(bytes);
    if text.problems.contains(&Problem::TooLarge) {
        return Err(Problem::TooLarge);
    }
    let Some(rest) = text.text.strip_prefix(HEADER) else {
        return Err(Problem::Syntax {
            line: 1,
            what: "this is no environment block of GRUB".to_owned(),
        });
    };
    let mut variables = Vec::new();
    let mut chars = rest.chars();
    while let Some(first) = chars.next() {
        match first {
            '#' => drop(chars.by_ref().find(|c| *c == '\n')),
            '\n' => {}
            first => variables.extend(variable(first, &mut chars)),
        }
    }
    Ok(variables)
}

/// A variable whose name begins with `first`; `None` when it has no value or is no text.
fn variable(first: char, chars: &mut std::str::Chars<'_>) -> Option<(String, String)> {
    let mut name = String::from(first);
    loop {
        match chars.next()? {
            '=' => break,
            '\n' => return None,
            c => name.push(c),
        }
    }
    let mut value = String::new();
    loop {
        match chars.next() {
            Some('\\') => value.extend(chars.next()),
            Some('\n') | None => break,
            Some(c) => value.push(c),
        }
    }
    (is_clean(&name) && is_clean(&value)).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &str) -> Vec<(String, String)> {
        parse(format!("{HEADER}{body}").as_bytes()).unwrap()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        pairs.iter().map(own).collect()
    }

    #[test]
    fn variables_and_filling() {
        let block = "saved_entry=a>b\n# WARNING: Do not edit\nnext_entry=\nkernelopts=root=/dev/x ro\n#####";
        let expected = pairs(&[
            ("saved_entry", "a>b"),
            ("next_entry", ""),
            ("kernelopts", "root=/dev/x ro"),
        ]);
        assert_eq!(read(block), expected);
    }

    #[test]
    fn a_backslash_keeps_what_follows() {
        assert_eq!(
            read("a=x\\\\y\\\nz\nb=1"),
            pairs(&[("a", "x\\y\nz"), ("b", "1")])
        );
    }

    #[test]
    fn what_is_no_block_is_refused() {
        assert!(parse(b"saved_entry=1\n").is_err());
        assert!(parse(b"").is_err());
        assert_eq!(read("noequals\na=1\n"), pairs(&[("a", "1")]));
        assert_eq!(
            parse(&[HEADER.as_bytes(), b"a=\xff\nb=2\n"].concat()).unwrap(),
            pairs(&[("b", "2")])
        );
    }

    proptest! {
        #[test]
        fn what_grub_editenv_writes_comes_back(value in "[^\0\u{fffd}]{0,40}") {
            let escaped = value.replace('\\', "\\\\").replace('\n', "\\\n");
            prop_assert_eq!(read(&format!("a={escaped}\n####")), pairs(&[("a", &value)]));
        }
    }
}
