//! `tests/vm/setup` on machines that are made up: a directory instead of the root,
//! and an apt of this test that behaves as one has been seen to.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// qemu-utils is of a newer release: qemu-system-x86 breaks it, so apt removes it
/// unless it is named, too. `refuses-both` is how Debian 12's apt takes that.
/// `silent` says how many calls get no answer, and `lost` which package never comes.
const APT_GET: &str = r#"#!/bin/bash
cd "$STATE"
echo "apt-get $*" >>calls
case " $* " in
  *" -s "*) ;;
  *)
    left=$(cat silent 2>/dev/null || echo 0)
    if [ "$left" -gt 0 ]; then echo $((left - 1)) >silent; exit 100; fi
    ;;
esac
case " $* " in
  *" download "*)
    package=${*: -1}
    [ "$package" != "$(cat lost 2>/dev/null)" ] || exit 100
    echo "$package" >"$OLDPWD/$package.deb"
    exit ;;
  *" install "*) ;;
  *) exit ;;
esac
utils=no
case " $* " in
  *" qemu-utils/bookworm "*) utils=downgraded ;;
  *" qemu-utils "*)
    utils=named
    if [ -e refuses-both ]; then echo "E: you have held broken packages" >&2; exit 100; fi ;;
esac
case " $* " in *" -s "*)
  if [ $utils = no ]; then echo "Remv qemu-utils [1:10.0]"; fi
  exit ;;
esac
for package; do
  case $package in
    qemu-system-x86)
      touch machine/usr/bin/qemu-system-x86_64
      if [ $utils = no ]; then rm -f machine/usr/bin/qemu-img; fi ;;
    busybox-static) [ -e no-busybox ] || touch machine/bin/busybox ;;
  esac
done
"#;

const APT_CACHE: &str = "#!/bin/sh
echo \"$2 | 1:7.2 | mirror bookworm/main amd64 Packages\"
";

const DPKG_QUERY: &str = r#"#!/bin/sh
case "$*" in
  *Version*) case "$*" in *qemu-utils*) printf 1:10.0 ;; *) printf 1:7.2 ;; esac ;;
  *Status*) echo installed ;;
esac
"#;

const DPKG: &str = r#"#!/bin/sh
mkdir -p "$3/boot"
for file in xen-4.17-amd64.gz memtest86+x64.bin memtest86+ia32.bin; do cp "$2" "$3/boot/$file"; done
"#;

/// A machine that lacks QEMU and busybox.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(tempfile::tempdir().unwrap());
        for dir in ["bin", "machine/usr/bin", "machine/bin"] {
            fs::create_dir_all(machine.path(dir)).unwrap();
        }
        for (name, script) in [
            ("apt-get", APT_GET),
            ("apt-cache", APT_CACHE),
            ("dpkg-query", DPKG_QUERY),
            ("dpkg", DPKG),
            ("sudo", "#!/bin/sh\nexec \"$@\"\n"),
        ] {
            let path = machine.path("bin").join(name);
            fs::write(&path, script).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        machine.with("machine/usr/bin/qemu-img", "")
    }

    fn with(self, file: &str, content: &str) -> Self {
        fs::write(self.path(file), content).unwrap();
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Sets up `parts` for the clone `clone`: whether it succeeded, its messages,
    /// and what apt-get was asked for.
    fn set_up(&self, clone: &str, parts: &[&str]) -> (bool, String, String) {
        let calls = self.path("calls");
        fs::write(&calls, "").unwrap();
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/setup");
        let path = format!(
            "{}:{}",
            self.path("bin").display(),
            std::env::var("PATH").unwrap()
        );
        let out = Command::new(setup)
            .args(parts)
            .env("PATH", path)
            .env("STATE", self.0.path())
            .env("RKEXEC_LAB", self.path("lab"))
            .env("RKEXEC_SETUP_LINKS", self.path(clone))
            .env("RKEXEC_SETUP_MACHINE", self.path("machine"))
            .env("RKEXEC_SETUP_PAUSES", "0 0")
            .output()
            .unwrap();
        (
            out.status.success(),
            String::from_utf8(out.stderr).unwrap(),
            fs::read_to_string(calls).unwrap(),
        )
    }

    fn has(&self, file: &str) -> bool {
        self.path("machine").join(file).exists()
    }
}

/// The packages of the one call that installed something.
fn installed(calls: &str) -> &str {
    let mut installs = calls
        .lines()
        .filter(|call| call.contains(" install ") && !call.contains(" -s "));
    let install = installs.next().unwrap_or_default();
    assert_eq!(installs.next(), None, "{calls}");
    install
}

#[test]
fn what_is_there_is_not_taken_away_for_what_is_missing() {
    let machine = Machine::new();
    let (done, words, calls) = machine.set_up("links", &["guests", "qemu-utils"]);
    assert!(done, "{words}");
    for package in [" qemu-system-x86", " busybox-static", " qemu-utils"] {
        assert!(installed(&calls).contains(package), "{calls}");
    }
    for file in ["usr/bin/qemu-system-x86_64", "usr/bin/qemu-img"] {
        assert!(machine.has(file), "{file}");
    }
}

#[test]
fn a_package_of_another_release_gives_way_to_the_release_itself() {
    let machine = Machine::new().with("refuses-both", "");
    let (done, words, calls) = machine.set_up("links", &["guests", "qemu-utils"]);
    assert!(done, "{words}");
    let call = installed(&calls);
    assert!(
        call.contains("--allow-downgrades") && call.contains(" qemu-utils/bookworm"),
        "{calls}"
    );
    assert!(words.contains("taken from Debian 12 itself"), "{words}");
    assert!(words.contains("qemu-utils"), "{words}");
    assert!(machine.has("usr/bin/qemu-img"));
}

#[test]
fn a_package_that_did_not_come_is_named() {
    let machine = Machine::new().with("no-busybox", "");
    let (done, words, _) = machine.set_up("links", &["guests", "qemu-utils"]);
    assert!(!done);
    assert!(
        words.ends_with("packages that could not be installed: busybox-static\n"),
        "{words}"
    );
}

#[test]
fn a_registry_that_does_not_answer_is_asked_again() {
    let machine = Machine::new().with("silent", "2");
    let (done, words, _) = machine.set_up("links", &["memtest"]);
    assert!(done, "{words}");
    assert!(words.contains("once more in 0 s"), "{words}");
    let file = fs::read_to_string(machine.path("links/memtest/memtest.bin"));
    assert_eq!(file.unwrap(), "memtest86+\n");
}

#[test]
fn one_part_that_cannot_be_had_is_named_and_the_others_are_there() {
    let machine = Machine::new().with("lost", "memtest86+");
    let (done, words, _) = machine.set_up("links", &["memtest", "xen"]);
    assert!(!done);
    assert!(
        words.ends_with("could not be prepared: memtest. Everything else is there.\n"),
        "{words}"
    );
    assert!(machine.path("links/xen/xen.gz").exists());
    assert!(!machine.path("links/memtest").exists());
    // No half of it is left, once what xen was made in is deleted, too.
    let names = || -> Vec<_> {
        let lab = fs::read_dir(machine.path("lab")).unwrap();
        lab.map(|entry| entry.unwrap().file_name()).collect()
    };
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while names().len() > 2 && std::time::Instant::now() < patience {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(names().len(), 2, "the lock and xen: {:?}", names());
}

#[test]
fn what_is_there_asks_no_registry_in_this_clone_or_another() {
    let machine = Machine::new();
    let parts = ["guests", "memtest", "xen"];
    let (done, words, calls) = machine.set_up("links", &parts);
    assert!(done && calls.contains(" install "), "{words}{calls}");
    for clone in ["links", "another-clone"] {
        let (done, words, calls) = machine.set_up(clone, &parts);
        assert!(done, "{words}");
        assert_eq!(calls, "", "{clone}");
        assert!(machine.path(clone).join("xen/xen.gz").exists());
    }
}

#[test]
fn a_part_that_does_not_exist_is_an_error() {
    let (done, words, calls) = Machine::new().set_up("links", &["xenon"]);
    assert!(!done);
    assert!(
        words.contains("there is no part 'xenon', only: tools"),
        "{words}"
    );
    assert_eq!(calls, "");
}

/// The scripts of the lab, of the tests and of the benchmarks.
#[test]
fn the_scripts_are_clean() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Command::new("shellcheck")
        .args([
            "tests/run",
            "tests/vm/setup",
            "tests/vm/debian/build",
            "benches/run",
        ])
        .current_dir(root)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), "");
    assert!(out.status.success());
}
