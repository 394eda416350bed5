//! What may forbid a load: lockdown, sysctls, limits, capability, IMA, KHO, and where it runs.

use std::io::{self, Read as _};

use super::environment::Environment;
use super::kho::Kho;
use super::{HostError, Root, text};
use crate::base::Target;
use crate::kconfig::KernelConfig;

const LOCKDOWN: &str = "/sys/kernel/security/lockdown";
const STATUS: &str = "/proc/self/status";
const IMA_POLICY: &str = "/sys/kernel/security/ima/policy";
const UID_MAP: &str = "/proc/self/uid_map";
const CONFIG_GZ: &str = "/proc/config.gz";

/// Bit of CAP_SYS_BOOT (include/uapi/linux/capability.h).
const CAP_SYS_BOOT: u32 = 22;
/// Largest configuration, decompressed, bytes; they are about 300 KB.
const MAX_CONFIG: u64 = 16 << 20;

/// Kernel lockdown (security/lockdown).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Lockdown {
    /// No lockdown, or a kernel without it.
    #[default]
    None,
    /// `integrity`: kexec_load is refused.
    Integrity,
    /// `confidentiality`: as integrity, and more.
    Confidentiality,
}

/// The facts, each `None` where the kernel does not tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Security {
    /// /sys/kernel/security/lockdown; `None` when securityfs is not mounted.
    pub lockdown: Option<Lockdown>,
    /// kernel.kexec_load_disabled.
    pub load_disabled: Option<bool>,
    /// kernel.kexec_load_limit_reboot; -1 is no limit.
    pub limit_reboot: Option<i64>,
    /// kernel.kexec_load_limit_panic; -1 is no limit.
    pub limit_panic: Option<i64>,
    /// CAP_SYS_BOOT is effective in this process.
    pub cap_sys_boot: Option<bool>,
    /// This process runs in a user namespace of its own (a container): its
    /// capabilities do not count for the machine.
    pub user_namespace: Option<bool>,
    /// IMA appraises kexec images (a rule with func=KEXEC_KERNEL_CHECK and appraise).
    pub ima_appraise_kexec: Option<bool>,
    /// kexec_load was called, and the kernel refused it for a reason of its own.
    pub kexec_load_refused: bool,
    /// Kexec Handover.
    pub kho: Kho,
    /// What the kernel runs on.
    pub environment: Environment,
    /// What the running kernel is built with,
    /// from /proc/config.gz or /boot/config-RELEASE.
    pub config: RunningConfig,
}

/// Configuration of the running kernel, each `None` when no configuration was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunningConfig {
    /// It is from /proc/config.gz, where the running kernel itself tells it. A file in /boot
    /// may be another kernel's.
    pub is_own: bool,
    /// CONFIG_KEXEC.
    pub kexec: Option<bool>,
    /// CONFIG_KEXEC_FILE.
    pub kexec_file: Option<bool>,
    /// CONFIG_KEXEC_SIG.
    pub kexec_sig: Option<bool>,
    /// CONFIG_KEXEC_SIG_FORCE.
    pub kexec_sig_force: Option<bool>,
    /// CONFIG_KEXEC_HANDOVER.
    pub kexec_handover: Option<bool>,
    /// CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT.
    pub kexec_handover_default: Option<bool>,
    /// CONFIG_KEXEC_HANDOVER_DEBUGFS.
    pub kexec_handover_debugfs: Option<bool>,
}

impl Security {
    /// Reads the facts below `root`; a file that is not there is `None`.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(root: &Root) -> Result<Self, HostError> {
        let sysctl = |name: &str| format!("/proc/sys/kernel/{name}");
        let config = RunningConfig::read(root)?;
        Ok(Self {
            lockdown: lockdown(root)?,
            load_disabled: text::optional_bool(root, &sysctl("kexec_load_disabled"))?,
            limit_reboot: text::optional_decimal(root, &sysctl("kexec_load_limit_reboot"))?,
            limit_panic: text::optional_decimal(root, &sysctl("kexec_load_limit_panic"))?,
            cap_sys_boot: cap_sys_boot(root)?,
            user_namespace: user_namespace(root)?,
            ima_appraise_kexec: ima_appraise_kexec(root)?,
            kexec_load_refused: false,
            kho: Kho::read(root, &config)?,
            environment: Environment::read(root)?,
            config,
        })
    }

    /// The load limit that the kernel counts for `target`; `None` where the kernel
    /// has none (before Linux 6.3), negative for no limit.
    #[must_use]
    pub const fn load_limit(&self, target: Target) -> Option<i64> {
        match target {
            Target::Normal => self.limit_reboot,
            Target::Crash => self.limit_panic,
        }
    }

    /// Why kexec_load, which shows the kernel no file, cannot or must not be
    /// used, even to unload; `None` when nothing known forbids it.
    ///
    /// Secure Boot counts unless this kernel is known to verify no signatures:
    /// IMA's rules for it refuse kexec_load (`ima_load_data`). Kexec Handover is
    /// not asked here: it forbids a load, not an unload.
    #[must_use]
    pub fn forbids_kexec_load(&self, secure_boot: Option<bool>) -> Option<&'static str> {
        let config = &self.config;
        let rules = [
            (
                self.lockdown.is_some_and(|mode| mode != Lockdown::None),
                "kernel lockdown forbids kexec_load",
            ),
            (
                self.ima_appraise_kexec == Some(true),
                "IMA appraises kexec images, and kexec_load has no file to appraise",
            ),
            (
                secure_boot == Some(true) && config.kexec_sig != Some(false),
                "Secure Boot is on, and only kexec_file_load checks a signature",
            ),
            (
                config.kexec == Some(false) && config.kexec_file != Some(false),
                "the running kernel is built without CONFIG_KEXEC",
            ),
            (self.kexec_load_refused, "the kernel refuses kexec_load"),
        ];
        rules
            .into_iter()
            .find_map(|(holds, why)| holds.then_some(why))
    }
}

fn lockdown(root: &Root) -> Result<Option<Lockdown>, HostError> {
    let Some(line) = root.read_line_permitted(LOCKDOWN)? else {
        return Ok(None);
    };
    parse_lockdown(&line).map(Some).ok_or_else(|| {
        HostError::malformed(LOCKDOWN, format!("`{line}` has no known level in brackets"))
    })
}

/// The level in brackets: `none [integrity] confidentiality`.
fn parse_lockdown(line: &str) -> Option<Lockdown> {
    let level = line
        .split_ascii_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))?;
    match level {
        "none" => Some(Lockdown::None),
        "integrity" => Some(Lockdown::Integrity),
        "confidentiality" => Some(Lockdown::Confidentiality),
        _ => None,
    }
}

fn cap_sys_boot(root: &Root) -> Result<Option<bool>, HostError> {
    let Some(bytes) = root.read_permitted(STATUS)? else {
        return Ok(None);
    };
    // The first line is the name of the program, any bytes.
    let status = String::from_utf8_lossy(&bytes);
    let Some(effective) = status.lines().find_map(|line| line.strip_prefix("CapEff:")) else {
        return Ok(None);
    };
    text::hex(effective.trim().as_bytes())
        .map(|set| Some(set >> CAP_SYS_BOOT & 1 == 1))
        .ok_or_else(|| {
            HostError::malformed(STATUS, format!("CapEff `{}` is not hex", effective.trim()))
        })
}

/// Most kernels do not show the policy (EACCES without CONFIG_IMA_READ_POLICY), and the
/// others allow only one reader at a time (EBUSY).
fn ima_appraise_kexec(root: &Root) -> Result<Option<bool>, HostError> {
    match root.read_permitted(IMA_POLICY) {
        Ok(policy) => Ok(policy.map(|policy| appraises_kexec(&String::from_utf8_lossy(&policy)))),
        Err(error) if error.is_busy() => Ok(None),
        Err(error) => Err(error),
    }
}

fn appraises_kexec(policy: &str) -> bool {
    policy.lines().any(|rule| {
        let mut words = rule.split_ascii_whitespace();
        words.next() == Some("appraise") && words.any(|word| word == "func=KEXEC_KERNEL_CHECK")
    })
}

/// Whether this is not the first user namespace. The first one maps every ID to itself
/// (user_namespaces(7)).
fn user_namespace(root: &Root) -> Result<Option<bool>, HostError> {
    let Some(bytes) = root.read_permitted(UID_MAP)? else {
        return Ok(None);
    };
    let map = String::from_utf8_lossy(&bytes);
    let mut numbers = map.split_ascii_whitespace();
    let whole = ["0", "0", "4294967295"];
    let is_first = whole.iter().all(|number| numbers.next() == Some(number));
    // Another namespace may map every ID, too. If so, the call itself will fail.
    Ok(Some(!is_first))
}

impl RunningConfig {
    fn read(root: &Root) -> Result<Self, HostError> {
        if let Some(bytes) = root.read_permitted(CONFIG_GZ)? {
            let config = gunzip(&bytes).map_err(|error| {
                HostError::malformed(CONFIG_GZ, format!("not a gzip file: {error}"))
            })?;
            return Ok(Self {
                is_own: true,
                ..Self::parse(&config)
            });
        }
        let release = super::release(root)?;
        // The release becomes part of a path. On a captured machine it is an untrusted string.
        if release.contains('/') {
            return Ok(Self::default());
        }
        for path in [
            format!("/boot/config-{release}"),
            format!("/lib/modules/{release}/config"),
            format!("/usr/lib/modules/{release}/config"),
        ] {
            if let Some(bytes) = root.read_permitted(&path)? {
                return Ok(Self::parse(&bytes));
            }
        }
        Ok(Self::default())
    }

    /// The options in the text of a kernel's `.config`, as far as it tells.
    #[must_use]
    pub fn parse(config: &[u8]) -> Self {
        let Some(config) = KernelConfig::parse(config) else {
            return Self::default();
        };
        Self {
            is_own: false,
            kexec: config.built_in("CONFIG_KEXEC"),
            kexec_file: config.built_in("CONFIG_KEXEC_FILE"),
            kexec_sig: config.built_in("CONFIG_KEXEC_SIG"),
            kexec_sig_force: config.built_in("CONFIG_KEXEC_SIG_FORCE"),
            kexec_handover: config.built_in("CONFIG_KEXEC_HANDOVER"),
            kexec_handover_default: config.built_in("CONFIG_KEXEC_HANDOVER_ENABLE_DEFAULT"),
            kexec_handover_debugfs: config.built_in("CONFIG_KEXEC_HANDOVER_DEBUGFS"),
        }
    }
}

fn gunzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut config = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .take(MAX_CONFIG + 1)
        .read_to_end(&mut config)?;
    if config.len() as u64 > MAX_CONFIG {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "more than 16 MiB after decompression",
        ));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::path::Path;

    fn machine(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Root) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "/proc/cmdline", b"quiet\n");
        write(dir.path(), "/proc/sys/kernel/osrelease", b"6.12.0\n");
        for (file, content) in files {
            write(dir.path(), file, content);
        }
        let root = Root::at(dir.path());
        (dir, root)
    }

    fn write(dir: &Path, file: &str, content: &[u8]) {
        let path = dir.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn read(files: &[(&str, &[u8])]) -> Security {
        let (_dir, root) = machine(files);
        Security::read(&root).unwrap()
    }

    #[test]
    fn a_kernel_that_says_nothing() {
        let read = read(&[]);
        assert!(!read.kho.on);
        let kho = Kho::default();
        assert_eq!(Security { kho, ..read }, Security::default());
    }

    #[test]
    fn lockdown_levels() {
        let level = |text: &str| read(&[(LOCKDOWN, text.as_bytes())]).lockdown;
        assert_eq!(
            level("[none] integrity confidentiality\n"),
            Some(Lockdown::None)
        );
        assert_eq!(
            level("none [integrity] confidentiality\n"),
            Some(Lockdown::Integrity)
        );
        assert_eq!(
            level("none integrity [confidentiality]\n"),
            Some(Lockdown::Confidentiality)
        );
        for bad in ["none integrity\n", "[other]\n", "\n"] {
            let (_dir, root) = machine(&[(LOCKDOWN, bad.as_bytes())]);
            let error = Security::read(&root).unwrap_err().to_string();
            assert!(
                error.starts_with("/sys/kernel/security/lockdown: `"),
                "{error}"
            );
        }
    }

    #[test]
    fn sysctls_and_capability() {
        let status = b"Name:\t\xff\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        let security = read(&[
            ("/proc/sys/kernel/kexec_load_disabled", b"1\n"),
            ("/proc/sys/kernel/kexec_load_limit_reboot", b"-1\n"),
            ("/proc/sys/kernel/kexec_load_limit_panic", b"3\n"),
            (STATUS, status),
        ]);
        assert_eq!(security.load_disabled, Some(true));
        assert_eq!(security.limit_reboot, Some(-1));
        assert_eq!(security.limit_panic, Some(3));
        assert_eq!(security.cap_sys_boot, Some(true));
        let without = read(&[(STATUS, b"CapEff:\t000001ffffbfffff\n")]);
        assert_eq!(without.cap_sys_boot, Some(false));
        let (_dir, root) = machine(&[(STATUS, b"CapEff:\tx\n")]);
        assert_eq!(
            Security::read(&root).unwrap_err().to_string(),
            "/proc/self/status: CapEff `x` is not hex"
        );
    }

    #[test]
    fn ima_rules() {
        let appraises = |policy: &str| read(&[(IMA_POLICY, policy.as_bytes())]).ima_appraise_kexec;
        assert_eq!(
            appraises(
                "measure func=KEXEC_KERNEL_CHECK\nappraise func=KEXEC_KERNEL_CHECK appraise_type=imasig\n"
            ),
            Some(true)
        );
        assert_eq!(
            appraises(
                "measure func=KEXEC_KERNEL_CHECK\ndont_appraise func=KEXEC_KERNEL_CHECK\nappraise func=MODULE_CHECK\n"
            ),
            Some(false)
        );
        assert_eq!(appraises(""), Some(false));
    }

    #[test]
    fn a_user_namespace() {
        let map = |map: &str| read(&[(UID_MAP, map.as_bytes())]).user_namespace;
        assert_eq!(map("         0          0 4294967295\n"), Some(false));
        assert_eq!(map("         0       1000          1\n"), Some(true));
        assert_eq!(map("0 100000 65536\n65536 0 1\n"), Some(true));
        assert_eq!(map(""), Some(true));
    }

    #[test]
    fn a_fragment_of_a_configuration_says_no_more_than_it_does() {
        let fragment = read(&[("/boot/config-6.12.0", b"CONFIG_KEXEC_FILE=y\n")]);
        let expected = RunningConfig {
            kexec_file: Some(true),
            ..RunningConfig::default()
        };
        assert_eq!(fragment.config, expected);
        assert_eq!(fragment.forbids_kexec_load(None), None);
        assert_eq!(
            read(&[("/boot/config-6.12.0", b"junk\n")]).config,
            RunningConfig::default()
        );
    }

    #[test]
    fn configuration_from_either_file() {
        let text = b"CONFIG_X86_64=y\n# CONFIG_KEXEC is not set\nCONFIG_KEXEC_CORE=y\nCONFIG_KEXEC_FILE=y\nCONFIG_KEXEC_SIG=y\n";
        let expected = RunningConfig {
            is_own: false,
            kexec: Some(false),
            kexec_file: Some(true),
            kexec_sig: Some(true),
            kexec_sig_force: Some(false),
            kexec_handover: Some(false),
            kexec_handover_default: Some(false),
            kexec_handover_debugfs: Some(false),
        };
        assert_eq!(read(&[("/boot/config-6.12.0", text)]).config, expected);
        assert_eq!(
            read(&[("/lib/modules/6.12.0/config", text)]).config,
            expected
        );
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text).unwrap();
        let gz = gz.finish().unwrap();
        assert_eq!(
            read(&[
                (CONFIG_GZ, &gz),
                ("/boot/config-6.12.0", b"CONFIG_KEXEC=y\n")
            ])
            .config,
            RunningConfig {
                is_own: true,
                ..expected
            }
        );
        let (_dir, root) = machine(&[(CONFIG_GZ, b"plain text")]);
        let error = Security::read(&root).unwrap_err().to_string();
        assert!(
            error.starts_with("/proc/config.gz: not a gzip file"),
            "{error}"
        );
    }

    #[test]
    fn a_configuration_without_end_is_refused() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let zeroes = vec![0; 1 << 20];
        for _ in 0..17 {
            gz.write_all(&zeroes).unwrap();
        }
        let error = gunzip(&gz.finish().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
