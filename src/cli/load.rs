//! `rkexec load` and `rkexec plan`. Both make the same plan; `plan` stops before
//! the system call.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use super::options::LoadArgs;
use super::{Context, render, say, sizing};
use crate::host::Host;
use crate::job::{Fresh, Job};
use crate::load::{Files, Prepared, Session, Tell, ThisKernel, files};
use crate::plan::{Checked, Plan};

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
    let kernel = ThisKernel::new(&context.root);
    let session = session(context, &kernel);
    let job = job(args)?;
    let _alone = session.alone()?;
    let host = host(&session, &job)?;
    let files = Files::open(&job)?;
    let contents = files.contents()?;
    let prepared = Prepared::new(&job, &files, &contents)?;
    let plan = plan_for(context, &prepared, &host)?;
    let said = plan.warnings.clone();
    for warning in &said {
        context.warn(warning);
    }
    let mut loaded = session.load(&prepared, &host, plan)?;
    // Another plan than the first one may have been carried out. What was said holds.
    let lost: Vec<String> = said
        .into_iter()
        .filter(|warning| !loaded.warnings.contains(warning))
        .collect();
    loaded.warn(lost);
    context.print(
        || render::text::loaded(shown(&loaded, &prepared, false), context.global.verbose),
        || render::json::plan(&loaded, prepared.image(), &job.kernel),
    )
}

/// `rkexec plan`.
pub(super) fn plan(context: &Context, args: &PlanArgs) -> anyhow::Result<()> {
    let kernel = ThisKernel::new(&context.root);
    let job = job(&args.load)?;
    let host = host(&session(context, &kernel), &job)?;
    let files = Files::open(&job)?;
    let contents = files.contents()?;
    let prepared = Prepared::new(&job, &files, &contents)?;
    let mut plan = plan_for(context, &prepared, &host)?;
    let refused = warn_of_refusal(&mut plan, &prepared, &host);
    let image = prepared.image();
    // As JSON they are a field.
    if context.is_for_people() {
        for warning in &plan.warnings {
            context.warn(warning);
        }
    }
    if let Some(path) = &args.svg {
        let machine = context.machine();
        let picture = render::svg::plan(&plan, image, machine.as_deref());
        if path.as_os_str() == "-" {
            return super::write_text(&picture);
        }
        std::fs::write(path, picture)
            .with_context(|| format!("writing {} failed", crate::base::bytes::shown_name(path)))?;
    }
    context.print(
        || {
            let detail = render::Detail::of(args.explain, context.global.verbose);
            render::text::plan(shown(&plan, &prepared, refused), detail)
        },
        || render::json::plan(&plan, image, &job.kernel),
    )
}

/// Whether a load of `plan` must fail on the machine `host`. A warning of the plan says why.
pub(super) fn warn_of_refusal(
    plan: &mut Checked<Plan<'_>>,
    prepared: &Prepared<'_>,
    host: &Host,
) -> bool {
    let Some(error) = prepared.refusal(host, plan) else {
        return false;
    };
    let why = &error.cause.why;
    plan.warn([match error.hint() {
        Some(hint) => format!("a load would be refused now: {why} ({hint})"),
        None => format!("a load would be refused now: {why}"),
    }]);
    true
}

/// What is shown of `plan`, which was made from `prepared`; `refused` says whether a load of
/// it must fail.
pub(super) fn shown<'p>(
    plan: &'p Plan<'p>,
    prepared: &'p Prepared<'_>,
    refused: bool,
) -> render::text::Shown<'p> {
    render::text::Shown {
        refused,
        plan,
        image: prepared.image(),
        uki: prepared.uki(),
        files: prepared.files,
    }
}

/// A session that tells the operator through `context`.
pub(super) fn session<'a>(context: &'a Context, kernel: &'a ThisKernel<'a>) -> Session<'a> {
    Session::new(kernel, &context.root, context)
}

impl Tell for Context {
    fn warn(&self, warning: &str) {
        Self::warn(self, warning);
    }

    fn note(&self, line: &str) {
        if !self.global.quiet {
            say(&format!("rkexec: {line}"));
        }
    }
}

/// The facts that the plan of `job` needs.
pub(super) fn host(session: &Session<'_>, job: &Job) -> anyhow::Result<Host> {
    let facts = session.kernel.facts(job.request.target);
    facts.context("planning failed")
}

/// The plan, with a warning if the reservation may be too small for the crash kernel to
/// run. Unpacks the initrds to find out.
pub(super) fn plan_for<'a>(
    context: &Context,
    prepared: &Prepared<'a>,
    host: &Host,
) -> anyhow::Result<Checked<Plan<'a>>> {
    let mut plan = prepared.plan(host, &context.root)?;
    let too_small = sizing::of_plan(&plan, host, prepared);
    plan.warn(too_small);
    Ok(plan)
}

/// The load that the options describe.
pub(super) fn job(args: &LoadArgs) -> anyhow::Result<Job> {
    let dtb = args.dtb.as_deref();
    let dtb = dtb
        .map(|path| files::open(path, "device tree"))
        .transpose()?;
    let dtb = dtb.map(|file| file.bytes().to_vec());
    Ok(args.options(dtb).job(Fresh::draw()?))
}
