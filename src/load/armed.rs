//! Whether a panic boots a crash kernel, and one that fits the machine as it is now.

use super::record::LoadRecord;
use crate::crash::CrashError;
use crate::host::Host;
use crate::host::loaded::Loaded;

/// Why it is not known whether a crash kernel is loaded.
pub const NOT_TOLD: &str = "/sys/kernel/kexec_crash_loaded is missing";

/// State of the crash kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Armed {
    /// None is loaded.
    No,
    /// The kernel does not tell whether one is loaded.
    NotTold,
    /// One is loaded and fits the machine.
    Yes,
    /// One is loaded, but memory or CPUs changed since.
    Stale(String),
    /// One is loaded, but which is unknown: rkexec did not load it, or its record is unreadable.
    Unknown(String),
}

/// A record that this user may not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hidden;

impl Armed {
    /// The state by what is `loaded`, the record of it, and the machine as it is now; of a
    /// machine that cannot be read, why.
    #[must_use]
    pub fn of(
        loaded: &Loaded,
        record: &Result<Option<LoadRecord>, Hidden>,
        host: Result<&Host, &String>,
    ) -> Self {
        match loaded.crash {
            Some(true) => {}
            Some(false) => return Self::No,
            None => return Self::NotTold,
        }
        let unknown = |why: &str| Self::Unknown(why.to_owned());
        let Ok(record) = record else {
            return unknown("its record is for root only");
        };
        let Some(fit) = record.as_ref().and_then(|record| record.fit.as_ref()) else {
            return unknown(
                "there is no record of it: another tool loaded it, or rkexec was killed while it loaded it",
            );
        };
        match host.map(|host| fit.now(host)) {
            Ok(Err(error @ CrashError::Busy)) => Self::Unknown(error.to_string()),
            Ok(Ok(now)) => fit.differs(&now).map_or(Self::Yes, Self::Stale),
            Ok(Err(error)) => Self::Stale(error.to_string()),
            Err(error) => Self::Unknown(error.clone()),
        }
    }

    /// Its name in JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Yes => "yes",
            Self::Stale(_) => "stale",
            Self::Unknown(_) | Self::NotTold => "unknown",
        }
    }

    /// Why it is so, where that is to be said.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::No | Self::Yes => None,
            Self::NotTold => Some(NOT_TOLD),
            Self::Stale(why) | Self::Unknown(why) => Some(why),
        }
    }

    /// What is wrong with it; `None` when a panic is known to boot a crash kernel that fits.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        Some(match self {
            Self::Yes => return None,
            Self::No => "no crash kernel is loaded".to_owned(),
            Self::NotTold => format!("cannot tell whether a crash kernel is loaded: {NOT_TOLD}"),
            Self::Stale(why) => {
                format!("the crash kernel does not fit the machine any more: {why}")
            }
            Self::Unknown(why) => {
                format!("cannot tell whether the loaded crash kernel fits the machine: {why}")
            }
        })
    }
}
