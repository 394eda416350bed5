//! A tiny dump, byte by byte: a printk ring buffer that is written as a kernel
//! writes it, and an ELF core around it. Uses nothing of the crate's.

use std::collections::VecDeque;

/// Where fields lie in Linux 6.1, bytes (kernel/printk/printk_ringbuffer.h).
const OFFSETS: [(&str, usize); 20] = [
    ("printk_ringbuffer.desc_ring", 0),
    ("printk_ringbuffer.text_data_ring", 48),
    ("prb_desc_ring.count_bits", 0),
    ("prb_desc_ring.descs", 8),
    ("prb_desc_ring.infos", 16),
    ("prb_desc_ring.head_id", 24),
    ("prb_desc_ring.tail_id", 32),
    ("prb_desc.state_var", 0),
    ("prb_desc.text_blk_lpos", 8),
    ("prb_data_blk_lpos.begin", 0),
    ("prb_data_blk_lpos.next", 8),
    ("printk_info.seq", 0),
    ("printk_info.ts_nsec", 8),
    ("printk_info.text_len", 16),
    ("printk_info.caller_id", 20),
    ("prb_data_ring.size_bits", 0),
    ("prb_data_ring.data", 8),
    ("prb_data_ring.head_lpos", 16),
    ("prb_data_ring.tail_lpos", 24),
    ("atomic_long_t.counter", 0),
];
/// The sizes of these structures there, bytes.
const SIZES: [(&str, usize); 7] = [
    ("printk_ringbuffer", 88),
    ("prb_desc_ring", 48),
    ("prb_desc", 24),
    ("prb_data_blk_lpos", 16),
    ("printk_info", 88),
    ("prb_data_ring", 32),
    ("atomic_long_t", 8),
];

/// Physical address of the memory that is dumped.
pub(crate) const PHYSICAL: u64 = 0x200_0000;
/// That in the mapping of the kernel's text, as phys_base is 0.
pub(crate) const IN_TEXT: u64 = 0xffff_ffff_8200_0000;
/// That in the direct mapping.
pub(crate) const IN_DIRECT: u64 = 0xffff_8880_0200_0000;

const ID_MASK: u64 = u64::MAX >> 2;
const FAILED: u64 = 1;
const EMPTY_LINE: u64 = 3;

/// desc_state
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Reserved = 0,
    Committed = 1,
    Finalized = 2,
    Reusable = 3,
}

/// A descriptor as the writer remembers it.
#[derive(Debug, Clone)]
struct Written {
    id: u64,
    state: State,
    seq: u64,
    begin: u64,
    next: u64,
    text: Vec<u8>,
}

/// A record that a reader must find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) seq: u64,
    pub(crate) text: Vec<u8>,
}

/// A ring buffer, and the only CPU that writes to it.
#[derive(Debug, Clone)]
pub(crate) struct TinyRing {
    count_bits: u32,
    size_bits: u32,
    /// Bytes by which every field lies further behind than in Linux 6.1.
    shift: usize,
    /// Linux 6.17: a block may end exactly where the ring does.
    tight: bool,
    /// Arrays in memory of their own, as with log_buf_len=.
    dynamic: bool,
    descs: Vec<u8>,
    infos: Vec<u8>,
    text: Vec<u8>,
    head_lpos: u64,
    tail_lpos: u64,
    tail_id: u64,
    /// From the tail to the head.
    written: VecDeque<Written>,
}

impl TinyRing {
    /// An empty ring of 2^`count_bits` descriptors and 2^`size_bits` bytes, as it
    /// is at boot.
    pub(crate) fn new(count_bits: u32, size_bits: u32) -> Self {
        let mut ring = Self {
            count_bits,
            size_bits,
            shift: 0,
            tight: false,
            dynamic: false,
            descs: Vec::new(),
            infos: Vec::new(),
            text: vec![0; 1 << size_bits],
            // BLK0_LPOS and DESC0_ID: they overflow soon.
            head_lpos: 0_u64.wrapping_sub(1 << size_bits),
            tail_lpos: 0_u64.wrapping_sub(1 << size_bits),
            tail_id: 0,
            written: VecDeque::new(),
        };
        ring.tail_id = 0_u64.wrapping_sub(ring.count() + 1) & ID_MASK;
        ring.written.push_back(Written {
            id: ring.tail_id,
            state: State::Reusable,
            seq: 0,
            begin: FAILED,
            next: FAILED,
            text: Vec::new(),
        });
        ring.allocate();
        ring
    }

    pub(crate) fn shifted(mut self, shift: usize) -> Self {
        self.shift = shift;
        self.allocate();
        self
    }

    pub(crate) fn tight(mut self, tight: bool) -> Self {
        self.tight = tight;
        self
    }

    pub(crate) fn dynamic(mut self, dynamic: bool) -> Self {
        self.dynamic = dynamic;
        self
    }

    fn allocate(&mut self) {
        let count = 1 << self.count_bits;
        self.descs = vec![0; count * self.size("prb_desc")];
        self.infos = vec![0; count * self.size("printk_info")];
        let at = (count - 1) * self.size("prb_desc");
        self.put_desc(at, &self.written[0].clone());
    }

    fn count(&self) -> u64 {
        1 << self.count_bits
    }

    /// The index of a descriptor, by its ID or its record's number.
    fn index(&self, number: u64) -> usize {
        usize::try_from(number % self.count()).unwrap()
    }

    fn bytes(&self) -> u64 {
        1 << self.size_bits
    }

    fn size(&self, name: &str) -> usize {
        let (_, size) = SIZES.iter().find(|(known, _)| *known == name).unwrap();
        size + 4 * self.shift
    }

    pub(crate) fn offset(&self, name: &str) -> usize {
        let (_, offset) = OFFSETS.iter().find(|(known, _)| *known == name).unwrap();
        match name {
            "atomic_long_t.counter" => *offset,
            _ => offset + self.shift,
        }
    }

    /// Writes a record and finishes it, `continued` as pr_cont() may go on with.
    /// False: no descriptor was free.
    pub(crate) fn write(&mut self, text: &[u8], state: State) -> bool {
        if let Some(last) = self.written.back().cloned()
            && last.state == State::Committed
        {
            self.set_state(self.written.len() - 1, State::Finalized);
        }
        let Some((id, seq)) = self.reserve_desc() else {
            return false;
        };
        let (mut begin, mut next) = (EMPTY_LINE, EMPTY_LINE);
        let mut state = state;
        if !text.is_empty() {
            (begin, next) = match self.reserve_text(text, id) {
                Some(block) => block,
                None => {
                    state = State::Finalized;
                    (FAILED, FAILED)
                }
            };
        }
        let written = Written {
            id,
            state,
            seq,
            begin,
            next,
            text: text.to_vec(),
        };
        let index = self.index(id);
        self.put_desc(index * self.size("prb_desc"), &written);
        let at = index * self.size("printk_info");
        let fields = [
            ("printk_info.seq", seq.to_le_bytes().to_vec()),
            ("printk_info.ts_nsec", ts_nsec(seq).to_le_bytes().to_vec()),
            (
                "printk_info.text_len",
                half(text.len()).to_le_bytes().to_vec(),
            ),
            (
                "printk_info.caller_id",
                caller_id(seq).to_le_bytes().to_vec(),
            ),
        ];
        for (name, bytes) in fields {
            let at = at + self.offset(name);
            put(&mut self.infos, at, &bytes);
        }
        self.written.push_back(written);
        true
    }

    /// Finishes what was only reserved so far.
    pub(crate) fn finish(&mut self) {
        for at in 0..self.written.len() {
            if self.written[at].state == State::Reserved {
                self.set_state(at, State::Finalized);
            }
        }
    }

    /// What a reader must find now.
    pub(crate) fn expected(&self) -> Vec<Expected> {
        let found = self.written.iter().filter(|written| {
            matches!(written.state, State::Committed | State::Finalized) && written.begin != FAILED
        });
        found
            .map(|written| Expected {
                seq: written.seq,
                text: written.text.clone(),
            })
            .collect()
    }

    /// desc_reserve
    fn reserve_desc(&mut self) -> Option<(u64, u64)> {
        let last = self.written.back().unwrap();
        let id = (last.id + 1) & ID_MASK;
        if self.written.len() as u64 == self.count() {
            let front = &self.written[0];
            let second = self.written.get(1).map(|written| written.state);
            if !matches!(second, Some(State::Finalized | State::Reusable)) {
                return None;
            }
            if front.state == State::Finalized {
                let next = front.next;
                self.set_state(0, State::Reusable);
                // A finished record's own text can always be freed.
                assert!(next & 1 == 1 || self.push_text_tail(next));
            }
            self.written.pop_front();
            self.tail_id = self.written[0].id;
        }
        let seq = match self.written.back() {
            Some(Written { id: last, .. }) if *last == self.boot_id() => 0,
            last => last.unwrap().seq + 1,
        };
        Some((id, seq))
    }

    fn boot_id(&self) -> u64 {
        0_u64.wrapping_sub(self.count() + 1) & ID_MASK
    }

    /// data_alloc
    fn reserve_text(&mut self, text: &[u8], id: u64) -> Option<(u64, u64)> {
        let size = (text.len() as u64 + 8).next_multiple_of(8);
        if size > self.bytes() / 2 {
            return None;
        }
        let wrap = |position: u64| position >> self.size_bits;
        let begin = self.head_lpos;
        let next = begin.wrapping_add(size);
        let last = if self.tight {
            next.wrapping_sub(1)
        } else {
            next
        };
        let wraps = wrap(begin) != wrap(last);
        let next = if wraps {
            (wrap(next) << self.size_bits).wrapping_add(size)
        } else {
            next
        };
        if !self.push_text_tail(next.wrapping_sub(self.bytes())) {
            return None;
        }
        self.head_lpos = next;
        let at = usize::try_from(begin % self.bytes()).unwrap();
        put(&mut self.text, at, &id.to_le_bytes());
        let at = if wraps { 0 } else { at };
        put(&mut self.text, at, &id.to_le_bytes());
        put(&mut self.text, at + 8, text);
        Some((begin, next))
    }

    /// data_push_tail: frees the text before `to`.
    fn push_text_tail(&mut self, to: u64) -> bool {
        // Both are at most one ring apart.
        while to.wrapping_sub(self.tail_lpos).wrapping_sub(1) < self.bytes() {
            let owner = self
                .written
                .iter()
                .position(|written| written.begin == self.tail_lpos);
            let Some(owner) = owner else {
                // Its descriptor has gone: the head is all there is.
                return false;
            };
            match self.written[owner].state {
                State::Reserved | State::Committed => return false,
                State::Finalized => self.set_state(owner, State::Reusable),
                State::Reusable => {}
            }
            self.tail_lpos = self.written[owner].next;
        }
        true
    }

    fn set_state(&mut self, at: usize, state: State) {
        self.written[at].state = state;
        let written = self.written[at].clone();
        let index = self.index(written.id);
        self.put_desc(index * self.size("prb_desc"), &written);
    }

    fn put_desc(&mut self, at: usize, written: &Written) {
        let state_var = (written.state as u64) << 62 | written.id;
        let block = at + self.offset("prb_desc.text_blk_lpos");
        for (at, number) in [
            (at + self.offset("prb_desc.state_var"), state_var),
            (
                block + self.offset("prb_data_blk_lpos.begin"),
                written.begin,
            ),
            (block + self.offset("prb_data_blk_lpos.next"), written.next),
        ] {
            put(&mut self.descs, at, &number.to_le_bytes());
        }
    }

    /// The memory from [`PHYSICAL`] on: the pointer `prb`, what it points to, and
    /// the three arrays.
    pub(crate) fn memory(&self) -> Vec<u8> {
        let base = if self.dynamic { IN_DIRECT } else { IN_TEXT };
        let mut prb = vec![0; self.size("printk_ringbuffer")];
        let descs_at = 8 + prb.len();
        let infos_at = descs_at + self.descs.len();
        let text_at = infos_at + self.infos.len();
        let address = |at: usize| base + at as u64;
        let head_id = self.written.back().unwrap().id;
        for (structure, name, number) in [
            ("desc_ring", "prb_desc_ring.descs", address(descs_at)),
            ("desc_ring", "prb_desc_ring.infos", address(infos_at)),
            ("desc_ring", "prb_desc_ring.head_id", head_id),
            ("desc_ring", "prb_desc_ring.tail_id", self.tail_id),
            ("text_data_ring", "prb_data_ring.data", address(text_at)),
            ("text_data_ring", "prb_data_ring.head_lpos", self.head_lpos),
            ("text_data_ring", "prb_data_ring.tail_lpos", self.tail_lpos),
        ] {
            let structure = format!("printk_ringbuffer.{structure}");
            let at = self.offset(&structure) + self.offset(name);
            put(&mut prb, at, &number.to_le_bytes());
        }
        for (structure, name, bits) in [
            ("desc_ring", "prb_desc_ring.count_bits", self.count_bits),
            ("text_data_ring", "prb_data_ring.size_bits", self.size_bits),
        ] {
            let structure = format!("printk_ringbuffer.{structure}");
            let at = self.offset(&structure) + self.offset(name);
            put(&mut prb, at, &bits.to_le_bytes());
        }
        let pointer = (IN_TEXT + 8).to_le_bytes();
        [&pointer[..], &prb, &self.descs, &self.infos, &self.text].concat()
    }

    /// Where in the memory the descriptor of the record `seq` lies, its
    /// printk_info, and the data ring.
    pub(crate) fn places(&self, seq: u64) -> [usize; 3] {
        let index = self.index(seq);
        let descs = 8 + self.size("printk_ringbuffer");
        let infos = descs + self.descs.len();
        [
            descs + index * self.size("prb_desc"),
            infos + index * self.size("printk_info"),
            infos + self.infos.len(),
        ]
    }

    /// VMCOREINFO as the kernel writes it.
    pub(crate) fn info(&self) -> String {
        let mut info = "OSRELEASE=6.1.0-tiny\nPAGESIZE=4096\n".to_owned();
        info += &format!("SYMBOL(prb)={IN_TEXT:x}\n");
        for (name, _) in SIZES {
            info += &format!("SIZE({name})={}\n", self.size(name));
        }
        for (name, _) in OFFSETS {
            info += &format!("OFFSET({name})={}\n", self.offset(name));
        }
        info + "NUMBER(phys_base)=0\nKERNELOFFSET=1000000\nCRASHTIME=1800000000\n"
    }

    /// The dump.
    pub(crate) fn vmcore(&self) -> TinyVmcore {
        TinyVmcore::new(self.memory(), &self.info())
    }
}

/// The time of the record `seq`: one every 1.5 seconds.
pub(crate) fn ts_nsec(seq: u64) -> u64 {
    seq * 1_500_001_000
}

/// Threads and CPUs in turn.
pub(crate) fn caller_id(seq: u64) -> u32 {
    if seq.is_multiple_of(2) {
        7
    } else {
        1 << 31 | 7
    }
}

/// A PT_LOAD segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    /// Where it begins in the memory, bytes.
    pub(crate) start: usize,
    pub(crate) filesz: u64,
    pub(crate) memsz: u64,
}

/// An ELF core.
#[derive(Debug, Clone)]
pub(crate) struct TinyVmcore {
    pub(crate) memory: Vec<u8>,
    pub(crate) loads: Vec<Load>,
    /// The PT_NOTE segments.
    pub(crate) notes: Vec<Vec<u8>>,
    /// Program headers are counted in a section header.
    pub(crate) xnum: bool,
}

impl TinyVmcore {
    /// As the kernel makes it for one CPU: text, then RAM, which has the same
    /// memory; notes in two segments.
    pub(crate) fn new(memory: Vec<u8>, info: &str) -> Self {
        let load = |vaddr| Load {
            vaddr,
            paddr: PHYSICAL,
            start: 0,
            filesz: memory.len() as u64,
            memsz: memory.len() as u64,
        };
        Self {
            loads: vec![load(IN_TEXT), load(IN_DIRECT)],
            notes: vec![
                [note(b"CORE\0", &[7; 9]), vec![0; 30]].concat(),
                note(b"VMCOREINFO\0", info.as_bytes()),
            ],
            memory,
            xnum: false,
        }
    }

    /// Where the memory begins in the file: it is the end of it.
    pub(crate) fn memory_at(&self) -> usize {
        let notes: usize = self.notes.iter().map(Vec::len).sum();
        64 + 64 + 56 * (self.loads.len() + self.notes.len()) + notes
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let headers = self.loads.len() + self.notes.len();
        let mut file = b"\x7fELF\x02\x01\x01".to_vec(); // 64-bit, little-endian, version 1
        file.resize(16, 0);
        file.extend([4, 0, 62, 0, 1, 0, 0, 0]); // ET_CORE, EM_X86_64, version 1
        for number in [0_u64, 128, 64] {
            file.extend(number.to_le_bytes()); // e_entry, e_phoff, e_shoff
        }
        let count = if self.xnum { 0xffff } else { half(headers) };
        for number in [0, 0, 64, 56, count, 64, 1, 0] {
            file.extend(number.to_le_bytes()); // e_flags, sizes and numbers of headers
        }
        file.resize(128, 0);
        put(&mut file, 64 + 44, &word(headers).to_le_bytes()); // sh_info of section 0

        let mut header = |kind: u32, numbers: [u64; 5]| {
            file.extend(kind.to_le_bytes());
            file.extend(7_u32.to_le_bytes()); // p_flags
            for number in numbers.into_iter().chain([0]) {
                file.extend(number.to_le_bytes());
            }
        };
        let mut at = (128 + 56 * headers) as u64;
        for note in &self.notes {
            let size = note.len() as u64;
            header(4, [at, 0, 0, size, size]);
            at += size;
        }
        for load in &self.loads {
            let offset = at + load.start as u64;
            header(1, [offset, load.vaddr, load.paddr, load.filesz, load.memsz]);
        }
        file.extend(self.notes.concat());
        file.extend(&self.memory);
        file
    }
}

/// A note, padded to 4 bytes.
pub(crate) fn note(name: &[u8], text: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for number in [word(name.len()), word(text.len()), 0] {
        note.extend(number.to_le_bytes());
    }
    for part in [name, text] {
        note.extend(part);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

fn half(number: usize) -> u16 {
    number.try_into().unwrap()
}

fn word(number: usize) -> u32 {
    number.try_into().unwrap()
}

/// Puts `new` into `bytes` at `at`.
pub(crate) fn put(bytes: &mut [u8], at: usize, new: &[u8]) {
    bytes[at..at + new.len()].copy_from_slice(new);
}
