//! Signatures: what kexec_file_load says of a kernel file when the kernel
//! verifies signatures (crypto/asymmetric_keys/verify_pefile.c).

use super::{CallFacts, Cause};
use crate::sys::errno::{ENOTSUPP, Errno};

/// What is loaded, for people.
fn file(facts: &CallFacts<'_>) -> &'static str {
    if facts.in_uki {
        "the kernel inside the UKI"
    } else {
        "the kernel file"
    }
}

/// A file without a signature where the kernel is known to want one.
pub(super) fn missing(facts: &CallFacts<'_>) -> Option<(i32, Cause)> {
    let config = &facts.security.config;
    if facts.signed != Some(false) {
        return None;
    }
    if config.kexec_sig_force == Some(true) {
        let cause = Cause::new(format!(
            "{} has no signature, and this kernel loads none without (CONFIG_KEXEC_SIG_FORCE)",
            file(facts)
        ))
        .hint(sign(facts))
        .read_from("the kernel file; the running kernel's configuration: CONFIG_KEXEC_SIG_FORCE");
        return Some((libc::ENODATA, cause));
    }
    let mode = facts.lockdown()?;
    if config.kexec_sig == Some(true) && facts.security.ima_appraise_kexec == Some(false) {
        let cause = Cause::new(format!(
            "the kernel is locked down in {mode} mode, and {} has no signature",
            file(facts)
        ))
        .hint(sign(facts))
        .read_from(
            "the kernel file; /sys/kernel/security/lockdown; the running kernel's configuration: CONFIG_KEXEC_SIG",
        );
        return Some((libc::EPERM, cause));
    }
    None
}

/// A signature as the candidate cause of EPERM.
pub(super) fn under_lockdown(facts: &CallFacts<'_>) -> Option<String> {
    use crate::host::security::Lockdown;
    if facts.security.config.kexec_sig == Some(false) {
        return None;
    }
    let kernel = match facts.security.lockdown {
        Some(Lockdown::None) => return None,
        Some(Lockdown::Integrity) => "the kernel is locked down in integrity mode",
        Some(Lockdown::Confidentiality) => "the kernel is locked down in confidentiality mode",
        None => "the kernel is locked down (/sys/kernel/security/lockdown is not there)",
    };
    let file = file(facts);
    Some(match facts.signed {
        Some(false) => format!("{kernel}, and {file} has no signature"),
        Some(true) => format!("{kernel}, and it does not trust the signature of {file}"),
        None => format!("{kernel}, and {file} has no signature it trusts"),
    })
}

/// The kernel looked at the signature and refused it, saying `errno`.
pub(super) fn rejected(facts: &CallFacts<'_>, errno: Errno) -> Cause {
    match errno.number() {
        libc::ENODATA => {
            let file = file(facts);
            Cause::new(format!("{file} has no signature, and this kernel insists on one"))
                .hint(sign(facts))
        }
        libc::ELIBBAD => Cause::new(
            "the kernel file is a malformed PE file, so its signature cannot be checked",
        )
        .hint(format!("compare it with its package; {}", sign(facts))),
        libc::EMSGSIZE => Cause::new(
            "the signature area of the kernel file does not have the size it states",
        )
        .hint(format!("sign the file anew; {}", verify())),
        libc::EBADMSG => Cause::new(
            "the signature of the kernel file is malformed (PKCS#7, or the length of its digest)",
        )
        .hint(format!("sign the file anew; {}", verify())),
        libc::ENOPKG => Cause::new(
            "this kernel does not have the hash or key algorithm of the kernel file's signature",
        )
        .hint("load the module of the algorithm (see /proc/crypto), or sign with RSA and SHA-256"),
        libc::ENOKEY => Cause::new(
            "no key that this kernel trusts made the kernel file's signature (its built-in, \
             secondary and platform keyrings were tried)",
        )
        .hint(
            "enrol the certificate (`mokutil --import CERT`, then reboot), or take a kernel signed \
             by the distribution; `keyctl list %:.platform` shows the keys",
        ),
        libc::EKEYREJECTED => key_rejected(facts),
        ENOTSUPP => Cause::new(
            "the signature of the kernel file is of a type or revision that this kernel does not know",
        )
        .hint(format!("sign with sbsign; {}", verify())),
        _ => super::unknown("kexec_file_load", errno),
    }
}

fn key_rejected(facts: &CallFacts<'_>) -> Cause {
    let mut open = vec![
        "the kernel file was changed after it was signed",
        "its key or its digest is on the revocation list (dbx, mokx)",
        "its key may not be used for this",
        "this kernel cannot check the signature of this file format",
    ];
    if facts.signed == Some(false) {
        open = vec!["this kernel checks signatures, and this file has none"];
        open.push("this kernel cannot check the signature of this file format");
    }
    let hint = if facts.kexec_load_is_open() {
        format!(
            "{}; --syscall kexec_load checks no signature, where no policy forbids it",
            verify()
        )
    } else {
        format!("{}; {}", verify(), sign(facts))
    };
    Cause::one_of(&open).hint(hint)
}

fn verify() -> &'static str {
    "`sbverify --list KERNEL` shows the signatures"
}

/// How to get a kernel that is accepted.
fn sign(facts: &CallFacts<'_>) -> &'static str {
    if facts.in_uki {
        "a signature of the UKI covers the file as a whole and does not count: build it around a \
         signed kernel (`ukify build --sign-kernel`)"
    } else if facts.kexec_load_is_open() {
        "take the distribution's signed kernel or sign it (`sbsign`) with an enrolled key; \
         --syscall kexec_load checks no signature, where no policy forbids it"
    } else {
        "take the distribution's signed kernel, or sign it (`sbsign`) with an enrolled key"
    }
}
