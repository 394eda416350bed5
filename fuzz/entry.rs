//! What a fuzzer calls: each function feeds any bytes to a parser, and to what
//! is built on it, and checks what must hold whenever the bytes are accepted.
//!
//! Shared by the fuzz targets and by tests/fuzz_corpus.rs, which runs the same
//! functions on stable. The answer says whether the bytes were accepted.
#![allow(dead_code, reason = "each fuzz target calls one of them")]

use std::collections::BTreeSet;

use rkexec::handover::device_tree::{DeviceTree, MAX_BLOB, TreeError};
use rkexec::handover::pool::Pool;
use rkexec::host::boot_params::{self, RunningBootParams, SetupDataNode};
use rkexec::host::firmware_memmap::{self, FirmwareRegion};
use rkexec::host::iomem::{self, Iomem, Resource};
use rkexec::host::{Host, cpu, loaded, security};
use rkexec::image::decompress::{self, DecompressError};
use rkexec::image::ikconfig::{self, KernelConfig, Symbol};
use rkexec::image::{self, BzImage};
use rkexec::memory::{MapPolicy, MemoryMap, Placement};

/// Size of the zero page, bytes.
const ZERO_PAGE: usize = 4096;

/// /proc/iomem.
pub(crate) fn iomem(data: &[u8]) -> bool {
    let Ok(tree) = iomem::parse(data) else {
        return false;
    };
    check_siblings(&tree.roots);
    let printed = tree.to_string();
    assert_eq!(iomem::parse(printed.as_bytes()).as_ref(), Ok(&tree));
    check_map(&Host {
        iomem: tree,
        ..host()
    });
    true
}

/// /sys/firmware/memmap: the files `start`, `end` and `type` of entry after
/// entry, each ended by a NUL.
pub(crate) fn memmap(data: &[u8]) -> bool {
    let files: Vec<&[u8]> = data.split(|byte| *byte == 0).collect();
    let regions: Result<Vec<FirmwareRegion>, String> = files
        .as_chunks::<3>()
        .0
        .iter()
        .map(|[start, end, kind]| firmware_memmap::parse(start, end, kind))
        .collect();
    let Ok(regions) = regions else {
        return false;
    };
    let accepted = !regions.is_empty();
    for region in &regions {
        assert!(!region.name.is_empty() && !region.name.contains('\n'));
    }
    check_map(&Host {
        fdt: None,
        firmware_map: Some(regions),
        ..host()
    });
    accepted
}

/// /sys/kernel/boot_params/data, followed by the payload of a SETUP_E820_EXT node.
pub(crate) fn boot_params(data: &[u8]) -> bool {
    // The kernel's file has no other length.
    assert_eq!(boot_params::parse(data).is_ok(), data.len() == ZERO_PAGE);
    // The bytes are those of the `type` file as well.
    if let Ok(kind) = boot_params::parse_type(data) {
        let again = format!("{kind:#x}\n");
        assert_eq!(boot_params::parse_type(again.as_bytes()), Ok(kind));
    }
    let Some((page, extended)) = data.split_at_checked(ZERO_PAGE) else {
        return false;
    };
    let Ok(params) = boot_params::parse(page) else {
        return false;
    };
    assert!(params.e820().len() <= 128);
    let setup_data = vec![SetupDataNode {
        kind: 1,
        data: extended.to_vec(),
    }];
    let running = RunningBootParams { params, setup_data };
    assert!(running.e820().len() <= 128 + extended.len() / 20);
    check_map(&Host {
        boot_params: Some(running),
        ..host()
    });
    true
}

/// A kernel file.
pub(crate) fn bzimage(data: &[u8]) -> bool {
    let parsed = BzImage::parse(data);
    assert_eq!(image::probe(data).is_ok(), matches!(parsed, Ok(Some(_))));
    let Ok(Some(image)) = parsed else {
        return false;
    };
    assert!(data.ends_with(image.kernel) && image.kernel.len() < data.len());
    assert!(image.payload.len() <= image.kernel.len());
    assert!(u64::from(image.header.init_size.get()) >= image.kernel.len() as u64);
    assert!(image.header.kernel_alignment.get().is_power_of_two());
    assert!(image.cmdline_limit() > 0);
    assert!(image.protocol() >= (2, 12));
    if let Some(version) = image.version {
        assert!(!version.chars().any(char::is_control));
    }
    let _ = (image.release(), image.compression(), image.setup_type_max());
    true
}

/// The text of a kernel's configuration.
pub(crate) fn kernel_config(data: &[u8]) -> bool {
    let Some(config) = KernelConfig::parse(data) else {
        return false;
    };
    let text: String = config
        .symbols()
        .map(|(name, symbol)| match symbol {
            Symbol::Yes => format!("{name}=y\n"),
            Symbol::Module => format!("{name}=m\n"),
            Symbol::NotSet => format!("# {name} is not set\n"),
            Symbol::Value(value) => format!("{name}={value}\n"),
        })
        .collect();
    assert_eq!(KernelConfig::parse(text.as_bytes()), Some(config));
    true
}

/// An unpacked kernel, with its configuration inside.
pub(crate) fn ikconfig(data: &[u8]) -> bool {
    let found = ikconfig::find(data);
    if let Ok(Some(config)) = &found {
        assert!(config.symbols().next().is_some());
        // What is around the first configuration does not matter.
        let around = [b"\x7fELF IKCFG_ST ", data, b"IKCFG_ED"].concat();
        assert_eq!(ikconfig::find(&around), found);
    }
    matches!(found, Ok(Some(_)))
}

/// A packed kernel, by the format that its first bytes name.
pub(crate) fn decompress(data: &[u8]) -> bool {
    const CAP: usize = 1 << 20;
    let format = decompress::compression(data);
    let whole = decompress::decompress(data, CAP);
    let Ok(plain) = whole else {
        if format.is_none() {
            assert!(matches!(whole, Err(DecompressError::Unknown(_))));
        }
        return false;
    };
    assert!(format.is_some() && plain.len() <= CAP);
    // The cap holds to the byte, and says so.
    if let Some(cap) = plain.len().checked_sub(1) {
        let error = decompress::decompress(data, cap);
        assert!(matches!(error, Err(DecompressError::TooLarge { .. })));
    }
    true
}

/// A device tree blob.
pub(crate) fn device_tree(data: &[u8]) -> bool {
    let Ok(mut tree) = DeviceTree::read(data) else {
        return false;
    };
    check_tree(&tree);
    if let Ok(pool) = Pool::parse_option("1G,1M,name=fuzz")
        && tree.set_pool(&pool).is_ok()
    {
        check_tree(&tree);
        let found = tree.node("/chosen/fuzz").and_then(|it| it.property("base"));
        assert_eq!(found, Some(&(1_u64 << 30).to_be_bytes()[..]));
    }
    true
}

fn check_tree(tree: &DeviceTree) {
    for pool in tree.pools().unwrap_or_default() {
        assert!(pool.range().contains(pool.bitmap()));
    }
    assert!(tree.to_dts().ends_with("};\n"));
    match tree.write() {
        Ok(blob) => {
            assert!(blob.len() <= MAX_BLOB);
            assert_eq!(DeviceTree::read(&blob).as_ref(), Ok(tree));
        }
        Err(error) => assert!(matches!(error, TreeError::TooBig { .. }), "{error}"),
    }
}

/// A machine that says nothing.
fn host() -> Host {
    Host {
        release: String::new(),
        cmdline: String::new(),
        iomem: Iomem::default(),
        fdt: None,
        firmware_map: None,
        boot_params: None,
        efi: None,
        cpu: cpu::Cpu::default(),
        total_ram: 0,
        available_ram: 0,
        security: security::Security::default(),
        loaded: loaded::Loaded::default(),
        serial: None,
    }
}

/// Resources are in order, apart from each other, and hold their children.
fn check_siblings(resources: &[Resource]) {
    for pair in resources.windows(2) {
        if let [before, after] = pair {
            assert!(before.range.end() <= after.range.start());
        }
    }
    for resource in resources {
        for child in &resource.children {
            assert!(resource.range.covers(child.range));
        }
        check_siblings(&resource.children);
    }
}

/// Whatever the machine says: regions are in order and apart, and segments may
/// go only where /proc/iomem says `System RAM`, and not a driver's.
fn check_map(host: &Host) {
    for policy in [MapPolicy::FixedUp, MapPolicy::Firmware] {
        let map = MemoryMap::reconcile(host, policy, &BTreeSet::new());
        for pair in map.regions().windows(2) {
            if let [before, after] = pair {
                assert!(before.range.end() <= after.range.start());
            }
        }
        for region in map.regions() {
            if region.placement != Placement::Never {
                assert_eq!(region.sources.iomem.as_deref(), Some("System RAM"));
            }
        }
        for pair in map.e820().windows(2) {
            if let [(before, _), (after, _)] = pair {
                assert!(before.end() <= after.start());
            }
        }
    }
}
