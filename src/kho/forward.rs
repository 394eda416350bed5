//! What the running kernel hands over, for a load in which the loader hands it over in its
//! place (kexec_load).
//!
//! The running kernel goes on writing what it hands over until it makes the jump: sessions
//! into a blob, preserved pages into the map. Both stay where they are from boot on. So a
//! tree of one's own with the same addresses is as good as the kernel's, as long as no blob
//! comes or goes (`kho_add_subtree` of kernel/liveupdate/kexec_handover.c, Linux 7.2).
//!
//! debugfs shows the kernel's tree as long as it was when KHO started, and the tree grows
//! after that: its end is cut. What is cut first are the names of the properties, so that
//! they are told by their order: a name that was used earlier is stored earlier.

use serde::{Deserialize, Serialize};

use super::{EncodeError, TREE};
use crate::abi::kho::METADATA;
use crate::base::PhysRange;
use crate::host::kho::Kho;

/// What the tree of a running kernel leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Physical address of the map of preserved pages.
    map: u64,
    /// The blobs, sorted by name.
    blobs: Vec<Blob>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Blob {
    name: String,
    /// Physical address.
    address: u64,
    /// Bytes.
    size: u64,
}

/// Why what the running kernel hands over cannot be handed over by a loader.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// It hands over nothing.
    #[error("this kernel hands over nothing: Kexec Handover is off ({0})")]
    Off(String),
    /// debugfs is not mounted, or only root may look into it.
    #[error("mount debugfs to forward KHO state: only /sys/kernel/debug/kho shows where it is")]
    NotShown,
    /// It shows no tree because it was given one itself.
    #[error(
        "this kernel was itself started with handed-over state and does not show its tree: only kexec_file_load keeps it"
    )]
    TakenOver,
    /// Another format, or none.
    #[error("this kernel hands over {0}, and only {TREE} can be forwarded")]
    Format(String),
    /// The end of the tree is missing.
    #[error("debugfs shows only part of the tree: {} is not in it", .0.join(" and "))]
    Part(Vec<String>),
    /// A blob is not what the tree says.
    #[error("the tree of this kernel gives {name} {told} bytes, and debugfs shows {shown}")]
    Size {
        /// The blob.
        name: String,
        /// What the tree says.
        told: u64,
        /// What debugfs shows.
        shown: u64,
    },
    /// It is no tree of KHO.
    #[error("the tree of this kernel is malformed at byte {offset}: {why}")]
    Malformed {
        /// Where.
        offset: usize,
        /// What is wrong.
        why: &'static str,
    },
    /// The next kernel is not one for it.
    #[error("the new kernel is no Linux, and takes nothing over")]
    NotTaken,
    /// A pool may hold what is preserved.
    #[error(
        "the pool {0} lies in RAM that this kernel uses, where what it preserves may lie as well"
    )]
    PoolInUse(String),
    /// The tree cannot be written again.
    #[error("the tree of this kernel cannot be passed on: {0}")]
    Write(EncodeError),
    /// It names no scratch memory.
    #[error("this kernel shows no scratch memory of Kexec Handover")]
    NoScratch,
}

impl ForwardError {
    /// A way out, where there is one.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotShown => Some("mount -t debugfs debugfs /sys/kernel/debug, as root"),
            Self::PoolInUse(_) => Some(
                "reserve its memory in this kernel first (memmap=SIZE$BASE on its command line)",
            ),
            _ => None,
        }
    }
}

/// What `kho` hands over, and the scratch memory that everything must lie in.
///
/// # Errors
/// When the running kernel does not show all of it, or in another format than kho-v4.
pub fn forward(kho: &Kho) -> Result<(Tree, Vec<PhysRange>), ForwardError> {
    if !kho.on {
        return Err(ForwardError::Off(kho.why.clone()));
    }
    let state = &kho.state;
    let scratch = state.scratch.clone().ok_or(ForwardError::NotShown)?;
    let Some(shown) = &state.tree else {
        return Err(match state.taken_over {
            true => ForwardError::TakenOver,
            false => ForwardError::NotShown,
        });
    };
    let tree = Tree::read(shown, &state.blobs)?;
    match scratch.is_empty() {
        true => Err(ForwardError::NoScratch),
        false => Ok((tree, scratch)),
    }
}

impl Tree {
    /// Reads the tree in `shown`, whose end may be missing. `blobs` are the names of what it
    /// leads to, and the size of each in bytes, as debugfs shows them beside it.
    ///
    /// The blob with the metadata of KHO may be missing: without it the next kernel does not
    /// tell which kernel was before it.
    ///
    /// # Errors
    /// When it is no tree of kho-v4, when one of `blobs` is missing in what is shown of it,
    /// and when the two differ.
    pub fn read(shown: &[u8], blobs: &[(String, u64)]) -> Result<Self, ForwardError> {
        let parts = Parts::split(shown)?;
        let (root, nodes) = parts.nodes()?;
        let map = parts.map(&root)?;
        let mut found = Vec::new();
        for node in &nodes {
            found.push(parts.blob(node)?);
        }
        found.sort();
        let next = found.iter().skip(1);
        if found
            .iter()
            .zip(next)
            .any(|(one, next)| one.name == next.name)
        {
            return Err(parts.fault(0, "two nodes have one name"));
        }
        let missing: Vec<String> = blobs
            .iter()
            .filter(|(name, _)| name != METADATA && found.iter().all(|blob| blob.name != *name))
            .map(|(name, _)| name.clone())
            .collect();
        if !missing.is_empty() {
            return Err(ForwardError::Part(missing));
        }
        for blob in &found {
            let shown = blobs.iter().find(|(name, _)| *name == blob.name);
            let Some((_, shown)) = shown else {
                return Err(parts.fault(0, "debugfs shows a node without its blob"));
            };
            if *shown != blob.size {
                return Err(ForwardError::Size {
                    name: blob.name.clone(),
                    told: blob.size,
                    shown: *shown,
                });
            }
        }
        Ok(Self { map, blobs: found })
    }

    /// The names of what is handed over.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.blobs.iter().map(|blob| blob.name.as_str())
    }

    /// The tree as the next kernel reads it.
    ///
    /// # Errors
    /// When it is too large for a tree.
    pub fn write(&self) -> Result<Vec<u8>, EncodeError> {
        let blobs: Vec<_> = self
            .blobs
            .iter()
            .map(|blob| (blob.name.as_str(), blob.address, blob.size))
            .collect();
        super::tree(self.map, &blobs)
    }
}

/// `FDT_MAGIC` of the Devicetree Specification v0.4, chapter 5. So are the tokens.
const MAGIC: u32 = 0xd00d_feed;
/// Bytes of the header.
const HEADER: usize = 40;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
/// Longest name of a node, bytes.
const MAX_NAME: usize = 31;

/// A property: where its name is in the block of names, and its value.
type Property<'a> = (u32, &'a [u8]);

/// A node: its name and its properties.
#[derive(Debug, Default)]
struct Node<'a> {
    name: &'a str,
    properties: Vec<Property<'a>>,
}

/// Whether a node may have that name (Devicetree Specification v0.4, 2.2.1).
fn is_name(name: &str) -> bool {
    let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || b",._+-".contains(&byte);
    name.len() <= MAX_NAME
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(is_byte)
}

/// A token of the structure.
enum Token<'a> {
    Begin(&'a str),
    Property(Property<'a>),
    End,
    Nop,
}

/// The blocks of a tree, as far as they are there.
struct Parts<'a> {
    structure: &'a [u8],
    /// Where the structure begins, for messages.
    start: usize,
    /// The end of the structure is missing.
    is_cut: bool,
    names: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(shown: &'a [u8]) -> Result<Self, ForwardError> {
        let malformed = |offset, why| ForwardError::Malformed { offset, why };
        let field = |index: usize| {
            let bytes = shown.get(index * 4..).and_then(<[_]>::first_chunk);
            let number = bytes.map(|bytes| u32::from_be_bytes(*bytes));
            number.ok_or_else(|| malformed(index * 4, "the header is cut off"))
        };
        if field(0)? != MAGIC {
            return Err(malformed(0, "it is no device tree"));
        }
        if field(5)? != 17 {
            return Err(malformed(20, "it is not of version 17"));
        }
        let place = |index: usize| {
            let place = usize::try_from(field(index)?).ok();
            place.ok_or_else(|| malformed(index * 4, "the number is too large"))
        };
        let (start, names, size) = (place(2)?, place(3)?, place(9)?);
        if start < HEADER || names < HEADER {
            return Err(malformed(8, "a block overlaps the header"));
        }
        let rest = shown.get(start..).unwrap_or_default();
        Ok(Self {
            structure: rest.get(..size).unwrap_or(rest),
            start,
            is_cut: rest.len() < size,
            names: shown.get(names..).unwrap_or_default(),
        })
    }

    fn fault(&self, at: usize, why: &'static str) -> ForwardError {
        ForwardError::Malformed {
            offset: self.start + at,
            why,
        }
    }

    /// The root, and the nodes below it that are there as a whole.
    fn nodes(&self) -> Result<(Node<'a>, Vec<Node<'a>>), ForwardError> {
        let mut at = 0;
        let mut open: Vec<Node<'a>> = Vec::new();
        let mut whole = Vec::new();
        loop {
            let start = at;
            let fault = |why| self.fault(start, why);
            match self.token(&mut at)? {
                Some(Token::Nop) => {}
                Some(Token::Begin(_)) if open.len() == 2 => {
                    return Err(fault("a node below that of a blob"));
                }
                Some(Token::Begin(name)) => open.push(Node {
                    name,
                    properties: Vec::new(),
                }),
                Some(Token::Property(property)) => {
                    let node = open.last_mut();
                    let node = node.ok_or_else(|| fault("a property outside of every node"))?;
                    node.properties.push(property);
                }
                Some(Token::End) => {
                    let node = open.pop();
                    let node = node.ok_or_else(|| fault("a node ends that did not begin"))?;
                    if open.is_empty() {
                        return Ok((node, whole));
                    }
                    whole.push(node);
                }
                None => {
                    let root = open.into_iter().next().filter(|_| self.is_cut);
                    let root = root.ok_or_else(|| fault("it ends inside a node"))?;
                    return Ok((root, whole));
                }
            }
        }
    }

    /// The next token; `None` when it is cut off.
    fn token(&self, at: &mut usize) -> Result<Option<Token<'a>>, ForwardError> {
        let start = *at;
        Ok(match self.number(at) {
            Some(BEGIN_NODE) => self.name(at)?.map(Token::Begin),
            Some(END_NODE) => Some(Token::End),
            Some(PROP) => self.property(at).map(Token::Property),
            Some(NOP) => Some(Token::Nop),
            Some(_) => return Err(self.fault(start, "an unknown token")),
            None => None,
        })
    }

    fn number(&self, at: &mut usize) -> Option<u32> {
        let bytes = self.structure.get(*at..)?.first_chunk()?;
        *at += 4;
        Some(u32::from_be_bytes(*bytes))
    }

    /// A node's name, and what pads it; `None` when it is cut off.
    fn name(&self, at: &mut usize) -> Result<Option<&'a str>, ForwardError> {
        let start = *at;
        let rest = self.structure.get(start..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| *byte == 0) else {
            return Ok(None);
        };
        let name = rest.get(..length).unwrap_or_default();
        *at = (start + length + 1).next_multiple_of(4);
        let text = std::str::from_utf8(name).ok();
        text.map(Some)
            .ok_or_else(|| self.fault(start, "a node's name is no text"))
    }

    /// A property, and what pads its value; `None` when it is cut off.
    fn property(&self, at: &mut usize) -> Option<Property<'a>> {
        let (size, name) = (self.number(at)?, self.number(at)?);
        let size = usize::try_from(size).ok()?;
        let value = self.structure.get(*at..)?.get(..size)?;
        *at = (*at + size).next_multiple_of(4);
        Some((name, value))
    }

    /// The map that the root leads to.
    fn map(&self, root: &Node<'_>) -> Result<u64, ForwardError> {
        let [one, other] = &*root.properties else {
            return Err(self.fault(0, "the root has not two properties"));
        };
        let numbers = [one, other].map(|(_, value)| <[u8; 8]>::try_from(*value).ok());
        let ((map_name, map), (format_name, format)) = match numbers {
            [Some(map), None] => ((one.0, map), other),
            [None, Some(map)] => ((other.0, map), one),
            _ => return Err(self.fault(0, "the root has not one number")),
        };
        self.is_called(map_name, b"preserved-memory-map")?;
        self.is_called(*format_name, b"compatible")?;
        let format = format.strip_suffix(b"\0").unwrap_or(format);
        if format != TREE.as_bytes() {
            return Err(ForwardError::Format(format.escape_ascii().to_string()));
        }
        match u64::from_le_bytes(map) {
            0 => Err(self.fault(0, "it has no map")),
            map => Ok(map),
        }
    }

    /// The blob that `node` leads to.
    fn blob(&self, node: &Node<'_>) -> Result<Blob, ForwardError> {
        let number = |value: &[u8]| <[u8; 8]>::try_from(value).ok().map(u64::from_le_bytes);
        let pair = match &*node.properties {
            [(one, first), (other, second)] if one < other => {
                Some((*one, *other, number(first), number(second)))
            }
            [(one, first), (other, second)] if one > other => {
                Some((*other, *one, number(second), number(first)))
            }
            _ => None,
        };
        let Some((address_name, size_name, Some(address), Some(size))) = pair else {
            return Err(self.fault(0, "a node has not two numbers"));
        };
        self.is_called(address_name, b"preserved-data")?;
        self.is_called(size_name, b"blob-size")?;
        if address == 0 {
            return Err(self.fault(0, "a node leads nowhere"));
        }
        if !is_name(node.name) {
            return Err(self.fault(0, "a node has a name that no tree may have"));
        }
        Ok(Blob {
            name: node.name.to_owned(),
            address,
            size,
        })
    }

    /// Whether the name at `offset` is `name`, as far as it is there.
    fn is_called(&self, offset: u32, name: &[u8]) -> Result<(), ForwardError> {
        let start = usize::try_from(offset).ok();
        let there = start.and_then(|start| self.names.get(start..));
        let there = there.unwrap_or_default();
        let length = there.len().min(name.len());
        match there.get(..length) == name.get(..length) {
            true => Ok(()),
            false => Err(self.fault(0, "a property has another name")),
        }
    }
}

#[cfg(test)]
#[path = "forward_tests.rs"]
mod tests;
