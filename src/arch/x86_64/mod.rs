//! x86_64: boot_params, e820, setup_data, placement rules.

pub mod boot_params;
pub mod multiboot;
pub mod setup_data;
pub mod zero_page;

#[cfg(test)]
mod layout_tests;
