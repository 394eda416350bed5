//! The Linux boot protocol of x86: the zero page.

pub mod zero_page;
