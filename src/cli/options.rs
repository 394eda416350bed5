//! The load options, as `load` and `plan` take them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use bstr::BString;
use clap::{Args, ValueEnum};

use crate::base::{Syscall, Target, parse_digits, parse_size};
use crate::carry::{HandoverRequest, Pool, Protection};
use crate::crash::HotplugChoice;
use crate::host::serial::legacy_port;
use crate::image::Wish;
use crate::job::{Line, Options};
use crate::kho;
use crate::memory::MapPolicy;
use crate::request::{DirectChoice, KhoChoice, LoadRequest, SyscallChoice};
use crate::sys::FileFlags;

/// The arguments that name what is loaded: one of them.
const NAMED: &str = "named";

/// What is loaded, and how.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct LoadArgs {
    /// Kernel file: bzImage (vmlinuz), vmlinux, UKI or multiboot; may be compressed.
    ///
    /// Without KERNEL and --entry the default boot entry is taken, as with --entry default.
    /// --panic, --initrd, --profile, --addon and --module want one of the two: which crash
    /// kernel it is, and what a file goes with, is not guessed.
    #[arg(value_name = "KERNEL", group = NAMED)]
    pub(super) kernel: Option<PathBuf>,
    /// Instead of KERNEL: kernel, initrds and command line of a boot entry, by its id or title.
    ///
    /// `default` is what the next boot would start, `current` what the running kernel was
    /// started from. ID is an id, an id without .conf or .efi, the part of an id behind the last `>`,
    /// or a title; several entries of that name are an error. `rkexec entries` shows all. Other
    /// options go before what the entry says. An entry for which the boot loader asks for a
    /// password is refused: name its files instead.
    #[arg(
        help_heading = "What is loaded",
        long,
        value_name = "ID|default|current",
        group = NAMED
    )]
    pub(super) entry: Option<String>,
    /// Initrd file; repeatable: several are joined in this order, each padded to 4 bytes.
    #[arg(
        help_heading = "What is loaded",
        long,
        value_name = "FILE",
        requires = NAMED
    )]
    pub(super) initrd: Vec<PathBuf>,
    /// The format that the kernel's file is read as, where it has several.
    #[arg(skip)]
    pub(super) wish: Option<Wish>,
    /// The profile of a UKI, by its ID or its number; without it the first one.
    #[arg(
        help_heading = "What is loaded",
        long,
        value_name = "PROFILE",
        requires = NAMED
    )]
    pub(super) profile: Option<String>,
    /// An addon to a UKI: a PE file with a command line, an initrd or microcode; repeatable.
    #[arg(
        help_heading = "What is loaded",
        long,
        value_name = "FILE",
        requires = NAMED
    )]
    pub(super) addon: Vec<PathBuf>,
    /// A module for a multiboot kernel: its file, and after a space its command line; repeatable.
    #[arg(
        help_heading = "What is loaded",
        long,
        value_name = "\"FILE ARGS\"",
        requires = NAMED
    )]
    pub(super) module: Vec<OsString>,
    /// A file whose contents the next kernel finds in memory; repeatable. `rkexec retrieve` writes the files back there.
    #[arg(
        help_heading = "Files and state that survive",
        long,
        value_name = "FILE",
        conflicts_with = "panic"
    )]
    pub(super) carry: Vec<PathBuf>,
    /// What becomes of the state that the running kernel preserves by Kexec Handover.
    #[arg(help_heading = "Files and state that survive", long, value_enum, default_value_t = KhoArg::Auto, value_name = "HOW", conflicts_with = "panic")]
    kho: KhoArg,
    /// Assume that the next kernel reads this format of Kexec Handover where its file does not tell: `kho-v4`.
    #[arg(help_heading = "Files and state that survive", long, value_name = "VERSION", value_parser = parse_format, conflicts_with = "panic")]
    assume_kho: Option<String>,
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
    #[arg(help_heading = "Crash kernel", long, requires = NAMED)]
    pub(super) panic: bool,
    /// With --panic: the running kernel updates the loaded crash kernel when memory or CPUs change.
    #[arg(help_heading = "Crash kernel", long, value_enum, default_value_t = HotplugArg::Auto, value_name = "WHEN", requires = "panic")]
    pub(super) hotplug: HotplugArg,
    /// `rkexec exec` arms the machine's watchdog: a next kernel that hangs is reset after this time, 1 to 86400.
    ///
    /// watchdog.open_timeout=SECONDS is added to the command line. The next system must open
    /// the watchdog in time, or it is reset as well: see rkexec-exec(8).
    #[arg(help_heading = "Way back", long, value_name = "SECONDS", value_parser = parse_watchdog)]
    pub(super) watchdog: Option<u64>,
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
    /// Unpack the kernel now and choose its place (KASLR), so that it starts sooner; `auto`: where it can be done.
    #[arg(help_heading = "For experts", long, value_enum, default_value_t = DirectArg::Auto, value_name = "WHEN")]
    pub(super) direct: DirectArg,
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

/// A format of Kexec Handover that can be written.
fn parse_format(text: &str) -> Result<String, String> {
    match text {
        kho::TREE => Ok(text.to_owned()),
        _ => Err(format!("rkexec writes {} only", kho::TREE)),
    }
}

/// The longest time of a watchdog, seconds: a day, for more is a mistake.
const MAX_WATCHDOG_SECONDS: u64 = 24 * 60 * 60;

/// The seconds of `--watchdog`.
pub(super) fn parse_watchdog(text: &str) -> Result<u64, String> {
    let seconds = parse_digits(text, 10).ok();
    seconds
        .filter(|seconds| (1..=MAX_WATCHDOG_SECONDS).contains(seconds))
        .ok_or_else(|| {
            format!("not a whole number of seconds from 1 to {MAX_WATCHDOG_SECONDS} (a day)")
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
pub(super) enum DirectArg {
    /// Where it can be done.
    #[default]
    Auto,
    /// Fail unless it can be done.
    On,
    /// Never: the kernel unpacks itself when it starts.
    Off,
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
enum KhoArg {
    /// Keep it, or fail.
    #[default]
    Auto,
    /// Pass its tree on through kexec_load.
    Forward,
    /// Lose it.
    Drop,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum MapArg {
    #[default]
    FixedUp,
    Firmware,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ProtectArg {
    /// For kernels that take pools over.
    Kernel,
    /// For every kernel: the memory is reserved.
    Reserved,
    /// For Linux 5.5 and later: RAM that the kernel keeps reserved.
    Indirect,
    /// For kernels with Kexec Handover: RAM that reserve_mem= takes back.
    Kho,
}

impl LoadArgs {
    /// The arguments of a load of `kernel` without any option.
    pub(super) fn of(kernel: &Path) -> Self {
        Self {
            kernel: Some(kernel.to_owned()),
            ..Self::default()
        }
    }

    /// What the options say, with the bytes of `--dtb`.
    pub(super) fn options(&self, dtb: Option<Vec<u8>>) -> Options {
        Options {
            kernel: self.kernel.clone().unwrap_or_default(),
            initrds: self.initrd.clone(),
            profile: self.profile.clone(),
            wish: self.wish,
            addons: self.addon.clone(),
            modules: self.module.iter().map(bytes).collect(),
            carry: self.carry.clone(),
            hashes: Vec::new(),
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
            direct: match self.direct {
                DirectArg::Auto => DirectChoice::Auto,
                DirectArg::On => DirectChoice::On,
                DirectArg::Off => DirectChoice::Off,
            },
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
                    ProtectArg::Kho => Protection::Kho,
                }),
                no_carry: self.no_carry_pools,
                assume_pmpool: self.assume_pmpool,
            },
            file_flags: self.file_flags,
            watchdog: self.watchdog,
            kho: match self.kho {
                KhoArg::Auto => KhoChoice::Auto,
                KhoArg::Forward => KhoChoice::Forward,
                KhoArg::Drop => KhoChoice::Drop,
            },
            assume_kho: self.assume_kho.clone(),
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
