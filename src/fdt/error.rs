//! Why a blob is no device tree that can be handed over.

use super::blocks::MAX_INPUT;
use super::structure::{MAX_LEVELS, MAX_NAME};
use super::write::MAX_BLOB;

/// Why a device tree is not read, changed or written.
///
/// Offsets are in bytes from the start of the block that is named. Paths are
/// node paths, `/` for the root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// Not a blob at all.
    #[error("not a device tree blob: it starts with {magic:#010x} instead of 0xd00dfeed")]
    NotATree {
        /// First four bytes.
        magic: u32,
    },
    /// The file ends before the blob does.
    #[error("the device tree blob is cut off: {have} bytes of {need}")]
    Truncated {
        /// Bytes there.
        have: usize,
        /// Bytes that must be there.
        need: u64,
    },
    /// Older than 16, or only readable by a version after 17.
    #[error(
        "the device tree blob has version {version} (compatible down to {last_compatible}); \
         16 and 17 are supported"
    )]
    Version {
        /// `version` of the header.
        version: u32,
        /// `last_comp_version` of the header.
        last_compatible: u32,
    },
    /// Larger than any kernel takes.
    #[error(
        "the device tree blob says it has {size:#x} bytes; more than {MAX_INPUT:#x} is not read"
    )]
    InputTooBig {
        /// `totalsize` of the header.
        size: u32,
    },
    /// The header places a block where none can be.
    #[error("the {block} of the device tree blob, {size:#x} bytes at {offset:#x}, {why}")]
    Block {
        /// Which one.
        block: &'static str,
        /// Where the header says it is, bytes from the start of the blob.
        offset: u32,
        /// Its size as the header says, else all that follows.
        size: u32,
        /// What is wrong with that.
        why: &'static str,
    },
    /// A token of the structure block makes no sense.
    #[error("the device tree's structure block is malformed at {offset:#x}: {why}")]
    Structure {
        /// Offset of the token.
        offset: usize,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A name that no node or property can have.
    #[error(
        "device tree node {path}: the {what} name \"{name}\" is not 1 to {MAX_NAME} letters, digits \
         and `,._+*#?-`"
    )]
    Name {
        /// Path of the node that it is in.
        path: String,
        /// `node` or `property`.
        what: &'static str,
        /// The name, escaped.
        name: String,
    },
    /// Two properties or two nodes with one name in one node.
    #[error("device tree node {path} has two {what} called {name:?}")]
    Duplicate {
        /// Path of the node that they are in.
        path: String,
        /// `nodes` or `properties`.
        what: &'static str,
        /// Their name.
        name: String,
    },
    /// More levels than the kernel keeps.
    #[error(
        "the device tree is deeper than {MAX_LEVELS} levels, and the kernel would drop what is below: {path}"
    )]
    TooDeep {
        /// Path of the first node that is too deep.
        path: String,
    },
    /// A phandle that identifies nothing.
    #[error("device tree node {path}: {property} {why}")]
    Phandle {
        /// Path of the node.
        path: String,
        /// `phandle` or `linux,phandle`.
        property: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// One phandle, two nodes.
    #[error("device tree nodes {first} and {second} have the same phandle {phandle:#x}")]
    PhandleTwice {
        /// The phandle.
        phandle: u32,
        /// Path of the first node.
        first: String,
        /// Path of the second node.
        second: String,
    },
    /// Following a property from node to node never ends.
    #[error("the device tree's {property} chain is a cycle: {nodes}")]
    Cycle {
        /// Name of the property.
        property: &'static str,
        /// Paths of the nodes, in order.
        nodes: String,
    },
    /// The kernel would not map all of it.
    #[error(
        "the device tree needs {size:#x} bytes, and a kernel maps no more than {MAX_BLOB:#x} of one"
    )]
    TooBig {
        /// Size of the blob, bytes.
        size: usize,
    },
    /// vm-fdt refuses the tree.
    #[error("writing the device tree: {0}")]
    Write(String),
}
