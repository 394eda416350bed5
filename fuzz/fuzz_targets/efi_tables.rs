//! `cargo +nightly fuzz run efi_tables`
#![no_main]

#[path = "../entry_machine.rs"]
mod entry_machine;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = entry_machine::efi_tables(data);
});
