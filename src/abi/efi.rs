//! The EFI memory map: EFI_MEMORY_DESCRIPTOR of the UEFI specification (7.2,
//! GetMemoryMap).

use crate::base::{PAGE_SIZE, PhysRange};

/// One runtime region of the EFI memory map, with the virtual address the
/// firmware was told once and for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EfiDescriptor {
    /// EFI memory type.
    pub kind: u32,
    /// Physical address.
    pub physical: u64,
    /// Virtual address.
    pub virtual_: u64,
    /// Size in 4 KiB pages.
    pub pages: u64,
    /// EFI_MEMORY_* attributes.
    pub attributes: u64,
}

impl EfiDescriptor {
    /// The addresses; what reaches beyond the last one is cut, and `None` when there are none.
    #[must_use]
    pub fn range(&self) -> Option<PhysRange> {
        let end = self
            .physical
            .saturating_add(self.pages.saturating_mul(PAGE_SIZE));
        PhysRange::from_bounds(self.physical, end).ok()
    }
}
