//! /proc/cmdline.

use super::{HostError, Root};

const PATH: &str = "/proc/cmdline";

/// The line without its newline. Bytes that are not UTF-8 are replaced: the
/// kernel takes any, and it should not keep a machine from being rebooted.
pub(super) fn read(root: &Root) -> Result<String, HostError> {
    let bytes = root.read(PATH)?;
    Ok(String::from_utf8_lossy(&bytes)
        .trim_end_matches('\n')
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newline_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("proc")).unwrap();
        std::fs::write(dir.path().join("proc/cmdline"), b" a=\"b c\" \xff \n").unwrap();
        assert_eq!(read(&Root::at(dir.path())).unwrap(), " a=\"b c\" \u{fffd} ");
    }
}
