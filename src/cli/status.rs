//! `rkexec status`: what is loaded, and what may forbid a load.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{Context, render};
use crate::host::efi;
use crate::host::loaded::Loaded;
use crate::host::security::{Lockdown, Security};
use crate::sys::{Attempt, Cause, Syscall, Target, forbidden};

pub(super) fn run(context: &Context) -> anyhow::Result<()> {
    let loaded = Loaded::read(&context.root)?;
    let security = Security::read(&context.root)?;
    let secure_boot = efi::read(&context.root)?.and_then(|efi| efi.secure_boot);
    let obstacles: Vec<(Syscall, Target, Cause)> = [Syscall::KexecLoad, Syscall::KexecFileLoad]
        .into_iter()
        .flat_map(|syscall| [(syscall, Target::Normal), (syscall, Target::Crash)])
        .filter_map(|(syscall, target)| {
            let attempt = Attempt {
                efi_secure_boot: secure_boot,
                ..Attempt::new(syscall, target, &security, &loaded)
            };
            Some((syscall, target, forbidden(&attempt)?))
        })
        .collect();
    context.print(
        || text(&loaded, &security, secure_boot, &obstacles),
        || to_json(&loaded, &security, secure_boot, &obstacles),
    )
}

fn text(
    loaded: &Loaded,
    security: &Security,
    secure_boot: Option<bool>,
    obstacles: &[(Syscall, Target, Cause)],
) -> String {
    let yes_no = |fact: Option<bool>| match fact {
        Some(true) => "yes",
        Some(false) => "no",
        None => "unknown",
    };
    let limit = |limit: Option<i64>| match limit {
        Some(count @ 0..) => count.to_string(),
        Some(_) => "none".to_owned(),
        None => "not supported".to_owned(),
    };
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), render::human);
    let lockdown = match security.lockdown {
        Some(Lockdown::None) => "none",
        Some(Lockdown::Integrity) => "integrity",
        Some(Lockdown::Confidentiality) => "confidentiality",
        None => "unknown",
    };
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:<26} {value}");
    };
    line("kernel loaded:", yes_no(loaded.normal));
    line("crash kernel loaded:", yes_no(loaded.crash));
    line("crash reservation:", &size(loaded.crash_size));
    line(
        "elfcorehdr hotplug:",
        if loaded.crash_elfcorehdr_size.is_some() {
            "supported"
        } else {
            "not supported"
        },
    );
    line("lockdown:", lockdown);
    line("Secure Boot:", yes_no(secure_boot));
    line("kexec_load_disabled:", yes_no(security.load_disabled));
    line("load limit:", &limit(security.limit_reboot));
    line("crash load limit:", &limit(security.limit_panic));
    line("CAP_SYS_BOOT:", yes_no(security.cap_sys_boot));
    line("IMA appraises kexec:", yes_no(security.ima_appraise_kexec));
    line("Kexec Handover:", if security.kho { "on" } else { "off" });
    line("CONFIG_KEXEC:", yes_no(security.config.kexec));
    line("CONFIG_KEXEC_FILE:", yes_no(security.config.kexec_file));
    for (syscall, target, cause) in obstacles {
        let _ = writeln!(
            out,
            "{syscall} of a {target} image would fail: {}",
            cause.why
        );
        if let Some(hint) = &cause.hint {
            let _ = writeln!(out, "  hint: {hint}");
        }
    }
    out
}

fn to_json(
    loaded: &Loaded,
    security: &Security,
    secure_boot: Option<bool>,
    obstacles: &[(Syscall, Target, Cause)],
) -> Value {
    let obstacles: Vec<Value> = obstacles
        .iter()
        .map(|(syscall, target, cause)| {
            json!({ "syscall": syscall, "target": target, "why": cause.why, "hint": cause.hint })
        })
        .collect();
    json!({
        "schema": 1,
        "loaded": loaded.normal,
        "crash_loaded": loaded.crash,
        "crash_size": loaded.crash_size,
        "crash_elfcorehdr_size": loaded.crash_elfcorehdr_size,
        "lockdown": security.lockdown,
        "secure_boot": secure_boot,
        "kexec_load_disabled": security.load_disabled,
        "kexec_load_limit_reboot": security.limit_reboot,
        "kexec_load_limit_panic": security.limit_panic,
        "cap_sys_boot": security.cap_sys_boot,
        "ima_appraise_kexec": security.ima_appraise_kexec,
        "kho": security.kho,
        "config_kexec": security.config.kexec,
        "config_kexec_file": security.config.kexec_file,
        "obstacles": obstacles,
    })
}
