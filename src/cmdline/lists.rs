//! Which parameters are for whom.

use bstr::{BStr, BString, ByteSlice as _};

use super::grammar::{has, parameters, split_at_init, without};

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

/// Parameters that describe the running kernel's memory. A crash kernel has other
/// memory, so they would harm it: with `crashkernel` it would reserve what it runs
/// in, with `mem` its reservation may lie too high.
const NOT_FOR_CRASH: [&str; 4] = ["crashkernel", "mem", "memmap", "pmpool"];

/// Keeps the crash kernel's ACPI driver from adding the machine's DIMMs to its
/// memory, which it otherwise does. The DIMMs are in the dump, and the crash kernel
/// would write into them (drivers/acpi/acpi_memhotplug.c).
pub const NO_MEMHOTPLUG: &str = "acpi_no_memhotplug";

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
        let running = "root=/dev/sda crashkernel=256M mem=4G memmap=64M$0x20000000 memtest=1 pmpool=1,2 -- mem=1";
        assert_eq!(
            for_crash(running.into()),
            "root=/dev/sda memtest=1 -- mem=1"
        );
    }
}
