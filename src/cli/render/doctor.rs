//! What `doctor` found.

use std::fmt::Write as _;

use serde_json::json;

use super::table::Table;
use crate::base::printable::inline;
use crate::cli::doctor::Examined;
use crate::crash::estimate::Estimate;
use crate::crash::sizing::parameter;
use crate::doctor::{CHECKS, Finding};

/// For people: the worst first, and the answer in the last line.
pub(in crate::cli) fn text(examined: &Examined) -> String {
    let mut text = String::new();
    for finding in &examined.found {
        text += &row(finding);
    }
    if !examined.found.is_empty() {
        text.push('\n');
    }
    let _ = writeln!(text, "{}", inline(&examined.verdict));
    text
}

/// A finding: how bad it is, its check, what is the matter; below that the evidence and the
/// way out.
fn row(finding: &Finding) -> String {
    let names = CHECKS.iter().map(|check| check.name.len());
    let width = names.max().unwrap_or_default();
    let mut text = format!(
        "{:<7}  {:<width$}  {}\n",
        finding.severity.name(),
        finding.check,
        inline(&finding.finding)
    );
    let indent = " ".repeat(7 + 2 + width + 2);
    let _ = writeln!(text, "{indent}read from: {}", inline(&finding.evidence));
    if let Some(way_out) = &finding.way_out {
        let _ = writeln!(text, "{indent}way out:   {}", inline(way_out));
    }
    text
}

/// For programs.
pub(in crate::cli) fn json(examined: &Examined) -> serde_json::Value {
    let checks: Vec<&str> = CHECKS.iter().map(|check| check.name).collect();
    json!({
        "schema": 1,
        "target": examined.target,
        "version": examined.version,
        "doctor": examined.found,
        "verdict": examined.verdict,
        "checks": checks,
    })
}

/// The table of checks for the man page, in roff.
pub(in crate::cli) fn roff() -> String {
    let row = |check: &crate::doctor::Check| {
        let name = check.name.replace('-', "\\-");
        format!(".TP\n.B {name}\n{}.\n", check.about)
    };
    CHECKS.iter().map(row).collect()
}

/// What the installed kernels need as crash kernels, for people. `running` is the running
/// command line.
pub(in crate::cli) fn estimates(found: &[Estimate], running: &bstr::BStr) -> String {
    if found.is_empty() {
        return "no kernel is in /boot (vmlinuz-*)\n".to_owned();
    }
    let mut text = String::new();
    for one in found {
        let initrd = match &one.initrd {
            Some(path) => format!(" with {}", inline(path)),
            None => " without an initrd".to_owned(),
        };
        let _ = writeln!(text, "{}{initrd}:", inline(&one.kernel));
        match &one.sizing {
            Ok(sizing) => {
                let mut table = Table::new([false, false]);
                let parameter = parameter(sizing.needed(), running);
                table.push(["memory:".to_owned(), sizing.sum()]);
                table.push(["boot with:".to_owned(), parameter]);
                text += &table.text();
            }
            Err(why) => {
                let _ = writeln!(text, "  not known: {}", inline(why));
            }
        }
    }
    text
}

/// The same for programs.
pub(in crate::cli) fn estimates_json(
    found: &[Estimate],
    running: &bstr::BStr,
) -> serde_json::Value {
    let one = |one: &Estimate| {
        let sizing = one.sizing.as_ref().ok();
        json!({
            "kernel": one.kernel,
            "initrd": one.initrd,
            "release": one.release,
            "needed": sizing.map(|sizing| sizing.needed()),
            "enough": sizing.map(|sizing| sizing.is_enough()),
            "parameter": sizing.map(|sizing| parameter(sizing.needed(), running)),
            "terms": sizing,
            "error": one.sizing.as_ref().err(),
        })
    };
    let estimates: Vec<_> = found.iter().map(one).collect();
    json!({ "schema": 1, "estimates": estimates })
}
