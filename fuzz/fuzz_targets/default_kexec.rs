//! `cargo +nightly fuzz run default_kexec`
#![no_main]

#[path = "../entry_boot.rs"]
mod entry_boot;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = entry_boot::default_kexec(data);
});
