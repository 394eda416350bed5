//! `cargo +nightly fuzz run kho_kernel`
#![no_main]

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = entry::kho_kernel(data);
});
