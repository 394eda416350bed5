//! `rkexec load` and `rkexec plan`: the same road, and one of them turns back
//! before the system call.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context as _;
use clap::Args;

use super::options::LoadArgs;
use super::{Context, multiboot, render};
use crate::handover::Capability;
use crate::host::loaded::Loaded;
use crate::host::{Host, HostError, Root};
use crate::image::uki::{Addon, Uki};
use crate::image::{self, Contents, Found, Image};
use crate::load::Files;
use crate::load::parts::{Parts, lost_signature};
use crate::load::record::{Job, LoadRecord};
use crate::plan::{self, Plan};
use crate::sys::{MappedFile, Target};

/// `rkexec plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Say for every segment which rule put it there, and for every range why it is what it is.
    #[arg(long)]
    explain: bool,
    /// Draw the memory map and the segments into FILE.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// `rkexec load`.
pub(super) fn load(context: &Context, args: &LoadArgs) -> anyhow::Result<()> {
    context.on_this_machine("load")?;
    let job = job(args)?;
    let host = host_for(context, &job).context("planning failed")?;
    with_plan(context, &host, &job, |planned| {
        for warning in &planned.plan.warnings {
            context.warn(warning);
        }
        carry_out(context, planned)?;
        let Planned { plan, image, .. } = planned;
        context.print(
            || render::text::loaded(plan, image, &job.kernel, context.global.verbose),
            || render::json::plan(plan, image, &job.kernel),
        )
    })
}

/// `rkexec plan`.
pub(super) fn plan(context: &Context, args: &PlanArgs) -> anyhow::Result<()> {
    let job = job(&args.load)?;
    let host = host_for(context, &job).context("planning failed")?;
    with_plan(context, &host, &job, |planned| {
        let Planned {
            plan, image, uki, ..
        } = planned;
        if let Some(path) = &args.svg {
            let picture = render::svg::plan(plan);
            std::fs::write(path, picture)
                .with_context(|| format!("writing {} failed", path.display()))?;
        }
        context.print(
            || {
                let chosen = uki.map(render::uki::chosen).unwrap_or_default();
                chosen + &render::text::plan(plan, image, &job.kernel, args.explain)
            },
            || render::json::plan(plan, image, &job.kernel),
        )
    })
}

/// A plan, and what it was made from.
pub(super) struct Planned<'a> {
    pub(super) plan: Plan<'a>,
    pub(super) image: &'a Image<'a>,
    pub(super) uki: Option<&'a Uki<'a>>,
    job: &'a Job,
    host: &'a Host,
    initrds: &'a [&'a [u8]],
    files: &'a Files,
}

impl Planned<'_> {
    /// What is recorded of it when it is loaded.
    pub(super) fn record(&self, root: &Root) -> Result<LoadRecord, HostError> {
        LoadRecord::of(root, self.job, self.host, self.image, &self.plan)
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
        addons: args.addon.clone(),
        modules: args.module.clone(),
        request: args.request(dtb, random_seed()?, now()),
    })
}

/// Plans `job`, and gives the plan to `then`.
pub(super) fn with_plan<T>(
    context: &Context,
    host: &Host,
    job: &Job,
    then: impl FnOnce(&Planned<'_>) -> anyhow::Result<T>,
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
    let mut found = found(&files.kernel, &contents, job.profile.as_deref())?;
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
    plan.warnings.extend(parts.warnings);
    plan.warnings
        .extend(lost_signature(&found, plan.syscall.name));
    then(&Planned {
        plan,
        image,
        uki: found.uki.as_ref(),
        job,
        host,
        initrds: &parts.initrds,
        files: &files,
    })
}

/// Loads what is planned, and keeps the record of it. A crash kernel that is lost
/// on the way is loaded again.
pub(super) fn carry_out(context: &Context, planned: &Planned<'_>) -> anyhow::Result<()> {
    let target = planned.plan.target();
    let before = LoadRecord::of_loaded(&context.root, target, &planned.host.loaded)?;
    let record = planned.record(&context.root)?;
    match call(context, planned, &record) {
        Err(error) if target == Target::Crash => {
            Err(error.context(rescue(context, planned.host, before.as_ref())))
        }
        result => result,
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
    crate::load::load(plan, host, image, initrds, files)?;
    if let Err(error) = record.write(&context.root) {
        context.warn(&format!(
            "what was loaded is not recorded: {:#}",
            anyhow::Error::from(error)
        ));
    }
    Ok(())
}

/// After a crash kernel could not be loaded: whether the one before is still
/// there, and if it is not, loads it again. Says how that went.
fn rescue(context: &Context, host: &Host, before: Option<&LoadRecord>) -> String {
    const NOT_ARMED: &str = "load failed, and the machine is NOT armed";
    if host.loaded.crash != Some(true) {
        return NOT_ARMED.to_owned();
    }
    // When nobody tells, the worst is true.
    if Loaded::read(&context.root).is_ok_and(|now| now.crash == Some(true)) {
        return "load failed, and the crash kernel loaded before stays armed".to_owned();
    }
    let Some(record) = before else {
        return format!(
            "{NOT_ARMED}: the crash kernel loaded before is lost, and there is no record of it"
        );
    };
    match again(context, record) {
        Ok(()) => {
            "load failed, and the crash kernel loaded before, which the attempt had thrown out, is armed again"
                .to_owned()
        }
        Err(error) => format!(
            "{NOT_ARMED}: the crash kernel loaded before is lost, and loading it again failed as well ({error:#})"
        ),
    }
}

/// Loads what `record` says, if its files are what they were.
fn again(context: &Context, record: &LoadRecord) -> anyhow::Result<()> {
    let job = record.job(Some(random_seed()?), now());
    let host = host_for(context, &job)?;
    with_plan(context, &host, &job, |planned| {
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

/// What lies in the file, unpacked where it is packed.
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
    format!("reading {} failed", file.path().display())
}

pub(super) fn random_seed() -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .context("reading /dev/urandom failed")?;
    Ok(seed)
}
