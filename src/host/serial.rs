//! The UART behind the running kernel's console.

use super::{HostError, Root};

/// A 16550 that is reached through I/O ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialPort {
    /// Name of the terminal, for instance `ttyS0`.
    pub name: String,
    /// First I/O port.
    pub port: u16,
}

pub(super) fn read(_root: &Root) -> Result<Option<SerialPort>, HostError> {
    Ok(None)
}
