//! Which system call, by facts; and what kexec_file_load does to the map.

use std::collections::BTreeSet;

use super::*;
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::host::efi::Efi;
use crate::host::security::{Lockdown, Security};
use crate::testing::bzimage::{TinyBzImage, field};
use crate::testing::host::{Says as _, host, range};

/// A machine whose map both system calls hand over alike.
fn plain() -> Host {
    host("00100000-3fffffff : System RAM\n")
        .firmware([(0x10_0000, 0x3fff_ffff, "System RAM")])
        .boot_e820([(0x10_0000, 0x3fff_ffff, 1)])
}

/// A machine with memory that kexec_file_load would hand over as RAM.
fn with_legacy_pmem() -> Host {
    host("00100000-3fffffff : System RAM\n40000000-7fffffff : Persistent Memory (legacy)\n")
        .firmware([(0x10_0000, 0x7fff_ffff, "System RAM")])
        .boot_e820([(0x10_0000, 0x7fff_ffff, 1)])
}

fn decided(request: &LoadRequest, host: &Host) -> Result<(Syscall, String), String> {
    decided_for(&TinyBzImage::new(0x1000).build(), request, host).map_err(|error| error.to_string())
}

fn decided_for(
    kernel: &[u8],
    request: &LoadRequest,
    host: &Host,
) -> Result<(Syscall, String), PlanError> {
    let map = MemoryMap::reconcile(host, request.memory_map, &request.include_driver_managed);
    let image = crate::image::probe(kernel).unwrap();
    let line = Cmdline::make(&request.cmdline, &host.cmdline, 2047)?;
    let asked = Asked {
        request,
        host,
        boot: Protocol::of(&image),
        map: &map,
        handover: &Handover::default(),
        line: &line,
        carries: false,
    };
    let lost = host.security.kho.forbids_kexec_load();
    decide(asked, lost).map(|decision| (decision.name, decision.reason))
}

fn forced(syscall: Syscall) -> LoadRequest {
    LoadRequest {
        syscall: SyscallChoice::Only(syscall),
        ..LoadRequest::default()
    }
}

/// Makes something a fact of a machine.
type Fact = fn(&mut Host);

/// Facts that forbid kexec_load, and the reason given.
fn forbidden() -> [(Fact, &'static str); 7] {
    fn secure_boot(host: &mut Host) {
        host.efi = Some(Efi {
            secure_boot: Some(true),
            ..Efi::default()
        });
    }
    [
        (
            |host| host.security.lockdown = Some(Lockdown::Integrity),
            "kernel lockdown forbids kexec_load",
        ),
        (
            |host| host.security.lockdown = Some(Lockdown::Confidentiality),
            "kernel lockdown forbids kexec_load",
        ),
        (
            |host| host.security.ima_appraise_kexec = Some(true),
            "IMA appraises kexec images, and kexec_load has no file to appraise",
        ),
        (
            |host| {
                secure_boot(host);
                host.security.config.kexec_sig = Some(true);
            },
            "Secure Boot is on, and only kexec_file_load checks a signature",
        ),
        // A kernel whose configuration is not known may verify.
        (
            secure_boot,
            "Secure Boot is on, and only kexec_file_load checks a signature",
        ),
        (
            |host| {
                host.security.kho.on = true;
                host.security.kho.preserved = Some(vec!["LUO".to_owned()]);
            },
            "Kexec Handover (KHO) preserves LUO, and kexec_load would drop it",
        ),
        (
            |host| host.security.config.kexec = Some(false),
            "the running kernel is built without CONFIG_KEXEC",
        ),
    ]
}

#[test]
fn kexec_load_where_nothing_forbids_it() {
    let because =
        "only with it rkexec can correct the memory map, choose the addresses and check the parts";
    let facts: [Fact; 9] = [
        |_| (),
        |host| host.security.lockdown = Some(Lockdown::None),
        |host| host.security.ima_appraise_kexec = Some(false),
        |host| host.security.config.kexec = Some(true),
        |host| host.security.config.kexec_sig = Some(true),
        // Secure Boot, and a kernel that verifies nothing.
        |host| {
            host.efi = Some(Efi {
                secure_boot: Some(true),
                ..Efi::default()
            });
            host.security.config.kexec_sig = Some(false);
        },
        |host| {
            host.efi = Some(Efi {
                secure_boot: Some(false),
                ..Efi::default()
            });
            host.security.config.kexec_sig = Some(true);
        },
        // What fails with either call is for the errors of the call to explain.
        |host| {
            host.security = Security {
                load_disabled: Some(true),
                limit_reboot: Some(0),
                cap_sys_boot: Some(false),
                ..Security::default()
            };
        },
        |host| {
            host.security.config.kexec = Some(false);
            host.security.config.kexec_file = Some(false);
        },
    ];
    for (index, set) in facts.into_iter().enumerate() {
        for mut host in [plain(), with_legacy_pmem()] {
            set(&mut host);
            assert_eq!(
                decided(&LoadRequest::default(), &host),
                Ok((Syscall::KexecLoad, because.to_owned())),
                "facts {index}"
            );
        }
    }
}

#[test]
fn kexec_file_load_where_kexec_load_is_forbidden() {
    for (set, reason) in forbidden() {
        let mut host = plain();
        set(&mut host);
        assert_eq!(
            decided(&LoadRequest::default(), &host),
            Ok((Syscall::KexecFileLoad, reason.to_owned()))
        );
    }
}

#[test]
fn neither_where_one_is_forbidden_and_the_other_does_harm() {
    for (set, reason) in forbidden() {
        let mut host = with_legacy_pmem();
        set(&mut host);
        let harm = "passes 1 GiB on as RAM that must stay reserved, first \
                    0x40000000-0x7fffffff (Persistent Memory (legacy))";
        assert_eq!(
            decided(&LoadRequest::default(), &host),
            Err(format!("cannot load: {reason}, and kexec_file_load {harm}"))
        );
        // Whoever asks for it gets it, and is told.
        assert_eq!(
            decided(&forced(Syscall::KexecFileLoad), &host),
            Ok((
                Syscall::KexecFileLoad,
                "asked for with --syscall".to_owned()
            ))
        );
    }
}

#[test]
fn what_is_asked_for_is_taken() {
    for syscall in [Syscall::KexecLoad, Syscall::KexecFileLoad] {
        for (set, _) in forbidden() {
            for mut host in [plain(), with_legacy_pmem()] {
                set(&mut host);
                assert_eq!(
                    decided(&forced(syscall), &host),
                    Ok((syscall, "asked for with --syscall".to_owned()))
                );
            }
        }
    }
}

#[test]
fn wishes_that_only_kexec_load_fulfils() {
    let placing = "the running kernel places the segments itself";
    let mapping = "the running kernel hands over its own map";
    let verifying = "the running kernel's purgatory always verifies";
    let wishes: [(LoadRequest, &str, &str); 5] = [
        (
            LoadRequest {
                mem_min: Some(1 << 20),
                ..LoadRequest::default()
            },
            "--mem-min",
            placing,
        ),
        (
            LoadRequest {
                mem_max: Some(1 << 32),
                ..LoadRequest::default()
            },
            "--mem-max",
            placing,
        ),
        (
            LoadRequest {
                memory_map: MapPolicy::Firmware,
                ..LoadRequest::default()
            },
            "--memory-map firmware",
            mapping,
        ),
        (
            LoadRequest {
                include_driver_managed: BTreeSet::from(["kmem".to_owned()]),
                ..LoadRequest::default()
            },
            "--include-driver-managed",
            mapping,
        ),
        (
            LoadRequest {
                no_digest: true,
                ..LoadRequest::default()
            },
            "--no-digest",
            verifying,
        ),
    ];
    for (wish, option, reason) in wishes {
        assert_eq!(
            decided(&wish, &plain()),
            Ok((Syscall::KexecLoad, format!("{option} needs it: {reason}")))
        );
        let mut locked = plain();
        locked.security.lockdown = Some(Lockdown::Integrity);
        assert_eq!(
            decided(&wish, &locked),
            Err(format!(
                "cannot load: kernel lockdown forbids kexec_load, \
                 and kexec_file_load cannot do {option} ({reason})"
            ))
        );
        let forced = LoadRequest {
            syscall: SyscallChoice::Only(Syscall::KexecFileLoad),
            ..wish
        };
        assert_eq!(
            decided(&forced, &plain()),
            Err(format!(
                "{option} does not work with kexec_file_load: {reason}"
            ))
        );
    }
}

#[test]
fn hints_of_neither_fit_the_reason() {
    let hint = |request: &LoadRequest, mut host: Host, kernel: &[u8]| {
        host.security.lockdown = Some(Lockdown::Integrity);
        let error = decided_for(kernel, request, &host).unwrap_err();
        assert!(matches!(error, PlanError::NoSyscall { .. }), "{error}");
        assert!(!error.is_usage());
        error.hint()
    };
    let kernel = TinyBzImage::new(0x1000);
    let wish = LoadRequest {
        mem_min: Some(1 << 20),
        ..LoadRequest::default()
    };
    assert_eq!(
        hint(&wish, plain(), &kernel.clone().build()).as_deref(),
        Some("leave --mem-min out: only kexec_load can do it")
    );
    let none = LoadRequest::default();
    assert_eq!(
        hint(&none, with_legacy_pmem(), &kernel.clone().build()).as_deref(),
        Some("--syscall kexec_file_load loads all the same")
    );
    let low = kernel.u16(field::XLOADFLAGS, 0x7d).build();
    assert_eq!(hint(&none, plain(), &low), None);
}

#[test]
fn images_that_kexec_file_load_refuses() {
    let kernel = TinyBzImage::new(0x1000);
    let low = kernel.clone().u16(field::XLOADFLAGS, 0x7d).build();
    let mut efi32 = plain();
    efi32.efi = Some(Efi {
        platform_bits: 32,
        ..Efi::default()
    });
    let cases = [
        (
            low,
            plain(),
            "it cannot be loaded above 4 GiB (XLF_CAN_BE_LOADED_ABOVE_4G)",
        ),
        (
            kernel.clone().u16(field::XLOADFLAGS, 0x7e).build(),
            plain(),
            "it has no 64-bit entry (XLF_KERNEL_64)",
        ),
        (kernel.build(), efi32, "this machine's EFI is a 32-bit one"),
        (
            crate::testing::elf::TinyElf::vmlinux().build(),
            plain(),
            "it is a vmlinux, and on x86 kexec_file_load takes bzImages only",
        ),
    ];
    for (kernel, mut host, reason) in cases {
        let decided = |request: &LoadRequest, host: &Host| decided_for(&kernel, request, host);
        let taken = decided(&LoadRequest::default(), &host).unwrap();
        assert_eq!(taken.0, Syscall::KexecLoad);
        let error = decided(&forced(Syscall::KexecFileLoad), &host).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("kexec_file_load refuses this image: {reason}")
        );
        assert!(!error.is_usage());
        host.security.lockdown = Some(Lockdown::Integrity);
        assert_eq!(
            decided(&LoadRequest::default(), &host)
                .unwrap_err()
                .to_string(),
            format!(
                "cannot load: kernel lockdown forbids kexec_load, \
                 and kexec_file_load refuses this image: {reason}"
            )
        );
    }
}

/// What kexec_file_load does wrong on `host`, `!` in front of what is severe.
fn harms(host: &Host) -> Vec<String> {
    harms_with(host, "")
}

/// The same for a next kernel with that command line.
fn harms_with(host: &Host, line: &str) -> Vec<String> {
    let map = MemoryMap::reconcile(host, MapPolicy::FixedUp, &BTreeSet::new());
    let request = CmdlineRequest {
        base: CmdlineBase::Given(line.into()),
        ..CmdlineRequest::default()
    };
    let line = Cmdline::make(&request, "", 2047).unwrap();
    let file = TinyBzImage::new(0x1000).build();
    let image = crate::image::probe(&file).unwrap();
    let (boot, kernels) = (Protocol::of(&image), kernel_map(host));
    harm(Target::Normal, host, boot, &map, &kernels, &line)
        .into_iter()
        .map(|harm| format!("{}{}", if harm.severe { "!" } else { "" }, harm.what))
        .collect()
}

#[test]
fn no_harm() {
    assert_eq!(harms(&plain()), [""; 0]);
    // Driver-managed memory that was not there at boot is in no map.
    let host =
        host("00100000-3fffffff : System RAM\n100000000-1ffffffff : System RAM (virtio_mem)\n")
            .boot_e820([(0x10_0000, 0x3fff_ffff, 1)]);
    assert_eq!(harms(&host), [""; 0]);
    // Every kernel reserves its first page itself.
    let host = self::host("00000000-00000fff : Reserved\n00001000-0009ffff : System RAM\n")
        .boot_e820([(0, 0x9_ffff, 1)]);
    assert_eq!(harms(&host), [""; 0]);
}

#[test]
fn e820_entries_that_are_dropped() {
    let entries: Vec<(u64, u64, u32)> = (0..140_u64)
        .map(|n| (n << 20, (n << 20) + 0xf_efff, 1))
        .collect();
    let host = host("00001000-000fefff : System RAM\n").boot_e820(entries);
    assert_eq!(kernel_map(&host).len(), 140);
    assert_eq!(
        harms(&host)[0],
        "!drops 12 of the 140 entries of the memory map"
    );
    let mut locked = host;
    locked.security.lockdown = Some(Lockdown::Integrity);
    assert_eq!(
        decided(&LoadRequest::default(), &locked),
        Err("cannot load: kernel lockdown forbids kexec_load, \
             and kexec_file_load drops 12 of the 140 entries of the memory map"
            .to_owned())
    );
}

#[test]
fn memory_that_is_no_ram_any_more() {
    let what = |size: &str, range: &str, kind: &str| {
        format!("passes {size} on as RAM that must stay reserved, first {range} ({kind})")
    };
    // kmem in a range that was RAM by mistake of the firmware.
    let host = host("00100000-3fffffff : System RAM\n40000000-7fffffff : dax0.0\n  50000000-7fffffff : System RAM (kmem)\n")
        .boot_e820([(0x10_0000, 0x7fff_ffff, 1)]);
    assert_eq!(
        harms(&host),
        [
            format!(
                "!{}",
                what("768 MiB", "0x50000000-0x7fffffff", "System RAM (kmem)")
            ),
            what("256 MiB", "0x40000000-0x4fffffff", "System RAM (not used)"),
        ]
    );
    // A reservation by hand is somebody's wish; others are the kernel's business.
    let reserved = self::host("00100000-3fffffff : System RAM\n40000000-7fffffff : Reserved\n")
        .boot_e820([(0x10_0000, 0x7fff_ffff, 1)]);
    let expected = what("1 GiB", "0x40000000-0x7fffffff", "Reserved");
    assert_eq!(harms(&reserved), std::slice::from_ref(&expected));
    let by_hand = reserved.cmdline("quiet memmap=1G$0x40000000");
    assert_eq!(harms(&by_hand), [format!("!{expected}")]);
    // The same words make the same reservation again, and less do not.
    let again = |line: &str| harms_with(&by_hand, line);
    assert!(again("x memmap=1G$0x40000000 y") == [&*expected]);
    assert_eq!(again("memmap=1G$0x80000000"), [format!("!{expected}")]);
    let pmem = self::host(
        "00100000-3fffffff : System RAM\n40000000-7fffffff : Persistent Memory (legacy)\n",
    )
    .boot_e820([(0x10_0000, 0x7fff_ffff, 1)])
    .cmdline("memmap=512M!1G memmap=512M!1536M");
    let expected = what(
        "1 GiB",
        "0x40000000-0x7fffffff",
        "Persistent Memory (legacy)",
    );
    assert!(harms_with(&pmem, "memmap=512M!1G memmap=512M!1536M") == [&*expected]);
    assert_eq!(
        harms_with(&pmem, "memmap=512M!1G"),
        [format!("!{expected}")]
    );
}

#[test]
fn the_map_that_the_kernel_hands_over() {
    // The e820 it was booted with, in the kernel's way: sorted, the larger type wins.
    let host = plain().boot_e820([
        (0x4000_0000, 0x4000_0fff, 4),
        (0x10_0000, 0x3fff_ffff, 1),
        (0x3fff_0000, 0x3fff_ffff, 2),
    ]);
    assert_eq!(
        kernel_map(&host),
        [
            (range(0x10_0000, 0x3ffe_ffff), Told::RAM),
            (range(0x3fff_0000, 0x3fff_ffff), Told::RESERVED),
            (range(0x4000_0000, 0x4000_0fff), Told::NVS),
        ]
    );
    // Without it, the firmware map is the same.
    let host = Host {
        boot_params: None,
        ..host
    };
    let host = host.firmware([
        (0x10_0000, 0x3fff_ffff, "System RAM"),
        (0x4000_0000, 0x4000_0fff, "Unknown E820 type"),
    ]);
    assert_eq!(
        kernel_map(&host),
        [
            (range(0x10_0000, 0x3fff_ffff), Told::RAM),
            (range(0x4000_0000, 0x4000_0fff), Told::RESERVED),
        ]
    );
}
