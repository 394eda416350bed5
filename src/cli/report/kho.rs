//! What Kexec Handover brought, as the running kernel shows it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::base::printable::inline;
use crate::host::Host;
use crate::host::handed_over::{Fate, HandedOver};

/// A paragraph about it; empty when nothing shows that anything was handed over.
pub(super) fn text(host: &Host, handed: &HandedOver) -> String {
    if handed.node != Some(true) && handed.lines().is_empty() {
        return String::new();
    }
    let mut out = "\nKexec Handover:\n".to_owned();
    let state = &host.security.kho.state;
    let taken = match handed.tree() {
        Fate::Taken(_) => "taken over".to_owned(),
        Fate::Lost(why) => format!("NOT taken over: {why}"),
        Fate::Hidden(why) => format!("not known: {why}"),
    };
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "  {name:<20} {}", inline(value));
    };
    line("state", &taken);
    if let Some(format) = &state.format {
        line("format", format);
    }
    if let Some(generation) = state.generation {
        line("generation", &generation.to_string());
    }
    let device = match handed.device {
        true => "/dev/liveupdate is there",
        false => "off: there is no /dev/liveupdate",
    };
    line("live update", device);
    let revived = handed.revived();
    if !revived.is_empty() {
        line("pools", &revived.join(", "));
    }
    for said in handed.lines() {
        line("the kernel's log", said);
    }
    out
}

/// The same for programs; what is not visible is null.
pub(super) fn json(host: &Host, handed: &HandedOver) -> Value {
    let kho = &host.security.kho;
    let taken = |fate: Fate| match fate {
        Fate::Taken(_) => Some(true),
        Fate::Lost(_) => Some(false),
        Fate::Hidden(_) => None,
    };
    let log = handed.log.as_ref();
    json!({
        "node": handed.node,
        "taken_over": taken(handed.tree()),
        "sessions_taken_over": taken(handed.sessions()),
        "format": kho.state.format,
        "generation": kho.state.generation,
        "liveupdate": handed.device,
        "pools": log.map(|_| handed.revived()),
        "blobs": handed.blobs,
        "log": log.map(|log| &log.lines),
        "log_is_whole": log.map(|log| log.whole),
    })
}
