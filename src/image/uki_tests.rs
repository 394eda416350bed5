//! UKIs, good and bad.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::image::linux::Format;
use crate::image::{Contents, Found, open};
use crate::testing::bzimage::{TinyBzImage, field};
use crate::testing::elf::TinyElf;
use crate::testing::pe::{ENTRY, PE_HEADER, TABLE, TinyPe};

fn uki(file: &[u8]) -> Uki<'_> {
    Uki::parse(file).unwrap().unwrap()
}

/// Two profiles of a UKI with its own parts; the second one has an initrd of its
/// own, twice, and no command line.
fn with_profiles() -> TinyPe {
    TinyPe::uki()
        .with(".profile", b"ID=main\nTITLE=\"The usual\"\n")
        .with(".cmdline", b"main")
        .with(".profile", b"TITLE=Rescue\nID=rescue\n\0")
        .with(".initrd", b"rescue")
        .with(".initrd", b"twice")
        .with(".cmdline", b"")
}

#[test]
fn a_good_image() {
    let file = TinyPe::uki().build();
    let contents = Contents::of(&file).unwrap();
    let Found { image, uki } = open(&contents, None).unwrap();
    let (Image::Linux(kernel), Some(uki)) = (image, uki) else {
        panic!("no UKI");
    };
    assert_eq!(kernel.format, Format::BzImage);
    assert_eq!(kernel.format_name(), "UKI of bzImage");
    assert_eq!(kernel.release(), Some("6.12.0-tiny"));
    assert_eq!(kernel.file, TinyBzImage::new(0x2000).build());
    assert_eq!(uki.cmdline().unwrap(), "root=LABEL=x  quiet");
    let initrds: [&[u8]; 2] = [b"070701 microcode", b"070701 an initrd"];
    assert_eq!(uki.initrds(), initrds);
    assert_eq!(uki.dtb(), Some(&b"\xd0\x0d\xfe\xed"[..]));
    assert_eq!(uki.chosen, None);
    assert_eq!(uki.is_signed(), Some(false));
    let names: Vec<_> = uki
        .sections
        .iter()
        .map(|s| (&*s.name, s.text().map(|text| text.to_str().unwrap())))
        .collect();
    let expected = [
        (".text", None),
        (".osrel", Some("ID=debian\nPRETTY_NAME=\"Debian\"")),
        (".cmdline", Some("root=LABEL=x  quiet")),
        (".uname", Some("6.12.0-tiny")),
        (".linux", None),
        (".initrd", None),
        (".ucode", None),
        (".dtb", None),
    ];
    assert_eq!(names, expected);
    // Sections are parts of the file, not copies.
    let range = file.as_ptr_range();
    assert!(
        uki.sections
            .iter()
            .all(|s| range.contains(&s.bytes.as_ptr()))
    );
}

#[test]
fn a_signature_is_seen() {
    let mut pe = TinyPe::uki();
    pe.signature = 1472;
    assert_eq!(uki(&pe.build()).is_signed(), Some(true));
}

/// A kernel in the section `.linux` that says to be signed behind its own end, with
/// `padding` behind the signature.
fn with_signed_kernel(padding: &[u8]) -> (Vec<u8>, Vec<u8>) {
    const SIGNATURE: [u8; 64] = [0x30; 64];
    let mut kernel = TinyBzImage::new(0x2000).build();
    let end = u32::try_from(kernel.len()).unwrap();
    let mut put = |at: usize, bytes: &[u8]| kernel[at..at + bytes.len()].copy_from_slice(bytes);
    // A PE header in the setup sectors, in front of the setup header.
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0\x64\x86");
    put(0x54, &160_u16.to_le_bytes());
    put(0x58, &0x20b_u16.to_le_bytes());
    put(0x58 + 108, &6_u32.to_le_bytes());
    put(0x58 + 112 + 4 * 8, &end.to_le_bytes());
    put(0x58 + 112 + 4 * 8 + 4, &64_u32.to_le_bytes());
    kernel.extend(SIGNATURE);
    let section = [&kernel, padding].concat();
    (
        TinyPe::uki()
            .without(".linux")
            .with(".linux", &section)
            .build(),
        kernel,
    )
}

#[test]
fn what_lies_behind_a_signature_is_not_the_kernels() {
    // syssize and the certificate table say where it ends.
    for padding in [&[][..], &[0; 128], b"\0more"] {
        let (file, kernel) = with_signed_kernel(padding);
        assert_eq!(is_signed(&kernel), Some(true));
        assert_eq!(uki(&file).kernel().unwrap().file, kernel);
    }
}

#[test]
fn sections_that_overlap() {
    let mut file = TinyPe::uki()
        .with(".a", &[7; 0x1000])
        .with(".b", &[7; 0x1000])
        .build();
    assert!(Uki::parse(&file).is_ok());
    // Both begin where the first one does, and have all that follows.
    let entry = |index: usize| TABLE + index * ENTRY;
    let start = file[entry(8) + 20..entry(8) + 24].to_vec();
    let first = file[entry(0) + 20..entry(0) + 24].to_vec();
    assert_ne!(start, first);
    let all =
        u32::try_from(file.len()).unwrap() - u32::from_le_bytes(first.clone().try_into().unwrap());
    for index in [8, 9] {
        file[entry(index) + 8..entry(index) + 12].copy_from_slice(&all.to_le_bytes());
        file[entry(index) + 16..entry(index) + 20].copy_from_slice(&all.to_le_bytes());
        file[entry(index) + 20..entry(index) + 24].copy_from_slice(&first);
    }
    let error = Uki::parse(&file).unwrap_err().to_string();
    assert!(error.contains("its sections overlap"), "{error}");
}

#[test]
fn what_a_terminal_would_obey_is_not_in_names() {
    let profile = b"ID=\x1b]0;x\x07\nTITLE=caf\xe9\n";
    let file = TinyPe::uki().with(".profile", profile).build();
    let uki = uki(&file);
    assert_eq!(uki.profiles[0].id.as_deref(), Some("\\x1b]0;x\\x07"));
    assert_eq!(uki.profiles[0].title.as_deref(), Some("caf\\xe9"));
}

#[test]
fn the_first_profile_is_taken_and_others_by_id_or_number() {
    let file = with_profiles().build();
    let uki = uki(&file);
    let profile = |id: &str, title: &str| Profile {
        id: Some(id.to_owned()),
        title: Some(title.to_owned()),
    };
    let expected = [profile("main", "The usual"), profile("rescue", "Rescue")];
    assert_eq!(uki.profiles, expected);
    assert_eq!(uki.chosen, Some(0));
    let facts = |uki: &Uki<'_>| {
        let initrd = uki.initrds().pop().map(<[u8]>::to_vec);
        (uki.cmdline(), initrd.unwrap(), uki.kernel().is_ok())
    };
    let main = (Some("main".into()), b"070701 an initrd".to_vec(), true);
    assert_eq!(facts(&uki), main);
    for wish in ["main", "0", "@0"] {
        assert_eq!(facts(&uki.clone().choose(wish).unwrap()), main, "{wish}");
    }
    // The first of two sections counts, and an empty one is none.
    for wish in ["rescue", "1", "@1"] {
        let rescue = uki.clone().choose(wish).unwrap();
        assert_eq!(facts(&rescue), (None, b"rescue".to_vec(), true), "{wish}");
    }
    for wish in ["2", "@", "Rescue", "-1", "", "99999999999999999999"] {
        let error = uki.clone().choose(wish).unwrap_err().to_string();
        let there = "it has 0 (main), 1 (rescue)";
        assert_eq!(error, format!("no profile {wish}: {there}"));
    }
    let plain = TinyPe::uki().build();
    let error = self::uki(&plain).choose("0").unwrap_err().to_string();
    assert_eq!(error, "no profile 0: it has no profiles");
    let contents = Contents::of(&plain[..]).unwrap();
    assert!(open(&contents, Some("0")).is_err());
    let bzimage = TinyBzImage::new(0x1000).build();
    let error = open(&Contents::of(&bzimage).unwrap(), Some("0")).unwrap_err();
    assert_eq!(error.to_string(), "no profile 0: only a UKI has profiles");
}

#[test]
fn a_vmlinux_and_a_kernel_of_a_profile_are_taken_as_well() {
    let vmlinux = TinyElf::vmlinux().build();
    let file = with_profiles().with(".linux", &vmlinux).build();
    let base = uki(&file);
    assert_eq!(base.kernel().unwrap().format, Format::BzImage);
    let rescue = base.choose("rescue").unwrap();
    assert_eq!(rescue.kernel().unwrap().format, Format::Vmlinux);
}

#[test]
fn sizes_of_sections_are_the_smaller_of_both() {
    let mut file = TinyPe::uki().build();
    let entry = TABLE + 5 * ENTRY;
    assert_eq!(&file[entry..entry + 7], b".initrd");
    // More in memory than in the file.
    file[entry + 8..entry + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(uki(&file).initrds()[1].len(), 0x200);
    // Less in the file than in memory; and nothing in the file.
    file[entry + 16..entry + 20].copy_from_slice(&3_u32.to_le_bytes());
    assert_eq!(uki(&file).initrds()[1], b"070");
    file[entry + 16..entry + 24].fill(0);
    assert_eq!(uki(&file).initrds().len(), 1);
}

#[track_caller]
fn refused(file: &[u8]) -> String {
    open(&Contents::of(file).unwrap(), None)
        .unwrap_err()
        .to_string()
}

#[test]
fn bad_ones_are_named() {
    let mut arm64 = TinyPe::uki();
    arm64.machine = 0xaa64;
    let message = "a UKI or addon for arm64: this program loads x86_64 kernels";
    assert_eq!(refused(&arm64.build()), message);

    let good = TinyPe::uki().build();
    let entry = TABLE + 5 * ENTRY;
    let mut outside = good.clone();
    outside[entry + 20..entry + 24].copy_from_slice(&0xffff_ff00_u32.to_le_bytes());
    let end = format!("lies outside the file's {:#x} bytes", good.len());
    assert_eq!(
        refused(&outside),
        format!("malformed UKI: section .initrd (0x10 bytes at 0xffffff00) {end}")
    );
    let mut many = good.clone();
    many[PE_HEADER + 6..PE_HEADER + 8].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(
        refused(&many),
        "malformed UKI: 65535 sections, more than 1024"
    );
    many[PE_HEADER + 6..PE_HEADER + 8].copy_from_slice(&[0, 4]);
    assert_eq!(
        refused(&many),
        "malformed UKI: truncated: the table of its 1024 sections is not all there"
    );

    let no_kernel = TinyPe::uki().without(".linux");
    assert!(refused(&no_kernel.build()).contains("no section .linux"));
    let in_another_profile = no_kernel
        .clone()
        .with(".profile", b"ID=a")
        .with(".profile", b"ID=b")
        .with(".linux", &TinyBzImage::new(0x1000).build());
    assert_eq!(
        refused(&in_another_profile.build()),
        "malformed UKI: the chosen profile has no section .linux"
    );
    let inside = "in the section .linux of the UKI: ";
    for (linux, message) in [
        (
            b"070701".to_vec(),
            "not a kernel image: this is a cpio archive (an initrd?)",
        ),
        (
            TinyBzImage::new(0x1000).u16(field::BOOT_FLAG, 0).build(),
            "malformed bzImage: boot_flag is 0x0000, not 0xaa55",
        ),
        (good.clone(), "not a kernel image: this is a UKI for x86_64"),
    ] {
        let file = no_kernel.clone().with(".linux", &linux).build();
        assert_eq!(refused(&file), format!("{inside}{message}"));
    }
}

#[test]
fn command_lines_have_no_control_characters_of_ascii() {
    for (bytes, line) in [
        (&b"  a\tb\nc \n\n"[..], &b"a b c"[..]),
        (b"a\0b", b"a"),
        (b"\n", b""),
        (b"a=\"x  y\"\r\n", b"a=\"x  y\""),
        (b"a=\xe9\tb=\xff\0\xfe", b"a=\xe9 b=\xff"),
        ("a\u{9b}b".as_bytes(), "a\u{9b}b".as_bytes()),
    ] {
        let file = TinyPe::uki().without(".cmdline").with(".cmdline", bytes);
        let file = file.build();
        assert_eq!(uki(&file).cmdline().unwrap(), line);
    }
    let file = TinyPe::uki().without(".cmdline").build();
    assert_eq!(uki(&file).cmdline(), None);
}

#[test]
fn addons_have_parts_and_no_kernel() {
    let file = TinyPe::new([(".cmdline", &b"extra=1\n"[..]), (".ucode", b"u")]).build();
    let addon = Addon::parse(&file).unwrap();
    assert_eq!(addon.parts().cmdline().unwrap(), "extra=1");
    assert_eq!(addon.parts().initrds(), [b"u"]);
    let refused = |file: &[u8]| Addon::parse(file).unwrap_err().to_string();
    assert_eq!(
        refused(&TinyPe::uki().build()),
        "this is no addon for a UKI: it has a kernel (.linux) of its own"
    );
    assert!(refused(&TinyPe::new([(".text", &b"x"[..])]).build()).contains("it has none of"));
    assert!(refused(b"text").contains("it is no PE file"));
}

#[test]
fn what_is_packed_is_unpacked() {
    let plain = TinyPe::uki().build();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packer, &plain).unwrap();
    let file = packer.finish().unwrap();
    let contents = Contents::of(&file).unwrap();
    let found = open(&contents, None).unwrap();
    let kernel = found.image.linux().unwrap();
    assert_eq!(kernel.format_name(), "gzip of UKI of bzImage");
    assert_eq!(found.uki.unwrap().initrds().len(), 2);
    let error = Contents::of(&file[..file.len() - 9])
        .unwrap_err()
        .to_string();
    assert_eq!(error, "malformed gzip data: truncated");
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut packer, b"070701").unwrap();
    assert_eq!(
        refused(&packer.finish().unwrap()),
        "in the gzip data: not a kernel image: this is a cpio archive (an initrd?)"
    );
    assert_eq!(
        Contents::of(b"\x89LZO\0").unwrap_err().to_string(),
        "lzo not supported"
    );
}

/// Whatever is accepted lies in the file.
fn check(file: &[u8]) -> Result<(), TestCaseError> {
    let parsed = [
        Uki::parse(file),
        Addon::parse(file).map(|addon| Some(addon.0)),
    ];
    for uki in parsed.into_iter().flat_map(|uki| uki.ok().flatten()) {
        let range = file.as_ptr_range();
        for section in &uki.sections {
            let inside = section.bytes.as_ptr_range();
            prop_assert!(section.bytes.is_empty() || range.start <= inside.start);
            prop_assert!(section.bytes.is_empty() || inside.end <= range.end);
            let _ = section.text();
        }
        prop_assert_eq!(uki.chosen.is_some(), !uki.profiles.is_empty());
        for number in 0..uki.profiles.len() {
            let uki = uki.clone().choose(&format!("@{number}"))?;
            let _ = (uki.cmdline(), uki.initrds(), uki.dtb(), uki.is_signed());
            let _ = uki.kernel();
        }
    }
    let _ = open(&Contents::of(file)?, None);
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_behind_the_magic(rest in vec(any::<u8>(), 0x3e..1024)) {
        check(&[b"MZ", &rest[..]].concat())?;
    }

    #[test]
    fn mutated_headers(
        mutations in vec((0..TABLE + 14 * ENTRY, any::<u8>()), 1..6),
        cut in prop_oneof![3 => Just(usize::MAX), 1 => 0..0x6000_usize],
    ) {
        let mut file = with_profiles().build();
        for (at, byte) in mutations {
            file[at] = byte;
        }
        file.truncate(cut);
        check(&file)?;
    }

    #[test]
    fn mutated_numbers(section in 0..14_usize, field in 0..4_usize, value in prop_oneof![
        any::<u32>(), Just(0), Just(u32::MAX), 0..0x8000_u32,
    ]) {
        let mut file = with_profiles().build();
        let at = TABLE + section * ENTRY + 8 + field * 4;
        file[at..at + 4].copy_from_slice(&value.to_le_bytes());
        check(&file)?;
    }
}
