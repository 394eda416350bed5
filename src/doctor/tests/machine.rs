//! What is around the load.

use super::*;
use crate::host::pci::PciDevice;
use crate::host::watchdog::Watchdog;

#[test]
fn confidential_guests_and_loadpin() {
    let mut lab = Lab::exec();
    lab.host.cpu.confidential = Some("tdx_guest");
    says(&lab.machine(), "environment", Severity::Risk, "tdx_guest");
    // The plan says it where there is one, and nothing is said twice.
    let found = lab.load();
    assert_eq!(of("environment", &found), []);
    says(&found, "plan", Severity::Risk, "tdx_guest");
    lab.around.load_pin = true;
    says(&lab.machine(), "security-module", Severity::Risk, "LoadPin");
}

#[test]
fn consoles_and_the_screen() {
    let mut lab = Lab::exec();
    lab.around.consoles.active = vec!["tty0".to_owned(), "ttyS0".to_owned()];
    lab.around.consoles.serial = vec![("ttyS0".to_owned(), true), ("ttyS1".to_owned(), false)];
    assert_eq!(lab.load(), []);
    lab.line = "console=ttyS1,115200n8 panic=1";
    let found = lab.load();
    says(
        &found,
        "console",
        Severity::Risk,
        "console=ttyS1 is on the new command line",
    );
    assert_eq!(
        way_out("console", &found),
        "--remove console=ttyS1,115200n8"
    );
    lab.line = "console=tty0 console=ttyS1,115200n8 panic=1";
    says(&lab.load(), "console", Severity::Note, "no UART");
    lab.line = "console=tty0 panic=1";
    lab.host.cmdline = "quiet console=ttyS01,7 console=ttyS0,9600".into();
    let found = lab.load();
    says(&found, "console", Severity::Note, "do not go to ttyS0");
    let same = found.iter().find(|one| one.check == "console").unwrap();
    assert_eq!(same.way_out.as_deref(), Some("--append console=ttyS0,9600"));
    lab.around.consoles.framebuffers = vec!["EFI VGA".to_owned()];
    assert_eq!(of("screen", &lab.machine()), []);
    lab.around.consoles.framebuffers = vec!["i915drmfb".to_owned()];
    let found = lab.machine();
    says(&found, "screen", Severity::Note, "belongs to i915drmfb");
    assert_eq!(way_out("screen", &found), "--append console=ttyS0,115200");
    lab.around.consoles.serial = vec![("ttyS0".to_owned(), false)];
    assert!(!way_out("screen", &lab.machine()).contains("ttyS"));
}

#[test]
fn what_is_mounted() {
    let mut lab = Lab::exec();
    lab.around.mounts = vec![mount("/", "ext4", 0), mount("/srv", "nfs4", 1)];
    let found = lab.machine();
    says(
        &found,
        "mounts",
        Severity::Risk,
        "/ (ext4): mounted for writing",
    );
    says(&found, "network-mounts", Severity::Risk, "/srv (nfs4)");
    assert!(way_out("mounts", &found).starts_with("umount -r / before"));
    let points = ["/", "/srv", "/srv/My Disk", "/srv/it's/a"];
    let numbered = points.iter().zip(0..);
    lab.around.mounts = numbered.map(|(point, n)| mount(point, "xfs", n)).collect();
    assert!(
        way_out("mounts", &lab.machine())
            .starts_with(r"umount -r '/srv/it'\''s/a' '/srv/My Disk' /srv / before")
    );
    lab.around.mounts.push(mount("/var", "xfs", 9));
    assert!(way_out("mounts", &lab.machine()).starts_with("umount -a -r before"));
    lab.around.mounts = vec![mount("/", "ext4", 0), mount("/srv", "nfs4", 1)];
    lab.around.services.systemd = true;
    let found = lab.machine();
    says(&found, "mounts", Severity::Note, "/ (ext4)");
    assert!(way_out("mounts", &found).starts_with("rkexec exec --shutdown"));
    says(&found, "network-mounts", Severity::Note, "/srv (nfs4)");
    lab.around.mounts = (0..7).map(|n| mount(&format!("/{n}"), "xfs", n)).collect();
    says(
        &lab.machine(),
        "mounts",
        Severity::Note,
        "/3 (xfs) and 3 more: ",
    );
    lab.target = Target::Crash;
    assert_eq!(of("mounts", &lab.machine()), []);
}

#[test]
fn drivers_with_a_report() {
    let mut lab = Lab::exec();
    let device = |driver: &str, virtual_functions| PciDevice {
        address: "0000:01:00.0".to_owned(),
        driver: driver.to_owned(),
        virtual_functions,
    };
    lab.around.pci = vec![device("e1000e", 0), device("amdgpu", 0)];
    says(
        &lab.machine(),
        "drivers",
        Severity::Risk,
        "amdgpu has the device 0000:01:00.0",
    );
    lab.around.pci = vec![device("nouveau", 0)];
    says(&lab.machine(), "drivers", Severity::Note, "310326bb7df4");
    lab.host.release = "7.1.0".to_owned();
    assert_eq!(lab.machine(), [], "7.1 has the repair");
    lab.target = Target::Crash;
    says(&lab.machine(), "drivers", Severity::Risk, "kdump-utils");
    says(&lab.load(), "drivers", Severity::Risk, "kdump-utils");
    lab.line = "module_blacklist=bnx2x,nouveau";
    assert_eq!(of("drivers", &lab.load()), [], "it is left out");
    lab.around.pci = vec![device("amdgpu", 0)];
    assert_eq!(of("drivers", &lab.machine()), [], "nothing shuts it down");
    lab.around.pci = vec![device("ixgbe", 4)];
    let found = lab.machine();
    says(
        &found,
        "virtual-functions",
        Severity::Note,
        "ixgbe at 0000:01:00.0 (4)",
    );
    assert_eq!(
        way_out("virtual-functions", &found),
        "echo 0 | tee /sys/bus/pci/devices/0000:01:00.0/sriov_numvfs"
    );
}

#[test]
fn the_clock() {
    let mut lab = Lab::exec();
    let mut said = |source: &str, all: &str| {
        lab.around.clock_source = Some(source.to_owned());
        lab.around.clock_sources = all.split(' ').map(str::to_owned).collect();
        of("clock", &lab.machine())
    };
    assert_eq!(said("tsc", "tsc hpet"), []);
    assert_eq!(said("hpet", "tsc hpet"), [], "somebody chose it");
    assert_eq!(said("kvm-clock", "kvm-clock acpi_pm"), []);
    assert!(matches!(
        &*said("hpet", "hpet acpi_pm"),
        [(Severity::Note, _)]
    ));
}

#[test]
fn the_way_back() {
    let mut lab = Lab::exec();
    lab.watchdog = None;
    assert_eq!(lab.load(), [], "there is no watchdog");
    lab.host.watchdogs.devices = vec![Watchdog {
        name: "watchdog0".to_owned(),
        ..Watchdog::default()
    }];
    says(
        &lab.load(),
        "watchdog",
        Severity::Note,
        "watchdog0 could reset the machine",
    );
    lab.watchdog = Some(60);
    assert_eq!(of("watchdog", &lab.load()), []);
    lab.line = "console=ttyS0 sysctl.kernel.kexec_load_disabled=1 panic=0";
    let found = lab.load();
    let texts = of("next-kernel", &found);
    assert_eq!(texts.len(), 2, "{texts:?}");
    assert!(texts[0].1.contains("stays where it is") && texts[1].1.contains("may load no kernel"));
    assert_eq!(way_out("next-kernel", &found), "--append panic=30");
}

#[test]
fn kexec_handover() {
    let mut lab = Lab::exec();
    let kho = &mut lab.host.security.kho;
    kho.on = true;
    kho.why = "kho=on on the command line".to_owned();
    kho.state.scratch_free = 64 * MIB;
    kho.preserved = Some(vec!["LUO".to_owned()]);
    kho.state.sessions = Some(vec!["vm".to_owned()]);
    let found = lab.machine();
    let texts: Vec<String> = of("handover", &found)
        .into_iter()
        .map(|(_, text)| text)
        .collect();
    assert!(texts[0].contains("at least 64 MiB"), "{texts:?}");
    let evidence = |found: &[Finding]| -> Vec<String> {
        let own = found.iter().filter(|one| one.check == "handover");
        own.map(|one| one.evidence.clone()).collect()
    };
    // debugfs is not there.
    let why = "kho=on on the command line";
    assert_eq!(
        evidence(&found)[..2],
        [
            format!("{why}; /proc/meminfo: CmaFree, CmaTotal"),
            format!("{why}; the running command line")
        ]
    );
    lab.host.security.kho.shown = true;
    let seen = format!("{why}; /sys/kernel/debug/kho");
    assert_eq!(evidence(&lab.machine())[1], seen);
    assert!(texts[1].contains("preserves LUO") && texts[2].contains("open: vm;"));
    lab.host.security.kho.on = false;
    assert_eq!(lab.machine(), []);
}
