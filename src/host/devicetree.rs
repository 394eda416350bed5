//! The device tree blob that the running kernel was given.

use super::boot_params::RunningBootParams;
use super::{HostError, Root};
use crate::abi::x86::setup_data::SETUP_DTB;

/// /sys/firmware/fdt, which only a kernel with CONFIG_OF_FLATTREE shows; else
/// the last SETUP_DTB node, which every kernel shows, whether it read it or not.
pub(super) fn read(
    root: &Root,
    running: Option<&RunningBootParams>,
) -> Result<Option<Vec<u8>>, HostError> {
    if let Some(blob) = root.read_permitted("/sys/firmware/fdt")? {
        return Ok(Some(blob));
    }
    let nodes = running.map_or(&[][..], |running| &running.setup_data);
    Ok(nodes
        .iter()
        .rfind(|node| node.kind == SETUP_DTB)
        .map(|node| node.data.clone()))
}
