//! The command line: parsing, one file per verb, and how errors are shown.

mod arm;
mod boot_entry;
mod capture;
mod colour;
mod doctor;
mod entries;
mod exec;
mod generate;
mod groups;
mod inspect;
mod kexec;
mod load;
mod memmap;
mod options;
mod reboot;
mod render;
mod report;
mod retrieve;
mod shutdown;
mod status;
mod unload;
mod vmcore_dmesg;
mod watchdog;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use serde::Serialize;

use crate::arm::config::ConfigError;
use crate::base::bytes::shown_name;
use crate::base::printable;
use crate::entries::choice::ChoiceError;
use crate::host::capture::CaptureError;
use crate::host::{HostError, Root};
use crate::load::carry::CarryError;
use crate::load::lock::LockError;
use crate::load::watchdog::WatchdogError;
use crate::load::{LoadError, ModulesForLinux};
use crate::plan::PlanError;
use crate::refusal::SysError;
use crate::sys::bus_error::explain_failed_reads;
use crate::vmcore::VmcoreError;

/// Exit code: it failed.
const FAILED: u8 = 1;
/// Exit code: the command line is wrong. clap uses the same.
const USAGE: u8 = 2;
/// Exit code: nothing is loaded (`exec`), not armed or stale (`status --check`), a blocker was
/// found (`doctor`).
const NOTHING_LOADED: u8 = 3;

/// Boot a new Linux kernel from the running one (kexec), without firmware: plan it, load it, start it.
#[derive(Debug, Parser)]
#[command(name = "rkexec", version, propagate_version = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options for every verb.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Options for every verb")]
struct Global {
    /// Read the machine's /proc and /sys below DIR, which `rkexec capture` made.
    ///
    /// A capture has the configuration of the boot loaders, but no kernels: empty files stand for them. For
    /// --entry copy them into DIR. KERNEL and --initrd are still files of this machine.
    #[arg(long, global = true, value_name = "DIR")]
    root: Option<PathBuf>,
    /// How the result is printed.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text, value_name = "FORMAT")]
    output: Output,
    /// Print more: `load` and `reboot` the whole plan, `plan` and `memmap` who says what of each range,
    /// `status` every fact, `entries` all of each entry, `report` every range. A warning says where it has no effect.
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    verbose: bool,
    /// Print errors only.
    #[arg(short, long, global = true)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON object, for programs.
    Json,
}

#[derive(Debug, Subcommand)]
#[command(subcommand_value_name = "VERB", subcommand_help_heading = "VERBS")]
enum Verb {
    /// Plan, check and load a kernel; what was loaded before is replaced.
    Load(options::LoadArgs),
    /// Show what `load` would do, without doing it.
    Plan(load::PlanArgs),
    /// Boot the loaded kernel at once, without stopping services or unmounting.
    Exec(exec::ExecArgs),
    /// Load the default boot entry, or what is named, and reboot into it.
    ///
    /// The init system stops everything first: it is `rkexec load` with the same options, then
    /// `rkexec exec --shutdown`. One line says what is booted, and how long the last kexec took, if rkexec made it. Where the
    /// init system has no way into a loaded kernel, the kernel is booted at once, as by
    /// `rkexec exec`. Nothing is loaded or booted when the plan or the entry is at fault.
    Reboot(options::LoadArgs),
    /// Unload the loaded kernel.
    Unload(unload::UnloadArgs),
    /// Show what is loaded, if the crash kernel still fits, and what would block a load.
    Status(status::StatusArgs),
    /// Say what would go wrong with a kexec or the capture of a dump, before it does.
    ///
    /// It makes the checks that rkexec-doctor(8) lists, of this load, or with --panic of the capture.
    /// Without KERNEL and --entry the machine alone is looked at. Each finding
    /// is a blocker (it will not work), a risk or a note, with what it was read from and what
    /// can be done. The last line is the answer. Nothing is loaded. Exit code 3: a blocker was found.
    #[command(mut_arg("kernel", doctor::kernel), mut_arg("panic", doctor::panic))]
    Doctor(options::LoadArgs),
    /// Show every memory range, where it is known from, and what the next kernel gets.
    Memmap,
    /// Show what kernel files are.
    Inspect(inspect::InspectArgs),
    /// Show the boot entries of this machine, and which one is the default.
    ///
    /// They are those of GRUB, of systemd-boot (files of the Boot Loader Specification and
    /// unified kernel images), of extlinux, of Debian's kexec-tools (/etc/default/kexec), and
    /// Debian's links to the newest kernel (/vmlinuz).
    Entries,
    /// After the kexec: check that this kernel got what was planned.
    Report,
    /// After the kexec: write the files that were handed over in memory into a directory.
    ///
    /// Each file is checked against the manifest of the session. When all files are
    /// written, the session is finished, which frees their memory.
    Retrieve(retrieve::RetrieveArgs),
    /// Load the crash kernel that the configuration names, if it is not loaded already.
    ///
    /// Nothing is loaded when what is loaded was made from the same kernel and
    /// initrds, with the same command line, for the memory and the CPUs that there
    /// are now. With --output json: `armed`, `loaded` (whether something was loaded
    /// now), `reason` (why) and `kernel`.
    Arm(arm::ArmArgs),
    /// Print the kernel log out of /proc/vmcore or an ELF dump.
    VmcoreDmesg(vmcore_dmesg::VmcoreDmesgArgs),
    /// Save the facts about this machine (/proc, /sys) in a directory, for --root elsewhere.
    Capture(capture::CaptureArgs),
    /// Work like kexec(8) of kexec-tools, with its options.
    Kexec(kexec::KexecArgs),
    /// Print man pages or shell completions.
    Generate(generate::GenerateArgs),
}

impl Verb {
    /// Whether `-v` makes it print more.
    fn has_more(&self) -> bool {
        matches!(
            self,
            Self::Load(_)
                | Self::Plan(_)
                | Self::Reboot(_)
                | Self::Status(_)
                | Self::Memmap
                | Self::Entries
                | Self::Report
        )
    }
}

/// What every verb is given.
#[derive(Clone)]
struct Context {
    global: Global,
    root: Root,
    /// Puts a message into the words of the command line that was given.
    words: fn(&str) -> String,
}

impl Context {
    /// This machine, and no options.
    fn plain() -> Self {
        Self {
            global: Global::default(),
            root: Root::system(),
            words: str::to_owned,
        }
    }

    /// Refuses `--root` for a verb that changes the machine.
    fn on_this_machine(&self, verb: &str) -> anyhow::Result<()> {
        if self.global.root.is_some() {
            let plans = match verb {
                "load" | "reboot" | "arm" | "kexec" => {
                    "; `rkexec plan --root DIR` plans for another machine"
                }
                _ => "",
            };
            return Err(Usage(format!(
                "{verb} failed: it would change this machine, so --root is refused{plans}"
            ))
            .into());
        }
        Ok(())
    }

    /// What the machine is called: its host name, or the directory of `--root`.
    fn machine(&self) -> Option<String> {
        match &self.global.root {
            Some(dir) => Some(shown_name(dir.file_name()?).to_string()),
            None => self.root.read_line("/proc/sys/kernel/hostname").ok()?,
        }
    }

    /// Whether the result is text.
    fn is_for_people(&self) -> bool {
        self.global.output == Output::Text
    }

    /// Prints a result: `text` for people, `json` for programs.
    fn print<J: Serialize>(
        &self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> J,
    ) -> anyhow::Result<()> {
        match self.global.output {
            Output::Text if self.global.quiet => Ok(()),
            Output::Text => write_text(&text()),
            Output::Json => written(render::stream::pretty(io::stdout().lock(), &json())),
        }
    }

    fn warn(&self, warning: &str) {
        if !self.global.quiet {
            say(&format!("rkexec: warning: {}", (self.words)(warning)));
        }
    }
}

/// Writes to standard output what this program itself says.
fn write_out(text: &[u8]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    written(out.write_all(text).and_then(|()| out.flush()))
}

/// Writes to standard output what may have text from outside in it.
fn write_text(text: &str) -> anyhow::Result<()> {
    let text = printable::lines(text);
    if colour::of(&io::stdout()) {
        return write_out(colour::paint(&text).as_bytes());
    }
    write_out(text.as_bytes())
}

/// A reader that has gone is no error.
fn written(result: io::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing the result failed"),
    }
}

/// Writes a message to standard error, as one line. Nobody is left to tell when that
/// fails, and `eprintln!` would panic.
fn say(line: &str) {
    say_painted(line, colour::paint);
}

/// The same for an error.
fn say_error(line: &str) {
    say_painted(line, colour::paint_error);
}

fn say_painted(line: &str, paint: fn(&str) -> String) {
    let line = printable::message(line);
    let _ = if colour::of(&io::stderr()) {
        writeln!(io::stderr(), "{}", paint(&line))
    } else {
        writeln!(io::stderr(), "{line}")
    };
}

/// The same for what has several lines.
fn say_lines(text: &str) {
    let _ = writeln!(io::stderr(), "{}", printable::lines(text));
}

/// The command line asks for something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// `exec` without a loaded kernel.
#[derive(Debug, thiserror::Error)]
enum NothingLoaded {
    /// The kernel says so in sysfs.
    #[error("exec failed: no kernel is loaded")]
    Known,
    /// sysfs does not tell, and the call answered as it does without one.
    #[error("{0}")]
    Answered(SysError),
}

impl NothingLoaded {
    fn hint(&self) -> Option<&str> {
        match self {
            Self::Known => {
                Some("rkexec load loads the default boot entry, and rkexec load KERNEL a kernel")
            }
            Self::Answered(error) => error.hint(),
        }
    }
}

/// Runs the command and says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    explain_failed_reads();
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if arguments.first().is_some_and(kexec::is_name) {
        return kexec::main(&Context::plain(), arguments.get(1..).unwrap_or_default());
    }
    if arguments.first().is_some_and(vmcore_dmesg::is_name) {
        arguments.insert(1, vmcore_dmesg::NAME.into());
    }
    let parsed = groups::command()
        .try_get_matches_from(kexec::shield(arguments))
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            if let Some(tip) = groups::tip(&error) {
                say(&format!("hint: {tip}"));
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let root = cli.global.root.as_ref().map_or_else(Root::system, Root::at);
    let context = Context {
        global: cli.global,
        root,
        words: str::to_owned,
    };
    match run(&context, cli.verb) {
        Ok(code) => code,
        Err(error) => {
            say_error(&format!("rkexec: {error:#}"));
            if let Some(hint) = hint(&error) {
                say(&format!("hint: {hint}"));
            }
            exit_code(&error)
        }
    }
}

fn run(context: &Context, verb: Verb) -> anyhow::Result<ExitCode> {
    if context.global.verbose && !verb.has_more() {
        context.warn("-v has no effect on this verb");
    }
    let done = match verb {
        Verb::Kexec(args) => return Ok(kexec::main(context, &args.arguments)),
        Verb::Doctor(args) => return doctor::run(context, &args),
        Verb::Load(args) => load::load(context, &args),
        Verb::Plan(args) => load::plan(context, &args),
        Verb::Exec(args) => exec::run(context, &args),
        Verb::Reboot(args) => reboot::run(context, &args),
        Verb::Unload(args) => unload::run(context, &args),
        Verb::Status(args) => status::run(context, &args),
        Verb::Memmap => memmap::run(context),
        Verb::Inspect(args) => inspect::run(context, &args),
        Verb::Entries => entries::run(context),
        Verb::Report => report::run(context),
        Verb::Retrieve(args) => retrieve::run(context, &args),
        Verb::Arm(args) => arm::run(context, &args),
        Verb::VmcoreDmesg(args) => vmcore_dmesg::run(context, &args),
        Verb::Capture(args) => capture::run(context, &args),
        Verb::Generate(args) => generate::run(&args),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(
        if error.is::<NothingLoaded>() || error.is::<status::NotArmed>() {
            NOTHING_LOADED
        } else if error.is::<Usage>()
            || error.is::<ModulesForLinux>()
            || error.downcast_ref().is_some_and(PlanError::is_usage)
        {
            USAGE
        } else {
            FAILED
        },
    )
}

/// The way out that some error of the chain knows.
fn hint(error: &anyhow::Error) -> Option<String> {
    let found = error.chain().find_map(|cause| {
        let sys = cause.downcast_ref::<SysError>().and_then(SysError::hint);
        let load = cause.downcast_ref::<LoadError>().and_then(LoadError::hint);
        let host = cause.downcast_ref::<HostError>().and_then(HostError::hint);
        let plan = cause.downcast_ref::<PlanError>().and_then(PlanError::hint);
        let watchdog = cause
            .downcast_ref::<WatchdogError>()
            .and_then(WatchdogError::hint);
        let init = cause.is::<shutdown::NoInitSystem>();
        let init = init.then_some(shutdown::NoInitSystem::HINT);
        let files = cause.is::<shutdown::NotByShutdown>();
        let init = init.or(files.then_some(shutdown::NotByShutdown::HINT));
        let no_kexec = cause.is::<shutdown::NoKexec>();
        let init = init.or(no_kexec.then_some(shutdown::NoKexec::HINT));
        let unrecorded = cause.is::<exec::Unrecorded>();
        let init = init.or(unrecorded.then_some(exec::Unrecorded::HINT));
        let carry = cause
            .downcast_ref::<CarryError>()
            .and_then(CarryError::hint);
        let vmcore = cause
            .downcast_ref::<VmcoreError>()
            .and_then(VmcoreError::hint);
        let nothing = cause
            .downcast_ref::<NothingLoaded>()
            .and_then(NothingLoaded::hint);
        let capture = cause
            .downcast_ref::<CaptureError>()
            .and_then(CaptureError::hint);
        let arm = cause
            .downcast_ref::<arm::Impossible>()
            .map(arm::Impossible::hint);
        let config = cause
            .downcast_ref::<ConfigError>()
            .and_then(ConfigError::hint);
        let lock = cause.downcast_ref::<LockError>().and_then(LockError::hint);
        let choice = cause.downcast_ref::<ChoiceError>().map(ChoiceError::hint);
        let unfinished = cause
            .downcast_ref::<retrieve::Unfinished>()
            .and_then(retrieve::Unfinished::hint);
        unfinished
            .or(choice)
            .or(sys)
            .or(load)
            .or(host)
            .or(capture)
            .or(vmcore)
            .or(nothing)
            .or(watchdog)
            .or(init)
            .or(carry)
            .or(arm)
            .map(str::to_owned)
            .or(plan)
            .or(config)
            .or(lock)
    });
    let not_booted = || error.is::<reboot::NotBooted>();
    found.or_else(|| not_booted().then(|| reboot::NotBooted::HINT.to_owned()))
}
