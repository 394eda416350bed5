//! As `entry.rs`, for what disks, firmware and the administrator say of the machine.
#![allow(dead_code, reason = "each fuzz target calls one of them")]
#![allow(clippy::unwrap_used, reason = "what cannot be is a finding")]

use rkexec::host::{efi_tables, fstab, gpt, mounts};

/// Bytes of a sector, of a GPT header, and where its checksum is.
const SECTOR: usize = 512;
const HEADER: usize = 92;
const CHECKSUM: std::ops::Range<usize> = 16..20;
/// The GUID of a table that the seed has.
const GUID: [u8; 16] = *b"the log of a TPM";

/// The CRC-32 of IEEE 802.3, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(sum & 1))
        })
    })
}

/// A disk with a partition table, whose checksums are made right. Accepted: a partition.
pub(crate) fn gpt(data: &[u8]) -> bool {
    let mut disk = data.to_vec();
    let entries = disk.get(2 * SECTOR..).map(crc32);
    if let (Some(entries), Some(header)) = (entries, disk.get_mut(SECTOR..SECTOR + HEADER)) {
        header[HEADER - 4..].copy_from_slice(&entries.to_le_bytes());
        header[CHECKSUM].fill(0);
        let sum = crc32(header);
        header[CHECKSUM].copy_from_slice(&sum.to_le_bytes());
    }
    let mut asked = 0;
    let read = gpt::read(SECTOR, &mut |at, size| {
        asked += size;
        let at = usize::try_from(at).unwrap_or(usize::MAX).min(disk.len());
        Ok(disk[at..].iter().take(size).copied().collect())
    });
    assert!(asked <= SECTOR + (1 << 20), "{asked} bytes were asked for");
    let found = read.unwrap().unwrap_or_default();
    assert!(
        found
            .iter()
            .all(|part| part.id.len() == 36 && part.number > 0)
    );
    !found.is_empty()
}

/// A system table of EFI, then its configuration table. Accepted: it has the table asked for.
pub(crate) fn efi_tables(data: &[u8]) -> bool {
    let Some(count) = efi_tables::entries(data) else {
        return false;
    };
    let table = data.get(120..).unwrap_or_default();
    let found = efi_tables::find(table, &GUID);
    assert_ne!(found, Some(0));
    count > 0 && found.is_some()
}

/// A mountinfo, and the same bytes as an fstab. Accepted: one of both has a line.
pub(crate) fn mounts(data: &[u8]) -> bool {
    let lines = fstab::parse(data);
    for line in &lines {
        assert!(!line.point.is_empty());
        assert!(!line.source.to_string().is_empty());
    }
    let mounts = mounts::parse(data).unwrap_or_default();
    let count = mounts.len();
    let with_storage = mounts::with_storage(mounts);
    assert!(with_storage.len() <= count);
    for mount in &with_storage {
        let rest = mounts::below(&mount.point, &mount.point);
        assert!(rest.is_some_and(|rest| rest.bytes().all(|byte| byte == b'/')));
    }
    count > 0 || !lines.is_empty()
}
