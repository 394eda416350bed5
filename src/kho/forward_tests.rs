//! Trees as a running kernel shows them: whole, or cut.

use proptest::prelude::*;

use super::*;
use crate::host::kho::State;

/// The names of properties in the order in which a kernel stores them.
const NAMES: &[u8] = b"preserved-memory-map\0compatible\0preserved-data\0blob-size\0";
/// Where in them each begins.
const MAP: u32 = 0;
const COMPATIBLE: u32 = 21;
const DATA: u32 = 32;
const SIZE: u32 = 47;
/// The length of the file in debugfs: that of a tree with the metadata alone.
const SHOWN: usize = 233;

/// A tree as the kernel makes it (`fdt_add_subnode` puts the newest node first, and
/// `fdt_setprop` the newest property).
fn kernels(format: &[u8], map: u64, blobs: &[(&str, u64, u64)]) -> Vec<u8> {
    let mut structure = Vec::new();
    let mut put = |words: &[u32], bytes: &[u8]| {
        structure.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        structure.extend(bytes);
        structure.resize(structure.len().next_multiple_of(4), 0_u8);
    };
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap();
    put(&[BEGIN_NODE], b"\0");
    put(&[PROP, length(format), COMPATIBLE], format);
    put(&[PROP, 8, MAP], &map.to_le_bytes());
    for (name, address, size) in blobs.iter().rev() {
        put(&[BEGIN_NODE], format!("{name}\0").as_bytes());
        put(&[PROP, 8, SIZE], &size.to_le_bytes());
        put(&[PROP, 8, DATA], &address.to_le_bytes());
        put(&[END_NODE], b"");
    }
    put(&[END_NODE, 9], b"");
    let number = |size: usize| u32::try_from(size).unwrap();
    let (begin, names) = (56, 56 + structure.len());
    let total = names + NAMES.len();
    let header = [
        MAGIC,
        number(total),
        begin,
        number(names),
        40,
        17,
        16,
        0,
        number(NAMES.len()),
        number(structure.len()),
    ];
    let header = header.map(u32::to_be_bytes);
    [header.as_flattened(), &[0; 16], &structure, NAMES].concat()
}

const METADATA_BLOB: (&str, u64, u64) = (METADATA, 0x10_1000, 73);
const LUO: (&str, u64, u64) = ("LUO", 0x10_2000, 32);
const POOLS: (&str, u64, u64) = ("memblock", 0x10_3000, 4096);

fn sizes(blobs: &[(&str, u64, u64)]) -> Vec<(String, u64)> {
    let sizes = blobs.iter();
    sizes
        .map(|(name, _, size)| ((*name).to_owned(), *size))
        .collect()
}

fn read(tree: &[u8], blobs: &[(&str, u64, u64)]) -> Result<Tree, ForwardError> {
    Tree::read(tree, &sizes(blobs))
}

/// What a tree that is made here leads to.
fn is(tree: &Tree, map: u64, blobs: &[(&str, u64, u64)]) {
    let found: Vec<_> = tree
        .blobs
        .iter()
        .map(|blob| (blob.name.as_str(), blob.address, blob.size))
        .collect();
    let mut blobs = blobs.to_vec();
    blobs.sort_unstable();
    assert_eq!((tree.map, found), (map, blobs));
}

#[test]
fn the_tree_is_read_as_far_as_debugfs_shows_it() {
    let all = [METADATA_BLOB, LUO, POOLS];
    let bare = kernels(b"kho-v4\0", 0x9000, &all[..1]);
    assert_eq!(bare.len(), SHOWN);
    is(&read(&bare, &all[..1]).unwrap(), 0x9000, &all[..1]);
    // With live update the names are cut, with a pool the metadata as well.
    let grown = kernels(b"kho-v4\0", 0x9000, &all[..2]);
    assert_eq!(grown.len(), 285);
    is(
        &read(&grown[..SHOWN], &all[..2]).unwrap(),
        0x9000,
        &all[..2],
    );
    let grown = kernels(b"kho-v4\0", 0x9000, &all);
    assert_eq!(grown.len(), 345);
    let tree = read(&grown[..SHOWN], &all).unwrap();
    is(&tree, 0x9000, &all[1..]);
    assert_eq!(tree.names().collect::<Vec<_>>(), ["LUO", "memblock"]);
    // Whole, in a kernel that shows all of it.
    is(&read(&grown, &all).unwrap(), 0x9000, &all);
}

#[test]
fn what_is_written_is_read_by_the_kernel() {
    let blobs = [LUO, POOLS];
    let tree = read(&kernels(b"kho-v4\0", 0x9000, &blobs), &blobs).unwrap();
    let written = tree.write().unwrap();
    assert_eq!(Tree::read(&written, &sizes(&blobs)).unwrap(), tree);
    // By the reader of device trees, which goes by names.
    let written = crate::fdt::DeviceTree::read(&written).unwrap();
    let root = written.root();
    assert_eq!(root.property("compatible").unwrap(), b"kho-v4\0");
    let map = root.property("preserved-memory-map").unwrap();
    assert_eq!(map, 0x9000_u64.to_le_bytes());
    let luo = root.child("LUO").unwrap();
    assert_eq!(luo.property("preserved-data").unwrap(), LUO.1.to_le_bytes());
    assert_eq!(luo.property("blob-size").unwrap(), LUO.2.to_le_bytes());
    assert_eq!(root.children().len(), 2);
}

#[test]
fn what_is_missing_is_named() {
    let all = [METADATA_BLOB, LUO, POOLS];
    let other = ("another", 0x10_4000, 8);
    let many = [METADATA_BLOB, LUO, POOLS, other];
    let grown = kernels(b"kho-v4\0", 0x9000, &many);
    let error = read(&grown[..SHOWN], &many).unwrap_err();
    assert_eq!(
        error.to_string(),
        "debugfs shows only part of the tree: LUO is not in it"
    );
    let tree = kernels(b"kho-v4\0", 0x9000, &all);
    let error = read(&tree, &[LUO, METADATA_BLOB]).unwrap_err().to_string();
    assert!(error.contains("a node without its blob"), "{error}");
    let larger = [METADATA_BLOB, ("LUO", 0x10_2000, 33), POOLS];
    assert_eq!(
        read(&tree, &larger).unwrap_err().to_string(),
        "the tree of this kernel gives LUO 32 bytes, and debugfs shows 33"
    );
}

#[test]
fn what_is_no_tree_is_refused() {
    let says = |tree: &[u8], blobs: &[_]| read(tree, blobs).unwrap_err().to_string();
    let good = kernels(b"kho-v4\0", 0x9000, &[LUO]);
    assert!(says(b"", &[]).contains("the header is cut off"));
    assert!(says(&[0; 64], &[]).contains("it is no device tree"));
    let old = kernels(b"kho-v3\0", 0x9000, &[LUO]);
    assert_eq!(
        says(&old, &[LUO]),
        "this kernel hands over kho-v3, and only kho-v4 can be forwarded"
    );
    let empty = kernels(b"kho-v4\0", 0, &[LUO]);
    assert!(says(&empty, &[LUO]).contains("it has no map"));
    for name in ["-", "", "1", "a b", "a234567890123456789012345678901x"] {
        let blob = (name, 0x10_2000, 32);
        let tree = kernels(b"kho-v4\0", 0x9000, &[blob]);
        assert!(says(&tree, &[blob]).contains("a name that no tree may have"));
    }
    let twice = kernels(b"kho-v4\0", 0x9000, &[LUO, LUO]);
    assert!(says(&twice, &[LUO]).contains("two nodes have one name"));
    // Names that are there must be the right ones.
    let mut swapped = good.clone();
    let at = swapped.len() - NAMES.len() + 32;
    swapped[at] = b'x';
    assert!(says(&swapped, &[LUO]).contains("a property has another name"));
    // A whole tree is not one that is cut.
    let mut short = good.clone();
    let size = u32::from_be_bytes(short[36..40].try_into().unwrap());
    short[36..40].copy_from_slice(&(size - 8).to_be_bytes());
    assert!(says(&short, &[LUO]).contains("it ends inside a node"));
}

#[test]
fn what_a_kernel_does_not_show_cannot_be_forwarded() {
    let scratch = vec![PhysRange::new(256 << 20, 64 << 20).unwrap()];
    let mut kho = Kho {
        on: true,
        why: "kho=on".to_owned(),
        shown: true,
        preserved: Some(vec!["LUO".to_owned()]),
        state: State {
            scratch: Some(scratch.clone()),
            tree: Some(kernels(b"kho-v4\0", 0x9000, &[LUO])),
            blobs: sizes(&[LUO]),
            ..State::default()
        },
    };
    let (tree, found) = forward(&kho).unwrap();
    assert_eq!(found, scratch);
    is(&tree, 0x9000, &[LUO]);
    kho.state.scratch = Some(Vec::new());
    assert_eq!(forward(&kho), Err(ForwardError::NoScratch));
    kho.state.scratch = Some(scratch);
    kho.state.tree = None;
    assert_eq!(forward(&kho), Err(ForwardError::NotShown));
    kho.state.taken_over = true;
    assert_eq!(forward(&kho), Err(ForwardError::TakenOver));
    kho.state.scratch = None;
    let error = forward(&kho).unwrap_err();
    assert!(error == ForwardError::NotShown && error.hint().is_some());
    let off = forward(&Kho::default());
    assert!(matches!(off, Err(ForwardError::Off(_))));
}

proptest! {
    /// Wherever the end is cut, what is read is what the kernel wrote, or it is refused.
    #[test]
    fn no_cut_changes_what_is_read(
        map in 1..u64::MAX,
        blobs in proptest::collection::btree_map("[a-zA-Z][a-zA-Z-]{0,19}", (1..u64::MAX, any::<u64>()), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let blobs: Vec<(&str, u64, u64)> = blobs
            .iter()
            .map(|(name, (address, size))| (name.as_str(), *address, *size))
            .collect();
        let whole = kernels(b"kho-v4\0", map, &blobs);
        let shown = &whole[..=cut.index(whole.len())];
        if let Ok(tree) = read(shown, &blobs) {
            prop_assert_eq!(tree.map, map);
            for (name, address, size) in &blobs {
                let found = tree.blobs.iter().find(|blob| blob.name == *name);
                match found {
                    Some(found) => prop_assert_eq!((found.address, found.size), (*address, *size)),
                    None => prop_assert_eq!(*name, METADATA),
                }
            }
        }
    }

    /// A tree that is written leads to the same.
    #[test]
    fn any_tree_comes_back(
        map in 1..u64::MAX,
        blobs in proptest::collection::btree_map("[a-zA-Z][a-zA-Z-]{0,19}", (1..u64::MAX, any::<u64>()), 0..9),
    ) {
        let blobs = blobs.into_iter().map(|(name, (address, size))| Blob { name, address, size });
        let tree = Tree { map, blobs: blobs.collect() };
        let sizes: Vec<_> = tree.blobs.iter().map(|blob| (blob.name.clone(), blob.size)).collect();
        prop_assert_eq!(Tree::read(&tree.write().unwrap(), &sizes), Ok(tree));
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes: Vec<u8>) {
        let _ = Tree::read(&bytes, &[]);
        let _ = Tree::read(&[&kernels(b"kho-v4\0", 1, &[LUO])[..60], &bytes].concat(), &[]);
    }
}
