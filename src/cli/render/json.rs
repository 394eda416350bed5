//! The JSON contract: schema 1. Addresses are `"0x…"`, sizes are bytes.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

pub(in crate::cli) use super::address;
use super::image::direct as direct_verdict;
use super::multiboot;
use super::stream::{Address, List};
use crate::base::{PhysRange, Told, bytes};
use crate::carry::Capability;
use crate::image::linux::xloadflags;
use crate::image::{Image, LinuxKernel};
use crate::layout::Excluded;
use crate::memory::MemoryMap;
use crate::plan::{CrashPlan, Plan};

/// A plan.
pub(in crate::cli) struct PlanJson<'a> {
    pub(in crate::cli) plan: &'a Plan<'a>,
    pub(in crate::cli) image: &'a Image<'a>,
    pub(in crate::cli) kernel: &'a Path,
    /// What `kexec` would do then.
    pub(in crate::cli) then: Option<&'static str>,
}

/// A plan.
pub(in crate::cli) fn plan<'a>(
    plan: &'a Plan<'a>,
    image: &'a Image<'a>,
    kernel: &'a Path,
) -> PlanJson<'a> {
    PlanJson {
        plan,
        image,
        kernel,
        then: None,
    }
}

impl Serialize for PlanJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let plan = self.plan;
        let mut image = self::image(self.image);
        if let Some(fields) = image.as_object_mut() {
            insert(fields, "path", self.kernel.as_os_str().as_bytes());
        }
        let segments = plan.segments().iter().map(|segment| {
            json!({
                "role": segment.role,
                "mem": address(segment.mem.start()),
                "memsz": segment.mem.size(),
                "bufsz": segment.buf.len(),
                "rule": segment.rule,
            })
        });
        let pools = plan.pools.iter().map(|planned| {
            json!({
                "name": planned.pool.name(),
                "start": address(planned.pool.range().start()),
                "size": planned.pool.range().size(),
                "bitmap": address(planned.pool.bitmap()),
                "protection": planned.protection,
                "origin": planned.origin,
                "reason": planned.reason,
            })
        });
        let crash = plan.crash.as_ref().map(|crash| Crash { plan, crash });
        let mut fields = serializer.serialize_map(None)?;
        let (cmdline, bytes) = bytes::in_json(plan.cmdline.as_bstr());
        fields.serialize_entry("cmdline", &cmdline)?;
        if let Some(bytes) = bytes {
            fields.serialize_entry("cmdline_bytes", &bytes)?;
        }
        fields.serialize_entry("crash", &crash)?;
        fields.serialize_entry("direct", &direct(plan))?;
        fields.serialize_entry("e820", &e820(&plan.told))?;
        fields.serialize_entry("empty_initrd", &plan.empty_initrd)?;
        fields.serialize_entry("entry", &plan.entry().map(Address))?;
        fields.serialize_entry("excluded", &excluded(&plan.excluded))?;
        fields.serialize_entry("image", &image)?;
        fields.serialize_entry("kho", &plan.kho.as_ref().map(super::kho::json))?;
        fields.serialize_entry("memory_map", &memory_map(&plan.memory_map))?;
        fields.serialize_entry("pools", &List(pools))?;
        fields.serialize_entry("schema", &1)?;
        fields.serialize_entry("segments", &List(segments))?;
        fields.serialize_entry("setup_data", &json!(plan.tables()))?;
        fields.serialize_entry("syscall", &plan.decision())?;
        fields.serialize_entry("target", &plan.target())?;
        if let Some(then) = self.then {
            fields.serialize_entry("then", then)?;
        }
        fields.serialize_entry("warnings", &plan.warnings)?;
        fields.end()
    }
}

/// Who unpacks and places the kernel, and where.
fn direct(plan: &Plan<'_>) -> Option<Value> {
    let reason = plan.direct.as_ref()?;
    let placement = plan.placement();
    Some(json!({
        "physical": placement.map(|place| address(place.physical)),
        "virtual": placement.map(|place| address(place.virtual_address)),
        "randomized": placement.is_some_and(|place| place.randomized),
        "reason": reason,
    }))
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
struct Crash<'a> {
    plan: &'a Plan<'a>,
    crash: &'a CrashPlan,
}

impl Serialize for Crash<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { plan, crash } = self;
        let flag = crash.hotplug.map(|(flag, _)| flag.to_string());
        let mut fields = serializer.serialize_map(None)?;
        fields.serialize_entry("dump", &ranges(&crash.dump))?;
        fields.serialize_entry("hotplug_flag", &flag)?;
        fields.serialize_entry("kernel_updates", &plan.kernel_updates())?;
        fields.serialize_entry("reservation", &RangeJson::from(crash.reservation.target))?;
        fields.serialize_entry("usable", &ranges(&crash.reservation.all))?;
        fields.end()
    }
}

pub(in crate::cli) fn ranges(ranges: &[PhysRange]) -> impl Serialize + '_ {
    List(ranges.iter().copied().map(RangeJson::from))
}

/// A range.
#[derive(Serialize)]
struct RangeJson {
    size: u64,
    start: Address,
}

impl From<PhysRange> for RangeJson {
    fn from(range: PhysRange) -> Self {
        Self {
            size: range.size(),
            start: Address(range.start()),
        }
    }
}

/// What the next kernel is told, or what this one was.
pub(in crate::cli) fn e820(map: &[(PhysRange, Told)]) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Entry {
        size: u64,
        start: Address,
        #[serde(rename = "type")]
        kind: u32,
    }
    List(map.iter().map(|(range, kind)| Entry {
        size: range.size(),
        start: Address(range.start()),
        kind: kind.0,
    }))
}

fn excluded(ranges: &[Excluded]) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Entry<'a> {
        name: &'a str,
        reason: &'a str,
        size: u64,
        start: Address,
    }
    List(ranges.iter().map(|excluded| Entry {
        name: &excluded.name,
        reason: excluded.reason,
        size: excluded.range.size(),
        start: Address(excluded.range.start()),
    }))
}

/// The reconciled map.
pub(in crate::cli) fn memory_map(map: &MemoryMap) -> impl Serialize + '_ {
    #[derive(Serialize)]
    struct Row<'a> {
        driver: Option<&'a str>,
        e820: Option<u32>,
        in_dump: bool,
        kind: &'a str,
        reason: &'a str,
        segments: &'a str,
        size: u64,
        sources: Vec<String>,
        start: Address,
    }
    List(map.regions().iter().map(|region| Row {
        driver: region.kind.driver(),
        e820: region.told.map(|kind| kind.0),
        in_dump: region.in_dump,
        kind: region.kind.name(),
        reason: region.reason,
        segments: region.placement.name(),
        size: region.range.size(),
        sources: region.sources.lines(),
        start: Address(region.range.start()),
    }))
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
        "alignment": image.geometry.align,
        "init_size": image.geometry.size,
        "pref_address": address(image.geometry.floor),
        "relocatable": !image.geometry.fixed,
        "cmdline_size": image.cmdline_limit,
        "xloadflags": xload_names(image),
        "entry_mode": image.x86.entry_mode.name(),
        "kernel_size": image.loaded_size(),
        "bytes_behind": image.behind,
        "payload_size": image.payload.len(),
        "compression": image.compression(),
    })
}

/// What the kernel in an image can do: fields beside those of [`image`].
pub(in crate::cli) fn capability(
    image: &LinuxKernel<'_>,
    capability: &Capability,
) -> Map<String, Value> {
    let direct = direct_verdict(image, capability);
    let config: Map<_, _> = capability
        .facts()
        .into_iter()
        .map(|(symbol, fact)| (symbol.to_owned(), json!(fact)))
        .collect();
    let reads: Map<_, _> = capability
        .kho
        .reads()
        .into_iter()
        .map(|(part, reads)| (part.name().to_owned(), reads.name().into()))
        .collect();
    [
        (
            "direct",
            json!({
                "possible": direct.is_ok(),
                "kaslr": direct == Ok(true),
                "reason": direct.err(),
            }),
        ),
        ("kho", reads.into()),
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
