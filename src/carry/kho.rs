//! What the next kernel understands of Kexec Handover (KHO), as far as its file tells.
//!
//! Each kernel reads one format of each part, and the name of that format is a text in
//! it. So the texts tell, whatever release and configuration say.

use std::collections::BTreeSet;

use bstr::BStr;
use memchr::memmem;

use super::capability::{ConfigFact, Fact};
use crate::abi::kho::Part;
use crate::cmdline;
use crate::image::sections;

/// What Linux says that knows the node and is built without KHO (arch/x86/kernel/setup.c,
/// `add_kho`, since 6.16).
const BUILT_WITHOUT: &[u8] = b"Passed KHO data, but CONFIG_KEXEC_HANDOVER not set";

/// Which format of a part a kernel reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reads {
    /// None: it is built without the part.
    Nothing,
    /// This one.
    One(String),
    /// One of these: the file names all of them.
    OneOf(Vec<String>),
    /// The file does not tell.
    Unknown,
}

impl Reads {
    fn of(part: Part, parts: &[&[u8]]) -> Self {
        let formats: BTreeSet<String> =
            parts.iter().flat_map(|bytes| part.formats(bytes)).collect();
        let mut formats: Vec<String> = formats.into_iter().collect();
        match (formats.pop(), formats.is_empty()) {
            (None, _) => Self::Nothing,
            (Some(one), true) => Self::One(one),
            (Some(last), false) => {
                formats.push(last);
                Self::OneOf(formats)
            }
        }
    }

    /// The format, `none` or `unknown`, as in JSON.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Nothing => "none",
            Self::One(format) => format,
            Self::OneOf(_) | Self::Unknown => "unknown",
        }
    }
}

/// What a kernel reads, and how it was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KhoTarget {
    /// The tree.
    pub kho: Reads,
    /// Sessions of LUO.
    pub luo: Reads,
    /// Memfds in a session.
    pub memfd: Reads,
    /// Memory that `reserve_mem=` set aside.
    pub memblock: Reads,
    /// CONFIG_KEXEC_HANDOVER.
    pub built: ConfigFact,
    /// CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT: it is on without `kho=on`.
    pub default: ConfigFact,
    /// CONFIG_LIVEUPDATE.
    pub liveupdate: ConfigFact,
    /// CONFIG_LIVEUPDATE_MEMFD.
    pub liveupdate_memfd: ConfigFact,
    /// CONFIG_CMDLINE_OVERRIDE: it ignores the command line that it is given.
    pub line_is_ignored: ConfigFact,
    /// CONFIG_TRANSPARENT_HUGEPAGE: a memfd may have large pages.
    pub huge_pages: ConfigFact,
}

/// The texts of a kernel: which format of each part it reads, in the order of
/// [`Part::ALL`].
pub(super) type Formats = [Reads; 4];

/// Nothing is known.
pub(super) const UNKNOWN: Formats = [
    Reads::Unknown,
    Reads::Unknown,
    Reads::Unknown,
    Reads::Unknown,
];

/// The formats that the unpacked `kernel` reads.
#[must_use]
pub(super) fn formats(kernel: &[u8]) -> Formats {
    match sections::kept(kernel) {
        Some(parts) => Part::ALL.map(|part| Reads::of(part, &parts)),
        None => UNKNOWN,
    }
}

/// Whether the texts of a kernel say that it has KHO. `formats` is what it reads.
#[must_use]
pub(super) fn is_built(kernel: &[u8], formats: &Formats) -> Fact {
    let [kho, ..] = formats;
    match kho {
        Reads::One(_) if memmem::find(kernel, BUILT_WITHOUT).is_none() => Fact::Yes,
        Reads::Nothing => Fact::No,
        _ => Fact::Unknown,
    }
}

impl KhoTarget {
    /// A kernel that reads `formats`, whose configuration says `fact` to a symbol.
    pub(super) fn new(formats: Formats, fact: impl Fn(&str) -> ConfigFact) -> Self {
        let [kho, luo, memfd, memblock] = formats;
        // A format whose name is made by other rules is not found.
        let told = |reads, symbol| match reads {
            Reads::Nothing if fact(symbol).value == Fact::Yes => Reads::Unknown,
            reads => reads,
        };
        Self {
            kho: told(kho, "CONFIG_KEXEC_HANDOVER"),
            luo: told(luo, "CONFIG_LIVEUPDATE"),
            memfd: told(memfd, "CONFIG_LIVEUPDATE_MEMFD"),
            memblock: told(memblock, "CONFIG_KEXEC_HANDOVER"),
            built: fact("CONFIG_KEXEC_HANDOVER"),
            default: fact("CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT"),
            liveupdate: fact("CONFIG_LIVEUPDATE"),
            liveupdate_memfd: fact("CONFIG_LIVEUPDATE_MEMFD"),
            line_is_ignored: fact("CONFIG_CMDLINE_OVERRIDE"),
            huge_pages: fact("CONFIG_TRANSPARENT_HUGEPAGE"),
        }
    }

    /// The format that it reads of each part.
    #[must_use]
    pub fn reads(&self) -> [(Part, &Reads); 4] {
        [
            (Part::Kho, &self.kho),
            (Part::Luo, &self.luo),
            (Part::Memfd, &self.memfd),
            (Part::Memblock, &self.memblock),
        ]
    }

    /// The facts of its configuration by the name of their symbol.
    #[must_use]
    pub fn facts(&self) -> [(&'static str, &ConfigFact); 5] {
        [
            ("CONFIG_KEXEC_HANDOVER", &self.built),
            ("CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT", &self.default),
            ("CONFIG_LIVEUPDATE", &self.liveupdate),
            ("CONFIG_LIVEUPDATE_MEMFD", &self.liveupdate_memfd),
            ("CONFIG_TRANSPARENT_HUGEPAGE", &self.huge_pages),
        ]
    }

    /// Whether it has KHO on with the command line `line`. Then it reads what LUO left
    /// when it starts; without that it takes back nothing but what `reserve_mem=` names.
    #[must_use]
    pub fn is_on(&self, line: &BStr) -> Fact {
        match cmdline::truth(line, "kho") {
            Some(true) => Fact::Yes,
            Some(false) => Fact::No,
            None => self.default.value,
        }
    }

    /// Whether it gives the sessions of LUO back with the command line `line`.
    #[must_use]
    pub fn gives_sessions_back(&self, line: &BStr) -> bool {
        cmdline::truth(line, "liveupdate") == Some(true)
    }
}
