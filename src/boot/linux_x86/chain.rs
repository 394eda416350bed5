//! The setup_data chain of a plan: who gets which node, and in which order.

use super::{E820_MAX_ENTRIES, zero_page};
use crate::abi::x86::setup_data::{SETUP_DTB, SETUP_KEXEC_KHO, SETUP_NONE, SetupData};
use crate::base::Target;
use crate::boot::{BootError, Facts};
use crate::carry::phases::Untimed;
use crate::carry::record::{Blob, MAX_E820, Placed, PoolRecord, Record};
use crate::carry::stamps::Stamps;
use crate::carry::{HandoverError, PlannedPool, Protection, gather};
use crate::image::LinuxKernel;
use crate::purgatory;

/// Most e820 entries in one SETUP_E820_EXT node: the kernel maps a node as a
/// whole, and 64 pages at most (early_memremap).
const MAX_E820_EXT: usize = 8192;

/// The chain without the record, and what the operator should know of it.
pub(super) fn build(facts: Facts<'_>) -> Result<(SetupData, Option<String>), BootError> {
    let mut chain = SetupData::default();
    let (entries, inline) = zero_page::e820_entries(facts.told);
    let warning = (entries.len() > E820_MAX_ENTRIES).then(|| {
        format!(
            "the map has {} e820 entries: a distribution's kernel keeps {E820_MAX_ENTRIES} and drops the rest",
            entries.len()
        )
    });
    for beyond in entries
        .get(inline..)
        .unwrap_or_default()
        .chunks(MAX_E820_EXT)
    {
        chain.push_e820_ext(beyond);
    }
    if let Some(tree) = facts.tree {
        let origin = gather::MERGED;
        let blob = tree
            .write()
            .map_err(|source| HandoverError::Tree { origin, source })?;
        chain.push(SETUP_DTB, blob);
    }
    if let (Some(handover), Some(efi)) = (&facts.firmware.efi, &facts.host.efi) {
        chain.push_efi(
            &efi.setup_data(),
            &efi.runtime_map,
            handover.descriptor_size,
        );
    }
    if let Some(seed) = &facts.request.seed {
        chain.push_rng_seed(seed);
    }
    for planned in facts
        .pools
        .iter()
        .filter(|pool| pool.protection == Protection::Indirect)
    {
        chain.push_indirect(planned.pool.range());
    }
    if let Some(node) = facts.kho {
        // What it holds depends on its address, and its size does not.
        chain.push(SETUP_KEXEC_KHO, node.bytes_at(0));
    }
    if untimed(facts).is_none() {
        chain.push(SETUP_NONE, Stamps::blank());
    }
    Ok((chain, warning))
}

/// Why purgatory leaves no time stamps.
fn untimed(facts: Facts<'_>) -> Option<Untimed> {
    match facts.request.target {
        Target::Crash => Some(Untimed::CrashKernel),
        Target::Normal => Untimed::of(&facts.host.cpu),
    }
}

/// Where purgatory leaves the time stamps, bytes from the start of the segment; `None`
/// when it leaves none.
pub(super) fn stamps_offset(chain: &SetupData) -> Option<usize> {
    let mut nodes = chain.nodes().iter();
    let node = nodes.position(|node| node.kind == SETUP_NONE && Stamps::is_node(&node.data))?;
    Some(chain.payload_offset(node))
}

/// Fills in the node of Kexec Handover, now that the chain lies at `base`.
pub(super) fn place_kho(chain: &mut SetupData, base: u64, facts: Facts<'_>) {
    let mut nodes = chain.nodes().iter();
    let index = nodes.position(|node| node.kind == SETUP_KEXEC_KHO);
    if let (Some(index), Some(node)) = (index, facts.kho) {
        let address = base + chain.payload_offset(index) as u64;
        chain.refill(index, node.bytes_at(address));
    }
}

/// What was planned, for the next kernel's report. `placed` is where the kernel runs, if
/// the loader decides that.
pub(super) fn record(
    image: &LinuxKernel<'_>,
    facts: Facts<'_>,
    chain: &SetupData,
    placed: Option<Placed>,
) -> Record {
    let blobs = facts.blobs.cloned().unwrap_or_default();
    let tree = chain.nodes().iter().find(|node| node.kind == SETUP_DTB);
    let e820 = facts.told.iter().take(MAX_E820);
    Record {
        rkexec: env!("CARGO_PKG_VERSION").to_owned(),
        loaded_at: facts.request.time,
        from: facts.host.release.clone(),
        release: image.release().map(str::to_owned),
        cmdline: facts.cmdline.as_bstr().to_owned(),
        e820: e820
            .map(|(range, kind)| (range.start(), range.size(), kind.0))
            .collect(),
        e820_complete: facts.told.len() <= MAX_E820,
        setup_data: chain
            .nodes()
            .iter()
            .map(|node| (node.kind, node.data.len()))
            .collect(),
        device_tree: tree.map(|node| Blob::new(&node.data, &purgatory::digest(&node.data))),
        kernel: blobs.kernel,
        initrd: blobs.initrd,
        pools: facts.pools.iter().map(pool_record).collect(),
        placed,
        untimed: untimed(facts),
        kho: facts.kho_record.cloned(),
    }
}

fn pool_record(planned: &PlannedPool) -> PoolRecord {
    let (pool, range) = (&planned.pool, planned.pool.range());
    PoolRecord {
        name: pool.name().to_owned(),
        base: range.start(),
        size: range.size(),
        bitmap: pool.bitmap(),
        protection: planned.protection,
    }
}
