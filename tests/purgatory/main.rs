//! The very image that `load` loads, run in user space.

#![expect(unsafe_code, reason = "maps and calls the image")]

mod boot;
mod flips;
mod mapping;
mod stamps;

use mapping::{Mapping, region};
use rkexec::base::PhysRange;
use rkexec::purgatory::{Fault, MAX_REGIONS, Mode, Request};

const REQUEST: Request = Request {
    entry: 0,
    argument: 0,
    mode: Mode::Long,
    serial_port: None,
    verify: true,
    stamps: None,
};

const MIB: usize = 1 << 20;

fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    (0..length)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        })
        .collect()
}

#[test]
fn right_digests_are_accepted() {
    let data = noise(5 * MIB + 77);
    for regions in [
        vec![],
        vec![&data[..1]],
        vec![&data[5..64], &data[..64], &data[1..=MIB]],
        vec![&data[..], &data[..2 * MIB], &data[3..4096]],
        vec![&data[7..5000]; MAX_REGIONS],
        (0..MAX_REGIONS).map(|n| &data[n..112 + 2 * n]).collect(),
    ] {
        let digests: Vec<_> = regions.iter().map(|bytes| region(bytes)).collect();
        let (fault, _) = Mapping::new(&REQUEST, &digests).verify();
        assert_eq!(fault, 0, "{} regions", regions.len());
    }
}

#[test]
fn one_changed_bit_names_the_region_and_the_digest() {
    let mut data = noise(4 * MIB + 300);
    let (first, second) = data.split_at(MIB / 2);
    let digests = [region(first), region(second)];
    let mapping = Mapping::new(&REQUEST, &digests);
    assert_eq!(mapping.verify().0, 0);
    for at in [MIB / 2, 2 * MIB, 4 * MIB + 299] {
        data[at] ^= 0x10;
        let (fault, evidence) = mapping.verify();
        assert_eq!(fault, Fault::Digest as u32, "bit in byte {at}");
        assert_eq!(evidence.region, 1);
        assert_eq!(evidence.computed, region(&data[MIB / 2..]).1);
        assert_ne!(evidence.computed, digests[1].1);
        data[at] ^= 0x10;
    }
    data[0] ^= 1;
    let (fault, evidence) = mapping.verify();
    assert_eq!((fault, evidence.region), (Fault::Digest as u32, 0));
    data[0] ^= 1;
    assert_eq!(mapping.verify().0, 0);
}

#[test]
fn a_wrong_digest_a_longer_and_a_shorter_region_are_refused() {
    let data = noise(3 * MIB);
    let (range, digest) = region(&data[..2 * MIB]);
    let mut wrong = digest;
    wrong[7] ^= 0x80;
    let (start, size) = (range.start(), range.size());
    for changed in [
        (range, wrong),
        (PhysRange::new(start, size + 1).unwrap(), digest),
        (PhysRange::new(start, size - 1).unwrap(), digest),
        (PhysRange::new(start + 1, size).unwrap(), digest),
    ] {
        let (fault, _) = Mapping::new(&REQUEST, &[changed]).verify();
        assert_eq!(fault, Fault::Digest as u32);
    }
}

#[test]
fn without_the_flag_nothing_is_verified() {
    let data = noise(100);
    let (range, mut digest) = region(&data);
    digest[0] ^= 1;
    let request = Request {
        verify: false,
        ..REQUEST
    };
    assert_eq!(Mapping::new(&request, &[(range, digest)]).verify().0, 0);
}

#[test]
fn a_damaged_block_is_told_from_a_damaged_segment() {
    let data = noise(100);
    // Offsets as in purgatory/abi.rs: magic, version, region_count, the first
    // region's address and size.
    for (offset, bytes, expected, region_named) in [
        (0, &b"RKXPURG0"[..], Fault::Magic, MAX_REGIONS),
        (8, &[99, 0, 0, 0], Fault::Version, MAX_REGIONS),
        (36, &[17, 0, 0, 0], Fault::Table, MAX_REGIONS),
        (48, &[0; 8], Fault::Table, 0),
        (56, &[0; 8], Fault::Table, 0),
        (56, &[0xff; 8], Fault::Table, 0),
    ] {
        let mapping = Mapping::new(&REQUEST, &[region(&data)]);
        mapping.write(offset, bytes);
        let (fault, evidence) = mapping.verify();
        assert_eq!(fault, expected as u32, "offset {offset}");
        assert_eq!(evidence.region, region_named as u64, "offset {offset}");
    }
}
