//! `rkexec load` and `rkexec plan`. Both make the same plan; `plan` stops before
//! the system call.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;

use super::options::{self, LoadArgs};
use super::{Context, multiboot, render, rescue, say, sizing};
use crate::base::{Syscall, Target};
use crate::carry::Capability;
use crate::host::{Host, HostError, Root};
use crate::image::uki::{Addon, Uki};
use crate::image::{self, Contents, Found, Image};
use crate::load::initrds;
use crate::load::lock::{self, Lock, LockError};
use crate::load::parts::{Parts, lost_signature};
use crate::load::record::{Job, LoadRecord};
use crate::load::{Files, LoadError};
use crate::plan::{self, Checked, Plan};
use crate::request::SyscallChoice;
use crate::sys::{Errno, MappedFile};

/// `rkexec plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Say for every segment which rule put it there, and for every range why it is what it is.
    #[arg(long, help_heading = "Output of the plan")]
    explain: bool,
    /// Draw the memory map and the segments into FILE; `-` is standard output, and nothing else is printed.
    #[arg(long, value_name = "FILE", help_heading = "Output of the plan")]
    svg: Option<PathBuf>,
}

/// `rkexec load`.
pub(super) fn load(context: &Context, args: &LoadArgs) -> anyhow::Result<()> {
    context.on_this_machine("load")?;
    let job = job(args)?;
    let _alone = alone(context)?;
    let host = host_for(context, &job).context("planning failed")?;
    with_plan(context, &host, &job, |planned| {
        for warning in &planned.plan.warnings {
            context.warn(warning);
        }
        carry_out(context, planned, &|planned| {
            let Planned { plan, image, .. } = planned;
            context.print(
                || render::text::loaded(planned.shown(), context.global.verbose),
                || render::json::plan(plan, image, &job.kernel),
            )
        })
    })
}

/// `rkexec plan`.
pub(super) fn plan(context: &Context, args: &PlanArgs) -> anyhow::Result<()> {
    let job = job(&args.load)?;
    let host = host_for(context, &job).context("planning failed")?;
    with_plan(context, &host, &job, |planned| {
        let Planned { plan, image, .. } = planned;
        if let Some(path) = &args.svg {
            let machine = context.machine();
            let picture = render::svg::plan(plan, image, machine.as_deref());
            if path.as_os_str() == "-" {
                return super::write_text(&picture);
            }
            std::fs::write(path, picture).with_context(|| {
                format!("writing {} failed", crate::base::bytes::shown_name(path))
            })?;
        }
        // As JSON they are a field.
        if context.is_for_people() {
            for warning in &plan.warnings {
                context.warn(warning);
            }
        }
        context.print(
            || {
                let detail = render::Detail::of(args.explain, context.global.verbose);
                render::text::plan(planned.shown(), detail)
            },
            || render::json::plan(plan, image, &job.kernel),
        )
    })
}

/// A plan, and what it was made from.
pub(super) struct Planned<'a> {
    pub(super) plan: Checked<Plan<'a>>,
    pub(super) image: &'a Image<'a>,
    pub(super) uki: Option<&'a Uki<'a>>,
    job: &'a Job,
    host: &'a Host,
    initrds: &'a [&'a [u8]],
    files: &'a Files,
}

impl Planned<'_> {
    /// What is shown of it.
    pub(super) fn shown(&self) -> render::text::Shown<'_> {
        render::text::Shown {
            plan: &self.plan,
            image: self.image,
            uki: self.uki,
            files: self.files,
        }
    }

    /// A warning if the reservation may be too small for the crash kernel to run. Unpacks
    /// the initrds to find out.
    pub(super) fn too_small(&self) -> Option<String> {
        sizing::of_plan(
            &self.plan,
            self.host,
            self.image.memory_size(),
            self.initrds,
        )
    }

    /// The record to keep when the plan is loaded.
    pub(super) fn record(&self, root: &Root) -> Result<LoadRecord, HostError> {
        LoadRecord::of(root, self.job, self.host, self.image, &self.plan)
    }
}

/// Holds off the loads of other rkexecs, from the look at what is loaded until the record
/// is kept. Where there is no place for a lock (a read-only /run), a warning says so.
pub(super) fn alone(context: &Context) -> anyhow::Result<Option<Lock>> {
    let waiting = |pid| {
        if !context.global.quiet {
            say(&format!("rkexec: {} is loading: waiting", lock::other(pid)));
        }
    };
    match Lock::take(&context.root, lock::LIMIT, std::thread::sleep, waiting) {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ LockError::Io { .. }) => {
            // No warning for users other than root: the kernel refuses their loads anyway.
            if nix::unistd::geteuid().is_root() {
                context.warn(&format!(
                    "no other rkexec is kept from loading at the same time: {:#}",
                    anyhow::Error::from(error)
                ));
            }
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// The facts that the plan of `job` needs.
pub(super) fn host_for(context: &Context, job: &Job) -> Result<Host, HostError> {
    match job.request.target {
        Target::Normal => Host::read(&context.root),
        Target::Crash => Host::read_for_crash(&context.root),
    }
}

/// The load that the options describe.
pub(super) fn job(args: &LoadArgs) -> anyhow::Result<Job> {
    let dtb = args
        .dtb
        .as_deref()
        .map(|path| open_file(path, "device tree"))
        .transpose()?;
    let dtb = dtb.map(|file| file.bytes().to_vec());
    Ok(Job {
        kernel: args.kernel.clone(),
        initrds: args.initrd.clone(),
        profile: args.profile.clone(),
        wish: args.wish,
        addons: args.addon.clone(),
        modules: args.module.iter().map(options::bytes).collect(),
        request: args.request(dtb, random_seed()?, now()),
    })
}

/// Plans `job`, and gives the plan to `then`, with every warning.
pub(super) fn with_plan<T>(
    context: &Context,
    host: &Host,
    job: &Job,
    then: impl FnOnce(&Planned<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    with_quick_plan(context, host, job, |planned| {
        let too_small = planned.too_small();
        planned.plan.warn(too_small);
        then(planned)
    })
}

/// Like `with_plan` without its slow check: a crash kernel's initrds are not unpacked
/// to see whether they fit.
pub(super) fn with_quick_plan<T>(
    context: &Context,
    host: &Host,
    job: &Job,
    then: impl FnOnce(&mut Planned<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let initrds = job.initrds.iter().map(|path| open_file(path, "initrd"));
    let addons = job.addons.iter().map(|path| open_file(path, "addon"));
    let files = Files {
        kernel: open_file(&job.kernel, "kernel")?,
        initrds: initrds.collect::<Result<_, _>>()?,
        addons: addons.collect::<Result<_, _>>()?,
        modules: multiboot::open(&job.modules)?,
    };
    let contents = contents(&files.kernel)?;
    let mut found = image::open_as(&contents, job.profile.as_deref(), job.wish)
        .with_context(|| reading(&files.kernel))?;
    let addons: Vec<Addon<'_>> = files
        .addons
        .iter()
        .map(|file| Addon::parse(file.bytes()).with_context(|| reading(file)))
        .collect::<Result<_, _>>()?;
    let mut parts = Parts::of(&job.request, &found, &addons, &files.initrd_bytes())
        .with_context(|| reading(&files.kernel))?;
    multiboot::complete(
        context,
        host,
        job,
        &files,
        &mut found.image,
        &mut parts.request,
    )?;
    let image = &found.image;
    let target = || match image.linux() {
        Some(linux) => Capability::read(linux, files.kernel.path(), &context.root),
        None => Capability::unknown(),
    };
    let mut plan = plan::plan(&parts.request, host, image, &parts.initrds, target)
        .context("planning failed")?;
    plan.warn(parts.warnings);
    if image.linux().is_some() {
        let flaws = initrds::warnings(&files.initrds, &parts.initrds);
        plan.warn(flaws);
    }
    let lost = lost_signature(&found, plan.syscall());
    plan.warn(lost);
    then(&mut Planned {
        plan,
        image,
        uki: found.uki.as_ref(),
        job,
        host,
        initrds: &parts.initrds,
        files: &files,
    })
}

/// How often a crash kernel is loaded while memory or CPUs come and go.
const LOADS: u32 = 3;

/// What is done with the plan that was carried out.
pub(super) type Then<'a, T> = &'a dyn Fn(&Planned<'_>) -> anyhow::Result<T>;

/// Loads what is planned, keeps the record of it, and gives the plan to `then`. A
/// crash kernel that is lost on the way is loaded again.
///
/// If the kernel refuses kexec_load for a reason that no file tells (a security module,
/// a filter), and the choice is free, plans again without that call. The refused call
/// changed nothing. `then` is given the plan that was carried out.
pub(super) fn carry_out<T>(
    context: &Context,
    planned: &Planned<'_>,
    then: Then<'_, T>,
) -> anyhow::Result<T> {
    let free = planned.job.request.syscall == SyscallChoice::Auto
        && planned.plan.syscall() == Syscall::KexecLoad;
    match attempt(context, planned, LOADS, then) {
        Err(error) if free && is_refusal(&error) => {
            context.warn(&format!("{error:#}; kexec_file_load is tried"));
            let mut host = planned.host.clone();
            host.security.kexec_load_refused = true;
            with_plan(context, &host, planned.job, |other| {
                let said = &planned.plan.warnings;
                let more = other.plan.warnings.iter();
                for warning in more.filter(|warning| !said.contains(warning)) {
                    context.warn(warning);
                }
                attempt(context, other, LOADS, then)
            })
        }
        done => done,
    }
}

/// Whether the kernel refused the call before doing anything.
fn is_refusal(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref() {
        Some(LoadError::Sys(error)) => error.errno.is_some_and(Errno::is_refusal),
        _ => false,
    })
}

fn attempt<T>(
    context: &Context,
    planned: &Planned<'_>,
    loads: u32,
    then: Then<'_, T>,
) -> anyhow::Result<T> {
    let target = planned.plan.target();
    let before = LoadRecord::of_loaded(&context.root, target, &planned.host.loaded)?;
    let record = planned.record(&context.root)?;
    let done = call(context, planned, &record);
    match (target, done) {
        (Target::Normal, done) => done.and_then(|()| then(planned)),
        (Target::Crash, Ok(())) => match behind(context, &record, loads - 1) {
            None => then(planned),
            Some(mut host) => {
                // Keep this: a refused call showed it, and no file of the host tells it.
                host.security.kexec_load_refused = planned.host.security.kexec_load_refused;
                with_quick_plan(context, &host, planned.job, |planned| {
                    attempt(context, planned, loads - 1, then)
                })
            }
        },
        (Target::Crash, Err(error)) => {
            let what_now = rescue::after(context, planned.host, before.as_ref(), &error);
            Err(error.context(what_now))
        }
    }
}

/// Hotplug between planning and the call is not in the plan, and the kernel updates
/// only an image that is already loaded. Returns fresh facts if a reload is needed.
fn behind(context: &Context, record: &LoadRecord, loads: u32) -> Option<Host> {
    let fit = record.fit.as_ref()?;
    let now = Host::read_for_crash(&context.root)
        .map_err(anyhow::Error::from)
        .and_then(|host| Ok((fit.now(&host)?, host)));
    match now {
        Ok((now, host)) => match fit.outdated(&now) {
            Some(why) if loads == 0 => {
                context.warn(&format!(
                    "loaded, but already out of date, because memory or CPUs are still changing: {why}"
                ));
                None
            }
            outdated => outdated.map(|_| host),
        },
        Err(error) => {
            context.warn(&format!(
                "it is loaded, and whether it fits the machine is not known: {error:#}"
            ));
            None
        }
    }
}

/// The system call, and the record of what is loaded by it.
fn call(context: &Context, planned: &Planned<'_>, record: &LoadRecord) -> anyhow::Result<()> {
    let Planned {
        plan,
        image,
        host,
        initrds,
        files,
        ..
    } = planned;
    crate::load::load(plan, host, image, initrds, files).inspect_err(|error| {
        if error.has_replaced() {
            forget(context, plan.target());
        }
    })?;
    if let Err(error) = record.write(&context.root) {
        context.warn(&format!(
            "what was loaded is not recorded: {:#}",
            anyhow::Error::from(error)
        ));
        forget(context, plan.target());
    }
    Ok(())
}

/// Removes the record of an image that is no longer loaded.
pub(super) fn forget(context: &Context, target: Target) {
    if let Err(error) = LoadRecord::remove(&context.root, target) {
        let error = anyhow::Error::from(error);
        context.warn(&format!("the record of what was loaded stays: {error:#}"));
    }
}

/// Loads what `record` says, if its files have not changed.
pub(super) fn again(context: &Context, record: &LoadRecord) -> anyhow::Result<()> {
    let job = record.job(Some(random_seed()?), now())?;
    let mut host = host_for(context, &job)?;
    record.teach(job.request.syscall, &mut host.security);
    with_quick_plan(context, &host, &job, |planned| {
        if planned.plan.blobs != record.blobs {
            anyhow::bail!("its files are no longer what they were");
        }
        call(context, planned, &planned.record(&context.root)?)
    })
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

pub(super) fn open_file(path: &Path, what: &str) -> anyhow::Result<MappedFile> {
    MappedFile::open(path).with_context(|| format!("opening the {what} failed"))
}

/// The file's contents, unpacked if it is packed.
pub(super) fn contents(file: &MappedFile) -> anyhow::Result<Contents<'_>> {
    Contents::of(file.bytes()).with_context(|| reading(file))
}

/// What `contents`, which lie in `file`, are.
pub(super) fn found<'a>(
    file: &MappedFile,
    contents: &'a Contents<'_>,
    profile: Option<&str>,
) -> anyhow::Result<Found<'a>> {
    image::open(contents, profile).with_context(|| reading(file))
}

fn reading(file: &MappedFile) -> String {
    format!(
        "reading {} failed",
        crate::base::bytes::shown_name(file.path())
    )
}

pub(super) fn random_seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .context("reading /dev/urandom failed")?;
    Ok(seed)
}
