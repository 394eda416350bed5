//! Messages in the words of kexec-tools' command line.

/// rkexec's words and kexec-tools' words for the same; longer ones go first.
const WORDS: [(&str, &str); 19] = [
    ("--syscall kexec_file_load", "-s"),
    ("--syscall kexec_load", "-c"),
    ("without --syscall", "with -a"),
    ("asked for with --syscall", "asked for with -s or -c"),
    (
        "--cmdline, --reuse-cmdline or --append",
        "--command-line or --reuse-cmdline",
    ),
    (
        "--memory-map firmware",
        "`rkexec load --memory-map firmware`",
    ),
    (
        "--include-driver-managed",
        "`rkexec load --include-driver-managed`",
    ),
    ("--no-carry-pools", "`rkexec load --no-carry-pools`"),
    ("--pool-protect", "`rkexec load --pool-protect`"),
    ("--pool BASE,SIZE", "`rkexec load --pool BASE,SIZE`"),
    ("--remove PARAM", "`rkexec load --remove PARAM`"),
    ("--no-efi", "--noefi"),
    ("--serial-port", "--serial"),
    ("--no-digest", "--no-checks"),
    ("--panic", "-p"),
    ("rkexec load KERNEL", "kexec -l KERNEL"),
    (
        "rkexec exec --shutdown",
        "systemctl kexec, or kexec without -e",
    ),
    ("rkexec exec", "kexec -e"),
    ("--cmdline STRING", "--command-line STRING"),
];

/// `message`, with what rkexec calls options replaced by what kexec does.
pub(super) fn of_kexec(message: &str) -> String {
    let mut said = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(next) = rest.chars().next() {
        let word = WORDS.iter().find(|(word, _)| rest.starts_with(word));
        if let Some((word, instead)) = word {
            said.push_str(instead);
            rest = &rest[word.len()..];
        } else {
            said.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::kexec::options;

    #[test]
    fn options_that_kexec_has() {
        for (said, expected) in [
            (
                "--syscall kexec_file_load loads all the same",
                "-s loads all the same",
            ),
            ("try --syscall kexec_load", "try -c"),
            (
                "NOT unmounted; next time use rkexec exec --shutdown",
                "NOT unmounted; next time use systemctl kexec, or kexec without -e",
            ),
            ("\u{e4} --no-efi --panic", "\u{e4} --noefi -p"),
            ("--mem-min 0x1", "--mem-min 0x1"),
            ("", ""),
        ] {
            assert_eq!(of_kexec(said), expected);
        }
    }

    /// What stands here for an option of rkexec's is an option of the table.
    #[test]
    fn they_are_in_the_table() {
        let known = |word: &str| {
            options::all().any(|option| {
                let letter = option
                    .letter
                    .map(|letter| format!("-{}", char::from(letter)));
                letter.is_some_and(|letter| letter == word)
                    || option.names.iter().any(|name| format!("--{name}") == word)
            })
        };
        for (_, instead) in WORDS
            .iter()
            .filter(|(_, instead)| !instead.starts_with('`'))
        {
            for word in instead
                .split([' ', ','])
                .filter(|word| word.starts_with('-'))
            {
                assert!(known(word), "{word}");
            }
        }
    }
}
