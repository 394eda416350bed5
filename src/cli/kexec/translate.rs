//! From kexec-tools' options to rkexec's own.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::request::{ImageType, Load, LoadOptions, ignored};
use crate::base::{Syscall, Target};
use crate::cli::options::{HotplugArg, LoadArgs, SyscallArg};
use crate::cmdline;

/// The load options of `rkexec load`, and lines about what is left out of them.
///
/// kexec_file_load honours few of them. kexec-tools drops the others silently, and
/// scripts pass them with either call. So they are dropped here, too, when that call
/// was asked for or is the only one that may load (`file_load_only`).
pub(super) fn load_args(load: &Load, file_load_only: bool) -> (LoadArgs, Vec<String>) {
    let (syscall, mut options) = (load.syscall, load.options.clone());
    let by_file = match syscall {
        Some(syscall) => syscall == Syscall::KexecFileLoad,
        None => file_load_only,
    };
    let notes = match by_file {
        true => without_what_needs_kexec_load(&mut options),
        false => Vec::new(),
    };
    // --append sets the line. It appends only with --reuse-cmdline.
    let line = options.command_line.map(one_line);
    let (cmdline, append) = match (line, options.reuse_command_line) {
        (Some(line), true) => (None, vec![line]),
        (line, _) => (line, Vec::new()),
    };
    let mut args = LoadArgs::of(&load.kernel);
    args.initrd = options.initrd.into_iter().collect();
    args.module = options.modules;
    args.wish = options.kind.and_then(ImageType::wish);
    args.cmdline = cmdline;
    args.reuse_cmdline = options.reuse_command_line;
    args.append = append;
    args.syscall = match syscall {
        None => SyscallArg::Auto,
        Some(Syscall::KexecLoad) => SyscallArg::KexecLoad,
        Some(Syscall::KexecFileLoad) => SyscallArg::KexecFileLoad,
    };
    args.mem_min = options.mem_min;
    // kexec-tools names the last address, rkexec the first beyond it.
    args.mem_max = options.mem_max.and_then(|last| last.checked_add(1));
    args.no_digest = options.no_checks;
    args.no_efi = options.no_efi;
    args.serial_port = options.serial;
    args.dtb = options.device_tree;
    args.file_flags = options.file_flags;
    args.panic = load.target == Target::Crash;
    args.hotplug = match options.hotplug {
        true => HotplugArg::On,
        false => HotplugArg::Auto,
    };
    (args, notes)
}

/// `text` with line ends turned into spaces, which separate parameters just as well:
/// `--append="$(cat /etc/cmdline.d/*)"` has many. Line ends inside of quotes stay,
/// because they are a part of the value.
fn one_line(text: OsString) -> OsString {
    OsString::from_vec(cmdline::one_line(text.as_bytes()).into())
}

/// Takes out of `options` what only kexec_load can do; a line for each.
fn without_what_needs_kexec_load(options: &mut LoadOptions) -> Vec<String> {
    let places = "with kexec_file_load the running kernel places the segments itself";
    let taken = [
        (options.mem_min.take().is_some(), "--mem-min", places),
        (options.mem_max.take().is_some(), "--mem-max", places),
        (
            std::mem::take(&mut options.no_checks),
            "--no-checks",
            "with kexec_file_load the running kernel always checks the loaded data",
        ),
        (
            std::mem::take(&mut options.no_efi),
            "--noefi",
            "with kexec_file_load the running kernel passes on its EFI itself",
        ),
        (
            options.serial.take().is_some(),
            "--serial",
            "with kexec_file_load nothing is printed on a serial port",
        ),
    ];
    let given = taken.into_iter().filter(|(given, ..)| *given);
    given.map(|(_, option, why)| ignored(option, why)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    fn load_args(
        syscall: Option<Syscall>,
        options: LoadOptions,
        file_load_only: bool,
    ) -> (LoadArgs, Vec<String>) {
        let load = Load {
            kernel: "/k".into(),
            target: Target::Normal,
            syscall,
            options,
        };
        super::load_args(&load, file_load_only)
    }

    #[test]
    fn append_sets_and_reuse_comes_first() {
        let line = |text: Option<&str>, reuse_command_line| {
            let options = LoadOptions {
                command_line: text.map(OsString::from),
                reuse_command_line,
                ..LoadOptions::default()
            };
            let (args, _) = load_args(None, options, false);
            (args.cmdline, args.reuse_cmdline, args.append)
        };
        assert_eq!(line(Some("a"), false), (Some("a".into()), false, vec![]));
        assert_eq!(line(Some("a"), true), (None, true, vec!["a".into()]));
        assert_eq!(line(None, true), (None, true, vec![]));
        assert_eq!(line(None, false), (None, false, vec![]));
    }

    #[test]
    fn lines_are_joined() {
        assert_eq!(one_line("a=\"b\nc\"\nd\n".into()), "a=\"b\nc\" d ");
    }

    fn everything() -> LoadOptions {
        LoadOptions {
            initrd: Some("/i".into()),
            modules: vec!["/m a b".into(), "/n".into()],
            device_tree: Some("/d".into()),
            mem_min: Some(1),
            mem_max: Some(0xfff),
            no_checks: true,
            no_efi: true,
            serial: Some(0x2f8),
            ..LoadOptions::default()
        }
    }

    #[test]
    fn every_wish_is_kept_for_kexec_load() {
        for syscall in [None, Some(Syscall::KexecLoad)] {
            let (args, notes) = load_args(syscall, everything(), syscall.is_some());
            assert_eq!(notes, [""; 0]);
            assert_eq!((args.mem_min, args.mem_max), (Some(1), Some(0x1000)));
            assert!(args.no_digest && args.no_efi);
            assert_eq!(args.serial_port, Some(0x2f8));
            assert_eq!(args.initrd, [PathBuf::from("/i")]);
            assert_eq!(args.module, ["/m a b", "/n"]);
            assert_eq!(args.dtb.as_deref(), Some(Path::new("/d")));
        }
        let options = LoadOptions {
            mem_max: Some(u64::MAX),
            ..LoadOptions::default()
        };
        assert_eq!(load_args(None, options, false).0.mem_max, None);
    }

    #[test]
    fn what_kexec_file_load_cannot_do_is_left_out_and_named() {
        for syscall in [None, Some(Syscall::KexecFileLoad)] {
            let (args, notes) = load_args(syscall, everything(), syscall.is_none());
            assert_eq!((args.mem_min, args.mem_max), (None, None));
            assert!(!args.no_digest && !args.no_efi && args.serial_port.is_none());
            // Both calls take an initrd; a tree that was asked for is not dropped.
            assert_eq!(args.initrd.len(), 1);
            assert!(args.dtb.is_some());
            let named: Vec<_> = notes
                .iter()
                .filter_map(|note| note.split(' ').next())
                .collect();
            assert_eq!(
                named,
                [
                    "--mem-min",
                    "--mem-max",
                    "--no-checks",
                    "--noefi",
                    "--serial"
                ]
            );
        }
        let (_, notes) = load_args(Some(Syscall::KexecFileLoad), LoadOptions::default(), false);
        assert_eq!(notes, [""; 0]);
    }
}
