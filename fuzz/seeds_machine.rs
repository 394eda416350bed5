//! As `seeds.rs`, for the targets of entry_machine.rs.

/// A disk with two partitions, an EFI system partition first. The target makes its checksums.
pub(super) fn gpt() -> Vec<Vec<u8>> {
    let mut disk = vec![0; 2 * 512 + 2 * 128];
    let header = &mut disk[512..];
    header[..8].copy_from_slice(b"EFI PART");
    header[12..16].copy_from_slice(&92_u32.to_le_bytes());
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&2_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    let esp = [
        0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9,
        0x3b,
    ];
    disk[1024..1040].copy_from_slice(&esp);
    disk[1040..1056].fill(1);
    disk[1152..1184].fill(2);
    vec![disk]
}

/// A system table with two entries, which follow.
pub(super) fn efi_tables() -> Vec<Vec<u8>> {
    let mut table = vec![0; 120];
    table[..8].copy_from_slice(b"IBI SYST");
    table[104..112].copy_from_slice(&2_u64.to_le_bytes());
    for (guid, address) in [
        (b"something before", 0x1000_u64),
        (b"the log of a TPM", 0x2000),
    ] {
        table.extend(guid);
        table.extend(address.to_le_bytes());
    }
    vec![table]
}

pub(super) fn mounts() -> Vec<Vec<u8>> {
    let mountinfo = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
         23 22 0:5 / /dev rw - devtmpfs udev rw\n24 22 0:40 /sub /srv/a\\040b rw - btrfs /dev/sdb ro\n";
    let fstab = "# what is mounted\nUUID=\"1234-ABCD\" /boot/efi vfat umask=0077 0 1\n\
         LABEL=a\\040b / ext4 defaults 0 1\nPARTUUID=12 none swap sw 0 0\n";
    vec![mountinfo.into(), fstab.into()]
}
