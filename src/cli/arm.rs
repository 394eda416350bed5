//! `rkexec arm`: the crash kernel of the configuration is loaded, if what is
//! loaded is not already that.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use bstr::{BString, ByteSlice as _};
use clap::Args;
use serde_json::json;

use super::boot_entry::{self, Chosen};
use super::load::session;
use super::render::json::insert;
use super::{Context, Output, Usage, render, write_text};
use crate::arm::config::{Config, DEFAULT_PATH, WhenImpossible};
use crate::arm::watch::{Kernel, Machine, State, watch};
use crate::base::bytes::{shown, shown_name};
use crate::base::{Syscall, Target, printable};
use crate::crash::estimate::estimates;
use crate::entries::Part;
use crate::host;
use crate::host::environment::Environment;
use crate::host::loaded::Loaded;
use crate::job::Fresh;
use crate::load::record::LoadRecord;
use crate::load::{Files, Prepared, Session, ThisKernel};
use crate::refusal::MAKE_ROOM;

/// `rkexec arm`.
#[derive(Debug, Args)]
pub(super) struct ArmArgs {
    /// The configuration; rkexec.toml(5) describes it.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Keep running, and load again when memory or CPUs change.
    ///
    /// It waits until there was no event for 2 seconds, 30 seconds at most. Nothing is
    /// loaded while the crash kernel still fits, or when the kernel updates it itself.
    /// Every decision is one line on standard output. A failure is one, too: it is tried
    /// again after a minute, then after twice as long each time, an hour at most, or with
    /// the next event. SIGTERM and SIGINT end it with exit code 0.
    #[arg(long)]
    watch: bool,
    /// Only say what would be loaded, and why; load nothing.
    ///
    /// The configuration is read, and the load is planned. Exit code 0: the crash kernel is
    /// loaded and fits, or it could be loaded. 1: the configuration is wrong, or it could
    /// not be loaded. With --root, the load is planned for a captured machine; configuration,
    /// kernel and initrds are still files of this machine, but for those of a boot entry.
    #[arg(long, conflicts_with = "watch")]
    check: bool,
    /// Only print how much memory each kernel in /boot takes as the crash kernel, and the
    /// crashkernel= to boot with; load nothing, and read no configuration.
    ///
    /// The initrd that is counted is the one made for a crash kernel, where there is one.
    /// With --root, /boot is that below DIR.
    #[arg(long, conflicts_with_all = ["watch", "check", "config"])]
    estimate: bool,
}

/// Whatever went wrong. A wrong configuration exits with 1, not 2, which is for usage.
#[derive(Debug, thiserror::Error)]
#[error("{doing} failed")]
struct ArmError {
    /// `arm`, `check` or `estimate`.
    doing: &'static str,
    #[source]
    error: anyhow::Error,
}

/// The machine cannot be armed, whatever is loaded.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct Impossible {
    why: String,
    way_out: &'static str,
    /// A crash kernel is loaded all the same, and stays.
    armed: bool,
}

impl Impossible {
    pub(super) fn hint(&self) -> &'static str {
        self.way_out
    }
}

pub(super) fn run(context: &Context, args: &ArmArgs) -> anyhow::Result<()> {
    if args.estimate {
        return estimate(context).map_err(|error| {
            ArmError {
                doing: "estimate",
                error,
            }
            .into()
        });
    }
    if !args.check {
        context.on_this_machine("arm")?;
    }
    if args.watch && context.global.output == Output::Json {
        let why = "arm failed: --watch says each decision in a line, and --output json does not go with that";
        return Err(Usage(why.to_owned()).into());
    }
    let doing = if args.check { "check" } else { "arm" };
    arm(context, args).map_err(|error| ArmError { doing, error }.into())
}

/// `--estimate`.
fn estimate(context: &Context) -> anyhow::Result<()> {
    let found = estimates(&context.root)?;
    let running = host::cmdline::read(&context.root)?;
    let running = running.as_bstr();
    context.print(
        || render::doctor::estimates(&found, running),
        || render::doctor::estimates_json(&found, running),
    )
}

fn arm(context: &Context, args: &ArmArgs) -> anyhow::Result<()> {
    let kernel = ThisKernel::new(&context.root);
    let mut arming = Arming {
        config: Config::read(&args.config)?,
        context,
        session: session(context, &kernel),
    };
    if args.check {
        return match arming.go(Act::Check) {
            Ok(wanted) => context.print(|| wanted.would(), || wanted.would_json()),
            Err(error) => arming.forgive(error, true),
        };
    }
    // What happens while it loads is found afterwards.
    let mut outside = if args.watch {
        Some(Kernel::listen().context("listening to the kernel failed")?)
    } else {
        None
    };
    let armed = match arming.alone(Act::LoadIfNeeded) {
        Ok(armed) => armed,
        Err(error) => return arming.forgive(error, false),
    };
    let Some(outside) = &mut outside else {
        return context.print(|| format!("{}\n", armed.line()), || armed.to_json());
    };
    let log = |line: &str, failed: bool| {
        if context.global.quiet && !failed {
            return Ok(());
        }
        write_text(&format!("{}\n", printable::message(line)))
    };
    log(&format!("{}; watching", armed.line()), false)?;
    watch(&mut arming, outside, log)
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Find out what would be loaded, and why.
    Look,
    /// The same for the operator, who is told the warnings of the plan, too.
    Check,
    /// Load it, if what is loaded differs.
    LoadIfNeeded,
    /// Load it in any case.
    Load,
}

/// The crash kernel that the configuration asks for, on this machine.
struct Wanted {
    kernel: PathBuf,
    /// The id of the boot entry that it is of.
    entry: Option<String>,
    syscall: Syscall,
    cmdline: BString,
    /// A crash kernel was loaded when this was found out.
    was_armed: bool,
    /// Why it must be loaded; `None` when it is what is loaded.
    because: Option<String>,
    /// What else than the machine's memory and CPUs has changed since the recorded load.
    changed: Option<String>,
}

impl Wanted {
    /// The kernel, for people.
    fn named(&self) -> String {
        let kernel = shown_name(&self.kernel);
        match &self.entry {
            Some(id) => format!("{kernel} of the boot entry `{}`", shown(id)),
            None => kernel.to_string(),
        }
    }

    /// What was done.
    fn line(&self) -> String {
        let kernel = self.named();
        match &self.because {
            Some(why) => format!("armed with {kernel}: {why}"),
            None => format!("armed with {kernel} already: nothing is loaded"),
        }
    }

    /// What would be done.
    fn would(&self) -> String {
        let kernel = self.named();
        let what = match &self.because {
            Some(why) => format!("would load {kernel} through {}: {why}", self.syscall),
            None => format!("armed with {kernel} already: nothing would be loaded"),
        };
        let line = shown(&self.cmdline);
        format!("{what}\ncommand line: {line}\n")
    }

    fn to_json(&self) -> serde_json::Value {
        self.json(json!({
            "schema": 1,
            "armed": true,
            "loaded": self.because.is_some(),
            "reason": self.because,
        }))
    }

    fn would_json(&self) -> serde_json::Value {
        let mut json = self.json(json!({
            "schema": 1,
            "armed": self.was_armed,
            "loaded": false,
            "would_load": self.because.is_some(),
            "reason": self.because,
            "syscall": self.syscall,
        }));
        if let Some(fields) = json.as_object_mut() {
            insert(fields, "cmdline", &self.cmdline);
        }
        json
    }

    fn json(&self, mut json: serde_json::Value) -> serde_json::Value {
        if let Some(fields) = json.as_object_mut() {
            insert(fields, "kernel", self.kernel.as_os_str().as_bytes());
            if let Some(id) = &self.entry {
                fields.insert("entry".to_owned(), id.clone().into());
            }
        }
        json
    }
}

/// This machine and its configuration.
struct Arming<'a> {
    context: &'a Context,
    session: Session<'a>,
    config: Config,
}

impl Arming<'_> {
    /// [`Arming::go`] while no other rkexec loads.
    fn alone(&self, act: Act) -> anyhow::Result<Wanted> {
        let _alone = self.session.alone()?;
        self.go(act)
    }

    /// Plans what the configuration asks for, finds out in what the loaded crash kernel
    /// differs from it, and does `act`.
    fn go(&self, act: Act) -> anyhow::Result<Wanted> {
        let root = &self.context.root;
        possible(&self.config, Environment::read(root)?, &Loaded::read(root)?)?;
        let mut host = self.session.kernel.facts(Target::Crash)?;
        let chosen = self.chosen()?;
        let rules = self.config.rules(&host.release);
        let rules = match &chosen {
            Some(chosen) => rules.or_entry(chosen.files.clone()),
            None => rules,
        };
        let job = rules.job(Fresh::draw()?);
        let before = self.session.recorded(Target::Crash, &host)?;
        if let Some(before) = &before {
            before.teach(job.request.syscall, &mut host.security);
        }
        let files = Files::open(&job)?;
        let contents = files.contents()?;
        let prepared = Prepared::new(&job, &files, &contents)?;
        let plan = prepared.plan(&host, root)?;
        let record = prepared.record(root, &host, &plan)?;
        let was_armed = host.loaded.crash == Some(true);
        let because = because(before.as_ref(), was_armed, &record);
        let changed = before.and_then(|before| before.differs_in_input(&record));
        let wanted = Wanted {
            kernel: record.kept.kernel,
            entry: chosen.as_ref().map(|chosen| chosen.entry.id.clone()),
            syscall: record.syscall,
            cmdline: record.cmdline,
            was_armed,
            because,
            changed,
        };
        let is_due = act == Act::Load || wanted.because.is_some();
        if is_due && act != Act::Look {
            chosen
                .iter()
                .for_each(|chosen| chosen.warn(self.context, Target::Crash));
            let sizing = prepared.sizing(&plan);
            let too_small = sizing.and_then(|sizing| sizing.too_small(host.cmdline.as_bstr()));
            for warning in plan.warnings.iter().chain(&too_small) {
                self.context.warn(warning);
            }
        }
        if is_due
            && act == Act::Check
            && let Some(refusal) = prepared.refusal(&host, &plan)
        {
            return Err(refusal.into());
        }
        if is_due && matches!(act, Act::LoadIfNeeded | Act::Load) {
            self.session.load(&prepared, &host, plan)?;
        }
        Ok(wanted)
    }

    /// The boot entry that the configuration names. Its command line and its device tree are
    /// not for a crash kernel, and need not be known.
    fn chosen(&self) -> anyhow::Result<Option<Chosen>> {
        let Some(name) = self.config.entry() else {
            return Ok(None);
        };
        let mut replaced = vec![Part::Cmdline, Part::Devicetree];
        if !self.config.initrd.is_empty() {
            replaced.push(Part::Initrd);
        }
        // A panic may be long after the next boot.
        boot_entry::lasting(self.context, name, &replaced).map(Some)
    }

    /// A machine that cannot be armed is a warning, where the configuration says so.
    fn forgive(&self, error: anyhow::Error, check: bool) -> anyhow::Result<()> {
        let Some(impossible) = error.downcast_ref::<Impossible>() else {
            return Err(error);
        };
        if self.config.when_impossible == WhenImpossible::Fail {
            return Err(error);
        }
        let (why, armed) = (&impossible.why, impossible.armed);
        self.context.warn(&match armed {
            true => format!("nothing is loaded: {why}; the crash kernel loaded before stays armed"),
            false => format!("not armed: {why}"),
        });
        // The warning says it to people.
        self.context.print(String::new, || {
            let mut json = json!({ "schema": 1, "armed": armed, "loaded": false, "reason": why });
            if let (true, Some(fields)) = (check, json.as_object_mut()) {
                fields.insert("would_load".to_owned(), false.into());
            }
            json
        })
    }
}

/// Why the crash kernel of the record `wanted` must be loaded, where the one of the record
/// `before` was loaded; `None` when it is that one.
fn because(before: Option<&LoadRecord>, was_armed: bool, wanted: &LoadRecord) -> Option<String> {
    match before {
        Some(before) => before.differs(wanted),
        None if was_armed => {
            Some("which crash kernel was loaded before is not recorded".to_owned())
        }
        None => Some("no crash kernel was loaded".to_owned()),
    }
}

impl Machine for Arming<'_> {
    fn assess(&mut self) -> anyhow::Result<State> {
        let root = &self.context.root;
        let loaded = Loaded::read(root)?;
        if loaded.crash == Some(true) && loaded.kernel_updates() == Some(true) {
            // It does not know which boot entry is the default by now.
            let changed = match self.config.entry() {
                Some(_) => self.alone(Act::Look)?.changed,
                None => None,
            };
            return Ok(match changed {
                Some(why) => State::Stale(why),
                None => State::Fits("the kernel updates what is loaded itself".to_owned()),
            });
        }
        Ok(match self.alone(Act::Look)?.because {
            Some(why) => State::Stale(why),
            None => State::Fits("what is loaded fits the machine".to_owned()),
        })
    }

    fn arm(&mut self) -> anyhow::Result<String> {
        let wanted = self.alone(Act::Load)?;
        Ok(format!("armed with {}", wanted.named()))
    }
}

/// Whether the machine can be armed at all.
fn possible(config: &Config, environment: Environment, loaded: &Loaded) -> Result<(), Impossible> {
    if let Some(refusal) = environment.refuses() {
        return Err(Impossible {
            why: refusal.why.to_owned(),
            way_out: refusal.way_out,
            armed: loaded.crash == Some(true),
        });
    }
    let minimum = config.minimum_reservation();
    let (why, way_out) = match (loaded.crash, loaded.crash_size) {
        // What is reserved shows when the other load is done.
        _ if loaded.busy => return Ok(()),
        (None, _) => (
            "the running kernel does not support crash kernels (CONFIG_CRASH_DUMP is off)"
                .to_owned(),
            "boot a kernel with CONFIG_CRASH_DUMP",
        ),
        (Some(_), None | Some(0)) => (
            "no memory is reserved for a crash kernel".to_owned(),
            MAKE_ROOM,
        ),
        (Some(_), Some(size)) if size < minimum => (
            format!(
                "{} are reserved for a crash kernel, and the configuration wants {} (minimum_reservation)",
                render::human(size),
                render::human(minimum)
            ),
            "boot with a larger crashkernel= on the kernel's command line, or ask for less",
        ),
        _ => return Ok(()),
    };
    Err(Impossible {
        why,
        way_out,
        armed: loaded.crash == Some(true),
    })
}

#[cfg(test)]
#[path = "arm_tests.rs"]
mod tests;
