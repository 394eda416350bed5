//! Round trips through real kernels in QEMU; the next kernel is the witness.
//!
//! `tests/vm/setup` prepares the machine. Every guest's console, QEMU's own
//! words and the records of every stage stay in `target/vm/logs/GUEST/`.

mod arm;
mod chain;
mod contents;
mod crash;
mod crash_map;
mod damage;
mod debian;
mod dmesg;
mod drop_in;
mod efi;
mod examples;
mod formats;
mod handover;
mod harness;
mod initramfs;
mod kernel_32bit;
mod lab;
mod memory;
mod multiboot;
mod outcome;
mod qemu;
mod ram;
mod refusals;
mod round_trip;
mod safe_exec;
mod static_binary;
mod systemd_sid;
mod trip;
mod witness;
