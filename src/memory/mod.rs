//! Physical memory: ranges, the reconciled map, and the search for holes.

mod range;

pub use range::{PhysRange, RangeError};
