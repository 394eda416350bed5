//! What the next kernel learns of the firmware: EFI, the ACPI root pointer, and
//! the empty initrd that an EFI machine needs.

use bstr::BStr;

use super::zero_page;
use crate::base::Syscall;
use crate::boot::Firmware;
use crate::cmdline;
use crate::host::Host;
use crate::image::LinuxKernel;
use crate::request::LoadRequest;

/// An initrd with nothing in it: the kernel skips zeroes between archives.
pub const EMPTY_INITRD: &[u8] = &[0; 4];

/// Why an empty initrd is handed over.
///
/// Source: `reserve_initrd` of arch/x86/kernel/setup.c and `efi_config_parse_tables`
/// of drivers/firmware/efi/efi.c, Linux 6.12.
const WHY_EMPTY: &str = "no initrd was given, and EFI is handed over: without an initrd, Linux 6.12 and later \
     takes the one that the EFI stub of an earlier boot left behind (LINUX_EFI_INITRD_MEDIA), whose memory is \
     free by now";

/// The next kernel would not find its firmware.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirmwareError {
    /// The files about EFI are not there.
    #[error(
        "this machine was booted through EFI (the running kernel's boot_params say so), and /sys/firmware/efi is \
         missing: the next kernel would get no EFI{}",
        if *rsdp { "" } else { " and no ACPI root pointer (RSDP), and could not even switch off" }
    )]
    EfiHidden {
        /// Whether the RSDP is known from another source.
        rsdp: bool,
    },
    /// EFI is not handed over, and the RSDP is not known.
    #[error(
        "the next kernel would find no ACPI: it gets no EFI ({why}), and where the ACPI root pointer (RSDP) lies is \
         not known"
    )]
    NoRsdp {
        /// Why it gets no EFI.
        why: String,
    },
}

impl FirmwareError {
    /// The way out.
    #[must_use]
    pub const fn hint(&self) -> &'static str {
        match self {
            Self::EfiHidden { rsdp: true } => {
                "mount sysfs where its firmware directory is not masked (containers mask it: run on the host), \
                 or hand over ACPI alone with --no-efi"
            }
            Self::EfiHidden { rsdp: false } => {
                "mount sysfs where its firmware directory is not masked (containers mask it: run on the host), \
                 or give --no-efi and acpi_rsdp=ADDRESS on the next kernel's command line (the running kernel's log \
                 has it: ACPI: RSDP 0x...)"
            }
            Self::NoRsdp { .. } => {
                "give acpi_rsdp=ADDRESS on the next kernel's command line (the running kernel's log has it: \
                 ACPI: RSDP 0x...), or acpi=off"
            }
        }
    }
}

/// Decides for a kernel that is loaded by `syscall` and has the command line `line`.
///
/// # Errors
/// When the machine was booted through EFI, and the next kernel would find neither
/// that nor its ACPI tables.
pub(in crate::boot) fn told(
    request: &LoadRequest,
    host: &Host,
    image: &LinuxKernel<'_>,
    syscall: Syscall,
    line: &BStr,
) -> Result<Firmware, FirmwareError> {
    let with_efi = |efi| Firmware {
        efi,
        warnings: Vec::new(),
        empty_initrd: Some(WHY_EMPTY),
    };
    match (syscall, host.is_efi()) {
        // With kexec_file_load the running kernel hands over EFI itself.
        (Syscall::KexecFileLoad, true) => Ok(with_efi(None)),
        (Syscall::KexecFileLoad, false) => Ok(Firmware::default()),
        (Syscall::KexecLoad, false) => Ok(Firmware {
            warnings: unknown(host).into_iter().collect(),
            ..Firmware::default()
        }),
        (Syscall::KexecLoad, true) => {
            let rsdp = rsdp(host, line);
            let (why, asked) = if request.no_efi {
                ("--no-efi asks for that".to_owned(), true)
            } else if host.efi.is_none() {
                return Err(FirmwareError::EfiHidden {
                    rsdp: rsdp != Rsdp::Unknown,
                });
            } else {
                match zero_page::efi_handover(host, image) {
                    Ok(efi) => return Ok(with_efi(efi)),
                    Err(why) => (why, false),
                }
            };
            let acpi = match rsdp {
                Rsdp::Unknown => return Err(FirmwareError::NoRsdp { why }),
                Rsdp::HandedOver => "; ACPI is handed over all the same",
                Rsdp::OnTheLine => "; ACPI is what its command line says of it",
            };
            let warning = (!asked).then(|| format!("the next kernel gets no EFI: {why}{acpi}"));
            Ok(Firmware {
                warnings: warning.into_iter().collect(),
                ..Firmware::default()
            })
        }
    }
}

/// How the next kernel finds ACPI without EFI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rsdp {
    /// boot_params tell it.
    HandedOver,
    /// `acpi_rsdp=` or `acpi=off` on the command line: the operator decided.
    OnTheLine,
    /// Not at all. On an EFI machine the RSDP is not in the BIOS area.
    Unknown,
}

fn rsdp(host: &Host, line: &BStr) -> Rsdp {
    if cmdline::has(line, "acpi_rsdp") || cmdline::value(line, "acpi") == Some("off".into()) {
        Rsdp::OnTheLine
    } else if crate::host::rsdp(host) != 0 {
        Rsdp::HandedOver
    } else {
        Rsdp::Unknown
    }
}

/// A warning when no source tells whether this is an EFI machine.
fn unknown(host: &Host) -> Option<String> {
    host.boot_params.is_none().then(|| {
        "whether this machine was booted through EFI is not known, for neither /sys/kernel/boot_params nor \
         /sys/firmware/efi is there: if it was, the next kernel gets no EFI and no ACPI"
            .to_owned()
    })
}
