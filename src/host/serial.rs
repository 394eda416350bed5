//! The UART behind the running kernel's console.

use super::{HostError, Root, text};

pub(super) const CONSOLES: &str = "/sys/class/tty/console/active";
/// serial_core's UPIO_PORT (include/linux/serial_core.h): reached by in and out.
const UPIO_PORT: u32 = 0;
/// I/O ports of ttyS0 to ttyS3 (arch/x86/include/asm/serial.h).
const LEGACY_PORTS: [u16; 4] = [0x3f8, 0x2f8, 0x3e8, 0x2e8];

/// First I/O port of `ttyS0` to `ttyS3`, as a PC has them.
#[must_use]
pub fn legacy_port(name: &str) -> Option<u16> {
    let line = usize::try_from(text::decimal(name.strip_prefix("ttyS")?)?).ok()?;
    LEGACY_PORTS.get(line).copied()
}

/// A 16550 that is reached through I/O ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialPort {
    /// Name of the terminal, for instance `ttyS0`.
    pub name: String,
    /// First I/O port.
    pub port: u16,
}

/// The last console that is such a port: the last console is /dev/console.
pub(super) fn read(root: &Root) -> Result<Option<SerialPort>, HostError> {
    let Some(active) = root.read_line_permitted(CONSOLES)? else {
        return Ok(None);
    };
    for name in active.split_ascii_whitespace().rev() {
        // Only a whole number may follow: the name becomes part of a path.
        let Some(line) = name.strip_prefix("ttyS").and_then(text::decimal) else {
            continue;
        };
        if let Some(port) = io_port(root, line)? {
            return Ok(Some(SerialPort {
                name: name.to_owned(),
                port,
            }));
        }
    }
    Ok(None)
}

/// The I/O port of `ttyS<line>`; `None` when it is reached in another way.
fn io_port(root: &Root, line: u32) -> Result<Option<u16>, HostError> {
    let dir = format!("/sys/class/tty/ttyS{line}");
    let io_type: Option<u32> = text::optional_decimal(root, &format!("{dir}/io_type"))?;
    if io_type.is_some_and(|io_type| io_type != UPIO_PORT) {
        return Ok(None);
    }
    Ok(match text::optional_0x(root, &format!("{dir}/port"))? {
        // 0 is a UART in memory, or none at all.
        Some(0) => None,
        Some(port) => u16::try_from(port).ok(),
        None => usize::try_from(line)
            .ok()
            .and_then(|line| LEGACY_PORTS.get(line).copied()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Result<Option<(String, u16)>, String> {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in files {
            let path = dir.path().join("sys/class/tty").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
        read(&Root::at(dir.path()))
            .map(|port| port.map(|port| (port.name, port.port)))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_last_port_among_the_consoles() {
        let port = |name: &str, port| Ok(Some((name.to_owned(), port)));
        assert_eq!(machine(&[]), Ok(None));
        assert_eq!(machine(&[("console/active", "tty0")]), Ok(None));
        let active = ("console/active", "ttyS0 ttyS1 tty0");
        assert_eq!(machine(&[active]), port("ttyS1", 0x2f8));
        assert_eq!(
            machine(&[active, ("ttyS1/port", "0xE0F8"), ("ttyS1/io_type", "0")]),
            port("ttyS1", 0xe0f8)
        );
        assert_eq!(
            machine(&[active, ("ttyS1/port", "0x0"), ("ttyS1/io_type", "2")]),
            port("ttyS0", 0x3f8)
        );
        assert_eq!(
            machine(&[("console/active", "ttyS4"), ("ttyS4/io_type", "0")]),
            Ok(None)
        );
        assert_eq!(
            machine(&[("console/active", "ttyS4"), ("ttyS4/port", "0x10000")]),
            Ok(None)
        );
        assert_eq!(machine(&[("console/active", "ttyS0/../x ttyS")]), Ok(None));
    }

    #[test]
    fn malformed_files_are_named() {
        let active = ("console/active", "ttyS0");
        assert_eq!(
            machine(&[active, ("ttyS0/port", "3F8")]),
            Err("/sys/class/tty/ttyS0/port: `3F8` is not a number 0x…".to_owned())
        );
    }
}
