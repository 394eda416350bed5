//! The Debian package: debian/build makes it of the binary under test.
//! `tests/vm/setup` installs what this needs.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// All that is in the package besides directories and man pages.
const CONTENTS: [&str; 30] = [
    "/etc/init.d/rkexec-exec",
    "/etc/init.d/rkexec-load",
    "/lib/systemd/system/rkexec-arm.service",
    "/lib/systemd/system/rkexec-exec.service -> /dev/null",
    "/lib/systemd/system/rkexec-load.service",
    "/lib/systemd/system/rkexec-rearm.path",
    "/lib/systemd/system/rkexec-rearm.service",
    "/lib/udev/rules.d/60-rkexec-rearm.rules",
    "/sbin/kexec -> /usr/sbin/rkexec",
    "/sbin/vmcore-dmesg -> /usr/sbin/rkexec",
    "/usr/lib/rkexec/preload",
    "/usr/sbin/rkexec",
    "/usr/share/bash-completion/completions/kexec",
    "/usr/share/bash-completion/completions/rkexec",
    "/usr/share/doc/rkexec/README.Debian",
    "/usr/share/doc/rkexec/changelog.Debian.gz",
    "/usr/share/doc/rkexec/changelog.gz",
    "/usr/share/doc/rkexec/copyright",
    "/usr/share/doc/rkexec/crates.gz",
    "/usr/share/doc/rkexec/examples/ansible/arm.yml",
    "/usr/share/doc/rkexec/examples/arm-crash-kernel",
    "/usr/share/doc/rkexec/examples/initramfs-tools/hooks/rkexec-capture",
    "/usr/share/doc/rkexec/examples/initramfs-tools/scripts/local-bottom/rkexec-capture",
    "/usr/share/doc/rkexec/examples/rkexec.toml",
    "/usr/share/fish/vendor_completions.d/kexec.fish",
    "/usr/share/fish/vendor_completions.d/rkexec.fish",
    "/usr/share/lintian/overrides/rkexec",
    "/usr/share/man/man8/vmcore-dmesg.8.gz -> rkexec-vmcore-dmesg.8.gz",
    "/usr/share/zsh/vendor-completions/_kexec",
    "/usr/share/zsh/vendor-completions/_rkexec",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the command printed; it must succeed.
fn output(command: &mut Command) -> Vec<u8> {
    let out = command.output().unwrap();
    assert!(
        out.status.success(),
        "{command:?}: {}\n{}{}",
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    out.stdout
}

fn text(command: &mut Command) -> String {
    String::from_utf8(output(command)).unwrap()
}

/// The package, built below `dir`.
fn build(dir: &Path) -> PathBuf {
    let printed = text(
        Command::new(root().join("debian/build"))
            .args(["--binary", env!("CARGO_BIN_EXE_rkexec")])
            .arg("--output")
            .arg(dir),
    );
    PathBuf::from(printed.trim())
}

/// One of the package's files.
fn file(package: &Path, path: &str) -> Vec<u8> {
    let tar = output(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(package));
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("tar");
    fs::write(&archive, tar).unwrap();
    output(
        Command::new("tar")
            .arg("-xOf")
            .arg(archive)
            .arg(format!(".{path}")),
    )
}

#[test]
fn the_package_holds_what_it_should_and_lintian_finds_no_error_or_warning() {
    let dir = tempfile::tempdir().unwrap();
    let package = build(dir.path());

    // Mode, owner, size, date, time, path and what a link leads to.
    let listing = text(Command::new("dpkg-deb").arg("--contents").arg(&package));
    let mut contents = BTreeSet::new();
    for line in listing.lines().filter(|line| !line.starts_with('d')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "root/root", "{line}");
        contents.insert(words[5..].join(" ").trim_start_matches('.').to_owned());
    }
    let mut expected: BTreeSet<String> = CONTENTS.map(str::to_owned).into();
    for page in fs::read_dir(root().join("man")).unwrap() {
        let page = page.unwrap().file_name().into_string().unwrap();
        if let Some((_, section @ ("5" | "7" | "8"))) = page.rsplit_once('.') {
            expected.insert(format!("/usr/share/man/man{section}/{page}.gz"));
        }
    }
    assert_eq!(contents, expected);

    let field = |name: &str| {
        let value = text(Command::new("dpkg-deb").arg("-f").arg(&package).arg(name));
        value.trim().to_owned()
    };
    assert_eq!(field("Package"), "rkexec");
    assert_eq!(field("Version"), concat!(env!("CARGO_PKG_VERSION"), "-1"));
    assert_eq!(field("Architecture"), "amd64");
    assert_eq!(field("Conflicts"), "kexec-tools");
    assert_eq!(field("Replaces"), "kexec-tools");
    // The version whose command line it has, for packages that need that one.
    let kexec = dir.path().join("kexec");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_rkexec"), &kexec).unwrap();
    let version = text(Command::new(kexec).arg("--version"));
    let version = version.trim().rsplit_once("kexec-tools ").unwrap().1;
    assert_eq!(field("Provides"), format!("kexec-tools (= 1:{version})"));
    assert!(
        field("Depends").contains("libc6 (>= "),
        "{}",
        field("Depends")
    );
    assert!(field("Installed-Size").parse::<u64>().unwrap() > 1000);

    // dpkg keeps what the administrator changed in these.
    let conffiles = text(
        Command::new("dpkg-deb")
            .arg("-I")
            .arg(&package)
            .arg("conffiles"),
    );
    let in_etc = CONTENTS.iter().filter(|path| path.starts_with("/etc/"));
    let in_etc: Vec<&str> = in_etc.copied().collect();
    assert_eq!(conffiles.lines().collect::<Vec<_>>(), in_etc);

    // The licence of a crate that has no other than its own.
    let notices = dir.path().join("crates.gz");
    fs::write(&notices, file(&package, "/usr/share/doc/rkexec/crates.gz")).unwrap();
    let notices = text(Command::new("gzip").arg("-dc").arg(notices));
    assert!(notices.contains("==== zerocopy v"));
    assert!(notices.contains("Permission is hereby granted"));

    output(
        Command::new("lintian")
            .args(["--fail-on", "error,warning", "--allow-root"])
            .arg(&package),
    );
}

#[test]
fn the_same_sources_make_the_same_package() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, other) = (build(one.path()), build(other.path()));
    assert_eq!(one.file_name(), other.file_name());
    let (one, other) = (fs::read(one).unwrap(), fs::read(other).unwrap());
    assert!(one == other, "two builds differ");
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    // The script looks for its sources where it lies itself.
    let dir = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        let to = dir.path().join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(root().join(name), to).unwrap();
    };
    copy("Cargo.toml");
    copy("debian/build");
    fs::write(
        dir.path().join("debian/contents"),
        "man/rkexec-dance.8 usr/share/man/man8/\n",
    )
    .unwrap();
    // Not by its name: another test's child may still have the copy open for writing.
    let out = Command::new("bash")
        .arg(dir.path().join("debian/build"))
        .args(["--binary", env!("CARGO_BIN_EXE_rkexec")])
        .env("SOURCE_DATE_EPOCH", "0")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    let error = String::from_utf8(out.stderr).unwrap();
    assert!(
        error.contains("debian/contents names man/rkexec-dance.8"),
        "{error}"
    );
}
