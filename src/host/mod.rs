//! Facts of this machine, read below a root directory.
//!
//! Nothing here decides anything. Each source has a module with a pure parser
//! (`parse(&[u8])`) and a reader that names the file in every error.

pub mod boot_params;
pub mod capture;
pub mod cmdline;
pub mod console;
pub mod cpu;
pub mod crash;
pub mod devicetree;
pub(crate) mod door;
pub mod efi;
pub mod efi_tables;
pub mod environment;
pub mod firmware_memmap;
pub mod firmware_tables;
pub mod fstab;
pub mod gpt;
pub mod handed_over;
pub mod inside;
pub mod iomem;
pub mod kho;
pub mod kmsg;
pub mod loaded;
pub mod mapped_devices;
pub mod mounts;
pub mod openers;
pub mod pci;
pub mod place;
pub mod root;
mod rsdp;
pub mod security;
pub mod serial;
pub mod services;
pub mod surroundings;
mod text;
pub(crate) mod tree;
pub mod watchdog;

pub use root::{HostError, Root};
pub use rsdp::rsdp;

/// Everything the planner needs to know of the running machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// `uname -r` of the running kernel.
    pub release: String,
    /// /proc/cmdline without the newline.
    pub cmdline: bstr::BString,
    /// /proc/iomem.
    pub iomem: iomem::Iomem,
    /// /sys/firmware/memmap; `None` without CONFIG_FIRMWARE_MEMMAP.
    pub firmware_map: Option<Vec<firmware_memmap::FirmwareRegion>>,
    /// /sys/kernel/boot_params; `None` where the kernel has none.
    pub boot_params: Option<boot_params::RunningBootParams>,
    /// The device tree blob the running kernel was given.
    pub fdt: Option<Vec<u8>>,
    /// /sys/firmware/efi; `None` on a machine that was not booted through EFI.
    pub efi: Option<efi::Efi>,
    /// CPU features that decide something.
    pub cpu: cpu::Cpu,
    /// MemTotal of /proc/meminfo in bytes: `totalram_pages` as user space sees it.
    pub total_ram: u64,
    /// MemAvailable of /proc/meminfo in bytes, 0 when not stated.
    pub available_ram: u64,
    /// Lockdown, sysctls, load limits, capability, IMA, KHO.
    pub security: security::Security,
    /// What is loaded now, and the crash kernel's reservation.
    pub loaded: loaded::Loaded,
    /// What a crash dump must know of the running kernel; empty unless it was
    /// read for a crash kernel.
    pub crash: crash::CrashFacts,
    /// How many CPUs there can ever be, or are there where that is not visible; `None` where
    /// neither is.
    pub possible_cpus: Option<u64>,
    /// The UART of the running kernel's console, if it is a port-I/O one.
    pub serial: Option<serial::SerialPort>,
    /// The machine's watchdogs.
    pub watchdogs: watchdog::Watchdogs,
}

impl Host {
    /// Reads every fact below `root` except those that only a crash kernel needs.
    ///
    /// # Errors
    /// When a file that must be there is missing, unreadable or malformed, and
    /// when /proc/iomem shows zeroes for want of privilege.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        let cmdline = cmdline::read(root)?;
        let memory = cpu::Memory::read(root)?;
        let iomem = iomem::read(root)?;
        let boot_params = boot_params::read(root)?;
        let mut host = Self {
            release: release(root)?,
            iomem,
            firmware_map: firmware_memmap::read(root)?,
            fdt: devicetree::read(root, boot_params.as_ref())?,
            boot_params,
            efi: efi::read(root)?,
            cpu: cpu::read(root, cmdline.as_ref())?,
            total_ram: memory.total,
            available_ram: memory.available,
            security: security::Security::read(root)?,
            loaded: loaded::Loaded::read(root)?,
            crash: crash::CrashFacts::default(),
            possible_cpus: crash::possible_cpus(root)?,
            serial: serial::read(root)?,
            watchdogs: watchdog::Watchdogs::read(root)?,
            cmdline,
        };
        let event_log = efi_tables::event_log(root, &host);
        if let Some(efi) = &mut host.efi {
            efi.event_log = event_log;
        }
        Ok(host)
    }

    /// Reads every fact below `root`.
    ///
    /// # Errors
    /// As [`Self::read`], and when a fact for a crash kernel is malformed.
    pub fn read_for_crash(root: &Root) -> Result<Self, HostError> {
        Ok(Self {
            crash: crash::CrashFacts::read(root)?,
            ..Self::read(root)?
        })
    }

    /// 32 or 64 on a machine that was booted through EFI, by its firmware; 0 when
    /// only the number is not known. /sys/firmware/efi tells, and where that is masked
    /// (in a container) or not mounted, boot_params do.
    #[must_use]
    pub fn efi_bits(&self) -> Option<u32> {
        let running = self.boot_params.as_ref();
        let told = self.efi.as_ref().map(|efi| efi.platform_bits);
        told.filter(|bits| *bits != 0)
            .or_else(|| running.and_then(|running| running.params.efi_bits()))
            .or(told)
    }

    /// Where the boot loader put the running kernel's initrd.
    #[must_use]
    pub fn initrd(&self) -> Option<crate::base::PhysRange> {
        self.boot_params.as_ref()?.initrd()
    }

    /// Whether Secure Boot is on: the variable tells, and where efivarfs is not mounted
    /// or not readable, what the boot loader left in boot_params (`enum
    /// efi_secureboot_mode` of include/linux/efi.h). `None` when neither tells.
    #[must_use]
    pub fn secure_boot(&self) -> Option<bool> {
        let variable = self.efi.as_ref().and_then(|efi| efi.secure_boot);
        variable.or_else(|| self.boot_params.as_ref()?.secure_boot())
    }

    /// Whether the machine was booted through EFI.
    #[must_use]
    pub fn is_efi(&self) -> bool {
        self.efi_bits().is_some()
    }
}

/// `uname -r`: read as a file, so that a captured machine has it as well.
fn release(root: &Root) -> Result<String, HostError> {
    Ok(root
        .read_text("/proc/sys/kernel/osrelease")?
        .trim_end()
        .to_owned())
}
/// [`Host::secure_boot`] of the machine below `root`, for who reads no other facts.
#[must_use]
pub fn secure_boot(root: &Root) -> Option<bool> {
    efi::secure_boot(root).or_else(|| boot_params::read(root).ok()??.secure_boot())
}
