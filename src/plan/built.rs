//! Files that the next kernel finds in memory and pools that it takes back, where the loader
//! itself makes what Kexec Handover needs: sessions, map, tree, and the choice of memory.

use sha2::{Digest as _, Sha256};

use super::keep;
use super::scratch::{self, Scratch};
use super::set_aside::{self, Place};
use super::{Carried, CarriedFile, Ground, Inputs, KhoPlan, PlanError, Way};
use crate::base::bytes::shown;
use crate::base::{Buf, PAGE_BYTES, PAGE_SIZE, PhysRange, Target, human};
use crate::carry::capability::Fact;
use crate::carry::manifest::{Manifest, ManifestError, Proof, SESSION, TOKEN};
use crate::carry::record::{CarriedName, KhoRecord};
use crate::carry::{
    Capability, HandoverError, KhoTarget, PlannedPool, Protection, Reads, kho_pools,
};
use crate::cmdline::{self, Cmdline};
use crate::host::Host;
use crate::image::Image;
use crate::kho::{
    EncodeError, Encoded, FILES, File, Name, Needs, Node, SESSIONS, Session, State, TREE, encode,
};
use crate::layout::{Places, Segment, preserved};
use crate::memory::Holes;
use crate::request::LoadRequest;
use crate::sys::SEGMENT_MAX;

/// Most pieces of memory that what is preserved lies in. Each is a segment, of which
/// kernel, initrds and tables need some as well.
const MAX_PIECES: usize = 6;
/// Memory below is left to devices that reach no more, bytes: ZONE_DMA of the kernel.
const DMA: u64 = 16 << 20;
/// Why what is preserved lies where it does.
const RULE: &str = "the largest free memory of boot outside the scratch memory: the next kernel preserves it from the \
                    start";

/// Ways to free memory.
const LESS: &str = "rkexec memmap shows which memory is free; less on the new command line (crashkernel=, hugepages=) \
                    takes less of it; a pool needs none of it with --pool-protect indirect or reserved";

/// Why files cannot be carried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CarryError {
    /// `--carry` for a crash kernel.
    #[error("--carry is for a kernel that exec boots: a crash kernel takes over no files")]
    ForCrash,
    /// `--carry` for another kernel than a Linux.
    #[error("--carry is for Linux: a multiboot kernel knows nothing of Kexec Handover")]
    NotLinux,
    /// The next kernel is built without Kexec Handover.
    #[error("the new kernel has no Kexec Handover (CONFIG_KEXEC_HANDOVER): it would drop {file}")]
    NoKho {
        /// The first file.
        file: String,
    },
    /// It reads another format of the tree.
    #[error("the new kernel reads {reads}, this rkexec writes {TREE}: {file} would be lost")]
    OtherKho {
        /// What it reads.
        reads: String,
        /// The first file.
        file: String,
    },
    /// The next kernel is built without LUO.
    #[error("the new kernel has no live update (CONFIG_LIVEUPDATE): it would drop {file}")]
    NoLuo {
        /// The first file.
        file: String,
    },
    /// It reads another format of the sessions.
    #[error("the new kernel reads {reads} and panics on {SESSIONS}: not loading")]
    OtherLuo {
        /// What it reads.
        reads: String,
    },
    /// It gives no memfd back.
    #[error(
        "the new kernel has no {FILES} handler: /dev/liveupdate would fail with EIO for every session"
    )]
    NoMemfd,
    /// What it reads is not known.
    #[error("cannot tell which handover version the new kernel reads ({found})")]
    CannotTell {
        /// What is known.
        found: String,
    },
    /// The new command line switches it off.
    #[error("the new command line switches {what} off ({word}=off): {file} would be lost")]
    SwitchedOff {
        /// The word.
        word: &'static str,
        /// What it switches off.
        what: &'static str,
        /// The first file.
        file: String,
    },
    /// The next kernel does not read its command line.
    #[error(
        "the new kernel ignores its command line (CONFIG_CMDLINE_OVERRIDE, {read_from}), and kho=on and liveupdate=on \
         with it"
    )]
    LineIgnored {
        /// Where that was read.
        read_from: String,
    },
    /// The names do not go together.
    #[error("the files cannot be carried")]
    Names(#[from] ManifestError),
    /// A name that the manifest cannot hold.
    #[error("the list of the files cannot be made: {0}")]
    Manifest(String),
    /// The kernel loads half of the RAM at most.
    #[error("{name} is {}, at most {} can be carried", human(*size), human(*limit))]
    TooLarge {
        /// The largest file.
        name: String,
        /// All files together, or that one.
        size: u64,
        /// What is left of half of the RAM, bytes.
        limit: u64,
    },
    /// No scratch memory.
    #[error("no room for {} of scratch, the memory in which the next kernel starts{}", human(*size), too_much(*much))]
    NoScratch {
        /// How much is needed, bytes.
        size: u64,
        /// Where it is too much: how much of it would hold only pages that can be moved, and
        /// the free RAM, bytes.
        much: Option<(u64, u64)>,
        /// How the size comes about.
        sum: String,
    },
    /// No memory for what is handed over.
    #[error("no room for what is handed over: {0}")]
    NoRoom(EncodeError),
    /// The memory lies in too many pieces.
    #[error(
        "no room for what is handed over: free memory lies in too many pieces, and a load has 16 segments"
    )]
    Scattered,
}

impl CarryError {
    /// Whether the options contradict each other.
    pub(super) const fn is_usage(&self) -> bool {
        matches!(self, Self::ForCrash | Self::NotLinux)
    }

    /// A way out, where there is one.
    pub(super) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoKho { .. }
            | Self::OtherKho { .. }
            | Self::NoLuo { .. }
            | Self::OtherLuo { .. }
            | Self::NoMemfd => {
                "load a kernel with CONFIG_KEXEC_HANDOVER, CONFIG_LIVEUPDATE and CONFIG_LIVEUPDATE_MEMFD, Linux 7.2 or 7.3 \
                 (rkexec inspect shows what it reads)"
            }
            Self::CannotTell { .. } => {
                "--assume-kho kho-v4 loads it if you know that it is Linux 7.2 or 7.3 with live update"
            }
            Self::SwitchedOff { word, .. } => {
                return Some(format!("leave it out with --remove {word}"));
            }
            Self::Names(ManifestError::Twice(_)) => "rename one of them, or load them one by one",
            Self::NoScratch { sum, .. } => return Some(format!("it is the sum of {sum}; {LESS}")),
            Self::NoRoom(_) | Self::Scattered => LESS,
            Self::TooLarge { .. } => "the running kernel loads at most half of the RAM",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Says that scratch memory would be too much of the RAM.
fn too_much(much: Option<(u64, u64)>) -> String {
    let Some((movable, ram)) = much else {
        return String::new();
    };
    let (movable, ram) = (human(movable), human(ram));
    format!(
        ": {movable} of it would hold only pages that can be moved, more than half of its free RAM ({ram})"
    )
}

/// What is handed over, before it has a place.
#[derive(Debug)]
pub(super) struct Built {
    state: State,
    manifest: Buf<'static>,
    carried: Vec<CarriedFile>,
}

/// What is handed over, in its place.
#[derive(Debug)]
pub(super) struct Laid<'g> {
    built: &'g Built,
    /// The memory in which the next kernel starts.
    scratch: Vec<PhysRange>,
    /// How its size comes about.
    needs: Needs,
    node: Node,
    encoded: Encoded,
    warnings: Vec<String>,
}

/// What is handed over, as segments.
#[derive(Debug)]
pub(super) struct Handed<'a> {
    /// What the next kernel preserves.
    pub segments: Vec<Segment<'a>>,
    /// The setup_data node.
    pub node: Node,
    /// What the next kernel's report compares.
    pub record: KhoRecord,
    /// What the plan says of it.
    pub plan: KhoPlan,
    pub warnings: Vec<String>,
}

/// Whether the loader itself makes what is handed over.
pub(super) fn is_wanted(
    request: &LoadRequest,
    host: &Host,
    image: &Image<'_>,
    carried: &[Carried<'_>],
) -> Result<bool, PlanError> {
    if carried.is_empty() {
        return Ok(false);
    }
    if image.linux().is_none() {
        return Err(CarryError::NotLinux.into());
    }
    if request.target == Target::Crash {
        return Err(CarryError::ForCrash.into());
    }
    // Where the running kernel hands over state, the files go with it.
    Ok(!keep::is_own(request.kho, &host.security.kho))
}

/// `line` with what switches Kexec Handover on in the next kernel, where files are carried,
/// and what the operator should know of it.
pub(super) fn on_line(
    mut line: Cmdline,
    carried: &[Carried<'_>],
) -> Result<(Cmdline, Option<String>), PlanError> {
    if carried.is_empty() {
        return Ok((line, None));
    }
    let mut added = Vec::new();
    for (word, what) in [("kho", "Kexec Handover"), ("liveupdate", "live update")] {
        match cmdline::truth(line.as_bstr(), word) {
            Some(true) => {}
            Some(false) => {
                let file = first(carried);
                return Err(CarryError::SwitchedOff { word, what, file }.into());
            }
            None => {
                let parameter = format!("{word}=on");
                line = line.with(&parameter)?;
                added.push(parameter);
            }
        }
    }
    let warning = (!added.is_empty()).then(|| {
        let (words, verb) = (added.join(" "), if added.len() == 1 { "was" } else { "were" });
        format!("{words} {verb} added to the command line: without it the next kernel gives no file back")
    });
    Ok((line, warning))
}

/// The first file, for people.
pub(super) fn first(carried: &[Carried<'_>]) -> String {
    let name = carried.first().map(|file| shown(&file.name).to_string());
    name.unwrap_or_default()
}

/// Checks that the next kernel reads what is written.
fn check_target(
    request: &LoadRequest,
    target: &Capability,
    carried: &[Carried<'_>],
) -> Result<(), CarryError> {
    let kho = &target.kho;
    let assumed = request.assume_kho.as_deref() == Some(TREE);
    let file = || first(carried);
    check_line_counts(kho)?;
    match known(&kho.kho, &kho.built.value) {
        Known::Reads(TREE) => {}
        Known::Nothing => return Err(CarryError::NoKho { file: file() }),
        Known::Reads(reads) => {
            let reads = reads.to_owned();
            return Err(CarryError::OtherKho {
                reads,
                file: file(),
            });
        }
        Known::No(found) => cannot_tell(assumed, target, found)?,
    }
    match known(&kho.luo, &kho.liveupdate.value) {
        Known::Reads(SESSIONS) => {}
        Known::Nothing => return Err(CarryError::NoLuo { file: file() }),
        Known::Reads(reads) => {
            let reads = reads.to_owned();
            return Err(CarryError::OtherLuo { reads });
        }
        Known::No(found) => cannot_tell(assumed, target, found)?,
    }
    match known(&kho.memfd, &kho.liveupdate_memfd.value) {
        Known::Reads(FILES) => Ok(()),
        Known::Nothing | Known::Reads(_) => Err(CarryError::NoMemfd),
        Known::No(found) => cannot_tell(assumed, target, found),
    }
}

/// Checks that the next kernel reads the words that switch Kexec Handover on.
pub(super) fn check_line_counts(target: &KhoTarget) -> Result<(), CarryError> {
    let ignored = &target.line_is_ignored;
    match ignored.value {
        Fact::Yes => Err(CarryError::LineIgnored {
            read_from: ignored.read_from.clone(),
        }),
        Fact::No | Fact::Unknown => Ok(()),
    }
}

/// What is known of a part.
pub(super) enum Known<'r> {
    /// It is built without it.
    Nothing,
    /// This format.
    Reads(&'r str),
    /// What there is instead.
    No(&'r [String]),
}

/// What the texts of a kernel and its configuration tell of a part.
pub(super) fn known<'r>(reads: &'r Reads, built: &Fact) -> Known<'r> {
    match (reads, built) {
        (Reads::Nothing, _) | (Reads::Unknown, Fact::No) => Known::Nothing,
        (Reads::One(format), _) => Known::Reads(format),
        (Reads::OneOf(formats), _) => Known::No(formats),
        (Reads::Unknown, _) => Known::No(&[]),
    }
}

/// Goes on if the formats are `assumed`.
pub(super) fn cannot_tell(
    assumed: bool,
    target: &Capability,
    found: &[String],
) -> Result<(), CarryError> {
    if assumed {
        return Ok(());
    }
    let found = match found {
        [] => target.untold(),
        found => format!("found {}", found.join(", ")),
    };
    Err(CarryError::CannotTell { found })
}

impl Built {
    /// What is handed over by the kernel of `release` with `pools` besides, of which Kexec
    /// Handover preserves some.
    pub(super) fn with_pools(
        built: Option<Self>,
        pools: &[PlannedPool],
        release: &str,
    ) -> Result<Option<Self>, PlanError> {
        let pools = pools.iter().filter(|it| it.protection == Protection::Kho);
        let pools = kho_pools::preserved(pools.map(|planned| &planned.pool));
        let pools = pools.map_err(HandoverError::from)?;
        if pools.is_empty() {
            return Ok(built);
        }
        let mut built = built.unwrap_or_else(|| Self {
            state: State {
                release: Some(release.to_owned()),
                ..State::default()
            },
            manifest: Vec::new().into(),
            carried: Vec::new(),
        });
        built.state.pools = pools;
        Ok(Some(built))
    }

    /// What is handed over to the kernel `target`.
    pub(super) fn of(inputs: Inputs<'_, '_>, target: &Capability) -> Result<Self, PlanError> {
        let carried = inputs.carried;
        check_target(inputs.request, target, carried)?;
        let size = |file: &Carried<'_>| file.bytes.len() as u64;
        let limit = inputs.host.total_ram / 2;
        check_size(carried, carried.iter().map(size).sum(), limit)?;
        let proofs = carried.iter().map(|file| {
            let sha256 = Sha256::digest(file.bytes).into();
            let size = size(file);
            (file.name.clone(), Proof { size, sha256 })
        });
        let manifest = Manifest::new(proofs.collect()).map_err(CarryError::from)?;
        let files = manifest.files();
        let listed: Vec<CarriedFile> = files
            .map(|(token, name, proof)| CarriedFile {
                name: name.clone(),
                size: proof.size,
                token,
                sha256: Some(proof.sha256),
            })
            .collect();
        let encoded = manifest.encode();
        let manifest = encoded.map_err(|error| CarryError::Manifest(error.to_string()))?;
        let list = File {
            token: TOKEN,
            size: manifest.len() as u64,
        };
        let files = listed.iter().map(|file| File {
            token: file.token,
            size: file.size,
        });
        let session = Name::new(SESSION).map(|name| Session {
            name,
            files: std::iter::once(list).chain(files).collect(),
        });
        let state = State {
            sessions: session.into_iter().collect(),
            pools: Vec::new(),
            release: Some(inputs.host.release.clone()),
        };
        Ok(Self {
            state,
            manifest: manifest.into(),
            carried: listed,
        })
    }

    /// What the next kernel's report compares.
    fn record(&self) -> KhoRecord {
        let files = self.carried.iter();
        KhoRecord {
            format: TREE.to_owned(),
            session: self.session(),
            files: files
                .map(|file| (CarriedName(file.name.clone()), file.size))
                .collect(),
            pools: self.pools(),
        }
    }

    /// The name of the session that has the files.
    fn session(&self) -> Option<String> {
        let session = self.state.sessions.first()?;
        Some(session.name.as_str().to_owned())
    }

    /// The names of the pools.
    fn pools(&self) -> Vec<String> {
        let pools = self.state.pools.iter();
        pools.map(|pool| pool.name.as_str().to_owned()).collect()
    }
}

/// Chooses the memory for what is handed over, and restricts `places` to the scratch memory:
/// the next kernel may overwrite what lies elsewhere before it looks there. `None`: the
/// loader hands nothing over.
pub(super) fn lay_out<'g>(
    inputs: Inputs<'_, '_>,
    ground: &'g Ground,
    places: &mut Places<'_>,
) -> Result<Option<Laid<'g>>, CarryError> {
    let Some(built) = &ground.built else {
        return Ok(None);
    };
    // The report of the next kernel gets a record as long as the list of the files.
    let needs = scratch::needs(inputs, ground, &built.state, built.manifest.len());
    let mut of_boot = places.of_boot();
    let Scratch {
        regions: scratch,
        needs,
        warning,
    } = scratch::take(&mut of_boot, needs)?;
    let mut set_aside = set_aside::pieces(ground.cmdline.as_bstr(), needs.ram);
    // What is handed over lies elsewhere.
    set_aside.retain(|piece| !matches!(piece.place, Place::Over(_)));
    let misplaced = set_aside::misplaced(&set_aside, &scratch);
    let mut pieces = of_boot.pieces(DMA);
    pieces.truncate(MAX_PIECES);
    let pages = |piece: &PhysRange| (piece.start()..piece.end()).step_by(PAGE_BYTES);
    let encoded = encode(&built.state, pieces.iter().flat_map(pages));
    let encoded = encoded.map_err(CarryError::NoRoom)?;
    let node = Node::new(scratch.clone(), encoded.tree.clone()).ok_or(CarryError::Scattered)?;
    // Kernel, initrds and tables lie in the first region, which has room for them.
    places.within(scratch.get(..1).unwrap_or_default());
    // They were taken in order.
    let mut left = (encoded.pages.len() + encoded.contents.len()) as u64 * PAGE_SIZE;
    let used = pieces.iter().take_while(|piece| {
        let is_used = left > 0;
        left = left.saturating_sub(piece.size());
        is_used
    });
    places.reserve_segments(used.count());
    Ok(Some(Laid {
        built,
        scratch,
        needs,
        node,
        encoded,
        warnings: warning.into_iter().chain(misplaced).collect(),
    }))
}

impl Laid<'_> {
    /// What is handed over, where `taken` segments and `size` bytes are taken by what else is
    /// loaded.
    pub(super) fn hand_over<'a>(
        self,
        inputs: Inputs<'_, 'a>,
        taken: usize,
        size: u64,
    ) -> Result<Handed<'a>, CarryError> {
        let (built, carried) = (self.built, inputs.carried);
        let files = carried.iter().map(|file| Buf::from(file.bytes));
        let files: Vec<Buf<'a>> = std::iter::once(built.manifest.clone())
            .chain(files)
            .collect();
        let most = SEGMENT_MAX.saturating_sub(taken);
        let segments = preserved(self.encoded, &files, most, RULE).ok_or(CarryError::Scattered)?;
        let of_files = segments.iter().map(|segment| segment.mem.size()).sum();
        let limit = (inputs.host.total_ram / 2).saturating_sub(size);
        check_size(carried, of_files, limit)?;
        let places = Holes::new(segments.iter().map(|segment| segment.mem));
        Ok(Handed {
            plan: KhoPlan {
                way: Way::Built,
                format: TREE.to_owned(),
                scratch: self.scratch,
                scratch_sum: self.needs.parts().to_vec(),
                preserved: places.free().to_vec(),
                carried: built.carried.clone(),
                pools: built.pools(),
            },
            record: built.record(),
            node: self.node,
            warnings: self.warnings,
            segments,
        })
    }
}

/// Refuses files of `size` bytes together where no more than `limit` can be loaded.
fn check_size(carried: &[Carried<'_>], size: u64, limit: u64) -> Result<(), CarryError> {
    let largest = carried.iter().max_by_key(|file| file.bytes.len());
    match (largest, size > limit) {
        (Some(largest), true) => {
            let name = shown(&largest.name).to_string();
            let name = match carried.len() {
                1 => name,
                2 => format!("{name} with 1 other file"),
                count => format!("{name} with {} other files", count - 1),
            };
            Err(CarryError::TooLarge { name, size, limit })
        }
        _ => Ok(()),
    }
}
