mod blob;
mod malformed;

use super::*;
use blob::{Blob, with_field};
use proptest::prelude::*;

pub(crate) const MACHINE: &[u8] = include_bytes!("../../tests/data/devicetree/machine.dtb");
const MACHINE_V16: &[u8] = include_bytes!("../../tests/data/devicetree/machine-v16.dtb");
const MACHINE_PADDED: &[u8] = include_bytes!("../../tests/data/devicetree/machine-padded.dtb");
const PRINTED: &str = include_str!("../../tests/data/devicetree/machine.printed.dts");
const QEMU: &[u8] = include_bytes!("../../tests/data/devicetree/qemu-microvm.dtb");

/// A name longer than dtoolkit and vm-fdt allow.
const LONG: &str = "a_label_that_is_longer_than_thirty_one_characters";

#[track_caller]
pub(crate) fn survives(tree: &DeviceTree) {
    let blob = tree.write().unwrap();
    assert_eq!(DeviceTree::read(&blob).as_ref(), Ok(tree));
}

/// QEMU's blob as it is in its memory: 1 MiB, almost all of it zeros.
fn qemu() -> Vec<u8> {
    let mut blob = QEMU.to_vec();
    blob.resize(1 << 20, 0);
    blob
}

#[test]
fn blob_of_dtc() {
    let tree = DeviceTree::read(MACHINE).unwrap();
    assert_eq!(tree.boot_cpuid_phys(), 7);
    let reservation = |address, size| Reservation { address, size };
    assert_eq!(
        tree.reservations(),
        [
            reservation(0x1000_0000, 0x4000),
            reservation(0x1000_2000, 0x4000),
            reservation(0x1000, 0x1000),
        ]
    );
    let names: Vec<&str> = tree
        .root()
        .properties()
        .iter()
        .map(Property::name)
        .collect();
    assert_eq!(
        names[..4],
        ["#address-cells", "#size-cells", "model", "empty"]
    );
    assert_eq!(tree.root().property("empty"), Some(&[][..]));
    assert_eq!(tree.root().property("names"), Some(&b"one\0two\0\0"[..]));
    assert_eq!(tree.root().property("odd"), Some(&[0xde, 0xad, 0xbe][..]));
    let symbols = tree.node("/__symbols__").unwrap();
    assert_eq!(symbols.property(LONG), Some(&b"/soc@0/dev@20/sub\0"[..]));
    assert!(tree.node("/soc@0/dev@20/sub").is_some());
    assert!(tree.node("/soc@0/dev").is_none() && tree.node("soc@0").is_none());
    survives(&tree);
}

#[test]
fn other_blobs_of_dtc() {
    let tree = DeviceTree::read(MACHINE);
    assert!(tree.is_ok());
    assert_eq!(DeviceTree::read(MACHINE_V16), tree);
    assert_eq!(DeviceTree::read(MACHINE_PADDED), tree);
    let file = [MACHINE, b"what follows in the file"].concat();
    assert_eq!(DeviceTree::read(&file), tree);
    // A later version that says a reader of 16 will do.
    let later = with_field(MACHINE.to_vec(), blob::VERSION, 18);
    assert_eq!(DeviceTree::read(&later), tree);
}

#[test]
fn printed_as_dtc_does() {
    assert_eq!(DeviceTree::read(MACHINE).unwrap().to_dts(), PRINTED);
}

#[test]
fn blob_of_qemu() {
    let tree = DeviceTree::read(&qemu()).unwrap();
    let serial = tree.node("/serial@3f8").unwrap();
    assert_eq!(serial.property("compatible"), Some(&b"ns16550\0"[..]));
    assert!(tree.write().unwrap().len() < QEMU.len());
    survives(&tree);
}

#[test]
fn blocks_in_any_order() {
    let plain = Blob::new()
        .begin("")
        .prop("p", b"value")
        .end()
        .finish()
        .build();
    let tree = DeviceTree::read(&plain).unwrap();
    // The strings block moves in front of the structure block.
    let off = |index| usize::try_from(blob::field(&plain, index)).unwrap();
    let (structure, strings) = (off(blob::OFF_STRUCTURE), off(blob::OFF_STRINGS));
    let moved = [&plain[..structure], b"p\0\0\0", &plain[structure..strings]].concat();
    let moved = with_field(
        moved,
        blob::OFF_STRINGS,
        blob::field(&plain, blob::OFF_STRUCTURE),
    );
    let at = blob::field(&plain, blob::OFF_STRUCTURE) + 4;
    let moved = with_field(moved, blob::OFF_STRUCTURE, at);
    let total = blob::field(&plain, blob::TOTAL_SIZE) + 2;
    let moved = with_field(moved, blob::TOTAL_SIZE, total);
    assert_eq!(DeviceTree::read(&moved), Ok(tree));
}

#[test]
fn nops_and_the_rest_of_the_block_are_skipped() {
    let plain = Blob::new().begin("").prop("p", b"value").begin("a@1").end();
    let plain = plain.begin("b").prop("q", b"").end().end().finish();
    let tree = DeviceTree::read(&plain.build()).unwrap();
    let nops = Blob::new()
        .nop()
        .begin("")
        .nop()
        .nop()
        .prop("p", b"value")
        .nop();
    let nops = nops
        .begin("a@1")
        .nop()
        .end()
        .nop()
        .begin("b")
        .prop("q", b"");
    let nops = nops
        .nop()
        .end()
        .nop()
        .end()
        .nop()
        .finish()
        .word(0x77)
        .bytes(b"rest");
    assert_eq!(DeviceTree::read(&nops.build()), Ok(tree));
}

#[test]
fn reservations_of_any_kind() {
    let mut blob = Blob::new().begin("").end().finish();
    blob.reservations = vec![
        (0x2000, 0x1000),
        (0x2000, 0x1000),
        (0, 0x10),
        (0x5000, 0),
        (u64::MAX, u64::MAX),
    ];
    let tree = DeviceTree::read(&blob.build()).unwrap();
    let kept: Vec<(u64, u64)> = tree
        .reservations()
        .iter()
        .map(|r| (r.address, r.size))
        .collect();
    assert_eq!(kept, blob.reservations);
    survives(&tree);
}

#[test]
fn empty_tree() {
    let tree = DeviceTree::empty();
    assert_eq!(
        tree.to_dts(),
        "/dts-v1/;\n\n/ {\n\t#address-cells = <0x02>;\n\t#size-cells = <0x02>;\n};\n"
    );
    assert_eq!(tree.root().property("compatible"), None);
    survives(&tree);
}

#[test]
fn too_big_to_hand_over() {
    // 64 pages, less the part of the first one before the node and its header.
    assert_eq!(MAX_BLOB, 0x3eff0);
    let mut tree = DeviceTree::empty();
    tree.root.set("p", vec![0; 4]);
    let rest = MAX_BLOB - tree.write().unwrap().len();
    tree.root.set("p", vec![1; 4 + rest / 4 * 4]);
    let most = tree.write().unwrap().len();
    assert!((MAX_BLOB - 3..=MAX_BLOB).contains(&most));
    survives(&tree);
    tree.root.set("p", vec![1; 8 + rest / 4 * 4]);
    assert_eq!(
        tree.write().unwrap_err().to_string(),
        format!(
            "the device tree needs {:#x} bytes, and a kernel maps no more than 0x3eff0 of one",
            most + 4
        )
    );
}

/// A name that a node can have.
fn node_name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z][a-z0-9,._+-]{0,12}(@[0-9a-f]{0,8})?",
        1 => "[a-zA-Z0-9,._+*#?-]{1,60}(@[a-zA-Z0-9,._+*#?-]{0,60})?",
        1 => Just("__symbols__".to_owned()),
        1 => "[a-z_]{100,255}",
    ]
}

fn property() -> impl Strategy<Value = Property> {
    let name = prop_oneof![
        4 => "[a-z#][a-z0-9,._+?#-]{0,20}",
        1 => "[a-zA-Z0-9,._+*#?-]{1,255}",
        1 => Just("p".to_owned()),
        1 => Just("compatible".to_owned()),
    ];
    let value = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        "[ -~\0]{0,20}".prop_map(String::into_bytes),
    ];
    (name, value).prop_map(|(name, value)| Property { name, value })
}

fn unique<T>(all: Vec<T>, name: fn(&T) -> &String) -> Vec<T> {
    let mut seen = std::collections::HashSet::new();
    all.into_iter()
        .filter(|it| seen.insert(name(it).clone()))
        .collect()
}

fn any_node() -> impl Strategy<Value = Node> {
    let properties = || {
        let some = prop::collection::vec(property(), 0..6);
        some.prop_map(|all| unique(all, |it| &it.name))
    };
    let leaf = (node_name(), properties()).prop_map(|(name, properties)| Node {
        name,
        properties,
        children: Vec::new(),
    });
    leaf.prop_recursive(6, 40, 5, move |inner| {
        let children = prop::collection::vec(inner, 0..5);
        (node_name(), properties(), children).prop_map(|(name, properties, children)| Node {
            name,
            properties,
            children: unique(children, |it| &it.name),
        })
    })
}

pub(crate) fn any_tree() -> impl Strategy<Value = DeviceTree> {
    let entry = (any::<u64>(), any::<u64>()).prop_map(|(address, size)| Reservation {
        address,
        size: size.max(1),
    });
    let reservations = prop::collection::vec(entry, 0..4);
    (any_node(), reservations, any::<u32>()).prop_map(|(root, reservations, boot_cpuid_phys)| {
        let root = Node {
            name: String::new(),
            ..root
        };
        DeviceTree {
            reservations,
            boot_cpuid_phys,
            root,
        }
    })
}

/// Whether dtoolkit and vm-fdt have no objection to any name in `node`.
fn has_plain_names(node: &Node) -> bool {
    let plain = |name: &str, more: &str| {
        let allowed =
            |c: char| c.is_ascii_alphanumeric() || ",._+-".contains(c) || more.contains(c);
        (1..=31).contains(&name.len()) && name.chars().all(allowed)
    };
    node.properties.iter().all(|it| plain(&it.name, "?#"))
        && node.children.iter().all(|it| {
            let (name, unit) = it.name.split_once('@').unwrap_or((&it.name, "0"));
            plain(name, "") && plain(unit, "") && has_plain_names(it)
        })
}

/// What must hold of any bytes: an answer, and if it is a tree, one that survives.
fn answered(bytes: &[u8]) {
    if let Ok(tree) = DeviceTree::read(bytes) {
        let _ = tree.to_dts();
        match tree.write() {
            Ok(blob) => assert_eq!(DeviceTree::read(&blob), Ok(tree)),
            Err(error) => assert!(matches!(error, TreeError::TooBig { .. }), "{error}"),
        }
    }
}

proptest! {
    #[test]
    fn read_of_write_is_the_tree(tree in any_tree()) {
        let blob = tree.write().unwrap();
        let again = DeviceTree::read(&blob);
        prop_assert_eq!(again.as_ref(), Ok(&tree));
        if has_plain_names(&tree.root) {
            prop_assert!(Fdt::new(&blob).is_ok());
        }
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        answered(&bytes);
        // Such bytes where they are looked at.
        let blob = Blob::new().bytes(&bytes).build();
        answered(&blob);
        answered(&Blob::new().begin("").bytes(&bytes).build());
    }

    #[test]
    fn changed_bytes_are_answered(
        tree in any_tree(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        for mut bytes in [tree.write().unwrap(), MACHINE.to_vec(), MACHINE_V16.to_vec()] {
            for (at, value) in &changes {
                let at = at.index(bytes.len());
                bytes[at] = *value;
            }
            answered(&bytes);
        }
    }

    #[test]
    fn any_tokens_are_answered(
        tokens in prop::collection::vec(
            prop_oneof![
                3 => Just(1_u32), 3 => Just(2), 3 => Just(3), 1 => Just(4), 2 => Just(9),
                3 => Just(0), 3 => Just(0x6100_0000), 1 => 0..12_u32, 1 => any::<u32>(),
            ],
            0..30,
        ),
    ) {
        let blob = Blob::new().begin("").prop("a", b"").prop("b", b"12345");
        let blob = tokens.into_iter().fold(blob, Blob::word);
        answered(&blob.build());
        answered(&blob.end().finish().build());
    }
}
