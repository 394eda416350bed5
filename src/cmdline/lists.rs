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

/// What the running command line says of the memory of that kernel: to a crash
/// kernel, which has another, it would do harm. With `crashkernel` it would
/// reserve what it runs in, with `mem` its reservation may lie too high.
const NOT_FOR_CRASH: [&str; 4] = ["crashkernel", "mem", "memmap", "pmpool"];

/// Keeps the capture kernel's ACPI driver from adding the machine's DIMMs to its
/// memory, as it would without being told: they are in the dump, and it would write
/// into them (drivers/acpi/acpi_memhotplug.c).
pub const NO_MEMHOTPLUG: &str = "acpi_no_memhotplug";

/// Parameters that do harm to a crash kernel, and that `arm` takes out unless its
/// configuration says otherwise: they set memory aside that it does not have, or tell
/// it of other memory than its own.
pub const UNFIT_FOR_CRASH: [&str; 7] = [
    "crashkernel",
    "default_hugepagesz",
    "hugepages",
    "hugepagesz",
    "log_buf_len",
    "mem",
    "memmap",
];

/// The running line without what belongs to its boot alone. A line with
/// `memmap=exactmap` was written by a loader that told a crash kernel its whole
/// memory so: none of its `memmap=` holds for another kernel. Without that word
/// they are the operator's, who set memory aside, and stay.
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

/// `line` without `word` when it is the last one of the kernel's own: there a crash load
/// puts what it adds. Elsewhere it is the operator's.
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
