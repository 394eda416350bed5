//! /sys/bus/pci/devices: which driver has which device.
//!
//! Format: Documentation/ABI/testing/sysfs-bus-pci, and `pci_uevent` in
//! drivers/pci/pci-driver.c for the file `uevent`.

use super::{HostError, Root, text};

const DEVICES: &str = "/sys/bus/pci/devices";

/// A PCI device that a driver has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciDevice {
    /// Its address, for instance `0000:00:02.0`.
    pub address: String,
    /// The driver that has it.
    pub driver: String,
    /// How many virtual functions it has switched on (SR-IOV).
    pub virtual_functions: u32,
}

/// The devices below `root` that a driver has, in the order of their addresses.
///
/// # Errors
/// When a file is there and malformed.
pub fn read(root: &Root) -> Result<Vec<PciDevice>, HostError> {
    let names = root.list_permitted(DEVICES)?.unwrap_or_default();
    let mut devices = Vec::new();
    for address in names {
        let file = |name: &str| format!("{DEVICES}/{address}/{name}");
        let Some(uevent) = root.read_permitted(&file("uevent"))? else {
            continue;
        };
        let Some(driver) = driver(&uevent) else {
            continue;
        };
        // A device without SR-IOV has no such file.
        let functions = text::optional_decimal(root, &file("sriov_numvfs"))?;
        devices.push(PciDevice {
            driver,
            virtual_functions: functions.unwrap_or(0),
            address,
        });
    }
    Ok(devices)
}

/// The line `DRIVER=NAME` of a uevent.
fn driver(uevent: &[u8]) -> Option<String> {
    let uevent = String::from_utf8_lossy(uevent);
    let mut lines = uevent.lines();
    lines.find_map(|line| line.strip_prefix("DRIVER=").map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_a_driver() {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("0000:00:00.0/uevent", "PCI_CLASS=60000\n"),
            ("0000:00:02.0/uevent", "DRIVER=i915\nPCI_CLASS=30000\n"),
            ("0000:01:00.0/uevent", "DRIVER=ixgbe\n"),
            ("0000:01:00.0/sriov_numvfs", "4\n"),
        ] {
            let path = dir.path().join("sys/bus/pci/devices").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = read(&Root::at(dir.path())).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|device| (&*device.address, &*device.driver, device.virtual_functions))
            .collect();
        assert_eq!(
            found,
            [("0000:00:02.0", "i915", 0), ("0000:01:00.0", "ixgbe", 4)]
        );
        assert_eq!(read(&Root::at("/nothing-here")).unwrap(), []);
    }
}
