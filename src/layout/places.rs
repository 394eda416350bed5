//! The search for places.
//!
//! The memory that held the running kernel's own initrd is taken late. Boot
//! loaders put it at the top, the kernel freed it late in its boot, and so its
//! allocator gives those pages out early. kexec_load keeps the image in pages
//! from there until the jump, and a page that is also some segment's
//! destination makes it search everything loaded so far (kexec_core.c,
//! `kimage_alloc_page`): the load takes longer with the square of the size.

use super::Excluded;
use crate::base::{PAGE_SIZE, PhysRange, human};
use crate::memory::{Direction, Holes, MemoryMap, NoHole, Placement, Want};
use crate::request::LoadRequest;
use crate::sys::SEGMENT_MAX;

/// Why something has no place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Nothing fits.
    #[error(transparent)]
    NoHole(#[from] NoHole),
    /// The bounds leave nothing.
    #[error("--mem-min {min:#x} is not below --mem-max {max:#x}")]
    EmptyBounds {
        /// Lower bound.
        min: u64,
        /// Upper bound, exclusive.
        max: u64,
    },
    /// Image and request leave no address for something.
    #[error("no place for {what}: it must lie at or above {min:#x} ({}) and below {max:#x} ({})", human(*min), human(*max))]
    Unreachable {
        /// What the place was for.
        what: &'static str,
        /// Lowest address allowed.
        min: u64,
        /// First address not allowed.
        max: u64,
    },
}

impl PlaceError {
    /// A way out, where there is one.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoHole(_) => {
                Some("rkexec memmap shows where segments may go, and why not elsewhere")
            }
            Self::EmptyBounds { .. } => None,
            Self::Unreachable { .. } => Some(
                "these bounds come from --mem-min, --mem-max and the kernel (rkexec inspect shows what it needs)",
            ),
        }
    }
}

/// Which addresses a boot protocol can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The first one.
    pub floor: u64,
    /// What lies below it.
    pub below: &'static str,
    /// The first one that the kernel does not reach when it is entered.
    pub reach: u64,
    /// The search tries addresses below this first, for a kernel that works better with
    /// low ones.
    pub low_first: u64,
}

/// Where the small segments go, beside the kernel and its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// As high as possible.
    Highest,
    /// The lowest place from this address on, or below it when there is none.
    LowestAbove(u64),
}

/// Free memory, and the bounds that request and boot protocol set.
#[derive(Debug, Clone)]
pub struct Places<'p> {
    /// Boot RAM without the running kernel's initrd, boot RAM, hot-added RAM:
    /// each is looked at only when nothing fits in those before it.
    tiers: [Holes; 3],
    used_last_choice: bool,
    /// They are restricted to some ranges.
    restricted: bool,
    /// Segments that are not spoken for.
    segments: usize,
    min: u64,
    max: u64,
    low_first: u64,
    below: &'static str,
    map: &'p MemoryMap,
    excluded: &'p [Excluded],
}

impl<'p> Places<'p> {
    /// The places in `map` that `excluded` leaves. What lies in `late`, the running
    /// kernel's initrd, is given out last of boot RAM.
    ///
    /// # Errors
    /// When `--mem-min` and `--mem-max` leave nothing.
    pub fn new(
        request: &LoadRequest,
        limits: Limits,
        map: &'p MemoryMap,
        excluded: &'p [Excluded],
        late: Option<PhysRange>,
    ) -> Result<Self, PlaceError> {
        let (min, max) = (
            request.mem_min.unwrap_or(0),
            request.mem_max.unwrap_or(u64::MAX),
        );
        if min >= max {
            return Err(PlaceError::EmptyBounds { min, max });
        }
        let free = |placement| {
            let mut holes = Holes::new(map.ranges(placement));
            holes.remove_all(excluded.iter().map(|excluded| excluded.range));
            holes
        };
        let boot = free(Placement::Allowed);
        let mut preferred = boot.clone();
        if let Some(late) = late {
            preferred.remove(late);
        }
        Ok(Self {
            tiers: [preferred, boot, free(Placement::LastChoice)],
            used_last_choice: false,
            restricted: false,
            segments: SEGMENT_MAX,
            min: min.max(limits.floor),
            max: max.min(limits.reach),
            low_first: limits.low_first,
            below: limits.below,
            map,
            excluded,
        })
    }

    /// The same places without memory that was added since boot.
    #[must_use]
    pub fn of_boot(&self) -> Self {
        let mut places = self.clone();
        let [_, _, hot_added] = &mut places.tiers;
        *hot_added = Holes::default();
        places
    }

    /// The free memory of boot within the bounds, at or above `floor`, in pieces of whole
    /// pages: the largest first, and at last what the running kernel's initrd lay in.
    #[must_use]
    pub fn pieces(&self, floor: u64) -> Vec<PhysRange> {
        let [preferred, boot, _] = &self.tiers;
        let mut late = boot.clone();
        late.remove_all(preferred.free().iter().copied());
        let min = self.min.max(floor).div_ceil(PAGE_SIZE);
        let bounds = (
            min.saturating_mul(PAGE_SIZE),
            self.max / PAGE_SIZE * PAGE_SIZE,
        );
        let bounds = PhysRange::from_bounds(bounds.0, bounds.1).ok();
        let of = |holes: &Holes| {
            let free = holes.free().iter();
            let within = free.filter_map(|free| free.intersection(bounds?));
            let mut pieces: Vec<PhysRange> = within.collect();
            pieces.sort_by_key(|piece| std::cmp::Reverse(piece.size()));
            pieces
        };
        [of(preferred), of(&late)].concat()
    }

    /// Keeps `count` segments for others than the boot protocol.
    pub const fn reserve_segments(&mut self, count: usize) {
        self.segments = self.segments.saturating_sub(count);
    }

    /// How many segments the boot protocol may make.
    #[must_use]
    pub const fn segments(&self) -> usize {
        self.segments
    }

    /// Whether they are restricted to ranges.
    #[must_use]
    pub const fn is_restricted(&self) -> bool {
        self.restricted
    }

    /// Restricts the places to `ranges`.
    pub fn within(&mut self, ranges: &[PhysRange]) {
        self.restricted = true;
        self.tiers.iter_mut().for_each(|holes| holes.keep(ranges));
    }

    /// The highest place in `bounds`: first address, first address beyond. An error
    /// describes the free places in boot RAM.
    ///
    /// # Errors
    /// When there is none.
    pub fn highest(
        &mut self,
        what: &'static str,
        size: u64,
        align: u64,
        (min, max): (u64, u64),
    ) -> Result<PhysRange, PlaceError> {
        let direction = Direction::TopDown;
        let low = max.min(self.low_first);
        if low < max.min(self.max)
            && let Ok(place) = self.first(direction, what, size, align, (min, low))
        {
            return Ok(place);
        }
        self.first(direction, what, size, align, (min, max))
    }

    /// The first place from the end that `direction` says, between two bounds.
    ///
    /// # Errors
    /// When there is none.
    pub fn first(
        &mut self,
        direction: Direction,
        what: &'static str,
        size: u64,
        align: u64,
        bounds: (u64, u64),
    ) -> Result<PhysRange, PlaceError> {
        let want = self.want(direction, what, size, align, bounds)?;
        let [preferred, boot, hot_added] = &mut self.tiers;
        let place = match preferred.take(&want).or_else(|_| boot.take(&want)) {
            Ok(place) => place,
            Err(error) => {
                let place = hot_added.take(&want).map_err(|_| error)?;
                self.used_last_choice = true;
                place
            }
        };
        self.tiers.iter_mut().for_each(|holes| holes.remove(place));
        Ok(place)
    }

    /// One of all places, each as likely as the others: `number` chooses. Places in
    /// `spared` are taken only when there are no others.
    ///
    /// # Errors
    /// When there is none.
    pub fn any(
        &mut self,
        what: &'static str,
        size: u64,
        align: u64,
        bounds: (u64, u64),
        spared: &[PhysRange],
        number: u64,
    ) -> Result<PhysRange, PlaceError> {
        let want = self.want(Direction::TopDown, what, size, align, bounds)?;
        let chosen = [spared, &[]].iter().find_map(|spared| {
            let [preferred, boot, _] = &self.tiers;
            [preferred, boot].into_iter().find_map(|tier| {
                let mut holes = tier.clone();
                holes.remove_all(spared.iter().copied());
                let count = holes.count(&want);
                holes.nth(&want, number.checked_rem(count)?)
            })
        });
        match chosen {
            Some(place) => {
                self.tiers.iter_mut().for_each(|holes| holes.remove(place));
                Ok(place)
            }
            // Hot-added memory, or the error.
            None => self.first(Direction::TopDown, what, size, align, bounds),
        }
    }

    /// What is looked for, between two bounds and those of request and boot protocol.
    fn want(
        &self,
        direction: Direction,
        what: &'static str,
        size: u64,
        align: u64,
        (min, max): (u64, u64),
    ) -> Result<Want, PlaceError> {
        let (min, max) = (min.max(self.min), max.min(self.max));
        let bounds = PhysRange::from_bounds(min, max).map_err(|_| PlaceError::Unreachable {
            what,
            min,
            max,
        })?;
        Ok(Want {
            what,
            size,
            align,
            bounds,
            direction,
        })
    }

    /// A place on whole pages for something small.
    ///
    /// # Errors
    /// When there is none.
    pub fn small(
        &mut self,
        rest: Rest,
        what: &'static str,
        size: u64,
    ) -> Result<PhysRange, PlaceError> {
        let above = match rest {
            Rest::Highest => return self.highest(what, size, PAGE_SIZE, (0, u64::MAX)),
            Rest::LowestAbove(above) => above,
        };
        let mut lowest = |min| {
            let bounds = (min, u64::MAX);
            self.first(Direction::BottomUp, what, size, PAGE_SIZE, bounds)
        };
        lowest(above).or_else(|_| lowest(0))
    }

    /// Takes these pages, if they are free.
    pub fn exactly(&mut self, range: PhysRange) -> bool {
        let bounds = (range.start(), range.end());
        let (direction, size) = (Direction::BottomUp, range.size());
        self.first(direction, "a fixed address", size, PAGE_SIZE, bounds)
            .is_ok_and(|place| place == range)
    }

    /// Why a segment cannot lie at `range`.
    #[must_use]
    pub fn why_not(&self, range: PhysRange) -> String {
        if range.start() < self.min || range.end() > self.max {
            return format!(
                "segments lie from {:#x} to {:#x} (below that is {}; --mem-min and --mem-max)",
                self.min,
                self.max - 1,
                self.below
            );
        }
        let mut excluded = self.excluded.iter();
        if let Some(excluded) = excluded.find(|other| other.range.overlaps(range)) {
            return format!(
                "{} is {}: {}",
                excluded.range, excluded.name, excluded.reason
            );
        }
        let mut end = range.start();
        for region in self.map.regions() {
            let Some(part) = region.range.intersection(range) else {
                continue;
            };
            if part.start() > end {
                break;
            }
            if region.placement == Placement::Never {
                return format!(
                    "{} is {}: {}",
                    region.range,
                    region.kind.name(),
                    region.reason
                );
            }
            end = part.end();
        }
        if end < range.end() {
            return format!("there is no RAM at {end:#x}");
        }
        "a part of it was added since boot, or something else lies there already".to_owned()
    }

    /// Whether something lies in memory that may be unplugged.
    #[must_use]
    pub const fn used_last_choice(&self) -> bool {
        self.used_last_choice
    }
}
