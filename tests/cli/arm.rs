//! `rkexec arm` where it is refused before anything is looked at: nothing here
//! gets as far as a plan.

use super::Lab;

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
    for more in [&[][..], &["--watch"]] {
        let arm = |config| {
            let mut args = vec!["arm", "--config", config];
            args.extend(more);
            lab.fails(1, &args)
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
