//! The way back of `exec`: a watchdog that resets the machine when the next kernel hangs.

use std::io;

use crate::host::Root;
use crate::host::openers::openers;
use crate::host::watchdog::{Watchdog, Watchdogs};
use crate::refusal::Cause;
use crate::refusal::watchdog::{self, Holder};
use crate::sys;

/// Why a watchdog is not armed.
#[derive(Debug, thiserror::Error)]
#[error("exec failed: {}", .0.why)]
pub struct WatchdogError(Cause);

impl WatchdogError {
    /// What is against it.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.0.why
    }

    /// A way out, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

/// What is to be armed before the jump.
#[derive(Debug)]
pub struct WayBack {
    device: Watchdog,
    seconds: u64,
}

/// A watchdog that counts.
#[derive(Debug)]
pub struct Armed {
    device: Watchdog,
    seconds: u64,
    timer: sys::watchdog::Armed,
}

impl WayBack {
    /// The watchdog of this machine that can count `seconds`. Nothing is opened yet.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(root: &Root, seconds: u64) -> anyhow::Result<Self> {
        let watchdogs = Watchdogs::read(root)?;
        let device = watchdog::choose(&watchdogs, seconds).map_err(WatchdogError)?;
        Ok(Self {
            device: device.clone(),
            seconds,
        })
    }

    /// Why another program keeps it from being armed; `None` when none is known.
    #[must_use]
    pub fn held(&self, root: &Root) -> Option<WatchdogError> {
        let holder = holder(root, &self.device.name)?;
        let cause = watchdog::held(&self.device, self.seconds, Some(&holder));
        Some(WatchdogError(cause))
    }

    /// What it counts while another program holds it.
    #[must_use]
    pub fn runs_already(&self) -> String {
        let time = match self.device.timeout {
            Some(seconds) => format!("{seconds} seconds"),
            None => "the time of that program".to_owned(),
        };
        format!("it counts {time}, not {}", self.seconds)
    }

    /// Arms it: from now on the machine is reset in that time. Gives a warning when it
    /// counts longer.
    ///
    /// # Errors
    /// When it cannot be opened, or counts less; then it is stopped again.
    pub fn arm(self, root: &Root) -> Result<(Armed, Option<String>), WatchdogError> {
        let path = root.path(&format!("/dev/{}", self.device.name));
        let timer = sys::watchdog::Armed::open(&path)
            .map_err(|error| WatchdogError(self.not_opened(&error)))?;
        let counts = match timer.set(self.seconds) {
            Ok(granted) => watchdog::counts(&self.device, self.seconds, granted, timer.left()),
            Err(errno) => Err(Cause::new(format!(
                "{} does not tell its time: {errno}",
                self.device
            ))),
        };
        let armed = Armed {
            device: self.device,
            seconds: self.seconds,
            timer,
        };
        match counts {
            Ok(warning) => Ok((armed, warning)),
            Err(mut cause) => {
                if let Err(counts_on) = armed.disarm() {
                    cause.why = format!("{}; {counts_on}", cause.why);
                }
                Err(WatchdogError(cause))
            }
        }
    }

    fn not_opened(&self, error: &io::Error) -> Cause {
        match error.raw_os_error() {
            Some(libc::EBUSY) => watchdog::held(&self.device, self.seconds, None),
            _ => Cause::new(format!("opening /dev/{}: {error}", self.device.name)),
        }
    }
}

impl Armed {
    /// Stops it, when there was no jump.
    ///
    /// # Errors
    /// When it counts on: what follows from that.
    pub fn disarm(self) -> Result<(), String> {
        let Self {
            device,
            seconds,
            timer,
        } = self;
        timer.disarm().map_err(|errno| {
            format!(
                "{device} cannot be stopped ({errno}; nowayout?), and resets the machine in {seconds} seconds unless a \
                 program keeps it off"
            )
        })
    }
}

/// The program that has the watchdog called `device` open, as /proc shows it to root.
fn holder(root: &Root, device: &str) -> Option<Holder> {
    // The first device has two names.
    let is_it = |file: &[u8]| {
        file.strip_prefix(b"/dev/").is_some_and(|name| {
            name == device.as_bytes() || (device == "watchdog0" && name == b"watchdog")
        })
    };
    let openers = openers(root, b"/dev/watchdog").ok()?;
    let opener = openers.into_iter().find(|opener| is_it(&opener.file))?;
    Some(Holder {
        pid: opener.pid.unsigned_abs(),
        name: opener.command,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A machine with this timer, which is no device.
    fn machine() -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let write = |path: &str, text: &str| {
            let path = root.path(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("/sys/class/watchdog/watchdog0/identity", "x\n");
        write("/sys/class/watchdog/watchdog0/timeout", "45\n");
        write("/dev/watchdog0", "");
        write("/proc/7/comm", "wd\n");
        (dir, root)
    }

    #[test]
    fn who_has_it_open() {
        let (_dir, root) = machine();
        let way = WayBack::find(&root, 60).unwrap();
        assert!(way.held(&root).is_none());
        let files = root.path("/proc/7/fd");
        fs::create_dir_all(&files).unwrap();
        let opens = |path: &str| {
            // A captured machine has files in the place of links.
            fs::write(files.join("3"), path).unwrap();
            way.held(&root).map(|error| error.to_string())
        };
        for other in ["/dev/watchdog1", "/x/watchdog0", "/dev/null"] {
            assert_eq!(opens(other), None);
        }
        for name in ["/dev/watchdog", "/dev/watchdog0"] {
            let error = opens(name).unwrap();
            assert!(
                error.starts_with("exec failed: wd (PID 7) holds watchdog0 (x)"),
                "{error}"
            );
        }
        assert_eq!(way.runs_already(), "it counts 45 seconds, not 60");
    }

    #[test]
    fn what_does_not_count_is_not_armed() {
        let (_dir, root) = machine();
        let arm = || WayBack::find(&root, 60).unwrap().arm(&root).unwrap_err();
        let error = arm().to_string();
        assert!(
            error.starts_with("exec failed: watchdog0 (x) does not tell its time: ENOTTY"),
            "{error}"
        );
        fs::remove_file(root.path("/dev/watchdog0")).unwrap();
        let error = arm().to_string();
        assert!(
            error.starts_with("exec failed: opening /dev/watchdog0: No such file"),
            "{error}"
        );
    }
}
