//! `rkexec arm`: the crash kernel of the configuration is loaded, if what is
//! loaded is not already that.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::load::{Planned, alone, carry_out, now, random_seed, with_quick_plan};
use super::render::json::insert;
use super::{Context, Output, Usage, render, write_text};
use crate::arm::config::{Config, DEFAULT_PATH, WhenImpossible};
use crate::arm::watch::{Kernel, Machine, State, watch};
use crate::base::bytes::shown_name;
use crate::base::{Target, printable};
use crate::host::Host;
use crate::host::environment::Environment;
use crate::host::loaded::Loaded;
use crate::load::record::{Job, LoadRecord};
use crate::request::LoadRequest;

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
}

/// Whatever went wrong. A wrong configuration exits with 1, not 2, which is for usage.
#[derive(Debug, thiserror::Error)]
#[error("arm failed")]
struct ArmError(#[source] anyhow::Error);

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
    context.on_this_machine("arm")?;
    if args.watch && context.global.output == Output::Json {
        let why = "arm failed: --watch says each decision in a line, and --output json does not go with that";
        return Err(Usage(why.to_owned()).into());
    }
    arm(context, args).map_err(|error| ArmError(error).into())
}

fn arm(context: &Context, args: &ArmArgs) -> anyhow::Result<()> {
    let config = Config::read(&args.config)?;
    let mut arming = Arming { context, config };
    // What happens while it loads is found afterwards.
    let mut outside = if args.watch {
        Some(Kernel::listen().context("listening to the kernel failed")?)
    } else {
        None
    };
    let armed = match arming.once() {
        Ok(armed) => armed,
        Err(error) => return arming.forgive(error),
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

/// What `arm` came to.
struct Armed {
    kernel: PathBuf,
    /// Why it was loaded now; `None` when it was loaded before.
    because: Option<String>,
}

impl Armed {
    fn line(&self) -> String {
        let kernel = shown_name(&self.kernel);
        match &self.because {
            Some(why) => format!("armed with {kernel}: {why}"),
            None => format!("armed with {kernel} already: nothing is loaded"),
        }
    }

    fn to_json(&self) -> serde_json::Value {
        let mut json = json!({
            "schema": 1,
            "armed": true,
            "loaded": self.because.is_some(),
            "reason": self.because,
        });
        if let Some(fields) = json.as_object_mut() {
            insert(fields, "kernel", self.kernel.as_os_str().as_bytes());
        }
        json
    }
}

/// This machine and its configuration.
struct Arming<'a> {
    context: &'a Context,
    config: Config,
}

impl Arming<'_> {
    /// Plans what the configuration asks for, and finds out in what the loaded
    /// crash kernel differs from it: `None` when it does not.
    fn plan<T>(
        &self,
        then: impl FnOnce(&Planned<'_>, &LoadRecord, Option<String>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let root = &self.context.root;
        let _alone = alone(self.context)?;
        let environment = Environment::read(root)?;
        possible(&self.config, environment, &Loaded::read(root)?)?;
        let mut host = Host::read_for_crash(root)?;
        let job = job(&self.config, &host.release)?;
        let record = LoadRecord::of_loaded(root, Target::Crash, &host.loaded)?;
        if let Some(record) = &record {
            record.teach(job.request.syscall, &mut host.security);
        }
        with_quick_plan(self.context, &host, &job, |planned| {
            let wanted = planned.record(root)?;
            let differs = match &record {
                Some(record) => record.differs(&wanted),
                None if host.loaded.crash == Some(true) => {
                    Some("which crash kernel was loaded before is not recorded".to_owned())
                }
                None => Some("no crash kernel was loaded".to_owned()),
            };
            then(planned, &wanted, differs)
        })
    }

    /// Loads the crash kernel, if it must be.
    fn once(&self) -> anyhow::Result<Armed> {
        self.plan(|planned, wanted, differs| {
            if differs.is_some() {
                self.load(planned)?;
            }
            Ok(Armed {
                kernel: wanted.kernel.clone(),
                because: differs,
            })
        })
    }

    fn load(&self, planned: &Planned<'_>) -> anyhow::Result<()> {
        for warning in planned.plan.warnings.iter().chain(&planned.too_small()) {
            self.context.warn(warning);
        }
        carry_out(self.context, planned, &|_| Ok(()))
    }

    /// A machine that cannot be armed is a warning, where the configuration says so.
    fn forgive(&self, error: anyhow::Error) -> anyhow::Result<()> {
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
        self.context.print(
            String::new,
            || json!({ "schema": 1, "armed": armed, "loaded": false, "reason": why }),
        )
    }
}

impl Machine for Arming<'_> {
    fn assess(&mut self) -> anyhow::Result<State> {
        let root = &self.context.root;
        let loaded = Loaded::read(root)?;
        if loaded.crash == Some(true) && loaded.kernel_updates() == Some(true) {
            return Ok(State::Fits(
                "the kernel updates what is loaded itself".to_owned(),
            ));
        }
        self.plan(|_, _, differs| {
            let fits = || State::Fits("what is loaded fits the machine".to_owned());
            Ok(differs.map_or_else(fits, State::Stale))
        })
    }

    fn arm(&mut self) -> anyhow::Result<String> {
        self.plan(|planned, wanted, _| {
            self.load(planned)?;
            Ok(format!("armed with {}", shown_name(&wanted.kernel)))
        })
    }
}

/// The load that `config` describes, on a machine that runs `release`.
fn job(config: &Config, release: &str) -> anyhow::Result<Job> {
    Ok(Job {
        kernel: config.kernel(release),
        initrds: config.initrds(release),
        addons: Vec::new(),
        profile: None,
        wish: None,
        modules: Vec::new(),
        request: LoadRequest {
            cmdline: config.cmdline(),
            syscall: config.syscall(),
            no_digest: !config.digest,
            seed: Some(random_seed()?),
            time: now(),
            target: Target::Crash,
            hotplug: config.hotplug,
            ..LoadRequest::default()
        },
    })
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
            "boot with crashkernel=512M (or more) on the kernel's command line",
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
mod tests {
    use super::*;
    use std::path::Path;

    fn config(more: &str) -> Config {
        let text = format!("kernel = '/boot/vmlinuz-{{release}}'\n{more}");
        Config::parse(&text, Path::new("f.toml")).unwrap()
    }

    #[test]
    fn what_makes_arming_impossible() {
        let why = |minimum: &str, crash, crash_size| {
            let config = config(&format!("minimum_reservation = '{minimum}'"));
            let loaded = Loaded {
                crash,
                crash_size,
                ..Loaded::default()
            };
            possible(&config, Environment::Usual, &loaded)
                .err()
                .map(|error| error.why)
        };
        assert_eq!(why("0", Some(false), Some(64 << 20)), None);
        assert_eq!(why("64M", Some(true), Some(64 << 20)), None);
        let none = "no memory is reserved for a crash kernel";
        assert_eq!(why("0", Some(false), Some(0)).as_deref(), Some(none));
        assert_eq!(why("0", Some(false), None).as_deref(), Some(none));
        assert!(
            why("0", None, None)
                .unwrap()
                .contains("does not support crash")
        );
        let small = why("192M", Some(false), Some(64 << 20)).unwrap();
        assert!(
            small.contains("64 MiB") && small.contains("192 MiB"),
            "{small}"
        );
        let dom0 = Environment::XenPv { dom0: Some(true) };
        let none = Loaded::default();
        let refused = possible(&config(""), dom0, &none).unwrap_err();
        assert!(refused.way_out.contains("Xen's own command line"));
    }

    #[test]
    fn the_configuration_becomes_a_load() {
        let config = config(
            "initrd = ['/i-{release}', '/j']
             syscall = 'kexec_load'
             hotplug = 'off'
             digest = false",
        );
        let job = job(&config, "6.1").unwrap();
        assert_eq!(job.kernel, Path::new("/boot/vmlinuz-6.1"));
        assert_eq!(job.initrds, [Path::new("/i-6.1"), Path::new("/j")]);
        let request = job.request;
        assert!(request.no_digest && request.seed.is_some() && request.time > 0);
        assert_eq!(request.target, Target::Crash);
        assert_eq!(request.hotplug, crate::crash::HotplugChoice::Off);
        assert_eq!(request.cmdline, config.cmdline());
        assert_eq!(request.syscall, config.syscall());
    }
}
