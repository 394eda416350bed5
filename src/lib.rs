//! rkexec: plans, explains, loads and boots the next Linux kernel.
//!
//! See ARCHITECTURE.md for the data flow.

pub mod abi;
pub mod arm;
pub mod base;
pub mod boot;
pub mod carry;
pub mod cli;
pub mod cmdline;
pub mod crash;
pub mod doctor;
pub mod entries;
pub mod fdt;
pub mod host;
pub mod image;
pub mod job;
pub mod kconfig;
pub mod kho;
pub mod layout;
pub mod load;
pub mod memory;
pub mod plan;
pub mod purgatory;
pub mod refusal;
pub mod request;
pub mod sys;
pub mod vmcore;

// What the unit tests share with the integration tests names the library from outside.
#[cfg(test)]
extern crate self as rkexec;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod testing;
