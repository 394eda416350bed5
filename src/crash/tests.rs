//! The rules of the crash kernel on machines made by hand.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::host::crash::KernelMapping;
use crate::memory::{MapPolicy, MemoryMap};
use crate::testing::host::{Says as _, host, range};

const MIB: u64 = 1 << 20;

/// 4 GiB with two reservations, a driver's memory, ACPI tables and a reservation
/// by hand.
fn machine() -> Host {
    let mut host = host(
        "00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
00100000-bffdffff : System RAM
  20000000-23ffffff : Crash kernel
  30000000-3fffffff : Reserved
  90000000-93ffffff : Kernel code
bffe0000-bfffffff : ACPI Tables
100000000-13fffffff : System RAM
  110000000-12fffffff : Crash kernel
140000000-17fffffff : virtio0
  140000000-15fffffff : System RAM (virtio_mem)
180000000-187ffffff : System RAM
1c0000000-1ffffffff : Soft Reserved
  1c0000000-1dfffffff : dax0.0
    1c0000000-1dfffffff : System RAM (kmem)
",
    )
    .boot_e820([
        (0x1000, 0x9_fbff, 1),
        (0x9_fc00, 0x9_ffff, 2),
        (0x10_0000, 0xbffd_ffff, 1),
        (0xbffe_0000, 0xbfff_ffff, 3),
        (0x1_0000_0000, 0x1_3fff_ffff, 1),
        (0x1_c000_0000, 0x1_ffff_ffff, 0xefff_ffff),
    ]);
    host.loaded.crash_size = Some(0x2000_0000);
    host
}

/// The map of the crash kernel.
fn map(host: &Host) -> MemoryMap {
    let mut map = MemoryMap::reconcile(host, MapPolicy::FixedUp, &BTreeSet::new());
    Reservation::of(host).unwrap().restrict(&mut map).unwrap();
    map
}

#[test]
fn the_reservation_is_the_one_that_the_kernel_counts() {
    let mut host = machine();
    let low = range(0x2000_0000, 0x23ff_ffff);
    let high = range(0x1_1000_0000, 0x1_2fff_ffff);
    let of = |host: &Host| Reservation::of(host).unwrap();
    assert_eq!(of(&host).target, high);
    assert_eq!(of(&host).all, [low, high]);
    host.loaded.crash_size = None;
    assert_eq!(of(&host).target, high);
    host.loaded.crash_size = Some(low.size());
    assert_eq!(of(&host).target, low);
    host.crash.cma = vec![range(0x1_3000_0000, 0x1_37ff_ffff)];
    assert_eq!(of(&host).all.len(), 3);
    let bare = self::host("00100000-3fffffff : System RAM\n");
    assert_eq!(Reservation::of(&bare), Err(CrashError::NoReservation));
}

#[test]
fn the_kernel_has_room_for_its_own_pages() {
    let host = machine();
    let target = Reservation::of(&host).unwrap().target;
    let places: Vec<PhysRange> = map(&host).ranges(Placement::Allowed).collect();
    assert_eq!(places.len(), 1);
    assert_eq!(places[0].end(), target.end());
    // 32 pages, and one for every GiB that RAM touches.
    let room = places[0].start() - target.start();
    assert!((36..64).contains(&(room / PAGE_SIZE)), "{room:#x}");
    assert_eq!(map(&host).ranges(Placement::LastChoice).count(), 0);

    let tiny = self::host("00100000-3fffffff : System RAM\n  10000000-10007fff : Crash kernel\n");
    let mut map = MemoryMap::reconcile(&tiny, MapPolicy::FixedUp, &BTreeSet::new());
    let reservation = Reservation::of(&tiny).unwrap();
    assert_eq!(
        reservation.restrict(&mut map),
        Err(CrashError::Tiny {
            size: 0x8000,
            room: 33 * PAGE_SIZE,
        })
    );
}

#[test]
fn the_dump_holds_all_ram_but_the_reservations() {
    assert_eq!(
        dumped(&map(&machine())),
        [
            range(0x10_0000, 0x1fff_ffff),
            range(0x2400_0000, 0x2fff_ffff),
            range(0x4000_0000, 0xbffd_ffff),
            range(0x1_0000_0000, 0x1_0fff_ffff),
            // The driver's memory and the hot-added one as well; one load for all that touch.
            range(0x1_3000_0000, 0x1_5fff_ffff),
            range(0x1_8000_0000, 0x1_87ff_ffff),
            range(0x1_c000_0000, 0x1_dfff_ffff),
        ]
    );
}

#[test]
fn the_capture_kernel_is_told_of_no_other_ram() {
    let mut map = map(&machine());
    hide(&mut map, range(0x1_1100_0000, 0x1_1100_ffff));
    let told = map.told();
    let rows: Vec<(PhysRange, u32)> = told.iter().map(|(range, kind)| (*range, kind.0)).collect();
    assert_eq!(
        rows,
        [
            (range(0, 0xfff), 2),
            (range(0x1000, 0x9_fbff), 1),
            (range(0x9_fc00, 0x9_ffff), 2),
            (range(0x2000_0000, 0x23ff_ffff), 1),
            (range(0x3000_0000, 0x3fff_ffff), 2),
            (range(0xbffe_0000, 0xbfff_ffff), 3),
            (range(0x1_1000_0000, 0x1_10ff_ffff), 1),
            (range(0x1_1101_0000, 0x1_2fff_ffff), 1),
        ]
    );
}

#[test]
fn a_kernel_that_does_not_tell_is_named() {
    let mut host = machine();
    let of = |host: &Host| contents(host, &[]).unwrap_err().to_string();
    assert!(of(&host).contains("crash_notes"), "{}", of(&host));
    let note = Note {
        address: 0x1000,
        size: 368,
    };
    host.crash.cpus = vec![(0, note)];
    assert!(of(&host).contains("vmcoreinfo"));
    host.crash.vmcoreinfo = Some(note);
    assert!(of(&host).contains("/proc/kcore"));
    host.crash.mapping = Some(KernelMapping {
        direct_map: 0xffff_8880_0000_0000,
        text: 0xffff_ffff_8100_0000,
        image: range(0x9000_0000, 0x93ff_ffff),
    });
    assert!(contents(&host, &[]).is_ok());
}

#[test]
fn the_flag_is_the_one_of_the_kernels_version() {
    let mut host = machine();
    let with = |host: &mut Host, release: &str, size: Option<u64>, choice| {
        release.clone_into(&mut host.release);
        host.loaded.crash_elfcorehdr_size = size;
        hotplug(host, choice)
    };
    let size = Some(462_448);
    let auto = HotplugChoice::Auto;
    let update = Ok(Some((Hotplug::UpdateElfcorehdr, 462_448)));
    let support = Ok(Some((Hotplug::CrashHotplugSupport, 462_448)));
    assert_eq!(with(&mut host, "6.1.0-18-amd64", None, auto), Ok(None));
    assert_eq!(with(&mut host, "6.6.0", size, auto), update);
    assert_eq!(with(&mut host, "6.9.12-1", size, auto), update);
    assert_eq!(with(&mut host, "6.10.0", size, auto), support);
    assert_eq!(with(&mut host, "7.0-rc1", size, HotplugChoice::On), support);
    assert_eq!(
        with(&mut host, "6.12.0", size, HotplugChoice::Off),
        Ok(None)
    );
    assert_eq!(with(&mut host, "6.5.0", size, auto), Ok(None));
    assert!(with(&mut host, "6.1.0", None, HotplugChoice::On).is_err());
    assert!(with(&mut host, "6.5.0", size, HotplugChoice::On).is_err());
}

/// A machine of 64 MiB blocks above 1 MiB; each is RAM, a driver's, or nothing.
fn any_machine() -> impl Strategy<Value = (Host, Vec<u8>, usize)> {
    (vec(0..3_u8, 4..40), 0..40_usize).prop_map(|(blocks, reserved)| {
        let reserved = reserved % blocks.len();
        let mut iomem = String::new();
        for (at, kind) in (0_u64..).zip(&blocks) {
            let (start, last) = (at * 64 * MIB + MIB, (at + 1) * 64 * MIB + MIB - 1);
            let is_reserved = usize::try_from(at) == Ok(reserved);
            match kind {
                _ if is_reserved => {
                    iomem += &format!("{start:08x}-{last:08x} : System RAM\n");
                    iomem += &format!("  {start:08x}-{last:08x} : Crash kernel\n");
                }
                0 => iomem += &format!("{start:08x}-{last:08x} : System RAM\n"),
                1 => iomem += &format!("{start:08x}-{last:08x} : System RAM (kmem)\n"),
                _ => iomem += &format!("{start:08x}-{last:08x} : PCI Bus 0000:00\n"),
            }
        }
        (host(&iomem), blocks, reserved)
    })
}

proptest! {
    /// The loads cover exactly the RAM, in order, without overlap and neighbours.
    #[test]
    fn the_dump_is_exactly_the_ram((host, blocks, reserved) in any_machine()) {
        let map = map(&host);
        let dump = dumped(&map);
        for pair in dump.windows(2) {
            prop_assert!(pair[0].end() < pair[1].start());
        }
        for (at, kind) in (0_u64..).zip(&blocks) {
            for address in [at * 64 * MIB + MIB, (at + 1) * 64 * MIB + MIB - 1] {
                let held = dump.iter().filter(|range| range.contains(address)).count();
                let wanted = *kind < 2 && usize::try_from(at) != Ok(reserved);
                prop_assert_eq!(held, usize::from(wanted), "{:#x}", address);
            }
        }
        let size: u64 = dump.iter().map(|range| range.size()).sum();
        let wanted = blocks.iter().enumerate().filter(|(at, kind)| **kind < 2 && *at != reserved);
        prop_assert_eq!(size, wanted.count() as u64 * 64 * MIB);

        // And no byte of it is RAM to the crash kernel.
        for (range, kind) in map.told() {
            let overlaps = dump.iter().any(|dumped| dumped.overlaps(range));
            prop_assert!(kind != Told::RAM || !overlaps);
        }
    }
}

/// `memmap=256M%0x10000000-2+1` and the like make RAM of what the firmware calls
/// something else; the crash kernel gets no such word.
#[test]
fn system_ram_in_the_reservation_is_ram_whatever_the_firmware_calls_it() {
    for kind in [2, 3, 4, 5, 7, 12, 13, 0xefff_ffff] {
        let mut host = host(
            "00001000-0009fbff : System RAM
00100000-3fffffff : System RAM
  0c000000-0fffffff : Crash kernel
  10000000-1fffffff : Crash kernel
40000000-4fffffff : Reserved
",
        )
        .boot_e820([
            (0x1000, 0x9_fbff, 1),
            (0x10_0000, 0xdff_ffff, 1),
            (0xe00_0000, 0x2fff_ffff, kind),
            (0x3000_0000, 0x3fff_ffff, 1),
            (0x4000_0000, 0x4fff_ffff, 2),
        ]);
        host.crash.cma = vec![range(0x2000_0000, 0x21ff_ffff)];
        host.loaded.crash_size = Some(256 * MIB);
        let map = map(&host);
        let told = map.told().into_iter().filter(|(_, kind)| kind.is_ram());
        let told: Vec<PhysRange> = told.map(|(range, _)| range).collect();
        let own = [range(0x1000, 0x9_fbff), range(0xc00_0000, 0x21ff_ffff)];
        assert_eq!(told, own, "{kind}");
        let places: Vec<PhysRange> = map.ranges(Placement::Allowed).collect();
        assert_eq!(places.len(), 1);
        assert_eq!(places[0].end(), 0x2000_0000);
        // The rest of what was made RAM is in the dump, and told as the firmware has it.
        assert!(dumped(&map).contains(&range(0x2200_0000, 0x3fff_ffff)));
        let soft = kind == 0xefff_ffff;
        let rest = map
            .told()
            .into_iter()
            .find(|(it, _)| it.contains(0x2800_0000));
        assert_eq!(rest.map(|(_, kind)| kind.0), (!soft).then_some(kind));
    }
}

/// A file that shows a reservation where there is no RAM comes from no kernel: it
/// leaves no place for segments.
#[test]
fn a_reservation_that_is_no_ram_holds_no_segment() {
    let host = host(
        "00100000-0fffffff : System RAM
10000000-1fffffff : Reserved
  10000000-1fffffff : Crash kernel
",
    );
    assert_eq!(map(&host).ranges(Placement::Allowed).count(), 0);
}
