//! Machines made by hand: what their /proc/iomem shows, what their firmware
//! said, and what the running kernel was told at boot.

use rkexec::abi::x86::boot_params::{BootParams, E820_MAX_ENTRIES_ZEROPAGE, E820Entry};
use rkexec::base::PhysRange;
use rkexec::host::boot_params::{RunningBootParams, SetupDataNode};
use rkexec::host::firmware_memmap::FirmwareRegion;
use rkexec::host::{Host, cpu, crash, iomem, loaded, security, watchdog};
use zerocopy::IntoBytes as _;

/// A machine of which only the memory is known.
pub(crate) fn host(iomem: &str) -> Host {
    Host {
        release: "6.12.0-tiny".to_owned(),
        cmdline: Default::default(),
        iomem: iomem::parse(iomem.as_bytes()).unwrap(),
        firmware_map: None,
        fdt: None,
        boot_params: None,
        efi: None,
        cpu: cpu::Cpu::default(),
        total_ram: 0,
        available_ram: 0,
        security: security::Security::default(),
        loaded: loaded::Loaded::default(),
        crash: crash::CrashFacts::default(),
        possible_cpus: None,
        serial: None,
        watchdogs: watchdog::Watchdogs::default(),
    }
}

/// Has `host` tell what a dump of it needs: one CPU, vmcoreinfo, and how it maps memory.
pub(crate) fn tell_for_a_dump(host: &mut Host) {
    let note = crash::Note {
        address: 0x3000_0000,
        size: 0x160,
    };
    host.crash.cpus = vec![(0, note)];
    host.crash.vmcoreinfo = Some(note);
    host.crash.mapping = Some(crash::KernelMapping {
        direct_map: 0xffff_8880_0000_0000,
        text: 0xffff_ffff_8100_0000,
        image: range(0x200_0000, 0x2ff_ffff),
    });
}

/// The range from `start` to `last`, both included.
pub(crate) fn range(start: u64, last: u64) -> PhysRange {
    PhysRange::from_inclusive(start, last).unwrap()
}

/// What else a machine says.
pub(crate) trait Says: Sized {
    /// /sys/firmware/memmap: first byte, last byte, type.
    fn firmware<'a>(self, entries: impl IntoIterator<Item = (u64, u64, &'a str)>) -> Self;
    /// The boot e820: first byte, last byte, type. What does not fit the zero
    /// page comes as SETUP_E820_EXT.
    fn boot_e820(self, entries: impl IntoIterator<Item = (u64, u64, u32)>) -> Self;
    /// The running command line.
    fn cmdline(self, line: &str) -> Self;
}

impl Says for Host {
    fn firmware<'a>(mut self, entries: impl IntoIterator<Item = (u64, u64, &'a str)>) -> Self {
        let region = |(start, last, name): (u64, u64, &str)| FirmwareRegion {
            range: range(start, last),
            name: name.to_owned(),
        };
        self.firmware_map = Some(entries.into_iter().map(region).collect());
        self
    }

    fn boot_e820(mut self, entries: impl IntoIterator<Item = (u64, u64, u32)>) -> Self {
        let entries: Vec<E820Entry> = entries
            .into_iter()
            .map(|(start, last, kind)| E820Entry {
                address: start.into(),
                size: range(start, last).size().into(),
                kind: kind.into(),
            })
            .collect();
        let inline = entries.len().min(E820_MAX_ENTRIES_ZEROPAGE);
        let (inside, beyond) = entries.split_at(inline);
        let mut params = BootParams::zeroed();
        params.e820_table[..inline].copy_from_slice(inside);
        params.e820_entries = u8::try_from(inline).unwrap();
        let extended = SetupDataNode {
            kind: 1,
            data: beyond.as_bytes().to_vec(),
        };
        self.boot_params = Some(RunningBootParams {
            params,
            setup_data: (!beyond.is_empty())
                .then_some(extended)
                .into_iter()
                .collect(),
        });
        self
    }

    fn cmdline(mut self, line: &str) -> Self {
        self.cmdline = line.into();
        self
    }
}
