//! A guest's physical memory as a file of this machine: what is at an address
//! below the PCI hole is at that offset.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::Result;

use crate::qemu::Guest;

/// Unit of a pattern, bytes.
const CHUNK: usize = 1 << 20;

/// Memory of a guest, which the host reads and writes while it runs.
#[derive(Debug)]
pub(crate) struct Ram {
    file: tempfile::NamedTempFile,
    size: u64,
}

impl Ram {
    /// `size` bytes of zeroes.
    pub(crate) fn new(size: u64) -> Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        file.as_file().set_len(size)?;
        Ok(Self { file, size })
    }

    /// The guest with this memory.
    pub(crate) fn attach(&self, guest: Guest) -> Guest {
        let (path, size) = (self.file.path().display(), self.size);
        let backend = format!("memory-backend-file,id=m,size={size},mem-path={path},share=on");
        let guest = guest.memory(&format!("{}M", size >> 20));
        guest.args(["-object", &backend, "-machine", "memory-backend=m"])
    }

    pub(crate) fn file(&self) -> &File {
        self.file.as_file()
    }

    /// Fills whole megabytes from `start` on with the pattern of `seed`.
    pub(crate) fn fill(&self, start: u64, size: u64, seed: u64) -> Result<()> {
        for number in 0..size / CHUNK as u64 {
            let bytes = chunk(seed, number);
            self.file()
                .write_all_at(&bytes, start + number * CHUNK as u64)?;
        }
        Ok(())
    }

    /// Pages that are no longer as `fill` left them.
    pub(crate) fn damaged_pages(&self, start: u64, size: u64, seed: u64) -> Result<usize> {
        const PAGE: usize = 4096;
        let mut damaged = 0;
        let mut found = vec![0; CHUNK];
        for number in 0..size / CHUNK as u64 {
            self.file()
                .read_exact_at(&mut found, start + number * CHUNK as u64)?;
            let pages = chunk(seed, number);
            let pages = pages.chunks(PAGE).zip(found.chunks(PAGE));
            damaged += pages.filter(|(planned, found)| planned != found).count();
        }
        Ok(damaged)
    }

    /// Replaces `old` by `new` wherever it lies at a multiple of four bytes, as
    /// the values in a device tree do; says how often.
    pub(crate) fn replace(&self, old: [u8; 8], new: [u8; 8]) -> Result<usize> {
        let mut replaced = 0;
        let mut bytes = vec![0; CHUNK];
        for start in (0..self.size).step_by(CHUNK) {
            self.file().read_exact_at(&mut bytes, start)?;
            for at in (0..bytes.len() - 4).step_by(4) {
                if bytes[at..at + 8] == old {
                    self.file().write_all_at(&new, start + at as u64)?;
                    replaced += 1;
                }
            }
        }
        Ok(replaced)
    }
}

/// Megabyte `number` of the pattern of `seed`: no two are alike (xorshift64,
/// G. Marsaglia, "Xorshift RNGs", 2003).
fn chunk(seed: u64, number: u64) -> Vec<u8> {
    let mut state = seed << 32 | (number + 1);
    let mut bytes = Vec::with_capacity(CHUNK);
    while bytes.len() < CHUNK {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}
