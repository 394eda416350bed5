//! Checks of what a panic leads to: the reservation, the crash kernel, and where its dump goes.

use bstr::ByteSlice as _;

use super::{Facts, Said, Severity};
use crate::base::{Target, human};
use crate::cmdline;
use crate::crash::sizing::parameter;
use crate::host::crash::DM_CRYPT_KEYS;
use crate::host::mapped_devices::encryption;
use crate::load::armed::Armed;

/// End of the memory that devices with 32-bit addresses reach: 4 GiB.
const LOW_END: u64 = 1 << 32;
/// Of this part of the memory a dump without free and user pages is rarely larger.
const SMALL_DUMP: u64 = 16;
/// How a command line has the system save a dump, where the initrd does not: Debian's
/// kdump-tools and others start a unit of their own.
const SAVING_UNIT: &[u8] = b"kdump";

/// What a dump over the network needs.
const NETWORK_DRIVER: &str = "see that its initrd has the driver of the network card";

/// Whether the capture is what is asked about.
fn is_asked(facts: &Facts<'_>) -> bool {
    facts.target == Target::Crash
}

/// A reservation above 4 GiB alone.
pub(super) fn reservation(facts: &Facts<'_>) -> Vec<Said> {
    let (true, Ok(host)) = (is_asked(facts), facts.host) else {
        return Vec::new();
    };
    let reserved = host.iomem.crash_kernel();
    let is_high = |start: u64| start >= LOW_END;
    if reserved.is_empty() || reserved.iter().any(|range| !is_high(range.start())) {
        return Vec::new();
    }
    let finding = "all memory of the crash kernel lies above 4 GiB: drivers of devices with 32-bit addresses, and \
         the buffers for them (swiotlb), get none";
    let said = Said::new(Severity::Risk, finding, "/proc/iomem: Crash kernel");
    vec![said.way_out("boot with crashkernel=256M,low besides crashkernel=…,high")]
}

/// A reservation that is too small.
pub(super) fn sizing(facts: &Facts<'_>) -> Vec<Said> {
    let sizing = facts.planned().and_then(|planned| planned.sizing);
    let (Some(sizing), Ok(host)) = (sizing, facts.host) else {
        return Vec::new();
    };
    let Some(finding) = sizing.shortage() else {
        return Vec::new();
    };
    let evidence = "/proc/iomem: Crash kernel; the kernel and its initrds, unpacked";
    let way_out = format!(
        "boot with {} or more on the kernel's command line",
        parameter(sizing.needed(), host.cmdline.as_bstr())
    );
    vec![Said::new(Severity::Risk, finding, evidence).way_out(way_out)]
}

/// The crash kernel that is loaded now.
pub(super) fn armed(facts: &Facts<'_>) -> Vec<Said> {
    let Some(complaint) = facts.armed.complaint() else {
        return Vec::new();
    };
    let evidence = "/sys/kernel/kexec_crash_loaded, /run/rkexec";
    let again = "rkexec arm, or load it again with --panic";
    let asked = is_asked(facts) && facts.load.is_none();
    let has_reservation = facts.loaded.crash_size != Some(0);
    match facts.armed {
        Armed::Stale(_) => vec![Said::new(Severity::Risk, complaint, evidence).way_out(again)],
        Armed::No if asked && has_reservation => {
            let load = "rkexec load --panic KERNEL, or rkexec arm";
            vec![Said::new(Severity::Risk, complaint, evidence).way_out(load)]
        }
        Armed::Unknown(_) if asked => vec![Said::new(Severity::Note, complaint, evidence)],
        _ => Vec::new(),
    }
}

/// Services that load the crash kernel.
pub(super) fn services(facts: &Facts<'_>) -> Vec<Said> {
    let services = &facts.around.services;
    let evidence = "/etc/systemd/system/*.wants";
    if let (Some(kdump), Some(own)) = (services.kdump(), services.rkexec()) {
        let finding = format!(
            "{kdump} and {own} are both enabled, and each loads its crash kernel over that of the other"
        );
        let said = Said::new(Severity::Risk, finding, evidence);
        return vec![said.way_out(format!(
            "systemctl disable --now {kdump} && rkexec arm: stopping {kdump} unloads the crash kernel of rkexec, too"
        ))];
    }
    let is_reserved = facts.loaded.crash_size.is_some_and(|size| size > 0);
    let knows = services.systemd && is_asked(facts);
    if services.enabled.is_empty() && knows && is_reserved {
        let finding = "no service that is known loads the crash kernel at the next boot";
        let said = Said::new(Severity::Note, finding, evidence);
        return vec![said.way_out("rkexec.toml(5) describes what rkexec-arm.service loads")];
    }
    Vec::new()
}

/// Nothing that saves the dump.
pub(super) fn tool(facts: &Facts<'_>) -> Vec<Said> {
    let (true, Some(planned), Some(load)) = (is_asked(facts), facts.planned(), facts.load) else {
        return Vec::new();
    };
    let line = planned.plan.cmdline.as_bstr();
    let has_unit = cmdline::values(line, "systemd.unit").any(|unit| {
        unit.windows(SAVING_UNIT.len())
            .any(|part| part == SAVING_UNIT)
    });
    let has_tool = match (&load.initrd, load.has_initrd) {
        // What is in an image may be one.
        (Some(contents), _) => contents.tool.is_some() || contents.has_image,
        (None, is_unreadable) => is_unreadable,
    };
    // The system that the crash kernel starts saves the dump if a service of kdump is
    // enabled there.
    if has_unit || has_tool || load.has_built_in || facts.around.services.kdump().is_some() {
        return Vec::new();
    }
    let finding = "nothing is known that would save the dump: no makedumpfile, vmcore-dmesg or kdump in the initrd, \
         no systemd.unit= of kdump on the command line, no service of kdump in the system";
    let evidence = "the initrd, the new command line, /etc/systemd/system/*.wants";
    vec![
        Said::new(Severity::Risk, finding, evidence).way_out(
            "put examples/initramfs-tools of rkexec into the initrd, or install kdump-tools",
        ),
    ]
}

/// Space for the dump.
pub(super) fn space(facts: &Facts<'_>) -> Vec<Said> {
    let (true, Ok(host), Some(place)) = (is_asked(facts), facts.host, &facts.around.dump) else {
        return Vec::new();
    };
    let Some(free) = place.free.filter(|free| *free < host.total_ram) else {
        return Vec::new();
    };
    let (directory, all) = (&place.directory, human(host.total_ram));
    let (severity, finding) = if free < host.total_ram / SMALL_DUMP {
        (
            Severity::Risk,
            format!(
                "{} are free in {directory}, and the memory has {all}: even a dump that makedumpfile made small \
                 may not fit",
                human(free)
            ),
        )
    } else {
        (
            Severity::Note,
            format!(
                "{} are free in {directory}, and the memory has {all}: only a dump that makedumpfile made small \
                 fits",
                human(free)
            ),
        )
    };
    let named = place.named_by.unwrap_or("the default of kdump");
    let evidence = format!("statvfs of {directory}; {named}; /proc/meminfo: MemTotal");
    vec![
        Said::new(severity, finding, evidence)
            .way_out("free space there, or name another directory"),
    ]
}

/// A dump that goes to an encrypted disk.
pub(super) fn encrypted(facts: &Facts<'_>) -> Vec<Said> {
    let (true, Ok(host), Some(place)) = (is_asked(facts), facts.host, &facts.around.dump) else {
        return Vec::new();
    };
    let Some(mount) = &place.mount else {
        return Vec::new();
    };
    let device = encryption(&facts.around.mapped, mount.device, &mount.source);
    let Some(device) = device.filter(|_| host.crash.dm_crypt_keys.is_empty()) else {
        return Vec::new();
    };
    let finding = format!(
        "{} lies on the encrypted disk {}, and the crash kernel gets no key: it asks for the passphrase, or saves \
         nothing",
        place.directory, device.label
    );
    let evidence = format!(
        "/proc/self/mountinfo, /sys/class/block/{}/dm/uuid",
        device.name
    );
    let way_out = format!(
        "send the dump to a disk that is not encrypted or to another machine; since Linux 6.16 keys that are listed \
         in {DM_CRYPT_KEYS} are passed on"
    );
    vec![Said::new(Severity::Risk, finding, evidence).way_out(way_out)]
}

/// A dump that goes to another machine.
pub(super) fn network(facts: &Facts<'_>) -> Vec<Said> {
    let place = facts.around.dump.as_ref().filter(|_| is_asked(facts));
    if let Some(place) = place
        && let Some(elsewhere) = place.elsewhere.as_ref().filter(|it| it.network)
    {
        let finding = format!(
            "the dump goes to {}: the crash kernel needs the network to save it",
            elsewhere.name
        );
        let said = Said::new(Severity::Note, finding, place.named_by.unwrap_or_default());
        return vec![said.way_out(NETWORK_DRIVER)];
    }
    let mount = place.and_then(|place| Some((place, place.mount.as_ref()?)));
    let Some((place, mount)) = mount.filter(|(_, mount)| mount.is_network()) else {
        return Vec::new();
    };
    let finding = format!(
        "{} is on {} ({}): the crash kernel needs the network to save the dump",
        place.directory, mount.source, mount.kind
    );
    let said = Said::new(Severity::Note, finding, "/proc/self/mountinfo");
    vec![said.way_out(NETWORK_DRIVER)]
}
