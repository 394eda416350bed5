//! The load options, as `load` and `plan` take them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use bstr::BString;
use clap::{Args, ValueEnum};

use crate::base::{Syscall, Target, parse_size};
use crate::carry::{HandoverRequest, Pool, Protection};
use crate::crash::HotplugChoice;
use crate::host::serial::legacy_port;
use crate::image::Wish;
use crate::job::{Line, Options};
use crate::memory::MapPolicy;
use crate::request::{LoadRequest, SyscallChoice};
use crate::sys::FileFlags;

/// What is loaded, and how.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct LoadArgs {
    /// Kernel file: bzImage (vmlinuz), vmlinux, UKI or multiboot; may be compressed.
    #[arg(value_name = "KERNEL")]
    pub(super) kernel: PathBuf,
    /// Initrd file; repeatable: several are joined in this order, each padded to 4 bytes.
    #[arg(help_heading = "What is loaded", long, value_name = "FILE")]
    pub(super) initrd: Vec<PathBuf>,
    /// The format that the kernel's file is read as, where it has several.
    #[arg(skip)]
    pub(super) wish: Option<Wish>,
    /// The profile of a UKI, by its ID or its number; without it the first one.
    #[arg(help_heading = "What is loaded", long, value_name = "PROFILE")]
    pub(super) profile: Option<String>,
    /// An addon to a UKI: a PE file with a command line, an initrd or microcode; repeatable.
    #[arg(help_heading = "What is loaded", long, value_name = "FILE")]
    pub(super) addon: Vec<PathBuf>,
    /// A module for a multiboot kernel: its file, and after a space its command line; repeatable.
    #[arg(help_heading = "What is loaded", long, value_name = "\"FILE ARGS\"")]
    pub(super) module: Vec<OsString>,
    /// The whole command line.
    #[arg(
        help_heading = "Command line",
        long,
        value_name = "STRING",
        conflicts_with = "reuse_cmdline"
    )]
    pub(super) cmdline: Option<OsString>,
    /// Use the running kernel's command line, without BOOT_IMAGE=, initrd= and others of this boot alone.
    #[arg(help_heading = "Command line", long)]
    pub(super) reuse_cmdline: bool,
    /// Text added to the command line; repeatable.
    #[arg(help_heading = "Command line", long, value_name = "STRING")]
    pub(super) append: Vec<OsString>,
    /// Remove a parameter from the command line, `name` or `name=value`; repeatable.
    #[arg(help_heading = "Command line", long, value_name = "PARAM")]
    remove: Vec<OsString>,
    /// Load the crash kernel, which a panic boots, into the memory of `crashkernel=`.
    ///
    /// elfcorehdr= and acpi_no_memhotplug are added to its command line. Without the second
    /// one the crash kernel would use hot-added memory and damage the dump.
    #[arg(help_heading = "Crash kernel", long)]
    pub(super) panic: bool,
    /// With --panic: the running kernel updates the loaded crash kernel when memory or CPUs change.
    #[arg(help_heading = "Crash kernel", long, value_enum, default_value_t = HotplugArg::Auto, value_name = "WHEN", requires = "panic")]
    pub(super) hotplug: HotplugArg,
    /// Give the memory of this driver to the next kernel as normal RAM; only `kmem` is possible.
    #[arg(
        help_heading = "Placement and memory map",
        long,
        value_name = "DRIVER",
        conflicts_with = "panic"
    )]
    include_driver_managed: Vec<String>,
    /// Memory map for the next kernel: from kernel and firmware, or only what the firmware says.
    #[arg(help_heading = "Placement and memory map", long, value_enum, default_value_t = MapArg::FixedUp, value_name = "MAP", conflicts_with = "panic")]
    memory_map: MapArg,
    /// Segments lie at or above this address: 0x or decimal, suffixes K, M, G, T.
    #[arg(help_heading = "Placement and memory map", long, value_name = "ADDR", value_parser = parse_size)]
    pub(super) mem_min: Option<u64>,
    /// Segments lie below this address.
    #[arg(help_heading = "Placement and memory map", long, value_name = "ADDR", value_parser = parse_size)]
    pub(super) mem_max: Option<u64>,
    /// Which system call to use. `auto` chooses by image and policy; `plan` shows the reason.
    #[arg(help_heading = "For experts", long, value_enum, default_value_t = SyscallArg::Auto, value_name = "CALL")]
    pub(super) syscall: SyscallArg,
    /// Do not check the loaded data before the kernel is entered.
    #[arg(help_heading = "For experts", long)]
    pub(super) no_digest: bool,
    /// Do not pass EFI to the next kernel. On an EFI machine the address of the ACPI root pointer must be known then.
    #[arg(help_heading = "For experts", long)]
    pub(super) no_efi: bool,
    /// Serial port for error messages of purgatory: ttyS0 to ttyS3, or 0x3f8 [default: the console].
    #[arg(help_heading = "For experts", long, value_name = "PORT", value_parser = parse_port)]
    pub(super) serial_port: Option<u16>,
    /// A device tree blob for the next kernel; pools are added to it.
    #[arg(
        help_heading = "Device tree and pools",
        long,
        value_name = "FILE",
        conflicts_with = "panic"
    )]
    pub(super) dtb: Option<PathBuf>,
    /// Memory that keeps its contents: BASE,SIZE[,bitmap=ADDR][,name=NODE], for example 512M,64M; repeatable, each with a name.
    #[arg(
        help_heading = "Device tree and pools",
        long,
        value_name = "POOL",
        value_parser = Pool::parse_option,
        conflicts_with = "panic"
    )]
    pool: Vec<Pool>,
    /// How the next kernel is kept off the pools.
    #[arg(
        help_heading = "Device tree and pools",
        long,
        value_enum,
        value_name = "HOW"
    )]
    pool_protect: Option<ProtectArg>,
    /// Do not carry over the device tree and the pools of the running kernel.
    #[arg(help_heading = "Device tree and pools", long)]
    no_carry_pools: bool,
    /// Assume that the next kernel supports pools, although its configuration cannot be read.
    #[arg(help_heading = "Device tree and pools", long)]
    assume_pmpool: bool,
    /// Flags for kexec_file_load; options of `rkexec kexec`.
    #[arg(skip)]
    pub(super) file_flags: FileFlags,
}

/// The bytes of an argument, which need not be UTF-8.
fn bytes(argument: &OsString) -> BString {
    argument.clone().into_vec().into()
}

/// The name of a port, or its number.
fn parse_port(text: &str) -> Result<u16, String> {
    let number = || {
        let port = parse_size(text).ok()?;
        u16::try_from(port).ok().filter(|port| *port != 0)
    };
    legacy_port(text).or_else(number).ok_or_else(|| {
        "neither ttyS0 to ttyS3 nor the number of an I/O port (0x1 to 0xffff)".to_owned()
    })
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
    /// Fail unless the kernel can update the dump header itself.
    On,
    /// Never: `rkexec arm --watch` loads again instead.
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
    /// For kernels that take pools over; KASLR is switched off.
    Kernel,
    /// For every kernel: the memory is reserved.
    Reserved,
    /// For Linux 5.5 and later: RAM that the kernel keeps reserved.
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

    /// What the options say, with the bytes of `--dtb`.
    pub(super) fn options(&self, dtb: Option<Vec<u8>>) -> Options {
        Options {
            kernel: self.kernel.clone(),
            initrds: self.initrd.clone(),
            profile: self.profile.clone(),
            wish: self.wish,
            addons: self.addon.clone(),
            modules: self.module.iter().map(bytes).collect(),
            line: Line {
                given: self.cmdline.as_ref().map(bytes),
                running: self.reuse_cmdline,
                append: self.append.iter().map(bytes).collect(),
                remove: self.remove.iter().map(bytes).collect(),
            },
            rest: self.rest(dtb),
        }
    }

    /// The options that are neither about files nor about the command line.
    fn rest(&self, dtb: Option<Vec<u8>>) -> LoadRequest {
        LoadRequest {
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
            file_flags: self.file_flags,
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
            ..LoadRequest::default()
        }
    }
}
