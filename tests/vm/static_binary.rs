//! The static binary: built as README.md says, it loads and boots from an initramfs
//! that has no library at all.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::Guest;
use crate::trip::{self, host_file};

/// What makes it static; README.md has it in a command.
const STATIC: [&str; 2] = ["--", "-Ctarget-feature=+crt-static"];

/// Builds it, by the profile of the tests, with dependencies that are compiled
/// quickly: in a directory of its own, since cargo puts it in the place of the
/// binary under test.
fn build() -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("target/static");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    lab::output(
        Command::new(cargo)
            .current_dir(root)
            .args(["rustc", "--locked", "--profile", "lab", "--bin", "rkexec"])
            .args(["--config", "profile.lab.package.'*'.opt-level=1"])
            .arg("--target-dir")
            .arg(&target)
            .args(STATIC),
    )?;
    Ok(target.join("lab/rkexec"))
}

#[test]
fn one_static_file_loads_and_boots() -> Result<()> {
    let readme = host_file(&Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"))?;
    let command = format!(
        "cargo rustc --release --locked --bin rkexec {}",
        STATIC.join(" ")
    );
    ensure!(
        String::from_utf8(readme)?.contains(&command),
        "README.md has no {command:?}"
    );

    let kernel = Kernel::new("6.12")?;
    let dir = tempfile::tempdir()?;
    let stripped = dir.path().join("rkexec");
    initramfs::stripped(&build()?, &stripped)?;
    let with_it = || -> Result<Archive> {
        let mut archive = initramfs::skeleton()?;
        archive.file("bin/rkexec", 0o755, &host_file(&stripped)?);
        Ok(archive)
    };
    let mut next = with_it()?;
    let script = "try report rkexec report";
    next.file("test/stage-2", 0o644, script.as_bytes());
    let cmdline = trip::chain_cmdline("2");
    let load = trip::load_script(&trip::request("/next/initrd", &cmdline, ""));
    let outcome = Guest::new("static", &kernel)
        .initramfs(with_it()?)
        .file("next/vmlinuz", &host_file(&kernel.image())?)
        .file("next/initrd", &next.finish())
        .file("test/load", load.as_bytes())
        .script(
            "find / -xdev -name '*.so*' | record libraries
             . /test/load
             try exec rkexec exec",
        )
        .run()?;
    let before = outcome.stage(1)?;
    ensure!(before.text("libraries")?.is_empty(), "there are libraries");
    let after = outcome.stage(2)?;
    ensure!(after.text("release")? == kernel.release);
    ensure!(after.text("cmdline")? == cmdline);
    ensure!(after.text("report.status")? == "0");
    Ok(())
}
