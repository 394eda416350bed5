//! UKIs: their sections and profiles, and which signature counts.

use std::fmt::Write as _;

use bstr::ByteSlice as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::human;
use super::json::insert;
use crate::base::bytes::shown;
use crate::base::printable::inline;
use crate::image::LinuxKernel;
use crate::image::signature::is_signed;
use crate::image::uki::{Section, Uki};

/// Longest text of a section that is shown to people, bytes.
const MAX_TEXT: usize = 4096;

/// For people: lines behind those of the kernel.
pub(in crate::cli) fn text(uki: &Uki<'_>, kernel: &LinuxKernel<'_>) -> String {
    let mut out = format!("signature:     {}\n", signature(uki, kernel));
    if !uki.profiles.is_empty() {
        out.push_str("profiles:\n");
        for number in 0..uki.profiles.len() {
            let shown = if uki.chosen == Some(number) {
                "  (shown above)"
            } else {
                ""
            };
            let _ = writeln!(out, "  {}{shown}", profile(uki, number));
        }
    }
    out.push_str("sections:\n");
    for section in &uki.sections {
        let of = section
            .profile
            .map_or_else(String::new, |number| format!("  of profile {number}"));
        let size = human(section.bytes.len() as u64);
        let _ = writeln!(
            out,
            "  {:<9} {size:>10}{of}  {}",
            inline(&section.name),
            what(section)
        );
    }
    out
}

/// For people: the profile whose parts a plan takes.
pub(super) fn chosen(uki: &Uki<'_>) -> Option<String> {
    uki.chosen.map(|number| profile(uki, number))
}

/// For programs.
pub(in crate::cli) fn json(uki: &Uki<'_>, kernel: &LinuxKernel<'_>) -> Value {
    let profiles = uki.profiles.iter().enumerate();
    let profiles: Value = profiles
        .map(|(number, profile)| {
            json!({ "number": number, "id": profile.id, "title": profile.title })
        })
        .collect();
    let sections: Value = uki
        .sections
        .iter()
        .map(|section| {
            let mut json = json!({
                "name": section.name,
                "size": section.bytes.len(),
                "profile": section.profile,
                "sha256": digest(section.bytes),
                "text": null,
            });
            if let (Some(fields), Some(text)) = (json.as_object_mut(), section.text()) {
                insert(fields, "text", text);
            }
            json
        })
        .collect();
    json!({
        "signed": uki.is_signed(),
        "kernel_signed": is_signed(kernel.file),
        "profile": uki.chosen,
        "profiles": profiles,
        "sections": sections,
    })
}

/// Which signature there is, and which one kexec looks at.
fn signature(uki: &Uki<'_>, kernel: &LinuxKernel<'_>) -> String {
    let own = match is_signed(kernel.file) {
        Some(true) => "the kernel inside has one of its own",
        Some(false) => "the kernel inside has none of its own, and kexec_file_load finds none",
        None => "that of the kernel inside cannot be read",
    };
    match uki.is_signed() {
        Some(false) => format!("none of the UKI; {own}"),
        whole => {
            let whole = match whole {
                None => "that of the UKI cannot be read",
                Some(_) => "one of the UKI as a whole",
            };
            format!("{whole}, which kexec does not look at: it loads the parts; {own}")
        }
    }
}

fn profile(uki: &Uki<'_>, number: usize) -> String {
    let profile = uki.profiles.get(number).cloned().unwrap_or_default();
    let id = profile.id.map_or_else(String::new, |id| format!(" {id}"));
    let title = profile
        .title
        .map_or_else(String::new, |title| format!(" ({title})"));
    inline(&format!("{number}{id}{title}")).into_owned()
}

/// The text of a section, or its digest.
fn what(section: &Section<'_>) -> String {
    match section.text() {
        Some(text) if text.len() <= MAX_TEXT => {
            let mut lines = text.lines().map(|line| shown(line).to_string());
            let first = lines.next().unwrap_or_default();
            let rest = lines.map(|line| format!("\n{:27}{line}", ""));
            first + &rest.collect::<String>()
        }
        _ => format!("sha256 {}", digest(section.bytes)),
    }
}

/// As sha256sum prints it.
fn digest(bytes: &[u8]) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
