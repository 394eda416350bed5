//! What a fuzzer calls: each function feeds any bytes to a parser, and to what
//! is built on it, and checks what must hold whenever the bytes are accepted.
//!
//! Shared by the fuzz targets and by tests/fuzz_corpus.rs, which runs the same
//! functions on stable. The answer says whether the bytes were accepted.
#![allow(dead_code, reason = "each fuzz target calls one of them")]
#![allow(clippy::unwrap_used, reason = "what cannot be is a finding")]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};
use std::time::Duration;

use rkexec::abi::kho::{self, Part};
use rkexec::abi::x86::boot_params::BootParams;
use rkexec::abi::x86::setup_data::{SETUP_DTB, SetupData};
use rkexec::base::Told;
use rkexec::boot::linux_x86::taken;
use rkexec::carry::Report;
use rkexec::carry::manifest::Manifest;
use rkexec::carry::phases::{downtime, phases};
use rkexec::carry::pool::Pool;
use rkexec::carry::pool_node::{pools_of, put_pool};
use rkexec::carry::reserved;
use rkexec::cmdline::{self, Cmdline, CmdlineBase, CmdlineError, CmdlineRequest};
use rkexec::fdt::{DeviceTree, MAX_BLOB, TreeError};
use rkexec::host::boot_params::{self, RunningBootParams, SetupDataNode};
use rkexec::host::firmware_memmap::{self, FirmwareRegion};
use rkexec::host::handed_over::HandedOver;
use rkexec::host::iomem::{self, Iomem, Resource};
use rkexec::host::place::Place;
use rkexec::host::{Host, cpu, loaded, security};
use rkexec::image::decompress::{self, DecompressError};
use rkexec::image::ikconfig;
use rkexec::image::lanzaboote::Stub;
use rkexec::image::multiboot::{self, Multiboot};
use rkexec::image::sections;
use rkexec::image::uki::{Addon, Uki};
use rkexec::image::{
    self, Contents, Found, LinuxKernel, Unpacked, bzimage, initramfs, initrd_files, vmlinux, whole,
};
use rkexec::kconfig::{KernelConfig, Symbol};
use rkexec::kho::forward::Tree;
use rkexec::memory::{MapPolicy, MemoryMap, Placement};
use rkexec::sys::tsc::Clock;
use rkexec::vmcore::Vmcore;

/// Where the chain of the target `chain` lies: any page will do.
const CHAIN_BASE: u64 = 0x7fff_f000;
/// Size of the zero page, bytes.
const ZERO_PAGE: usize = 4096;

/// A running command line, reused.
pub(crate) fn cmdline(data: &[u8]) -> bool {
    let request = CmdlineRequest {
        base: CmdlineBase::Running,
        ..CmdlineRequest::default()
    };
    let one_line = CmdlineRequest {
        base: CmdlineBase::Given(cmdline::one_line(data)),
        ..CmdlineRequest::default()
    };
    let one_line = Cmdline::make(&one_line, "", usize::MAX);
    assert!(!matches!(one_line, Err(CmdlineError::Newline(_))));
    for word in cmdline::words(data) {
        let (name, value) = cmdline::parameter(word);
        assert!(name.len() + value.map_or(0, |value| value.len()) <= word.len());
    }
    let Ok(line) = Cmdline::make(&request, data, usize::MAX) else {
        return false;
    };
    assert!(line.as_bstr().len() <= data.len());
    for name in ["BOOT_IMAGE", "initrd", "elfcorehdr"] {
        assert!(!cmdline::has(line.as_bstr(), name), "{name}");
    }
    assert!(!line.to_string().contains(char::is_control));
    match line.with("x=1") {
        Ok(with) => assert_eq!(cmdline::value(with.as_bstr(), "x"), Some("1".into())),
        Err(error) => assert!(matches!(error, CmdlineError::OpenQuote(_))),
    }
    true
}

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

/// A setup_data chain: nodes of a type (4 bytes), a length (2 bytes) and that many
/// bytes. What is built of them is walked by its addresses alone, and what
/// arrived of it is reported.
pub(crate) fn chain(data: &[u8]) -> bool {
    let mut nodes = Vec::new();
    let mut rest = data;
    while let Some((head, tail)) = rest.split_first_chunk::<6>() {
        let kind = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let Some((payload, tail)) = tail.split_at_checked(length) else {
            return false;
        };
        nodes.push((kind, payload));
        rest = tail;
    }
    let mut chain = SetupData::default();
    for (kind, payload) in &nodes {
        chain.push(*kind, payload.to_vec());
    }
    let built = chain.bytes_at(CHAIN_BASE);
    assert_eq!(built.len(), chain.size());
    assert_eq!(walk(&built), nodes);

    let arrived = nodes.iter().map(|(kind, payload)| SetupDataNode {
        kind: *kind,
        data: payload.to_vec(),
    });
    let setup_data: Vec<SetupDataNode> = arrived.collect();
    let fdt = setup_data.iter().rfind(|node| node.kind == SETUP_DTB);
    let host = Host {
        fdt: fdt.map(|node| node.data.clone()),
        boot_params: Some(RunningBootParams {
            params: BootParams::zeroed(),
            setup_data,
        }),
        ..host()
    };
    let Ok(report) = Report::of(&host, &Place::default(), &HandedOver::default()) else {
        return false;
    };
    // Whatever the stamps say.
    let clock = Clock {
        ticks: 1,
        within: Duration::from_secs(1),
        now: u64::MAX,
        uptime: Duration::MAX,
        asleep: Duration::ZERO,
    };
    let init = Some(Duration::ZERO);
    let phases = phases(&host, report.record.as_ref(), || Ok(clock), || init);
    assert_eq!(
        downtime(&phases).is_some(),
        phases.iter().all(|phase| phase.time.is_ok())
    );
    rest.is_empty() && report.record.is_some()
}

/// The nodes of a chain, as a kernel finds them (`parse_setup_data`).
fn walk(built: &[u8]) -> Vec<(u32, &[u8])> {
    let mut nodes = Vec::new();
    let mut at = if built.is_empty() { 0 } else { CHAIN_BASE };
    while at != 0 {
        let node = &built[usize::try_from(at - CHAIN_BASE).unwrap()..];
        let word = |at: usize| u32::from_le_bytes(node[at..at + 4].try_into().unwrap());
        let length = usize::try_from(word(12)).unwrap();
        nodes.push((word(8), &node[16..16 + length]));
        at = u64::from(word(4)) << 32 | u64::from(word(0));
    }
    nodes
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
        firmware_map: Some(regions),
        ..host()
    });
    accepted
}

/// A kernel's command line: what it takes away of its kernel's memory.
pub(crate) fn taken(data: &[u8]) -> bool {
    let ram = taken::taken(data, Told::RAM);
    let reserved = taken::taken(data, Told::RESERVED);
    for taken in ram.iter().chain(&reserved) {
        assert!(taken.word.starts_with(taken.parameter));
    }
    for pair in ram.windows(2) {
        assert!(pair[0].range.start() <= pair[1].range.start());
    }
    // What stands behind does not matter where nothing is open.
    if !data.contains(&b'"') {
        let behind = [data, b" quiet"].concat();
        assert_eq!(taken::taken(&behind, Told::RAM), ram);
    }
    !ram.is_empty()
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
    let parsed = bzimage::parse(data);
    assert_eq!(image::probe(data).is_ok(), matches!(parsed, Ok(Some(_))));
    let Ok(Some(image)) = parsed else {
        return false;
    };
    let kernel = &image.loads[0].bytes;
    // What the header says is the kernel: no byte in front of it, and maybe some behind.
    assert!(data.as_ptr_range().end >= kernel.as_ptr_range().end);
    assert!(!kernel.is_empty() && kernel.len() < image.file.len());
    assert!(image.payload.len() <= kernel.len());
    assert!(image.geometry.size >= kernel.len() as u64);
    assert!(image.geometry.align.is_power_of_two());
    assert!(image.cmdline_limit > 0);
    assert!(image.protocol() >= (2, 10));
    assert!(data.starts_with(image.file) && image.file.len() + image.behind == data.len());
    assert!(!image.is_32_bit() || !image.reaches_above_4g());
    if let Some(version) = image.version {
        assert!(!version.chars().any(char::is_control));
    }
    let _ = (image.release(), image.compression(), image.setup_type_max);
    true
}

/// A multiboot kernel of either version.
pub(crate) fn multiboot(data: &[u8]) -> bool {
    let _ = multiboot::near_miss(data);
    // Each of its headers can be asked for.
    for version in [multiboot::Version::One, multiboot::Version::Two] {
        if let Ok(Some(kernel)) = Multiboot::parse_as(data, version) {
            assert_eq!(kernel.version, version);
        }
    }
    let Ok(Some(kernel)) = Multiboot::parse(data) else {
        return false;
    };
    let mut end = kernel.span.start();
    for load in &kernel.loads {
        assert!(load.range.start() >= end && load.bytes.len() as u64 <= load.range.size());
        end = load.range.end();
    }
    assert!(end == kernel.span.end() && end <= 1 << 32);
    assert!(kernel.span.contains(kernel.entry));
    let mut end = 0;
    for piece in multiboot::pieces(&kernel.loads, 0x1234_5000).unwrap() {
        assert!(piece.mem.start() >= end && piece.bytes.len() as u64 <= piece.mem.size());
        assert!(piece.mem.start() % 4096 == 0 && piece.mem.end() % 4096 == 0);
        end = piece.mem.end();
    }
    true
}

/// A kernel in ELF.
pub(crate) fn vmlinux(data: &[u8]) -> bool {
    let Ok(Some(image)) = vmlinux::parse(data) else {
        return false;
    };
    let mut end = 0;
    for load in &image.loads {
        assert!(!load.bytes.is_empty() && load.offset >= end && load.offset % 4096 == 0);
        end = load.offset + load.bytes.len() as u64;
    }
    assert!(end <= image.geometry.size);
    assert!(image.loads[0].offset == 0 && image.entry < end);
    assert!(image.release().is_some() && image.cmdline_limit > 0);
    true
}

/// A kernel in ELF with relocation lists behind it.
pub(crate) fn relocations(data: &[u8]) -> bool {
    let Ok(Some(file)) = vmlinux::parse(data) else {
        return false;
    };
    let (mut there, still) = match (Unpacked::of(&file), Unpacked::of(&file)) {
        (Ok(there), Ok(still)) if there.is_relocatable() => (there, still),
        (one, other) => {
            assert_eq!(one.is_ok(), other.is_ok());
            return false;
        }
    };
    assert_eq!(
        (there.geometry().floor, there.geometry().size),
        (file.geometry.floor, file.geometry.size)
    );
    there.relocate(0x1234_0000_0020_0000);
    let (there, still) = (there.into_kernel(&file), still.into_kernel(&file));
    assert_eq!(still.loads, file.loads);
    // Nothing grows or moves.
    let places = |kernel: &LinuxKernel<'_>| -> Vec<(u64, usize)> {
        let loads = kernel.loads.iter();
        loads.map(|load| (load.offset, load.bytes.len())).collect()
    };
    assert_eq!(places(&there), places(&file));
    true
}

/// A UKI, or an addon to one.
pub(crate) fn uki(data: &[u8]) -> bool {
    let uki = match Uki::parse(data) {
        Ok(Some(uki)) => uki,
        _ => match Addon::parse(data) {
            Ok(addon) => addon.parts().clone(),
            Err(_) => return false,
        },
    };
    let file = data.as_ptr_range();
    for section in uki.sections.iter().filter(|it| !it.bytes.is_empty()) {
        let part = section.bytes.as_ptr_range();
        assert!(file.start <= part.start && part.end <= file.end);
        let _ = section.text();
    }
    for number in 0..uki.profiles.len() {
        let uki = uki.clone().choose(&format!("@{number}")).unwrap();
        let _ = (uki.kernel(), uki.initrds(), uki.dtb(), uki.is_signed());
        if let Some(line) = uki.cmdline() {
            assert!(line.iter().all(|byte| *byte >= b' '));
        }
    }
    if let Ok(contents) = Contents::of(data)
        && let Ok(Found { image, uki }) = image::open(&contents, None)
    {
        let kernel = image.linux().unwrap();
        // A file can be a bzImage as well, and is taken for one then.
        assert_eq!(kernel.format_name().starts_with("UKI of "), uki.is_some());
    }
    true
}

/// A lanzaboote stub.
pub(crate) fn lanzaboote(data: &[u8]) -> bool {
    let Some(stub) = Stub::parse(data) else {
        return false;
    };
    assert!(!stub.kernel.path.is_empty() && stub.kernel.hex().len() == 64);
    assert!(!stub.to_string().contains(char::is_control));
    if let Ok(contents) = Contents::of(data) {
        let read = image::open(&contents, None);
        // A file can be a bzImage as well, and is taken for one then.
        assert!(read.is_err() || matches!(bzimage::parse(data), Ok(Some(_))));
    }
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
    // A fragment tells nothing of what it does not mention.
    let running = security::RunningConfig::parse(data);
    let is_told = config.get("CONFIG_KEXEC").is_some() || config.is_complete();
    assert!(is_told || running.kexec.is_none());
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

/// An unpacked kernel, with the names of the formats of Kexec Handover that it reads.
pub(crate) fn kho_kernel(data: &[u8]) -> bool {
    let Some(parts) = sections::kept(data) else {
        return false;
    };
    assert!(parts.iter().map(|part| part.len()).sum::<usize>() <= data.len());
    let formats = Part::ALL.map(|part| {
        let found = parts.iter().flat_map(|bytes| part.formats(bytes));
        let found: BTreeSet<String> = found.collect();
        let start = format!("{}-v", part.name());
        assert!(found.iter().all(|name| name.starts_with(&start)));
        found.len()
    });
    formats.iter().any(|found| *found > 0)
}

/// What a kernel with Kexec Handover shows: the count of kernels, or what reserve_mem=
/// set aside.
pub(crate) fn kho_blob(data: &[u8]) -> bool {
    let pools = reserved::reserved(Some(data), "".into());
    for pool in &pools {
        let line = format!("reserve_mem={:#x}:0:{}", pool.size, pool.name);
        let aligned = pool.start.is_some_and(|start| start % 64 == 0);
        let words = reserved::words(line.as_str().into());
        let asked = words.iter().any(|word| pool.is_asked_by(word));
        // A word has a size, and a name of 15 bytes at most.
        assert!(!asked || aligned);
        assert!(asked || !aligned || words.is_empty());
    }
    kho::generation(data).is_some() || !pools.is_empty()
}

/// The tree that a kernel with Kexec Handover hands over, beside which debugfs shows the
/// blobs LUO and memblock: what is written again leads to the same.
pub(crate) fn kho_tree(data: &[u8]) -> bool {
    let blobs = [("LUO", 32), ("kexec-metadata", 73), ("memblock", 210)];
    let blobs = blobs.map(|(name, size)| (name.to_owned(), size));
    let Ok(tree) = Tree::read(data, &blobs) else {
        return false;
    };
    let names: Vec<&str> = tree.names().collect();
    assert!(names.contains(&"LUO") && names.contains(&"memblock"));
    assert_eq!(
        Tree::read(&tree.write().unwrap(), &blobs).as_ref(),
        Ok(&tree)
    );
    true
}

/// The manifest of files that were handed over: no name leads out of a directory.
pub(crate) fn manifest(data: &[u8]) -> bool {
    let Ok(manifest) = Manifest::parse(data) else {
        return false;
    };
    let mut names = BTreeSet::new();
    for (token, name, _) in manifest.files() {
        let path = Path::new(OsStr::from_bytes(name));
        let mut parts = path.components();
        assert!(matches!(parts.next(), Some(Component::Normal(part)) if part == path));
        assert!(parts.next().is_none() && !name.contains(&0));
        assert!(token > 0 && names.insert(name.clone()));
    }
    let again = Manifest::parse(&manifest.encode().unwrap());
    assert_eq!(again.as_ref(), Ok(&manifest));
    true
}

/// A packed kernel, by the format that its first bytes name.
pub(crate) fn decompress(data: &[u8]) -> bool {
    const CAP: usize = 1 << 20;
    let format = decompress::compression(data);
    let whole = decompress::decompress(data, CAP);
    // Counting is unpacking without keeping.
    let size = whole.as_ref().ok().map(|plain| plain.len() as u64);
    assert_eq!(decompress::unpacked_size(data, CAP).ok(), size);
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

/// An initrd.
pub(crate) fn initrd(data: &[u8]) -> bool {
    const CAP: usize = 1 << 20;
    let whole = whole::check(data);
    if let Err(flaw) = &whole {
        let said = flaw.to_string();
        assert!(!said.is_empty() && !said.contains(char::is_control));
    }
    let _ = initramfs::unpacked_size(data, CAP);
    let _ = initrd_files::names(data, CAP, |_, name| assert!(name.len() < 4096));
    let _ = initramfs::compression(data);
    whole.is_ok()
}

/// A dump of a crashed kernel.
pub(crate) fn vmcore(data: &[u8]) -> bool {
    let Ok(vmcore) = Vmcore::open(data) else {
        return false;
    };
    let Ok(log) = vmcore.log() else {
        return false;
    };
    let mut accepted = false;
    for record in log.take(1 << 16).flatten() {
        accepted = true;
        assert!(record.text.len() <= usize::from(u16::MAX));
        let line = record.to_string();
        let newlines = record.text.iter().filter(|byte| **byte == b'\n').count();
        assert!(line.is_ascii() && line.split('\n').count() == newlines + 1);
    }
    accepted
}

/// A device tree blob.
pub(crate) fn device_tree(data: &[u8]) -> bool {
    let Ok(mut tree) = DeviceTree::read(data) else {
        return false;
    };
    check_tree(&tree);
    if let Ok(pool) = Pool::parse_option("1G,1M,name=fuzz")
        && put_pool(&mut tree, &pool).is_ok()
    {
        check_tree(&tree);
        let found = tree.node("/chosen/fuzz").and_then(|it| it.property("base"));
        assert_eq!(found, Some(&(1_u64 << 30).to_be_bytes()[..]));
    }
    true
}

fn check_tree(tree: &DeviceTree) {
    for pool in pools_of(tree).unwrap_or_default() {
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
        cmdline: Default::default(),
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
        possible_cpus: None,
        watchdogs: rkexec::host::watchdog::Watchdogs::default(),
        crash: rkexec::host::crash::CrashFacts::default(),
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
        for pair in map.told().windows(2) {
            if let [(before, _), (after, _)] = pair {
                assert!(before.end() <= after.start());
            }
        }
    }
}
