//! /sys/firmware/efi: what the next kernel needs to call the firmware.
//!
//! Format: drivers/firmware/efi/efi.c, arch/x86/platform/efi/{efi,runtime-map}.c.

use super::{HostError, Root, text};
use crate::abi::efi::EfiDescriptor;
use crate::abi::x86::setup_data::EfiSetupData;
use crate::base::PhysRange;

const DIR: &str = "/sys/firmware/efi";
const SYSTAB: &str = "/sys/firmware/efi/systab";
const RUNTIME_MAP: &str = "/sys/firmware/efi/runtime-map";
/// The variable SecureBoot of EFI_GLOBAL_VARIABLE (UEFI specification 3.3).
const SECURE_BOOT: &str =
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Facts of an EFI boot; addresses are physical, 0 means not stated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Efi {
    /// fw_vendor, physical address.
    pub fw_vendor: u64,
    /// config_table, physical address.
    pub config_table: u64,
    /// fw_platform_size: 32 or 64.
    pub platform_bits: u32,
    /// `ACPI20=` of systab.
    pub acpi20: u64,
    /// `ACPI=` of systab.
    pub acpi: u64,
    /// `SMBIOS=` of systab.
    pub smbios: u64,
    /// runtime-map, in the order of its numbers; empty when the kernel shows none.
    pub runtime_map: Vec<EfiDescriptor>,
    /// The SecureBoot variable, `None` when it cannot be read.
    pub secure_boot: Option<bool>,
    /// The log of what the TPM measured, where the EFI stub left it; `None` when
    /// that is not known.
    pub event_log: Option<PhysRange>,
}

/// Memory with a table that the next kernel reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// The addresses.
    pub range: PhysRange,
    /// The source that names it.
    pub source: &'static str,
    /// What it is.
    pub reason: &'static str,
}

impl Efi {
    /// The memory that must stay as it is for the next kernel, in no order.
    pub fn kept(&self) -> impl Iterator<Item = Kept> + '_ {
        let listed = self.runtime_map.iter().filter_map(EfiDescriptor::range);
        let listed = listed.map(|range| Kept {
            range,
            source: "EFI runtime map",
            reason: "a table of EFI that the next kernel reads (/sys/firmware/efi/runtime-map)",
        });
        let log = self.event_log.map(|range| Kept {
            range,
            source: "EFI configuration table",
            reason: "the TPM's event log, which the next kernel reads",
        });
        listed.chain(log)
    }
}

impl Efi {
    /// What a SETUP_EFI node tells.
    #[must_use]
    pub const fn setup_data(&self) -> EfiSetupData {
        EfiSetupData {
            fw_vendor: self.fw_vendor,
            tables: self.config_table,
            smbios: self.smbios,
        }
    }
}

/// The addresses in systab that a loader hands on; 0 for those not stated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Systab {
    /// `ACPI20=`.
    pub acpi20: u64,
    /// `ACPI=`.
    pub acpi: u64,
    /// `SMBIOS=`.
    pub smbios: u64,
}

/// Parses systab: lines `NAME=0x…`. Names this program has no use for are skipped.
///
/// # Errors
/// Names the line that is malformed.
pub fn parse_systab(bytes: &[u8]) -> Result<Systab, String> {
    let content = String::from_utf8_lossy(bytes);
    let mut systab = Systab::default();
    for (index, line) in content.lines().enumerate() {
        let wrong = || {
            format!(
                "line {}: `{}` is not NAME=0x…",
                index + 1,
                line.escape_debug()
            )
        };
        let (name, value) = line.split_once('=').ok_or_else(wrong)?;
        let field = match name {
            "ACPI20" => &mut systab.acpi20,
            "ACPI" => &mut systab.acpi,
            "SMBIOS" => &mut systab.smbios,
            _ => continue,
        };
        *field = text::hex_0x(value).ok_or_else(wrong)?;
    }
    Ok(systab)
}

pub(crate) fn read(root: &Root) -> Result<Option<Efi>, HostError> {
    // On a machine that was not booted through EFI there is no such directory.
    if root.list_permitted(DIR)?.is_none() {
        return Ok(None);
    }
    let systab = match root.read_permitted(SYSTAB)? {
        Some(bytes) => parse_systab(&bytes).map_err(|what| HostError::malformed(SYSTAB, what))?,
        None => Systab::default(),
    };
    let address = |name: &str| text::optional_0x(root, &format!("{DIR}/{name}"));
    Ok(Some(Efi {
        fw_vendor: address("fw_vendor")?.unwrap_or(0),
        config_table: address("config_table")?.unwrap_or(0),
        platform_bits: text::optional_decimal(root, &format!("{DIR}/fw_platform_size"))?
            .unwrap_or(0),
        acpi20: systab.acpi20,
        acpi: systab.acpi,
        smbios: systab.smbios,
        runtime_map: runtime_map(root)?,
        secure_boot: secure_boot(root),
        event_log: None,
    }))
}

fn runtime_map(root: &Root) -> Result<Vec<EfiDescriptor>, HostError> {
    let names = root.list_permitted(RUNTIME_MAP)?.unwrap_or_default();
    let mut map = Vec::new();
    for number in text::numbered(RUNTIME_MAP, names)? {
        let entry = format!("{RUNTIME_MAP}/{number}");
        let Some(descriptor) = descriptor(root, &entry)? else {
            // Half a map is useless. Without the privilege for all entries, return none.
            return Ok(Vec::new());
        };
        map.push(descriptor);
    }
    Ok(map)
}

/// One entry of the runtime map; `None` when this process may not read it.
fn descriptor(root: &Root, entry: &str) -> Result<Option<EfiDescriptor>, HostError> {
    let value = |name: &str| text::optional_0x(root, &format!("{entry}/{name}"));
    let (Some(kind), Some(physical), Some(virtual_), Some(pages), Some(attributes)) = (
        value("type")?,
        value("phys_addr")?,
        value("virt_addr")?,
        value("num_pages")?,
        value("attribute")?,
    ) else {
        return Ok(None);
    };
    let kind = u32::try_from(kind).map_err(|_| {
        HostError::malformed(
            &format!("{entry}/type"),
            format!("`{kind:#x}` is not a 32-bit number"),
        )
    })?;
    Ok(Some(EfiDescriptor {
        kind,
        physical,
        virtual_,
        pages,
        attributes,
    }))
}

/// efivarfs shows 4 bytes of attributes, then the value: one byte, 0 or 1. The
/// firmware answers this read, so any failure only means that the value is unknown.
pub(crate) fn secure_boot(root: &Root) -> Option<bool> {
    match root.read_optional(SECURE_BOOT).ok()??.as_slice() {
        [_, _, _, _, 0] => Some(false),
        [_, _, _, _, 1] => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn write(dir: &Path, file: &str, content: &[u8]) {
        let path = dir.join("sys/firmware/efi").join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn entry(dir: &Path, number: &str, kind: &str, physical: &str) {
        for (file, content) in [
            ("type", kind),
            ("phys_addr", physical),
            ("virt_addr", "0xfffffffeff000000"),
            ("num_pages", "0x20"),
            ("attribute", "0x800000000000000f"),
        ] {
            write(
                dir,
                &format!("runtime-map/{number}/{file}"),
                format!("{content}\n").as_bytes(),
            );
        }
    }

    #[test]
    fn systab_lines() {
        let systab = parse_systab(
            b"ACPI20=0x3fb7e014\nACPI=0x3fb7e000\nSMBIOS3=0x1\nSMBIOS=0x3f9cc000\nMPS=zero\n",
        );
        assert_eq!(
            systab,
            Ok(Systab {
                acpi20: 0x3fb7_e014,
                acpi: 0x3fb7_e000,
                smbios: 0x3f9c_c000
            })
        );
        assert_eq!(
            parse_systab(b"ACPI=0x1\nACPI20=1\n"),
            Err("line 2: `ACPI20=1` is not NAME=0x…".to_owned())
        );
        assert_eq!(
            parse_systab(b"x\n"),
            Err("line 1: `x` is not NAME=0x…".to_owned())
        );
    }

    #[test]
    fn a_machine_with_efi() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(read(&root).unwrap(), None);
        write(dir.path(), "fw_vendor", b"0x3fe9a018\n");
        write(dir.path(), "config_table", b"0x3fe9a118\n");
        write(dir.path(), "fw_platform_size", b"64\n");
        write(dir.path(), "systab", b"ACPI20=0x10\n");
        entry(dir.path(), "10", "0x6", "0x2000");
        entry(dir.path(), "9", "0x5", "0x1000");
        let name = "efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
        write(dir.path(), name, &[6, 0, 0, 0, 1]);
        let efi = read(&root).unwrap().unwrap();
        assert_eq!(
            (efi.fw_vendor, efi.config_table, efi.platform_bits),
            (0x3fe9_a018, 0x3fe9_a118, 64)
        );
        assert_eq!((efi.acpi20, efi.acpi, efi.smbios), (0x10, 0, 0));
        let map: Vec<_> = efi
            .runtime_map
            .iter()
            .map(|d| (d.kind, d.physical))
            .collect();
        assert_eq!(map, [(5, 0x1000), (6, 0x2000)]);
        assert_eq!(efi.runtime_map[0].attributes, 0x8000_0000_0000_000f);
        assert_eq!(efi.secure_boot, Some(true));
        write(dir.path(), name, &[6, 0, 0, 0]);
        assert_eq!(read(&root).unwrap().unwrap().secure_boot, None);
    }

    #[test]
    fn malformed_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        write(dir.path(), "fw_platform_size", b"sixty\n");
        assert_eq!(
            read(&root).unwrap_err().to_string(),
            "/sys/firmware/efi/fw_platform_size: `sixty` is not a decimal number"
        );
        write(dir.path(), "fw_platform_size", b"32\n");
        entry(dir.path(), "0", "0x100000005", "0x1000");
        assert_eq!(
            read(&root).unwrap_err().to_string(),
            "/sys/firmware/efi/runtime-map/0/type: `0x100000005` is not a 32-bit number"
        );
        entry(dir.path(), "0", "0x5", "1000");
        assert_eq!(
            read(&root).unwrap_err().to_string(),
            "/sys/firmware/efi/runtime-map/0/phys_addr: `1000` is not a number 0x…"
        );
    }
}
