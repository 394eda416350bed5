//! `rkexec load` and `rkexec plan`. Both make the same plan; `plan` stops before
//! the system call.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bstr::ByteSlice as _;
use clap::Args;

use super::boot_entry::{self, Chosen};
use super::options::LoadArgs;
use super::{Context, render, say};
use crate::entries::choice;
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
    let (job, _files) = job(context, args)?;
    let print = |loaded: &Checked<Plan<'_>>, prepared: &Prepared<'_>| {
        context.print(
            || render::text::loaded(shown(loaded, prepared, false), context.global.verbose),
            || render::json::plan(loaded, prepared.image(), &job.kernel),
        )
    };
    carry_out(context, &job, |_, _| Ok(()), print)
}

/// Loads `job`. `may` sees the plan before the load, and may refuse it; `then` sees what was
/// loaded. No other rkexec loads meanwhile.
pub(super) fn carry_out<T>(
    context: &Context,
    job: &Job,
    may: impl FnOnce(&Host, &Plan<'_>) -> anyhow::Result<()>,
    then: impl FnOnce(&Checked<Plan<'_>>, &Prepared<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let kernel = ThisKernel::new(&context.root);
    let session = session(context, &kernel);
    let _alone = session.alone()?;
    let host = host(&session, job)?;
    let files = Files::open(job)?;
    let contents = files.contents()?;
    let prepared = Prepared::new(job, &files, &contents)?;
    let plan = plan_for(context, &prepared, &host)?;
    may(&host, &plan)?;
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
    then(&loaded, &prepared)
}

/// `rkexec plan`.
pub(super) fn plan(context: &Context, args: &PlanArgs) -> anyhow::Result<()> {
    let kernel = ThisKernel::new(&context.root);
    let (job, _files) = job(context, &args.load)?;
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
    let sizing = prepared.sizing(&plan);
    let too_small = sizing.and_then(|sizing| sizing.too_small(host.cmdline.as_bstr()));
    plan.warn(too_small);
    Ok(plan)
}

/// The load that the options describe, with the boot entry that they name. Its files are
/// there until that is dropped.
pub(super) fn job(context: &Context, args: &LoadArgs) -> anyhow::Result<(Job, Option<Chosen>)> {
    let (job, chosen) = chosen(context, args)?;
    let line = chosen
        .as_ref()
        .and_then(|chosen| chosen.line(args.entry.as_deref()));
    if let Some(line) = line {
        context.note(&line);
    }
    Ok((job, chosen))
}

/// The load that the options describe, and the boot entry that they name: the default one
/// where they name no kernel. Which one it is, is not said.
pub(super) fn chosen(context: &Context, args: &LoadArgs) -> anyhow::Result<(Job, Option<Chosen>)> {
    let dtb = args.dtb.as_deref().map(device_tree).transpose()?;
    let mut options = args.options(dtb);
    let mut chosen = None;
    if args.kernel.is_none() {
        let name = args.entry.as_deref().unwrap_or(choice::DEFAULT);
        let entry = boot_entry::of_name(context, name, &boot_entry::replaced(&options))?;
        entry.warn(context, options.rest.target);
        options = options.or_entry(entry.files.clone());
        chosen = Some(entry);
    }
    Ok((options.job(Fresh::draw()?), chosen))
}

/// The bytes of a device tree.
pub(super) fn device_tree(path: &Path) -> anyhow::Result<Vec<u8>> {
    Ok(files::open(path, "device tree")?.bytes().to_vec())
}
