use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn parse(arguments: &[&str]) -> Vec<String> {
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    items(&arguments).map(shown).collect()
}

/// `--name`, `--name=value`, `operand` or the complaint, in one word.
fn shown(item: Result<Item<'_>, BadOption>) -> String {
    match item {
        Ok(Item::Option(option, None)) => option.shown(),
        Ok(Item::Option(option, Some(value))) => format!("{}={}", option.shown(), value.display()),
        Ok(Item::Operand(operand)) => format!("operand {}", operand.display()),
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn what_clients_write() {
    // kdump-tools 1.8.1, kdumpctl, systemd 252, Debian's kexec-load.
    assert_eq!(
        parse(&[
            "-p",
            "-s",
            "--args-linux",
            "--command-line=a b=\"c d\"",
            "--initrd=/i",
            "/k"
        ]),
        [
            "--load-panic",
            "--kexec-file-syscall",
            "--args-linux",
            "--append=a b=\"c d\"",
            "--initrd=/i",
            "operand /k"
        ]
    );
    assert_eq!(
        parse(&["-s", "-p", "-u"]),
        ["--kexec-file-syscall", "--load-panic", "--unload"]
    );
    assert_eq!(
        parse(&["--load", "/k", "--append", "ro quiet", "--initrd", "/i"]),
        ["--load", "operand /k", "--append=ro quiet", "--initrd=/i"]
    );
    assert_eq!(
        parse(&["-l", "/k", "--append=x", "--reuse-cmdline"]),
        ["--load", "operand /k", "--append=x", "--reuse-cmdline"]
    );
}

#[test]
fn letters_bundle_and_take_values() {
    assert_eq!(
        parse(&["-lsd"]),
        ["--load", "--kexec-file-syscall", "--debug"]
    );
    assert_eq!(parse(&["-ltbzImage"]), ["--load", "--type=bzImage"]);
    assert_eq!(parse(&["-lt", "-d"]), ["--load", "--type=-d"]);
    assert_eq!(
        parse(&["-lt"]),
        ["--load", "error: option requires an argument -- 't'"]
    );
    assert_eq!(
        parse(&["-lZd"]),
        ["--load", "error: invalid option -- 'Z'", "--debug"]
    );
    assert_eq!(parse(&["-?"]), ["-?"]);
}

#[test]
fn names_may_be_cut_short() {
    assert_eq!(
        parse(&["--vers", "--ramd=x", "--reuse-c"]),
        ["--version", "--initrd=x", "--reuse-cmdline"]
    );
    // One that is the beginning of another is meant itself.
    assert_eq!(
        parse(&["--load", "--kexec-syscall", "--entry=0"]),
        ["--load", "--kexec-syscall", "--entry=0"]
    );
    assert_eq!(
        parse(&["--mem=1", "--lo"]),
        [
            "error: option '--mem' is ambiguous; possibilities: '--mem-min' '--mem-max'",
            "error: option '--lo' is ambiguous; possibilities: '--load' '--load-panic' \
             '--load-preserve-context' '--load-jump-back-helper' '--load-live-update'",
        ]
    );
    assert_eq!(
        parse(&["--loadx"]),
        ["error: unrecognized option '--loadx'"]
    );
}

#[test]
fn values() {
    assert_eq!(
        parse(&["--append=", "--append", "", "--append=a=b"]),
        ["--append=", "--append=", "--append=a=b"]
    );
    assert_eq!(parse(&["--append", "--", "-l"]), ["--append=--", "--load"]);
    assert_eq!(
        parse(&["--append"]),
        ["error: option '--append' requires an argument"]
    );
    assert_eq!(
        parse(&["--debu=3"]),
        ["error: option '--debug' doesn't allow an argument"]
    );
}

#[test]
fn the_end_of_the_options() {
    assert_eq!(
        parse(&["-l", "--", "-u", "--", "-"]),
        ["--load", "operand -u", "operand --", "operand -"]
    );
    assert_eq!(parse(&["-", "-l", ""]), ["operand -", "--load", "operand "]);
}

#[test]
fn bytes_that_are_no_text() {
    use std::os::unix::ffi::OsStringExt as _;
    let kernel = OsString::from_vec(vec![b'-', b'-', b'd', b't', b'b', b'=', 0xff]);
    let [Ok(Item::Option(option, Some(value)))] =
        items(std::slice::from_ref(&kernel)).collect::<Vec<_>>()[..]
    else {
        panic!("{kernel:?}");
    };
    assert_eq!((option.names[0], value.as_bytes()), ("dtb", &[0xff][..]));
}

/// Every spelling of every long option, made by cutting the names: what getopt
/// finds by search is looked up here.
fn spellings() -> BTreeMap<&'static str, Vec<(&'static Opt, &'static str)>> {
    let mut spellings: BTreeMap<_, Vec<(&'static Opt, &'static str)>> = BTreeMap::new();
    for option in options::all() {
        for name in option.names {
            for end in 0..=name.len() {
                spellings
                    .entry(&name[..end])
                    .or_default()
                    .push((option, *name));
            }
        }
    }
    for (spelling, meant) in &mut spellings {
        if let Some(exact) = meant.iter().copied().find(|(_, name)| name == spelling) {
            *meant = vec![exact];
        }
    }
    spellings
}

/// The model: a recursive reading of the whole line, one rule after the other.
fn model(line: &[String]) -> Vec<String> {
    let Some((first, rest)) = line.split_first() else {
        return Vec::new();
    };
    let then = |item: String, rest: &[String]| [vec![item], model(rest)].concat();
    if first == "--" {
        return rest
            .iter()
            .map(|operand| format!("operand {operand}"))
            .collect();
    }
    if let Some(long) = first.strip_prefix("--") {
        let (given, attached) = match long.split_once('=') {
            Some((given, value)) => (given, Some(value.to_owned())),
            None => (long, None),
        };
        let spellings = spellings();
        let meant = spellings.get(given).map_or(&[][..], Vec::as_slice);
        let Some((option, name)) = meant.first().copied() else {
            return then(format!("error: unrecognized option '--{given}'"), rest);
        };
        if meant
            .iter()
            .any(|(other, _)| other.shown() != option.shown())
        {
            let names: Vec<_> = meant
                .iter()
                .map(|(_, name)| format!("'--{name}'"))
                .collect();
            return then(
                format!(
                    "error: option '--{given}' is ambiguous; possibilities: {}",
                    names.join(" ")
                ),
                rest,
            );
        }
        return match (option.value.is_some(), attached, rest.split_first()) {
            (false, None, _) => then(option.shown(), rest),
            (false, Some(_), _) => then(
                format!("error: option '--{name}' doesn't allow an argument"),
                rest,
            ),
            (true, Some(value), _) => then(format!("{}={value}", option.shown()), rest),
            (true, None, Some((value, rest))) => then(format!("{}={value}", option.shown()), rest),
            (true, None, None) => vec![format!("error: option '--{name}' requires an argument")],
        };
    }
    match first.strip_prefix('-') {
        None | Some("") => then(format!("operand {first}"), rest),
        Some(letters) => {
            let (letter, others) = letters.split_at(1);
            let Some(option) = options::all().find(|option| option.letter == letter.bytes().next())
            else {
                let others = [others_again(others), rest.to_vec()].concat();
                return then(format!("error: invalid option -- '{letter}'"), &others);
            };
            if option.value.is_none() {
                return then(
                    option.shown(),
                    &[others_again(others), rest.to_vec()].concat(),
                );
            }
            match (others, rest.split_first()) {
                ("", None) => vec![format!("error: option requires an argument -- '{letter}'")],
                ("", Some((value, rest))) => then(format!("{}={value}", option.shown()), rest),
                (value, _) => then(format!("{}={value}", option.shown()), rest),
            }
        }
    }
}

/// The rest of a bundle as an argument of its own. A `-` in a bundle is no
/// option, and must not make the rest a long name.
fn others_again(letters: &str) -> Vec<String> {
    if letters.is_empty() {
        Vec::new()
    } else {
        vec![format!("-{letters}")]
    }
}

fn argument() -> impl Strategy<Value = String> {
    let names: Vec<&'static str> = options::all()
        .flat_map(|option| option.names.iter().copied())
        .collect();
    let long = (
        proptest::sample::select(names),
        0..25_usize,
        proptest::option::of("[a-z=]{0,3}"),
    )
        .prop_map(|(name, cut, value)| {
            let name = &name[..cut.min(name.len())];
            value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}"))
        });
    prop_oneof![
        4 => long,
        3 => "-[hvdfixyluetpscaSZ?]{1,4}",
        2 => "[a-z/]{0,4}",
        1 => Just("--".to_owned()),
        1 => Just("-".to_owned()),
        1 => "--[a-z]{1,3}",
    ]
}

proptest! {
    #[test]
    fn reads_as_the_model_does(line in proptest::collection::vec(argument(), 0..8)) {
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        prop_assert_eq!(parse(&words), model(&line));
    }

    #[test]
    fn never_panics_and_never_loops(line in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..12), 0..8)) {
        use std::os::unix::ffi::OsStringExt as _;
        let line: Vec<OsString> = line.into_iter().map(OsString::from_vec).collect();
        let bytes: usize = line.iter().map(|argument| argument.len() + 1).sum();
        prop_assert!(items(&line).take(bytes + 1).count() <= bytes);
    }
}
