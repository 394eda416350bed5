use super::*;
use crate::cli::hint;
use std::os::unix::fs::PermissionsExt as _;

/// A machine with files.
struct Machine {
    _dir: tempfile::TempDir,
    root: Root,
}

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path());
        let machine = Self { _dir: dir, root };
        for (path, text) in files {
            machine.write(path, text);
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn make_executable(&self, path: &str, executable: bool) {
        let mode = if executable { 0o755 } else { 0o644 };
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.root.path(path), permissions).unwrap();
    }

    /// The command, and whether it boots the loaded kernel.
    fn found(&self) -> Option<(String, bool)> {
        let found = Shutdown::find(&self.root)?;
        Some((found.shown(), found.boots_what_is_loaded()))
    }
}

fn found(command: &str, boots: bool) -> Option<(String, bool)> {
    Some((command.to_owned(), boots))
}

#[test]
fn the_init_system_that_runs_is_asked() {
    let machine = Machine::new(&[]);
    assert_eq!(machine.found(), None);
    machine.write("/usr/sbin/reboot", "");
    assert_eq!(machine.found(), found("/usr/sbin/reboot", false));
    machine.write("/bin/shutdown", "");
    // systemctl alone does not mean that systemd runs.
    machine.write("/usr/bin/systemctl", "");
    assert_eq!(machine.found(), found("/bin/shutdown -r now", false));
    std::fs::create_dir_all(machine.root.path("/run/systemd/system")).unwrap();
    assert_eq!(machine.found(), found("/usr/bin/systemctl kexec", true));
}

#[test]
fn init_systems_with_a_command_of_their_own() {
    for (name, program, command) in [
        (
            "openrc-init",
            "/sbin/openrc-shutdown",
            "/sbin/openrc-shutdown --kexec now",
        ),
        ("dinit", "/usr/bin/shutdown", "/usr/bin/shutdown -k"),
        (
            "shepherd",
            "/run/current-system/profile/sbin/reboot",
            "/run/current-system/profile/sbin/reboot --kexec",
        ),
    ] {
        let machine = Machine::new(&[("/proc/1/comm", &format!("{name}\n")), (program, "")]);
        assert_eq!(machine.found(), found(command, true), "{name}");
        machine.write("/proc/1/comm", "init\n");
        assert_ne!(machine.found(), found(command, true), "{name}");
    }
}

/// The last script of a shutdown makes the jump, and needs the program `kexec`.
#[test]
fn scripts_that_run_kexec_at_the_end() {
    let runit = "msg x\nif [ -x /run/runit/reboot ]; then\n  kexec -e 2>/dev/null\nfi\n";
    for (init, file, text, boots) in [
        ("init", "/etc/inittab", "k:6:wait:/sbin/kexec -e\n", true),
        (
            "init",
            "/etc/inittab",
            "k:06:once:/usr/sbin/kexec -f -e",
            true,
        ),
        (
            "init",
            "/etc/inittab",
            "k:2345:wait:/sbin/kexec -e\n",
            false,
        ),
        (
            "init",
            "/etc/inittab",
            "k:6:respawn:/sbin/kexec -e\n",
            false,
        ),
        ("init", "/etc/inittab", "#k:6:wait:/sbin/kexec -e\n", false),
        (
            "init",
            "/etc/inittab",
            "k:6:wait:/sbin/kexec -l /vmlinuz\n",
            false,
        ),
        ("init", "/etc/inittab", "k:6:wait:/sbin/mykexec -e\n", false),
        ("init", "/etc/inittab", "::shutdown:/sbin/kexec -e\n", true),
        (
            "linuxrc",
            "/etc/inittab",
            "::shutdown:/sbin/kexec -e\n",
            true,
        ),
        ("init", "/etc/inittab", "::sysinit:/sbin/kexec -e\n", false),
        ("init", "/etc/inittab", "::\n:", false),
        ("runit", "/etc/runit/shutdown.d/90-kexec.sh", runit, true),
        ("runit", "/etc/runit/3", runit, true),
        ("runit", "/etc/runit/3", "# kexec -e\n", false),
        // It runs beside another init system.
        ("init", "/etc/runit/3", runit, false),
        ("runit", "/etc/inittab", "k:6:wait:/sbin/kexec -e\n", false),
        ("other", "/etc/inittab", "k:6:wait:/sbin/kexec -e\n", false),
    ] {
        let machine = Machine::new(&[
            ("/proc/1/comm", init),
            ("/sbin/shutdown", ""),
            ("/sbin/kexec", ""),
            (file, text),
        ]);
        let expected = found("/sbin/shutdown -r now", boots);
        assert_eq!(machine.found(), expected, "{init} {file} {text}");
        std::fs::remove_file(machine.root.path("/sbin/kexec")).unwrap();
        assert_eq!(machine.found(), found("/sbin/shutdown -r now", false));
    }
}

#[test]
fn a_script_of_run_level_6_must_be_executable() {
    for (name, boots) in [
        ("K01kexec", true),
        ("K09rkexec-exec", true),
        ("K01kexec-load", false),
        ("K01notkexec", false),
    ] {
        let path = format!("/etc/rc6.d/{name}");
        let machine = Machine::new(&[
            ("/proc/1/comm", "init\n"),
            ("/sbin/shutdown", ""),
            ("/sbin/kexec", ""),
            (&path, "#!/bin/sh\n"),
        ]);
        let is_found = |expected| {
            let expected = found("/sbin/shutdown -r now", expected);
            assert_eq!(machine.found(), expected, "{name}");
        };
        is_found(false);
        machine.make_executable(&path, true);
        is_found(boots);
        // As dpkg leaves it behind.
        machine.make_executable(&path, false);
        is_found(false);
        machine.make_executable(&path, true);
        std::fs::create_dir_all(machine.root.path("/run/openrc")).unwrap();
        is_found(false);
    }
}

#[test]
fn the_version_of_systemd() {
    assert_eq!(version(b"systemd 252 (252.39-1~deb12u2)\n+PAM"), Some(252));
    assert_eq!(version(b"systemd 261~rc1 (261~rc1-1)\n"), Some(261));
    for junk in [
        &b""[..],
        b"systemd",
        b"systemd x",
        b"busybox 252",
        b"systemd \xff",
    ] {
        assert_eq!(version(junk), None);
    }
}

/// Up to version 260 systemd runs the program `kexec`, whose path is compiled in.
#[test]
fn systemd_needs_the_program_kexec_up_to_260() {
    let systemctl = "/usr/bin/systemctl";
    for (version, kexec, jumps) in [
        (Some(252), None, false),
        (Some(260), None, false),
        (Some(261), None, true),
        // Nothing is known against it.
        (None, None, true),
        (Some(252), Some("/sbin/kexec"), true),
        (Some(252), Some("/usr/sbin/kexec"), true),
        (Some(252), Some("/usr/bin/kexec"), false),
    ] {
        let machine = Machine::new(&[("/run/systemd/system/x", ""), (systemctl, "")]);
        kexec
            .iter()
            .for_each(|kexec: &&str| machine.write(kexec, ""));
        let found = Shutdown::find(&machine.root).unwrap();
        let found = found.looked_at(&machine.root, |asked| {
            assert_eq!(asked, systemctl);
            version
        });
        let error = found.can_jump().err().map(anyhow::Error::from);
        assert_eq!(error.is_none(), jumps, "{version:?} {kexec:?}");
        assert_eq!(found.doubt().is_none(), jumps, "{version:?} {kexec:?}");
        if let Some(error) = error {
            let said = "/usr/bin/systemctl kexec runs kexec -e at the end, and there is no";
            assert!(error.to_string().starts_with(said), "{error}");
            assert!(hint(&error).unwrap().contains("/usr/sbin/kexec"));
        }
    }
}

/// Only systemctl is asked for a version. NixOS has `kexec` elsewhere.
#[test]
fn no_other_program_is_asked_for_its_version() {
    for program in ["/run/current-system/sw/bin/systemctl", "/sbin/reboot"] {
        let machine = Machine::new(&[("/run/systemd/system/x", ""), (program, "")]);
        let found = Shutdown::find(&machine.root).unwrap();
        let found = found.looked_at(&machine.root, |asked| panic!("{asked} is run"));
        assert!(found.can_jump().is_ok(), "{program}");
    }
}

/// The kernel calls the first process `init` where that is the link it was started by.
#[test]
fn the_init_system_behind_a_link() {
    for (target, program, command) in [
        (
            "/usr/bin/dinit",
            "/usr/bin/shutdown",
            "/usr/bin/shutdown -k",
        ),
        (
            "/sbin/openrc-init (deleted)",
            "/sbin/openrc-shutdown",
            "/sbin/openrc-shutdown --kexec now",
        ),
    ] {
        let machine = Machine::new(&[("/proc/1/comm", "init\n"), (program, "")]);
        assert_ne!(machine.found(), found(command, true), "{target}");
        std::os::unix::fs::symlink(target, machine.root.path("/proc/1/exe")).unwrap();
        assert_eq!(machine.found(), found(command, true), "{target}");
    }
    // The Shepherd is a script.
    let reboot = "/run/current-system/profile/sbin/reboot";
    let machine = Machine::new(&[("/proc/1/comm", "shepherd\n"), (reboot, "")]);
    std::os::unix::fs::symlink("/gnu/store/x/bin/guile", machine.root.path("/proc/1/exe")).unwrap();
    let expected = found("/run/current-system/profile/sbin/reboot --kexec", true);
    assert_eq!(machine.found(), expected);
}

/// sysvinit's `reboot -k` makes the jump without the program `kexec`.
#[test]
fn sysvinit_reboots_with_k() {
    for (line, init, boots) in [
        ("l6r:6:wait:/sbin/reboot -dkn", "init", true),
        ("l6r:6:wait:reboot -d -k", "init", true),
        ("l6r:6:wait:/sbin/reboot -d", "init", false),
        ("l6r:6:wait:/sbin/reboot --keep", "init", false),
        ("l0r:0:wait:/sbin/reboot -dkn", "init", false),
        ("l0h:6:wait:/sbin/halt -dkn", "init", false),
        ("#l6r:6:wait:/sbin/reboot -dkn", "init", false),
        ("::shutdown:/sbin/reboot -k", "busybox", false),
    ] {
        let machine = Machine::new(&[
            ("/proc/1/comm", "init\n"),
            ("/run/openrc/x", ""),
            ("/sbin/shutdown", ""),
            (INITTAB, line),
        ]);
        let init = format!("/sbin/{init}");
        std::os::unix::fs::symlink(init, machine.root.path("/proc/1/exe")).unwrap();
        let expected = found("/sbin/shutdown -r now", boots);
        assert_eq!(machine.found(), expected, "{line}");
    }
}

#[test]
fn what_may_keep_the_kernel_from_being_booted_is_said() {
    let doubt = |jump| {
        let shutdown = Shutdown {
            program: "/x",
            arguments: &["y"],
            jump,
        };
        shutdown.doubt()
    };
    assert_eq!(doubt(Jump::Init), None);
    assert_eq!(doubt(Jump::Script("/etc/inittab".to_owned())), None);
    let missing = doubt(Jump::Missing).unwrap();
    assert!(missing.starts_with("/x y runs kexec -e at the end, and there is no program kexec"));
    let nobody = doubt(Jump::Nobody).unwrap();
    assert!(nobody.starts_with("/x y reboots through the firmware, unless"));
}

#[test]
fn files_are_handed_over_by_who_makes_the_jump() {
    let shutdown = |jump| Shutdown {
        program: "/x",
        arguments: &[],
        jump,
    };
    let files = [CarriedFile {
        name: "b".into(),
        path: "/a/b".into(),
    }];
    assert_eq!(shutdown(Jump::Init).of_files(&[]).unwrap(), None);
    let warning = shutdown(Jump::Nobody).of_files(&files).unwrap().unwrap();
    assert!(warning.starts_with("/a/b: only the process"), "{warning}");
    let error = anyhow::Error::from(shutdown(Jump::Init).of_files(&files).unwrap_err());
    let said = "/a/b cannot be handed over at the end of a shutdown: ";
    assert!(error.to_string().starts_with(said), "{error}");
    let hint = hint(&error).unwrap();
    assert!(hint.contains("without --shutdown"), "{hint}");
    assert!(
        hint.ends_with("and the files lie on the root file system"),
        "{hint}"
    );
}
