//! Device trees: read from a blob, given pools, written as a blob.
//!
//! Format: Devicetree Specification v0.4, chapter 5, "Flattened Devicetree".
//! dtoolkit walks the blob and vm-fdt writes it. Neither takes everything that
//! dtc and firmware make (version 16, other orders of the blocks, `__symbols__`,
//! long names, overlapping reservations), so `blocks` puts the parts in
//! dtoolkit's order, `structure` checks them before dtoolkit sees them, and
//! `write` puts what vm-fdt refuses back into what it wrote.

mod blocks;
mod dts;
mod error;
mod links;
mod structure;
#[cfg(test)]
mod tests;
mod write;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node as _, Property as _};

pub use blocks::{MAX_INPUT, Reservation};
pub use error::TreeError;
pub use structure::MAX_LEVELS;
pub use write::MAX_BLOB;

use crate::handover::pool::{self, Pool};
use crate::memory::PhysRange;

/// A device tree that one can rely on: no two siblings share a name, every
/// phandle belongs to one node, interrupt parents do not go round in circles.
///
/// What is not understood is kept byte for byte: reservations and properties in
/// their order, values as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceTree {
    reservations: Vec<Reservation>,
    boot_cpuid_phys: u32,
    root: Node,
}

/// One node of a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    name: String,
    properties: Vec<Property>,
    children: Vec<Node>,
}

/// One property of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Property {
    name: String,
    value: Vec<u8>,
}

impl DeviceTree {
    /// A tree to put pools in.
    ///
    /// The root has no `compatible`: with one, an x86 kernel takes the tree for a
    /// description of the machine (of_have_populated_dt(), since v6.8). It has two
    /// cells each for addresses and sizes, for they are 64 bits wide and the
    /// kernel would otherwise assume one.
    #[must_use]
    pub fn empty() -> Self {
        let cells = |name: &str| Property {
            name: name.to_owned(),
            value: 2_u32.to_be_bytes().to_vec(),
        };
        Self {
            reservations: Vec::new(),
            boot_cpuid_phys: 0,
            root: Node {
                properties: vec![cells("#address-cells"), cells("#size-cells")],
                ..Node::default()
            },
        }
    }

    /// Reads a blob of version 16 or 17; bytes after its stated size are ignored.
    ///
    /// # Errors
    /// When it is no blob, larger than [`MAX_INPUT`], cut off, deeper than
    /// [`MAX_LEVELS`], or not what [`DeviceTree`] promises; the message says where.
    pub fn read(blob: &[u8]) -> Result<Self, TreeError> {
        let parts = blocks::split(blob, MAX_INPUT)?;
        let structure = structure::check(parts.structure, parts.strings)?;
        let ordered = blocks::assemble(
            parts.boot_cpuid_phys,
            &parts.reservations,
            structure,
            parts.strings,
        )?;
        // Not Fdt::new(): what it would check has been checked, and it refuses
        // names longer than 31 characters.
        let root = Node::copy(Fdt::new_unchecked(&ordered).root());
        links::check(&root)?;
        Ok(Self {
            reservations: parts.reservations,
            boot_cpuid_phys: parts.boot_cpuid_phys,
            root,
        })
    }

    /// The tree as a blob of version 17, which version 16 readers understand.
    ///
    /// # Errors
    /// When it is larger than [`MAX_BLOB`].
    pub fn write(&self) -> Result<Vec<u8>, TreeError> {
        write::blob(self)
    }

    /// The tree as source text, laid out as `dtc -I dtb -O dts` does it.
    #[must_use]
    pub fn to_dts(&self) -> String {
        dts::print(self)
    }

    /// The memory reservation block, in order.
    #[must_use]
    pub fn reservations(&self) -> &[Reservation] {
        &self.reservations
    }

    /// Physical ID of the CPU that booted, from the blob's header.
    #[must_use]
    pub const fn boot_cpuid_phys(&self) -> u32 {
        self.boot_cpuid_phys
    }

    /// The root node; its name is empty.
    #[must_use]
    pub const fn root(&self) -> &Node {
        &self.root
    }

    /// The node at `path`, as in `/chosen/default_pmpool`.
    #[must_use]
    pub fn node(&self, path: &str) -> Option<&Node> {
        path.strip_prefix('/')?
            .split('/')
            .filter(|name| !name.is_empty())
            .try_fold(&self.root, |node, name| node.child(name))
    }

    /// The pools: the nodes below /chosen that are compatible with
    /// [`pool::COMPATIBLE`]. Whether they overlap is not looked at.
    ///
    /// # Errors
    /// When such a node describes no pool; the message names node and property.
    pub fn pools(&self) -> Result<Vec<Pool>, TreeError> {
        let chosen = self.root.child("chosen");
        let nodes = chosen.map_or(&[][..], Node::children);
        nodes
            .iter()
            .filter(|node| node.is_compatible(pool::COMPATIBLE))
            .map(read_pool)
            .collect()
    }

    /// Adds the node of `pool` below /chosen, or sets `base`, `size` and `bitmap`
    /// of the one that is there. What else a node has stays.
    ///
    /// # Errors
    /// When a node of this name is `compatible` with something else.
    pub fn set_pool(&mut self, pool: &Pool) -> Result<(), TreeError> {
        let node = self.root.child_or_new("chosen").child_or_new(pool.name());
        if !node.is_compatible(pool::COMPATIBLE) {
            if let Some(other) = node.property("compatible") {
                return Err(TreeError::NotAPool {
                    path: pool_path(pool.name()),
                    compatible: other.escape_ascii().to_string(),
                });
            }
            node.set("compatible", [pool::COMPATIBLE.as_bytes(), b"\0"].concat());
        }
        let range = pool.range();
        for (name, value) in [
            ("base", range.start()),
            ("size", range.size()),
            ("bitmap", pool.bitmap()),
        ] {
            node.set(name, value.to_be_bytes().to_vec());
        }
        Ok(())
    }
}

impl Node {
    /// Name with unit address; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Properties, in order.
    #[must_use]
    pub fn properties(&self) -> &[Property] {
        &self.properties
    }

    /// Nodes below this one, in order.
    #[must_use]
    pub fn children(&self) -> &[Node] {
        &self.children
    }

    /// Value of the property `name`.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&[u8]> {
        let found = self.properties.iter().find(|it| it.name == name)?;
        Some(&found.value)
    }

    /// The node called `name`, unit address included, directly below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Node> {
        self.children.iter().find(|it| it.name == name)
    }

    /// Whether `compatible`, a list of strings, has `wanted`.
    fn is_compatible(&self, wanted: &str) -> bool {
        self.property("compatible").is_some_and(|list| {
            list.split(|byte| *byte == 0)
                .any(|one| one == wanted.as_bytes())
        })
    }

    /// The value of a property that holds one number of 32 bits.
    fn cell(&self, name: &str) -> Option<Result<u32, usize>> {
        let value = self.property(name)?;
        let bytes = <[u8; 4]>::try_from(value).map_err(|_| value.len());
        Some(bytes.map(u32::from_be_bytes))
    }

    fn child_or_new(&mut self, name: &str) -> &mut Self {
        let found = self.children.iter().position(|it| it.name == name);
        let at = found.unwrap_or(self.children.len());
        if found.is_none() {
            self.children.push(Self {
                name: name.to_owned(),
                ..Self::default()
            });
        }
        &mut self.children[at]
    }

    fn set(&mut self, name: &str, value: Vec<u8>) {
        match self.properties.iter_mut().find(|it| it.name == name) {
            Some(property) => property.value = value,
            None => self.properties.push(Property {
                name: name.to_owned(),
                value,
            }),
        }
    }

    /// A node of a checked blob and all below it: [`MAX_LEVELS`] bounds the recursion.
    fn copy(node: FdtNode<'_>) -> Self {
        Self {
            name: node.name().to_owned(),
            properties: node
                .properties()
                .map(|property| Property {
                    name: property.name().to_owned(),
                    value: property.value().to_vec(),
                })
                .collect(),
            children: node.children().map(Self::copy).collect(),
        }
    }
}

impl Property {
    /// Name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Value, possibly empty; numbers in it are big-endian.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

fn pool_path(name: &str) -> String {
    format!("/chosen/{name}")
}

fn read_pool(node: &Node) -> Result<Pool, TreeError> {
    let number = |property: &'static str| {
        let fault = |why: String| TreeError::PoolProperty {
            path: pool_path(&node.name),
            property,
            why,
        };
        let value = node
            .property(property)
            .ok_or_else(|| fault("is missing".to_owned()))?;
        let bytes = <[u8; 8]>::try_from(value)
            .map_err(|_| fault(format!("has {} bytes instead of 8", value.len())))?;
        Ok(u64::from_be_bytes(bytes))
    };
    let (base, size, bitmap) = (number("base")?, number("size")?, number("bitmap")?);
    PhysRange::new(base, size)
        .map_err(pool::PoolError::from)
        .and_then(|range| Pool::new(&node.name, range, bitmap))
        .map_err(|why| TreeError::Pool {
            path: pool_path(&node.name),
            why,
        })
}
