//! How much scratch memory the next kernel needs.

use crate::base::PAGE_SIZE;

/// Places and sizes of scratch memory are multiples of this, bytes: the kernel makes
/// whole blocks of the page allocator of it (page size times MAX_ORDER_NR_PAGES).
pub const ALIGNMENT: u64 = 4 << 20;

/// Bytes of a descriptor, which each page has (`struct page`).
const DESCRIPTOR: u64 = 64;
/// The hash tables of dentries, inodes and others take about this part of the RAM
/// (`alloc_large_system_hash`: 8 bytes for 8 KiB to 16 KiB of RAM each).
const HASHES: u64 = 512;
/// What DMA buffers take where there is RAM above 4 GiB (`IO_TLB_DEFAULT_SIZE`).
pub const SWIOTLB: u64 = 64 << 20;
/// The first 4 GiB. A device that knows 32 bits of an address reaches no more.
pub const LOW: u64 = 4 << 30;
/// What a CPU takes: its per-CPU area and its stacks, with what alignment loses. Not
/// measured on large machines.
const PER_CPU: u64 = 4 << 20;
/// Whatever else is allocated before the rest of the RAM is free. A kernel for 1 GiB with
/// few drivers starts in 24 MiB of scratch memory in all, and hangs without a word in 8.
const MARGIN: u64 = 64 << 20;

/// What the next kernel allocates before it may use more than its scratch memory. Until
/// Linux 7.2 that is all that it allocates while it starts (`kho_populate` sets
/// `memblock_set_kho_scratch_only`). All numbers are bytes, but for that of the CPUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// RAM of the machine.
    pub ram: u64,
    /// That below 4 GiB.
    pub low_ram: u64,
    /// The first address above all RAM.
    pub end: u64,
    /// CPUs that may ever be there.
    pub cpus: u64,
    /// What the loader puts there: kernel, initrd, tables.
    pub loaded: u64,
    /// The kernel once more, where it is to find another place in the scratch memory at
    /// random.
    pub kernel: u64,
    /// What the new command line sets aside: `crashkernel=`, pages of 1 GiB,
    /// `reserve_mem=` of which nothing is handed over.
    pub set_aside: SetAside,
}

/// What words of a command line set aside before all memory is free, bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAside {
    /// What must lie below 4 GiB.
    pub low: u64,
    /// What may lie anywhere.
    pub anywhere: u64,
    /// The largest piece below 4 GiB and the largest anywhere once more. A kernel at a
    /// random place may divide the scratch memory, and then they fit on one side of it.
    pub again: (u64, u64),
}

impl SetAside {
    /// All that is set aside.
    const fn size(self) -> u64 {
        self.low.saturating_add(self.anywhere)
    }
}

impl Needs {
    /// The parts of the sum, each with what it is for.
    #[must_use]
    pub const fn parts(self) -> [(&'static str, u64); 9] {
        let (low, anywhere) = self.set_aside.again;
        [
            (
                "descriptors of all pages",
                (self.ram / PAGE_SIZE).saturating_mul(DESCRIPTOR),
            ),
            ("hash tables", self.ram / HASHES),
            ("DMA buffers", self.swiotlb()),
            ("areas of the CPUs", self.cpus.saturating_mul(PER_CPU)),
            ("kernel, initrd and tables", self.loaded),
            ("a random place for the kernel", self.kernel),
            ("what the command line sets aside", self.set_aside.size()),
            (
                "its largest piece on either side of the kernel",
                low.saturating_add(anywhere),
            ),
            ("margin", MARGIN),
        ]
    }

    /// The size of scratch memory, bytes. A sum of what is known of Linux 7.2 with a
    /// margin, and no promise.
    #[must_use]
    pub fn size(self) -> u64 {
        let parts = self.parts().into_iter().map(|(_, size)| size);
        whole(parts.fold(0, u64::saturating_add))
    }

    /// How much of it must lie below 4 GiB, bytes: what the loader puts there, the places
    /// that the kernel chooses from, what is set aside for DMA and for crash kernels, and
    /// the margin.
    #[must_use]
    pub fn low_size(self) -> u64 {
        let parts = [
            self.swiotlb(),
            self.loaded,
            self.kernel,
            self.set_aside.low,
            self.set_aside.again.0,
            MARGIN,
        ];
        whole(parts.into_iter().fold(0, u64::saturating_add))
    }

    /// Where one region is more than half of the RAM below 4 GiB, and devices that reach no
    /// more may find too little.
    #[must_use]
    pub fn crowds_low(self) -> bool {
        self.size() > self.low_ram / 2
    }

    /// How much of the scratch memory holds only pages that can be moved as long as the next
    /// kernel runs, and how much RAM is free for all its pages: what is set aside is neither.
    /// Bytes.
    #[must_use]
    pub fn movable(self) -> (u64, u64) {
        let less = |size: u64| size.saturating_sub(self.set_aside.size());
        (less(self.size()), less(self.ram))
    }

    const fn swiotlb(self) -> u64 {
        if self.end > LOW { SWIOTLB } else { 0 }
    }
}

/// `size` in whole blocks. What is larger than all memory finds no place.
const fn whole(size: u64) -> u64 {
    size.saturating_add(ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums() {
        let mib = 1 << 20;
        let small = Needs {
            ram: 1 << 30,
            end: 1 << 30,
            cpus: 1,
            ..Needs::default()
        };
        // 16 descriptors, 2 hashes, 4 for the CPU, 64.
        assert_eq!((small.size(), small.low_size()), (88 * mib, 64 * mib));
        let large = Needs {
            ram: 64 << 30,
            end: 66 << 30,
            cpus: 32,
            loaded: 80 * mib,
            kernel: 50 * mib,
            set_aside: SetAside {
                low: 400 * mib,
                anywhere: 3000 * mib,
                again: (112 * mib, 1000 * mib),
            },
            ..Needs::default()
        };
        let low = 64 + 80 + 50 + 512 + 64 + 2;
        assert_eq!(large.size(), (1024 + 128 + 128 + 4000 + low) * mib);
        let movable = 1024 + 128 + 128 + 1000 + low - 400;
        assert_eq!(large.movable(), (movable * mib, (65536 - 3400) * mib));
        assert_eq!(large.low_size(), low * mib);
        let absurd = Needs {
            ram: u64::MAX,
            end: u64::MAX,
            cpus: u64::MAX,
            ..Needs::default()
        };
        assert_eq!(absurd.size() % ALIGNMENT, 0);
    }
}
