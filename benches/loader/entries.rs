//! How long `rkexec entries` takes on a machine with as many entries as it reads.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use rkexec::entries::MAX_ENTRIES;
use serde_json::Value;

use crate::lab::Kernel;
use crate::measure;

const ROUNDS: usize = 21;
const MOUNTS: &str =
    "28 1 8:2 / / rw - ext4 /dev/sda2 rw\n41 28 8:1 / /boot rw - ext4 /dev/sda1 rw\n";

/// A grub.cfg with all entries in one submenu, as grub-mkconfig writes them.
fn grub(root: &Path) -> Result<()> {
    let mut text = "set default=\"all>n500\"\nsubmenu 'All' --id all {\n".to_owned();
    for number in 0..MAX_ENTRIES {
        writeln!(
            text,
            "menuentry 'Linux {number}' --class os --id 'n{number}' {{\n\
             insmod ext2\nset root='hd0,gpt1'\n\
             if [ x$feature_platform_search_hint = xy ]; then\n\
             search --no-floppy --fs-uuid --set=root --hint-bios=hd0,gpt1 UUID\nfi\n\
             echo 'Loading Linux'\nlinux /vmlinuz-{number} root=/dev/sda2 ro quiet\n\
             initrd /initrd-{number}\n}}"
        )?;
    }
    text.push_str("}\n");
    fs::create_dir_all(root.join("boot/grub"))?;
    Ok(fs::write(root.join("boot/grub/grub.cfg"), text)?)
}

/// A file of the Boot Loader Specification for each entry.
fn files(root: &Path) -> Result<()> {
    let directory = root.join("boot/loader/entries");
    fs::create_dir_all(&directory)?;
    for number in 0..MAX_ENTRIES {
        let text = format!(
            "title Linux {number}\nversion 6.{number}\nsort-key os\nlinux /vmlinuz-{number}\n\
             initrd /initrd-{number}\noptions root=/dev/sda2 ro quiet\n"
        );
        fs::write(directory.join(format!("{number}.conf")), text)?;
    }
    Ok(())
}

pub(crate) fn run(rkexec: &Path, _kernel: &Kernel) -> Result<()> {
    println!("entries: {MAX_ENTRIES} of them");
    let makers: [(&str, fn(&Path) -> Result<()>); 2] =
        [("in one grub.cfg", grub), ("in as many files", files)];
    for (what, make) in makers {
        let root = measure::directory()?;
        let root = root.path();
        make(root)?;
        fs::create_dir_all(root.join("proc/self"))?;
        fs::write(root.join("proc/self/mountinfo"), MOUNTS)?;
        for number in 0..MAX_ENTRIES {
            for name in ["vmlinuz", "initrd"] {
                fs::write(root.join(format!("boot/{name}-{number}")), "x")?;
            }
        }
        let mut command = Command::new(rkexec);
        command
            .args(["entries", "--output", "json", "--root"])
            .arg(root);
        let found: Value = serde_json::from_slice(&command.output()?.stdout)?;
        let entries = found["entries"].as_array().map_or(0, Vec::len);
        ensure!(entries == MAX_ENTRIES, "{entries} entries were found");
        let times: Result<Vec<_>> = (0..ROUNDS).map(|_| measure::time(&mut command)).collect();
        let times = times?;
        measure::show(what, &times);
        println!(
            "entries, {MAX_ENTRIES} of them {what}: {:.3} s (wanted: below 0.2)",
            measure::median(&times).as_secs_f64()
        );
    }
    Ok(())
}
