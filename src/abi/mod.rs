//! Layouts and constants that others define: the kernel's and the firmware's.
//!
//! No `cfg`: a captured machine of any architecture can be planned on any other.

pub mod efi;
pub mod kho;
pub mod x86;
