//! Memory that a command line takes away from its kernel.
//!
//! The kernel changes its memory map by its own command line before it allocates
//! anything, and sets memory aside at addresses that the line names. What a loader
//! put there is lost. A word is read here as the kernel reads it:
//!
//! - `memmap=` and `mem=` change the map word by word, in the order of the line
//!   (`parse_memmap_one` and `parse_memopt` in arch/x86/kernel/e820.c). Entries may
//!   overlap meanwhile, and at last the largest type wins (`e820__update_table`).
//! - `crashkernel=X@Y`: the last one counts, found by its letters alone, whatever
//!   is around them (`get_last_crashkernel` in kernel/crash_reserve.c).
//! - `cma=X@Y` and `pmpool=BASE,SIZE`: the last one counts.
//!
//! Not here, as they take no memory at an address that the line names: `reserve_mem=`
//! and `crashkernel=` without an address (the kernel looks for free memory), and
//! `efi_fake_mem=` (it changes boot services' memory only, and after a kexec the
//! EFI memory map has none).

use super::E820_MAX_ENTRIES;
use crate::base::{PhysRange, Told};
use crate::boot::Taken;
use crate::carry::Pool;
use crate::cmdline;

/// Endings of `crashkernel=` that name no address (`suffix_tbl`).
const SUFFIXES: [&[u8]; 3] = [b",high", b",low", b",cma"];

/// The memory of type `told` that `line` takes away: the ranges whose type it changes,
/// and those it sets aside at a fixed address. In address order; where several words
/// take the same memory, one of them is named.
#[must_use]
pub fn taken(line: &[u8], told: Told) -> Vec<Taken> {
    let mut map = Map::new(told);
    let mut fixed = Fixed::default();
    let words = cmdline::parameters(line).map(cmdline::parameter);
    for (name, value) in words.filter_map(|(name, value)| Some((name, value?))) {
        match &**name {
            b"mem" => map.mem(value),
            b"memmap" => value
                .split(|byte| *byte == b',')
                .for_each(|one| map.memmap(one)),
            b"cma" => fixed.cma = cma(value),
            b"pmpool" => fixed.pmpool = pmpool(value),
            _ => {}
        }
    }
    let mut taken = map.changed(told);
    // What is reserved already stays as it is.
    if told.is_ram() {
        fixed.crashkernel = crashkernel(line);
        taken.extend(
            [fixed.crashkernel, fixed.cma, fixed.pmpool]
                .into_iter()
                .flatten(),
        );
        taken.sort_by_key(|taken| taken.range);
    }
    taken
}

/// Memory set aside at fixed addresses; the last word of each name counts.
#[derive(Default)]
struct Fixed {
    crashkernel: Option<Taken>,
    cma: Option<Taken>,
    pmpool: Option<Taken>,
}

/// A word for messages.
fn word(name: &str, value: &[u8]) -> String {
    format!("{name}={}", String::from_utf8_lossy(value))
}

/// A range as far as addresses go.
fn clamped(start: u64, size: u64) -> Option<PhysRange> {
    PhysRange::from_bounds(start, start.saturating_add(size)).ok()
}

/// The kernel's memory map while its line is read.
struct Map {
    /// They may overlap. The last field is the word that made the entry.
    entries: Vec<(PhysRange, Told, Option<String>)>,
    /// What was removed, and by which word.
    removed: Vec<(PhysRange, String)>,
}

impl Map {
    /// A map in which all memory has the type `told`. Memory of other types does not
    /// change the result for such an address.
    fn new(told: Told) -> Self {
        let all = PhysRange::from_bounds(0, u64::MAX).ok();
        Self {
            entries: all.into_iter().map(|all| (all, told, None)).collect(),
            removed: Vec::new(),
        }
    }

    /// `mem=`: no RAM from there on.
    fn mem(&mut self, value: &[u8]) {
        let (size, _) = memparse(value);
        if size != 0 && value != b"nopentium" {
            self.limit(size, &word("mem", value));
        }
    }

    /// One of the values that `memmap=` lists.
    fn memmap(&mut self, value: &[u8]) {
        let word = word("memmap", value);
        if value.starts_with(b"exactmap") {
            self.remove(clamped(0, u64::MAX), None, &word);
            return;
        }
        let (size, rest) = memparse(value);
        if rest.len() == value.len() {
            return; // no number
        }
        let Some((mark, rest)) = rest.split_first() else {
            self.limit(size, &word);
            return;
        };
        let (start, rest) = memparse(rest);
        let range = clamped(start, size);
        match mark {
            b'@' => self.add(range, Told::RAM, &word),
            b'#' => self.add(range, Told::ACPI, &word),
            b'$' => self.add(range, Told::RESERVED, &word),
            b'!' => self.add(range, Told::PRAM, &word),
            b'%' => self.convert(range, rest, &word),
            _ => self.limit(size, &word),
        }
    }

    /// `nn%ss-FROM+TO`, of which both types may be left out.
    fn convert(&mut self, range: Option<PhysRange>, types: &[u8], word: &str) {
        let mut rest = types;
        let mut kind = |mark: u8| match rest.split_first() {
            Some((first, behind)) if *first == mark => {
                let number;
                (number, rest) = number_of(behind);
                // An enum has 32 bits.
                u32::try_from(number & 0xffff_ffff)
                    .ok()
                    .filter(|it| *it != 0)
            }
            _ => None,
        };
        let (from, to) = (kind(b'-').map(Told), kind(b'+').map(Told));
        if !rest.is_empty() {
            return;
        }
        match (from, to) {
            (Some(from), Some(to)) => {
                for part in self.cut(range, Some(from)) {
                    self.push(part, to, word);
                }
            }
            (None, Some(to)) => self.add(range, to, word),
            (from, None) => self.remove(range, from, word),
        }
    }

    /// No RAM at or above `end`.
    fn limit(&mut self, end: u64, word: &str) {
        let above = PhysRange::from_bounds(end, u64::MAX).ok();
        self.remove(above, Some(Told::RAM), word);
    }

    fn add(&mut self, range: Option<PhysRange>, kind: Told, word: &str) {
        if let Some(range) = range {
            self.push(range, kind, word);
        }
    }

    fn push(&mut self, range: PhysRange, kind: Told, word: &str) {
        if self.entries.len() < E820_MAX_ENTRIES {
            self.entries.push((range, kind, Some(word.to_owned())));
        }
    }

    fn remove(&mut self, range: Option<PhysRange>, kind: Option<Told>, word: &str) {
        let parts = self.cut(range, kind);
        if let (Some(range), false) = (range, parts.is_empty()) {
            self.removed.push((range, word.to_owned()));
        }
    }

    /// Takes `range` out of every entry of the type `kind`, or of any type. Gives
    /// what was taken out.
    fn cut(&mut self, range: Option<PhysRange>, kind: Option<Told>) -> Vec<PhysRange> {
        let mut parts = Vec::new();
        let Some(range) = range else {
            return parts;
        };
        let mut beyond = Vec::new();
        self.entries.retain_mut(|(entry, of, word)| {
            let Some(part) = entry.intersection(range) else {
                return true;
            };
            if kind.is_some_and(|kind| kind != *of) {
                return true;
            }
            parts.push(part);
            let before = PhysRange::from_bounds(entry.start(), part.start());
            let behind = PhysRange::from_bounds(part.end(), entry.end());
            match (before, behind) {
                (Ok(before), behind) => {
                    *entry = before;
                    beyond.extend(behind.ok().map(|behind| (behind, *of, word.clone())));
                    true
                }
                (Err(_), Ok(behind)) => {
                    *entry = behind;
                    true
                }
                (Err(_), Err(_)) => false,
            }
        });
        let room = E820_MAX_ENTRIES.saturating_sub(self.entries.len());
        self.entries.extend(beyond.into_iter().take(room));
        parts
    }

    /// Where the map is no longer `told`, and which word made it so.
    fn changed(&self, told: Told) -> Vec<Taken> {
        let ranges = self.entries.iter().map(|(range, ..)| range);
        let mut edges: Vec<u64> = ranges
            .chain(self.removed.iter().map(|(range, _)| range))
            .flat_map(|range| [range.start(), range.end()])
            .collect();
        edges.sort_unstable();
        edges.dedup();
        let mut taken: Vec<Taken> = Vec::new();
        for pair in edges.windows(2) {
            let &[start, end] = pair else { continue };
            let Ok(range) = PhysRange::from_bounds(start, end) else {
                continue;
            };
            let here = self
                .entries
                .iter()
                .filter(|(entry, ..)| entry.covers(range));
            let word = match here.max_by_key(|(_, kind, _)| *kind) {
                Some((_, kind, _)) if *kind == told => continue,
                Some((_, _, word)) => word.clone(),
                None => {
                    let mut removals = self.removed.iter().rev();
                    let last = removals.find(|(removed, _)| removed.covers(range));
                    last.map(|(_, word)| word.clone())
                }
            };
            let Some(word) = word else { continue };
            match taken.last_mut() {
                Some(last) if last.range.end() == start && last.word == word => {
                    last.range = PhysRange::from_bounds(last.range.start(), end).unwrap_or(range);
                }
                _ => taken.push(Taken {
                    range,
                    parameter: if word.starts_with("memmap") {
                        "memmap"
                    } else {
                        "mem"
                    },
                    word,
                }),
            }
        }
        taken
    }
}

/// The last `crashkernel=` without a known suffix, if it names an address. Of a list of
/// sizes for machines of different size, the largest counts here.
fn crashkernel(line: &[u8]) -> Option<Taken> {
    const NAME: &[u8] = b"crashkernel=";
    let value = |at: usize| {
        let value = line.get(at + NAME.len()..)?;
        value.split(|byte| *byte == b' ').next()
    };
    let found = line.windows(NAME.len()).enumerate().rev();
    let value = found
        .filter(|(_, letters)| *letters == NAME)
        .filter_map(|(at, _)| value(at))
        .find(|value| !SUFFIXES.iter().any(|suffix| value.ends_with(suffix)))?;
    let at = value.iter().position(|byte| *byte == b'@')?;
    let (sizes, address) = value.split_at_checked(at)?;
    let (base, _) = memparse(address.get(1..)?);
    let size = if sizes.contains(&b':') {
        let sizes = sizes.split(|byte| *byte == b',');
        let sizes = sizes.filter_map(|row| row.splitn(2, |byte| *byte == b':').nth(1));
        sizes.map(|size| memparse(size).0).max()
    } else {
        let (size, rest) = memparse(sizes);
        rest.is_empty().then_some(size)
    };
    // To the kernel, address 0 means none.
    Some(Taken {
        range: clamped(base, size?).filter(|_| base != 0)?,
        parameter: "crashkernel",
        word: word("crashkernel", value),
    })
}

/// `cma=SIZE@BASE`, or `cma=SIZE@BASE-END` with no choice left
/// (`early_cma` in kernel/dma/contiguous.c).
fn cma(value: &[u8]) -> Option<Taken> {
    let (size, rest) = memparse(value);
    let (base, rest) = memparse(rest.strip_prefix(b"@")?);
    let range = clamped(base, size)?;
    let fixed = match rest.strip_prefix(b"-") {
        Some(end) => memparse(end).0 == range.end(),
        None => true,
    };
    fixed.then(|| Taken {
        range,
        parameter: "cma",
        word: word("cma", value),
    })
}

/// `pmpool=BASE,SIZE`.
fn pmpool(value: &[u8]) -> Option<Taken> {
    let pool = Pool::parse_cmdline(std::str::from_utf8(value).ok()?).ok()?;
    Some(Taken {
        range: pool.range(),
        parameter: "pmpool",
        word: word("pmpool", value),
    })
}

/// `memparse` of lib/cmdline.c: a number with a suffix, and what follows it. As in
/// the kernel, no digits are 0, and what is too large wraps around.
fn memparse(text: &[u8]) -> (u64, &[u8]) {
    let (number, rest) = number_of(text);
    let Some((suffix, behind)) = rest.split_first() else {
        return (number, rest);
    };
    let shift = match suffix.to_ascii_uppercase() {
        b'K' => 10,
        b'M' => 20,
        b'G' => 30,
        b'T' => 40,
        b'P' => 50,
        b'E' => 60,
        _ => return (number, rest),
    };
    (number << shift, behind)
}

/// `simple_strtoull` of lib/vsprintf.c, base 0: 0x is hexadecimal where a digit
/// follows, a leading 0 is octal.
fn number_of(text: &[u8]) -> (u64, &[u8]) {
    let (base, digits) = match text {
        [b'0', b'x' | b'X', digits @ ..] if digits.first().is_some_and(u8::is_ascii_hexdigit) => {
            (16, digits)
        }
        [b'0', ..] => (8, text),
        _ => (10, text),
    };
    let mut number = 0_u64;
    let mut rest = digits;
    while let Some((first, behind)) = rest.split_first()
        && let Some(digit) = char::from(*first).to_digit(base)
    {
        number = number.wrapping_mul(base.into()).wrapping_add(digit.into());
        rest = behind;
    }
    (number, rest)
}

#[cfg(test)]
#[path = "taken_tests.rs"]
mod tests;
