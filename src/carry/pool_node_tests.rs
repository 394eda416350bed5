use super::*;
use crate::carry::pool::tests::any_pool;
use crate::fdt::Property;
use crate::fdt::tests::{MACHINE, any_tree, survives};
use proptest::prelude::*;

fn all_but_chosen(tree: &DeviceTree) -> Vec<&Node> {
    let children = tree.root().children().iter();
    children.filter(|node| node.name() != "chosen").collect()
}

#[test]
fn the_pool_of_a_tree_by_dtc() {
    let tree = DeviceTree::read(MACHINE).unwrap();
    let pool = Pool::parse_option("0x8000000,0x30000000").unwrap();
    assert_eq!(pools_of(&tree), Ok(vec![pool]));
    assert_eq!(pools_of(&DeviceTree::empty()), Ok(vec![]));
}

#[test]
fn pools_are_set() {
    let mut tree = DeviceTree::empty();
    let first = Pool::parse_option("0x8000000,0x30000000").unwrap();
    let second = Pool::parse_option("4G,1G,bitmap=0x100001000,name=second").unwrap();
    put_pool(&mut tree, &first).unwrap();
    put_pool(&mut tree, &second).unwrap();
    assert_eq!(pools_of(&tree), Ok(vec![first, second]));
    survives(&tree);
    let text = tree.to_dts();
    let node = "\
\t\tdefault_pmpool {
\t\t\tcompatible = \"pmpool\";
\t\t\tbase = <0x00 0x8000000>;
\t\t\tsize = <0x00 0x30000000>;
\t\t\tbitmap = <0x00 0x8000000>;
\t\t};
";
    assert!(text.contains(node), "{text}");
}

#[test]
fn pools_are_replaced() {
    let before = DeviceTree::read(MACHINE).unwrap();
    let mut tree = before.clone();
    let pool = Pool::parse_option("1G,512M,bitmap=0x40000008").unwrap();
    put_pool(&mut tree, &pool).unwrap();
    assert_eq!(pools_of(&tree), Ok(vec![pool]));
    let node = tree.node("/chosen/default_pmpool").unwrap();
    let names: Vec<&str> = node.properties().iter().map(Property::name).collect();
    assert_eq!(
        names,
        ["compatible", "base", "size", "bitmap", "vendor,note"]
    );
    assert_eq!(node.property("vendor,note"), Some(&b"foreign\0"[..]));
    put_pool(&mut tree, &pools_of(&before).unwrap()[0]).unwrap();
    assert_eq!(tree, before);
}

/// A property's name and value.
type Given = (&'static str, &'static [u8]);

/// A tree with /chosen/pool that has `compatible` and then `properties`.
fn with_pool(compatible: &[u8], properties: &[Given]) -> DeviceTree {
    let mut tree = DeviceTree::empty();
    let pool = tree.node_or_new("chosen", "pool");
    pool.set("compatible", compatible.to_vec());
    for (name, value) in properties {
        pool.set(name, value.to_vec());
    }
    tree
}

#[test]
fn a_list_of_compatibles_is_kept() {
    let mut tree = with_pool(b"vendor,pool-2\0pmpool\0", &[]);
    let pool = Pool::parse_option("0,4K,name=pool").unwrap();
    put_pool(&mut tree, &pool).unwrap();
    assert_eq!(pools_of(&tree), Ok(vec![pool]));
    let kept = tree.node("/chosen/pool").unwrap().property("compatible");
    assert_eq!(kept, Some(&b"vendor,pool-2\0pmpool\0"[..]));
}

#[test]
fn another_node_is_not_made_a_pool() {
    let mut tree = with_pool(b"pmpool2\0", &[]);
    let before = tree.clone();
    assert_eq!(pools_of(&tree), Ok(vec![]));
    let pool = Pool::parse_option("0,4K,name=pool").unwrap();
    assert_eq!(
        put_pool(&mut tree, &pool).unwrap_err().to_string(),
        "device tree node /chosen/pool is no pool: it is compatible with \"pmpool2\\x00\""
    );
    assert_eq!(tree, before);
}

#[test]
fn malformed_pools() {
    let base: Given = ("base", &[0, 0, 0, 0, 8, 0, 0, 0]);
    let size: Given = ("size", &[0, 0, 0, 0, 0, 16, 0, 0]);
    let bitmap: Given = ("bitmap", &[0, 0, 0, 0, 8, 0, 0, 0]);
    let cases: [(&[Given], &str); 6] = [
        (&[], "property \"base\" is missing"),
        (&[base, bitmap], "property \"size\" is missing"),
        (&[base, size], "property \"bitmap\" is missing"),
        (
            &[base, ("size", &[0, 16, 0, 0]), bitmap],
            "property \"size\" has 4 bytes instead of 8",
        ),
        (
            &[base, ("size", &[0; 8]), bitmap],
            "the range at 0x8000000 is empty",
        ),
        (
            &[base, size, ("bitmap", &[0; 8])],
            "the pool's bitmap at 0x0, 32 B (one bit for each page), \
             is not inside the pool 0x8000000-0x80fffff",
        ),
    ];
    for (properties, message) in cases {
        let error = pools_of(&with_pool(b"pmpool\0", properties)).unwrap_err();
        let message = format!("device tree node /chosen/pool: {message}");
        assert_eq!(error.to_string(), message);
    }
    let good = pools_of(&with_pool(b"pmpool\0", &[bitmap, base, size]));
    assert_eq!(
        good,
        Ok(vec![Pool::parse_option("128M,1M,name=pool").unwrap()])
    );
}

proptest! {
    #[test]
    fn put_pool_changes_nothing_else(tree in any_tree(), pool in any_pool()) {
        let mut changed = tree.clone();
        if put_pool(&mut changed, &pool).is_ok() {
            prop_assert!(pools_of(&changed).unwrap().contains(&pool));
            survives(&changed);
            prop_assert_eq!(all_but_chosen(&changed), all_but_chosen(&tree));
            prop_assert_eq!(changed.root().properties(), tree.root().properties());
        }
    }
}
