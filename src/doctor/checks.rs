//! The checks, in the order in which what they find is shown.

use super::{Facts, Said, capture, drivers, initrd, load, machine};

/// A check.
#[derive(Debug)]
pub struct Check {
    /// Its name, as JSON and text have it.
    pub name: &'static str,
    /// What it looks for, for the man page.
    pub about: &'static str,
    /// The function.
    pub(super) run: fn(&Facts<'_>) -> Vec<Said>,
}

const fn check(name: &'static str, about: &'static str, run: fn(&Facts<'_>) -> Vec<Said>) -> Check {
    Check { name, about, run }
}

/// Every check.
pub const CHECKS: [Check; 29] = [
    check(
        "refused",
        "whether the kernel must refuse the load: capability, container, Xen, WSL 1, sysctls, limits, lockdown, \
         Secure Boot, signature, size; without KERNEL, whether it must refuse every load",
        load::refused,
    ),
    check(
        "plan",
        "what the plan of the load says: why there is none, or its warnings",
        load::plan,
    ),
    check(
        "other-call",
        "why the system call that was not chosen could not load this kernel",
        load::other_call,
    ),
    check("unread", "facts that only root may read", load::unread),
    check(
        "environment",
        "without KERNEL: a confidential guest, WSL 2",
        machine::environment,
    ),
    check(
        "security-module",
        "LoadPin, which lets kernels in only from one disk",
        machine::security_module,
    ),
    check(
        "memory",
        "whether the memory that is available now is enough for the load",
        load::memory,
    ),
    check(
        "modules",
        "an initrd with the modules of another kernel",
        initrd::modules,
    ),
    check(
        "packing",
        "an initrd that is packed as the kernel is not configured to unpack",
        initrd::packing,
    ),
    check(
        "root",
        "a command line with root=UUID= or root=LABEL=, and no initrd that understands it",
        initrd::root,
    ),
    check(
        "microcode",
        "updates of the processor that the kernel cannot read early, because they are packed",
        initrd::microcode,
    ),
    check(
        "console",
        "serial consoles of the new command line without a UART, and the one that it lacks",
        machine::console,
    ),
    check(
        "screen",
        "a screen that a driver has taken over from the firmware",
        machine::screen,
    ),
    check(
        "mounts",
        "file systems that are mounted for writing",
        machine::mounts,
    ),
    check(
        "network-mounts",
        "file systems of other machines that are mounted for writing",
        machine::network_mounts,
    ),
    check(
        "drivers",
        "devices with drivers that are reported not to survive a kexec, or to spoil a crash kernel",
        drivers::check,
    ),
    check(
        "virtual-functions",
        "devices with virtual functions (SR-IOV), which the next kernel switches off",
        machine::virtual_functions,
    ),
    check(
        "clock",
        "a kernel that does not keep its time by the time stamp counter",
        machine::clock,
    ),
    check(
        "watchdog",
        "a watchdog that could bring the machine back, and is not asked to",
        machine::watchdog,
    ),
    check(
        "next-kernel",
        "a next kernel that stays where it is after a panic, or that may load no other",
        machine::next_kernel,
    ),
    check(
        "handover",
        "Kexec Handover: the memory that it costs, what it preserves, open sessions",
        machine::handover,
    ),
    check(
        "reservation",
        "a crash kernel whose reservation lies above 4 GiB alone",
        capture::reservation,
    ),
    check(
        "sizing",
        "a reservation that is too small for the crash kernel to run, with the size to ask for",
        capture::sizing,
    ),
    check(
        "armed",
        "a loaded crash kernel that does not fit the machine any more, or none",
        capture::armed,
    ),
    check(
        "services",
        "whether a service loads the crash kernel at boot, and only one does",
        capture::services,
    ),
    check(
        "capture-tool",
        "a crash kernel with nothing that would save the dump",
        capture::tool,
    ),
    check(
        "dump-space",
        "whether the dump fits where it goes, by the size of the memory",
        capture::space,
    ),
    check(
        "dump-encrypted",
        "a dump that goes to an encrypted disk, for which the crash kernel gets no key",
        capture::encrypted,
    ),
    check(
        "dump-network",
        "a dump that goes to another machine's file system",
        capture::network,
    ),
];
