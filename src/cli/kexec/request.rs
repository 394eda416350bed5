//! What a `kexec` command line asks for: options into one wish, whatever their
//! order, and wishes that contradict each other refused.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::getopt::{self, BadOption, Item};
use super::options::{Does, Opt};
use crate::base::bytes::shown_name;
use crate::base::{Syscall, Target};
use crate::base::{parse_digits, parse_size};
use crate::host::serial::legacy_port;
use crate::image::Wish;
use crate::sys::FileFlags;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// Print the help; it was asked for with an option that fails.
    Help { fails: bool },
    /// Print the version.
    Version,
    /// Print the size of the crash kernel's reservation.
    CrashSize,
    /// Tell by the exit code whether an image is loaded.
    Status(Target),
    /// Change something.
    Run(Run),
}

impl Command {
    /// The system call that a load was asked to use.
    pub(super) fn syscall(&self) -> Option<Syscall> {
        match self {
            Self::Run(Run {
                action: Action::Load(load, _),
                ..
            }) => load.syscall,
            _ => None,
        }
    }
}

/// An action, and how it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) action: Action,
    /// Change nothing.
    pub(super) dry_run: bool,
    /// Show the plan.
    pub(super) debug: bool,
    pub(super) no_sync: bool,
    /// Lines for the user: options that have no effect, and why.
    pub(super) notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Load(Box<Load>, Then),
    Unload(Target),
    Exec,
}

/// What follows a load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Stay,
    /// The jump.
    Exec,
    /// A reboot by the init system, which makes the jump.
    Shutdown,
}

impl Then {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Stay => "nothing",
            Self::Exec => "exec",
            Self::Shutdown => "exec --shutdown",
        }
    }

    /// The same for people.
    pub(super) const fn shown(self) -> &'static str {
        match self {
            Self::Stay => "nothing is booted",
            Self::Exec => "the kernel is booted at once",
            Self::Shutdown => "the init system shuts down and boots the kernel",
        }
    }
}

/// What is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) kernel: PathBuf,
    pub(super) target: Target,
    /// `None` is auto.
    pub(super) syscall: Option<Syscall>,
    pub(super) options: LoadOptions,
}

/// Options of a load.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LoadOptions {
    pub(super) kind: Option<ImageType>,
    pub(super) command_line: Option<OsString>,
    pub(super) reuse_command_line: bool,
    pub(super) initrd: Option<PathBuf>,
    pub(super) modules: Vec<OsString>,
    pub(super) device_tree: Option<PathBuf>,
    pub(super) mem_min: Option<u64>,
    pub(super) mem_max: Option<u64>,
    pub(super) no_checks: bool,
    pub(super) no_efi: bool,
    pub(super) serial: Option<u16>,
    pub(super) hotplug: bool,
    pub(super) file_flags: FileFlags,
}

/// What `--type` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ImageType {
    /// `bzImage64`: one with a 64-bit entry.
    BzImage64,
    /// `bzImage`.
    BzImage,
    /// `elf-x86_64` and `elf-x86`.
    Elf,
    /// `multiboot-x86`.
    Multiboot,
    /// `multiboot2-x86`.
    Multiboot2,
    /// `uki`.
    Uki,
}

impl ImageType {
    /// What a file that has several formats is read as.
    pub(super) const fn wish(self) -> Option<Wish> {
        match self {
            Self::BzImage64 | Self::BzImage => Some(Wish::BzImage),
            Self::Elf => Some(Wish::Vmlinux),
            Self::Multiboot => Some(Wish::Multiboot1),
            Self::Multiboot2 => Some(Wish::Multiboot2),
            Self::Uki => None,
        }
    }
}

/// Why a command line cannot be followed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error(transparent)]
    Option(#[from] BadOption),
    #[error("{option} is not supported: {why}")]
    Refused { option: String, why: &'static str },
    #[error(transparent)]
    Value(#[from] BadValue),
    #[error("{0} and {1} do not go together")]
    Conflict(&'static str, &'static str),
    #[error("-e takes no kernel, and {0:?} is one: -f loads and boots at once")]
    KernelToExec(OsString),
    #[error("no kernel specified")]
    NoKernel,
}

/// A value that its option does not take.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{option} {value:?}: {why}")]
pub(super) struct BadValue {
    option: String,
    value: OsString,
    why: String,
    /// kexec-tools looks at it late, and has another exit code for that.
    pub(super) fails_late: bool,
}

/// Reads the command line.
pub(super) fn read(arguments: &[OsString]) -> Result<Command, BadRequest> {
    let mut read = Reader::default();
    for item in getopt::items(arguments) {
        match item? {
            Item::Operand(operand) => read.operands.push(operand.to_owned()),
            Item::Option(option, value) => {
                if let Some(command) = read.option(option, value.unwrap_or_default())? {
                    return Ok(command);
                }
            }
        }
    }
    read.command()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Boot {
    Load,
    Exec,
    Force,
}

/// The options met so far.
#[derive(Debug, Default)]
struct Reader {
    /// The last of -l, -e and -f.
    boot: Option<Boot>,
    panic: bool,
    unload: bool,
    status: bool,
    dry_run: bool,
    debug: bool,
    no_sync: bool,
    syscall: Option<Syscall>,
    options: LoadOptions,
    operands: Vec<OsString>,
    /// The values given last, by the option's first name.
    values: BTreeMap<&'static str, OsString>,
    notes: Vec<String>,
}

impl Boot {
    const fn letter(self) -> &'static str {
        match self {
            Self::Load => "-l",
            Self::Exec => "-e",
            Self::Force => "-f",
        }
    }
}

impl Reader {
    /// Takes an option in; some of them are all there is to do.
    fn option(&mut self, option: &Opt, value: &OsStr) -> Result<Option<Command>, BadRequest> {
        if self.replaces(option, value) {
            self.note_replaced(option);
        }
        match option.does {
            Does::Help => return Ok(Some(Command::Help { fails: false })),
            Does::Usage => return Ok(Some(Command::Help { fails: true })),
            Does::Version => return Ok(Some(Command::Version)),
            Does::CrashSize => return Ok(Some(Command::CrashSize)),
            Does::Status => self.status = true,
            Does::Load => self.boot = Some(Boot::Load),
            Does::Exec => self.boot = Some(Boot::Exec),
            Does::Force => self.boot = Some(Boot::Force),
            Does::LoadPanic => self.panic = true,
            Does::Unload => self.unload = true,
            Does::DryRun => self.dry_run = true,
            Does::CallAuto => self.syscall = None,
            Does::CallFile => self.syscall = Some(Syscall::KexecFileLoad),
            Does::CallSegments => self.syscall = Some(Syscall::KexecLoad),
            Does::Debug => self.debug = true,
            Does::NoSync => self.no_sync = true,
            Does::NoChecks => self.options.no_checks = true,
            Does::Type => self.options.kind = Some(image_type(option, value)?),
            Does::CommandLine => self.options.command_line = Some(value.into()),
            Does::ReuseCommandLine => self.options.reuse_command_line = true,
            Does::Initrd => self.options.initrd = Some(value.into()),
            Does::Module => self.options.modules.push(value.into()),
            Does::DeviceTree => self.options.device_tree = Some(value.into()),
            Does::MemMin => self.options.mem_min = Some(address(option, value)?),
            Does::MemMax => self.options.mem_max = Some(address(option, value)?),
            Does::NoEfi => self.options.no_efi = true,
            Does::Serial => self.options.serial = Some(port(option, value)?),
            Does::SerialBaud => {
                check_rate(option, value)?;
                self.note(
                    option,
                    "the port keeps the rate that the running kernel set",
                );
            }
            Does::Hotplug => self.options.hotplug = true,
            Does::NoCma => self.options.file_flags.no_cma = true,
            Does::ForceDtb => self.options.file_flags.force_dtb = true,
            Does::Anyway => {}
            Does::Ignored(why) => self.note(option, why),
            Does::Refused(why) => {
                let option = option.shown();
                return Err(BadRequest::Refused { option, why });
            }
        }
        Ok(None)
    }

    /// Whether `option` was given before with another value. The last one counts.
    fn replaces(&mut self, option: &Opt, value: &OsStr) -> bool {
        if option.value.is_none() || matches!(option.does, Does::Module) {
            return false;
        }
        let name = option.names.first().copied().unwrap_or_default();
        let before = self.values.insert(name, value.to_owned());
        before.is_some_and(|before| before != value)
    }

    fn note_replaced(&mut self, option: &Opt) {
        let shown = option.shown();
        self.notes.push(format!(
            "{shown} is given more than once: the last one counts"
        ));
    }

    fn note(&mut self, option: &Opt, why: &str) {
        self.notes.push(ignored(&option.shown(), why));
    }

    fn command(mut self) -> Result<Command, BadRequest> {
        let target = if self.panic {
            Target::Crash
        } else {
            Target::Normal
        };
        if self.status {
            // Report the image that the load would replace; by default the crash kernel.
            let normal = matches!(self.boot, Some(Boot::Load | Boot::Force)) && !self.panic;
            let target = if normal {
                Target::Normal
            } else {
                Target::Crash
            };
            return Ok(Command::Status(target));
        }
        let action = match (self.unload, self.panic, self.boot) {
            (true, _, Some(boot)) => return Err(BadRequest::Conflict("-u", boot.letter())),
            (_, true, Some(boot @ (Boot::Exec | Boot::Force))) => {
                return Err(BadRequest::Conflict("-p", boot.letter()));
            }
            (true, _, None) => {
                for operand in &self.operands {
                    let operand = shown_name(operand);
                    self.notes
                        .push(format!("{operand} is ignored: -u takes no kernel"));
                }
                Action::Unload(target)
            }
            (false, false, Some(Boot::Exec)) => match self.operands.first() {
                None => Action::Exec,
                Some(kernel) => return Err(BadRequest::KernelToExec(kernel.clone())),
            },
            (false, _, boot) => {
                let then = match boot {
                    Some(Boot::Force) => Then::Exec,
                    None if !self.panic => Then::Shutdown,
                    _ => Then::Stay,
                };
                Action::Load(Box::new(self.take_load(target)?), then)
            }
        };
        Ok(Command::Run(Run {
            action,
            dry_run: self.dry_run,
            debug: self.debug,
            no_sync: self.no_sync,
            notes: self.notes,
        }))
    }

    fn take_load(&mut self, target: Target) -> Result<Load, BadRequest> {
        let mut operands = std::mem::take(&mut self.operands).into_iter();
        let kernel = operands.next().ok_or(BadRequest::NoKernel)?;
        for other in operands {
            let (other, kernel) = (shown_name(&other), shown_name(&kernel));
            let why = format!("one kernel is loaded, and {kernel} comes first");
            self.notes.push(ignored(&other.to_string(), &why));
        }
        let mut options = std::mem::take(&mut self.options);
        if target == Target::Crash && options.device_tree.is_some() {
            return Err(BadRequest::Conflict("-p", "--dtb"));
        }
        if options.hotplug && target == Target::Normal {
            options.hotplug = false;
            let why = "only a crash kernel is kept up to date";
            self.notes.push(ignored("--hotplug", why));
        }
        Ok(Load {
            kernel: kernel.into(),
            target,
            syscall: self.syscall,
            options,
        })
    }
}

/// The line that tells of an option without effect.
pub(super) fn ignored(option: &str, why: &str) -> String {
    format!("{option} is ignored: {why}")
}

fn bad_value(option: &Opt, value: &OsStr, why: impl Into<String>) -> BadValue {
    BadValue {
        option: option.shown(),
        value: value.to_owned(),
        why: why.into(),
        fails_late: matches!(option.does, Does::Type | Does::Serial | Does::SerialBaud),
    }
}

/// What --type calls them.
pub(super) const IMAGE_TYPES: [(&str, ImageType); 7] = [
    ("bzImage64", ImageType::BzImage64),
    ("bzImage", ImageType::BzImage),
    ("elf-x86_64", ImageType::Elf),
    ("elf-x86", ImageType::Elf),
    ("multiboot-x86", ImageType::Multiboot),
    ("multiboot2-x86", ImageType::Multiboot2),
    ("uki", ImageType::Uki),
];

fn image_type(option: &Opt, value: &OsStr) -> Result<ImageType, BadValue> {
    let known = IMAGE_TYPES.iter().find(|(name, _)| *name == value);
    known.map(|(_, kind)| *kind).ok_or_else(|| {
        let why = match value.to_str() {
            Some("beoboot-x86" | "nbi-x86") => {
                "images of this type are not supported: no kernel of this century needs one"
            }
            _ => {
                let mut names: Vec<&str> = IMAGE_TYPES.iter().map(|(name, _)| *name).collect();
                names.dedup();
                return bad_value(
                    option,
                    value,
                    format!("unknown type; known are {}", names.join(", ")),
                );
            }
        };
        bad_value(option, value, why)
    })
}

/// A number as strtoul(3) reads it with base 0, or one of [`parse_size`].
fn number(text: &str) -> Result<u64, String> {
    let octal = text.len() > 1 && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.strip_prefix('0').filter(|_| octal) {
        Some(digits) => parse_digits(digits, 8),
        None => parse_size(text),
    }
    .map_err(|error| error.to_string())
}

fn address(option: &Opt, value: &OsStr) -> Result<u64, BadValue> {
    number(&value.to_string_lossy()).map_err(|why| bad_value(option, value, why))
}

/// The name of a port, or its number.
fn port(option: &Opt, value: &OsStr) -> Result<u16, BadValue> {
    let text = value.to_string_lossy();
    if let Some(port) = legacy_port(&text) {
        return Ok(port);
    }
    let port = number(&text).ok().and_then(|port| u16::try_from(port).ok());
    port.filter(|port| *port != 0).ok_or_else(|| {
        bad_value(
            option,
            value,
            "neither ttyS0 to ttyS3 nor the number of an I/O port (0x1 to 0xffff)",
        )
    })
}

/// The rates that a 16550 can have: 115200 divided by a whole number, 9600 at least.
fn check_rate(option: &Opt, value: &OsStr) -> Result<(), BadValue> {
    let rate = number(&value.to_string_lossy()).unwrap_or(0);
    if (9600..=115_200).contains(&rate) && 115_200_u64.is_multiple_of(rate) {
        return Ok(());
    }
    let why = "not 9600, 19200, 38400, 57600, 115200 or another divisor of 115200 above 9600";
    Err(bad_value(option, value, why))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
