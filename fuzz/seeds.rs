//! Inputs that the parsers accept, made byte by byte: where fuzzing starts.
//!
//! Shared by make_corpus.rs and tests/fuzz_corpus.rs.

#[path = "../tests/common/vmcore.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod tiny_vmcore;

#[path = "../tests/common/multiboot.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod tiny_multiboot;

#[path = "../tests/common/elf.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod tiny_elf;

#[path = "seeds_machine.rs"]
mod seeds_machine;

use tiny_multiboot::{Segment, TinyElf, header_v1, header_v2, tag};
use tiny_vmcore::{State, TinyRing};

/// The targets and their seeds.
pub(crate) fn all() -> [(&'static str, Vec<Vec<u8>>); 36] {
    [
        ("manifest", manifest()),
        ("gpt", seeds_machine::gpt()),
        ("efi_tables", seeds_machine::efi_tables()),
        ("mounts", seeds_machine::mounts()),
        ("boot_entry", boot_entry()),
        ("loader_conf", loader_conf()),
        ("grubenv", grubenv()),
        ("default_kexec", default_kexec()),
        ("grub_cfg", grub_cfg()),
        ("extlinux", extlinux()),
        ("iomem", iomem()),
        ("cmdline", cmdline()),
        ("memmap", memmap()),
        ("taken", taken()),
        ("boot_params", boot_params()),
        ("bzimage", bzimage()),
        ("vmlinux", vmlinux()),
        ("relocations", relocations()),
        ("multiboot", multiboot()),
        ("uki", uki()),
        ("lanzaboote", lanzaboote()),
        ("device_tree", device_tree()),
        ("chain", chain()),
        ("vmcore", vmcore()),
        ("kernel_config", kernel_config()),
        ("ikconfig", ikconfig()),
        ("kho_kernel", kho_kernel()),
        ("kho_blob", kho_blob()),
        ("kho_tree", kho_tree()),
        ("initrd", initrd()),
        ("gzip", packed(include_bytes!("../tests/data/plain.gz"))),
        ("bzip2", packed(include_bytes!("../tests/data/plain.bz2"))),
        ("lzma", packed(include_bytes!("../tests/data/plain.lzma"))),
        ("xz", packed(include_bytes!("../tests/data/plain.xz"))),
        ("zstd", packed(include_bytes!("../tests/data/plain.zst"))),
        (
            "lz4",
            [
                packed(include_bytes!("../tests/data/plain.lz4")),
                packed(include_bytes!("../tests/data/plain.frame.lz4")),
            ]
            .concat(),
        ),
    ]
}

/// What a real tool packed; and that as the payload of a bzImage, with the size
/// of the unpacked kernel behind it, and more bytes, in which changes are no fault.
fn packed(file: &[u8]) -> Vec<Vec<u8>> {
    let plain = include_bytes!("../tests/data/plain").len() as u64;
    let size = &plain.to_le_bytes()[..4];
    vec![file.to_vec(), [file, size, &vec![0; file.len()]].concat()]
}

/// Initrds in every packing, alone and behind microcode.
fn initrd() -> Vec<Vec<u8>> {
    let cpio = &include_bytes!("../tests/data/initrd/cpio")[..];
    let packed: [&[u8]; 6] = [
        include_bytes!("../tests/data/initrd/cpio.gz"),
        include_bytes!("../tests/data/initrd/cpio.bz2"),
        include_bytes!("../tests/data/initrd/cpio.lzma"),
        include_bytes!("../tests/data/initrd/cpio.xz"),
        include_bytes!("../tests/data/initrd/cpio.zst"),
        include_bytes!("../tests/data/initrd/cpio.lz4"),
    ];
    let behind = packed.iter().map(|packed| [cpio, packed].concat());
    let alone = packed.iter().map(|packed| packed.to_vec());
    alone.chain(behind).chain([cpio.to_vec()]).collect()
}

/// Dumps whose ring has not yet wrapped, and has, with memory of its own.
fn vmcore() -> Vec<Vec<u8>> {
    let ring = |records: u8| {
        let mut ring = TinyRing::new(3, 8).dynamic(records > 8);
        for record in 0..records {
            ring.write(&[b'a' + record, b'\n', 0x80], State::Finalized);
        }
        ring.vmcore().build()
    };
    vec![ring(3), ring(20)]
}

/// A chain as rkexec hands it over: E820_EXT, DTB, RNG_SEED, a pool, the time stamps, the
/// record.
fn chain() -> Vec<Vec<u8>> {
    let record = "RKXREC1\n{\"rkexec\":\"0.1.0\",\"loaded_at\":1800000000,\"from\":\"6.1\",\
        \"release\":null,\"cmdline\":\"quiet\",\"e820\":[[4096,8192,1]],\"e820_complete\":true,\
        \"setup_data\":[[1,20],[9,32]],\"device_tree\":null,\"kernel\":null,\"initrd\":[],\
        \"pools\":[{\"name\":\"p\",\"base\":4096,\"size\":4096,\"bitmap\":4096,\
        \"protection\":\"indirect\"}]}";
    let node = |kind: u32, payload: &[u8]| {
        let length = u16::try_from(payload.len())
            .unwrap_or(u16::MAX)
            .to_le_bytes();
        [&kind.to_le_bytes()[..], &length, payload].concat()
    };
    let times = [1_500_000_000_u64, 7, 8, 9, 0];
    let times = times.into_iter().flat_map(u64::to_le_bytes);
    let stamps: Vec<u8> = b"RKXTIME1".iter().copied().chain(times).collect();
    let nodes = [
        node(1, &[7; 20]),
        node(9, &[9; 32]),
        node(1 << 31, &[1; 24]),
        node(0, &stamps),
        node(0, record.as_bytes()),
    ];
    let tree = device_tree().swap_remove(0);
    vec![
        nodes.concat(),
        [node(2, &tree), node(0, record.as_bytes())].concat(),
    ]
}

/// Manifests: of no file, of two, and with a field that nobody knows.
fn manifest() -> Vec<Vec<u8>> {
    let (one, other) = ("0a".repeat(32), "ff".repeat(32));
    let file = format!(r#"{{"name":"vm.img","size":777777,"sha256":"{one}"}}"#);
    let bytes = format!(r#"{{"name":{{"bytes":"636166e9"}},"size":0,"sha256":"{other}"}}"#);
    let note = "a field of a later version ".repeat(20);
    [
        r#"{"manifest":1,"files":[]}"#.to_owned(),
        format!(r#"{{"manifest":1,"files":[{file},{bytes}]}}"#),
        format!(r#"{{"manifest":1,"note":"{note}","files":[{file}]}}"#),
    ]
    .map(String::into_bytes)
    .to_vec()
}

/// Configurations: some lines of a kernel's own, and a fragment.
fn kernel_config() -> Vec<Vec<u8>> {
    let own = "\
#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.12.0 Kernel Configuration
#
CONFIG_CC_VERSION_TEXT=\"gcc (Debian 12.2.0) 12.2.0\"
CONFIG_X86_64=y
CONFIG_IKCONFIG=m
CONFIG_PHYSICAL_START=0x1000000
# CONFIG_OF is not set
CONFIG_RANDOMIZE_BASE=y
";
    [own, "CONFIG_OF=y\n# CONFIG_PMPOOL is not set\n"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// Unpacked kernels that hold a configuration: gzip with a stored block, so
/// that mutations reach the text.
fn ikconfig() -> Vec<Vec<u8>> {
    kernel_config()
        .iter()
        .map(|text| {
            let (size, mut crc) = (text.len() as u64, u32::MAX);
            for byte in text {
                crc ^= u32::from(*byte);
                for _ in 0..8 {
                    crc = (crc >> 1) ^ (0xedb8_8320 * (crc & 1));
                }
            }
            let size = size.to_le_bytes();
            [
                &b"\x7fELF\0IKCFG_ST"[..],
                &[
                    0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1, size[0], size[1], !size[0], !size[1],
                ],
                text,
                &(!crc).to_le_bytes(),
                &size[..4],
                b"IKCFG_ED\0",
            ]
            .concat()
        })
        .collect()
}

/// /proc/iomem of a plain machine, one with driver-managed memory, and one
/// nested deeper than its indentation shows.
fn iomem() -> Vec<Vec<u8>> {
    let plain = "\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
0009fc00-0009ffff : Reserved
000a0000-000bffff : PCI Bus 0000:00
000f0000-000fffff : Reserved
  000f0000-000fffff : System ROM
00100000-bffdffff : System RAM
  2a000000-39ffffff : Crash kernel
  7a000000-7b602101 : Kernel code
bffe0000-bfffffff : ACPI Tables
fee00000-fee00fff : Local APIC
100000000-23fffffff : System RAM
";
    let driver = "\
00001000-0009fbff : System RAM
00100000-7fffffff : System RAM
100000000-1ffffffff : Persistent Memory
  100000000-1ffffffff : namespace0.0
    140000000-1bfffffff : dax0.0
      140000000-1bfffffff : System RAM (kmem)
240000000-2bfffffff : virtio0
  240000000-247ffffff : System RAM (virtio_mem)
2c0000000-2ffffffff : Soft Reserved
";
    let deep = "\
f0000000-ffffffff : PCI Bus 0000:00
  f0000000-feffffff : PCI Bus 0000:01
    f0000000-fdffffff : PCI Bus 0000:02
      f0000000-fcffffff : PCI Bus 0000:03
        f0000000-fbffffff : PCI Bus 0000:04
          f0000000-faffffff : PCI Bus 0000:05
          f0000000-f9ffffff : 0000:05:00.0
          f0000000-f8ffffff : nvme
";
    [plain, driver, deep]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

/// Command lines that take memory away.
fn taken() -> Vec<Vec<u8>> {
    let lines = [
        "mem=8G",
        "quiet memmap=1G$7G",
        "crashkernel=256M@1G",
        "quiet memmap=1G$7G,64M!0x20000000 mem=8G memmap=64K#1G",
        "memmap=exactmap memmap=640K@0 memmap=260M@768M memmap=1M%1G-1+13",
        "crashkernel=512M-2G:64M,2G-:256M@0x10000000 cma=64M@1G-1088M pmpool=1G,64M",
        "memmap=\"1G$7G\" x=\"a b\" memmap=256M%0x10000000-2+1 -- mem=1G",
    ];
    lines.map(|line| line.as_bytes().to_vec()).to_vec()
}

/// Command lines with quotes, bytes that are no UTF-8, and words for init.
fn cmdline() -> Vec<Vec<u8>> {
    let lines: [&[u8]; 4] = [
        b"BOOT_IMAGE=/vmlinuz root=LABEL=caf\xe9 quiet initrd=\\x.img -- initrd=3",
        b"dyndbg=\"file a +p; initrd=b\" memmap=exactmap \"memmap=64K@0 1\" x=\"\n\"",
        b"quiet\xc2\xa0initrd=x\xc2\xa0memmap=1G$2G root=LABEL=\xc3\xa0mes\xc3\xa0",
        b" \t a==b =c \"d\" elfcorehdr=0x1 \x0b--\xff",
    ];
    lines.map(<[u8]>::to_vec).to_vec()
}

/// Entries of /sys/firmware/memmap, their files ended by NULs.
fn memmap() -> Vec<Vec<u8>> {
    let plain: &[[&str; 3]] = &[
        ["0x0", "0x9fbff", "System RAM"],
        ["0x9fc00", "0x9ffff", "Reserved"],
        ["0x100000", "0xbffdffff", "System RAM"],
        ["0xbffe0000", "0xbfffffff", "ACPI Tables"],
        ["0x100000000", "0x23fffffff", "System RAM"],
    ];
    let rare: &[[&str; 3]] = &[
        ["0x1000", "0x1fff", "ACPI Non-volatile Storage"],
        ["0x2000", "0x2fff", "Unusable memory"],
        ["0x100000000", "0x17fffffff", "Persistent Memory (legacy)"],
        ["0x180000000", "0x1bfffffff", "Soft Reserved"],
        ["0x0", "0xfffffffffffffffe", "Unknown E820 type"],
    ];
    [plain, rare]
        .map(|entries| {
            let files = entries.iter().flatten();
            files
                .flat_map(|file| format!("{file}\n\0").into_bytes())
                .collect()
        })
        .to_vec()
}

fn put(to: &mut [u8], offset: usize, bytes: &[u8]) {
    to[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// One entry of an e820 table: 20 bytes.
fn e820_entry(address: u64, size: u64, kind: u32) -> Vec<u8> {
    [
        &address.to_le_bytes()[..],
        &size.to_le_bytes(),
        &kind.to_le_bytes(),
    ]
    .concat()
}

/// Zero pages: empty, with a short e820, and with a full one that goes on in
/// SETUP_E820_EXT.
fn boot_params() -> Vec<Vec<u8>> {
    let empty = vec![0; 4096];
    let mut short = empty.clone();
    let table = [
        e820_entry(0, 0x9fc00, 1),
        e820_entry(0x9_fc00, 0x400, 2),
        e820_entry(0x10_0000, 0xbfee_0000, 1),
        e820_entry(0x1_0000_0000, 0x4000_0000, 7),
    ];
    short[0x1e8] = 4;
    put(&mut short, 0x2d0, &table.concat());
    put(&mut short, 0x202, b"HdrS");

    let mut full = empty.clone();
    full[0x1e8] = 128;
    let entry = |n: u64| e820_entry(n << 21, 1 << 20, 1 + u32::from(n.is_multiple_of(3)));
    let table: Vec<u8> = (0..128).flat_map(entry).collect();
    put(&mut full, 0x2d0, &table);
    full.extend((128..140).flat_map(entry));
    vec![empty, short, full]
}

/// bzImages with a small kernel: setup_sects given, and 0, which means 4.
fn bzimage() -> Vec<Vec<u8>> {
    [(1_u8, 2_usize), (0, 5)]
        .map(|(setup_sects, sectors)| {
            let setup = sectors * 512;
            let mut file = vec![0; setup + 0x400];
            put(&mut file, 0, b"MZ");
            file[0x1f1] = setup_sects;
            put(&mut file, 0x1f4, &0x40_u32.to_le_bytes()); // syssize, 16-byte units
            put(&mut file, 0x1fe, &0xaa55_u16.to_le_bytes());
            put(&mut file, 0x200, &[0xeb, 0x6a]); // the header ends at 0x26c
            put(&mut file, 0x202, b"HdrS");
            put(&mut file, 0x206, &0x020f_u16.to_le_bytes());
            put(&mut file, 0x20e, &0x0100_u16.to_le_bytes()); // kernel_version, less 0x200
            file[0x211] = 1; // loadflags: LOADED_HIGH
            put(&mut file, 0x22c, &0x7fff_ffff_u32.to_le_bytes());
            put(&mut file, 0x230, &0x20_0000_u32.to_le_bytes());
            file[0x234] = 1;
            put(&mut file, 0x236, &0x7f_u16.to_le_bytes());
            put(&mut file, 0x238, &2047_u32.to_le_bytes());
            put(&mut file, 0x248, &0x100_u32.to_le_bytes()); // payload_offset
            put(&mut file, 0x24c, &0x200_u32.to_le_bytes()); // payload_length
            put(&mut file, 0x258, &0x100_0000_u64.to_le_bytes()); // pref_address
            put(&mut file, 0x260, &0x10_0000_u32.to_le_bytes()); // init_size
            put(&mut file, 0x300, b"6.12.0-seed (a@b) #1\0");
            put(&mut file, setup + 0x100, b"\xfd7zXZ\0");
            file
        })
        .to_vec()
}

/// Kernels with two relocation lists and with three.
fn relocations() -> Vec<Vec<u8>> {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let lists: [Vec<u8>; 2] = [
        words(&[0, 0x8100_0008, 0, 0x8100_0010, 0x8100_0014]),
        words(&[0, 0x8100_0000, 0, 0x8100_0018, 0, 0x8120_0000]),
    ];
    let kernels = vmlinux().into_iter().zip(lists);
    kernels
        .map(|(kernel, lists)| [kernel, lists].concat())
        .collect()
}

/// A vmlinux of two parts, and one with the configuration inside.
fn vmlinux() -> Vec<Vec<u8>> {
    let config = ikconfig().swap_remove(0);
    [&b"data"[..], &config]
        .map(|data| {
            let code = b"\x90\x90\0Linux version 6.12.0-seed (a@b) #1\n\0ptrs_per_p4d\0";
            let parts = [(0x100_0000_u64, &code[..]), (0x120_0000, data)];
            let mut file = vec![0; 64 + 2 * 56];
            put(&mut file, 0, b"\x7fELF\x02\x01\x01");
            put(&mut file, 16, &[2, 0, 62, 0, 1]); // ET_EXEC, EM_X86_64, version
            put(&mut file, 24, &0x100_0000_u64.to_le_bytes()); // e_entry
            put(&mut file, 32, &64_u64.to_le_bytes()); // e_phoff
            put(&mut file, 52, &[64, 0, 56, 0, 2]); // e_ehsize, e_phentsize, e_phnum
            for (number, (physical, bytes)) in parts.iter().enumerate() {
                let at = 64 + number * 56;
                let size = bytes.len() as u64;
                let fields = [
                    7 << 32 | 1, // flags and PT_LOAD
                    file.len() as u64,
                    0xffff_ffff_8000_0000 + physical,
                    *physical,
                    size,
                    size + 0x1000,
                    0x20_0000,
                ];
                for (index, field) in fields.iter().enumerate() {
                    put(&mut file, at + index * 8, &field.to_le_bytes());
                }
                file.extend(*bytes);
            }
            file
        })
        .to_vec()
}

/// Kernels of both versions, as ELF files of both sizes and with addresses.
fn multiboot() -> Vec<Vec<u8>> {
    let elf = |bits, header: Vec<u8>| {
        let mut elf = TinyElf::new(0x20_0000, &header);
        elf.bits = bits;
        elf.segments[0].bss = 100;
        elf.segments.push(Segment {
            paddr: 0x20_1f00,
            bytes: vec![7; 300],
            ..Segment::default()
        });
        elf.build()
    };
    let tags = [
        tag(1, 0, &[4, 6, 99]),
        tag(6, 0, &[]),
        tag(10, 1, &[0x20_0000, 0xffff_ffff, 0x20_0000, 2]),
        tag(4, 1, &[3]),
        tag(5, 1, &[0, 0, 0]),
    ];
    let addresses = [
        tag(2, 0, &[0x10_0000, 0x10_0000, 0, 0x10_1000]),
        tag(3, 0, &[0x10_0020]),
    ];
    vec![
        elf(32, header_v1(3, &[])),
        elf(64, header_v2(0, &tags)),
        header_v1(1 << 16, &[0x10_0000, 0x10_0000, 0, 0, 0x10_0020, 7, 7]),
        header_v2(0, &addresses),
    ]
}

/// A UKI, one with two profiles, and an addon.
fn uki() -> Vec<Vec<u8>> {
    let kernel = bzimage().swap_remove(0);
    let parts: [(&[u8], &[u8]); 4] = [
        (b".cmdline", b"root=LABEL=x quiet\n"),
        (b".uname", b"6.12.0-seed"),
        (b".linux", &kernel),
        (b".initrd", b"070701"),
    ];
    let profiles: [(&[u8], &[u8]); 4] = [
        (b".profile", b"ID=main\n"),
        (b".profile", b"ID=other\nTITLE=Another\n"),
        (b".cmdline", b"other"),
        (b".ucode", b"microcode"),
    ];
    vec![
        pe(&parts),
        pe(&[&parts[..], &profiles].concat()),
        pe(&[parts[0], parts[3]]),
    ]
}

/// A stub as they are now, and an old one without an initrd.
fn lanzaboote() -> Vec<Vec<u8>> {
    let path = br"\EFI\nixos\kernel-6.12-abc.efi";
    vec![
        include_bytes!("../tests/data/cases/lanzaboote-stub/stub.efi").to_vec(),
        pe(&[(b".kernelp", path), (b".kernelh", &[7; 32])]),
    ]
}

/// A PE file for x86_64 with these sections.
fn pe(sections: &[(&[u8], &[u8])]) -> Vec<u8> {
    let table = 0x40 + 24 + 240;
    let count = u8::try_from(sections.len()).unwrap_or(0);
    let mut file = vec![0; table + sections.len() * 40];
    put(&mut file, 0, b"MZ");
    file[0x3c] = 0x40;
    put(&mut file, 0x40, &[b'P', b'E', 0, 0, 0x64, 0x86, count]);
    file[0x40 + 20] = 240; // size of the optional header
    put(&mut file, 0x40 + 24, &[0x0b, 0x02]); // PE32+
    file[0x40 + 24 + 108] = 16; // data directories
    for (number, (name, bytes)) in sections.iter().enumerate() {
        let at = table + number * 40;
        let [size, offset] = [bytes.len(), file.len()].map(|number| number.to_le_bytes());
        put(&mut file, at, name);
        put(&mut file, at + 8, &size[..4]); // in memory
        put(&mut file, at + 16, &size[..4]); // in the file
        put(&mut file, at + 20, &offset[..4]);
        file.extend(*bytes);
    }
    file
}

/// A kernel with Kexec Handover, and one that names two formats.
fn kho_kernel() -> Vec<Vec<u8>> {
    let texts = [
        &b"\0kho-v4\0luo-v5\0\xffmemfd-v2\0memblock-v1\0reserve-mem-v1\0"[..],
        b"kho-v4\0luo-v5;block-v1\0luo-v1\0",
    ];
    let kernels = texts.map(|texts| {
        tiny_elf::sections(&[
            (".text", tiny_elf::ALLOC | tiny_elf::CODE, b"\x90\x90"),
            (".rodata", tiny_elf::ALLOC, texts),
            (".init.data", tiny_elf::ALLOC, b"kho-v1\0"),
        ])
    });
    kernels.to_vec()
}

/// A device tree of version 17 whose structure block is written by `write`, by words and
/// the bytes behind them. `strings` is its strings block.
fn tree_of(strings: &[u8], write: impl FnOnce(&mut dyn FnMut(&[u32], &[u8]))) -> Vec<u8> {
    let mut structure: Vec<u8> = Vec::new();
    write(&mut |words, bytes| {
        structure.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        structure.extend(bytes);
        structure.resize(structure.len().next_multiple_of(4), 0);
    });
    let number = |bytes: usize| u32::try_from(bytes).unwrap_or(0);
    let (size, length) = (number(structure.len()), number(strings.len()));
    let names = 56 + size;
    let header = [
        0xd00d_feed,
        names + length,
        56,
        names,
        40,
        17,
        16,
        0,
        length,
        size,
    ];
    let header = header.map(u32::to_be_bytes);
    [header.as_flattened(), &[0; 16], &structure, strings].concat()
}

/// A tree of Kexec Handover as the kernel makes it, whole and as debugfs cuts it, with
/// bytes behind it that are no part of it.
fn kho_tree() -> Vec<Vec<u8>> {
    let strings = b"preserved-memory-map\0compatible\0preserved-data\0blob-size\0";
    let blobs = [
        ("memblock\0", 210),
        ("LUO\0", 32),
        ("kexec-metadata\0", 73_u64),
    ];
    let tree = tree_of(strings, |words| {
        words(&[1], b"\0");
        words(&[3, 7, 21], b"kho-v4\0");
        words(&[3, 8, 0], &0x1234_5000_u64.to_le_bytes());
        for (name, size) in blobs {
            words(&[1], name.as_bytes());
            words(&[3, 8, 47], &size.to_le_bytes());
            words(&[3, 8, 32], &(0x2000_0000 + size).to_le_bytes());
            words(&[2], b"");
        }
        words(&[2, 9], b"");
    });
    let more = [&*tree, &[b'x'; 600]].concat();
    vec![tree[..233].to_vec(), tree, more]
}

/// kexec-metadata, and the blob of two `reserve_mem=`, as debugfs shows them.
fn kho_blob() -> Vec<Vec<u8>> {
    let metadata = [&[1, 0, 0, 0][..], b"7.2.13", &[0; 59], &[2, 0, 0, 0]].concat();
    let tree = tree_of(b"compatible\0start\0size\0", |words| {
        words(&[1], b"\0");
        words(&[3, 12, 0], b"memblock-v1\0");
        for (name, start) in [(&b"one\0"[..], 0x1000_0000_u64), (b"two\0", 0x2000_0040)] {
            words(&[1], name);
            words(&[3, 15, 0], b"reserve-mem-v1\0");
            words(&[3, 8, 11], &start.to_le_bytes());
            words(&[3, 8, 17], &0x20_0000_u64.to_le_bytes());
            words(&[2], b"");
        }
        words(&[2, 9], b"");
    });
    vec![metadata, tree]
}

/// Blobs that dtc and QEMU made, the latter without the zeros at its end.
fn device_tree() -> Vec<Vec<u8>> {
    let mut qemu = include_bytes!("../tests/data/devicetree/qemu-microvm.dtb").to_vec();
    let size = u32::try_from(qemu.len()).unwrap_or(0);
    put(&mut qemu, 4, &size.to_be_bytes()); // totalsize
    let machine = include_bytes!("../tests/data/devicetree/machine.dtb").to_vec();
    let old = include_bytes!("../tests/data/devicetree/machine-v16.dtb").to_vec();
    vec![qemu, machine, old]
}

fn boot_entry() -> Vec<Vec<u8>> {
    let entry = "title Debian\nversion 6.1.0~rc1\nmachine-id 4098b3f648d74c13b1f04ccfba7798e8\nsort-key debian\n\
         linux /m/6.1/linux\ninitrd /m/6.1/initrd\ninitrd /ucode.img\noptions root=/dev/vda ro\noptions quiet\n\
         architecture x64\ndevicetree /a.dtb\n";
    vec![entry.into(), b"linux /a\r\n".to_vec()]
}

fn loader_conf() -> Vec<Vec<u8>> {
    vec![
        b"timeout 3\ndefault arch-*.conf\nconsole-mode max\n".to_vec(),
        b"# choice\r\npreferred [a-c]?.conf\r\ndefault @saved\r\n".to_vec(),
    ]
}

fn grubenv() -> Vec<Vec<u8>> {
    let block = "# GRUB Environment Block\nsaved_entry=a>b\nnext_entry=\nkernelopts=root=/dev/vda \\\\ ro\n";
    vec![[block.as_bytes(), &[b'#'; 900]].concat()]
}

fn default_kexec() -> Vec<Vec<u8>> {
    let quoted = "# Defaults\nLOAD_KEXEC=true\nKERNEL_IMAGE=\"/vmlinuz\"\nINITRD='/initrd.img'\nAPPEND=\"root=\\\"a b\\\" \\\n ro\"\n";
    let plain = "export KERNEL_IMAGE=/boot/vm\\ linuz; INITRD= APPEND=quiet # all\r\nOTHER=$(x)\n";
    vec![quoted.into(), plain.into()]
}

fn grub_cfg() -> Vec<Vec<u8>> {
    let entry = "menuentry 'Debian' --class os $menuentry_id_option 'simple' {\n\
         \tif [ x$feature = xy ]; then\n\t search --fs-uuid --set=root 12\n\telse\n\t set root='hd0,gpt2'\n\tfi\n\
         \tlinux /vmlinuz root=\"LABEL=a b\" ${more} ro\n\tinitrd /ucode.img /initrd.img\n}\n";
    let functions = "function gfxmode {\n set gfxpayload=\"${1}\"\n if [ \"${1}\" = keep ]; then vt=vt.handoff=7; fi\n}\n\
         for n in 1 2; do set last=$n; done\nif hwmatch x; then set a=1; elif [ -f $prefix/x -a ! -d / ]; then set a=2; fi\n";
    let submenu = format!(
        "more=\nset default=\"1>0\"\nexport more\n{functions}{entry}submenu 'More' {{\n{entry}}}\n"
    );
    vec![format!("set more=quiet\n{entry}").into(), submenu.into()]
}

fn extlinux() -> Vec<Vec<u8>> {
    let text = "DEFAULT l0\nTIMEOUT 50\nAPPEND ro\nLABEL l0\n\tMENU LABEL ^Debian\n\tLINUX /vmlinuz\n\
         \tINITRD /ucode.img,/initrd.img\n\tAPPEND root=/dev/vda quiet\nLABEL l1\n\tTEXT HELP\n\tx\n\tENDTEXT\n\
         \tKERNEL vmlinuz\n\tAPPEND initrd=a.img,b.img\n\tMENU DEFAULT\n";
    vec![text.into()]
}
