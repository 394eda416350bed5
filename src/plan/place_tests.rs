use std::collections::BTreeMap;

use super::*;
use crate::base::{PhysRange, Syscall};
use crate::carry::Capability;
use crate::image::probe;
use crate::plan::{Given, plan};
use crate::request::{LoadRequest, SyscallChoice};
use crate::testing::bzimage::TinyBzImage;
use crate::testing::host::{Says as _, host, range};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// A machine of 1 GiB whose boot loader put an initrd at `ramdisk`.
fn machine(ramdisk: PhysRange) -> Host {
    let mut host = host("00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n")
        .boot_e820([(0x1000, 0x9_ffff, 1), (MIB, GIB - 1, 1)]);
    let params = &mut host.boot_params.as_mut().unwrap().params;
    let halves = |number: u64| {
        let low = u32::try_from(number & 0xffff_ffff).unwrap();
        (low.into(), u32::try_from(number >> 32).unwrap().into())
    };
    (params.hdr.ramdisk_image, params.ext_ramdisk_image) = halves(ramdisk.start());
    (params.hdr.ramdisk_size, params.ext_ramdisk_size) = halves(ramdisk.size());
    host
}

/// Place of every segment, with an initrd of 8 MiB.
fn places(host: &Host) -> BTreeMap<&'static str, PhysRange> {
    let file = TinyBzImage::new(0x1000).build();
    let image = probe(&file).unwrap();
    let initrd = vec![7; 8 << 20];
    let request = LoadRequest {
        syscall: SyscallChoice::Only(Syscall::KexecLoad),
        ..LoadRequest::default()
    };
    let plan = plan(
        &request,
        host,
        &image,
        &Given::initrds(&[&initrd]),
        Capability::unknown,
    )
    .unwrap();
    let place = |segment: &Segment<'_>| (segment.role.name(), segment.mem);
    plan.segments().iter().map(place).collect()
}

#[test]
fn the_running_kernels_initrd_is_left_alone_while_there_is_other_memory() {
    // As boot loaders do: at the very top, not on whole pages.
    let ramdisk = range(GIB - 40 * MIB + 0x123, GIB - 0x800);
    for (role, place) in places(&machine(ramdisk)) {
        assert!(
            place.end() <= GIB - 40 * MIB,
            "{role} at {place}, where the old initrd was"
        );
    }
}

#[test]
fn beside_the_running_kernels_initrd_only_what_fits_above_it_goes_there() {
    let ramdisk = range(GIB - 40 * MIB, GIB - 12 * MIB - 1);
    let places = places(&machine(ramdisk));
    let initrd = places["initrd"];
    assert!(initrd.start() >= GIB - 12 * MIB, "{initrd}");
    let kernel = places["kernel"];
    assert!(kernel.end() <= ramdisk.start(), "{kernel}");
}

#[test]
fn what_fits_nowhere_else_goes_where_the_running_kernels_initrd_was() {
    let ramdisk = range(MIB, GIB - 1);
    let places = places(&machine(ramdisk));
    assert_eq!(places.len(), 5);
    for (role, place) in &places {
        assert!(ramdisk.covers(*place), "{role} at {place}");
    }
    let mut taken: Vec<PhysRange> = places.values().copied().collect();
    taken.sort();
    assert!(
        taken
            .windows(2)
            .all(|pair| pair[0].end() <= pair[1].start())
    );
}

#[test]
fn an_initrd_above_four_gibibytes_is_known_by_both_halves_of_its_address() {
    let ramdisk = PhysRange::new(5 * GIB + 0x1000, 5 * GIB).unwrap();
    assert_eq!(machine(ramdisk).initrd(), Some(ramdisk));
    assert_eq!(host("00100000-3fffffff : System RAM\n").initrd(), None);
}
