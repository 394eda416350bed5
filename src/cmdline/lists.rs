//! Which parameters are for whom.

use bstr::{BStr, BString, ByteSlice as _};

use super::grammar::{has, parameter, parameters, split_at_init, without};
use crate::base::parse_size;

/// Parameters of the running command line that belong to that boot alone:
/// what its boot loader added, and what an earlier kexec or crash load added.
const ONE_BOOT_ONLY: [&str; 6] = [
    "BOOT_IMAGE",
    "initrd",
    "elfcorehdr",
    "acpi_rsdp",
    "dmcryptkeys",
    "kexec_jump_back_entry",
];

/// Parameters that would harm a crash kernel. Most describe the running kernel's memory,
/// and a crash kernel has other memory: with `crashkernel` it would reserve what it runs
/// in, with `mem` its reservation may lie too high. With [`OPEN_TIMEOUT`] a watchdog that
/// counts could reset the machine in the middle of the dump.
const NOT_FOR_CRASH: [&str; 5] = ["crashkernel", "mem", "memmap", "pmpool", OPEN_TIMEOUT];

/// Keeps the crash kernel's ACPI driver from adding the machine's DIMMs to its
/// memory, which it otherwise does. The DIMMs are in the dump, and the crash kernel
/// would write into them (drivers/acpi/acpi_memhotplug.c).
pub const NO_MEMHOTPLUG: &str = "acpi_no_memhotplug";

/// How many seconds Linux (5.3 and later) keeps a running watchdog off until a program
/// opens it; without it, for ever.
pub const OPEN_TIMEOUT: &str = "watchdog.open_timeout";

/// Parameters that harm a crash kernel: they set aside memory that it does not have, or
/// describe memory other than its own. `arm` removes them unless its configuration says
/// otherwise.
pub const UNFIT_FOR_CRASH: [&str; 7] = [
    "crashkernel",
    "default_hugepagesz",
    "hugepages",
    "hugepagesz",
    "log_buf_len",
    "mem",
    "memmap",
];

/// Size of the largest huge pages of x86, bytes.
pub const GIGABYTE_PAGE: u64 = 1 << 30;

/// How many pages of [`GIGABYTE_PAGE`] the kernel of `line` sets aside: `hugepages=` behind
/// `hugepagesz=1G`.
#[must_use]
pub fn gigabyte_pages(line: &BStr) -> u64 {
    let (mut is_gigabyte, mut pages) = (false, 0);
    for (name, value) in parameters(line).map(parameter) {
        let number = || parse_size(std::str::from_utf8(value?).ok()?).ok();
        if name == "hugepagesz" {
            is_gigabyte = number() == Some(GIGABYTE_PAGE);
        } else if name == "hugepages" && is_gigabyte {
            pages = number().unwrap_or(0);
        }
    }
    pages
}

/// The running line without what belongs to its boot alone. A loader writes
/// `memmap=exactmap` to give a crash kernel its whole memory map, so then no `memmap=`
/// of the line holds for another kernel. Without that word, the operator set memory
/// aside with `memmap=`, and it stays.
pub(super) fn reusable(running: &BStr) -> BString {
    let crash_map = parameters(running).any(|word| *word == "memmap=exactmap");
    let line = without(running, |name, _| {
        ONE_BOOT_ONLY.iter().any(|unwanted| *name == **unwanted) || (crash_map && *name == "memmap")
    });
    match has(running, "elfcorehdr") {
        true => without_last(line.as_bstr(), NO_MEMHOTPLUG),
        false => line,
    }
}

/// `line` without `word` if that is the last word before `--`, where a crash load adds
/// its own. Anywhere else the operator wrote it.
fn without_last(line: &BStr, word: &str) -> BString {
    let (kernels, inits) = split_at_init(line);
    match kernels.trim_ascii_end().strip_suffix(word.as_bytes()) {
        Some(rest) if rest.is_empty() || rest.ends_with(b" ") => {
            let parts = [rest.trim_ascii_end(), inits].into_iter();
            bstr::join(b" ", parts.filter(|part| !part.is_empty())).into()
        }
        _ => line.to_owned(),
    }
}

/// The running line for a crash kernel.
#[must_use]
pub fn for_crash(running: &BStr) -> BString {
    without(running, |name, _| {
        NOT_FOR_CRASH.iter().any(|unwanted| *name == **unwanted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crash_kernel_is_told_nothing_of_another_ones_memory() {
        let running = "root=/dev/sda crashkernel=256M mem=4G memmap=64M$0x20000000 memtest=1 pmpool=1,2 \
                       watchdog.open_timeout=60 -- mem=1";
        assert_eq!(
            for_crash(running.into()),
            "root=/dev/sda memtest=1 -- mem=1"
        );
    }
}
