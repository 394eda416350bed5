//! Whether the reservation is large enough for the crash kernel to run in.

use bstr::BStr;
use serde::Serialize;

use super::Reservation;
use crate::base::human;
use crate::cmdline;
use crate::image::decompress::DEFAULT_CAP;
use crate::image::initramfs;

/// What a crash kernel needs besides itself and its initrd, bytes: the
/// descriptors of its memory, buffers of its drivers, and the program that saves
/// the dump (makedumpfile takes some 20 MiB by default, its bitmap included).
/// An unpacked initrd in 256 MiB leaves Debian's 6.1 and 6.12 about as much.
pub const MARGIN: u64 = 64 << 20;
/// Most bytes that an initrd is unpacked to, to find its size.
const CAP: usize = DEFAULT_CAP * 4;
/// What a suggested reservation is a multiple of, MiB.
const STEP: u64 = 32;

/// The sum, term by term, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sizing {
    /// What is reserved for it, low and high.
    pub reserved: u64,
    /// What the kernel takes to start: `init_size`.
    pub kernel: u64,
    /// The initrd as it is loaded: it is freed after it was unpacked.
    pub initrd: u64,
    /// The initrd unpacked.
    pub unpacked: u64,
    /// [`MARGIN`].
    pub margin: u64,
}

impl Sizing {
    /// The sum for a kernel that takes `kernel` bytes to start, with `initrds`; `None` when
    /// one of them cannot be unpacked.
    #[must_use]
    pub fn of(reservation: &Reservation, kernel: u64, initrds: &[&[u8]]) -> Option<Self> {
        let reserved = reservation.all.iter().map(|range| range.size()).sum();
        Self::in_reserved(reserved, kernel, initrds)
    }

    /// The same in a reservation of `reserved` bytes in all.
    #[must_use]
    pub fn in_reserved(reserved: u64, kernel: u64, initrds: &[&[u8]]) -> Option<Self> {
        let unpacked = |initrd: &&[u8]| initramfs::unpacked_size(initrd, CAP).ok();
        Some(Self {
            reserved,
            kernel,
            initrd: initrds.iter().map(|initrd| initrd.len() as u64).sum(),
            unpacked: initrds.iter().map(unpacked).sum::<Option<u64>>()?,
            margin: MARGIN,
        })
    }

    /// Bytes needed in all.
    #[must_use]
    pub const fn needed(&self) -> u64 {
        // A record may hold any numbers.
        self.kernel
            .saturating_add(self.initrd)
            .saturating_add(self.unpacked)
            .saturating_add(self.margin)
    }

    /// Whether the reservation has the bytes needed.
    #[must_use]
    pub const fn is_enough(&self) -> bool {
        self.needed() <= self.reserved
    }

    /// The bytes needed and their terms, in words.
    #[must_use]
    pub fn sum(&self) -> String {
        format!(
            "it needs {} (kernel {}, initrd {}, initrd unpacked {}, reserve {})",
            human(self.needed()),
            human(self.kernel),
            human(self.initrd),
            human(self.unpacked),
            human(self.margin)
        )
    }

    /// That the reservation may be too small; `None` when it is large enough.
    #[must_use]
    pub fn shortage(&self) -> Option<String> {
        (!self.is_enough()).then(|| {
            format!(
                "the {} reserved for the crash kernel may be too small for it to run: {}",
                human(self.reserved),
                self.sum()
            )
        })
    }

    /// The same as a warning, with the parameter to boot with, in the form of the `running`
    /// command line.
    #[must_use]
    pub fn too_small(&self, running: &BStr) -> Option<String> {
        let parameter = parameter(self.needed(), running);
        let shortage = self.shortage();
        shortage.map(|shortage| format!("{shortage}; boot with {parameter} or more"))
    }
}

/// The parameter that reserves `bytes` for a crash kernel, rounded up, in the form that
/// `running`, the running command line, has: segments go into the high reservation where
/// there are two.
#[must_use]
pub fn parameter(bytes: u64, running: &BStr) -> String {
    let megabytes = bytes.div_ceil(1 << 20).next_multiple_of(STEP);
    let high = cmdline::values(running, "crashkernel").any(|value| value.ends_with(b",high"));
    let high = if high { ",high" } else { "" };
    format!("crashkernel={megabytes}M{high}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::host::range;

    #[test]
    fn the_sum_of_a_load() {
        let reservation = Reservation {
            target: range(0x1_0000_0000, 0x1_0fff_ffff),
            all: vec![
                range(0x1000_0000, 0x13ff_ffff),
                range(0x1_0000_0000, 0x1_0fff_ffff),
            ],
        };
        let cpio: &[u8] = include_bytes!("../../tests/data/initrd/cpio");
        let packed: &[u8] = include_bytes!("../../tests/data/initrd/cpio.zst");
        let sizing = Sizing::of(&reservation, 7 << 20, &[cpio, packed]).unwrap();
        assert_eq!(sizing.reserved, 0x1400_0000);
        assert_eq!(sizing.initrd, (cpio.len() + packed.len()) as u64);
        assert!(sizing.unpacked > cpio.len() as u64 && sizing.is_enough());
        assert_eq!(Sizing::of(&reservation, 0, &[b"no archive"]), None);
    }

    #[test]
    fn the_parameter_has_the_form_of_the_running_one() {
        let mib = 1 << 20;
        for (bytes, running, parameter) in [
            (1, "quiet crashkernel=128M", "crashkernel=32M"),
            (64 * mib, "", "crashkernel=64M"),
            (64 * mib + 1, "crashkernel=1G-:64M", "crashkernel=96M"),
            (
                300 * mib,
                "crashkernel=256M,high crashkernel=64M,low",
                "crashkernel=320M,high",
            ),
            (300 * mib, "x -- crashkernel=1M,high", "crashkernel=320M"),
        ] {
            assert_eq!(
                super::parameter(bytes, running.into()),
                parameter,
                "{running}"
            );
        }
    }
}
