//! Every errno of the system calls, over the facts that tell causes apart.

mod live_update;
mod permission;

use std::collections::BTreeSet;

use super::*;
use crate::host::security::RunningConfig;

const GIB: u64 = 1 << 30;

/// A machine where nothing forbids a load.
fn open_machine() -> (Security, Loaded) {
    let security = Security {
        lockdown: Some(Lockdown::None),
        load_disabled: Some(false),
        limit_reboot: Some(-1),
        limit_panic: Some(-1),
        cap_sys_boot: Some(true),
        ima_appraise_kexec: Some(false),
        config: RunningConfig {
            kexec: Some(true),
            kexec_file: Some(true),
            kexec_sig: Some(true),
            kexec_sig_force: Some(false),
            ..RunningConfig::default()
        },
        ..Security::default()
    };
    let loaded = Loaded {
        normal: Some(false),
        crash: Some(false),
        crash_size: Some(GIB / 2),
        ..Loaded::default()
    };
    (security, loaded)
}

fn why(facts: &CallFacts<'_>, errno: i32) -> String {
    explain(facts, Errno::new(errno)).why
}

/// The facts as changed by `change`; what `look` sees of a call on them.
fn with<T>(
    syscall: Syscall,
    target: Target,
    change: impl FnOnce(&mut Security, &mut Loaded),
    look: impl FnOnce(CallFacts<'_>) -> T,
) -> T {
    let (mut security, mut loaded) = open_machine();
    change(&mut security, &mut loaded);
    look(CallFacts {
        segments: 5,
        bytes: GIB / 4,
        largest: GIB / 5,
        total_ram: 4 * GIB,
        available_ram: 3 * GIB,
        ..CallFacts::new(syscall, target, &security, &loaded)
    })
}

/// What a test makes of the facts of [`open_machine`].
type Change = fn(&mut Security, &mut Loaded);

const NOTHING: Change = |_, _| {};

#[test]
fn every_errno_has_its_own_cause_and_way_out() {
    let common = [
        (libc::EPERM, "user namespace"),
        (libc::EACCES, "IMA"),
        (libc::ENOSYS, "seccomp"),
        (libc::EBUSY, "another load"),
        (libc::EFAULT, "became shorter"),
        (libc::ENOMEM, "memory is short"),
        (libc::EINVAL, "half of the memory"),
        (libc::EOPNOTSUPP, "TDX"),
    ];
    let load = [(libc::EADDRNOTAVAIL, "not aligned")];
    let file = [
        (libc::EADDRNOTAVAIL, "no free range"),
        (libc::EBADF, "not open for reading"),
        (libc::EFBIG, "4 GiB"),
        (libc::EIO, "read error"),
        (libc::EKEYREJECTED, "changed after it was signed"),
        (libc::ELIBBAD, "malformed PE"),
        (libc::EBADMSG, "PKCS#7"),
        (libc::EMSGSIZE, "signature area"),
        (libc::ENODATA, "has no signature"),
        (libc::ENOENT, "SHA-256"),
        (libc::ENOEXEC, "bzImage"),
        (libc::ENOKEY, "no key"),
        (libc::ENOPKG, "algorithm"),
        (libc::ETXTBSY, "open for writing"),
        (524, "type or revision"),
    ];
    for (syscall, own) in [
        (Syscall::KexecLoad, &load[..]),
        (Syscall::KexecFileLoad, &file[..]),
    ] {
        let mut seen = BTreeSet::new();
        for (errno, says) in common.iter().chain(own) {
            let cause = with(syscall, Target::Normal, NOTHING, |facts| {
                explain(&facts, Errno::new(*errno))
            });
            assert!(cause.why.contains(says), "{syscall} {errno}: {cause:?}");
            assert!(!cause.why.contains("not known"), "{cause:?}");
            let first = cause.why.chars().next().unwrap();
            assert!(
                !first.is_uppercase() || cause.why.starts_with("IMA"),
                "{cause:?}"
            );
            assert!(!cause.why.ends_with('.'), "{cause:?}");
            let hint = cause.hint.unwrap_or_default();
            assert!(!hint.is_empty() && !hint.ends_with('.'), "{errno}: {hint}");
            assert!(seen.insert(cause.why.clone()), "twice: {}", cause.why);
        }
    }
}

#[test]
fn an_errno_that_is_not_known_is_named_and_not_explained_away() {
    for errno in [libc::EROFS, 530] {
        let cause = with(Syscall::KexecLoad, Target::Normal, NOTHING, |facts| {
            explain(&facts, Errno::new(errno))
        });
        assert!(cause.why.contains("not known"), "{cause:?}");
    }
    // Signature errors belong to the other call.
    let text = with(Syscall::KexecLoad, Target::Normal, NOTHING, |facts| {
        why(&facts, libc::ENOKEY)
    });
    assert!(text.contains("not known"), "{text}");
}

#[test]
fn a_crash_call_never_reaches_a_kernel_without_crash_dumps() {
    let changes: [(Change, &str); 4] = [
        (|_, loaded| loaded.crash = None, "CONFIG_CRASH_DUMP"),
        (|_, loaded| *loaded = Loaded::default(), "does not show"),
        (
            |_, loaded| {
                *loaded = Loaded::default();
                loaded.has_sysfs = true;
            },
            "neither kexec nor crash kernels",
        ),
        (
            |security, loaded| {
                *loaded = Loaded::default();
                security.config.kexec = Some(false);
                security.config.kexec_file = Some(false);
            },
            "built without kexec (neither",
        ),
    ];
    for (change, says) in changes {
        for unload in [false, true] {
            with(Syscall::KexecFileLoad, Target::Crash, change, |facts| {
                let facts = CallFacts { unload, ..facts };
                assert!(forbidden(&facts).unwrap().why.contains(says));
            });
        }
        with(Syscall::KexecFileLoad, Target::Normal, change, |facts| {
            assert_eq!(forbidden(&facts), None);
        });
    }
}

#[test]
fn a_crash_kernel_needs_a_reservation() {
    let none = |_: &mut Security, loaded: &mut Loaded| loaded.crash_size = Some(0);
    for syscall in [Syscall::KexecLoad, Syscall::KexecFileLoad] {
        with(syscall, Target::Crash, none, |facts| {
            let cause = forbidden(&facts).unwrap();
            assert!(cause.why.contains("reserved"), "{cause:?}");
            assert!(cause.hint.as_deref().unwrap().contains("crashkernel="));
            assert_eq!(explain(&facts, Errno::new(libc::EADDRNOTAVAIL)), cause);
            // Unloading needs none.
            let unload = CallFacts {
                unload: true,
                ..facts
            };
            assert_eq!(forbidden(&unload), None);
        });
        let unknown = |_: &mut Security, loaded: &mut Loaded| loaded.crash_size = None;
        let text = with(syscall, Target::Crash, unknown, |a| {
            why(&a, libc::EADDRNOTAVAIL)
        });
        assert!(text.starts_with("one of"), "{text}");
    }
    let file = with(Syscall::KexecFileLoad, Target::Crash, NOTHING, |a| {
        why(&a, libc::EADDRNOTAVAIL)
    });
    assert!(file.contains("512 MiB"), "{file}");
    let load = with(Syscall::KexecLoad, Target::Crash, NOTHING, |a| {
        why(&a, libc::EADDRNOTAVAIL)
    });
    assert!(load.contains("not where it was"), "{load}");
}

#[test]
fn einval_is_decided_by_the_numbers() {
    with(Syscall::KexecLoad, Target::Normal, NOTHING, |facts| {
        let many = CallFacts {
            segments: 17,
            ..facts
        };
        assert!(why(&many, libc::EINVAL).contains("17 segments"));
        assert_eq!(
            forbidden(&CallFacts {
                segments: 16,
                ..many
            }),
            None
        );

        let half = CallFacts {
            bytes: 2 * GIB,
            ..facts
        };
        assert_eq!(forbidden(&half), None);
        let over = CallFacts {
            bytes: 2 * GIB + 1,
            ..half
        };
        let text = why(&over, libc::EINVAL);
        assert!(
            text.contains("the image takes 2 GiB, more than half of the 4 GiB of this machine"),
            "{text}"
        );
        let one = CallFacts {
            largest: 3 * GIB,
            ..over
        };
        assert!(why(&one, libc::EINVAL).contains("one segment takes 3 GiB"));
        let unknown_ram = CallFacts {
            total_ram: 0,
            ..one
        };
        assert!(why(&unknown_ram, libc::EINVAL).starts_with("one of"));

        let hotplug = CallFacts {
            hotplug: Some(Hotplug::CrashHotplugSupport),
            ..facts
        };
        let cause = explain(&hotplug, Errno::new(libc::EINVAL));
        assert!(cause.why.contains("KEXEC_CRASH_HOTPLUG_SUPPORT"));
        assert!(cause.hint.unwrap().contains("`rkexec plan`"));
    });
}

#[test]
fn the_command_line_of_kexec_file_load_keeps_thirty_bytes_free() {
    let at = |syscall, cmdline_size| {
        with(syscall, Target::Normal, NOTHING, |facts| {
            forbidden(&CallFacts {
                cmdline_size,
                cmdline_limit: Some(2047),
                ..facts
            })
        })
    };
    assert_eq!(at(Syscall::KexecFileLoad, 2017), None);
    let near = at(Syscall::KexecFileLoad, 2018).unwrap();
    assert!(near.why.contains("2017 bytes") && near.why.contains("elfcorehdr="));
    let over = at(Syscall::KexecFileLoad, 2048).unwrap();
    assert!(over.why.contains("2047 bytes") && over.why.contains("accepts 2047"));
    assert_eq!(at(Syscall::KexecLoad, 2048), None);
}

#[test]
fn files_above_four_gib_are_not_tried() {
    with(Syscall::KexecFileLoad, Target::Normal, NOTHING, |facts| {
        let largest_file = 4 * GIB;
        assert_eq!(
            forbidden(&CallFacts {
                largest_file,
                ..facts
            }),
            None
        );
        let facts = CallFacts {
            largest_file: largest_file + 1,
            ..facts
        };
        let cause = forbidden(&facts).unwrap();
        assert!(cause.why.contains("4 GiB"));
        assert_eq!(explain(&facts, Errno::new(libc::EFBIG)), cause);
    });
}

#[test]
fn a_missing_signature_is_told_before_the_call_only_where_it_is_sure() {
    let unsigned = |change: Change| {
        with(Syscall::KexecFileLoad, Target::Normal, change, |facts| {
            forbidden(&CallFacts {
                signed: Some(false),
                ..facts
            })
        })
    };
    assert_eq!(unsigned(NOTHING), None);
    let forced = unsigned(|s, _| s.config.kexec_sig_force = Some(true)).unwrap();
    assert!(forced.why.contains("CONFIG_KEXEC_SIG_FORCE"));
    let locked = unsigned(|s, _| s.lockdown = Some(Lockdown::Integrity)).unwrap();
    assert!(
        locked
            .why
            .contains("locked down in integrity mode, and the kernel file has no")
    );
    assert!(!locked.hint.unwrap().contains("--syscall kexec_load"));
    // IMA may vouch for the file instead, and without CONFIG_KEXEC_SIG nobody looks.
    let ima: Change = |s, _| {
        s.lockdown = Some(Lockdown::Integrity);
        s.ima_appraise_kexec = Some(true);
    };
    assert_eq!(unsigned(ima), None);
    let nobody: Change = |s, _| {
        s.lockdown = Some(Lockdown::Integrity);
        s.config.kexec_sig = Some(false);
    };
    assert_eq!(unsigned(nobody), None);
    // A signed file under lockdown that is refused all the same.
    let text = with(
        Syscall::KexecFileLoad,
        Target::Normal,
        |s, _| s.lockdown = Some(Lockdown::Integrity),
        |facts| {
            let signed = CallFacts {
                signed: Some(true),
                ..facts
            };
            assert_eq!(forbidden(&signed), None);
            why(&signed, libc::EPERM)
        },
    );
    assert!(
        text.contains("does not trust the signature of the kernel file"),
        "{text}"
    );
}

#[test]
fn kexec_load_is_offered_only_where_it_may_work() {
    let hint = |change: Change, secure_boot| {
        with(Syscall::KexecFileLoad, Target::Normal, change, |facts| {
            let facts = CallFacts {
                efi_secure_boot: Some(secure_boot),
                ..facts
            };
            let hint = explain(&facts, Errno::new(libc::EKEYREJECTED))
                .hint
                .unwrap();
            hint.contains("--syscall kexec_load")
        })
    };
    assert!(hint(NOTHING, false));
    assert!(!hint(NOTHING, true));
    assert!(!hint(|s, _| s.lockdown = Some(Lockdown::Integrity), false));
    assert!(!hint(|s, _| s.config.kexec = Some(false), false));
    assert!(!hint(|s, _| s.ima_appraise_kexec = Some(true), false));
}

#[test]
fn memory_busy_and_handover_follow_the_facts() {
    with(Syscall::KexecLoad, Target::Normal, NOTHING, |facts| {
        let short = CallFacts {
            available_ram: GIB / 8,
            ..facts
        };
        let text = why(&short, libc::ENOMEM);
        assert!(text.contains("256 MiB, and only 128 MiB"), "{text}");
        assert!(why(&facts, libc::ENOMEM).starts_with("one of"));
    });
    let crash = with(Syscall::KexecLoad, Target::Crash, NOTHING, |a| {
        why(&a, libc::ENOMEM)
    });
    assert!(crash.contains("reservation of 512 MiB"), "{crash}");

    let limited = |s: &mut Security, _: &mut Loaded| s.limit_reboot = Some(4);
    let hint = with(Syscall::KexecLoad, Target::Normal, limited, |facts| {
        explain(&facts, Errno::new(libc::EBUSY)).hint.unwrap()
    });
    assert!(
        hint.contains("kexec_load_limit_reboot (there were 4)"),
        "{hint}"
    );

    let kho = |s: &mut Security, _: &mut Loaded| s.kho.on = true;
    let cause = with(Syscall::KexecFileLoad, Target::Normal, kho, |facts| {
        explain(&facts, Errno::new(libc::EADDRNOTAVAIL))
    });
    assert!(cause.hint.unwrap().contains("kho_scratch="));
}

#[test]
fn reboot_has_causes_of_its_own() {
    let (security, loaded) = open_machine();
    let says = |security: &Security, loaded: &Loaded, errno| {
        explain_reboot(security, loaded, Errno::new(errno)).why
    };
    assert_eq!(
        says(&security, &loaded, libc::EINVAL),
        "no kernel is loaded"
    );
    let ready = Loaded {
        normal: Some(true),
        ..loaded
    };
    assert!(says(&security, &ready, libc::EINVAL).contains("PID namespace"));
    assert!(says(&security, &Loaded::default(), libc::EINVAL).starts_with("one of"));
    assert!(says(&security, &ready, libc::EBUSY).contains("going on"));
    assert!(says(&security, &ready, libc::EPERM).starts_with("one of"));
    assert!(says(&security, &ready, libc::ENOSYS).contains("seccomp"));
    assert!(says(&security, &ready, libc::ENODEV).contains("6.19"));
    let user = Security {
        cap_sys_boot: Some(false),
        ..security
    };
    assert!(says(&user, &ready, libc::EPERM).contains("CAP_SYS_BOOT"));
    let error = SysError::reboot(&user, &ready, Errno::new(libc::EPERM));
    assert_eq!(
        error.to_string(),
        "exec failed: this process lacks the capability CAP_SYS_BOOT (EPERM)"
    );
    assert_eq!(error.hint(), Some("run as root"));
}

#[test]
fn errors_read_what_failed_why() {
    let disabled = |s: &mut Security, _: &mut Loaded| s.load_disabled = Some(true);
    with(Syscall::KexecFileLoad, Target::Normal, disabled, |facts| {
        let made = SysError::failed(&facts, Errno::new(libc::EPERM)).to_string();
        assert_eq!(
            made,
            "kexec_file_load failed: loading and unloading are switched off \
             (kernel.kexec_load_disabled = 1) (EPERM)"
        );
        let not_made = SysError::forbidden(&facts).unwrap();
        assert_eq!(
            not_made.to_string(),
            "load failed: loading and unloading are switched off \
             (kernel.kexec_load_disabled = 1) (the system call was not made)"
        );
        assert!(not_made.hint().unwrap().contains("reboot"));
    });
    let open = with(Syscall::KexecLoad, Target::Normal, NOTHING, |facts| {
        SysError::forbidden(&facts)
    });
    assert_eq!(open, None);
}
