//! rkexec: plans, explains, loads and boots the next Linux kernel.
//!
//! See ARCHITECTURE.md for the data flow.

pub mod arch;
pub mod host;
pub mod memory;
pub mod purgatory;
