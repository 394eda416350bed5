//! What arrived in this kernel, held against rkexec's record of what was planned.

use bstr::BString;
use serde::Serialize;

use super::gather::running_record;
use super::kho_items;
use super::protect::Protection;
use super::record::{Blob, Placed, PoolRecord, Record};
use super::{HandoverError, Pool, gather};
use crate::abi::x86::setup_data::{
    INDIRECT_POOL, SETUP_DTB, SETUP_INDIRECT, SETUP_NONE, SETUP_RNG_SEED, type_name,
};
use crate::base::bytes::shown;
use crate::base::{PhysRange, Told};
use crate::cmdline;
use crate::fdt::DeviceTree;
use crate::host::Host;
use crate::host::boot_params::SetupDataNode;
use crate::host::firmware_memmap::FirmwareRegion;
use crate::host::handed_over::HandedOver;
use crate::host::place::Place;
use crate::memory::{Layer, kernel_map};

/// The item about where the kernel runs.
const KERNELS_PLACE: &str = "kernel's place";

/// How an item arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As the loader planned it.
    AsPlanned,
    /// There, and different.
    Differs,
    /// Planned, and not there.
    Missing,
    /// This kernel does not show it.
    CannotBeSeen,
}

impl Verdict {
    /// The verdict in words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AsPlanned => "as planned",
            Self::Differs => "differs",
            Self::Missing => "missing",
            Self::CannotBeSeen => "cannot be checked here",
        }
    }
}

/// One thing that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is.
    pub item: String,
    /// How it arrived.
    pub verdict: Verdict,
    /// What differs, or why it cannot be seen.
    pub detail: String,
}

/// All findings about a hand-over.
#[derive(Debug)]
pub struct Report {
    /// The record; `None`: rkexec did not load this kernel, or kexec_file_load did.
    pub record: Option<Record>,
    /// The items, in the order of the hand-over; empty without a record.
    pub items: Vec<Item>,
    /// The tree that arrived.
    pub tree: Option<DeviceTree>,
    /// The pools in it.
    pub pools: Vec<Pool>,
}

impl Report {
    /// Looks at the running kernel, which lies at `place`; `handed` is what it says of
    /// Kexec Handover.
    ///
    /// # Errors
    /// When the record or the tree that arrived is malformed.
    pub fn of(host: &Host, place: &Place, handed: &HandedOver) -> Result<Self, HandoverError> {
        let origin = gather::RUNNING;
        let tree = host.fdt.as_deref().map(DeviceTree::read).transpose();
        let tree = tree.map_err(|source| HandoverError::Tree { origin, source })?;
        let pools = match &tree {
            Some(tree) => gather::tree_pools(tree, origin)?,
            None => Vec::new(),
        };
        let record = running_record(host)?;
        let items = record
            .as_ref()
            .map(|record| items(record, host, place, &pools, handed))
            .unwrap_or_default();
        Ok(Self {
            record,
            items,
            tree,
            pools,
        })
    }

    /// Whether the kernel runs where it was put; `None` where it chose its place itself, and
    /// where its place is not shown.
    #[must_use]
    pub fn is_placed_as_planned(&self) -> Option<bool> {
        let mut items = self.items.iter();
        match items.find(|item| item.item == KERNELS_PLACE)?.verdict {
            Verdict::CannotBeSeen => None,
            verdict => Some(verdict == Verdict::AsPlanned),
        }
    }

    /// Whether nothing differs and nothing is missing.
    #[must_use]
    pub fn is_as_planned(&self) -> bool {
        self.items
            .iter()
            .all(|item| matches!(item.verdict, Verdict::AsPlanned | Verdict::CannotBeSeen))
    }
}

pub(super) fn item(item: impl Into<String>, verdict: Verdict, detail: impl Into<String>) -> Item {
    Item {
        item: item.into(),
        verdict,
        detail: detail.into(),
    }
}

/// Compares two values that can be shown.
fn compare<T: PartialEq + std::fmt::Display>(what: &str, planned: &T, found: &T) -> Item {
    if planned == found {
        item(what, Verdict::AsPlanned, "")
    } else {
        item(
            what,
            Verdict::Differs,
            format!("planned {planned}, found {found}"),
        )
    }
}

/// As [`compare`], by the bytes.
fn command_line(planned: &BString, found: &BString) -> Item {
    const WHAT: &str = "command line";
    if planned == found {
        return item(WHAT, Verdict::AsPlanned, "");
    }
    let (planned, found) = (shown(planned), shown(found));
    let detail = format!("planned {planned}, found {found}");
    item(WHAT, Verdict::Differs, detail)
}

/// Whether the kernel runs where the loader put it. An address that is not shown is not
/// compared.
fn kernels_place(planned: Placed, found: &Place) -> Item {
    let addresses = [
        ("physical", planned.physical, found.physical),
        ("virtual", planned.r#virtual, found.virtual_),
    ];
    let mut shown = addresses
        .iter()
        .filter_map(|(what, planned, found)| Some((what, planned, (*found)?)))
        .peekable();
    if shown.peek().is_none() {
        let why = "neither /proc/iomem nor /proc/kallsyms tells it";
        return item(KERNELS_PLACE, Verdict::CannotBeSeen, why);
    }
    match shown.find(|(_, planned, found)| *planned != found) {
        Some((what, planned, found)) => item(
            KERNELS_PLACE,
            Verdict::Differs,
            format!("planned {what} address {planned:#x}, found {found:#x}"),
        ),
        None => item(KERNELS_PLACE, Verdict::AsPlanned, ""),
    }
}

fn items(
    record: &Record,
    host: &Host,
    place: &Place,
    pools: &[Pool],
    handed: &HandedOver,
) -> Vec<Item> {
    let nodes = host
        .boot_params
        .as_ref()
        .map_or(&[][..], |running| &running.setup_data);
    let mut items = vec![match &record.release {
        Some(release) => compare("kernel release", release, &host.release),
        None => item(
            "kernel release",
            Verdict::CannotBeSeen,
            "the kernel's file did not tell",
        ),
    }];
    items.extend(record.placed.map(|planned| kernels_place(planned, place)));
    items.push(command_line(&record.cmdline, &host.cmdline));
    items.push(memory_map(record, host));
    items.push(chain(record, nodes));
    items.extend(
        record
            .device_tree
            .as_ref()
            .map(|blob| device_tree(blob, host, nodes)),
    );
    if let Some(kho) = &record.kho {
        items.extend(kho_items::items(kho, handed));
        items.extend(kho_items::own_pools(kho, &record.pools, handed));
    }
    items.extend(record.pools.iter().map(|pool| match pool.protection {
        Protection::Kho => kho_items::pool(pool, host, handed),
        _ => self::pool(pool, host, pools, nodes),
    }));
    items.push(item(
        "kernel and initrd",
        Verdict::CannotBeSeen,
        if record.kernel.is_some() {
            "purgatory verified their digests before it entered this kernel"
        } else {
            "loaded with --no-digest"
        },
    ));
    items
}

/// Compares the planned map with the one given to this kernel (neighbours of one type
/// merged), and with the one that it uses, by the names that it shows.
fn memory_map(record: &Record, host: &Host) -> Item {
    const WHAT: &str = "memory map";
    if host.boot_params.is_none() && host.firmware_map.is_none() {
        let why = "neither boot_params nor /sys/firmware/memmap is shown";
        return item(WHAT, Verdict::CannotBeSeen, why);
    }
    let planned = record
        .e820
        .iter()
        .filter_map(|(start, size, kind)| Some((PhysRange::new(*start, *size).ok()?, Told(*kind))));
    let planned = Layer::from_types(planned).entries().to_vec();
    let given = Layer::from_types(kernel_map(host)).entries().to_vec();
    let difference = first_difference(&planned, &given, record.e820_complete)
        .or_else(|| not_taken(&planned, host.firmware_map.as_deref()?));
    match difference {
        None => item(
            WHAT,
            Verdict::AsPlanned,
            format!("{} ranges", planned.len()),
        ),
        Some(detail) => item(WHAT, Verdict::Differs, detail),
    }
}

/// The first row missing from this kernel's /sys/firmware/memmap: the kernel dropped
/// it. Additional rows are no fault: memory hotplug adds some.
fn not_taken(planned: &[(PhysRange, Told)], shown: &[FirmwareRegion]) -> Option<String> {
    let mut taken = Layer::default();
    for region in shown {
        taken.push(region.range, region.name.to_ascii_lowercase());
    }
    let is_shown = |range: PhysRange, kind: Told| {
        let name = kind.name().to_ascii_lowercase();
        taken
            .entries()
            .iter()
            .any(|(row, shown)| row.covers(range) && *shown == name)
    };
    let lost = planned
        .iter()
        .find(|(range, kind)| !is_shown(*range, *kind));
    lost.map(|(range, kind)| format!("{range} {kind} is not in this kernel's /sys/firmware/memmap"))
}

/// The first row that differs; `complete`: `planned` is the whole map.
fn first_difference<T: PartialEq + std::fmt::Display>(
    planned: &[(PhysRange, T)],
    found: &[(PhysRange, T)],
    complete: bool,
) -> Option<String> {
    let differing = planned
        .iter()
        .zip(found)
        .find(|(planned, found)| planned != found);
    if let Some(((a, kind_a), (b, kind_b))) = differing {
        return Some(format!(
            "first difference: planned {a} {kind_a}, found {b} {kind_b}"
        ));
    }
    let short = found.len() < planned.len() || (complete && found.len() > planned.len());
    short.then(|| format!("planned {} ranges, found {}", planned.len(), found.len()))
}

/// The chain's types and sizes. A seed is wiped after use, and of an indirect
/// node the kernel shows what it points to.
fn chain(record: &Record, nodes: &[SetupDataNode]) -> Item {
    const WHAT: &str = "setup_data chain";
    let found: Vec<&SetupDataNode> = nodes
        .iter()
        .filter(|node| node.kind != SETUP_NONE || !is_record(node))
        .collect();
    let same = |(kind, size): &(u32, usize), node: &SetupDataNode| {
        if *kind == SETUP_INDIRECT {
            // The kernel shows the target of an indirect node; this program does not read it.
            return node.kind == INDIRECT_POOL;
        }
        let wiped = *kind == SETUP_RNG_SEED && node.data.is_empty();
        *kind == node.kind && (*size == node.data.len() || wiped)
    };
    let equal = record.setup_data.len() == found.len()
        && record
            .setup_data
            .iter()
            .zip(&found)
            .all(|(planned, node)| same(planned, node));
    if equal {
        return item(
            WHAT,
            Verdict::AsPlanned,
            format!("{} nodes and the record", found.len()),
        );
    }
    let list = |nodes: &mut dyn Iterator<Item = (u32, usize)>| {
        let names: Vec<String> = nodes
            .map(|(kind, size)| format!("{} ({size})", type_name(kind)))
            .collect();
        names.join(", ")
    };
    let planned = list(&mut record.setup_data.iter().copied());
    let found = list(&mut found.iter().map(|node| (node.kind, node.data.len())));
    item(
        WHAT,
        Verdict::Differs,
        format!("planned {planned}; found {found}"),
    )
}

fn is_record(node: &SetupDataNode) -> bool {
    matches!(Record::parse(&node.data), Ok(Some(_)))
}

fn device_tree(planned: &Blob, host: &Host, nodes: &[SetupDataNode]) -> Item {
    const WHAT: &str = "device tree";
    let in_chain = nodes
        .iter()
        .rfind(|node| node.kind == SETUP_DTB)
        .map(|node| node.data.as_slice());
    let found = [
        (in_chain, "the blob in the chain is another one"),
        (host.fdt.as_deref(), "/sys/firmware/fdt is another blob"),
    ];
    let verdicts: Vec<(Option<bool>, &str)> = found
        .into_iter()
        .filter_map(|(bytes, other)| Some((planned.is_of(bytes?), other)))
        .collect();
    if verdicts.is_empty() {
        let why = "no SETUP_DTB node and no /sys/firmware/fdt";
        return item(WHAT, Verdict::Missing, why);
    }
    if let Some((_, other)) = verdicts.iter().find(|(same, _)| *same == Some(false)) {
        return item(WHAT, Verdict::Differs, *other);
    }
    if verdicts.iter().any(|(same, _)| same.is_none()) {
        let why = "it has the planned size; an older rkexec loaded this kernel, and this \
                   version does not make its kind of digest";
        return item(WHAT, Verdict::CannotBeSeen, why);
    }
    item(WHAT, Verdict::AsPlanned, format!("{} bytes", planned.size))
}

fn pool(planned: &PoolRecord, host: &Host, pools: &[Pool], nodes: &[SetupDataNode]) -> Item {
    let what = format!("pool {}", planned.name);
    let Some(found) = pools.iter().find(|pool| pool.name() == planned.name) else {
        return item(what, Verdict::Missing, "its node is not in the device tree");
    };
    let range = found.range();
    if (range.start(), range.size(), found.bitmap()) != (planned.base, planned.size, planned.bitmap)
    {
        let place = format!(
            "{:#x},{:#x} bitmap {:#x}",
            planned.base, planned.size, planned.bitmap
        );
        let detail = format!(
            "planned {place}, found {} bitmap {:#x}",
            found.cmdline_value(),
            found.bitmap()
        );
        return item(what, Verdict::Differs, detail);
    }
    match unprotected(planned.protection, range, host, nodes) {
        Some(lack) => item(
            what,
            Verdict::Differs,
            format!("protection {}: {lack}", planned.protection),
        ),
        None => item(
            what,
            Verdict::AsPlanned,
            format!("{range}, protection {}", planned.protection),
        ),
    }
}

/// The part of a protection that is missing, as far as this kernel shows it.
fn unprotected(
    protection: Protection,
    range: PhysRange,
    host: &Host,
    nodes: &[SetupDataNode],
) -> Option<&'static str> {
    let map = Layer::from_types(kernel_map(host));
    let told = |is: fn(Told) -> bool| {
        map.entries()
            .iter()
            .any(|(region, kind)| region.covers(range) && is(*kind))
    };
    match protection {
        Protection::Reserved if !told(|kind| kind == Told::RESERVED) => {
            Some("this kernel was not told that it is reserved")
        }
        Protection::Indirect if !nodes.iter().any(|node| node.kind == INDIRECT_POOL) => {
            Some("no SETUP_INDIRECT node arrived")
        }
        Protection::Kernel if !told(Told::is_ram) => {
            Some("this kernel was not told that it is RAM")
        }
        Protection::Kernel if !names_pool(&host.cmdline, range) => {
            Some("pmpool= on the command line does not name it")
        }
        _ => None,
    }
}

fn names_pool(line: &BString, range: PhysRange) -> bool {
    let pool = cmdline::value(line, "pmpool").map(Pool::parse_cmdline);
    matches!(pool, Some(Ok(pool)) if pool.range() == range)
}
