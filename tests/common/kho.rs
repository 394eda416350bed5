//! Reads what Kexec Handover hands over, as the next kernel does: it follows addresses.
//! It has nothing in common with what writes it.

use std::collections::{BTreeMap, BTreeSet};

const PAGE: u64 = 4096;

/// Memory in which only the pages that were made have anything.
pub(crate) struct Ram(BTreeMap<u64, Vec<u8>>);

impl Ram {
    /// Memory with these pages, each by its address.
    pub(crate) fn of<'p>(pages: impl IntoIterator<Item = (u64, &'p [u8])>) -> Self {
        let mut ram = BTreeMap::new();
        for (page, bytes) in pages {
            let mut bytes = bytes.to_vec();
            assert!(bytes.len() <= 4096 && page.is_multiple_of(PAGE));
            bytes.resize(4096, 0);
            assert!(ram.insert(page, bytes).is_none(), "{page:#x} twice");
        }
        Self(ram)
    }

    pub(crate) fn bytes(&self, at: u64, size: usize) -> &[u8] {
        let page = &self.0[&(at - at % PAGE)];
        let start = usize::try_from(at % PAGE).unwrap();
        &page[start..start + size]
    }

    fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at, 8).try_into().unwrap())
    }

    fn text(&self, at: u64, size: usize) -> String {
        let bytes = self.bytes(at, size);
        let end = bytes.iter().position(|byte| *byte == 0).unwrap();
        assert!(bytes[end..].iter().all(|byte| *byte == 0));
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    }
}

type Properties = BTreeMap<String, Vec<u8>>;

/// The nodes of a device tree, the root first: name and properties.
fn device_tree(blob: &[u8]) -> Vec<(String, Properties)> {
    let word = |at: usize| u32::from_be_bytes(blob[at..at + 4].try_into().unwrap()) as usize;
    let text = |at: usize| {
        let end = blob[at..].iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8(blob[at..at + end].to_vec()).unwrap()
    };
    assert_eq!(word(0), 0xd00d_feed);
    assert!((word(20), word(24)) == (17, 16) && word(4) <= blob.len());
    let (mut at, strings) = (word(8), word(12));
    let (mut nodes, mut depth) = (Vec::new(), 0);
    loop {
        let token = word(at);
        at += 4;
        match token {
            1 => {
                let name = text(at);
                at = (at + name.len() + 1).next_multiple_of(4);
                nodes.push((name, Properties::new()));
                depth += 1;
                assert!(depth <= 2);
            }
            2 => depth -= 1,
            3 => {
                let (size, name) = (word(at), text(strings + word(at + 4)));
                let value = blob[at + 8..at + 8 + size].to_vec();
                nodes.last_mut().unwrap().1.insert(name, value);
                at = (at + 8 + size).next_multiple_of(4);
            }
            9 => break,
            other => panic!("token {other}"),
        }
    }
    assert_eq!(depth, 0);
    nodes
}

fn number(properties: &Properties, name: &str) -> u64 {
    u64::from_le_bytes(properties[name].as_slice().try_into().unwrap())
}

/// Everything that the next kernel finds.
#[derive(Default)]
pub(crate) struct Found {
    /// Blocks of the map: address and order.
    pub(crate) map: BTreeSet<(u64, u32)>,
    /// Pages of the map itself.
    pub(crate) map_pages: BTreeSet<u64>,
    /// Pages of structures and files.
    pub(crate) kept: BTreeSet<u64>,
    pub(crate) sessions: Vec<(String, Vec<Read>)>,
    pub(crate) pools: Vec<(String, u64, u64)>,
    /// Release and count of the kernels that handed over.
    pub(crate) metadata: Option<(String, u32)>,
}

/// A file: token, size, its pages by index.
pub(crate) type Read = (u64, u64, BTreeMap<u64, u64>);

impl Found {
    fn keep(&mut self, page: u64) -> u64 {
        assert!(page != 0 && page.is_multiple_of(PAGE), "{page:#x}");
        assert!(self.kept.insert(page), "{page:#x} twice");
        page
    }

    /// What a kernel finds in `ram` that is given `tree`.
    pub(crate) fn read(tree: &[u8], ram: &Ram) -> Self {
        let mut found = Self::default();
        let tree = device_tree(tree);
        let (root, nodes) = tree.split_first().unwrap();
        assert_eq!(root.1["compatible"], b"kho-v4\0");
        found.walk(ram, number(&root.1, "preserved-memory-map"), 5, 0);
        for (name, properties) in nodes {
            let data = found.keep(number(properties, "preserved-data"));
            let size = number(properties, "blob-size");
            match &**name {
                "LUO" => found.live_update(ram, data, size),
                "memblock" => found.memblock(ram.bytes(data, 4096)),
                "kexec-metadata" => {
                    let number = |at| u32::from_le_bytes(ram.bytes(at, 4).try_into().unwrap());
                    assert_eq!((size, number(data)), (73, 1));
                    let release = ram.text(data + 4, 65);
                    found.metadata = Some((release, number(data + 69)));
                }
                other => panic!("{other}"),
            }
        }
        found
    }

    fn walk(&mut self, ram: &Ram, table: u64, level: u32, prefix: u64) {
        assert!(self.map_pages.insert(table));
        if level > 0 {
            for entry in 0..512 {
                let next = ram.u64(table + entry * 8);
                if next != 0 {
                    self.walk(ram, next, level - 1, prefix * 512 + entry);
                }
            }
            return;
        }
        for (byte, bits) in (0_u64..).zip(ram.bytes(table, 4096)) {
            for bit in (0..8).filter(|bit| bits >> bit & 1 == 1) {
                let key = prefix * 32768 + byte * 8 + bit;
                let top = key.ilog2();
                let order = 52 - top;
                self.map.insert(((key - (1 << top)) << (12 + order), order));
            }
        }
    }

    /// The entries of a chain of blocks.
    fn chain(&mut self, ram: &Ram, mut block: u64, size: u64, most: u64) -> Vec<u64> {
        let mut entries = Vec::new();
        while block != 0 {
            self.keep(block);
            let count = ram.u64(block + 8);
            assert!((1..=most).contains(&count), "{count}");
            entries.extend((0..count).map(|entry| block + 16 + entry * size));
            block = ram.u64(block);
        }
        entries
    }

    fn live_update(&mut self, ram: &Ram, at: u64, size: u64) {
        assert_eq!((size, ram.bytes(at, 8)), (32, &b"luo-v5\0\0"[..]));
        assert_eq!((ram.u64(at + 8), ram.u64(at + 24)), (1, 0));
        for session in self.chain(ram, ram.u64(at + 16), 80, 51) {
            let (first, count) = (ram.u64(session + 64), ram.u64(session + 72));
            let entries = self.chain(ram, first, 64, 63);
            assert_eq!(entries.len() as u64, count);
            let mut files = Vec::new();
            for file in entries {
                assert_eq!(ram.text(file, 48), "memfd-v2");
                let data = self.keep(ram.u64(file + 48));
                let pages = self.memfd(ram, data);
                files.push((ram.u64(file + 56), ram.u64(data + 8), pages));
            }
            self.sessions.push((ram.text(session, 64), files));
        }
    }

    fn memfd(&mut self, ram: &Ram, at: u64) -> BTreeMap<u64, u64> {
        let (position, seals, count) = (ram.u64(at), ram.u64(at + 16), ram.u64(at + 24));
        assert_eq!((position, seals), (0, 0));
        let mut chunk = ram.u64(at + 32);
        let total = u32::from_le_bytes(ram.bytes(at + 40, 4).try_into().unwrap());
        assert_eq!(ram.bytes(at + 44, 4), [1, 0, 0, 0]);
        let mut records = Vec::new();
        while chunk != 0 {
            self.keep(chunk);
            for entry in 1..512 {
                match ram.u64(chunk + entry * 8) {
                    0 => break,
                    page => records.push(self.keep(page)),
                }
            }
            chunk = ram.u64(chunk);
        }
        assert_eq!(records.len(), total as usize);
        let mut pages = BTreeMap::new();
        for number in 0..count {
            let record = records[usize::try_from(number / 256).unwrap()] + number % 256 * 16;
            let folio = ram.u64(record);
            assert_eq!(folio >> 52, 3);
            let page = self.keep((folio & ((1 << 52) - 1)) * PAGE);
            assert!(pages.insert(ram.u64(record + 8), page).is_none());
        }
        pages
    }

    fn memblock(&mut self, blob: &[u8]) {
        let tree = device_tree(blob);
        let (root, nodes) = tree.split_first().unwrap();
        assert_eq!(root.1["compatible"], b"memblock-v1\0");
        for (name, properties) in nodes {
            assert_eq!(properties["compatible"], b"reserve-mem-v1\0");
            let (start, size) = (number(properties, "start"), number(properties, "size"));
            self.pools.push((name.clone(), start, size));
        }
    }
}
