//! What is asked of a load, whoever asks: options, a configuration, a record.

use std::collections::BTreeSet;

use crate::base::{Syscall, Target};
use crate::carry::HandoverRequest;
use crate::cmdline::CmdlineRequest;
use crate::crash::HotplugChoice;
use crate::host::Host;
use crate::host::firmware_tables::FirmwareTables;
use crate::memory::MapPolicy;
use crate::sys::FileFlags;

/// What `--syscall` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyscallChoice {
    /// Decided from facts.
    #[default]
    Auto,
    /// This one, or an error.
    Only(Syscall),
}

/// What `--direct` says: whether the loader unpacks and places the kernel itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DirectChoice {
    /// Where it can.
    #[default]
    Auto,
    /// It does, or an error.
    On,
    /// It does not.
    Off,
}

/// What `--kho` says: what becomes of the state that the running kernel hands over by
/// Kexec Handover.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KhoChoice {
    /// It is kept, or nothing is loaded.
    #[default]
    Auto,
    /// Its tree is passed on through kexec_load.
    Forward,
    /// It is lost.
    Drop,
}

/// What the operator asks for.
#[derive(Debug, Clone, Default)]
pub struct LoadRequest {
    /// The command line.
    pub cmdline: CmdlineRequest,
    /// Which system call.
    pub syscall: SyscallChoice,
    /// How the map for the next kernel is made.
    pub memory_map: MapPolicy,
    /// Drivers whose memory is handed over as RAM after all.
    pub include_driver_managed: BTreeSet<String>,
    /// Segments lie at or above this physical address.
    pub mem_min: Option<u64>,
    /// Segments lie below this physical address.
    pub mem_max: Option<u64>,
    /// Whether the loader unpacks and places the kernel itself.
    pub direct: DirectChoice,
    /// Purgatory does not verify.
    pub no_digest: bool,
    /// The next kernel is told nothing of EFI.
    pub no_efi: bool,
    /// First I/O port of the UART that purgatory reports on, instead of the console's.
    pub serial_port: Option<u16>,
    /// Seed for the next kernel's random number generator; `None` hands over none.
    pub seed: Option<[u8; 32]>,
    /// The device tree and the pools.
    pub handover: HandoverRequest,
    /// What becomes of the state that the running kernel hands over.
    pub kho: KhoChoice,
    /// The format of Kexec Handover that the next kernel is taken to read where its file
    /// does not tell, as `kho-v4`.
    pub assume_kho: Option<String>,
    /// The time of the load for the record, seconds since 1970.
    pub time: u64,
    /// For `exec`, or for a panic.
    pub target: Target,
    /// Whether the kernel shall update elfcorehdr itself.
    pub hotplug: HotplugChoice,
    /// Flags for kexec_file_load.
    pub file_flags: FileFlags,
    /// `exec` arms the machine's watchdog with this time, seconds.
    pub watchdog: Option<u64>,
    /// The firmware's root pointers, for a multiboot kernel.
    pub firmware_tables: FirmwareTables,
}

impl LoadRequest {
    /// The UART on which purgatory reports: the one asked for, else the console's.
    #[must_use]
    pub fn port_for_reports(&self, host: &Host) -> Option<u16> {
        let consoles = || host.serial.as_ref().map(|serial| serial.port);
        self.serial_port.or_else(consoles)
    }
}
