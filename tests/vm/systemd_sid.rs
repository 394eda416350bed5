//! `systemctl kexec` of Debian sid's systemd (262), as init of a guest. Since 261
//! systemctl loads by itself and the `kexec` program is its second choice; at the
//! end systemd makes the jump itself. What Debian 12's 252 does is in debian.rs.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::{Guest, Outcome};
use crate::trip::{self, host_file};

/// Takes over from /init: a root file system of sid's files.
const INIT: &str = "#!/bin/sh
set -e
mkdir /new
mount -t tmpfs tmpfs /new
cp -a /sid/usr /boot /etc /test /new
ln -s usr/lib usr/lib64 usr/sbin usr/bin /new
cp /bin/busybox /new/usr/bin/busybox
cp /bin/rkexec /new/usr/sbin/rkexec
for fs in dev proc sys; do
  mkdir /new/$fs
  mount --move /$fs /new/$fs
done
mkdir -p /new/run /new/tmp /new/var/tmp
chroot /new busybox --install -s /usr/bin
exec switch_root /new /usr/lib/systemd/systemd
";

const TARGET: &str = "
[Unit]
Wants=check.service
";

const CHECK_SERVICE: &str = "
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh /test/check
";

/// Runs the script of the test; where it does not end in the next kernel, that is
/// seen.
const CHECK: &str = "
export PATH=/usr/bin:/usr/sbin
stage=1
exec 9<>/dev/ttyS1
. /etc/functions
systemctl --version | head -n 1 | record version
(
  set -eu
  . /test/script
)
echo $? | record end
poweroff -f
";

/// The `kexec` of that system: rkexec, and its calls are recorded.
const KEXEC: &str = "#!/bin/sh
stage=1
. /etc/functions
echo \"$*\" | record kexec-called
exec -a kexec /usr/sbin/rkexec \"$@\"
";

/// The unit that loads, and what it runs.
const LOAD_SERVICE: &[u8] = include_bytes!("../../examples/systemd/rkexec-load.service");
const PRELOAD: &[u8] = include_bytes!("../../examples/preload");

/// Boot entries where systemctl looks for them, without an EFI system partition.
const ESP: &str = "export SYSTEMD_ESP_PATH=/boot SYSTEMD_RELAX_ESP_CHECKS=1\n";

/// Where the packages of Debian have their libraries.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// sid's systemd, with the units that a shutdown needs.
fn system(guest: Guest) -> Result<Guest> {
    let tree = lab::part("systemd-sid")?;
    let mut guest = guest;
    let mut files = vec![
        "usr/lib64/ld-linux-x86-64.so.2".to_owned(),
        "usr/bin/systemctl".to_owned(),
    ];
    for program in ["systemd", "systemd-executor", "systemd-shutdown"] {
        files.push(format!("usr/lib/systemd/{program}"));
    }
    for dir in [LIBRARIES.to_owned(), format!("{LIBRARIES}/systemd")] {
        for entry in fs::read_dir(tree.join(&dir))? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if name.contains(".so") && entry.path().is_file() {
                files.push(format!("{dir}/{name}"));
            }
        }
    }
    for unit in [
        "basic.target",
        "final.target",
        "kexec.target",
        "shutdown.target",
        "sysinit.target",
        "systemd-kexec.service",
        "umount.target",
    ] {
        files.push(format!("usr/lib/systemd/system/{unit}"));
    }
    for file in files {
        let content = fs::read(tree.join(&file)).with_context(|| file.clone())?;
        guest = guest.executable(&format!("sid/{file}"), &content);
    }
    Ok(guest
        .executable("sid/usr/sbin/kexec", KEXEC.as_bytes())
        .executable("sid/usr/lib/rkexec/preload", PRELOAD)
        .file("etc/systemd/system/rkexec-load.service", LOAD_SERVICE)
        .executable("test/init", INIT.as_bytes())
        .file("test/check", CHECK.as_bytes())
        .file("etc/systemd/system/default.target", TARGET.as_bytes())
        .file("etc/systemd/system/check.service", CHECK_SERVICE.as_bytes()))
}

/// A guest with sid's systemd that runs `script`. There is one boot entry, whose
/// command line ends in `by=entry`.
fn run(name: &str, script: &str) -> Result<Outcome> {
    let kernel = Kernel::new("6.12")?;
    let image = host_file(&kernel.image())?;
    let initrd = initramfs::initrd(&kernel, Archive::new())?;
    let entry = format!(
        "title Lab\nlinux /vmlinuz\ninitrd /initrd\noptions {} by=entry\n",
        trip::chain_cmdline("2")
    );
    let request = trip::request(
        "/boot/initrd",
        &format!("{} by=rkexec", trip::chain_cmdline("2")),
        "",
    );
    let script = format!(
        "load='rkexec load {}'\n{script}",
        request.replace('\'', "\"")
    )
    .replace("/next/vmlinuz", "/boot/vmlinuz");
    let guest = Guest::new(name, &kernel)
        .file("boot/vmlinuz", &image)
        .file("boot/initrd", &initrd)
        .file("boot/loader/entries/lab.conf", entry.as_bytes())
        .file("test/script", script.as_bytes());
    let outcome = system(guest)?.run()?;
    let version = outcome.stage_of_any_end(1)?.text("version")?;
    let number = version.split_whitespace().nth(1).unwrap_or_default();
    ensure!(
        number.parse::<u32>().is_ok_and(|number| number >= 261),
        "an older systemd: {version}"
    );
    Ok(outcome)
}

/// Whether the next kernel came up with `word` on its command line.
fn arrived(outcome: &Outcome, word: &str) -> Result<()> {
    let cmdline = outcome.stage_of_any_end(2)?.text("cmdline")?;
    ensure!(
        cmdline.ends_with(word),
        "{cmdline:?}, not …{word}: {}",
        outcome.story()
    );
    Ok(())
}

/// An image that is loaded is what it boots, though there is an entry; and nothing
/// of it goes through the `kexec` program.
#[test]
fn an_image_that_rkexec_loaded_is_what_systemctl_kexec_boots() -> Result<()> {
    let script = format!("{ESP}eval \"try load $load\"\nsystemctl kexec\nsleep 60");
    let outcome = run("sid-loaded", &script)?;
    let before = outcome.stage_of_any_end(1)?;
    ensure!(before.text("load.status")? == "0");
    ensure!(before.text("kexec-called").is_err(), "kexec was called");
    arrived(&outcome, "by=rkexec")
}

/// Nothing is loaded: it loads the default boot entry by kexec_file_load itself.
#[test]
fn without_an_image_it_loads_the_boot_entry_itself() -> Result<()> {
    let script = format!("{ESP}refused kexec systemctl kexec\nsleep 60");
    let outcome = run("sid-entry", &script)?;
    let before = outcome.stage_of_any_end(1)?;
    ensure!(before.text("kexec-called").is_err(), "kexec was called");
    arrived(&outcome, "by=entry")
}

/// Where its own call fails (here the kernel is open for writing), it runs `kexec`
/// with a command line that rkexec takes.
#[test]
fn where_its_own_load_fails_it_runs_kexec() -> Result<()> {
    let script = format!("{ESP}exec 8>>/boot/vmlinuz\nrefused kexec systemctl kexec\nsleep 60");
    let outcome = run("sid-fallback", &script)?;
    let called = outcome.stage_of_any_end(1)?.text("kexec-called")?;
    ensure!(
        called.starts_with("--load /boot/vmlinuz") || called.starts_with("--load \"/boot"),
        "{called}"
    );
    arrived(&outcome, "by=entry")
}

/// The service loads when it is started, and again when the machine goes into the kexec: the
/// entry as it is then is what is booted.
#[test]
fn what_rkexec_load_service_loads_is_what_it_boots() -> Result<()> {
    // /boot is a file system, as an EFI system partition is.
    let script = format!(
        "{ESP}mount --bind /boot /boot
         try start systemctl start rkexec-load.service
         cat /sys/kernel/kexec_loaded | record loaded
         sed -i s/by=entry/by=service/ /boot/loader/entries/lab.conf
         systemctl kexec
         sleep 60"
    );
    let outcome = run("sid-service", &script)?;
    let before = outcome.stage_of_any_end(1)?;
    ensure!(before.text("start.status")? == "0", "{}", outcome.story());
    ensure!(before.text("loaded")? == "1");
    ensure!(before.text("kexec-called").is_err(), "kexec was called");
    arrived(&outcome, "by=service")
}
