//! The load options, as `load` and `plan` take them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use bstr::BString;
use clap::{Args, ValueEnum};

use crate::base::parse_size;
use crate::base::{Syscall, Target};
use crate::carry::{HandoverRequest, Pool, Protection};
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::crash::HotplugChoice;
use crate::host::firmware_tables::FirmwareTables;
use crate::image::Wish;
use crate::memory::MapPolicy;
use crate::plan::{LoadRequest, SyscallChoice};
use crate::sys::FileFlags;

/// What is loaded, and how.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct LoadArgs {
    /// The kernel: a bzImage, vmlinux or UKI for x86_64, or a multiboot kernel; packed or not.
    #[arg(value_name = "KERNEL")]
    pub(super) kernel: PathBuf,
    /// An initrd; several are joined, each padded to 4 bytes.
    #[arg(long, value_name = "FILE")]
    pub(super) initrd: Vec<PathBuf>,
    /// The format that the kernel's file is read as, where it has several.
    #[arg(skip)]
    pub(super) wish: Option<Wish>,
    /// The profile of a UKI, by its ID or its number; without it the first one.
    #[arg(long, value_name = "PROFILE")]
    pub(super) profile: Option<String>,
    /// An addon to a UKI: a PE file with a command line, an initrd or microcode; repeatable.
    #[arg(long, value_name = "FILE")]
    pub(super) addon: Vec<PathBuf>,
    /// A module for a multiboot kernel: its file, and after a space its command line; repeatable.
    #[arg(long, value_name = "\"FILE ARGS\"")]
    pub(super) module: Vec<OsString>,
    /// The whole command line.
    #[arg(long, value_name = "STRING", conflicts_with = "reuse_cmdline")]
    pub(super) cmdline: Option<OsString>,
    /// The running command line, without what belongs to this boot alone.
    #[arg(long)]
    pub(super) reuse_cmdline: bool,
    /// Text added to the command line; repeatable.
    #[arg(long, value_name = "STRING")]
    pub(super) append: Vec<OsString>,
    /// Parameter taken out of the command line, `name` or `name=value`; repeatable.
    #[arg(long, value_name = "PARAM")]
    remove: Vec<OsString>,
    /// Load the crash kernel, which a panic boots, into the memory of `crashkernel=`.
    ///
    /// Its command line also gets elfcorehdr=, and acpi_no_memhotplug, without which it
    /// would add hot-added memory to its own and write into the dump.
    #[arg(long)]
    pub(super) panic: bool,
    /// Crash kernel: let the kernel keep the dump's list of memory and CPUs up to date itself.
    #[arg(long, value_enum, default_value_t = HotplugArg::Auto, value_name = "WHEN", requires = "panic")]
    pub(super) hotplug: HotplugArg,
    /// The system call; `auto` decides from facts, and the plan says why.
    #[arg(long, value_enum, default_value_t = SyscallArg::Auto, value_name = "CALL")]
    pub(super) syscall: SyscallArg,
    /// Hand over "System RAM (DRIVER)" as RAM after all; `kmem` only.
    #[arg(long, value_name = "DRIVER", conflicts_with = "panic")]
    include_driver_managed: Vec<String>,
    /// The map for the next kernel: all sources reconciled, or the firmware's own.
    #[arg(long, value_enum, default_value_t = MapArg::FixedUp, value_name = "MAP", conflicts_with = "panic")]
    memory_map: MapArg,
    /// Segments lie at or above this address: 0x or decimal, suffixes K, M, G, T.
    #[arg(long, value_name = "ADDR", value_parser = parse_size)]
    pub(super) mem_min: Option<u64>,
    /// Segments lie below this address.
    #[arg(long, value_name = "ADDR", value_parser = parse_size)]
    pub(super) mem_max: Option<u64>,
    /// Purgatory does not verify the segments before it enters the kernel.
    #[arg(long)]
    pub(super) no_digest: bool,
    /// Tell the next kernel nothing of EFI. On an EFI machine the address of the ACPI root pointer must be known then.
    #[arg(long)]
    pub(super) no_efi: bool,
    /// The serial port on which purgatory reports damage, the number of an I/O port: 0x or
    /// decimal. Without it the serial console.
    #[arg(long, value_name = "PORT", value_parser = parse_port)]
    pub(super) serial_port: Option<u16>,
    /// A device tree blob for the next kernel; pools are added to it.
    #[arg(
        help_heading = "Hand-over options",
        long,
        value_name = "FILE",
        conflicts_with = "panic"
    )]
    pub(super) dtb: Option<PathBuf>,
    /// A memory pool whose contents survive: BASE,SIZE[,bitmap=ADDR][,name=NODE]; repeatable.
    #[arg(
        help_heading = "Hand-over options",
        long,
        value_name = "POOL",
        value_parser = Pool::parse_option,
        conflicts_with = "panic"
    )]
    pool: Vec<Pool>,
    /// How the next kernel is kept off the pools.
    #[arg(
        help_heading = "Hand-over options",
        long,
        value_enum,
        value_name = "HOW"
    )]
    pool_protect: Option<ProtectArg>,
    /// Do not carry over the device tree and the pools of the running kernel.
    #[arg(help_heading = "Hand-over options", long)]
    no_carry_pools: bool,
    /// Take the next kernel to understand pools, although its configuration is unknown.
    #[arg(help_heading = "Hand-over options", long)]
    assume_pmpool: bool,
    /// Flags for kexec_file_load; options of `rkexec kexec`.
    #[arg(skip)]
    pub(super) file_flags: FileFlags,
}

/// The bytes of an argument, which need not be UTF-8.
pub(super) fn bytes(argument: &OsString) -> BString {
    argument.clone().into_vec().into()
}

/// A port's number, without the suffixes of sizes.
fn parse_port(text: &str) -> Result<u16, String> {
    let port = parse_size(text)
        .ok()
        .and_then(|port| u16::try_from(port).ok());
    port.filter(|port| *port != 0)
        .ok_or_else(|| "not the number of an I/O port (0x1 to 0xffff)".to_owned())
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SyscallArg {
    #[default]
    Auto,
    #[value(name = "kexec_load")]
    KexecLoad,
    #[value(name = "kexec_file_load")]
    KexecFileLoad,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
pub(super) enum HotplugArg {
    /// Where it can.
    #[default]
    Auto,
    /// It must, or nothing is loaded.
    On,
    /// It must not.
    Off,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum MapArg {
    #[default]
    FixedUp,
    Firmware,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtectArg {
    /// Described to the next kernel, which takes them over; KASLR is switched off.
    Kernel,
    /// Reserved in its memory map: every kernel.
    Reserved,
    /// RAM under a SETUP_INDIRECT node: Linux 5.5 and later.
    Indirect,
}

impl LoadArgs {
    /// The arguments of a load of `kernel` without any option.
    pub(super) fn of(kernel: &Path) -> Self {
        Self {
            kernel: kernel.to_owned(),
            ..Self::default()
        }
    }

    /// The request, with what is not on the command line: the bytes of `--dtb`, a
    /// seed for the next kernel's random number generator, and the time.
    pub(super) fn request(&self, dtb: Option<Vec<u8>>, seed: [u8; 32], time: u64) -> LoadRequest {
        let base = match &self.cmdline {
            Some(line) => CmdlineBase::Given(bytes(line)),
            None if self.reuse_cmdline => CmdlineBase::Running,
            None => CmdlineBase::Empty,
        };
        LoadRequest {
            cmdline: CmdlineRequest {
                base,
                append: self.append.iter().map(bytes).collect(),
                remove: self.remove.iter().map(bytes).collect(),
            },
            syscall: match self.syscall {
                SyscallArg::Auto => SyscallChoice::Auto,
                SyscallArg::KexecLoad => SyscallChoice::Only(Syscall::KexecLoad),
                SyscallArg::KexecFileLoad => SyscallChoice::Only(Syscall::KexecFileLoad),
            },
            memory_map: match self.memory_map {
                MapArg::FixedUp => MapPolicy::FixedUp,
                MapArg::Firmware => MapPolicy::Firmware,
            },
            include_driver_managed: self.include_driver_managed.iter().cloned().collect(),
            mem_min: self.mem_min,
            mem_max: self.mem_max,
            no_digest: self.no_digest,
            no_efi: self.no_efi,
            serial_port: self.serial_port,
            seed: Some(seed),
            handover: HandoverRequest {
                dtb,
                uki_dtb: None,
                pools: self.pool.clone(),
                protect: self.pool_protect.map(|how| match how {
                    ProtectArg::Kernel => Protection::Kernel,
                    ProtectArg::Reserved => Protection::Reserved,
                    ProtectArg::Indirect => Protection::Indirect,
                }),
                no_carry: self.no_carry_pools,
                assume_pmpool: self.assume_pmpool,
            },
            time,
            file_flags: self.file_flags,
            firmware_tables: FirmwareTables::default(),
            target: if self.panic {
                Target::Crash
            } else {
                Target::Normal
            },
            hotplug: match self.hotplug {
                HotplugArg::Auto => HotplugChoice::Auto,
                HotplugArg::On => HotplugChoice::On,
                HotplugArg::Off => HotplugChoice::Off,
            },
        }
    }
}
