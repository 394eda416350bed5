//! Every bit of what purgatory reads is flipped once, and every length cut short once:
//! of the segments, and of the parameter block.

use rkexec::base::PhysRange;
use rkexec::purgatory::Fault;

use crate::mapping::{Mapping, region};
use crate::{REQUEST, noise};

/// Where the parts of the block lie that the check goes by (purgatory/abi.rs): magic,
/// version, flags, region_count, and two regions of address, size and digest.
const VERSION: usize = 8;
const FLAGS: usize = 12;
const COUNT: usize = 36;
const EAX: usize = 40;
const REGIONS: usize = 48;
const REGION: usize = 24;

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The next kernel would be entered.
    Passed,
    Fault(u32),
    /// It read where there is no memory: on the machine a CPU exception, after which it
    /// stops.
    Died,
}

/// Runs the check in a child, which may die of it.
fn verify(mapping: &Mapping) -> End {
    // SAFETY: the child calls the image, which calls nothing, and _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let (fault, _) = mapping.verify();
        // SAFETY: it ends the child at once.
        unsafe { libc::_exit(i32::try_from(fault).unwrap_or(99)) }
    }
    let mut status = 0;
    // SAFETY: `status` is an int of ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        assert!([libc::SIGSEGV, libc::SIGBUS].contains(&signal), "{signal}");
        return End::Died;
    }
    match libc::WEXITSTATUS(status).cast_unsigned() {
        0 => End::Passed,
        fault => End::Fault(fault),
    }
}

/// The digest reads 8, 16, 48, 64 and more bytes at a time: lengths around all of them.
#[test]
fn each_flipped_bit_and_each_shorter_length_is_seen() {
    for length in [
        1, 3, 4, 7, 8, 9, 16, 17, 31, 48, 49, 64, 112, 113, 225, 448, 449,
    ] {
        let mut data = noise(length);
        let mapping = Mapping::new(&REQUEST, &[region(&data)]);
        assert_eq!(mapping.verify().0, 0);
        for bit in 0..length * 8 {
            data[bit / 8] ^= 1 << (bit % 8);
            let (fault, evidence) = mapping.verify();
            assert_eq!(fault, Fault::Digest as u32, "{length} bytes, bit {bit}");
            assert_eq!(evidence.region, 0);
            data[bit / 8] ^= 1 << (bit % 8);
        }
        let (range, digest) = region(&data);
        for shorter in 1..range.size() {
            let range = PhysRange::new(range.start(), shorter).unwrap();
            let (fault, _) = Mapping::new(&REQUEST, &[(range, digest)]).verify();
            assert_eq!(fault, Fault::Digest as u32, "{shorter} of {length} bytes");
        }
    }
}

/// A flipped bit of the block stops the machine, but for those that switch the check off,
/// lower the number of regions, or are no part of the check.
#[test]
fn each_flipped_bit_of_the_block_is_seen_or_is_none_of_the_check() {
    let (one, two) = (noise(5000), noise(300));
    let digests = [region(&one), region(&two)];
    let image = rkexec::purgatory::image(&REQUEST, &digests).unwrap();
    for (at, byte) in image.iter().enumerate().take(REGIONS + 3 * REGION) {
        for bit in 0..8 {
            let mapping = Mapping::new(&REQUEST, &digests);
            mapping.write(at, &[byte ^ 1 << bit]);
            let end = verify(&mapping);
            let is_seen = match at {
                0..VERSION => end == End::Fault(Fault::Magic as u32),
                VERSION..FLAGS => end == End::Fault(Fault::Version as u32),
                // Without the first flag nothing is checked.
                FLAGS..COUNT => end == End::Passed,
                // 2 regions become none, or more than there are.
                COUNT if bit == 1 => end == End::Passed,
                COUNT..EAX => end == End::Fault(Fault::Table as u32),
                EAX..REGIONS => end == End::Passed,
                _ if at < REGIONS + 2 * REGION => end != End::Passed,
                // Not in use.
                _ => end == End::Passed,
            };
            assert!(is_seen, "byte {at}, bit {bit}: {end:?}");
        }
    }
}

/// A block that ends early: what is missing is zero.
#[test]
fn each_cut_of_the_block_is_seen() {
    let data = noise(300);
    let digests = [region(&data)];
    let image = rkexec::purgatory::image(&REQUEST, &digests).unwrap();
    let end = REGIONS + REGION;
    // The last byte that is no zero itself.
    let last = image[..end].iter().rposition(|byte| *byte != 0).unwrap();
    for length in 0..=last {
        let mapping = Mapping::new(&REQUEST, &digests);
        mapping.write(length, &vec![0; end - length]);
        let end = verify(&mapping);
        // The version is one byte. Without the flag, and without regions, nothing is checked.
        let checks_nothing = (VERSION + 1..=COUNT).contains(&length);
        let expected = match checks_nothing {
            true => end == End::Passed,
            false => end != End::Passed,
        };
        assert!(expected, "{length} bytes: {end:?}");
    }
}
