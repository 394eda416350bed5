//! What loads the default boot entry for a reboot: the script of rkexec-load.service, and the
//! init scripts of the Debian package.

use std::fs;

use crate::{Stage, debian, example, run};

/// A machine where `preload` runs: what is loaded is what the fakes say.
fn preloading() -> Stage {
    let stage = Stage::new();
    stage.write("sys/kernel/kexec_loaded", "0");
    stage.write("run/systemd/system/x", "");
    stage.write("jobs", "");
    stage.write("entries", "{\n  \"one_shot\": false\n}\n");
    let (loaded, record) = (
        stage.path("sys/kernel/kexec_loaded"),
        stage.path("run/rkexec/normal.json"),
    );
    let (loaded, record) = (loaded.display(), record.display());
    // Each load makes another record.
    stage.fake_rkexec(&format!(
        "case $1 in\nload) [ ! -e {0}/fails ] || exit 1\n\
         mkdir -p {0}/run/rkexec && echo $$ >{record} && echo 1 >{loaded} ;;\n\
         unload) echo 0 >{loaded} ;;\nentries) cat {0}/entries ;;\nesac",
        stage.0.path().display()
    ));
    stage.fake(
        "systemctl",
        &format!("cat {}", stage.path("jobs").display()),
    );
    stage.fake("runlevel", &format!("cat {}", stage.path("jobs").display()));
    stage
}

fn preload(stage: &Stage, act: &str) -> (Option<i32>, Vec<String>) {
    let before = stage.log().len();
    let mut script = stage.command(example("preload"));
    script.env("SYS", stage.path("sys"));
    script.env("RUN", stage.path("run"));
    script.env_remove("RUNLEVEL");
    script.current_dir(stage.0.path());
    let ended = run(script.arg(act).env("OPTIONS", "--append *"));
    let called = stage.log().split_off(before).into_iter();
    let called = called.filter(|line| line.starts_with("rkexec ") && !line.contains("entries"));
    (ended.code, called.collect())
}

const REBOOT: [&str; 4] = [
    "  7 shutdown.target start waiting\n 12 reboot.target start waiting\n",
    " 12 kexec.target   start running\n",
    "12 kexec.target start waiting",
    "\t12 reboot.target start waiting",
];
const NO_REBOOT: [&str; 4] = [
    "",
    " 12 poweroff.target start waiting\n",
    " 12 soft-reboot.target start waiting\n",
    " 12 reboot.target stop waiting\n",
];

#[test]
fn the_default_entry_is_loaded_and_at_a_reboot_again() {
    let load = || vec!["rkexec load --append *".to_owned()];
    let unload = || vec!["rkexec unload".to_owned()];
    for jobs in REBOOT {
        let stage = preloading();
        assert_eq!(preload(&stage, "start"), (Some(0), load()));
        stage.write("jobs", jobs);
        assert_eq!(preload(&stage, "stop"), (Some(0), load()), "{jobs}");
    }
    for jobs in NO_REBOOT {
        let stage = preloading();
        assert_eq!(preload(&stage, "start"), (Some(0), load()));
        stage.write("jobs", jobs);
        assert_eq!(preload(&stage, "stop"), (Some(0), unload()), "{jobs}");
        assert_eq!(preload(&stage, "stop"), (Some(0), vec![]), "{jobs}");
    }
}

#[test]
fn what_somebody_else_loaded_stays() {
    let stage = preloading();
    stage.write("sys/kernel/kexec_loaded", "1");
    assert_eq!(preload(&stage, "start"), (Some(0), vec![]));
    assert_eq!(preload(&stage, "stop"), (Some(0), vec![]));
    let stage = preloading();
    assert_eq!(preload(&stage, "start").0, Some(0));
    stage.write("run/rkexec/normal.json", "another load");
    for jobs in ["", REBOOT[0]] {
        stage.write("jobs", jobs);
        assert_eq!(preload(&stage, "stop"), (Some(0), vec![]), "{jobs}");
    }
    // It was taken away.
    stage.write("sys/kernel/kexec_loaded", "0");
    assert_eq!(preload(&stage, "stop").1.len(), 1);
}

/// The boot loader would start it again and again, for it never notes down that it did.
#[test]
fn an_entry_that_is_started_once_is_left_to_the_boot_loader() {
    let stage = preloading();
    assert_eq!(preload(&stage, "start").0, Some(0));
    stage.write("entries", "{\n  \"one_shot\": true\n}\n");
    stage.write("jobs", REBOOT[1]);
    let unload = vec!["rkexec unload".to_owned()];
    assert_eq!(preload(&stage, "stop"), (Some(0), unload));
    assert_eq!(preload(&stage, "stop"), (Some(0), vec![]));
    // What somebody else loaded stays.
    stage.write("sys/kernel/kexec_loaded", "1");
    assert_eq!(preload(&stage, "stop"), (Some(0), vec![]));
}

/// What postinst says when the package takes the place of kexec-tools, and the calls of
/// update-rc.d, with `init` behind /sbin/init.
fn postinst(init: &str, load_kexec: &str, link: bool) -> (String, Vec<String>) {
    let stage = Stage::new();
    let path = |path: &str| stage.path(path).display().to_string();
    stage.write(init, "");
    stage.write("s/x", "");
    std::os::unix::fs::symlink(stage.path(init), stage.path("s/init")).unwrap();
    stage.write("default/kexec", &format!("LOAD_KEXEC={load_kexec}\n"));
    if link {
        stage.write("rc6.d/K01kexec", "");
    }
    for program in ["update-rc.d", "deb-systemd-helper", "systemctl"] {
        stage.fake(program, "");
    }
    let script = fs::read_to_string(debian("postinst")).unwrap();
    let script = script
        .replace("/usr/sbin/rkexec", &path("rkexec"))
        .replace("/sbin/", &path("s/"))
        .replace("/etc/default", &path("default"))
        .replace("/etc/rc6.d", &path("rc6.d"))
        .replace("/run/systemd", &path("no-systemd-runs"));
    stage.write("postinst", &script);
    let mut command = stage.command("sh");
    let ended = run(command.arg(stage.path("postinst")).args(["configure", ""]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let called = stage.log().into_iter();
    let called = called.filter(|line| !line.contains("update-state"));
    (ended.out, called.collect())
}

/// No init system runs where an image is built.
#[test]
fn what_the_installation_does_depends_on_the_init_system_that_is_installed() {
    let both = [
        "update-rc.d rkexec-exec defaults",
        "update-rc.d rkexec-load defaults",
    ];
    for (init, load_kexec, link, calls, said) in [
        ("sbin/dinit", "true", true, &both[..0], ""),
        (
            "lib/systemd/systemd",
            "true",
            true,
            &both[..0],
            "enable --now rkexec-load.service",
        ),
        ("lib/systemd/systemd", "false", true, &both[..0], ""),
        (
            "sysv/init",
            "true",
            false,
            &both[..],
            "the init script rkexec-load is enabled",
        ),
        (
            "sysv/init",
            "false",
            true,
            &both[..1],
            "rkexec-exec is enabled",
        ),
        ("sysv/init", "false", false, &both[..0], ""),
    ] {
        let (out, called) = postinst(init, load_kexec, link);
        assert_eq!(called, calls, "{init} {load_kexec} {link}");
        assert!(
            out.contains(said) && out.is_empty() == said.is_empty(),
            "{out}"
        );
    }
}

/// What was loaded at the start may be a kernel that is no longer installed.
#[test]
fn a_reboot_whose_load_fails_goes_through_the_firmware() {
    let stage = preloading();
    assert_eq!(preload(&stage, "start").0, Some(0));
    stage.write("fails", "");
    stage.write("jobs", REBOOT[1]);
    let (code, called) = preload(&stage, "stop");
    assert_eq!(code, Some(1));
    assert_eq!(called, ["rkexec load --append *", "rkexec unload"]);
    let stage = preloading();
    stage.write("fails", "");
    assert_eq!(preload(&stage, "start").0, Some(1));
}

#[test]
fn without_systemd_the_run_level_tells_of_a_reboot() {
    for (level, code, calls) in [("N 6", 0, 1), ("2 6", 0, 1), ("N 2", 0, 0), ("6 0", 0, 0)] {
        let stage = preloading();
        fs::remove_dir_all(stage.path("run/systemd")).unwrap();
        stage.write("jobs", level);
        let (ended, called) = preload(&stage, "stop");
        assert_eq!((ended, called.len()), (Some(code), calls), "{level}");
    }
    assert_eq!(preload(&preloading(), "dance").0, Some(2));
}

/// An EFI partition that cannot be mounted, or a first load that fails, must not keep the load
/// at the reboot from being made.
#[test]
fn the_unit_is_stopped_at_a_reboot_whatever_failed_before() {
    let unit = fs::read_to_string(example("systemd/rkexec-load.service")).unwrap();
    let lines = |start: &'static str| unit.lines().filter(move |line| line.starts_with(start));
    assert_eq!(
        lines("Requires").chain(lines("BindsTo")).count(),
        0,
        "{unit}"
    );
    let starts: Vec<&str> = lines("ExecStart=").collect();
    assert_eq!(starts, ["ExecStart=-/usr/lib/rkexec/preload start"]);
    let after: Vec<&str> = lines("After=").flat_map(str::split_whitespace).collect();
    for mount in ["boot", "boot-efi", "efi"] {
        for kind in ["mount", "automount"] {
            let name = format!("{mount}.{kind}");
            assert!(after.iter().any(|word| word.ends_with(&name)), "{name}");
        }
    }
}

/// The init script of that name, with fakes of what it runs.
fn init_script(name: &str, stage: &Stage, level: &str) -> Vec<String> {
    let script = fs::read_to_string(debian(name)).unwrap();
    let bin = stage.path("bin");
    let path = |path: &str| stage.path(path).display().to_string();
    let script = script
        .replace(
            "PATH=/sbin:/bin",
            &format!("PATH={}:/sbin:/bin", bin.display()),
        )
        .replace("/usr/lib/rkexec/preload", &path("bin/preload"))
        .replace("/usr/sbin/rkexec", &path("bin/rkexec"))
        .replace("/etc/default", &path("default"))
        .replace("/run/systemd", &path("run/systemd"))
        .replace("/sys/kernel", &path("sys/kernel"))
        .replace("/lib/lsb/init-functions", &path("functions"));
    stage.write("script", &script);
    let before = stage.log().len();
    let mut command = stage.command("sh");
    command.arg(stage.path("script")).arg("stop");
    let ended = run(command.env("RUNLEVEL", level));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    stage.log().split_off(before)
}

/// A machine with sysvinit.
fn sysvinit(loaded: &str) -> Stage {
    let stage = Stage::new();
    stage.write("functions", "for log in action_msg action_begin_msg action_end_msg failure_msg; do\n  eval \"log_$log() { :; }\"\ndone\n");
    stage.write("sys/kernel/kexec_loaded", loaded);
    stage.write("default/rkexec-load", "OPTIONS='--append x'\n");
    stage.fake(
        "preload",
        "echo \"OPTIONS $OPTIONS\" >>\"$(dirname \"$0\")/../log\"",
    );
    stage.fake("rkexec", "");
    stage
}

#[test]
fn sysvinit_loads_at_a_reboot_and_boots_it_at_the_end() {
    let stage = sysvinit("0");
    assert_eq!(
        init_script("rkexec-load.init", &stage, "6"),
        ["preload stop", "OPTIONS --append x"]
    );
    for (loaded, level, calls) in [("1", "6", 1), ("0", "6", 0), ("1", "2", 0), ("1", "0", 0)] {
        let called = init_script("rkexec-exec.init", &sysvinit(loaded), level);
        assert_eq!(called, vec!["rkexec kexec -e"; calls], "{loaded} {level}");
    }
    let systemd = sysvinit("1");
    systemd.write("run/systemd/system/x", "");
    assert_eq!(init_script("rkexec-exec.init", &systemd, "6"), [""; 0]);
}
