//! Physical memory: ranges, the reconciled map, and the search for holes.

mod holes;
mod kernels;
mod layer;
mod reconcile;
mod region;
mod resources;
mod rules;

pub use holes::{Direction, Holes, NoHole, Want};
pub use kernels::{UNKNOWN_KERNEL_MAP, kernel_map};
pub use layer::Layer;
pub use reconcile::{MapPolicy, MemoryMap, boot_e820};
pub use region::{MemoryKind, Placement, Region, Sources};
