//! The JSON contract: schema 1. Addresses are `"0x…"`, sizes are bytes.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::multiboot;
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
        fields.insert("path".to_owned(), kernel.display().to_string().into());
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
    json!({
        "schema": 1,
        "target": plan.target(),
        "crash": plan.crash.as_ref().map(|crash| self::crash(plan, crash)),
        "syscall": plan.syscall,
        "image": description,
        "cmdline": plan.cmdline,
        "entry": plan.entry.map(address),
        "segments": segments,
        "memory_map": memory_map(&plan.memory_map),
        "e820": e820,
        "excluded": excluded,
        "empty_initrd": plan.empty_initrd,
        "setup_data": plan.setup_data,
        "pools": pools,
        "warnings": plan.warnings,
    })
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
        "entry_mode": image.entry_mode.name(),
        "kernel_size": image.loaded_size(),
        "bytes_behind": image.behind,
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
