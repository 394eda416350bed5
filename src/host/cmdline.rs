//! /proc/cmdline.

use bstr::{BString, ByteSlice as _};

use super::{HostError, Root};

const PATH: &str = "/proc/cmdline";

/// The line without its newline, in the bytes that the kernel has: they need not be UTF-8.
pub(crate) fn read(root: &Root) -> Result<BString, HostError> {
    let bytes = root.read(PATH)?;
    Ok(bytes.trim_end_with(|c| c == '\n').into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newline_is_taken_away() {
        const LINE: &[u8] = b" a=\"b c\" \xff \n";
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        std::fs::write(dir.path().join("proc/cmdline"), LINE).unwrap();
        let line = LINE.strip_suffix(b"\n").unwrap();
        assert_eq!(read(&Root::at(dir.path())).unwrap(), line);
    }
}
