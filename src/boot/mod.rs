//! The boot protocols: how a kernel is laid out in memory, what it is told, and how it
//! is entered.
//!
//! [`Protocol`] is the seam. The frame in `plan` knows no protocol: it asks this enum,
//! and does itself what is the same for all of them (which system call, which memory is
//! free, digests, purgatory, the check of the result). A new protocol is a variant here
//! and a directory beside this file; the compiler names every question that it must
//! answer.

mod error;
pub mod linux_x86;
pub mod multiboot;
mod x86;

pub use error::BootError;
pub use linux_x86::direct::{Direct, Road, needs_unpacker};
pub use linux_x86::firmware::EMPTY_INITRD;

use bstr::BStr;

use crate::base::{PhysRange, Syscall, Told};
use crate::carry::record::KhoRecord;
use crate::carry::{Handover, PlannedPool};
use crate::cmdline::Cmdline;
use crate::fdt::DeviceTree;
use crate::host::Host;
use crate::image::linux::Format;
use crate::image::{Image, LinuxKernel, Multiboot};
use crate::kho;
use crate::layout::{Blobs, Layout, Limits, Places, Segment};
use crate::purgatory::Mode;
use crate::request::LoadRequest;
use linux_x86::zero_page::EfiHandover;

/// A kernel by the protocol that boots it. `'a` is the life of its file's bytes.
#[derive(Debug, Clone, Copy)]
pub enum Protocol<'k, 'a> {
    /// Linux for x86: the zero page.
    LinuxX86(&'k LinuxKernel<'a>),
    /// The same, where the loader unpacked the kernel and places it itself.
    Direct(&'k Direct<'a>),
    /// Multiboot: the boot information.
    Multiboot(&'k Multiboot<'a>),
}

/// What the next kernel learns of the firmware.
#[derive(Debug, Clone, Default)]
pub struct Firmware {
    /// EFI, where the loader itself passes it on.
    pub efi: Option<EfiHandover>,
    /// Why an empty initrd goes with it when none is given.
    pub empty_initrd: Option<&'static str>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// What the tables are made from, besides the kernel and its layout.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'f> {
    /// What was asked for.
    pub request: &'f LoadRequest,
    /// The running machine.
    pub host: &'f Host,
    /// The command line, complete.
    pub cmdline: &'f Cmdline,
    /// The memory map.
    pub told: &'f [(PhysRange, Told)],
    /// The pools.
    pub pools: &'f [PlannedPool],
    /// The device tree with the pools in it.
    pub tree: Option<&'f DeviceTree>,
    /// The node of Kexec Handover, which goes into the tables.
    pub kho: Option<&'f kho::Node>,
    /// What it hands over, for the next kernel's report.
    pub kho_record: Option<&'f KhoRecord>,
    /// The firmware.
    pub firmware: &'f Firmware,
    /// Digests of kernel and initrd.
    pub blobs: Option<&'f Blobs>,
}

/// What the kernel reads at its entry.
#[derive(Debug, Clone)]
pub struct Tables<'a> {
    /// The segments.
    pub segments: Vec<Segment<'a>>,
    /// Physical address of the first table, which the kernel finds in a register.
    pub pointer: u64,
    /// Physical address where purgatory leaves time stamps, in one of the segments; `None`
    /// when it leaves none.
    pub stamps: Option<u64>,
    /// What the first table leads to, for people.
    pub summary: Vec<TableSummary>,
    /// What the operator should know.
    pub warnings: Vec<String>,
}

/// One table that the first one leads to, for people.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TableSummary {
    /// Its name: of a setup_data node, SETUP_* without the prefix.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Payload in bytes.
    pub size: usize,
}

/// Memory that a word of a command line takes away from its kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The memory.
    pub range: PhysRange,
    /// The parameter's name.
    pub parameter: &'static str,
    /// The word, or that part of a comma list which counts; as text.
    pub word: String,
}

/// Why kexec_file_load does not take a kernel that kexec_load can start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRefusal {
    /// Why.
    pub reason: &'static str,
    /// What to load instead where kexec_load is forbidden.
    pub way_out: Option<&'static str>,
    /// The reason for kexec_load, where this one decides it.
    pub decides: Option<&'static str>,
}

impl<'k, 'a> Protocol<'k, 'a> {
    /// The protocol of `image`.
    #[must_use]
    pub const fn of(image: &'k Image<'a>) -> Self {
        match image {
            Image::Linux(kernel) => Self::LinuxX86(kernel),
            Image::Multiboot(kernel) => Self::Multiboot(kernel),
        }
    }

    /// Checks that the protocol can do what is asked.
    ///
    /// # Errors
    /// Names the option that it cannot fulfil.
    pub fn check_request(self, request: &LoadRequest, initrds: &[&[u8]]) -> Result<(), BootError> {
        match self {
            Self::LinuxX86(_) | Self::Direct(_) => Ok(()),
            Self::Multiboot(kernel) => multiboot::protocol::check(kernel, request, initrds),
        }
    }

    /// Checks that the kernel can be entered from the state that the machine is in.
    ///
    /// # Errors
    /// Names what the kernel lacks.
    pub fn check_machine(self, host: &Host) -> Result<(), BootError> {
        match self {
            Self::LinuxX86(kernel) | Self::Direct(Direct { kernel, .. }) => {
                linux_x86::check(kernel, host)
            }
            Self::Multiboot(_) => Ok(()),
        }
    }

    /// Longest command line, bytes without the NUL.
    #[must_use]
    pub fn cmdline_limit(self) -> usize {
        match self {
            Self::LinuxX86(kernel) | Self::Direct(Direct { kernel, .. }) => kernel.cmdline_limit,
            Self::Multiboot(_) => usize::MAX,
        }
    }

    /// The command line as the kernel gets it, made from the one that was asked for.
    ///
    /// # Errors
    /// When it cannot be passed on.
    pub fn cmdline(self, asked: &Cmdline) -> Result<Cmdline, BootError> {
        match self {
            Self::LinuxX86(_) | Self::Direct(_) => Ok(asked.clone()),
            Self::Multiboot(kernel) => multiboot::protocol::command_line(asked, kernel),
        }
    }

    /// The memory of type `told` that words of the command line `line` take away from the
    /// kernel.
    #[must_use]
    pub fn taken(self, line: &BStr, told: Told) -> Vec<Taken> {
        match self {
            Self::LinuxX86(_) | Self::Direct(_) => linux_x86::taken::taken(line, told),
            Self::Multiboot(_) => Vec::new(),
        }
    }

    /// Whether the kernel can be given a node of Kexec Handover.
    #[must_use]
    pub const fn takes_kho(self) -> bool {
        match self {
            Self::LinuxX86(_) | Self::Direct(_) => true,
            Self::Multiboot(_) => false,
        }
    }

    /// Why pools can only be reserved in the memory map; `None` where the kernel can be
    /// told of them.
    #[must_use]
    pub const fn reserves_pools(self) -> Option<&'static str> {
        match self {
            Self::LinuxX86(_) | Self::Direct(_) => None,
            Self::Multiboot(_) => Some("a multiboot kernel knows nothing of pools"),
        }
    }

    /// Why kexec_file_load refuses the kernel on this machine.
    #[must_use]
    pub fn file_refusal(self, host: &Host) -> Option<FileRefusal> {
        match self {
            Self::LinuxX86(kernel) | Self::Direct(Direct { kernel, .. }) => {
                linux_x86::by_file::refusal(kernel, host)
            }
            Self::Multiboot(_) => Some(multiboot::protocol::FILE_REFUSAL),
        }
    }

    /// Most entries of its memory map that the running kernel passes on with
    /// kexec_file_load.
    #[must_use]
    pub const fn file_map_entries(self) -> usize {
        linux_x86::by_file::MAP_ENTRIES
    }

    /// Decides what the kernel learns of the firmware, when it is loaded by `syscall` and
    /// has the command line `line`.
    ///
    /// # Errors
    /// When it would not find its firmware.
    pub fn firmware(
        self,
        request: &LoadRequest,
        host: &Host,
        syscall: Syscall,
        line: &BStr,
    ) -> Result<Firmware, BootError> {
        match self {
            Self::LinuxX86(kernel) | Self::Direct(Direct { kernel, .. }) => Ok(
                linux_x86::firmware::told(request, host, kernel, syscall, line)?,
            ),
            Self::Multiboot(_) => Ok(Firmware::default()),
        }
    }

    /// What the operator should know of the kernel. `dumped` is the RAM that the dump
    /// holds, empty without `--panic`.
    #[must_use]
    pub fn warnings(
        self,
        request: &LoadRequest,
        host: &Host,
        handover: &Handover,
        line: &BStr,
        dumped: &[PhysRange],
    ) -> Vec<String> {
        match self {
            Self::LinuxX86(kernel) | Self::Direct(Direct { kernel, .. }) => {
                let warning = linux_x86::protected::crash_warning(kernel, dumped);
                warning.into_iter().collect()
            }
            Self::Multiboot(kernel) => {
                multiboot::protocol::warnings(kernel, request, host, handover, line)
            }
        }
    }

    /// What the operator should know of the memory map that the kernel gets.
    #[must_use]
    pub fn map_warning(self, told: &[(PhysRange, Told)]) -> Option<String> {
        x86::low_memory_warning(told)
    }

    /// Which addresses can be used.
    #[must_use]
    pub fn limits(self, host: &Host) -> Limits {
        match self {
            Self::LinuxX86(kernel) | Self::Direct(Direct { kernel, .. }) => {
                linux_x86::limits(kernel, host)
            }
            Self::Multiboot(_) => multiboot::protocol::LIMITS,
        }
    }

    /// Takes places for tables, purgatory, kernel and initrds, to see whether everything
    /// fits where the running kernel places it (kexec_file_load).
    ///
    /// # Errors
    /// When there is no place.
    pub fn fits(self, places: &mut Places<'_>, initrds: &[&[u8]]) -> Result<(), BootError> {
        match self {
            Self::LinuxX86(kernel) | Self::Direct(Direct { kernel, .. }) => {
                linux_x86::fits(kernel, places, initrds)
            }
            // The running kernel loads Linux only.
            Self::Multiboot(_) => Ok(()),
        }
    }

    /// The parts of the kernel's file that make the kernel: records name it by them.
    #[must_use]
    pub fn kernel_parts(self) -> Vec<&'k [u8]> {
        match self {
            Self::LinuxX86(kernel) => kernel.loads.iter().map(|load| &*load.bytes).collect(),
            Self::Direct(direct) => Protocol::LinuxX86(&direct.file).kernel_parts(),
            Self::Multiboot(kernel) => kernel.loads.iter().map(|load| load.bytes).collect(),
        }
    }

    /// Decides who unpacks and places the kernel, when it is loaded by `syscall`, has the
    /// command line `line`, and is told the memory map `told`. `None`: that is
    /// decided, or its protocol knows one way only.
    ///
    /// # Errors
    /// When `--direct on` asks for what cannot be.
    pub fn road(
        self,
        request: &LoadRequest,
        host: &Host,
        syscall: Syscall,
        line: &BStr,
        told: &[(PhysRange, Told)],
    ) -> Result<Option<Road<'a>>, BootError> {
        match self {
            Self::LinuxX86(kernel) => {
                let road = linux_x86::direct::road(kernel, request, host, syscall, line, told)?;
                Ok(Some(road))
            }
            Self::Direct(_) | Self::Multiboot(_) => Ok(None),
        }
    }

    /// The protocol when the kernel goes by `road`.
    #[must_use]
    pub fn by(self, road: Option<&'k Road<'a>>) -> Self {
        match road.and_then(|road| road.direct.as_ref()) {
            Some(direct) => Self::Direct(direct),
            None => self,
        }
    }

    /// Whether the kernel is known to run where the loader puts it.
    #[must_use]
    pub fn stays_put(self) -> bool {
        match self {
            Self::LinuxX86(kernel) => kernel.format == Format::Vmlinux,
            Self::Direct(_) | Self::Multiboot(_) => true,
        }
    }

    /// Whether the loader puts the kernel at a random place.
    #[must_use]
    pub const fn is_placed_at_random(self) -> bool {
        match self {
            Self::Direct(direct) => direct.is_random(),
            Self::LinuxX86(_) | Self::Multiboot(_) => false,
        }
    }

    /// Places kernel and files. `empty` says why the only initrd is an empty one.
    ///
    /// # Errors
    /// When something has no place.
    pub fn lay_out(
        self,
        places: &mut Places<'_>,
        initrds: &[&'a [u8]],
        empty: Option<&'static str>,
    ) -> Result<Layout<'a>, BootError> {
        match self {
            Self::LinuxX86(kernel) => linux_x86::lay_out(kernel, places, initrds, empty),
            Self::Direct(direct) => linux_x86::lay_out_direct(direct, places, initrds, empty),
            Self::Multiboot(kernel) => multiboot::protocol::lay_out(kernel, places),
        }
    }

    /// Places and makes the tables that the kernel reads.
    ///
    /// # Errors
    /// When they have no place, or the kernel requires something that is not there.
    pub fn tables(
        self,
        places: &mut Places<'_>,
        layout: &Layout<'a>,
        facts: Facts<'_>,
    ) -> Result<Tables<'a>, BootError> {
        match self {
            Self::LinuxX86(kernel) | Self::Direct(Direct { kernel, .. }) => {
                linux_x86::tables(kernel, places, layout, facts)
            }
            Self::Multiboot(kernel) => multiboot::protocol::tables(kernel, places, layout, facts),
        }
    }

    /// The state of the CPU in which the kernel is entered.
    #[must_use]
    pub fn mode(self) -> Mode {
        match self {
            Self::LinuxX86(kernel) | Self::Direct(Direct { kernel, .. }) => {
                linux_x86::protected::mode(kernel)
            }
            Self::Multiboot(kernel) => Mode::Multiboot {
                eax: kernel.version.entry_magic(),
            },
        }
    }

    /// Why purgatory lies where it does, beside [`Layout::rest`].
    #[must_use]
    pub const fn purgatory_rule(self) -> &'static str {
        match self {
            Self::LinuxX86(_) | Self::Direct(_) => "highest free address",
            Self::Multiboot(_) => multiboot::protocol::PURGATORY_RULE,
        }
    }
}
