//! /sys/kernel/boot_params: how the running kernel was booted.
//!
//! Format: arch/x86/kernel/ksysfs.c. A kernel without that directory may have the
//! same files in debugfs (arch/x86/kernel/kdebugfs.c, CONFIG_DEBUG_BOOT_PARAMS).

use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{HostError, Root, text};
use crate::abi::x86::boot_params::{BOOT_PARAMS_SIZE, BootParams, E820Entry, join};
use crate::abi::x86::setup_data::{SETUP_E820_EXT, SETUP_INDIRECT};
use crate::base::PhysRange;

/// Where the files may be, best first.
const PATHS: [&str; 2] = [
    "/sys/kernel/boot_params",
    "/sys/kernel/debug/x86/boot_params",
];

/// One node of the setup_data chain that the running kernel received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetupDataNode {
    /// SETUP_* number (arch/x86/include/uapi/asm/setup_data.h). For an indirect
    /// node the kernel shows the type inside it, which has the bit SETUP_INDIRECT.
    pub kind: u32,
    /// Payload. Empty for an indirect node: what it points to may be gigabytes,
    /// and no kernel reads any of the types through one.
    pub data: Vec<u8>,
}

impl SetupDataNode {
    /// Whether the node is a SETUP_INDIRECT one.
    #[must_use]
    pub const fn is_indirect(&self) -> bool {
        self.kind & SETUP_INDIRECT != 0
    }
}

/// boot_params and setup_data of the running kernel.
#[derive(Debug, Clone)]
pub struct RunningBootParams {
    /// The zero page.
    pub params: Box<BootParams>,
    /// The chain, in order.
    pub setup_data: Vec<SetupDataNode>,
}

impl PartialEq for RunningBootParams {
    fn eq(&self, other: &Self) -> bool {
        self.params.as_bytes() == other.params.as_bytes() && self.setup_data == other.setup_data
    }
}

impl Eq for RunningBootParams {}

impl RunningBootParams {
    /// The boot e820: the table of the zero page, then every SETUP_E820_EXT node.
    #[must_use]
    pub fn e820(&self) -> Vec<E820Entry> {
        let extended = self
            .setup_data
            .iter()
            .filter(|node| node.kind == SETUP_E820_EXT)
            .flat_map(|node| extended(&node.data));
        self.params.e820().iter().copied().chain(extended).collect()
    }

    /// Whether Secure Boot is on, where the boot loader said so.
    #[must_use]
    pub fn secure_boot(&self) -> Option<bool> {
        match self.params.secure_boot {
            2 => Some(false),
            3 => Some(true),
            _ => None,
        }
    }

    /// Whether there is a setup_data node of that type.
    #[must_use]
    pub fn has_node(&self, kind: u32) -> bool {
        self.setup_data.iter().any(|node| node.kind == kind)
    }

    /// Where the boot loader put the initrd; `None` without one.
    #[must_use]
    pub fn initrd(&self) -> Option<PhysRange> {
        let params = &self.params;
        let (image, size) = (
            params.hdr.ramdisk_image.get(),
            params.hdr.ramdisk_size.get(),
        );
        let start = join(image, params.ext_ramdisk_image.get());
        PhysRange::new(start, join(size, params.ext_ramdisk_size.get())).ok()
    }
}

/// The whole entries in `data`; the kernel ignores a remainder as well
/// (`e820__memory_setup_extended`).
fn extended(data: &[u8]) -> impl Iterator<Item = E820Entry> {
    data.chunks_exact(size_of::<E820Entry>())
        .filter_map(|bytes| E820Entry::read_from_bytes(bytes).ok())
}

/// Parses the file `data`.
///
/// # Errors
/// When it is not [`BOOT_PARAMS_SIZE`] bytes.
pub fn parse(bytes: &[u8]) -> Result<Box<BootParams>, String> {
    BootParams::from_bytes(bytes)
        .ok_or_else(|| format!("{} bytes, expected {BOOT_PARAMS_SIZE}", bytes.len()))
}

/// Parses the file `type` of a setup_data node.
///
/// # Errors
/// When it is not a 32-bit number `0x…`.
pub fn parse_type(bytes: &[u8]) -> Result<u32, String> {
    let content = String::from_utf8_lossy(bytes);
    text::hex_0x(content.trim_end())
        .and_then(|number| u32::try_from(number).ok())
        .ok_or_else(|| format!("`{}` is not a 32-bit number 0x…", content.escape_debug()))
}

pub(super) fn read(root: &Root) -> Result<Option<RunningBootParams>, HostError> {
    for dir in PATHS {
        let path = format!("{dir}/data");
        let Some(bytes) = root.read_permitted(&path)? else {
            continue;
        };
        let params = parse(&bytes).map_err(|what| HostError::malformed(&path, what))?;
        let setup_data = setup_data(root, &format!("{dir}/setup_data"))?;
        return Ok(Some(RunningBootParams { params, setup_data }));
    }
    Ok(None)
}

/// The chain below `dir`; empty when there is no such directory.
fn setup_data(root: &Root, dir: &str) -> Result<Vec<SetupDataNode>, HostError> {
    let names = root.list_permitted(dir)?.unwrap_or_default();
    let mut nodes = Vec::new();
    for number in text::numbered(dir, names)? {
        let path = format!("{dir}/{number}/type");
        let kind =
            parse_type(&root.read(&path)?).map_err(|what| HostError::malformed(&path, what))?;
        let mut node = SetupDataNode {
            kind,
            data: Vec::new(),
        };
        if !node.is_indirect() {
            node.data = root.read(&format!("{dir}/{number}/data"))?;
        }
        nodes.push(node);
    }
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::path::Path;

    const SYSFS: &str = "sys/kernel/boot_params";

    fn write(dir: &Path, file: &str, content: &[u8]) {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn entry(address: u64, size: u64, kind: u32) -> E820Entry {
        E820Entry {
            address: address.into(),
            size: size.into(),
            kind: kind.into(),
        }
    }

    #[test]
    fn the_e820_continues_in_setup_data() {
        let dir = tempfile::tempdir().unwrap();
        let mut params = BootParams::zeroed();
        params.e820_entries = 1;
        params.e820_table[0] = entry(0, 0x9fc00, 1);
        write(dir.path(), &format!("{SYSFS}/data"), params.as_bytes());
        let node = |number: u32, kind: &str, data: &[u8]| {
            let node = format!("{SYSFS}/setup_data/{number}");
            write(dir.path(), &format!("{node}/type"), kind.as_bytes());
            write(dir.path(), &format!("{node}/data"), data);
        };
        // In numeric order: 2 before 10. The odd byte at the end is no entry.
        node(10, "0x1\n", entry(0x4000_0000, 0x1000, 2).as_bytes());
        let mut data = entry(0x10_0000, 0x1000, 1).as_bytes().to_vec();
        data.push(0xff);
        node(2, "0x1\n", &data);
        node(3, "0x9\n", &[0; 32]);
        let running = read(&Root::at(dir.path())).unwrap().unwrap();
        let kinds: Vec<_> = running.setup_data.iter().map(|node| node.kind).collect();
        assert_eq!(kinds, [1, 9, 1]);
        assert_eq!(
            running.e820(),
            [
                entry(0, 0x9fc00, 1),
                entry(0x10_0000, 0x1000, 1),
                entry(0x4000_0000, 0x1000, 2),
            ]
        );
    }

    #[test]
    fn what_an_indirect_node_points_to_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &format!("{SYSFS}/data"), &[0; 4096]);
        write(
            dir.path(),
            &format!("{SYSFS}/setup_data/0/type"),
            b"0x80000002\n",
        );
        write(dir.path(), &format!("{SYSFS}/setup_data/0/data"), &[1; 64]);
        let running = read(&Root::at(dir.path())).unwrap().unwrap();
        assert_eq!(
            running.setup_data,
            [SetupDataNode {
                kind: 0x8000_0002,
                data: Vec::new()
            }]
        );
        assert!(running.setup_data[0].is_indirect());
    }

    #[test]
    fn debugfs_is_the_second_choice() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(&Root::at(dir.path())).unwrap(), None);
        let mut params = BootParams::zeroed();
        params.secure_boot = 3;
        write(
            dir.path(),
            "sys/kernel/debug/x86/boot_params/data",
            params.as_bytes(),
        );
        let running = read(&Root::at(dir.path())).unwrap().unwrap();
        assert_eq!(running.params.secure_boot, 3);
        assert_eq!(running.setup_data, []);
    }

    #[test]
    fn malformed_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        write(dir.path(), &format!("{SYSFS}/data"), &[0; 4095]);
        assert_eq!(
            read(&root).unwrap_err().to_string(),
            "/sys/kernel/boot_params/data: 4095 bytes, expected 4096"
        );
        write(dir.path(), &format!("{SYSFS}/data"), &[0; 4096]);
        write(
            dir.path(),
            &format!("{SYSFS}/setup_data/0/type"),
            b"0x100000000\n",
        );
        assert_eq!(
            read(&root).unwrap_err().to_string(),
            "/sys/kernel/boot_params/setup_data/0/type: `0x100000000\\n` is not a 32-bit number 0x…"
        );
        write(dir.path(), &format!("{SYSFS}/setup_data/0/type"), b"0x2\n");
        assert_eq!(
            read(&root).unwrap_err().to_string(),
            format!(
                "{}: no such file",
                root.path("/sys/kernel/boot_params/setup_data/0/data")
                    .display()
            )
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            bytes in prop::collection::vec(any::<u8>(), 4090..4100),
            kind in prop::collection::vec(any::<u8>(), 0..16),
            extension in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let _ = parse_type(&kind);
            let parsed = parse(&bytes);
            prop_assert_eq!(parsed.is_ok(), bytes.len() == 4096);
            if let Ok(params) = parsed {
                let used = usize::from(params.e820_entries).min(128);
                let more = extension.len() / 20;
                let node = SetupDataNode { kind: SETUP_E820_EXT, data: extension };
                let running = RunningBootParams { params, setup_data: vec![node] };
                prop_assert_eq!(running.e820().len(), used + more);
            }
        }
    }
}
