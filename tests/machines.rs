//! The readers on captured machines: `tests/machines/*`, see the NOTE in each.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rkexec::base::PhysRange;
use rkexec::host::security::Lockdown;
use rkexec::host::{Host, Root, capture};

const NAMES: [&str; 7] = [
    "big",
    "bios-512m",
    "many-e820",
    "ovmf-1g",
    "pmem-kmem",
    "reserved",
    "virtio-mem",
];

fn machines() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines")
}

fn host(name: &str) -> Host {
    Host::read_for_crash(&Root::at(machines().join(name))).unwrap()
}

/// Every file below the directory but its NOTE, by path on the machine.
fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in std::fs::read_dir(&at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else if path != dir.join("NOTE") {
                let name = format!("/{}", path.strip_prefix(dir).unwrap().display());
                files.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::from_bounds(start, end).unwrap()
}

/// Names from the outermost resource to the one called `name`.
fn path_to(host: &Host, name: &str) -> Vec<String> {
    let mut path = Vec::new();
    host.iomem.walk(|resource, ancestors| {
        if resource.name == name {
            path = ancestors.iter().map(|r| r.name.clone()).collect();
        }
    });
    path
}

/// What the firmware says of `address`.
fn firmware(host: &Host, address: u64) -> Option<&str> {
    let map = host.firmware_map.as_ref().unwrap();
    let region = map.iter().find(|region| region.range.contains(address))?;
    Some(&region.name)
}

#[test]
fn every_machine_has_a_note_and_is_known_here() {
    let mut names: Vec<_> = std::fs::read_dir(machines())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, NAMES);
    for name in NAMES {
        let note = std::fs::read_to_string(machines().join(name).join("NOTE")).unwrap();
        assert!(note.contains("Debian 6."), "{name}: {note}");
    }
}

#[test]
fn every_file_is_read_and_no_other() {
    for name in NAMES {
        let dir = machines().join(name);
        let root = Root::at(&dir).recording();
        Host::read_for_crash(&root).unwrap();
        assert_eq!(root.into_recording().files, tree(&dir), "{name}");
    }
}

#[test]
fn a_capture_of_a_capture_is_the_same() {
    for name in NAMES {
        let dir = machines().join(name);
        let out = tempfile::tempdir().unwrap();
        let report = capture::capture(&Root::at(&dir), out.path(), |_| {}).unwrap();
        let copy = tree(out.path());
        assert_eq!(copy, tree(&dir), "{name}");
        assert_eq!(report.files, copy.len());
        assert_eq!(
            Host::read_for_crash(&Root::at(out.path())).unwrap(),
            host(name)
        );
    }
}

#[test]
fn iomem_is_printed_as_the_kernel_printed_it() {
    for name in NAMES {
        let file = std::fs::read_to_string(machines().join(name).join("proc/iomem")).unwrap();
        assert_eq!(host(name).iomem.to_string(), file, "{name}");
    }
}

#[test]
fn the_firmware_map_is_the_boot_e820() {
    for name in NAMES {
        let host = host(name);
        let mut e820: Vec<_> = host
            .boot_params
            .as_ref()
            .unwrap()
            .e820()
            .iter()
            .map(|entry| PhysRange::new(entry.address.get(), entry.size.get()).unwrap())
            .collect();
        e820.sort();
        let map: Vec<_> = host.firmware_map.unwrap().iter().map(|r| r.range).collect();
        assert_eq!(map, e820, "{name}");
    }
}

#[test]
fn facts_that_all_share() {
    for name in NAMES {
        let host = host(name);
        assert!(host.release.ends_with("-amd64"), "{}", host.release);
        assert!(host.cmdline.starts_with(b"console=ttyS0 panic=-1 quiet"));
        assert_eq!(host.security.lockdown, Some(Lockdown::None), "{name}");
        assert_eq!(host.security.load_disabled, Some(false), "{name}");
        assert_eq!(host.security.cap_sys_boot, Some(true), "{name}");
        assert_eq!(host.security.ima_appraise_kexec, None, "{name}");
        assert!(!host.security.kho.on, "{name}");
        let limit = (!host.release.starts_with("6.1.")).then_some(-1);
        assert_eq!(host.security.limit_reboot, limit, "{name}");
        assert_eq!(host.security.limit_panic, limit, "{name}");
        assert_eq!(host.loaded.normal, Some(false), "{name}");
        assert_eq!(host.loaded.crash, Some(false), "{name}");
        let serial = host.serial.unwrap();
        assert_eq!((serial.name.as_str(), serial.port), ("ttyS0", 0x3f8));
        assert!(host.available_ram > 0 && host.available_ram < host.total_ram);
        let ram: u64 = host.iomem.find("System RAM").iter().map(|r| r.size()).sum();
        assert!(
            host.total_ram > ram / 2 && host.total_ram < ram + (1 << 30),
            "{name}: {ram:#x} {:#x}",
            host.total_ram
        );
        assert_eq!(host.cpu.confidential, None, "{name}");
    }
}

#[test]
fn bios_512m() {
    let host = host("bios-512m");
    assert!(host.release.starts_with("6.1."));
    assert_eq!(host.efi, None);
    assert_eq!(
        host.iomem.find("System RAM"),
        [range(0x1000, 0x9_fc00), range(0x10_0000, 0x1ffe_0000)]
    );
    assert_eq!(path_to(&host, "Kernel code"), ["System RAM"]);
    assert_eq!(host.loaded.crash_size, Some(0));
    assert_eq!(host.loaded.crash_elfcorehdr_size, None);
}

#[test]
fn ovmf_1g() {
    let host = host("ovmf-1g");
    let efi = host.efi.as_ref().unwrap();
    assert_eq!(efi.platform_bits, 64);
    assert_eq!(efi.secure_boot, Some(false));
    assert_eq!(efi.runtime_map.len(), 7);
    for address in [
        efi.fw_vendor,
        efi.config_table,
        efi.acpi20,
        efi.acpi,
        efi.smbios,
    ] {
        assert!(address > 0x10_0000 && address < 0x4000_0000, "{address:#x}");
    }
    for region in &efi.runtime_map {
        // EFI_MEMORY_RUNTIME (UEFI 7.2). The kernel adds it to boot services data
        // that it keeps, so the type need not be a runtime one.
        assert_eq!(region.attributes >> 63, 1, "{region:x?}");
        // From -4 GiB downwards, 64 GiB (Documentation/arch/x86/x86_64/mm.rst).
        let window = range(0xffff_ffef_0000_0000, 0xffff_ffff_0000_0000);
        assert!(window.contains(region.virtual_), "{region:x?}");
        assert!(firmware(&host, region.physical).is_some(), "{region:x?}");
    }
    let params = &host.boot_params.as_ref().unwrap().params;
    assert!(params.efi_system_table().is_some());
    assert_eq!(
        path_to(&host, "pnp 00:06"),
        ["PCI ECAM 0000 [bus 00-ff]", "Reserved"]
    );
}

#[test]
fn virtio_mem() {
    let host = host("virtio-mem");
    assert_eq!(
        host.iomem.find("System RAM (virtio_mem)"),
        [range(0x1_0000_0000, 0x1_2000_0000)]
    );
    assert_eq!(path_to(&host, "System RAM (virtio_mem)"), ["virtio0"]);
    assert_eq!(firmware(&host, 0x1_0000_0000), None);
    assert!(host.total_ram > 1 << 30);
}

#[test]
fn pmem_kmem() {
    let host = host("pmem-kmem");
    let kmem = range(0x4800_0000, 0x6000_0000);
    assert_eq!(host.iomem.find("System RAM (kmem)"), [kmem]);
    assert_eq!(
        path_to(&host, "System RAM (kmem)"),
        ["Persistent Memory (legacy)", "dax0.0"]
    );
    assert_eq!(firmware(&host, kmem.start()), Some("System RAM"));
}

#[test]
fn reserved() {
    let host = host("reserved");
    let reserved = range(0x2000_0000, 0x2400_0000);
    assert!(host.iomem.find("Reserved").contains(&reserved));
    assert_eq!(firmware(&host, reserved.start()), Some("System RAM"));
}

#[test]
fn many_e820() {
    let host = host("many-e820");
    let ranges = host.iomem.find("System RAM").len() + host.iomem.find("Reserved").len();
    assert!(ranges > 128, "{ranges}");
    assert!(host.boot_params.unwrap().e820().len() < 10);
}

#[test]
fn big() {
    let host = host("big");
    let crash = host.iomem.crash_kernel();
    assert_eq!(crash.len(), 1);
    assert_eq!(crash[0].size(), 256 << 20);
    assert_eq!(path_to(&host, "Crash kernel"), ["System RAM"]);
    assert_eq!(host.loaded.crash_size, Some(256 << 20));
    assert!(host.loaded.crash_elfcorehdr_size.is_some());
    assert!(host.cpu.la57);
    assert!(
        host.iomem
            .find("System RAM")
            .contains(&range(0x1_0000_0000, 0x1_c000_0000))
    );
    assert!(!self::host("bios-512m").cpu.la57);
}
