//! The setup_data chain of a plan: who gets which node, and in which order.

use super::{Plan, PlanError, PlannedPool};
use crate::abi::x86::setup_data::{SETUP_DTB, SetupData};
use crate::boot::linux_x86::zero_page::{self, EfiHandover};
use crate::carry::record::{Blob, MAX_E820, PoolRecord, Record};
use crate::carry::{Handover, HandoverError, Protection, gather};
use crate::host::Host;
use crate::image::LinuxKernel;
use crate::purgatory;
use crate::request::LoadRequest;

/// Most e820 entries in one SETUP_E820_EXT node: the kernel maps a node as a
/// whole, and 64 pages at most (early_memremap).
const MAX_E820_EXT: usize = 8192;
/// Entries that a kernel with CONFIG_NODES_SHIFT=10 keeps: 128 + 3 * 1024
/// (E820_MAX_ENTRIES in arch/x86/include/asm/e820/types.h).
const E820_MAX_ENTRIES: usize = 3200;

/// The chain without the record.
pub(super) fn build(
    request: &LoadRequest,
    host: &Host,
    handover: &Handover,
    efi: Option<&EfiHandover>,
    plan: &mut Plan<'_>,
) -> Result<SetupData, PlanError> {
    let mut chain = SetupData::default();
    let (entries, inline) = zero_page::e820_entries(&plan.told);
    if entries.len() > E820_MAX_ENTRIES {
        plan.warnings.push(format!(
            "the map has {} e820 entries: a distribution's kernel keeps {E820_MAX_ENTRIES} and drops the rest",
            entries.len()
        ));
    }
    for beyond in entries
        .get(inline..)
        .unwrap_or_default()
        .chunks(MAX_E820_EXT)
    {
        chain.push_e820_ext(beyond);
    }
    if let Some(tree) = &handover.tree {
        let origin = gather::MERGED;
        let blob = tree
            .write()
            .map_err(|source| HandoverError::Tree { origin, source })?;
        chain.push(SETUP_DTB, blob);
    }
    if let (Some(handover), Some(efi)) = (efi, &host.efi) {
        chain.push_efi(
            &efi.setup_data(),
            &efi.runtime_map,
            handover.descriptor_size,
        );
    }
    if let Some(seed) = &request.seed {
        chain.push_rng_seed(seed);
    }
    for planned in plan
        .pools
        .iter()
        .filter(|pool| pool.protection == Protection::Indirect)
    {
        chain.push_indirect(planned.pool.range());
    }
    Ok(chain)
}

/// What was planned, for the next kernel's report.
pub(super) fn record(
    time: u64,
    host: &Host,
    image: &LinuxKernel<'_>,
    plan: &Plan<'_>,
    chain: &SetupData,
) -> Record {
    let blobs = plan.blobs.clone().unwrap_or_default();
    let tree = chain.nodes().iter().find(|node| node.kind == SETUP_DTB);
    let e820 = plan.told.iter().take(MAX_E820);
    Record {
        rkexec: env!("CARGO_PKG_VERSION").to_owned(),
        loaded_at: time,
        from: host.release.clone(),
        release: image.release().map(str::to_owned),
        cmdline: plan.cmdline.as_bstr().to_owned(),
        e820: e820
            .map(|(range, kind)| (range.start(), range.size(), kind.0))
            .collect(),
        e820_complete: plan.told.len() <= MAX_E820,
        setup_data: chain
            .nodes()
            .iter()
            .map(|node| (node.kind, node.data.len()))
            .collect(),
        device_tree: tree.map(|node| Blob::new(&node.data, &purgatory::digest(&node.data))),
        kernel: blobs.kernel,
        initrd: blobs.initrd,
        pools: plan.pools.iter().map(pool_record).collect(),
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
