// The time stamps: what the purgatory leaves for the next kernel, and the page in which
// `exec` leaves something for the purgatory. Both sides include this very file.
//
// All numbers are little-endian. A stamp is a value of the time stamp counter (RDTSC).

/// `RKXTIME1`, little-endian: the first eight bytes of [`Stamps`].
pub(crate) const STAMPS_MAGIC: u64 = u64::from_le_bytes(*b"RKXTIME1");

/// `exec` left its stamp.
pub(crate) const EXEC_KNOWN: u32 = 0;
/// The page is the image's own, and `exec` left nothing in it.
pub(crate) const EXEC_NOT_STAMPED: u32 = 1;
/// Something else lies where the page was: it was moved, or given back.
pub(crate) const EXEC_PAGE_LOST: u32 = 2;
/// There is no page: its file system does not keep files in memory.
pub(crate) const EXEC_NO_MEMORY_FILE: u32 = 3;
/// There is no page: the running kernel did not tell its address.
pub(crate) const EXEC_NO_ADDRESS: u32 = 4;
/// There is no page: every one that was tried will be overwritten by a segment.
pub(crate) const EXEC_NO_PLACE: u32 = 5;
/// There is no page: its file could not be made.
pub(crate) const EXEC_NO_FILE: u32 = 6;

/// What the purgatory leaves for the next kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamps {
    /// [`STAMPS_MAGIC`].
    pub(crate) magic: u64,
    /// How long the load took, nanoseconds; 0: not known.
    pub(crate) load: u64,
    /// When `exec` called the running kernel; 0: not known.
    pub(crate) exec: u64,
    /// When the purgatory was entered; 0: it was not.
    pub(crate) entered: u64,
    /// When it had checked all segments.
    pub(crate) verified: u64,
    /// `EXEC_*`: why `exec` is 0.
    pub(crate) exec_unknown: u32,
    /// Zero.
    pub(crate) reserved: u32,
}

/// The page in which `exec` leaves its stamp.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ExecPage {
    /// The number of the image that it belongs to: no other load has it.
    pub(crate) nonce: u64,
    /// How long the load took, nanoseconds.
    pub(crate) load: u64,
    /// When `exec` called the running kernel; 0: it has not yet.
    pub(crate) exec: u64,
    /// The physical address of this page when the image was loaded.
    pub(crate) address: u64,
}

const _: () = assert!(core::mem::size_of::<Stamps>() == 48);
const _: () = assert!(core::mem::size_of::<ExecPage>() == 32);
