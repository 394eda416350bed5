//! What systemd-boot keeps in variables of the EFI firmware. They are only read.
//!
//! Source: the Boot Loader Interface of systemd. A value is text in UTF-16; efivarfs puts
//! four bytes of attributes before it.

use super::volumes::why;
use crate::entries::Problem;
use crate::host::{HostError, Root};

/// It is there on a machine that was booted by EFI.
const EFI: &str = "/sys/firmware/efi";
const DIRECTORY: &str = "/sys/firmware/efi/efivars";
const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// Most characters of a value: a file name on an EFI system partition has 255.
const MAX_TEXT: usize = 1024;
/// Bytes of the attributes.
const ATTRIBUTES: usize = 4;

/// The variables; `None`: not set, or not readable, which is a problem.
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
    /// Why the first of those that cannot be read cannot: the file or directory, and the problem.
    pub(super) problem: Option<(String, Problem)>,
}

impl Variables {
    pub(super) fn read(root: &Root) -> Self {
        let mut problem = unread(root);
        let mut get = |name: &str| {
            let path = format!("{DIRECTORY}/{name}-{VENDOR}");
            let read = root.read_optional(&path).map_err(|error| told(&error));
            let value = read.and_then(|bytes| match bytes {
                Some(bytes) => text(&bytes).map_err(str::to_owned),
                None => Ok(None),
            });
            value.unwrap_or_else(|why| {
                let what = format!(
                    "this EFI variable cannot be read ({why}): systemd-boot may start another entry"
                );
                problem.get_or_insert((path, Problem::NotSeen(what)));
                None
            })
        };
        Self {
            one_shot: get("LoaderEntryOneShot"),
            preferred: get("LoaderEntryPreferred"),
            default: get("LoaderEntryDefault"),
            last_booted: get("LoaderEntryLastBooted"),
            selected: get("LoaderEntrySelected"),
            partition: get("LoaderDevicePartUUID"),
            info: get("LoaderInfo"),
            problem,
        }
    }

    /// Whether systemd-boot started the running system.
    pub(super) fn is_systemd_boot(&self) -> bool {
        let info = self.info.as_deref();
        info.is_some_and(|info| info.starts_with("systemd-boot"))
    }
}

/// Why no variable can be read. That there are none is usual without EFI; with it, the
/// firmware's own are there.
fn unread(root: &Root) -> Option<(String, Problem)> {
    if matches!(root.list(EFI), Ok(None)) {
        return None;
    }
    let why = match root.list(DIRECTORY) {
        Ok(Some(names)) if !names.is_empty() => {
            // A capture has the variables that are read; this one says that there are some.
            let first = names.first().map(|name| format!("{DIRECTORY}/{name}"));
            root.keep_file(&first.unwrap_or_default(), b"");
            return None;
        }
        Ok(_) => {
            "efivarfs is not mounted there, or this kernel does not use EFI's services".to_owned()
        }
        Err(error) => told(&error),
    };
    let what =
        format!("EFI variables cannot be read ({why}): systemd-boot may start another entry");
    Some((DIRECTORY.to_owned(), Problem::NotSeen(what)))
}

/// Why a file was not read, without its name.
fn told(error: &HostError) -> String {
    match error {
        HostError::Read { source, .. } => why(source),
        other => other.to_string(),
    }
}

/// The text of a variable, UTF-16 up to a NUL; `None`: it is empty.
///
/// # Errors
/// When it is no text.
fn text(variable: &[u8]) -> Result<Option<String>, &'static str> {
    let bytes = variable.get(ATTRIBUTES..).ok_or("it is cut short")?;
    let (units, _) = bytes.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit));
    let units = units.take_while(|unit| *unit != 0).take(MAX_TEXT);
    let units: Vec<u16> = units.collect();
    let text = String::from_utf16(&units).map_err(|_| "it is not UTF-16")?;
    Ok((!text.is_empty()).then_some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_utf_16() {
        assert_eq!(text(b"attra\0\xe4\0\0\0b\0"), Ok(Some("aä".to_owned())));
        assert_eq!(text(b"attra\0b"), Ok(Some("a".to_owned())));
        for none in [&b"attr"[..], b"attr\0\0", b"attra"] {
            assert_eq!(text(none), Ok(None));
        }
        assert_eq!(text(b"attr\0\xd8a\0"), Err("it is not UTF-16"));
        assert_eq!(text(b"att"), Err("it is cut short"));
    }
}
