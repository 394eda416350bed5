//! /sys/firmware/memmap: the map as the firmware gave it.
//!
//! Format: drivers/firmware/memmap.c. One directory per entry, numbered in the
//! order of registration, with the files `start`, `end` (inclusive) and `type`.

use super::{HostError, Root, text};
use crate::base::PhysRange;

const PATH: &str = "/sys/firmware/memmap";

/// Listings tried when entries vanish between the listing and the reading of one.
const MAX_LISTINGS: u32 = 5;

/// One entry of /sys/firmware/memmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirmwareRegion {
    /// The addresses.
    pub range: PhysRange,
    /// The type's name as the kernel prints it, for instance `System RAM`.
    pub name: String,
}

/// Parses one entry: the contents of its files `start`, `end` and `type`.
///
/// # Errors
/// Says which of the three is malformed, and how.
pub fn parse(start: &[u8], end: &[u8], kind: &[u8]) -> Result<FirmwareRegion, String> {
    let start = address("start", start)?;
    let end = address("end", end)?;
    let range = text::inclusive(start, end)?;
    let name = String::from_utf8_lossy(kind).trim_end().to_owned();
    if name.is_empty() || name.contains('\n') {
        return Err("type: not one line".to_owned());
    }
    Ok(FirmwareRegion { range, name })
}

fn address(file: &str, bytes: &[u8]) -> Result<u64, String> {
    let content = String::from_utf8_lossy(bytes);
    text::hex_0x(content.trim_end())
        .ok_or_else(|| format!("{file}: `{}` is not a number 0x…", content.escape_debug()))
}

/// The map sorted by start; `None` when there is no such directory.
pub(super) fn read(root: &Root) -> Result<Option<Vec<FirmwareRegion>>, HostError> {
    let mut listings = 1;
    loop {
        let Some(names) = root.list(PATH)? else {
            return Ok(None);
        };
        match read_entries(root, names) {
            Ok(mut regions) => {
                regions.sort_by_key(|region| region.range.start());
                return Ok(Some(regions));
            }
            // Removing memory deletes its entry: list again.
            Err(HostError::Read { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound && listings < MAX_LISTINGS =>
            {
                listings += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn read_entries(root: &Root, names: Vec<String>) -> Result<Vec<FirmwareRegion>, HostError> {
    let numbers = text::numbered(PATH, names)?;
    let mut regions = Vec::with_capacity(numbers.len());
    for number in numbers {
        let entry = format!("{PATH}/{number}");
        let file = |name: &str| root.read(&format!("{entry}/{name}"));
        let region = parse(&file("start")?, &file("end")?, &file("type")?)
            .map_err(|what| HostError::malformed(&entry, what))?;
        regions.push(region);
    }
    Ok(regions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn machine(entries: &[(&str, &str, &str, &str)]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        for (number, start, end, kind) in entries {
            let entry = dir.path().join("sys/firmware/memmap").join(number);
            std::fs::create_dir_all(&entry).unwrap();
            for (file, content) in [("start", start), ("end", end), ("type", kind)] {
                std::fs::write(entry.join(file), format!("{content}\n")).unwrap();
            }
        }
        let root = Root::at(dir.path());
        (dir, root)
    }

    #[test]
    fn entries_come_out_in_address_order() {
        let (_dir, root) = machine(&[
            ("10", "0x0", "0x9fbff", "System RAM"),
            ("2", "0x100000000", "0x13fffffff", "System RAM"),
            ("0", "0x9fc00", "0x9ffff", "Soft Reserved"),
        ]);
        let regions = read(&root).unwrap().unwrap();
        let shown: Vec<_> = regions
            .iter()
            .map(|r| format!("{} {}", r.range, r.name))
            .collect();
        assert_eq!(
            shown,
            [
                "00000000-0009fbff System RAM",
                "0009fc00-0009ffff Soft Reserved",
                "100000000-13fffffff System RAM",
            ]
        );
    }

    #[test]
    fn entries_with_one_start_keep_the_order_of_their_numbers() {
        let (_dir, root) = machine(&[
            ("10", "0x0", "0x1fff", "c"),
            ("9", "0x0", "0x0fff", "b"),
            ("0", "0x0", "0x2fff", "a"),
        ]);
        let names: Vec<_> = read(&root)
            .unwrap()
            .unwrap()
            .into_iter()
            .map(|r| r.name)
            .collect();
        assert_eq!(names, ["a", "b", "c"]);
    }

    #[test]
    fn missing_and_empty_directories_differ() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(read(&root).unwrap(), None);
        std::fs::create_dir_all(dir.path().join("sys/firmware/memmap")).unwrap();
        assert_eq!(read(&root).unwrap(), Some(Vec::new()));
    }

    #[test]
    fn malformed_entries_are_named() {
        for (entry, message) in [
            (
                ("7", "100", "0x200", "System RAM"),
                "/sys/firmware/memmap/7: start: `100\\n` is not a number 0x…",
            ),
            (
                ("7", "0x100", "", "System RAM"),
                "/sys/firmware/memmap/7: end: `\\n` is not a number 0x…",
            ),
            (
                ("7", "0x100", "0x50", "System RAM"),
                "/sys/firmware/memmap/7: the range's last byte 0x50 lies before its first, 0x100",
            ),
            (
                ("7", "0x100", "0x1ff", ""),
                "/sys/firmware/memmap/7: type: not one line",
            ),
            (
                ("seven", "0x100", "0x1ff", "x"),
                "/sys/firmware/memmap/seven: the name is not a number",
            ),
        ] {
            let (_dir, root) = machine(&[("0", "0x0", "0xff", "System RAM"), entry]);
            assert_eq!(read(&root).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn an_incomplete_entry_is_an_error() {
        let (dir, root) = machine(&[("3", "0x0", "0xff", "System RAM")]);
        std::fs::remove_file(dir.path().join("sys/firmware/memmap/3/type")).unwrap();
        assert_eq!(
            read(&root).unwrap_err().to_string(),
            format!(
                "{}: no such file",
                root.path("/sys/firmware/memmap/3/type").display()
            )
        );
    }

    proptest! {
        #[test]
        fn no_bytes_panic(
            start in prop::collection::vec(any::<u8>(), 0..24),
            end in prop::collection::vec(any::<u8>(), 0..24),
            kind in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            let _ = parse(&start, &end, &kind);
        }

        #[test]
        fn what_the_kernel_prints_is_read_back(start: u64, end: u64, name in "[!-~]([ -~]{0,20}[!-~])?") {
            let parsed = parse(
                format!("{start:#x}\n").as_bytes(),
                format!("{end:#x}\n").as_bytes(),
                format!("{name}\n").as_bytes(),
            );
            match parsed {
                Ok(region) => {
                    prop_assert_eq!(region.range.start(), start);
                    prop_assert_eq!(region.range.last(), end.min(u64::MAX - 1));
                    prop_assert_eq!(region.name, name);
                }
                Err(_) => prop_assert!(end < start || start == u64::MAX),
            }
        }
    }
}
