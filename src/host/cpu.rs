//! /proc/cpuinfo and /proc/meminfo: the few facts that decide something.

use super::{HostError, Root};

/// What this CPU, as the running kernel uses it, can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    /// 5-level paging is on: flag `la57` and no `no5lvl` on the command line.
    pub la57: bool,
    /// Every flag the SHA-NI code needs is there: `sha_ni`, `ssse3`, `sse4_1`.
    pub sha_ni: bool,
    /// Confidential guest (`tdx_guest`, `sev_snp`, …), by its flag.
    pub confidential: Option<&'static str>,
}

pub(super) fn read(_root: &Root) -> Result<Cpu, HostError> {
    Ok(Cpu::default())
}

/// `key` of /proc/meminfo, in bytes.
pub(super) fn meminfo(_root: &Root, _key: &str) -> Result<u64, HostError> {
    Ok(0)
}
