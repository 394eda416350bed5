//! The init system's way into the loaded kernel: what tells it to go there, and who makes
//! the jump at the end of the shutdown.
//!
//! | init system | is told by | the jump is made by |
//! |---|---|---|
//! | systemd | `systemctl kexec` | `kexec -e` up to version 260, later itself |
//! | OpenRC's own init | `openrc-shutdown --kexec now` | itself |
//! | dinit | `shutdown -k` | itself |
//! | the Shepherd | `reboot --kexec` | itself |
//! | sysvinit | `shutdown -r now` | a script of run level 6 or a line of /etc/inittab that runs `kexec -e`, or a line that runs `reboot -k` |
//! | busybox init | `reboot` | a `shutdown` line of /etc/inittab that runs `kexec -e` |
//! | runit | `shutdown -r now`, `reboot` | a script of stage 3 that runs `kexec -e` |
//!
//! The last three reboot through the firmware where no such script or line is found.

use std::process::Command;

use anyhow::Context as _;
use bstr::ByteSlice as _;

use super::Context;
use crate::base::bytes::shown_name;
use crate::host::Root;
use crate::load::carry::CarriedFile;

/// First version of systemd that makes the jump itself.
const JUMPS_ITSELF: u32 = 261;
/// Where systemd up to 260 looks for it: its path is compiled in, and is one of these unless the
/// distribution puts it elsewhere.
const KEXEC_OF_SYSTEMD: [&str; 2] = ["/sbin/kexec", "/usr/sbin/kexec"];
/// Below it, NixOS has programs, and its systemd runs a `kexec` from a place of its own.
const NIXOS: &str = "/run/current-system/";
/// Where a program `kexec` may lie that scripts run.
const KEXEC: [&str; 4] = [
    "/sbin/kexec",
    "/usr/sbin/kexec",
    "/bin/kexec",
    "/usr/bin/kexec",
];

/// A command that has the init system reboot the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shutdown {
    program: &'static str,
    arguments: &'static [&'static str],
    jump: Jump,
}

/// Who boots the loaded kernel at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Jump {
    /// The init system, which the command tells to do so.
    Init,
    /// The same, by the program `kexec`, which was not found: the machine reboots through the
    /// firmware.
    Missing,
    /// What the init system runs last, as this file says.
    Script(String),
    /// Nobody, as far as can be seen: the machine reboots through its firmware.
    Nobody,
}

/// An init system that has a command for it.
struct Knowing {
    /// Whether it is the one that runs.
    runs: fn(&Root) -> bool,
    /// Where the command may lie.
    programs: &'static [&'static str],
    arguments: &'static [&'static str],
}

/// Those that have a command for it.
const KNOWING: [Knowing; 4] = [
    Knowing {
        runs: is_systemd,
        programs: &[
            "/usr/bin/systemctl",
            "/bin/systemctl",
            "/run/current-system/sw/bin/systemctl",
        ],
        arguments: &["kexec"],
    },
    Knowing {
        runs: |root| is_first(root, "openrc-init"),
        programs: &[
            "/sbin/openrc-shutdown",
            "/usr/sbin/openrc-shutdown",
            "/usr/bin/openrc-shutdown",
        ],
        arguments: &["--kexec", "now"],
    },
    Knowing {
        runs: |root| is_first(root, "dinit"),
        programs: &[
            "/usr/sbin/dinit-shutdown",
            "/usr/bin/dinit-shutdown",
            "/sbin/shutdown",
            "/usr/sbin/shutdown",
            "/usr/bin/shutdown",
        ],
        arguments: &["-k"],
    },
    Knowing {
        runs: |root| is_first(root, "shepherd"),
        programs: &["/run/current-system/profile/sbin/reboot"],
        arguments: &["--kexec"],
    },
];

/// The commands of the others, the best one first, where they may lie.
const OTHERS: [(&[&str], &[&str]); 2] = [
    (
        &[
            "/sbin/shutdown",
            "/usr/sbin/shutdown",
            "/bin/shutdown",
            "/usr/bin/shutdown",
        ],
        &["-r", "now"],
    ),
    (
        &[
            "/sbin/reboot",
            "/usr/sbin/reboot",
            "/bin/reboot",
            "/usr/bin/reboot",
        ],
        &[],
    ),
];

impl Shutdown {
    /// The command for the init system that runs on this machine. No program is run to find it;
    /// [`Shutdown::looked_at`] finds out whether the jump can be made.
    pub(super) fn find(root: &Root) -> Option<Self> {
        let there = |paths: &[&'static str]| {
            let mut paths = paths.iter().copied();
            paths.find(|path| root.path(path).is_file())
        };
        let told = KNOWING.iter().filter(|init| (init.runs)(root));
        let told = told.filter_map(|init| {
            Some(Self {
                program: there(init.programs)?,
                arguments: init.arguments,
                jump: Jump::Init,
            })
        });
        let others = OTHERS.iter().filter_map(|(paths, arguments)| {
            Some(Self {
                program: there(paths)?,
                arguments,
                jump: last_script(root).map_or(Jump::Nobody, Jump::Script),
            })
        });
        told.chain(others).next()
    }

    /// The same, when it is known whether systemd lacks the program `kexec`. `version` tells the
    /// version of the systemd that the command belongs to.
    pub(super) fn looked_at(self, root: &Root, version: impl FnOnce(&str) -> Option<u32>) -> Self {
        let is_systemctl = self.program.ends_with("/systemctl");
        let unknown = self.program.starts_with(NIXOS) || has(root, &KEXEC_OF_SYSTEMD);
        if is_systemctl && !unknown && version(self.program).is_some_and(|it| it < JUMPS_ITSELF) {
            return Self {
                jump: Jump::Missing,
                ..self
            };
        }
        self
    }

    /// Fails where the command is known to reboot through the firmware although the init
    /// system is told to boot what is loaded.
    ///
    /// # Errors
    /// When systemd needs the program `kexec`, and there is none.
    pub(super) fn can_jump(&self) -> Result<(), NoKexec> {
        match self.jump {
            Jump::Missing => Err(NoKexec {
                shown: self.shown(),
            }),
            _ => Ok(()),
        }
    }

    /// Whether the loaded kernel is what the machine boots at the end.
    pub(super) fn boots_what_is_loaded(&self) -> bool {
        matches!(self.jump, Jump::Init | Jump::Missing | Jump::Script(_))
    }

    /// The command, for people.
    pub(super) fn shown(&self) -> String {
        [&[self.program], self.arguments].concat().join(" ")
    }

    /// What becomes of files that `exec` would hand over, for a warning; `None`: there are
    /// none.
    pub(super) fn of_files(&self, files: &[CarriedFile]) -> Result<Option<String>, NotByShutdown> {
        if files.is_empty() {
            return Ok(None);
        }
        let files = files.iter().map(|file| shown_name(&file.path).to_string());
        let files = files.collect::<Vec<_>>().join(", ");
        match self.jump {
            Jump::Init | Jump::Missing => Err(NotByShutdown { files }),
            Jump::Script(_) | Jump::Nobody => Ok(Some(format!(
                "{files}: only the process that makes the jump can hand files over; they are lost unless the init \
                 system runs the kexec -e of rkexec at the end"
            ))),
        }
    }

    /// What may keep the loaded kernel from being booted, for a warning.
    fn doubt(&self) -> Option<String> {
        let shown = self.shown();
        match &self.jump {
            Jump::Init | Jump::Script(_) => None,
            Jump::Missing => Some(format!(
                "{shown} runs kexec -e at the end, and there is no program kexec in /sbin and /usr/sbin: without it \
                 the machine reboots through the firmware; a link to rkexec with that name is one"
            )),
            Jump::Nobody => Some(format!(
                "{shown} reboots through the firmware, unless the init system itself boots the loaded kernel at the end (kexec -e)"
            )),
        }
    }

    /// Has the init system shut down; `files` are those that `exec` would hand over.
    ///
    /// It returns when the init system has accepted the order.
    pub(super) fn go(&self, context: &Context, files: &[CarriedFile]) -> anyhow::Result<()> {
        let files = self.of_files(files)?;
        for warning in files.into_iter().chain(self.doubt()) {
            context.warn(&warning);
        }
        let shown = self.shown();
        let status = Command::new(self.program).args(self.arguments).status();
        let status = status.with_context(|| format!("running {shown} failed"))?;
        anyhow::ensure!(status.success(), "{shown} ended with {status}");
        Ok(())
    }
}

/// sd_booted(3): the directory is there if and only if systemd is init.
fn is_systemd(root: &Root) -> bool {
    root.path("/run/systemd/system").is_dir()
}

/// Whether the process that the kernel started first has that name. Its executable file counts
/// (`/sbin/init` is a link to dinit, and the process is called `init`), and so does its own name
/// (the Shepherd is a script, and the executable file is Guile's).
fn is_first(root: &Root, name: &str) -> bool {
    let names = [first_executable(root), first_name(root)];
    names.iter().flatten().any(|it| it == name)
}

/// The executable file of the first process, without its directory.
fn first_executable(root: &Root) -> Option<String> {
    let target = root.path("/proc/1/exe").read_link().ok()?;
    let name = target.file_name()?.to_str()?;
    // An update has replaced the file since.
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    Some(name.to_owned())
}

/// The name of the first process: the base name of the path it was started by.
fn first_name(root: &Root) -> Option<String> {
    root.read_line_permitted("/proc/1/comm").ok()?
}

/// Whether one of the paths is there.
fn has(root: &Root, paths: &[&str]) -> bool {
    paths.iter().any(|path| root.path(path).exists())
}

/// The version of the systemd that `systemctl` belongs to; `None`: it does not tell.
pub(super) fn systemd_version(systemctl: &str) -> Option<u32> {
    let printed = Command::new(systemctl).arg("--version").output().ok()?;
    version(&printed.stdout)
}

/// The number in `systemd 252 (252.39-1~deb12u2)`.
fn version(printed: &[u8]) -> Option<u32> {
    let mut words = fields(printed);
    words.next().filter(|word| *word == b"systemd")?;
    let number = words.next()?.to_str().ok()?;
    let digits = number.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// The file which says that the program `kexec` boots the loaded kernel at the end of a
/// shutdown by sysvinit, busybox init or runit.
fn last_script(root: &Root) -> Option<String> {
    let first = first_executable(root).or_else(|| first_name(root))?;
    // sysvinit's own program makes the jump.
    if first == "init" && of_inittab(root, runs_reboot_k) {
        return Some(INITTAB.to_owned());
    }
    if !has(root, &KEXEC) {
        return None;
    }
    match first.as_str() {
        "runit" => of_runit(root),
        "init" | "busybox" | "linuxrc" if of_inittab(root, runs_kexec) => Some(INITTAB.to_owned()),
        "init" | "busybox" | "linuxrc" => of_run_level(root),
        _ => None,
    }
}

/// Of runit's stage 3: that script, or one that it reads.
fn of_runit(root: &Root) -> Option<String> {
    const STAGE_3: &str = "/etc/runit/3";
    const PARTS: &str = "/etc/runit/shutdown.d";
    let parts = root.list_permitted(PARTS).ok().flatten();
    let parts = parts.unwrap_or_default().into_iter();
    let parts = parts.map(|name| format!("{PARTS}/{name}"));
    std::iter::once(STAGE_3.to_owned())
        .chain(parts)
        .find(|path| {
            let text = root.read_permitted(path).ok().flatten();
            text.is_some_and(|text| text.lines().any(runs_kexec))
        })
}

const INITTAB: &str = "/etc/inittab";

/// Whether a line of /etc/inittab (`ID:RUNLEVELS:ACTION:COMMAND`) that counts at a reboot has a
/// command that `jumps`.
fn of_inittab(root: &Root, jumps: fn(&[u8]) -> bool) -> bool {
    let text = root.read_permitted(INITTAB).ok().flatten();
    let text = text.unwrap_or_default();
    let is_last = |line: &[u8]| {
        let mut fields = line.splitn(4, |byte| *byte == b':').skip(1);
        let (levels, action) = (fields.next(), fields.next());
        let at_reboot = levels.is_some_and(|levels| levels.contains(&b'6'));
        let action = action.unwrap_or_default();
        // busybox has no run levels.
        let counts = action == b"shutdown" || (at_reboot && matches!(action, b"wait" | b"once"));
        counts && fields.next().is_some_and(jumps)
    };
    text.lines()
        .any(|line| !line.starts_with(b"#") && is_last(line))
}

/// Whether a command is sysvinit's `reboot` with `-k`, as Gentoo has it
/// (`l6r:6:wait:/sbin/reboot -dkn`): it boots what is loaded.
fn runs_reboot_k(command: &[u8]) -> bool {
    let mut words = fields(command);
    let is_reboot = words.next().is_some_and(|word| is_program(word, b"reboot"));
    is_reboot
        && words.any(|word| {
            let letters = word.strip_prefix(b"-").unwrap_or_default();
            !letters.starts_with(b"-") && letters.contains(&b'k')
        })
}

/// Whether a word of a command is the program `name`, with or without a directory.
fn is_program(word: &[u8], name: &[u8]) -> bool {
    word.rsplit(|byte| *byte == b'/').next() == Some(name)
}

/// Of the scripts of run level 6 that are executed: the one of Debian's kexec-tools is called
/// `kexec`, that of rkexec's package `rkexec-exec`. OpenRC does not run them.
fn of_run_level(root: &Root) -> Option<String> {
    const DIRECTORY: &str = "/etc/rc6.d";
    if root.path("/run/openrc").is_dir() {
        return None;
    }
    let names = root.list_permitted(DIRECTORY).ok()??;
    let scripts = names.into_iter().filter(|name| {
        let name = name.trim_start_matches(['K', 'S']);
        let name = name.trim_start_matches(|c: char| c.is_ascii_digit());
        matches!(name, "kexec" | "rkexec-exec")
    });
    let mut paths = scripts.map(|name| format!("{DIRECTORY}/{name}"));
    paths.find(|path| is_executable(root, path))
}

fn is_executable(root: &Root, path: &str) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let found = root.path(path).metadata();
    found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// The words between white space.
fn fields(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// Whether a line of a script runs `kexec -e`.
fn runs_kexec(line: &[u8]) -> bool {
    let words: Vec<&[u8]> = fields(line).collect();
    let is_kexec = |word: &[u8]| is_program(word, b"kexec");
    let mut pairs = words.windows(2);
    !words.first().is_some_and(|word| word.starts_with(b"#"))
        && pairs.any(|pair| match pair {
            [program, b"-e" | b"--exec" | b"-fe"] => is_kexec(program),
            [program, b"-f"] => is_kexec(program) && words.contains(&&b"-e"[..]),
            _ => false,
        })
}

/// `exec --shutdown` where nothing is known that shuts down.
#[derive(Debug, thiserror::Error)]
#[error("no running systemd, and no program shutdown or reboot, was found")]
pub(super) struct NoInitSystem;

impl NoInitSystem {
    pub(super) const HINT: &str =
        "rkexec exec without --shutdown boots at once, without stopping services";
}

/// A shutdown by a systemd that lacks the program with which it boots what is loaded.
#[derive(Debug, thiserror::Error)]
#[error(
    "{shown} runs kexec -e at the end, and there is no program kexec in /sbin and /usr/sbin: the machine would reboot \
     through the firmware"
)]
pub(super) struct NoKexec {
    shown: String,
}

impl NoKexec {
    pub(super) const HINT: &str = "a link to rkexec with that name is such a program: ln -s \"$(command -v rkexec)\" /usr/sbin/kexec; where /usr \
         is read-only, stop the services yourself, then use rkexec exec without --shutdown";
}

/// A shutdown where files are to be handed over.
#[derive(Debug, thiserror::Error)]
#[error(
    "{files} cannot be handed over at the end of a shutdown: only the process that makes the jump can do that, \
     and the init system makes it"
)]
pub(super) struct NotByShutdown {
    files: String,
}

impl NotByShutdown {
    pub(super) const HINT: &str = "stop the services, then use rkexec exec without --shutdown; up to systemd 260 `systemctl kexec` runs \
         kexec -e at the end, which hands the files over if it is rkexec's and the files lie on the root file system";
}

#[cfg(test)]
#[path = "shutdown_tests.rs"]
mod tests;
