//! The command line as scripts rely on it: exit codes, messages, JSON fields.
//!
//! Nothing here loads, boots or unloads anything: those verbs are run only with
//! an option that they refuse.

#![expect(
    clippy::unwrap_used,
    reason = "a test may stop at what it did not expect"
)]

mod arm;
mod bad_input;
mod blob;
mod bytes;
mod carry;
#[path = "../common/mod.rs"]
mod common;
mod doctor;
mod entries;
mod firmware;
mod formats;
mod handover;
mod kexec;
mod kho_pools;
mod multiboot;
mod output;
mod refuse;
mod report;
mod status;
mod taken;
mod untrusted;
mod usage;
mod vmcore_dmesg;
mod warnings;
mod watchdog;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::bzimage::TinyBzImage;
use common::program::Ended;

/// A directory with kernels and machines in it, where the commands run.
struct Lab(tempfile::TempDir);

impl Lab {
    /// With a good kernel called `vmlinuz`.
    fn new() -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        lab.write("vmlinuz", TinyBzImage::direct().build());
        lab
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A machine called `name` that shows `iomem`, with what every machine has.
    fn machine(&self, name: &str, iomem: &str) {
        for (file, content) in [
            ("sys/kernel/osrelease", "6.12.0-tiny\n"),
            ("cmdline", "root=/dev/vda quiet\n"),
            ("cpuinfo", "flags\t\t: fpu\n"),
            ("meminfo", "MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n"),
            ("iomem", iomem),
        ] {
            self.write(&format!("{name}/proc/{file}"), content);
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rkexec"));
        command.args(args).current_dir(self.path());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    /// Runs what must fail, with nothing on standard output; returns stderr.
    #[track_caller]
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(ended.out, "", "{args:?}");
        ended.err
    }

    /// Runs what must succeed without a word on stderr; returns stdout.
    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!((ended.code, &*ended.err), (Some(0), ""), "{args:?}");
        ended.out
    }
}

/// A captured machine.
fn captured(name: &str) -> String {
    let machines: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/machines", name]
        .iter()
        .collect();
    machines.to_str().unwrap().to_owned()
}
