//! What a panic leads to.

use super::*;
use crate::host::mapped_devices::MappedDevice;
use crate::host::services::{DumpPlace, Elsewhere};

#[test]
fn reservations() {
    let mut lab = Lab::crash();
    let high = "00100000-3fffffff : System RAM\n100000000-1ffffffff : System RAM\n  \
                110000000-11fffffff : Crash kernel\n";
    lab.host.iomem = host(high).iomem;
    says(&lab.machine(), "reservation", Severity::Risk, "above 4 GiB");
    let mut lab = Lab::crash();
    let sizing = Sizing::in_reserved(256 * MIB, 100 * MIB, &[]).unwrap();
    lab.sizing = Some(sizing);
    assert_eq!(lab.load(), []);
    lab.sizing = Some(Sizing {
        reserved: 64 * MIB,
        ..sizing
    });
    let found = lab.load();
    says(
        &found,
        "sizing",
        Severity::Risk,
        "the 64 MiB reserved for the crash kernel may be too small",
    );
    let way_out = found[0].way_out.as_deref().unwrap();
    assert!(way_out.contains("crashkernel=192M"), "{way_out}");
    assert!(!found[0].finding.contains("crashkernel="), "{found:?}");
}

#[test]
fn the_loaded_crash_kernel() {
    let mut lab = Lab::crash();
    lab.armed = Armed::No;
    says(
        &lab.machine(),
        "armed",
        Severity::Risk,
        "no crash kernel is loaded",
    );
    assert_eq!(lab.load(), [], "it is about to be loaded");
    lab.armed = Armed::Unknown("another tool loaded it".to_owned());
    says(&lab.machine(), "armed", Severity::Note, "another tool");
    let mut lab = Lab::exec();
    lab.armed = Armed::No;
    assert_eq!(lab.machine(), []);
    lab.armed = Armed::Stale("CPU 2 was added".to_owned());
    says(&lab.machine(), "armed", Severity::Risk, "CPU 2 was added");
}

#[test]
fn services_that_load_one() {
    let mut lab = Lab::crash();
    assert_eq!(lab.machine(), [], "whether there is systemd is not known");
    lab.around.services.systemd = true;
    says(
        &lab.machine(),
        "services",
        Severity::Note,
        "no service that is known",
    );
    lab.around.services.enabled = vec!["kdump-tools.service".to_owned()];
    assert_eq!(lab.machine(), []);
    lab.around
        .services
        .enabled
        .push("rkexec-arm.service".to_owned());
    lab.target = Target::Normal;
    says(
        &lab.machine(),
        "services",
        Severity::Risk,
        "are both enabled",
    );
    let found = lab.machine();
    let way_out = way_out("services", &found);
    assert!(way_out.starts_with("systemctl disable --now kdump-tools.service && rkexec arm"));
}

#[test]
fn what_saves_the_dump() {
    let mut lab = Lab::crash();
    lab.line = "panic=1 reset_devices";
    says(
        &lab.load(),
        "capture-tool",
        Severity::Risk,
        "nothing is known that would save the dump",
    );
    lab.initrd = Some(initrd::Contents {
        tool: Some("makedumpfile"),
        ..initrd::Contents::default()
    });
    assert_eq!(of("capture-tool", &lab.load()), []);
    lab.initrd = Some(initrd::Contents {
        has_image: true,
        ..initrd::Contents::default()
    });
    assert_eq!(of("capture-tool", &lab.load()), []);
    lab.initrd = Some(initrd::Contents::default());
    lab.has_built_in = true;
    assert_eq!(of("capture-tool", &lab.load()), []);
    lab.has_built_in = false;
    lab.around.services.enabled = vec!["kdump-tools.service".to_owned()];
    assert_eq!(of("capture-tool", &lab.load()), []);
}

#[test]
fn where_the_dump_goes() {
    let mut lab = Lab::crash();
    let place = |free, kind| DumpPlace {
        directory: "/var/crash".to_owned(),
        named_by: None,
        elsewhere: None,
        mount: Some(mount("/", kind, 1)),
        free: Some(free),
    };
    lab.around.dump = Some(place(2 << 30, "ext4"));
    assert_eq!(lab.machine(), []);
    lab.around.dump = Some(place(MIB, "ext4"));
    says(
        &lab.machine(),
        "dump-space",
        Severity::Risk,
        "1 MiB are free in /var/crash",
    );
    lab.around.dump = Some(place(512 * MIB, "ext4"));
    says(
        &lab.machine(),
        "dump-space",
        Severity::Note,
        "512 MiB are free in /var/crash",
    );
    lab.around.dump = Some(place(2 << 30, "nfs"));
    says(
        &lab.machine(),
        "dump-network",
        Severity::Note,
        "needs the network",
    );
    let elsewhere = |network| DumpPlace {
        elsewhere: Some(Elsewhere {
            name: "nfs srv:/x".to_owned(),
            network,
        }),
        mount: None,
        free: None,
        ..place(0, "ext4")
    };
    lab.around.dump = Some(elsewhere(true));
    says(
        &lab.machine(),
        "dump-network",
        Severity::Note,
        "goes to nfs srv:/x",
    );
    lab.around.dump = Some(elsewhere(false));
    assert_eq!(lab.machine(), []);
    lab.around.dump = Some(place(2 << 30, "ext4"));
    let device = |name: &str, minor, encrypted, below: &[&str]| MappedDevice {
        name: name.to_owned(),
        label: format!("label-{name}"),
        device: (254, minor),
        encrypted,
        below: below.iter().map(|name| (*name).to_owned()).collect(),
    };
    lab.around.mapped = vec![
        device("dm-0", 0, true, &[]),
        device("dm-1", 1, false, &["dm-0"]),
    ];
    says(
        &lab.machine(),
        "dump-encrypted",
        Severity::Risk,
        "the encrypted disk label-dm-0",
    );
    lab.host.crash.dm_crypt_keys = vec!["key".to_owned()];
    assert_eq!(lab.machine(), []);
}
