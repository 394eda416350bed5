//! Round trips through real kernels in QEMU; the next kernel is the witness.
//!
//! `tests/vm/setup` prepares the machine. Every guest's console, QEMU's own
//! words and the records of every stage stay in `target/vm/logs/GUEST/`.

mod arm;
mod carry;
mod chain;
#[path = "../common/mod.rs"]
mod common;
mod contents;
mod crash;
mod crash_map;
mod damage;
mod debian;
mod dmesg;
mod drop_in;
mod efi;
mod entries;
mod examples;
mod faults;
mod formats;
mod forward;
mod handover;
mod harness;
mod initramfs;
mod interrupted;
mod kernel_32bit;
mod kho;
mod kho_encoder;
mod kho_pools;
mod lab;
mod landing;
mod memory;
mod multiboot;
mod outcome;
mod phases;
mod qemu;
mod ram;
mod refusals;
mod retrieve;
mod round_trip;
mod safe_exec;
mod soak;
mod static_binary;
mod systemd_sid;
mod trip;
mod watchdog;
mod witness;
