//! VMCOREINFO: what the crashed kernel said of its own layout
//! (Documentation/admin-guide/kdump/vmcoreinfo.rst).

use std::collections::BTreeMap;

use super::VmcoreError;

/// Largest structure that is described, bytes: those of the ring buffer have
/// at most 88.
const MAX_STRUCT: u64 = 4096;

/// The lines `KEY=VALUE` of the note.
#[derive(Debug)]
pub(super) struct VmcoreInfo(BTreeMap<String, String>);

impl VmcoreInfo {
    /// Reads the text of the note; lines of another form mean nothing.
    pub(super) fn parse(text: &[u8]) -> Self {
        let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        let lines = text.lines().filter_map(|line| line.split_once('='));
        Self(lines.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// `uname -r` of the kernel.
    pub(super) fn release(&self) -> Option<&str> {
        self.0.get("OSRELEASE").map(String::as_str)
    }

    /// The virtual address of a symbol.
    pub(super) fn symbol(&self, name: &str) -> Result<Option<u64>, VmcoreError> {
        let key = format!("SYMBOL({name})");
        self.value(&key, |text| u64::from_str_radix(text, 16).ok())
    }

    /// A number, negative ones in two's complement.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, VmcoreError> {
        let key = format!("NUMBER({name})");
        self.value(&key, |text| {
            let signed = || text.parse().ok().map(i64::cast_unsigned);
            text.parse().ok().or_else(signed)
        })
    }

    /// The size of a structure, bytes: 1 to [`MAX_STRUCT`].
    pub(super) fn size(&self, name: &str) -> Result<usize, VmcoreError> {
        let key = format!("SIZE({name})");
        self.bounded(&key).and_then(|size| {
            if size == 0 {
                invalid(&key, "0")
            } else {
                Ok(size)
            }
        })
    }

    /// Where a field lies in its structure, bytes: 0 to [`MAX_STRUCT`].
    pub(super) fn offset(&self, name: &str) -> Result<usize, VmcoreError> {
        self.bounded(&format!("OFFSET({name})"))
    }

    fn bounded(&self, key: &str) -> Result<usize, VmcoreError> {
        let small = |text: &str| {
            let number: u64 = text.parse().ok()?;
            usize::try_from(number)
                .ok()
                .filter(|_| number <= MAX_STRUCT)
        };
        let missing = || VmcoreError::Malformed(format!("VMCOREINFO lacks {key}"));
        self.value(key, small)?.ok_or_else(missing)
    }

    fn value<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, VmcoreError> {
        let Some(text) = self.0.get(key) else {
            return Ok(None);
        };
        parse(text).map_or_else(|| invalid(key, text), |value| Ok(Some(value)))
    }
}

fn invalid<T>(key: &str, text: &str) -> Result<T, VmcoreError> {
    let what = format!("VMCOREINFO: {key} cannot be {text:?}");
    Err(VmcoreError::Malformed(what))
}
