//! The one table of `kexec`'s options: the parser, `--help`, kexec(8) and the
//! tests are made from it.
//!
//! The names are those of kexec-tools 2.0.32 on x86_64. What an option does here
//! is in `help`, what it does otherwise than with kexec-tools, and why, in `differs`.

/// An option.
#[derive(Debug)]
pub(super) struct Opt {
    /// Its letter.
    pub(super) letter: Option<u8>,
    /// Its long names without the dashes; the first is the one in messages.
    pub(super) names: &'static [&'static str],
    /// What its value is called, for an option that has one.
    pub(super) value: Option<&'static str>,
    /// What becomes of it.
    pub(super) does: Does,
    /// What it does, in sentences.
    pub(super) help: &'static str,
    /// What differs from kexec-tools, and why, in sentences; empty when nothing does.
    pub(super) differs: &'static str,
}

/// What becomes of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Does {
    Help,
    /// The help, and exit code 1.
    Usage,
    Version,
    CrashSize,
    Status,
    Load,
    LoadPanic,
    Unload,
    Exec,
    Force,
    DryRun,
    CallAuto,
    CallFile,
    CallSegments,
    Debug,
    NoSync,
    NoChecks,
    Type,
    CommandLine,
    ReuseCommandLine,
    Initrd,
    Module,
    DeviceTree,
    MemMin,
    MemMax,
    NoEfi,
    Serial,
    SerialBaud,
    Hotplug,
    NoCma,
    ForceDtb,
    /// It asks for what happens anyway.
    Anyway,
    /// It is taken and has no effect, and a line says why.
    Ignored(&'static str),
    /// It ends the program, and a line says why.
    Refused(&'static str),
}

/// Options under a common heading.
#[derive(Debug)]
pub(super) struct Group {
    /// The heading.
    pub(super) title: &'static str,
    /// The options.
    pub(super) options: &'static [Opt],
}

impl Opt {
    /// `-t`, or its first long name with its dashes: what messages call it.
    pub(super) fn shown(&self) -> String {
        match (self.names, self.letter) {
            ([name, ..], _) => format!("--{name}"),
            ([], Some(letter)) => format!("-{}", char::from(letter)),
            ([], None) => String::new(),
        }
    }
}

/// Every option, in the order of the documentation.
pub(super) fn all() -> impl Iterator<Item = &'static Opt> {
    GROUPS.iter().flat_map(|group| group.options)
}

/// An option without a value.
const fn flag(
    letter: Option<u8>,
    names: &'static [&'static str],
    does: Does,
    help: &'static str,
    differs: &'static str,
) -> Opt {
    Opt {
        letter,
        names,
        value: None,
        does,
        help,
        differs,
    }
}

/// An option with a value and no letter.
const fn with(
    names: &'static [&'static str],
    value: &'static str,
    does: Does,
    help: &'static str,
    differs: &'static str,
) -> Opt {
    Opt {
        letter: None,
        names,
        value: Some(value),
        does,
        help,
        differs,
    }
}

const ACTIONS: &[Opt] = &[
    flag(
        Some(b'l'),
        &["load"],
        Does::Load,
        "Load KERNEL, for -e to boot.",
        "kexec-tools ends with sync(2), which a dead network file system can hang for ever. A load \
         writes nothing to any disk, so nothing is synced.",
    ),
    flag(
        Some(b'p'),
        &["load-panic"],
        Does::LoadPanic,
        "Load KERNEL as the crash kernel, which a panic boots.",
        "",
    ),
    flag(
        Some(b'u'),
        &["unload"],
        Does::Unload,
        "Unload the loaded kernel; with -p the crash kernel.",
        "With kexec-tools the order matters: -p -u unloads the crash kernel, -u -p unloads it and then \
         fails to load one. Here both unload. With -l, -e or -f it is an error: -l -u would unload, \
         and -u -l load. The system call that may unload is found by rkexec, whatever -s and -c say: \
         under lockdown kexec_load may not.",
    ),
    flag(
        Some(b'e'),
        &["exec"],
        Does::Exec,
        "Boot the loaded kernel at once, without stopping services or unmounting.",
        "sync(2) is waited for as long as it writes something within 30 seconds: a dead network file \
         system cannot hang the reboot. File systems that are mounted writable are named before the \
         jump. Network interfaces stay up. A KERNEL beside -e is an error: kexec-tools ignores it and \
         boots what was loaded before.",
    ),
    flag(
        Some(b'f'),
        &["force"],
        Does::Force,
        "Load KERNEL and boot it now, without a shutdown. The last of -l, -e and -f counts.",
        "The jump is that of -e.",
    ),
    flag(
        Some(b'S'),
        &["status"],
        Does::Status,
        "Exit with 1 when a crash kernel is loaded and with 0 when none is; with -l the same of the \
         kernel that -e boots. 255 when the kernel does not tell.",
        "With newer kexec-tools -d turns this into the status of the normal kernel. Here it does not.",
    ),
    flag(
        None,
        &["print-ckr-size"],
        Does::CrashSize,
        "Print the size of the memory reserved for a crash kernel in bytes, 0 for none.",
        "Read from /sys/kernel/kexec_crash_size, so that it needs no privilege.",
    ),
    flag(
        None,
        &["dry-run"],
        Does::DryRun,
        "Print what would be done, and change nothing.",
        "kexec-tools has no such option.",
    ),
    flag(Some(b'h'), &["help"], Does::Help, "Print this help.", ""),
    flag(
        Some(b'?'),
        &[],
        Does::Usage,
        "Print this help, and exit with 1.",
        "",
    ),
    flag(
        Some(b'v'),
        &["version"],
        Does::Version,
        "Print the version.",
        "It is rkexec's, with the version of kexec-tools whose command line this is.",
    ),
];

const HOW: &[Opt] = &[
    flag(
        Some(b'a'),
        &["kexec-syscall-auto"],
        Does::CallAuto,
        "Let rkexec choose between kexec_load and kexec_file_load (default).",
        "kexec-tools tries kexec_file_load and takes kexec_load after some errors. rkexec decides before \
         any call, by lockdown, Secure Boot, IMA, the image and the memory map; -d prints the choice \
         and its reason. kexec_file_load comes second: where kexec_load is forbidden or refused, unless \
         it would hand over as RAM what a driver has or what memmap= reserves and the new command line \
         does not: that fails then, and -s does it all the same.",
    ),
    flag(
        Some(b'c'),
        &["kexec-syscall"],
        Does::CallSegments,
        "Use kexec_load only.",
        "",
    ),
    flag(
        Some(b's'),
        &["kexec-file-syscall"],
        Does::CallFile,
        "Use kexec_file_load only.",
        "Options that this call cannot honour are left out, as kexec-tools leaves them out, and a line \
         says so. A --dtb that holds memory pools is an error: their contents would be lost. The memory \
         map of the machine must be readable, which needs CAP_SYS_ADMIN.",
    ),
    flag(
        Some(b'd'),
        &["debug"],
        Does::Debug,
        "Print the plan on standard error: the system call and why, the segments, the memory map, the \
         command line. With --dry-run it is printed on standard output.",
        "kexec-tools also asks the kernel for its own debug messages, and a kernel that does not know \
         that flag refuses the load. Here -d changes nothing but what is printed.",
    ),
    flag(
        Some(b'y'),
        &["no-sync"],
        Does::NoSync,
        "Do not write cached data to the disks before the jump.",
        "",
    ),
    flag(
        Some(b'x'),
        &["no-ifdown"],
        Does::Anyway,
        "Accepted, without effect: rkexec never takes network interfaces down.",
        "kexec-tools takes interfaces down before the jump and stops at the first that it cannot. The \
         kernel quiesces devices itself, so rkexec never does.",
    ),
    flag(
        Some(b'i'),
        &["no-checks"],
        Does::NoChecks,
        "Do not check the loaded data before it is booted.",
        "Without effect where kexec_file_load loads, as with kexec-tools; but a line says so.",
    ),
];

const LOAD: &[Opt] = &[
    Opt {
        letter: Some(b't'),
        names: &["type"],
        value: Some("TYPE"),
        does: Does::Type,
        help: "Load KERNEL as a file of this type, and fail if it is none. Without it the file decides; of \
               two multiboot headers that of version 2 counts.",
        differs: "bzImage names a bzImage that kexec-tools enters in 32-bit mode; rkexec enters it in \
                  64-bit mode if it has an entry for that. The type is checked with kexec_file_load, too. beoboot-x86 and \
                  nbi-x86 are refused: no kernel of this century needs them.",
    },
    with(
        &["append", "command-line"],
        "STRING",
        Does::CommandLine,
        "The command line; behind the running one with --reuse-cmdline. The last one counts.",
        "With kexec-tools --noefi, --reuse-video-type or --pass-memmap-cmdline behind it empty the \
         command line again. Here nothing does.",
    ),
    flag(
        None,
        &["reuse-cmdline"],
        Does::ReuseCommandLine,
        "Begin the command line with the running kernel's, without what belongs to that boot alone.",
        "kexec-tools takes out BOOT_IMAGE, and crashkernel for a crash kernel. rkexec takes out what \
         boot loaders, earlier kexecs and crash loads added as well (see COMMAND LINE), by whole names, \
         and values in quotes whole.",
    ),
    with(
        &["initrd", "ramdisk"],
        "FILE",
        Does::Initrd,
        "The initrd. The last one counts.",
        "Behind the initrd of a UKI, if KERNEL is one. With a multiboot kernel it is an error that ends \
         with 255. A line says that an earlier --initrd is replaced, as of every option that is given twice \
         with different values.",
    ),
    with(
        &["module"],
        "\"FILE ARGS\"",
        Does::Module,
        "A module for a multiboot kernel, and its command line. Repeatable.",
        "With a Linux kernel it is an error: kexec-tools loads that without the module.",
    ),
    with(
        &["dtb"],
        "FILE",
        Does::DeviceTree,
        "A device tree blob for the next kernel (SETUP_DTB).",
        "kexec-tools reads it for the 32-bit entry alone and prints an error for others. With -p it is an \
         error: a crash kernel takes nothing over.",
    ),
    with(
        &["mem-min"],
        "ADDR",
        Does::MemMin,
        "Segments lie at or above this address: 0x, decimal, or octal with a leading 0; suffixes K, M, G, T.",
        "The suffixes are new. With kexec_file_load a line says that it has no effect.",
    ),
    with(
        &["mem-max"],
        "ADDR",
        Does::MemMax,
        "The last address that a segment may use.",
        "As --mem-min.",
    ),
    flag(
        None,
        &["noefi"],
        Does::NoEfi,
        "Do not pass EFI to the next kernel; ACPI is still passed.",
        "",
    ),
    flag(
        None,
        &["hotplug"],
        Does::Hotplug,
        "With -p: fail unless the running kernel can keep what the crash kernel knows of memory and CPUs up to date.",
        "Without it rkexec has the kernel do that as well, where it can.",
    ),
    flag(
        None,
        &["no-cma"],
        Does::NoCma,
        "With kexec_file_load: put nothing into CMA memory (KEXEC_FILE_NO_CMA).",
        "With kexec_load, and with a running kernel before Linux 6.18, which does not take the flag, a \
         line says that it has no effect. kexec-tools tries kexec_load there without a word.",
    ),
    flag(
        None,
        &["force-dtb"],
        Does::ForceDtb,
        "With kexec_file_load: pass on the device tree that the running kernel was booted with \
         (KEXEC_FILE_FORCE_DTB).",
        "As --no-cma. With kexec_load, --dtb passes a tree to the next kernel.",
    ),
    with(
        &["serial"],
        "PORT",
        Does::Serial,
        "The serial port for error messages of purgatory: ttyS0 to ttyS3, or the \
         number of an I/O port.",
        "It takes effect without --console-serial. The default is the running kernel's serial console.",
    ),
    with(
        &["serial-baud"],
        "RATE",
        Does::SerialBaud,
        "The rate of that port: a divisor of 115200. It must be valid, and has no effect.",
        "The port keeps the rate that the running kernel set.",
    ),
    flag(
        None,
        &["console-serial"],
        Does::Anyway,
        "Accepted, without effect: damage is always reported on the serial port.",
        "When all is well purgatory prints nothing.",
    ),
    flag(
        None,
        &["args-linux"],
        Does::Anyway,
        "Accepted, without effect: rkexec always gives a Linux kernel in an ELF file what Linux expects.",
        "kexec-tools starts such a kernel without parameters unless it is told.",
    ),
    flag(
        None,
        &["reuse-video-type"],
        Does::Anyway,
        "Accepted, without effect: rkexec always passes on the console of the running kernel.",
        "kexec-tools loses it when the driver of /dev/fb0 is not one of two.",
    ),
    flag(
        None,
        &["elf64-core-headers"],
        Does::Anyway,
        "Accepted, without effect: the headers of the crash dump are always 64-bit ELF.",
        "",
    ),
];

const DROPPED: &[Opt] = &[
    flag(
        None,
        &["elf32-core-headers"],
        Does::Ignored("an x86_64 crash kernel reads 64-bit headers, and so they are"),
        "32-bit ELF headers of the crash dump.",
        "kexec-tools ignores it on x86_64 as well, without a word.",
    ),
    flag(
        None,
        &["pass-memmap-cmdline"],
        Does::Ignored("the crash kernel gets its memory map in boot_params, without a limit"),
        "The crash kernel's memory map as memmap= on its command line.",
        "It would cut the map where the command line ends.",
    ),
    flag(
        None,
        &["entry-32bit"],
        Does::Ignored("a kernel is entered in 64-bit mode if it can be, and ends up the same"),
        "Enter the kernel in 32-bit mode.",
        "",
    ),
    flag(
        None,
        &["reset-vga"],
        Does::Ignored("purgatory touches no VGA register; the kernel finds the console as it is"),
        "Have purgatory set up VGA text mode.",
        "It helps only cards that no longer exist, and harms a framebuffer.",
    ),
    flag(
        None,
        &["console-vga"],
        Does::Ignored("purgatory prints on a serial port only"),
        "Have purgatory print to VGA text memory.",
        "With a framebuffer console nobody sees it.",
    ),
    flag(
        None,
        &["real-mode"],
        Does::Refused("a BIOS is in no state to be called after Linux ran"),
        "Enter the kernel in 16-bit mode.",
        "",
    ),
    flag(
        None,
        &["args-elf"],
        Does::Refused(
            "an ELF kernel is given what its own headers ask for, and none asks for ELF boot notes",
        ),
        "Start an ELF image with ELF boot notes.",
        "",
    ),
    flag(
        None,
        &["args-none"],
        Does::Refused("rkexec starts kernels, and each kind gets its parameters"),
        "Start an ELF image with nothing.",
        "",
    ),
    flag(
        None,
        &["reuseinitrd"],
        Does::Refused(
            "the running kernel's initrd is overwritten once it has started; --initrd names the file",
        ),
        "Use the initrd of the running kernel.",
        "kexec-tools refuses it on x86_64 as well.",
    ),
    flag(
        None,
        &["load-preserve-context"],
        Does::Refused("a kernel that comes back is hibernation's work now"),
        "Load a kernel from which the running one can be returned to.",
        "",
    ),
    flag(
        None,
        &["load-jump-back-helper"],
        Does::Refused("a kernel that comes back is hibernation's work now"),
        "Load what jumps back to such a kernel.",
        "",
    ),
    with(
        &["entry"],
        "ADDR",
        Does::Refused("the image says where it is entered"),
        "Enter the image elsewhere, or the address to jump back to.",
        "",
    ),
    flag(
        None,
        &["load-live-update"],
        Does::Refused("Xen's live update needs Xen's own tools"),
        "Load a Xen that takes over running guests.",
        "",
    ),
    flag(
        None,
        &["exec-live-update"],
        Does::Refused("Xen's live update needs Xen's own tools"),
        "Boot a Xen that takes over running guests.",
        "",
    ),
];

/// The table.
pub(super) const GROUPS: &[Group] = &[
    Group {
        title: "What to do",
        options: ACTIONS,
    },
    Group {
        title: "How to do it",
        options: HOW,
    },
    Group {
        title: "What is loaded",
        options: LOAD,
    },
    Group {
        title: "Without effect, or refused",
        options: DROPPED,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for option in all() {
            assert!(option.letter.is_some() || !option.names.is_empty());
            if let Some(letter) = option.letter {
                assert!(seen.insert(char::from(letter).to_string()), "{option:?}");
            }
            for name in option.names {
                assert!(seen.insert(format!("--{name}")), "{name}");
                assert!(
                    name.len() > 1 && !name.contains(['=', ' ', '_']),
                    "{name} cannot be given"
                );
            }
        }
        assert!(seen.len() > 60, "{}", seen.len());
    }

    #[test]
    fn texts_are_sentences() {
        let sentences = |text: &str| text.ends_with('.') && !text.contains("  ");
        for option in all() {
            assert!(sentences(option.help), "{option:?}");
            assert!(
                option.differs.is_empty() || sentences(option.differs),
                "{option:?}"
            );
            if let Does::Ignored(why) | Does::Refused(why) = option.does {
                assert!(!why.ends_with('.') && !why.is_empty(), "{option:?}");
            }
        }
    }
}
