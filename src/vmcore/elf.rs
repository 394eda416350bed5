//! The ELF side of a dump: its type, its notes, and where memory lies in the
//! file (elf(5); fs/proc/vmcore.c in the kernel makes /proc/vmcore).

use goblin::container::{Container, Ctx, Endian};
use goblin::elf::Elf;
use goblin::elf::header::{EI_CLASS, EI_DATA, ELFCLASS32, ELFDATA2MSB, ET_CORE, Header};
use goblin::elf::program_header::{PT_LOAD, PT_NOTE, ProgramHeader};

use super::{ReadAt, VmcoreError};
use crate::image::decompress;

/// Size of the ELF header, bytes.
const HEADER: usize = 64;
/// Size of a program header, bytes.
const PROGRAM_HEADER: u64 = 56;
/// Program headers that are read at a time.
const HEADERS_AT_ONCE: u64 = 1024;
/// Most program headers: a machine with 4,096 CPUs and 100,000 ranges of memory has
/// fewer.
const MAX_HEADERS: u64 = 1 << 17;
/// e_phnum when the number does not fit in there: it is the sh_info of section 0.
const PN_XNUM: u16 = 0xffff;
/// Where sh_info lies in a section header.
const SH_INFO: u64 = 44;
/// Most notes that are looked at: a machine has a few per CPU.
const MAX_NOTES: u32 = 1 << 20;
/// Largest VMCOREINFO, bytes: the kernel's has 4,096 at most.
const MAX_VMCOREINFO: u64 = 1 << 20;

const A_DUMP: &str = "FILE must be /proc/vmcore in the crash kernel, or a copy of it";
pub(super) const OTHER_READERS: &str =
    "makedumpfile --dump-dmesg FILE LOG, or vmcore-dmesg of kexec-tools, may read it";

/// A dump whose headers were read.
#[derive(Debug)]
pub(super) struct Core<R> {
    source: R,
    /// e_machine.
    pub(super) machine: u16,
    loads: Vec<Load>,
    /// Offset and size of every PT_NOTE segment.
    notes: Vec<(u64, u64)>,
}

/// A PT_LOAD segment. Several may hold the same memory: the kernel's text is also
/// part of the RAM. Nothing keeps the sums of these numbers below 2^64.
#[derive(Debug, Clone, Copy)]
struct Load {
    offset: u64,
    vaddr: u64,
    paddr: u64,
    filesz: u64,
    memsz: u64,
}

/// Which address of a segment is meant.
#[derive(Debug, Clone, Copy)]
pub(super) enum Space {
    Virtual,
    Physical,
}

/// Memory from some address on.
#[derive(Debug, Clone, Copy)]
pub(super) enum Run {
    /// At `offset` of the file, `size` bytes, at least 1.
    File { offset: u64, size: u64 },
    /// Not in the file, as it holds nothing but zeros: `size` bytes, at least 1.
    Zeros { size: u64 },
}

impl Load {
    /// The memory at `address`, to the segment's end.
    fn run(&self, space: Space, address: u64) -> Option<Run> {
        let start = match space {
            Space::Virtual => self.vaddr,
            Space::Physical => self.paddr,
        };
        let delta = address.checked_sub(start)?;
        if let Some(size) = self.filesz.checked_sub(delta).filter(|size| *size > 0) {
            let offset = self.offset.saturating_add(delta);
            return Some(Run::File { offset, size });
        }
        let size = self.memsz.checked_sub(delta).filter(|size| *size > 0)?;
        Some(Run::Zeros { size })
    }
}

impl<R: ReadAt> Core<R> {
    /// Reads the headers.
    pub(super) fn open(source: R) -> Result<Self, VmcoreError> {
        let mut start = [0; HEADER];
        let size = read_some(&source, &mut start, 0, "the header")?;
        let start = start.get(..size).unwrap_or_default();
        check_format(start)?;
        if size < HEADER {
            return Err(truncated("the rest of the ELF header", size as u64));
        }
        let header = Elf::parse_header(start)
            .map_err(|error| VmcoreError::Malformed(format!("ELF header: {error}")))?;
        check_type(&header)?;

        let mut core = Self {
            source,
            machine: header.e_machine,
            loads: Vec::new(),
            notes: Vec::new(),
        };
        core.read_program_headers(&header)?;
        Ok(core)
    }

    fn read_program_headers(&mut self, header: &Header) -> Result<(), VmcoreError> {
        const WHAT: &str = "the program headers";
        if u64::from(header.e_phentsize) != PROGRAM_HEADER {
            let what = format!("program headers of {} bytes", header.e_phentsize);
            return Err(VmcoreError::Malformed(what));
        }
        let mut count = u64::from(header.e_phnum);
        if header.e_phnum == PN_XNUM {
            let mut info = [0; 4];
            let at = header.e_shoff.saturating_add(SH_INFO);
            self.read(&mut info, at, "section 0, the number of program headers")?;
            count = u32::from_le_bytes(info).into();
        }
        if count > MAX_HEADERS {
            return Err(VmcoreError::Malformed(format!("{count} program headers")));
        }
        let ctx = Ctx::new(Container::Big, Endian::Little);
        let mut done = 0;
        while done < count {
            let number = HEADERS_AT_ONCE.min(count - done);
            let bytes = usize::try_from(number * PROGRAM_HEADER).unwrap_or(0);
            let mut table = vec![0; bytes];
            let at = header.e_phoff.saturating_add(done * PROGRAM_HEADER);
            self.read(&mut table, at, WHAT)?;
            let entries = usize::try_from(number).unwrap_or(0);
            let headers = ProgramHeader::parse(&table, 0, entries, ctx)
                .map_err(|error| VmcoreError::Malformed(format!("{WHAT}: {error}")))?;
            for header in headers {
                self.take(&header);
            }
            done += number;
        }
        Ok(())
    }

    fn take(&mut self, header: &ProgramHeader) {
        match header.p_type {
            PT_LOAD => self.loads.push(Load {
                offset: header.p_offset,
                vaddr: header.p_vaddr,
                paddr: header.p_paddr,
                filesz: header.p_filesz,
                memsz: header.p_memsz,
            }),
            PT_NOTE => self.notes.push((header.p_offset, header.p_filesz)),
            _ => {}
        }
    }

    /// The text of the VMCOREINFO note.
    pub(super) fn vmcoreinfo(&self) -> Result<Vec<u8>, VmcoreError> {
        let mut left = MAX_NOTES;
        for &(start, size) in &self.notes {
            let end = start.saturating_add(size);
            if let Some(text) = self.vmcoreinfo_in(start, end, &mut left)? {
                return Ok(text);
            }
        }
        Err(foreign(
            "an ELF core without VMCOREINFO",
            "a dump of a virtual machine has it when the machine has the device vmcoreinfo; \
             the core of a process is no dump",
        ))
    }

    /// Looks through the notes at `start..end`; takes one off `left` for each.
    fn vmcoreinfo_in(
        &self,
        start: u64,
        end: u64,
        left: &mut u32,
    ) -> Result<Option<Vec<u8>>, VmcoreError> {
        const WHAT: &str = "the notes";
        // n_namesz, n_descsz, n_type
        const NOTE: u64 = 12;
        const NAME: &[u8; 10] = b"VMCOREINFO";
        let mut at = start;
        while end.saturating_sub(at) >= NOTE {
            let many = || VmcoreError::Malformed("the notes have no end".to_owned());
            *left = left.checked_sub(1).ok_or_else(many)?;
            let mut sizes = [0; 8];
            self.read(&mut sizes, at, WHAT)?;
            let [name_size, text_size] = two_words(sizes).map(u64::from);
            // The buffer of a CPU's notes ends so; the rest of it is no note.
            if name_size == 0 {
                break;
            }
            let name_at = at.saturating_add(NOTE);
            let text_at = name_at.saturating_add(name_size.next_multiple_of(4));
            let next = text_at.saturating_add(text_size.next_multiple_of(4));
            if text_at.saturating_add(text_size) > end {
                let what = format!("the note at offset {at:#x} ends behind its segment");
                return Err(VmcoreError::Malformed(what));
            }
            // The kernel counts the NUL that ends a name.
            let mut name = [0; NAME.len() + 1];
            if name_size == name.len() as u64 && text_size > 0 {
                self.read(&mut name, name_at, WHAT)?;
                if name.starts_with(NAME) {
                    return self.text(text_at, text_size).map(Some);
                }
            }
            at = next;
        }
        Ok(None)
    }

    fn text(&self, at: u64, size: u64) -> Result<Vec<u8>, VmcoreError> {
        if size > MAX_VMCOREINFO {
            let what = format!("VMCOREINFO of {size} bytes");
            return Err(VmcoreError::Malformed(what));
        }
        let mut text = vec![0; usize::try_from(size).unwrap_or(0)];
        self.read(&mut text, at, "VMCOREINFO")?;
        Ok(text)
    }

    /// The memory at `address`, as far as one segment has it.
    pub(super) fn run(&self, space: Space, address: u64) -> Option<Run> {
        let runs = self
            .loads
            .iter()
            .filter_map(|load| load.run(space, address));
        let mut zeros = None;
        for run in runs {
            match run {
                Run::File { .. } => return Some(run),
                Run::Zeros { .. } => zeros = Some(run),
            }
        }
        zeros
    }

    /// Where the last PT_LOAD segment ends, bytes from the start of the file.
    pub(super) fn end(&self) -> u64 {
        let ends = self
            .loads
            .iter()
            .map(|load| load.offset.saturating_add(load.filesz));
        ends.max().unwrap_or(0)
    }

    /// Reads what is at `offset`; returns how many bytes that were, at least 1.
    pub(super) fn read_some(
        &self,
        buffer: &mut [u8],
        offset: u64,
        what: &'static str,
    ) -> Result<usize, VmcoreError> {
        match read_some(&self.source, buffer, offset, what)? {
            0 => Err(truncated(what, offset)),
            size => Ok(size),
        }
    }

    /// Fills `buffer` with what is at `offset`.
    pub(super) fn read(
        &self,
        mut buffer: &mut [u8],
        mut offset: u64,
        what: &'static str,
    ) -> Result<(), VmcoreError> {
        while !buffer.is_empty() {
            let size = self.read_some(buffer, offset, what)?;
            buffer = buffer.get_mut(size..).unwrap_or_default();
            offset = offset.saturating_add(size as u64);
        }
        Ok(())
    }
}

fn read_some(
    source: &impl ReadAt,
    buffer: &mut [u8],
    offset: u64,
    what: &'static str,
) -> Result<usize, VmcoreError> {
    source
        .read_at(buffer, offset)
        .map_err(|source| VmcoreError::Io {
            what,
            offset,
            source,
        })
}

fn two_words([a, b, c, d, e, f, g, h]: [u8; 8]) -> [u32; 2] {
    [[a, b, c, d], [e, f, g, h]].map(u32::from_le_bytes)
}

fn truncated(what: &'static str, offset: u64) -> VmcoreError {
    VmcoreError::Truncated { what, offset }
}

fn foreign(what: impl Into<String>, hint: impl Into<Option<&'static str>>) -> VmcoreError {
    VmcoreError::Foreign {
        what: what.into(),
        hint: hint.into(),
    }
}

/// Refuses what is no ELF file of a 64-bit little-endian machine.
fn check_format(start: &[u8]) -> Result<(), VmcoreError> {
    const MAKEDUMPFILE: &str = "makedumpfile --dump-dmesg FILE LOG reads it";
    if start.is_empty() {
        return Err(foreign("the file is empty", None));
    }
    if start.starts_with(b"makedumpfile") {
        return Err(foreign(
            "a dump in makedumpfile's flattened format",
            "makedumpfile -R DUMP <FILE rearranges it, makedumpfile --dump-dmesg DUMP LOG reads that",
        ));
    }
    for magic in [b"KDUMP   ", b"DISKDUMP"] {
        if start.starts_with(magic) {
            return Err(foreign("a kdump-compressed dump", MAKEDUMPFILE));
        }
    }
    if !start.starts_with(b"\x7fELF") {
        return Err(match decompress::compression(start) {
            Some(compression) => {
                let what = format!("this is {} data", compression.name());
                foreign(what, "unpack it first")
            }
            None => foreign("this is neither /proc/vmcore nor an ELF dump", A_DUMP),
        });
    }
    if start.get(EI_CLASS) == Some(&ELFCLASS32) {
        return Err(foreign("a 32-bit ELF dump", OTHER_READERS));
    }
    if start.get(EI_DATA) == Some(&ELFDATA2MSB) {
        let what = "a dump of a big-endian machine";
        let hint = "use makedumpfile on a machine of that kind";
        return Err(foreign(what, hint));
    }
    Ok(())
}

/// Refuses an ELF file that is no core.
fn check_type(header: &Header) -> Result<(), VmcoreError> {
    if header.e_type == ET_CORE {
        return Ok(());
    }
    let what = format!(
        "an ELF file of type {} ({}), not a core",
        header.e_type,
        goblin::elf::header::et_to_str(header.e_type)
    );
    Err(foreign(what, A_DUMP))
}
