//! Lines as the kernel takes them apart.

use super::*;
use proptest::prelude::*;

fn list<T: AsRef<[u8]> + ?Sized>(line: &T) -> Vec<&BStr> {
    words(line).collect()
}

#[test]
fn words_are_parted_as_the_kernel_parts_them() {
    for (line, expected) in [
        (&b" a  b\tc\x0bd\n"[..], &[&b"a"[..], b"b", b"c", b"d"][..]),
        (b"a=\"b c\nd\" e", &[b"a=\"b c\nd\"", b"e"]),
        (b"\"a b=c d\"e f", &[b"\"a b=c d\"e", b"f"]),
        (b"a=\"open b", &[b"a=\"open b"]),
        (
            b"root=LABEL=caf\xe9 \xff",
            &[b"root=LABEL=caf\xe9", b"\xff"],
        ),
        // isspace(0xa0) of lib/ctype.c.
        ("a\u{a0}b".as_bytes(), &[b"a\xc2", b"b"]),
        (b"\"a\xa0b\"", &[b"\"a\xa0b\""]),
        (b"", &[]),
        (b" \t", &[]),
    ] {
        assert_eq!(list(line), expected, "{:?}", line.as_bstr());
    }
}

#[test]
fn quotes_are_taken_away_as_the_kernel_does() {
    for (word, name, value) in [
        ("a", "a", None),
        ("a=", "a", Some("")),
        ("a=b=c", "a", Some("b=c")),
        ("a=\"b c\"", "a", Some("b c")),
        ("\"a=b c\"", "a", Some("b c")),
        ("\"a\"", "a", None),
        ("a=b\"", "a", Some("b\"")),
        ("a=\"b", "a", Some("b")),
        ("a=\"", "a", Some("")),
        ("=a", "=a", None),
        ("=a=b", "=a", Some("b")),
        ("\"", "", None),
    ] {
        let (seen, text) = parameter(word.into());
        assert_eq!((seen, text), (name.into(), value.map(BStr::new)), "{word}");
    }
    let (name, value) = parameter(b"x\xff=\xe9".as_bstr());
    assert_eq!((name, value), (b"x\xff".into(), Some(b"\xe9".into())));
}

#[test]
fn values_are_found_as_the_kernel_finds_them() {
    let line = "a pmpool=1,2 b=\"x pmpool=9,9\" pmpool=0x10,0x20 -- pmpool=7,7";
    assert_eq!(value(line, "pmpool"), Some("0x10,0x20".into()));
    assert_eq!(value("\"pmpool=1,2\"", "pmpool"), Some("1,2".into()));
    assert_eq!(value("xpmpool=1 pmpool", "pmpool"), None);
    assert!(has("quiet nokaslr", "nokaslr") && !has("-- nokaslr", "nokaslr"));
    let line = b"root=LABEL=caf\xe9 \xff quiet=\xfe";
    assert_eq!(value(line, "root"), Some(b"LABEL=caf\xe9".into()));
    assert_eq!(value(line, "quiet"), Some(b"\xfe".into()));
    assert_eq!(
        value("quiet\u{a0}crashkernel=1G", "crashkernel"),
        Some("1G".into())
    );
}

fn reduced(line: impl AsRef<[u8]>, unwanted: &[&str]) -> BString {
    without(line.as_ref().as_bstr(), |name, word| {
        unwanted
            .iter()
            .any(|given| *name == **given || *word == **given)
    })
}

#[test]
fn what_is_taken_out_leaves_every_byte_of_the_rest() {
    assert_eq!(
        reduced(b"a=1 root=\xe9\xff  b -- a=1", &["a"]),
        b"root=\xe9\xff b -- a=1".as_bstr()
    );
    assert_eq!(reduced("a \"b c=1\" d", &["b c"]), "a d");
    // The last byte of an à parts words to the kernel, and is a letter to init.
    let label = "quiet root=LABEL=\u{e0}mes\u{e0} ro";
    assert_eq!(reduced(label, &["quiet"]), "root=LABEL=\u{e0}mes\u{e0} ro");
    assert_eq!(reduced(label, &["ro"]), "quiet root=LABEL=\u{e0}mes\u{e0}");
    assert_eq!(reduced(label, &["root"]), "quiet ro");
    assert_eq!(reduced(label, &["root=LABEL=\u{e0}mes\u{e0}"]), "quiet ro");
    // A no-break space that was pasted parts parameters that the kernel obeys.
    let pasted = "quiet\u{a0}crashkernel=1G\u{a0}ro x";
    assert_eq!(
        reduced(pasted, &["crashkernel"]),
        b"quiet\xc2\xa0\xa0ro x".as_bstr()
    );
    assert_eq!(reduced("mem=1G", &["mem"]), "");
}

#[test]
fn the_line_is_cut_before_init() {
    let cut = |line: &'static [u8]| split_at_init(line.as_bstr());
    assert_eq!(cut(b"a\xff -- b"), (b"a\xff ".into(), "-- b".into()));
    assert_eq!(cut(b"a=\" -- \""), ("a=\" -- \"".into(), "".into()));
    assert_eq!(cut(b"--"), ("".into(), "--".into()));
}

#[test]
fn newlines_are_spaces_outside_of_quotes() {
    assert_eq!(bare_newline(b"a=\"\n\"\n"), Some(5));
    assert_eq!(bare_newline(b"a=\"\n\n"), None);
    assert_eq!(
        one_line(b"a=\"b\nc\"\nd\xe9\n"),
        b"a=\"b\nc\" d\xe9 ".as_bstr()
    );
}

#[test]
fn the_last_valid_truth_value_counts() {
    for on in [
        "kho=on",
        "kho=1",
        "kho=Y",
        "kho=true",
        "kho=off kho=on kho=maybe",
    ] {
        assert_eq!(truth(on, "kho"), Some(true), "{on}");
    }
    for off in ["kho=off", "kho=0", "kho=n", "kho=on kho=disabled"] {
        assert_eq!(truth(off, "kho"), Some(false), "{off}");
    }
    for neither in ["", "kho", "kho=", "kho=o", "kho=ox", "xkho=on", "-- kho=on"] {
        assert_eq!(truth(neither, "kho"), None, "{neither}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_taken_apart(line in prop::collection::vec(prop::sample::select(&b" \n\"=-a\xa0\xc3\xff\0"[..]), 0..40)) {
        for word in words(&line) {
            prop_assert!(!word.is_empty());
            let (name, value) = parameter(word);
            prop_assert!(name.len() + value.map_or(0, |value| value.len()) <= word.len());
        }
        // Nothing unwanted: nothing but white space changes, and what is gone is gone.
        let blanks = |byte: &u8| !is_blank(*byte);
        let same = without(line.as_bstr(), |_, _| false);
        if list(&same) == list(&line) {
            prop_assert_eq!(
                same.iter().copied().filter(blanks).collect::<Vec<_>>(),
                line.iter().copied().filter(blanks).collect::<Vec<_>>()
            );
        }
        prop_assert!(bare_newline(&one_line(&line)).is_none());
        let rest = without(line.as_bstr(), |name, _| *name == "a");
        prop_assert!(!has(&rest, "a") || is_quote_open(&line));
    }
}
