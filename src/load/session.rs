//! One load, from the lock to the record: what is tried again, what is loaded again, and
//! what is said of it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Instant;

use super::call::{self, LoadError};
use super::door::RunningKernel;
use super::exec_page::{self, Timed};
use super::files::Files;
use super::lock::{self, Lock, LockError};
use super::prepared::Prepared;
use super::record::{LoadRecord, SetAside};
use crate::base::{Syscall, Target};
use crate::host::{Host, HostError, Root};
use crate::job::Fresh;
use crate::plan::{Checked, Plan};
use crate::request::SyscallChoice;
use crate::sys::Errno;

/// How often a crash kernel is loaded while memory or CPUs come and go.
const LOADS: u32 = 3;

/// Who is told what the operator should know.
pub trait Tell {
    /// A warning.
    fn warn(&self, warning: &str);
    /// A line about what goes on.
    fn note(&self, line: &str);
}

/// What a load works with.
pub struct Session<'s> {
    /// The kernel that runs.
    pub kernel: &'s dyn RunningKernel,
    /// Where records, lock and configurations of kernels are.
    pub root: &'s Root,
    /// Who is told.
    pub tell: &'s dyn Tell,
    /// Warnings about records: each is said once.
    said: RefCell<BTreeSet<String>>,
    /// When it began: the next kernel's `report` says how long a load took.
    started: Instant,
}

impl<'s> Session<'s> {
    /// A session with `kernel`, whose files are below `root`.
    #[must_use]
    pub fn new(kernel: &'s dyn RunningKernel, root: &'s Root, tell: &'s dyn Tell) -> Self {
        Self {
            kernel,
            root,
            tell,
            said: RefCell::default(),
            started: Instant::now(),
        }
    }

    /// Holds off the loads of other rkexecs, from the look at what is loaded until the
    /// record is kept. Where there is no place for a lock (a read-only /run), a warning
    /// says so.
    ///
    /// # Errors
    /// When another rkexec has it and does not end.
    pub fn alone(&self) -> Result<Option<Lock>, LockError> {
        self.alone_within(lock::LIMIT)
    }

    pub(super) fn alone_within(
        &self,
        limit: std::time::Duration,
    ) -> Result<Option<Lock>, LockError> {
        let waiting = |pid| {
            let other = lock::other(pid);
            self.tell.note(&format!("{other} is loading: waiting"));
        };
        match Lock::take(self.root, limit, std::thread::sleep, waiting) {
            Ok(lock) => Ok(Some(lock)),
            Err(error @ LockError::Io { .. }) => {
                // No warning for users other than root: the kernel refuses their loads anyway.
                if nix::unistd::geteuid().is_root() {
                    self.tell.warn(&format!(
                        "no other rkexec is kept from loading at the same time: {:#}",
                        anyhow::Error::from(error)
                    ));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The record of what is loaded for `target` on the machine `host`.
    ///
    /// # Errors
    /// As [`LoadRecord::of_loaded`].
    pub fn recorded(&self, target: Target, host: &Host) -> Result<Option<LoadRecord>, HostError> {
        let warn = |warning: &str| {
            if self.said.borrow_mut().insert(warning.to_owned()) {
                self.tell.warn(warning);
            }
        };
        LoadRecord::of_loaded(self.root, target, &host.loaded, &warn)
    }

    /// Loads what `plan` says, which was made of `prepared` for `host`, and keeps the
    /// record of it. Returns the plan that was carried out, which may be another one:
    ///
    /// - If the kernel refuses kexec_load for a reason that no fact tells (a security
    ///   module, a filter), and the choice is free, the load is planned again without that
    ///   call. The refused call changed nothing.
    /// - If memory or CPUs came or went meanwhile, a crash kernel is loaded again for the
    ///   machine as it is now.
    ///
    /// # Errors
    /// When it is not loaded. A crash kernel that was lost by that is loaded again if
    /// possible, and the error says whether the machine is armed.
    pub fn load<'a>(
        &self,
        prepared: &Prepared<'a>,
        host: &Host,
        plan: Checked<Plan<'a>>,
    ) -> anyhow::Result<Checked<Plan<'a>>> {
        let (mut host, mut plan) = (Cow::Borrowed(host), plan);
        let mut loads = LOADS;
        loop {
            match self.attempt(prepared, &host, &plan)? {
                Ok(record) => {
                    loads -= 1;
                    let Some(now) = self.changed_meanwhile(&record, loads) else {
                        return Ok(plan);
                    };
                    // A refused call showed it, and no file of the host tells it.
                    let refused = host.security.kexec_load_refused;
                    host = Cow::Owned(now);
                    host.to_mut().security.kexec_load_refused = refused;
                    plan = prepared.plan(&host, self.root)?;
                }
                Err(refused) => {
                    let why = format!("{refused:#}; kexec_file_load is tried");
                    self.tell.warn(&why);
                    host.to_mut().security.kexec_load_refused = true;
                    let other = prepared.plan(&host, self.root)?;
                    let said = &plan.warnings;
                    for warning in other.warnings.iter().filter(|new| !said.contains(new)) {
                        self.tell.warn(warning);
                    }
                    plan = other;
                }
            }
        }
    }

    /// Makes the call and keeps the record. The inner error is a refusal of kexec_load
    /// after which the other call may be tried.
    fn attempt(
        &self,
        prepared: &Prepared<'_>,
        host: &Host,
        plan: &Checked<Plan<'_>>,
    ) -> anyhow::Result<Result<LoadRecord, anyhow::Error>> {
        let target = plan.target();
        // Only a crash kernel is loaded again when a load fails.
        let before = match target {
            Target::Normal => None,
            Target::Crash => self.recorded(target, host)?,
        };
        let record = prepared.record(self.root, host, plan)?;
        let Err(error) = self.call(prepared, host, plan, &record) else {
            return Ok(Ok(record));
        };
        let may_try_other = prepared.job.request.syscall == SyscallChoice::Auto
            && plan.syscall() == Syscall::KexecLoad
            && !host.security.kexec_load_refused
            && is_refusal(&error);
        let error = match target {
            Target::Normal => error.into(),
            Target::Crash => self.after_failure(host, before.as_ref(), error),
        };
        match may_try_other {
            true => Ok(Err(error)),
            false => Err(error),
        }
    }

    /// The system call, and the record of what is loaded by it.
    fn call(
        &self,
        prepared: &Prepared<'_>,
        host: &Host,
        plan: &Checked<Plan<'_>>,
        record: &LoadRecord,
    ) -> Result<(), LoadError> {
        let (image, files) = (prepared.image(), prepared.files);
        let timed = Timed::of(plan, self.root);
        let purgatory = timed.as_ref().map(|timed| &*timed.purgatory);
        let before = LoadRecord::set_aside(self.root, plan.target());
        call::load(self.kernel, plan, host, image, files, purgatory).inspect_err(|error| {
            if error.has_replaced() {
                self.forget(plan.target());
            } else if let Some(Err(error)) = before.map(SetAside::restore) {
                let error = anyhow::Error::from(error);
                self.tell
                    .warn(&format!("the record of what is loaded is lost: {error:#}"));
            }
        })?;
        match timed {
            Some(timed) => timed.keep(self.root, self.started.elapsed()),
            None if plan.target() == Target::Normal => exec_page::remove(self.root),
            None => {}
        }
        if let Err(error) = record.write(self.root) {
            if record.at_exec.is_some() {
                let after = call::unload_again(self.kernel, plan, host, image);
                self.forget(plan.target());
                let source = error;
                return Err(LoadError::NotRecorded { source, after });
            }
            self.tell.warn(&format!(
                "what was loaded is not recorded: {:#}",
                anyhow::Error::from(error)
            ));
            self.forget(plan.target());
        }
        Ok(())
    }

    /// Hotplug between planning and the call is in no plan, and the kernel updates only an
    /// image that is already loaded. Returns fresh facts if a reload is needed, and `loads`
    /// is how many may follow.
    fn changed_meanwhile(&self, record: &LoadRecord, loads: u32) -> Option<Host> {
        let fit = record.fit.as_ref()?;
        let now = self
            .kernel
            .facts(Target::Crash)
            .map_err(anyhow::Error::from)
            .and_then(|host| Ok((fit.now(&host)?, host)));
        match now {
            Ok((now, host)) => match fit.outdated(&now) {
                Some(why) if loads == 0 => {
                    self.tell.warn(&format!(
                        "loaded, but already out of date, because memory or CPUs are still changing: {why}"
                    ));
                    None
                }
                outdated => outdated.map(|_| host),
            },
            Err(error) => {
                self.tell.warn(&format!(
                    "it is loaded, and whether it fits the machine is not known: {error:#}"
                ));
                None
            }
        }
    }

    /// Removes the record of an image that is no longer loaded.
    pub(super) fn forget(&self, target: Target) {
        if let Err(error) = LoadRecord::remove(self.root, target) {
            let error = anyhow::Error::from(error);
            self.tell
                .warn(&format!("the record of what was loaded stays: {error:#}"));
        }
    }

    /// Loads what `record` says, if its files have not changed.
    pub(super) fn load_again(&self, record: &LoadRecord) -> anyhow::Result<()> {
        let job = record.job(Fresh::draw()?)?;
        let mut host = self.kernel.facts(job.request.target)?;
        record.teach(job.request.syscall, &mut host.security);
        let files = Files::open(&job)?;
        let contents = files.contents()?;
        let prepared = Prepared::new(&job, &files, &contents)?;
        let plan = prepared.plan(&host, self.root)?;
        let same = match (&plan.blobs, &record.blobs) {
            (Some(now), Some(then)) => now.may_be(then),
            (now, then) => now == then,
        };
        if !same {
            anyhow::bail!("its files are no longer what they were");
        }
        let record = prepared.record(self.root, &host, &plan)?;
        Ok(self.call(&prepared, &host, &plan, &record)?)
    }
}

/// Whether the kernel refused the call before doing anything.
fn is_refusal(error: &LoadError) -> bool {
    match error {
        LoadError::Sys(error) => error.errno.is_some_and(Errno::is_refusal),
        _ => false,
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
#[cfg(test)]
#[path = "timed_tests.rs"]
mod timed_tests;
