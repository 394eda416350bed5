//! Patterns as loader.conf(5) has them: `*`, `?`, `[…]` with ranges, and `\` before a
//! character that is meant as it is. Case does not count, as on an EFI system partition.

/// Whether all of `text` fits `pattern`. The work is at most the product of both lengths.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let (mut at, mut pos) = (0, 0);
    // Where to go on when a character does not fit: behind the last `*`.
    let mut star: Option<(usize, usize)> = None;
    while let Some(c) = text.get(pos) {
        if pattern.get(at) == Some(&'*') {
            star = Some((at + 1, pos));
            at += 1;
        } else if let Some(next) = one(&pattern, at, *c) {
            at = next;
            pos += 1;
        } else if let Some((behind, from)) = star {
            star = Some((behind, from + 1));
            at = behind;
            pos = from + 1;
        } else {
            return false;
        }
    }
    pattern.iter().skip(at).all(|c| *c == '*')
}

/// Where the pattern goes on behind the element at `at`, if that fits `c`.
fn one(pattern: &[char], at: usize, c: char) -> Option<usize> {
    match pattern.get(at)? {
        '?' => Some(at + 1),
        '[' => set(pattern, at + 1, c),
        '\\' => (pattern.get(at + 1) == Some(&c)).then_some(at + 2),
        own => (*own == c).then_some(at + 1),
    }
}

/// The set that begins at `start`: a `]` in the first place is a member.
fn set(pattern: &[char], start: usize, c: char) -> Option<usize> {
    let mut at = start;
    let mut found = false;
    loop {
        let first = *pattern.get(at)?;
        if first == ']' && at > start {
            return found.then_some(at + 1);
        }
        let last = match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some('-'), Some(last)) if *last != ']' => Some(*last),
            _ => None,
        };
        found |= (first..=last.unwrap_or(first)).contains(&c);
        at += if last.is_some() { 3 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_of_loader_conf() {
        for (pattern, text) in [
            ("arch.conf", "arch.conf"),
            ("arch-*", "Arch-6.1.conf"),
            ("*-6.?.*", "fedora-6.9.conf"),
            ("[a-c]x[]]", "bx]"),
            ("a\\*b", "a*b"),
            ("*", ""),
            ("a[-x]", "a-"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("arch", "arch.conf"),
            ("[a-c]", "d"),
            ("[a", "a"),
            ("a\\*b", "axb"),
            ("?", ""),
            ("", "a"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
    }

    /// The definition, written as it is.
    fn naive(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some(('*', rest)), None) => naive(rest, text),
            (Some(('*', rest)), Some((_, tail))) => naive(rest, text) || naive(pattern, tail),
            (Some(('?', rest)), Some((_, tail))) => naive(rest, tail),
            (Some((own, rest)), Some((c, tail))) if own == c => naive(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn stars_and_question_marks_agree_with_the_definition(
            pattern in "[ab*?]{0,8}",
            text in "[ab]{0,8}",
        ) {
            let own: Vec<char> = pattern.chars().collect();
            let chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(fits(&pattern, &text), naive(&own, &chars));
        }

        #[test]
        fn any_pattern_has_an_answer(pattern: String, text: String) {
            let _ = fits(&pattern, &text);
        }
    }
}
