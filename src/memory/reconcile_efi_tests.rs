//! Tables of EFI inside of other ranges, and changes of a finished map.

use super::tests::{BOOT_RAM, RAM, machine, map, show, typed};
use super::*;
use crate::testing::host::{Says as _, host};
use std::collections::BTreeSet;

/// `machine("")` whose EFI runtime map has these descriptors: address, pages.
fn with_efi(machine: Host, descriptors: &[(u64, u64)]) -> Host {
    let descriptor = |(physical, pages): &(u64, u64)| crate::abi::efi::EfiDescriptor {
        kind: 4,
        physical: *physical,
        virtual_: 0,
        pages: *pages,
        attributes: 1 << 63,
    };
    Host {
        efi: Some(crate::host::efi::Efi {
            runtime_map: descriptors.iter().map(descriptor).collect(),
            ..Default::default()
        }),
        ..machine
    }
}

#[test]
fn tables_of_efi_in_system_ram() {
    // In the middle of RAM, across its end, without a page, and beyond everything.
    let descriptors = [
        (0x3fff_f000, 4),
        (0x2000_0000, 2),
        (0x1000_0000, 0),
        (u64::MAX - 0xfff, u64::MAX),
    ];
    let reserved = "40000000-400fffff : Reserved\n";
    let host = with_efi(typed(reserved, 0x400f_ffff, "Reserved", 2), &descriptors);
    let rows = [
        "00100000-1fffffff ram 0x1 yes dump",
        "20000000-20001fff efi_tables 0x2 no dump",
        "20002000-3fffefff ram 0x1 yes dump",
        "3ffff000-3fffffff efi_tables 0x2 no dump",
        "40000000-400fffff reserved 0x2 no",
    ];
    assert_eq!(show(&map(&host)), rows);
    let firmware = MemoryMap::reconcile(&host, MapPolicy::Firmware, &BTreeSet::new());
    assert_eq!(show(&firmware), rows);
    let sources = map(&host).regions()[1].sources.lines();
    assert_eq!(sources.last().unwrap(), "EFI runtime map");
}

#[test]
fn the_log_of_the_tpm() {
    let mut host = with_efi(machine(""), &[]);
    let log = PhysRange::new(0x2000_0000, 0x1_1000).unwrap();
    host.efi.as_mut().unwrap().event_log = Some(log);
    let map = map(&host);
    assert_eq!(
        show(&map),
        [
            "00100000-1fffffff ram 0x1 yes dump",
            "20000000-20010fff efi_tables 0x2 no dump",
            "20011000-3fffffff ram 0x1 yes dump",
        ]
    );
    let sources = map.regions()[1].sources.lines();
    assert_eq!(sources.last().unwrap(), "EFI configuration table");
}

#[test]
fn tables_of_efi_in_memory_that_is_withheld_or_no_ram() {
    // mem=512M: RAM for the firmware alone.
    let host = host("00100000-1fffffff : System RAM\n")
        .firmware([(0x10_0000, 0x3fff_ffff, RAM)])
        .boot_e820([(0x10_0000, 0x3fff_ffff, 1)]);
    let host = with_efi(host, &[(0x3000_0000, 1)]);
    assert_eq!(
        show(&map(&host)),
        [
            "00100000-1fffffff ram 0x1 yes dump",
            "20000000-2fffffff withheld absent no",
            "30000000-30000fff efi_tables 0x2 no",
            "30001000-3fffffff withheld absent no",
        ]
    );
    let acpi = "40000000-400fffff : ACPI Tables\n";
    let host = with_efi(
        typed(acpi, 0x400f_ffff, "ACPI Tables", 3),
        &[(0x4000_0000, 1)],
    );
    assert_eq!(
        show(&map(&host)),
        [BOOT_RAM, "40000000-400fffff acpi_tables 0x3 no"]
    );
}

proptest::proptest! {
    #[test]
    fn changing_all_is_changing_each(
        regions in proptest::collection::vec((0..4_u64, 1..5_u64), 0..10),
        ranges in proptest::collection::vec((0..4_u64, 1..5_u64), 0..10),
    ) {
        // Gaps and sizes: sorted and disjoint ranges.
        let ranges_of = |list: &[(u64, u64)]| {
            let mut at = 0;
            let place = |(gap, size): &(u64, u64)| {
                let start = at + gap;
                at = start + size;
                PhysRange::from_bounds(start, at).unwrap()
            };
            list.iter().map(place).collect::<Vec<_>>()
        };
        let region = |range: PhysRange| Region {
            range,
            kind: MemoryKind::Ram,
            told: None,
            placement: Placement::Allowed,
            in_dump: true,
            sources: Sources::default(),
            reason: "",
        };
        let regions = ranges_of(&regions).into_iter().map(region).collect();
        let mut at_once = MemoryMap { regions };
        let mut one_by_one = at_once.clone();
        let ranges = ranges_of(&ranges);
        at_once.change_all(&ranges, |region| region.in_dump = false);
        for range in ranges {
            one_by_one.change(range, |region| region.in_dump = false);
        }
        proptest::prop_assert_eq!(at_once, one_by_one);
    }
}
