//! Kernels made byte by byte, with and without the configuration inside.

use std::io::Write as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::carry::Reads;
use crate::testing::bzimage::{PAYLOAD_OFFSET, SETUP_SIZE, TinyBzImage, field};

/// What the tiny kernel calls itself.
const RELEASE: &str = "6.12.0-tiny";
/// The header's field for where kernel_info is.
const KERNEL_INFO_OFFSET: usize = 0x268;
/// Where it is in the file.
const KERNEL_INFO: usize = SETUP_SIZE + 0x40;
const FULL: &str = "CONFIG_X86_64=y\nCONFIG_RANDOMIZE_BASE=y\n# CONFIG_OF is not set\n";
const POOLS: &str = "CONFIG_X86_64=y\nCONFIG_OF=y\nCONFIG_PMPOOL=y\n";
const OF_STRINGS: &str = "\0OF_NAME=%pOFn\0/sys/firmware/devicetree/base\0pmpool\0";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

/// A bzImage of [`RELEASE`] that holds `payload`, and kernel_info at 0x40.
fn bzimage(payload: &[u8]) -> Vec<u8> {
    let size = (PAYLOAD_OFFSET + payload.len()).next_multiple_of(16);
    TinyBzImage::new(size.max(0x800))
        .put(SETUP_SIZE + PAYLOAD_OFFSET, payload)
        .u32(field::PAYLOAD_LENGTH, payload.len().try_into().unwrap())
        .u32(KERNEL_INFO_OFFSET, 0x40)
        .put(KERNEL_INFO, b"LToP\x10\0\0\0\x10\0\0\0\x09\0\0\x80")
        .build()
}

/// The kernel that is packed into an image: `strings`, and a configuration inside.
fn kernel(strings: &str, ikconfig: Option<&str>) -> Vec<u8> {
    let mut kernel = format!("\x7fELF{strings}").into_bytes();
    if let Some(config) = ikconfig {
        kernel.extend(b"IKCFG_ST");
        kernel.extend(gzip(config.as_bytes()));
        kernel.extend(b"IKCFG_ED");
    }
    kernel
}

/// A directory for an image and, below `root`, a machine.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in [
            "images",
            "root/boot",
            &format!("root/lib/modules/{RELEASE}"),
        ] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        Self(dir)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap();
    }

    fn read(&self, file: &[u8]) -> Capability {
        let image = crate::image::bzimage::parse(file).unwrap().unwrap();
        let root = Root::at(self.path("root"));
        Capability::read(&image, &self.path("images/vmlinuz"), &root)
    }

    fn kernel(&self, strings: &str, ikconfig: Option<&str>) -> Capability {
        self.read(&bzimage(&gzip(&kernel(strings, ikconfig))))
    }
}

#[track_caller]
fn assert_facts(capability: &Capability, facts: [Fact; 3], read_from: &str) {
    let found = capability.facts();
    let values: Vec<Fact> = found.iter().map(|(_, fact)| fact.value).collect();
    assert_eq!(values[..3], facts, "{capability:?}");
    for (symbol, fact) in found {
        assert_eq!(fact.read_from, read_from, "{symbol}");
    }
}

use Fact::{No, Unknown, Yes};

#[test]
fn the_configuration_inside_goes_before_all_files() {
    let machine = Machine::new();
    machine.write("images/config-6.12.0-tiny", FULL);
    machine.write("root/boot/config-6.12.0-tiny", FULL);
    let capability = machine.kernel(OF_STRINGS, Some(POOLS));
    // RANDOMIZE_BASE is not mentioned, and the configuration is a whole one.
    assert_facts(&capability, [Yes, Yes, No], "IKCONFIG in the image");
    assert_eq!(capability.setup_type_max, Some(0x8000_0009));
    assert_eq!(capability.notes, [""; 0]);
    let size = kernel(OF_STRINGS, Some(POOLS)).len();
    assert_eq!(capability.unpacked, Ok(size));
}

#[test]
fn files_are_asked_in_order() {
    let machine = Machine::new();
    let lib = format!("root/lib/modules/{RELEASE}/config");
    machine.write(&lib, "CONFIG_X86_64=y\nCONFIG_OF=y\n");
    let capability = machine.kernel(OF_STRINGS, None);
    let from = "/lib/modules/6.12.0-tiny/config";
    assert_facts(&capability, [Yes, No, No], from);

    machine.write("root/boot/config-6.12.0-tiny", POOLS);
    let capability = machine.kernel(OF_STRINGS, None);
    assert_facts(&capability, [Yes, Yes, No], "/boot/config-6.12.0-tiny");

    machine.write("images/config-6.12.0-tiny", FULL);
    let capability = machine.kernel("", None);
    let from = "config-6.12.0-tiny beside the image";
    assert_facts(&capability, [No, No, Yes], from);
}

#[test]
fn a_fragment_says_nothing_of_what_it_does_not_mention() {
    let machine = Machine::new();
    let name = "images/config-6.12.0-tiny";
    let from = "config-6.12.0-tiny beside the image";
    machine.write(name, "CONFIG_OF=y\nCONFIG_PMPOOL=m\n");
    let capability = machine.kernel(OF_STRINGS, None);
    assert_facts(&capability, [Yes, Unknown, Unknown], from);
}

#[test]
fn a_file_that_the_kernel_contradicts_decides_nothing() {
    let machine = Machine::new();
    machine.write("images/config-6.12.0-tiny", POOLS);
    let from = "config-6.12.0-tiny beside the image is of another build: \
        texts in the kernel file say no to CONFIG_OF";
    assert_facts(&machine.kernel("", None), [Unknown; 3], from);
    machine.write("images/config-6.12.0-tiny", FULL);
    let from = from.replace("say no", "say yes");
    assert_facts(&machine.kernel(OF_STRINGS, None), [Unknown; 3], &from);
}

#[test]
fn without_a_configuration_strings_tell_of_a_device_tree_only() {
    let machine = Machine::new();
    let nothing = "no /boot/config-RELEASE, and none in the kernel file";
    for (strings, of, from) in [
        (OF_STRINGS, Yes, "guessed from texts in the kernel file"),
        ("nothing of it", No, "guessed from texts in the kernel file"),
        ("OF_NAME=", Unknown, nothing),
    ] {
        let capability = machine.kernel(strings, None);
        assert_eq!((capability.of.value, &*capability.of.read_from), (of, from));
        for fact in [&capability.pmpool, &capability.randomize_base] {
            assert_eq!((fact.value, &*fact.read_from), (Unknown, nothing));
        }
    }
    // Not a kernel at all: the absence of a string means nothing.
    let capability = machine.read(&bzimage(&gzip(b"text")));
    assert_facts(&capability, [Unknown; 3], nothing);
}

#[test]
fn what_cannot_be_unpacked_leaves_the_files_and_a_note() {
    let machine = Machine::new();
    let lzo = bzimage(b"\x89LZO\0\r\n\x1a\n");
    let capability = machine.read(&lzo);
    assert_facts(
        &capability,
        [Unknown; 3],
        "no /boot/config-RELEASE, and none in the kernel file",
    );
    let notes = ["the kernel in the image: lzo not supported"];
    assert_eq!(capability.notes, notes);
    assert!(capability.unpacked.is_err());
    machine.write("root/boot/config-6.12.0-tiny", POOLS);
    let capability = machine.read(&lzo);
    // Nobody can tell whether the file is this kernel's: a wrong yes costs a pool.
    assert_eq!(capability.of.value, Yes);
    assert_eq!(capability.pmpool.value, Unknown);
    assert!(!capability.surely_stays_put());

    let mut cut = gzip(&kernel(OF_STRINGS, None));
    cut.truncate(cut.len() - 12);
    let capability = machine.read(&bzimage(&cut));
    let notes = ["the kernel in the image: malformed gzip data: truncated"];
    assert_eq!(capability.notes, notes);
}

#[test]
fn damaged_configurations_are_noted_and_passed_over() {
    let machine = Machine::new();
    machine.write("images/config-6.12.0-tiny", "hello\n");
    std::fs::create_dir(machine.path("root/boot/config-6.12.0-tiny")).unwrap();
    machine.write(&format!("root/lib/modules/{RELEASE}/config"), FULL);
    let mut inside = kernel("", Some(POOLS));
    inside.truncate(inside.len() - 4);
    let capability = machine.read(&bzimage(&gzip(&inside)));
    let from = "/lib/modules/6.12.0-tiny/config";
    assert_facts(&capability, [No, No, Yes], from);
    let notes = [
        "IKCONFIG: no IKCFG_ED behind IKCFG_ST",
        "config-6.12.0-tiny beside the image: no line sets a symbol",
    ];
    assert_eq!(capability.notes, notes);
}

#[test]
fn a_release_that_is_a_path_leads_nowhere() {
    let machine = Machine::new();
    machine.write("root/evil", POOLS);
    let mut file = bzimage(&gzip(&kernel(OF_STRINGS, None)));
    file[0x600..0x60f].copy_from_slice(b"x/../../evil a\0");
    std::fs::create_dir(machine.path("root/boot/config-x")).unwrap();
    let capability = machine.read(&file);
    assert_eq!(capability.pmpool.value, Unknown);
    assert_eq!(
        capability.pmpool.read_from,
        "no /boot/config-RELEASE, and none in the kernel file"
    );
}

#[test]
fn kernel_info_is_believed_only_where_it_is_one() {
    let file = bzimage(&gzip(b"\x7fELF"));
    let max = |file: &[u8]| {
        crate::image::bzimage::parse(file)
            .unwrap()
            .unwrap()
            .setup_type_max
    };
    assert_eq!(max(&file), Some(0x8000_0009));
    for (at, bytes) in [
        (field::VERSION, &b"\x0e"[..]),            // protocol 2.14
        (KERNEL_INFO_OFFSET, b"\0\0\0\0"),         // no kernel_info
        (KERNEL_INFO_OFFSET, b"\x41\0\0\0"),       // not there
        (KERNEL_INFO_OFFSET, b"\xff\xff\xff\xff"), // outside
        (KERNEL_INFO + 4, b"\x0c\0\0\0"),          // too short to have it
    ] {
        let mut changed = file.clone();
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(max(&changed), None, "{at:#x}: {bytes:x?}");
    }
}

/// Texts of a kernel with Kexec Handover; what is freed after its start holds others, as
/// an initramfs with rkexec in it does.
fn with_kho(data: &[u8]) -> Vec<u8> {
    use crate::testing::elf::{ALLOC, sections};
    sections(&[
        (".rodata", ALLOC, data),
        (
            ".init.data",
            ALLOC,
            b"\0kho-v9\0luo-v9\0memfd-v9\0memblock-v9\0",
        ),
    ])
}

const HANDOVER: &[u8] = b"\0kho-v4\0luo-v5\0\xffmemfd-v2\0memblock-v1\0reserve-mem-v1\0";

fn names(capability: &Capability) -> [String; 4] {
    capability
        .kho
        .reads()
        .map(|(_, reads)| reads.name().to_owned())
}

#[test]
fn the_formats_of_kexec_handover_are_read_from_the_kernel_itself() {
    let machine = Machine::new();
    let of = |data: &[u8]| machine.read(&bzimage(&gzip(&with_kho(data))));
    assert_eq!(
        names(&of(HANDOVER)),
        ["kho-v4", "luo-v5", "memfd-v2", "memblock-v1"]
    );
    let built = of(HANDOVER).kho.built;
    assert_eq!(
        (built.value, &*built.read_from),
        (Yes, "guessed from texts in the kernel file")
    );
    let without = of(b"Passed KHO data, but CONFIG_KEXEC_HANDOVER not set. Ignoring.\0");
    assert_eq!(without.kho.built.value, No);
    assert_eq!(names(&without), ["none"; 4]);
    let two = of(b"kho-v4\0luo-v5\0luo-v1\0");
    assert_eq!(names(&two), ["kho-v4", "unknown", "none", "none"]);
    let both = ["luo-v1", "luo-v5"].map(str::to_owned);
    assert_eq!(two.kho.luo, Reads::OneOf(both.into()));
    // What is no kernel, or cannot be unpacked, tells nothing.
    assert_eq!(names(&machine.kernel("kho-v4\0", None)), ["unknown"; 4]);
    let packed = machine.read(&bzimage(b"\x89LZO\0\r\n\x1a\n"));
    assert_eq!(names(&packed), ["unknown"; 4]);
}

#[test]
fn a_configuration_and_the_texts_check_each_other() {
    let machine = Machine::new();
    let file = "images/config-6.12.0-tiny";
    let of = |data: &[u8]| machine.read(&bzimage(&gzip(&with_kho(data))));
    machine.write(
        file,
        "CONFIG_X86_64=y\nCONFIG_KEXEC_HANDOVER=y\nCONFIG_LIVEUPDATE=y\n",
    );
    let fits = of(HANDOVER);
    assert_eq!((fits.kho.built.value, fits.kho.default.value), (Yes, No));
    // Names that are made by rules of a later kernel are not found.
    assert_eq!(names(&of(b"kho-v4\0"))[1], "unknown");
    let other = of(b"no texts");
    assert_eq!(other.kho.built.value, Unknown);
    let from = &other.kho.built.read_from;
    assert!(
        from.ends_with("texts in the kernel file say no to CONFIG_KEXEC_HANDOVER"),
        "{from}"
    );
    machine.write(file, FULL);
    assert_eq!(of(HANDOVER).kho.built.value, Unknown);
}

#[test]
fn the_new_line_and_the_configuration_turn_it_on() {
    let machine = Machine::new();
    let mut target = machine.kernel("", None).kho;
    let is_on = |target: &KhoTarget, line: &str| target.is_on(line.into());
    assert_eq!(is_on(&target, "quiet"), Unknown);
    target.default.value = Yes;
    assert_eq!(is_on(&target, "quiet kho=x"), Yes);
    assert_eq!(is_on(&target, "kho=off"), No);
    target.default.value = No;
    assert_eq!(is_on(&target, "kho=off kho=on -- kho=off"), Yes);
    assert!(target.gives_sessions_back("liveupdate=y".into()));
    assert!(!target.gives_sessions_back("liveupdate".into()));
}
