//! `--entry` of load and plan.

use std::fs;

use serde_json::Value;

use super::{GRUB_HEAD, MOUNTS, grubenv};
use crate::Lab;

/// A captured machine that a plan can be made for, with entries of its own.
pub(super) fn bootable() -> Lab {
    let lab = Lab::new();
    let from = crate::captured("bios-512m");
    let copied = std::process::Command::new("cp")
        .args(["-r", &from, lab.path().join("m").to_str().unwrap()])
        .status();
    assert!(copied.unwrap().success());
    lab.write(
        "m/boot/vmlinuz-1",
        fs::read(lab.path().join("vmlinuz")).unwrap(),
    );
    lab.write("m/boot/initrd-1", "070701");
    lab.write(
        "m/boot/grub/grub.cfg",
        format!(
            "{GRUB_HEAD}menuentry 'One' --id one {{ linux /vmlinuz-1 root=/dev/one quiet\n initrd /initrd-1\n}}\n\
             menuentry 'Two' --id two {{ linux /vmlinuz-1 root=/dev/two\n}}\n\
             menuentry 'Gone' --id gone {{ linux /gone }}\n"
        ),
    );
    lab.write("m/proc/self/mountinfo", MOUNTS);
    lab.write("m/boot/grub/grubenv", grubenv("saved_entry=two\n"));
    lab
}

pub(super) fn plan(lab: &Lab, args: &[&str]) -> Value {
    let head = ["plan", "-q", "--output", "json", "--root", "m"];
    serde_json::from_str(&lab.succeeds(&[&head, args].concat())).unwrap()
}

#[test]
fn an_entry_is_planned_and_options_go_before_it() {
    let lab = bootable();
    let one = plan(&lab, &["--entry", "one"]);
    assert_eq!(one["cmdline"], "root=/dev/one quiet");
    assert!(
        one["image"]["path"]
            .as_str()
            .unwrap()
            .ends_with("m/boot/vmlinuz-1")
    );
    let has_initrd = |plan: &Value| plan["segments"].to_string().contains("\"initrd\"");
    assert!(has_initrd(&one));
    let two = plan(
        &lab,
        &[
            "--entry", "default", "--append", "single", "--remove", "root",
        ],
    );
    assert_eq!(two["cmdline"], "single");
    assert!(!has_initrd(&two));
    let own = plan(
        &lab,
        &[
            "--entry",
            "Two",
            "--cmdline",
            "own",
            "--initrd",
            "m/boot/initrd-1",
        ],
    );
    assert_eq!(own["cmdline"], "own");
    assert!(has_initrd(&own));
    lab.write(
        "m/boot/grub/grubenv",
        grubenv("next_entry=one\nsaved_entry=two\n"),
    );
    let ended = lab.run(&["plan", "--root", "m", "--entry", "default"]);
    let said = "rkexec: `default` is the boot entry `one`, which the boot loader would start once, and still will at the next cold boot\n";
    assert!(ended.err.starts_with(said), "{ended:?}");
}

#[test]
fn an_entry_that_is_not_there_or_cannot_be_booted_is_refused() {
    let lab = bootable();
    let fails = |name: &str| lab.fails(1, &["plan", "--root", "m", "--entry", name]);
    assert_eq!(
        fails("three"),
        "rkexec: choosing a boot entry failed: no boot entry is called `three`; entries: one, two, gone\n\
         hint: `rkexec entries` shows the boot entries of this machine\n"
    );
    assert!(fails("gone").contains("`gone` cannot be booted: /boot/gone: no such file"));
    assert!(fails("current").contains("no boot entry has the command line and the release"));
    let both = lab.fails(2, &["plan", "vmlinuz", "--entry", "one"]);
    assert!(both.contains("cannot be used with"), "{both}");
}

/// The same as with `--entry default`, and it is said.
#[test]
fn without_a_kernel_the_default_entry_is_planned() {
    let lab = bootable();
    let two = plan(&lab, &[]);
    assert_eq!(two["cmdline"], "root=/dev/two");
    let appended = plan(&lab, &["--append", "single"]);
    assert_eq!(appended["cmdline"], "root=/dev/two single");
    let said = |args: &[&str]| lab.run(&[&["plan", "--root", "m"], args].concat()).err;
    let line = "rkexec: no kernel is named: the default boot entry `two` is taken\n";
    assert!(said(&[]).starts_with(line), "{}", said(&[]));
    lab.write(
        "m/boot/grub/grubenv",
        grubenv("next_entry=one\nsaved_entry=two\n"),
    );
    let line = "rkexec: no kernel is named: the default boot entry `one`, which the boot loader would start once, and still will at the next cold boot, is taken\n";
    assert!(said(&[]).starts_with(line), "{}", said(&[]));
    // Which crash kernel it is, is not guessed.
    lab.fails(2, &["plan", "--root", "m", "--panic"]);
    assert_eq!(
        lab.run(&["plan", "-q", "--root", "m", "--panic", "--entry", "one"])
            .code,
        Some(1)
    );
    lab.write("m/boot/grub/grub.cfg", "");
    let none = lab.fails(1, &["plan", "--root", "m"]);
    assert!(none.contains("no boot entry is the default"), "{none}");
}

/// What an option replaces need not be there.
#[test]
fn faults_of_what_is_replaced_do_not_count() {
    let lab = bootable();
    let config = fs::read_to_string(lab.path().join("m/boot/grub/grub.cfg")).unwrap();
    let more = "menuentry 'Lost' --id lost { linux /vmlinuz-1 a\n initrd /gone\n devicetree /gone.dtb\n}\n";
    lab.write("m/boot/grub/grub.cfg", format!("{config}{more}"));
    let args = ["plan", "-q", "--root", "m", "--entry", "lost"];
    let said = lab.fails(1, &args);
    assert!(
        said.contains("`lost` cannot be booted: /boot/gone: no such file"),
        "{said}"
    );
    let with_initrd = [&args[..], &["--initrd", "m/boot/initrd-1"]].concat();
    let said = lab.fails(1, &with_initrd);
    assert!(said.contains("/boot/gone.dtb: no such file"), "{said}");
    lab.write("own.dtb", "not a tree");
    let said = lab.fails(1, &[&with_initrd[..], &["--dtb", "own.dtb"]].concat());
    assert!(!said.contains("cannot be booted"), "{said}");
}

#[test]
fn a_module_with_white_space_in_its_path_is_refused() {
    let lab = bootable();
    lab.write("m/boot/a b", "x");
    lab.write(
        "m/boot/grub/grub.cfg",
        "menuentry 'Xen' --id xen {\n multiboot2 /vmlinuz-1\n module2 \"/a b\" quiet\n}\n",
    );
    let said = lab.fails(1, &["plan", "-q", "--root", "m", "--entry", "xen"]);
    assert!(said.contains("white space in its path"), "{said}");
}

/// Nothing says the command line of Debian's links.
#[test]
fn links_need_a_command_line() {
    let lab = bootable();
    super::link(&lab, "m/vmlinuz", "boot/vmlinuz-1");
    super::link(&lab, "m/initrd.img", "boot/initrd-1");
    fs::remove_file(lab.path().join("m/boot/grub/grub.cfg")).unwrap();
    let args = ["plan", "-q", "--root", "m", "--entry", "vmlinuz"];
    let said = lab.fails(1, &args);
    assert!(said.contains("nothing says its command line"), "{said}");
    let planned = plan(&lab, &["--entry", "default", "--cmdline", "own"]);
    assert_eq!(planned["cmdline"], "own");
    lab.succeeds(&[&args[..], &["--reuse-cmdline"]].concat());
}

#[test]
fn a_word_of_the_option_may_be_an_id() {
    let lab = bootable();
    let config = fs::read_to_string(lab.path().join("m/boot/grub/grub.cfg")).unwrap();
    let more = "menuentry 'Odd' --id default { linux /vmlinuz-1 odd\n}\n";
    lab.write("m/boot/grub/grub.cfg", format!("{config}{more}"));
    let ended = lab.run(&["plan", "--root", "m", "--entry", "default"]);
    assert!(
        ended.err.contains("`default` is the boot entry `two`")
            && ended
                .err
                .contains("warning: a boot entry has the id `default`"),
        "{ended:?}"
    );
    assert_eq!(plan(&lab, &["--entry", "Odd"])["cmdline"], "odd");
}

/// A configuration that is not read may name any entry as the default.
#[test]
fn no_default_is_made_up() {
    let lab = bootable();
    super::link(&lab, "m/vmlinuz", "boot/vmlinuz-1");
    let config = fs::read_to_string(lab.path().join("m/boot/grub/grub.cfg")).unwrap();
    let args = ["plan", "--root", "m", "--entry", "default"];
    lab.write("m/boot/grub/grub.cfg", vec![b'#'; 2 << 20]);
    let found = super::read(&lab);
    assert_eq!(super::marks(&found)[..2], [None, None], "{found:#}");
    let said = lab.fails(1, &args);
    assert!(
        said.contains(
            "which entry is the default is not known: /boot/grub/grub.cfg: the file is larger"
        ),
        "{said}"
    );
    let text = lab.succeeds(&["entries", "--root", "m"]);
    assert!(text.starts_with("default: not known"), "{text}");

    // Only GRUB knows what `probe` answers.
    let doubtful = "probe --set=default -u $root\n";
    lab.write("m/boot/grub/grub.cfg", format!("{config}{doubtful}"));
    let said = lab.fails(1, &args);
    assert!(said.contains("`default` depends on `probe`"), "{said}");
    lab.succeeds(&["plan", "-q", "--root", "m", "--entry", "one"]);

    lab.write("m/boot/grub/grub.cfg", format!("{config}set default=zz\n"));
    let ended = lab.run(&args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .err
            .contains("warning: /boot/grub/grub.cfg: the default `zz` is none of the entries"),
        "{ended:?}"
    );
}
