//! /proc/cmdline.

use super::{HostError, Root};

pub(super) fn read(root: &Root) -> Result<String, HostError> {
    Ok(root
        .read_text("/proc/cmdline")?
        .trim_end_matches('\n')
        .to_owned())
}
