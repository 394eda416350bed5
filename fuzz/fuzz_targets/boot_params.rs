//! `cargo +nightly fuzz run boot_params`
#![no_main]

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = entry::boot_params(data);
});
