//! Refusals of the call as a whole: capability, sysctls, limits, lockdown,
//! security modules, and kernels without the call.

use super::{CallFacts, Cause};
use crate::base::{Syscall, Target};
use crate::host::security::Security;

/// The sysctl that limits loads of `target`.
pub(super) const fn limit_name(target: Target) -> &'static str {
    match target {
        Target::Normal => "kexec_load_limit_reboot",
        Target::Crash => "kexec_load_limit_panic",
    }
}

/// Refuses loads in environments where none can work. An unload does no harm there.
pub(super) fn environment(facts: &CallFacts<'_>) -> Option<Cause> {
    let refusal = facts.security.environment.refuses()?;
    (!facts.unload).then(|| {
        Cause::new(refusal.why)
            .hint(refusal.way_out)
            .read_from(refusal.evidence)
    })
}

/// A kernel without CONFIG_CRASH_DUMP knows the flag for the crash kernel and,
/// since Linux 6.9, ignores it: the call would replace or unload the normal
/// image.
pub(super) fn crash_support(facts: &CallFacts<'_>) -> Option<Cause> {
    if facts.target != Target::Crash || facts.loaded.crash.is_some() {
        return None;
    }
    let cause = if facts.loaded.normal.is_some() {
        Cause::new(
            "the running kernel does not support crash kernels (no CONFIG_CRASH_DUMP), and the call would \
             replace the kernel for exec instead",
        )
        .hint("boot a kernel with CONFIG_CRASH_DUMP")
    } else if let Some(cause) = no_kexec(facts) {
        cause
    } else if facts.loaded.has_sysfs {
        Cause::new("/sys/kernel shows neither kexec nor crash kernels: the running kernel is built without them")
            .hint("boot a kernel with CONFIG_KEXEC_CORE and CONFIG_CRASH_DUMP")
    } else {
        Cause::new(
            "/sys/kernel does not show whether the running kernel supports crash kernels; if it does not, the \
             call would replace the kernel for exec",
        )
        .hint("mount sysfs at /sys")
    };
    Some(cause.read_from("/sys/kernel/kexec_crash_loaded is missing"))
}

/// The option that builds `syscall` in, and whether it is set.
fn option(facts: &CallFacts<'_>, syscall: Syscall) -> (&'static str, Option<bool>) {
    let config = &facts.security.config;
    match syscall {
        Syscall::KexecLoad => ("CONFIG_KEXEC", config.kexec),
        Syscall::KexecFileLoad => ("CONFIG_KEXEC_FILE", config.kexec_file),
    }
}

/// The configuration says that neither call is built in.
fn no_kexec(facts: &CallFacts<'_>) -> Option<Cause> {
    let config = &facts.security.config;
    let has_none = config.kexec == Some(false) && config.kexec_file == Some(false);
    has_none.then(|| {
        Cause::new(
            "this kernel is built without kexec (neither CONFIG_KEXEC nor CONFIG_KEXEC_FILE)",
        )
        .hint("it has no kexec at all: boot another kernel")
        .read_from("the running kernel's configuration: no CONFIG_KEXEC, no CONFIG_KEXEC_FILE")
    })
}

/// The configuration says that the call is not built in.
pub(super) fn not_built(facts: &CallFacts<'_>) -> Option<Cause> {
    let (option, built) = option(facts, facts.syscall);
    if built != Some(false) {
        return None;
    }
    let one = || {
        Cause::new(format!(
            "this kernel is built without {} ({option})",
            facts.syscall
        ))
        .hint(format!("try --syscall {}", facts.syscall.other()))
        .read_from(match facts.syscall {
            Syscall::KexecLoad => "the running kernel's configuration: no CONFIG_KEXEC",
            Syscall::KexecFileLoad => "the running kernel's configuration: no CONFIG_KEXEC_FILE",
        })
    };
    Some(no_kexec(facts).unwrap_or_else(one))
}

/// ENOSYS, and the configuration does not explain it.
pub(super) fn no_such_call(facts: &CallFacts<'_>) -> Cause {
    let other = facts.syscall.other();
    let (option, built) = option(facts, facts.syscall);
    if built == Some(true) {
        return Cause::one_of(&[
            "a seccomp filter of this container or service hides the call",
            &format!("the configuration found for this kernel ({option}=y) is not its own"),
        ])
        .hint(format!(
            "run outside of the container, or try --syscall {other}"
        ));
    }
    Cause::one_of(&[
        &format!("this kernel is built without {} ({option})", facts.syscall),
        "a seccomp filter of this container or service hides the call",
    ])
    .hint(format!("try --syscall {other}"))
}

/// What the kernel answers with EPERM, in its order, as far as facts decide.
pub(super) fn denied(facts: &CallFacts<'_>) -> Option<Cause> {
    let security = facts.security;
    if security.cap_sys_boot == Some(false) {
        return Some(no_capability());
    }
    if security.user_namespace == Some(true) {
        return Some(
            Cause::new(
                "this process runs in a user namespace (a container), where CAP_SYS_BOOT does not \
                 count for the machine",
            )
            .hint("run rkexec as root outside of the container")
            .read_from("/proc/self/uid_map"),
        );
    }
    if security.load_disabled == Some(true) {
        return Some(
            Cause::new("loading and unloading are switched off (kernel.kexec_load_disabled = 1)")
                .hint(
                    "only a reboot switches it on again; look for the setting in /etc/sysctl.conf \
                     and /etc/sysctl.d",
                )
                .read_from("/proc/sys/kernel/kexec_load_disabled: 1"),
        );
    }
    if security.load_limit(facts.target) == Some(0) {
        let name = limit_name(facts.target);
        return Some(
            Cause::new(format!(
                "no load is left of those allowed since boot (kernel.{name} = 0); failed loads \
                 and unloads count as well"
            ))
            .hint(format!(
                "only a reboot raises the limit; look for {name} in /etc/sysctl.conf and /etc/sysctl.d"
            ))
            .read_from(match facts.target {
                Target::Normal => "/proc/sys/kernel/kexec_load_limit_reboot: 0",
                Target::Crash => "/proc/sys/kernel/kexec_load_limit_panic: 0",
            }),
        );
    }
    if facts.syscall == Syscall::KexecLoad {
        return facts.lockdown().map(|mode| locked_down(facts, mode));
    }
    None
}

fn no_capability() -> Cause {
    Cause::new("this process lacks the capability CAP_SYS_BOOT")
        .hint("run as root")
        .read_from("/proc/self/status: CapEff")
}

/// kexec_load, even one that unloads, under lockdown.
fn locked_down(facts: &CallFacts<'_>, mode: &str) -> Cause {
    let (by, evidence) = if facts.efi_secure_boot == Some(true) {
        (
            " (Secure Boot is on)",
            "/sys/kernel/security/lockdown; the EFI variable SecureBoot, or boot_params",
        )
    } else {
        ("", "/sys/kernel/security/lockdown")
    };
    let why = format!("the kernel is locked down in {mode} mode{by}, which forbids kexec_load");
    let cause = Cause::new(why).read_from(evidence);
    if facts.unload {
        return cause.hint("kexec_file_load may unload under lockdown: `rkexec unload` uses it");
    }
    let file_load = match facts.signed {
        Some(false) => {
            "this kernel file is not signed: use a signed one and --syscall kexec_file_load"
        }
        Some(true) | None => "--syscall kexec_file_load loads a kernel signed with a trusted key",
    };
    cause.hint(format!(
        "{file_load}; or boot without lockdown (Secure Boot off, no lockdown= on the command line)"
    ))
}

/// EPERM that no fact explains.
pub(super) fn not_permitted(facts: &CallFacts<'_>) -> Cause {
    let security = facts.security;
    let mut open = Vec::new();
    if security.cap_sys_boot.is_none() {
        open.push("this process lacks CAP_SYS_BOOT".to_owned());
    } else {
        open.push("CAP_SYS_BOOT is held in a user namespace only (a container)".to_owned());
    }
    if security.load_disabled.is_none() {
        open.push("kernel.kexec_load_disabled is 1".to_owned());
    }
    if let Some(left) = security.load_limit(facts.target).filter(|&left| left > 0) {
        open.push(format!(
            "kernel.{} was used up meanwhile (there were {left})",
            limit_name(facts.target)
        ));
    }
    match facts.syscall {
        Syscall::KexecLoad if security.lockdown.is_none() => {
            open.push(
                "the kernel is locked down (/sys/kernel/security/lockdown is not there)".to_owned(),
            );
        }
        Syscall::KexecFileLoad if !facts.unload => {
            open.extend(super::signature::under_lockdown(facts));
        }
        _ => {}
    }
    open.push("a security module (LoadPin, SELinux) or a seccomp filter refuses it".to_owned());
    let open: Vec<&str> = open.iter().map(String::as_str).collect();
    Cause::one_of(&open)
        .hint("run as root outside of containers; `dmesg` names a security module's refusal")
}

/// EACCES: a security module wants to see a signed file.
pub(super) fn access_denied(facts: &CallFacts<'_>) -> Cause {
    if facts.syscall == Syscall::KexecFileLoad {
        let first = if facts.security.ima_appraise_kexec == Some(true) {
            "IMA appraises kernels for kexec, and the kernel or the initrd has no valid IMA signature"
        } else {
            "IMA refuses the kernel or the initrd"
        };
        return Cause::one_of(&[
            first,
            "a security module (SELinux) forbids this process to load it",
        ])
        .hint(
            "`dmesg` and the audit log name the rule; an IMA signature is made with \
             `evmctl ima_sign FILE` and a key the kernel trusts",
        );
    }
    let why = if facts.security.ima_appraise_kexec == Some(true) {
        "IMA appraises kernels for kexec, and kexec_load shows it no file"
    } else if facts.efi_secure_boot == Some(true) && facts.security.config.kexec_sig == Some(true) {
        "Secure Boot is on and this kernel verifies signatures (CONFIG_KEXEC_SIG), so IMA refuses \
         kexec_load"
    } else {
        let cause = Cause::one_of(&[
            "IMA appraises kernels for kexec, and kexec_load shows it no file",
            "a security module (SELinux) forbids it",
        ]);
        return cause.hint(through_file_load(facts));
    };
    Cause::new(why).hint(through_file_load(facts))
}

fn through_file_load(facts: &CallFacts<'_>) -> &'static str {
    if facts.unload {
        "`rkexec unload` takes kexec_file_load, which is not refused so, where it finds this kernel's \
         configuration (/proc/config.gz or /boot/config-RELEASE)"
    } else {
        "--syscall kexec_file_load, with a kernel signed as the policy wants it"
    }
}

/// EPERM of reboot.
pub(super) fn reboot_not_permitted(security: &Security) -> Cause {
    match security.cap_sys_boot {
        Some(false) => no_capability(),
        Some(true) => Cause::one_of(&[
            "CAP_SYS_BOOT is held in another user namespace only (a container)",
            "a seccomp filter refuses reboot",
        ])
        .hint("run `rkexec exec` outside of the container"),
        None => Cause::one_of(&[
            "this process lacks the capability CAP_SYS_BOOT",
            "a seccomp filter refuses reboot",
        ])
        .hint("run as root"),
    }
}

/// ENOSYS of reboot, which every kernel has.
pub(super) fn reboot_filtered() -> Cause {
    Cause::new("a seccomp filter of this container or service hides reboot")
        .hint("run `rkexec exec` outside of the container")
}
