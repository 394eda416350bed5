//! Writes files that were handed over in memory into a directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;

use bstr::BString;
use sha2::{Digest as _, Sha256};

use super::manifest::{Proof, Sha256Sum};
use crate::base::bytes::hex;
use crate::host::capture::CaptureError;
use crate::host::tree::NewTree;

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;
/// Zeroes of this size, where they lie at a multiple of it, become a hole.
const BLOCK: usize = 4096;

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its token in the session.
    pub token: u64,
    /// The name that it gets, one component of a path.
    pub name: BString,
    /// What must hold of it; `None` when nobody knows.
    pub proof: Option<Proof>,
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retrieved {
    /// Which one.
    pub wanted: Wanted,
    /// The bytes that the session has of it.
    pub size: u64,
    /// Why it is not in the directory.
    pub fault: Option<String>,
}

impl Retrieved {
    /// Whether it is in the directory, and is what was handed over.
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.fault.is_none() && self.wanted.proof.is_some()
    }
}

/// Writes those of the files `wanted` that are what they must be. `open` opens the file with
/// a token, or says why that cannot be. A file has its name only when it is whole and on the
/// disk.
///
/// # Errors
/// When the directory cannot be written. What has its name by then stays.
pub(crate) fn write(
    tree: &NewTree,
    wanted: &[Wanted],
    mut open: impl FnMut(u64) -> Result<File, String>,
) -> Result<Vec<Retrieved>, CaptureError> {
    let partial = free_name(wanted);
    let partial = OsStr::from_bytes(partial.as_bytes());
    let mut all = Vec::new();
    for wanted in wanted {
        let mut result = Retrieved {
            wanted: wanted.clone(),
            size: 0,
            fault: None,
        };
        match open(wanted.token) {
            Err(fault) => result.fault = Some(fault),
            Ok(file) => {
                tree.file_when_right(OsStr::from_bytes(&wanted.name), partial, |to| {
                    let (size, fault) = copy(&file, to, wanted.proof)?;
                    (result.size, result.fault) = (size, fault);
                    Ok(result.fault.is_none())
                })?;
            }
        }
        all.push(result);
    }
    tree.sync()?;
    Ok(all)
}

/// A name that none of them has.
fn free_name(wanted: &[Wanted]) -> String {
    let is_free = |name: &String| wanted.iter().all(|wanted| wanted.name != name.as_bytes());
    let mut names = (0..=wanted.len()).map(|number| format!(".partial-{number}"));
    names.find(is_free).unwrap_or_default()
}

/// Copies a file without its zeroes. Answers how many bytes it has, and what is wrong with
/// them. An error is one of the file that is written.
fn copy(from: &File, to: &File, proof: Option<Proof>) -> io::Result<(u64, Option<String>)> {
    let mut sum = Sha256::new();
    let mut piece = vec![0; PIECE];
    let mut size = 0;
    loop {
        let read = match from.read_at(&mut piece, size) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok((size, Some(format!("it cannot be read: {error}")))),
        };
        let bytes = piece.get(..read).unwrap_or_default();
        sum.update(bytes);
        let mut at = size;
        for block in bytes.chunks(BLOCK) {
            if block.iter().any(|byte| *byte != 0) {
                to.write_all_at(block, at)?;
            }
            at += block.len() as u64;
        }
        size = at;
    }
    to.set_len(size)?;
    Ok((
        size,
        proof.and_then(|proof| differs(size, sum.finalize().into(), proof)),
    ))
}

/// What differs from `proof`.
fn differs(size: u64, sha256: Sha256Sum, proof: Proof) -> Option<String> {
    if size != proof.size {
        return Some(format!(
            "it has {size} bytes, and {} were handed over",
            proof.size
        ));
    }
    (sha256 != proof.sha256).then(|| {
        let (is, was) = (hex(&sha256), hex(&proof.sha256));
        format!("its SHA-256 is {is}, and {was} was handed over")
    })
}

#[cfg(test)]
#[path = "retrieve_tests.rs"]
mod tests;
