//! Drivers that are publicly reported not to survive a kexec.
//!
//! A row stands on one report, which it names. What nobody reported is not here, and a row is
//! no proof: the report may be about another card, or be solved by now.

use super::{Facts, Said, Severity};
use crate::base::version;

/// A driver with a report.
struct Driver {
    /// Its name, as sysfs has it.
    name: &'static str,
    /// How bad it is.
    severity: Severity,
    /// What was seen.
    seen: &'static str,
    /// The first release of the running kernel that no longer does it, if there is one.
    fixed: Option<(u32, u32)>,
    /// Where that is reported.
    report: &'static str,
    /// What helps.
    way_out: &'static str,
}

/// The drivers, by name.
const DRIVERS: [Driver; 2] = [
    Driver {
        name: "amdgpu",
        severity: Severity::Risk,
        seen: "the screen stayed dark after a kexec, until a driver set the card up anew or for good",
        fixed: None,
        report: "https://lists.infradead.org/pipermail/kexec/2021-December/023486.html",
        way_out: "see that you reach the machine without its screen",
    },
    Driver {
        name: "nouveau",
        severity: Severity::Note,
        seen: "at a kexec the driver took down what programs still used, with warnings of the kernel",
        fixed: Some((7, 1)),
        report: "https://git.kernel.org/torvalds/c/310326bb7df4bba094a3fc60364c641c547fd923",
        way_out: "stop what draws on the screen before the kexec: rkexec exec --shutdown does",
    },
];

/// Devices with such a driver.
pub(super) fn check(facts: &Facts<'_>) -> Vec<Said> {
    // After a panic no driver shuts its device down, whichever it is.
    if facts.target == crate::base::Target::Crash {
        return Vec::new();
    }
    let running = facts.host.ok().and_then(|host| version(&host.release));
    let mut said = Vec::new();
    for driver in &DRIVERS {
        let is_fixed = driver
            .fixed
            .zip(running)
            .is_some_and(|(fixed, running)| running >= fixed);
        let mut devices = facts.around.pci.iter();
        let device = devices.find(|device| device.driver == driver.name);
        let Some(device) = device.filter(|_| !is_fixed) else {
            continue;
        };
        let finding = format!(
            "{} has the device {}, and there is a report: {} ({})",
            driver.name, device.address, driver.seen, driver.report
        );
        let evidence = format!("/sys/bus/pci/devices/{}/uevent", device.address);
        said.push(Said::new(driver.severity, finding, evidence).way_out(driver.way_out));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_its_report() {
        let names: Vec<&str> = DRIVERS.iter().map(|driver| driver.name).collect();
        assert!(names.is_sorted(), "{names:?}");
        for driver in &DRIVERS {
            for report in driver.report.split(", ") {
                assert!(report.starts_with("https://"), "{report}");
            }
        }
    }
}
