//! Boot entries on partitions that nobody has mounted: `rkexec` reads them, loads from
//! them, and changes neither the machine's mounts nor the disk.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::initramfs::{self, Archive};
use crate::lab::{self, Kernel};
use crate::qemu::Guest;
use crate::trip::{self, host_file};

const MIB: u64 = 1 << 20;
/// The partitions: where they begin, how large they are, and their GPT types.
const PARTITIONS: [(u64, u64, &str); 3] = [
    (MIB, 40 * MIB, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"),
    (41 * MIB, 8 * MIB, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709"),
    (49 * MIB, 8 * MIB, "0FC63DAF-8483-4772-8E79-3D69D8477DE4"),
];
/// What drivers of file systems need. There is no list of aliases for the kernel's own
/// questions.
const MODULES: [&str; 7] = [
    "virtio_pci",
    "virtio_blk",
    "crc32c_generic",
    "ext4",
    "nls_cp437",
    "nls_ascii",
    "vfat",
];

/// `sfdisk` makes a table with these partitions in `disk`.
fn partition(disk: &Path) -> Result<()> {
    let mut script = "label: gpt\nsector-size: 512\n".to_owned();
    for (start, size, kind) in PARTITIONS {
        script += &format!("start={}, size={}, type={kind}\n", start / 512, size / 512);
    }
    let input = disk.with_extension("sfdisk");
    fs::write(&input, script)?;
    let mut command = Command::new("/sbin/sfdisk");
    command
        .args(["--no-reread", "--no-tell-kernel", "-q"])
        .arg(disk);
    lab::output(command.stdin(Stdio::from(fs::File::open(input)?)))?;
    Ok(())
}

/// An ext4 of partition `number` that holds `tree`.
fn ext4(number: usize, tree: &Path, image: &Path) -> Result<()> {
    let mut command = Command::new("/sbin/mke2fs");
    command
        .args(["-q", "-t", "ext4", "-d"])
        .arg(tree)
        .arg(image);
    lab::output(command.arg(format!("{}k", PARTITIONS[number].1 / 1024)))?;
    Ok(())
}

/// A disk with an EFI system partition that holds `files`, a root file system, and one that
/// /etc/fstab has for /boot, whose journal was not written back.
fn disk(dir: &Path, files: &[(&str, &[u8])]) -> Result<std::path::PathBuf> {
    let (esp, root, boot) = (dir.join("esp"), dir.join("root"), dir.join("boot"));
    let sectors = (PARTITIONS[0].1 / 512).to_string();
    let format = ["-C", "-T", &sectors, "-h", "16", "-s", "63", "::"];
    lab::output(Command::new("mformat").arg("-i").arg(&esp).args(format))?;
    for directory in ["::loader", "::loader/entries"] {
        lab::output(Command::new("mmd").arg("-i").arg(&esp).arg(directory))?;
    }
    for (path, content) in files {
        let file = dir.join("file");
        fs::write(&file, content)?;
        let mut command = Command::new("mcopy");
        command.arg("-i").arg(&esp).arg(&file);
        lab::output(command.arg(format!("::{path}")))?;
    }

    let tree = dir.join("tree");
    for name in [
        "bin", "lib", "lib64", "proc", "sys", "dev", "tmp", "run", "etc", "efi", "boot",
    ] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::write(tree.join("etc/passwd"), "nobody:x:65534:65534::/:/bin/sh\n")?;
    fs::write(tree.join("etc/fstab"), "/dev/vda3 /boot ext4 noauto 0 2\n")?;
    ext4(1, &tree, &root)?;
    let tree = dir.join("boot-tree");
    fs::create_dir_all(tree.join("extlinux"))?;
    fs::write(tree.join("vmlinuz-old"), "x")?;
    fs::write(
        tree.join("extlinux/extlinux.conf"),
        "label old\n linux /vmlinuz-old\n append root=/dev/vda2\n",
    )?;
    ext4(2, &tree, &boot)?;
    // A mount that recovers the journal takes this mark away: it writes to the disk.
    let recovery = ["-w", "-R", "feature needs_recovery"];
    lab::output(Command::new("/sbin/debugfs").args(recovery).arg(&boot))?;

    let path = dir.join("disk");
    let file = fs::File::create(&path)?;
    file.set_len(64 * MIB)?;
    partition(&path)?;
    for ((start, ..), part) in PARTITIONS.into_iter().zip([esp, root, boot]) {
        file.write_all_at(&fs::read(part)?, start)?;
    }
    Ok(path)
}

const SCRIPT: &str = "
modules virtio_pci virtio_blk crc32c_generic ext4 nls_cp437 nls_ascii vfat
mkdir /disk
mount -t ext4 -o ro /dev/vda2 /disk
for dir in bin lib lib64 proc sys dev tmp; do
  mount --bind /$dir /disk/$dir
done
mount -t tmpfs tmpfs /disk/run
cat /proc/mounts >/tmp/before
sha256sum /dev/vda >/tmp/disk-before
try user chroot /disk su nobody -c 'rkexec entries --output json'
try entries chroot /disk rkexec entries --output json
try text chroot /disk rkexec entries
try load chroot /disk rkexec load --entry tiny
ls /disk/efi /disk/boot | record seen
cat /proc/mounts | diff /tmp/before - | record mounts
sync
echo 3 >/proc/sys/vm/drop_caches
sha256sum /dev/vda | diff /tmp/disk-before - | record disk
try exec rkexec exec
";

#[test]
fn partitions_that_are_not_mounted_are_read_and_loaded_from() -> Result<()> {
    let (first, next) = (Kernel::new("6.12")?, Kernel::small()?);
    let line = trip::chain_cmdline("2");
    let entry = format!("title Tiny\nlinux /vmlinuz-tiny\ninitrd /initrd-tiny\noptions {line}\n");
    let dir = tempfile::tempdir()?;
    let initrd = initramfs::initrd(&next, Archive::new())?;
    let disk = disk(
        dir.path(),
        &[
            ("/loader/entries/tiny.conf", entry.as_bytes()),
            ("/vmlinuz-tiny", &host_file(&next.image())?),
            ("/initrd-tiny", &initrd),
        ],
    )?;
    let drive = format!("file={},format=raw,if=none,id=disk", disk.display());
    let mut guest = Guest::new("entries", &first)
        .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
        .script(SCRIPT);
    for (path, bytes) in first.modules(&MODULES)? {
        guest = guest.file(&format!("lib/modules/{}/{path}", first.release), &bytes);
    }
    let outcome = guest.run()?;
    let before = outcome.stage(1)?;

    let found: Value = serde_json::from_str(before.text("entries.out")?)?;
    let mounts = json!([
        { "device": "/dev/vda3", "point": "/boot" },
        { "device": "/dev/vda1", "point": "/efi" },
    ]);
    ensure!(found["own_mounts"] == mounts, "{found:#}");
    ensure!(found["problems"] == json!([]), "{found:#}");
    let entries = found["entries"].as_array().context("no entries")?;
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| (entry["id"].as_str(), entry["kernel"].as_str()))
        .collect();
    let expected = [
        (Some("tiny.conf"), Some("/efi/vmlinuz-tiny")),
        (Some("old"), Some("/boot/vmlinuz-old")),
    ];
    ensure!(seen == expected, "{found:#}");
    let text = before.text("text.out")?;
    ensure!(text.contains("/dev/vda1 on /efi"), "{text}");

    // Without privilege nothing is mounted, and it is said.
    let user: Value = serde_json::from_str(before.text("user.out")?)?;
    let expected = json!([{
        "file": "/dev/vda3",
        "problem": "the partition of /boot in /etc/fstab that is not mounted: its entries are not seen",
    }]);
    ensure!(user["problems"] == expected, "{user:#}");
    ensure!(user["entries"] == json!([]), "{user:#}");

    let said = before.text("load.err")?;
    ensure!(
        said.contains("/dev/vda1 is not mounted: it is read"),
        "{said}"
    );
    for unchanged in ["mounts", "disk", "seen"] {
        let changed = before.text(unchanged)?;
        let names = if unchanged == "seen" {
            "/disk/boot:\n\n/disk/efi:"
        } else {
            ""
        };
        ensure!(changed.trim() == names, "{unchanged}: {changed}");
    }

    let after = outcome.stage(2)?;
    ensure!(after.text("release")? == next.release);
    ensure!(after.text("cmdline")? == line);
    Ok(())
}
