//! Relocation lists behind tiny kernels: good, cut, and pointing elsewhere.

use proptest::prelude::*;

use super::*;
use crate::image::vmlinux;
use crate::testing::elf::{Load, START_KERNEL_MAP as MAP, TinyElf, relocations};

/// The tiny kernel with `behind` behind it.
fn file(behind: &[u8]) -> Vec<u8> {
    [TinyElf::vmlinux().build(), behind.to_vec()].concat()
}

fn find(file: &[u8]) -> Result<Option<Relocations>, RelocationError> {
    let outline = vmlinux::outline(file).unwrap().unwrap();
    Relocations::find(file, &outline)
}

/// Where `place`, bytes from the kernel's start, is in `file`.
fn at(file: &[u8], place: u64) -> usize {
    let outline = vmlinux::outline(file).unwrap().unwrap();
    let mut loads = outline.loads.iter().rev();
    let (start, range) = loads.find(|(start, _)| *start <= place).unwrap();
    range.start + usize::try_from(place - start).unwrap()
}

#[test]
fn each_list_changes_its_values_and_nothing_else() {
    let lists = relocations(&[0x1000, 0x20_0010], Some(&[0x20_3008]), &[0x20, 0x20_6000]);
    let mut changed = file(&lists);
    let mut value = |place: u64, bytes: &[u8]| {
        let at = at(&changed, place);
        changed[at..at + bytes.len()].copy_from_slice(bytes);
    };
    value(0x1000, &(MAP + 0x100_2000).to_le_bytes());
    value(0x20_0010, &u64::MAX.to_le_bytes());
    value(0x20_3008, &0x1000_u32.to_le_bytes());
    value(0x20, &0x8100_0000_u32.to_le_bytes());
    value(0x20_6000, &u32::MAX.to_le_bytes());
    let before = changed.clone();

    let delta = 0x3e00_0000;
    find(&before).unwrap().unwrap().apply(&mut changed, delta);
    let wide = |place| u64::from_le_bytes(*changed[at(&changed, place)..].first_chunk().unwrap());
    let narrow = |place| u32::from_le_bytes(*changed[at(&changed, place)..].first_chunk().unwrap());
    assert_eq!(wide(0x1000), MAP + 0x100_2000 + delta);
    assert_eq!(wide(0x20_0010), delta - 1, "it wraps around");
    assert_eq!(narrow(0x20_3008), 0x1000_u32.wrapping_sub(0x3e00_0000));
    assert_eq!(narrow(0x20), 0xbf00_0000);
    assert_eq!(narrow(0x20_6000), 0x3dff_ffff);
    // Lying somewhere else in between, other bytes are as they were.
    let places = [
        (0x1000, 8),
        (0x20_0010, 8),
        (0x20_3008, 4),
        (0x20, 4),
        (0x20_6000, 4),
    ];
    let mut restored = changed.clone();
    for (place, size) in places {
        let at = at(&before, place);
        restored[at..at + size].copy_from_slice(&before[at..at + size]);
    }
    assert!(restored == before);
}

#[test]
fn two_lists_have_no_inverse_one() {
    let mut changed = file(&relocations(&[], None, &[0x20]));
    let there = at(&changed, 0x20);
    changed[there..there + 4].copy_from_slice(&7_u32.to_le_bytes());
    let found = find(&changed).unwrap().unwrap();
    found.apply(&mut changed, 0x20_0000);
    assert_eq!(changed[there..there + 4], 0x20_0007_u32.to_le_bytes());
}

#[test]
fn nothing_behind_the_elf_file_is_no_list() {
    assert!(find(&file(b"")).unwrap().is_none());
}

/// Sections lie behind what is loaded: the lists begin behind the table of sections.
#[test]
fn sections_belong_to_the_elf_file() {
    let mut elf = TinyElf::vmlinux().build();
    let (contents, names) = (elf.len() as u64, 24_u64);
    elf.extend([0xaa; 24]);
    let table = elf.len() as u64;
    let mut section = [0_u8; 64];
    section[4] = 1; // SHT_PROGBITS
    section[24..32].copy_from_slice(&contents.to_le_bytes());
    section[32..40].copy_from_slice(&names.to_le_bytes());
    elf.extend(section);
    elf[40..48].copy_from_slice(&table.to_le_bytes());
    elf[58..60].copy_from_slice(&64_u16.to_le_bytes());
    elf[60..62].copy_from_slice(&1_u16.to_le_bytes());
    assert!(find(&elf).unwrap().is_none());
    elf.extend(relocations(&[], None, &[0x20]));
    assert!(find(&elf).unwrap().is_some());
    // A section that ends behind the file would hide them, and so would a table there.
    let mut large = elf.clone();
    let size = usize::try_from(table).unwrap() + 32;
    large[size..size + 8].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    elf[40..48].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    for file in [large, elf] {
        assert_eq!(find(&file).unwrap_err(), RelocationError::NoEnd);
    }
}

#[track_caller]
fn fails(behind: &[u8], error: &RelocationError, text: &str) {
    let found = find(&file(behind)).err();
    assert_eq!(found.as_ref(), Some(error));
    assert_eq!(found.unwrap().to_string(), text);
}

#[test]
fn what_is_no_row_of_lists_is_named() {
    fails(
        b"\0\0\0\0\0",
        &RelocationError::OddSize(5),
        "5 bytes behind the kernel are no row of 32-bit words",
    );
    fails(
        b"sign",
        &RelocationError::NoBegin(0x6e67_6973),
        "the relocation lists begin with 0x6e676973, and not with a zero",
    );
    for (behind, count) in [
        (vec![0; 4], 1),
        (relocations(&[], Some(&[]), &[0x20])[..4].to_vec(), 1),
        ([relocations(&[], Some(&[]), &[]), vec![0; 400]].concat(), 5),
    ] {
        let error = find(&file(&behind)).unwrap_err();
        assert_eq!(error, RelocationError::Count(count));
    }
}

#[test]
fn a_place_outside_of_what_is_loaded_is_named() {
    // Behind the last byte of a load, in a gap, and below the kernel.
    for (list, lists) in [
        ("64-bit", relocations(&[0x2ff9], None, &[])),
        ("inverse", relocations(&[], Some(&[0x3000]), &[])),
        ("32-bit", relocations(&[], None, &[0x20_6231])),
        ("32-bit", relocations(&[], None, &[0xffff_ffff_ffff_f000])),
    ] {
        let error = find(&file(&lists)).unwrap_err();
        assert!(
            matches!(error, RelocationError::Outside { list: named, number: 0, .. } if named == list),
            "{error}"
        );
    }
    let error = find(&file(&relocations(&[], None, &[0x20, 0x3000]))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "word 0x81003000 of the 32-bit relocation list (number 1 of it) lies outside of the kernel"
    );
}

proptest! {
    /// Relocating there and back is nothing, wherever the places are.
    #[test]
    fn there_and_back(
        wide in proptest::collection::vec(0_u64..0x5ff, 0..20),
        narrow in proptest::collection::vec(0_u64..0x7ff, 0..20),
        inverse in proptest::option::of(proptest::collection::vec(0_u64..0x5ff, 0..20)),
        steps in 0_u64..500,
    ) {
        // Values of Linux do not overlap.
        let wide: Vec<u64> = wide.iter().map(|at| at * 8).collect();
        let narrow: Vec<u64> = narrow.iter().map(|at| 0x20_0000 + at * 4).collect();
        let inverse: Option<Vec<u64>> =
            inverse.map(|list| list.iter().map(|at| 0x20_3000 + at * 4).collect());
        let before = file(&relocations(&wide, inverse.as_deref(), &narrow));
        let found = find(&before).unwrap().unwrap();
        let mut changed = before.clone();
        found.apply(&mut changed, steps << 21);
        found.apply(&mut changed, (steps << 21).wrapping_neg());
        prop_assert!(changed == before);
    }
}

/// A load without bytes in the file takes no place.
#[test]
fn memory_without_bytes_has_no_values() {
    let mut elf = TinyElf::vmlinux();
    elf.loads.insert(0, Load::new(0x40_0000, 0x1000, &[]));
    let file = [elf.build(), relocations(&[], None, &[0x40_0000])].concat();
    assert!(matches!(find(&file), Err(RelocationError::Outside { .. })));
}
