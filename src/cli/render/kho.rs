//! What is handed over by Kexec Handover.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::json::insert;
use super::table::Table;
use super::{Detail, address, human, range};
use crate::base::PhysRange;
use crate::base::bytes::{hex, shown};
use crate::plan::{KhoPlan, Way};

/// As JSON.
pub(super) fn json(kho: &KhoPlan) -> Value {
    let range =
        |range: &PhysRange| json!({ "start": address(range.start()), "size": range.size() });
    let part = |(what, size): &(&str, u64)| json!({ "what": what, "size": size });
    let carried = kho.carried.iter().map(|file| {
        let mut fields = Map::new();
        insert(&mut fields, "name", &file.name);
        fields.insert("size".to_owned(), file.size.into());
        let digest = file.sha256.as_ref().map(|digest| hex(digest));
        fields.insert("sha256".to_owned(), digest.into());
        fields.insert("token".to_owned(), file.token.into());
        Value::Object(fields)
    });
    json!({
        "way": kho.way,
        "version": kho.format,
        "scratch_sum": kho.scratch_sum.iter().map(part).collect::<Vec<_>>(),
        "scratch": kho.scratch.iter().map(range).collect::<Vec<_>>(),
        "preserved": kho.preserved.iter().map(range).collect::<Vec<_>>(),
        "carried": carried.collect::<Vec<_>>(),
        "pools": kho.pools,
    })
}

/// How it gets to the next kernel, and when the files are read.
fn way(way: Way) -> &'static str {
    match way {
        Way::Built => "this load makes all of it, with the files as they are now",
        Way::AtExec => {
            "exec makes a session of the running kernel, with the files as they are then"
        }
        Way::Kept => "the running kernel hands it over",
        Way::Forwarded => "the running kernel's tree is passed on",
        Way::Dropped => "what the running kernel preserves is lost",
    }
}

/// In one line; nothing where no file is handed over.
pub(super) fn summary(kho: &KhoPlan) -> String {
    let size = kho.carried.iter().map(|file| file.size).sum();
    match kho.carried.len() {
        0 => String::new(),
        1 => format!(
            "carries 1 file ({}): rkexec retrieve writes it back in the next kernel\n",
            human(size)
        ),
        count => format!(
            "carries {count} files ({}): rkexec retrieve writes them back in the next kernel\n",
            human(size)
        ),
    }
}

/// The section of a plan.
pub(super) fn text(kho: &KhoPlan, detail: Detail) -> String {
    let mut out = format!("\nKexec Handover ({}): {}\n", kho.format, way(kho.way));
    let mut table = Table::new([false, true, false]);
    for file in &kho.carried {
        let name = shown(&file.name).to_string();
        let token = format!("file {}", file.token);
        table.push([token, human(file.size), name]);
    }
    for pool in &kho.pools {
        table.push(["pool".to_owned(), String::new(), pool.clone()]);
    }
    out.push_str(&table.text());
    let mut places = Table::new([false, true, false]);
    for (number, region) in kho.scratch.iter().enumerate() {
        let what = match (number, kho.scratch.len()) {
            _ if kho.way != Way::Built => "scratch memory of the running kernel",
            (_, 1) => "scratch: the next kernel starts in it",
            (0, _) => "scratch: what is loaded, and all that must lie below 4 GiB",
            _ => "scratch: what else the next kernel takes to start",
        };
        places.push([range(*region), human(region.size()), what.to_owned()]);
    }
    for region in &kho.preserved {
        let what = "preserved".to_owned();
        places.push([range(*region), human(region.size()), what]);
    }
    out.push_str(&places.text());
    if detail > Detail::Short && !kho.scratch_sum.is_empty() {
        out.push_str("  scratch memory is the sum of:\n");
        for (what, size) in kho.scratch_sum.iter().filter(|(_, size)| *size > 0) {
            let _ = writeln!(out, "      {what}: {}", human(*size));
        }
    }
    out
}
