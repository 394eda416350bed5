//! A lanzaboote stub: the files that it names.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::image::lanzaboote::{NAME, Named, Stub};

/// For people.
pub(in crate::cli) fn text(stub: &Stub) -> String {
    let mut out = format!(
        "format:        {NAME}: no kernel, but the names of files on the EFI system partition\n"
    );
    let initrd = stub.initrd.iter().map(|initrd| ("initrd:", initrd));
    for (name, named) in [("kernel:", &stub.kernel)].into_iter().chain(initrd) {
        let _ = writeln!(out, "{name:<14} {}", named.path);
        let _ = writeln!(out, "{:<14} {}", "  SHA-256:", named.hex());
    }
    if let Some(line) = &stub.cmdline {
        let _ = writeln!(out, "{:<14} {line}", "cmdline:");
    }
    out
}

/// For programs.
pub(in crate::cli) fn json(stub: &Stub) -> Value {
    let named = |named: &Named| json!({ "path": named.path, "sha256": named.hex() });
    json!({
        "schema": 1,
        "format": "lanzaboote stub",
        "kernel": named(&stub.kernel),
        "initrd": stub.initrd.as_ref().map(named),
        "cmdline": stub.cmdline,
    })
}
