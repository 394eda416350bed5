//! What one kernel hands over to the next beyond the boot protocol's needs.

pub mod device_tree;
pub mod pool;
