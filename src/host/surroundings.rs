//! What a kexec leaves behind and finds again: file systems, devices, consoles, services.
//!
//! A plan needs none of it. `doctor` looks at it, and `capture` keeps it.

use super::console::Consoles;
use super::mapped_devices::{self, MappedDevice};
use super::mounts::{self, Mount};
use super::pci::{self, PciDevice};
use super::services::{DumpPlace, Services};
use super::{HostError, Root, cpu, text};
use crate::base::Target;

/// The security modules, separated by commas.
const MODULES: &str = "/sys/kernel/security/lsm";
/// Whether LoadPin refuses, or only reports (security/loadpin/loadpin.c).
const ENFORCES: &str = "/proc/sys/kernel/loadpin/enforce";

/// The facts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// The file systems with storage that can be written to, each once.
    pub mounts: Vec<Mount>,
    /// The PCI devices that a driver has.
    pub pci: Vec<PciDevice>,
    /// Consoles and framebuffers.
    pub consoles: Consoles,
    /// Services that have to do with kexec.
    pub services: Services,
    /// Devices of the device mapper.
    pub mapped: Vec<MappedDevice>,
    /// Where a dump goes; `None`: nobody asked about a crash kernel, or it is not known.
    pub dump: Option<DumpPlace>,
    /// LoadPin, a security module, is on and enforces: it lets no kernel in that is not a
    /// file on the disk that it pinned.
    pub load_pin: bool,
    /// By what the running kernel keeps its time, as `tsc`.
    pub clock_source: Option<String>,
    /// What it could keep its time by.
    pub clock_sources: Vec<String>,
    /// Why some of these are not known.
    pub unread: Vec<String>,
}

impl Surroundings {
    /// Reads the facts below `root` that a load for `target` is asked about. What cannot be
    /// read is as if it were not there, and `unread` says so.
    #[must_use]
    pub fn read(root: &Root, target: Target) -> Self {
        let mut unread = Vec::new();
        let failed = &mut unread;
        let (clock_source, clock_sources) = known(failed, cpu::clock_sources(root));
        let mounts = known(failed, mounts::all(root)).map(mounts::with_storage);
        let is_crash = target == Target::Crash;
        Self {
            mounts: mounts.unwrap_or_default(),
            pci: known(failed, pci::read(root)),
            consoles: known(failed, Consoles::read(root)),
            services: known(failed, Services::read(root)),
            mapped: known(failed, mapped_devices::read(root)),
            dump: is_crash
                .then(|| known(failed, DumpPlace::read(root).map(Some)))
                .flatten(),
            load_pin: known(failed, load_pin(root)),
            clock_source,
            clock_sources,
            unread,
        }
    }
}

/// What was read; or nothing, and why not goes to `unread`, once.
fn known<T: Default>(unread: &mut Vec<String>, read: Result<T, HostError>) -> T {
    read.unwrap_or_else(|error| {
        let why = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        if !unread.contains(&why) {
            unread.push(why);
        }
        T::default()
    })
}

fn load_pin(root: &Root) -> Result<bool, HostError> {
    let modules = root.read_line_permitted(MODULES)?.unwrap_or_default();
    let is_there = modules.split(',').any(|module| module == "loadpin");
    // Without the sysctl it cannot be switched off.
    Ok(is_there && text::optional_bool(root, ENFORCES)? != Some(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `capture` copies gives the same facts.
    #[test]
    fn a_copy_of_what_was_read_says_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let write = |dir: &std::path::Path, file: &str, bytes: &[u8]| {
            let path = dir.join(file.trim_start_matches('/'));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        };
        let clock = "sys/devices/system/clocksource/clocksource0";
        for (file, text) in [
            (
                "proc/self/mountinfo",
                "28 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
            ),
            ("proc/fb", "0 i915drmfb\n"),
            ("sys/class/tty/console/active", "tty0 ttyS0\n"),
            ("sys/class/tty/ttyS0/type", "4\n"),
            ("sys/class/tty/tty7/dev", "4:7\n"),
            ("sys/bus/pci/devices/0000:00:02.0/uevent", "DRIVER=i915\n"),
            ("sys/class/block/dm-0/dev", "254:0\n"),
            ("sys/class/block/dm-0/dm/name", "root\n"),
            ("sys/class/block/dm-0/slaves/sda1/dev", "8:1\n"),
            ("sys/kernel/security/lsm", "lockdown,loadpin\n"),
            ("etc/systemd/system/a.wants/kdump.service", "[Unit]\n"),
            ("run/systemd/system/x", ""),
            ("etc/kdump.conf", "path /srv\n"),
            ("var/crash-statvfs", "77\n"),
            (&format!("{clock}/current_clocksource"), "hpet\n"),
            (&format!("{clock}/available_clocksource"), "hpet acpi_pm\n"),
        ] {
            write(dir.path(), file, text.as_bytes());
        }
        let root = Root::at(dir.path()).recorder();
        let found = Surroundings::read(&root, Target::Crash);
        assert_eq!(found.unread, [""; 0]);
        assert!(found.load_pin && found.services.systemd);
        assert_eq!(found.dump.as_ref().unwrap().free, Some(77));
        assert_eq!(found.clock_sources, ["hpet", "acpi_pm"]);
        let record = root.into_recording();
        let copy = tempfile::tempdir().unwrap();
        for directory in &record.directories {
            std::fs::create_dir_all(copy.path().join(directory.trim_start_matches('/'))).unwrap();
        }
        for (file, bytes) in &record.files {
            write(copy.path(), file, bytes);
        }
        let again = |dir: &std::path::Path| Surroundings::read(&Root::at(dir), Target::Crash);
        assert_eq!(again(copy.path()), found);
        write(dir.path(), "proc/sys/kernel/loadpin/enforce", b"0\n");
        assert!(!again(dir.path()).load_pin);
        // One odd fact takes no other away.
        write(dir.path(), "sys/class/block/dm-0/dm/name", b"\xff\n");
        let odd = again(dir.path());
        assert_eq!((odd.mapped, odd.mounts), (Vec::new(), found.mounts));
        assert_eq!(
            odd.unread,
            ["/sys/class/block/dm-0/dm/name: not UTF-8 text"]
        );
        let for_exec = Surroundings::read(&Root::at(dir.path()), Target::Normal);
        assert_eq!(for_exec.dump, None);
    }
}
