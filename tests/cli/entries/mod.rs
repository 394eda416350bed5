//! `rkexec entries`: machines as distributions set them up, written from the documentation
//! of their boot loaders. A kernel is a file with one byte: nothing may read it.

mod captured;
mod grub;
mod hostile;
mod load;
mod ostree;
mod partitions;
mod systemd_boot;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Value, json};

use crate::Lab;

/// A root file system and one of /boot, as most distributions have them.
const MOUNTS: &str = "\
    28 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw\n\
    29 28 0:5 / /dev rw - devtmpfs devtmpfs rw\n\
    41 28 8:1 / /boot rw,relatime shared:30 - ext4 /dev/sda1 rw\n\
    42 41 8:15 / /boot/efi rw - vfat /dev/sda15 rw\n";

/// A machine `m` that runs `release` with `line`.
fn machine(release: &str, line: &str) -> Lab {
    let lab = Lab::new();
    lab.write("m/proc/cmdline", format!("{line}\n"));
    lab.write("m/proc/sys/kernel/osrelease", format!("{release}\n"));
    lab
}

fn link(lab: &Lab, path: &str, target: &str) {
    let path = lab.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    symlink(target, path).unwrap();
}

fn files(lab: &Lab, names: &[&str]) {
    for name in names {
        lab.write(&format!("m{name}"), "x");
    }
}

fn read(lab: &Lab) -> Value {
    serde_json::from_str(&lab.succeeds(&["entries", "--root", "m", "--output", "json"])).unwrap()
}

fn entries(found: &Value) -> &[Value] {
    found["entries"].as_array().unwrap()
}

fn texts(found: &Value, field: &str) -> Vec<String> {
    let texts = entries(found).iter().map(|entry| entry[field].as_str());
    texts.map(|text| text.unwrap_or("-").to_owned()).collect()
}

/// The numbers of the default, the one-shot and the current entry.
fn marks(found: &Value) -> [Option<usize>; 3] {
    ["default", "one_shot", "current"].map(|mark| {
        let is_marked = |entry: &Value| entry[mark] == json!(true);
        assert!(
            entries(found)
                .iter()
                .filter(|entry| is_marked(entry))
                .count()
                <= 1
        );
        entries(found).iter().position(is_marked)
    })
}

fn no_problems(found: &Value) {
    assert_eq!(found["problems"], json!([]), "{found:#}");
    for entry in entries(found) {
        assert_eq!(entry["problems"], json!([]), "{entry:#}");
    }
}

/// The head of a grub.cfg as grub-mkconfig makes it.
const GRUB_HEAD: &str = r#"
if [ -s $prefix/grubenv ]; then
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
else
   set default="${saved_entry}"
fi
if [ x"${feature_menuentry_id}" = xy ]; then
  menuentry_id_option="--id"
else
  menuentry_id_option=""
fi
export menuentry_id_option
"#;

fn grub_entry(title: &str, id: &str, boot: &str, version: &str) -> String {
    format!(
        "menuentry '{title}' --class os $menuentry_id_option '{id}' {{\n\
         \tsearch --no-floppy --fs-uuid --set=root --hint='hd0,gpt1' b00t\n\
         \tlinux\t{boot}/vmlinuz-{version} root=UUID=r007 ro quiet\n\
         \tinitrd\t{boot}/initrd.img-{version}\n}}\n"
    )
}

fn grubenv(lines: &str) -> String {
    format!("# GRUB Environment Block\n{lines}{}", "#".repeat(400))
}

/// Debian 12 with a file system for /boot.
fn debian() -> Lab {
    let lab = machine(
        "6.1.0-17-amd64",
        "BOOT_IMAGE=/vmlinuz-6.1.0-17-amd64 root=UUID=r007 ro quiet",
    );
    lab.write("m/proc/self/mountinfo", MOUNTS);
    link(&lab, "m/dev/disk/by-uuid/b00t", "../../sda1");
    link(&lab, "m/dev/disk/by-uuid/r007", "../../sda2");
    let advanced = ["6.1.0-18-amd64", "6.1.0-17-amd64"].map(|version| {
        let title = format!("Debian GNU/Linux, with Linux {version}");
        grub_entry(&title, &format!("gnulinux-{version}-advanced"), "", version)
    });
    lab.write(
        "m/boot/grub/grub.cfg",
        format!(
            "{GRUB_HEAD}{}submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced' {{\n{}}}\n",
            grub_entry("Debian GNU/Linux", "gnulinux-simple", "", "6.1.0-18-amd64"),
            advanced.concat(),
        ),
    );
    for version in ["6.1.0-18-amd64", "6.1.0-17-amd64"] {
        files(
            &lab,
            &[
                &format!("/boot/vmlinuz-{version}"),
                &format!("/boot/initrd.img-{version}"),
            ],
        );
    }
    lab
}

/// An EFI variable of systemd-boot.
fn variable(lab: &Lab, name: &str, value: &str) {
    let mut bytes = vec![6, 0, 0, 0];
    bytes.extend(value.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
    let vendor = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    lab.write(
        &format!("m/sys/firmware/efi/efivars/{name}-{vendor}"),
        bytes,
    );
}

/// Arch, with the EFI system partition mounted on /boot.
fn arch() -> Lab {
    let lab = machine(
        "6.9.1-arch1-1",
        "initrd=\\initramfs-linux.img root=PARTUUID=1 rw",
    );
    lab.write(
        "m/proc/self/mountinfo",
        "28 1 8:2 / / rw - ext4 /dev/sda2 rw\n41 28 8:1 / /boot rw - vfat /dev/sda1 rw\n",
    );
    lab.write(
        "m/boot/loader/loader.conf",
        "timeout 3\ndefault arch.conf\n",
    );
    for (name, initrd) in [
        ("arch", "initramfs-linux"),
        ("arch-fallback", "initramfs-linux-fallback"),
    ] {
        lab.write(
            &format!("m/boot/loader/entries/{name}.conf"),
            format!("title Arch Linux ({name})\nlinux /vmlinuz-linux\ninitrd /{initrd}.img\noptions root=PARTUUID=1\noptions rw\n"),
        );
        files(&lab, &[&format!("/boot/{initrd}.img")]);
    }
    files(&lab, &["/boot/vmlinuz-linux"]);
    lab
}

#[test]
fn extlinux_and_files_beside_it() {
    let lab = machine("6.1.0-18-arm", "root=/dev/sda1 ro");
    lab.write(
        "m/boot/extlinux/extlinux.conf",
        "default l0\nlabel l0\n menu label Debian\n linux ../vmlinuz-6.1.0-18-arm\n initrd /boot/initrd.img\n append root=/dev/sda1 ro\n\
         label gone\n linux /boot/vmlinuz-gone\n",
    );
    lab.write(
        "m/proc/self/mountinfo",
        "28 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
    );
    files(&lab, &["/boot/vmlinuz-6.1.0-18-arm", "/boot/initrd.img"]);
    let found = read(&lab);
    assert_eq!(texts(&found, "id"), ["l0", "gone"]);
    assert_eq!(texts(&found, "kernel")[0], "/boot/vmlinuz-6.1.0-18-arm");
    assert_eq!(marks(&found), [Some(0), None, Some(0)]);
    assert_eq!(
        entries(&found)[1]["problems"],
        json!(["/boot/vmlinuz-gone: no such file"])
    );
}

#[test]
fn debians_links_are_the_last_resort() {
    let lab = machine("6.1.0-18-amd64", "root=/dev/sda1 ro");
    lab.write("m/proc/self/mountinfo", MOUNTS);
    link(&lab, "m/vmlinuz", "boot/vmlinuz-6.1.0-18-amd64");
    link(&lab, "m/initrd.img", "boot/initrd.img-6.1.0-18-amd64");
    link(&lab, "m/vmlinuz.old", "boot/vmlinuz-6.1.0-17-amd64");
    files(
        &lab,
        &[
            "/boot/vmlinuz-6.1.0-18-amd64",
            "/boot/initrd.img-6.1.0-18-amd64",
        ],
    );
    let found = read(&lab);
    assert_eq!(found["problems"], json!([]), "{found:#}");
    assert_eq!(texts(&found, "id"), ["vmlinuz", "vmlinuz.old"]);
    assert_eq!(
        texts(&found, "version"),
        ["6.1.0-18-amd64", "6.1.0-17-amd64"]
    );
    assert_eq!(texts(&found, "cmdline"), ["-"; 2]);
    assert_eq!(marks(&found), [Some(0), None, None]);
    let problems = |number: usize| entries(&found)[number]["problems"].clone();
    let no_line = "nothing says its command line; --cmdline or --reuse-cmdline must";
    assert_eq!(problems(0), json!([no_line]));
    assert_eq!(
        problems(1),
        json!([
            "/boot/vmlinuz-6.1.0-17-amd64: no such file",
            "/initrd.img.old: no such file",
            no_line
        ])
    );
    fs::remove_file(lab.path().join("m/boot/initrd.img-6.1.0-18-amd64")).unwrap();
    let text = read(&lab)["entries"][0]["problems"].to_string();
    assert!(
        text.contains("/boot/initrd.img-6.1.0-18-amd64: no such file"),
        "{text}"
    );
}

/// openSUSE has /boot/initrd beside /boot/vmlinuz.
#[test]
fn opensuses_link_to_the_initrd() {
    let lab = machine("6.12.1-default", "root=/dev/sda2");
    lab.write("m/proc/self/mountinfo", format!("{MOUNTS}junk\n"));
    link(&lab, "m/boot/vmlinuz", "vmlinuz-6.12.1-default");
    link(&lab, "m/boot/initrd", "initrd-6.12.1-default");
    let initrd = "/boot/initrd-6.12.1-default";
    files(&lab, &["/boot/vmlinuz-6.12.1-default", initrd]);
    let found = read(&lab);
    assert_eq!(entries(&found)[0]["initrds"], json!([initrd]));
    // A line of the list of mounts that is no mount hides no entry.
    let problems = found["problems"].to_string();
    assert!(
        problems.contains("line 5: `junk` is not a mount"),
        "{problems}"
    );
    fs::remove_file(lab.path().join("m/boot/initrd")).unwrap();
    let problems = entries(&read(&lab))[0]["problems"].to_string();
    assert!(
        problems.contains("/boot/initrd.img: no such file"),
        "{problems}"
    );
}

/// What the scripts of Debian's kexec-tools loaded goes before its links, and not before a
/// boot loader.
#[test]
fn the_defaults_of_kexec_tools() {
    let lab = machine(
        "6.1.0-18-amd64",
        "BOOT_IMAGE=/vmlinuz-6.1.0-18-amd64 root=/dev/sda1 ro",
    );
    lab.write("m/proc/self/mountinfo", MOUNTS);
    link(&lab, "m/vmlinuz", "boot/vmlinuz-6.1.0-18-amd64");
    link(&lab, "m/initrd.img", "boot/initrd.img-6.1.0-18-amd64");
    let initrd = "/boot/initrd.img-6.1.0-18-amd64";
    files(&lab, &["/boot/vmlinuz-6.1.0-18-amd64", initrd]);
    let default =
        "LOAD_KEXEC=true\nKERNEL_IMAGE=\"/vmlinuz\"\nINITRD=\"/initrd.img\"\nAPPEND=\"\"\n";
    lab.write("m/etc/default/kexec", default);
    let found = read(&lab);
    no_problems(&json!({ "problems": found["problems"], "entries": [entries(&found)[0]] }));
    assert_eq!(texts(&found, "id"), ["kexec-tools", "vmlinuz"]);
    assert_eq!(texts(&found, "source")[0], "kexec-tools");
    assert_eq!(texts(&found, "kernel")[0], "/boot/vmlinuz-6.1.0-18-amd64");
    assert_eq!(entries(&found)[0]["initrds"], json!([initrd]));
    // An empty APPEND is the running command line, whatever the running kernel came from.
    assert_eq!(texts(&found, "cmdline")[0], "root=/dev/sda1 ro");
    assert_eq!(marks(&found), [Some(0), None, None]);

    lab.write("m/etc/default/kexec.d/10-more", "APPEND='own line'\n");
    lab.write("m/etc/default/kexec.d/20.dpkg-old", "APPEND=no\n");
    assert_eq!(texts(&read(&lab), "cmdline")[0], "own line");
    lab.write("m/etc/default/kexec.d/30", "APPEND=$LINE INITRD=gone\n");
    let found = read(&lab);
    assert_eq!(
        entries(&found)[0]["problems"],
        json!([
            "line 1: `APPEND=$LINE` is not followed",
            "gone: it is not an absolute path"
        ])
    );
    let text = lab.succeeds(&["entries", "--root", "m"]);
    assert!(
        text.contains("\nkexec-tools, /etc/default/kexec:\n  kexec-tools "),
        "{text}"
    );

    lab.write(
        "m/boot/grub/grub.cfg",
        grub_entry("Debian", "simple", "", "6.1.0-18-amd64"),
    );
    let found = read(&lab);
    assert_eq!(texts(&found, "id")[0], "Debian");
    assert_eq!(marks(&found)[0], Some(0));
}

#[test]
fn partitions_that_are_not_mounted_are_named() {
    let lab = debian();
    lab.write("m/boot/grub/grubenv", grubenv(""));
    for (name, numbers) in [("sda15", "8:15"), ("sdb1", "8:17")] {
        lab.write(
            &format!("m/sys/class/block/{name}/dev"),
            format!("{numbers}\n"),
        );
        let data = "E:ID_FS_TYPE=vfat\nE:ID_PART_ENTRY_TYPE=c12a7328-f81f-11d2-ba4b-00a0c93ec93b\n";
        lab.write(&format!("m/run/udev/data/b{numbers}"), data);
    }
    let found = read(&lab);
    let expected = "an EFI system partition that is not mounted: its entries are not seen";
    assert_eq!(
        found["problems"],
        json!([{ "file": "/dev/sdb1", "problem": expected }])
    );
}

#[test]
fn a_machine_without_entries() {
    let lab = machine("6.1.0", "quiet");
    assert_eq!(read(&lab)["entries"], json!([]));
    assert_eq!(
        lab.succeeds(&["entries", "--root", "m"]),
        "no boot entries were found\n\nproblems:\n  /boot: the directory of --root has no /boot, where boot loaders have their files\n"
    );
    fs::create_dir(lab.path().join("m/boot")).unwrap();
    assert_eq!(
        lab.succeeds(&["entries", "--root", "m"]),
        "no boot entries were found\n"
    );
}

#[test]
fn bad_files_hide_no_others_and_forge_no_line() {
    let lab = arch();
    lab.write(
        "m/boot/loader/entries/a.conf",
        b"title \xff\x1b[2J\nlinux /vmlinuz-linux\n",
    );
    lab.write("m/boot/loader/entries/b.conf", vec![b'#'; (1 << 20) + 1]);
    lab.write("m/boot/loader/entries/c.conf", "");
    fs::create_dir(lab.path().join("m/boot/loader/entries/d.conf")).unwrap();
    lab.write(
        "m/boot/grub/grub.cfg",
        b"menuentry '\xff' { linux /x\0 }\n}}}}\nif if if\n\xef\xbb\xbf",
    );
    let found = read(&lab);
    let text = found.to_string();
    for said in [
        "larger than 1 MiB",
        "names no kernel",
        "not UTF-8",
        "without `{`",
    ] {
        assert!(text.contains(said), "{said}: {found:#}");
    }
    assert!(texts(&found, "id").contains(&"arch.conf".to_owned()));
    let text = lab.succeeds(&["entries", "-v", "--root", "m"]);
    assert!(!text.contains('\x1b'), "{text}");
}

/// The names of the files in the watched directory that were opened or read. An open with
/// `O_PATH`, which only looks a name up, is none.
fn were_opened(watch: &Inotify) -> Vec<OsString> {
    let mut names = Vec::new();
    while let Ok(events) = watch.read_events() {
        names.extend(events.into_iter().filter_map(|event| event.name));
    }
    names
}

#[test]
fn a_thousand_entries_and_no_kernel_is_opened() {
    let lab = machine("6.1.0", "quiet");
    lab.write("m/proc/self/mountinfo", MOUNTS);
    let mut text = GRUB_HEAD.to_owned();
    for number in 0..1000 {
        let _ = writeln!(
            text,
            "menuentry 'n{number}' {{\n set root='hd0,gpt1'\n linux /vmlinuz-{number} a=$x{number} b\n \
             initrd /initrd.img-{number}\n}}"
        );
        lab.write(&format!("m/boot/vmlinuz-{number}"), "x");
        lab.write(&format!("m/boot/initrd.img-{number}"), "x");
    }
    lab.write("m/boot/grub/grub.cfg", text);
    lab.write("m/boot/grub/grubenv", grubenv("saved_entry=n999\n"));
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).unwrap();
    let boot = lab.path().join("m/boot");
    let opened = AddWatchFlags::IN_OPEN | AddWatchFlags::IN_ACCESS;
    watch.add_watch(&boot, opened).unwrap();
    let found = read(&lab);
    assert_eq!(were_opened(&watch), Vec::<OsString>::new());
    // The watch would tell it.
    for name in ["vmlinuz-7", "initrd.img-7"] {
        drop(fs::File::open(boot.join(name)).unwrap());
        assert_eq!(were_opened(&watch), [name]);
    }
    assert_eq!(entries(&found).len(), 1000);
    assert_eq!(entries(&found)[7]["initrds"], json!(["/boot/initrd.img-7"]));
    assert_eq!(marks(&found)[0], Some(999));
    assert_eq!(found["problems"], json!([]));
}

#[test]
fn options_that_have_no_place_here() {
    let lab = Lab::new();
    let said = lab.fails(2, &["entries", "x"]);
    assert!(said.contains("unexpected argument"), "{said}");
}
