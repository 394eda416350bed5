//! The examples/ for people: each is run, against fakes of what would load,
//! mount or reboot. Their run on real kernels is tests/vm/examples.rs.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

#[path = "common/mod.rs"]
mod common;
#[path = "examples/preload.rs"]
mod preload;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rkexec::arm::config::Config;
use serde_json::Value;

use common::program::Ended;

const RKEXEC: &str = env!("CARGO_BIN_EXE_rkexec");

fn example(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "examples", name]
        .iter()
        .collect()
}

fn debian(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "debian", name]
        .iter()
        .collect()
}

fn run(command: &mut Command) -> Ended {
    let program = command.get_program().to_owned();
    match command.output() {
        Ok(output) => output.into(),
        Err(e) => panic!("{program:?}: {e}: run tests/vm/setup first"),
    }
}

/// A directory with programs that stand in for others: they write what they are
/// called with into a log.
struct Stage(tempfile::TempDir);

impl Stage {
    fn new() -> Self {
        let stage = Self(tempfile::tempdir().unwrap());
        fs::create_dir(stage.path("bin")).unwrap();
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A program that logs its arguments, then does what `script` says.
    fn fake(&self, name: &str, script: &str) {
        let log = self.path("log");
        let text = format!(
            "#!/bin/sh\necho \"{name} $*\" >>{}\n{script}\n",
            log.display()
        );
        let path = self.path("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// An rkexec whose arguments the real one would take.
    fn fake_rkexec(&self, script: &str) {
        self.fake(
            "rkexec",
            &format!("{RKEXEC} \"$@\" --help >/dev/null || exit 99\n{script}"),
        );
    }

    /// `program` with the fakes before everything else.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var("PATH").unwrap();
        command.env("PATH", format!("{}:{path}", self.path("bin").display()));
        command
    }

    /// What the fakes were called with, a line each.
    fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

#[test]
fn shell_scripts_are_clean() {
    let ended = run(Command::new("shellcheck").args([
        example("arm-crash-kernel"),
        example("preload"),
        example("round-trip"),
        debian("rkexec-load.init"),
        debian("rkexec-exec.init"),
        debian("postinst"),
        debian("prerm"),
        debian("postrm"),
        example("initramfs-tools/hooks/rkexec-capture"),
        example("initramfs-tools/scripts/local-bottom/rkexec-capture"),
    ]));
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), ""));
}

#[test]
fn the_configuration_is_one() {
    let config = Config::read(&example("rkexec.toml")).unwrap();
    assert_eq!(config.rules("r").kernel, Path::new("/boot/vmlinuz-r"));
    assert_eq!(config.rules("r").initrds, [Path::new("/boot/initrd.img-r")]);
}

/// The units as installed, but for the path of the program.
fn units() -> Stage {
    let stage = Stage::new();
    for unit in fs::read_dir(example("systemd")).unwrap() {
        let path = unit.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let preload = example("preload");
        let text = text.replace("/usr/lib/rkexec/preload", preload.to_str().unwrap());
        stage.write(name, &text.replace("/usr/sbin/rkexec", RKEXEC));
    }
    stage
}

#[test]
fn systemd_takes_the_units() {
    let units = units();
    let files = [
        "rkexec-arm.service",
        "rkexec-load.service",
        "rkexec-rearm.path",
        "rkexec-rearm.service",
    ];
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    let ended = run(verify.args(files.map(|file| units.path(file))));
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    // What they run is what the program takes.
    let mut commands = 0;
    for file in files {
        let text = fs::read_to_string(units.path(file)).unwrap();
        let lines = text.lines().filter_map(|l| l.strip_prefix("ExecStart="));
        for line in lines.filter(|line| line.starts_with(RKEXEC)) {
            let words: Vec<&str> = line.split(' ').collect();
            let ended = run(Command::new(words[0]).args(&words[1..]).arg("--help"));
            assert_eq!(ended.code, Some(0), "{line}: {}", ended.err);
            commands += 1;
        }
    }
    assert_eq!(commands, 2);
}

/// 10 is a service that may do everything, 0 one that may do nothing.
#[test]
fn the_service_is_fenced_in() {
    let units = units();
    let unit = units.path("rkexec-arm.service");
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=yes", "--threshold=40"]);
    let ended = run(security.arg(unit));
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);
}

/// A machine for the arming script.
fn machine(reserved: Option<&str>) -> Stage {
    let stage = Stage::new();
    if let Some(reserved) = reserved {
        stage.write("sys/kernel/kexec_crash_size", reserved);
    }
    stage.fake("uname", "echo 6.12.1-test");
    stage.write("boot/vmlinuz-6.12.1-test", "");
    stage
}

fn arm(stage: &Stage, args: &[&str]) -> Ended {
    let mut script = stage.command(example("arm-crash-kernel"));
    script.env("SYS", stage.path("sys"));
    script.env("BOOT", stage.path("boot"));
    run(script.args(args))
}

#[test]
fn the_arming_script_loads_and_checks() {
    let stage = machine(Some("268435456\n"));
    stage.fake_rkexec("");
    let ended = arm(&stage, &[]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let kernel = stage.path("boot/vmlinuz-6.12.1-test");
    let load = format!(
        "rkexec load {} --panic --reuse-cmdline --append nr_cpus=1 reset_devices --remove crashkernel",
        kernel.display()
    );
    let expected = ["uname -r", &load, "rkexec status --check"];
    assert_eq!(stage.log(), expected);

    let stage = machine(Some("268435456\n"));
    stage.write("boot/initrd.img-6.12.1-test", "");
    stage.fake_rkexec("");
    assert_eq!(arm(&stage, &[]).code, Some(0));
    let initrd = stage.path("boot/initrd.img-6.12.1-test");
    let suffix = format!(" --initrd {}", initrd.display());
    assert!(stage.log()[1].ends_with(&suffix), "{:?}", stage.log());

    let stage = machine(Some("268435456\n"));
    stage.fake_rkexec("");
    stage.write("other", "");
    let other = stage.path("other").display().to_string();
    assert_eq!(arm(&stage, &["/k", &other]).code, Some(0));
    assert!(stage.log()[1].starts_with("rkexec load /k --panic "));
    assert!(stage.log()[1].ends_with(&format!(" --initrd {other}")));
}

#[test]
fn the_arming_script_fails_where_it_must() {
    let said = |stage: &Stage, code: i32| {
        let ended = arm(stage, &[]);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        ended.err
    };
    let stage = machine(None);
    assert!(said(&stage, 1).contains("CONFIG_CRASH_DUMP"));
    let stage = machine(Some("0\n"));
    assert!(said(&stage, 1).contains("crashkernel=512M"));
    assert_eq!(stage.log(), ["uname -r"]);

    let stage = machine(Some("268435456\n"));
    stage.fake_rkexec("[ $1 != load ] || exit 1");
    said(&stage, 1);
    assert_eq!(stage.log().len(), 2, "{:?}", stage.log());
    let stage = machine(Some("268435456\n"));
    stage.fake_rkexec("[ $1 != status ] || exit 3");
    said(&stage, 3);
}

/// The hook by the protocol of initramfs-tools(7).
#[test]
fn the_hook_fills_an_initramfs() {
    let hook = example("initramfs-tools/hooks/rkexec-capture");
    let ended = run(Command::new(&hook).arg("prereqs"));
    assert_eq!((ended.code, ended.out.as_str()), (Some(0), "\n"));

    let stage = Stage::new();
    std::os::unix::fs::symlink(RKEXEC, stage.path("bin/rkexec")).unwrap();
    let to = stage.path("initramfs");
    // As mkinitramfs makes it on a machine with merged /usr.
    for dir in ["bin", "lib", "lib64", "sbin"] {
        fs::create_dir_all(to.join("usr").join(dir)).unwrap();
        std::os::unix::fs::symlink(format!("usr/{dir}"), to.join(dir)).unwrap();
    }
    let mut command = stage.command(&hook);
    command
        .env("DESTDIR", &to)
        .env("version", "6.12.1-test")
        .env("verbose", "n");
    let ended = run(&mut command);
    assert_eq!(ended.code, Some(0), "{}{}", ended.out, ended.err);

    // Complete: each program runs with the libraries that came along.
    let linker = to.join("lib64/ld-linux-x86-64.so.2");
    let libraries: Vec<String> = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64"]
        .map(|dir| to.join(dir).display().to_string())
        .to_vec();
    for (program, argument, says) in [
        ("sbin/rkexec", "--version", "rkexec "),
        ("bin/date", "--version", "date "),
        ("sbin/makedumpfile", "-v", "makedumpfile: "),
    ] {
        let mut command = Command::new(&linker);
        command.args(["--inhibit-cache", "--library-path", &libraries.join(":")]);
        let ended = run(command.arg(to.join(program)).arg(argument));
        let said = format!("{}{}", ended.out, ended.err);
        assert!(said.contains(says), "{program}: {said}");
    }
}

/// A capture kernel's initramfs with a root file system.
struct Capture(Stage);

impl Capture {
    fn new() -> Self {
        let stage = Stage::new();
        fs::create_dir(stage.path("root")).unwrap();
        for program in ["mount", "modprobe", "sync", "reboot"] {
            stage.fake(program, "");
        }
        stage.fake_rkexec("echo '[    1.0] sysrq: Trigger a crash'");
        // -l -d 31 FROM TO
        stage.fake("makedumpfile", "echo small >\"$5\"");
        Self(stage)
    }

    fn run(&self) -> Ended {
        let script = example("initramfs-tools/scripts/local-bottom/rkexec-capture");
        let mut command = self.0.command(script);
        command
            .env("VMCORE", self.0.path("vmcore"))
            .env("rootmnt", self.0.path("root"));
        run(&mut command)
    }

    /// The files that were saved.
    fn saved(&self) -> Vec<(String, String)> {
        let crash = self.0.path("root/var/crash");
        let mut times = fs::read_dir(crash).unwrap().map(|entry| entry.unwrap());
        let time = times.next().unwrap();
        assert!(times.next().is_none());
        let mut files: Vec<(String, String)> = fs::read_dir(time.path())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let name = path.file_name().unwrap().to_str().unwrap();
                (name.to_owned(), fs::read_to_string(&path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    /// Whether the machine was given back at the end, and how often.
    fn rebooted(&self) -> bool {
        let log = self.0.log();
        let reboots = log.iter().filter(|line| *line == "reboot -f").count();
        reboots == 1 && log.last().is_some_and(|line| line == "reboot -f")
    }
}

fn files(of: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = of.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
    owned.collect()
}

#[test]
fn the_capture_script_saves_and_reboots() {
    let capture = Capture::new();
    let ended = capture.run();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(capture.0.log().is_empty(), "no crash, nothing to do");

    capture.0.write("vmcore", "whole");
    let ended = capture.run();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let log = "[    1.0] sysrq: Trigger a crash\n";
    assert_eq!(
        capture.saved(),
        files(&[("dmesg", log), ("vmcore", "small\n")])
    );
    assert!(capture.rebooted(), "{:?}", capture.0.log());
    assert!(
        ended.out.contains("the dump is in /var/crash/2"),
        "{ended:?}"
    );
}

#[test]
fn the_capture_script_makes_do() {
    let capture = Capture::new();
    capture.0.write("vmcore", "whole");
    capture.0.fake("makedumpfile", "echo half >\"$5\"; exit 1");
    capture.0.fake("rkexec", "exit 1");
    let ended = capture.run();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert_eq!(
        capture.saved(),
        files(&[("dmesg", ""), ("vmcore", "whole")])
    );
    assert!(capture.rebooted(), "{:?}", capture.0.log());
    assert!(ended.out.contains("the log could not be read"));
}

#[test]
fn the_capture_script_mounts_what_the_dump_belongs_on() {
    const FSTAB: &str = "# /var was on /dev/sdb1
#UUID=0 /var ext3 defaults 0 2
UUID=a-b / ext4 defaults 0 1
LABEL=var\t/var xfs  defaults,noatime 0 2
/dev/sdc1 /var/crash ext4 defaults 0 2
";
    let capture = Capture::new();
    capture.0.write("vmcore", "whole");
    capture.0.write("root/etc/fstab", FSTAB);
    capture.0.fake("umount", "");
    let ended = capture.run();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let root = capture.0.path("root").display().to_string();
    let log = capture.0.log();
    let mounts: Vec<&String> = log.iter().filter(|line| line.contains("mount ")).collect();
    assert_eq!(
        mounts,
        [
            &format!("mount -t xfs -o rw,noatime /dev/disk/by-label/var {root}/var"),
            &format!("mount -t ext4 -o rw /dev/sdc1 {root}/var/crash"),
            &format!("mount -o remount,rw none {root}"),
            &format!("umount {root}/var/crash {root}/var"),
            &format!("mount -o remount,ro none {root}"),
        ]
    );
    assert_eq!(capture.saved().len(), 2);

    // What is mounted later must not hide it.
    let capture = Capture::new();
    capture.0.write("vmcore", "whole");
    capture.0.write("root/etc/fstab", FSTAB);
    capture.0.fake("umount", "");
    capture.0.fake("mount", "case $* in *xfs*) exit 1 ;; esac");
    let ended = capture.run();
    assert!(ended.out.contains("the dump is in /crash/2"), "{ended:?}");
    assert!(capture.rebooted(), "{:?}", capture.0.log());
}

#[test]
fn the_capture_script_mounts_with_the_options_of_fstab() {
    let capture = Capture::new();
    capture.0.write("vmcore", "whole");
    capture.0.write(
        "root/etc/fstab",
        "/dev/sda1 /var btrfs ro,nofail,subvol=@var,x-systemd.automount,compress=zstd:1,_netdev 0 0
UUID=\"a-b\" /var/crash btrfs subvol=*,user 0 0
PARTLABEL='x' /home ext4 defaults 0 0
",
    );
    capture.0.fake("umount", "");
    let ended = capture.run();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    let root = capture.0.path("root").display().to_string();
    let log = capture.0.log();
    for line in [
        format!("mount -t btrfs -o rw,subvol=@var,compress=zstd:1 /dev/sda1 {root}/var"),
        format!("mount -t btrfs -o rw,subvol=* /dev/disk/by-uuid/a-b {root}/var/crash"),
    ] {
        assert!(log.contains(&line), "{line}: {log:?}");
    }
}

#[test]
fn what_the_capture_script_saves_is_for_root_only() {
    // With makedumpfile and without.
    for makedumpfile in ["echo small >\"$5\"", "exit 1"] {
        let capture = Capture::new();
        capture.0.write("vmcore", "whole");
        capture.0.fake("makedumpfile", makedumpfile);
        let ended = capture.run();
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
        let crash = capture.0.path("root/var/crash");
        let time = fs::read_dir(crash).unwrap().next().unwrap().unwrap().path();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&time), 0o700);
        for name in ["dmesg", "vmcore"] {
            assert_eq!(mode(&time.join(name)), 0o600, "{name}");
        }
    }
}

#[test]
fn the_capture_script_reboots_when_it_failed() {
    let capture = Capture::new();
    capture.0.write("vmcore", "whole");
    capture
        .0
        .fake("mount", "case $* in *remount,rw*) exit 1 ;; esac");
    let ended = capture.run();
    assert!(ended.out.contains("failed: the dump is lost or not whole"));
    assert!(capture.rebooted(), "{:?}", capture.0.log());
    assert!(!capture.0.path("root/var").exists());
}

/// The playbook with this machine as the only host, and everything that it
/// touches in a directory of ours.
fn playbook(stage: &Stage, args: &[&str]) -> Ended {
    let mut command = stage.command("ansible-playbook");
    command
        .env("HOME", stage.path("home"))
        .env("ANSIBLE_NOCOLOR", "1")
        .env("ANSIBLE_LOCALHOST_WARNING", "false")
        .env("LC_ALL", "C.UTF-8")
        .args(["-i", "localhost,", "-c", "local"])
        .args(["-e", "ansible_become=false"])
        .args(["-e", "ansible_python_interpreter=/usr/bin/python3"]);
    for (variable, path) in [
        ("rkexec", "bin/rkexec"),
        ("config", "rkexec.toml"),
        ("reports", "reports"),
    ] {
        let value = format!("{variable}={}", stage.path(path).display());
        command.args(["-e", &value]);
    }
    run(command.args(args).arg(example("ansible/arm.yml")))
}

#[test]
fn the_playbook_arms_and_collects() {
    let stage = Stage::new();
    assert_eq!(playbook(&stage, &["--syntax-check"]).code, Some(0));
    // Nothing is loaded the second time.
    let armed = stage.path("armed");
    stage.fake_rkexec(&format!(
        "case $1 in
           arm)
             loaded=true
             [ ! -e {0} ] || loaded=false
             touch {0}
             echo '{{\"schema\": 1, \"armed\": true, \"loaded\": '$loaded'}}' ;;
           status) echo '{{\"schema\": 1, \"crash_loaded\": true}}' ;;
         esac",
        armed.display()
    ));
    let first = playbook(&stage, &[]);
    assert_eq!(first.code, Some(0), "{}{}", first.out, first.err);
    let again = playbook(&stage, &[]);
    assert_eq!(again.code, Some(0), "{}{}", again.out, again.err);
    assert!(again.out.contains("changed=0"), "{}", again.out);

    let arm = format!(
        "rkexec arm --config {} --output json",
        stage.path("rkexec.toml").display()
    );
    let status = "rkexec status --output json";
    assert_eq!(stage.log(), [&arm, status, &arm, status]);
    let report = fs::read_to_string(stage.path("reports/localhost.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["crash_loaded"], true);

    // The configuration that it writes is one.
    let config = Config::read(&stage.path("rkexec.toml")).unwrap();
    assert_eq!(config.rules("r").kernel, Path::new("/boot/vmlinuz-r"));

    // A machine that could not be armed is reported, too.
    let stage = Stage::new();
    stage.fake_rkexec(
        "if [ $1 = arm ]; then
           echo 'rkexec: arm failed: no memory is reserved' >&2
           exit 1
         fi
         echo '{\"schema\": 1, \"crash_loaded\": false}'",
    );
    let failed = playbook(&stage, &[]);
    assert_eq!(failed.code, Some(2), "{}", failed.out);
    assert!(failed.out.contains("arm failed: no memory is reserved"));
    let report = fs::read_to_string(stage.path("reports/localhost.json")).unwrap();
    assert!(report.contains("\"crash_loaded\": false"), "{report}");
}
