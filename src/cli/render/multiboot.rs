//! A multiboot kernel, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::human;
use super::json::{address, insert};
use crate::image::Multiboot;
use crate::image::multiboot::v2::information_name;
use crate::image::multiboot::{InformationRequest, Load, Version};

/// In a few words.
pub(super) const fn title(image: &Multiboot<'_>) -> &'static str {
    match image.version {
        Version::One => "a multiboot 1 kernel",
        Version::Two => "a multiboot 2 kernel",
    }
}

/// Name of what is asked for.
fn request(request: &InformationRequest) -> String {
    match information_name(request.tag) {
        Some(name) => name.to_owned(),
        None => format!("tag {}", request.tag),
    }
}

/// What a kernel file is.
pub(super) fn text(image: &Multiboot<'_>) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<14} {value}");
    };
    line("format:", image.format_name());
    line(
        "header:",
        format!("at {:#x} of the file", image.header_offset),
    );
    for (number, load) in image.loads.iter().enumerate() {
        let name = if number == 0 { "loads:" } else { "" };
        let Load { range, bytes } = load;
        let (size, given) = (human(range.size()), human(bytes.len() as u64));
        line(
            name,
            format!("{range:#} ({size}, {given} of it from the file)"),
        );
    }
    line("entry:", format!("{:#x}", image.entry));
    line(
        "relocatable:",
        match &image.relocatable {
            None => "no".to_owned(),
            Some(bounds) => format!(
                "between {:#x} and {:#x}, aligned to {:#x}, preference: {}",
                bounds.min,
                bounds.max,
                bounds.align,
                bounds.preference.name()
            ),
        },
    );
    let pages = if image.page_aligned_modules {
        "begin on pages"
    } else {
        "anywhere"
    };
    line("modules:", pages.to_owned());
    for (name, required) in [("requires:", true), ("asks for:", false)] {
        let requests = image.requests.iter().filter(|r| r.required == required);
        let requests: Vec<String> = requests.map(request).collect();
        if !requests.is_empty() {
            line(name, requests.join(", "));
        }
    }
    if image.console.required {
        line("console:", "required".to_owned());
    }
    out
}

/// The same as JSON, and the modules that go with it in a plan.
pub(super) fn json(image: &Multiboot<'_>) -> Value {
    let loads: Vec<Value> = image
        .loads
        .iter()
        .map(|load| {
            json!({
                "start": address(load.range.start()),
                "size": load.range.size(),
                "file_size": load.bytes.len(),
            })
        })
        .collect();
    let relocatable = image.relocatable.map(|bounds| {
        json!({
            "min": address(bounds.min.into()),
            "max": address(bounds.max.into()),
            "align": bounds.align,
            "preference": bounds.preference.name(),
        })
    });
    let requests: Vec<Value> = image
        .requests
        .iter()
        .map(|request| {
            json!({
                "tag": request.tag,
                "name": information_name(request.tag),
                "required": request.required,
            })
        })
        .collect();
    let modules: Vec<Value> = image
        .modules
        .iter()
        .map(|module| {
            let mut fields = Map::new();
            insert(&mut fields, "cmdline", &module.cmdline);
            fields.insert("size".to_owned(), module.bytes.len().into());
            fields.into()
        })
        .collect();
    json!({
        "format": image.format_name(),
        "version": null,
        "release": null,
        "header_offset": image.header_offset,
        "loads": loads,
        "entry": address(image.entry),
        "relocatable": relocatable,
        "page_aligned_modules": image.page_aligned_modules,
        "console_required": image.console.required,
        "requests": requests,
        "modules": modules,
    })
}
