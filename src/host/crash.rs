//! What a crash dump must know of the running kernel: where its CPUs leave
//! their registers, where it describes itself, and how it maps memory.
//!
//! Every fact is `None` or empty where the kernel does not tell or this user may
//! not ask: only a crash kernel needs them.

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::Elf;
use goblin::elf::program_header::{PT_LOAD, ProgramHeader};

use super::door::limit;
use super::{HostError, Root, cpu, text};
use crate::base::PhysRange;

const CPUS: &str = "/sys/devices/system/cpu";
const VMCOREINFO: &str = "/sys/kernel/vmcoreinfo";
const KCORE: &str = "/proc/kcore";
/// Keys of the disks that a dump goes to (Linux 6.16, CONFIG_CRASH_DM_CRYPT): a directory
/// for each, and files about all of them.
pub const DM_CRYPT_KEYS: &str = "/sys/kernel/config/crash_dm_crypt_keys";
const CMA_RANGES: [&str; 2] = [
    "/sys/kernel/kexec/crash_cma_ranges",
    "/sys/kernel/kexec_crash_cma_ranges",
];

/// Size of an ELF64 header, bytes.
const EHDR_SIZE: usize = 64;
/// Where x86_64 maps its own code: __START_KERNEL_map (arch/x86/include/asm/page_64_types.h).
const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// p_paddr of a segment that has no single physical address (fs/proc/kcore.c).
const NO_PADDR: u64 = u64::MAX;

/// A note that the running kernel keeps up in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Note {
    /// Physical address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
}

/// How the running kernel maps itself and the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KernelMapping {
    /// Virtual address of physical address 0 in the map of all memory (PAGE_OFFSET).
    pub direct_map: u64,
    /// Virtual address of `_text`.
    pub text: u64,
    /// `_text` to `_end`, physical.
    pub image: PhysRange,
}

/// The facts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CrashFacts {
    /// Number and note of every CPU that sysfs shows, in order of the numbers.
    pub cpus: Vec<(u32, Note)>,
    /// The kernel's description of itself for tools that read dumps.
    pub vmcoreinfo: Option<Note>,
    /// How it maps itself and memory, by the program headers of /proc/kcore.
    pub mapping: Option<KernelMapping>,
    /// Memory of `crashkernel=…,cma`: the crash kernel's, used by user space until then.
    pub cma: Vec<PhysRange>,
    /// Names of the dm-crypt keys that the crash kernel shall get. The keys themselves
    /// are in the kernel's keyring.
    pub dm_crypt_keys: Vec<String>,
}

impl CrashFacts {
    /// Reads the facts below `root`.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        Ok(Self {
            cpus: cpus(root)?,
            vmcoreinfo: vmcoreinfo(root)?,
            mapping: mapping(root)?,
            cma: cma(root)?,
            dm_crypt_keys: dm_crypt_keys(root)?,
        })
    }
}

fn cpus(root: &Root) -> Result<Vec<(u32, Note)>, HostError> {
    let names = root.list_permitted(CPUS)?.unwrap_or_default();
    let numbers = names
        .iter()
        .filter_map(|name| text::decimal(name.strip_prefix("cpu")?));
    let mut cpus = Vec::new();
    for number in numbers {
        let file = format!("{CPUS}/cpu{number}/crash_notes");
        let Some(line) = root.read_line_permitted(&file)? else {
            continue;
        };
        let address = text::hex(line.as_bytes()).ok_or_else(|| {
            HostError::malformed(&file, format!("`{line}` is not a hexadecimal number"))
        })?;
        let size = text::optional_decimal(root, &format!("{file}_size"))?;
        let size = size.unwrap_or(DEFAULT_NOTE_SIZE);
        cpus.push((number, Note { address, size }));
    }
    cpus.sort_unstable_by_key(|(number, _)| *number);
    Ok(cpus)
}

/// Size of a CPU's note where sysfs does not tell it (before Linux 3.10), bytes:
/// one page would be more than any kernel has.
const DEFAULT_NOTE_SIZE: u64 = 1024;

/// `0-3`, `0`, `0-1,4-5`: a list of CPUs (Documentation/admin-guide/cputopology.rst).
/// How many CPUs there can ever be (`cpu/possible`), or where that is not visible, how many
/// /proc/cpuinfo shows.
pub(super) fn possible_cpus(root: &Root) -> Result<Option<u64>, HostError> {
    let file = format!("{CPUS}/possible");
    let Some(line) = root.read_line_permitted(&file)? else {
        return cpu::count(root);
    };
    let count = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (text::decimal(first)?, text::decimal(last)?);
        Some(u64::from(last.checked_sub(first)?) + 1)
    };
    line.split(',')
        .map(count)
        .sum::<Option<u64>>()
        .map(Some)
        .ok_or_else(|| HostError::malformed(&file, format!("`{line}` is not a list of CPUs")))
}

/// `0xADDRESS SIZE`, both hexadecimal (kernel/ksysfs.c, `vmcoreinfo_show`).
fn vmcoreinfo(root: &Root) -> Result<Option<Note>, HostError> {
    let Some(line) = root.read_line_permitted(VMCOREINFO)? else {
        return Ok(None);
    };
    line.split_once(' ')
        .and_then(|(address, size)| {
            Some(Note {
                address: text::hex_0x(address)?,
                size: text::hex(size.as_bytes())?,
            })
        })
        .map(Some)
        .ok_or_else(|| HostError::malformed(VMCOREINFO, format!("`{line}` is not 0xADDRESS SIZE")))
}

/// Lines `FIRST-LAST`, hexadecimal (kernel/ksysfs.c, Linux 6.19).
fn cma(root: &Root) -> Result<Vec<PhysRange>, HostError> {
    for file in CMA_RANGES {
        let Some(lines) = root.read_line_permitted(file)? else {
            continue;
        };
        let range = |line: &str| {
            let (first, last) = line.split_once('-')?;
            PhysRange::from_inclusive(text::hex(first.as_bytes())?, text::hex(last.as_bytes())?)
                .ok()
        };
        return lines
            .lines()
            .map(|line| {
                range(line).ok_or_else(|| {
                    HostError::malformed(file, format!("`{line}` is not FIRST-LAST"))
                })
            })
            .collect();
    }
    Ok(Vec::new())
}

/// Each key is a directory with the file `description`, the key's name in the keyring.
fn dm_crypt_keys(root: &Root) -> Result<Vec<String>, HostError> {
    let names = root.list_permitted(DM_CRYPT_KEYS)?.unwrap_or_default();
    let mut keys = Vec::new();
    for name in names {
        let description = format!("{DM_CRYPT_KEYS}/{name}/description");
        if root.read_permitted(&description)?.is_some() {
            keys.push(name);
        }
    }
    Ok(keys)
}

/// The program headers of /proc/kcore. The memory behind them is not read.
fn mapping(root: &Root) -> Result<Option<KernelMapping>, HostError> {
    let start = match root.read_start_permitted(KCORE, EHDR_SIZE) {
        Err(error) if error.is_masked() => None,
        other => other?,
    };
    let Some(start) = start else {
        return Ok(None);
    };
    // A container masks it with /dev/null.
    if start.is_empty() {
        return Ok(None);
    }
    let wrong = |error: goblin::error::Error| HostError::malformed(KCORE, error.to_string());
    let header = Elf::parse_header(&start).map_err(wrong)?;
    let (count, offset) = (usize::from(header.e_phnum), header.e_phoff);
    let context = Ctx::new(Container::Big, Endian::Little);
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = offset.saturating_add(count * ProgramHeader::size(context));
    // fs/proc/kcore.c puts them behind the ELF header.
    if end as u64 > limit::START {
        return Err(HostError::malformed(
            KCORE,
            format!("its program headers lie at {offset:#x}, too far from its start"),
        ));
    }
    let Some(headers) = root.read_start_permitted(KCORE, end)? else {
        return Ok(None);
    };
    let headers = ProgramHeader::parse(&headers, offset, count, context).map_err(wrong)?;
    Ok(mapping_of(&headers))
}

fn mapping_of(headers: &[ProgramHeader]) -> Option<KernelMapping> {
    let loads = || {
        headers
            .iter()
            .filter(|header| header.p_type == PT_LOAD && header.p_paddr != NO_PADDR)
    };
    let text = loads().find(|header| header.p_vaddr >= START_KERNEL_MAP)?;
    let direct = loads().find(|header| header.p_vaddr < START_KERNEL_MAP)?;
    Some(KernelMapping {
        direct_map: direct.p_vaddr.checked_sub(direct.p_paddr)?,
        text: text.p_vaddr,
        image: PhysRange::new(text.p_paddr, text.p_memsz).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &[u8])]) -> Result<CrashFacts, HostError> {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        CrashFacts::read(&Root::at(dir.path()))
    }

    #[test]
    fn a_machine_that_tells_nothing() {
        assert_eq!(machine(&[]).unwrap(), CrashFacts::default());
    }

    #[test]
    fn cpus_are_in_the_order_of_their_numbers() {
        let facts = machine(&[
            ("/sys/devices/system/cpu/cpu10/crash_notes", b"3ee10000\n"),
            ("/sys/devices/system/cpu/cpu10/crash_notes_size", b"368\n"),
            ("/sys/devices/system/cpu/cpu2/crash_notes", b"1ee10000\n"),
            ("/sys/devices/system/cpu/cpufreq/x", b""),
            ("/sys/kernel/vmcoreinfo", b"0x00000001ffff000 1024\n"),
            (
                "/sys/kernel/kexec/crash_cma_ranges",
                b"10000000-1fffffff\n100000000-10fffffff\n",
            ),
        ])
        .unwrap();
        let note = |address, size| Note { address, size };
        assert_eq!(
            facts.cpus,
            [(2, note(0x1ee1_0000, 1024)), (10, note(0x3ee1_0000, 368))]
        );
        assert_eq!(facts.vmcoreinfo, Some(note(0x1fff_f000, 0x1024)));
        let sizes: Vec<u64> = facts.cma.iter().map(|range| range.size()).collect();
        assert_eq!(sizes, [256 << 20, 256 << 20]);
    }

    #[test]
    fn possible_cpus_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(possible_cpus(&root).unwrap(), None);
        let of_all = dir.path().join("proc/cpuinfo");
        std::fs::create_dir_all(of_all.parent().unwrap()).unwrap();
        let two = "processor\t: 0\nflags\t\t: fpu\n\nprocessor\t: 1\nflags\t\t: fpu\n";
        std::fs::write(of_all, two).unwrap();
        assert_eq!(possible_cpus(&root).unwrap(), Some(2));
        let file = dir.path().join("sys/devices/system/cpu/possible");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        let read = |content: &str| {
            std::fs::write(&file, content).unwrap();
            possible_cpus(&root)
        };
        assert_eq!(read("0-3,8,10-11\n").unwrap(), Some(7));
        for malformed in ["0-\n", "3-1\n"] {
            assert!(
                read(malformed)
                    .unwrap_err()
                    .to_string()
                    .contains("possible")
            );
        }
    }

    #[test]
    fn malformed_files_are_named() {
        for (file, content) in [
            ("/sys/devices/system/cpu/cpu0/crash_notes", "0x1\n"),
            ("/sys/kernel/vmcoreinfo", "0x1\n"),
            ("/sys/kernel/kexec/crash_cma_ranges", "1\n"),
            ("/proc/kcore", "\x7fELF and no more of it"),
        ] {
            let error = machine(&[(file, content.as_bytes())]).unwrap_err();
            assert!(error.to_string().starts_with(file), "{error}");
        }
    }

    /// An ELF file of program headers alone: type, virtual, physical, size.
    fn kcore(headers: &[(u32, u64, u64, u64)]) -> Vec<u8> {
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([4, 0, 62, 0, 1, 0, 0, 0]);
        file.extend([0; 8]);
        file.extend(64_u64.to_le_bytes());
        file.extend([0; 12]);
        for field in [64, 56, u16::try_from(headers.len()).unwrap(), 0, 0, 0] {
            file.extend(field.to_le_bytes());
        }
        for (kind, virt, phys, size) in headers {
            file.extend(kind.to_le_bytes());
            file.extend(7_u32.to_le_bytes());
            for field in [0x1000, *virt, *phys, *size, *size, 0x1000] {
                file.extend(field.to_le_bytes());
            }
        }
        file
    }

    #[test]
    fn program_headers_that_lie_far_away_are_not_read() {
        for offset in [limit::START, 100 << 30, u64::MAX] {
            let mut file = kcore(&[(4, 0, 0, 0)]);
            file[32..40].copy_from_slice(&offset.to_le_bytes());
            let error = machine(&[("/proc/kcore", &file)]).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!(
                    "/proc/kcore: its program headers lie at {offset:#x}, too far from its start"
                )
            );
        }
    }

    #[test]
    fn the_mapping_is_that_of_kcore() {
        let text = (1, 0xffff_ffff_8b60_0000, 0x9060_0000, 0x2c0_0000);
        let direct = (1, 0xff11_0000_0000_0000 + 0x10_0000, 0x10_0000, 0xbfed_0000);
        let vmalloc = (1, 0xffa0_0000_0000_0000, u64::MAX, 0x1fff_ffff_ffff);
        let note = (4, 0, 0, 0);
        let facts = |headers: &[_]| machine(&[("/proc/kcore", &kcore(headers))]).unwrap();
        assert_eq!(
            facts(&[note, vmalloc, text, direct]).mapping,
            Some(KernelMapping {
                direct_map: 0xff11_0000_0000_0000,
                text: 0xffff_ffff_8b60_0000,
                image: PhysRange::new(0x9060_0000, 0x2c0_0000).unwrap(),
            })
        );
        assert_eq!(facts(&[note, vmalloc, direct]).mapping, None);
        assert_eq!(facts(&[text, vmalloc]).mapping, None);
    }
}
