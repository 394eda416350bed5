//! Physical memory: ranges, the reconciled map, and the search for holes.

mod e820;
mod holes;
mod layer;
mod range;
mod reconcile;
mod size;

pub use e820::E820Type;
pub use holes::{Direction, Holes, NoHole, PAGE_SIZE, Want};
pub use layer::Layer;
pub use range::{PhysRange, RangeError};
pub use reconcile::{MapPolicy, MemoryKind, MemoryMap, Placement, Region, Sources, boot_e820};
pub(crate) use size::parse_digits;
pub use size::{SizeError, parse_size};
