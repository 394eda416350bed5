//! `rkexec arm` where it is refused before anything is looked at, and `arm --check`, which
//! plans and loads nothing.

use super::{Lab, captured};
use serde_json::{Value, json};

#[test]
fn what_does_not_go_together() {
    let lab = Lab::new();
    assert_eq!(
        lab.fails(2, &["arm", "--root", "x"]),
        "rkexec: arm failed: it would change this machine, so --root is refused; \
         `rkexec plan --root DIR` plans for another machine\n"
    );
    let err = lab.fails(2, &["arm", "--watch", "--output", "json"]);
    assert!(
        err.starts_with("rkexec: arm failed: --watch says each decision in a line"),
        "{err}"
    );
}

#[test]
fn a_configuration_that_is_none() {
    let lab = Lab::new();
    for (more, doing) in [
        (&[][..], "arm"),
        (&["--watch"], "arm"),
        (&["--check"], "check"),
    ] {
        let arm = |config| {
            let mut args = vec!["arm", "--config", config];
            args.extend(more);
            let begins = format!("rkexec: {doing} failed: ");
            lab.fails(1, &args)
                .replacen(&begins, "rkexec: arm failed: ", 1)
        };
        assert_eq!(
            arm("missing.toml"),
            "rkexec: arm failed: reading missing.toml failed: No such file or directory (os error 2)\n\
             hint: rkexec.toml(5) has an example of a configuration; --config names another file\n"
        );
        lab.write(
            "slip.toml",
            "kernel = '/boot/vmlinuz'\n\n[cmdline]\nappnd = ''\n",
        );
        assert_eq!(
            arm("slip.toml"),
            "rkexec: arm failed: slip.toml: line 4: unknown key `appnd`, expected one of \
             `base`, `line`, `append`, `remove`\n\
             hint: the key may be meant to be `append`\n"
        );
    }
}

/// A configuration called `f.toml` for the kernel `vmlinuz`, with `more`.
fn configure(lab: &Lab, more: &str) -> String {
    let kernel = lab.path().join("vmlinuz");
    let kernel = kernel.to_str().unwrap().to_owned();
    lab.write("f.toml", format!("kernel = '{kernel}'\n{more}"));
    kernel
}

#[test]
fn a_check_says_what_would_be_loaded_and_why() {
    let lab = Lab::new();
    let (big, line) = (captured("big"), "[cmdline]\nappend = 'reset_devices'\n");
    let kernel = configure(&lab, line);
    let check = ["arm", "--check", "--config", "f.toml", "--root", &big];
    let made = "console=ttyS0 panic=-1 quiet reset_devices";
    let said = format!(
        "would load {kernel} through kexec_load: no crash kernel was loaded\ncommand line: {made}\n"
    );
    assert_eq!(lab.succeeds(&check), said);
    let json = lab.succeeds(&[&check[..], &["--output", "json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    let expected = json!({
        "schema": 1, "armed": false, "loaded": false, "would_load": true,
        "reason": "no crash kernel was loaded", "kernel": kernel, "syscall": "kexec_load",
        "cmdline": made,
    });
    assert_eq!(json, expected);
    // Nothing is written to the machine, not even a lock.
    assert!(!std::path::Path::new(&big).join("run").exists());

    // The warnings of the plan are the operator's, too.
    configure(&lab, "[cmdline]\nappend = ''\n");
    let warned = lab.run(&check);
    assert_eq!(warned.code, Some(0));
    let warning = "rkexec: warning: reset_devices is missing on the command line: ";
    assert!(warned.err.starts_with(warning), "{warned:?}");
}

#[test]
fn a_check_fails_where_a_load_would() {
    let lab = Lab::new();
    let (big, small) = (captured("big"), captured("bios-512m"));
    let check = |root: &str| lab.run(&["arm", "--check", "--config", "f.toml", "--root", root]);
    let none = "no memory is reserved for a crash kernel";
    configure(&lab, "");
    let ended = check(&small);
    assert_eq!((ended.code, &*ended.out), (Some(1), ""));
    let begins = format!("rkexec: check failed: {none}\nhint: add crashkernel=");
    assert!(ended.err.starts_with(&begins), "{ended:?}");
    configure(&lab, "when_impossible = 'warn'");
    let ended = check(&small);
    let warning = format!("rkexec: warning: not armed: {none}\n");
    assert_eq!((ended.code, ended.err), (Some(0), warning));

    configure(&lab, "minimum_reservation = '1G'");
    let ended = check(&big);
    assert_eq!(ended.code, Some(1));
    assert!(
        ended.err.contains("the configuration wants 1 GiB"),
        "{ended:?}"
    );
    lab.write("f.toml", "kernel = '/missing-{release}'");
    let ended = check(&big);
    let why = "rkexec: check failed: opening the kernel failed: /missing-6.12.117+deb12-amd64: no such file\n";
    assert_eq!((ended.code, &*ended.err), (Some(1), why));

    let ended = lab.run(&["arm", "--check", "--watch"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
}
