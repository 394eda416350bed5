//! Initrds as real tools pack them, whole and cut, and what is none.

use super::*;

const CPIO: &[u8] = include_bytes!("../../tests/data/initrd/cpio");
/// The same packed, and the name of the packing.
const PACKED: [(&str, &[u8]); 6] = [
    ("gzip", include_bytes!("../../tests/data/initrd/cpio.gz")),
    ("bzip2", include_bytes!("../../tests/data/initrd/cpio.bz2")),
    ("lzma", include_bytes!("../../tests/data/initrd/cpio.lzma")),
    ("xz", include_bytes!("../../tests/data/initrd/cpio.xz")),
    ("zstd", include_bytes!("../../tests/data/initrd/cpio.zst")),
    ("lz4", include_bytes!("../../tests/data/initrd/cpio.lz4")),
];
const LZO: &[u8] = include_bytes!("../../tests/data/initrd/cpio.lzo");

fn zeroes(count: usize) -> Vec<u8> {
    vec![0; count]
}

#[test]
fn whole_ones_are_taken() {
    for (name, packed) in PACKED.into_iter().chain([("cpio", CPIO), ("lzo", LZO)]) {
        let early = [CPIO, &zeroes(96)].concat();
        for initrd in [
            packed.to_vec(),
            [packed, &zeroes(3)].concat(),
            [packed, &zeroes(5000)].concat(),
            [&early, packed].concat(),
            [&early, CPIO, packed].concat(),
        ] {
            assert_eq!(check(&initrd), Ok(()), "{name}");
        }
    }
    // No archive, said in the shortest way.
    assert_eq!(check(&zeroes(4)), Ok(()));
    assert_eq!(check(&[]), Ok(()));
}

/// Whatever is missing at the end, from one byte to almost all.
#[test]
fn a_cut_is_seen_at_every_length() {
    for (name, packed) in PACKED {
        // Where a packing ends with zeroes, those are not missed.
        for end in 20..without_zeroes(packed).len() {
            let cut = packed.get(..end).unwrap();
            let flaw = check(cut).expect_err(name);
            let expected = Flaw::Cut { what: name, at: 0 };
            match flaw {
                flaw if flaw == expected => {}
                Flaw::Damaged { what, .. } if what == name => {}
                flaw => panic!("{name}: {end} of {}: {flaw:?}", packed.len()),
            }
        }
    }
    let last = without_zeroes(CPIO).len();
    for end in 6..last {
        let flaw = check(CPIO.get(..end).unwrap());
        assert_eq!(
            flaw,
            Err(Flaw::Cut {
                what: "cpio",
                at: 0
            }),
            "{end}"
        );
    }
    // Behind another archive, too; and the place is told.
    let (name, zstd) = PACKED[4];
    let cut = [CPIO, zstd.get(..zstd.len() - 1).unwrap()].concat();
    let flaw = check(&cut).unwrap_err();
    let at = CPIO.len();
    assert_eq!(flaw, Flaw::Cut { what: name, at });
    assert_eq!(
        flaw.to_string(),
        format!("the zstd archive that begins at byte {at} is cut short")
    );
}

/// Plain cpio without an end.
#[test]
fn a_cpio_archive_needs_its_trailer() {
    let trailer = memchr::memmem::find(CPIO, b"TRAILER").unwrap();
    let flaw = check(CPIO.get(..trailer - HEADER).unwrap());
    assert_eq!(
        flaw,
        Err(Flaw::Cut {
            what: "cpio",
            at: 0
        })
    );
}

/// Bytes of a cpio header.
const HEADER: usize = 110;

#[test]
fn what_is_no_archive_is_named() {
    let gzip = |bytes: &[u8]| {
        use std::io::Write as _;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap()
    };
    let frame = include_bytes!("../../tests/data/plain.frame.lz4").to_vec();
    let unknown = "byte 0 does not begin a cpio archive, and Linux cannot unpack it: ";
    for (initrd, said) in [
        (zeroes(4096), "it has nothing but zeroes".to_owned()),
        (b"#!/bin/sh\n".to_vec(), format!("{unknown}it begins with 23 21 2f 62 69 6e")),
        (b"MZ".to_vec(), format!("{unknown}it begins with 4d 5a")),
        (
            b"070707000000".to_vec(),
            format!("{unknown}it is a cpio archive of the old format, and Linux unpacks the new one (cpio -H newc)"),
        ),
        (
            frame,
            format!("{unknown}it is an lz4 frame of today, and Linux unpacks the legacy one (lz4 -l)"),
        ),
        (
            gzip(b"no archive"),
            "what the gzip data at byte 0 unpacks to is no cpio archive: it begins with 6e 6f 20 61 72 63".to_owned(),
        ),
        (
            [CPIO, b"signature"].concat(),
            format!(
                "byte {} does not begin a cpio archive, and Linux cannot unpack it: it begins with 73 69 67 6e 61 74",
                CPIO.len()
            ),
        ),
    ] {
        assert_eq!(check(&initrd).unwrap_err().to_string(), said);
    }
}

/// What a wrong size at the end of gzip data means is found out by unpacking it.
#[test]
fn gzip_of_an_odd_size_is_unpacked() {
    use std::io::Write as _;
    let archive = without_zeroes(CPIO);
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(archive).unwrap();
    let packed = packer.finish().unwrap();
    assert!(!gzip_is_plausible(&packed));
    assert_eq!(check(&packed), Ok(()));
    let mut wrong = packed;
    let last = wrong.len() - 1;
    wrong[last] ^= 1;
    assert!(matches!(
        check(&wrong),
        Err(Flaw::Damaged { what: "gzip", .. })
    ));
}

/// Linux skips any number of zeroes before an archive and between two.
#[test]
fn any_number_of_zeroes_may_come_before_an_archive() {
    for count in [1 << 20, (1 << 20) + 4, 5 << 20] {
        let initrd = [&zeroes(count), CPIO, &zeroes(count), CPIO].concat();
        assert_eq!(check(&initrd), Ok(()), "{count}");
        let cut = initrd.len() - without_zeroes(CPIO).len() / 2 - 512;
        let cut = check(&initrd[..cut]).unwrap_err();
        assert!(matches!(cut, Flaw::Cut { what: "cpio", .. }), "{cut}");
    }
}

/// Only the parts that are no holes are looked at.
#[test]
fn holes_are_skipped() {
    let hole = 3 << 20;
    let initrd = [&zeroes(hole), CPIO].concat();
    let asked = std::cell::RefCell::new(Vec::new());
    let data = |at: usize| {
        asked.borrow_mut().push(at);
        (at < initrd.len()).then(|| at.max(hole)..initrd.len())
    };
    assert_eq!(check_sparse(&initrd, data), Ok(()));
    assert_eq!(asked.borrow().first(), Some(&0));
    // A hole to the end is not read: it would be found to hold an archive here.
    assert_eq!(check_sparse(&initrd, |_| None), Err(Flaw::Zeroes));
    // Nor are holes looked for where an archive begins.
    let (_, packed) = PACKED[0];
    assert_eq!(check_sparse(packed, |at| panic!("asked at {at}")), Ok(()));
    // Parts that are no parts of the initrd end the search, and nothing panics.
    assert_eq!(check_sparse(&initrd, |_| Some(0..0)), Err(Flaw::Zeroes));
    let beyond = |_| Some(usize::MAX - 1..usize::MAX);
    assert_eq!(check_sparse(&initrd, beyond), Err(Flaw::Zeroes));
}
