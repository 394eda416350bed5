//! Every format against data of the real tools (tests/data/make), damaged in
//! every way.

use proptest::prelude::*;

use super::*;

const PLAIN: &[u8] = include_bytes!("../../tests/data/plain");
const GZIP: &[u8] = include_bytes!("../../tests/data/plain.gz");
const BZIP2: &[u8] = include_bytes!("../../tests/data/plain.bz2");
const LZMA: &[u8] = include_bytes!("../../tests/data/plain.lzma");
const XZ: &[u8] = include_bytes!("../../tests/data/plain.xz");
const ZSTD: &[u8] = include_bytes!("../../tests/data/plain.zst");
const LZ4: &[u8] = include_bytes!("../../tests/data/plain.lz4");
const LZ4_FRAME: &[u8] = include_bytes!("../../tests/data/plain.frame.lz4");
const PACKED: [(Compression, &[u8]); 7] = [
    (Compression::Gzip, GZIP),
    (Compression::Bzip2, BZIP2),
    (Compression::Lzma, LZMA),
    (Compression::Xz, XZ),
    (Compression::Zstd, ZSTD),
    (Compression::Lz4, LZ4),
    (Compression::Lz4, LZ4_FRAME),
];

/// `packed` as the payload of a bzImage: the size of the unpacked kernel behind it.
fn payload(packed: &[u8], size: usize) -> Vec<u8> {
    let size = u32::try_from(size).unwrap();
    [packed, &size.to_le_bytes()].concat()
}

#[test]
fn what_the_tools_packed_is_unpacked() {
    for (format, packed) in PACKED {
        assert_eq!(compression(packed), Some(format));
        assert_eq!(
            decompress(packed, DEFAULT_CAP).as_deref(),
            Ok(PLAIN),
            "{format:?}"
        );
    }
}

#[test]
fn bytes_behind_the_stream_are_no_fault() {
    for (format, packed) in PACKED {
        for tail in [&b"\0"[..], b"\0\0\0\0", &[0xff; 700], packed] {
            let bytes = [packed, tail].concat();
            assert_eq!(
                decompress(&bytes, PLAIN.len()).as_deref(),
                Ok(PLAIN),
                "{format:?}"
            );
        }
        let payload = payload(packed, PLAIN.len());
        assert_eq!(
            decompress_payload(&payload, PLAIN.len()).as_deref(),
            Ok(PLAIN),
            "{format:?}"
        );
    }
    // gzip's own last word is that size.
    assert_eq!(decompress_payload(GZIP, 1 << 20).as_deref(), Ok(PLAIN));
}

#[test]
fn a_kernel_of_another_size_than_stated_is_refused() {
    for (format, packed) in PACKED {
        let error = decompress_payload(&payload(packed, PLAIN.len() + 1), 1 << 20).unwrap_err();
        let expected = format!(
            "{} data unpacks to 3221 bytes, and the image says 3222",
            format.name()
        );
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn the_cap_is_kept_to_the_byte() {
    for (format, packed) in PACKED {
        assert!(decompress(packed, PLAIN.len()).is_ok());
        for cap in [PLAIN.len() - 1, 1, 0] {
            let expected = DecompressError::TooLarge { format, cap };
            assert_eq!(decompress(packed, cap), Err(expected));
        }
    }
}

#[test]
fn the_size_is_counted_as_it_is_unpacked() {
    for (format, packed) in PACKED {
        let size = PLAIN.len();
        assert_eq!(unpacked_size(packed, size), Ok(size as u64), "{format:?}");
        let expected = DecompressError::TooLarge {
            format,
            cap: size - 1,
        };
        assert_eq!(unpacked_size(packed, size - 1), Err(expected));
        let cut = &packed[..packed.len() / 2];
        assert_eq!(
            unpacked_size(cut, size).map_err(|error| error.to_string()),
            decompress(cut, size)
                .map(|bytes| bytes.len() as u64)
                .map_err(|error| error.to_string())
        );
    }
}

#[test]
fn a_bomb_is_stopped() {
    use std::io::Write as _;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(&vec![0; 8 << 20]).unwrap();
    let bomb = packer.finish().unwrap();
    assert!(bomb.len() < 10_000);
    let error = decompress(&bomb, 1 << 20).unwrap_err();
    assert_eq!(
        error.to_string(),
        "gzip data unpacks to more than 1048576 bytes"
    );
    // lz4: one literal, copies of it up to 8 MiB, five literals; and that again.
    let mut block = vec![0x1f, b'x', 1, 0];
    block.resize(4 + 32_896, 0xff);
    block.extend(b"\x67\x50xxxxx");
    let size = u32::try_from(block.len()).unwrap().to_le_bytes();
    let blocks = [&size, &block[..]].concat().repeat(3);
    let bomb = [b"\x02\x21\x4c\x18", &blocks[..]].concat();
    let (format, cap) = (Compression::Lz4, 3 * LZ4_BLOCK - 1);
    let expected = DecompressError::TooLarge { format, cap };
    assert_eq!(decompress(&bomb, cap), Err(expected));
    assert_eq!(decompress(&bomb, cap + 1).unwrap().len(), cap + 1);
}

#[test]
fn truncated_data_says_so() {
    for (format, packed) in PACKED {
        for length in 0..packed.len() {
            let result = decompress(&packed[..length], 1 << 20);
            let error = result.unwrap_err().to_string();
            let name = format.name();
            assert!(
                error.starts_with(&format!("malformed {name} data: truncated"))
                    || (length < 6 && error.starts_with("not packed in a known format"))
                    || (length == 0 && error == "there are no bytes to unpack"),
                "{format:?}, {length} bytes: {error}"
            );
        }
    }
}

#[test]
fn dictionaries_beyond_128_mib_are_refused_before_they_are_made() {
    // xz: 4 GiB less one in the properties of LZMA2, the block header's CRC made right.
    let mut xz = XZ.to_vec();
    assert_eq!(xz[16..19], [0x21, 0x01, 0x1e], "LZMA2, 128 MiB");
    xz[18] = 40;
    let mut crc = flate2::Crc::new();
    crc.update(&xz[12..20]);
    xz[20..24].copy_from_slice(&crc.sum().to_le_bytes());
    // .lzma: bytes 1 to 5 of the header.
    let mut lzma = LZMA.to_vec();
    lzma[4] = 0xf0;
    // zstd: the window descriptor, 128 MiB in the file of `zstd -22 --ultra`.
    let mut zstd = ZSTD.to_vec();
    assert_eq!(zstd[4..6], [0x04, 0x88]);
    zstd[5] = 0x90;
    for (name, bytes) in [("xz", xz), ("lzma", lzma), ("zstd", zstd)] {
        let error = decompress(&bytes, 1 << 20).unwrap_err();
        let expected =
            format!("malformed {name} data: it wants a dictionary of more than 134217728 bytes");
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn a_wrong_zstd_checksum_is_seen() {
    let mut bytes = ZSTD.to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let error = decompress(&bytes, 1 << 20).unwrap_err().to_string();
    assert!(
        error.starts_with("malformed zstd data: checksum 0x"),
        "{error}"
    );
}

#[test]
fn what_cannot_be_unpacked_is_named() {
    let error = decompress(b"\x89LZO\0\r\n\x1a\n", 100).unwrap_err();
    assert_eq!(error.to_string(), "lzo not supported");
    let error = decompress(b"\x7fELF\x02\x01\x01", 100).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not packed in a known format: the first bytes are 7f 45 4c 46 02 01"
    );
    let error = decompress(b"", 100).unwrap_err();
    assert_eq!(error.to_string(), "there are no bytes to unpack");
}

/// A block of lz4 that holds `plain` as it is.
fn literals(plain: &[u8]) -> Vec<u8> {
    let mut block = vec![0xf0];
    let mut rest = plain.len() - 15;
    while rest >= 255 {
        block.push(255);
        rest -= 255;
    }
    block.push(u8::try_from(rest).unwrap());
    block.extend(plain);
    let size = u32::try_from(block.len()).unwrap();
    [&size.to_le_bytes(), &block[..]].concat()
}

#[test]
fn lz4_goes_on_after_full_blocks_and_ends_without_a_mark() {
    let magic = b"\x02\x21\x4c\x18";
    let full: Vec<u8> = (0..LZ4_BLOCK).map(|n| n.to_le_bytes()[1]).collect();
    let block = literals(&full);
    let two = [magic, &block[..], &block, &literals(PLAIN)].concat();
    let plain = [&full[..], &full, PLAIN].concat();
    assert!(decompress(&two, DEFAULT_CAP).unwrap() == plain);
    assert!(decompress(&payload(&two, plain.len()), DEFAULT_CAP).unwrap() == plain);
    // A last block that is full: the end of the file, the size of the kernel
    // (here one that could be a block's), or another frame's magic ends it.
    let one = [magic, &block[..]].concat();
    assert!(decompress(&one, DEFAULT_CAP).unwrap() == full);
    assert!(decompress_payload(&payload(&one, full.len()), DEFAULT_CAP).unwrap() == full);
    let magic_behind = [&one[..], b"\x02\x21\x4c\x18"].concat();
    assert!(decompress(&magic_behind, DEFAULT_CAP).unwrap() == full);
    for tail in [&b"\x10\0\0\0abc"[..], b"\x10\0"] {
        let error = decompress(&[&one[..], tail].concat(), DEFAULT_CAP).unwrap_err();
        assert!(error.to_string().contains("truncated"), "{error}");
    }
    let error = decompress(
        &[&magic[..], &literals(&[0; LZ4_BLOCK + 1])].concat(),
        DEFAULT_CAP,
    );
    assert!(error.is_err());
    assert_eq!(
        decompress(&two, plain.len() - 1),
        Err(DecompressError::TooLarge {
            format: Compression::Lz4,
            cap: plain.len() - 1
        })
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn one_flipped_bit_is_an_error_or_changes_nothing(
        which in 0..PACKED.len(), at in any::<prop::sample::Index>(), bit in 0..8_u32,
    ) {
        let (format, packed) = PACKED[which];
        let mut bytes = packed.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        match (format, decompress(&bytes, 1 << 16)) {
            // These two have no checksum.
            (Compression::Lzma | Compression::Lz4, Ok(plain)) => prop_assert!(plain.len() <= 1 << 16),
            (_, Ok(plain)) => prop_assert!(plain == PLAIN, "{:?}: byte {} bit {}", format, at, bit),
            (_, Err(error)) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn any_damage_is_an_answer(
        which in 0..PACKED.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = PACKED[which].1.to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(plain) = decompress(&bytes, 1 << 16) {
            prop_assert!(plain.len() <= 1 << 16);
        }
    }

    #[test]
    fn any_bytes_behind_a_magic_are_an_answer(
        which in 0..MAGICS.len(), behind in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [MAGICS[which].0, &behind].concat();
        if let Ok(plain) = decompress(&bytes, 1 << 16) {
            prop_assert!(plain.len() <= 1 << 16);
        }
    }
}

/// A zstd payload needs its own size of memory and no more, and is what the other decoder
/// makes of it.
#[test]
fn a_zstd_payload_is_unpacked_at_once() {
    let packed = payload(ZSTD, PLAIN.len());
    let at_once = zstd_at_once(&packed, PLAIN.len()).unwrap();
    assert_eq!(at_once, PLAIN);
    assert_eq!(at_once.capacity(), PLAIN.len());
    assert_eq!(decompress(ZSTD, 1 << 20).unwrap(), at_once);
    // What it does not take, the other one names.
    assert_eq!(zstd_at_once(&packed, PLAIN.len() - 1), None);
    assert_eq!(zstd_at_once(&payload(GZIP, PLAIN.len()), 1 << 20), None);
    for size in [PLAIN.len() - 1, PLAIN.len() + 1] {
        assert_eq!(zstd_at_once(&payload(ZSTD, size), 1 << 20), None);
    }
    for length in 0..packed.len() {
        assert_eq!(zstd_at_once(&packed[..length], 1 << 20), None, "{length}");
    }
}
