//! Refusals: EPERM, EACCES, ENOSYS.

use super::*;

/// The situations of EPERM: facts, call, what must be said, and whether that
/// is known before the call.
#[test]
fn each_eperm_situation_has_its_own_cause() {
    let situations: [(Syscall, Target, Change, &str); 10] = [
        (
            Syscall::KexecFileLoad,
            Target::Normal,
            |s, _| s.user_namespace = Some(true),
            "a user namespace (a container)",
        ),
        (
            Syscall::KexecLoad,
            Target::Normal,
            |s, _| s.cap_sys_boot = Some(false),
            "CAP_SYS_BOOT",
        ),
        (
            Syscall::KexecLoad,
            Target::Normal,
            |s, _| s.load_disabled = Some(true),
            "kernel.kexec_load_disabled = 1",
        ),
        (
            Syscall::KexecLoad,
            Target::Normal,
            |s, _| s.limit_reboot = Some(0),
            "kernel.kexec_load_limit_reboot = 0",
        ),
        (
            Syscall::KexecLoad,
            Target::Crash,
            |s, _| s.limit_panic = Some(0),
            "kernel.kexec_load_limit_panic = 0",
        ),
        (
            Syscall::KexecLoad,
            Target::Normal,
            |s, _| s.lockdown = Some(Lockdown::Integrity),
            "integrity mode, which forbids kexec_load",
        ),
        (
            Syscall::KexecLoad,
            Target::Normal,
            |s, _| s.lockdown = Some(Lockdown::Confidentiality),
            "confidentiality mode, which forbids kexec_load",
        ),
        (
            Syscall::KexecFileLoad,
            Target::Normal,
            |s, _| s.load_disabled = Some(true),
            "kernel.kexec_load_disabled = 1",
        ),
        (
            Syscall::KexecFileLoad,
            Target::Crash,
            |s, _| s.limit_panic = Some(0),
            "kernel.kexec_load_limit_panic = 0",
        ),
        (
            Syscall::KexecFileLoad,
            Target::Normal,
            |s, _| s.cap_sys_boot = Some(false),
            "CAP_SYS_BOOT",
        ),
    ];
    for (syscall, target, change, says) in situations {
        with(syscall, target, change, |facts| {
            let cause = explain(&facts, Errno::new(libc::EPERM));
            assert!(cause.why.contains(says), "{syscall} {says}: {cause:?}");
            assert!(!cause.why.starts_with("one of"), "{cause:?}");
            assert!(cause.hint.is_some());
            assert_eq!(forbidden(&facts), Some(cause));
        });
    }
}

#[test]
fn eperm_follows_the_order_of_the_kernels_checks() {
    let everything = |security: &mut Security, _: &mut Loaded| {
        security.cap_sys_boot = Some(false);
        security.load_disabled = Some(true);
        security.limit_reboot = Some(0);
        security.lockdown = Some(Lockdown::Integrity);
    };
    type Step = fn(&mut Security);
    let steps: [(Step, &str); 4] = [
        (|_| {}, "CAP_SYS_BOOT"),
        (|s| s.cap_sys_boot = Some(true), "kexec_load_disabled"),
        (|s| s.load_disabled = Some(false), "limit_reboot"),
        (|s| s.limit_reboot = Some(1), "locked down"),
    ];
    for taken in 0..steps.len() {
        let change = |security: &mut Security, loaded: &mut Loaded| {
            everything(security, loaded);
            for (step, _) in &steps[..=taken] {
                step(security);
            }
        };
        let text = with(Syscall::KexecLoad, Target::Normal, change, |facts| {
            why(&facts, libc::EPERM)
        });
        assert!(text.contains(steps[taken].1), "{taken}: {text}");
    }
}

#[test]
fn eperm_without_deciding_facts_names_candidates_only() {
    let unknown = |security: &mut Security, _: &mut Loaded| *security = Security::default();
    for syscall in [Syscall::KexecLoad, Syscall::KexecFileLoad] {
        with(syscall, Target::Normal, unknown, |facts| {
            let text = why(&facts, libc::EPERM);
            assert!(text.starts_with("one of: "), "{text}");
            for candidate in [
                "CAP_SYS_BOOT",
                "kexec_load_disabled",
                "locked down",
                "LoadPin",
            ] {
                assert!(text.contains(candidate), "{candidate}: {text}");
            }
            assert_eq!(forbidden(&facts), None);
        });
    }
    // A limit that was there before the call may be gone: not claimed.
    let limited = |security: &mut Security, _: &mut Loaded| security.limit_reboot = Some(1);
    with(Syscall::KexecLoad, Target::Normal, limited, |facts| {
        let text = why(&facts, libc::EPERM);
        assert!(
            text.starts_with("one of: ") && text.contains("used up"),
            "{text}"
        );
        assert_eq!(forbidden(&facts), None);
    });
}

#[test]
fn unloading_under_lockdown_goes_through_kexec_file_load() {
    let locked = |security: &mut Security, _: &mut Loaded| {
        security.lockdown = Some(Lockdown::Integrity);
    };
    with(Syscall::KexecLoad, Target::Normal, locked, |facts| {
        let facts = CallFacts {
            unload: true,
            ..facts
        };
        let cause = forbidden(&facts).unwrap();
        assert!(cause.hint.unwrap().contains("`rkexec unload`"));
        let error = SysError::failed(&facts, Errno::new(libc::EPERM));
        assert!(
            error
                .to_string()
                .starts_with("unload by kexec_load failed: the kernel is locked")
        );
    });
    with(Syscall::KexecFileLoad, Target::Normal, locked, |facts| {
        let facts = CallFacts {
            unload: true,
            ..facts
        };
        assert_eq!(forbidden(&facts), None);
        assert!(!why(&facts, libc::EPERM).contains("locked"));
    });
}

#[test]
fn eacces_says_who_refused_as_far_as_known() {
    let text = with(
        Syscall::KexecLoad,
        Target::Normal,
        |s, _| s.ima_appraise_kexec = Some(true),
        |facts| why(&facts, libc::EACCES),
    );
    assert!(text.starts_with("IMA appraises"), "{text}");
    with(Syscall::KexecLoad, Target::Normal, NOTHING, |facts| {
        let secure = CallFacts {
            efi_secure_boot: Some(true),
            ..facts
        };
        assert!(why(&secure, libc::EACCES).starts_with("Secure Boot is on"));
        assert!(why(&facts, libc::EACCES).starts_with("one of"));
        let unload = CallFacts {
            unload: true,
            ..secure
        };
        let cause = explain(&unload, Errno::new(libc::EACCES));
        assert!(cause.hint.unwrap().contains("`rkexec unload`"));
    });
}

#[test]
fn enosys_follows_the_configuration_and_is_never_forbidden() {
    let cases: [(Change, &str, &str); 4] = [
        (
            |s, _| s.config.kexec = Some(false),
            "built without kexec_load (CONFIG_KEXEC)",
            "--syscall kexec_file_load",
        ),
        (
            |s, _| {
                s.config.kexec = Some(false);
                s.config.kexec_file = Some(false);
            },
            "built without kexec (neither",
            "no kexec at all",
        ),
        (|_, _| {}, "not its own", "kexec_file_load"),
        (
            |s, _| s.config = RunningConfig::default(),
            "one of: this kernel is built without",
            "kexec_file_load",
        ),
    ];
    for (change, says, hint) in cases {
        with(Syscall::KexecLoad, Target::Normal, change, |facts| {
            let cause = explain(&facts, Errno::new(libc::ENOSYS));
            assert!(cause.why.contains(says), "{cause:?}");
            assert!(cause.hint.as_deref().unwrap().contains(hint), "{cause:?}");
            assert_eq!(forbidden(&facts), None);
        });
    }
}
