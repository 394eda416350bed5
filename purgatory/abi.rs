// The parameter block at offset 0 of the purgatory image: the one interface
// between the loader and the purgatory. Both sides include this very file.

/// `RKXPURG1`, little-endian: the first eight bytes of the image.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"RKXPURG1");
/// Version of this block; the loader and the image come from one build.
pub(crate) const ABI_VERSION: u32 = 6;
/// Regions that can be verified: KEXEC_SEGMENT_MAX, 16 (include/linux/kexec.h).
pub const MAX_REGIONS: usize = 16;

/// Verify the digests before the jump.
pub(crate) const FLAG_VERIFY: u32 = 1 << 0;
/// `serial_port` is a port-I/O 16550 to print failures on.
pub(crate) const FLAG_SERIAL: u32 = 1 << 2;
/// Enter in 32-bit protected mode without paging, not in long mode.
pub(crate) const FLAG_PROTECTED_MODE: u32 = 1 << 3;
/// With [`FLAG_PROTECTED_MODE`]: `boot_params` is the value of EBX, not of ESI.
pub(crate) const FLAG_EBX: u32 = 1 << 4;

/// One region to verify.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Region {
    /// Physical address, in bytes; never 0.
    pub(crate) address: u64,
    /// Size in bytes; never 0.
    pub(crate) size: u64,
    /// Digest of these bytes, see README.md.
    pub(crate) digest: [u8; 8],
}

/// The parameter block.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Params {
    /// `MAGIC`.
    pub(crate) magic: u64,
    /// [`ABI_VERSION`].
    pub(crate) version: u32,
    /// `FLAG_*`.
    pub(crate) flags: u32,
    /// Entry point of the next kernel, physical; below 4 GiB with
    /// [`FLAG_PROTECTED_MODE`].
    pub(crate) entry: u64,
    /// Value of RSI at that entry, of ESI with [`FLAG_PROTECTED_MODE`]: physical
    /// address of boot_params. With [`FLAG_EBX`] it is the value of EBX: physical
    /// address of the multiboot information.
    pub(crate) boot_params: u64,
    /// First I/O port of the UART, 0 when there is none.
    pub(crate) serial_port: u16,
    /// Zero.
    pub(crate) reserved: u16,
    /// Entries of `regions` in use.
    pub(crate) region_count: u32,
    /// Value of EAX at the entry with [`FLAG_PROTECTED_MODE`].
    pub(crate) eax: u32,
    /// What becomes `exec_unknown` of the stamps where `exec_page` is 0.
    pub(crate) exec_unknown: u32,
    /// What to verify, the first `region_count` of them.
    pub(crate) regions: [Region; MAX_REGIONS],
    /// Physical address of the `Stamps` to fill in after the check; 0: none, and the
    /// time stamp counter is not read.
    pub(crate) stamps: u64,
    /// Physical address of the `ExecPage`; 0: there is none.
    pub(crate) exec_page: u64,
    /// The `nonce` of the page that belongs to this image.
    pub(crate) nonce: u64,
}

const _: () = assert!(core::mem::size_of::<Params>() == 48 + MAX_REGIONS * (8 + 8 + 8) + 24);

/// What `VERIFY` returns. 0, which is no member, means that all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fault {
    /// The block does not begin with `MAGIC`.
    Magic = 1,
    /// Another `ABI_VERSION`.
    Version = 2,
    /// `region_count`, or the region named in `Evidence`, makes no sense.
    Table = 3,
    /// The region named in `Evidence` has another digest.
    Digest = 4,
}

/// What `VERIFY` leaves about a fault.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Index into the regions of the block.
    pub region: u64,
    /// The digest computed there.
    pub computed: [u8; 8],
}
