//! What must not be loaded, and what the kernel refuses: each with its own
//! cause, exit code 1, and what was loaded stays.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::lab::Kernel;
use crate::qemu::Guest;
use crate::trip::{self, Trip};
use crate::witness::Stage;

/// Holds the refusal `name` to exit code `code` and a message that begins with
/// the program's name and holds `cause`.
fn refused(stage: Stage, name: &str, code: &str, cause: &str) -> Result<()> {
    let message = stage.text(&format!("{name}.err"))?;
    let status = stage.text(&format!("{name}.status"))?;
    ensure!(status == code, "{name}: exit code {status}: {message}");
    ensure!(message.starts_with("rkexec: "), "{name}: {message}");
    ensure!(
        message.to_lowercase().contains(&cause.to_lowercase()),
        "{name}: no {cause:?} in {message:?}"
    );
    Ok(())
}

/// A script around one load that must be refused; `$load` is `rkexec load`
/// with kernel, initrd and command line.
const LOAD: &str = "load='rkexec load /next/vmlinuz --initrd /next/initrd --cmdline x'\n";

#[test]
fn lockdown_names_itself() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let trip = Trip::to(&kernel);
    let script = format!(
        "{LOAD}
        refused segments $load --syscall kexec_load
        record loaded </sys/kernel/kexec_loaded
        refused status rkexec status --output json
        refused auto $load --syscall auto
        refused kexec-tools kexec -c -l /next/vmlinuz --initrd=/next/initrd --command-line=x
        "
    );
    let outcome = trip
        .prepare(Guest::new("lockdown", &kernel), &trip.initrd()?)?
        .program("/sbin/kexec")?
        .append("lockdown=integrity")
        .script(&script)
        .run()?;
    let stage = outcome.stage(1)?;
    refused(stage, "segments", "1", "locked down")?;
    refused(stage, "auto", "1", "locked down")?;
    assert_eq!(stage.text("loaded")?, "0");
    assert!(stage.text("status.out")?.contains("integrity"));
    // It is the kernel that refuses, not rkexec alone.
    assert_ne!(stage.text("kexec-tools.status")?, "0");
    Ok(())
}

#[test]
fn sysctls_and_missing_privilege_name_themselves() -> Result<()> {
    let (kernel, next) = (Kernel::new("6.12")?, Kernel::small()?);
    let trip = Trip::to(&next);
    let script = format!(
        "{LOAD}
        chmod 1777 /tmp
        for syscall in kexec_load kexec_file_load; do
          refused user-$syscall su nobody -c \"$load --syscall $syscall\"
        done
        refused user-exec su nobody -c 'rkexec exec'
        record loaded-by-user </sys/kernel/kexec_loaded
        refused nothing rkexec exec
        echo 0 >/proc/sys/kernel/kexec_load_limit_reboot
        for syscall in kexec_load kexec_file_load; do
          refused limit-$syscall $load --syscall $syscall
        done
        echo 1 >/proc/sys/kernel/kexec_load_disabled
        for syscall in kexec_load kexec_file_load; do
          refused disabled-$syscall $load --syscall $syscall
        done
        record loaded </sys/kernel/kexec_loaded
        "
    );
    let outcome = trip
        .prepare(Guest::new("sysctls", &kernel), &trip.initrd()?)?
        .script(&script)
        .run()?;
    let stage = outcome.stage(1)?;
    for syscall in trip::SYSCALLS {
        refused(stage, &format!("user-{syscall}"), "1", "root")?;
        refused(
            stage,
            &format!("limit-{syscall}"),
            "1",
            "kexec_load_limit_reboot",
        )?;
        refused(
            stage,
            &format!("disabled-{syscall}"),
            "1",
            "kexec_load_disabled",
        )?;
    }
    refused(stage, "user-exec", "3", "no kernel is loaded")?;
    refused(stage, "nothing", "3", "no kernel is loaded")?;
    assert_eq!(stage.text("loaded-by-user")?, "0");
    assert_eq!(stage.text("loaded")?, "0");
    Ok(())
}

/// Faulty inputs, made in the guest: name, how it is made, the load options
/// that follow `rkexec load`, exit code, word in the message.
const FAULTY: [(&str, &str, &str, &str, &str); 14] = [
    ("text", "echo a kernel >/bad", "/bad", "1", "kernel"),
    ("empty", ": >/bad", "/bad", "1", "/bad"),
    (
        "noise",
        "head -c 65536 /payload >/bad",
        "/bad",
        "1",
        "kernel",
    ),
    ("missing", "rm -f /bad", "/bad", "1", "/bad"),
    ("directory", "", "/tmp", "1", "/tmp"),
    (
        "16-bit",
        "cp /next/vmlinuz /bad; printf '\\000' | dd of=/bad bs=1 seek=529 conv=notrunc 2>/dev/null",
        "/bad",
        "1",
        "real mode",
    ),
    (
        "init_size",
        "cp /next/vmlinuz /bad; printf '\\377\\377\\377\\377' | dd of=/bad bs=1 seek=608 conv=notrunc 2>/dev/null",
        "/bad",
        "1",
        "",
    ),
    (
        "setup_sects",
        "cp /next/vmlinuz /bad; printf '\\377' | dd of=/bad bs=1 seek=497 conv=notrunc 2>/dev/null; truncate -s 100000 /bad",
        "/bad",
        "1",
        "",
    ),
    (
        "initrd-missing",
        "",
        "/next/vmlinuz --initrd /nowhere",
        "1",
        "/nowhere",
    ),
    (
        "initrd-directory",
        "",
        "/next/vmlinuz --initrd /tmp",
        "1",
        "/tmp",
    ),
    (
        "initrd-large",
        "truncate -s 8G /large",
        "/next/vmlinuz --initrd /large",
        "1",
        "",
    ),
    (
        "cmdline-long",
        "long=$(head -c 3000 /dev/zero | tr '\\0' x)",
        "/next/vmlinuz --cmdline $long",
        "1",
        "command line",
    ),
    (
        "bounds",
        "",
        "/next/vmlinuz --mem-min 0x20000000 --mem-max 0x10000000",
        "2",
        "--mem-min",
    ),
    (
        "no-hole",
        "",
        "/next/vmlinuz --mem-min 0x10000000 --mem-max 0x10100000",
        "1",
        "",
    ),
];

fn faulty_inputs(name: &str, syscall: &str) -> Result<()> {
    let (kernel, next) = (Kernel::new("6.12")?, Kernel::small()?);
    let trip = Trip::to(&next).options(&format!("--syscall {syscall}"));
    // What is loaded first is what boots in the end.
    let mut script = ". /test/load\n".to_owned();
    let mut names = Vec::new();
    for (name, make, options, code, cause) in FAULTY {
        if options.contains("--mem-") && syscall == "kexec_file_load" {
            continue;
        }
        names.push((name.to_owned(), code, cause));
        script += &format!("{make}\nrefused {name} rkexec load {options} --syscall {syscall}\n");
    }
    // Truncated at each of the first 4 KiB boundaries.
    for pages in 1..=8 {
        let name = format!("cut-{pages}");
        script += &format!(
            "head -c $(({pages} * 4096)) /next/vmlinuz >/bad
             refused {name} rkexec load /bad --syscall {syscall}\n"
        );
        names.push((name, "1", ""));
    }
    script += "newline='two
lines'
refused newline rkexec load /next/vmlinuz --cmdline \"$newline\"
record still-loaded </sys/kernel/kexec_loaded
try exec rkexec exec\n";
    names.push(("newline".to_owned(), "1", "command line"));
    let initrd = trip.initrd()?;
    let outcome = trip
        .prepare(Guest::new(name, &kernel), &initrd)?
        .file("payload", &trip::payload(&next))
        .script(&script)
        .run()?;
    let stage = outcome.stage(1)?;
    assert_eq!(stage.text("loaded")?, "1");
    for (name, code, cause) in names {
        refused(stage, &name, code, cause)?;
    }
    assert_eq!(stage.text("still-loaded")?, "1");
    assert_eq!(outcome.stage(2)?.text("cmdline")?, trip.cmdline());
    assert_eq!(
        outcome.stage(2)?.digest("initrd-digest")?,
        trip::sha256(&initrd)
    );
    Ok(())
}

/// A filter that no file tells of: the choice between the calls is made again, where
/// it was free. Errnos: EPERM, EACCES and ENOSYS.
#[test]
fn what_refuses_kexec_load_leaves_the_other_call() -> Result<()> {
    let (kernel, next) = (Kernel::new("6.12")?, Kernel::small()?);
    let trip = Trip::to(&next).options("");
    let request = trip.request();
    let mut script = String::new();
    for errno in [1, 13, 38] {
        script += &format!(
            "try load-{errno} deny {errno} rkexec load {request} --output json
             record loaded-{errno} </sys/kernel/kexec_loaded
             try unload-{errno} deny {errno} rkexec kexec -u
             record unloaded-{errno} </sys/kernel/kexec_loaded
             refused only-{errno} deny {errno} rkexec load {request} --syscall kexec_load
             try arm-{errno} deny {errno} rkexec load --panic {request}
             record armed-{errno} </sys/kernel/kexec_crash_loaded
             rkexec unload --panic
             try arms-{errno} deny {errno} rkexec arm --output json
             try again-{errno} deny {errno} rkexec arm --output json
             try checked-{errno} rkexec status --check
             rkexec unload --panic\n"
        );
    }
    script += &format!("deny 1 rkexec load {request}\ntry exec rkexec exec\n");
    let initrd = trip.initrd()?;
    let outcome = trip
        .prepare(Guest::new("refused-kexec_load", &kernel), &initrd)?
        .executable("bin/deny", &trip::compiled("deny")?)
        .file("etc/rkexec.toml", crate::arm::CONFIG.as_bytes())
        .append("crashkernel=256M")
        .script(&script)
        .run()?;
    let stage = outcome.stage(1)?;
    for errno in [1, 13, 38] {
        let text = |name: &str| stage.text(&format!("{name}-{errno}"));
        let said = stage.text(&format!("load-{errno}.err"))?;
        ensure!(said.contains("; kexec_file_load is tried"), "{said}");
        let plan: Value = serde_json::from_str(stage.text(&format!("load-{errno}.out"))?)?;
        let because =
            json!({ "name": "kexec_file_load", "reason": "the kernel refuses kexec_load" });
        assert_eq!(plan["syscall"], because);
        assert_eq!((text("loaded")?, text("unloaded")?), ("1", "0"));
        assert_eq!(text("armed")?, "1");
        // The second time the choice is known: it is not tried again, and nothing is loaded.
        for (name, loads) in [("arms", true), ("again", false)] {
            let said: Value = serde_json::from_str(stage.text(&format!("{name}-{errno}.out"))?)?;
            assert_eq!(said["loaded"], loads, "{name}-{errno}: {said}");
        }
        let said = stage.text(&format!("again-{errno}.err"))?;
        ensure!(!said.contains("kexec_load"), "{said}");
        assert_eq!(stage.text(&format!("checked-{errno}.status"))?, "0");
        refused(stage, &format!("only-{errno}"), "1", "kexec_load failed")?;
    }
    assert_eq!(outcome.stage(2)?.text("cmdline")?, trip.cmdline());
    Ok(())
}

/// Where /proc/kcore is masked, the kernel describes itself, and the machine is armed.
#[test]
fn without_kcore_a_crash_kernel_is_loaded_by_the_other_call() -> Result<()> {
    let kernel = Kernel::new("6.12")?;
    let trip = Trip::to(&kernel).options("");
    let request = trip.request();
    let script = format!(
        "mount -o bind /dev/null /proc/kcore
         try load rkexec load --panic {request} --output json
         record armed </sys/kernel/kexec_crash_loaded
         try check rkexec status --check
         refused segments rkexec load --panic {request} --syscall kexec_load
         record still-armed </sys/kernel/kexec_crash_loaded\n"
    );
    let initrd = trip.initrd()?;
    let outcome = trip
        .prepare(Guest::new("without-kcore", &kernel), &initrd)?
        .append("crashkernel=256M")
        .script(&script)
        .run()?;
    let stage = outcome.stage(1)?;
    let plan: Value = serde_json::from_str(stage.text("load.out")?)?;
    assert_eq!(plan["syscall"]["name"], "kexec_file_load");
    ensure!(
        plan["syscall"]["reason"]
            .to_string()
            .contains("/proc/kcore"),
        "{plan}"
    );
    assert_eq!(
        (stage.text("armed")?, stage.text("still-armed")?),
        ("1", "1")
    );
    assert_eq!(stage.text("check.status")?, "0");
    refused(stage, "segments", "1", "/proc/kcore")
}

#[test]
fn faulty_inputs_leave_what_kexec_load_loaded() -> Result<()> {
    faulty_inputs("faulty-kexec_load", "kexec_load")
}

#[test]
fn faulty_inputs_leave_what_kexec_file_load_loaded() -> Result<()> {
    faulty_inputs("faulty-kexec_file_load", "kexec_file_load")
}
