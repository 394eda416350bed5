//! What a UKI, its addons and the options make together.

use super::*;
use crate::cmdline::CmdlineRequest;
use crate::image::{Contents, open};
use crate::testing::bzimage::TinyBzImage;
use crate::testing::pe::TinyPe;
use bstr::BStr;

/// Files of addons.
fn addons() -> [Vec<u8>; 2] {
    let first = TinyPe::new([
        (".cmdline", &b"first"[..]),
        (".ucode", b"microcode 1"),
        (".dtb", b"tree 1"),
    ]);
    let second = TinyPe::new([
        (".uname", &b"6.12.0-tiny\n"[..]),
        (".cmdline", b"second\n"),
        (".ucode", b"microcode 2"),
        (".initrd", b"initrd 2"),
    ]);
    [first.build(), second.build()]
}

fn parts<'a>(
    request: &LoadRequest,
    contents: &'a Contents<'_>,
    addons: &'a [Vec<u8>],
) -> Result<Merged<'a>, MergeError> {
    let found = open(contents, None).unwrap();
    let addons = addons.iter().map(|file| Addon::parse(file).unwrap());
    let addons: Vec<_> = addons.collect();
    Merged::of(request, &found, &addons, &[b"given"])
}

fn line<'a>(parts: &'a Merged<'_>) -> Option<&'a BStr> {
    match &parts.request.cmdline.base {
        CmdlineBase::Given(line) => Some(line.as_ref()),
        _ => None,
    }
}

fn wanting(base: CmdlineBase) -> LoadRequest {
    LoadRequest {
        cmdline: CmdlineRequest {
            base,
            ..CmdlineRequest::default()
        },
        ..LoadRequest::default()
    }
}

#[test]
fn a_kernel_alone_changes_nothing() {
    let file = TinyBzImage::new(0x1000).build();
    let contents = Contents::of(&file).unwrap();
    let parts = parts(&LoadRequest::default(), &contents, &[]).unwrap();
    assert_eq!(parts.initrds, [b"given"]);
    assert_eq!((line(&parts), parts.warnings.len()), (None, 0));
    let addons = addons();
    let error = self::parts(&LoadRequest::default(), &contents, &addons).unwrap_err();
    assert!(matches!(error, MergeError::NoUki));
}

#[test]
fn a_uki_brings_its_parts() {
    let file = TinyPe::uki().build();
    let contents = Contents::of(&file).unwrap();
    let parts = parts(&LoadRequest::default(), &contents, &[]).unwrap();
    let expected: [&[u8]; 3] = [b"070701 microcode", b"070701 an initrd", b"given"];
    assert_eq!(parts.initrds, expected);
    assert_eq!(line(&parts), Some("root=LABEL=x  quiet".into()));
    let dtb = parts.request.handover.uki_dtb.as_deref();
    assert_eq!(dtb, Some(&b"\xd0\x0d\xfe\xed"[..]));
    assert_eq!(parts.warnings, [""; 0]);
}

#[test]
fn addons_are_put_where_systemd_puts_them() {
    let (file, addons) = (TinyPe::uki().build(), addons());
    let contents = Contents::of(&file).unwrap();
    let parts = parts(&LoadRequest::default(), &contents, &addons).unwrap();
    let expected: [&[u8]; 6] = [
        b"microcode 2",
        b"microcode 1",
        b"070701 microcode",
        b"070701 an initrd",
        b"initrd 2",
        b"given",
    ];
    assert_eq!(parts.initrds, expected);
    assert_eq!(
        line(&parts),
        Some("root=LABEL=x  quiet first second".into())
    );
    let dtb = parts.request.handover.uki_dtb.as_deref();
    assert_eq!(dtb, Some(&b"tree 1"[..]));

    let other = TinyPe::uki()
        .without(".uname")
        .with(".uname", b"6.1")
        .build();
    let contents = Contents::of(&other).unwrap();
    let error = self::parts(&LoadRequest::default(), &contents, &addons).unwrap_err();
    let message = "an addon is made for the kernel 6.12.0-tiny, and the UKI has 6.1";
    assert_eq!(error.to_string(), message);

    // As text they would be the same name.
    let uki = TinyPe::uki().without(".uname").with(".uname", b"k\xe9");
    let uki = uki.build();
    let contents = Contents::of(&uki).unwrap();
    let addon = TinyPe::new([(".uname", &b"k\xea"[..]), (".cmdline", b"x")]).build();
    let error = self::parts(&LoadRequest::default(), &contents, &[addon]).unwrap_err();
    let message = "an addon is made for the kernel k\\xea, and the UKI has k\\xe9";
    assert_eq!(error.to_string(), message);
}

#[test]
fn options_go_before_the_uki_and_it_is_said() {
    let file = TinyPe::uki().build();
    let contents = Contents::of(&file).unwrap();
    for base in [
        CmdlineBase::Running,
        CmdlineBase::Given("mine".into()),
        CmdlineBase::Given("".into()),
    ] {
        let parts = parts(&wanting(base.clone()), &contents, &[]).unwrap();
        assert_eq!(parts.request.cmdline.base, base);
        let warning = "the UKI's own command line is not used: root=LABEL=x  quiet";
        assert_eq!(parts.warnings, [warning]);
    }
    // Those of addons are added to a line that was given, before --append.
    let addons = addons();
    let mut request = wanting(CmdlineBase::Given("mine".into()));
    request.cmdline.append = vec!["last".into()];
    let with_addons = self::parts(&request, &contents, &addons).unwrap();
    assert_eq!(line(&with_addons), Some("mine".into()));
    assert_eq!(
        with_addons.request.cmdline.append,
        ["first", "second", "last"]
    );
    let warning = "the UKI's own command line is not used: root=LABEL=x  quiet";
    assert_eq!(with_addons.warnings, [warning]);
    // The running one may be made of them.
    let running = self::parts(&wanting(CmdlineBase::Running), &contents, &addons).unwrap();
    assert_eq!(running.request.cmdline.append, [""; 0]);
    assert_eq!(running.warnings, [format!("{warning} first second")]);

    let mut request = LoadRequest::default();
    request.handover.dtb = Some(b"mine".to_vec());
    let parts = parts(&request, &contents, &[]).unwrap();
    assert_eq!(parts.request.handover.uki_dtb, None);
    let warning = "the UKI's own device tree is not used";
    assert_eq!(parts.warnings, [warning]);

    // Nothing is lost where the UKI says nothing.
    let file = TinyPe::uki().without(".cmdline").build();
    let contents = Contents::of(&file).unwrap();
    let parts = self::parts(&wanting(CmdlineBase::Running), &contents, &[]).unwrap();
    assert_eq!(parts.warnings, [""; 0]);
    // A crash kernel gets no device tree.
    let request = LoadRequest {
        target: Target::Crash,
        ..LoadRequest::default()
    };
    let parts = self::parts(&request, &contents, &[]).unwrap();
    assert_eq!(parts.request.handover.uki_dtb, None);
}

#[test]
fn a_signature_that_is_lost_is_named() {
    let lost = |pe: &TinyPe, syscall| {
        let file = pe.build();
        let contents = Contents::of(&file).unwrap();
        lost_signature(&open(&contents, None).unwrap(), syscall)
    };
    let mut pe = TinyPe::uki();
    assert_eq!(lost(&pe, Syscall::KexecLoad), None);
    assert_eq!(lost(&pe, Syscall::KexecFileLoad), None);
    pe.signature = 1472;
    let begins = "the signature of the UKI covers the file as a whole, and the parts are loaded: ";
    for (syscall, end) in [
        (Syscall::KexecLoad, "kexec_load looks at no signature"),
        (
            Syscall::KexecFileLoad,
            "the kernel inside has no signature of its own",
        ),
    ] {
        assert_eq!(lost(&pe, syscall), Some(format!("{begins}{end}")));
    }
}
