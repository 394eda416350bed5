//! The setup_data chain: typed nodes that boot_params points to.
//!
//! Source: Documentation/arch/x86/boot.rst, "setup_data", and
//! arch/x86/include/uapi/asm/setup_data.h.

use zerocopy::IntoBytes;

use super::boot_params::E820Entry;
use crate::abi::efi::EfiDescriptor;
use crate::base::PhysRange;

/// e820 entries beyond the 128 of boot_params.
pub const SETUP_E820_EXT: u32 = 1;
/// Nothing a kernel looks at: rkexec's own record.
pub const SETUP_NONE: u32 = 0;
/// A device tree blob.
pub const SETUP_DTB: u32 = 2;
/// The payload points elsewhere; KASLR and memblock keep off what it points to.
pub const SETUP_INDIRECT: u32 = 1 << 31;
/// Type inside the SETUP_INDIRECT nodes over pools. The kernel follows a node
/// whose inner type is not SETUP_INDIRECT itself, and knows no type of this number.
pub const INDIRECT_POOL: u32 = SETUP_INDIRECT | u32::from_be_bytes(*b"\0rkx");
/// EFI tables of a kexec boot.
pub const SETUP_EFI: u32 = 4;
/// Seed for the random number generator, wiped after use.
pub const SETUP_RNG_SEED: u32 = 9;
/// State that is handed over by Kexec Handover.
pub const SETUP_KEXEC_KHO: u32 = 10;

/// Bytes in front of every payload: next (u64), type (u32), len (u32).
const HEADER: usize = 16;
/// Nodes start on multiples of this, bytes.
const NODE_ALIGN: usize = 16;
/// Bytes of an EFI memory descriptor without what newer firmware appends.
const EFI_DESCRIPTOR: usize = 40;

/// A name for a SETUP_* number, for people.
#[must_use]
pub fn type_name(kind: u32) -> &'static str {
    const NAMES: [&str; 11] = [
        "NONE",
        "E820_EXT",
        "DTB",
        "PCI",
        "EFI",
        "APPLE_PROPERTIES",
        "JAILHOUSE",
        "CC_BLOB",
        "IMA",
        "RNG_SEED",
        "KEXEC_KHO",
    ];
    if kind & SETUP_INDIRECT != 0 {
        return "INDIRECT";
    }
    let known = usize::try_from(kind)
        .ok()
        .and_then(|index| NAMES.get(index));
    known.copied().unwrap_or("unknown")
}

/// One node: its type and its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// SETUP_* number.
    pub kind: u32,
    /// Payload.
    pub data: Vec<u8>,
}

/// `struct efi_setup_data` of arch/x86/include/asm/efi.h: physical addresses, 0 where
/// there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EfiSetupData {
    /// The name of the firmware's vendor.
    pub fw_vendor: u64,
    /// The configuration table.
    pub tables: u64,
    /// The SMBIOS entry point.
    pub smbios: u64,
}

/// All nodes, and after them the EFI memory map: one segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetupData {
    nodes: Vec<Node>,
    efi_memmap: Vec<u8>,
}

impl SetupData {
    /// Adds the e820 entries that do not fit boot_params.
    pub fn push_e820_ext(&mut self, entries: &[E820Entry]) {
        self.nodes.push(Node {
            kind: SETUP_E820_EXT,
            data: entries.as_bytes().to_vec(),
        });
    }

    /// Adds a node as it is.
    pub fn push(&mut self, kind: u32, data: Vec<u8>) {
        self.nodes.push(Node { kind, data });
    }

    /// Gives node `index` another payload of the same size.
    pub fn refill(&mut self, index: usize, data: Vec<u8>) {
        let node = self.nodes.get_mut(index);
        if let Some(node) = node.filter(|node| node.data.len() == data.len()) {
            node.data = data;
        }
    }

    /// Adds `struct setup_indirect` {type, reserved, len, addr} over `range`.
    pub fn push_indirect(&mut self, range: PhysRange) {
        let mut data = INDIRECT_POOL.to_le_bytes().to_vec();
        data.extend_from_slice(&0_u32.to_le_bytes());
        data.extend_from_slice(&range.size().to_le_bytes());
        data.extend_from_slice(&range.start().to_le_bytes());
        self.push(SETUP_INDIRECT, data);
    }

    /// Adds a seed.
    pub fn push_rng_seed(&mut self, seed: &[u8; 32]) {
        self.nodes.push(Node {
            kind: SETUP_RNG_SEED,
            data: seed.to_vec(),
        });
    }

    /// Adds `struct efi_setup_data`, and the memory map in descriptors of
    /// `descriptor_size` bytes.
    pub fn push_efi(&mut self, efi: &EfiSetupData, map: &[EfiDescriptor], descriptor_size: u32) {
        let fields = [efi.fw_vendor, 0, efi.tables, efi.smbios];
        // reserved[8]
        let fields = fields.into_iter().chain([0; 8]);
        self.nodes.push(Node {
            kind: SETUP_EFI,
            data: fields.flat_map(u64::to_le_bytes).collect(),
        });
        let map = map.iter();
        self.efi_memmap = map
            .flat_map(|entry| efi_descriptor(entry, descriptor_size))
            .collect();
    }

    /// The nodes, in chain order.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Size of the segment in bytes; 0 when there is nothing to hand over.
    #[must_use]
    pub fn size(&self) -> usize {
        self.memmap_offset() + self.efi_memmap.len()
    }

    /// Where the EFI memory map lies from the start of the segment, bytes.
    #[must_use]
    pub fn memmap_offset(&self) -> usize {
        self.nodes.iter().map(node_size).sum()
    }

    /// Where the payload of node `index` lies from the start of the segment, bytes.
    #[must_use]
    pub fn payload_offset(&self, index: usize) -> usize {
        self.nodes.iter().take(index).map(node_size).sum::<usize>() + HEADER
    }

    /// Size of the EFI memory map, bytes.
    #[must_use]
    pub fn memmap_size(&self) -> usize {
        self.efi_memmap.len()
    }

    /// The segment's bytes when it lies at the physical address `base`. The
    /// first node is at its start.
    #[must_use]
    pub fn bytes_at(&self, base: u64) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        for (index, node) in self.nodes.iter().enumerate() {
            let end = out.len() + node_size(node);
            let is_last = index + 1 == self.nodes.len();
            let next = if is_last { 0 } else { base + end as u64 };
            // Payloads are far below 4 GiB: the e820 of a machine, a tree of at most 256 KiB.
            let len = u32::try_from(node.data.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&next.to_le_bytes());
            out.extend_from_slice(&node.kind.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
            out.extend_from_slice(&node.data);
            out.resize(end, 0);
        }
        out.extend_from_slice(&self.efi_memmap);
        out
    }
}

fn node_size(node: &Node) -> usize {
    (HEADER + node.data.len()).next_multiple_of(NODE_ALIGN)
}

/// `efi_memory_desc_t`: type, pad, phys_addr, virt_addr, num_pages, attribute;
/// the firmware's descriptors may be longer, the rest is zero.
fn efi_descriptor(entry: &EfiDescriptor, size: u32) -> Vec<u8> {
    let words = [
        u64::from(entry.kind),
        entry.physical,
        entry.virtual_,
        entry.pages,
        entry.attributes,
    ];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let size = usize::try_from(size).unwrap_or(EFI_DESCRIPTOR);
    bytes.resize(size.max(EFI_DESCRIPTOR), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Follows the chain as the kernel does: by addresses alone.
    fn walk(bytes: &[u8], base: u64) -> Vec<Node> {
        let mut nodes = Vec::new();
        let mut at = if bytes.is_empty() { 0 } else { base };
        while at != 0 {
            let offset = usize::try_from(at - base).unwrap();
            let number = |from: usize, size: usize| {
                let mut word = [0; 8];
                word[..size].copy_from_slice(&bytes[offset + from..offset + from + size]);
                u64::from_le_bytes(word)
            };
            let len = usize::try_from(number(12, 4)).unwrap();
            let kind = u32::try_from(number(8, 4)).unwrap();
            nodes.push(Node {
                kind,
                data: bytes[offset + 16..offset + 16 + len].to_vec(),
            });
            at = number(0, 8);
        }
        nodes
    }

    #[test]
    fn an_independent_walk_finds_every_node() {
        let mut chain = SetupData::default();
        chain.push_e820_ext(
            &[E820Entry {
                address: 1.into(),
                size: 2.into(),
                kind: 3.into(),
            }; 3],
        );
        let efi = EfiSetupData {
            fw_vendor: 0x11,
            tables: 0x22,
            smbios: 0x33,
        };
        let descriptor = EfiDescriptor {
            kind: 5,
            physical: 6,
            virtual_: 7,
            pages: 8,
            attributes: 9,
        };
        chain.push_efi(&efi, &[descriptor; 2], 48);
        chain.push_rng_seed(&[7; 32]);
        chain.push(SETUP_DTB, vec![9; 33]);
        chain.push_indirect(PhysRange::new(0x1234_5000, 0x10_0000).unwrap());
        let bytes = chain.bytes_at(0x7fff_0000);
        assert_eq!(bytes.len(), chain.size());
        assert_eq!(walk(&bytes, 0x7fff_0000), chain.nodes());
        assert_eq!(chain.nodes()[0].data.len(), 60);
        assert_eq!(chain.nodes()[1].data.len(), 96);
        assert_eq!(chain.memmap_size(), 2 * 48);
        assert_eq!(bytes[chain.memmap_offset()], 5);
        assert_eq!(bytes[chain.memmap_offset() + 48 + 16], 7);
    }

    proptest! {
        #[test]
        fn any_chain_is_found_by_its_addresses(
            nodes in proptest::collection::vec((any::<u32>(), proptest::collection::vec(any::<u8>(), 0..100)), 1..20),
            page in 0..1_u64 << 40,
        ) {
            let mut chain = SetupData::default();
            for (kind, data) in &nodes {
                chain.push(*kind, data.clone());
            }
            let base = (page + 1) << 12;
            let found = walk(&chain.bytes_at(base), base);
            prop_assert_eq!(found, chain.nodes());
        }
    }

    #[test]
    fn an_empty_chain_is_no_segment() {
        assert_eq!(SetupData::default().size(), 0);
        assert!(walk(&SetupData::default().bytes_at(0x1000), 0x1000).is_empty());
    }
}
