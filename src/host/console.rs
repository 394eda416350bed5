//! What the running kernel shows its messages on: consoles, serial ports, the screen.

use super::serial::CONSOLES;
use super::{HostError, Root, text};

const TERMINALS: &str = "/sys/class/tty";
/// One line for each framebuffer, `NUMBER NAME` (`fb_seq_show` in
/// drivers/video/fbdev/core/fb_procfs.c).
const FRAMEBUFFERS: &str = "/proc/fb";
/// What a framebuffer of a DRM driver is called at its end (drivers/gpu/drm/drm_fb_helper.c).
const OF_DRM: &str = "drmfb";
/// Framebuffers of DRM that draw into what the firmware set up, and change nothing.
const OF_FIRMWARE: [&str; 4] = ["simpledrm", "ofdrm", "efidrm", "vesadrm"];

/// The consoles of a machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consoles {
    /// The names of those that are active, as `ttyS0`; the last one is /dev/console.
    pub active: Vec<String>,
    /// Each `ttyS`, and whether there is a UART behind it, as far as the kernel tells.
    pub serial: Vec<(String, bool)>,
    /// The names of the framebuffers.
    pub framebuffers: Vec<String>,
}

impl Consoles {
    /// Reads the facts below `root`.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        let active = root.read_line_permitted(CONSOLES)?.unwrap_or_default();
        let names = root.list_permitted(TERMINALS)?.unwrap_or_default();
        let number = |name: &String| text::decimal(name.strip_prefix("ttyS")?);
        let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
        numbers.sort_unstable();
        let mut serial = Vec::new();
        for number in numbers {
            let name = format!("ttyS{number}");
            // PORT_UNKNOWN (include/uapi/linux/serial_core.h) is 0: no UART was found.
            let kind = text::optional_decimal::<u32>(root, &format!("{TERMINALS}/{name}/type"))?;
            serial.extend(kind.map(|kind| (name, kind != 0)));
        }
        let framebuffers = root.read_permitted(FRAMEBUFFERS)?.unwrap_or_default();
        let framebuffers = String::from_utf8_lossy(&framebuffers);
        let framebuffers = framebuffers.lines().filter_map(|line| line.split_once(' '));
        Ok(Self {
            active: active.split_ascii_whitespace().map(str::to_owned).collect(),
            serial,
            framebuffers: framebuffers.map(|(_, name)| name.to_owned()).collect(),
        })
    }

    /// Whether there is a UART behind `name`, for instance `ttyS0`; `None`: not known.
    #[must_use]
    pub fn has_uart(&self, name: &str) -> Option<bool> {
        match self.serial.iter().find(|(known, _)| known == name) {
            Some((_, there)) => Some(*there),
            // A port that the kernel has not even as an empty place.
            None if !self.serial.is_empty() && name.starts_with("ttyS") => Some(false),
            None => None,
        }
    }

    /// The framebuffer of a driver for the graphics card itself, which is no more in the
    /// state that the firmware left.
    #[must_use]
    pub fn of_driver(&self) -> Option<&str> {
        let is_one = |name: &&String| {
            let driver = name.strip_suffix(OF_DRM);
            driver.is_some_and(|driver| !OF_FIRMWARE.contains(&driver))
        };
        self.framebuffers.iter().find(is_one).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Consoles {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Consoles::read(&Root::at(dir.path())).unwrap()
    }

    #[test]
    fn serial_ports_with_and_without_a_uart() {
        let found = machine(&[
            ("sys/class/tty/console/active", "tty0 ttyS0\n"),
            ("sys/class/tty/ttyS0/type", "4\n"),
            ("sys/class/tty/ttyS1/type", "0\n"),
            ("sys/class/tty/ttyS10/port", "0x0\n"),
        ]);
        assert_eq!(found.active, ["tty0", "ttyS0"]);
        assert_eq!(found.has_uart("ttyS0"), Some(true));
        assert_eq!(found.has_uart("ttyS1"), Some(false));
        assert_eq!(found.has_uart("ttyS9"), Some(false));
        assert_eq!(found.has_uart("hvc0"), None);
        assert_eq!(machine(&[]).has_uart("ttyS0"), None);
    }

    #[test]
    fn framebuffers_of_the_firmware_and_of_a_driver() {
        let of = |text| machine(&[("proc/fb", text)]);
        assert_eq!(of("0 EFI VGA\n").of_driver(), None);
        assert_eq!(of("0 simpledrmdrmfb\n").of_driver(), None);
        assert_eq!(of("0 i915drmfb\n").of_driver(), Some("i915drmfb"));
        assert_eq!(of("").framebuffers, [""; 0]);
    }
}
