//! `cargo +nightly fuzz run lanzaboote`
#![no_main]

#[path = "../entry.rs"]
mod entry;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = entry::lanzaboote(data);
});
