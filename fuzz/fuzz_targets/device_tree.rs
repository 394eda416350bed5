//! `cargo +nightly fuzz run device_tree`
#![no_main]

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = entry::device_tree(data);
});
