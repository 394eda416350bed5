//! Loads with a fake kernel behind the door: what is tried again, what is loaded again,
//! what is unloaded, and what the record says afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::base::PhysRange;
use crate::cmdline::CmdlineBase;
use crate::host::kho::Kho;
use crate::job::Job;
use crate::kho::forward::forward;
use crate::kho::{State, encode};
use crate::load::fake::{FakeKernel, Told};
use crate::request::{KhoChoice, LoadRequest};
use crate::testing::bzimage::TinyBzImage;
use crate::testing::host::{Says as _, host, tell_for_a_dump};

/// 1 GiB, a quarter of which a crash kernel has, and `more`.
fn iomem(more: &str) -> String {
    format!(
        "00001000-0009fbff : System RAM
00100000-3fffffff : System RAM
  10000000-1fffffff : Crash kernel
{more}"
    )
}

/// A machine that both calls can load on.
fn machine() -> Host {
    let mut host = host(&iomem(""))
        .firmware([
            (0x1000, 0x9_fbff, "System RAM"),
            (0x10_0000, 0x3fff_ffff, "System RAM"),
        ])
        .boot_e820([(0x1000, 0x9_fbff, 1), (0x10_0000, 0x3fff_ffff, 1)])
        .cmdline("root=/dev/sda quiet");
    tell_for_a_dump(&mut host);
    host.total_ram = 1 << 30;
    host.loaded.normal = Some(false);
    host.loaded.crash = Some(false);
    host
}

/// The machine, its files, and a kernel that does what it is told.
pub(super) struct Lab {
    dir: tempfile::TempDir,
    pub(super) root: Root,
    pub(super) kernel: FakeKernel,
    told: Told,
}

impl Lab {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    pub(super) fn at(dir: tempfile::TempDir) -> Self {
        let root = Root::at(dir.path());
        let lab = Self {
            kernel: FakeKernel::new(machine()),
            told: Told::default(),
            dir,
            root,
        };
        for name in ["one", "two"] {
            fs::write(lab.path(name), TinyBzImage::new(0x1_0000).build()).unwrap();
        }
        fs::write(lab.path("initrd"), "an initrd").unwrap();
        let boot_id = lab.path("proc/sys/kernel/random/boot_id");
        fs::create_dir_all(boot_id.parent().unwrap()).unwrap();
        fs::write(boot_id, "this-boot\n").unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn session(&self) -> Session<'_> {
        Session::new(&self.kernel, &self.root, &self.told)
    }

    /// A load of the kernel `name`.
    pub(super) fn job(&self, name: &str, target: Target) -> Job {
        Job {
            kernel: self.path(name),
            initrds: vec![self.path("initrd")],
            request: LoadRequest {
                target,
                seed: Some([1; 32]),
                ..LoadRequest::default()
            },
            ..Job::default()
        }
    }

    /// Loads `job`, after `between` happened behind planning. Returns the call of the plan
    /// that was carried out, or the error.
    fn load_after(&self, job: &Job, between: impl FnOnce()) -> Result<Syscall, String> {
        let session = self.session();
        let host = self.kernel.facts(job.request.target).unwrap();
        let files = Files::open(job).unwrap();
        let contents = files.contents().unwrap();
        let prepared = Prepared::new(job, &files, &contents).unwrap();
        let plan = prepared.plan(&host, &self.root).unwrap();
        between();
        let loaded = session.load(&prepared, &host, plan);
        loaded
            .map(|plan| plan.syscall())
            .map_err(|error| format!("{error:#}"))
    }

    pub(super) fn load(&self, job: &Job) -> Result<Syscall, String> {
        self.load_after(job, || ())
    }

    /// Loads the kernel `one` for a panic.
    fn arm(&self) {
        self.load(&self.job("one", Target::Crash)).unwrap();
        assert_eq!(self.kernel.calls(), ["kexec_load crash"]);
        assert_eq!(self.told.warnings(), [""; 0]);
        assert_eq!(self.recorded(Target::Crash).as_deref(), Some("one"));
    }

    /// The record of what is loaded.
    fn record(&self, target: Target) -> Option<LoadRecord> {
        let host = self.kernel.host.borrow();
        self.session().recorded(target, &host).unwrap()
    }

    /// The name of the kernel that the record names.
    fn recorded(&self, target: Target) -> Option<String> {
        let name = self.record(target)?.kept.kernel;
        Some(name.file_name().unwrap().to_str().unwrap().to_owned())
    }
}

/// Changes the file `path`.
fn write_to(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes.push(0);
    fs::write(path, bytes).unwrap();
}

fn shown(error: Result<Syscall, String>, parts: &[&str]) {
    let error = error.unwrap_err();
    for part in parts {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_load_is_one_call_and_a_record() {
    for target in [Target::Normal, Target::Crash] {
        let lab = Lab::new();
        let job = lab.job("one", target);
        assert_eq!(lab.load(&job), Ok(Syscall::KexecLoad));
        assert_eq!(lab.kernel.calls(), [format!("kexec_load {target}")]);
        assert_eq!(lab.told.warnings(), [""; 0]);
        assert_eq!(lab.recorded(target).as_deref(), Some("one"));
    }
}

#[test]
fn a_refused_kexec_load_is_followed_by_the_other_call() {
    for (target, why) in [
        (Target::Normal, "kexec_load failed: "),
        (
            Target::Crash,
            "load failed, and the machine is NOT armed: kexec_load failed: ",
        ),
    ] {
        let lab = Lab::new();
        let job = lab.job("one", target);
        lab.kernel.then_fails(libc::EPERM);
        assert_eq!(lab.load(&job), Ok(Syscall::KexecFileLoad));
        let calls = ["kexec_load", "kexec_file_load"];
        assert_eq!(
            lab.kernel.calls(),
            calls.map(|call| format!("{call} {target}"))
        );
        let warnings = lab.told.warnings();
        let [refused, ..] = &warnings[..] else {
            panic!("nothing was said");
        };
        assert!(refused.starts_with(why), "{refused}");
        assert!(refused.ends_with("; kexec_file_load is tried"), "{refused}");
        // The record knows it, and what was asked for is still `auto`.
        let record = lab.record(target).unwrap();
        assert!(record.kexec_load_refused);
        assert_eq!(record.kept.syscall, SyscallChoice::Auto);
    }
}

#[test]
fn a_refused_call_that_was_asked_for_is_an_error() {
    let lab = Lab::new();
    let mut job = lab.job("one", Target::Normal);
    job.request.syscall = SyscallChoice::Only(Syscall::KexecLoad);
    lab.kernel.then_fails(libc::EPERM);
    shown(lab.load(&job), &["kexec_load failed: "]);
    assert_eq!(lab.kernel.calls(), ["kexec_load normal"]);
    assert_eq!(lab.recorded(Target::Normal), None);
}

#[test]
fn an_error_that_is_no_refusal_is_not_tried_by_the_other_call() {
    let lab = Lab::new();
    lab.kernel.then_fails(libc::ENOMEM);
    let job = lab.job("one", Target::Normal);
    shown(lab.load(&job), &["kexec_load failed: "]);
    assert_eq!(lab.kernel.calls(), ["kexec_load normal"]);
    // Both calls may be refused. Then the second one's error counts.
    lab.kernel.then_fails(libc::EPERM).then_fails(libc::EPERM);
    shown(lab.load(&job), &["kexec_file_load failed: "]);
    let calls = ["kexec_load normal", "kexec_file_load normal"];
    assert_eq!(lab.kernel.calls(), calls);
}

#[test]
fn a_file_that_changes_before_the_call_loads_nothing() {
    let lab = Lab::new();
    lab.load(&lab.job("one", Target::Normal)).unwrap();
    lab.kernel.calls();
    let job = lab.job("two", Target::Normal);
    for file in ["two", "initrd"] {
        let done = lab.load_after(&job, || write_to(&lab.path(file)));
        shown(
            done,
            &[
                file,
                "was changed while it was in use",
                "; nothing was loaded",
            ],
        );
        assert_eq!(lab.kernel.calls(), [""; 0]);
        assert_eq!(lab.recorded(Target::Normal).as_deref(), Some("one"));
    }
}

/// What is carried is checked as well, and may be empty.
#[test]
fn a_carried_file_that_changes_is_not_loaded() {
    let lab = Lab::new();
    let texts = b"kho-v4\0luo-v5\0memfd-v2\0";
    fs::write(lab.path("two"), TinyBzImage::saying(texts).build()).unwrap();
    fs::write(lab.path("empty"), "").unwrap();
    fs::write(lab.path("state"), "state").unwrap();
    let job = Job {
        carry: vec![lab.path("empty"), lab.path("state")],
        ..lab.job("two", Target::Normal)
    };
    let done = lab.load_after(&job, || write_to(&lab.path("state")));
    shown(
        done,
        &["state: the file was changed", "; nothing was loaded"],
    );
    assert_eq!(lab.kernel.calls(), [""; 0]);
    lab.load(&job).unwrap();
    assert_eq!(lab.kernel.calls(), ["kexec_load normal"]);
    let kept = lab.record(Target::Normal).unwrap().kept;
    assert_eq!(
        kept.carry,
        [lab.path("empty"), lab.path("state")].map(|path| fs::canonicalize(path).unwrap())
    );
}

#[test]
fn a_file_that_changes_during_the_call_is_unloaded_again() {
    let syscalls = [Syscall::KexecLoad, Syscall::KexecFileLoad];
    let targets = [Target::Normal, Target::Crash];
    let cases = syscalls.map(|syscall| targets.map(|target| (syscall, target)));
    for (syscall, target) in cases.into_iter().flatten() {
        let lab = Lab::new();
        lab.load(&lab.job("one", target)).unwrap();
        lab.kernel.calls();
        let changed = lab.path("two");
        lab.kernel.then(move |_| {
            write_to(&changed);
            Ok(())
        });
        let mut job = lab.job("two", target);
        job.request.syscall = SyscallChoice::Only(syscall);
        let done = lab.load(&job);
        let why = "; it was unloaded again, nothing is loaded now";
        shown(done, &["two: the file was changed", why]);
        let mut calls = vec![
            format!("{syscall} {target}"),
            format!("unload by {syscall} {target}"),
        ];
        // The crash kernel loaded before is armed again.
        if target == Target::Crash {
            calls.push("kexec_load crash".to_owned());
        }
        assert_eq!(lab.kernel.calls(), calls);
        let record = (target == Target::Crash).then_some("one");
        assert_eq!(lab.recorded(target).as_deref(), record);
        assert!(!lab.path("run/rkexec/normal.json").exists());
    }
}

#[test]
fn what_cannot_be_unloaded_is_not_to_be_trusted() {
    for (target, start) in [
        (Target::Normal, "load failed: "),
        (
            Target::Crash,
            "load failed, and what a panic boots now is not to be trusted: ",
        ),
    ] {
        let lab = Lab::new();
        lab.load(&lab.job("one", target)).unwrap();
        lab.kernel.calls();
        let changed = lab.path("two");
        lab.kernel
            .then(move |_| {
                write_to(&changed);
                Ok(())
            })
            .then_fails(libc::EPERM);
        let done = lab.load(&lab.job("two", target));
        let why = "; it is still loaded and must not be booted: unload by kexec_load failed";
        shown(done.clone(), &[start, why]);
        assert!(done.unwrap_err().starts_with(start));
        let calls = ["kexec_load", "unload by kexec_load"];
        assert_eq!(
            lab.kernel.calls(),
            calls.map(|call| format!("{call} {target}"))
        );
        // The record of `one` would be a false one.
        assert_eq!(lab.recorded(target), None);
    }
}

#[test]
fn a_crash_kernel_that_was_thrown_out_is_loaded_again() {
    let lab = Lab::new();
    lab.arm();
    lab.kernel.then_throws_out(libc::EADDRNOTAVAIL);
    let done = lab.load(&lab.job("two", Target::Crash));
    let start = "load failed, and the crash kernel loaded before, which the attempt had thrown \
                 out, is armed again: kexec_load failed: ";
    shown(done, &[start]);
    let calls = ["kexec_load crash", "kexec_load crash"];
    assert_eq!(lab.kernel.calls(), calls);
    assert_eq!(lab.recorded(Target::Crash).as_deref(), Some("one"));
    // A failure that threw nothing out needs no rescue.
    lab.kernel.then_fails(libc::EADDRNOTAVAIL);
    let done = lab.load(&lab.job("two", Target::Crash));
    shown(
        done,
        &["load failed, and the crash kernel loaded before stays armed: "],
    );
    assert_eq!(lab.kernel.calls(), ["kexec_load crash"]);
    assert_eq!(lab.recorded(Target::Crash).as_deref(), Some("one"));
}

/// Its digests are of a kind that this version does not make. The sizes are the same,
/// and a machine that is not armed would be worse.
#[test]
fn a_crash_kernel_that_an_older_version_loaded_is_loaded_again_too() {
    let lab = Lab::new();
    lab.arm();
    let path = lab.path("run/rkexec/crash.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let older = serde_json::json!("ab".repeat(32));
    record["blobs"]["kernel"]["digest"] = older.clone();
    record["blobs"]["initrd"][0]["digest"] = older;
    fs::write(&path, record.to_string()).unwrap();
    let then = lab.record(Target::Crash).unwrap();
    lab.kernel.then_throws_out(libc::EADDRNOTAVAIL);
    let done = lab.load(&lab.job("two", Target::Crash));
    shown(
        done,
        &["had thrown out, is armed again: kexec_load failed: "],
    );
    let now = lab.record(Target::Crash).unwrap();
    assert_eq!(
        now.blobs
            .as_ref()
            .unwrap()
            .kernel
            .as_ref()
            .unwrap()
            .digest
            .len(),
        16
    );
    // `arm` tells them apart, once, and loads again.
    let changed = "the kernel has changed since the load";
    assert_eq!(then.differs(&now).as_deref(), Some(changed));
    assert_eq!(now.differs(&now), None);
}

#[test]
fn a_rescue_has_a_new_seed_and_the_call_that_loaded_before() {
    let lab = Lab::new();
    // `one` was loaded by kexec_file_load, because kexec_load is refused.
    lab.kernel.then_fails(libc::EPERM);
    lab.load(&lab.job("one", Target::Crash)).unwrap();
    let before = lab.record(Target::Crash).unwrap();
    lab.kernel.calls();
    lab.told.warnings();
    let mut job = lab.job("two", Target::Crash);
    job.request.syscall = SyscallChoice::Only(Syscall::KexecFileLoad);
    lab.kernel.then_throws_out(libc::ENOMEM);
    shown(
        lab.load(&job),
        &["is armed again: kexec_file_load failed: "],
    );
    let calls = ["kexec_file_load crash", "kexec_file_load crash"];
    assert_eq!(lab.kernel.calls(), calls);
    let after = lab.record(Target::Crash).unwrap();
    assert_eq!(
        (&after.kept, after.kexec_load_refused),
        (&before.kept, true)
    );
    assert_eq!(after.differs(&before), None);
    assert_ne!(after.loaded_at, before.loaded_at);
}

#[test]
fn a_lost_crash_kernel_is_told() {
    let not_armed =
        "load failed, and the machine is NOT armed: the crash kernel loaded before is lost, and ";
    let lost = |prepare: &dyn Fn(&Lab), calls: usize, why: &str| {
        let lab = Lab::new();
        lab.arm();
        prepare(&lab);
        let done = lab.load(&lab.job("two", Target::Crash));
        shown(done, &[not_armed, why]);
        assert_eq!(lab.kernel.calls().len(), calls);
        assert!(!lab.path("run/rkexec/crash.json").exists(), "{why}");
    };
    let throws_out = |lab: &Lab| {
        lab.kernel.then_throws_out(libc::EADDRNOTAVAIL);
    };
    lost(
        &|lab| {
            throws_out(lab);
            let other = TinyBzImage::new(0x1_1000).build();
            fs::write(lab.path("one"), other).unwrap();
        },
        1,
        "loading it again failed as well (its files are no longer what they were): kexec_load failed",
    );
    lost(
        &|lab| {
            throws_out(lab);
            fs::remove_file(lab.path("one")).unwrap();
        },
        1,
        "loading it again failed as well (opening the kernel failed: ",
    );
    lost(
        &|lab| {
            throws_out(lab);
            lab.kernel.then_fails(libc::ENOMEM);
        },
        2,
        "loading it again failed as well (kexec_load failed: ",
    );
    lost(
        &|lab| {
            throws_out(lab);
            fs::remove_file(lab.path("run/rkexec/crash.json")).unwrap();
        },
        1,
        "there is no record of it",
    );
}

/// Adds the memory number `n` to the machine.
fn plug(kernel: &FakeKernel, n: u64) {
    let start = 0x1_0000_0000 + n * 0x1000_0000;
    let more = format!("{start:x}-{:x} : System RAM\n", start + 0x07ff_ffff);
    let all = &mut kernel.host.borrow_mut().iomem;
    *all = crate::host::iomem::parse(iomem(&more).as_bytes()).unwrap();
}

#[test]
fn hotplug_meanwhile_makes_another_load() {
    let lab = Lab::new();
    lab.kernel.then(|kernel| {
        plug(kernel, 0);
        Ok(())
    });
    lab.load(&lab.job("one", Target::Crash)).unwrap();
    assert_eq!(lab.kernel.calls(), ["kexec_load crash"; 2]);
    assert_eq!(lab.told.warnings(), [""; 0]);
    let record = lab.record(Target::Crash).unwrap();
    let fit = record.fit.unwrap();
    let now = fit.now(&lab.kernel.host.borrow()).unwrap();
    assert_eq!(fit.differs(&now), None);
    // A kernel for exec is loaded once.
    lab.kernel.then(|kernel| {
        plug(kernel, 1);
        Ok(())
    });
    lab.load(&lab.job("one", Target::Normal)).unwrap();
    assert_eq!(lab.kernel.calls(), ["kexec_load normal"]);
}

#[test]
fn hotplug_without_end_is_a_warning() {
    let lab = Lab::new();
    for n in 0..9 {
        lab.kernel.then(move |kernel| {
            plug(kernel, n);
            Ok(())
        });
    }
    lab.load(&lab.job("one", Target::Crash)).unwrap();
    assert_eq!(lab.kernel.calls(), ["kexec_load crash"; 3]);
    let warnings = lab.told.warnings();
    let start =
        "loaded, but already out of date, because memory or CPUs are still changing: the memory ";
    assert!(
        warnings.len() == 1 && warnings[0].starts_with(start),
        "{warnings:?}"
    );
    assert_eq!(lab.recorded(Target::Crash).as_deref(), Some("one"));
}

#[test]
fn a_refusal_is_remembered_when_it_is_loaded_again() {
    let lab = Lab::new();
    lab.kernel.then_fails(libc::EPERM).then(|kernel| {
        plug(kernel, 0);
        Ok(())
    });
    lab.load(&lab.job("one", Target::Crash)).unwrap();
    let calls = [
        "kexec_load crash",
        "kexec_file_load crash",
        "kexec_file_load crash",
    ];
    assert_eq!(lab.kernel.calls(), calls);
}

#[test]
fn facts_that_cannot_be_read_afterwards_are_a_warning() {
    let lab = Lab::new();
    lab.kernel.then(|kernel| {
        kernel.is_mute.set(true);
        Ok(())
    });
    lab.load(&lab.job("one", Target::Crash)).unwrap();
    assert_eq!(lab.kernel.calls(), ["kexec_load crash"]);
    let warnings = lab.told.warnings();
    let start = "it is loaded, and whether it fits the machine is not known: ";
    assert!(
        warnings.len() == 1 && warnings[0].starts_with(start),
        "{warnings:?}"
    );
}

#[test]
fn a_record_that_cannot_be_written_leaves_no_old_one() {
    let lab = Lab::new();
    lab.arm();
    let run = lab.path("run/rkexec");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
    lab.load(&lab.job("two", Target::Crash)).unwrap();
    let warnings = lab.told.warnings();
    let start = "what was loaded is not recorded: writing ";
    assert!(
        warnings.len() == 1 && warnings[0].starts_with(start),
        "{warnings:?}"
    );
    assert!(!run.join("crash.json").exists());
    // Where the old one cannot be removed either, that is said.
    fs::create_dir_all(run.join("normal.json/x")).unwrap();
    fs::set_permissions(&run, fs::Permissions::from_mode(0o700)).unwrap();
    lab.load(&lab.job("two", Target::Normal)).unwrap();
    let warnings = lab.told.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with(start), "{warnings:?}");
    let stays = "the record of what was loaded stays: writing ";
    assert!(warnings[1].starts_with(stays), "{warnings:?}");
}

/// A kill that comes in the call or behind it leaves what is there while the call is made.
#[test]
fn there_is_no_record_while_the_image_is_replaced() {
    for target in [Target::Normal, Target::Crash] {
        let lab = Lab::new();
        lab.load(&lab.job("one", target)).unwrap();
        let record = lab.path(&format!("run/rkexec/{target}.json"));
        let (seen, run) = (record.clone(), lab.path("run/rkexec"));
        lab.kernel
            .then(move |_| {
                assert!(!seen.exists());
                Err(libc::ENOMEM)
            })
            .then({
                let seen = record.clone();
                move |_| {
                    assert!(!seen.exists());
                    Ok(())
                }
            });
        lab.load(&lab.job("two", target)).unwrap_err();
        // The image loaded before stays, and so does its record.
        assert_eq!(lab.recorded(target).as_deref(), Some("one"));
        lab.load(&lab.job("two", target)).unwrap();
        assert_eq!(lab.recorded(target).as_deref(), Some("two"));
        assert_eq!(lab.told.warnings(), [""; 0]);
        let left = fs::read_dir(run).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name != "exec-time").collect();
        assert_eq!(left, [record.file_name().unwrap()]);
    }
}

/// A machine whose kernel hands over a tree without blobs.
fn hands_over(kho: &mut Kho) {
    let pages = (0..8).map(|page| 0x3000_0000 + page * 4096);
    kho.on = true;
    kho.preserved = Some(vec!["LUO".to_owned()]);
    kho.state.scratch = Some(vec![PhysRange::new(0x2000_0000, 64 << 20).unwrap()]);
    kho.state.tree = Some(encode(&State::default(), pages).unwrap().tree);
}

#[test]
fn what_exec_must_do_is_recorded_or_nothing_stays_loaded() {
    let lab = Lab::new();
    hands_over(&mut lab.kernel.host.borrow_mut().security.kho);
    let mut job = lab.job("one", Target::Normal);
    job.request.kho = KhoChoice::Forward;
    // Whether the kernel in the file panics cannot be told.
    job.request.cmdline.base = CmdlineBase::Given("kho=off".into());
    assert_eq!(lab.load(&job), Ok(Syscall::KexecLoad));
    assert_eq!(lab.kernel.calls(), ["kexec_load normal"]);
    let host = lab.kernel.facts(Target::Normal).unwrap();
    let record = lab.session().recorded(Target::Normal, &host).unwrap();
    let at_exec = record.unwrap().at_exec.unwrap();
    let (tree, _) = forward(&host.security.kho).unwrap();
    assert_eq!(at_exec.forwarded, Some(tree));

    let run = lab.path("run/rkexec");
    fs::set_permissions(&run, fs::Permissions::from_mode(0o777)).unwrap();
    let error = lab.load(&job).unwrap_err();
    let start = "load failed: what exec must hand over cannot be recorded; it was unloaded again, nothing is loaded now";
    assert!(error.starts_with(start), "{error}");
    let calls = ["kexec_load normal", "unload by kexec_load normal"];
    assert_eq!(lab.kernel.calls(), calls);
    assert!(!run.join("normal.json").exists());
}

#[test]
fn one_load_at_a_time() {
    let lab = Lab::new();
    let first = lab.session().alone().unwrap();
    assert!(first.is_some() && lab.told.notes().is_empty());
    let busy = lab.session().alone_within(Duration::from_millis(50));
    assert!(matches!(busy, Err(LockError::Busy { .. })));
    let waiting = format!(
        "another rkexec (PID {}) is loading: waiting",
        std::process::id()
    );
    assert_eq!(lab.told.notes(), [waiting]);
    drop(first);
    assert!(lab.session().alone().unwrap().is_some());
    // Without a place for a lock, a load is not held up.
    fs::remove_dir_all(lab.path("run")).unwrap();
    fs::write(lab.path("run"), "").unwrap();
    assert!(lab.session().alone().unwrap().is_none());
    let warned = lab.told.warnings();
    let root = usize::from(nix::unistd::geteuid().is_root());
    assert_eq!(warned.len(), root, "{warned:?}");
}

#[test]
fn a_record_that_is_ignored_is_said_once() {
    let lab = Lab::new();
    lab.arm();
    let record = lab.path("run/rkexec/crash.json");
    fs::rename(&record, lab.path("run/rkexec/other")).unwrap();
    std::os::unix::fs::symlink("other", &record).unwrap();
    let session = lab.session();
    let host = lab.kernel.host.borrow();
    for _ in 0..3 {
        assert_eq!(session.recorded(Target::Crash, &host).unwrap(), None);
    }
    let warnings = lab.told.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("ignored"),
        "{warnings:?}"
    );
}
