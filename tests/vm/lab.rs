//! What `tests/vm/setup` prepared: Debian kernels, unpacked and not installed,
//! the CONFIG_OF kernel that it built, and other parts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A part of the lab: where the set-up of this clone linked it.
pub(crate) fn part(name: &str) -> Result<PathBuf> {
    let path = below("lab").join(name);
    ensure!(
        path.exists(),
        "no {name} in the lab: run `tests/vm/setup {name}` first"
    );
    Ok(path)
}

/// The number that a script which makes a test longer gives in the environment variable
/// `name`; `None`: it is the suite that runs.
pub(crate) fn asked(name: &str) -> Result<Option<u32>> {
    let number = std::env::var(name).ok().map(|number| number.parse());
    number
        .transpose()
        .with_context(|| format!("{name} is no number"))
}

/// Where the guest `name` leaves its logs.
pub(crate) fn logs(name: &str) -> PathBuf {
    below("logs").join(name)
}

fn below(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("target/vm").join(name)
}

/// The rkexec under test: the one that `RKEXEC` names, else the one that cargo
/// built for this test.
pub(crate) fn rkexec() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RKEXEC") {
        return Ok(path.into());
    }
    let built = option_env!("CARGO_BIN_EXE_rkexec").context("RKEXEC is not set")?;
    Ok(built.into())
}

/// One kernel of the lab.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// `uname -r`.
    pub(crate) release: String,
    dir: PathBuf,
}

impl Kernel {
    /// The lab's kernel of `series`: `6.1`, `6.12`, `of`, `kho`, or `debian12`, which
    /// has a system beside it.
    pub(crate) fn new(series: &str) -> Result<Self> {
        let numbered = series.starts_with(|c: char| c.is_ascii_digit());
        let dir = part(&format!(
            "{}{series}",
            if numbered { "kernel-" } else { "" }
        ))?;
        let release = fs::read_to_string(dir.join("release"))
            .with_context(|| format!("{}: no release", dir.display()))?;
        Ok(Self {
            release: release.trim().to_owned(),
            dir,
        })
    }

    /// The one that starts and is loaded fastest, for tests that hold for any kernel.
    pub(crate) fn small() -> Result<Self> {
        Self::new("of")
    }

    /// The bzImage.
    pub(crate) fn image(&self) -> PathBuf {
        self.file("vmlinuz")
    }

    /// A file that lies beside it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether there are modules for it.
    pub(crate) fn has_modules(&self) -> bool {
        self.file("modules").exists()
    }

    /// Modules by path below /lib/modules/RELEASE, decompressed, with all they
    /// depend on, and the modules.dep and modules.builtin that belong to them.
    pub(crate) fn modules(&self, names: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let root = self.dir.join("modules/lib/modules").join(&self.release);
        let dependencies = fs::read_to_string(root.join("modules.dep"))
            .with_context(|| format!("{}: run tests/vm/setup again", root.display()))?;
        let builtin = fs::read_to_string(root.join("modules.builtin"))?;

        let mut files = Vec::new();
        let mut own_dependencies = String::new();
        let mut own_builtin = String::new();
        let mut wanted: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut at = 0;
        while at < wanted.len() {
            let name = wanted[at].clone();
            at += 1;
            let Some((path, needs)) = dependencies
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(path, _)| module_name(path) == name)
            else {
                let path = builtin.lines().find(|path| module_name(path) == name);
                let path = path.with_context(|| {
                    format!("{} has no module {name}, nor is it built in", self.release)
                })?;
                own_builtin += &format!("{path}\n");
                continue;
            };
            for needed in needs.split_whitespace() {
                let needed = module_name(needed).to_owned();
                if !wanted.contains(&needed) {
                    wanted.push(needed);
                }
            }
            own_dependencies += &format!("{}:{}\n", plain(path), needs.replace(".ko.xz", ".ko"));
            files.push((plain(path).to_owned(), module_bytes(&root.join(path))?));
        }
        files.push(("modules.dep".to_owned(), own_dependencies.into_bytes()));
        files.push(("modules.builtin".to_owned(), own_builtin.into_bytes()));
        Ok(files)
    }
}

/// `kernel/drivers/dax/kmem.ko.xz` is the module `kmem`.
fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

/// The path without the compression's suffix.
fn plain(path: &str) -> &str {
    path.trim_end_matches(".xz")
}

fn module_bytes(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|suffix| suffix == "xz") {
        return output(Command::new("xz").arg("-dc").arg(path));
    }
    fs::read(path).with_context(|| path.display().to_string())
}

/// What a host command printed; its failure is an error.
pub(crate) fn output(command: &mut Command) -> Result<Vec<u8>> {
    let out = command
        .output()
        .with_context(|| format!("running {command:?}: run tests/vm/setup first"))?;
    ensure!(
        out.status.success(),
        "{command:?}: {}: {}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
    Ok(out.stdout)
}
