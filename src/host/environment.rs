//! Environments (Xen, WSL) in which kexec cannot work.
//!
//! A call can do harm before it fails: the kernel of a Xen PV guest oopses in
//! `machine_kexec_prepare` and never gives its kexec lock back. So these facts
//! decide before any call.

use zerocopy::FromBytes as _;

use super::{HostError, Root};
use crate::abi::x86::boot_params::BOOT_PARAMS_SIZE;

const TYPE: &str = "/sys/hypervisor/type";
const GUEST_TYPE: &str = "/sys/hypervisor/guest_type";
const UUID: &str = "/sys/hypervisor/uuid";
const CAPABILITIES: &str = "/proc/xen/capabilities";
const BOOT_PARAMS: &str = "/sys/kernel/boot_params/data";

/// Where `hardware_subarch` of the setup header is in boot_params
/// (arch/x86/include/uapi/asm/bootparam.h).
const HARDWARE_SUBARCH: usize = 0x23c;
/// X86_SUBARCH_XEN: only `xen_start_kernel` writes this there, in a PV guest.
const SUBARCH_XEN: u32 = 2;
/// The UUID that Xen gives to dom0.
const UUID_OF_DOM0: &str = "00000000-0000-0000-0000-000000000000";

/// What the running kernel runs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Environment {
    /// Nothing is known that forbids kexec.
    #[default]
    Usual,
    /// A paravirtual (PV) guest of Xen.
    XenPv {
        /// Whether it is dom0; `None` when the machine does not tell.
        dom0: Option<bool>,
    },
    /// dom0 of Xen that is not paravirtual (PVH).
    XenDom0,
    /// The first Windows Subsystem for Linux, which has no Linux kernel.
    Wsl1,
    /// The second one: a Linux kernel in a virtual machine that Windows manages.
    Wsl2,
}

/// Why no kernel can be loaded here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The cause.
    pub why: &'static str,
    /// The way out.
    pub way_out: &'static str,
    /// Where it is read what the kernel runs on.
    pub evidence: &'static str,
}

impl Environment {
    /// Reads the facts below `root`.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        let is_xen = root.read_line_permitted(TYPE)?.as_deref() == Some("xen");
        let guest = root.read_line_permitted(GUEST_TYPE)?;
        if (is_xen && guest.as_deref() == Some("PV")) || subarch(root)? == Some(SUBARCH_XEN) {
            return Ok(Self::XenPv { dom0: dom0(root)? });
        }
        if is_xen && dom0(root)? == Some(true) {
            return Ok(Self::XenDom0);
        }
        Ok(Self::of_release(&super::release(root)?))
    }

    /// `4.4.0-19041-Microsoft` is the first WSL, `5.15.90.1-microsoft-standard-WSL2` the second.
    fn of_release(release: &str) -> Self {
        if release.ends_with("-Microsoft") {
            Self::Wsl1
        } else if release.contains("-microsoft-") {
            Self::Wsl2
        } else {
            Self::Usual
        }
    }

    /// A name for people; `None` for the usual.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::Usual => None,
            Self::XenPv { dom0: Some(true) } => Some("Xen dom0 (PV)"),
            Self::XenPv { .. } => Some("Xen guest (PV)"),
            Self::XenDom0 => Some("Xen dom0 (PVH)"),
            Self::Wsl1 => Some("WSL 1"),
            Self::Wsl2 => Some("WSL 2"),
        }
    }

    /// Why no kernel can be loaded here, for `exec` or for a panic, by either call.
    #[must_use]
    pub const fn refuses(self) -> Option<Refusal> {
        let (why, way_out) = match self {
            Self::Usual | Self::Wsl2 => return None,
            Self::XenPv { dom0: Some(true) } => (
                "this is dom0 of Xen, a paravirtual (PV) guest: any load makes the running kernel \
                 oops, and kexec stays locked until the next reboot",
                "let Xen boot the next kernel, or the crash kernel: kexec-tools built with Xen \
                 support (libxenctrl) asks it to; crashkernel= goes on Xen's own command line, not \
                 on Linux's",
            ),
            Self::XenPv { dom0: Some(false) } => (
                "this is a paravirtual (PV) guest of Xen: any load makes the running kernel oops, \
                 and kexec stays locked until the next reboot",
                "reboot the guest, or make it a PVH or HVM guest, where kexec works",
            ),
            Self::XenPv { dom0: None } => (
                "this is a paravirtual (PV) guest of Xen: any load makes the running kernel oops, \
                 and kexec stays locked until the next reboot",
                "in dom0, kexec-tools built with Xen support (libxenctrl) asks Xen to boot the next \
                 kernel, and crashkernel= goes on Xen's own command line, not on Linux's; another \
                 guest can be made a PVH or HVM guest, where kexec works",
            ),
            Self::XenDom0 => (
                "this is dom0 of Xen: when it jumps into a loaded kernel, Xen resets the whole \
                 machine instead",
                "let Xen boot the next kernel, or the crash kernel: kexec-tools built with Xen \
                 support (libxenctrl) asks it to; crashkernel= goes on Xen's own command line, not \
                 on Linux's",
            ),
            Self::Wsl1 => (
                "this is WSL 1, where Windows answers the system calls: there is no Linux kernel to \
                 replace",
                "run rkexec on Linux itself",
            ),
        };
        let evidence = match self {
            Self::Wsl1 => "/proc/sys/kernel/osrelease",
            _ => "/sys/hypervisor, /proc/xen/capabilities, /sys/kernel/boot_params",
        };
        Some(Refusal {
            why,
            way_out,
            evidence,
        })
    }

    /// What may go wrong here although nothing forbids a load.
    #[must_use]
    pub const fn warning(self) -> Option<&'static str> {
        match self {
            Self::Wsl2 => Some(
                "this is WSL 2: Windows loses the connection to a kernel that it did not start itself",
            ),
            _ => None,
        }
    }
}

/// Whether this is dom0: by xenfs where it is mounted, else by the UUID.
fn dom0(root: &Root) -> Result<Option<bool>, HostError> {
    if let Some(line) = root.read_line_permitted(CAPABILITIES)? {
        return Ok(Some(line.split(',').any(|word| word == "control_d")));
    }
    let uuid = root.read_line_permitted(UUID)?;
    Ok(uuid.map(|uuid| uuid == UUID_OF_DOM0))
}

/// `hardware_subarch` of the boot_params that the running kernel shows.
fn subarch(root: &Root) -> Result<Option<u32>, HostError> {
    let Some(bytes) = root.read_permitted(BOOT_PARAMS)? else {
        return Ok(None);
    };
    // A file of another size is reported where boot_params are read as a whole.
    let field = bytes
        .get(HARDWARE_SUBARCH..)
        .filter(|_| bytes.len() == BOOT_PARAMS_SIZE)
        .and_then(|rest| u32::read_from_prefix(rest).ok());
    Ok(field.map(|(number, _)| u32::from_le(number)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &[u8])]) -> Environment {
        let dir = tempfile::tempdir().unwrap();
        let all = [("/proc/sys/kernel/osrelease", &b"6.12.0\n"[..])];
        for (file, content) in all.iter().chain(files) {
            let path = dir.path().join(file.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        Environment::read(&Root::at(dir.path())).unwrap()
    }

    #[test]
    fn guests_of_xen() {
        let xen = |more: &[(&str, &[u8])]| read(&[&[(TYPE, &b"xen\n"[..])], more].concat());
        let pv = |dom0| Environment::XenPv { dom0 };
        let guest = |kind: &'static [u8]| (GUEST_TYPE, kind);
        assert_eq!(xen(&[guest(b"PV\n")]), pv(None));
        let dom0_uuid = (UUID, UUID_OF_DOM0.as_bytes());
        assert_eq!(xen(&[guest(b"PV\n"), dom0_uuid]), pv(Some(true)));
        let other_uuid = (UUID, &b"5b8dc9b5-8fbd-4a5c-8d3e-2f3c1d4f3a55\n"[..]);
        assert_eq!(xen(&[guest(b"PV\n"), other_uuid]), pv(Some(false)));
        let control = (CAPABILITIES, &b"control_d\n"[..]);
        assert_eq!(xen(&[guest(b"PV\n"), control]), pv(Some(true)));
        let mounted = (CAPABILITIES, &b"\n"[..]);
        assert_eq!(xen(&[guest(b"PV\n"), mounted]), pv(Some(false)));
        assert_eq!(xen(&[guest(b"PVH\n"), control]), Environment::XenDom0);
        assert_eq!(xen(&[guest(b"PVH\n"), mounted]), Environment::Usual);
        assert_eq!(xen(&[guest(b"HVM\n")]), Environment::Usual);
        assert_eq!(read(&[(TYPE, b"other\n")]), Environment::Usual);
    }

    #[test]
    fn a_pv_guest_without_sysfs_of_xen() {
        let mut page = vec![0; BOOT_PARAMS_SIZE];
        assert_eq!(read(&[(BOOT_PARAMS, &page)]), Environment::Usual);
        page[HARDWARE_SUBARCH] = 2;
        let pv = Environment::XenPv { dom0: None };
        assert_eq!(read(&[(BOOT_PARAMS, &page)]), pv);
        page.truncate(0x240);
        assert_eq!(read(&[(BOOT_PARAMS, &page)]), Environment::Usual);
    }

    #[test]
    fn windows() {
        let of = Environment::of_release;
        assert_eq!(of("4.4.0-19041-Microsoft"), Environment::Wsl1);
        assert_eq!(of("5.15.90.1-microsoft-standard-WSL2"), Environment::Wsl2);
        assert_eq!(of("6.5.0-1025-azure"), Environment::Usual);
    }

    #[test]
    fn what_refuses_names_a_way_out() {
        let dom0 = Environment::XenPv { dom0: Some(true) };
        for xen in [dom0, Environment::XenDom0] {
            let refusal = xen.refuses().unwrap();
            assert!(refusal.way_out.contains("Xen's own command line"));
        }
        assert!(Environment::Wsl1.refuses().is_some());
        assert_eq!(Environment::Usual.refuses(), None);
        assert!(Environment::Wsl2.warning().is_some());
    }
}
