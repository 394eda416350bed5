//! `cargo +nightly fuzz run kernel_config`
#![no_main]

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = entry::kernel_config(data);
});
