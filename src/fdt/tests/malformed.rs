//! Blobs that are refused, each with its own message.

use super::blob::{self, Blob, with_field};
use super::{MACHINE, MACHINE_V16};
use crate::fdt::{DeviceTree, MAX_LEVELS, TreeError};

#[track_caller]
fn refused(blob: &[u8], message: &str) {
    let error = DeviceTree::read(blob).unwrap_err();
    assert_eq!(error.to_string(), message);
}

/// A blob whose structure block has what is wrong at `offset`.
#[track_caller]
fn bad_structure(blob: &Blob, offset: usize, why: &str) {
    let message = format!("the device tree's structure block is malformed at {offset:#x}: {why}");
    refused(&blob.build(), &message);
}

/// `/ { };`, 16 bytes of structure at 56, no strings.
fn small() -> Vec<u8> {
    Blob::new().begin("").end().finish().build()
}

#[test]
fn cut_off_anywhere() {
    for blob in [MACHINE, MACHINE_V16] {
        for length in 0..blob.len() {
            let need = if length < 36 { 40 } else { blob.len() as u64 };
            let error = DeviceTree::read(&blob[..length]).unwrap_err();
            match error {
                TreeError::Truncated { have, need: wanted } => {
                    assert_eq!((have, wanted >= need.min(36)), (length, true));
                }
                other => panic!("cut at {length}: {other}"),
            }
        }
    }
    refused(&[], "the device tree blob is cut off: 0 bytes of 40");
    refused(
        &MACHINE[..100],
        "the device tree blob is cut off: 100 bytes of 1068",
    );
}

#[test]
fn structure_cut_off_anywhere() {
    let blob = MACHINE.to_vec();
    for size in 0..blob::field(&blob, blob::SIZE_STRUCTURE) {
        let cut = with_field(blob.clone(), blob::SIZE_STRUCTURE, size);
        let error = DeviceTree::read(&cut).unwrap_err();
        assert!(
            matches!(error, TreeError::Structure { .. }),
            "{size}: {error}"
        );
    }
}

#[test]
fn headers() {
    refused(
        &with_field(small(), blob::MAGIC, 0xd00d_beef),
        "not a device tree blob: it starts with 0xd00dbeef instead of 0xd00dfeed",
    );
    for (version, last) in [(3, 1), (15, 2), (18, 18), (16, 17), (17, 18)] {
        let blob = with_field(small(), blob::VERSION, version);
        refused(
            &with_field(blob, blob::LAST_COMPATIBLE, last),
            &format!(
                "the device tree blob has version {version} (compatible down to {last}); \
                 16 and 17 are supported"
            ),
        );
    }
    refused(
        &with_field(small(), blob::TOTAL_SIZE, 0x20_0001),
        "the device tree blob says it has 0x200001 bytes; more than 0x200000 is not read",
    );
    refused(
        &with_field(small(), blob::TOTAL_SIZE, 36),
        "the device tree blob is cut off: 36 bytes of 40",
    );
    refused(
        &with_field(small(), blob::TOTAL_SIZE, 73),
        "the device tree blob is cut off: 72 bytes of 73",
    );
}

#[test]
fn blocks_outside() {
    let structure = "the structure block of the device tree blob, 0x10 bytes";
    let strings = "the strings block of the device tree blob, 0x0 bytes";
    for (field, value, message) in [
        (
            blob::OFF_STRUCTURE,
            0,
            format!("{structure} at 0x0, overlaps the header"),
        ),
        (
            blob::OFF_STRUCTURE,
            39,
            format!("{structure} at 0x27, overlaps the header"),
        ),
        (
            blob::OFF_STRUCTURE,
            58,
            format!("{structure} at 0x3a, is not aligned"),
        ),
        (
            blob::OFF_STRUCTURE,
            60,
            format!("{structure} at 0x3c, is not inside the blob"),
        ),
        (
            blob::OFF_STRUCTURE,
            0xffff_fffc,
            format!("{structure} at 0xfffffffc, is not inside the blob"),
        ),
        (
            blob::SIZE_STRUCTURE,
            u32::MAX,
            "the structure block of the device tree blob, 0xffffffff bytes at 0x38, \
             is not inside the blob"
                .to_owned(),
        ),
        (
            blob::OFF_STRINGS,
            8,
            format!("{strings} at 0x8, overlaps the header"),
        ),
        (
            blob::OFF_STRINGS,
            73,
            format!("{strings} at 0x49, is not inside the blob"),
        ),
        (
            blob::SIZE_STRINGS,
            1,
            "the strings block of the device tree blob, 0x1 bytes at 0x48, \
             is not inside the blob"
                .to_owned(),
        ),
    ] {
        refused(&with_field(small(), field, value), &message);
    }
}

#[test]
fn reservations_outside() {
    for (value, what) in [
        (44, "0x1c bytes at 0x2c, is not aligned"),
        (32, "0x28 bytes at 0x20, overlaps the header"),
        (64, "0x8 bytes at 0x40, has no end"),
        (1 << 31, "0x0 bytes at 0x80000000, is not inside the blob"),
    ] {
        let message = format!("the memory reservation block of the device tree blob, {what}");
        refused(
            &with_field(small(), blob::OFF_RESERVATIONS, value),
            &message,
        );
    }
}

#[test]
fn tokens() {
    let blob = Blob::new;
    bad_structure(&blob(), 0, "the block ends without FDT_END");
    bad_structure(&blob().finish(), 0, "the block ends inside a node");
    bad_structure(&blob().begin(""), 8, "the block ends without FDT_END");
    bad_structure(
        &blob().begin("").end(),
        12,
        "the block ends without FDT_END",
    );
    bad_structure(
        &blob().begin("").finish(),
        8,
        "the block ends inside a node",
    );
    bad_structure(&blob().end(), 0, "a node ends that did not begin");
    bad_structure(
        &blob().begin("").end().end(),
        12,
        "a node ends that did not begin",
    );
    bad_structure(&blob().begin("").word(7), 8, "unknown token");
    bad_structure(
        &blob().prop("p", b""),
        0,
        "a property outside of every node",
    );
    bad_structure(
        &blob().begin("root").end().finish(),
        0,
        "the root has a name",
    );
    bad_structure(
        &blob().begin("").end().begin("").end().finish(),
        12,
        "a second root",
    );
    bad_structure(
        &blob()
            .begin("")
            .begin("a")
            .end()
            .prop("p", b"")
            .end()
            .finish(),
        20,
        "a property after a node",
    );
    bad_structure(
        &blob().word(1).bytes(b"no end in sight!"),
        4,
        "the node's name has no end",
    );
    for size in [9, u32::MAX] {
        bad_structure(
            &blob().begin("").word(3).word(size).word(0).bytes(&[0; 8]),
            20,
            "the value is not inside the block",
        );
    }
}

#[test]
fn names() {
    let outside = Blob::new().begin("").prop("p", b"").end().finish();
    let at = outside.build();
    // The name's offset: beyond the block, and at its very end.
    for offset in [2_u32, 3, u32::MAX] {
        let mut blob = at.clone();
        blob[72..76].copy_from_slice(&offset.to_be_bytes());
        refused(
            &blob,
            "the device tree's structure block is malformed at 0x8: \
             the property's name is not in the strings block",
        );
    }
    // The strings block ends before the name does.
    refused(
        &with_field(at, blob::SIZE_STRINGS, 1),
        "the device tree's structure block is malformed at 0x8: \
         the property's name is not in the strings block",
    );
    let rule = "letters, digits and `,._+*#?-`";
    let long = "n".repeat(256);
    for (name, shown) in [
        ("", ""),
        ("a b", "a b"),
        ("a/b", "a/b"),
        ("@0", "@0"),
        ("a@0@1", "a@0@1"),
        ("é", "\\xc3\\xa9"),
        (&long, &long),
    ] {
        let blob = Blob::new()
            .begin("")
            .begin("top")
            .begin(name)
            .end()
            .end()
            .end();
        refused(
            &blob.finish().build(),
            &format!("device tree node /top: the node name \"{shown}\" is not 1 to 255 {rule}"),
        );
    }
    let longer = "p".repeat(300);
    for (name, shown) in [
        ("", ""),
        ("p@0", "p@0"),
        ("\n", "\\n"),
        (&longer, &longer[..257]),
    ] {
        let blob = Blob::new().begin("").prop(name, b"").end().finish();
        refused(
            &blob.build(),
            &format!("device tree node /: the property name \"{shown}\" is not 1 to 255 {rule}"),
        );
    }
}

#[test]
fn duplicates() {
    let nodes = Blob::new()
        .begin("")
        .begin("a")
        .begin("b")
        .end()
        .nop()
        .begin("b")
        .end();
    refused(
        &nodes.end().end().finish().build(),
        "device tree node /a has two nodes called \"b\"",
    );
    let properties = Blob::new().begin("").prop("p", b"").nop().prop("p", b"1");
    refused(
        &properties.end().finish().build(),
        "device tree node / has two properties called \"p\"",
    );
    // One name in two places, and of a node and a property, is none.
    let fine = Blob::new()
        .begin("")
        .prop("a", b"")
        .begin("a")
        .prop("a", b"");
    let fine = fine.begin("a").end().end().end().finish();
    assert!(DeviceTree::read(&fine.build()).is_ok());
}

fn nested(levels: usize) -> Vec<u8> {
    let mut blob = Blob::new().begin("");
    for _ in 1..levels {
        blob = blob.begin("n");
    }
    for _ in 0..levels {
        blob = blob.end();
    }
    blob.finish().build()
}

#[test]
fn depth() {
    assert_eq!(MAX_LEVELS, 63);
    let deepest = DeviceTree::read(&nested(63)).unwrap();
    assert_eq!(DeviceTree::read(&deepest.write().unwrap()), Ok(deepest));
    let path = "/n".repeat(63);
    for levels in [64, 100, 100_000] {
        refused(
            &nested(levels),
            &format!(
                "the device tree is deeper than 63 levels, and the kernel would drop \
                 what is below: {path}"
            ),
        );
    }
}

#[test]
fn phandles() {
    let root = || Blob::new().begin("");
    refused(
        &root()
            .leaf("a", "phandle", 5)
            .leaf("b", "linux,phandle", 5)
            .end()
            .finish()
            .build(),
        "device tree nodes /a and /b have the same phandle 0x5",
    );
    refused(
        &root().leaf("a", "phandle", 0).end().finish().build(),
        "device tree node /a: phandle is 0x0, which names no node",
    );
    refused(
        &root()
            .leaf("a", "linux,phandle", u32::MAX)
            .end()
            .finish()
            .build(),
        "device tree node /a: linux,phandle is 0xffffffff, which names no node",
    );
    refused(
        &root().prop("phandle", b"12").end().finish().build(),
        "device tree node /: phandle has 2 bytes instead of 4",
    );
    refused(
        &root()
            .cell("phandle", 1)
            .cell("linux,phandle", 2)
            .end()
            .finish()
            .build(),
        "device tree node /: linux,phandle is 0x2, but phandle is 0x1",
    );
}

/// A node with a phandle that names another node, and perhaps is a controller.
fn link(blob: Blob, name: &str, property: &str, to: u32, controller: bool) -> Blob {
    let phandle = u32::from(name.as_bytes()[0] - b'a' + 1);
    let blob = blob.begin(name).cell("phandle", phandle).cell(property, to);
    let blob = if controller {
        blob.cell("#interrupt-cells", 1)
    } else {
        blob
    };
    blob.end()
}

#[test]
fn cycles() {
    for property in ["interrupt-parent", "msi-parent", "wakeup-parent"] {
        for controller in [false, true] {
            let blob = link(Blob::new().begin(""), "d", property, 1, controller);
            let blob = link(blob, "a", property, 2, controller);
            let blob = link(blob, "b", property, 3, controller);
            let blob = link(blob, "c", property, 1, controller);
            refused(
                &blob.end().finish().build(),
                &format!("the device tree's {property} chain is a cycle: /a -> /b -> /c -> /a"),
            );
        }
    }
    // The kernel looks above a node that names no interrupt parent.
    let above = Blob::new()
        .begin("")
        .begin("bus")
        .cell("interrupt-parent", 9);
    let above = above.leaf("dev", "phandle", 9).end().end().finish();
    refused(
        &above.build(),
        "the device tree's interrupt-parent chain is a cycle: /bus -> /bus/dev -> /bus",
    );
    // A node that is its own interrupt parent must be a controller.
    let own = link(Blob::new().begin(""), "a", "interrupt-parent", 1, false);
    refused(
        &own.end().finish().build(),
        "the device tree's interrupt-parent chain is a cycle: /a -> /a",
    );
    // A long one is not named whole.
    let ring = (0..26_u8).fold(Blob::new().begin(""), |blob, index| {
        let name = char::from(b'a' + index).to_string();
        link(
            blob,
            &name,
            "msi-parent",
            u32::from(index + 1) % 26 + 1,
            true,
        )
    });
    refused(
        &ring.end().finish().build(),
        "the device tree's msi-parent chain is a cycle: \
         /a -> /b -> /c -> /d -> /e -> /f -> /g -> …",
    );
}

#[test]
fn chains_that_end() {
    let own = link(Blob::new().begin(""), "a", "interrupt-parent", 1, true);
    let own = link(own, "b", "msi-parent", 2, false);
    // To a node that is not there; to another one; and longer than one cell.
    let own = link(own, "c", "interrupt-parent", 77, false);
    let own = link(own, "d", "interrupt-parent", 1, false);
    let own = own.begin("z").prop("msi-parent", &[0; 8]).end();
    assert!(DeviceTree::read(&own.end().finish().build()).is_ok());
    // As on most machines: the root names the controller, which is below it.
    let usual = Blob::new().begin("").cell("interrupt-parent", 1);
    let usual = usual.begin("soc").begin("gic").cell("phandle", 1);
    let usual = usual.cell("#interrupt-cells", 3).end().end();
    assert!(DeviceTree::read(&usual.end().finish().build()).is_ok());
}
