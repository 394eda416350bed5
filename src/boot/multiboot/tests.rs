use proptest::prelude::*;

use super::*;
use crate::host::firmware_tables::{EntryPoint, Rsdp};

fn range(start: u64, last: u64) -> PhysRange {
    PhysRange::from_inclusive(start, last).unwrap()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn string(bytes: &[u8], at: usize) -> &str {
    let end = bytes[at..].iter().position(|byte| *byte == 0).unwrap();
    std::str::from_utf8(&bytes[at..at + end]).unwrap()
}

#[test]
fn lower_and_upper_memory() {
    let (ram, reserved) = (Told::RAM, Told::RESERVED);
    // As Linux tells of a BIOS machine, and as its firmware does.
    let linux = [
        (range(0, 0xfff), reserved),
        (range(0x1000, 0x9_fbff), ram),
        (range(0x9_fc00, 0x9_ffff), reserved),
        (range(0x10_0000, 0x1ffd_ffff), ram),
        (range(0x1ffe_0000, 0x1fff_ffff), reserved),
        (range(0x1_0000_0000, 0x1_ffff_ffff), ram),
    ];
    assert_eq!(
        lower_and_upper(&linux),
        (639, (0x1ffe_0000 - 0x10_0000) / 1024)
    );
    assert_eq!(lower_and_upper(&linux[..1]), (0, 0));
    // Neighbours count together; what begins later does not.
    let parts = [
        (range(0, 0x4_ffff), ram),
        (range(0x5_0000, 0x9_ffff), ram),
        (range(0x10_0000, 0x1f_ffff), ram),
        (range(0x20_0000, 0x2f_ffff), ram),
        (range(0x30_1000, 0x3f_ffff), ram),
    ];
    assert_eq!(lower_and_upper(&parts), (640, 2048));
    // One piece through the hole, and more KiB than 32 bits count.
    let all = [(range(0, (1 << 46) - 1), ram)];
    assert_eq!(lower_and_upper(&all), (640, u32::MAX));
    let high = [
        (range(0x2000, 0x9_ffff), ram),
        (range(0x20_0000, 0x3f_ffff), ram),
    ];
    assert_eq!(lower_and_upper(&high), (0, 0));
}

/// The screen of a running kernel: fields by offset in screen_info.
fn screen(fields: &[(usize, &[u8])]) -> Option<Screen> {
    let mut info = [0; 0x40];
    for (at, bytes) in fields {
        info[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    Screen::new(&info)
}

/// 1024 x 768 with 32 bits, at 0x1_fd00_0000.
fn linear() -> Vec<(usize, &'static [u8])> {
    vec![
        (0x0f, &[0x70]),
        (0x12, &[0, 4, 0, 3, 32, 0]),
        (0x18, &[0, 0, 0, 0xfd]),
        (0x24, &[0, 16]),
        (0x26, &[8, 16, 8, 8, 8, 0]),
        (0x36, &[2, 0, 0, 0]),
        (0x3a, &[1, 0, 0, 0]),
    ]
}

#[test]
fn screens_by_what_the_running_kernel_was_told() {
    let expected = Screen {
        address: 0x1_fd00_0000,
        pitch: 4096,
        width: 1024,
        height: 768,
        depth: 32,
        pixels: Pixels::Rgb([(16, 8), (8, 8), (0, 8)]),
    };
    assert_eq!(screen(&linear()), Some(expected));
    let with = |at: usize, bytes: &'static [u8]| {
        let mut fields = linear();
        fields.push((at, bytes));
        screen(&fields)
    };
    // Without the capability the high half means nothing.
    assert_eq!(with(0x36, &[0]).unwrap().address, 0xfd00_0000);
    assert_eq!(with(0x0f, &[0x23]), Some(expected));
    for (at, bytes) in [
        (0x16, &[8][..]),
        (0x24, &[0, 0]),
        (0x12, &[0, 0]),
        (0x0f, &[0x24]),
    ] {
        assert_eq!(with(at, bytes), None, "{at:#x}");
    }
    let text = Screen {
        address: 0xb_8000,
        pitch: 160,
        width: 80,
        height: 25,
        depth: 16,
        pixels: Pixels::Text,
    };
    let vga: [(usize, &[u8]); 3] = [(0x06, &[3, 80]), (0x0e, &[25]), (0x0f, &[1])];
    assert_eq!(screen(&vga), Some(text));
    let mono: [(usize, &[u8]); 3] = [(0x06, &[7, 80]), (0x0e, &[25]), (0x0f, &[0x22])];
    assert_eq!(screen(&mono).unwrap().address, 0xb_0000);
    assert_eq!(screen(&[(0x0f, &[1])]), None);
    assert_eq!(screen(&[]), None);
}

#[test]
fn version_1_as_a_kernel_reads_it() {
    let map = [
        (range(0x1000, 0x9_ffff), Told::RAM),
        (range(0x1_0000_0000, 0x4_3fff_ffff), Told::PMEM),
    ];
    let module = |start, cmdline| Module {
        start,
        end: start + 0x1234,
        cmdline,
    };
    let information = BootInformation {
        cmdline: "kernel noreboot".into(),
        modules: vec![
            module(0x20_0000, "/vmlinuz ro".into()),
            module(0x30_0000, "".into()),
        ],
        map: &map,
        screen: screen(&linear()),
        ..BootInformation::default()
    };
    let base = 0x7654_3000;
    let bytes = v1::bytes(&information, base);
    let at = |field: usize| usize::try_from(word(&bytes, field) - base).unwrap();
    assert_eq!(word(&bytes, 0), 0x124d, "flags");
    assert_eq!((word(&bytes, 4), word(&bytes, 8)), (640, 0));
    assert_eq!(string(&bytes, at(16)), "kernel noreboot");
    assert_eq!(string(&bytes, at(64)), LOADER_NAME);
    assert_eq!(word(&bytes, 20), 2);
    for (number, (start, cmdline)) in [(0x20_0000, "/vmlinuz ro"), (0x30_0000, "")]
        .into_iter()
        .enumerate()
    {
        let module = at(24) + 16 * number;
        assert_eq!(
            (word(&bytes, module), word(&bytes, module + 4)),
            (start, start + 0x1234)
        );
        let text = usize::try_from(word(&bytes, module + 8) - base).unwrap();
        assert_eq!(string(&bytes, text), cmdline);
    }
    assert_eq!(word(&bytes, 44), 48);
    for (number, (range, kind)) in map.iter().enumerate() {
        let entry = at(48) + 24 * number;
        assert_eq!(word(&bytes, entry), 20);
        assert_eq!(long(&bytes, entry + 4), range.start());
        assert_eq!(long(&bytes, entry + 12), range.size());
        assert_eq!(word(&bytes, entry + 20), kind.0);
    }
    assert_eq!(long(&bytes, 88), 0x1_fd00_0000);
    assert_eq!(
        [word(&bytes, 96), word(&bytes, 100), word(&bytes, 104)],
        [4096, 1024, 768]
    );
    assert_eq!(bytes[108..116], [32, 1, 16, 8, 8, 8, 0, 8]);
    // The address moves nothing.
    assert_eq!(v1::bytes(&information, 0).len(), bytes.len());

    let bare = v1::bytes(&BootInformation::default(), base);
    assert_eq!(word(&bare, 0), 0x24d);
    assert_eq!((word(&bare, 20), word(&bare, 44)), (0, 0));
}

/// The tags of version 2: type and what follows the size.
fn tags(bytes: &[u8]) -> Vec<(u32, &[u8])> {
    assert_eq!(word(bytes, 0), u32::try_from(bytes.len()).unwrap());
    assert_eq!(word(bytes, 4), 0);
    let mut tags = Vec::new();
    let mut at = 8;
    while at < bytes.len() {
        let size = usize::try_from(word(bytes, at + 4)).unwrap();
        tags.push((word(bytes, at), &bytes[at + 8..at + size]));
        at = (at + size).next_multiple_of(8);
    }
    assert_eq!(at, bytes.len());
    assert_eq!(tags.pop(), Some((0, &[][..])), "the end tag");
    tags
}

fn rsdp() -> Rsdp {
    // Sums of both parts are 0.
    let mut bytes = b"RSD PTR \0rkexec\x02\x00\x10\0\0\x24\0\0\0".to_vec();
    bytes.resize(36, 0);
    for (part, at) in [(20, 8), (36, 32)] {
        let sum = bytes[..part]
            .iter()
            .fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        bytes[at] = 0_u8.wrapping_sub(sum);
    }
    Rsdp::parse(&bytes).unwrap()
}

#[test]
fn version_2_as_a_kernel_reads_it() {
    let map = [
        (range(0, 0x9_ffff), Told::RAM),
        (range(0xf_0000, 0xf_ffff), Told(77)),
    ];
    let rsdp = rsdp();
    let smbios = EntryPoint::parse([&b"_SM3_\0\x18\x03\x05"[..], &[9; 15]].concat()).unwrap();
    let information = BootInformation {
        cmdline: "xen dom0_mem=1G".into(),
        modules: vec![Module {
            start: 0x1000,
            end: 0x1003,
            cmdline: "abc".into(),
        }],
        map: &map,
        screen: screen(&linear()),
        rsdp: Some(&rsdp),
        smbios: Some(&smbios),
        load_base: Some(0x3e60_0000),
    };
    let bytes = v2::bytes(&information);
    let tags = tags(&bytes);
    let kinds: Vec<u32> = tags.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [21, 1, 2, 3, 4, 6, 8, 13, 14, 15]);
    let body = |kind: u32| tags.iter().find(|(other, _)| *other == kind).unwrap().1;
    assert_eq!(word(body(21), 0), 0x3e60_0000);
    assert_eq!(body(1), b"xen dom0_mem=1G\0");
    assert_eq!(string(body(2), 0), LOADER_NAME);
    assert_eq!(body(3), b"\0\x10\0\0\x03\x10\0\0abc\0");
    assert_eq!((word(body(4), 0), word(body(4), 4)), (640, 0));
    assert_eq!((word(body(6), 0), word(body(6), 4)), (24, 0));
    assert_eq!(body(6).len(), 8 + 2 * 24);
    assert_eq!(long(body(6), 8 + 24), 0xf_0000);
    assert_eq!(long(body(6), 8 + 24 + 8), 0x1_0000);
    assert_eq!(word(body(6), 8 + 24 + 16), 77);
    assert_eq!(long(body(8), 0), 0x1_fd00_0000);
    assert_eq!(body(8)[20..], [32, 1, 0, 0, 16, 8, 8, 8, 0, 8]);
    assert_eq!(body(13)[..8], [3, 5, 0, 0, 0, 0, 0, 0]);
    assert_eq!(&body(13)[8..], smbios.bytes());
    assert_eq!(body(14), rsdp.version_1().unwrap());
    assert_eq!(body(15), rsdp.version_2().unwrap());
    for kind in 0..40 {
        let there = kinds.contains(&kind) || kind == 0;
        assert_eq!(v2::provides(&information, kind), there, "{kind}");
    }
    let bare = BootInformation::default();
    for kind in [8, 13, 14, 15] {
        assert!(!v2::provides(&bare, kind), "{kind}");
    }
}

proptest! {
    /// However long the strings are, every tag begins where the one before says.
    #[test]
    fn tags_follow_each_other(cmdline in "[ -~]{0,40}", modules in prop::collection::vec("[ -~]{0,20}", 0..5), entries in 0..5_u64) {
        let map: Vec<_> = (0..entries).map(|n| (range(n << 20, (n << 20) + 5), Told::RAM)).collect();
        let information = BootInformation {
            cmdline: cmdline.as_str().into(),
            modules: modules.iter().map(|cmdline| Module { start: 1, end: 2, cmdline: cmdline.as_str().into() }).collect(),
            map: &map,
            ..BootInformation::default()
        };
        let bytes = v2::bytes(&information);
        let found: Vec<&str> = tags(&bytes).into_iter().filter(|(kind, _)| *kind == 3).map(|(_, body)| string(body, 8)).collect();
        prop_assert_eq!(found, modules.iter().map(String::as_str).collect::<Vec<_>>());
        let bytes = v1::bytes(&information, 0x1000);
        let text = usize::try_from(word(&bytes, 16) - 0x1000).unwrap();
        prop_assert_eq!(string(&bytes, text), cmdline);
    }
}
