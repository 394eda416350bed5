//! The first page of a file in memory, and where it lies there.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use memmap2::{Mmap, MmapOptions};

use crate::base::PAGE_SIZE;

const PAGEMAP: &str = "/proc/self/pagemap";
/// The page is in memory (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
/// The number of the page frame: the bits below this one.
const FRAME_END: u64 = 1 << 55;

/// The first page of a file. It exists as long as this does, whatever becomes of the file.
#[derive(Debug)]
pub struct FilePage {
    map: Mmap,
}

impl FilePage {
    /// Brings the first page of `file` into memory.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub fn of(file: &File) -> io::Result<Self> {
        let size = usize::try_from(PAGE_SIZE).unwrap_or(4096);
        // Populated, not touched: the file may be empty by now.
        let options = MmapOptions::new().len(size).populate().to_owned();
        // SAFETY: nobody reads through the mapping; only its address is used.
        let map = unsafe { options.map(file) }?;
        Ok(Self { map })
    }

    /// Its physical address; `None` when it is not in memory, or this process may not
    /// know (it lacks CAP_SYS_ADMIN).
    ///
    /// # Errors
    /// When /proc does not tell.
    pub fn physical(&self) -> io::Result<Option<u64>> {
        let address = self.map.as_ptr().addr() as u64;
        let mut entry = [0; 8];
        File::open(PAGEMAP)?.read_exact_at(&mut entry, address / PAGE_SIZE * 8)?;
        let entry = u64::from_le_bytes(entry);
        let frame = entry % FRAME_END;
        let is_told = entry & PRESENT != 0 && frame != 0;
        Ok(is_told.then(|| frame * PAGE_SIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// Root is told an address, on the page and the same one each time; others none.
    #[test]
    fn a_page_has_one_address() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 4096]).unwrap();
        let (one, two) = (FilePage::of(&file).unwrap(), FilePage::of(&file).unwrap());
        let address = one.physical().unwrap();
        assert_eq!(address, two.physical().unwrap());
        assert_eq!(address.unwrap_or(0) % 4096, 0);
        let empty = tempfile::tempfile().unwrap();
        assert_eq!(FilePage::of(&empty).unwrap().physical().unwrap(), None);
    }
}
