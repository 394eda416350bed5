//! The JSON contract: schema 1. Addresses are `"0x…"`, sizes are bytes.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::multiboot;
use crate::bytes;
use crate::handover::Capability;
use crate::image::linux::xloadflags;
use crate::image::{Image, LinuxKernel};
use crate::memory::{MemoryMap, PhysRange};
use crate::plan::{CrashPlan, Plan};

/// An address.
pub(in crate::cli) fn address(address: u64) -> String {
    format!("{address:#x}")
}

/// A plan.
pub(in crate::cli) fn plan(plan: &Plan<'_>, image: &Image<'_>, kernel: &Path) -> Value {
    let mut description = self::image(image);
    if let Some(fields) = description.as_object_mut() {
        insert(fields, "path", kernel.as_os_str().as_bytes());
    }
    let segments: Vec<Value> = plan
        .segments
        .iter()
        .map(|segment| {
            json!({
                "role": segment.role,
                "mem": address(segment.mem.start()),
                "memsz": segment.mem.size(),
                "bufsz": segment.buf.len(),
                "rule": segment.rule,
            })
        })
        .collect();
    let excluded: Vec<Value> = plan
        .excluded
        .iter()
        .map(|excluded| {
            json!({
                "start": address(excluded.range.start()),
                "size": excluded.range.size(),
                "name": excluded.name,
                "reason": excluded.reason,
            })
        })
        .collect();
    let e820: Vec<Value> = plan
        .e820
        .iter()
        .map(|(range, kind)| json!({ "start": address(range.start()), "size": range.size(), "type": kind.0 }))
        .collect();
    let pools: Vec<Value> = plan
        .pools
        .iter()
        .map(|planned| {
            json!({
                "name": planned.pool.name(),
                "start": address(planned.pool.range().start()),
                "size": planned.pool.range().size(),
                "bitmap": address(planned.pool.bitmap()),
                "protection": planned.protection,
                "origin": planned.origin,
                "reason": planned.reason,
            })
        })
        .collect();
    let mut json = json!({
        "schema": 1,
        "target": plan.target(),
        "crash": plan.crash.as_ref().map(|crash| self::crash(plan, crash)),
        "syscall": plan.syscall,
        "image": description,
        "entry": plan.entry.map(address),
        "segments": segments,
        "memory_map": memory_map(&plan.memory_map),
        "e820": e820,
        "excluded": excluded,
        "setup_data": plan.setup_data,
        "pools": pools,
        "warnings": plan.warnings,
    });
    if let Some(fields) = json.as_object_mut() {
        insert(fields, "cmdline", plan.cmdline.as_bstr());
    }
    json
}

/// Adds text that need not be UTF-8 to `fields`. Where it is not, `NAME_bytes` has its
/// bytes in hexadecimal.
pub(in crate::cli) fn insert(fields: &mut Map<String, Value>, name: &str, text: &[u8]) {
    let (text, bytes) = bytes::in_json(text);
    fields.insert(name.to_owned(), text.into());
    if let Some(bytes) = bytes {
        fields.insert(format!("{name}_bytes"), bytes.into());
    }
}

/// The same for a list: `NAME_bytes` has all of them where one is not UTF-8.
pub(in crate::cli) fn insert_list<'a>(
    fields: &mut Map<String, Value>,
    name: &str,
    list: impl Iterator<Item = &'a [u8]> + Clone,
) {
    let texts = list.clone().map(|text| bytes::in_json(text).0);
    fields.insert(name.to_owned(), texts.collect::<Vec<_>>().into());
    if list.clone().any(|text| bytes::in_json(text).1.is_some()) {
        let bytes = list.map(bytes::hex).collect::<Vec<_>>();
        fields.insert(format!("{name}_bytes"), bytes.into());
    }
}

/// What makes it a crash kernel.
fn crash(plan: &Plan<'_>, crash: &CrashPlan) -> Value {
    json!({
        "reservation": range(crash.reservation.target),
        "usable": crash.reservation.all.iter().copied().map(range).collect::<Vec<_>>(),
        "dump": crash.dump.iter().copied().map(range).collect::<Vec<_>>(),
        "kernel_updates": plan.kernel_updates(),
        "hotplug_flag": crash.hotplug.map(|(flag, _)| flag.to_string()),
    })
}

/// A range.
pub(in crate::cli) fn range(range: PhysRange) -> Value {
    json!({ "start": address(range.start()), "size": range.size() })
}

/// The reconciled map.
pub(in crate::cli) fn memory_map(map: &MemoryMap) -> Value {
    map.regions()
        .iter()
        .map(|region| {
            json!({
                "start": address(region.range.start()),
                "size": region.range.size(),
                "kind": region.kind.name(),
                "driver": region.kind.driver(),
                "e820": region.e820.map(|kind| kind.0),
                "segments": region.placement.name(),
                "in_dump": region.in_dump,
                "sources": region.sources.lines(),
                "reason": region.reason,
            })
        })
        .collect()
}

/// What a kernel file is.
pub(in crate::cli) fn image(image: &Image<'_>) -> Value {
    let image = match image {
        Image::Linux(image) => image,
        Image::Multiboot(image) => return multiboot::json(image),
    };
    let (major, minor) = image.protocol();
    json!({
        "format": image.format_name(),
        "version": image.version,
        "release": image.release(),
        "protocol": format!("{major}.{minor:02}"),
        "alignment": image.header.kernel_alignment.get(),
        "init_size": image.header.init_size.get(),
        "pref_address": address(image.header.pref_address.get()),
        "relocatable": image.header.relocatable_kernel != 0,
        "cmdline_size": image.header.cmdline_size.get(),
        "xloadflags": xload_names(image),
        "kernel_size": image.loaded_size(),
        "payload_size": image.payload.len(),
        "compression": image.compression(),
    })
}

/// What the kernel in an image can do: fields beside those of [`image`].
pub(in crate::cli) fn capability(capability: &Capability) -> Map<String, Value> {
    let config: Map<_, _> = capability
        .facts()
        .into_iter()
        .map(|(symbol, fact)| (symbol.to_owned(), json!(fact)))
        .collect();
    [
        ("config", config.into()),
        ("unpacked_size", json!(capability.unpacked.as_ref().ok())),
        (
            "setup_type_max",
            json!(capability.setup_type_max.map(u64::from).map(address)),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into_iter()
    .collect()
}

/// Names of the bits that are set in xloadflags.
pub(in crate::cli) fn xload_names(image: &LinuxKernel<'_>) -> Vec<&'static str> {
    xloadflags::NAMES
        .iter()
        .filter(|(bit, _)| image.has(*bit))
        .map(|(_, name)| *name)
        .collect()
}
