//! The purgatory image in user space: in an executable mapping, where its
//! verify function is called as its entry code calls it.

#![allow(
    clippy::expect_used,
    reason = "support for tests and a benchmark: nobody is there to handle an error"
)]

use rkexec::base::PhysRange;
use rkexec::purgatory::{self, Digest, Evidence, Request};

/// A mapped image.
pub(crate) struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    /// Maps what the loader would load for these regions, which lie at their
    /// virtual addresses here.
    pub(crate) fn new(request: &Request, digests: &[(PhysRange, Digest)]) -> Self {
        let image = purgatory::image(request, digests).expect("the regions fit");
        let length = usize::try_from(purgatory::size()).expect("a small image");
        assert!(image.len() <= length);
        // SAFETY: a new anonymous mapping, wherever the kernel likes.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(
            start,
            libc::MAP_FAILED,
            "{}",
            std::io::Error::last_os_error()
        );
        // SAFETY: the mapping is at least as long as the image.
        unsafe { std::ptr::copy_nonoverlapping(image.as_ptr(), start.cast(), image.len()) };
        Self { start, length }
    }

    /// Overwrites bytes of the image.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.length);
        // SAFETY: within the mapping, which nobody else uses.
        unsafe {
            let target = self.start.cast::<u8>().add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
    }

    /// Runs the image's verify function over the regions, which have to be
    /// memory of this process.
    pub(crate) fn verify(&self) -> (u32, Evidence) {
        let mut evidence = Evidence {
            region: u64::MAX,
            computed: [0; 8],
        };
        let offset = usize::try_from(purgatory::VERIFY).expect("a small image");
        // SAFETY: build.rs took the offset from the symbol of this function,
        // and the whole image is mapped executable.
        let verify: extern "C" fn(*mut Evidence) -> u32 =
            unsafe { std::mem::transmute(self.start.cast::<u8>().add(offset)) };
        (verify(&raw mut evidence), evidence)
    }
}

impl Mapping {
    /// Runs the image's stamp function, with `entered` as the time of its entry. The
    /// places of the stamps and of the page have to be memory of this process.
    #[allow(dead_code, reason = "the benchmark does not")]
    pub(crate) fn stamp(&self, entered: u64) {
        let offset = usize::try_from(purgatory::STAMP).expect("a small image");
        // SAFETY: as in `verify`.
        let stamp: extern "C" fn(u64) =
            unsafe { std::mem::transmute(self.start.cast::<u8>().add(offset)) };
        stamp(entered);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nothing borrows from it.
        unsafe { libc::munmap(self.start, self.length) };
    }
}

/// The region in which `bytes` lie in this process, with its digest.
pub(crate) fn region(bytes: &[u8]) -> (PhysRange, Digest) {
    let size = u64::try_from(bytes.len()).expect("a 64-bit machine");
    let range = PhysRange::new(bytes.as_ptr().addr() as u64, size).expect("not empty");
    (range, purgatory::digest(bytes))
}
