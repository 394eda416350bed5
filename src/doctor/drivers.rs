//! Drivers that are publicly reported not to survive a kexec, or to spoil a crash kernel.
//!
//! A row stands on reports, which it names. What nobody reported is not here, and a row is
//! no proof: the report may be about another card, or be solved by now.

use super::{Facts, Said, Severity};
use crate::base::{Target, version};
use crate::cmdline;

/// A driver with a report.
struct Driver {
    /// Its name, as sysfs has it.
    name: &'static str,
    /// For which kernel it is bad. After a panic no driver shuts its device down.
    target: Target,
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
const DRIVERS: [Driver; 8] = [
    Driver {
        name: "amdgpu",
        target: Target::Normal,
        severity: Severity::Risk,
        seen: "the screen stayed dark after a kexec, until a driver set the card up anew or for good",
        fixed: None,
        report: "https://lists.infradead.org/pipermail/kexec/2021-December/023486.html",
        way_out: "see that you reach the machine without its screen",
    },
    Driver {
        name: "bnx2x",
        target: Target::Crash,
        severity: Severity::Risk,
        seen: "on RHEL 7 the crash kernel panics if it loads bnx2x and bnx2fc, and saves no dump",
        fixed: None,
        report: "https://docs.redhat.com/en/documentation/red_hat_enterprise_linux/7/html/\
                 kernel_administration_guide/kernel_crash_dump_guide",
        way_out: "--append module_blacklist=bnx2x,bnx2fc (unless the dump goes over such a card)",
    },
    Driver {
        name: "hyperv_fb",
        target: Target::Crash,
        severity: Severity::Note,
        seen: "on a host with Hyper-V 2012 the crash kernel fails if it loads this driver",
        fixed: None,
        report: "https://github.com/microsoft/lis-test/pull/1098",
        way_out: "--append module_blacklist=hyperv_fb",
    },
    Driver {
        name: "i915",
        target: Target::Normal,
        severity: Severity::Risk,
        seen: "on a laptop the second kexec in a row, or a later one, ended in a panic or a hang, \
               after kexec_file_load alone; on Meteor Lake the driver did not load after a kexec",
        fixed: None,
        report: "https://www.mail-archive.com/dri-devel@lists.freedesktop.org/msg552946.html, \
                 https://github.com/onedr0p/home-ops/pull/8568",
        way_out: "--syscall kexec_load, or a reboot by the firmware now and then",
    },
    Driver {
        name: "mgag200",
        target: Target::Crash,
        severity: Severity::Note,
        seen: "on one kind of server the machine reset itself as the crash kernel unpacked itself: \
               it wrote to the screen, which this driver had taken over",
        fixed: None,
        report: "https://lkml.iu.edu/hypermail/linux/kernel/1906.3/03355.html",
        way_out: "try a panic; if that happens, start the running kernel with nomodeset",
    },
    Driver {
        name: "nouveau",
        target: Target::Normal,
        severity: Severity::Note,
        seen: "at a kexec the driver took down what programs still used, with warnings of the kernel",
        fixed: Some((7, 1)),
        report: "https://git.kernel.org/torvalds/c/310326bb7df4bba094a3fc60364c641c547fd923",
        way_out: "rkexec exec --shutdown: it stops what draws on the screen",
    },
    Driver {
        name: "nouveau",
        target: Target::Crash,
        severity: Severity::Risk,
        seen: "on many machines of Lenovo the crash kernel does not work with it, or panics",
        fixed: None,
        report: "https://github.com/rhkdump/kdump-utils/pull/65",
        way_out: "--append module_blacklist=nouveau",
    },
    Driver {
        name: "nvidia",
        target: Target::Normal,
        severity: Severity::Note,
        seen: "with the open modules a reboot hung while this driver shut the card down, and a \
               kexec has it shut the card down too",
        fixed: None,
        report: "https://github.com/NVIDIA/open-gpu-kernel-modules/issues/1027, \
                 https://github.com/negativo17/nvidia-driver/issues/193",
        way_out: "see that you can switch the machine off and on from where you are",
    },
];

/// Devices with such a driver.
pub(super) fn check(facts: &Facts<'_>) -> Vec<Said> {
    let running = facts.host.ok().and_then(|host| version(&host.release));
    let mut said = Vec::new();
    let rows = DRIVERS.iter();
    for driver in rows.filter(|driver| driver.target == facts.target) {
        let is_fixed = driver
            .fixed
            .zip(running)
            .is_some_and(|(fixed, running)| running >= fixed);
        let is_harmless = is_fixed || is_left_out(facts, driver);
        let mut devices = facts.around.pci.iter();
        let device = devices.find(|device| device.driver == driver.name);
        let Some(device) = device.filter(|_| !is_harmless) else {
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

/// Whether the crash kernel is told to load no module of that name.
fn is_left_out(facts: &Facts<'_>, driver: &Driver) -> bool {
    let planned = facts.planned().filter(|_| driver.target == Target::Crash);
    planned.is_some_and(|planned| {
        let line = planned.plan.cmdline.as_bstr();
        cmdline::value(line, "module_blacklist").is_some_and(|names| {
            let mut names = names.split(|byte| *byte == b',');
            names.any(|name| name == driver.name.as_bytes())
        })
    })
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
