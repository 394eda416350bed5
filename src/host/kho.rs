//! Kexec Handover (KHO): whether the running kernel has it, whether it is on, and
//! what it preserves.
//!
//! The word `kho=` alone says nothing: a kernel without KHO ignores it, and a kernel
//! with CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT needs none. debugfs shows the truth, and
//! it may not be mounted.

use bstr::{BStr, BString, ByteSlice as _};

use super::security::RunningConfig;
use super::{HostError, Root, boot_params, cpu};
use crate::cmdline;

/// What every x86 kernel has in debugfs (arch/x86/kernel/kdebugfs.c).
const DEBUGFS: &str = "/sys/kernel/debug/x86";
const SHOWN: &str = "/sys/kernel/debug/kho";
/// The blobs that it hands over, by name.
const BLOBS: &str = "/sys/kernel/debug/kho/out/sub_fdts";
/// The blob that every kernel with KHO hands over, and whose loss does no harm.
const METADATA: &str = "kexec-metadata";
/// SETUP_KEXEC_KHO (arch/x86/include/uapi/asm/setup_data.h).
const SETUP_KEXEC_KHO: u32 = 10;
/// The first kernel with KHO.
const SINCE: (u32, u32) = (6, 16);

/// Kexec Handover of the running kernel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kho {
    /// It is on.
    pub on: bool,
    /// The fact that says so.
    pub why: String,
    /// What it preserves besides its own metadata; `None` when that is not visible.
    pub preserved: Option<Vec<String>>,
}

impl Kho {
    /// Reads the facts below `root`. `config` is the running kernel's configuration.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(root: &Root, config: &RunningConfig) -> Result<Self, HostError> {
        let facts = Facts::read(root, config)?;
        let (on, why) = facts.on();
        Ok(Self {
            on,
            why,
            preserved: if on { facts.preserved } else { None },
        })
    }

    /// Why kexec_load, which hands over no KHO data, would lose some; `None` when it would not.
    #[must_use]
    pub fn forbids_kexec_load(&self) -> Option<String> {
        if !self.on {
            return None;
        }
        match self.preserved.as_deref() {
            Some([]) => None,
            Some(names) => Some(format!(
                "Kexec Handover (KHO) preserves {}, and kexec_load would drop it",
                names.join(" and ")
            )),
            None => Some(format!(
                "Kexec Handover (KHO) is on ({}), and kexec_load would drop what it preserves; what \
                 that is only debugfs shows ({BLOBS})",
                self.why
            )),
        }
    }
}

/// What the machine says of it.
#[derive(Debug, Default)]
struct Facts {
    release: String,
    cmdline: BString,
    /// debugfs is mounted, and this process may look into it.
    debugfs: bool,
    /// debugfs shows KHO.
    shown: bool,
    /// The blobs that debugfs shows, or that words of the command line always make.
    preserved: Option<Vec<String>>,
    /// This kernel was given KHO data by the one before.
    booted_with: bool,
    /// There is CMA memory that no area of CMA accounts for: the scratch memory.
    scratch: bool,
    config: RunningConfig,
}

impl Facts {
    fn read(root: &Root, config: &RunningConfig) -> Result<Self, HostError> {
        let cmdline = super::cmdline::read(root)?;
        let shown = root.list_permitted(SHOWN)?.is_some();
        let blobs = blobs(root)?;
        let debugfs = root.list_permitted(DEBUGFS)?.is_some();
        let running = boot_params::read(root)?;
        Ok(Self {
            release: super::release(root)?,
            preserved: blobs
                .or_else(|| Some(by_words(cmdline.as_bstr())).filter(|names| !names.is_empty())),
            debugfs,
            shown,
            booted_with: running.is_some_and(|running| {
                running
                    .setup_data
                    .iter()
                    .any(|node| node.kind == SETUP_KEXEC_KHO)
            }),
            scratch: cpu::has_unaccounted_cma(root),
            config: config.clone(),
            cmdline,
        })
    }

    /// Whether it is on, and the fact that says so.
    fn on(&self) -> (bool, String) {
        let says = |on, why: &str| (on, why.to_owned());
        if self.config.kexec_handover == Some(false) {
            return says(false, "the running kernel is built without it");
        }
        let version = crate::base::version(&self.release);
        let is_known = self.shown || self.config.kexec_handover == Some(true);
        if !is_known && version.is_none_or(|version| version < SINCE) {
            return (
                false,
                format!("Linux {} has none: it came with 6.16", self.release),
            );
        }
        if self.has_word("elfcorehdr") && version >= Some((7, 3)) {
            return says(false, "a crash kernel switches it off");
        }
        let word = word(self.cmdline.as_bstr(), "kho");
        match (word, self.shown) {
            (Some(false), _) => return says(false, "kho=off on the command line"),
            (Some(true), true) => return says(true, "kho=on on the command line"),
            (None, true) => return (true, format!("{SHOWN} is there")),
            // With the config option set but no directory, KHO found no memory at boot.
            (_, false) if self.debugfs && self.config.kexec_handover_debugfs == Some(true) => {
                return (false, format!("{SHOWN} is not there"));
            }
            (Some(true), false) => return says(true, "kho=on on the command line"),
            (None, false) => {}
        }
        match self.config.kexec_handover_default {
            Some(true) => says(true, "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT"),
            Some(false) => says(false, "it is off by default, and there is no kho=on"),
            None if self.scratch => says(
                true,
                "its scratch memory is there: CmaFree exceeds CmaTotal",
            ),
            None if self.booted_with => says(
                true,
                "this kernel was itself started with handed-over state",
            ),
            None => says(false, "nothing shows that it is on"),
        }
    }

    fn has_word(&self, parameter: &str) -> bool {
        cmdline::has(&self.cmdline, parameter)
    }
}

/// The names of the blobs but that of the metadata; `None` when they are not visible.
fn blobs(root: &Root) -> Result<Option<Vec<String>>, HostError> {
    let Some(names) = root.list_permitted(BLOBS)? else {
        return Ok(None);
    };
    let mut blobs = Vec::new();
    for name in names.into_iter().filter(|name| name != METADATA) {
        // Read the blob so that `capture` copies it.
        root.read_permitted(&format!("{BLOBS}/{name}"))?;
        blobs.push(name);
    }
    Ok(Some(blobs))
}

/// What KHO always preserves because of words on the command line.
fn by_words(line: &BStr) -> Vec<String> {
    let reserves = cmdline::value(line, "reserve_mem").is_some();
    let updates = word(line, "liveupdate") == Some(true);
    let named = [
        (updates, "LUO (liveupdate=)"),
        (reserves, "memblock (reserve_mem=)"),
    ];
    let names = named.into_iter().filter(|(holds, _)| *holds);
    names.map(|(_, name)| name.to_owned()).collect()
}

/// The last valid truth value of a parameter: the one that counts.
fn word(line: &BStr, parameter: &str) -> Option<bool> {
    cmdline::values(line, parameter)
        .filter_map(kstrtobool)
        .last()
}

/// lib/kstrtox.c: only the first letter counts, or the first two of `on` and `off`.
fn kstrtobool(word: &BStr) -> Option<bool> {
    let mut letters = word.iter().map(|letter| letter.to_ascii_lowercase());
    match letters.next()? {
        b'e' | b'y' | b't' | b'1' => Some(true),
        b'd' | b'n' | b'f' | b'0' => Some(false),
        b'o' => match letters.next()? {
            b'n' => Some(true),
            b'f' => Some(false),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel with KHO of which nothing else is known.
    fn new(cmdline: &str) -> Facts {
        Facts {
            release: "7.2.13-amd64".to_owned(),
            cmdline: cmdline.into(),
            ..Facts::default()
        }
    }

    fn built(default: bool) -> RunningConfig {
        RunningConfig {
            kexec_handover: Some(true),
            kexec_handover_default: Some(default),
            kexec_handover_debugfs: Some(true),
            ..RunningConfig::default()
        }
    }

    #[test]
    fn the_last_valid_word_counts() {
        for on in ["kho=on", "quiet kho=1\n", "kho=y", "kho=off kho=on"] {
            assert_eq!(new(on).on(), (true, "kho=on on the command line".into()));
        }
        for off in ["", "kho=off", "kho=0", "kho=on kho=n", "kho", "xkho=on"] {
            assert!(!new(off).on().0, "{off}");
        }
    }

    #[test]
    fn a_kernel_without_it_does_not_mind_the_word() {
        let old = |release: &str| {
            let facts = Facts {
                release: release.to_owned(),
                ..new("kho=on")
            };
            facts.on()
        };
        assert_eq!(
            old("6.1.0-51-amd64"),
            (
                false,
                "Linux 6.1.0-51-amd64 has none: it came with 6.16".into()
            )
        );
        assert!(!old("6.15.9").0 && old("6.16.0").0);
        let without = Facts {
            config: RunningConfig {
                kexec_handover: Some(false),
                ..RunningConfig::default()
            },
            ..new("kho=on")
        };
        assert_eq!(
            without.on(),
            (false, "the running kernel is built without it".into())
        );
        // A distributor may bring it to an older kernel.
        let backported = Facts {
            release: "6.12.0-99.el10".to_owned(),
            config: built(false),
            ..new("kho=on")
        };
        assert!(backported.on().0);
    }

    #[test]
    fn on_by_default() {
        let mut facts = Facts {
            config: built(true),
            ..new("")
        };
        assert_eq!(
            facts.on(),
            (true, "CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT".into())
        );
        // debugfs would show it.
        facts.debugfs = true;
        assert!(!facts.on().0);
        facts.shown = true;
        assert!(facts.on().0);
        facts.cmdline = "kho=off".into();
        assert!(!facts.on().0);
        let off = Facts {
            config: built(false),
            scratch: true,
            ..new("")
        };
        assert!(!off.on().0);
    }

    #[test]
    fn what_shows_where_no_configuration_is_found() {
        let scratch = Facts {
            scratch: true,
            ..new("")
        };
        assert!(scratch.on().1.contains("CmaFree"));
        let chained = Facts {
            booted_with: true,
            ..new("")
        };
        assert!(chained.on().0);
        // A kernel without KHO shows the node as well.
        let old = Facts {
            release: "6.12.1".to_owned(),
            booted_with: true,
            ..new("")
        };
        assert!(!old.on().0);
        let captured = new("kho=on elfcorehdr=0x1000");
        assert!(captured.on().0);
        let captured = Facts {
            release: "7.3.4".to_owned(),
            ..captured
        };
        assert!(!captured.on().0);
    }

    #[test]
    fn what_is_preserved_forbids_kexec_load() {
        let kho = |preserved: Option<&[&str]>| Kho {
            on: true,
            why: "kho=on".into(),
            preserved: preserved.map(|names| names.iter().map(|&name| name.into()).collect()),
        };
        assert_eq!(kho(Some(&[])).forbids_kexec_load(), None);
        assert_eq!(
            kho(Some(&["LUO", "memblock"]))
                .forbids_kexec_load()
                .unwrap(),
            "Kexec Handover (KHO) preserves LUO and memblock, and kexec_load would drop it"
        );
        let unknown = kho(None).forbids_kexec_load().unwrap();
        assert!(unknown.contains("debugfs"), "{unknown}");
        assert_eq!(Kho::default().forbids_kexec_load(), None);
    }

    #[test]
    fn files_below_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, content: &[u8]| {
            let path = dir.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        let read = || Kho::read(&Root::at(dir.path()), &RunningConfig::default()).unwrap();
        write("proc/sys/kernel/osrelease", b"7.2.13\n");
        write("proc/cmdline", b"quiet\n");
        write("proc/meminfo", b"CmaTotal: 0 kB\nCmaFree: 0 kB\n");
        assert!(!read().on);
        write("proc/meminfo", b"CmaTotal: 0 kB\nCmaFree: 65536 kB\n");
        assert_eq!((read().on, read().preserved), (true, None));
        write("proc/cmdline", b"liveupdate=on reserve_mem=1M:4K:log\n");
        assert_eq!(
            read().preserved.unwrap(),
            ["LUO (liveupdate=)", "memblock (reserve_mem=)"]
        );
        write("sys/kernel/debug/kho/out/sub_fdts/kexec-metadata", b"x");
        assert_eq!(read().preserved, Some(Vec::new()));
        write("sys/kernel/debug/kho/out/sub_fdts/LUO", b"x");
        assert_eq!(read().preserved.unwrap(), ["LUO"]);
        // Without debugfs and scratch, by the node that it was started with.
        std::fs::remove_dir_all(dir.path().join("sys")).unwrap();
        write("proc/meminfo", b"MemTotal: 1 kB\n");
        write("sys/kernel/boot_params/data", &[0; 4096]);
        write("sys/kernel/boot_params/setup_data/0/type", b"0xa\n");
        write("sys/kernel/boot_params/setup_data/0/data", &[0; 32]);
        assert!(read().why.contains("handed-over state"));
    }
}
