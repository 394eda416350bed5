//! What a kernel file is, as text.

use std::fmt::Write as _;

use super::json::xload_names;
use super::{human, multiboot};
use crate::abi::x86::setup_data::SETUP_INDIRECT;
use crate::base::printable::inline;
use crate::carry::Capability;
use crate::image::Image;

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
pub(in crate::cli) fn capability(capability: &Capability) -> String {
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
    out.push_str("config:\n");
    for (symbol, fact) in capability.facts() {
        let (value, from) = (fact.value.name(), &fact.read_from);
        let _ = writeln!(out, "  {symbol:<22} {value:<8} ({})", inline(from));
    }
    out
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
