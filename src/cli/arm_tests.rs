//! `arm` with a fake kernel.

use super::*;
use std::path::Path;

fn config(more: &str) -> Config {
    let text = format!("kernel = '/boot/vmlinuz-{{release}}'\n{more}");
    Config::parse(&text, Path::new("f.toml")).unwrap()
}

#[test]
fn what_makes_arming_impossible() {
    let why = |minimum: &str, crash, crash_size| {
        let config = config(&format!("minimum_reservation = '{minimum}'"));
        let loaded = Loaded {
            crash,
            crash_size,
            ..Loaded::default()
        };
        possible(&config, Environment::Usual, &loaded)
            .err()
            .map(|error| error.why)
    };
    assert_eq!(why("0", Some(false), Some(64 << 20)), None);
    assert_eq!(why("64M", Some(true), Some(64 << 20)), None);
    let none = "no memory is reserved for a crash kernel";
    assert_eq!(why("0", Some(false), Some(0)).as_deref(), Some(none));
    assert_eq!(why("0", Some(false), None).as_deref(), Some(none));
    assert!(
        why("0", None, None)
            .unwrap()
            .contains("does not support crash")
    );
    let small = why("192M", Some(false), Some(64 << 20)).unwrap();
    assert!(
        small.contains("64 MiB") && small.contains("192 MiB"),
        "{small}"
    );
    let dom0 = Environment::XenPv { dom0: Some(true) };
    let none = Loaded::default();
    let refused = possible(&config(""), dom0, &none).unwrap_err();
    assert!(refused.way_out.contains("Xen's own command line"));
}

use crate::load::fake::{FakeKernel, Told};

/// A machine with a reservation, its fake kernel, and a configuration.
struct Lab {
    dir: tempfile::TempDir,
    context: Context,
    kernel: FakeKernel,
    told: Told,
}

impl Lab {
    fn new() -> Self {
        use crate::testing::host::{host, tell_for_a_dump};
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("proc/sys/kernel/osrelease", "6.12.0-tiny\n"),
            ("proc/sys/kernel/random/boot_id", "this-boot\n"),
            ("sys/kernel/kexec_crash_loaded", "0\n"),
            ("sys/kernel/kexec_crash_size", "268435456\n"),
        ] {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let iomem = "00001000-0009fbff : System RAM
00100000-3fffffff : System RAM
  10000000-1fffffff : Crash kernel
";
        let mut host = host(iomem);
        tell_for_a_dump(&mut host);
        host.total_ram = 1 << 30;
        host.loaded.crash = Some(false);
        let lab = Self {
            context: Context {
                root: crate::host::Root::at(dir.path()),
                ..Context::plain()
            },
            kernel: FakeKernel::new(host),
            told: Told::default(),
            dir,
        };
        lab.write_kernel(0x1_0000);
        lab
    }

    fn write_kernel(&self, size: usize) {
        let kernel = crate::testing::bzimage::TinyBzImage::new(size).build();
        std::fs::write(self.dir.path().join("vmlinuz-6.12.0-tiny"), kernel).unwrap();
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// /boot/one and /boot/two, for boot entries.
    fn write_two_kernels(&self) {
        for (name, size) in [("one", 0x1_0000), ("two", 0x2_0000)] {
            let kernel = crate::testing::bzimage::TinyBzImage::new(size).build();
            self.write(&format!("boot/{name}"), &kernel);
        }
    }

    /// Does `act` with a configuration that has `more`; why it is loaded, and the calls.
    fn go(&self, act: Act, more: &str) -> (Option<String>, Vec<String>) {
        let kernel = self.dir.path().join("vmlinuz-{release}");
        self.carry_out(act, &format!("kernel = '{}'\n{more}", kernel.display()))
    }

    /// The same with the configuration `text`.
    fn carry_out(&self, act: Act, text: &str) -> (Option<String>, Vec<String>) {
        let arming = Arming {
            context: &self.context,
            session: Session::new(&self.kernel, &self.context.root, &self.told),
            config: Config::parse(text, Path::new("f.toml")).unwrap(),
        };
        let wanted = arming.alone(act).unwrap();
        (wanted.because, self.kernel.calls())
    }
}

#[test]
fn what_is_loaded_already_is_loaded_no_second_time() {
    let lab = Lab::new();
    let call = || vec!["kexec_load crash".to_owned()];
    let because = |why: &str| Some(why.to_owned());
    let none = because("no crash kernel was loaded");
    for look in [Act::Look, Act::Check] {
        assert_eq!(lab.go(look, ""), (none.clone(), vec![]));
    }
    assert_eq!(lab.go(Act::LoadIfNeeded, ""), (none, call()));
    for act in [Act::Look, Act::Check, Act::LoadIfNeeded] {
        assert_eq!(lab.go(act, ""), (None, vec![]));
    }
    assert_eq!(lab.go(Act::Load, ""), (None, call()));
    // Each of these makes another load, and only one.
    let line = "[cmdline]\nline = 'mine'";
    for (size, more, why) in [
        (
            0x1_0000,
            line,
            "the command line has changed since the load",
        ),
        (0x2_0000, line, "the kernel has changed since the load"),
        (
            0x2_0000,
            "digest = false",
            "the command line has changed since the load",
        ),
        (
            0x2_0000,
            "syscall = 'kexec_file_load'",
            "the system call has changed since the load",
        ),
    ] {
        lab.write_kernel(size);
        assert_eq!(lab.go(Act::Check, more), (because(why), vec![]));
        let (said, calls) = lab.go(Act::LoadIfNeeded, more);
        assert_eq!((said, calls.len()), (because(why), 1), "{more}");
        assert_eq!(lab.go(Act::LoadIfNeeded, more), (None, vec![]));
    }
    // What another program loaded is not known.
    std::fs::remove_file(lab.dir.path().join("run/rkexec/crash.json")).unwrap();
    let why = "which crash kernel was loaded before is not recorded";
    assert_eq!(lab.go(Act::Check, ""), (because(why), vec![]));
}

/// Another default entry is another crash kernel. The entry's command line is not asked.
#[test]
fn the_kernel_of_a_boot_entry_is_loaded() {
    let lab = Lab::new();
    let write = |path: &str, text: &[u8]| lab.write(path, text);
    lab.write_two_kernels();
    let config = |default: &str| {
        let text = format!(
            "DEFAULT {default}\nLABEL one\nLINUX /boot/one\nAPPEND of=entry\nLABEL two\nLINUX /boot/two\n"
        );
        write("boot/extlinux.conf", text.as_bytes());
    };
    let arm = |act| lab.carry_out(act, "kernel = 'entry'");
    let because = |why: &str| Some(why.to_owned());
    config("one");
    let (why, calls) = arm(Act::LoadIfNeeded);
    assert_eq!(why, because("no crash kernel was loaded"));
    assert_eq!(calls.len(), 1);
    assert_eq!(arm(Act::LoadIfNeeded), (None, vec![]));
    config("two");
    let changed = because("the kernel has changed since the load");
    assert_eq!(arm(Act::Check).0, changed);
    let (why, calls) = arm(Act::LoadIfNeeded);
    assert_eq!((why, calls.len()), (changed.clone(), 1));
    let one = "kernel = 'entry'\nentry = 'one'";
    assert_eq!(lab.carry_out(Act::Look, one).0, changed);

    let arming = Arming {
        context: &lab.context,
        session: Session::new(&lab.kernel, &lab.context.root, &lab.told),
        config: Config::parse(one, Path::new("f.toml")).unwrap(),
    };
    let wanted = arming.alone(Act::Look).unwrap();
    let line = shown(&wanted.cmdline).to_string();
    assert!(
        line.contains("nr_cpus=1") && !line.contains("of=entry"),
        "{line}"
    );
    assert_eq!(wanted.to_json()["entry"], "one");
    assert!(wanted.line().contains("boot/one of the boot entry `one`: "));
    config("gone");
    std::fs::remove_file(lab.dir.path().join("boot/one")).unwrap();
    let error = arming.alone(Act::LoadIfNeeded).err().unwrap();
    assert!(format!("{error:#}").contains("`one` cannot be booted"));
    assert_eq!(lab.kernel.calls(), [""; 0]);
}

/// An entry for the next boot alone is no crash kernel.
#[test]
fn an_entry_that_is_started_once_is_not_the_default() {
    let lab = Lab::new();
    let write = |path: &str, bytes: &[u8]| lab.write(path, bytes);
    lab.write_two_kernels();
    write(
        "boot/grub/grub.cfg",
        b"load_env
if [ \"${next_entry}\" ] ; then
  set default=\"${next_entry}\"
  set next_entry=
  save_env next_entry
  set boot_once=true
else
  set default=one
fi
menuentry 'One' --id one { linux /boot/one }
menuentry 'Two' --id two { linux /boot/two }
",
    );
    let mut block = b"# GRUB Environment Block\nnext_entry=two\n".to_vec();
    block.resize(1024, b'#');
    write("boot/grub/grubenv", &block);
    let once = boot_entry::of_name(&lab.context, "default", &[Part::Cmdline]).unwrap();
    assert_eq!((&once.entry.id[..], once.once().is_empty()), ("two", false));
    let arming = Arming {
        context: &lab.context,
        session: Session::new(&lab.kernel, &lab.context.root, &lab.told),
        config: Config::parse("kernel = 'entry'", Path::new("f.toml")).unwrap(),
    };
    assert_eq!(arming.alone(Act::Look).unwrap().entry.unwrap(), "one");
}

/// The kernel updates what is loaded when memory and CPUs change, and does not know of
/// another default entry.
#[test]
fn another_default_entry_is_found_where_the_kernel_updates_what_is_loaded() {
    let lab = Lab::new();
    let write = |path: &str, bytes: &[u8]| lab.write(path, bytes);
    lab.write_two_kernels();
    let labels = "LABEL one\nLINUX /boot/one\nLABEL two\nLINUX /boot/two\n";
    let default = |name: &str| {
        let text = format!("DEFAULT {name}\n{labels}");
        write("boot/extlinux.conf", text.as_bytes());
    };
    default("one");
    let arming = |text: &str| Arming {
        context: &lab.context,
        session: Session::new(&lab.kernel, &lab.context.root, &lab.told),
        config: Config::parse(text, Path::new("f.toml")).unwrap(),
    };
    arming("kernel = 'entry'").alone(Act::Load).unwrap();
    write("sys/kernel/kexec_crash_loaded", b"1\n");
    write("sys/devices/system/memory/crash_hotplug", b"1\n");
    let assess = |text: &str| arming(text).assess().unwrap();
    assert!(matches!(assess("kernel = 'entry'"), State::Fits(_)));
    default("two");
    assert!(matches!(assess("kernel = 'entry'"), State::Stale(_)));
    assert!(matches!(assess("kernel = '/boot/one'"), State::Fits(_)));
}
