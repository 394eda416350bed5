//! Each check on facts that make it speak, and on facts where it is silent.

mod capture;
mod machine;

use std::collections::BTreeSet;

use super::*;
use crate::cmdline::{CmdlineBase, CmdlineRequest};
use crate::host::mounts::Mount;
use crate::image;
use crate::plan::{Checked, Given, plan};
use crate::refusal::SysError;
use crate::request::LoadRequest;
use crate::testing::bzimage::TinyBzImage;
use crate::testing::host::{Says as _, host, tell_for_a_dump};

const MIB: u64 = 1 << 20;
/// A machine with 1 GiB and room for a crash kernel.
const MAP: &str = "00001000-0009ffff : System RAM\n00100000-3fffffff : System RAM\n  \
                   20000000-2fffffff : Crash kernel\n";

/// An initrd with files.
fn an_initrd() -> initrd::Contents {
    initrd::Contents {
        has_files: true,
        ..initrd::Contents::default()
    }
}

/// The facts, which a test changes.
struct Lab {
    target: Target,
    host: Host,
    around: Surroundings,
    armed: Armed,
    line: &'static str,
    watchdog: Option<u64>,
    initrd: Option<initrd::Contents>,
    has_initrd: bool,
    has_built_in: bool,
    unpackable: Option<initrd::Packing>,
    sizing: Option<Sizing>,
    held: u64,
    signed: Option<bool>,
    kho: crate::request::KhoChoice,
    other: Option<(Syscall, Cause)>,
}

impl Lab {
    /// A machine of which nothing bad is known, with a line that has all.
    fn new(target: Target) -> Self {
        let ram = [(0x1000, 0x9_ffff), (0x10_0000, 0x3fff_ffff)];
        let mut host = host(MAP)
            .firmware(ram.map(|(start, last)| (start, last, "System RAM")))
            .boot_e820(ram.map(|(start, last)| (start, last, 1)));
        tell_for_a_dump(&mut host);
        host.total_ram = 1 << 30;
        host.available_ram = 1 << 29;
        host.loaded = Loaded {
            normal: Some(false),
            crash: Some(true),
            crash_size: Some(256 * MIB),
            ..Loaded::default()
        };
        host.security.cap_sys_boot = Some(true);
        Self {
            target,
            host,
            around: Surroundings::default(),
            armed: Armed::Yes,
            line: "root=/dev/sda1 console=ttyS0 panic=30 reset_devices systemd.unit=kdump-tools-dump.service",
            watchdog: Some(60),
            initrd: Some(an_initrd()),
            has_initrd: true,
            has_built_in: false,
            unpackable: None,
            sizing: None,
            held: 0,
            signed: None,
            kho: crate::request::KhoChoice::Auto,
            other: None,
        }
    }

    fn exec() -> Self {
        Self::new(Target::Normal)
    }

    fn crash() -> Self {
        Self::new(Target::Crash)
    }

    fn facts<'a>(&'a self, load: Option<&'a Load<'a>>) -> Facts<'a> {
        Facts {
            target: self.target,
            security: &self.host.security,
            loaded: &self.host.loaded,
            secure_boot: None,
            host: Ok(&self.host),
            around: &self.around,
            armed: &self.armed,
            load,
        }
    }

    /// What is found on the machine alone.
    fn machine(&self) -> Vec<Finding> {
        examine(&self.facts(None))
    }

    /// What is found with a load.
    fn load(&self) -> Vec<Finding> {
        let file = TinyBzImage::direct().build();
        let image = image::probe(&file).unwrap();
        let request = LoadRequest {
            target: self.target,
            kho: self.kho,
            cmdline: CmdlineRequest {
                base: CmdlineBase::Given(self.line.into()),
                ..CmdlineRequest::default()
            },
            ..LoadRequest::default()
        };
        let given = Given {
            initrds: &[],
            carried: &[],
        };
        let none = crate::carry::Capability::unknown;
        let made = plan(&request, &self.host, &image, &given, none);
        let made: Result<Checked<Plan<'_>>, _> = made;
        let planned = match &made {
            Ok(plan) => {
                let call = CallFacts {
                    bytes: plan.total_size(),
                    held: self.held,
                    signed: self.signed,
                    total_ram: self.host.total_ram,
                    available_ram: self.host.available_ram,
                    cmdline_limit: Some(2048),
                    ..CallFacts::new(
                        plan.syscall(),
                        self.target,
                        &self.host.security,
                        &self.host.loaded,
                    )
                };
                Ok(Planned {
                    refusal: SysError::forbidden(&call).map(|error| error.cause),
                    sizing: self.sizing,
                    call,
                    plan,
                })
            }
            Err(error) => Err(Cause {
                hint: error.hint(),
                evidence: error.evidence(),
                ..Cause::new(error.to_string())
            }),
        };
        let load = Load {
            release: image.release(),
            plan: planned,
            other: self.other.clone(),
            watchdog: self.watchdog,
            initrd: self.initrd.clone(),
            has_initrd: self.has_initrd,
            has_built_in: self.has_built_in,
            unpackable: self.unpackable.clone(),
        };
        examine(&self.facts(Some(&load)))
    }
}

/// The findings of one check: how bad each is, and its text.
fn of(check: &str, found: &[Finding]) -> Vec<(Severity, String)> {
    assert!(CHECKS.iter().any(|known| known.name == check), "{check}");
    let found = found.iter().filter(|finding| finding.check == check);
    found
        .map(|finding| (finding.severity, finding.finding.clone()))
        .collect()
}

/// The way out of the first finding of `check`.
#[track_caller]
fn way_out<'a>(check: &str, found: &'a [Finding]) -> &'a str {
    let finding = found.iter().find(|finding| finding.check == check);
    finding.unwrap().way_out.as_deref().unwrap()
}

/// The one finding of `check` is as bad as that, and has `part` in it.
#[track_caller]
fn says(found: &[Finding], check: &str, severity: Severity, part: &str) {
    match of(check, found).as_slice() {
        [(is, text)] => {
            assert_eq!(*is, severity, "{text}");
            assert!(text.contains(part), "{text}");
        }
        other => panic!("{check}: {other:?}"),
    }
}

/// Where the first finding of `check` was read from.
#[track_caller]
fn evidence<'a>(check: &str, found: &'a [Finding]) -> &'a str {
    let finding = found.iter().find(|finding| finding.check == check);
    &finding.unwrap().evidence
}

fn mount(point: &str, kind: &str, minor: u32) -> Mount {
    Mount {
        device: (254, minor),
        root: "/".to_owned(),
        point: point.to_owned(),
        source: format!("/dev/mapper/{minor}"),
        kind: kind.to_owned(),
        writable: true,
    }
}

#[test]
fn every_check_has_a_name_of_its_own_and_says_what_it_is() {
    let names: BTreeSet<&str> = CHECKS.iter().map(|check| check.name).collect();
    assert_eq!(names.len(), CHECKS.len());
    for check in &CHECKS {
        let is_plain = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(check.name.chars().all(is_plain), "{}", check.name);
        assert!(check.about.len() > 20, "{}", check.name);
        assert!(!check.about.ends_with('.'), "{}", check.name);
    }
}

/// Every check is silent on a machine of which nothing bad is known.
#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    for lab in [Lab::exec(), Lab::crash()] {
        assert_eq!(lab.machine(), []);
        assert_eq!(lab.load(), []);
        let line = verdict(lab.target, Some("6.12"), &[]);
        assert!(line.ends_with(": nothing known against it"), "{line}");
    }
}

#[test]
fn the_worst_stands_first_and_in_the_last_line() {
    let mut lab = Lab::exec();
    lab.host.security.load_disabled = Some(true);
    lab.line = "x";
    lab.host.available_ram = 1;
    let found = lab.load();
    let severities: Vec<Severity> = found.iter().map(|one| one.severity).collect();
    assert!(severities.is_sorted(), "{severities:?}");
    let line = verdict(Target::Normal, Some("6.12.0"), &found);
    assert!(
        line.starts_with("kexec into 6.12.0: 1 blocker, 1 risk; first: loading and unloading are"),
        "{line}"
    );
    let notes: Vec<Finding> = found.into_iter().skip(2).collect();
    assert!(!notes.is_empty());
    assert_eq!(
        verdict(Target::Crash, None, &notes),
        "capture on this machine: nothing known against it"
    );
}

#[test]
fn what_the_kernel_must_refuse() {
    let mut lab = Lab::exec();
    lab.host.security.cap_sys_boot = Some(false);
    // Only the fact behind the finding is its evidence.
    lab.host.security.load_disabled = Some(true);
    for found in [lab.machine(), lab.load()] {
        says(&found, "refused", Severity::Blocker, "CAP_SYS_BOOT");
        assert_eq!(evidence("refused", &found), "/proc/self/status: CapEff");
    }
    lab.host.security.cap_sys_boot = Some(true);
    assert_eq!(
        evidence("refused", &lab.load()),
        "/proc/sys/kernel/kexec_load_disabled: 1"
    );
    // One call is left.
    let mut lab = Lab::exec();
    lab.host.security.lockdown = Some(crate::host::security::Lockdown::Integrity);
    says(
        &lab.machine(),
        "refused",
        Severity::Note,
        "only kexec_file_load can load a kernel here: the kernel is locked down",
    );
    assert_eq!(
        evidence("refused", &lab.machine()),
        "/sys/kernel/security/lockdown"
    );
    // A crash kernel alone needs a reservation.
    let mut lab = Lab::crash();
    lab.host.loaded.crash_size = Some(0);
    says(
        &lab.machine(),
        "refused",
        Severity::Blocker,
        "no memory is reserved",
    );
    assert_eq!(
        evidence("refused", &lab.machine()),
        "/sys/kernel/kexec_crash_size: 0"
    );
    lab.target = Target::Normal;
    assert_eq!(of("refused", &lab.machine()), []);
}

/// What the facts of the call say, not those of the machine.
#[test]
fn refusals_of_this_load() {
    let mut lab = Lab::exec();
    lab.signed = Some(false);
    lab.host.security.config.kexec = Some(false);
    lab.host.security.config.kexec_sig_force = Some(true);
    lab.host.security.lockdown = Some(crate::host::security::Lockdown::Integrity);
    let found = lab.load();
    says(&found, "refused", Severity::Blocker, "has no signature");
    assert_eq!(
        evidence("refused", &found),
        "the kernel file; the running kernel's configuration: CONFIG_KEXEC_SIG_FORCE"
    );
    let mut lab = Lab::exec();
    lab.host.security.environment = crate::host::environment::Environment::Wsl1;
    let found = lab.load();
    says(&found, "plan", Severity::Blocker, "this is WSL 1");
    assert_eq!(evidence("plan", &found), "/proc/sys/kernel/osrelease");
    assert_eq!(
        evidence("refused", &lab.machine()),
        evidence("plan", &found)
    );
}

#[test]
fn a_kernel_without_kexec() {
    const WITHOUT: &str = "this kernel is built without kexec (neither";
    let mut lab = Lab::exec();
    lab.host.security.config.kexec = Some(false);
    lab.host.security.config.kexec_file = Some(false);
    // A file in /boot may be another kernel's.
    says(&lab.machine(), "refused", Severity::Risk, WITHOUT);
    says(&lab.load(), "refused", Severity::Risk, WITHOUT);
    let found = lab.machine();
    assert!(way_out("refused", &found).contains("boot another kernel"));
    lab.host.loaded.normal = None;
    says(&lab.machine(), "refused", Severity::Risk, WITHOUT);
    lab.host.loaded.has_sysfs = true;
    says(&lab.machine(), "refused", Severity::Blocker, WITHOUT);
    lab.host.loaded.normal = Some(false);
    lab.host.security.config.is_own = true;
    says(&lab.machine(), "refused", Severity::Blocker, WITHOUT);
    says(&lab.load(), "refused", Severity::Blocker, WITHOUT);
    // One call is left.
    lab.host.security.config.kexec_file = Some(true);
    says(
        &lab.machine(),
        "refused",
        Severity::Note,
        "only kexec_file_load can load a kernel here: this kernel is built without kexec_load",
    );
    // The other one may be there, where only a file in /boot says that it is not.
    lab.host.security.config.is_own = false;
    lab.host.security.config.kexec = Some(true);
    lab.host.security.config.kexec_file = Some(false);
    lab.host.security.lockdown = Some(crate::host::security::Lockdown::Integrity);
    let found = of("refused", &lab.machine());
    let severities: Vec<Severity> = found.iter().map(|(severity, _)| *severity).collect();
    assert_eq!(severities, [Severity::Risk; 2], "{found:?}");
}

#[test]
fn what_the_plan_says() {
    let mut lab = Lab::crash();
    lab.host.iomem = host("00100000-3fffffff : System RAM\n").iomem;
    says(
        &lab.load(),
        "plan",
        Severity::Blocker,
        "no memory is reserved",
    );
    let mut lab = Lab::crash();
    lab.line = "panic=1 systemd.unit=kdump.service";
    let found = lab.load();
    says(&found, "plan", Severity::Risk, "some drivers may fail");
    assert_eq!(evidence("plan", &found), "the plan (rkexec plan)");
    assert_eq!(
        way_out("plan", &found),
        "--append \"nr_cpus=1 reset_devices\""
    );
    let mut lab = Lab::exec();
    let cause = Cause::new("it is signed by nobody").hint("sign it");
    lab.other = Some((Syscall::KexecFileLoad, cause));
    let found = lab.load();
    says(
        &found,
        "other-call",
        Severity::Note,
        "kexec_file_load, which is not taken, could not load this: it is signed by nobody",
    );
    assert_eq!(way_out("other-call", &found), "sign it");
}

/// What only informs is a note.
#[test]
fn options_without_effect_and_cpus_that_may_come() {
    let mut lab = Lab::exec();
    lab.kho = crate::request::KhoChoice::Drop;
    says(
        &lab.load(),
        "plan",
        Severity::Note,
        "--kho drop has no effect",
    );
    let mut lab = Lab::crash();
    lab.host.possible_cpus = Some(64);
    says(
        &lab.load(),
        "plan",
        Severity::Note,
        "of 64 possible CPUs are there",
    );
}

#[test]
fn what_only_root_may_read_is_said() {
    let mut lab = Lab::exec();
    let cause = Cause::new("only root may see the memory map").hint("run as root");
    let facts = Facts {
        host: Err(&cause),
        ..lab.facts(None)
    };
    let found = examine(&facts);
    says(&found, "unread", Severity::Risk, "only root may see");
    assert_eq!(way_out("unread", &found), "run as root");
    // The verdict is not that nothing is known against it.
    assert!(verdict(Target::Normal, None, &found).contains("1 risk"));
    lab.around.unread = vec!["/proc/fb: odd".to_owned()];
    says(&lab.machine(), "unread", Severity::Note, "/proc/fb: odd");
}

#[test]
fn memory_that_is_short_now() {
    let mut lab = Lab::exec();
    lab.host.available_ram = 4096;
    says(
        &lab.load(),
        "memory",
        Severity::Risk,
        "only 4 KiB of memory",
    );
    lab.target = Target::Crash;
    assert_eq!(of("memory", &lab.load()), []);
    // kexec_file_load holds the files besides what it copies.
    let mut lab = Lab::exec();
    assert_eq!(of("memory", &lab.load()), []);
    lab.held = lab.host.available_ram;
    says(
        &lab.load(),
        "memory",
        Severity::Risk,
        "holds the files, 512 MiB",
    );
}

#[test]
fn initrds_that_do_not_fit() {
    let mut lab = Lab::exec();
    let releases = |name: &str| initrd::Contents {
        releases: [name.to_owned()].into(),
        ..initrd::Contents::default()
    };
    lab.initrd = Some(releases("6.12.0-tiny"));
    assert_eq!(of("modules", &lab.load()), []);
    lab.initrd = Some(releases("6.1.0-49-amd64"));
    says(
        &lab.load(),
        "modules",
        Severity::Risk,
        "the modules of 6.1.0-49-amd64, and the kernel is 6.12.0-tiny",
    );
    lab.initrd = Some(initrd::Contents {
        packed_microcode: true,
        ..initrd::Contents::default()
    });
    says(
        &lab.load(),
        "microcode",
        Severity::Note,
        "updates of the processor",
    );
    lab.initrd.as_mut().unwrap().early_microcode = true;
    assert_eq!(of("microcode", &lab.load()), []);
    lab.initrd = Some(an_initrd());
    lab.line = "root=UUID=0123 panic=1 console=ttyS0";
    assert_eq!(of("root", &lab.load()), []);
    (lab.initrd, lab.has_initrd) = (None, false);
    says(&lab.load(), "root", Severity::Risk, "root=UUID=0123");
    lab.has_built_in = true;
    assert_eq!(of("root", &lab.load()), []);
    lab.has_built_in = false;
    lab.line = "root=/dev/mapper/vg-root";
    says(&lab.load(), "root", Severity::Risk, "root=/dev/mapper/");
    lab.line = "root=/dev/mapper/vg-root dm-mod.create=x";
    assert_eq!(of("root", &lab.load()), []);
    // Updates of the processor find no root file system.
    (lab.initrd, lab.has_initrd) = (Some(initrd::Contents::default()), true);
    lab.line = "root=LABEL=x";
    says(&lab.load(), "root", Severity::Risk, "root=LABEL=x");
    lab.line = "root=PARTUUID=0123";
    assert_eq!(of("root", &lab.load()), []);
}

#[test]
fn an_initrd_that_the_kernel_cannot_unpack() {
    let plain: &[u8] = include_bytes!("../../tests/data/initrd/cpio");
    let packed: &[u8] = include_bytes!("../../tests/data/initrd/cpio.zst");
    let config = |line: &str| {
        let text = format!("CONFIG_X86_64=y\n{line}\n");
        crate::kconfig::KernelConfig::parse(text.as_bytes()).unwrap()
    };
    let of = |line: &str| initrd::Packing::find(&[plain, packed], &config(line), "config-1");
    assert_eq!(of("CONFIG_RD_ZSTD=y"), None);
    let found = of("# CONFIG_RD_ZSTD is not set").unwrap();
    assert_eq!((found.format, found.symbol), ("zstd", "CONFIG_RD_ZSTD"));
    // A kernel that is older than the symbol.
    assert_eq!(of("CONFIG_RD_GZIP=y"), Some(found.clone()));
    let mut lab = Lab::exec();
    lab.unpackable = Some(found);
    says(&lab.load(), "packing", Severity::Risk, "packed with zstd");
}

#[test]
fn kernels_with_an_initramfs_of_their_own() {
    let config = |line: &str| crate::kconfig::KernelConfig::parse(line.as_bytes()).unwrap();
    let is = |line| initrd::is_built_in(&config(line));
    assert!(is("CONFIG_INITRAMFS_SOURCE=\"/usr/src/initramfs\"\n"));
    assert!(!is("CONFIG_INITRAMFS_SOURCE=\"\"\n"));
    assert!(!is("CONFIG_X86_64=y\n"));
}

#[test]
fn what_is_seen_in_an_initrd() {
    let plain = include_bytes!("../../tests/data/initrd/cpio");
    let packed = include_bytes!("../../tests/data/initrd/cpio.zst");
    let contents = initrd::Contents::read(&[plain, packed]).unwrap();
    assert!(contents.has_files && contents.releases.is_empty());
    assert_eq!(initrd::Contents::read(&[b"no archive"]), None);
}
