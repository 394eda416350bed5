//! `rkexec reboot`: loads a boot entry or a kernel, and has the init system reboot into it.

use anyhow::Context as _;

use super::boot_entry::Chosen;
use super::exec::{self, ExecArgs};
use super::options::LoadArgs;
use super::shutdown::{Shutdown, systemd_version};
use super::watchdog::way_back;
use super::{Context, Usage, load, render, report};
use crate::base::bytes::{shown, shown_name};
use crate::job::Job;
use crate::load::carry::AtExec;

const FAILED: &str = "reboot failed";
const AT_ONCE: &str = "the init system has no command that boots the loaded kernel, so rkexec boots it at once: services are not stopped";

/// It is loaded, and the machine did not go into it.
#[derive(Debug, thiserror::Error)]
#[error("reboot failed: {what} is loaded, and was not booted")]
pub(super) struct NotBooted {
    what: String,
    #[source]
    error: anyhow::Error,
}

impl NotBooted {
    pub(super) const HINT: &str = "`rkexec exec` boots it at once, without stopping services; `rkexec unload` takes it away, and the next reboot \
         goes through the firmware";
}

pub(super) fn run(context: &Context, args: &LoadArgs) -> anyhow::Result<()> {
    context.on_this_machine("reboot")?;
    if let Some(refusal) = refused(args) {
        return Err(refusal.into());
    }
    let shutdown = Shutdown::find(&context.root);
    let shutdown = shutdown.filter(Shutdown::boots_what_is_loaded);
    let shutdown = shutdown.map(|it| it.looked_at(&context.root, systemd_version));
    if let Some(shutdown) = &shutdown {
        shutdown.can_jump().context(FAILED)?;
    }
    let then = ExecArgs {
        no_sync: false,
        sync_limit: exec::SYNC_SECONDS,
        shutdown: shutdown.is_some(),
        watchdog: None,
        runs_by_other: false,
    };
    let (job, chosen) = load::chosen(context, args)?;
    if shutdown.is_none() {
        // What is against the watchdog is found before anything is loaded.
        let watchdog = args.watchdog;
        way_back(context, &ExecArgs { watchdog, ..then }, None)?;
    }
    load::carry_out(
        context,
        &job,
        |host, plan| {
            let at_exec = AtExec::of(&job, host, plan).unwrap_or_default();
            match &shutdown {
                Some(shutdown) => shutdown.of_files(&at_exec.files).map(drop).context(FAILED),
                None => Ok(()),
            }
        },
        |loaded, prepared| {
            let what = named(&job, chosen.as_ref(), render::text::name(prepared.image()));
            let text = || {
                let plan = load::shown(loaded, prepared, false);
                let plan = match context.global.verbose {
                    true => render::text::plan(plan, render::Detail::Short) + "\n",
                    false => String::new(),
                };
                let way = shutdown.as_ref().map(Shutdown::shown);
                let last = report::last_kexec(&context.root);
                plan + &line(&what, way.as_deref(), last.as_deref())
            };
            let json = || render::json::plan(loaded, prepared.image(), &job.kernel);
            let printed = context.print(text, json);
            // No other rkexec loads before the init system has accepted it: what is booted is
            // what the line names.
            boot(what, printed, || {
                if shutdown.is_none() {
                    context.warn(AT_ONCE);
                }
                // What the init system runs sees the machine's own mounts.
                drop(chosen);
                exec::run(context, &then)
            })
        },
    )
}

/// Boots `what`, which is loaded, once it is `printed`. A failure of either says that it is
/// loaded.
fn boot(
    what: String,
    printed: anyhow::Result<()>,
    go: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let booted = printed.and_then(|()| go());
    booted.map_err(|error| NotBooted { what, error }.into())
}

/// Why nothing is loaded whatever the plan says.
fn refused(args: &LoadArgs) -> Option<Usage> {
    let why = "reboot failed: --panic loads a crash kernel, which only a panic boots; `rkexec load --panic` loads it";
    args.panic.then(|| Usage(why.to_owned()))
}

/// What is booted: the title of the entry or the kernel's file, then the kernel's release and
/// the entry's id.
fn named(job: &Job, chosen: Option<&Chosen>, release: &str) -> String {
    let Some(chosen) = chosen else {
        return format!("{} ({release})", shown_name(&job.kernel));
    };
    let id = shown(&chosen.entry.id);
    let once = chosen.once();
    match &chosen.entry.title {
        Some(title) if *title != chosen.entry.id => {
            format!("{} ({release}, boot entry `{id}`{once})", shown(title))
        }
        _ => format!("the boot entry `{id}` ({release}{once})"),
    }
}

/// The line before: what is booted, by whom, and how long the last time took.
fn line(what: &str, way: Option<&str>, last: Option<&str>) -> String {
    let by = way.map_or_else(|| "at once".to_owned(), |way| format!("by {way}"));
    let last = last.map(|last| format!("; {last}")).unwrap_or_default();
    format!("booting {what} {by}{last}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{exit_code, hint};
    use crate::entries::find::{Entry, Source};
    use std::process::ExitCode;

    fn chosen(title: Option<&str>, one_shot: bool) -> Chosen {
        let mut entry = Entry::new("simple", Source::Grub, "/boot/grub/grub.cfg");
        entry.title = title.map(str::to_owned);
        entry.one_shot = one_shot;
        Chosen::of(entry)
    }

    #[test]
    fn the_line_before() {
        let job = Job {
            kernel: "/boot/vmlinuz".into(),
            ..Job::default()
        };
        let named = |chosen: Option<&Chosen>| named(&job, chosen, "6.1.0");
        assert_eq!(named(None), "/boot/vmlinuz (6.1.0)");
        let debian = chosen(Some("Debian"), false);
        assert_eq!(named(Some(&debian)), "Debian (6.1.0, boot entry `simple`)");
        assert_eq!(
            named(Some(&chosen(Some("simple"), true))),
            "the boot entry `simple` (6.1.0, which the boot loader would start once, and still will at the next cold boot)"
        );
        assert_eq!(
            line("x", Some("systemctl kexec"), Some("the last took 1 s")),
            "booting x by systemctl kexec; the last took 1 s\n"
        );
        assert_eq!(line("x", None, None), "booting x at once\n");
    }

    #[test]
    fn what_is_loaded_and_not_booted_is_named() {
        let error = anyhow::Error::from(NotBooted {
            what: "x".to_owned(),
            error: anyhow::anyhow!("exec failed: y ended"),
        });
        assert_eq!(
            format!("{error:#}"),
            "reboot failed: x is loaded, and was not booted: exec failed: y ended"
        );
        assert!(hint(&error).unwrap().starts_with("`rkexec exec` boots it"));
        assert_eq!(exit_code(&error), ExitCode::from(1));
    }

    /// A line that cannot be printed (EPIPE) keeps the machine up, and what is loaded is said.
    #[test]
    fn what_is_not_printed_is_not_booted() {
        let printed = Err(anyhow::anyhow!("printing failed"));
        let error = boot("x".to_owned(), printed, || panic!("it is not booted")).unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "reboot failed: x is loaded, and was not booted: printing failed"
        );
        let went = std::cell::Cell::new(false);
        let go = || {
            went.set(true);
            Ok(())
        };
        boot("x".to_owned(), Ok(()), go).unwrap();
        assert!(went.get());
    }

    #[test]
    fn a_crash_kernel_is_refused() {
        let mut args = LoadArgs::of(std::path::Path::new("/k"));
        args.panic = true;
        let error = anyhow::Error::from(refused(&args).unwrap());
        assert!(error.to_string().starts_with("reboot failed: --panic "));
        assert_eq!(exit_code(&error), ExitCode::from(2));
        assert!(refused(&LoadArgs::default()).is_none());
    }
}
