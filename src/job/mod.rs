//! The job: the files of a load, and what is asked of it.
//!
//! Each source makes a [`Job`] in one function: [`Options`] (`rkexec load`, `plan` and
//! `kexec`), [`ArmRules`] (the configuration of `arm`) and [`Kept`] (the record of a load).
//! [`Options`] and [`ArmRules`] take what they do not say themselves from a boot entry
//! ([`EntryFiles`]), when one is named. [`Merged`] adds what the kernel's file brings.
//!
//! Which source counts. What stands further left goes before:
//!
//! | question | 1 | 2 | 3 |
//! |---|---|---|---|
//! | kernel | the option, the configuration, the entry, the record: one source makes a job | | |
//! | initrds of the source | the options, the configuration | the entry | |
//! | modules | the options | the entry | |
//! | addons | all, in this order: those of the entry | of the options | |
//! | initrds | all, in this order: microcode of the addons, of the UKI | initrds of the UKI, of the addons | those of the source |
//! | profile | the source | the entry | the first one of the UKI |
//! | format | the source (`--type`) | what the file is found to be | |
//! | command line | a given line (`--cmdline`, `line`), or the running line (`--reuse-cmdline`, `base = "running"`) | the line of the entry, unless it is a UKI's own, or the configuration made the job | the words of the UKI, then those of the addons |
//! | words of addons | none with the running line, which may have them already | behind a given line | behind the UKI's own words |
//! | words added | behind all these: `--append`, `append` | | |
//! | words removed | at last: `--remove`, `remove` | | |
//! | SHA-256 of files | the entry | | |
//! | device tree | `--dtb`, then the entry | the last one of UKI and addons | the running kernel's |
//! | system call | the source | the facts of the machine | |
//! | seed and time | drawn anew for every load; no record keeps them | | |
//!
//! `precedence_tests.rs` has a check for each row. Besides the job, a record tells of a
//! refusal that no fact tells (`load/record.rs`, `teach`).

mod kept;
pub mod merged;
mod sources;

use std::io::Read as _;
use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context as _;
use bstr::BString;

pub use kept::Kept;
pub use merged::{MergeError, Merged, lost_signature};
pub use sources::{ArmRules, EntryFiles, Line, Options};

use crate::image::Wish;
use crate::request::LoadRequest;

/// The files of a load, and what is asked of it.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The kernel.
    pub kernel: PathBuf,
    /// The initrds, in order.
    pub initrds: Vec<PathBuf>,
    /// The profile of a UKI; `None`: its first.
    pub profile: Option<String>,
    /// The format that the kernel's file is read as, where it has several; `None`: the
    /// one that tells most.
    pub wish: Option<Wish>,
    /// Addons to a UKI, in order.
    pub addons: Vec<PathBuf>,
    /// A multiboot kernel's modules, each a file and, behind a space, its arguments.
    pub modules: Vec<BString>,
    /// Files whose contents the next kernel finds in memory, in order.
    pub carry: Vec<PathBuf>,
    /// The SHA-256 that the kernel's file and initrds must have, where a boot entry says so.
    pub hashes: Vec<(PathBuf, [u8; 32])>,
    /// The rest.
    pub request: LoadRequest,
}

/// What is new for every load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fresh {
    /// For the next kernel's random number generator.
    pub seed: [u8; 32],
    /// Seconds since 1970.
    pub time: u64,
}

impl Fresh {
    /// A new seed, and the time now.
    ///
    /// # Errors
    /// When /dev/urandom cannot be read.
    pub fn draw() -> anyhow::Result<Self> {
        let mut seed = [0; 32];
        std::fs::File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut seed))
            .context("reading /dev/urandom failed")?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Ok(Self {
            seed,
            time: now.unwrap_or_default().as_secs(),
        })
    }
}

#[cfg(test)]
mod precedence_tests;
