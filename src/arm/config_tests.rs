//! Configurations, good and bad.

use super::*;
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::job::EntryFiles;
use serde_json::Value;

const PAGE: &str = include_str!("../../man/rkexec.toml.5");

fn parse(text: &str) -> Config {
    Config::parse(text, Path::new("/etc/rkexec.toml")).unwrap()
}

/// What is said of a text that is wrong, and the hint.
fn error(text: &str) -> (String, Option<String>) {
    let error = Config::parse(text, Path::new("f.toml")).unwrap_err();
    (error.to_string(), error.hint())
}

#[test]
fn one_key_is_enough() {
    let config = parse("kernel = \"/boot/vmlinuz-{release}\"\n");
    let rules = config.rules("6.12.1-x");
    assert_eq!(rules.kernel, Path::new("/boot/vmlinuz-6.12.1-x"));
    assert!(rules.initrds.is_empty() && rules.digest);
    assert_eq!(rules.syscall, SyscallChoice::Auto);
    assert_eq!(rules.hotplug, HotplugChoice::Auto);
    assert_eq!(rules.direct, DirectChoice::Auto);
    assert_eq!(config.minimum_reservation(), 0);
    assert_eq!(config.when_impossible, WhenImpossible::Fail);
    assert_eq!((rules.line.given, rules.line.running), (None, true));
    assert_eq!(rules.line.append, ["nr_cpus=1 reset_devices"]);
    assert!(rules.line.remove.contains(&"crashkernel".into()));
}

#[test]
fn what_is_said_of_the_crash_kernel() {
    let config = parse(
        "kernel = '/boot/vmlinuz-{release}'
         initrd = ['/i-{release}', '/j']
         syscall = 'kexec_load'
         hotplug = 'off'
         direct = 'on'
         digest = false
         [cmdline]
         base = 'empty'
         append = 'a b'
         remove = ['c', 'd=e']",
    );
    let rules = ArmRules {
        kernel: "/boot/vmlinuz-6.1".into(),
        profile: None,
        hashes: Vec::new(),
        addons: Vec::new(),
        initrds: vec!["/i-6.1".into(), "/j".into()],
        line: Line {
            given: None,
            running: false,
            append: vec!["a b".into()],
            remove: vec!["c".into(), "d=e".into()],
        },
        syscall: SyscallChoice::Only(Syscall::KexecLoad),
        hotplug: HotplugChoice::Off,
        direct: DirectChoice::On,
        digest: false,
    };
    assert_eq!(config.rules("6.1"), rules);
}

#[test]
fn the_kernel_of_a_boot_entry() {
    assert_eq!(parse("kernel = '/k'").entry(), None);
    assert_eq!(parse("kernel = 'entry'").entry(), Some("default"));
    let named = parse("kernel = 'entry'\nentry = 'Debian'\ninitrd = ['/i-{release}']");
    assert_eq!(named.entry(), Some("Debian"));
    let rules = named.rules("6.1").or_entry(EntryFiles {
        kernel: "/e".into(),
        initrds: vec!["/j".into()],
        ..EntryFiles::default()
    });
    assert_eq!(rules.kernel, Path::new("/e"));
    assert_eq!(rules.initrds, [Path::new("/i-6.1")]);
}

#[test]
fn a_line_is_made_in_three_ways() {
    let line = |rules: &str| {
        let config = parse(&format!("kernel = '/k'\n[cmdline]\n{rules}"));
        config.rules("6.1").line
    };
    let base = |rules: &str| CmdlineRequest::from(line(rules)).base;
    assert_eq!(base("base = 'running'"), CmdlineBase::Running);
    assert_eq!(base("base = 'empty'"), CmdlineBase::Empty);
    let given = line("line = 'root=/dev/sda'\nappend = ''\nremove = []");
    assert_eq!(given.given, Some("root=/dev/sda".into()));
    assert_eq!(given.append, [""]);
    assert!(given.remove.is_empty());
}

#[test]
fn sizes_with_and_without_suffix() {
    let minimum = |value: &str| {
        parse(&format!("kernel = '/k'\nminimum_reservation = {value}")).minimum_reservation()
    };
    assert_eq!(minimum("'192M'"), 192 << 20);
    assert_eq!(minimum("4096"), 4096);
    assert_eq!(minimum("'0x1000'"), 4096);
}

#[test]
fn errors_name_file_line_and_key() {
    for (text, said) in [
        ("initrd = []", "f.toml: missing key `kernel`"),
        (
            "kernel = '/k'\n[cmdline]\nappend = 3",
            "f.toml: line 3: cmdline.append: invalid type: integer `3`, expected a string",
        ),
        (
            "kernel = '/k'\ncmdline = {remove = ['a', 3]}",
            "f.toml: line 2: cmdline.remove: invalid type: integer `3`, expected a string",
        ),
        (
            "kernel = '/k'\ncmdline = 4",
            "f.toml: line 2: cmdline: invalid type: integer `4`, expected a table",
        ),
        (
            "kernel = '/k'\nsyscall = 'kexec'",
            "f.toml: line 2: syscall: unknown value `kexec`, expected one of `auto`, `kexec_load`, `kexec_file_load`",
        ),
        (
            "kernel = '/k'\ninitrd = [\n'/a',\n'b']",
            "f.toml: line 2: initrd: `b` is not an absolute path",
        ),
        (
            "kernel = '/k'\n\nminimum_reservation = '10X'",
            "f.toml: line 3: minimum_reservation: `10X` is not a number of bytes: write it like 64M or 0x4000000 (suffix K, M, G or T, no MiB, no decimal point)",
        ),
        (
            "kernel = '/k'\nminimum_reservation = -1",
            "f.toml: line 2: minimum_reservation: expected a size such as \"128M\"",
        ),
        (
            "kernel = '/k'\nkernel = '/l'",
            "f.toml: line 2: duplicate key",
        ),
        (
            "\nkernel = /k",
            "f.toml: line 2: string values must be quoted, expected literal string",
        ),
        (
            "kernel = '/k'\n[cmdline]\nbase = 'empty'\nline = 'x'",
            "f.toml: line 4: cmdline.line: cmdline.base says already where the command line starts from",
        ),
        (
            "kernel = 'entries'",
            "f.toml: line 1: kernel: `entries` is neither an absolute path nor `entry`",
        ),
        (
            "kernel = '/k'\nentry = 'default'",
            "f.toml: line 2: entry: it goes only with kernel = \"entry\"",
        ),
    ] {
        assert_eq!(error(text), (said.to_owned(), None), "{text}");
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_known_one() {
    let (said, hint) = error("kernel = '/k'\ninitrds = []");
    let known = "expected one of `kernel`, `entry`, `initrd`, `syscall`, `hotplug`, `direct`, `digest`, \
                 `minimum_reservation`, `when_impossible`, `cmdline`";
    assert_eq!(
        said,
        format!("f.toml: line 2: unknown key `initrds`, {known}")
    );
    assert_eq!(hint.as_deref(), Some("the key may be meant to be `initrd`"));
    let (said, hint) = error("kernel = '/k'\n[cmdline]\n\napend = ''");
    assert!(
        said.starts_with("f.toml: line 4: unknown key `apend`, "),
        "{said}"
    );
    assert_eq!(hint.as_deref(), Some("the key may be meant to be `append`"));
    let (said, hint) = error("kernel = '/k'\n[crash]\nx = 1");
    assert!(
        said.starts_with("f.toml: line 2: unknown key `crash`, "),
        "{said}"
    );
    assert_eq!(hint, None);
}

#[test]
fn a_file_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rkexec.toml");
    let missing = Config::read(&path).unwrap_err();
    assert!(missing.hint().unwrap().contains("rkexec.toml(5)"));
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(MAX_FILE + 1).unwrap();
    let ConfigError::Read { source, .. } = Config::read(&path).unwrap_err() else {
        panic!("not refused for its size");
    };
    assert_eq!(source.kind(), io::ErrorKind::FileTooLarge);
    std::fs::write(&path, b"kernel = \xff").unwrap();
    assert!(Config::read(&path).is_err());
    std::fs::write(&path, b"kernel = '/k'").unwrap();
    assert_eq!(Config::read(&path).unwrap(), parse("kernel = '/k'"));
}

/// The keys of a configuration as the man page writes them.
fn keys(value: &Value, before: &str, into: &mut Vec<String>) {
    for (key, value) in value.as_object().unwrap() {
        let name = format!("{before}{key}");
        if value.is_object() {
            keys(value, &format!("{name}."), into);
        } else {
            into.push(name);
        }
    }
}

/// Lines of the page between `.Bd` and `.Ed`.
fn example() -> String {
    let lines = PAGE.lines().skip_while(|line| !line.starts_with(".Bd"));
    let lines = lines.skip(1).take_while(|line| !line.starts_with(".Ed"));
    let lines: Vec<String> = lines
        .map(|line| line.replace("\\(dq", "\"").replace("\\-", "-"))
        .collect();
    lines.join("\n")
}

#[test]
fn the_man_page_has_every_key_and_its_example_says_them_all() {
    let serialized = serde_json::to_value(parse("kernel = '/k'")).unwrap();
    let mut known = Vec::new();
    keys(&serialized, "", &mut known);
    assert!(known.len() > 10, "{known:?}");
    let mut described: Vec<&str> = PAGE
        .lines()
        .filter_map(|line| line.strip_prefix(".It Ic "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let example = example();
    let config = parse(&example);
    assert_eq!(config.minimum_reservation(), 192 << 20);
    let defaults = Config {
        kernel: config.kernel.clone(),
        initrd: config.initrd.clone(),
        minimum_reservation: config.minimum_reservation,
        cmdline: CmdlineRules {
            base: Some(Base::Running),
            ..CmdlineRules::default()
        },
        ..parse("kernel = '/k'")
    };
    assert_eq!(config, defaults);
    for key in &known {
        let last = key.rsplit('.').next().unwrap();
        // Of two keys that exclude each other, the example shows one.
        if !["cmdline.line", "entry"].contains(&key.as_str()) {
            let shown = example.lines().any(|line| {
                let name = line.split('=').next().unwrap_or(line);
                name.trim() == last
            });
            assert!(shown, "the example lacks {key}");
        }
    }
    known.sort_unstable();
    described.sort_unstable();
    assert_eq!(described, known);
}
