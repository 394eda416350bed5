//! Scratch memory: how much the next kernel needs to start in, and where it is.

use bstr::BStr;

use super::set_aside::{self, CRASH_LOW, Pieces, Place};
use super::{CarryError, Ground, Inputs};
use crate::base::{PhysRange, human};
use crate::carry::reserved;
use crate::cmdline;
use crate::kho::{ALIGNMENT, LOW, Needs, SWIOTLB, SetAside, State};
use crate::layout::{Places, stream_size};

/// CPUs that are reckoned with where nothing tells how many there may be.
const UNKNOWN_CPUS: u64 = 64;
/// What the tables of the next kernel take at most, bytes, as far as it is not known.
const TABLES: u64 = 1 << 20;

/// What the next kernel needs to start in with the handed-over `state`. Its tables have
/// `record` bytes besides what they always have. Twice: where memory for a crash kernel
/// that may lie anywhere lies below 4 GiB, and where it lies above.
pub(super) fn needs(
    inputs: Inputs<'_, '_>,
    ground: &Ground,
    state: &State,
    record: usize,
) -> [Needs; 2] {
    let line = ground.cmdline.as_bstr();
    let told = ground.memory_map.told();
    let ram = told.iter().filter(|(_, told)| told.is_ram());
    let end = ram.clone().map(|(range, _)| range.end()).max();
    let end = end.unwrap_or(0);
    let below = PhysRange::from_bounds(0, LOW).ok();
    let low_ram = ram.clone();
    let low_ram = low_ram.filter_map(|(range, _)| Some(range.intersection(below?)?.size()));
    let low_ram = low_ram.sum();
    let ram = ram.map(|(range, _)| range.size()).sum();
    let kernel = inputs.image.memory_size();
    let kaslr = !inputs.boot.stays_put() && !cmdline::has(line, "nokaslr");
    let is_random = kaslr || inputs.boot.is_placed_at_random();
    let tables = TABLES + (line.len() + record) as u64;
    let needs = |above| Needs {
        ram,
        low_ram,
        end,
        cpus: inputs.host.possible_cpus.unwrap_or(UNKNOWN_CPUS),
        loaded: kernel
            .saturating_add(stream_size(inputs.initrds))
            .saturating_add(tables),
        kernel: if kaslr { kernel } else { 0 },
        set_aside: set_aside(line, ram, end, state, is_random, above),
    };
    [needs(false), needs(true)]
}

/// What words of the command line set aside: once where a crash kernel's memory that may
/// lie anywhere lies below 4 GiB, and once where it lies above.
fn set_aside(
    line: &BStr,
    ram: u64,
    end: u64,
    state: &State,
    is_random: bool,
    above: bool,
) -> SetAside {
    let mut pieces = set_aside::pieces(line, ram);
    let is_revived = |name: &str| state.pools.iter().any(|pool| pool.name.as_str() == name);
    let fresh = reserved::words(line).into_iter();
    let fresh = fresh.filter(|word| !is_revived(&word.name));
    pieces.extend(fresh.map(|word| Pieces {
        word: word.text,
        size: word.size,
        count: 1,
        align: word.align,
        place: Place::Anywhere,
    }));
    let (mut low, mut anywhere) = (Sum::default(), Sum::default());
    for piece in &pieces {
        let (total, one) = (piece.total(), piece.one());
        match piece.place {
            // What is there without a word is counted for itself.
            Place::Dma if end > LOW => low.add(total.saturating_sub(SWIOTLB), one),
            Place::Low | Place::Dma => low.add(total, one),
            Place::LowFirst if !above => low.add(total, one),
            Place::LowFirst | Place::High => {
                anywhere.add(total, one);
                low.add(CRASH_LOW, CRASH_LOW);
            }
            Place::Anywhere => anywhere.add(total, one),
            // No scratch memory is chosen for it.
            Place::At(_) | Place::Over(_) => {}
        }
    }
    let again = |sum: &Sum| if is_random { sum.largest } else { 0 };
    SetAside {
        low: low.all,
        anywhere: anywhere.all,
        again: (again(&low), again(&anywhere)),
    }
}

/// A sum of pieces, bytes.
#[derive(Default)]
struct Sum {
    all: u64,
    largest: u64,
}

impl Sum {
    /// Adds pieces with a `total`, of which the largest is `one`.
    fn add(&mut self, total: u64, one: u64) {
        self.all = self.all.saturating_add(total);
        self.largest = self.largest.max(one);
    }
}

/// The scratch memory that was taken.
#[derive(Debug)]
pub(super) struct Scratch {
    /// One region or two. The first lies below 4 GiB.
    pub regions: Vec<PhysRange>,
    /// How its size comes about.
    pub needs: Needs,
    pub warning: Option<String>,
}

/// Takes scratch memory from `places`: one region below 4 GiB where that fits and leaves
/// half of the RAM there, else one there and one anywhere. `needs`: with memory for a crash
/// kernel below 4 GiB, and above.
pub(super) fn take(places: &mut Places<'_>, needs: [Needs; 2]) -> Result<Scratch, CarryError> {
    let [below, above] = needs;
    let warning = check(below)?;
    let mut highest = |wanted: &[(u64, (u64, u64))]| {
        let mut left = places.clone();
        let take = |(size, bounds): &(u64, (u64, u64))| {
            left.highest("scratch memory", *size, ALIGNMENT, *bounds)
                .ok()
        };
        let regions: Option<Vec<PhysRange>> = wanted.iter().map(take).collect();
        if regions.is_some() {
            *places = left;
        }
        regions
    };
    let low = (0, LOW);
    let one = |needs: Needs| (needs, vec![(needs.size(), low)]);
    let two = |needs: Needs, floor| {
        let rest = (needs.size().saturating_sub(needs.low_size())).max(ALIGNMENT);
        (
            needs,
            vec![(needs.low_size(), low), (rest, (floor, u64::MAX))],
        )
    };
    let mut tried = vec![one(below), two(below, 0), two(above, 0)];
    if below.crowds_low() {
        tried.insert(0, two(below, LOW));
    }
    let mut tried = tried.into_iter();
    let taken = tried.find_map(|(needs, wanted)| Some((highest(&wanted)?, needs)));
    let (regions, needs) = taken.ok_or_else(|| none(below, None))?;
    Ok(Scratch {
        regions,
        needs,
        warning,
    })
}

/// Refuses scratch memory that leaves the next kernel too little for what cannot be moved.
/// Gives a warning where that may be little.
fn check(needs: Needs) -> Result<Option<String>, CarryError> {
    let (movable, ram) = needs.movable();
    if needs.size() > needs.ram {
        return Err(none(needs, None));
    }
    if movable > ram / 2 {
        return Err(none(needs, Some((movable, ram))));
    }
    Ok((movable > ram / 4).then(|| {
        format!(
            "{} of scratch memory is more than a quarter of the next kernel's free RAM ({}): only pages that can be \
             moved may lie there as long as it runs",
            human(movable),
            human(ram)
        )
    }))
}

fn none(needs: Needs, much: Option<(u64, u64)>) -> CarryError {
    let parts = needs.parts().into_iter().filter(|(_, size)| *size > 0);
    let sum: Vec<String> = parts
        .map(|(what, size)| format!("{what} {}", human(size)))
        .collect();
    CarryError::NoScratch {
        size: needs.size(),
        much,
        sum: sum.join(", "),
    }
}
