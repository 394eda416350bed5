//! Trees to blobs.

use std::collections::BTreeMap;

use vm_fdt::{Error, FdtWriter};

use super::blocks::{self, Blocks};
use super::error::TreeError;
use super::{DeviceTree, Node};

/// Largest blob that is handed over, bytes: 256 KiB less one page and the
/// header of the setup_data node that carries it.
///
/// x86_flattree_get_config() maps the blob with early_memremap(), which has
/// NR_FIX_BTMAPS = 64 pages, and the blob may start anywhere in the first of
/// them; with more, the kernel dereferences NULL.
pub const MAX_BLOB: usize = 64 * 4096 - 4096 - 16;

pub(super) fn blob(tree: &DeviceTree) -> Result<Vec<u8>, TreeError> {
    let failed = |error: Error| TreeError::Write(error.to_string());
    let mut writer = FdtWriter::new().map_err(failed)?;
    write_node(&mut writer, &tree.root).map_err(failed)?;
    let written = writer.finish().map_err(failed)?;

    let Blocks { structure, .. } = blocks::split(&written, u32::MAX)?;
    let mut names = Names {
        structure: structure.to_vec(),
        at: 0,
        strings: Vec::new(),
        offsets: BTreeMap::new(),
    };
    names.put(&tree.root);
    let blob = blocks::assemble(
        tree.boot_cpuid_phys,
        &tree.reservations,
        &names.structure,
        &names.strings,
    )?;
    if blob.len() > MAX_BLOB {
        return Err(TreeError::TooBig { size: blob.len() });
    }
    Ok(blob)
}

/// Writes a node and all below it. Where vm-fdt has stricter rules for names
/// than those who made the tree, another name stands in: of a node one of the
/// same length.
fn write_node(writer: &mut FdtWriter, node: &Node) -> Result<(), Error> {
    let open = match writer.begin_node(&node.name) {
        Err(Error::InvalidNodeName) => writer.begin_node(&stand_in(node.name.len())),
        other => other,
    }?;
    for property in &node.properties {
        match writer.property(&property.name, &property.value) {
            Err(Error::InvalidPropertyName) => writer.property("p", &property.value),
            other => other,
        }?;
    }
    for child in &node.children {
        write_node(writer, child)?;
    }
    writer.end_node(open)
}

/// A node name of `length` characters, 1 or more; only a unit address may be long.
fn stand_in(length: usize) -> String {
    let mut name = "a".repeat(length);
    if length > 1 {
        name.replace_range(1..2, "@");
    }
    name
}

/// Puts the names of a tree into the structure block made from it.
struct Names<'a> {
    structure: Vec<u8>,
    at: usize,
    strings: Vec<u8>,
    offsets: BTreeMap<&'a str, u32>,
}

impl<'a> Names<'a> {
    fn put(&mut self, node: &'a Node) {
        self.at += 4;
        self.overwrite(self.at, node.name.as_bytes());
        self.at += (node.name.len() + 1).next_multiple_of(4);
        for property in &node.properties {
            let offset = self.intern(&property.name);
            self.overwrite(self.at + 8, &offset.to_be_bytes());
            self.at += 12 + property.value.len().next_multiple_of(4);
        }
        for child in &node.children {
            self.put(child);
        }
        self.at += 4;
    }

    fn overwrite(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.structure.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }

    /// Offset of `name` in the strings block.
    fn intern(&mut self, name: &'a str) -> u32 {
        // A block of 4 GiB fails in assemble().
        let end = u32::try_from(self.strings.len()).unwrap_or(u32::MAX);
        *self.offsets.entry(name).or_insert_with(|| {
            self.strings.extend_from_slice(name.as_bytes());
            self.strings.push(0);
            end
        })
    }
}
