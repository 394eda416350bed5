//! What systemd-boot keeps in variables of the EFI firmware. They are only read.
//!
//! Source: the Boot Loader Interface of systemd. A value is text in UTF-16; efivarfs puts
//! four bytes of attributes before it.

use crate::host::Root;

const DIRECTORY: &str = "/sys/firmware/efi/efivars";
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Most characters of a value: a file name on an EFI system partition has 255.
const MAX_TEXT: usize = 1024;
/// Bytes of the attributes.
const ATTRIBUTES: usize = 4;

/// The variables; `None`: not set, or not readable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Variables {
    /// LoaderEntryOneShot: started at the next boot alone.
    pub(super) one_shot: Option<String>,
    /// LoaderEntryPreferred: as the default, unless it has no tries left.
    pub(super) preferred: Option<String>,
    /// LoaderEntryDefault.
    pub(super) default: Option<String>,
    /// LoaderEntryLastBooted: what `@saved` means.
    pub(super) last_booted: Option<String>,
    /// LoaderEntrySelected: what the running system was started from.
    pub(super) selected: Option<String>,
    /// LoaderDevicePartUUID: the partition that the boot loader was started from.
    pub(super) partition: Option<String>,
    /// LoaderInfo: the boot loader's name.
    info: Option<String>,
}

impl Variables {
    pub(super) fn read(root: &Root) -> Self {
        let get = |name: &str| {
            let path = format!("{DIRECTORY}/{name}-{VENDOR}");
            let bytes = root.read_permitted(&path).ok().flatten()?;
            text(bytes.get(ATTRIBUTES..)?)
        };
        Self {
            one_shot: get("LoaderEntryOneShot"),
            preferred: get("LoaderEntryPreferred"),
            default: get("LoaderEntryDefault"),
            last_booted: get("LoaderEntryLastBooted"),
            selected: get("LoaderEntrySelected"),
            partition: get("LoaderDevicePartUUID"),
            info: get("LoaderInfo"),
        }
    }

    /// Whether systemd-boot started the running system.
    pub(super) fn is_systemd_boot(&self) -> bool {
        let info = self.info.as_deref();
        info.is_some_and(|info| info.starts_with("systemd-boot"))
    }
}

/// Text in UTF-16 up to a NUL; `None`: it is empty or no text.
fn text(bytes: &[u8]) -> Option<String> {
    let (units, _) = bytes.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    let units = units.take_while(|unit| *unit != 0).take(MAX_TEXT);
    let units: Vec<u16> = units.collect();
    let text = String::from_utf16(&units).ok()?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_utf_16() {
        assert_eq!(text(b"a\0\xe4\0\0\0b\0"), Some("aä".to_owned()));
        assert_eq!(text(b"a\0b"), Some("a".to_owned()));
        for none in [&b""[..], b"\0\0", b"a", b"\0\xd8a\0"] {
            assert_eq!(text(none), None);
        }
    }
}
