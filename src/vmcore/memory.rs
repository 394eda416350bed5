//! The crashed kernel's virtual memory.

use goblin::elf::header::EM_X86_64;

use super::elf::{Core, Run, Space};
use super::vmcoreinfo::VmcoreInfo;
use super::{ReadAt, VmcoreError};

/// Where the kernel's text, data and bss are mapped: `__START_KERNEL_map` in
/// arch/x86/include/asm/page_64_types.h.
const KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;
/// How much may be mapped there, bytes: KERNEL_IMAGE_SIZE of a kernel with KASLR.
const KERNEL_MAP_SIZE: u64 = 1 << 30;
/// Physical address bits of a page table entry: `__PHYSICAL_MASK` and PAGE_MASK.
const ENTRY_ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// `_PAGE_PRESENT`
const PRESENT: u64 = 1;
/// `_PAGE_PSE`: the entry is a large page's.
const LARGE: u64 = 1 << 7;

/// The memory, read by virtual address.
#[derive(Debug)]
pub(super) struct Memory<R> {
    core: Core<R>,
    x86_64: Option<X86_64>,
}

/// What an x86_64 kernel says of its own mappings. The segments of a dump tell
/// virtual addresses, but those that QEMU makes do not.
#[derive(Debug)]
struct X86_64 {
    /// Physical address less virtual address of the kernel's text, plus
    /// [`KERNEL_MAP`].
    phys_base: u64,
    /// Virtual address of the top page table.
    init_top_pgt: Option<u64>,
    /// 4 or 5.
    levels: u32,
    /// Address bits of an entry that say that the page is encrypted.
    sme_mask: u64,
}

impl X86_64 {
    fn new(info: &VmcoreInfo) -> Result<Option<Self>, VmcoreError> {
        let Some(phys_base) = info.number("phys_base")? else {
            return Ok(None);
        };
        let five = info.number("pgtable_l5_enabled")? == Some(1);
        Ok(Some(Self {
            phys_base,
            init_top_pgt: info.symbol("init_top_pgt")?,
            levels: if five { 5 } else { 4 },
            sme_mask: info.number("sme_mask")?.unwrap_or(0),
        }))
    }

    /// The physical address of what the kernel's text mapping has at `address`,
    /// and how many bytes that mapping goes on.
    fn in_text(&self, address: u64) -> Option<(u64, u64)> {
        let delta = address.checked_sub(KERNEL_MAP)?;
        let size = KERNEL_MAP_SIZE
            .checked_sub(delta)
            .filter(|size| *size > 0)?;
        Some((self.phys_base.wrapping_add(delta), size))
    }

    /// The same, for any address, by the page tables, whose entries `read` reads
    /// at a physical address.
    fn walk(&self, address: u64, read: impl Fn(u64) -> Option<u64>) -> Option<(u64, u64)> {
        let (mut table, _) = self.in_text(self.init_top_pgt?)?;
        for level in (0..self.levels).rev() {
            let shift = 12 + 9 * level;
            let entry = read(table.wrapping_add((address >> shift & 0x1ff) * 8))?;
            if entry & PRESENT == 0 {
                return None;
            }
            let target = entry & ENTRY_ADDRESS & !self.sme_mask;
            if level == 0 || (level <= 2 && entry & LARGE != 0) {
                let page = 1 << shift;
                let within = address & (page - 1);
                return Some(((target & !(page - 1)) | within, page - within));
            }
            table = target;
        }
        None
    }
}

impl<R: ReadAt> Memory<R> {
    pub(super) fn new(core: Core<R>, info: &VmcoreInfo) -> Result<Self, VmcoreError> {
        let x86_64 = match core.machine {
            EM_X86_64 => X86_64::new(info)?,
            _ => None,
        };
        Ok(Self { core, x86_64 })
    }

    pub(super) fn core(&self) -> &Core<R> {
        &self.core
    }

    /// Reads what is at `address`; returns how many bytes that were, at least 1.
    pub(super) fn read_some(
        &self,
        buffer: &mut [u8],
        address: u64,
        what: &'static str,
    ) -> Result<usize, VmcoreError> {
        let run = self.run(address).ok_or(VmcoreError::Unmapped(address))?;
        let (Run::File { size, .. } | Run::Zeros { size }) = run;
        let size = usize::try_from(size)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = buffer.get_mut(..size).unwrap_or_default();
        match run {
            Run::File { offset, .. } => self.core.read_some(buffer, offset, what),
            Run::Zeros { .. } => {
                buffer.fill(0);
                Ok(size)
            }
        }
    }

    /// Fills `buffer` with what is at `address`.
    pub(super) fn read(
        &self,
        mut buffer: &mut [u8],
        mut address: u64,
        what: &'static str,
    ) -> Result<(), VmcoreError> {
        while !buffer.is_empty() {
            let size = self.read_some(buffer, address, what)?;
            buffer = buffer.get_mut(size..).unwrap_or_default();
            address = address.wrapping_add(size as u64);
        }
        Ok(())
    }

    /// The memory at `address`: as the segments say, else as the kernel does.
    fn run(&self, address: u64) -> Option<Run> {
        let said = self.core.run(Space::Virtual, address);
        if said.is_some() {
            return said;
        }
        let x86_64 = self.x86_64.as_ref()?;
        let (physical, most) = x86_64.in_text(address).or_else(|| {
            x86_64.walk(address, |at| {
                let Run::File { offset, size: 8.. } = self.core.run(Space::Physical, at)? else {
                    return None;
                };
                let mut entry = [0; 8];
                self.core.read(&mut entry, offset, "the page tables").ok()?;
                Some(u64::from_le_bytes(entry))
            })
        })?;
        Some(match self.core.run(Space::Physical, physical)? {
            Run::File { offset, size } => Run::File {
                offset,
                size: size.min(most),
            },
            Run::Zeros { size } => Run::Zeros {
                size: size.min(most),
            },
        })
    }
}
