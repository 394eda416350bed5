//! What is loaded now: /sys/kernel/kexec*.

use std::time::Duration;

use super::{HostError, Root, text};
use crate::base::retry;

/// How often to read a file when the kernel answers EBUSY, and the pause between two
/// reads: a load of an initrd takes some tenths of a second.
const BUSY_TRIES: u32 = 40;
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// Loaded states and the crash kernel's reservation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Loaded {
    /// A kernel for `exec` is loaded; `None` without CONFIG_KEXEC_CORE.
    pub normal: Option<bool>,
    /// /sys/kernel has files: one that is missing there is a fact.
    #[serde(skip)]
    pub has_sysfs: bool,
    /// A crash kernel is loaded; `None` without CONFIG_CRASH_DUMP.
    pub crash: Option<bool>,
    /// Size of the crash kernel's reservation in bytes.
    pub crash_size: Option<u64>,
    /// The kernel did not tell that size, for a load is under way.
    pub busy: bool,
    /// crash_elfcorehdr_size: the kernel can update elfcorehdr itself.
    pub crash_elfcorehdr_size: Option<u64>,
    /// The kernel updates the loaded crash image when CPUs come or go
    /// (/sys/devices/system/cpu/crash_hotplug, Linux 6.6).
    pub crash_hotplug_cpu: Option<bool>,
    /// The same for memory (/sys/devices/system/memory/crash_hotplug).
    pub crash_hotplug_memory: Option<bool>,
}

impl Loaded {
    /// Whether the kernel updates the loaded crash image itself; `None` where it
    /// does not tell. It is one answer: where CPUs (or memory) cannot come and go,
    /// that file is missing or says no.
    #[must_use]
    pub fn kernel_updates(&self) -> Option<bool> {
        let told = [self.crash_hotplug_cpu, self.crash_hotplug_memory];
        told.into_iter().flatten().reduce(|one, other| one || other)
    }

    /// Whether a crash kernel is loaded now, as `crash`: the kernel answers that while a
    /// load is under way, too.
    ///
    /// # Errors
    /// When the file is there and cannot be read, or is malformed.
    pub fn is_crash_loaded(root: &Root) -> Result<Option<bool>, HostError> {
        let names = ["kexec/crash_loaded", "kexec_crash_loaded"];
        either(names, |path| text::optional_bool(root, path))
    }

    /// Reads the states below `root`: /sys/kernel/kexec/ (6.19 and later) or the older names.
    ///
    /// # Errors
    /// When a file is there and malformed. A kernel that is busy is a fact, not an error.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        let hotplug = |subsystem: &str| {
            let path = format!("/sys/devices/system/{subsystem}/crash_hotplug");
            text::optional_bool(root, &path)
        };
        let flag = |names| either(names, |path| text::optional_bool(root, path));
        let size = |names| either(names, |path| text::optional_decimal(root, path));
        let (crash_size, busy) = unless_busy(patiently(std::thread::sleep, || {
            size(["kexec/crash_size", "kexec_crash_size"])
        }))?;
        let names = root.list_permitted("/sys/kernel").ok().flatten();
        Ok(Self {
            normal: flag(["kexec/loaded", "kexec_loaded"])?,
            has_sysfs: names.is_some_and(|names| !names.is_empty()),
            crash: Self::is_crash_loaded(root)?,
            crash_size,
            busy,
            crash_elfcorehdr_size: size(["kexec/crash_elfcorehdr_size", "crash_elfcorehdr_size"])?,
            crash_hotplug_cpu: hotplug("cpu")?,
            crash_hotplug_memory: hotplug("memory")?,
        })
    }
}

/// Turns EBUSY into a fact: a load or an update after hotplug is under way
/// (`crash_get_memory_size`).
fn unless_busy(size: Result<Option<u64>, HostError>) -> Result<(Option<u64>, bool), HostError> {
    match size {
        Err(error) if error.is_busy() => Ok((None, true)),
        size => size.map(|size| (size, false)),
    }
}

/// Reads again while the kernel says EBUSY, at most [`BUSY_TRIES`] times.
fn patiently<T>(
    sleep: impl FnMut(Duration),
    read: impl FnMut() -> Result<T, HostError>,
) -> Result<T, HostError> {
    retry::patiently(BUSY_TRIES, BUSY_WAIT, sleep, HostError::is_busy, read)
}

/// The value of the first of two files below /sys/kernel that has one.
fn either<T>(
    names: [&str; 2],
    read: impl Fn(&str) -> Result<Option<T>, HostError>,
) -> Result<Option<T>, HostError> {
    for name in names {
        if let Some(value) = read(&format!("/sys/kernel/{name}"))? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn who_updates_the_crash_image() {
        let says = |crash_hotplug_cpu, crash_hotplug_memory| {
            let loaded = Loaded {
                crash_hotplug_cpu,
                crash_hotplug_memory,
                ..Loaded::default()
            };
            loaded.kernel_updates()
        };
        assert_eq!(says(None, None), None);
        assert_eq!(says(Some(false), Some(true)), Some(true));
        assert_eq!(says(Some(false), Some(false)), Some(false));
        assert_eq!(says(None, Some(false)), Some(false));
    }

    #[test]
    fn a_busy_kernel_is_waited_for() {
        let asked = |busy_for: u32, error: i32| {
            let (mut reads, mut waited) = (0, Duration::ZERO);
            let result = patiently(
                |time| waited += time,
                || {
                    reads += 1;
                    match reads <= busy_for {
                        true => Err(HostError::Read {
                            path: "x".to_owned(),
                            source: io::Error::from_raw_os_error(error),
                        }),
                        false => Ok(()),
                    }
                },
            );
            (result.is_ok(), reads, waited)
        };
        assert_eq!(asked(0, libc::EBUSY), (true, 1, Duration::ZERO));
        assert_eq!(asked(3, libc::EBUSY), (true, 4, 3 * BUSY_WAIT));
        assert_eq!(asked(99, libc::EBUSY), (false, 40, 39 * BUSY_WAIT));
        assert_eq!(asked(1, libc::EIO), (false, 1, Duration::ZERO));
    }

    #[test]
    fn a_kernel_that_stays_busy_is_a_fact() {
        let failed = |error: i32| {
            unless_busy(Err(HostError::Read {
                path: "x".to_owned(),
                source: io::Error::from_raw_os_error(error),
            }))
        };
        assert_eq!(failed(libc::EBUSY).unwrap(), (None, true));
        assert!(failed(libc::EIO).is_err());
        assert_eq!(unless_busy(Ok(Some(7))).unwrap(), (Some(7), false));
    }

    #[test]
    fn new_names_go_before_old_ones() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        assert_eq!(Loaded::read(&root).unwrap(), Loaded::default());
        let kernel = dir.path().join("sys/kernel");
        std::fs::create_dir_all(kernel.join("kexec")).unwrap();
        let write = |file: &str, text: &str| std::fs::write(kernel.join(file), text).unwrap();
        write("kexec_loaded", "1\n");
        write("kexec_crash_loaded", "0\n");
        write("kexec_crash_size", "268435456\n");
        write("crash_elfcorehdr_size", "462448\n");
        assert_eq!(
            Loaded::read(&root).unwrap(),
            Loaded {
                normal: Some(true),
                has_sysfs: true,
                crash: Some(false),
                crash_size: Some(256 << 20),
                crash_elfcorehdr_size: Some(462_448),
                ..Loaded::default()
            }
        );
        write("kexec/loaded", "0\n");
        write("kexec/crash_loaded", "1\n");
        write("kexec/crash_size", "0\n");
        write("kexec/crash_elfcorehdr_size", "917616\n");
        for (subsystem, says) in [("cpu", "1\n"), ("memory", "0\n")] {
            let devices = dir.path().join("sys/devices/system").join(subsystem);
            std::fs::create_dir_all(&devices).unwrap();
            std::fs::write(devices.join("crash_hotplug"), says).unwrap();
        }
        assert_eq!(
            Loaded::read(&root).unwrap(),
            Loaded {
                normal: Some(false),
                has_sysfs: true,
                crash: Some(true),
                crash_size: Some(0),
                busy: false,
                crash_elfcorehdr_size: Some(917_616),
                crash_hotplug_cpu: Some(true),
                crash_hotplug_memory: Some(false),
            }
        );
        write("kexec/loaded", "2\n");
        assert_eq!(
            Loaded::read(&root).unwrap_err().to_string(),
            "/sys/kernel/kexec/loaded: `2` is neither 0 nor 1"
        );
    }
}
