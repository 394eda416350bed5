//! The load options, as `load` and `plan` take them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::memory::{MapPolicy, parse_size};
use crate::plan::{CmdlineBase, CmdlineRequest, LoadRequest, SyscallChoice};
use crate::sys::Syscall;

/// What is loaded, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct LoadArgs {
    /// The kernel: an x86_64 bzImage.
    #[arg(value_name = "KERNEL")]
    pub(super) kernel: PathBuf,
    /// An initrd; several are joined, each padded to 4 bytes.
    #[arg(long, value_name = "FILE")]
    pub(super) initrd: Vec<PathBuf>,
    /// The whole command line.
    #[arg(long, value_name = "STRING", conflicts_with = "reuse_cmdline")]
    cmdline: Option<String>,
    /// The running command line, without what belongs to this boot alone.
    #[arg(long)]
    reuse_cmdline: bool,
    /// Text added to the command line; repeatable.
    #[arg(long, value_name = "STRING")]
    append: Vec<String>,
    /// Parameter taken out of the command line, `name` or `name=value`; repeatable.
    #[arg(long, value_name = "PARAM")]
    remove: Vec<String>,
    /// The system call; `auto` decides from facts, and the plan says why.
    #[arg(long, value_enum, default_value_t = SyscallArg::Auto, value_name = "CALL")]
    syscall: SyscallArg,
    /// Hand over "System RAM (DRIVER)" as RAM after all; `kmem` only.
    #[arg(long, value_name = "DRIVER")]
    include_driver_managed: Vec<String>,
    /// The map for the next kernel: all sources reconciled, or the firmware's own.
    #[arg(long, value_enum, default_value_t = MapArg::FixedUp, value_name = "MAP")]
    memory_map: MapArg,
    /// Segments lie at or above this address: 0x or decimal, suffixes K, M, G, T.
    #[arg(long, value_name = "ADDR", value_parser = parse_size)]
    mem_min: Option<u64>,
    /// Segments lie below this address.
    #[arg(long, value_name = "ADDR", value_parser = parse_size)]
    mem_max: Option<u64>,
    /// Purgatory does not verify the segments before it enters the kernel.
    #[arg(long)]
    no_digest: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SyscallArg {
    Auto,
    #[value(name = "kexec_load")]
    KexecLoad,
    #[value(name = "kexec_file_load")]
    KexecFileLoad,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MapArg {
    FixedUp,
    Firmware,
}

impl LoadArgs {
    /// The request, with `seed` for the next kernel's random number generator.
    pub(super) fn request(&self, seed: Option<[u8; 32]>) -> LoadRequest {
        let base = match &self.cmdline {
            Some(line) => CmdlineBase::Given(line.clone()),
            None if self.reuse_cmdline => CmdlineBase::Running,
            None => CmdlineBase::Empty,
        };
        LoadRequest {
            cmdline: CmdlineRequest {
                base,
                append: self.append.clone(),
                remove: self.remove.clone(),
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
            seed,
        }
    }
}
