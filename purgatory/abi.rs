// The parameter block at offset 0 of the purgatory image: the one interface
// between the loader and the purgatory. Both sides include this very file.

/// `RKXPURG1`, little-endian: the first eight bytes of the image.
pub const MAGIC: u64 = u64::from_le_bytes(*b"RKXPURG1");
/// Version of this block; the loader and the image come from one build.
pub const ABI_VERSION: u32 = 1;
/// Regions that can be verified: KEXEC_SEGMENT_MAX, 16 (include/linux/kexec.h).
pub const MAX_REGIONS: usize = 16;
/// Bytes of one leaf of the digest: every region is cut into chunks of this size.
pub const CHUNK: usize = 1 << 20;

/// Verify the digest before the jump.
pub const FLAG_VERIFY: u32 = 1 << 0;
/// The CPU has the SHA extensions, SSSE3 and SSE4.1: the loader looked, the
/// purgatory never executes CPUID (it has no IDT to survive a #VC or #VE).
pub const FLAG_SHA_NI: u32 = 1 << 1;
/// `serial_port` is a port-I/O 16550 to print failures on.
pub const FLAG_SERIAL: u32 = 1 << 2;

/// One region to verify.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Region {
    /// Physical address, in bytes.
    pub address: u64,
    /// Size in bytes; 0 ends the table.
    pub size: u64,
}

/// The parameter block.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Params {
    /// [`MAGIC`].
    pub magic: u64,
    /// [`ABI_VERSION`].
    pub version: u32,
    /// `FLAG_*`.
    pub flags: u32,
    /// 64-bit entry point of the next kernel, physical.
    pub entry: u64,
    /// Value of RSI at that entry: physical address of boot_params.
    pub boot_params: u64,
    /// First I/O port of the UART, 0 when there is none.
    pub serial_port: u16,
    /// Zero.
    pub reserved: [u8; 6],
    /// Root digest over the region table and the leaves, see README.md.
    pub digest: [u8; 32],
    /// What the digest covers.
    pub regions: [Region; MAX_REGIONS],
}

const _: () = assert!(core::mem::size_of::<Params>() == 8 + 4 + 4 + 8 + 8 + 8 + 32 + 16 * MAX_REGIONS);
