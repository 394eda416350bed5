//! Device trees: read from a blob, changed, written as a blob.
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
pub(crate) mod tests;
mod write;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node as _, Property as _};

pub use blocks::{MAX_INPUT, Reservation};
pub use error::TreeError;
pub use structure::MAX_LEVELS;
pub use write::MAX_BLOB;

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
    /// A tree with nothing in it.
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

    /// The node called `name` directly below the one called `parent`, which is directly
    /// below the root. Either is made where it is missing.
    pub fn node_or_new(&mut self, parent: &str, name: &str) -> &mut Node {
        self.root.child_or_new(parent).child_or_new(name)
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
    #[must_use]
    pub fn is_compatible(&self, wanted: &str) -> bool {
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

    /// Sets the property `name`, or adds it behind the others.
    pub fn set(&mut self, name: &str, value: Vec<u8>) {
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
