//! `cargo +nightly fuzz run loader_conf`
#![no_main]

#[path = "../entry_boot.rs"]
mod entry_boot;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = entry_boot::loader_conf(data);
});
