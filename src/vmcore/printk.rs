//! The kernel log: the printk ring buffer of Linux 5.10 and later
//! (kernel/printk/printk_ringbuffer.c).
//!
//! Two rings. Descriptors have an ID that counts on for ever, its low bits are the
//! index; each comes with a printk_info. Texts lie in blocks of the data ring, at
//! positions that count on as well; a block begins with the ID of its descriptor.
//! A CPU may have been stopped in the middle of anything, and memory may be
//! damaged: a record is taken for one only where state, sequence number, block and
//! the ID in the block agree, so that no bytes of another record pass for its text.

use std::fmt::{self, Write as _};

use super::memory::Memory;
use super::vmcoreinfo::VmcoreInfo;
use super::{ReadAt, VmcoreError};

/// Most bits of a position in the data ring: LOG_BUF_LEN_MAX in
/// kernel/printk/printk.c is 2 GiB.
const MAX_TEXT_BITS: u32 = 31;
/// Most bits of an index of descriptors: one for every 32 bytes of text
/// (PRB_AVGBITS).
const MAX_COUNT_BITS: u32 = MAX_TEXT_BITS - 5;
/// DESC_ID_MASK: the two bits above an ID are the state.
const ID_MASK: u64 = u64::MAX >> 2;
/// desc_committed: it may have been continued, if the kernel had gone on.
const COMMITTED: u64 = 1;
/// desc_finalized
const FINALIZED: u64 = 2;
/// Begin and next of a record without text: EMPTY_LINE_LPOS.
const EMPTY_LINE: u64 = 3;
/// The ID before a block's text, bytes.
const BLOCK_ID: u64 = 8;
/// The search ends after this many unreadable records. The kernel's default log has
/// 8,192 to 65,536 records in all.
const MAX_UNREADABLE: u32 = 1 << 16;
/// Bytes of a ring that are read at a time: more than a block with the longest
/// text (text_len is a u16).
const WINDOW: usize = 1 << 17;

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number since boot.
    pub seq: u64,
    /// When it was written, nanoseconds of the kernel's clock.
    pub ts_nsec: u64,
    /// Who wrote it: a thread's ID, or 2^31 and the CPU's number.
    pub caller_id: u32,
    /// The text, without the newline at its end; any bytes.
    pub text: Vec<u8>,
}

/// The lines as makedumpfile writes them, without the newline at the end: bytes
/// that are neither printable ASCII nor white space become `\xNN`.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SECOND: u64 = 1_000_000_000;
        let (seconds, rest) = (self.ts_nsec / SECOND, self.ts_nsec % SECOND);
        let stamp = format!("[{seconds:5}.{:06}] ", rest / 1000);
        f.write_str(&stamp)?;
        for byte in &self.text {
            match byte {
                b'\n' => write!(f, "\n{:1$}", "", stamp.len())?,
                b' '..=b'~' | b'\t' | b'\x0b' | b'\x0c' | b'\r' => f.write_char((*byte).into())?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

/// Where the fields lie in their structures, bytes.
#[derive(Debug)]
struct Layout {
    state_var: usize,
    begin: usize,
    next: usize,
    seq: usize,
    ts_nsec: usize,
    text_len: usize,
    caller_id: usize,
}

impl Layout {
    fn new(info: &VmcoreInfo) -> Result<Self, VmcoreError> {
        let block = |field| {
            let path = ["prb_desc.text_blk_lpos", field];
            inside(info, "prb_desc", &path, 8)
        };
        let field = |name, width| inside(info, "printk_info", &[name], width);
        Ok(Self {
            state_var: inside(
                info,
                "prb_desc",
                &["prb_desc.state_var", "atomic_long_t.counter"],
                8,
            )?,
            begin: block("prb_data_blk_lpos.begin")?,
            next: block("prb_data_blk_lpos.next")?,
            seq: field("printk_info.seq", 8)?,
            ts_nsec: field("printk_info.ts_nsec", 8)?,
            text_len: field("printk_info.text_len", 2)?,
            caller_id: field("printk_info.caller_id", 4)?,
        })
    }
}

/// The offset in `name` of the field of `width` bytes that `path` leads to.
fn inside(
    info: &VmcoreInfo,
    name: &str,
    path: &[&str],
    width: usize,
) -> Result<usize, VmcoreError> {
    let mut offset = 0;
    for field in path {
        offset += info.offset(field)?;
    }
    let size = info.size(name)?;
    if offset + width > size {
        let what = format!(
            "VMCOREINFO: {} ends behind {name}, {size} bytes",
            path.join(" + ")
        );
        return Err(VmcoreError::Malformed(what));
    }
    Ok(offset)
}

/// A ring's memory, of which a part is held here.
#[derive(Debug)]
struct Ring {
    what: &'static str,
    address: u64,
    /// Bytes.
    size: u64,
    window: Vec<u8>,
    /// Where the window begins, bytes from `address`.
    start: u64,
}

impl Ring {
    fn new(what: &'static str, address: u64, size: u64) -> Self {
        Self {
            what,
            address,
            size,
            window: Vec::new(),
            start: 0,
        }
    }

    /// The `len` bytes at `offset`, at most [`WINDOW`], which must lie in the ring.
    fn get<R: ReadAt>(
        &mut self,
        memory: &Memory<R>,
        offset: u64,
        len: usize,
    ) -> Result<&[u8], VmcoreError> {
        let held = |ring: &Self| {
            let at = usize::try_from(offset.checked_sub(ring.start)?).ok()?;
            let end = at.checked_add(len)?;
            (end <= ring.window.len()).then_some(at..end)
        };
        if held(self).is_none() {
            self.fill(memory, offset, len)?;
        }
        let part = held(self).and_then(|part| self.window.get(part));
        Ok(part.unwrap_or_default())
    }

    /// Reads on from `offset`: `len` bytes, and what can be had behind them.
    fn fill<R: ReadAt>(
        &mut self,
        memory: &Memory<R>,
        offset: u64,
        len: usize,
    ) -> Result<(), VmcoreError> {
        let rest = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(WINDOW);
        // The old window is overwritten, even if the read fails.
        self.start = u64::MAX;
        self.window.resize(rest.min(WINDOW).max(len), 0);
        let address = self.address.wrapping_add(offset);
        let mut got = 0;
        while got < len {
            let rest = self.window.get_mut(got..).unwrap_or_default();
            got += memory.read_some(rest, address.wrapping_add(got as u64), self.what)?;
        }
        self.window.truncate(got);
        self.start = offset;
        Ok(())
    }
}

/// The records of a log, oldest first.
///
/// A record that cannot be read is an error, and the next one follows it.
#[derive(Debug)]
pub struct Log<'a, R> {
    memory: &'a Memory<R>,
    layout: Layout,
    descs: Ring,
    infos: Ring,
    text: Ring,
    desc_size: usize,
    info_size: usize,
    /// Descriptors in the ring: a power of two.
    count: u64,
    /// ID of the next descriptor to look at, and how many are left.
    id: u64,
    left: u64,
    inconsistent: u64,
    unreadable: u32,
}

impl<'a, R: ReadAt> Log<'a, R> {
    pub(super) fn new(memory: &'a Memory<R>, info: &VmcoreInfo) -> Result<Self, VmcoreError> {
        const WHAT: &str = "the printk ring buffer";
        const NAME: &str = "printk_ringbuffer";
        let pointer = info.symbol("prb")?.map_or_else(|| no_prb(info), Ok)?;
        let mut address = [0; 8];
        memory.read(&mut address, pointer, WHAT)?;
        let mut prb = vec![0; info.size(NAME)?];
        memory.read(&mut prb, u64::from_le_bytes(address), WHAT)?;

        let field = |path: &[&str], width| inside(info, NAME, path, width);
        let desc = |name, width| field(&["printk_ringbuffer.desc_ring", name], width);
        let data = |name, width| field(&["printk_ringbuffer.text_data_ring", name], width);
        let id = |name| {
            let path = ["printk_ringbuffer.desc_ring", name, "atomic_long_t.counter"];
            Ok::<_, VmcoreError>(u64_at(&prb, field(&path, 8)?) & ID_MASK)
        };
        let bits = |at, most, what| {
            let bits = u32_at(&prb, at);
            let too_large = || VmcoreError::Malformed(format!("{WHAT} has 2^{bits} {what}"));
            if bits <= most {
                Ok(1_u64 << bits)
            } else {
                Err(too_large())
            }
        };
        let count = bits(
            desc("prb_desc_ring.count_bits", 4)?,
            MAX_COUNT_BITS,
            "records",
        )?;
        let size = bits(
            data("prb_data_ring.size_bits", 4)?,
            MAX_TEXT_BITS,
            "bytes of text",
        )?;
        let (desc_size, info_size) = (info.size("prb_desc")?, info.size("printk_info")?);
        let ring = |what, at, size| Ring::new(what, u64_at(&prb, at), size);

        let (tail, head) = (id("prb_desc_ring.tail_id")?, id("prb_desc_ring.head_id")?);
        // More than there are descriptors would be damage: the newest may be good.
        let behind = (head.wrapping_sub(tail) & ID_MASK).min(count - 1);
        Ok(Self {
            memory,
            layout: Layout::new(info)?,
            descs: ring(
                "a descriptor",
                desc("prb_desc_ring.descs", 8)?,
                count * desc_size as u64,
            ),
            infos: ring(
                "a printk_info",
                desc("prb_desc_ring.infos", 8)?,
                count * info_size as u64,
            ),
            text: ring("a record's text", data("prb_data_ring.data", 8)?, size),
            desc_size,
            info_size,
            count,
            id: head.wrapping_sub(behind) & ID_MASK,
            left: behind + 1,
            inconsistent: 0,
            unreadable: 0,
        })
    }

    /// Finished records so far whose parts do not agree; they are left out.
    #[must_use]
    pub fn inconsistent(&self) -> u64 {
        self.inconsistent
    }

    /// The record of the descriptor `id`, if it is one and its parts agree.
    fn record(&mut self, id: u64) -> Result<Option<Record>, VmcoreError> {
        let index = id & (self.count - 1);
        let at = index * self.desc_size as u64;
        let desc = self.descs.get(self.memory, at, self.desc_size)?;
        let state_var = u64_at(desc, self.layout.state_var);
        let begin = u64_at(desc, self.layout.begin);
        let next = u64_at(desc, self.layout.next);
        // With another ID it was just reserved and still holds the old descriptor.
        if state_var & ID_MASK != id || !matches!(state_var >> 62, COMMITTED | FINALIZED) {
            return Ok(None);
        }
        // Odd positions are no blocks. There was no room for the text, unless
        // there is none.
        let dataless = begin & next & 1 == 1;
        if dataless && (begin, next) != (EMPTY_LINE, EMPTY_LINE) {
            return Ok(None);
        }

        let at = index * self.info_size as u64;
        let info = self.infos.get(self.memory, at, self.info_size)?;
        let text_len = u16_at(info, self.layout.text_len);
        let mut record = Record {
            seq: u64_at(info, self.layout.seq),
            ts_nsec: u64_at(info, self.layout.ts_nsec),
            caller_id: u32_at(info, self.layout.caller_id),
            text: Vec::new(),
        };
        let consistent = record.seq & (self.count - 1) == index
            && (dataless || self.text_of(id, begin, next, text_len, &mut record.text)?);
        if !consistent {
            self.inconsistent += 1;
        }
        Ok(consistent.then_some(record))
    }

    /// Reads the text of the block `begin..next` into `text`; false when there is
    /// no such block of `id`.
    fn text_of(
        &mut self,
        id: u64,
        begin: u64,
        next: u64,
        text_len: u16,
        text: &mut Vec<u8>,
    ) -> Result<bool, VmcoreError> {
        let Some((at, size)) = block(begin, next, self.text.size) else {
            return Ok(false);
        };
        let wanted = BLOCK_ID + u64::from(text_len);
        if wanted > size {
            return Ok(false);
        }
        let len = usize::try_from(wanted).unwrap_or(WINDOW);
        let block = self.text.get(self.memory, at, len)?;
        if u64_at(block, 0) != id {
            return Ok(false);
        }
        text.extend_from_slice(block.get(8..).unwrap_or_default());
        Ok(true)
    }
}

impl<R: ReadAt> Iterator for Log<'_, R> {
    type Item = Result<Record, VmcoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            let id = self.id;
            self.left -= 1;
            self.id = id.wrapping_add(1) & ID_MASK;
            if let Some(record) = self.record(id).transpose() {
                self.unreadable += u32::from(record.is_err());
                if self.unreadable > MAX_UNREADABLE {
                    self.left = 0;
                }
                return Some(record);
            }
        }
        None
    }
}

/// Where the block `begin..next` lies in a data ring of `size` bytes, and how many
/// bytes it has, its ID included. `None`: no block looks like that.
fn block(begin: u64, next: u64, size: u64) -> Option<(u64, u64)> {
    let index = |position: u64| position & (size - 1);
    let wrap = |position: u64| position & !(size - 1);
    if (begin | next) & (BLOCK_ID - 1) != 0 {
        return None;
    }
    // Positions overflow, so that what is behind is a difference below `size`.
    let (at, bytes) = if wrap(begin) == wrap(next.wrapping_sub(1)) {
        // This one may end where the ring does.
        (index(begin), next.wrapping_sub(begin))
    } else if wrap(begin).wrapping_add(size) == wrap(next) {
        // What does not fit in before the end is put at the beginning.
        (0, index(next))
    } else {
        return None;
    };
    (bytes >= BLOCK_ID && bytes <= size).then_some((at, bytes))
}

fn no_prb<T>(info: &VmcoreInfo) -> Result<T, VmcoreError> {
    let old = info.symbol("log_buf")?.is_some();
    let kernel = info
        .release()
        .unwrap_or("of unknown release")
        .escape_debug();
    Err(if old {
        VmcoreError::Foreign {
            what: format!("the dump of kernel {kernel}, with the log of kernels before 5.10"),
            hint: Some(super::elf::OTHER_READERS),
        }
    } else {
        VmcoreError::Foreign {
            what: format!("kernel {kernel} has no log: VMCOREINFO names neither prb nor log_buf"),
            hint: None,
        }
    })
}

/// The number at `at`, which the layout keeps inside `bytes`.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let array = bytes.get(at..).and_then(<[u8]>::first_chunk);
    array.copied().unwrap_or([0; N])
}
