//! Kexec Handover (KHO): whether the running kernel has it, whether it is on, and
//! what it preserves.
//!
//! The word `kho=` alone says nothing: a kernel without KHO ignores it, and a kernel
//! with CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT needs none. debugfs shows the truth, and
//! it may not be mounted.

use std::collections::BTreeSet;

use bstr::{BStr, BString, ByteSlice as _};

use super::security::RunningConfig;
use super::{HostError, Root, boot_params, cpu, text};
use crate::abi::kho::{self, METADATA, Part};
use crate::abi::x86::setup_data::SETUP_KEXEC_KHO;
use crate::base::{PhysRange, version};
use crate::cmdline;

/// What every x86 kernel has in debugfs (arch/x86/kernel/kdebugfs.c).
const DEBUGFS: &str = "/sys/kernel/debug/x86";
const SHOWN: &str = "/sys/kernel/debug/kho";
/// The blobs that it hands over, by name.
const BLOBS: &str = "/sys/kernel/debug/kho/out/sub_fdts";
/// The tree that it hands over. A kernel that was itself started with one does not show it.
const TREE: &str = "/sys/kernel/debug/kho/out/fdt";
/// The tree that this kernel was started with.
const TAKEN_OVER: &str = "/sys/kernel/debug/kho/in/fdt";
/// Address and size of each region of its scratch memory, a line each, in the same order.
const SCRATCH: [&str; 2] = [
    "/sys/kernel/debug/kho/out/scratch_phys",
    "/sys/kernel/debug/kho/out/scratch_len",
];
/// Whether memfds get large pages, of the whole machine: a list of words, with the one that
/// holds in brackets (Documentation/admin-guide/mm/transhuge.rst).
pub const LARGE_MEMFDS: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
/// The words by which they do without asking for them.
const LARGE: [&str; 3] = ["always", "within_size", "force"];
/// What an open session of LUO is called in /proc/PID/fd (`luo_session_getfile` in
/// kernel/liveupdate/luo_session.c), before its name.
pub(super) const SESSION: &[u8] = b"anon_inode:[luo_session] ";
/// The first kernel with KHO.
const SINCE: (u32, u32) = (6, 16);

/// Kexec Handover of the running kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kho {
    /// It is on.
    pub on: bool,
    /// The fact that says so.
    pub why: String,
    /// debugfs shows it.
    pub shown: bool,
    /// What it preserves besides its own metadata; `None` when that is not visible.
    pub preserved: Option<Vec<String>>,
    /// What more is known while it is on.
    pub state: State,
}

/// What a kernel with KHO tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// This kernel was itself started with handed-over state.
    pub taken_over: bool,
    /// Which kernel this is since the last one that was given no state, which is 1;
    /// `None` when that is not visible.
    pub generation: Option<u32>,
    /// The names of the open sessions of LUO, outgoing and taken over; `None` when this
    /// process may not look into every other.
    pub sessions: Option<Vec<String>>,
    /// The scratch memory; `None` when it is not visible.
    pub scratch: Option<Vec<PhysRange>>,
    /// Bytes of scratch memory that are free, at least; 0 when that is not known.
    pub scratch_free: u64,
    /// The RAM that the scratch memory is a part of, bytes; 0 when that is not known.
    pub ram: u64,
    /// The format of the tree that it hands over, as `kho-v4`.
    pub format: Option<String>,
    /// The format of the sessions that it hands over, as `luo-v5`.
    pub luo: Option<String>,
    /// The blob that names what `reserve_mem=` set aside, a device tree.
    pub memblock: Option<Vec<u8>>,
    /// The tree that it hands over. debugfs cuts its end off, and shows nothing of it in a
    /// kernel that was itself given a tree.
    pub tree: Option<Vec<u8>>,
    /// The word of [`LARGE_MEMFDS`] by which memfds have large pages; `None`: they have none,
    /// or that is not visible.
    pub large_memfds: Option<String>,
    /// The names of the blobs that the tree leads to, and the size of each in bytes, as far
    /// as they are visible.
    pub blobs: Vec<(String, u64)>,
}

impl Kho {
    /// Reads the facts below `root`. `config` is the running kernel's configuration.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(root: &Root, config: &RunningConfig) -> Result<Self, HostError> {
        let facts = Facts::read(root, config)?;
        let (on, why) = facts.on();
        if !on {
            return Ok(Self {
                on,
                why,
                shown: facts.shown,
                ..Self::default()
            });
        }
        Ok(Self {
            on,
            why,
            shown: facts.shown,
            state: State::read(root, &facts)?,
            preserved: facts.preserved,
        })
    }

    /// Whether LUO hands something over: it does where it is on, without a session too.
    #[must_use]
    pub fn preserves_luo(&self) -> bool {
        self.preserves(kho::LUO)
    }

    /// Whether what `reserve_mem=` set aside is handed over.
    #[must_use]
    pub fn preserves_pools(&self) -> bool {
        self.preserves(kho::MEMBLOCK)
    }

    /// The format of the sessions that a kernel of `release` hands over, as it shows it, else
    /// by its release; `None`: not known.
    #[must_use]
    pub fn sessions_format(&self, release: &str) -> Option<String> {
        let by_release = || kho::luo_of_release(version(release)).map(str::to_owned);
        self.state.luo.clone().or_else(by_release)
    }

    /// What is preserved, for people: what debugfs calls it, and the open sessions.
    #[must_use]
    pub fn in_words(&self) -> String {
        let names = match self.preserved.as_deref().unwrap_or_default() {
            [] => "what this kernel preserves".to_owned(),
            names => names.join(" and "),
        };
        match self.sessions_in_words() {
            Some(sessions) => format!("{names} with {sessions}"),
            None => names,
        }
    }

    /// The open sessions of LUO, for people; `None` when none is known.
    #[must_use]
    pub fn sessions_in_words(&self) -> Option<String> {
        let sessions = self.state.sessions.as_deref().unwrap_or_default();
        let (last, others) = sessions.split_last()?;
        Some(match others {
            [] => format!("the session {last}"),
            others => format!("the sessions {} and {last}", others.join(", ")),
        })
    }

    fn preserves(&self, blob: &str) -> bool {
        let names = self.preserved.iter().flatten();
        // A blob that is known by a word of the command line names that word as well.
        names
            .filter_map(|name| name.split(' ').next())
            .any(|name| self.on && name == blob)
    }

    /// Why kexec_load, which hands over no KHO data, would lose some; `None` when it would not.
    #[must_use]
    pub fn forbids_kexec_load(&self) -> Option<String> {
        if !self.on {
            return None;
        }
        match self.preserved.as_deref() {
            Some([]) => None,
            Some(_) => Some(format!(
                "Kexec Handover (KHO) preserves {}, and kexec_load would drop it",
                self.in_words()
            )),
            None => Some(format!(
                "Kexec Handover (KHO) is on ({}), and kexec_load would drop what it preserves; what \
                 that is only debugfs shows ({BLOBS})",
                self.why
            )),
        }
    }
}

/// What the machine says of it.
#[derive(Debug, Default)]
struct Facts {
    release: String,
    cmdline: BString,
    /// debugfs is mounted, and this process may look into it.
    debugfs: bool,
    /// debugfs shows KHO.
    shown: bool,
    /// The blobs that debugfs shows, or that words of the command line always make.
    preserved: Option<Vec<String>>,
    /// The blobs themselves, as far as they are visible.
    blobs: Vec<(String, Vec<u8>)>,
    /// This kernel was given KHO data by the one before.
    booted_with: bool,
    /// What /proc/meminfo says of its scratch memory.
    scratch: cpu::Scratch,
    config: RunningConfig,
}

impl Facts {
    fn read(root: &Root, config: &RunningConfig) -> Result<Self, HostError> {
        let cmdline = super::cmdline::read(root)?;
        let shown = root.list_permitted(SHOWN)?.is_some();
        let blobs = blobs(root)?;
        let names = blobs.as_ref().map(|blobs| {
            let names = blobs.iter().map(|(name, _)| name.clone());
            names.filter(|name| name != METADATA).collect()
        });
        let debugfs = root.list_permitted(DEBUGFS)?.is_some();
        let running = boot_params::read(root)?;
        Ok(Self {
            release: super::release(root)?,
            preserved: names
                .or_else(|| Some(by_words(cmdline.as_bstr())).filter(|names| !names.is_empty())),
            blobs: blobs.unwrap_or_default(),
            debugfs,
            shown,
            booted_with: running.is_some_and(|running| running.has_node(SETUP_KEXEC_KHO)),
            scratch: cpu::Scratch::read(root),
            config: config.clone(),
            cmdline,
        })
    }

    /// Whether it is on, and the fact that says so.
    fn on(&self) -> (bool, String) {
        let says = |on, why: &str| (on, why.to_owned());
        if self.config.kexec_handover == Some(false) {
            return says(false, "the running kernel is built without it");
        }
        let version = version(&self.release);
        let is_known = self.shown || self.config.kexec_handover == Some(true);
        if !is_known && version.is_none_or(|version| version < SINCE) {
            return (
                false,
                format!("Linux {} has none: it came with 6.16", self.release),
            );
        }
        if self.has_word("elfcorehdr") && version >= Some((7, 3)) {
            return says(false, "a crash kernel switches it off");
        }
        let word = cmdline::truth(&self.cmdline, "kho");
        match (word, self.shown) {
            (Some(false), _) => return says(false, "kho=off on the command line"),
            (Some(true), true) => return says(true, "kho=on on the command line"),
            (None, true) => return (true, format!("{SHOWN} is there")),
            // With the config option set but no directory, KHO found no memory at boot.
            (_, false) if self.debugfs && self.config.kexec_handover_debugfs == Some(true) => {
                return (false, format!("{SHOWN} is not there"));
            }
            (Some(true), false) => return says(true, "kho=on on the command line"),
            (None, false) => {}
        }
        match self.config.kexec_handover_default {
            Some(true) => says(true, "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT"),
            Some(false) => says(false, "it is off by default, and there is no kho=on"),
            None if self.scratch.free > 0 => says(
                true,
                "its scratch memory is there: CmaFree exceeds CmaTotal",
            ),
            None if self.booted_with => says(
                true,
                "this kernel was itself started with handed-over state",
            ),
            None => says(false, "nothing shows that it is on"),
        }
    }

    /// Whether LUO is on, or that is not known.
    fn may_have_sessions(&self) -> bool {
        let names = self.preserved.as_ref();
        names.is_none_or(|names| names.iter().any(|name| name.starts_with(kho::LUO)))
    }

    fn has_word(&self, parameter: &str) -> bool {
        cmdline::has(&self.cmdline, parameter)
    }
}

impl State {
    /// Bytes of scratch memory, and whether that is all of it: else only what is free is
    /// known. It is lost for whatever cannot be moved. `None`: nothing is known of it.
    #[must_use]
    pub fn scratch_size(&self) -> Option<(u64, bool)> {
        match &self.scratch {
            Some(regions) => Some((regions.iter().map(|region| region.size()).sum(), true)),
            None if self.scratch_free > 0 => Some((self.scratch_free, false)),
            None => None,
        }
    }

    fn read(root: &Root, facts: &Facts) -> Result<Self, HostError> {
        let blob = |wanted: &str| {
            let found = facts.blobs.iter().find(|(name, _)| name == wanted);
            found.map(|(_, blob)| &**blob)
        };
        // The kernel shows the node of a state that it could not take over as well.
        let taken_over = match facts.shown {
            true => root.read_permitted(TAKEN_OVER)?.is_some(),
            false => facts.booted_with,
        };
        let counted = blob(METADATA).and_then(kho::generation);
        // The kernel before may have handed over no count.
        let least = if taken_over { 2 } else { 1 };
        let own = root.read_permitted(TREE)?;
        let tree = match &own {
            None => root.read_permitted(TAKEN_OVER)?,
            tree => tree.clone(),
        };
        let sizes = facts.blobs.iter();
        let sizes = sizes.map(|(name, blob)| (name.clone(), blob.len() as u64));
        Ok(Self {
            taken_over,
            generation: match counted {
                None if taken_over => None,
                counted => Some(counted.unwrap_or(least).max(least)),
            },
            // To look at every open file takes a while.
            sessions: match facts.may_have_sessions() {
                true => sessions(root)?,
                false => Some(Vec::new()),
            },
            scratch: scratch(root)?,
            large_memfds: large_memfds(root)?,
            scratch_free: facts.scratch.free,
            ram: facts.scratch.of,
            // One that took a tree over hands over the format that it knows.
            format: tree.and_then(|tree| one(Part::Kho, &tree)),
            luo: blob(kho::LUO).and_then(|blob| one(Part::Luo, blob)),
            memblock: blob(kho::MEMBLOCK).map(<[u8]>::to_vec),
            tree: own,
            blobs: sizes.collect(),
        })
    }
}

/// The format that `blob` has, if it names one.
fn one(part: Part, blob: &[u8]) -> Option<String> {
    let mut formats = part.formats(blob).into_iter();
    formats.next().filter(|_| formats.next().is_none())
}

/// The word by which memfds have large pages.
fn large_memfds(root: &Root) -> Result<Option<String>, HostError> {
    let words = root.read_line_permitted(LARGE_MEMFDS)?.unwrap_or_default();
    let holds = words.split_whitespace().find_map(|word| {
        let word = word.strip_prefix('[')?;
        word.strip_suffix(']')
    });
    Ok(holds.filter(|word| LARGE.contains(word)).map(str::to_owned))
}

/// The regions of the scratch memory.
fn scratch(root: &Root) -> Result<Option<Vec<PhysRange>>, HostError> {
    let [starts, sizes] = SCRATCH;
    let Some((first, second)) = numbers(root, starts)?.zip(numbers(root, sizes)?) else {
        return Ok(None);
    };
    let malformed = |what: String| HostError::malformed(sizes, what);
    if first.len() != second.len() {
        let (first, second) = (first.len(), second.len());
        return Err(malformed(format!(
            "{second} lines, and {starts} has {first}"
        )));
    }
    // `kho_scratch=16M,64M,0` makes a region of no bytes for each node.
    let regions = first.into_iter().zip(second).filter(|(_, size)| *size > 0);
    let regions = regions.map(|(start, size)| {
        PhysRange::new(start, size).map_err(|error| malformed(error.to_string()))
    });
    regions.collect::<Result<_, _>>().map(Some)
}

/// The numbers in the file `path`, a line each.
fn numbers(root: &Root, path: &str) -> Result<Option<Vec<u64>>, HostError> {
    let Some(lines) = root.read_line_permitted(path)? else {
        return Ok(None);
    };
    let numbers = lines.lines().map(|line| {
        text::hex_0x(line)
            .ok_or_else(|| HostError::malformed(path, format!("`{line}` is not a number 0x…")))
    });
    numbers.collect::<Result<_, _>>().map(Some)
}

/// The names of the sessions of LUO that processes have open, sorted; `None` when this
/// process may not see what another has open.
fn sessions(root: &Root) -> Result<Option<Vec<String>>, HostError> {
    let Some(open) = root.open_files(SESSION)? else {
        return Ok(None);
    };
    let names = open
        .iter()
        .filter_map(|(_, link)| link.strip_prefix(SESSION));
    let names = names.map(|name| String::from_utf8_lossy(name).into_owned());
    let names: BTreeSet<_> = names.collect();
    Ok(Some(names.into_iter().collect()))
}

/// The blobs by name; `None` when they are not visible.
fn blobs(root: &Root) -> Result<Option<Vec<(String, Vec<u8>)>>, HostError> {
    let Some(names) = root.list_permitted(BLOBS)? else {
        return Ok(None);
    };
    let mut blobs = Vec::new();
    for name in names {
        let blob = root.read_permitted(&format!("{BLOBS}/{name}"))?;
        blobs.push((name, blob.unwrap_or_default()));
    }
    Ok(Some(blobs))
}

/// What KHO always preserves because of words on the command line.
fn by_words(line: &BStr) -> Vec<String> {
    let reserves = cmdline::value(line, "reserve_mem").is_some();
    let updates = cmdline::truth(line, "liveupdate") == Some(true);
    let named = [
        (updates, "LUO (liveupdate=)"),
        (reserves, "memblock (reserve_mem=)"),
    ];
    let names = named.into_iter().filter(|(holds, _)| *holds);
    names.map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
#[path = "kho_tests.rs"]
mod tests;
