//! The very image that `load` loads, run in user space.

#![expect(unsafe_code, reason = "maps and calls the image")]

mod boot;
mod mapping;

use mapping::{Mapping, region};
use rkexec::base::PhysRange;
use rkexec::purgatory::{CHUNK, Fault, MAX_REGIONS, Mode, Request};
use rkexec::sys::digest::has_sha_ni;

const REQUEST: Request = Request {
    entry: 0,
    argument: 0,
    mode: Mode::Long,
    serial_port: None,
    sha_ni: false,
    verify: true,
};

/// The request for every way of hashing that this CPU has.
fn requests() -> Vec<Request> {
    let mut requests = vec![REQUEST];
    if has_sha_ni() {
        requests.push(Request {
            sha_ni: true,
            ..REQUEST
        });
    }
    requests
}

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
    let data = noise(5 * CHUNK + 77);
    for request in requests() {
        for regions in [
            vec![],
            vec![&data[..1]],
            vec![&data[5..64], &data[..64], &data[1..=CHUNK]],
            vec![&data[..], &data[..2 * CHUNK], &data[3..4096]],
            vec![&data[7..5000]; MAX_REGIONS],
        ] {
            let digests: Vec<_> = regions.iter().map(|bytes| region(bytes)).collect();
            let (fault, _) = Mapping::new(&request, &digests).verify();
            assert_eq!(fault, 0, "{} regions, {request:?}", regions.len());
        }
    }
}

#[test]
fn one_changed_bit_names_the_region_and_the_digest() {
    let mut data = noise(4 * CHUNK + 300);
    for request in requests() {
        let (first, second) = data.split_at(CHUNK / 2);
        let digests = [region(first), region(second)];
        let mapping = Mapping::new(&request, &digests);
        assert_eq!(mapping.verify().0, 0);
        for at in [CHUNK / 2, 2 * CHUNK, 4 * CHUNK + 299] {
            data[at] ^= 0x10;
            let (fault, evidence) = mapping.verify();
            assert_eq!(fault, Fault::Digest as u32, "bit in byte {at}, {request:?}");
            assert_eq!(evidence.region, 1);
            assert_eq!(evidence.computed, region(&data[CHUNK / 2..]).1);
            assert_ne!(evidence.computed, digests[1].1);
            data[at] ^= 0x10;
        }
        data[0] ^= 1;
        let (fault, evidence) = mapping.verify();
        assert_eq!((fault, evidence.region), (Fault::Digest as u32, 0));
        data[0] ^= 1;
        assert_eq!(mapping.verify().0, 0);
    }
}

#[test]
fn a_wrong_digest_a_longer_and_a_shorter_region_are_refused() {
    let data = noise(3 * CHUNK);
    let (range, digest) = region(&data[..2 * CHUNK]);
    let mut wrong = digest;
    wrong[31] ^= 0x80;
    for request in requests() {
        for changed in [
            (range, wrong),
            (
                PhysRange::new(range.start(), range.size() + 1).unwrap(),
                digest,
            ),
            (
                PhysRange::new(range.start(), range.size() - 1).unwrap(),
                digest,
            ),
            (
                PhysRange::new(range.start() + 1, range.size()).unwrap(),
                digest,
            ),
        ] {
            let (fault, _) = Mapping::new(&request, &[changed]).verify();
            assert_eq!(fault, Fault::Digest as u32);
        }
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
