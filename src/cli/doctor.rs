//! `rkexec doctor`: what would go wrong, before it does.

use std::process::ExitCode;

use clap::Arg;
use clap::builder::Resettable;

use super::load::{host, job, session};
use super::options::LoadArgs;
use super::{Context, render};
use crate::base::bytes::shown_name;
use crate::base::{Syscall, Target};
use crate::carry::config_file;
use crate::doctor::{self, Facts, Finding, Load, Planned, Severity, initrd, verdict};
use crate::host::loaded::Loaded;
use crate::host::security::Security;
use crate::host::surroundings::Surroundings;
use crate::host::{self as facts_of, Host};
use crate::image::Contents;
use crate::job::Job;
use crate::load::armed::{Armed, Hidden};
use crate::load::record::LoadRecord;
use crate::load::{Files, Prepared, ThisKernel};
use crate::plan::{Checked, Plan, PlanError};
use crate::refusal::Cause;
use crate::request::SyscallChoice;

/// KERNEL, without which no entry is taken here.
pub(super) fn kernel(arg: Arg) -> Arg {
    arg.help(
        "Kernel file that is asked about, as for `load`; without it and --entry the machine alone",
    )
    .long_help(Resettable::Reset)
}

/// --panic, which asks about the machine alone, too.
pub(super) fn panic(arg: Arg) -> Arg {
    arg.requires(Resettable::Reset)
}

/// What the checks stand on, besides the load.
struct Machine {
    target: Target,
    security: Security,
    loaded: Loaded,
    secure_boot: Option<bool>,
    host: Result<Host, Cause>,
    around: Surroundings,
    armed: Armed,
}

impl Machine {
    fn read(context: &Context, target: Target) -> anyhow::Result<Self> {
        let root = &context.root;
        root.is_there()?;
        let loaded = Loaded::read(root)?;
        let record = LoadRecord::of_loaded(root, Target::Crash, &loaded, &|warning| {
            context.warn(warning);
        });
        // Only root may read a record, and the map of the memory. Others get the rest.
        let record = match record {
            Err(error) if error.is_denied() => Err(Hidden),
            record => Ok(record?),
        };
        let host = Host::read_for_crash(root);
        let host = host.map_err(|error| Cause {
            hint: error.hint().map(str::to_owned),
            ..Cause::new(format!("{:#}", anyhow::Error::from(error)))
        });
        Ok(Self {
            armed: Armed::of(&loaded, &record, host.as_ref().map_err(|cause| &cause.why)),
            security: Security::read(root)?,
            secure_boot: facts_of::secure_boot(root),
            around: Surroundings::read(root, target),
            target,
            loaded,
            host,
        })
    }

    /// What is found, with `load`.
    fn examine(&self, load: Option<&Load<'_>>) -> Vec<Finding> {
        doctor::examine(&Facts {
            target: self.target,
            security: &self.security,
            loaded: &self.loaded,
            secure_boot: self.secure_boot,
            host: self.host.as_ref(),
            around: &self.around,
            armed: &self.armed,
            load,
        })
    }
}

/// What is printed.
pub(super) struct Examined {
    pub(super) target: Target,
    pub(super) version: Option<String>,
    pub(super) verdict: String,
    pub(super) found: Vec<Finding>,
}

pub(super) fn run(context: &Context, args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let job = match (&args.kernel, &args.entry) {
        (None, None) => None,
        _ => Some(job(context, args)?),
    };
    let target = if args.panic {
        Target::Crash
    } else {
        Target::Normal
    };
    let machine = Machine::read(context, target)?;
    let (version, found) = match &job {
        None => (None, machine.examine(None)),
        Some((job, _)) => with_load(context, job, &machine)?,
    };
    let examined = Examined {
        verdict: verdict(target, version.as_deref(), &found),
        target,
        version,
        found,
    };
    context.print(
        || render::doctor::text(&examined),
        || render::doctor::json(&examined),
    )?;
    let mut found = examined.found.iter();
    Ok(match found.any(|one| one.severity == Severity::Blocker) {
        true => ExitCode::from(super::NOTHING_LOADED),
        false => ExitCode::SUCCESS,
    })
}

/// What is found with the load of `job`, and which kernel that is.
fn with_load(
    context: &Context,
    job: &Job,
    machine: &Machine,
) -> anyhow::Result<(Option<String>, Vec<Finding>)> {
    let kernel = ThisKernel::new(&context.root);
    // Where the machine cannot be read there is no plan: that is an error, with its way out.
    let host = host(&session(context, &kernel), job)?;
    let files = Files::open(job)?;
    let contents = files.contents()?;
    let prepared = Prepared::new(job, &files, &contents)?;
    let release = prepared.image().release();
    let has_initrd = !prepared.initrds().is_empty();
    let is_linux = prepared.image().linux().is_some();
    let initrd = (has_initrd && is_linux).then(|| initrd::Contents::read(prepared.initrds()));
    let config = config_file(release, &job.kernel, &context.root).filter(|_| is_linux);
    let built_in = config
        .as_ref()
        .is_some_and(|(_, config)| initrd::is_built_in(config));
    let unpackable =
        config.and_then(|(from, config)| initrd::Packing::find(prepared.initrds(), &config, &from));
    let made = prepared.plan(&host, &context.root);
    let other = match &made {
        Ok(plan) => other_call(context, job, (&files, &contents), &host, plan)?,
        Err(_) => None,
    };
    let planned = match &made {
        Ok(plan) => Ok(Planned {
            call: prepared.call_facts(&host, plan),
            refusal: prepared.refusal(&host, plan).map(|error| error.cause),
            sizing: prepared.sizing(plan),
            plan,
        }),
        Err(error) => Err(cause(error)),
    };
    let load = Load {
        release,
        plan: planned,
        other,
        watchdog: job.request.watchdog,
        initrd: initrd.flatten(),
        has_initrd,
        has_built_in: built_in,
        unpackable,
    };
    let found = machine.examine(Some(&load));
    let version = release.map_or_else(|| shown_name(&job.kernel).to_string(), str::to_owned);
    Ok((Some(version), found))
}

/// Why there is no plan, as a cause. That the planning failed is what the finding says.
fn cause(error: &anyhow::Error) -> Cause {
    let why = format!("{error:#}");
    let why = why.strip_prefix("planning failed: ").unwrap_or(&why);
    let mut of_plan = error.chain().filter_map(|it| it.downcast_ref());
    Cause {
        hint: super::hint(error),
        evidence: of_plan.find_map(PlanError::evidence),
        ..Cause::new(why)
    }
}

/// The system call that `plan` does not take, and why it could not load `job`.
fn other_call(
    context: &Context,
    job: &Job,
    (files, contents): (&Files, &Contents<'_>),
    host: &Host,
    plan: &Checked<Plan<'_>>,
) -> anyhow::Result<Option<(Syscall, Cause)>> {
    // Who asks for one wants to hear nothing of the other.
    if job.request.syscall != SyscallChoice::Auto {
        return Ok(None);
    }
    let syscall = plan.syscall().other();
    let mut other = job.clone();
    other.request.syscall = SyscallChoice::Only(syscall);
    let prepared = Prepared::new(&other, files, contents)?;
    let made = prepared.plan(host, &context.root);
    let cause = match &made {
        Ok(plan) => prepared.refusal(host, plan).map(|error| error.cause),
        Err(error) => Some(cause(error)),
    };
    Ok(cause.map(|cause| (syscall, cause)))
}
