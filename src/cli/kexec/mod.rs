//! The drop-in front end: kexec-tools' command line and exit codes, carried out
//! by rkexec's own verbs.

mod complete;
mod exit;
mod getopt;
mod help;
mod options;
mod request;
mod translate;
mod words;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use self::request::{Action, Command, ImageType, Load, Run, Then};
use super::render::json::PlanJson;
use super::{Context, exec, hint, load, render, say, say_error, say_lines, unload, write_out};
use crate::base::Target;
use crate::host;
use crate::host::loaded::Loaded;
use crate::host::security::Security;
use crate::image::Image;
use crate::image::linux::Format;
use crate::image::multiboot::Version;
use crate::load::{Files, Prepared, ThisKernel};

pub(super) use self::complete::command as for_completions;
pub(super) use self::help::man_page;

/// `rkexec kexec`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, disable_version_flag = true)]
pub(super) struct KexecArgs {
    /// What kexec-tools' `kexec` takes: `rkexec kexec --help` lists it.
    #[arg(
        value_name = "ARGUMENT",
        allow_hyphen_values = true,
        trailing_var_arg = true
    )]
    pub(super) arguments: Vec<OsString>,
}

/// Whether the program was called by a name that ends in `kexec`, and not by its own.
pub(super) fn is_name(program: &OsString) -> bool {
    let name = Path::new(program).file_name().unwrap_or_default();
    let name = name.to_string_lossy();
    name.ends_with("kexec") && !name.ends_with("rkexec")
}

/// `rkexec kexec -l x` as clap is to see it: what follows `kexec` is none of its
/// options. A global option before it may have a value.
pub(super) fn shield(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let mut at = 1;
    while let Some(argument) = arguments.get(at) {
        match argument.as_bytes() {
            b"kexec" => {
                arguments.insert(at + 1, "--".into());
                break;
            }
            b"--root" | b"--output" => at += 2,
            [b'-', ..] => at += 1,
            _ => break,
        }
    }
    arguments
}

/// How this front end was called: plain `kexec` may be the one of kexec-tools.
fn called() -> &'static str {
    let program = std::env::args_os().next();
    match program.as_ref().is_some_and(is_name) {
        true => "kexec",
        false => "rkexec kexec",
    }
}

/// Does what `arguments`, without the program's name, ask for.
pub(super) fn main(context: &Context, arguments: &[OsString]) -> ExitCode {
    let command = match request::read(arguments) {
        Ok(command) => command,
        Err(error) => {
            say_error(&format!("rkexec: reading the command line failed: {error}"));
            say(&format!("hint: `{} --help` lists the options", called()));
            return ExitCode::from(exit::bad_request(&error));
        }
    };
    let syscall = command.syscall();
    let context = &Context {
        words: words::of_kexec,
        ..context.clone()
    };
    let code = carry_out(context, command).unwrap_or_else(|error| {
        let words = context.words;
        say_error(&format!("rkexec: {}", words(&format!("{error:#}"))));
        if let Some(hint) = hint(&error) {
            say(&format!("hint: {}", words(&hint)));
        }
        exit::failure(&error, syscall)
    });
    ExitCode::from(code)
}

fn carry_out(context: &Context, command: Command) -> anyhow::Result<u8> {
    match command {
        Command::Help { fails } => {
            write_out(help::help().as_bytes())?;
            return Ok(if fails { exit::DIED } else { 0 });
        }
        Command::Version => {
            let version = format!(
                "rkexec {} with the command line of kexec-tools {}\n",
                env!("CARGO_PKG_VERSION"),
                help::KEXEC_TOOLS
            );
            write_out(version.as_bytes())?;
        }
        Command::CrashSize => {
            let size = Loaded::read(&context.root)?.crash_size.unwrap_or(0);
            write_out(format!("{size}\n").as_bytes())?;
        }
        Command::Status(target) => {
            let loaded = Loaded::read(&context.root)?;
            let state = match target {
                Target::Normal => loaded.normal,
                Target::Crash => loaded.crash,
            };
            return Ok(state.map_or(exit::FAILED, u8::from));
        }
        Command::Run(run) => {
            for note in &run.notes {
                context.warn(note);
            }
            carry_out_run(context, &run)?;
        }
    }
    Ok(0)
}

fn carry_out_run(context: &Context, run: &Run) -> anyhow::Result<()> {
    if !run.dry_run {
        context.on_this_machine("kexec")?;
    }
    match &run.action {
        Action::Unload(target) if run.dry_run => would(
            context,
            match target {
                Target::Normal => "unload the kernel that was loaded with -l",
                Target::Crash => "unload the crash kernel (loaded with -p)",
            },
        ),
        Action::Exec if run.dry_run => would(context, "boot the loaded kernel"),
        Action::Unload(target) => unload::unload(context, *target).map(|_| ()),
        Action::Exec => exec_now(context, run, false),
        Action::Load(load, then) => {
            self::load(context, load, *then, run)?;
            match then {
                Then::Exec if !run.dry_run => exec_now(context, run, false),
                Then::Shutdown if !run.dry_run => exec_now(context, run, true),
                _ => Ok(()),
            }
        }
    }
}

fn would(context: &Context, what: &str) -> anyhow::Result<()> {
    let text = || format!("would {what}\n");
    context.print(text, || serde_json::json!({ "schema": 1, "would": what }))
}

fn exec_now(context: &Context, run: &Run, shutdown: bool) -> anyhow::Result<()> {
    let args = exec::ExecArgs {
        no_sync: run.no_sync,
        sync_limit: exec::SYNC_SECONDS,
        shutdown,
        watchdog: None,
        runs_by_other: true,
    };
    exec::run(context, &args)
}

fn load(context: &Context, load: &Load, then: Then, run: &Run) -> anyhow::Result<()> {
    let security = Security::read(&context.root)?;
    // The same decision, from the same facts, as plan() makes.
    let secure_boot = host::secure_boot(&context.root);
    let file_load_only = security.forbids_kexec_load(secure_boot).is_some()
        || (load.target == Target::Normal && security.kho.forbids_kexec_load().is_some());
    let (args, notes) = translate::load_args(load, file_load_only);
    for note in &notes {
        context.warn(note);
    }
    let kernel = ThisKernel::new(&context.root);
    let session = load::session(context, &kernel);
    let (job, _files) = load::job(context, &args)?;
    let _alone = match run.dry_run {
        true => None,
        false => session.alone()?,
    };
    let host = load::host(&session, &job)?;
    let files = Files::open(&job)?;
    let contents = files.contents()?;
    let prepared = Prepared::new(&job, &files, &contents)?;
    let mut plan = load::plan_for(context, &prepared, &host)?;
    let refused = run.dry_run && load::warn_of_refusal(&mut plan, &prepared, &host);
    if let Some(kind) = load.options.kind {
        check_type(kind, &prepared)?;
    }
    for warning in &plan.warnings {
        context.warn(warning);
    }
    // The text has no warnings: they were said above, in the words of kexec.
    let detail = render::Detail::of(run.debug, false);
    let text = || render::text::plan(load::shown(&plan, &prepared, refused), detail);
    if run.dry_run {
        let json = || PlanJson {
            then: Some(then.name()),
            ..render::json::plan(&plan, prepared.image(), &load.kernel)
        };
        return context.print(
            || text() + &format!("\nafter loading: {}\n", then.shown()),
            json,
        );
    }
    if run.debug {
        say_lines(text().trim_end());
    }
    session.load(&prepared, &host, plan).map(drop)
}

/// Fails unless the file has the type that `--type` names.
fn check_type(wanted: ImageType, prepared: &Prepared<'_>) -> anyhow::Result<()> {
    let (is, name) = match (prepared.uki(), prepared.image()) {
        (Some(_), _) => (ImageType::Uki, "a UKI"),
        (None, Image::Linux(kernel)) => match kernel.format {
            // An older type names every bzImage.
            Format::BzImage if wanted == ImageType::BzImage => (wanted, "a bzImage"),
            Format::BzImage if kernel.is_32_bit() => {
                (ImageType::BzImage, "a bzImage without a 64-bit entry")
            }
            Format::BzImage => (ImageType::BzImage64, "a bzImage"),
            Format::Vmlinux => (ImageType::Elf, "an ELF file"),
        },
        (None, Image::Multiboot(kernel)) => match kernel.version {
            Version::One => (ImageType::Multiboot, "a multiboot kernel"),
            Version::Two => (ImageType::Multiboot2, "a multiboot2 kernel"),
        },
    };
    anyhow::ensure!(
        wanted == is,
        "load failed: the kernel file is {name}, but --type says another type"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt as _;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn the_name_decides() {
        for name in ["kexec", "/sbin/kexec", "./x/my-kexec"] {
            assert!(is_name(&name.into()), "{name}");
        }
        for name in [
            "rkexec",
            "/usr/bin/rkexec",
            "kexec/rkexec",
            "kexec2",
            "",
            "/",
        ] {
            assert!(!is_name(&name.into()), "{name}");
        }
    }

    #[test]
    fn what_follows_kexec_is_shielded() {
        for (given, shielded) in [
            (
                "rkexec kexec -l x --version",
                "rkexec kexec -- -l x --version",
            ),
            (
                "rkexec -q --root d kexec -e",
                "rkexec -q --root d kexec -- -e",
            ),
            ("rkexec --root=d kexec", "rkexec --root=d kexec --"),
            (
                "rkexec --root kexec plan kexec",
                "rkexec --root kexec plan kexec",
            ),
            ("rkexec inspect kexec", "rkexec inspect kexec"),
            ("rkexec", "rkexec"),
        ] {
            assert_eq!(shield(words(given)), words(shielded), "{given}");
        }
        let not_utf8 = OsString::from_vec(b"--root=caf\xe9".to_vec());
        let given = vec!["rkexec".into(), not_utf8, "kexec".into(), "-e".into()];
        assert_eq!(shield(given).get(3), Some(&OsString::from("--")));
    }
}
