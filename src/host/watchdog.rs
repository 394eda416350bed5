//! Watchdogs: timers that reset the machine unless a program keeps them off.

use std::fmt::{self, Display, Formatter};

use super::{HostError, Root, text};

/// One directory for each device of the kernel's watchdog core.
const CLASS: &str = "/sys/class/watchdog";
/// /dev/watchdog: the first device of the core, or of a driver without it (ipmi_watchdog).
const ALIAS: &str = "/sys/class/misc/watchdog/dev";
/// A parameter of the core, Linux 5.7.
const STOP_ON_REBOOT: &str = "/sys/module/watchdog/parameters/stop_on_reboot";

/// The watchdogs of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watchdogs {
    /// Each one, in the order of their numbers.
    pub devices: Vec<Watchdog>,
    /// `watchdog.stop_on_reboot=` of the running kernel: whether it stops watchdogs when it
    /// reboots or jumps to another kernel. `None`: each driver decides.
    pub stop_on_reboot: Option<bool>,
}

/// A watchdog. A kernel without CONFIG_WATCHDOG_SYSFS tells only its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Watchdog {
    /// Its name below /dev.
    pub name: String,
    /// What its driver calls it.
    pub identity: Option<String>,
    /// A program has it running.
    pub active: Option<bool>,
    /// The time that is set, seconds.
    pub timeout: Option<u64>,
    /// The shortest time that it takes, seconds; `None` where the driver names none.
    pub min_timeout: Option<u64>,
    /// The longest time that it takes, seconds. A driver that has the kernel count what the
    /// hardware cannot names none.
    pub max_timeout: Option<u64>,
}

/// For people: `watchdog0 (iTCO_wdt)`.
impl Display for Watchdog {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        match &self.identity {
            Some(identity) => write!(out, "{} ({identity})", self.name),
            None => out.write_str(&self.name),
        }
    }
}

/// Name of a device whose driver does without the kernel's core for watchdogs.
pub const OUTSIDE: &str = "watchdog";

impl Watchdogs {
    /// Reads the facts below `root`.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        let names = root.list_permitted(CLASS)?.unwrap_or_default();
        let number = |name: &String| text::decimal(name.strip_prefix("watchdog")?);
        let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
        numbers.sort_unstable();
        // One that cannot be read is going away.
        let devices = numbers.iter().map(|number| device(root, *number));
        let mut devices: Vec<Watchdog> = devices.filter_map(Result::ok).collect();
        // The core's first device has this name, too, unless another driver took it.
        if numbers.first() != Some(&0) && root.read_line_permitted(ALIAS)?.is_some() {
            let other = Watchdog {
                name: OUTSIDE.to_owned(),
                ..Watchdog::default()
            };
            devices.insert(0, other);
        }
        let stop_on_reboot = match root.read_line_permitted(STOP_ON_REBOOT)?.as_deref() {
            Some("0") => Some(false),
            // -1 is the default.
            None | Some("-1") => None,
            Some(_) => Some(true),
        };
        Ok(Self {
            devices,
            stop_on_reboot,
        })
    }
}

fn device(root: &Root, number: u32) -> Result<Watchdog, HostError> {
    let name = format!("watchdog{number}");
    let file = |file: &str| format!("{CLASS}/{name}/{file}");
    let seconds = |name| text::optional_decimal::<u64>(root, &file(name));
    let state = root.read_line_permitted(&file("state"))?;
    Ok(Watchdog {
        identity: root.read_line_permitted(&file("identity"))?,
        active: state.map(|state| state == "active"),
        timeout: seconds("timeout")?,
        // 0: the driver sets no bound.
        min_timeout: seconds("min_timeout")?.filter(|bound| *bound > 0),
        max_timeout: seconds("max_timeout")?.filter(|bound| *bound > 0),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Watchdogs {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join("sys").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Watchdogs::read(&Root::at(dir.path())).unwrap()
    }

    #[test]
    fn none() {
        assert_eq!(machine(&[]), Watchdogs::default());
    }

    #[test]
    fn what_the_core_tells() {
        let found = machine(&[
            ("class/watchdog/watchdog10/identity", "IT87 WDT\n"),
            ("class/watchdog/watchdog10/max_timeout", "0\n"),
            ("class/watchdog/watchdog0/identity", "i6300ESB timer\n"),
            ("class/watchdog/watchdog0/state", "active\n"),
            ("class/watchdog/watchdog0/timeout", "30\n"),
            ("class/watchdog/watchdog0/min_timeout", "1\n"),
            ("class/watchdog/watchdog0/max_timeout", "2046\n"),
            ("class/watchdog/watchdog2/state", "inactive\n"),
            ("class/misc/watchdog/dev", "10:130\n"),
            ("module/watchdog/parameters/stop_on_reboot", "-1\n"),
        ]);
        let names: Vec<String> = found.devices.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "watchdog0 (i6300ESB timer)",
                "watchdog2",
                "watchdog10 (IT87 WDT)"
            ]
        );
        assert_eq!(
            found.devices[0],
            Watchdog {
                name: "watchdog0".to_owned(),
                identity: Some("i6300ESB timer".to_owned()),
                active: Some(true),
                timeout: Some(30),
                min_timeout: Some(1),
                max_timeout: Some(2046),
            }
        );
        assert_eq!(found.devices[1].active, Some(false));
        assert_eq!(found.devices[2].max_timeout, None);
        assert_eq!(found.stop_on_reboot, None);
    }

    #[test]
    fn a_driver_without_the_core() {
        let alias = ("class/misc/watchdog/dev", "10:130\n");
        let found = machine(&[alias, ("class/watchdog/watchdog1/timeout", "60\n")]);
        let names: Vec<String> = found.devices.iter().map(ToString::to_string).collect();
        assert_eq!(names, ["watchdog", "watchdog1"]);
    }

    #[test]
    fn the_policy_of_the_running_kernel() {
        let says = |text| machine(&[("module/watchdog/parameters/stop_on_reboot", text)]);
        assert_eq!(says("0\n").stop_on_reboot, Some(false));
        assert_eq!(says("1\n").stop_on_reboot, Some(true));
    }
}
