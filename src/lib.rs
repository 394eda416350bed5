//! rkexec: plans, explains, loads and boots the next Linux kernel.
//!
//! See ARCHITECTURE.md for the data flow.

pub mod arch;
pub mod cli;
pub mod handover;
pub mod host;
pub mod image;
pub mod load;
pub mod memory;
pub mod plan;
pub mod purgatory;
pub mod sys;
