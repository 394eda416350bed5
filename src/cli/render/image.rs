//! What a kernel file is, as text.

use std::fmt::Write as _;

use super::json::xload_names;
use super::{human, multiboot};
use crate::abi::x86::setup_data::SETUP_INDIRECT;
use crate::base::printable::inline;
use crate::boot;
use crate::carry::{Capability, KhoTarget, Reads};
use crate::image::{Image, LinuxKernel};

/// What a kernel file is.
pub(in crate::cli) fn image(image: &Image<'_>) -> String {
    let image = match image {
        Image::Linux(image) => image,
        Image::Multiboot(image) => return multiboot::text(image),
    };
    let geometry = &image.geometry;
    let (major, minor) = image.protocol();
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<14} {}", inline(&value));
    };
    let machine = if image.is_32_bit() {
        "x86, entered in 32-bit mode"
    } else {
        "x86_64"
    };
    line("format:", format!("{} ({machine})", image.format_name()));
    line("version:", image.version.unwrap_or("unknown").to_owned());
    line("protocol:", format!("{major}.{minor:02}"));
    line("alignment:", human(geometry.align));
    line("init_size:", human(geometry.size));
    line("pref_address:", format!("{:#x}", geometry.floor));
    line(
        "relocatable:",
        if geometry.fixed { "no" } else { "yes" }.to_owned(),
    );
    line("cmdline_size:", format!("{} bytes", image.cmdline_limit));
    line("xloadflags:", xload_names(image).join(" "));
    line("kernel:", human(image.loaded_size()));
    if image.behind > 0 {
        let behind = human(image.behind as u64);
        line("behind it:", format!("{behind} that are not loaded"));
    }
    line(
        "payload:",
        format!(
            "{}, {}",
            human(image.payload.len() as u64),
            match image.compression() {
                "none" => "not compressed",
                packing => packing,
            }
        ),
    );
    out
}

/// What the kernel in an image can do: lines behind those of [`image`].
pub(in crate::cli) fn capability(image: &LinuxKernel<'_>, capability: &Capability) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<14} {}", inline(&value));
    };
    line(
        "unpacked:",
        match &capability.unpacked {
            Ok(size) => human(*size as u64),
            Err(error) => format!("unknown: {error}"),
        },
    );
    line("setup_data:", indirect(capability.setup_type_max));
    line(
        "direct load:",
        match direct(image, capability) {
            Ok(true) => "yes, with KASLR".to_owned(),
            Ok(false) => "yes, without KASLR: it has no relocation lists".to_owned(),
            Err(why) => format!("no: {why}"),
        },
    );
    line("handover:", handover(&capability.kho));
    out.push_str("config:\n");
    let facts = capability.facts();
    let width = facts.iter().map(|(symbol, _)| symbol.len()).max();
    let width = width.unwrap_or_default();
    for (symbol, fact) in facts {
        let (value, from) = (fact.value.name(), &fact.read_from);
        let _ = writeln!(out, "  {symbol:<width$}  {value:<8} ({})", inline(from));
    }
    out
}

/// Whether the loader can place the kernel itself, and then whether at any virtual address;
/// else why not.
pub(super) fn direct(image: &LinuxKernel<'_>, capability: &Capability) -> Result<bool, String> {
    match (boot::needs_unpacker(image), &capability.direct) {
        (Some(why), _) => Err(why.to_owned()),
        (None, Ok(relocatable)) => Ok(*relocatable),
        (None, Err(error)) => Err(error.to_string()),
    }
}

/// Which formats of Kexec Handover the kernel reads.
fn handover(target: &KhoTarget) -> String {
    if target.kho == Reads::Nothing {
        return "none: it is built without Kexec Handover".to_owned();
    }
    let parts = target.reads().map(|(part, reads)| match reads {
        Reads::Nothing => format!("no {}", part.name()),
        Reads::One(format) => format.clone(),
        Reads::OneOf(formats) => format!("{} unknown ({})", part.name(), formats.join(" or ")),
        Reads::Unknown => format!("{} unknown", part.name()),
    });
    parts.join(", ")
}

/// Whether the kernel knows SETUP_INDIRECT, by the highest type of setup_data that its
/// kernel_info names. Pools can be protected by it.
fn indirect(highest: Option<u32>) -> String {
    match highest {
        Some(highest) if highest & SETUP_INDIRECT != 0 => {
            format!("SETUP_INDIRECT is known (types up to {highest:#x})")
        }
        Some(highest) => format!("SETUP_INDIRECT is not known (types up to {highest:#x})"),
        None => "unknown: the file has no kernel_info (it came with Linux 5.5)".to_owned(),
    }
}
