//! /sys/firmware/memmap: the map as the firmware gave it.

use super::{HostError, Root};
use crate::memory::PhysRange;

/// One entry of /sys/firmware/memmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareRegion {
    /// The addresses.
    pub range: PhysRange,
    /// The type's name as the kernel prints it, for instance `System RAM`.
    pub name: String,
}

pub(super) fn read(_root: &Root) -> Result<Option<Vec<FirmwareRegion>>, HostError> {
    Ok(None)
}
