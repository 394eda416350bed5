//! What a boot protocol hands over: the tables that the next kernel reads.

pub mod linux_x86;
pub mod multiboot;
