//! The firmware's root pointers as bytes: the ACPI RSDP and the SMBIOS entry point.
//!
//! Only a multiboot kernel is given copies of them. Linux is told where the RSDP is
//! and finds SMBIOS by itself, so nothing here is read for Linux. The running kernel
//! shows the SMBIOS entry point as a file, but the RSDP only in physical memory.

use std::error::Error as _;

use super::security::Lockdown;
use super::{Host, Root};
use crate::host::rsdp;

/// The SMBIOS entry point that the running kernel found.
const SMBIOS: &str = "/sys/firmware/dmi/tables/smbios_entry_point";
/// Largest entry point, bytes: 24 of SMBIOS 3, 31 of SMBIOS 2.
const SMBIOS_MAX: usize = 255;
/// First byte of the RSDP.
const SIGNATURE: &[u8; 8] = b"RSD PTR ";
/// Size of the RSDP of ACPI 1.0, bytes.
const RSDP_1_SIZE: usize = 20;
/// Size of the RSDP since ACPI 2.0, bytes.
const RSDP_2_SIZE: usize = 36;
/// Where a BIOS keeps the RSDP, when not in the EBDA (ACPI 6.5, 5.2.5.1), and how
/// many bytes that are.
const BIOS_AREA: (u64, usize) = (0xe_0000, 0x2_0000);

/// An ACPI RSDP whose checksums are right.
///
/// Source: ACPI 6.5, 5.2.5.3, "Root System Description Pointer (RSDP) Structure".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rsdp(Vec<u8>);

impl Rsdp {
    /// The RSDP at the start of `bytes`, if there is one.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let old = bytes.get(..RSDP_1_SIZE)?;
        let sums_up =
            |bytes: &[u8]| bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)) == 0;
        if !old.starts_with(SIGNATURE) || !sums_up(old) {
            return None;
        }
        let revision = *old.get(15)?;
        if revision < 2 {
            return Some(Self(old.to_vec()));
        }
        let new = bytes.get(..RSDP_2_SIZE)?;
        sums_up(new).then(|| Self(new.to_vec()))
    }

    /// The part that ACPI 1.0 has, when it leads to tables (an RSDT).
    #[must_use]
    pub fn version_1(&self) -> Option<&[u8]> {
        let old = self.0.get(..RSDP_1_SIZE)?;
        let has_rsdt = old.get(16..20)?.iter().any(|byte| *byte != 0);
        has_rsdt.then_some(old)
    }

    /// The whole, when it is that of ACPI 2.0 or later.
    #[must_use]
    pub fn version_2(&self) -> Option<&[u8]> {
        (self.0.len() == RSDP_2_SIZE).then_some(&self.0)
    }
}

/// An SMBIOS entry point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryPoint(Vec<u8>);

impl EntryPoint {
    /// The entry point that `bytes` are, of version 2 or 3.
    ///
    /// Source: DSP0134 3.7, 5.2.1 and 5.2.2.
    #[must_use]
    pub fn parse(bytes: Vec<u8>) -> Option<Self> {
        let known = bytes.starts_with(b"_SM_") || bytes.starts_with(b"_SM3_");
        (known && (0x18..=SMBIOS_MAX).contains(&bytes.len())).then_some(Self(bytes))
    }

    /// Major and minor version of SMBIOS.
    #[must_use]
    pub fn version(&self) -> (u8, u8) {
        let at = if self.0.starts_with(b"_SM3_") { 7 } else { 6 };
        let byte = |at: usize| self.0.get(at).copied().unwrap_or(0);
        (byte(at), byte(at + 1))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirmwareTables {
    /// The RSDP.
    pub rsdp: Option<Rsdp>,
    /// Why there is no RSDP.
    pub no_rsdp: Option<String>,
    /// The SMBIOS entry point.
    pub smbios: Option<EntryPoint>,
}

impl FirmwareTables {
    /// Reads what can be read.
    #[must_use]
    pub fn read(root: &Root, host: &Host) -> Self {
        let smbios = root.read_permitted(SMBIOS).ok().flatten();
        let (rsdp, no_rsdp) = match find_rsdp(root, host) {
            Ok(rsdp) => (Some(rsdp), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            rsdp,
            no_rsdp,
            smbios: smbios.and_then(EntryPoint::parse),
        }
    }
}

/// The RSDP where the running kernel says it is, else where a BIOS has it.
fn find_rsdp(root: &Root, host: &Host) -> Result<Rsdp, String> {
    if host
        .security
        .lockdown
        .is_some_and(|level| level != Lockdown::None)
    {
        return Err("kernel lockdown forbids reading /dev/mem".to_owned());
    }
    let read = |address, size| {
        root.read_memory(address, size).map_err(|error| {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            format!("{error}: {cause}")
        })
    };
    match rsdp(host) {
        0 => {
            let (address, size) = BIOS_AREA;
            let area = read(address, size)?;
            (0..size)
                .step_by(16)
                .find_map(|at| Rsdp::parse(area.get(at..)?))
                .ok_or_else(|| {
                    format!(
                        "there is none at {address:#x} to {:#x}",
                        address + size as u64
                    )
                })
        }
        address => Rsdp::parse(&read(address, RSDP_2_SIZE)?).ok_or_else(|| {
            format!("there is none at {address:#x}, where the running kernel found it")
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::host::host;

    fn seal(bytes: &mut [u8], at: usize) {
        bytes[at] = 0;
        let sum = bytes.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[at] = 0_u8.wrapping_sub(sum);
    }

    /// An RSDP of revision 2 with an RSDT at `rsdt`.
    fn rsdp_2(rsdt: u32) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend(b"\0BOCHS \x02");
        bytes.extend(rsdt.to_le_bytes());
        bytes.extend(36_u32.to_le_bytes());
        bytes.extend(0x7fe_0014_u64.to_le_bytes());
        bytes.extend([0; 4]);
        seal(&mut bytes[..20], 8);
        seal(&mut bytes, 32);
        bytes
    }

    #[test]
    fn revisions_and_checksums_of_the_rsdp() {
        let new = rsdp_2(0x1234);
        let rsdp = Rsdp::parse(&[&new[..], &[7; 9]].concat()).unwrap();
        assert_eq!(rsdp.version_2(), Some(&new[..]));
        assert_eq!(rsdp.version_1(), Some(&new[..20]));
        assert_eq!(Rsdp::parse(&rsdp_2(0)).unwrap().version_1(), None);
        let mut old = new[..20].to_vec();
        old[15] = 0;
        seal(&mut old, 8);
        let rsdp = Rsdp::parse(&old).unwrap();
        assert_eq!((rsdp.version_1(), rsdp.version_2()), (Some(&old[..]), None));
        for at in [0, 8, 16, 20, 35] {
            let mut wrong = new.clone();
            wrong[at] ^= 1;
            assert_eq!(Rsdp::parse(&wrong), None, "byte {at}");
        }
        assert_eq!(Rsdp::parse(&new[..35]), None);
        assert_eq!(Rsdp::parse(b""), None);
    }

    #[test]
    fn versions_of_smbios() {
        let entry = |anchor: &[u8]| {
            let mut bytes = anchor.to_vec();
            bytes.extend([0x11, 0x1f, 3, 5, 0, 0, 0, 0]);
            bytes.resize(0x1f, 0);
            bytes
        };
        let version = |bytes| EntryPoint::parse(bytes).map(|entry| entry.version());
        assert_eq!(version(entry(b"_SM_")), Some((3, 5)));
        assert_eq!(version(entry(b"_SM3_")), Some((3, 5)));
        assert_eq!(version(entry(b"_DMI_")), None);
        assert_eq!(version(b"_SM_".to_vec()), None);
    }

    #[test]
    fn the_rsdp_is_found_in_memory_and_captured_with_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("dev")).unwrap();
        let (start, size) = BIOS_AREA;
        let mut memory = vec![0; usize::try_from(start).unwrap() + size];
        let at = usize::try_from(start).unwrap() + 0x15a0;
        memory[at..at + 36].copy_from_slice(&rsdp_2(0x1234));
        std::fs::write(dir.path().join("dev/mem"), &memory).unwrap();
        let root = Root::at(dir.path()).recorder();
        let mut host = host("00100000-3fffffff : System RAM\n");
        let found = FirmwareTables::read(&root, &host);
        assert_eq!(found.rsdp, Rsdp::parse(&rsdp_2(0x1234)));
        // The captured machine has a part of the memory.
        let captured = tempfile::tempdir().unwrap();
        for (path, bytes) in root.into_recording().files {
            let path = captured.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        assert!(!captured.path().join("dev/mem").exists());
        let captured = Root::at(captured.path());
        assert_eq!(FirmwareTables::read(&captured, &host), found);
        // There is no RSDP at the address that the kernel names.
        host.boot_params = Some(crate::host::boot_params::RunningBootParams {
            params: crate::abi::x86::boot_params::BootParams::zeroed(),
            setup_data: Vec::new(),
        });
        let params = &mut host.boot_params.as_mut().unwrap().params;
        params.acpi_rsdp_addr = 0x1000.into();
        let root = Root::at(dir.path());
        assert_eq!(
            FirmwareTables::read(&root, &host).no_rsdp.as_deref(),
            Some("there is none at 0x1000, where the running kernel found it")
        );
        host.security.lockdown = Some(Lockdown::Integrity);
        assert_eq!(
            FirmwareTables::read(&root, &host).no_rsdp.as_deref(),
            Some("kernel lockdown forbids reading /dev/mem")
        );
        host.security.lockdown = None;
        let nothing = FirmwareTables::read(&captured, &host).no_rsdp.unwrap();
        assert!(
            nothing.starts_with("reading /dev/mem at 0x1000: "),
            "{nothing}"
        );
    }
}
