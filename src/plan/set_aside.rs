//! Memory that words of the next kernel's command line set aside while it starts
//! (Documentation/admin-guide/kernel-parameters.rst).

use bstr::BStr;

use crate::base::{PhysRange, parse_size};
use crate::cmdline::{self, GIGABYTE_PAGE};
use crate::kho::LOW;

/// Where a crash kernel's memory begins: multiples of this, bytes (`CRASH_ALIGN`).
const CRASH_ALIGNMENT: u64 = 16 << 20;
/// Bytes that one of the slabs of `swiotlb=` has (`IO_TLB_SIZE`).
const SLAB: u64 = 2048;
/// Their number is a multiple of this (`IO_TLB_SEGSIZE`).
const SLABS: u64 = 128;

/// Where the next kernel looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Below 4 GiB.
    Low,
    /// Below 4 GiB for DMA: a buffer of its own size replaces the one that is there without
    /// a word.
    Dma,
    /// Below 4 GiB; where nothing fits there, above, and then it takes [`CRASH_LOW`] below
    /// besides.
    LowFirst,
    /// Above 4 GiB and, where nothing fits there, below. It takes [`CRASH_LOW`] below
    /// besides, unless a word says how much.
    High,
    /// Anywhere.
    Anywhere,
    /// There and nowhere else, out of what is free for it.
    At(PhysRange),
    /// There, whatever lies there.
    Over(PhysRange),
}

/// What `crashkernel=` takes below 4 GiB besides where it lies above, bytes, without a word
/// for it (`DEFAULT_CRASH_KERNEL_LOW_SIZE` of arch/x86/include/asm/crash_reserve.h).
pub(super) const CRASH_LOW: u64 = (256 << 20) + CRASH_ALIGNMENT;

/// Pieces of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pieces {
    /// The word, for people.
    pub word: String,
    /// How large each is, bytes.
    pub size: u64,
    /// How many there are.
    pub count: u64,
    /// Of what the address of each is a multiple, bytes.
    pub align: u64,
    pub place: Place,
}

impl Pieces {
    /// What all of them take, bytes, with what their alignment may lose.
    pub(super) fn total(&self) -> u64 {
        // Side by side, but the first may begin anywhere.
        let total = self.size.saturating_mul(self.count);
        total.saturating_add(self.align)
    }

    /// What a kernel that lies in between takes from them, bytes: a page of 1 GiB, or the
    /// place of the one piece.
    pub(super) fn one(&self) -> u64 {
        match (self.size, self.align) {
            (GIGABYTE_PAGE, GIGABYTE_PAGE) => GIGABYTE_PAGE,
            _ => self.total(),
        }
    }
}

/// What the words of `line` set aside on a machine with `ram` bytes, but for
/// `reserve_mem=`.
pub(super) fn pieces(line: &BStr, ram: u64) -> Vec<Pieces> {
    let pages = gigabyte_pages(line);
    let pages = (pages > 0).then(|| Pieces {
        word: format!("hugepages={pages} of 1 GiB"),
        ..gigabytes(pages)
    });
    let others = [
        cma(line),
        hugetlb_cma(line),
        log_buffer(line),
        dma_buffers(line),
        pages,
    ];
    let mut pieces = crash(line, ram);
    pieces.extend(others.into_iter().flatten());
    pieces.retain(|piece| piece.size > 0);
    pieces
}

/// Those of `pieces` with a place of their own that does no good beside `scratch`.
pub(super) fn misplaced(pieces: &[Pieces], scratch: &[PhysRange]) -> Vec<String> {
    let misplaced = |piece: &Pieces| match piece.place {
        Place::At(range) if !scratch.iter().any(|region| region.covers(range)) => Some(format!(
            "{} of the new command line lies outside the scratch memory, where alone the new kernel finds \
             memory: leave the address out",
            piece.word
        )),
        Place::Over(_) => Some(format!(
            "{} of the new command line takes that place whatever is handed over there: leave the address out",
            piece.word
        )),
        _ => None,
    };
    pieces.iter().filter_map(misplaced).collect()
}

/// The values of `name` as text.
fn texts<'l>(line: &'l BStr, name: &'l str) -> impl DoubleEndedIterator<Item = &'l str> {
    let values: Vec<&str> = cmdline::values(line, name)
        .filter_map(|value| std::str::from_utf8(value).ok())
        .collect();
    values.into_iter()
}

/// One piece that may lie anywhere.
fn one(name: &str, value: &str, size: u64) -> Pieces {
    Pieces {
        word: format!("{name}={value}"),
        size,
        count: 1,
        align: 0,
        place: Place::Anywhere,
    }
}

/// Pages of 1 GiB.
fn gigabytes(count: u64) -> Pieces {
    Pieces {
        count,
        align: GIGABYTE_PAGE,
        ..one("", "", GIGABYTE_PAGE)
    }
}

/// `crashkernel=`: the last without a suffix counts, and those with one only where there is
/// none (kernel/crash_reserve.c, `parse_crashkernel`).
fn crash(line: &BStr, ram: u64) -> Vec<Pieces> {
    let name = "crashkernel";
    let of = |value: &str, place| {
        let size = crashkernel(value, ram)?;
        let align = CRASH_ALIGNMENT;
        let place = fixed(value, size).map_or(place, Place::At);
        Some(Pieces {
            align,
            place,
            ..one(name, value, size)
        })
    };
    let last = |suffix: &'static str| texts(line, name).rfind(move |it| it.ends_with(suffix));
    let plain = texts(line, name).rfind(|value| {
        let suffixes = [",high", ",low", ",cma"];
        !suffixes.iter().any(|suffix| value.ends_with(suffix))
    });
    if let Some(plain) = plain {
        return of(plain, Place::LowFirst).into_iter().collect();
    }
    let Some(high) = last(",high").and_then(|value| of(value, Place::High)) else {
        return Vec::new();
    };
    let low = last(",low").and_then(|value| of(value, Place::Low));
    let place = match low {
        Some(_) => Place::Anywhere,
        None => high.place,
    };
    let high = Pieces { place, ..high };
    std::iter::once(high).chain(low).collect()
}

/// The range behind `@`, where `size` bytes are to lie.
fn fixed(value: &str, size: u64) -> Option<PhysRange> {
    let (_, address) = value.split_once('@')?;
    let address = parse_size(address).ok().filter(|address| *address > 0)?;
    PhysRange::new(address, size).ok()
}

/// The bytes that `crashkernel=` asks for in one piece on a machine with `ram` bytes.
/// `None`: nothing, or in a notation that is not read here
/// (Documentation/admin-guide/kdump/kdump.rst).
fn crashkernel(value: &str, ram: u64) -> Option<u64> {
    // These pages need not lie side by side.
    if value.ends_with(",cma") {
        return None;
    }
    if !value.contains(':') {
        let size = value.split(['@', ',']).next()?;
        return parse_size(size).ok();
    }
    let rows = value.split('@').next()?.split(',');
    let mut sizes = rows.filter_map(|row| {
        let (range, size) = row.split_once(':')?;
        let (from, to) = range.split_once('-')?;
        let is_below = to.is_empty() || parse_size(to).is_ok_and(|to| ram < to);
        let holds = parse_size(from).is_ok_and(|from| from <= ram) && is_below;
        holds.then(|| parse_size(size).ok())
    });
    sizes.next()?
}

/// `cma=SIZE[@START[-END]]` (kernel/dma/contiguous.c, `early_cma`).
fn cma(line: &BStr) -> Option<Pieces> {
    let value = texts(line, "cma").next_back()?;
    let (size, place) = value.split_once('@').unwrap_or((value, ""));
    let piece = one("cma", value, parse_size(size).ok()?);
    let (start, end) = match place.split_once('-') {
        Some((start, end)) => (parse_size(start).ok(), parse_size(end).ok()),
        None => (parse_size(place).ok(), None),
    };
    let end = match (start, end) {
        (Some(start), None) => start.checked_add(piece.size),
        (_, end) => end,
    };
    let range = PhysRange::from_bounds(start.unwrap_or(0), end.unwrap_or(u64::MAX)).ok();
    let place = match range {
        Some(range) if start.is_some() && range.size() == piece.size => Place::Over(range),
        Some(range) if range.end() <= LOW => Place::Low,
        _ => Place::Anywhere,
    };
    Some(Pieces { place, ..piece })
}

/// `hugetlb_cma=SIZE`, or `NODE:SIZE,…`: areas for pages of 1 GiB (mm/hugetlb_cma.c).
fn hugetlb_cma(line: &BStr) -> Option<Pieces> {
    let value = texts(line, "hugetlb_cma").next_back()?;
    let size = sum_of_nodes(value, |size| parse_size(size).ok())?;
    let word = format!("hugetlb_cma={value}");
    // Less than a page is no area.
    let pages = size.div_ceil(GIGABYTE_PAGE);
    (size >= GIGABYTE_PAGE).then(|| Pieces {
        word,
        ..gigabytes(pages)
    })
}

/// `log_buf_len=`.
fn log_buffer(line: &BStr) -> Option<Pieces> {
    let value = texts(line, "log_buf_len").next_back()?;
    Some(one("log_buf_len", value, parse_size(value).ok()?))
}

/// `swiotlb=SLABS[,AREAS]`, `swiotlb=force` (kernel/dma/swiotlb.c, `setup_io_tlb_npages`).
fn dma_buffers(line: &BStr) -> Option<Pieces> {
    let name = "swiotlb";
    let mut slabs = texts(line, name).filter_map(|value| digits(value).map(|slabs| (value, slabs)));
    let slabs = slabs.next_back().map(|(value, slabs)| {
        let slabs = slabs.div_ceil(SLABS).saturating_mul(SLABS);
        one(name, value, slabs.saturating_mul(SLAB))
    });
    let forced = texts(line, name).find(|value| value.split(',').any(|word| word == "force"));
    let forced = forced.map(|value| one(name, value, crate::kho::SWIOTLB));
    slabs.or(forced).map(|piece| Pieces {
        place: Place::Dma,
        ..piece
    })
}

/// How many pages of 1 GiB the kernel of `line` sets aside when it starts (mm/hugetlb.c,
/// `hugepages_setup`). [`cmdline::gigabyte_pages`] is what its unpacker reads.
fn gigabyte_pages(line: &BStr) -> u64 {
    let is_gigabyte = |value: &str| parse_size(value) == Ok(GIGABYTE_PAGE);
    // Before any size is named, the number is that of the pages of the default size.
    let (mut named, mut by_default, mut is_default, mut pages) = (None, 0, false, 0);
    for (name, value) in cmdline::parameters(line).map(cmdline::parameter) {
        let Some(value) = value.and_then(|value| std::str::from_utf8(value).ok()) else {
            continue;
        };
        if name == "hugepagesz" {
            named = Some(is_gigabyte(value));
        } else if name == "default_hugepagesz" {
            is_default = is_gigabyte(value);
            named = Some(is_default);
        } else if name == "hugepages" {
            let number = sum_of_nodes(value, digits).unwrap_or(0);
            match named {
                None => by_default = number,
                Some(true) => pages = number,
                Some(false) => {}
            }
        }
    }
    match is_default && by_default > 0 {
        true => by_default,
        false => pages,
    }
}

/// The sum of `NODE:VALUE,…`, or the one value without a node.
fn sum_of_nodes(value: &str, read: impl Fn(&str) -> Option<u64>) -> Option<u64> {
    if !value.contains(':') {
        return read(value);
    }
    let values = value.split(',').filter_map(|part| part.split_once(':'));
    let mut values = values.map(|(_, value)| read(value));
    values.try_fold(0_u64, |sum, value| Some(sum.saturating_add(value?)))
}

/// The number that a text starts with.
fn digits(text: &str) -> Option<u64> {
    let end = text.find(|digit: char| !digit.is_ascii_digit());
    text.get(..end.unwrap_or(text.len()))?.parse().ok()
}

#[cfg(test)]
#[path = "set_aside_tests.rs"]
mod tests;
