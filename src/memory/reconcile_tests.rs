//! Row by row through the table of rules.

use std::collections::BTreeSet;

use super::*;
use crate::testing::host::{Says as _, host};

pub(super) const RAM: &str = "System RAM";

pub(super) fn map(host: &Host) -> MemoryMap {
    MemoryMap::reconcile(host, MapPolicy::FixedUp, &BTreeSet::new())
}

fn including_kmem(host: &Host) -> MemoryMap {
    MemoryMap::reconcile(
        host,
        MapPolicy::FixedUp,
        &BTreeSet::from(["kmem".to_owned()]),
    )
}

/// The map in lines: addresses, kind, type told, segments, and `dump` if it is in one.
pub(super) fn show(map: &MemoryMap) -> Vec<String> {
    map.regions()
        .iter()
        .map(|region| {
            let told = region
                .told
                .map_or_else(|| "absent".to_owned(), |kind| format!("{:#x}", kind.0));
            let driver = region
                .kind
                .driver()
                .map_or_else(String::new, |driver| format!("({driver})"));
            format!(
                "{} {}{driver} {told} {}{}",
                region.range,
                region.kind.name(),
                region.placement.name(),
                if region.in_dump { " dump" } else { "" }
            )
        })
        .collect()
}

/// A machine with 1 GiB of boot RAM from 1 MiB on, and `iomem` behind it.
pub(super) fn machine(iomem: &str) -> Host {
    host(&format!("00100000-3fffffff : System RAM\n{iomem}"))
        .firmware([(0x10_0000, 0x3fff_ffff, RAM)])
        .boot_e820([(0x10_0000, 0x3fff_ffff, 1)])
}

pub(super) const BOOT_RAM: &str = "00100000-3fffffff ram 0x1 yes dump";

/// As [`machine`], where the firmware calls what is behind the RAM `kind`.
pub(super) fn typed(iomem: &str, last: u64, kind: &str, number: u32) -> Host {
    machine(iomem)
        .firmware([(0x10_0000, 0x3fff_ffff, RAM), (0x4000_0000, last, kind)])
        .boot_e820([(0x10_0000, 0x3fff_ffff, 1), (0x4000_0000, last, number)])
}

#[test]
fn row_system_ram() {
    let host = host(
        "00100000-3fffffff : System RAM\n  01000000-01ffffff : Kernel code\n  02000000-02ffffff : Crash kernel\n",
    )
    .firmware([(0x10_0000, 0x3fff_ffff, RAM)])
    .boot_e820([(0x10_0000, 0x3fff_ffff, 1)]);
    assert_eq!(show(&map(&host)), [BOOT_RAM]);
    let map = map(&host);
    assert_eq!(
        map.regions()[0].sources.lines(),
        [
            "iomem: System RAM",
            "firmware map: System RAM (1)",
            "boot e820: System RAM (1)"
        ]
    );
}

#[test]
fn row_ram_that_the_running_kernel_took_for_its_setup_data() {
    let host = machine("").boot_e820([
        (0x10_0000, 0x1fff_ffff, 1),
        (0x2000_0000, 0x2000_0fff, 128),
        (0x2000_1000, 0x3fff_ffff, 1),
    ]);
    let map = map(&host);
    assert_eq!(
        map.told(),
        [(
            PhysRange::from_inclusive(0x10_0000, 0x3fff_ffff).unwrap(),
            Told::RAM
        )]
    );
    assert!(
        map.regions()
            .iter()
            .all(|region| region.placement == Placement::Allowed)
    );
}

#[test]
fn row_hot_added_ram_without_a_firmware_entry() {
    let host = machine("100000000-13fffffff : System RAM\n");
    assert_eq!(
        show(&map(&host)),
        [
            BOOT_RAM,
            "100000000-13fffffff hot_added_ram 0x1 last_choice dump"
        ]
    );
}

#[test]
fn row_hot_added_ram_with_a_firmware_entry() {
    let host = machine("100000000-13fffffff : System RAM\n").firmware([
        (0x10_0000, 0x3fff_ffff, RAM),
        (0x1_0000_0000, 0x1_3fff_ffff, RAM),
    ]);
    assert_eq!(
        show(&map(&host)),
        [
            BOOT_RAM,
            "100000000-13fffffff hot_added_ram 0x1 last_choice dump"
        ]
    );
}

#[test]
fn row_hot_added_ram_that_adjoins_boot_ram() {
    let host = machine("").firmware([(0x10_0000, 0x3fff_ffff, RAM)]);
    let grown = crate::host::iomem::parse(b"00100000-7fffffff : System RAM\n").unwrap();
    let host = Host {
        iomem: grown,
        ..host
    };
    assert_eq!(
        show(&map(&host)),
        [
            BOOT_RAM,
            "40000000-7fffffff hot_added_ram 0x1 last_choice dump"
        ]
    );
}

#[test]
fn row_driver_managed_at_top_level() {
    let host = machine("100000000-13fffffff : System RAM (virtio_mem)\n");
    let expected = "100000000-13fffffff driver_managed(virtio_mem) absent no dump";
    assert_eq!(show(&map(&host)), [BOOT_RAM, expected]);
}

#[test]
fn row_virtio_mem_below_a_pci_bus() {
    let host = machine(
        "\
100000000-1ffffffff : PCI Bus 0000:00
  140000000-1bfffffff : virtio0
    140000000-14fffffff : System RAM (virtio_mem)
    158000000-15fffffff : System RAM (virtio_mem)
",
    );
    assert_eq!(
        show(&map(&host)),
        [
            BOOT_RAM,
            "140000000-14fffffff driver_managed(virtio_mem) absent no dump",
            "158000000-15fffffff driver_managed(virtio_mem) absent no dump",
        ]
    );
}

#[test]
fn row_driver_managed_that_the_firmware_map_shows_as_ram() {
    let host = machine("100000000-13fffffff : System RAM (virtio_mem)\n")
        .firmware([
            (0x10_0000, 0x3fff_ffff, RAM),
            (0x1_0000_0000, 0x1_3fff_ffff, RAM),
        ])
        .boot_e820([
            (0x10_0000, 0x3fff_ffff, 1),
            (0x1_0000_0000, 0x1_3fff_ffff, 1),
        ]);
    let expected = "100000000-13fffffff driver_managed(virtio_mem) absent no dump";
    assert_eq!(show(&map(&host)), [BOOT_RAM, expected]);
}

#[test]
fn row_kmem_in_soft_reserved_memory_keeps_the_firmwares_type() {
    let iomem = "\
40000000-7fffffff : Soft Reserved
  40000000-7fffffff : dax0.0
    48000000-7fffffff : System RAM (kmem)
";
    let host = typed(iomem, 0x7fff_ffff, "Soft Reserved", 0xefff_ffff);
    assert_eq!(
        show(&map(&host)),
        [
            BOOT_RAM,
            "40000000-47ffffff soft_reserved 0xefffffff no",
            "48000000-7fffffff driver_managed(kmem) 0xefffffff no dump",
        ]
    );
    // Asked for, it is RAM for the next kernel, and still no place for segments.
    assert_eq!(
        show(&including_kmem(&host)),
        [
            BOOT_RAM,
            "40000000-47ffffff soft_reserved 0xefffffff no",
            "48000000-7fffffff driver_managed(kmem) 0x1 no dump",
        ]
    );
}

#[test]
fn row_kmem_without_the_holder_in_iomem_has_the_firmwares_type() {
    let iomem = "40000000-7fffffff : dax0.0\n  48000000-7fffffff : System RAM (kmem)\n";
    let host = typed(iomem, 0x7fff_ffff, "Soft Reserved", 0xefff_ffff);
    assert_eq!(
        show(&map(&host))[2],
        "48000000-7fffffff driver_managed(kmem) 0xefffffff no dump"
    );
}

#[test]
fn row_kmem_in_legacy_pmem_in_the_firmwares_ram() {
    let host = host(
        "\
00100000-3fffffff : System RAM
40000000-5fffffff : Persistent Memory (legacy)
  40000000-41ffffff : namespace0.0
  42000000-5fffffff : dax0.0
    48000000-5fffffff : System RAM (kmem)
60000000-7fffffff : System RAM
",
    )
    .firmware([(0x10_0000, 0x7fff_ffff, RAM)])
    .boot_e820([(0x10_0000, 0x7fff_ffff, 1)]);
    assert_eq!(
        show(&map(&host)),
        [
            BOOT_RAM,
            "40000000-47ffffff persistent_memory_legacy 0xc no",
            "48000000-5fffffff driver_managed(kmem) 0xc no dump",
            "60000000-7fffffff ram 0x1 yes dump",
        ]
    );
    // Told as one range: the pmem driver wants its memory whole.
    assert_eq!(
        map(&host).told()[1],
        (
            PhysRange::from_inclusive(0x4000_0000, 0x5fff_ffff).unwrap(),
            Told::PRAM
        )
    );
}

#[test]
fn row_only_the_drivers_that_were_asked_for_are_included() {
    let host = machine(
        "100000000-13fffffff : System RAM (virtio_mem)\n140000000-17fffffff : System RAM (kmem)\n",
    );
    assert_eq!(
        show(&including_kmem(&host)),
        [
            BOOT_RAM,
            "100000000-13fffffff driver_managed(virtio_mem) absent no dump",
            "140000000-17fffffff driver_managed(kmem) 0x1 no dump",
        ]
    );
}

#[test]
fn row_plain_ram_below_a_device() {
    for (above, driver) in [
        ("dax0.0", "kmem"),
        ("dax12.3", "kmem"),
        ("virtio1", "virtio_mem"),
    ] {
        let host = machine(&format!(
            "100000000-17fffffff : {above}\n  110000000-17fffffff : System RAM\n"
        ));
        let expected = format!("110000000-17fffffff driver_managed({driver}) absent no dump");
        assert_eq!(show(&map(&host)), [BOOT_RAM, &expected], "{above}");
    }
    // Any number of levels up.
    let host = machine(
        "\
100000000-17fffffff : dax0.0
  100000000-17fffffff : something
    110000000-17fffffff : System RAM
      110000000-110ffffff : Kernel data
",
    );
    let expected = "110000000-17fffffff driver_managed(kmem) absent no dump";
    assert_eq!(show(&map(&host)), [BOOT_RAM, expected]);
}

#[test]
fn row_plain_ram_below_persistent_memory_keeps_its_type() {
    for (above, kind, number) in [
        ("Persistent Memory", "persistent_memory", 7),
        ("Persistent Memory (legacy)", "persistent_memory_legacy", 12),
    ] {
        let iomem = format!("40000000-7fffffff : {above}\n  50000000-7fffffff : System RAM\n");
        let host = typed(&iomem, 0x7fff_ffff, above, number);
        assert_eq!(
            show(&map(&host)),
            [
                BOOT_RAM.to_owned(),
                format!("40000000-4fffffff {kind} {number:#x} no"),
                format!("50000000-7fffffff driver_managed(kmem) {number:#x} no dump"),
            ]
        );
        assert_eq!(
            show(&including_kmem(&host))[2],
            "50000000-7fffffff driver_managed(kmem) 0x1 no dump"
        );
    }
}

#[test]
fn row_names_that_only_look_like_memory_devices() {
    // A balloon's or a vendor's name must not hide RAM: it is RAM by every source.
    for above in ["daxter", "virtio", "virtiofs", "PCI Bus 0000:00"] {
        let host = machine(&format!(
            "100000000-17fffffff : {above}\n  100000000-17fffffff : System RAM\n"
        ));
        let expected = "100000000-17fffffff hot_added_ram 0x1 last_choice dump";
        assert_eq!(show(&map(&host)), [BOOT_RAM, expected], "{above}");
    }
}

#[test]
fn row_persistent_memory_in_the_firmwares_ram() {
    for (name, kind, number) in [
        ("Persistent Memory", "persistent_memory", 7),
        ("Persistent Memory (legacy)", "persistent_memory_legacy", 12),
    ] {
        let iomem = format!("40000000-7fffffff : {name}\n");
        for (firmware, of_firmware) in [(RAM, 1), (name, number)] {
            let host = typed(&iomem, 0x7fff_ffff, firmware, of_firmware);
            let expected = format!("40000000-7fffffff {kind} {number:#x} no");
            assert_eq!(show(&map(&host)), [BOOT_RAM, &expected]);
        }
    }
}

#[test]
fn row_reserved_in_the_firmwares_ram() {
    let host = host(
        "00000000-00000fff : Reserved\n00001000-1fffffff : System RAM\n20000000-23ffffff : Reserved\n24000000-3fffffff : System RAM\n",
    )
    .firmware([(0, 0x3fff_ffff, RAM)])
    .boot_e820([(0, 0x3fff_ffff, 1)]);
    assert_eq!(
        show(&map(&host)),
        [
            "00000000-00000fff reserved 0x2 no",
            "00001000-1fffffff ram 0x1 yes dump",
            "20000000-23ffffff reserved 0x2 no",
            "24000000-3fffffff ram 0x1 yes dump",
        ]
    );
}

#[test]
fn row_withheld_ram() {
    let host = machine("").firmware([
        (0x10_0000, 0x3fff_ffff, RAM),
        (0x1_0000_0000, 0x1_3fff_ffff, RAM),
    ]);
    let withheld = "100000000-13fffffff withheld absent no";
    assert_eq!(show(&map(&host)), [BOOT_RAM, withheld]);
    // Devices in its place, or the absence of the firmware map, change nothing.
    let host = machine("100000000-1ffffffff : PCI Bus 0000:00\n").boot_e820([
        (0x10_0000, 0x3fff_ffff, 1),
        (0x1_0000_0000, 0x1_3fff_ffff, 1),
    ]);
    let host = Host {
        firmware_map: None,
        ..host
    };
    assert_eq!(show(&map(&host)), [BOOT_RAM, withheld]);
    // And the operator may have it.
    let firmware = MemoryMap::reconcile(&host, MapPolicy::Firmware, &BTreeSet::new());
    assert_eq!(
        show(&firmware),
        [BOOT_RAM, "100000000-13fffffff withheld 0x1 no"]
    );
}

#[test]
fn row_every_other_type_is_kept() {
    for (name, number, kind) in [
        ("Reserved", 2, "reserved"),
        ("ACPI Tables", 3, "acpi_tables"),
        ("ACPI Non-volatile Storage", 4, "acpi_nvs"),
        ("Unusable memory", 5, "unusable"),
        ("Soft Reserved", 0xefff_ffff, "soft_reserved"),
        ("Unknown E820 type", 6, "unknown"),
        ("Unknown E820 type", 0xffff_fffe, "unknown"),
    ] {
        let expected = format!("40000000-7fffffff {kind} {number:#x} no");
        let iomem = format!("40000000-7fffffff : {name}\n");
        let host = typed(&iomem, 0x7fff_ffff, name, number);
        assert_eq!(show(&map(&host)), [BOOT_RAM, &expected], "{name}");
        // Not in /proc/iomem, or hidden below a device there.
        for iomem in ["", "40000000-7fffffff : PCI Bus 0000:00\n"] {
            let host = typed(iomem, 0x7fff_ffff, name, number);
            assert_eq!(
                show(&map(&host)),
                [BOOT_RAM, &expected],
                "{name} in {iomem:?}"
            );
        }
        // A device in it is no memory of its own.
        let host = typed(
            &format!("{iomem}  50000000-5000ffff : IOAPIC 0\n"),
            0x7fff_ffff,
            name,
            number,
        );
        assert_eq!(show(&map(&host)), [BOOT_RAM, &expected], "{name}");
        // The firmware map has lost it, or there is none.
        for firmware_map in [Some(Vec::new()), None] {
            let host = Host {
                firmware_map,
                ..host.clone()
            };
            let told = map(&host).told();
            assert_eq!(told.last().unwrap().1, Told(number), "{name}");
        }
    }
}

#[test]
fn a_type_of_the_firmware_alone_goes_before_what_iomem_reserves() {
    // /proc/iomem may say Reserved where the firmware keeps its tables.
    let host = typed(
        "40000000-7fffffff : Reserved\n",
        0x7fff_ffff,
        "ACPI Non-volatile Storage",
        4,
    );
    let expected = "40000000-7fffffff acpi_nvs 0x4 no";
    assert_eq!(show(&map(&host)), [BOOT_RAM, expected]);
}

#[test]
fn ram_by_a_wish_of_this_boot_stays_what_the_firmware_says() {
    let host = typed(
        "40000000-7fffffff : System RAM\n",
        0x7fff_ffff,
        "Reserved",
        2,
    );
    let expected = "40000000-7fffffff reserved 0x2 no dump";
    assert_eq!(show(&map(&host)), [BOOT_RAM, expected]);
}

#[test]
fn an_unknown_type_without_a_number_anywhere_is_reserved() {
    let host = host("00100000-3fffffff : System RAM\n40000000-7fffffff : Unknown E820 type\n")
        .firmware([
            (0x10_0000, 0x3fff_ffff, RAM),
            (0x4000_0000, 0x7fff_ffff, "Unknown E820 type"),
        ]);
    assert_eq!(
        show(&map(&host)),
        [BOOT_RAM, "40000000-7fffffff unknown 0x2 no"]
    );
}

#[test]
fn without_a_firmware_map_the_boot_e820_stands_in() {
    let host =
        host("00100000-3fffffff : System RAM\n40000000-4fffffff : System RAM\n").boot_e820([
            (0x10_0000, 0x3fff_ffff, 1),
            (0x5000_0000, 0x5fff_ffff, 1),
            (0x6000_0000, 0x6fff_ffff, 4),
        ]);
    assert_eq!(
        show(&map(&host)),
        [
            BOOT_RAM,
            "40000000-4fffffff hot_added_ram 0x1 last_choice dump",
            "50000000-5fffffff withheld absent no",
            "60000000-6fffffff acpi_nvs 0x4 no",
        ]
    );
}

#[test]
fn without_boot_params_the_firmware_map_tells_what_was_there_at_boot() {
    let host = host("00100000-3fffffff : System RAM\n40000000-4fffffff : System RAM\n")
        .firmware([(0x10_0000, 0x3fff_ffff, RAM)]);
    assert_eq!(
        show(&map(&host)),
        [
            BOOT_RAM,
            "40000000-4fffffff hot_added_ram 0x1 last_choice dump"
        ]
    );
}

#[test]
fn with_nothing_but_iomem_its_ram_is_ram() {
    let iomem = "00100000-3fffffff : System RAM\n40000000-4fffffff : System RAM (kmem)\n50000000-5fffffff : ACPI Tables\n";
    let expected = [
        BOOT_RAM,
        "40000000-4fffffff driver_managed(kmem) absent no dump",
        "50000000-5fffffff acpi_tables 0x3 no",
    ];
    assert_eq!(show(&map(&host(iomem))), expected);
    // An e820 or a firmware map that names no RAM says no more.
    assert_eq!(show(&map(&host(iomem).boot_e820([]))), expected);
    assert_eq!(show(&map(&host(iomem).firmware([]))), expected);
}

#[test]
fn the_firmwares_own_map() {
    let host = host(
        "\
00100000-3fffffff : System RAM
40000000-5fffffff : Persistent Memory (legacy)
  48000000-5fffffff : System RAM (kmem)
60000000-6fffffff : Reserved
100000000-13fffffff : System RAM
",
    )
    .firmware([
        (0x10_0000, 0x5fff_ffff, RAM),
        (0x6000_0000, 0x6fff_ffff, RAM),
        (0x7000_0000, 0x7fff_ffff, "Reserved"),
    ])
    .boot_e820([(0x10_0000, 0x6fff_ffff, 1), (0x7000_0000, 0x7fff_ffff, 2)]);
    let map = MemoryMap::reconcile(&host, MapPolicy::Firmware, &BTreeSet::new());
    let told: Vec<String> = map
        .told()
        .iter()
        .map(|(range, kind)| format!("{range} {kind}"))
        .collect();
    assert_eq!(
        told,
        [
            "00100000-6fffffff System RAM (1)",
            "70000000-7fffffff Reserved (2)"
        ]
    );
    // Where segments may go is not changed by it, but for RAM that the next
    // kernel would not know.
    let allowed: Vec<PhysRange> = map
        .ranges(Placement::Allowed)
        .chain(map.ranges(Placement::LastChoice))
        .collect();
    assert_eq!(
        allowed,
        [PhysRange::from_inclusive(0x10_0000, 0x3fff_ffff).unwrap()]
    );
}

#[test]
fn no_limit_on_the_number_of_entries() {
    let ranges: Vec<(u64, u64)> = (0..1000_u64)
        .map(|n| (n * 0x10_0000, n * 0x10_0000 + 0xf_efff))
        .collect();
    let iomem: String = ranges
        .iter()
        .map(|(start, last)| format!("{start:08x}-{last:08x} : System RAM\n"))
        .collect();
    let host = host(&iomem)
        .firmware(ranges.iter().map(|(start, last)| (*start, *last, RAM)))
        .boot_e820(ranges.iter().map(|(start, last)| (*start, *last, 1)));
    let map = map(&host);
    assert_eq!(map.told().len(), 1000);
    assert_eq!(map.ranges(Placement::Allowed).count(), 1000);
}
