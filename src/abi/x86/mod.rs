//! x86: boot_params, the setup_data chain, e820 types.

pub mod boot_params;
pub mod setup_data;

#[cfg(test)]
mod layout_tests;
