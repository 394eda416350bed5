//! The EFI configuration table: where the tables lie that the firmware and the EFI stub
//! hand to a kernel, by GUID.
//!
//! It lies in memory of the firmware, so that /dev/mem shows it to root, even with
//! CONFIG_STRICT_DEVMEM and CONFIG_IO_STRICT_DEVMEM; lockdown forbids that. The tables
//! themselves may lie in System RAM, which user space cannot read: their addresses are known,
//! their sizes are not.
//!
//! Source: UEFI specification 2.10, 4.3 and 4.6; include/linux/efi.h.

use super::security::Lockdown;
use super::{Host, Root};
use crate::base::{PAGE_SIZE, PhysRange};

/// `EFI_SYSTEM_TABLE` of a 64-bit firmware, bytes.
const SYSTEM_TABLE_SIZE: usize = 120;
/// Its first bytes.
const SIGNATURE: &[u8] = b"IBI SYST";
/// Where it has the number of entries of the configuration table.
const COUNT_OFFSET: usize = 104;
/// Bytes of an entry: a GUID and an address.
const ENTRY_SIZE: usize = 24;
/// Most entries taken for sane; firmware has a dozen or two.
const MAX_ENTRIES: usize = 1024;
/// `LINUX_EFI_TPM_EVENT_LOG_GUID`, b7799cb0-eca2-4943-9667-1fae07b747fa.
const TPM_EVENT_LOG: [u8; 16] = [
    0xb0, 0x9c, 0x79, 0xb7, 0xa2, 0xec, 0x43, 0x49, 0x96, 0x67, 0x1f, 0xae, 0x07, 0xb7, 0x47, 0xfa,
];
/// Bytes in front of the events (`struct linux_efi_tpm_eventlog`), rounded up.
const LOG_HEADER: u64 = 16;
/// The events, as far as they can be read; their size is that of the log or more.
const MEASUREMENTS: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
/// Size assumed for a log of unknown size, bytes: the least that firmware sets aside for
/// it (TCG PC Client Platform Firmware Profile, 7.2.2).
const LOG_SIZE: u64 = 64 << 10;

/// The number of entries of the configuration table, from the bytes of a system table.
#[must_use]
pub fn entries(system_table: &[u8]) -> Option<usize> {
    let count = system_table.get(COUNT_OFFSET..COUNT_OFFSET + 8)?;
    let count = u64::from_le_bytes(count.try_into().ok()?);
    let count = usize::try_from(count).ok()?;
    (system_table.starts_with(SIGNATURE) && count <= MAX_ENTRIES).then_some(count)
}

/// The address of the table `guid` in a configuration table.
#[must_use]
pub fn find(configuration_table: &[u8], guid: &[u8; 16]) -> Option<u64> {
    let (entries, _) = configuration_table.as_chunks::<ENTRY_SIZE>();
    let entry = entries.iter().find(|entry| entry.starts_with(guid))?;
    let address = u64::from_le_bytes(entry.get(guid.len()..)?.try_into().ok()?);
    (address != 0).then_some(address)
}

/// Where the EFI stub left the log of what the TPM measured, in whole pages. Stubs
/// before Linux 6.12 leave it in memory that is System RAM later (EFI_LOADER_DATA), and
/// every kernel reads it anew. `None` if there is none or its place is not known.
pub(super) fn event_log(root: &Root, host: &Host) -> Option<PhysRange> {
    let efi = host.efi.as_ref().filter(|efi| efi.config_table != 0)?;
    let system_table = host.boot_params.as_ref()?.params.efi_system_table()?;
    let locked = |level| level != Lockdown::None;
    if host.security.lockdown.is_some_and(locked) {
        return None;
    }
    let system_table = root.read_memory(system_table, SYSTEM_TABLE_SIZE).ok()?;
    let size = entries(&system_table)?.checked_mul(ENTRY_SIZE)?;
    let table = root.read_memory(efi.config_table, size).ok()?;
    let start = find(&table, &TPM_EVENT_LOG)?;
    let told = root.read_permitted(MEASUREMENTS).ok().flatten();
    let size = told.map_or(LOG_SIZE, |log| log.len() as u64);
    let end = start
        .checked_add(LOG_HEADER + size)?
        .checked_next_multiple_of(PAGE_SIZE)?;
    PhysRange::from_bounds(start - start % PAGE_SIZE, end).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::x86::boot_params::{BootParams, EFI64_LOADER_SIGNATURE};
    use crate::host::boot_params::RunningBootParams;
    use crate::host::efi::Efi;
    use crate::testing::host::host;
    use proptest::prelude::*;
    use std::path::Path;

    const AT: u64 = 0x9000_0000;

    fn system_table(count: u64) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.resize(COUNT_OFFSET, 0x11);
        bytes.extend(count.to_le_bytes());
        bytes.extend([0xff; 8]); // the virtual address that the firmware was told
        bytes
    }

    fn configuration_table(log: u64) -> Vec<u8> {
        let mut bytes = vec![7; ENTRY_SIZE];
        bytes.extend(TPM_EVENT_LOG);
        bytes.extend(log.to_le_bytes());
        bytes
    }

    /// A machine whose captured memory holds both tables.
    fn machine(dir: &Path, log: u64) -> Host {
        let mut params = BootParams::zeroed();
        params.efi_info.loader_signature = EFI64_LOADER_SIGNATURE.into();
        params.efi_info.systab = u32::try_from(AT).unwrap().into();
        std::fs::create_dir_all(dir.join("dev")).unwrap();
        for (name, bytes) in [
            ("mem-0x90000000-0x78", system_table(2)),
            ("mem-0x90001000-0x30", configuration_table(log)),
        ] {
            std::fs::write(dir.join("dev").join(name), bytes).unwrap();
        }
        Host {
            boot_params: Some(RunningBootParams {
                params,
                setup_data: Vec::new(),
            }),
            efi: Some(Efi {
                config_table: AT + 0x1000,
                ..Efi::default()
            }),
            ..host("00100000-3fffffff : System RAM\n")
        }
    }

    #[test]
    fn the_log_of_the_tpm_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path()).recorder();
        let mut host = machine(dir.path(), 0x2000_0ff8);
        let range = |size| PhysRange::new(0x2000_0000, size).ok();
        assert_eq!(event_log(&root, &host), range(0x1_2000));
        let file = dir.path().join(MEASUREMENTS.trim_start_matches('/'));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, [1; 0x2000]).unwrap();
        assert_eq!(event_log(&root, &host), range(0x4000));
        // What was read is captured.
        let files = root.into_recording().files;
        assert!(files.contains_key("/dev/mem-0x90001000-0x30"), "{files:?}");
        assert!(files.contains_key(MEASUREMENTS));
        let root = Root::at(dir.path());
        host.security.lockdown = Some(Lockdown::Integrity);
        assert_eq!(event_log(&root, &host), None);
        host.security.lockdown = Some(Lockdown::None);
        host.efi.as_mut().unwrap().config_table = 0;
        assert_eq!(event_log(&root, &host), None);
        for nothing in [0, u64::MAX] {
            let host = machine(dir.path(), nothing);
            assert_eq!(event_log(&root, &host), None);
        }
    }

    #[test]
    fn tables_that_cannot_be() {
        assert_eq!(entries(&system_table(10)), Some(10));
        assert_eq!(entries(&system_table(1025)), None);
        assert_eq!(entries(&system_table(u64::MAX)), None);
        assert_eq!(entries(&system_table(10)[..111]), None);
        assert_eq!(entries(&[0; SYSTEM_TABLE_SIZE]), None);
        let table = configuration_table(0x1234);
        assert_eq!(find(&table, &TPM_EVENT_LOG), Some(0x1234));
        assert_eq!(find(&table[..47], &TPM_EVENT_LOG), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (entries(&bytes), find(&bytes, &TPM_EVENT_LOG));
        }
    }
}
