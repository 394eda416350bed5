use std::borrow::Cow;

use proptest::prelude::*;

use super::*;
use crate::base::PAGE_SIZE;
use crate::testing::multiboot::{Segment, TinyElf, header_v1, header_v2, tag, words};

const MIB: u64 = 1 << 20;

fn parse(file: &[u8]) -> Multiboot<'_> {
    Multiboot::parse(file).unwrap().unwrap()
}

fn refusal(file: &[u8]) -> String {
    Multiboot::parse(file).unwrap_err().to_string()
}

/// A header, then bytes that are not all alike.
fn content(header: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = header.to_vec();
    let rest = length.saturating_sub(bytes.len());
    bytes.extend((1..=250_u8).cycle().take(rest));
    bytes
}

#[test]
fn an_elf_kernel_of_version_1() {
    for bits in [32, 64] {
        let bytes = content(&header_v1(3, &[]), 5000);
        let mut elf = TinyElf::new(MIB, &bytes);
        elf.bits = bits;
        elf.entry = MIB + 12;
        elf.segments[0].bss = 10_000;
        let file = elf.build();
        let kernel = parse(&file);
        assert_eq!(kernel.version, Version::One);
        assert_eq!(kernel.entry, MIB + 12);
        assert_eq!(kernel.span, PhysRange::new(MIB, 15_000).unwrap());
        assert_eq!(kernel.loads[0].bytes, bytes);
        assert_eq!(kernel.header_offset % 4, 0);
        assert!(kernel.page_aligned_modules && !kernel.console.required);
        assert_eq!((kernel.relocatable, kernel.asks_bios), (None, false));
    }
}

#[test]
fn the_entry_of_a_kernel_that_is_linked_high_is_made_physical() {
    let high = 0xc000_0000;
    let mut elf = TinyElf::new(MIB, &content(&header_v1(0, &[]), 100));
    elf.segments[0].high = high;
    elf.entry = MIB + high + 20;
    assert_eq!(parse(&elf.build()).entry, MIB + 20);
    // Others give the physical one.
    elf.entry = MIB + 24;
    assert_eq!(parse(&elf.build()).entry, MIB + 24);
    elf.entry = MIB + 100;
    assert_eq!(
        refusal(&elf.build()),
        "malformed multiboot 1 kernel: the entry point 0x100064 lies outside of what is loaded"
    );
    elf.bits = 64;
    elf.segments[0].high = 0xffff_ffff_8000_0000;
    elf.entry = 0xffff_ffff_8010_0008;
    assert_eq!(parse(&elf.build()).entry, MIB + 8);
}

/// A file with `before` bytes, then the header of version 1 with these addresses.
fn flat(before: usize, addresses: [u32; 5], length: usize) -> Vec<u8> {
    let mut file = vec![0x90; before];
    file.extend(header_v1(1 << 16, &addresses));
    content(&file, length)
}

#[test]
fn the_addresses_of_version_1_say_what_is_loaded_from_where() {
    // The header is 16 bytes into the file, and 8 into what is loaded.
    let file = flat(
        16,
        [0x10_0008, 0x10_0000, 0x10_0100, 0x10_0200, 0x10_0030],
        0x200,
    );
    let kernel = parse(&file);
    assert_eq!(kernel.loads[0].bytes, &file[8..0x108]);
    assert_eq!(kernel.span, PhysRange::new(MIB, 0x200).unwrap());
    assert_eq!(kernel.entry, MIB + 0x30);
    // Without ends: all of the file, and no bss.
    let file = flat(16, [0x10_0008, 0x10_0000, 0, 0, 0x10_0030], 0x200);
    let kernel = parse(&file);
    assert_eq!(kernel.loads[0].bytes, &file[8..]);
    assert_eq!(kernel.span.size(), 0x1f8);
    for (addresses, expected) in [
        (
            [0x10_0008, 0x10_0009, 0, 0, 0],
            "load_addr 0x100009 lies above header_addr 0x100008",
        ),
        (
            [0x10_0018, 0x10_0000, 0, 0, 0],
            "load_addr 0x100000 lies 0x18 bytes before the header, and the header at 0x10 of the file",
        ),
        (
            [0x10_0008, 0x10_0000, 0x10_0000, 0, 0],
            "load_end_addr 0x100000 does not lie above the load address 0x100000",
        ),
        (
            [0x10_0008, 0x10_0000, 0x10_0200, 0, 0],
            "truncated: 0x200 bytes are to be loaded from 0x8 on, the file has 0x1f8",
        ),
        (
            [0x10_0008, 0x10_0000, 0, 0x10_0100, 0],
            "bss_end_addr 0x100100 lies below the end of what is loaded, 0x1001f8",
        ),
        (
            [0x10_0008, 0x10_0000, 0, 0, 0x10_01f8],
            "the entry point 0x1001f8 lies outside of what is loaded",
        ),
        (
            [0xffff_ff08, 0xffff_ff00, 0, 0, 0xffff_ff00],
            "ffffff00-1000000f7 does not lie below 4 GiB",
        ),
    ] {
        let expected = format!("malformed multiboot 1 kernel: {expected}");
        assert_eq!(refusal(&flat(16, addresses, 0x200)), expected);
    }
    let cut = &flat(16, [0x10_0008, 0x10_0000, 0, 0, 0], 0x200)[..40];
    assert_eq!(
        refusal(cut),
        "malformed multiboot 1 kernel: the file ends inside its header"
    );
}

#[test]
fn flags_that_must_be_understood_are_refused() {
    let file = TinyElf::new(MIB, &content(&header_v1(0x8004, &[]), 100)).build();
    assert_eq!(
        refusal(&file),
        "this multiboot 1 kernel cannot be loaded: it requires what the bits 0x8000 of its flags mean, \
         and the specification gives them no meaning"
    );
    let file = TinyElf::new(MIB, &content(&header_v1(0x8000_0004, &[]), 100)).build();
    assert!(parse(&file).console.required);
}

/// The tags of Xen 4.17's header.
fn xens_tags() -> Vec<Vec<u8>> {
    vec![
        tag(1, 0, &[4, 6]),
        tag(6, 0, &[]),
        tag(10, 1, &[0x20_0000, 0xffff_ffff, 0x20_0000, 2]),
        tag(4, 1, &[2]),
        tag(5, 1, &[0, 0, 0]),
        tag(7, 1, &[]),
        tag(9, 1, &[0x3d_d531]),
    ]
}

fn v2(tags: &[Vec<u8>]) -> Vec<u8> {
    TinyElf::new(2 * MIB, &content(&header_v2(0, tags), 0x400)).build()
}

#[test]
fn a_kernel_of_version_2_with_the_tags_of_xen() {
    let file = v2(&xens_tags());
    let kernel = parse(&file);
    assert_eq!(kernel.version, Version::Two);
    assert_eq!(kernel.entry, 2 * MIB);
    let request = |tag| InformationRequest {
        tag,
        required: true,
    };
    assert_eq!(kernel.requests, [request(4), request(6)]);
    assert_eq!(
        kernel.relocatable,
        Some(Relocatable {
            min: 0x20_0000,
            max: 0xffff_ffff,
            align: 0x20_0000,
            preference: Preference::Highest,
        })
    );
    let text = Console {
        required: false,
        stated: true,
        text: true,
    };
    assert!(kernel.page_aligned_modules);
    assert_eq!(kernel.console, text);
}

#[test]
fn version_2_counts_where_both_are() {
    let mut both = header_v1(3, &[]);
    both.resize(16, 0);
    both.extend(header_v2(0, &xens_tags()));
    let file = TinyElf::new(2 * MIB, &content(&both, 0x400)).build();
    assert_eq!(parse(&file).version, Version::Two);
}

#[test]
fn the_addresses_of_version_2() {
    let flat = |addresses: [u32; 4], entry: Option<u32>| {
        let mut tags = vec![tag(2, 0, &addresses)];
        tags.extend(entry.map(|entry| tag(3, 0, &[entry])));
        let mut file = vec![0x90; 24];
        file.extend(header_v2(0, &tags));
        content(&file, 0x300)
    };
    let file = flat([0x10_0008, 0x10_0000, 0, 0x11_0000], Some(0x10_0100));
    let kernel = parse(&file);
    assert_eq!(kernel.loads[0].bytes, &file[16..]);
    assert_eq!(kernel.span.end(), 0x11_0000);
    assert_eq!(kernel.entry, 0x10_0100);
    // -1: from the start of the file.
    let file = flat([0x10_0018, 0xffff_ffff, 0, 0], Some(0x10_0100));
    let kernel = parse(&file);
    assert_eq!(kernel.loads[0].bytes, &file[..]);
    assert_eq!(kernel.span.start(), MIB);
    assert_eq!(
        refusal(&flat([0x10_0008, 0x10_0000, 0, 0], None)),
        "malformed multiboot 2 kernel: there is an address tag, and no entry address tag with it"
    );
    // Of an ELF file the entry address tag counts.
    assert_eq!(parse(&v2(&[tag(3, 0, &[0x20_0040])])).entry, 0x20_0040);
}

#[test]
fn what_version_2_requires_and_nobody_knows_is_refused() {
    assert_eq!(
        refusal(&v2(&[tag(77, 0, &[1])])),
        "this multiboot 2 kernel cannot be loaded: it requires header tag 77, which version 2.0 of the \
         specification does not have"
    );
    assert!(parse(&v2(&[tag(77, 1, &[1])])).requests.is_empty());
    let mips = TinyElf::new(MIB, &content(&header_v2(4, &[]), 100)).build();
    assert_eq!(
        refusal(&mips),
        "this multiboot 2 kernel cannot be loaded: it is for architecture 4 (MIPS), not for the i386 (0)"
    );
    // A console may be wished for.
    assert!(parse(&v2(&[tag(4, 0, &[3])])).console.required);
    assert!(!parse(&v2(&[tag(4, 1, &[3])])).console.required);
}

#[test]
fn damaged_tags_are_told() {
    for (tags, expected) in [
        (tag(3, 0, &[]), "header tag 3 has only 8 bytes".to_owned()),
        (
            tag(10, 0, &[0x20_0000, 0x10_0000, 4096, 0]),
            "its lowest address 0x200000 lies above its highest one, 0x100000".to_owned(),
        ),
        (
            tag(10, 0, &[0, 0x10_0000, 3000, 0]),
            "its alignment 0xbb8 is no power of two".to_owned(),
        ),
        (
            words(&[6, 7]),
            "header tag 6 at 0x10 of the header has the size 0x7, and the header 0x20".to_owned(),
        ),
        (
            words(&[6, 0xffff_fff0]),
            "header tag 6 at 0x10 of the header has the size 0xfffffff0, and the header 0x20"
                .to_owned(),
        ),
    ] {
        let expected = format!("malformed multiboot 2 kernel: {expected}");
        assert_eq!(refusal(&v2(&[tags])), expected);
    }
    // No end tag: the length of the header leaves it out.
    let mut header = header_v2(0, &[]);
    header[8] = 16;
    header[12] = header[12].wrapping_add(8);
    let file = TinyElf::new(MIB, &content(&header, 100)).build();
    assert_eq!(
        refusal(&file),
        "malformed multiboot 2 kernel: its header has no end tag"
    );
    // Longer than the file.
    let header = &header_v2(0, &[tag(77, 1, &[7; 500])])[..64];
    assert_eq!(
        refusal(header),
        "malformed multiboot 2 kernel: its header of 0x7f0 bytes at 0x0 leaves the file or its first \
         32768 bytes"
    );
}

#[test]
fn damaged_elf_files_are_told() {
    let good = TinyElf::new(MIB, &content(&header_v1(0, &[]), 100));
    let changed = |change: fn(&mut TinyElf)| {
        let mut elf = good.clone();
        change(&mut elf);
        elf.build()
    };
    let patched = |at: usize, byte: u8| {
        let mut file = good.build();
        file[at] = byte;
        file
    };
    let another = |paddr, bytes: usize| Segment {
        paddr,
        bytes: vec![1; bytes],
        ..Segment::default()
    };
    let overlapping = changed(|elf| elf.segments[0].bss = 5000);
    let mut overlapping_elf = good.clone();
    overlapping_elf.segments[0].bss = 5000;
    overlapping_elf.segments.push(another(MIB + 5099, 10));
    assert!(Multiboot::parse(&overlapping).is_ok());
    let mut many = good.clone();
    many.segments
        .extend((0..40).map(|n| another(2 * MIB + n * 4096, 1)));
    let mut twice = good.clone();
    twice.segments.push(another(2 * MIB, 100));
    let mut twice = twice.build();
    let program_headers = 52;
    // p_offset and p_filesz of the second one: the whole file.
    let length = u32::try_from(twice.len()).unwrap();
    twice[program_headers + 32 + 4..][..4].copy_from_slice(&0_u32.to_le_bytes());
    twice[program_headers + 32 + 16..][..8].copy_from_slice(&words(&[length, length]));
    let mut cut = good.build();
    cut.truncate(cut.len() - 1);
    for (file, expected) in [
        (
            header_v1(0, &[]),
            "it has no addresses, and is no ELF file that would have them",
        ),
        (patched(4, 7), "its ELF header: "),
        (patched(5, 2), "it is a big-endian ELF file"),
        (patched(18, 40), "it is an ELF file for ARM"),
        (
            patched(16, 1),
            "it is an ELF file of type REL, not an executable",
        ),
        (patched(44, 0), "it is an ELF file with nothing to load"),
        (
            patched(42, 33),
            "its 1 program headers of 33 bytes at 0x34 do not fit",
        ),
        (
            patched(44, 200),
            "its 200 program headers of 32 bytes at 0x34 do not fit",
        ),
        (
            overlapping_elf.build(),
            "its segments at 00100000-001013eb and 001013eb-001013f4 overlap",
        ),
        (
            many.build(),
            "it has 41 loadable segments, and 32 are taken at most",
        ),
        (twice, "its segments have "),
        (
            cut,
            "truncated: its segment at 0x100000 has 0x64 bytes at 0x58 of the file, which has 0xbb",
        ),
    ] {
        let message = refusal(&file);
        let start = format!("malformed multiboot 1 kernel: {expected}");
        assert!(message.starts_with(&start), "{message}, not {expected}");
    }
}

#[test]
fn a_file_without_a_header_is_none_and_may_nearly_have_one() {
    let plain = TinyElf::new(MIB, &[1; 100]).build();
    assert!(Multiboot::parse(&plain).unwrap().is_none());
    assert_eq!(near_miss(&plain), None);
    assert_eq!(near_miss(b""), None);
    let with = |header: &[u8], at: usize| {
        let mut file = vec![0; at];
        file.extend(header);
        file.extend([0; 100]);
        file
    };
    let mut wrong = header_v1(0, &[]);
    wrong[8] ^= 1;
    for (file, expected) in [
        (
            with(&wrong, 8),
            "this is no multiboot 1 kernel, although the magic of its header is at 0x8: its checksum is wrong",
        ),
        (
            with(&header_v1(0, &[]), 9),
            "this is no multiboot 1 kernel, although the magic of its header is at 0x9: that is no multiple of 4",
        ),
        (
            with(&header_v2(0, &[]), 12),
            "this is no multiboot 2 kernel, although the magic of its header is at 0xc: that is no multiple of 8",
        ),
        (
            with(&header_v1(0, &[]), 8184),
            "this is no multiboot 1 kernel, although the magic of its header is at 0x1ff8: that is not within the first 8192 bytes",
        ),
        (
            with(&header_v2(0, &[]), 32_768),
            "this is no multiboot 2 kernel, although the magic of its header is at 0x8000: that is not within the first 32768 bytes",
        ),
    ] {
        assert!(Multiboot::parse(&file).unwrap().is_none(), "{expected}");
        assert_eq!(near_miss(&file).as_deref(), Some(expected));
    }
    // At the very end of the window it is one.
    assert!(Multiboot::parse(&with(&header_v1(0, &[]), 8180)).is_err());
}

#[test]
fn xen_is_known_by_what_it_says_of_maps() {
    let words = b"Xen version %d.%d%s\0Xen-e820\0Multiboot-e820\0";
    let mut bytes = header_v1(3, &[]);
    bytes.extend(words);
    assert!(parse(&TinyElf::new(MIB, &bytes).build()).asks_bios);
    bytes.truncate(bytes.len() - 4);
    assert!(!parse(&TinyElf::new(MIB, &bytes).build()).asks_bios);
}

/// Loads of which some share pages: gaps and sizes in bytes.
fn any_loads() -> impl Strategy<Value = (u64, Vec<(u64, usize, u64)>)> {
    let size = || prop_oneof![0..20_u64, 4000..4200_u64, 0..20_000_u64];
    let bytes = prop_oneof![Just(0_usize), 1..30_usize, 4000..9000_usize];
    let start = 0x10_0000..0x10_2000_u64;
    (start, prop::collection::vec((size(), bytes, size()), 1..6))
}

proptest! {
    /// Against memory as it would be, byte by byte.
    #[test]
    fn pieces_are_the_loads((start, gaps) in any_loads(), shift in prop_oneof![Just(0), 0..0x3000_u64, Just(0_u64.wrapping_sub(0x8_0000))]) {
        let contents: Vec<Vec<u8>> =
            gaps.iter().zip(1..).map(|((_, bytes, _), fill)| vec![fill; *bytes]).collect();
        let mut at = start;
        let mut loads = Vec::new();
        for ((gap, _, bss), bytes) in gaps.iter().zip(&contents) {
            at += gap;
            let size = bytes.len() as u64 + bss;
            if let Ok(range) = PhysRange::new(at, size) {
                loads.push(Load { range, bytes });
                at = range.end();
            }
        }
        let pieces = pieces(&loads, shift).unwrap();
        prop_assert!(pieces.len() <= loads.len());
        let mut end = 0;
        for piece in &pieces {
            prop_assert!(piece.mem.start() % PAGE_SIZE == 0 && piece.mem.end() % PAGE_SIZE == 0);
            prop_assert!(piece.mem.start() >= end && piece.bytes.len() as u64 <= piece.mem.size());
            end = piece.mem.end();
        }
        let byte = |address: u64| {
            let piece = pieces.iter().find(|piece| piece.mem.contains(address))?;
            let at = usize::try_from(address - piece.mem.start()).unwrap();
            Some(piece.bytes.get(at).copied().unwrap_or(0))
        };
        for load in &loads {
            for (offset, address) in (0_usize..).zip(load.range.start()..load.range.end()) {
                let expected = load.bytes.get(offset).copied().unwrap_or(0);
                prop_assert_eq!(byte(address.wrapping_add(shift)), Some(expected));
            }
        }
        // No page that no load is in.
        for page in pieces.iter().flat_map(|piece| (piece.mem.start()..piece.mem.end()).step_by(4096)) {
            let page = PhysRange::new(page.wrapping_sub(shift), 4096).unwrap();
            prop_assert!(loads.iter().any(|load| load.range.overlaps(page)));
        }
        let copied: usize = pieces.iter().filter_map(|piece| match &piece.bytes {
            Cow::Owned(bytes) => Some(bytes.len()),
            Cow::Borrowed(_) => None,
        }).sum();
        let given: usize = loads.iter().map(|load| load.bytes.len()).sum();
        prop_assert!(copied <= given + 2 * 4096 * loads.len());
    }

    /// Whatever is damaged, there is an answer, and what it says holds.
    #[test]
    fn damaged_files_never_panic(
        which in 0..4_usize,
        damage in prop::collection::vec((0..700_usize, any::<u8>()), 0..6),
        cut in prop::option::weighted(0.2, 0..1200_usize),
    ) {
        let mut elf = TinyElf::new(2 * MIB, &content(&header_v2(0, &xens_tags()), 0x400));
        elf.segments.push(Segment { paddr: 3 * MIB, bss: 77, bytes: vec![9; 100], high: 0 });
        let mut file = match which {
            0 => elf.build(),
            1 => { elf.bits = 64; elf.build() }
            2 => TinyElf::new(MIB, &content(&header_v1(7, &[]), 600)).build(),
            _ => flat(16, [0x10_0008, 0x10_0000, 0x10_0100, 0x10_0200, 0x10_0030], 0x200),
        };
        for (at, byte) in damage {
            let length = file.len();
            file[at % length] = byte;
        }
        if let Some(cut) = cut {
            file.truncate(cut);
        }
        let _ = near_miss(&file);
        if let Ok(Some(kernel)) = Multiboot::parse(&file) {
            prop_assert!(!kernel.loads.is_empty());
            prop_assert!(kernel.span.contains(kernel.entry) && kernel.span.end() <= FOUR_GIB);
            let mut end = kernel.span.start();
            for load in &kernel.loads {
                prop_assert!(load.range.start() >= end);
                prop_assert!(load.bytes.len() as u64 <= load.range.size());
                end = load.range.end();
            }
            prop_assert_eq!(end, kernel.span.end());
            prop_assert!(pieces(&kernel.loads, 0).is_some());
        }
    }
}
