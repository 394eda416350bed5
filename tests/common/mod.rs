//! What several tests build: tiny kernels and hand-made machines.
//!
//! The unit tests include this directory as `crate::testing`.

#![allow(
    dead_code,
    clippy::panic,
    clippy::unwrap_used,
    reason = "each test uses a part of this, and may stop at what it did not expect"
)]

pub(crate) mod bzimage;
pub(crate) mod contract;
pub(crate) mod elf;
pub(crate) mod host;
pub(crate) mod kho;
pub(crate) mod multiboot;
pub(crate) mod pe;
pub(crate) mod program;
pub(crate) mod vmcore;
