//! Which pools and which tree are handed over, and checks of where the pools
//! lie.

use bstr::{BStr, ByteSlice as _};

use super::pool::{self, Pool};
use super::pool_node::{pools_of, put_pool};
use super::protect::Protection;
use super::record::{PoolRecord, Record};
use super::reserved;
use super::{HandoverError, HandoverRequest};
use crate::abi::x86::setup_data::SETUP_NONE;
use crate::base::bytes::shown;
use crate::base::{PhysRange, Told, human};
use crate::cmdline;
use crate::fdt::DeviceTree;
use crate::host::Host;
use crate::memory::{MemoryKind, MemoryMap, Region};

/// Where a given blob is from, in errors.
const GIVEN: &str = "the device tree of --dtb";
/// As [`GIVEN`], of a UKI.
const OF_UKI: &str = "the device tree of the UKI";
/// Where a carried blob is from, in errors.
pub(super) const RUNNING: &str = "the running kernel's device tree";
/// As [`RUNNING`], where `pmpool=` names the pool.
const RUNNING_LINE: &str = "the running command line";
/// As [`RUNNING`], where only the record has it.
const LAST_RECORD: &str = "the record of the last kexec";
/// The origins of pools that the running kernel has.
const CARRIED: [&str; 3] = [RUNNING, RUNNING_LINE, LAST_RECORD];
/// The tree with the pools in it, in errors.
pub const MERGED: &str = "the device tree with its pools";
/// Largest CMA_MIN_ALIGNMENT_BYTES of x86_64, bytes: a page block of
/// MAX_PAGE_ORDER 10, without huge pages (include/linux/pageblock-flags.h).
pub const CMA_ALIGNMENT: u64 = 4 << 20;

/// What is handed over, and where it is from.
#[derive(Debug, Clone, Default)]
pub struct Handover {
    /// The tree, with the pools in it; `None` when there is nothing to hand over.
    pub tree: Option<DeviceTree>,
    /// The pools, in address order.
    pub pools: Vec<CarriedPool>,
    /// Pools that the running kernel was given and hands over itself, by Kexec Handover.
    pub own: Vec<CarriedPool>,
    /// Pools that the loader of the running kernel reserved in its memory map,
    /// by rkexec's record.
    reserved: Vec<PoolRecord>,
}

/// A pool and where it is known from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedPool {
    /// The pool.
    pub pool: Pool,
    /// `--pool`, or where it was carried over from.
    pub origin: &'static str,
}

impl CarriedPool {
    /// Whether it is named for the first time: the running kernel knows nothing of it.
    #[must_use]
    pub fn is_new(&self) -> bool {
        !CARRIED.contains(&self.origin)
    }
}

impl Handover {
    /// Gathers the tree and the pools: those of `--pool`, and those that the
    /// running kernel carries, by its tree, else by its `pmpool=`, else by
    /// rkexec's record of the last kexec.
    ///
    /// # Errors
    /// When a source is malformed, or a pool would move.
    pub fn gather(request: &HandoverRequest, host: &Host) -> Result<Self, HandoverError> {
        let (blob, origin, option) = match (&request.dtb, &request.uki_dtb) {
            (None, Some(blob)) => (Some(blob), OF_UKI, "the UKI"),
            (blob, _) => (blob.as_ref(), GIVEN, "--dtb"),
        };
        let given = blob.map(|blob| read_tree(blob, origin)).transpose()?;
        let running = match &host.fdt {
            Some(blob) if !request.no_carry => Some(read_tree(blob, RUNNING)?),
            _ => None,
        };
        let carried = if request.no_carry {
            Vec::new()
        } else {
            carried(running.as_ref(), host)?
        };
        let (own, mut pools) = own(carried, host);

        let in_given = given
            .as_ref()
            .map(|tree| tree_pools(tree, origin))
            .transpose()?
            .unwrap_or_default();
        let named = request.pools.iter().map(|pool| (pool.clone(), "--pool"));
        for (pool, origin) in in_given.into_iter().map(|pool| (pool, option)).chain(named) {
            let mut known = own.iter().chain(&pools);
            match known.find(|known| known.pool.name() == pool.name()) {
                Some(known) if known.pool != pool => return Err(two_places(known, &pool, origin)),
                Some(_) => {}
                None => pools.push(CarriedPool { pool, origin }),
            }
        }
        let mut tree = given.or(running);
        put_pools(&mut tree, &mut pools)?;
        let mut reserved = running_record(host)
            .ok()
            .flatten()
            .map_or_else(Vec::new, |record| record.pools);
        reserved.retain(|pool| pool.protection == Protection::Reserved);
        Ok(Self {
            tree,
            pools,
            own,
            reserved,
        })
    }

    /// Has the loader hand over the pools of the running kernel, which drops what it
    /// preserves.
    ///
    /// # Errors
    /// When they cannot be put into the tree.
    pub fn take_own(&mut self) -> Result<(), HandoverError> {
        self.pools.append(&mut self.own);
        put_pools(&mut self.tree, &mut self.pools)
    }

    /// Whether there are pools: only then does the target's capability matter.
    #[must_use]
    pub fn has_pools(&self) -> bool {
        !self.pools.is_empty()
    }

    /// Checks that every pool lies in RAM that stays, and overlaps nothing else.
    ///
    /// # Errors
    /// Names the pool and what is wrong with its place.
    pub fn check_places(
        &self,
        map: &MemoryMap,
        crash_kernel: &[PhysRange],
    ) -> Result<(), HandoverError> {
        let mut all: Vec<&CarriedPool> = self.own.iter().chain(&self.pools).collect();
        all.sort_by_key(|carried| carried.pool.range());
        for pair in all.windows(2) {
            if let [a, b] = pair
                && a.pool.range().overlaps(b.pool.range())
            {
                return Err(HandoverError::Overlap(
                    a.pool.name().to_owned(),
                    b.pool.name().to_owned(),
                ));
            }
        }
        self.pools
            .iter()
            .try_for_each(|carried| self.check_place(&carried.pool, map, crash_kernel))
    }

    /// Checks the alignment that protection `kernel` needs.
    ///
    /// # Errors
    /// Names the pool.
    pub fn check_alignment(&self) -> Result<(), HandoverError> {
        match self
            .pools
            .iter()
            .find(|carried| !carried.pool.is_aligned(CMA_ALIGNMENT))
        {
            Some(carried) => Err(HandoverError::Unaligned {
                name: carried.pool.name().to_owned(),
                range: carried.pool.range(),
            }),
            None => Ok(()),
        }
    }

    /// The pool that `pmpool=` names.
    #[must_use]
    pub fn default_pool(&self) -> Option<&Pool> {
        self.pools
            .iter()
            .map(|carried| &carried.pool)
            .find(|pool| pool.name() == pool::DEFAULT_NAME)
    }

    /// Compares `pmpool=` of the new command line with the default pool.
    /// `true`: it is there and right.
    ///
    /// # Errors
    /// When it is malformed, or names another place or no pool at all.
    pub fn check_cmdline(&self, line: &BStr) -> Result<bool, HandoverError> {
        let Some(value) = cmdline::value(line, "pmpool") else {
            return Ok(false);
        };
        let named = Pool::parse_cmdline(value).map_err(|source| HandoverError::Parameter {
            line: "new",
            source,
        })?;
        match self.default_pool() {
            Some(pool) if pool.range() == named.range() => Ok(true),
            Some(pool) => Err(HandoverError::Mismatch {
                name: pool.name().to_owned(),
                given: shown(value).to_string(),
                pool: pool.cmdline_value(),
            }),
            None => Err(HandoverError::NoSuchPool(shown(value).to_string())),
        }
    }

    /// Whether the region was set aside to be `pool`: by `memmap=nn$ss` on this
    /// boot, or by the loader that started this kernel and left a record of it.
    fn set_aside(&self, pool: &Pool, region: &Region) -> bool {
        let range = pool.range();
        let recorded =
            |known: &PoolRecord| (known.base, known.size) == (range.start(), range.size());
        region.sources.firmware.is_some_and(Told::is_ram) || self.reserved.iter().any(recorded)
    }

    fn check_place(
        &self,
        pool: &Pool,
        map: &MemoryMap,
        crash_kernel: &[PhysRange],
    ) -> Result<(), HandoverError> {
        let range = pool.range();
        let name = pool.name().to_owned();
        if let Some(crash) = crash_kernel.iter().find(|crash| crash.overlaps(range)) {
            let what = format!("{crash:#} is reserved for the crash kernel");
            return Err(HandoverError::OutsideRam { name, range, what });
        }
        let mut covered = range.start();
        for region in map
            .regions()
            .iter()
            .filter(|region| region.range.overlaps(range))
        {
            if region.range.start() > covered {
                break;
            }
            covered = region.range.end();
            match &region.kind {
                MemoryKind::Ram | MemoryKind::HotAddedRam => {}
                MemoryKind::Reserved if self.set_aside(pool, region) => {}
                MemoryKind::DriverManaged(driver) => {
                    return Err(HandoverError::DriverManaged {
                        name,
                        range,
                        driver: driver.clone(),
                    });
                }
                kind => {
                    let what = format!("{:#} is \"{}\"", region.range, kind.in_words());
                    return Err(HandoverError::OutsideRam { name, range, what });
                }
            }
        }
        if covered < range.end() {
            let what = format!("there is no memory at {covered:#x}");
            return Err(HandoverError::OutsideRam { name, range, what });
        }
        Ok(())
    }
}

/// Sorts the pools, and adds them to the tree.
fn put_pools(
    tree: &mut Option<DeviceTree>,
    pools: &mut [CarriedPool],
) -> Result<(), HandoverError> {
    pools.sort_by_key(|carried| carried.pool.range());
    for carried in pools {
        let tree = tree.get_or_insert_with(DeviceTree::empty);
        put_pool(tree, &carried.pool).map_err(|source| HandoverError::PoolNode {
            origin: MERGED,
            source,
        })?;
    }
    Ok(())
}

/// Of the pools that the running kernel has, first those that it hands over itself: it got
/// them by Kexec Handover, and has that on.
fn own(carried: Vec<CarriedPool>, host: &Host) -> (Vec<CarriedPool>, Vec<CarriedPool>) {
    let kho = &host.security.kho;
    if !kho.preserves_pools() {
        return (Vec::new(), carried);
    }
    let blob = kho.state.memblock.as_deref();
    let preserved = reserved::reserved(blob, host.cmdline.as_bstr());
    carried.into_iter().partition(|CarriedPool { pool, .. }| {
        preserved.iter().any(|own| {
            let start = own.start.unwrap_or(pool.range().start());
            let is_there = (start, own.size) == (pool.range().start(), pool.range().size());
            own.name == pool.name() && is_there
        })
    })
}

fn read_tree(blob: &[u8], origin: &'static str) -> Result<DeviceTree, HandoverError> {
    DeviceTree::read(blob).map_err(|source| HandoverError::Tree { origin, source })
}

/// The pools of the tree that is from `origin`.
pub(super) fn tree_pools(
    tree: &DeviceTree,
    origin: &'static str,
) -> Result<Vec<Pool>, HandoverError> {
    pools_of(tree).map_err(|source| HandoverError::PoolNode { origin, source })
}

/// The pools that the running kernel carries.
fn carried(tree: Option<&DeviceTree>, host: &Host) -> Result<Vec<CarriedPool>, HandoverError> {
    let from = |origin| move |pool| CarriedPool { pool, origin };
    let in_tree = tree
        .map(|tree| tree_pools(tree, RUNNING))
        .transpose()?
        .unwrap_or_default();
    if !in_tree.is_empty() {
        return Ok(in_tree.into_iter().map(from(RUNNING)).collect());
    }
    if let Some(value) = cmdline::value(&host.cmdline, "pmpool") {
        let pool = Pool::parse_cmdline(value).map_err(|source| HandoverError::Parameter {
            line: "running",
            source,
        })?;
        return Ok(vec![from(RUNNING_LINE)(pool)]);
    }
    let record = running_record(host)?;
    let pools = record.map_or_else(Vec::new, |record| record.pools);
    let valid = pools.iter().filter_map(|pool| {
        let range = PhysRange::new(pool.base, pool.size).ok()?;
        Pool::new(&pool.name, range, pool.bitmap).ok()
    });
    Ok(valid.map(from(LAST_RECORD)).collect())
}

/// rkexec's record in the running kernel's setup_data.
///
/// # Errors
/// When it is damaged.
pub fn running_record(host: &Host) -> Result<Option<Record>, HandoverError> {
    let nodes = host
        .boot_params
        .iter()
        .flat_map(|running| &running.setup_data);
    for node in nodes.filter(|node| node.kind == SETUP_NONE) {
        if let Some(record) = Record::parse(&node.data)? {
            return Ok(Some(record));
        }
    }
    Ok(None)
}

/// One name, two places: a carried pool that would move, or two pools of this command line.
fn two_places(known: &CarriedPool, pool: &Pool, option: &'static str) -> HandoverError {
    let name = pool.name().to_owned();
    let (there, here) = (describe(&known.pool), describe(pool));
    if CARRIED.contains(&known.origin) {
        HandoverError::Moved {
            name,
            named: here,
            option,
            carried: there,
            source_name: known.origin,
        }
    } else {
        HandoverError::SameName {
            name,
            first: there,
            of_first: known.origin,
            second: here,
            of_second: option,
        }
    }
}

fn describe(pool: &Pool) -> String {
    let range = pool.range();
    let place = format!("{range:#} ({})", human(range.size()));
    // Its own beginning is the default place.
    if pool.bitmap() == range.start() {
        place
    } else {
        format!("{place} with its bitmap at {:#x}", pool.bitmap())
    }
}
