//! A Debian 12 system with rkexec's package in the place of kexec-tools, and
//! what there calls `kexec`: kdump-tools, unmodified, and systemd.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::lab;
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

/// What the rebooted system looks at after the dump was saved, and its next boot.
const AFTER_THE_PANIC: &[u8] = b"record loaded-at-boot </sys/kernel/kexec_crash_loaded
              cat /var/crash/2*/dump.2* | makedumpfile -R /var/tmp/dump
              try log makedumpfile --dump-dmesg /var/tmp/dump /var/tmp/log
              grep 'the one that crashed' /var/tmp/log | record log
              grep 'the one that crashed' /var/crash/2*/dmesg.2* | record dmesg
              try unload kdump-config unload
              record unloaded </sys/kernel/kexec_crash_loaded
              try load kexec -l /vmlinuz --initrd=/initrd.img --reuse-cmdline --append=by=kexec
              record loaded </sys/kernel/kexec_loaded
              systemctl kexec
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
    let outcome = Guest::debian("debian-clients")?
        .file("rkexec.deb", &package("1")?)
        .memory("768M")
        .append("crashkernel=256M")
        // kexec-tools loaded at boot.
        .script(
            "record loaded-at-boot </sys/kernel/kexec_crash_loaded
             record command-at-boot </var/crash/kexec_cmd
             try install dpkg -i rkexec.deb
             try unload kdump-config unload
             record unloaded </sys/kernel/kexec_crash_loaded
             try load kdump-config load
             record loaded </sys/kernel/kexec_crash_loaded
             record command </var/crash/kexec_cmd
             try status kdump-config status
             try doctor rkexec doctor --output json
             try doctor-panic rkexec doctor --panic --output json
             try doctor-load rkexec doctor /vmlinuz --initrd /initrd.img --reuse-cmdline --output json
             try doctor-capture rkexec doctor --panic /var/lib/kdump/vmlinuz --syscall kexec_load \
               --reuse-cmdline --remove crashkernel --remove root --output json \
               --append 'root=/dev/vda1 reset_devices systemd.unit=kdump-tools-dump.service nr_cpus=1'
             echo the one that crashed >/dev/kmsg
             sync
             sent
             echo c >/proc/sysrq-trigger",
        )
        // The capture kernel saved the dump and reset the machine.
        .file("test/stage-2", AFTER_THE_PANIC)
        .file(
            "test/stage-3",
            b"record loaded-at-boot </sys/kernel/kexec_crash_loaded
              try load rkexec load /vmlinuz --initrd /initrd.img --reuse-cmdline --append by=rkexec
              rkexec exec --shutdown
              sleep 300",
        )
        .file("test/stage-4", b"dmesg | grep EXT4-fs | record ext4")
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
    assert_eq!(second.text("loaded")?, "1");

    let third = outcome.stage(3)?;
    let (before, after) = (second.text("cmdline")?, third.text("cmdline")?);
    assert_eq!(after, format!("{before} by=kexec"));
    assert_eq!(third.text("loaded-at-boot")?, "1");
    let fourth = outcome.stage(4)?;
    let line = fourth.text("cmdline")?;
    assert_eq!(line, format!("{before} by=kexec by=rkexec"));
    // The init system unmounted it before.
    let ext4 = fourth.text("ext4")?;
    assert!(
        ext4.contains("mounted filesystem") && !ext4.contains("recovery"),
        "{ext4}"
    );
    let ids = [first, second, third, fourth].map(|stage| stage.text("boot-id"));
    let ids = ids.into_iter().collect::<Result<BTreeSet<_>>>()?;
    assert_eq!(ids.len(), 4, "{ids:?}");
    Ok(())
}

/// Every file of the system but what its own tools note down; and what differs from what was
/// there without the package, `>` in front of what has come.
const FILES: &str = "files() {
  find / -xdev \\( -path /tmp -o -path /var/tmp -o -path /var/log -o -path /var/lib/dpkg \\
    -o -path /var/cache -o -path /lost+found \\) -prune -o \\
    ! -type d -printf '%p %l\\n' | sort
}
changed() {
  files | diff /tmp/without - | grep '^[<>]'
}\n";

/// The service has loaded, and leaves alone what is loaded by another command. Records are
/// sent although the init system ends this script meanwhile.
const REBOOT: &[u8] = b"systemctl start rkexec-load.service
              record loaded-at-boot </sys/kernel/kexec_loaded
              trap '' TERM
              try reboot rkexec reboot --append by=reboot
              sent
              kill -KILL $$";

/// The state of a package.
const STATE: &str = "state() {
  dpkg-query -W -f '${Status} ${Version}' $1 2>/dev/null || echo unknown
}\n";

/// The package alone, then in the place of kexec-tools.
fn install() -> String {
    format!(
        "{FILES}{STATE}
         dpkg -P --force-depends kexec-tools
         files >/tmp/without

         try install dpkg -i 1.deb
         readlink -f /sbin/kexec | record kexec
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

         # apt decides by what is installed; the lists would take it half a minute.
         rm -r /var/lib/apt/lists/*
         try kexec-tools dpkg -i {KEXEC_TOOLS}
         sha256sum </sbin/kexec | record theirs
         sed -i s/^LOAD_KEXEC=.*/LOAD_KEXEC=true/ /etc/default/kexec
         mkdir -p /etc/default/kexec.d
         echo \"APPEND='$(cat /proc/cmdline) by=start'\" >/etc/default/kexec.d/lab
         try replace apt-get install -q -y ./2.deb
         readlink -f /sbin/kexec | record kexec-replaced
         state kexec-tools | record replaced
         dpkg --audit | record audit-replaced

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
         sleep 300"
    )
}

/// kexec-tools in the place of the package.
fn go_back() -> String {
    format!(
        "{FILES}{STATE}
         try out dpkg -P --force-depends rkexec
         files | grep rkexec | record left
         try back dpkg -i {KEXEC_TOOLS}
         sha256sum </sbin/kexec | record theirs-again
         dpkg --audit | record audit-back
         state kexec-tools | record back"
    )
}

#[test]
fn the_package_installs_upgrades_and_removes() -> Result<()> {
    let outcome = Guest::debian("debian-package")?
        .memory("768M")
        .file("1.deb", &package("1")?)
        .file("2.deb", &package("2")?)
        .script(&install())
        .file("test/stage-2", REBOOT)
        .file("test/stage-3", go_back().as_bytes())
        .timeout(TIMEOUT)
        .run()?;
    let stage = outcome.stage(1)?;
    for name in ["kexec", "kexec-upgraded", "kexec-replaced"] {
        assert_eq!(stage.text(name)?, "/usr/sbin/rkexec", "{name}");
    }
    let version = concat!("install ok installed ", env!("CARGO_PKG_VERSION"), "-2");
    assert_eq!(stage.text("upgraded")?, version);
    assert_eq!(stage.text("owner")?, "rkexec: /sbin/kexec");
    // kdump-tools depends on it.
    assert_eq!(stage.text("needed.status")?, "1");
    assert!(stage.text("needed.err")?.contains("kdump-tools depends on"));
    assert_eq!(stage.text("purged")?, "");
    // What the administrator enabled is forgotten with the purge.
    for line in stage.text("removed")?.lines() {
        let stays = [
            "> /etc/systemd/system/multi-user.target.wants/rkexec-arm.service ",
            "> /var/lib/systemd/deb-systemd-helper-enabled/rkexec-",
            "> /etc/init.d/rkexec-",
        ];
        assert!(stays.iter().any(|start| line.starts_with(start)), "{line}");
    }
    assert_eq!(stage.text("gone")?, "unknown");
    assert!(
        stage
            .text("replaced")?
            .starts_with("deinstall ok config-files")
    );
    for name in ["audit", "audit-replaced"] {
        assert_eq!(stage.text(name)?, "", "{name}");
    }
    what_kexec_tools_loaded_is_loaded(&outcome)?;

    let last = outcome.stage(3)?;
    assert_eq!(last.text("left")?, "");
    assert!(last.text("back")?.starts_with("install ok installed"));
    assert_eq!(stage.text("theirs")?, last.text("theirs-again")?);
    assert_eq!(last.text("audit-back")?, "");
    Ok(())
}

/// LOAD_KEXEC=true of kexec-tools has the command named that enables the service, which is not
/// done. The service loads when it is started, and again when the machine reboots: `systemctl kexec` boots the later load.
fn what_kexec_tools_loaded_is_loaded(outcome: &Outcome) -> Result<()> {
    let [first, second, third] = [1, 2, 3].map(|stage| outcome.stage(stage));
    let (first, second, third) = (first?, second?, third?);
    let said = first.text("replace.out")?;
    ensure!(
        said.contains("    systemctl enable --now rkexec-load.service\n"),
        "{said}"
    );
    assert_eq!(first.text("enabled.out")?, "disabled");
    assert_eq!(first.text("not-loaded")?, "0");
    assert_eq!(first.text("loaded")?, "1");
    assert_eq!(first.text("taken-away")?, "0");
    let line = first.text("cmdline")?;
    assert_eq!(second.text("cmdline")?, format!("{line} by=service"));
    // It does so at every boot.
    assert_eq!(second.text("loaded-at-boot")?, "1");
    assert_eq!(second.text("reboot.status")?, "0");
    let said = second.text("reboot.out")?;
    ensure!(
        said.starts_with("booting the boot entry `kexec-tools` (")
            && said.contains(") by /usr/bin/systemctl kexec"),
        "{said}"
    );
    let expected = format!("{line} by=service by=reboot");
    assert_eq!(third.text("cmdline")?, expected);
    Ok(())
}
