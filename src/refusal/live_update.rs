//! Refusals of /dev/liveupdate (kernel/liveupdate/): why a session, or a file of one, is
//! not to be had, or is not handed over.

use std::fmt;

use super::{Cause, SysError};
use crate::host::kho::Kho;
use crate::sys::Errno;
use crate::sys::liveupdate::{DEVICE, SessionName};

/// What decides about the device.
#[derive(Debug, Clone)]
pub struct LiveUpdateFacts {
    /// Kexec Handover of this kernel.
    pub kho: Kho,
    /// `liveupdate=` of its command line switches live update on.
    pub is_asked_for: bool,
    /// The processes that have the session open, as `agent (12)`.
    pub open_in: Vec<String>,
}

/// What to do where `retrieve` finds no live update.
const LOST: &str = "what was handed over to this kernel cannot be had any more; start the next one with \
                    kho=on liveupdate=on on its command line";
/// What to do where `exec` finds no live update.
const SWITCH_ON: &str =
    "boot this kernel with kho=on liveupdate=on on its command line, or load again without --carry";

impl SysError {
    /// The device cannot be opened to take something over.
    #[must_use]
    pub fn no_device(facts: &LiveUpdateFacts, errno: Errno) -> Self {
        Self::of("retrieve", errno, no_device(facts, errno, LOST))
    }

    /// The session `name` cannot be taken.
    #[must_use]
    pub fn no_session(facts: &LiveUpdateFacts, name: &SessionName, errno: Errno) -> Self {
        Self::of("retrieve", errno, no_session(facts, name, errno))
    }

    /// What an open session answers.
    #[must_use]
    pub fn session(name: &SessionName, errno: Errno) -> Self {
        let why = format!("the session {name}: {}", errno.description());
        Self::of("retrieve", errno, Cause::new(why))
    }

    /// The device cannot be opened to hand something over.
    #[must_use]
    pub fn no_outgoing_device(facts: &LiveUpdateFacts, errno: Errno) -> Self {
        Self::of("exec", errno, no_device(facts, errno, SWITCH_ON))
    }

    /// The session `name` cannot be made for the next kernel.
    #[must_use]
    pub fn no_outgoing_session(facts: &LiveUpdateFacts, name: &SessionName, errno: Errno) -> Self {
        Self::of("exec", errno, no_outgoing_session(facts, name, errno))
    }

    /// `file` cannot be put into a session for the next kernel.
    #[must_use]
    pub fn not_handed_over(file: impl fmt::Display, errno: Errno) -> Self {
        let why = match errno.number() {
            libc::ENOENT => {
                "this kernel hands over no file in memory (CONFIG_LIVEUPDATE_MEMFD is not set)"
            }
            libc::ENOMEM => {
                "there is not enough memory outside of the scratch memory of Kexec Handover"
            }
            _ => errno.description(),
        };
        let why = format!("{file} cannot be handed over: {why}");
        Self::of("exec", errno, Cause::new(why))
    }

    fn of(what: &str, errno: Errno, cause: Cause) -> Self {
        Self {
            what: what.to_owned(),
            errno: Some(errno),
            cause,
        }
    }
}

fn no_device(facts: &LiveUpdateFacts, errno: Errno, way_out: &str) -> Cause {
    match errno.number() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO if !facts.kho.on => Cause::new(format!(
            "Kexec Handover (KHO) is off in this kernel ({}), and live update needs it",
            facts.kho.why
        ))
        .hint(way_out),
        libc::ENOENT | libc::ENODEV | libc::ENXIO if !facts.is_asked_for => {
            Cause::new("live update is off: liveupdate=on is not on the command line of this kernel")
                .hint(way_out)
        }
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Cause::one_of(&[
            &format!("this kernel has no live update (CONFIG_LIVEUPDATE), so that there is no {DEVICE}"),
            "/dev is no devtmpfs",
        ])
        .hint("dmesg shows what the kernel says of it (luo:)"),
        libc::EACCES | libc::EPERM => {
            Cause::new(format!("only root may open {DEVICE}")).hint("run as root")
        }
        libc::EBUSY => Cause::new(format!("another program has {DEVICE} open, and only one can"))
            .hint(format!("`fuser {DEVICE}` shows it: try again when it has closed the device")),
        libc::EIO => Cause::new(
            "the kernel could not read the sessions that were handed over: it knows no handler for a file in \
             them, or they are damaged",
        )
        .hint("dmesg names the file (luo:); until the next boot the sessions cannot be had"),
        _ => Cause::new(format!("{DEVICE}: {}", errno.description())),
    }
}

fn no_session(facts: &LiveUpdateFacts, name: &SessionName, errno: Errno) -> Cause {
    match errno.number() {
        libc::ENOENT => Cause::new(format!(
            "there is no session {name}: none was handed over to this kernel, or it is finished"
        ))
        .hint("a session comes with one kexec, and is finished when the program that took it ends"),
        libc::EINVAL if facts.open_in.is_empty() => {
            Cause::new(format!("another program has taken the session {name}"))
        }
        libc::EINVAL => Cause::new(format!(
            "another program has taken the session {name}: {}",
            facts.open_in.join(", ")
        ))
        .hint("the session can be taken once: take its files through that program"),
        _ => Cause::new(format!("the session {name}: {}", errno.description())),
    }
}

fn no_outgoing_session(facts: &LiveUpdateFacts, name: &SessionName, errno: Errno) -> Cause {
    match errno.number() {
        libc::EEXIST => {
            let why = format!("there is a session {name} already, which another program has made");
            match &*facts.open_in {
                [] => Cause::new(why),
                open => Cause::new(format!("{why}: {}", open.join(", "))),
            }
            .hint("end that program, or have it close the session: then its files are not handed over")
        }
        _ => Cause::new(format!("the session {name}: {}", errno.description())),
    }
}

/// Why a session does not give a file back.
#[must_use]
pub fn no_file(errno: Errno) -> String {
    let why = match errno.number() {
        libc::ENOENT => "the session has no file with this token",
        libc::EOPNOTSUPP => "it has seals or flags that this kernel does not know",
        libc::ENOMEM => "there is not enough memory for it",
        _ => errno.description(),
    };
    format!("{why} ({errno})")
}
