//! Kexec Handover (KHO) as a loader makes it: the tree, the map of preserved pages, the
//! sessions of live update (LUO) and the memory of `reserve_mem=`, byte by byte as a
//! kernel of one format reads them.
//!
//! [`encode`] is pure. The caller says what is handed over and which pages are free for
//! it, and gets what each page holds. Nothing may lie in scratch memory, because the next
//! kernel uses that before it has read the map (`kho_populate` of
//! kernel/liveupdate/kexec_handover.c). So the caller must give no page of it.
//!
//! One format of each part is written, that of Linux 7.2 and 7.3 (include/linux/kho/abi):
//! kho-v4, luo-v5, memfd-v2, memblock-v1. Which one a kernel reads, its file tells.

pub mod forward;
mod live_update;
mod map;
mod node;
mod scratch;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use vm_fdt::FdtWriter;

pub use node::{MAX_NODE, Node};
pub use scratch::{ALIGNMENT, LOW, Needs, SWIOTLB, SetAside};

use crate::abi::kho;
use crate::base::{PAGE_SIZE, PhysRange};

/// The format of the tree that is written.
pub const TREE: &str = "kho-v4";
/// The format of the sessions that is written.
pub const SESSIONS: &str = "luo-v5";
/// The format of the files in a session that is written.
pub const FILES: &str = "memfd-v2";

/// What is handed over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// Sessions of live update.
    pub sessions: Vec<Session>,
    /// Memory for `reserve_mem=` of the next kernel.
    pub pools: Vec<Pool>,
    /// The release of the kernel that hands it over, the first one to do so; `None`: the
    /// next kernel is not told.
    pub release: Option<String>,
}

/// A session, which a program of the next kernel asks for by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The name.
    pub name: Name<63>,
    /// Its files.
    pub files: Vec<File>,
}

/// A file, which the next kernel has as a memfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// The number by which a program asks for it in its session.
    pub token: u64,
    /// Its size, bytes.
    pub size: u64,
}

/// Memory that stays where it is, whole pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// The name in `reserve_mem=`.
    pub name: Name<MAX_POOL_NAME>,
    /// Where it lies.
    pub range: PhysRange,
}

/// A name of 1 to `MAX` bytes, without a NUL: `LIVEUPDATE_SESSION_NAME_LENGTH` for a
/// session and `RESERVE_MEM_NAME_SIZE` for memory of `reserve_mem=`, each less the NUL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name<const MAX: usize>(String);

impl<const MAX: usize> Name<MAX> {
    /// That name; `None` when it has another length, or bytes that are not printable ASCII.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let is_plain = name.bytes().all(|byte| byte.is_ascii_graphic());
        ((1..=MAX).contains(&name.len()) && is_plain).then(|| Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is to be put into memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The tree. It may lie anywhere in memory that stays reserved.
    pub tree: Vec<u8>,
    /// Pages that are made here, with their physical addresses.
    pub pages: Vec<(u64, Vec<u8>)>,
    /// Where the files' bytes go, in order.
    pub contents: Vec<Content>,
}

/// A page of a file. What of it is beyond the file's end must be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// Its physical address.
    pub page: u64,
    /// The session, by its place in [`State::sessions`].
    pub session: usize,
    /// The file, by its place in [`Session::files`].
    pub file: usize,
    /// Where in the file it begins, bytes.
    pub offset: u64,
}

/// Why a state cannot be handed over.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Too little memory was given.
    #[error("the state needs more than the {0} pages that are free for it")]
    NoMemory(usize),
    /// One name, two sessions or two pools.
    #[error("two {what} have the name {name}")]
    SameName {
        /// `sessions`, or `pools`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// One token, two files.
    #[error("two files of the session {session} have the token {token}")]
    SameToken {
        /// The session.
        session: String,
        /// The token.
        token: u64,
    },
    /// The kernel takes no more.
    #[error("{count} {what} are more than the {limit} that a kernel takes")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many there are.
        count: u64,
        /// How many may be there.
        limit: u64,
    },
    /// A pool that is no whole pages, or shares pages with another one.
    #[error("the pool {0} does not consist of whole pages of its own")]
    Pages(String),
    /// The tree cannot be written.
    #[error("writing the tree of Kexec Handover: {0}")]
    Tree(String),
}

impl From<vm_fdt::Error> for EncodeError {
    fn from(error: vm_fdt::Error) -> Self {
        Self::Tree(error.to_string())
    }
}

/// Most pools (`RESERVE_MEM_MAX_ENTRIES` of mm/memblock.c): the kernel does not look at
/// further words `reserve_mem=`.
pub const MAX_POOLS: usize = 8;
/// Longest name of a pool, bytes (`RESERVE_MEM_NAME_SIZE` less the NUL).
pub const MAX_POOL_NAME: usize = 15;

/// The pages that are free, and what was made of them.
struct Memory<I> {
    free: I,
    taken: usize,
    pages: Vec<(u64, Vec<u8>)>,
    /// What the next kernel is to keep: first page and order.
    kept: BTreeSet<(u64, u32)>,
}

impl<I: Iterator<Item = u64>> Memory<I> {
    /// A page that nobody has yet.
    fn take(&mut self) -> Result<u64, EncodeError> {
        let page = self.free.next();
        let page = page.ok_or(EncodeError::NoMemory(self.taken))?;
        self.taken += 1;
        Ok(page)
    }

    /// A page that the next kernel keeps until it is given back.
    fn take_kept(&mut self) -> Result<u64, EncodeError> {
        let page = self.take()?;
        self.kept.insert((page, 0));
        Ok(page)
    }

    fn put(&mut self, page: u64, bytes: Vec<u8>) {
        self.pages.push((page, bytes));
    }
}

/// What a kernel that reads kho-v4, luo-v5, memfd-v2 and memblock-v1 is to find in
/// memory for `state`. `free` are the physical addresses of pages for it, each once: as
/// many are taken as are needed.
///
/// # Errors
/// When there are too few pages, or a kernel would not take the state.
pub fn encode(state: &State, free: impl IntoIterator<Item = u64>) -> Result<Encoded, EncodeError> {
    check_names(state)?;
    let mut memory = Memory {
        free: free.into_iter(),
        taken: 0,
        pages: Vec::new(),
        kept: BTreeSet::new(),
    };
    let mut blobs = Vec::new();
    let mut contents = Vec::new();
    if !state.sessions.is_empty() {
        let page = live_update::write(&state.sessions, &mut memory, &mut contents)?;
        blobs.push((kho::LUO, page, live_update::SIZE));
    }
    if !state.pools.is_empty() {
        let page = pools(&state.pools, &mut memory)?;
        blobs.push((kho::MEMBLOCK, page, PAGE_SIZE));
    }
    if let Some(release) = &state.release {
        let page = memory.take_kept()?;
        let metadata = kho::metadata(release);
        blobs.push((kho::METADATA, page, metadata.len() as u64));
        memory.put(page, metadata);
    }
    let root = map::write(&mut memory)?;
    Ok(Encoded {
        tree: tree(root, &blobs)?,
        pages: memory.pages,
        contents,
    })
}

fn check_names(state: &State) -> Result<(), EncodeError> {
    let mut names = BTreeSet::new();
    for session in &state.sessions {
        let name = session.name.as_str();
        if !names.insert(name) {
            return Err(same_name("sessions", name));
        }
        let mut tokens = BTreeSet::new();
        let mut files = session.files.iter().map(|file| file.token);
        if let Some(token) = files.find(|token| !tokens.insert(*token)) {
            return Err(EncodeError::SameToken {
                session: name.to_owned(),
                token,
            });
        }
    }
    names.clear();
    match state
        .pools
        .iter()
        .find(|pool| !names.insert(pool.name.as_str()))
    {
        Some(pool) => Err(same_name("pools", pool.name.as_str())),
        None => Ok(()),
    }
}

fn same_name(what: &'static str, name: &str) -> EncodeError {
    EncodeError::SameName {
        what,
        name: name.to_owned(),
    }
}

/// The tree: what each blob is called, where it is and how large.
fn tree(root: u64, blobs: &[(&str, u64, u64)]) -> Result<Vec<u8>, EncodeError> {
    let mut writer = FdtWriter::new()?;
    let top = writer.begin_node("")?;
    writer.property_string("compatible", TREE)?;
    // Numbers are in the order of the machine, not in that of device trees.
    writer.property("preserved-memory-map", &root.to_le_bytes())?;
    for (name, address, size) in blobs {
        let node = writer.begin_node(name)?;
        writer.property("preserved-data", &address.to_le_bytes())?;
        writer.property("blob-size", &size.to_le_bytes())?;
        writer.end_node(node)?;
    }
    writer.end_node(top)?;
    Ok(writer.finish()?)
}

/// Writes the blob that names the pools, and keeps their memory. Gives its address.
fn pools(
    pools: &[Pool],
    memory: &mut Memory<impl Iterator<Item = u64>>,
) -> Result<u64, EncodeError> {
    if pools.len() > MAX_POOLS {
        return Err(EncodeError::TooMany {
            what: "pools",
            count: pools.len() as u64,
            limit: MAX_POOLS as u64,
        });
    }
    let mut writer = FdtWriter::new()?;
    let top = writer.begin_node("")?;
    writer.property_string("compatible", "memblock-v1")?;
    for (number, pool) in pools.iter().enumerate() {
        let (range, name) = (pool.range, pool.name.as_str());
        let others = pools.iter().take(number);
        let is_whole =
            range.start().is_multiple_of(PAGE_SIZE) && range.size().is_multiple_of(PAGE_SIZE);
        if !is_whole || others.map(|other| other.range).any(|it| it.overlaps(range)) {
            return Err(EncodeError::Pages(name.to_owned()));
        }
        memory.kept.extend(map::natural(range));
        let node = writer.begin_node(name)?;
        writer.property_string("compatible", "reserve-mem-v1")?;
        writer.property("start", &range.start().to_le_bytes())?;
        writer.property("size", &range.size().to_le_bytes())?;
        writer.end_node(node)?;
    }
    writer.end_node(top)?;
    let page = memory.take_kept()?;
    memory.put(page, writer.finish()?);
    Ok(page)
}
