//! After a crash kernel could not be loaded: is the machine armed, and can it be again?

use super::call::{After, LoadError};
use super::record::LoadRecord;
use super::session::Session;
use crate::base::Target;
use crate::host::Host;

/// Why the machine cannot be reported as armed.
enum Unarmed {
    /// No crash kernel is loaded. The text ends the message.
    Known(String),
    /// It is not known whether one is loaded. The text is the reason.
    Unknown(String),
}

impl Session<'_> {
    /// Loads the previous crash kernel again if the failed load lost it. Returns `error`
    /// with the start of the message, which says whether the machine is armed.
    ///
    /// `host` is the machine before the load, `before` the record of what was loaded then,
    /// and `error` says why the load failed.
    pub(super) fn after_failure(
        &self,
        host: &Host,
        before: Option<&LoadRecord>,
        error: LoadError,
    ) -> anyhow::Error {
        let what_now = self.armed_after(host, before, &error);
        anyhow::Error::from(error).context(what_now)
    }

    fn armed_after(&self, host: &Host, before: Option<&LoadRecord>, error: &LoadError) -> String {
        if let LoadError::Changed {
            after: After::StillLoaded(_),
            ..
        } = error
        {
            return "load failed, and what a panic boots now is not to be trusted".to_owned();
        }
        let outcome = match is_busy(error) {
            true => Err(Unarmed::Unknown(
                "another program is loading a kernel now".to_owned(),
            )),
            false => self.still_armed(host, before),
        };
        match outcome {
            Ok(how) => format!("load failed, and {how}"),
            Err(Unarmed::Known(why)) => {
                self.forget(Target::Crash);
                format!("load failed, and the machine is NOT armed{why}")
            }
            Err(Unarmed::Unknown(why)) => {
                format!("load failed, and whether the machine is armed is not known: {why}")
            }
        }
    }

    /// Why the machine is armed, or why it is not.
    fn still_armed(
        &self,
        host: &Host,
        before: Option<&LoadRecord>,
    ) -> Result<&'static str, Unarmed> {
        let was_armed = host.loaded.crash == Some(true);
        let untold = match self.kernel.is_crash_loaded() {
            Ok(Some(true)) if was_armed => {
                return Ok("the crash kernel loaded before stays armed");
            }
            Ok(Some(true)) => return Ok("a crash kernel that another program loaded is armed"),
            Ok(Some(false)) if !was_armed => return Err(Unarmed::Known(String::new())),
            Ok(Some(false)) => None,
            Ok(None) => Some("the running kernel does not tell".to_owned()),
            Err(error) => Some(format!("{:#}", anyhow::Error::from(error))),
        };
        let again = match before {
            None => Err("there is no record of it".to_owned()),
            Some(record) => self
                .load_again(record)
                .map_err(|error| format!("loading it again failed as well ({error:#})")),
        };
        match (again, untold) {
            (Ok(()), _) => Ok(
                "the crash kernel loaded before, which the attempt had thrown out, is armed again",
            ),
            (Err(why), None) => Err(Unarmed::Known(format!(
                ": the crash kernel loaded before is lost, and {why}"
            ))),
            (Err(_), Some(untold)) => Err(Unarmed::Unknown(untold)),
        }
    }
}

/// Whether the kernel refused because it was busy with another load.
fn is_busy(error: &LoadError) -> bool {
    match error {
        LoadError::Sys(error) => error.errno.map(crate::sys::Errno::number) == Some(libc::EBUSY),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use crate::base::{Syscall, Target};
    use crate::host::Root;
    use crate::host::security::Security;
    use crate::load::LoadError;
    use crate::load::fake::Told;
    use crate::load::{Session, ThisKernel};
    use crate::refusal::{CallFacts, SysError};
    use crate::sys::Errno;

    /// The message for a load that fails with `errno`: `was` tells whether the machine was
    /// armed before, `now` what the kernel says after it.
    fn said(was: bool, now: Option<&str>, errno: i32) -> String {
        let dir = tempfile::tempdir().unwrap();
        if let Some(now) = now {
            let kernel = dir.path().join("sys/kernel");
            std::fs::create_dir_all(&kernel).unwrap();
            std::fs::write(kernel.join("kexec_crash_loaded"), now).unwrap();
        }
        let root = Root::at(dir.path());
        let (kernel, told) = (ThisKernel::new(&root), Told::default());
        let session = Session::new(&kernel, &root, &told);
        let mut host = crate::testing::host::host("00100000-3fffffff : System RAM\n");
        host.loaded.crash = Some(was);
        let security = Security::default();
        let facts = CallFacts::new(Syscall::KexecLoad, Target::Crash, &security, &host.loaded);
        let error = LoadError::Sys(SysError::failed(&facts, Errno::new(errno)));
        session.after_failure(&host, None, error).to_string()
    }
    #[test]
    fn not_armed_is_said_only_of_a_machine_that_is_not() {
        let (armed, not) = (Some("1\n"), Some("0\n"));
        let failed = libc::EADDRNOTAVAIL;
        for (was, now, errno, what) in [
            (
                true,
                armed,
                failed,
                "the crash kernel loaded before stays armed",
            ),
            // Loaded by another program between the look and the call.
            (
                false,
                armed,
                failed,
                "a crash kernel that another program loaded is armed",
            ),
            (false, not, failed, "the machine is NOT armed"),
            (
                true,
                not,
                failed,
                "the machine is NOT armed: the crash kernel loaded before is lost, and there is no record of it",
            ),
            (
                true,
                None,
                failed,
                "whether the machine is armed is not known: the running kernel does not tell",
            ),
            (
                false,
                Some("?\n"),
                failed,
                "whether the machine is armed is not known: /sys/kernel/kexec_crash_loaded: `?` is neither 0 nor 1",
            ),
            (
                false,
                not,
                libc::EBUSY,
                "whether the machine is armed is not known: another program is loading a kernel now",
            ),
        ] {
            let expected = format!("load failed, and {what}");
            assert_eq!(said(was, now, errno), expected);
        }
    }
}
