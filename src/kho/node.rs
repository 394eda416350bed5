//! The payload of the setup_data node by which an x86 kernel is given KHO (`struct
//! kho_data` of arch/x86/include/uapi/asm/setup_data.h).

use crate::base::PhysRange;

/// Bytes of `struct kho_data`.
const DATA: usize = 32;
/// Bytes of a region in the array of scratch memory.
const REGION: usize = 16;
/// Largest payload, bytes: the kernel maps 64 pages at once (`early_memremap`), and the
/// node may begin anywhere in the first. Its header has 16 bytes.
pub const MAX_NODE: usize = 63 * 4096 - 16;

/// What the node holds: `struct kho_data`, the regions of the scratch memory, the tree.
///
/// All of it lies in the node. A kernel that chooses its place at random keeps off the
/// nodes, but neither off the array nor off the tree where they lie elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    scratch: Vec<PhysRange>,
    tree: Vec<u8>,
}

impl Node {
    /// The payload for that scratch memory and that tree; `None` when it is larger than
    /// [`MAX_NODE`].
    #[must_use]
    pub fn new(scratch: Vec<PhysRange>, tree: Vec<u8>) -> Option<Self> {
        let node = Self { scratch, tree };
        (node.size() <= MAX_NODE).then_some(node)
    }

    /// Its size, bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        DATA + self.scratch.len() * REGION + self.tree.len()
    }

    /// Its bytes when they lie at the physical address `base`, a multiple of 16 as in
    /// every node.
    #[must_use]
    pub fn bytes_at(&self, base: u64) -> Vec<u8> {
        let array: Vec<u8> = self
            .scratch
            .iter()
            .flat_map(|region| [region.start(), region.size()])
            .flat_map(u64::to_le_bytes)
            .collect();
        let array_at = base + DATA as u64;
        let tree_at = array_at + array.len() as u64;
        let data = [
            tree_at,
            self.tree.len() as u64,
            array_at,
            array.len() as u64,
        ];
        let data = data.map(u64::to_le_bytes);
        [data.as_flattened(), &array, &self.tree].concat()
    }
}
