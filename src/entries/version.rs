//! Comparing versions.

use std::cmp::Ordering;

/// The UAPI Group's "Version Format Specification", as systemd compares: runs of digits are
/// numbers of any length, runs of letters are text, and `~`, `-`, `^` and `.` separate, each
/// lower than what follows it in this list, and lower than digits and letters. `~` is lower
/// than the end as well. All other characters do not count.
#[must_use]
pub fn uapi(a: &str, b: &str) -> Ordering {
    let not_counted = |c: char| !c.is_ascii_alphanumeric() && !"~-^.".contains(c);
    let (mut a, mut b) = (a, b);
    loop {
        a = a.trim_start_matches(not_counted);
        b = b.trim_start_matches(not_counted);
        let tilde = separator(&mut a, &mut b, '~');
        if tilde != Ordering::Equal {
            return tilde;
        }
        if a.is_empty() || b.is_empty() {
            return (!a.is_empty()).cmp(&!b.is_empty());
        }
        for mark in ['-', '^', '.'] {
            let order = separator(&mut a, &mut b, mark);
            if order != Ordering::Equal {
                return order;
            }
        }
        let is_digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let digits = is_digit(a) || is_digit(b);
        let ((run, rest), (other, behind)) = (segment(a, digits), segment(b, digits));
        let order = match digits {
            true => (!run.is_empty())
                .cmp(&!other.is_empty())
                .then_with(|| numbers(run, other)),
            false => run.cmp(other),
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest, behind);
    }
}

/// What begins with `mark` is lower. Where both do, the mark is taken off.
fn separator(a: &mut &str, b: &mut &str, mark: char) -> Ordering {
    match (a.strip_prefix(mark), b.strip_prefix(mark)) {
        (Some(rest), Some(behind)) => {
            (*a, *b) = (rest, behind);
            Ordering::Equal
        }
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

/// As RPM compares versions: runs of digits and runs of letters in turn; `~` sorts before
/// everything, `^` behind the end and before everything else.
///
/// Source: RPM's documentation, "Version comparison".
#[must_use]
pub fn rpm(mut a: &str, mut b: &str) -> Ordering {
    let separators = |c: char| !c.is_ascii_alphanumeric() && c != '~' && c != '^';
    loop {
        (a, b) = (
            a.trim_start_matches(separators),
            b.trim_start_matches(separators),
        );
        match (a.strip_prefix('~'), b.strip_prefix('~')) {
            (Some(rest), Some(other)) => {
                (a, b) = (rest, other);
                continue;
            }
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        match (a.strip_prefix('^'), b.strip_prefix('^')) {
            (Some(rest), Some(other)) => {
                (a, b) = (rest, other);
                continue;
            }
            (Some(_), None) if b.is_empty() => return Ordering::Greater,
            (None, Some(_)) if a.is_empty() => return Ordering::Less,
            (Some(_), None) => return Ordering::Less,
            (None, Some(_)) => return Ordering::Greater,
            (None, None) => {}
        }
        if a.is_empty() || b.is_empty() {
            return (!a.is_empty()).cmp(&!b.is_empty());
        }
        let digits = a.starts_with(|c: char| c.is_ascii_digit());
        let ((run, rest), (other, behind)) = (segment(a, digits), segment(b, digits));
        let order = match (other.is_empty(), digits) {
            // A number is newer than letters.
            (true, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, true) => numbers(run, other),
            (false, false) => run.cmp(other),
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest, behind);
    }
}

/// The digits or letters that `text` begins with, and the rest.
fn segment(text: &str, digits: bool) -> (&str, &str) {
    let belongs = |c: char| match digits {
        true => c.is_ascii_digit(),
        false => c.is_ascii_alphabetic(),
    };
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// Numbers of any length.
fn numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(compare: fn(&str, &str) -> Ordering, less: &[(&str, &str)], equal: &[(&str, &str)]) {
        for (less, more) in less {
            assert_eq!(compare(less, more), Ordering::Less, "{less} {more}");
            assert_eq!(compare(more, less), Ordering::Greater, "{more} {less}");
        }
        for (a, b) in equal {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} {b}");
        }
    }

    #[test]
    fn versions_of_the_specification() {
        let less = [
            ("122.1", "123~rc1-1"),
            ("123~rc1-1", "123"),
            ("123", "123-a"),
            ("123-a", "123-a.1"),
            ("123-a.1", "123-1"),
            ("123-1", "123-1.1"),
            ("123-1.1", "123^post1"),
            ("123^post1", "123.a-1"),
            ("123.a-1", "123.1-1"),
            ("123.1-1", "123a-1"),
            ("123a-1", "124-1"),
            ("1.9", "1.10"),
            ("", "0"),
            ("~", ""),
            ("01", "9"),
            ("1.01", "1.9"),
            ("99999999999999999999998", "99999999999999999999999"),
            ("~", "~~"),
        ];
        check(
            uapi,
            &less,
            &[("1_2", "1+2"), ("01", "1"), ("a", "a"), ("", "_")],
        );
    }

    #[test]
    fn versions_of_packages() {
        let less = [
            ("1.0", "1.1"),
            ("1.9", "1.10"),
            ("1.0~rc1", "1.0"),
            ("1.0", "1.0^git1"),
            ("1.0^git1", "1.01"),
            ("1.0^git1", "1.0.1"),
            ("a", "1"),
            ("1", "1.a"),
            ("", "1"),
            ("2", "10"),
            ("01", "9"),
        ];
        let equal = [
            ("1.0", "1_0"),
            ("1", "01"),
            ("1.", "1"),
            ("", ""),
            ("1..2", "1.2"),
        ];
        check(rpm, &less, &equal);
    }

    proptest! {
        #[test]
        fn any_two_texts_have_one_order(a in "[a0-2.~^_-]{0,6}", b in "[a0-2.~^_-]{0,6}", any: String) {
            for compare in [uapi, rpm] {
                prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
                prop_assert_eq!(compare(&any, &any), Ordering::Equal);
                let _ = compare(&a, &any);
            }
        }
    }
}
