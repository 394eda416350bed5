//! What the operator should know of the initrds before they are needed.

use crate::image::whole;
use crate::sys::MappedFile;

/// A warning for every one of `initrds` that Linux does not unpack, or that is cut short.
/// Those that are whole `files` are named so; the others are parts of a UKI or its addons.
#[must_use]
pub fn warnings(files: &[MappedFile], initrds: &[&[u8]]) -> Vec<String> {
    let warning = |initrd: &&[u8]| {
        let file = super::call::whole(initrd, files);
        let flaw = match file {
            Some(file) => whole::check_sparse(initrd, |at| file.data_from(at)),
            None => whole::check(initrd),
        }
        .err()?;
        let name = file.map_or_else(
            || "an initrd inside the UKI".to_owned(),
            |file| format!("the initrd {}", crate::base::bytes::shown_name(file.path())),
        );
        Some(format!(
            "{name}: {flaw}; the next kernel does not find what is missing"
        ))
    };
    initrds.iter().filter_map(warning).collect()
}
