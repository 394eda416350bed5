//! loader/loader.conf of systemd-boot: which entry it starts.
//!
//! Source: loader.conf(5).

use super::Problem;
use super::text::{Text, is_clean, key_value};

/// Most bytes of a pattern: it is compared with all ids, and a file name has 255 at most.
const MAX_PATTERN: usize = 1024;

/// What loader.conf says of the choice. Each value is a pattern for the ids of entries
/// ([`super::glob`]), or `@saved`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoaderConf {
    /// `preferred`: as `default`, but entries without tries left do not count.
    pub preferred: Option<String>,
    /// `default`.
    pub default: Option<String>,
    /// What is wrong with the file.
    pub problems: Vec<Problem>,
}

/// Reads a loader.conf. Of several lines with one key the last counts.
#[must_use]
pub fn parse(bytes: &[u8]) -> LoaderConf {
    let text = Text::of(bytes);
    let mut conf = LoaderConf::default();
    for (_, line) in text.lines().filter(|(_, line)| !line.starts_with('#')) {
        let Some((key, value)) = key_value(line) else {
            continue;
        };
        let known = match key {
            "preferred" => &mut conf.preferred,
            "default" => &mut conf.default,
            _ => continue,
        };
        *known = Some(value.to_owned());
    }
    conf.problems = text.problems;
    for value in [&mut conf.preferred, &mut conf.default] {
        if value.take_if(|value| value.len() > MAX_PATTERN).is_some() {
            let limit = "a pattern has more than 1,024 bytes";
            conf.problems.push(Problem::Limit(limit));
        }
    }
    let both = [&conf.preferred, &conf.default];
    if !both.into_iter().flatten().all(|value| is_clean(value)) {
        conf.problems.push(Problem::NotText);
    }
    conf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_of_a_key_counts() {
        let conf =
            parse(b"#default x\r\ntimeout 3\ndefault a.conf\ndefault\t @saved \npreferred\n");
        let expected = LoaderConf {
            default: Some("@saved".to_owned()),
            ..LoaderConf::default()
        };
        assert_eq!(conf, expected);
        assert_eq!(parse(b"default a\0").problems, [Problem::NotText]);
        let long = parse(&[b"default ", "*".repeat(1025).as_bytes()].concat());
        assert!(long.default.is_none() && long.problems[0].hides_default());
    }
}
