//! What a crashed kernel left: /proc/vmcore in the crash kernel, or an ELF dump
//! of it, and the kernel log inside.
//!
//! A dump is as large as the memory of the machine, and the crash kernel has
//! little of that. So only what is needed is read, where it lies.

mod elf;
mod memory;
mod printk;
mod vmcoreinfo;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub use printk::{Log, Record};

use elf::Core;
use memory::Memory;
use vmcoreinfo::VmcoreInfo;

/// Bytes that are read by position: a file, or a dump in memory.
pub trait ReadAt {
    /// Fills `buffer` from `offset` on, as far as there are bytes; returns how
    /// many it took, 0 at the end.
    ///
    /// # Errors
    /// When the file cannot be read there.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
}

impl ReadAt for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        // The kernel takes a larger offset for a negative one.
        if i64::try_from(offset).is_err() {
            return Ok(0);
        }
        loop {
            match FileExt::read_at(self, buffer, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.get(at..));
        let from = rest.unwrap_or_default();
        let size = from.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(from) {
            *to = *from;
        }
        Ok(size)
    }
}

/// Why a dump, or its log, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum VmcoreError {
    /// It is a dump, or something else, that this program does not read.
    #[error("{what}")]
    Foreign {
        /// What it is.
        what: String,
        /// The way out.
        hint: Option<&'static str>,
    },
    /// It begins as an ELF dump, but something in it is impossible.
    #[error("malformed dump: {0}")]
    Malformed(String),
    /// It is cut short: something that its headers name lies behind its end.
    #[error("the dump is cut short: it ends before {what} at offset {offset:#x}")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Where that lies, bytes from the start of the file.
        offset: u64,
    },
    /// The file cannot be read.
    #[error("reading {what} at offset {offset:#x} failed")]
    Io {
        /// What was to be read.
        what: &'static str,
        /// Where that lies, bytes from the start of the file.
        offset: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// No part of the dump holds the memory at this virtual address.
    #[error("the dump does not hold the kernel's memory at {0:#x}")]
    Unmapped(u64),
}

impl VmcoreError {
    /// What to do about it, if anything.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Foreign { hint, .. } => *hint,
            Self::Truncated { .. } => Some("was there room enough where the dump was saved?"),
            _ => None,
        }
    }
}

/// The memory of a crashed kernel.
#[derive(Debug)]
pub struct Vmcore<R> {
    memory: Memory<R>,
    info: VmcoreInfo,
}

impl<R: ReadAt> Vmcore<R> {
    /// Finds its way in a dump.
    ///
    /// # Errors
    /// When it is no ELF dump of a 64-bit little-endian kernel, or is damaged
    /// where it describes itself.
    pub fn open(source: R) -> Result<Self, VmcoreError> {
        let core = Core::open(source)?;
        let info = VmcoreInfo::parse(&core.vmcoreinfo()?);
        let memory = Memory::new(core, &info)?;
        Ok(Self { memory, info })
    }

    /// `uname -r` of the crashed kernel, where the dump tells.
    #[must_use]
    pub fn release(&self) -> Option<&str> {
        self.info.release()
    }

    /// The end of the last memory that the dump's headers name, bytes from the start
    /// of the file.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.memory.core().end()
    }

    /// The kernel log, oldest record first.
    ///
    /// # Errors
    /// When the kernel is older than 5.10, or the ring buffer's own description
    /// cannot be read.
    pub fn log(&self) -> Result<Log<'_, R>, VmcoreError> {
        Log::new(&self.memory, &self.info)
    }
}

#[cfg(test)]
mod tests;
