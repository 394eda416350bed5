//! Pools in a device tree: nodes below /chosen.

use super::pool::{COMPATIBLE, Pool, PoolError};
use crate::base::PhysRange;
use crate::fdt::{DeviceTree, Node};

/// Why a node of a device tree is no pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolNodeError {
    /// A property is not what it must be.
    #[error("device tree node {path}: property {property:?} {why}")]
    Property {
        /// Path of the node.
        path: String,
        /// Name of the property.
        property: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// There can be no such pool.
    #[error("device tree node {path}: {why}")]
    Pool {
        /// Path of the node.
        path: String,
        /// What is wrong with the pool.
        why: PoolError,
    },
    /// The pool's node would take the place of something else.
    #[error("device tree node {path} is no pool: it is compatible with \"{compatible}\"")]
    NotAPool {
        /// Path of the node.
        path: String,
        /// Its `compatible`, escaped.
        compatible: String,
    },
}

/// The pools of `tree`: the nodes below /chosen that are compatible with
/// [`COMPATIBLE`]. Whether they overlap is not looked at.
///
/// # Errors
/// When such a node describes no pool. The message names node and property.
pub fn pools_of(tree: &DeviceTree) -> Result<Vec<Pool>, PoolNodeError> {
    let chosen = tree.root().child("chosen");
    let nodes = chosen.map_or(&[][..], Node::children);
    nodes
        .iter()
        .filter(|node| node.is_compatible(COMPATIBLE))
        .map(read)
        .collect()
}

/// Adds the node of `pool` to `tree`, or sets `base`, `size` and `bitmap` of the one
/// that is there. What else a node has stays.
///
/// # Errors
/// When a node of this name is `compatible` with something else.
pub fn put_pool(tree: &mut DeviceTree, pool: &Pool) -> Result<(), PoolNodeError> {
    let node = tree.node_or_new("chosen", pool.name());
    if !node.is_compatible(COMPATIBLE) {
        if let Some(other) = node.property("compatible") {
            return Err(PoolNodeError::NotAPool {
                path: path(pool.name()),
                compatible: other.escape_ascii().to_string(),
            });
        }
        node.set("compatible", [COMPATIBLE.as_bytes(), b"\0"].concat());
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

fn path(name: &str) -> String {
    format!("/chosen/{name}")
}

fn read(node: &Node) -> Result<Pool, PoolNodeError> {
    let number = |property: &'static str| {
        let fault = |why: String| PoolNodeError::Property {
            path: path(node.name()),
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
        .map_err(PoolError::from)
        .and_then(|range| Pool::new(node.name(), range, bitmap))
        .map_err(|why| PoolNodeError::Pool {
            path: path(node.name()),
            why,
        })
}

#[cfg(test)]
#[path = "pool_node_tests.rs"]
mod tests;
