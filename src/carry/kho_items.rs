//! What Kexec Handover brought, held against rkexec's record.

use super::record::{KhoRecord, PoolRecord};
use super::report::{Item, Verdict, item};
use crate::base::PhysRange;
use crate::carry::reserved;
use crate::host::Host;
use crate::host::handed_over::{Fate, HandedOver};

/// The items about the tree and the session of `record`.
pub(super) fn items(record: &KhoRecord, handed: &HandedOver) -> Vec<Item> {
    let (verdict, detail) = verdict(handed.tree(), Verdict::Missing);
    let detail = match verdict {
        Verdict::AsPlanned => format!("{}: {detail}", record.format),
        _ => detail,
    };
    let mut items = vec![item("Kexec Handover", verdict, detail)];
    items.extend(record.session.as_ref().map(|session| {
        let (verdict, detail) = self::verdict(handed.sessions(), Verdict::Missing);
        let detail = match verdict {
            // The tree of the kernel before was passed on, and `exec` read the files.
            Verdict::AsPlanned if record.files.is_empty() => {
                "`rkexec retrieve DIR` writes its files".to_owned()
            }
            Verdict::AsPlanned => {
                let (count, size) = (record.files.len(), size(record));
                let files = if count == 1 { "file" } else { "files" };
                format!("{count} {files}, {size} bytes: `rkexec retrieve DIR` writes them")
            }
            _ => detail,
        };
        item(format!("session {session}"), verdict, detail)
    }));
    items
}

/// The items about pools of `record` that the kernel before handed over itself: rkexec's
/// record of the pools does not have them.
pub(super) fn own_pools(
    record: &KhoRecord,
    planned: &[PoolRecord],
    handed: &HandedOver,
) -> Vec<Item> {
    let is_planned = |name: &&String| planned.iter().any(|pool| pool.name == **name);
    let own = record.pools.iter().filter(|name| !is_planned(name));
    let own = own.map(|name| {
        let (verdict, detail) = verdict(handed.pool(name), Verdict::Missing);
        item(format!("pool {name}"), verdict, detail)
    });
    own.collect()
}

/// Bytes of all files.
fn size(record: &KhoRecord) -> u64 {
    record.files.iter().map(|(_, size)| size).sum()
}

fn verdict(fate: Fate, lost: Verdict) -> (Verdict, String) {
    match fate {
        Fate::Taken(line) => (Verdict::AsPlanned, line),
        Fate::Lost(why) => (lost, why),
        Fate::Hidden(why) => (Verdict::CannotBeSeen, why),
    }
}

/// What became of the pool `planned`, which Kexec Handover preserved.
pub(super) fn pool(planned: &PoolRecord, host: &Host, handed: &HandedOver) -> Item {
    let what = format!("pool {}", planned.name);
    let (verdict, detail) = verdict(pool_fate(planned, host, handed), Verdict::Differs);
    let detail = match (verdict, PhysRange::new(planned.base, planned.size)) {
        (Verdict::AsPlanned, Ok(range)) => format!("{range}, protection kho: {detail}"),
        _ => format!("protection kho: {detail}"),
    };
    item(what, verdict, detail)
}

/// Where this kernel hands its memory of `reserve_mem=` on itself, that says where the pool
/// is; else its log says whether the pool was taken back.
fn pool_fate(planned: &PoolRecord, host: &Host, handed: &HandedOver) -> Fate {
    let blob = host.security.kho.state.memblock.as_deref();
    let own = reserved::reserved(blob, bstr::BStr::new(""));
    let Some(found) = own.iter().find(|found| found.name == planned.name) else {
        return handed.pool(&planned.name);
    };
    if (found.start, found.size) == (Some(planned.base), planned.size) {
        Fate::Taken(format!("this kernel has it as reserve_mem= ({found})"))
    } else {
        Fate::Lost(format!(
            "this kernel's reserve_mem= is another one ({found})"
        ))
    }
}

#[cfg(test)]
#[path = "kho_items_tests.rs"]
mod tests;
