//! A Debian 12 system with rkexec's package in the place of kexec-tools, and
//! what there calls `kexec`: kdump-tools, unmodified, and systemd.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab::{self, Kernel};
use crate::qemu::{Guest, Outcome};
use crate::witness::Stage;

/// Systems come up slowly under emulation.
const TIMEOUT: Duration = Duration::from_secs(1500);
/// The system's own kexec-tools, for a guest that goes back to it.
const KEXEC_TOOLS: &str = "/var/cache/apt/archives/kexec-tools_*.deb";

/// The package of the rkexec under test with that Debian revision.
fn package(revision: &str) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("debian/build");
    let printed = lab::output(
        Command::new(build)
            .args(["--revision", revision])
            .arg("--binary")
            .arg(lab::rkexec()?)
            .arg("--output")
            .arg(dir.path()),
    )?;
    let path = String::from_utf8(printed)?;
    std::fs::read(path.trim()).with_context(|| path.trim().to_owned())
}

/// kexec-tools loads a kernel at each reboot here, and this is its command line.
const LOADS_AT_REBOOT: &str = r#"
sed -i s/^LOAD_KEXEC=.*/LOAD_KEXEC=true/ /etc/default/kexec
mkdir -p /etc/default/kexec.d
echo "APPEND='$(cat /proc/cmdline) by=start'" >/etc/default/kexec.d/lab
"#;

/// What `rkexec doctor` is asked.
const DOCTOR: &str = "
try doctor rkexec doctor --output json
try doctor-panic rkexec doctor --panic --output json
try doctor-load rkexec doctor /vmlinuz --initrd /initrd.img --reuse-cmdline --output json
try doctor-capture rkexec doctor --panic /var/lib/kdump/vmlinuz --syscall kexec_load \
  --reuse-cmdline --remove crashkernel --remove root --output json \
  --append 'root=/dev/vda1 reset_devices systemd.unit=kdump-tools-dump.service nr_cpus=1'
";

/// What the rebooted system looks at after the dump was saved; and the service, which loads
/// anew when the machine reboots.
const AFTER_THE_PANIC: &[u8] = b"record loaded-at-boot </sys/kernel/kexec_crash_loaded
              cat /var/crash/2*/dump.2* | makedumpfile -R /var/tmp/dump
              try log makedumpfile --dump-dmesg /var/tmp/dump /var/tmp/log
              grep 'the one that crashed' /var/tmp/log | record log
              grep 'the one that crashed' /var/crash/2*/dmesg.2* | record dmesg
              try unload kdump-config unload
              record unloaded </sys/kernel/kexec_crash_loaded
              refused enabled systemctl is-enabled rkexec-load.service
              record not-loaded </sys/kernel/kexec_loaded
              try enable-load systemctl enable --now rkexec-load.service
              record loaded </sys/kernel/kexec_loaded
              try stop systemctl stop rkexec-load.service
              record taken-away </sys/kernel/kexec_loaded
              try start systemctl start rkexec-load.service
              # Another default at the reboot.
              sed -i s/by=start/by=service/ /etc/default/kexec.d/lab
              sent
              systemctl kexec
              sleep 300";

/// The service has loaded, and leaves alone what is loaded by another command: by the one of
/// kexec-tools, and by `rkexec reboot`. The init system ends that one: what it prints is sent
/// by the next stage.
const BY_KEXEC: &[u8] = b"systemctl start rkexec-load.service
              record loaded-at-boot </sys/kernel/kexec_loaded
              try load kexec -l /vmlinuz --initrd=/initrd.img --reuse-cmdline --append=by=kexec
              sent
              systemctl kexec
              sleep 300";
const BY_REBOOT: &[u8] = b"sent
              rkexec reboot --append by=reboot >/var/tmp/reboot
              sleep 300";

/// The command with which kdump-config loaded, as it recorded it.
fn kexec_command(stage: Stage<'_>, name: &str) -> Result<String> {
    let command = stage.text(name)?;
    ensure!(command.starts_with("/sbin/kexec -p "), "{command}");
    Ok(command.to_owned())
}

/// `rkexec doctor` found no blocker and no risk on a system as it was installed.
fn nothing_against_it(stage: Stage<'_>, name: &str) -> Result<()> {
    let json: Value = serde_json::from_str(stage.text(&format!("{name}.out"))?)?;
    let found = json["doctor"].as_array().context("no findings")?;
    let bad: Vec<&Value> = found
        .iter()
        .filter(|finding| finding["severity"] != "note")
        .collect();
    assert!(bad.is_empty(), "{name}: {bad:#?}");
    let verdict = json["verdict"].as_str().context("no verdict")?;
    assert!(verdict.ends_with("nothing known against it"), "{verdict}");
    // It looked at something: systemd is there, and a file system to unmount.
    if name == "doctor-load" {
        assert!(
            found.iter().any(|finding| finding["check"] == "mounts"),
            "{json:#}"
        );
    }
    Ok(())
}

#[test]
fn kdump_tools_and_systemctl_kexec() -> Result<()> {
    let script = format!(
        "record loaded-at-boot </sys/kernel/kexec_crash_loaded
             record command-at-boot </var/crash/kexec_cmd
             {LOADS_AT_REBOOT}
             try install dpkg -i rkexec.deb
             try unload kdump-config unload
             record unloaded </sys/kernel/kexec_crash_loaded
             try load kdump-config load
             record loaded </sys/kernel/kexec_crash_loaded
             record command </var/crash/kexec_cmd
             try status kdump-config status
             {DOCTOR}
             echo the one that crashed >/dev/kmsg
             sync
             sent
             echo c >/proc/sysrq-trigger"
    );
    let outcome = Guest::debian("debian-clients")?
        .file("rkexec.deb", &package("1")?)
        .memory("1G")
        .append("crashkernel=256M")
        // kexec-tools loaded at boot.
        .script(&script)
        // The capture kernel saved the dump and reset the machine.
        .file("test/stage-2", AFTER_THE_PANIC)
        .file("test/stage-3", BY_KEXEC)
        .file("test/stage-4", BY_REBOOT)
        .file(
            "test/stage-5",
            b"record said </var/tmp/reboot\ndmesg | grep EXT4-fs | record ext4",
        )
        .timeout(TIMEOUT)
        .run()?;

    let first = outcome.stage(1)?;
    assert_eq!(first.text("loaded-at-boot")?, "1");
    assert_eq!(first.text("unloaded")?, "0");
    assert_eq!(first.text("loaded")?, "1");
    assert_eq!(
        kexec_command(first, "command-at-boot")?,
        kexec_command(first, "command")?
    );
    assert!(first.text("status.out")?.contains("ready to kdump"));
    for name in ["doctor", "doctor-panic", "doctor-load", "doctor-capture"] {
        nothing_against_it(first, name)?;
    }

    let second = outcome.stage(2)?;
    assert_eq!(second.text("loaded-at-boot")?, "1");
    for name in ["log", "dmesg"] {
        assert!(second.text(name)?.ends_with("the one that crashed"));
    }
    assert_eq!(second.text("unloaded")?, "0");
    the_service_and_others(&outcome)?;

    // The init system unmounted it before.
    let last = outcome.stage(5)?;
    let ext4 = last.text("ext4")?;
    assert!(
        ext4.contains("mounted filesystem") && !ext4.contains("recovery"),
        "{ext4}"
    );
    let ids = (1..=5).map(|stage| outcome.stage(stage)?.text("boot-id"));
    let ids = ids.collect::<Result<BTreeSet<_>>>()?;
    assert_eq!(ids.len(), 5, "{ids:?}");
    Ok(())
}

/// LOAD_KEXEC=true of kexec-tools has the command named that enables the service, which is not
/// done. The service loads when it is started, and again when the machine reboots: `systemctl
/// kexec` boots the later load.
fn the_service_and_others(outcome: &Outcome) -> Result<()> {
    let [first, second, third] = [1, 2, 3].map(|stage| outcome.stage(stage));
    let (first, second, third) = (first?, second?, third?);
    let said = first.text("install.out")?;
    ensure!(
        said.contains("    systemctl enable --now rkexec-load.service\n"),
        "{said}"
    );
    assert_eq!(second.text("enabled.out")?, "disabled");
    assert_eq!(second.text("not-loaded")?, "0");
    assert_eq!(second.text("loaded")?, "1");
    assert_eq!(second.text("taken-away")?, "0");
    let line = first.text("cmdline")?;
    let by_service = format!("{line} by=service");
    assert_eq!(third.text("cmdline")?, by_service);
    // It does so at every boot.
    assert_eq!(third.text("loaded-at-boot")?, "1");

    let (fourth, fifth) = (outcome.stage(4)?, outcome.stage(5)?);
    assert_eq!(fourth.text("cmdline")?, format!("{by_service} by=kexec"));
    let said = fifth.text("said")?;
    ensure!(
        said.starts_with("booting the boot entry `kexec-tools` (")
            && said.contains(") by /usr/bin/systemctl kexec"),
        "{said}"
    );
    assert_eq!(fifth.text("cmdline")?, format!("{by_service} by=reboot"));
    Ok(())
}

/// The system of the lab, unpacked on this machine. What runs in it is root's, and may not
/// load a kernel: the capability for that is taken away.
struct Unpacked {
    dir: tempfile::TempDir,
}

impl Unpacked {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let system = Self { dir };
        let image = Kernel::new("debian12")?.file("root.img");
        let dump = format!("rdump / {}", system.path("").display());
        lab::output(as_root("/sbin/debugfs").args(["-R", &dump]).arg(image))?;
        Ok(system)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs the script in the directory `/test`, where its records go to.
    fn run(&self, script: &str) -> Result<()> {
        let functions = include_str!("functions");
        let script = format!("{functions}{HERE}{script}");
        let mut command = as_root("setpriv");
        command
            .args(["--bounding-set=-sys_boot", "--inh-caps=-sys_boot"])
            .arg("chroot")
            .arg(self.dir.path())
            .args(["/bin/sh", "-c", &script]);
        lab::output(&mut command).map(drop)
    }

    fn text(&self, name: &str) -> Result<String> {
        let text = std::fs::read_to_string(self.path("test").join(name));
        Ok(text.with_context(|| name.to_owned())?.trim_end().to_owned())
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        // Its files are root's.
        let _ = as_root("rm").arg("-rf").arg(self.path("")).status();
    }
}

/// A program that root runs.
fn as_root(program: &str) -> Command {
    if nix::unistd::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    command
}

/// What differs for scripts in [`Unpacked`]: a record is a file. What the last command printed
/// is shown when a script fails.
const HERE: &str = r#"
set -eu
trap 'cat /tmp/err >&2' EXIT
export PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive LC_ALL=C
cd /test
record() { cat >"$1"; }
# Every file of the system but what its own tools note down.
files() {
  find / -xdev \( -path /tmp -o -path /test -o -path /dev -o -path /var/tmp -o -path /var/log \
    -o -path /var/lib/dpkg -o -path /var/cache -o -path /lost+found \) -prune -o \
    ! -type d -printf '%p %l\n' | sort
}
# What differs from what was there without the package, `>` in front of what has come.
changed() { files | diff without - | grep '^[<>]' || true; }
# The state of a package.
state() {
  dpkg-query -W -f '${Status} ${Version}' "$1" 2>/dev/null || echo unknown
}
"#;

/// The package alone, in the place of kexec-tools, and kexec-tools in its place again.
fn changes() -> String {
    format!(
        "dpkg -P --force-depends kexec-tools
         files >without

         try install dpkg -i 1.deb
         readlink -f /sbin/kexec | record kexec
         try again dpkg -i 1.deb
         try enable systemctl enable rkexec-arm.service
         try upgrade dpkg -i 2.deb
         state rkexec | record upgraded
         readlink -f /sbin/kexec | record kexec-upgraded
         dpkg -S /sbin/kexec | record owner
         dpkg --audit | record audit
         refused needed dpkg -r rkexec
         try remove dpkg -r --force-depends rkexec
         changed | record removed
         try purge dpkg -P --force-depends rkexec
         changed | record purged
         state rkexec | record gone

         try kexec-tools dpkg -i {KEXEC_TOOLS}
         sha256sum </sbin/kexec | record theirs
         # apt decides by what is installed.
         rm -rf /var/lib/apt/lists/*
         try replace apt-get install -q -y ./2.deb
         readlink -f /sbin/kexec | record kexec-replaced
         state kexec-tools | record replaced
         dpkg --audit | record audit-replaced

         try out dpkg -P --force-depends rkexec
         files | grep rkexec | record left
         try back dpkg -i {KEXEC_TOOLS}
         sha256sum </sbin/kexec | record theirs-again
         dpkg --audit | record audit-back
         state kexec-tools | record back"
    )
}

/// Natively: dpkg takes minutes under emulation, and asks no kernel. The guest above has the
/// service of the package run.
#[test]
fn the_package_installs_upgrades_and_removes() -> Result<()> {
    let system = Unpacked::new()?;
    let files = tempfile::tempdir()?;
    for revision in ["1", "2"] {
        let file = files.path().join(format!("{revision}.deb"));
        std::fs::write(file, package(revision)?)?;
    }
    let test = system.path("test");
    lab::output(as_root("cp").arg("-r").arg(files.path()).arg(&test))?;
    lab::output(as_root("chmod").arg("755").arg(&test))?;
    system.run(&changes())?;

    let text = |name: &str| system.text(name);
    for name in ["kexec", "kexec-upgraded", "kexec-replaced"] {
        assert_eq!(text(name)?, "/usr/sbin/rkexec", "{name}");
    }
    let version = concat!("install ok installed ", env!("CARGO_PKG_VERSION"), "-2");
    assert_eq!(text("upgraded")?, version);
    assert_eq!(text("owner")?, "rkexec: /sbin/kexec");
    // kdump-tools depends on it.
    assert_eq!(text("needed.status")?, "1");
    assert!(text("needed.err")?.contains("kdump-tools depends on"));
    assert_eq!(text("purged")?, "");
    // What the administrator enabled is forgotten with the purge.
    for line in text("removed")?.lines() {
        let stays = [
            "> /etc/systemd/system/multi-user.target.wants/rkexec-arm.service ",
            "> /var/lib/systemd/deb-systemd-helper-enabled/rkexec-",
            "> /etc/init.d/rkexec-",
        ];
        assert!(stays.iter().any(|start| line.starts_with(start)), "{line}");
    }
    assert_eq!(text("gone")?, "unknown");
    assert!(text("replaced")?.starts_with("deinstall ok config-files"));
    for name in ["audit", "audit-replaced", "audit-back", "left"] {
        assert_eq!(text(name)?, "", "{name}");
    }
    assert!(text("back")?.starts_with("install ok installed"));
    assert_eq!(text("theirs")?, text("theirs-again")?);
    Ok(())
}
